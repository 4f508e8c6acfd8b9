use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use super::*;
use crate::{Cause, Policy};

/// Counts the victims of its shard.
#[derive(Default)]
struct Victims(u64);

impl Sidecar<u64, u64> for Victims {
    fn victim(&mut self, _: u64, _: &u64, _: &u64, cause: Cause) {
        assert_eq!(cause, Cause::Evicted);
        self.0 += 1;
    }
}

fn fill<X: Sidecar<u64, u64>>(
    cache: &Cache<u64, u64, std::hash::RandomState, X>,
    keys: std::ops::Range<u64>,
) {
    for key in keys {
        cache.insert(key, key);
    }
}

#[test]
#[cfg_attr(miri, ignore = "so many entries take Miri many minutes")]
fn a_reduction_tells_sidecar_and_listener_of_each_victim_once() {
    for (policy, remote_depth) in
        [(Policy::Lru, 0.0), (Policy::Lru, 0.4), (Policy::TinyLfu, 0.0), (Policy::TinyLfu, 0.4)]
    {
        let heard = Arc::new(AtomicU64::new(0));
        let for_listener = Arc::clone(&heard);
        let cache = Cache::builder()
            .capacity(10_000)
            .shards(4)
            .policy(policy)
            .remote_depth(remote_depth)
            .sidecar(Victims::default)
            .listener(move |_: &u64, _: &u64, cause| {
                for_listener.fetch_add(u64::from(cause == Cause::Evicted), Ordering::Relaxed);
            })
            .build()
            .expect("a right configuration");
        fill(&cache, 0..8_000);
        assert!((0..500).all(|key| cache.remove(&key).is_some() || !cache.contains(&key)));
        let before = cache.len();
        heard.store(0, Ordering::Relaxed);
        cache.with_sidecars(|victims| victims.0 = 0);
        cache.resize(1_001).expect("as many as there are shards or more");
        assert_eq!((cache.len(), cache.capacity()), (1_001, Some(1_001)));
        let mut told = 0;
        cache.with_sidecars(|victims| told += victims.0);
        assert_eq!((told, heard.load(Ordering::Relaxed)), ((before - 1_001) as u64, (before - 1_001) as u64));
        fill(&cache, 10_000..20_000);
        assert!(cache.len() <= 1_001);
        cache.resize(5_000).expect("more");
        fill(&cache, 20_000..60_000);
        assert_eq!(cache.len(), 5_000, "a larger capacity is used at once");
        let stats = cache.stats();
        assert_eq!(stats.inserts, cache.len() as u64 + stats.evictions + stats.removals);
    }
}

#[test]
#[cfg_attr(miri, ignore = "so many entries take Miri many minutes")]
fn no_look_finds_more_than_the_capacity_while_it_changes() {
    let weigher = |_: &u64, value: &u64| value % 7 + 1;
    let cache: Cache<u64, u64> = Cache::builder()
        .capacity(4_000)
        .weight_capacity(12_000)
        .weigher(weigher)
        .shards(4)
        .build()
        .expect("a right configuration");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..2_u64)
            .map(|seed| {
                let (cache, done) = (&cache, &done);
                scope.spawn(move || {
                    let mut key = seed;
                    while !done.load(Ordering::Relaxed) {
                        key = key
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        cache.insert(key >> 48, key >> 33);
                    }
                })
            })
            .collect();
        for round in 0..200 {
            let (entries, weight) = if round % 2 == 0 { (100, 300) } else { (4_000, 12_000) };
            cache.resize(entries).expect("enough for the shards");
            assert!(cache.len() <= entries);
            cache.resize_weight(weight).expect("enough for the shards");
            assert!(cache.weight() <= weight && cache.len() <= entries);
        }
        done.store(true, Ordering::Relaxed);
        writers.into_iter().for_each(|writer| writer.join().expect("no writer panics"));
    });
}

#[test]
fn what_cannot_be_is_refused_by_its_field_and_changes_nothing() {
    let by_entries: Cache<u64, u64> =
        Cache::builder().capacity(64).shards(8).build().expect("a right configuration");
    assert_eq!(by_entries.resize(7).expect_err("fewer than shards").field, "capacity");
    assert_eq!(by_entries.resize(0).expect_err("none").field, "capacity");
    assert_eq!(by_entries.resize_weight(100).expect_err("no weights").field, "weight_capacity");
    assert_eq!(by_entries.capacity(), Some(64));
    let weighed: Cache<u64, u64> = Cache::builder()
        .weight_capacity(64)
        .weigher(|_, _| 1)
        .shards(8)
        .build()
        .expect("a right configuration");
    assert_eq!(weighed.resize_weight(7).expect_err("fewer than shards").field, "weight_capacity");
    assert_eq!(weighed.resize(100).expect_err("by weight alone").field, "capacity");
    assert_eq!(weighed.weight_capacity(), Some(64));
}
