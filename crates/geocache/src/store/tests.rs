//! What a store does with one key after another, and with many in any order.

mod order;
mod page;

use bytes::Bytes;
use cache_core::ManualClock;
use replication::{
    Hlc, Op, Origin, Record, Stamp, Value,
    message::Grave,
    replica::{Merged, Store, StorePage},
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
