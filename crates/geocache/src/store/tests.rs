use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use cache_core::ManualClock;
use proptest::prelude::*;
use replication::{
    Hlc, Op, Origin, Record, Stamp, Ttl, Value,
    message::Grave,
    replica::{Merged, Store, StorePage},
    wire,
};

use super::*;
use crate::value::Codec;

const FOREVER: Option<Duration> = None;
const NO_LIFE: Option<Duration> = Some(Duration::ZERO);

fn layout(capacity: usize, graves_max: usize) -> Layout {
    Layout {
        cache: "geocache".to_owned(),
        capacity: Some(capacity),
        capacity_bytes: None,
        shards: None,
        default_ttl: None,
        remote_depth: 0.0,
        graves_max,
        history: 0,
        clock: Some(ManualClock::new().into()),
        time: Time::Process,
    }
}

fn store(capacity: usize, graves_max: usize) -> Arc<NodeStore> {
    of(&layout(capacity, graves_max))
}

fn of(layout: &Layout) -> Arc<NodeStore> {
    NodeStore::new(layout, Arc::new(Outbox::new(Origin(1), 1 << 20))).expect("a valid layout")
}

fn timed(capacity: usize) -> (Arc<NodeStore>, ManualClock) {
    let clock = ManualClock::new();
    (of(&Layout { clock: Some(clock.clone().into()), ..layout(capacity, 100) }), clock)
}

fn stamp(ms: u64, origin: u64) -> Stamp {
    Stamp { hlc: Hlc::from_ms(ms), origin: Origin(origin) }
}

fn put(key: &str, value: &str, stamp: Stamp) -> Record {
    let value = Value { bytes: Bytes::copy_from_slice(value.as_bytes()), ..Value::default() };
    Record { stamp, key: Bytes::copy_from_slice(key.as_bytes()), op: Op::Put(value), previous: None }
}

fn remove(key: &str, stamp: Stamp) -> Record {
    Record { stamp, key: Bytes::copy_from_slice(key.as_bytes()), op: Op::Remove, previous: None }
}

fn text(store: &NodeStore, key: &str) -> Option<String> {
    store.peek(key.as_bytes(), |stored, _| String::from_utf8_lossy(&stored.bytes).into_owned())
}

fn payload(value: &str) -> Payload {
    Payload { bytes: Bytes::copy_from_slice(value.as_bytes()), flags: 0, codec: Codec::Raw, weight: None }
}

fn position(store: &NodeStore, key: &str) -> u64 {
    store.cache.position(key.as_bytes())
}

fn bury(store: &NodeStore, key: &str, bar: Bar) {
    store.bury(Grave { position: position(store, key), bar });
}

/// Every page, from the first on, with a budget that makes many of them.
fn pages(store: &NodeStore, budget_bytes: usize) -> Vec<StorePage> {
    let mut pages = Vec::new();
    let mut next = Some(0);
    while let Some(position) = next {
        let page = store.page(position, budget_bytes, 1_000);
        next = page.hi;
        pages.push(page);
    }
    pages
}

#[test]
fn an_older_remote_stamp_is_ignored() {
    let store = store(100, 100);
    assert_eq!(store.merge(&put("k", "new", stamp(2, 7)), FOREVER), Merged::Applied);
    assert_eq!(store.merge(&put("k", "old", stamp(1, 9)), FOREVER), Merged::Older);
    assert_eq!(store.merge(&put("k", "new", stamp(2, 7)), FOREVER), Merged::Older, "a duplicate is no news");
    assert_eq!(text(&store, "k").as_deref(), Some("new"));
}

#[test]
fn a_local_write_wins_over_whatever_the_node_has_seen() {
    type See = fn(&NodeStore);
    const AHEAD: Stamp = Stamp { hlc: Hlc::from_ms(1 << 45), origin: Origin(7) };
    let sights: [(&str, See); 6] = [
        ("a put", |store| assert_eq!(store.merge(&put("k", "remote", AHEAD), FOREVER), Merged::Applied)),
        ("a remove", |store| assert_eq!(store.merge(&remove("k", AHEAD), FOREVER), Merged::Applied)),
        ("a grave", |store| bury(store, "k", Bar::above(AHEAD))),
        ("a floor", |store| store.raise_floor(Bar::above(AHEAD))),
        ("a cover", |store| store.cover(u64::MAX, Bar::above(AHEAD))),
        ("a clear", |store| assert_eq!(store.clear(b"", AHEAD), Merged::Applied)),
    ];
    for (what, see) in sights {
        let store = store(100, 100);
        see(&store);
        store.put(b"k", payload("local"), Life::Default, Condition::Any);
        assert_eq!(text(&store, "k").as_deref(), Some("local"), "{what}");
        assert!(store.peek(b"k", |stored, _| stored.stamp).expect("held") > AHEAD, "{what}");
    }
}

#[test]
fn what_other_regions_write_leaves_what_is_used_here() {
    let held = |remote_depth| {
        let store = of(&Layout { remote_depth, ..layout(100, 100) });
        for n in 0..100 {
            store.put(format!("local-{n}").as_bytes(), payload("v"), Life::Default, Condition::Any);
        }
        for n in 0..1_000 {
            store.merge(&put(&format!("remote-{n}"), "v", stamp(1, 7)), FOREVER);
        }
        (0..100).filter(|n| text(&store, &format!("local-{n}")).is_some()).count()
    };
    assert_eq!(held(0.0), 0, "off, they are writes like any");
    assert_eq!(held(0.5), 50);
}

#[test]
fn a_key_that_lives_again_has_no_grave() {
    let store = store(100, 100);
    store.merge(&remove("remote", stamp(1, 7)), FOREVER);
    store.remove(b"local", Condition::Any);
    assert_eq!(store.stats().graves, 2);
    store.merge(&put("remote", "v", stamp(2, 7)), FOREVER);
    store.put(b"local", payload("v"), Life::Default, Condition::Any);
    assert_eq!(store.stats().graves, 0);
}

#[test]
fn a_removed_key_stays_removed_when_its_put_comes_late() {
    let store = store(100, 100);
    assert_eq!(store.merge(&remove("k", stamp(5, 7)), FOREVER), Merged::Applied);
    assert_eq!(store.merge(&put("k", "late", stamp(4, 7)), FOREVER), Merged::Older);
    assert_eq!(store.merge(&put("k", "anew", stamp(6, 7)), FOREVER), Merged::Applied);
}

#[test]
fn an_evicted_record_may_come_back_and_an_older_one_may_not() {
    let store = store(1, 100);
    store.merge(&put("a", "two", stamp(2, 7)), FOREVER);
    store.merge(&put("b", "x", stamp(3, 7)), FOREVER);
    assert_eq!(text(&store, "a"), None, "evicted");
    assert_eq!(store.merge(&put("a", "one", stamp(1, 7)), FOREVER), Merged::Older);
    assert_eq!(store.merge(&put("a", "two", stamp(2, 7)), FOREVER), Merged::Applied);
}

#[test]
fn an_expired_record_may_not_come_back() {
    let (store, clock) = timed(100);
    store.merge(&put("k", "v", stamp(2, 7)), Some(Duration::from_secs(1)));
    clock.advance(Duration::from_secs(1));
    assert_eq!(store.merge(&put("k", "v", stamp(2, 7)), FOREVER), Merged::Older);
    assert_eq!(text(&store, "k"), None);
}

#[test]
fn a_page_has_the_strict_grave_of_what_expired_before_any_sweep() {
    let (store, clock) = timed(100);
    let stamped = stamp(2, 7);
    store.merge(&put("over", "v", stamped), Some(Duration::from_secs(1)));
    store.merge(&put("live", "v", stamped), FOREVER);
    assert_eq!(store.page(0, 1_000, 1_000).graves, []);
    clock.advance(Duration::from_secs(1));
    assert_eq!((store.stats().entries, store.stats().graves), (2, 0), "nothing was swept");
    let page = store.page(0, 1_000, 2_000);
    assert_eq!(page.hi, None, "the page speaks for every position");
    assert_eq!(page.positions, [position(&store, "live")]);
    assert_eq!(page.graves, [Grave { position: position(&store, "over"), bar: Bar::above(stamped) }]);
    assert_eq!((store.stats().entries, store.stats().expirations), (1, 1));
}

#[test]
fn what_the_samples_leave_out_as_expired_is_known_as_a_grave() {
    let (store, clock) = timed(100);
    store.merge(&put("over", "v", stamp(2, 7)), Some(Duration::from_secs(1)));
    clock.advance(Duration::from_secs(1));
    assert_eq!(store.samples(0, 10).live, []);
    assert_eq!(store.stats().graves, 1);
}

#[test]
fn a_record_that_died_on_the_way_takes_the_older_one_with_it() {
    let store = store(100, 100);
    store.merge(&put("k", "old", stamp(1, 7)), FOREVER);
    assert_eq!(store.merge(&put("k", "new", stamp(2, 7)), NO_LIFE), Merged::Applied);
    assert_eq!(text(&store, "k"), None);
    assert_eq!(store.merge(&put("k", "old", stamp(1, 7)), FOREVER), Merged::Older);
}

#[test]
fn a_record_too_heavy_to_keep_leaves_no_older_one_behind() {
    let mut layout = layout(100, 100);
    layout.capacity_bytes = Some(1_000);
    let store = of(&layout);
    store.merge(&put("k", "old", stamp(1, 7)), FOREVER);
    store.merge(&put("k", &"x".repeat(2_000), stamp(2, 7)), FOREVER);
    assert_eq!(text(&store, "k"), None);
    assert_eq!(store.merge(&put("k", "old", stamp(1, 7)), FOREVER), Merged::Older);
}

#[test]
fn a_key_of_which_nothing_is_known_is_refused_below_the_floor() {
    let store = store(100, 100);
    store.raise_floor(Bar::above(stamp(5, 7)));
    assert_eq!(store.merge(&put("k", "v", stamp(5, 7)), FOREVER), Merged::Older);
    assert_eq!(store.merge(&put("k", "v", stamp(6, 7)), FOREVER), Merged::Applied);
}

#[test]
fn a_grave_of_a_peer_takes_the_live_record_below_it() {
    let store = store(100, 100);
    store.merge(&put("old", "v", stamp(1, 7)), FOREVER);
    store.merge(&put("new", "v", stamp(9, 7)), FOREVER);
    for key in ["old", "new", "unknown"] {
        bury(&store, key, Bar::above(stamp(5, 7)));
    }
    assert_eq!((text(&store, "old"), text(&store, "new").as_deref()), (None, Some("v")));
    for key in ["old", "new", "unknown"] {
        assert_eq!(store.merge(&put(key, "late", stamp(5, 7)), FOREVER), Merged::Older, "{key}");
    }
}

/// A peer's low grave replaced the floor as the bar of an unknown key, and an old record came back through it.
#[test]
fn a_grave_of_a_peer_does_not_lower_the_floor() {
    let store = store(100, 100);
    store.raise_floor(Bar::above(stamp(5, 7)));
    bury(&store, "k", Bar::at(stamp(1, 7)));
    assert_eq!(store.merge(&put("k", "v", stamp(1, 7)), FOREVER), Merged::Older);
}

#[test]
fn a_clear_hides_at_once_and_gives_the_memory_back() {
    let store = store(2_000, 100);
    for n in 0..1_000 {
        store.merge(&put(&format!("user:{n}"), "v", stamp(1, 7)), FOREVER);
    }
    store.merge(&put("order:1", "v", stamp(1, 7)), FOREVER);
    // Outside a runtime the call reclaims by itself.
    assert_eq!(store.clear(b"user:", stamp(5, 7)), Merged::Applied);
    assert_eq!(store.clear(b"user:", stamp(5, 7)), Merged::Older);
    assert_eq!(store.stats().entries, 1);
    assert_eq!(text(&store, "order:1").as_deref(), Some("v"));
    assert_eq!(
        store.merge(&put("user:1", "late", stamp(5, 9)), FOREVER),
        Merged::Applied,
        "above the barrier"
    );
    assert_eq!(store.merge(&put("user:2", "late", stamp(5, 6)), FOREVER), Merged::Older, "below it");
    assert_eq!(store.stats().graves, 0, "a barrier needs no graves");
}

#[tokio::test]
async fn a_clear_on_a_runtime_is_reclaimed_in_the_background() {
    let store = store(5_000, 100);
    for n in 0..2_000 {
        store.put(format!("k{n}").as_bytes(), payload("v"), Life::Default, Condition::Any);
    }
    store.clear_stamped(b"");
    assert_eq!(text(&store, "k1"), None, "hidden before anything is reclaimed");
    assert_eq!(store.stats().entries, 2_000);
    store.read(b"k1", |_, _| ());
    assert_eq!((store.stats().hits, store.stats().misses), (0, 1), "what is hidden is a miss");
    tokio::time::timeout(Duration::from_secs(10), async {
        while store.stats().entries > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the entries behind the barrier are reclaimed");
}

#[test]
fn a_sweep_takes_what_is_below_the_bar_and_not_kept() {
    let store = store(3_000, 3_000);
    for n in 0..2_000 {
        store.merge(&put(&format!("old{n}"), "v", stamp(1, 7)), FOREVER);
    }
    store.merge(&put("new", "v", stamp(9, 7)), FOREVER);
    let kept = position(&store, "old0");
    let below = Bar::above(stamp(5, 7));
    let half = 1 << 63;
    let lower = store.sweep(0, Some(half), below, &|position| position == kept);
    let upper = store.sweep(half, None, below, &|position| position == kept);
    assert!(lower > 0 && upper > 0 && lower + upper == 1_999, "{lower} + {upper}");
    assert_eq!(text(&store, "old0").as_deref(), Some("v"));
    assert_eq!(text(&store, "new").as_deref(), Some("v"));
    assert_eq!(store.merge(&put("old1", "v", stamp(1, 7)), FOREVER), Merged::Applied, "swept like evicted");
}

#[test]
fn pages_hold_live_records_and_graves_and_keep_to_the_budget() {
    let store = store(2_000, 2_000);
    for n in 0..500 {
        store.merge(&put(&format!("k{n}"), "0123456789", stamp(1, 7)), FOREVER);
        store.merge(&remove(&format!("gone{n}"), stamp(2, 7)), FOREVER);
    }
    let pages = pages(&store, 1_000);
    assert!(pages.len() > 40, "{}", pages.len());
    let mut lo = 0;
    for page in &pages {
        assert_eq!(page.clone().within(1_000), *page);
        let graves = page.graves.iter().map(|grave| grave.position);
        for position in page.positions.iter().copied().chain(graves) {
            assert!(position >= lo && page.hi.is_none_or(|hi| position < hi));
        }
        assert!(page.positions.is_sorted());
        lo = page.hi.unwrap_or(lo);
    }
    assert_eq!(pages.iter().map(|page| page.records.len()).sum::<usize>(), 500);
    assert_eq!(pages.iter().map(|page| page.graves.len()).sum::<usize>(), 500);
    // A budget that holds nothing still moves on.
    assert!(store.page(0, 0, 1_000).hi > Some(0));
}

#[test]
fn a_page_shares_no_memory_with_what_is_stored_but_for_long_values() {
    let store = store(1_000, 100);
    for (key, bytes) in [("empty", 0), ("short", 1_024), ("long", 1_025)] {
        store.merge(&put(key, &key.repeat(300)[..bytes], stamp(1, 7)), FOREVER);
    }
    let pages = pages(&store, 1 << 20);
    let records: Vec<&Record> = pages.iter().flat_map(|page| &page.records).collect();
    assert_eq!(records.len(), 3);
    for record in records {
        let stored = store.peek(&record.key, |stored, _| stored.bytes.clone()).expect("held");
        let Op::Put(value) = &record.op else { panic!("a put") };
        assert_eq!(value.bytes, stored);
        let is_shared = !value.bytes.is_empty() && std::ptr::eq::<[u8]>(&*value.bytes, &*stored);
        assert_eq!(is_shared, record.key == "long", "{:?}", record.key);
    }
}

#[test]
fn what_is_hidden_behind_a_barrier_takes_no_place_in_a_page() {
    let store = store(2_000, 100);
    for n in 0..100 {
        store.merge(&put(&format!("a{n}"), "v", stamp(1, 7)), FOREVER);
    }
    // Raised without the reclaiming walk, as in the moment before it.
    store.barriers.raise(b"", stamp(5, 7));
    store.merge(&put("b", "v", stamp(9, 7)), FOREVER);
    let pages = pages(&store, 10_000);
    assert_eq!(pages.iter().map(|page| page.records.len()).sum::<usize>(), 1);
    assert_eq!(pages.len(), store.cache.shards(), "a hundred records would not fit");
    assert_eq!(store.hottest(1_000, 0).len(), 1);
}

#[test]
fn the_hottest_come_first_and_keep_to_the_budget() {
    let store = store(10_000, 100);
    for n in 0..5_000 {
        store.merge(&put(&format!("cold{n}"), "v", stamp(1, 7)), FOREVER);
    }
    store.merge(&put("long", &"x".repeat(5_000), stamp(1, 7)), FOREVER);
    let hot: Vec<String> =
        (0..20).map(|n| format!("cold{}", 4_999 - n * 7)).chain(["long".to_owned()]).collect();
    for key in &hot {
        store.read(key.as_bytes(), |_, _| ()).expect("held");
    }
    let hottest = store.hottest(4_000, 1_000);
    let used: usize = hottest.iter().map(wire::record_bytes_max).sum();
    assert!((3_800..=4_000).contains(&used), "{used}");
    let keys: Vec<&[u8]> = hottest.iter().map(|record| &record.key[..]).collect();
    assert!(keys.iter().all(|key| *key != b"long"), "what does not fit is left out");
    for key in &hot[..20] {
        assert!(keys.contains(&key.as_bytes()), "{key}");
    }
    assert_eq!((store.stats().hits, store.hottest(0, 1_000).len()), (21, 0));
}

#[test]
fn a_page_carries_what_is_left_of_a_life() {
    let (store, clock) = timed(100);
    store.merge(&put("k", "v", stamp(1, 7)), Some(Duration::from_secs(10)));
    clock.advance(Duration::from_secs(4));
    let page = store.page(0, 1_000, 77_000);
    let Op::Put(value) = &page.records[0].op else { panic!("a put") };
    assert_eq!(value.ttl, Some(Ttl { left_ms: 6_000, born_ms: 77_000 }));
}

#[test]
fn equal_clocks_of_two_origins_have_two_numbers() {
    let store = store(100, 100);
    store.merge(&put("k", "one", stamp(1, 7)), FOREVER);
    let first = store.peek(b"k", |stored, _| stored.cas).expect("held");
    store.merge(&put("k", "two", stamp(1, 8)), FOREVER);
    let second = store.peek(b"k", |stored, _| stored.cas).expect("held");
    assert_eq!(second, first + 1);
    assert_eq!(
        store.put(b"k", payload("three"), Life::Default, Condition::Cas(first)),
        Outcome::Exists,
        "the number of the value that lost does not pass for that of the one that won"
    );
}

#[test]
fn a_merged_record_does_not_keep_its_frame_in_memory() {
    let store = store(100, 100);
    let frame = Bytes::from(vec![b'x'; 1_000]);
    let value = Value { bytes: frame.slice(10..20), ..Value::default() };
    let record = Record { stamp: stamp(1, 7), key: frame.slice(0..3), op: Op::Put(value), previous: None };
    store.merge(&record, FOREVER);
    drop(record);
    assert!(frame.is_unique(), "a slice of the frame was kept");
}

#[test]
fn what_a_reader_holds_stays_as_it_was_read() {
    let store = store(100, 100);
    store.put(b"k", payload("one"), Life::Never, Condition::Any);
    let read = store.peek(b"k", |stored, _| stored.bytes.clone()).expect("held");
    store.put(b"k", payload("two"), Life::Never, Condition::Any);
    let ahead = Stamp { hlc: Hlc(u64::MAX / 2), origin: Origin(7) };
    store.merge(&put("k", "six", ahead), FOREVER);
    assert_eq!((read, text(&store, "k").as_deref()), (Bytes::from_static(b"one"), Some("six")));
}

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
