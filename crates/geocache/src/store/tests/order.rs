//! Any order of any steps: the rules of merging hold however they are mixed.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;

/// One thing that happens to a store.
#[derive(Debug, Clone)]
enum Step {
    Merge(Record, Option<Duration>),
    Clear(&'static str, Stamp),
    Bury(&'static str, Bar),
    Floor(Bar),
    Local(&'static str),
    RemoveLocal(&'static str),
    Advance(Duration),
}

const KEYS: [&str; 5] = ["a1", "a2", "a3", "b1", "b2"];
const NAMESPACES: [&str; 3] = ["", "a", "b1"];

impl Step {
    fn apply(&self, store: &NodeStore, clock: &ManualClock) {
        match self {
            Self::Merge(record, left) => {
                store.merge(record, *left);
            }
            Self::Clear(namespace, stamp) => {
                store.clear(namespace.as_bytes(), *stamp);
            }
            Self::Bury(key, bar) => bury(store, key, *bar),
            Self::Floor(bar) => store.raise_floor(*bar),
            Self::Local(key) => {
                store.put(key.as_bytes(), payload("local"), Life::Default, Condition::Any);
            }
            Self::RemoveLocal(key) => {
                store.remove(key.as_bytes(), Condition::Any);
            }
            Self::Advance(by) => clock.advance(*by),
        }
    }
}

fn any_stamp() -> impl Strategy<Value = Stamp> {
    (1..9_u64, 1..4_u64).prop_map(|(ms, origin)| stamp(ms, origin))
}

fn any_key() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(&KEYS[..])
}

fn any_record() -> impl Strategy<Value = Record> {
    let value = proptest::sample::select(&["", "u", "v", "vv"][..]);
    prop_oneof![
        3 => (any_key(), value, any_stamp()).prop_map(|(key, value, stamp)| put(key, value, stamp)),
        1 => (any_key(), any_stamp()).prop_map(|(key, stamp)| remove(key, stamp)),
    ]
}

fn any_merge() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_record().prop_map(|record| Step::Merge(record, FOREVER)),
        // Dead on arrival, under an origin of its own: one stamp is either dead or not.
        1 => (any_key(), 1..9_u64).prop_map(|(key, ms)| Step::Merge(put(key, "dead", stamp(ms, 9)), NO_LIFE)),
        1 => (proptest::sample::select(&NAMESPACES[..]), any_stamp())
            .prop_map(|(namespace, stamp)| Step::Clear(namespace, stamp)),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let bar = || (any_stamp(), any::<bool>()).prop_map(|(stamp, strict)| Bar { stamp, strict });
    prop_oneof![
        6 => any_merge(),
        2 => (any_record(), 1..50_u64)
            .prop_map(|(record, ms)| Step::Merge(record, Some(Duration::from_millis(ms)))),
        1 => (any_key(), bar()).prop_map(|(key, bar)| Step::Bury(key, bar)),
        1 => bar().prop_map(Step::Floor),
        1 => any_key().prop_map(Step::Local),
        1 => any_key().prop_map(Step::RemoveLocal),
        1 => (1..40_u64).prop_map(|ms| Step::Advance(Duration::from_millis(ms))),
    ]
}

/// The merge rule without order: what a set of steps leaves of a key.
fn outcome(steps: &[Step], key: &str) -> Option<(Stamp, Bytes)> {
    let clears = steps.iter().filter_map(|step| match step {
        Step::Clear(namespace, stamp) => key.starts_with(namespace).then_some(*stamp),
        _ => None,
    });
    let cleared = clears.max().unwrap_or(Stamp::ZERO);
    let records = steps.iter().filter_map(|step| match step {
        Step::Merge(record, left) if record.key == key && record.stamp > cleared => {
            let value = match &record.op {
                Op::Put(value) if left.is_none() => Some(value.bytes.clone()),
                _ => None,
            };
            Some((record.stamp, value.is_none(), value))
        }
        _ => None,
    });
    let (stamp, _, value) = records.max()?;
    value.map(|value| (stamp, value))
}

fn held(store: &NodeStore) -> BTreeMap<&'static str, (Stamp, Bytes)> {
    let held = KEYS.iter().filter_map(|key| {
        store.peek(key.as_bytes(), |stored, _| (*key, (stored.stamp, stored.bytes.clone())))
    });
    held.collect()
}

proptest! {
    #[test]
    fn any_order_of_the_same_records_ends_in_the_same_state(
        steps in proptest::collection::vec(any_merge(), 0..30),
        seed in any::<u64>(),
    ) {
        let expected: BTreeMap<_, _> =
            KEYS.iter().filter_map(|key| outcome(&steps, key).map(|held| (*key, held))).collect();
        let (in_order, clock) = timed(100);
        steps.iter().for_each(|step| step.apply(&in_order, &clock));
        prop_assert_eq!(held(&in_order), expected.clone());

        // Each twice, in an order of its own.
        let mut shuffled: Vec<_> = steps.iter().chain(&steps).cloned().collect();
        let mut state = seed;
        for n in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            shuffled.swap(n, (state >> 33) as usize % (n + 1));
        }
        let (out_of_order, clock) = timed(100);
        shuffled.iter().for_each(|step| step.apply(&out_of_order, &clock));
        prop_assert_eq!(held(&out_of_order), expected);
    }

    #[test]
    fn the_stamp_of_a_key_never_goes_back_however_tiny_the_bounds(
        steps in proptest::collection::vec(any_step(), 0..60),
        capacity in 1..4_usize,
        graves_max in 0..3_usize,
    ) {
        let clock = ManualClock::new();
        let store = of(&Layout { clock: Some(clock.clone().into()), ..layout(capacity, graves_max) });
        let mut seen: HashMap<&str, Stamp> = HashMap::new();
        for step in &steps {
            step.apply(&store, &clock);
            // A remove or a clear that was processed raises what may be held above it.
            let raised: Vec<(&str, Stamp)> = match step {
                Step::Merge(record, left) if *left == NO_LIFE || record.op == Op::Remove => {
                    KEYS.iter().filter(|key| record.key == **key).map(|key| (*key, record.stamp)).collect()
                }
                Step::Clear(namespace, stamp) => {
                    KEYS.iter().filter(|key| key.starts_with(namespace)).map(|key| (*key, *stamp)).collect()
                }
                _ => Vec::new(),
            };
            for (key, stamp) in raised {
                let seen = seen.entry(key).or_default();
                *seen = stamp.max(*seen);
            }
            for (key, (stamp, _)) in held(&store) {
                let before = seen.entry(key).or_default();
                prop_assert!(stamp >= *before, "{} went from {} back to {} by {:?}", key, before, stamp, step);
                *before = stamp;
            }
            prop_assert!(store.stats().entries <= capacity);
            prop_assert!(store.stats().graves <= graves_max);
        }
    }

    #[test]
    fn a_store_rebuilt_from_pages_is_the_same(
        steps in proptest::collection::vec(any_merge(), 0..40),
        budget_bytes in 1..400_usize,
    ) {
        let (from, clock) = timed(100);
        steps.iter().for_each(|step| step.apply(&from, &clock));
        let (to, _) = timed(100);
        for (namespace, stamp) in from.cleared() {
            to.clear(&namespace, stamp);
        }
        for page in pages(&from, budget_bytes) {
            for record in &page.records {
                to.merge(record, FOREVER);
            }
            for grave in page.graves {
                to.bury(grave);
            }
        }
        prop_assert_eq!(held(&to), held(&from));
        // What the one refuses, the other refuses.
        for step in &steps {
            step.apply(&to, &clock);
        }
        prop_assert_eq!(held(&to), held(&from));
    }
}
