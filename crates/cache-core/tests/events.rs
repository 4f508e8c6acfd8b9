//! Listeners, sidecars and values: what runs where, and what may call back.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cache_core::{Cache, Cause, Expiry, ManualClock, Sidecar, Verdict};

type Events = Arc<Mutex<Vec<(u32, u32, Cause)>>>;

fn listened(capacity: usize) -> (Cache<u32, u32>, ManualClock, Events) {
    let (events, clock) = (Events::default(), ManualClock::new());
    let heard = Arc::clone(&events);
    let listener = move |key: &u32, value: &u32, cause| {
        heard.lock().expect("no holder panicked").push((*key, *value, cause));
    };
    let cache = Cache::builder()
        .capacity(capacity)
        .clock(clock.clone())
        .listener(listener)
        .build()
        .expect("a right configuration");
    (cache, clock, events)
}

#[test]
fn a_listener_hears_of_each_value_once_with_its_cause() {
    let (cache, clock, events) = listened(2);
    cache.insert(1, 10);
    cache.insert(1, 11);
    cache.insert_with_expiry(2, 20, Expiry::After(Duration::from_millis(5)));
    cache.insert(3, 30);
    clock.advance(Duration::from_millis(5));
    assert_eq!(cache.get(&2), None);
    cache.remove(&3);
    cache.upsert(&4, |k| *k, |_, ()| (Verdict::Replace(40, Expiry::Default), ()));
    cache.upsert(&4, |k| *k, |_, ()| (Verdict::Replace(41, Expiry::Default), ()));
    cache.upsert(&4, |k| *k, |_, ()| (Verdict::Remove, ()));
    cache.insert(5, 50);
    cache.clear();
    assert_eq!(
        *events.lock().expect("no holder panicked"),
        [
            (1, 10, Cause::Replaced),
            // 1 was written twice, which is a use: it had a second chance, and 2 was the victim.
            (2, 20, Cause::Evicted),
            (3, 30, Cause::Removed),
            (4, 40, Cause::Replaced),
            (4, 41, Cause::Removed),
            (1, 11, Cause::Removed),
            (5, 50, Cause::Removed),
        ]
    );
    assert!(cache.is_empty());
}

#[test]
fn a_listener_and_a_drop_may_call_back_into_the_cache() {
    /// Asks its cache for the length when it is dropped.
    struct Asks(Arc<OnceLock<Weak<Cache<u32, Asks>>>>, Arc<AtomicU64>);
    impl Drop for Asks {
        fn drop(&mut self) {
            if let Some(cache) = self.0.get().and_then(Weak::upgrade) {
                let _ = cache.len();
                self.1.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    let link = Arc::<OnceLock<Weak<Cache<u32, Asks>>>>::default();
    let (drops, calls) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let (for_listener, counted) = (Arc::clone(&link), Arc::clone(&calls));
    let clock = ManualClock::new();
    let cache = Cache::builder()
        .capacity(2)
        .clock(clock.clone())
        .listener(move |key, _: &Asks, _| {
            if let Some(cache) = for_listener.get().and_then(Weak::upgrade) {
                let _ = (cache.contains(key), cache.stats());
                counted.fetch_add(1, Ordering::Relaxed);
            }
        })
        .build()
        .unwrap();
    let cache = Arc::new(cache);
    link.set(Arc::downgrade(&cache)).expect("set once");
    let value = || Asks(Arc::clone(&link), Arc::clone(&drops));
    let short = Expiry::After(Duration::from_millis(1));
    cache.insert(1, value());
    drop(cache.insert(1, value()));
    cache.insert(2, value());
    cache.insert(3, value());
    cache.upsert(&3, |k| *k, |_, ()| (Verdict::Replace(value(), Expiry::Default), ()));
    drop(cache.remove(&3));
    cache.insert_with_expiry(4, value(), short);
    clock.advance(Duration::from_millis(1));
    assert_eq!(cache.sweep(), 1);
    cache.insert_with_expiry(5, value(), short);
    clock.advance(Duration::from_millis(1));
    assert!(!cache.touch(&5, Expiry::Never));
    cache.clear();
    assert_eq!(
        (drops.load(Ordering::Relaxed), calls.load(Ordering::Relaxed)),
        (7, 7),
        "each of the seven values"
    );
}

#[derive(Default)]
struct Victims(Vec<(u64, u32, u32, Cause)>);

impl Sidecar<u32, u32> for Victims {
    fn victim(&mut self, position: u64, key: &u32, value: &u32, cause: Cause) {
        self.0.push((position, *key, *value, cause));
    }
}

#[test]
fn an_upsert_shows_an_expired_entry_as_vacant_after_telling_the_sidecar() {
    let clock = ManualClock::new();
    let cache = Cache::builder()
        .capacity(4)
        .clock(clock.clone())
        .sidecar(Victims::default)
        .build()
        .expect("a right configuration");
    cache.insert_with_expiry(1, 10, Expiry::After(Duration::from_millis(1)));
    clock.advance(Duration::from_millis(1));
    cache.upsert(
        &1,
        |k| *k,
        |slot, victims| {
            assert_eq!((slot.value, slot.left), (None, None));
            assert_eq!(victims.0, [(slot.position, 1, 10, Cause::Expired)]);
            (Verdict::Keep, ())
        },
    );
    assert_eq!((cache.len(), cache.stats().expirations), (0, 1));
}

#[test]
fn a_scan_tells_the_sidecar_of_the_expired_before_it_shows_a_page_without_them() {
    let (clock, heard) = (ManualClock::new(), Events::default());
    let for_listener = Arc::clone(&heard);
    let cache = Cache::builder()
        .capacity(4)
        .clock(clock.clone())
        .sidecar(Victims::default)
        .listener(move |key: &u32, value: &u32, cause| {
            for_listener.lock().expect("no holder panicked").push((*key, *value, cause));
        })
        .build()
        .expect("a right configuration");
    let short = Expiry::After(Duration::from_millis(1));
    cache.insert_with_expiry(1, 10, short);
    cache.insert(2, 20);
    clock.advance(Duration::from_millis(1));
    let position = cache.position(&1);
    let listed = cache.scan(0, 10, |page, victims| {
        assert_eq!(victims.0, [(position, 1, 10, Cause::Expired)]);
        assert!(heard.lock().expect("no holder panicked").is_empty(), "the listener hears after the lock");
        page.items.iter().map(|item| *item.key).collect::<Vec<_>>()
    });
    assert_eq!((listed, cache.len(), cache.weight(), cache.stats().expirations), (vec![2], 1, 1, 1));
    assert_eq!(*heard.lock().expect("no holder panicked"), [(1, 10, Cause::Expired)]);
    // Where a page is cleaned, likewise.
    cache.insert_with_expiry(3, 30, short);
    clock.advance(Duration::from_millis(1));
    cache.retain_page(0, 10, |item, victims| {
        assert_eq!((*item.key, victims.0.len()), (2, 2));
        true
    });
    assert_eq!((cache.len(), cache.stats().expirations, cache.stats().removals), (1, 2, 0));
    assert_eq!(heard.lock().expect("no holder panicked").len(), 2);
}

#[test]
fn removing_replacing_and_clearing_are_not_the_sidecars_business() {
    let cache =
        Cache::builder().capacity(4).sidecar(Victims::default).build().expect("a right configuration");
    cache.insert(1, 10);
    cache.insert(1, 11);
    cache.remove(&1);
    cache.insert(2, 20);
    cache.upsert(&2, |k| *k, |_, _| (Verdict::Remove, ()));
    cache.insert(3, 30);
    cache.clear();
    cache.with_sidecars(|victims| assert_eq!(victims.0, []));
}

#[test]
fn keep_keeps_the_deadline_and_touch_sets_it() {
    let clock = ManualClock::new();
    let cache: Cache<u32, u32> =
        Cache::builder().capacity(4).clock(clock.clone()).build().expect("a right configuration");
    let left = || cache.read(&1, |_, left| left.map(|left| left.as_millis())).expect("1 is live");
    cache.insert_with_expiry(1, 10, Expiry::After(Duration::from_millis(100)));
    clock.advance(Duration::from_millis(40));
    cache.insert_with_expiry(1, 11, Expiry::Keep);
    assert_eq!(left(), Some(60));
    assert!(cache.touch(&1, Expiry::Keep));
    assert_eq!(left(), Some(60));
    assert!(cache.touch(&1, Expiry::After(Duration::from_millis(5))));
    assert_eq!(left(), Some(5));
    assert!(cache.touch(&1, Expiry::Default));
    assert_eq!(left(), None, "no default lifetime");
}

#[test]
fn a_panic_in_a_closure_leaves_the_cache_usable() {
    let (cache, ..) = listened(4);
    cache.insert(1, 10);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        cache.upsert(&1, |k| *k, |_, ()| -> (Verdict<u32>, ()) { panic!("no") });
    }));
    assert!(panicked.is_err());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        cache.upsert(&2, |_| panic!("no"), |_, ()| (Verdict::Replace(1, Expiry::Never), ()));
    }));
    assert!(panicked.is_err());
    assert_eq!((cache.get(&1), cache.get(&2), cache.len()), (Some(10), None, 1));
}

#[test]
fn a_panicking_listener_does_not_stop_the_ticker() {
    let cache = Cache::builder()
        .capacity(100)
        .listener(|key: &u32, _: &u32, _| assert_ne!(*key, 13, "told to panic here"))
        .build()
        .unwrap();
    let soon = Expiry::After(Duration::from_millis(20));
    cache.insert_with_expiry(13, 0, soon);
    until("the panic is counted", || cache.stats().sweep_panics == 1);
    cache.insert_with_expiry(14, 0, soon);
    until("the next entry is reclaimed", || cache.is_empty());
}

/// Waits for a condition, at most half a minute.
fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        std::thread::yield_now();
    }
}
