//! Eight threads doing everything at once; then the books must balance.

use std::{
    collections::HashMap,
    mem,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use cache_core::{Cache, Cause, Expiry, LoadError, ManualClock, Policy, Sidecar, Verdict};
use fastrand::Rng;

/// Counts how often each value was told as a victim: values are unique.
#[derive(Default)]
struct Told(HashMap<u64, u32>);

impl Sidecar<u64, (u64, u64)> for Told {
    fn victim(&mut self, _: u64, _: &u64, value: &(u64, u64), _: Cause) {
        *self.0.entry(value.1).or_default() += 1;
    }
}

const CAPACITY: usize = 500;
const WEIGHT: u64 = 2_000;

#[test]
fn eight_threads_leave_the_books_balanced() {
    everything_at_once(Policy::Lru, 0.0, None);
}

#[test]
fn eight_threads_leave_the_books_of_a_segmented_order_balanced() {
    everything_at_once(Policy::Lru, 0.6, Some(Duration::from_millis(100)));
}

#[test]
fn eight_threads_leave_the_books_of_a_frequency_policy_balanced() {
    everything_at_once(Policy::TinyLfu, 0.5, None);
}

/// `CAPACITY` is the largest that it is resized to.
fn everything_at_once(policy: Policy, remote_depth: f64, idle: Option<Duration>) {
    let (evicted, expired, replaced, removed) =
        (Arc::<AtomicU64>::default(), AtomicU64::default(), AtomicU64::default(), AtomicU64::default());
    let heard = Arc::new((evicted, expired, replaced, removed));
    let clock = ManualClock::new();
    let for_listener = Arc::clone(&heard);
    let mut builder = Cache::builder()
        .capacity(CAPACITY)
        .policy(policy)
        .remote_depth(remote_depth)
        .ttl_jitter(0.1)
        .weight_capacity(WEIGHT)
        .weigher(|_: &u64, value: &(u64, u64)| value.1 % 10)
        .shards(8)
        .default_ttl(Duration::from_millis(500))
        .clock(clock.clone())
        .listener(move |_, _, cause| {
            let (evicted, expired, replaced, removed) = &*for_listener;
            let counter = match cause {
                Cause::Evicted => evicted,
                Cause::Expired => expired,
                Cause::Replaced => replaced,
                _ => removed,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        })
        .sidecar(Told::default);
    if let Some(idle) = idle {
        builder = builder.time_to_idle(idle);
    }
    let cache = builder.build().expect("a right configuration");

    let (ids, loads) = (AtomicU64::new(0), Loads::default());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|seed| {
                let (cache, clock, ids, loads) = (cache.clone(), clock.clone(), &ids, &loads);
                scope.spawn(move || work(&cache, &clock, ids, loads, Rng::with_seed(seed)))
            })
            .collect();
        // A ninth looks at the bounds all the while.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert!(cache.len() <= CAPACITY);
                assert!(cache.weight() <= WEIGHT);
            }
        });
        writers.into_iter().for_each(|writer| writer.join().expect("no writer panics"));
        done.store(true, Ordering::Relaxed);
    });

    let stats = cache.stats();
    let gone = stats.evictions + stats.expirations + stats.removals + stats.cleared;
    assert_eq!(stats.inserts, cache.len() as u64 + gone);
    assert!(
        stats.evictions > 0 && stats.expirations > 0 && stats.removals > 0 && stats.cleared > 0,
        "{stats:?}"
    );
    assert_eq!(stats.loads, loads.loaded.load(Ordering::Relaxed));
    assert_eq!(stats.load_failures, loads.failed.load(Ordering::Relaxed));
    assert!(stats.loads > 0 && stats.load_failures > 0, "{stats:?}");
    let (evicted, expired, replaced, removed) = &*heard;
    assert_eq!(evicted.load(Ordering::Relaxed), stats.evictions);
    assert_eq!(expired.load(Ordering::Relaxed), stats.expirations);
    assert_eq!(replaced.load(Ordering::Relaxed), stats.replacements);
    assert_eq!(removed.load(Ordering::Relaxed), stats.removals + stats.cleared);
    let mut victims = 0;
    cache.with_sidecars(|told| {
        assert!(told.0.values().all(|times| *times == 1), "a victim was told twice");
        victims += told.0.len() as u64;
    });
    assert_eq!(victims, stats.evictions + stats.expirations, "each victim was told");
    clock.advance(Duration::from_secs(1));
    cache.sweep();
    assert_eq!((cache.len(), cache.weight()), (0, 0));
}

/// The loaders that ran.
#[derive(Default)]
struct Loads {
    loaded: AtomicU64,
    failed: AtomicU64,
}

impl Loads {
    /// Counts a loader, and lets others meet some of the loads under way.
    fn run(&self, kind: &AtomicU64, key: u64) {
        kind.fetch_add(1, Ordering::Relaxed);
        if key.is_multiple_of(16) {
            thread::yield_now();
        }
    }
}

fn work(
    cache: &Cache<u64, (u64, u64), std::hash::RandomState, Told>,
    clock: &ManualClock,
    ids: &AtomicU64,
    loads: &Loads,
    mut random: Rng,
) {
    for _ in 0..20_000 {
        let key = random.u64(..2_000);
        let fresh = || (key, ids.fetch_add(1, Ordering::Relaxed));
        match random.u64(..1_000) {
            0..300 => {
                assert!(cache.get(&key).is_none_or(|value| value.0 == key), "a value under another's key");
            }
            300..370 => {
                let load = || {
                    loads.run(&loads.loaded, key);
                    fresh()
                };
                assert_eq!(cache.get_or_insert_with(key, load).0, key);
            }
            370..390 => {
                let fail = || {
                    loads.run(&loads.failed, key);
                    Err("nothing there")
                };
                match cache.try_get_or_insert_with(key, fail) {
                    Ok(value) => assert_eq!(value.0, key),
                    Err(error) => assert_eq!(error, LoadError::Failed("nothing there")),
                }
            }
            390..400 => {
                // Without the hook that prints each panic.
                let panic = || {
                    loads.run(&loads.failed, key);
                    panic::resume_unwind(Box::new("told to"))
                };
                let loaded = panic::catch_unwind(AssertUnwindSafe(|| cache.get_or_insert_with(key, panic)));
                match loaded {
                    Ok(value) => assert_eq!(value.0, key),
                    Err(cause) => assert_eq!(cause.downcast_ref(), Some(&"told to")),
                }
            }
            400..600 => {
                let ttl = Duration::from_millis(random.u64(..300));
                cache.insert_with_expiry(key, fresh(), Expiry::After(ttl));
            }
            600..700 => {
                let ttl = Duration::from_millis(random.u64(..300));
                cache.insert_remote(key, fresh(), Expiry::After(ttl));
            }
            700..800 => {
                cache.upsert(
                    &key,
                    |key| *key,
                    |slot, _| {
                        let verdict = match slot.value {
                            Some(_) if slot.position % 4 == 0 => Verdict::Remove,
                            Some(_) if slot.position % 4 == 1 => Verdict::Keep,
                            Some(_) if slot.position % 4 == 2 => Verdict::Update(Expiry::Keep),
                            Some(_) if slot.position % 8 == 3 => Verdict::UpdateRemote(Expiry::Keep),
                            Some(_) => Verdict::ReplaceRemote(fresh(), Expiry::Keep),
                            _ => Verdict::Replace(fresh(), Expiry::Keep),
                        };
                        (verdict, ())
                    },
                );
            }
            800..840 => drop(cache.remove(&key)),
            840..870 => drop(cache.touch(&key, Expiry::Default)),
            870..890 => drop(cache.peek(&key)),
            890..910 => {
                let was = cache.update(&key, |value| mem::replace(value, fresh()));
                assert!(was.is_none_or(|was| was.0 == key));
            }
            910..930 => {
                let expiry = Expiry::After(Duration::from_millis(random.u64(..300)));
                cache.update_with_expiry(&key, expiry, |value| *value = fresh());
            }
            930..945 => drop(cache.insert_with_ttl(key, fresh(), Duration::from_millis(random.u64(..300)))),
            945..950 => {
                let left = cache.read(&key, |value, left| (value.0, left));
                assert!(left.is_none_or(|(of, left)| of == key && left.is_some()), "each has a lifetime");
            }
            950..970 => clock.advance(Duration::from_millis(1)),
            970..974 => drop(cache.sweep()),
            974 => {
                let (entries, weight) = (8 + random.u64(..CAPACITY as u64 - 7), 8 + random.u64(..WEIGHT - 7));
                cache.resize(entries as usize).expect("as many as shards at least");
                cache.resize_weight(weight).expect("as much as shards at least");
            }
            975..982 => cache.scan(key << 53, 10, |page, _| {
                assert!(page.items.iter().all(|item| item.value.0 == *item.key && item.position >= page.lo));
            }),
            982..985 => {
                cache.retain_page(key << 53, 10, |item, _| {
                    assert_eq!(item.value.0, *item.key);
                    item.value.1 % 3 != 0
                });
            }
            985..988 => cache.at(cache.position(&key), |place, _| {
                assert!(place.iter().all(|item| *item.key == key));
                place.retain(|item| item.value.1 % 2 == 0);
            }),
            988..991 => {
                assert!(!cache.hottest(10, |item| Some(item.value.0 == *item.key)).contains(&false));
            }
            991..994 => cache.look_ahead(&[key, key + 1, key + 2], |value| assert!(value.0 - key < 3)),
            994..996 => assert!(cache.iter().take(100).all(|(key, value)| value.0 == key)),
            996..998 => {
                assert!(cache.len() <= CAPACITY && cache.weight() <= WEIGHT);
                assert!(cache.is_empty() || cache.stats().inserts > 0);
                let _ = cache.contains(&key);
            }
            998 => drop(cache.retain(|key, value| {
                assert_eq!(value.0, *key);
                value.1 % 16 != 0
            })),
            _ => cache.clear(),
        }
    }
}

#[test]
fn an_upsert_loses_no_increment() {
    let cache: Cache<String, u64> = Cache::builder().capacity(100).build().expect("a right configuration");
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    cache.upsert("n", str::to_owned, |slot, ()| {
                        (Verdict::Replace(slot.value.map_or(1, |n| *n + 1), Expiry::Default), ())
                    });
                }
            });
        }
    });
    assert_eq!(cache.get("n"), Some(16_000));
}
