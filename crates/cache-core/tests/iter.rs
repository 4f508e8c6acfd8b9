//! The snapshot: in order, each key at most once, and no lock around the loop's body.

mod placed;

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use cache_core::{Cache, Expiry, ManualClock, Policy};
use placed::Placed;

fn numbers(capacity: usize, shards: usize) -> (Cache<u64, u64>, ManualClock) {
    let clock = ManualClock::new();
    let builder = Cache::builder().capacity(capacity).shards(shards).clock(clock.clone());
    (builder.build().expect("a right configuration"), clock)
}

fn put(cache: &Cache<u64, u64>, keys: Range<u64>, value: u64) {
    for key in keys {
        cache.insert(key, value);
    }
}

#[test]
fn the_hottest_comes_first_and_the_shards_take_turns() {
    let (cache, _) = numbers(100, 1);
    put(&cache, 0..5, 0);
    cache.get(&1);
    cache.get(&3);
    assert_eq!(cache.iter().map(|(key, _)| key).collect::<Vec<_>>(), [3, 1, 4, 2, 0]);

    let (cache, _) = numbers(100_000, 64);
    put(&cache, 0..20_000, 0);
    for key in 0..1_000 {
        cache.get(&key);
    }
    let shown: Vec<u64> = cache.iter().map(|(key, _)| key).collect();
    assert_eq!(shown.len(), 20_000);
    assert!(shown[..1_000].iter().all(|key| *key < 1_000), "what was used comes before what was not");
    assert_eq!(shown.into_iter().collect::<HashSet<_>>().len(), 20_000);
}

#[test]
fn more_shards_than_a_chunk_has_entries_are_all_shown() {
    let (cache, _) = numbers(100_000, 1024);
    put(&cache, 0..10_000, 0);
    assert_eq!(cache.iter().collect::<HashMap<_, _>>().len(), 10_000);
}

#[test]
fn the_body_may_do_anything_with_the_cache() {
    let (cache, _) = numbers(10_000, 4);
    put(&cache, 0..900, 0);
    let mut shown = 0;
    for (key, value) in &cache {
        assert_eq!((value, cache.contains(&key)), (0, true));
        assert!(cache.update(&key, |value| *value += 1).is_some());
        cache.remove(&key);
        cache.insert(10_000 + key, 1);
        assert!(cache.iter().next().is_some());
        shown += 1;
    }
    assert_eq!((shown, cache.len()), (900, 900), "what came later is not shown");
    cache.clear();
    assert_eq!(cache.iter().count(), 0);
}

#[test]
fn what_left_or_was_over_before_its_turn_is_not_shown() {
    let (cache, clock) = numbers(10_000, 1);
    for key in 0..4_000 {
        cache.insert_with_ttl(key, key, Duration::from_secs(60));
    }
    for key in 1_000..2_000 {
        cache.touch(&key, Expiry::Never);
    }
    // Not yet a clone was made.
    let mut entries = cache.iter();
    assert_eq!(entries.size_hint(), (0, None));
    for key in 1_000..1_500 {
        cache.remove(&key);
    }
    cache.insert(5_000, 7);
    cache.insert(1_600, 8);
    clock.advance(Duration::from_secs(60));
    let first = entries.next();
    assert_eq!(first, Some((1_999, 1_999)), "the newest of those that were used");
    let rest: HashMap<u64, u64> = entries.by_ref().collect();
    assert_eq!(entries.next(), None);
    assert_eq!((rest.len(), rest[&1_600]), (499, 8), "an overwritten value is shown as it is now");
    assert!(rest.keys().all(|key| (1_500..1_999).contains(key)));
    assert_eq!((cache.stats().hits, cache.stats().expirations), (0, 0), "nothing was read or reclaimed");
}

/// Ends the loops of other threads, also when an assertion fails: a test then fails rather than hangs.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_stays_is_shown_once_while_others_write() {
    let (cache, _) = numbers(100_000, 16);
    put(&cache, 0..2_000, 0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !done.load(Ordering::Relaxed) {
                cache.insert(10_000 + n % 5_000, n);
                cache.remove(&(10_000 + (n * 7) % 5_000));
                cache.insert(n % 2_000, n);
                n += 1;
            }
        });
        let _ends = Ends(&done);
        for _ in 0..10 {
            let shown: Vec<u64> = cache.iter().map(|(key, _)| key).collect();
            let distinct: HashSet<u64> = shown.iter().copied().collect();
            assert_eq!(shown.len(), distinct.len(), "none twice");
            assert_eq!(distinct.iter().filter(|key| **key < 2_000).count(), 2_000);
        }
    });
}

/// Entries of these policies move from slot to slot while they are used.
#[test]
fn what_moves_within_the_cache_is_shown_once_all_the_same() {
    for (policy, depth) in [(Policy::Lru, 0.5), (Policy::TinyLfu, 0.0), (Policy::TinyLfu, 0.5)] {
        let cache = Cache::builder()
            .capacity(1_600)
            .shards(2)
            .policy(policy)
            .remote_depth(depth)
            .build()
            .expect("a right configuration");
        for key in 0..1_500_u64 {
            cache.insert_remote(key, key, Expiry::Default);
        }
        let mut entries = cache.iter();
        let mut shown: Vec<u64> = entries.by_ref().take(100).map(|(key, _)| key).collect();
        for round in 0..20 {
            for key in (0..1_500).filter(|key| key % 20 >= round) {
                cache.get(&key);
            }
            // Something has to go each time, and the search for it moves others about.
            put(&cache, 10_000 + round * 50..10_050 + round * 50, 0);
            shown.extend(entries.by_ref().take(60).map(|(key, _)| key));
        }
        shown.extend(entries.map(|(key, _)| key));
        let distinct: HashSet<u64> = shown.iter().copied().collect();
        assert_eq!(shown.len(), distinct.len(), "none twice: {policy:?}, {depth}");
        // Nobody puts one back, so those that are there have been there all the time.
        let stayed: Vec<u64> = (0..1_500).filter(|key| cache.contains(key)).collect();
        assert!(stayed.len() > 500 && stayed.iter().all(|key| distinct.contains(key)), "{policy:?}, {depth}");
    }
}

#[test]
fn keys_that_share_a_position_are_each_shown_once() {
    let builder = Cache::<u64, u64>::builder().capacity(400).shards(4).hasher(Placed(|key| (key % 5) << 61));
    let cache = builder.build().expect("a right configuration");
    for key in 0..50 {
        cache.insert(key, key);
    }
    cache.get(&31);
    let mut entries = cache.iter();
    let (first, _) = entries.next().expect("fifty are there");
    assert_eq!(first % 5, 31 % 5, "those that share the position of what was used come first");
    cache.remove(&first);
    let mut shown: Vec<u64> = entries.map(|(key, _)| key).collect();
    shown.push(first);
    shown.sort_unstable();
    assert!(shown.into_iter().eq(0..50));
}

#[test]
fn a_snapshot_outlives_every_other_handle() {
    let (cache, _) = numbers(100, 1);
    cache.insert(1, 10);
    let mut entries = cache.iter();
    drop(cache);
    assert_eq!((entries.next(), entries.next(), entries.next()), (Some((1, 10)), None, None));
}

/// A value that counts its clones, and panics at one of them.
#[derive(Debug)]
struct Fragile(u64, Arc<AtomicU64>);

impl Clone for Fragile {
    fn clone(&self) -> Self {
        assert_ne!(self.1.fetch_add(1, Ordering::Relaxed), 5, "told to panic at the sixth clone");
        Fragile(self.0, Arc::clone(&self.1))
    }
}

#[test]
fn a_clone_that_panics_leaves_the_cache_and_the_iterator_usable() {
    let clones = Arc::<AtomicU64>::default();
    let cache = Cache::builder().capacity(100).build().expect("a right configuration");
    for key in 0..10_u64 {
        cache.insert(key, Fragile(key, Arc::clone(&clones)));
    }
    let mut entries = cache.iter();
    assert!(catch_unwind(AssertUnwindSafe(|| entries.next())).is_err());
    assert!(entries.count() < 10);
    assert_eq!((cache.len(), cache.iter().count()), (10, 10));
}

#[test]
fn retain_judges_each_standing_entry_once_while_others_write() {
    let (cache, _) = numbers(100_000, 16);
    put(&cache, 0..2_000, 0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !done.load(Ordering::Relaxed) {
                cache.insert(10_000 + n % 5_000, n);
                cache.remove(&(10_000 + (n * 7) % 5_000));
                n += 1;
            }
        });
        let _ends = Ends(&done);
        let mut judged = Vec::new();
        let removed = cache.retain(|key, _| {
            judged.extend((*key < 2_000).then_some(*key));
            *key >= 1_000
        });
        judged.sort_unstable();
        assert!(judged.into_iter().eq(0..2_000));
        assert_eq!(removed, 1_000);
    });
    assert!((0..2_000).all(|key| cache.contains(&key) == (key >= 1_000)));
}

#[test]
fn a_judgement_that_panics_takes_nothing_of_its_page() {
    let (cache, _) = numbers(100, 1);
    put(&cache, 0..50, 0);
    let mut judged = 0;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        cache.retain(|_, _| {
            judged += 1;
            assert_ne!(judged, 25, "told to panic here");
            false
        });
    }));
    assert!(panicked.is_err());
    assert_eq!((cache.len(), cache.stats().removals), (50, 0));
    assert_eq!(cache.retain(|_, _| false), 50);
}
