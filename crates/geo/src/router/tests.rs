mod rtt;

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::Basis;
use rtt::{AWS, IBM, Table};

fn id(name: &str) -> RegionId {
    RegionId::new(name).unwrap()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A router in the city at `from`, over the table's other cities.
fn router(table: &Table, from: usize) -> Router {
    let (name, latitude, longitude) = table.cities[from];
    let mut builder = Router::builder().from_at(name, latitude, longitude);
    for (to, (name, latitude, longitude)) in table.cities.into_iter().enumerate() {
        if to != from {
            builder = builder.region_at(name, latitude, longitude);
        }
    }
    builder.build().unwrap()
}

fn router_in(table: &Table, city: &str) -> (Router, usize) {
    let from = table.cities.iter().position(|(name, ..)| *name == city).unwrap();
    (router(table, from), from)
}

fn measure(router: &mut Router, table: &Table, from: usize, samples: usize, now: Instant) {
    for (to, (name, ..)) in table.cities.iter().enumerate().filter(|(to, _)| *to != from) {
        for _ in 0..samples {
            router.observe(&id(name), ms(table.rtt_ms[from][to]), now).unwrap();
        }
    }
}

fn order(router: &Router, now: Instant) -> Vec<String> {
    router.order(now).iter().map(ToString::to_string).collect()
}

fn rtts_in_order(router: &Router, table: &Table, from: usize, now: Instant) -> Vec<u64> {
    let column = |name: &str| table.cities.iter().position(|(city, ..)| *city == name).unwrap();
    order(router, now).iter().map(|name| table.rtt_ms[from][column(name)]).collect()
}

fn three() -> Router {
    Router::builder()
        .from("us-east")
        .region("us-east")
        .region("eu-central")
        .region("ap-south")
        .build()
        .unwrap()
}

#[test]
fn distance_alone_picks_the_fastest_region_23_times_of_26() {
    let now = Instant::now();
    let mut right = 0;
    for table in [&AWS, &IBM] {
        for from in 0..13 {
            let rtts = rtts_in_order(&router(table, from), table, from, now);
            right += u32::from(rtts[0] == *rtts.iter().min().unwrap());
        }
    }
    assert_eq!(right, 23);
}

#[test]
fn canada_is_closest_to_northern_virginia_by_distance_and_by_round_trip() {
    let now = Instant::now();
    let (mut router, from) = router_in(&AWS, "n-virginia");
    assert_eq!(order(&router, now)[0], "canada");
    assert_eq!(router.plan(now).first().basis, Basis::Distance);
    measure(&mut router, &AWS, from, 4, now);
    assert_eq!(router.plan(now).first().to_string(), "canada (14 ms, measured)");
}

#[test]
fn mumbais_second_choice_becomes_london_once_round_trips_are_observed() {
    let now = Instant::now();
    let (mut router, from) = router_in(&IBM, "mumbai");
    assert_eq!(order(&router, now)[..2], ["chennai", "osaka"]);
    measure(&mut router, &IBM, from, 4, now);
    assert_eq!(order(&router, now)[..2], ["chennai", "london"]);
}

#[test]
fn sydney_turns_from_sao_paulo_to_dallas_though_it_is_farther() {
    let now = Instant::now();
    let (mut router, from) = router_in(&IBM, "sydney");
    let before = |router: &Router, a: &str, b: &str| {
        let order = order(router, now);
        order.iter().position(|name| name == a) < order.iter().position(|name| name == b)
    };
    assert!(before(&router, "sao-paulo", "dallas"));
    measure(&mut router, &IBM, from, 4, now);
    assert!(before(&router, "dallas", "sao-paulo"));
}

#[test]
fn after_samples_the_order_is_that_of_the_true_round_trips_everywhere() {
    let now = Instant::now();
    for table in [&AWS, &IBM] {
        for from in 0..13 {
            let mut router = router(table, from);
            measure(&mut router, table, from, 4, now);
            let rtts = rtts_in_order(&router, table, from, now);
            assert!(rtts.is_sorted(), "from {}: {rtts:?}", table.cities[from].0);
        }
    }
}

#[test]
fn old_measurements_give_way_to_distance_again() {
    let now = Instant::now();
    let (mut router, from) = router_in(&IBM, "mumbai");
    let by_distance = router.order(now);
    measure(&mut router, &IBM, from, 4, now);
    assert_ne!(router.order(now + ms(600_000)), by_distance);
    assert_eq!(router.order(now + ms(1_200_000)), by_distance);
}

#[test]
fn the_catalogue_places_regions_by_name() {
    let now = Instant::now();
    let router = three();
    assert_eq!(
        router.plan(now).to_string(),
        "us-east (12 ms, by distance); eu-central (110 ms, by distance); ap-south (205 ms, by distance)"
    );
}

#[test]
fn a_region_of_unknown_place_comes_after_the_known_until_it_is_measured() {
    let now = Instant::now();
    let mut router = Router::builder().from("us-east").region("basement").region("ap-south").build().unwrap();
    assert_eq!(
        router.plan(now).to_string(),
        "ap-south (205 ms, by distance); basement (place unknown, not measured)"
    );
    router.observe(&id("basement"), ms(1), now).unwrap();
    assert_eq!(order(&router, now), ["basement", "ap-south"]);
    assert_eq!(order(&router, now + ms(1_200_000)), ["ap-south", "basement"], "the measurement has aged out");
}

#[test]
fn a_router_in_an_unknown_place_goes_by_round_trips_alone() {
    let now = Instant::now();
    let mut router =
        Router::builder().from("basement").region("us-east").region("eu-central").build().unwrap();
    assert!(router.plan(now).iter().all(|candidate| candidate.basis == Basis::Nothing));
    router.observe(&id("us-east"), ms(90), now).unwrap();
    assert_eq!(order(&router, now), ["us-east", "eu-central"]);
    router.observe(&id("eu-central"), ms(20), now).unwrap();
    assert_eq!(order(&router, now), ["eu-central", "us-east"]);
}

#[test]
fn an_unhealthy_region_is_left_out_until_it_is_healthy() {
    let now = Instant::now();
    let mut router = three();
    router.set_health(&id("us-east"), Health::Unhealthy).unwrap();
    assert_eq!(order(&router, now), ["eu-central", "ap-south"]);
    router.set_health(&id("us-east"), Health::Healthy).unwrap();
    assert_eq!(order(&router, now), ["us-east", "eu-central", "ap-south"]);
}

#[test]
fn a_region_that_goes_down_loses_its_measurements() {
    let now = Instant::now();
    let mut router = three();
    for _ in 0..4 {
        router.observe(&id("ap-south"), ms(2), now).unwrap();
    }
    assert_eq!(order(&router, now)[0], "ap-south");
    router.set_health(&id("ap-south"), Health::Unhealthy).unwrap();
    router.set_health(&id("ap-south"), Health::Healthy).unwrap();
    assert_eq!(order(&router, now)[0], "us-east");
}

#[test]
fn a_drained_region_comes_last_but_before_nobody() {
    let now = Instant::now();
    let mut router = three();
    router.drain(&id("us-east"), true).unwrap();
    assert_eq!(order(&router, now), ["eu-central", "ap-south", "us-east"]);
    for region in ["eu-central", "ap-south"] {
        router.set_health(&id(region), Health::Unhealthy).unwrap();
    }
    let plan = router.plan(now);
    assert_eq!(plan.to_string(), "us-east (12 ms, by distance, drained)");
    assert!(!plan.is_last_resort());
    router.drain(&id("us-east"), false).unwrap();
    assert_eq!(router.plan(now).first().standing, Standing::Healthy);
}

#[test]
fn if_all_look_unhealthy_the_best_is_named_and_flagged() {
    let now = Instant::now();
    let mut router = three();
    router.drain(&id("us-east"), true).unwrap();
    for region in ["us-east", "eu-central", "ap-south"] {
        router.set_health(&id(region), Health::Unhealthy).unwrap();
    }
    let plan = router.plan(now);
    assert!(plan.is_last_resort());
    assert_eq!(
        plan.to_string(),
        "eu-central (110 ms, by distance, last resort: all regions look unhealthy)",
        "the closest is drained"
    );
}

#[test]
fn equally_good_regions_keep_their_order() {
    let now = Instant::now();
    let same = |names: [&str; 2]| {
        let builder = Router::builder().from("us-east");
        names.into_iter().fold(builder, |builder, name| builder.region(name)).build().unwrap()
    };
    assert_eq!(order(&same(["us-east-1", "eastus"]), now), ["eastus", "us-east-1"]);
    assert_eq!(order(&same(["eastus", "us-east-1"]), now), ["eastus", "us-east-1"]);
}

#[test]
fn a_region_may_be_added_later_but_not_twice() {
    let now = Instant::now();
    let mut router = three();
    let dublin = crate::catalog::find("eu-west").unwrap().location;
    router.add(id("eu-west"), Some(dublin)).unwrap();
    assert_eq!(order(&router, now)[1], "eu-west");
    let error = router.add(id("eu-west"), None).unwrap_err();
    assert_eq!(error.to_string(), "`region`: eu-west is given twice; name each region once");
    assert_eq!(router.regions().count(), 4);
}

#[test]
fn an_unknown_region_is_refused_with_the_known_ones() {
    let mut router = three();
    let mars = id("mars");
    let message = "unknown region mars; the router knows us-east, eu-central, ap-south";
    assert_eq!(router.observe(&mars, ms(1), Instant::now()).unwrap_err().to_string(), message);
    assert_eq!(router.set_health(&mars, Health::Unhealthy).unwrap_err().to_string(), message);
    assert_eq!(router.drain(&mars, true).unwrap_err().to_string(), message);
}

#[test]
fn the_explanation_shows_what_each_place_rests_on() {
    let now = Instant::now();
    let mut router = three();
    router.add(id("basement"), None).unwrap();
    router.observe(&id("eu-central"), ms(88), now).unwrap();
    router.set_health(&id("ap-south"), Health::Unhealthy).unwrap();
    router.drain(&id("us-east"), true).unwrap();
    let explanation = router.explain(now + ms(3_000));
    let lines = [
        " 1. eu-central: healthy, 105 ms (25 % measured); 6549 km suggest 110 ms; 88 ms over 1 sample, 3 s ago",
        " 2. basement: healthy, place unknown, not measured",
        " 3. us-east: healthy, drained, 12 ms (by distance); 0 km suggest 12 ms",
        " -. ap-south: unhealthy, 205 ms (by distance); 12854 km suggest 205 ms",
    ];
    assert_eq!(explanation.to_string().lines().collect::<Vec<_>>(), lines);
    assert_eq!(explanation.regions[2].place, Some((3, Standing::Drained)));
}

#[test]
fn extreme_round_trips_neither_panic_nor_hide_a_region() {
    let now = Instant::now();
    let mut router = three();
    for rtt in [Duration::ZERO, Duration::MAX, Duration::MAX, Duration::MAX, Duration::MAX] {
        router.observe(&id("us-east"), rtt, now).unwrap();
    }
    assert_eq!(order(&router, now), ["eu-central", "ap-south", "us-east"]);
    assert!(!router.explain(now).to_string().is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Observe(u64),
    Health(bool),
    Drain(bool),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u64..400).prop_map(Step::Observe),
        any::<bool>().prop_map(Step::Health),
        any::<bool>().prop_map(Step::Drain),
        (0u64..900_000).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn a_plan_holds_the_healthy_once_each_in_order_and_is_never_empty(
        steps in proptest::collection::vec((0usize..6, step()), 0..120),
    ) {
        let names = ["us-east", "eu-central", "ap-south", "sa-east", "attic", "basement"];
        let builder = Router::builder().from("eu-west");
        let mut router = names.iter().fold(builder, |builder, name| builder.region(name)).build().unwrap();
        let mut now = Instant::now();
        let mut healthy = [true; 6];
        let mut drained = [false; 6];
        for (at, step) in steps {
            let region = id(names[at]);
            match step {
                Step::Observe(rtt) => router.observe(&region, ms(rtt), now).unwrap(),
                Step::Health(up) => {
                    healthy[at] = up;
                    let health = if up { Health::Healthy } else { Health::Unhealthy };
                    router.set_health(&region, health).unwrap();
                }
                Step::Drain(on) => {
                    drained[at] = on;
                    router.drain(&region, on).unwrap();
                }
                Step::Pass(passed) => now += ms(passed),
            }
            let plan: Vec<Candidate> = router.plan(now).into_iter().collect();
            let planned: Vec<RegionId> = plan.iter().map(|candidate| candidate.region.clone()).collect();
            prop_assert_eq!(&planned, &router.order(now));

            let place = |candidate: &Candidate| names.iter().position(|name| *name == candidate.region.as_str()).unwrap();
            if healthy.contains(&true) {
                let mut places: Vec<usize> = plan.iter().map(place).collect();
                places.sort_unstable();
                let expected: Vec<usize> = (0..6).filter(|at| healthy[*at]).collect();
                prop_assert_eq!(places, expected);
                for candidate in &plan {
                    let expected = if drained[place(candidate)] { Standing::Drained } else { Standing::Healthy };
                    prop_assert_eq!(candidate.standing, expected);
                }
            } else {
                prop_assert_eq!(plan.len(), 1);
                prop_assert_eq!(plan[0].standing, Standing::LastResort);
            }
            // Drained after the rest; within each, the unknown after the known, which are in order.
            let key = |candidate: &Candidate| (candidate.standing, candidate.rtt.unwrap_or(Duration::MAX));
            prop_assert!(plan.is_sorted_by_key(key));
            prop_assert_eq!(router.explain(now).regions.len(), 6);
        }
    }
}
