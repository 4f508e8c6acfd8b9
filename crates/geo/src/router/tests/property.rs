//! Whatever happens, a plan is one.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 6] = ["us-east", "eu-central", "ap-south", "sa-east", "attic", "basement"];

#[derive(Debug, Clone)]
enum Step {
    Observe(u64),
    Say(Health),
    Drain(bool),
    Pass(u64),
    Begin,
    End(Outcome),
}

fn step() -> impl Strategy<Value = Step> {
    let health = prop_oneof![Just(Health::Healthy), Just(Health::Probing), Just(Health::Unhealthy)];
    let outcome = prop_oneof![
        3 => Just(Outcome::Success),
        3 => Just(Outcome::Failure),
        1 => Just(Outcome::Overloaded),
        1 => Just(Outcome::Ignored),
        1 => Just(Outcome::Cancelled),
    ];
    prop_oneof![
        1 => (0u64..400).prop_map(Step::Observe),
        1 => health.prop_map(Step::Say),
        1 => any::<bool>().prop_map(Step::Drain),
        1 => prop_oneof![0u64..3_000, 0u64..900_000].prop_map(Step::Pass),
        // Mostly calls, so that regions are put out and brought back by count, too.
        4 => Just(Step::Begin),
        4 => outcome.prop_map(Step::End),
    ]
}

/// What a region's health must be, kept the simple way.
#[derive(Clone, Default)]
struct Model {
    said: Option<Health>,
    drained: bool,
    out: bool,
    in_a_row: u32,
}

impl Model {
    fn health(&self) -> Health {
        let counted = match (self.out, self.in_a_row) {
            (false, _) => Health::Healthy,
            (true, 0) => Health::Unhealthy,
            (true, _) => Health::Probing,
        };
        counted.max(self.said.unwrap_or(Health::Healthy))
    }

    fn say(&mut self, health: Health) {
        self.said = Some(health);
        if self.out && health != Health::Unhealthy {
            (self.out, self.in_a_row) = (false, 0);
        }
    }

    fn end(&mut self, outcome: Outcome) {
        match (outcome, self.out) {
            (Outcome::Success, false) | (Outcome::Failure, true) => self.in_a_row = 0,
            (Outcome::Failure, false) if self.in_a_row == 2 => (self.out, self.in_a_row) = (true, 0),
            (Outcome::Success, true) if self.in_a_row == 1 => (self.out, self.in_a_row) = (false, 0),
            (Outcome::Success | Outcome::Failure, _) => self.in_a_row += 1,
            _ => {}
        }
    }
}

/// A call under way, and whether its region has gone down since.
struct Call {
    call: InFlight,
    late: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_plan_and_what_it_leaves_out_are_all_regions_once_and_a_plan_is_never_empty(
        seed in any::<u64>(),
        steps in proptest::collection::vec((0usize..6, step()), 0..120),
    ) {
        let builder = Router::builder().from("eu-west").seed(seed);
        let router = NAMES.iter().fold(builder, |builder, name| builder.region(name)).build().unwrap();
        let mut now = Instant::now();
        let mut models = vec![Model::default(); 6];
        let mut calls: HashMap<usize, Vec<Call>> = HashMap::new();
        for (at, step) in steps {
            let region = id(NAMES[at]);
            let before = models[at].health();
            match step {
                Step::Observe(rtt) => router.observe(&region, ms(rtt), now).unwrap(),
                Step::Say(health) => {
                    models[at].say(health);
                    router.set_health(&region, health, now).unwrap();
                }
                Step::Drain(on) => {
                    models[at].drained = on;
                    router.drain(&region, on, now).unwrap();
                }
                Step::Pass(passed) => now += ms(passed),
                Step::Begin => {
                    let call = Call { call: router.begin(&region, now).unwrap(), late: false };
                    calls.entry(at).or_default().push(call);
                }
                Step::End(outcome) => {
                    if let Some(Call { call, late }) = calls.get_mut(&at).and_then(Vec::pop) {
                        call.end(outcome, now);
                        if !late {
                            models[at].end(outcome);
                        }
                    }
                }
            }
            if before != Health::Unhealthy && models[at].health() == Health::Unhealthy {
                calls.entry(at).or_default().iter_mut().for_each(|call| call.late = true);
            }
            check(&router, &models, &calls, now)?;
        }
    }
}

proptest! {
    #[test]
    fn keys_are_sorted_however_far_they_are_out_of_place(
        mut keys in proptest::collection::vec(any::<u128>(), 0..200),
        moves in proptest::collection::vec((any::<prop::sample::Index>(), any::<u128>()), 0..4),
    ) {
        for at_all in [true, false] {
            if !at_all {
                keys.sort_unstable();
                for (at, key) in &moves {
                    if !keys.is_empty() {
                        let at = at.index(keys.len());
                        keys[at] = *key;
                    }
                }
            }
            let mut expected = keys.clone();
            expected.sort_unstable();
            super::super::core::sort_nearly_sorted(&mut keys);
            prop_assert_eq!(&keys, &expected);
        }
    }
}

fn check(
    router: &Router,
    models: &[Model],
    calls: &HashMap<usize, Vec<Call>>,
    now: Instant,
) -> Result<(), TestCaseError> {
    let plan = router.plan(now);
    let place = |name: &RegionId| NAMES.iter().position(|known| *known == name.as_str()).unwrap();
    let mut all: Vec<usize> = plan.iter().map(|candidate| place(&candidate.region)).collect();
    all.extend(plan.left_out().iter().map(place));
    all.sort_unstable();
    prop_assert_eq!(all, (0..6).collect::<Vec<_>>(), "each region once");

    prop_assert!(plan.len() >= 1);
    let down = |at: usize| models[at].health() == Health::Unhealthy;
    if (0..6).all(down) {
        prop_assert_eq!((plan.len(), plan.first().standing), (1, Standing::LastResort));
        prop_assert!(plan.is_last_resort());
    } else {
        prop_assert!(plan.left_out().iter().all(|region| down(place(region))));
        for candidate in plan.iter() {
            let model = &models[place(&candidate.region)];
            let expected = match (model.health(), model.drained) {
                (_, true) => Standing::Drained,
                (Health::Healthy, false) => Standing::Healthy,
                _ => Standing::Probing,
            };
            prop_assert_eq!(candidate.standing, expected);
        }
    }
    // Healthy before probing before drained. The first may be held on to or chosen by load; the rest are in order of
    // their round trips, the unknown after the known.
    prop_assert!(plan.iter().is_sorted_by_key(|candidate| candidate.standing));
    let ordered = router.order(now);
    let rtts: HashMap<&RegionId, Duration> =
        plan.iter().map(|candidate| (&candidate.region, candidate.rtt.unwrap_or(Duration::MAX))).collect();
    let standings: HashMap<&RegionId, Standing> =
        plan.iter().map(|candidate| (&candidate.region, candidate.standing)).collect();
    prop_assert!(ordered[1..].is_sorted_by_key(|region| (standings[region], rtts[region])));

    let explanation = router.explain(now);
    prop_assert_eq!(explanation.regions.len(), 6);
    for explained in &explanation.regions {
        let at = place(&explained.region);
        prop_assert_eq!(explained.health, models[at].health());
        prop_assert_eq!(explained.place.is_none(), plan.left_out().contains(&explained.region));
        prop_assert_eq!(explained.in_flight as usize, calls.get(&at).map_or(0, Vec::len));
    }
    Ok(())
}
