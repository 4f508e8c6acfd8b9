//! The page scan: every key once, whatever is written meanwhile.

mod placed;

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use cache_core::{Cache, Expiry, ManualClock, Policy};
use fastrand::Rng;
use placed::Placed;

fn scan_keys<S: BuildHasher>(cache: &Cache<u64, u64, S>, limit: usize) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut at = Some(0);
    while let Some(position) = at {
        at = cache.scan(position, limit, |page, ()| {
            assert_eq!(page.lo, position);
            assert!(page.items.iter().all(|item| item.position >= page.lo));
            assert!(page.next.is_none_or(|next| page.items.iter().all(|item| item.position < next)));
            found.extend(page.items.iter().map(|item| (item.position, *item.key)));
            page.next
        });
        assert!(at.is_none_or(|next| next > position), "the scan goes on");
    }
    found
}

#[test]
fn a_scan_meets_each_standing_key_once_while_others_write() {
    let cache =
        Cache::<u64, u64>::builder().capacity(100_000).shards(16).build().expect("a right configuration");
    (0..2_000).for_each(|key| {
        cache.insert(key, 0);
    });
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !done.load(Ordering::Relaxed) {
                // Foreign keys come and go, and the standing ones are rewritten.
                cache.insert(10_000 + n % 5_000, n);
                cache.remove(&(10_000 + (n * 7) % 5_000));
                cache.insert(n % 2_000, n);
                n += 1;
            }
        });
        for limit in [1, 3, 64, 1_000, usize::MAX] {
            let found = scan_keys(&cache, limit);
            assert!(found.windows(2).all(|pair| pair[0].0 <= pair[1].0), "positions ascend");
            let standing: Vec<u64> = found.iter().map(|(_, key)| *key).filter(|key| *key < 2_000).collect();
            assert_eq!(standing.len(), 2_000, "limit {limit}");
            assert_eq!(standing.into_iter().collect::<HashSet<_>>().len(), 2_000);
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// A few operations, which have entries rise and fall.
fn churn<S: BuildHasher>(cache: &Cache<u64, u64, S>, random: &mut Rng) {
    for _ in 0..random.u64(..50) {
        let key = random.u64(..400);
        match random.u64(..30) {
            0..5 => drop(cache.insert(key, random.u64(..7))),
            5..8 => drop(cache.insert_remote(key, random.u64(..7), Expiry::Default)),
            8 => drop(cache.remove(&key)),
            _ => drop(cache.get(&key)),
        }
    }
}

/// Where the order has segments, entries rise and fall, go and come again into others' slots while a scan is under way: what stays must
/// be met all the same, and once.
#[test]
fn a_scan_meets_each_standing_key_once_while_entries_rise_and_fall() {
    for (policy, depth) in
        [(Policy::Lru, 0.5), (Policy::Lru, 0.9), (Policy::TinyLfu, 0.0), (Policy::TinyLfu, 0.7)]
    {
        for seed in 1..30 {
            let mut random = Rng::with_seed(seed);
            let mut builder = Cache::builder().capacity(200).shards(1).policy(policy).remote_depth(depth);
            if seed % 2 == 0 {
                builder = builder.weight_capacity(600).weigher(|_, value: &u64| value % 7);
            }
            let cache = builder
                .hasher(BuildHasherDefault::<DefaultHasher>::default())
                .build()
                .expect("a right configuration");
            // Until all segments are full.
            (0..60).for_each(|_| churn(&cache, &mut random));
            let mut standing: HashSet<u64> = (0..400).filter(|key| cache.contains(key)).collect();
            let (mut at, mut found) = (Some(0), HashSet::new());
            while let Some(position) = at {
                at = cache.scan(position, 1 + random.u64(..5) as usize, |page, ()| {
                    for item in page.items {
                        assert!(
                            found.insert(*item.key),
                            "{policy:?}, {depth}, seed {seed}: {} twice",
                            item.key
                        );
                    }
                    page.next
                });
                churn(&cache, &mut random);
                standing.retain(|key| cache.contains(key));
            }
            let missed: Vec<_> = standing.difference(&found).collect();
            assert!(
                missed.is_empty(),
                "{policy:?}, {depth}, seed {seed}: {missed:?} were there at every page"
            );
        }
    }
}

#[test]
fn a_page_stays_within_its_shard_and_the_last_has_no_next() {
    let cache =
        Cache::<u64, u64>::builder().capacity(100_000).shards(4).build().expect("a right configuration");
    let quarter = 1_u64 << 62;
    assert_eq!(cache.scan(0, 10, |page, ()| (page.items.len(), page.next)), (0, Some(quarter)));
    assert_eq!(cache.scan(quarter + 5, 10, |page, ()| page.next), Some(2 * quarter));
    assert_eq!(cache.scan(u64::MAX, 10, |page, ()| page.next), None);
    (0..1_000).for_each(|key| {
        cache.insert(key, 0);
    });
    cache.scan(quarter, usize::MAX, |page, ()| {
        assert!(!page.items.is_empty());
        assert!(page.items.iter().all(|item| item.position >> 62 == 1));
    });
}

#[test]
fn a_single_shard_covers_every_position() {
    let cache = Cache::<u64, u64>::builder().capacity(100).build().expect("a right configuration");
    assert_eq!(cache.shards(), 1);
    (0..100).for_each(|key| {
        cache.insert(key, 0);
    });
    assert_eq!(scan_keys(&cache, 7).len(), 100);
}

/// Each key at the position that it is itself; two pairs share one, one of them at the very end.
const PLACED: Placed = Placed(|key| match key {
    41 => 40,
    key if key == u64::MAX - 1 => u64::MAX,
    key => key,
});

#[test]
fn equal_positions_share_a_page_and_adjacent_ones_are_not_skipped() {
    let cache = Cache::<u64, u64>::builder()
        .capacity(1_000)
        .shards(2)
        .hasher(PLACED)
        .build()
        .expect("a right configuration");
    let keys = [0, 1, 2, 40, 41, u64::MAX - 2, u64::MAX - 1, u64::MAX];
    keys.iter().for_each(|key| {
        cache.insert(*key, 0);
    });
    let mut pages = Vec::new();
    let mut at = Some(0);
    while let Some(position) = at {
        at = cache.scan(position, 1, |page, ()| {
            let mut keys: Vec<u64> = page.items.iter().map(|item| *item.key).collect();
            keys.sort_unstable();
            pages.push(keys);
            page.next
        });
    }
    assert_eq!(
        pages,
        [vec![0], vec![1], vec![2], vec![40, 41], vec![u64::MAX - 2], vec![u64::MAX - 1, u64::MAX]]
    );
}

#[test]
fn a_scan_leaves_the_expired_out_and_shows_what_life_is_left() {
    let clock = ManualClock::new();
    let cache = Cache::<u64, u64>::builder()
        .capacity(100)
        .clock(clock.clone())
        .build()
        .expect("a right configuration");
    cache.insert_with_expiry(1, 0, Expiry::After(Duration::from_millis(10)));
    cache.insert_with_expiry(2, 0, Expiry::After(Duration::from_millis(30)));
    cache.insert(3, 0);
    clock.advance(Duration::from_millis(10));
    let left: HashMap<u64, _> =
        cache.scan(0, 10, |page, ()| page.items.iter().map(|item| (*item.key, item.left)).collect());
    assert_eq!(left, HashMap::from([(2, Some(Duration::from_millis(20))), (3, None)]));
}

#[test]
fn a_place_holds_the_live_entries_of_its_position_and_no_others() {
    let clock = ManualClock::new();
    let cache = Cache::<u64, u64>::builder()
        .capacity(100)
        .hasher(PLACED)
        .clock(clock.clone())
        .build()
        .expect("a right configuration");
    // 40 and 41 share a position.
    for key in [39, 40, 41, 42] {
        cache.insert_with_expiry(key, key * 10, Expiry::After(Duration::from_millis(key)));
    }
    let seen = |position| {
        cache.at(position, |place, ()| {
            let mut seen: Vec<u64> = place.iter().map(|item| *item.key).collect();
            assert_eq!(seen.is_empty(), place.is_vacant());
            seen.sort_unstable();
            seen
        })
    };
    assert_eq!((seen(40), seen(41), seen(43)), (vec![40, 41], vec![], vec![]));
    cache.at(40, |place, ()| place.retain(|item| *item.key == 41));
    assert_eq!((seen(40), cache.peek(&40), cache.peek(&41)), (vec![41], None, Some(410)));
    clock.advance(Duration::from_millis(41));
    assert_eq!((seen(40), cache.stats().expirations), (vec![], 1), "what is over is given up on the way");
    assert_eq!(cache.len(), 2, "39 was not met");
}

#[test]
fn a_page_is_cleaned_under_one_lock() {
    let cache =
        Cache::<u64, u64>::builder().capacity(10_000).shards(4).build().expect("a right configuration");
    (0..1_000).for_each(|key| {
        cache.insert(key, 0);
    });
    let (mut at, mut shown) = (Some(0), 0);
    while let Some(position) = at {
        at = cache.retain_page(position, 64, |item, ()| {
            shown += 1;
            item.key % 3 != 0
        });
    }
    assert_eq!((shown, cache.len(), cache.stats().removals), (1_000, 666, 334));
    assert!(scan_keys(&cache, 64).iter().all(|(_, key)| key % 3 != 0));
}

/// With a count near the end of numbers the answer's share per shard overflowed.
#[test]
fn the_hottest_of_any_count_are_at_most_what_is_there() {
    let cache = Cache::<u64, u64>::builder().capacity(100).build().expect("a right configuration");
    (0..100).for_each(|key| {
        cache.insert(key, 0);
    });
    let shown = |count| cache.hottest(count, |item| Some(*item.key)).len();
    assert_eq!([0, 1, 99, 100, usize::MAX - 1, usize::MAX].map(shown), [0, 1, 99, 100, 100, 100]);
}
