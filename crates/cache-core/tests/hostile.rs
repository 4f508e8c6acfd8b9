//! What others' code may do to a cache, which stays whole: listeners and `Drop`s that call back, weighers that lie, keys and values
//! that panic, clocks that jump.

use std::{
    cell::Cell,
    hash::{Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use cache_core::{Cache, Cause, Expiry, ManualClock, Sidecar, Stats, Verdict};

const NEVER_TOO_LATE: Duration = Duration::MAX;

fn balanced(stats: Stats, len: usize) {
    let gone = stats.evictions + stats.expirations + stats.removals + stats.cleared;
    assert_eq!(stats.inserts, len as u64 + gone, "{stats:?}");
}

fn panics<R>(f: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

/// Everything that a listener may do, which is everything.
fn meddle(cache: &Cache<u32, u32>, key: u32) {
    let _ = cache.get(&key);
    let _ = cache.peek(&(key + 1));
    cache.insert(key + 100, key);
    cache.insert_with_ttl(key, key, Duration::from_millis(3));
    cache.update(&key, |value| *value += 1);
    cache.touch(&key, Expiry::Keep);
    cache.upsert(&(key + 1), |key| *key, |_, ()| (Verdict::Replace(1, Expiry::Default), ()));
    cache.remove(&(key + 2));
    assert!(cache.iter().count() <= cache.capacity().unwrap_or(usize::MAX));
    cache.retain(|key, _| key % 5 != 0);
    cache.scan(0, 10, |page, ()| page.items.len());
    cache.sweep();
    cache.resize(5 + key as usize % 6).expect("enough for a shard");
    if key.is_multiple_of(7) {
        cache.clear();
    }
}

#[test]
fn a_listener_may_do_anything_with_the_cache() {
    thread_local! {
        /// How deep the listener is within itself: its own writes are heard, too.
        static DEPTH: Cell<u32> = const { Cell::new(0) };
    }
    let (link, clock) = (Arc::<OnceLock<Cache<u32, u32>>>::default(), ManualClock::new());
    let causes = Arc::new([const { AtomicU64::new(0) }; 4]);
    let (for_listener, heard) = (Arc::clone(&link), Arc::clone(&causes));
    let cache = Cache::builder()
        .capacity(8)
        .clock(clock.clone())
        .listener(move |key: &u32, _: &u32, cause| {
            let at = [Cause::Evicted, Cause::Expired, Cause::Replaced, Cause::Removed]
                .iter()
                .position(|known| *known == cause);
            heard[at.expect("one of the four")].fetch_add(1, Ordering::Relaxed);
            let cache = for_listener.get().expect("set before the first write");
            DEPTH.with(|depth| {
                if depth.get() < 2 {
                    depth.set(depth.get() + 1);
                    meddle(cache, *key);
                    depth.set(depth.get() - 1);
                }
            });
        })
        .build()
        .expect("a right configuration");
    link.set(cache.clone()).expect("set once");
    for key in 0..40 {
        cache.insert(key, key);
        cache.insert(key, key + 1);
        cache.insert_with_ttl(key, key, Duration::from_millis(2));
        clock.advance(Duration::from_millis(1));
        cache.update(&key, |value| *value = 0);
        cache.remove(&(key / 2));
        let _ = cache.get(&(key / 3));
    }
    cache.clear();
    let stats = cache.stats();
    balanced(stats, cache.len());
    let [evicted, expired, replaced, removed] = &*causes;
    assert_eq!(evicted.load(Ordering::Relaxed), stats.evictions);
    assert_eq!(expired.load(Ordering::Relaxed), stats.expirations);
    assert_eq!(replaced.load(Ordering::Relaxed), stats.replacements);
    assert_eq!(removed.load(Ordering::Relaxed), stats.removals + stats.cleared);
    assert!(causes.iter().all(|count| count.load(Ordering::Relaxed) > 0), "each cause was met");
}

/// A value that uses its cache while it is dropped.
struct Last(Weak<OnceLock<Cache<u32, Last>>>, Arc<AtomicU64>);

impl Drop for Last {
    fn drop(&mut self) {
        if let Some(link) = self.0.upgrade()
            && let Some(cache) = link.get()
        {
            assert!(cache.len() <= 4);
            cache.read(&1, |_, _| ());
            cache.touch(&2, Expiry::Never);
            cache.sweep();
            cache.resize(4).expect("enough for a shard");
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_drop_may_call_back_whatever_made_the_value_leave() {
    let link = Arc::<OnceLock<Cache<u32, Last>>>::default();
    let (drops, clock) = (Arc::<AtomicU64>::default(), ManualClock::new());
    let cache = Cache::builder().capacity(4).clock(clock.clone()).build().expect("a right configuration");
    link.set(cache.clone()).unwrap_or_else(|_| unreachable!("set once"));
    let value = || Last(Arc::downgrade(&link), Arc::clone(&drops));
    let count = |what: &str, expected, work: &dyn Fn()| {
        let before = drops.load(Ordering::Relaxed);
        work();
        assert_eq!(drops.load(Ordering::Relaxed) - before, expected, "{what}");
    };
    let fill = || (0..4).for_each(|key| drop(cache.insert(key, value())));
    fill();
    count("evicted", 3, &|| (4..7).for_each(|key| drop(cache.insert(key, value()))));
    count("replaced", 4, &fill);
    count("replaced by a verdict", 1, &|| {
        cache.upsert(&3, |key| *key, |_, ()| (Verdict::Replace(value(), Expiry::Default), ()));
    });
    count("removed by a verdict", 1, &|| {
        cache.upsert(&3, |key| *key, |_, ()| (Verdict::Remove, ()));
    });
    count("removed", 1, &|| drop(cache.remove(&0)));
    count("retained", 2, &|| assert_eq!(cache.retain(|_, _| false), 2));
    fill();
    count("of a page", 4, &|| {
        cache.retain_page(0, 10, |_, ()| false);
    });
    fill();
    count("at a place", 1, &|| cache.at(cache.position(&2), |place, ()| place.retain(|_| false)));
    count("taken out of an update", 1, &|| {
        // What the closure answers leaves the lock before it is dropped.
        let taken = cache.update(&1, |held| std::mem::replace(held, value()));
        assert!(taken.is_some());
    });
    count("cleared", 3, &|| cache.clear());
    fill();
    // The first one's drop wants the old capacity back before this one is reached by a step.
    count("evicted by a resize", 2, &|| cache.resize(2).expect("enough for a shard"));
    assert_eq!((cache.len(), cache.capacity()), (2, Some(4)), "the newest resize wins");
    cache.clear();
    let brief = |key| drop(cache.insert_with_ttl(key, value(), Duration::from_millis(5)));
    (0..3).for_each(brief);
    clock.advance(Duration::from_millis(5));
    // The first one's drop sweeps the others out.
    count("met by a read", 3, &|| assert!(cache.read(&0, |_, _| ()).is_none()));
    (0..3).for_each(brief);
    clock.advance(Duration::from_millis(5));
    count("swept", 3, &|| assert!(cache.sweep() > 0));
    assert!(cache.is_empty());
}

/// Does the work on a thread of its own, because what must not happen is that it never ends.
fn ends(what: &str, work: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let worker = thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    match is_done.recv_timeout(Duration::from_secs(60)) {
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => worker.join().expect(what),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what} does not end"),
    }
}

#[test]
fn a_listener_that_resizes_within_a_resize_has_the_last_word() {
    for (entries, weight, nested) in [(40, 400, 80), (80, 400, 40), (40, 100, 16)] {
        ends("a resize within a resize", move || {
            let link = Arc::<OnceLock<Cache<u32, u32>>>::default();
            let (for_listener, armed) = (Arc::downgrade(&link), Arc::<AtomicU64>::default());
            let countdown = Arc::clone(&armed);
            let cache = Cache::builder()
                .capacity(160)
                .weight_capacity(400)
                .weigher(|_, _| 2)
                .shards(8)
                .listener(move |_: &u32, _: &u32, _| {
                    let link = for_listener.upgrade().expect("it lives as long as the test");
                    let cache = link.get().expect("set before the first write");
                    if countdown.load(Ordering::Relaxed) > 0 && countdown.fetch_sub(1, Ordering::Relaxed) == 1
                    {
                        cache.resize(nested).expect("enough for the shards");
                        assert!(cache.len() <= nested && cache.capacity() == Some(nested));
                    }
                })
                .build()
                .expect("a right configuration");
            link.set(cache.clone()).expect("set once");
            (0..120).for_each(|key| ignore(cache.insert(key, key)));
            armed.store(3, Ordering::Relaxed);
            cache.resize(entries).expect("enough for the shards");
            cache.resize_weight(weight).expect("enough for the shards");
            assert_eq!((cache.capacity(), cache.weight_capacity()), (Some(nested), Some(weight)));
            (1_000..3_000).for_each(|key| ignore(cache.insert(key, key)));
            let expected = nested.min(weight as usize / 2);
            assert_eq!(cache.len(), expected, "all of it is of use, and no more");
            balanced(cache.stats(), cache.len());
        });
    }
}

#[test]
fn a_resize_may_wait_for_another_threads_resize() {
    ends("a listener that waits for a resize", || {
        let link = Arc::<OnceLock<Cache<u32, u32>>>::default();
        let for_listener = Arc::downgrade(&link);
        let cache = Cache::builder()
            .capacity(100)
            .listener(move |_: &u32, _: &u32, _| {
                let cache = for_listener.upgrade().and_then(|link| link.get().cloned());
                let cache = cache.expect("it lives as long as the test");
                thread::spawn(move || cache.resize(50)).join().expect("no panic").expect("enough");
            })
            .build()
            .expect("a right configuration");
        link.set(cache.clone()).expect("set once");
        (0..100).for_each(|key| ignore(cache.insert(key, key)));
        cache.resize(99).expect("enough for a shard");
        assert_eq!((cache.capacity(), cache.len()), (Some(50), 50));
    });
}

#[test]
fn a_cache_may_be_shown_while_one_of_its_locks_is_held() {
    ends("showing a cache under its lock", || {
        let cache = Cache::builder().capacity(7).build().expect("a right configuration");
        cache.insert(1, 1);
        let shown = cache.read(&1, |_, _| format!("{cache:?}")).expect("it is there");
        assert!(shown.contains("capacity: Some(7)"), "{shown}");
    });
}

/// A full cache of 8 shards whose listener panics at every fifth event, and how many it heard.
fn full_of_panics(clock: &ManualClock) -> (Cache<u32, u32>, Arc<AtomicU64>) {
    let heard = Arc::<AtomicU64>::default();
    let for_listener = Arc::clone(&heard);
    let cache = Cache::builder()
        .capacity(800)
        .shards(8)
        .clock(clock.clone())
        .listener(move |_: &u32, _: &u32, _| {
            let earlier = for_listener.fetch_add(1, Ordering::Relaxed);
            assert_ne!(earlier % 5, 4, "told to panic here");
        })
        .build()
        .expect("a right configuration");
    for key in 0..4_000 {
        let _ = catch_unwind(AssertUnwindSafe(|| {
            cache.insert_with_ttl(key, key, Duration::from_millis(5));
        }));
    }
    assert_eq!(cache.len(), 800);
    heard.store(0, Ordering::Relaxed);
    (cache, heard)
}

#[test]
#[cfg_attr(miri, ignore = "so many panics take Miri many minutes")]
fn a_listener_that_panics_leaves_no_operation_half_done_and_nothing_untold() {
    type Op = fn(&Cache<u32, u32>, &ManualClock);
    let ops: [(&str, u64, Op); 5] = [
        ("clear", 800, |cache, _| cache.clear()),
        ("retain", 800, |cache, _| ignore(cache.retain(|_, _| false))),
        ("retain_page", 7, |cache, _| ignore(cache.retain_page(0, 7, |_, ()| false))),
        ("resize", 700, |cache, _| cache.resize(100).expect("enough for the shards")),
        ("sweep", 800, |cache, clock| {
            clock.advance(Duration::from_millis(5));
            cache.sweep();
        }),
    ];
    for (name, leave, op) in ops {
        let clock = ManualClock::new();
        let (cache, heard) = full_of_panics(&clock);
        assert!(panics(|| op(&cache, &clock)), "{name}: the panic goes on");
        assert_eq!(heard.load(Ordering::Relaxed), leave, "{name}: each is told, once");
        assert_eq!(cache.len() as u64, 800 - leave, "{name}: it is done all the same");
        balanced(cache.stats(), cache.len());
        let capacity = if name == "resize" { 100 } else { 800 };
        assert_eq!(cache.capacity(), Some(capacity), "{name}");
        for key in 0..4_000 {
            let _ = catch_unwind(AssertUnwindSafe(|| cache.insert(key, key)));
        }
        assert_eq!(cache.len(), capacity, "{name}: all of it is of use");
    }
}

#[test]
fn a_replacement_whose_listener_panics_tells_of_what_it_pushed_out_too() {
    let told = Arc::<Mutex<Vec<(u32, Cause)>>>::default();
    let for_listener = Arc::clone(&told);
    let cache = Cache::builder()
        .weight_capacity(10)
        .weigher(|_, value| u64::from(*value))
        .listener(move |key: &u32, _: &u32, cause| {
            for_listener.lock().expect("not held where it panics").push((*key, cause));
            assert_ne!(cause, Cause::Replaced, "told to panic here");
        })
        .build()
        .expect("a right configuration");
    (0..10).for_each(|key| ignore(cache.insert(key, 1)));
    assert!(panics(|| cache.insert(9, 4)));
    let told = told.lock().expect("not held where it panics");
    let evicted = |key| (key, Cause::Evicted);
    assert_eq!(*told, [(9, Cause::Replaced), evicted(0), evicted(1), evicted(2)]);
    assert_eq!((cache.weight(), cache.peek(&9)), (10, Some(4)));
}

/// Panics at the third victim.
#[derive(Default)]
struct Third(u32);

impl Sidecar<u32, u32> for Third {
    fn victim(&mut self, _: u64, _: &u32, _: &u32, _: Cause) {
        self.0 += 1;
        assert_ne!(self.0, 3, "told to panic here");
    }
}

#[test]
fn the_listener_hears_of_every_victim_that_left_before_a_sidecar_panicked() {
    let heard = Arc::<AtomicU64>::default();
    let for_listener = Arc::clone(&heard);
    let cache = Cache::builder()
        .weight_capacity(10)
        .weigher(|_, value| u64::from(*value))
        .sidecar(Third::default)
        .listener(move |_: &u32, _: &u32, _| ignore(for_listener.fetch_add(1, Ordering::Relaxed)))
        .build()
        .expect("a right configuration");
    (0..10).for_each(|key| ignore(cache.insert(key, 1)));
    assert!(panics(|| cache.insert(10, 5)));
    assert_eq!((heard.load(Ordering::Relaxed), cache.len(), cache.peek(&10)), (2, 8, None));
    balanced(cache.stats(), cache.len());
}

#[test]
fn the_listener_hears_of_what_the_ticker_reclaimed_before_a_sidecar_panicked() {
    let (tell, told) = mpsc::channel();
    let cache = Cache::builder()
        .capacity(10)
        .sidecar(Third::default)
        .listener(move |key: &u32, _: &u32, cause| tell.send((*key, cause)).expect("the test listens"))
        .build()
        .expect("a right configuration");
    (0..5).for_each(|key| ignore(cache.insert_with_ttl(key, 0, Duration::from_millis(20))));
    let hear = |_| told.recv_timeout(Duration::from_secs(60)).expect("none is forgotten");
    let mut heard: Vec<_> = (0..4).map(hear).collect();
    // The one that it panicked at may wait for whoever meets it.
    assert_eq!(cache.get(&2), None);
    heard.extend((4..5).map(hear));
    heard.sort_unstable_by_key(|(key, _)| *key);
    assert_eq!(heard, [0, 1, 2, 3, 4].map(|key| (key, Cause::Expired)));
    assert_eq!((cache.len(), cache.stats().sweep_panics), (0, 1));
}

/// A weigher that says what the test put there: a weight, or that it panics.
const PANIC: u64 = 13;

fn weighed(capacity: u64) -> (Cache<u32, u64>, Arc<AtomicU64>) {
    let says = Arc::new(AtomicU64::new(1));
    let heard = Arc::clone(&says);
    let cache = Cache::builder()
        .weight_capacity(capacity)
        .weigher(move |_: &u32, _: &u64| {
            let weight = heard.load(Ordering::Relaxed);
            assert_ne!(weight, PANIC, "told to panic here");
            weight
        })
        .shards(1)
        .build()
        .expect("a right configuration");
    (cache, says)
}

#[test]
fn a_weigher_that_changes_its_mind_cannot_unbalance_the_books() {
    let (cache, says) = weighed(20);
    for (key, weight) in [(1, 5), (2, 9), (3, 0)] {
        says.store(weight, Ordering::Relaxed);
        cache.insert(key, 0);
    }
    assert_eq!((cache.weight(), cache.len()), (15, 3), "nothing weighs less than 1");
    // Whatever it would say now, what it said when they were written is what goes with them.
    says.store(1_000, Ordering::Relaxed);
    cache.remove(&2);
    assert_eq!(cache.weight(), 6);
    says.store(3, Ordering::Relaxed);
    cache.update(&1, |value| *value += 1);
    assert_eq!(cache.weight(), 4);
    says.store(u64::MAX, Ordering::Relaxed);
    cache.touch(&1, Expiry::Never);
    assert_eq!(cache.weight(), 4, "a touch weighs nothing anew");
    cache.update(&1, |value| *value += 1);
    assert_eq!((cache.peek(&1), cache.weight()), (None, 1), "too heavy all of a sudden");
    assert_eq!(cache.insert(3, 1), Some(0));
    assert_eq!((cache.weight(), cache.len(), cache.stats().refusals), (0, 0, 2));
    cache.insert(4, 1);
    assert_eq!((cache.len(), cache.stats().refusals), (0, 3));
    balanced(cache.stats(), cache.len());
}

#[test]
fn a_weigher_that_panics_leaves_the_books_as_they_were() {
    let (cache, says) = weighed(20);
    says.store(7, Ordering::Relaxed);
    cache.insert(1, 10);
    cache.insert(2, 20);
    says.store(PANIC, Ordering::Relaxed);
    assert!(panics(|| cache.insert(3, 30)));
    assert!(panics(|| cache.insert(1, 11)));
    assert!(panics(|| cache.upsert(&3, |key| *key, |_, ()| (Verdict::Replace(30, Expiry::Default), ()))));
    assert!(panics(|| cache.upsert(&1, |key| *key, |_, ()| (Verdict::Replace(11, Expiry::Default), ()))));
    assert_eq!((cache.peek(&1), cache.peek(&2), cache.peek(&3)), (Some(10), Some(20), None));
    assert!(panics(|| cache.update(&1, |value| *value = 11)));
    assert_eq!(cache.peek(&1), Some(11), "what was changed in its place stays changed");
    assert_eq!((cache.len(), cache.weight()), (2, 14), "as heavy as it was");
    says.store(8, Ordering::Relaxed);
    cache.update(&1, |value| *value = 12);
    assert_eq!((cache.weight(), cache.peek(&2)), (15, Some(20)));
    cache.insert(4, 40);
    balanced(cache.stats(), cache.len());
    assert!(cache.weight() <= 20);
}

thread_local! {
    /// After how many more calls one of a key's or value's functions panics.
    static FUSE: Cell<Option<u32>> = const { Cell::new(None) };
}

fn burn() {
    FUSE.with(|fuse| {
        if let Some(left) = fuse.get() {
            assert_ne!(left, 0, "told to panic here");
            fuse.set(Some(left - 1));
        }
    });
}

#[derive(Debug)]
struct Brittle(u64);

impl PartialEq for Brittle {
    fn eq(&self, other: &Self) -> bool {
        burn();
        self.0 == other.0
    }
}

impl Eq for Brittle {}

impl Hash for Brittle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        burn();
        // Few positions, so that keys are compared with others than themselves.
        state.write_u64(self.0 % 3);
    }
}

impl Clone for Brittle {
    fn clone(&self) -> Self {
        burn();
        Brittle(self.0)
    }
}

fn ignore<R>(_: R) {}

/// Every operation, with a panic at each of the calls that it makes into the keys' and values' code in turn.
#[test]
fn keys_and_values_that_panic_leave_the_cache_whole() {
    type Op = fn(&Cache<Brittle, Brittle>, u64);
    let ops: [(&str, Op); 14] = [
        ("get", |cache, n| ignore(cache.get(&Brittle(n)))),
        ("peek", |cache, n| ignore(cache.peek(&Brittle(n)))),
        ("contains", |cache, n| ignore(cache.contains(&Brittle(n)))),
        ("insert", |cache, n| ignore(cache.insert(Brittle(n), Brittle(n)))),
        ("insert_with_ttl", |cache, n| ignore(cache.insert_with_ttl(Brittle(n), Brittle(n), NEVER_TOO_LATE))),
        ("remove", |cache, n| ignore(cache.remove(&Brittle(n)))),
        ("touch", |cache, n| ignore(cache.touch(&Brittle(n), Expiry::Never))),
        ("update", |cache, n| ignore(cache.update(&Brittle(n), |value| *value = value.clone()))),
        ("upsert", |cache, n| {
            let verdict = Verdict::Replace(Brittle(n), Expiry::Default);
            cache.upsert(&Brittle(n), Brittle::clone, |_, ()| (verdict, ()));
        }),
        ("upsert in place", |cache, n| {
            cache.upsert(&Brittle(n), Brittle::clone, |slot, ()| {
                if let Some(value) = slot.value {
                    *value = value.clone();
                }
                (Verdict::Update(Expiry::Keep), ())
            });
        }),
        ("iter", |cache, _| ignore(cache.iter().collect::<Vec<_>>())),
        ("retain", |cache, n| ignore(cache.retain(|key, _| *key != Brittle(n)))),
        ("look_ahead", |cache, n| cache.look_ahead(&[Brittle(n)], |value| ignore(value.clone()))),
        ("hottest", |cache, _| ignore(cache.hottest(4, |item| Some(item.value.clone())))),
    ];
    let mut panicked = 0;
    for (name, op) in ops {
        for fuse in 0..40 {
            let cache = Cache::builder().capacity(8).build().expect("a right configuration");
            for n in 0..8 {
                cache.insert(Brittle(n), Brittle(n));
            }
            for n in [3, 11] {
                FUSE.set(Some(fuse));
                panicked += u32::from(panics(|| op(&cache, n)));
                FUSE.set(None);
                balanced(cache.stats(), cache.len());
                assert_eq!(cache.iter().count(), cache.len(), "{name}: what is counted is there");
                assert_eq!(cache.weight(), cache.len() as u64);
                for (key, value) in &cache {
                    assert_eq!(cache.peek(&key), Some(value), "{name}: what is there is found");
                }
            }
            for n in 20..40 {
                cache.insert(Brittle(n), Brittle(n));
                assert_eq!(cache.peek(&Brittle(n)), Some(Brittle(n)), "{name}: it takes entries as ever");
            }
            assert_eq!(cache.len(), 8);
        }
    }
    assert!(panicked > 100, "{panicked} panics were met");
}

#[test]
fn a_clock_that_jumps_to_the_end_of_time_keeps_what_never_expires() {
    let clock = ManualClock::new();
    let cache = Cache::builder()
        .capacity(1_000)
        .default_ttl(Duration::from_secs(3600))
        .clock(clock.clone())
        .build()
        .expect("a right configuration");
    for n in 0..100_u32 {
        cache.insert(n, n);
        cache.insert_with_ttl(1_000 + n, n, NEVER_TOO_LATE);
        cache.insert_with_expiry(2_000 + n, n, Expiry::Never);
    }
    clock.advance(Duration::from_secs(10 * 365 * 24 * 3600));
    assert_eq!((cache.sweep(), cache.len()), (100, 200));
    clock.advance(Duration::MAX);
    clock.advance(Duration::MAX);
    assert_eq!((cache.sweep(), cache.len()), (100, 100), "the longest lifetime ends with time itself");
    // At the end of time a lifetime is over at once, and for ever is for ever still.
    cache.insert(1, 1);
    assert_eq!((cache.get(&1), cache.get(&2_001)), (None, Some(1)));
    assert!(cache.touch(&2_001, Expiry::Never) && cache.contains(&2_001));
    balanced(cache.stats(), cache.len());
}

#[test]
fn a_jump_of_the_clock_is_worked_off_in_one_sweep_and_by_whoever_meets_it() {
    let clock = ManualClock::new();
    let cache: Cache<u32, u32> =
        Cache::builder().capacity(100_000).clock(clock.clone()).build().expect("a right configuration");
    for n in 0..9_000 {
        cache.insert_with_ttl(n, n, Duration::from_millis(u64::from(n) + 1));
    }
    clock.advance(Duration::from_secs(60));
    assert!((0..100).all(|n| cache.get(&n).is_none() && !cache.touch(&(n + 100), Expiry::Never)));
    assert_eq!((cache.len(), cache.iter().count()), (8_800, 0));
    assert_eq!((cache.sweep(), cache.len()), (8_800, 0));
    assert_eq!(cache.stats().expirations, 9_000);
}
