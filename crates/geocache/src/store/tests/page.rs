//! Pages of what is stored, and the hottest of it: what a peer that fetches state is sent.

use replication::{Ttl, message::Grave, wire};

use super::*;

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
