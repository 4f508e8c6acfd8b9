//! The plain store: its bounds and its pages.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::{
    node::Origin,
    record::{Op, Ttl, Value},
    replica::{Now, Outbox, Store},
};

fn store(capacity: usize) -> Arc<MapStore> {
    let settings = StoreSettings { capacity, graves_max: 1_000, rules: Rules::ALL };
    MapStore::open(&settings, Arc::new(Outbox::standalone(Origin(1))), now(0))
}

fn now(mono_ms: u64) -> Now {
    Now { mono_ms, wall_ms: START_WALL_MS + mono_ms }
}

fn put(store: &MapStore, key: &str, ttl_ms: Option<u64>) {
    let ttl = ttl_ms.map(|left_ms| Ttl { left_ms, born_ms: 0 });
    store.write(key.as_bytes(), Op::Put(Value { bytes: Bytes::from_static(b"v"), ttl, ..Value::default() }));
}

#[test]
fn the_least_recently_used_goes_at_the_bound_and_leaves_a_grave() {
    let store = store(3);
    for key in ["a", "b", "c"] {
        put(&store, key, None);
    }
    assert!(store.get(b"a").is_some());
    put(&store, "d", None);
    assert_eq!((store.get(b"b"), store.sizes()), (None, (3, 1)));
    assert!(store.get(b"a").is_some());
    put(&store, "b", None);
    assert_eq!((store.get(b"c"), store.sizes()), (None, (3, 1)), "the key that is back has no grave");
}

#[test]
fn a_life_ends_at_its_deadline_unless_it_was_written_again() {
    let store = store(10);
    put(&store, "short", Some(100));
    put(&store, "renewed", Some(100));
    put(&store, "kept", Some(100));
    store.set_now(now(50));
    put(&store, "renewed", Some(100));
    put(&store, "kept", None);
    store.set_now(now(99));
    assert_eq!(store.get(b"short").and_then(|held| held.left_ms), Some(1));
    store.set_now(now(100));
    assert_eq!((store.get(b"short"), store.sizes()), (None, (2, 1)));
    store.set_now(now(150));
    assert_eq!((store.get(b"renewed"), store.sizes()), (None, (1, 2)));
    assert!(store.get(b"kept").is_some());
}

#[test]
fn pages_of_any_size_give_everything_once() {
    let store = store(50);
    for n in 0..80 {
        put(&store, &format!("k{n}"), None);
    }
    for budget in [1, 100, 400, 3_000, 1 << 20] {
        let (mut records, mut graves, mut position) = (Vec::new(), Vec::new(), Some(0));
        while let Some(lo) = position {
            let page = store.page(lo, budget, 0);
            assert!(page.hi.is_none_or(|hi| hi > lo), "a page moves on");
            let is_within = |at: &u64| *at >= lo && page.hi.is_none_or(|hi| *at < hi);
            assert!(page.positions.iter().all(is_within), "budget {budget}");
            assert!(page.graves.iter().all(|grave| is_within(&grave.position)), "budget {budget}");
            assert!(page.records.len() == page.positions.len() && page.positions.is_sorted());
            records.extend(page.records.into_iter().map(|record| record.key));
            graves.extend(page.graves.into_iter().map(|grave| grave.position));
            position = page.hi;
        }
        records.sort();
        records.dedup();
        graves.sort_unstable();
        graves.dedup();
        assert_eq!((records.len(), graves.len()), (50, 30), "budget {budget}");
    }
}

#[test]
fn the_hottest_come_first() {
    let store = store(10);
    for key in ["a", "b", "c"] {
        put(&store, key, None);
    }
    store.get(b"a");
    let keys = |budget| store.hottest(budget, 0).into_iter().map(|record| record.key).collect::<Vec<_>>();
    assert_eq!(keys(1 << 20), ["a", "c", "b"]);
    assert_eq!(keys(100).len(), 1);
}
