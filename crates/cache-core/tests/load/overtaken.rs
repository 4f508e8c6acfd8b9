//! What is written or invalidated while a load is under way wins over it.

use std::{
    future::pending,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    thread,
};

use cache_core::{Cache, Expiry, ManualClock, Verdict};
use futures_lite::future::{block_on, yield_now};

use crate::{Task, cache, poll};

/// Each way to write or invalidate a key, with what it leaves there.
type Write = (&'static str, fn(&Cache<u32, u32>), Option<u32>);

const WRITES: [Write; 11] = [
    ("insert", |cache| assert_eq!(cache.insert(1, 99), None), Some(99)),
    (
        "an insert that is removed",
        |cache| assert_eq!((cache.insert(1, 99), cache.remove(&1)), (None, Some(99))),
        None,
    ),
    ("remove", |cache| assert_eq!(cache.remove(&1), None), None),
    ("clear", Cache::clear, None),
    (
        "upsert replaces",
        |cache| cache.upsert(&1, |key| *key, |_, ()| (Verdict::Replace(99, Expiry::Default), ())),
        Some(99),
    ),
    ("upsert removes", |cache| cache.upsert(&1, |key| *key, |_, ()| (Verdict::Remove, ())), None),
    ("at", |cache| cache.at(cache.position(&1), |place, ()| place.retain(|_| true)), None),
    ("a page", |cache| assert_eq!(cache.retain_page(cache.position(&1), 1, |_, ()| true), None), None),
    ("all pages", |cache| assert_eq!(cache.retain_page(0, usize::MAX, |_, ()| true), None), None),
    ("all entries", |cache| assert_eq!(cache.retain(|_, _| true), 0), None),
    (
        "another load",
        |cache| {
            cache.remove(&1);
            assert_eq!(in_a_thread(cache, 99), 99);
        },
        Some(99),
    ),
];

fn in_a_thread(cache: &Cache<u32, u32>, value: u32) -> u32 {
    thread::scope(|scope| scope.spawn(|| cache.get_or_insert_with(1, || value)).join())
        .expect("it does not panic")
}

#[test]
fn a_load_publishes_nothing_over_a_newer_write() {
    for (write, f, left) in WRITES {
        let cache = cache();
        let loaded = cache.get_or_insert_with(1, || {
            f(&cache);
            10
        });
        assert_eq!(cache.peek(&1), left, "{write}");
        assert_eq!(loaded, left.unwrap_or(10), "{write}");
        let loaded = block_on(cache.get_or_insert_async(2, async { cache.remove(&2).unwrap_or(20) }));
        assert_eq!((loaded, cache.peek(&2), cache.stats().loads_overtaken), (20, None, 2), "{write}");
    }
}

#[test]
fn what_does_not_change_the_key_overtakes_nothing() {
    let cache = cache();
    cache.insert(2, 20);
    let loaded = cache.get_or_insert_with(1, || {
        cache.insert(2, 21);
        cache.remove(&2);
        cache.touch(&1, Expiry::Never);
        cache.upsert(&1, |key| *key, |_, ()| (Verdict::Keep, ()));
        assert_eq!((cache.get(&1), cache.sweep()), (None, 0));
        cache.scan(0, 100, |_, ()| ());
        10
    });
    assert_eq!((loaded, cache.peek(&1), cache.stats().loads_overtaken), (10, Some(10), 0));
}

#[test]
fn whoever_asks_after_an_invalidation_is_not_handed_what_is_older() {
    let cache = cache();
    let mut before = pin!(cache.get_or_insert_async(1, async {
        yield_now().await;
        10
    }));
    assert!(poll(&mut before).is_pending());
    let mut waits = pin!(cache.get_or_insert_async(1, async { unreachable!("it waits for the first") }));
    assert!(poll(&mut waits).is_pending());
    cache.remove(&1);
    let mut after = pin!(cache.get_or_insert_async(1, async {
        yield_now().await;
        20
    }));
    assert!(poll(&mut after).is_pending());
    assert_eq!(poll(&mut before), Poll::Ready(10));
    assert_eq!((poll(&mut waits), cache.peek(&1)), (Poll::Ready(10), None));
    assert_eq!((poll(&mut after), cache.peek(&1)), (Poll::Ready(20), Some(20)));
}

#[test]
fn who_waited_for_an_overtaken_loader_that_fails_asks_the_cache_again() {
    let cache = cache();
    let mut leader = Box::pin(cache.get_or_insert_async(1, pending()));
    assert!(poll(&mut leader.as_mut()).is_pending());
    let tasks: [Arc<Task>; 2] = Default::default();
    let mut first = pin!(cache.get_or_insert_async(1, async { unreachable!("it is there") }));
    let mut second = pin!(cache.get_or_insert_async(1, async { unreachable!("it is there") }));
    assert!(tasks[0].poll(&mut first).is_pending() && tasks[1].poll(&mut second).is_pending());
    cache.insert(1, 99);
    drop(leader);
    assert_eq!([tasks[0].wakes(), tasks[1].wakes()], [1, 1]);
    assert_eq!((tasks[0].poll(&mut first), tasks[1].poll(&mut second)), (Poll::Ready(99), Poll::Ready(99)));
}

/// Eight threads load, change the source and invalidate, fail, panic and give up; a reader that asks after an invalidation never gets
/// what was read before it.
#[test]
fn under_stress_nothing_older_than_an_invalidation_is_seen() {
    const KEYS: usize = 16;
    let cache = Cache::<usize, u64>::builder().capacity(8).clock(ManualClock::new()).build().unwrap();
    let [source, settled] = [(); 2].map(|()| [const { AtomicU64::new(0) }; KEYS]);
    let run = |mut seed: u64| {
        let mut random = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        for _ in 0..5_000 {
            let key = random(KEYS as u64) as usize;
            let least = settled[key].load(Ordering::SeqCst);
            let read = || {
                let value = source[key].load(Ordering::SeqCst);
                thread::yield_now();
                value
            };
            let later = async {
                let value = source[key].load(Ordering::SeqCst);
                yield_now().await;
                value
            };
            let seen = match random(100) {
                0..30 => Some(cache.get_or_insert_with(key, read)),
                30..60 => Some(block_on(cache.get_or_insert_async(key, later))),
                60..70 => cache
                    .try_get_or_insert_with(key, || Some(read()).filter(|value| value % 2 == 0).ok_or(()))
                    .ok(),
                70..75 => catch_unwind(AssertUnwindSafe(|| {
                    cache.get_or_insert_with(key, || std::panic::resume_unwind(Box::new("as told")))
                }))
                .ok(),
                75..85 => match poll(&mut pin!(cache.get_or_insert_async(key, later))) {
                    Poll::Ready(value) => Some(value),
                    Poll::Pending => None,
                },
                _ => {
                    let value = source[key].fetch_add(1, Ordering::SeqCst) + 1;
                    if random(10) == 0 {
                        cache.clear();
                    } else {
                        cache.remove(&key);
                    }
                    settled[key].fetch_max(value, Ordering::SeqCst);
                    None
                }
            };
            assert!(seen.is_none_or(|value| value >= least), "{seen:?} was invalidated before {least}");
        }
    };
    thread::scope(|scope| {
        for seed in 1..=8 {
            println!("seed {seed}");
            let run = &run;
            scope.spawn(move || run(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed)));
        }
    });
    let stats = cache.stats();
    assert!(stats.loads > 0 && stats.load_failures > 0 && stats.loads_overtaken > 0, "{stats:?}");
    assert_eq!(stats.inserts, cache.len() as u64 + stats.evictions + stats.removals + stats.cleared);
    assert_eq!(stats.inserts, stats.loads - stats.loads_overtaken, "only loads insert here");
}
