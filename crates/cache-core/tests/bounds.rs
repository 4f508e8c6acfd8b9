//! Neither entries nor weight ever exceed the capacity, whenever and from wherever a caller looks: between operations, from other
//! threads, from a listener, a weigher, a `Drop` and the body of a loop.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use cache_core::{Cache, Expiry, ManualClock, Policy, Verdict};
use proptest::prelude::*;

/// A cache that looks at its own bounds wherever it is let to.
#[derive(Clone)]
struct Watched {
    cache: Cache<u16, Value>,
    clock: ManualClock,
    link: Arc<Link>,
}

#[derive(Default)]
struct Link {
    cache: OnceLock<Cache<u16, Value>>,
    looks: AtomicU64,
}

impl Link {
    fn look(&self) {
        if let Some(cache) = self.cache.get() {
            // Asked for first, so that a capacity that grows in between is no excuse.
            let (entries, weight) = (cache.capacity(), cache.weight_capacity());
            assert!(cache.len() <= entries.unwrap_or(usize::MAX));
            assert!(cache.weight() <= weight.unwrap_or(u64::MAX));
            self.looks.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Value {
    weight: u64,
    link: Arc<Link>,
}

/// What the weigher answers under a shard's lock must not look, or it would wait for itself; such values say so.
const BLIND: u64 = 1 << 40;

impl Drop for Value {
    fn drop(&mut self) {
        self.link.look();
    }
}

impl Watched {
    fn new(Shape { entries, weight, shards, policy, depth, idle }: Shape) -> Self {
        let (link, clock) = (Arc::<Link>::default(), ManualClock::new());
        let for_listener = Arc::clone(&link);
        let mut builder = Cache::builder()
            .weigher(|_: &u16, value: &Value| {
                if value.weight & BLIND == 0 {
                    value.link.look();
                }
                value.weight & !BLIND
            })
            .listener(move |_, _, _| for_listener.look())
            .shards(shards)
            .policy(policy)
            .remote_depth(depth)
            .ttl_jitter(0.2)
            .clock(clock.clone());
        if let Some(idle) = idle {
            builder = builder.time_to_idle(Duration::from_millis(idle));
        }
        if let Some(entries) = entries {
            builder = builder.capacity(entries);
        }
        if let Some(weight) = weight {
            builder = builder.weight_capacity(weight);
        }
        let cache = builder.build().expect("a right configuration");
        link.cache.set(cache.clone()).unwrap_or_else(|_| unreachable!("set once"));
        Watched { cache, clock, link }
    }

    fn value(&self, weight: u64) -> Value {
        Value { weight, link: Arc::clone(&self.link) }
    }

    fn run(&self, op: &Op) {
        let cache = &self.cache;
        match *op {
            Op::Insert(key, weight) => drop(cache.insert(key, self.value(weight))),
            Op::InsertWithTtl(key, weight, ms) => {
                cache.insert_with_ttl(key, self.value(weight), Duration::from_millis(ms));
            }
            Op::InsertRemote(key, weight) => {
                cache.insert_remote(key, self.value(weight), Expiry::Default);
            }
            // Refused where there is no such bound or not an entry for each shard.
            Op::Resize(entries) => drop(cache.resize(entries)),
            Op::ResizeWeight(weight) => drop(cache.resize_weight(weight)),
            Op::Upsert(key, weight) => {
                let verdict = Verdict::Replace(self.value(weight | BLIND), Expiry::Default);
                cache.upsert(&key, |key| *key, |_, ()| (verdict, ()));
            }
            Op::Update(key, weight) => {
                cache.update(&key, |value| value.weight = weight | BLIND);
            }
            Op::Read(key) => drop(cache.read(&key, |value, _| value.weight)),
            Op::Remove(key) => drop(cache.remove(&key)),
            Op::Retain(modulus) => drop(cache.retain(|key, _| key % modulus != 0)),
            Op::Advance(ms) => self.clock.advance(Duration::from_millis(ms)),
            Op::Sweep => drop(cache.sweep()),
            Op::Clear => cache.clear(),
        }
        self.link.look();
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // The values hold the link and the link holds the cache: let go of the values.
        self.cache.clear();
    }
}

#[derive(Debug, Clone)]
enum Op {
    Insert(u16, u64),
    InsertWithTtl(u16, u64, u64),
    InsertRemote(u16, u64),
    Resize(usize),
    ResizeWeight(u64),
    Upsert(u16, u64),
    Update(u16, u64),
    Read(u16),
    Remove(u16),
    Retain(u16),
    Advance(u64),
    Sweep,
    Clear,
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0u16..200;
    let weight =
        || prop_oneof![8 => 0u64..10, 2 => 10u64..100, 1 => Just(u64::from(u32::MAX)), 1 => Just(BLIND - 1)];
    prop_oneof![
        8 => (key(), weight()).prop_map(|(key, weight)| Op::Insert(key, weight)),
        3 => (key(), weight(), 0u64..20).prop_map(|(key, weight, ms)| Op::InsertWithTtl(key, weight, ms)),
        3 => (key(), weight()).prop_map(|(key, weight)| Op::InsertRemote(key, weight)),
        1 => (0usize..150).prop_map(Op::Resize),
        1 => (0u64..400).prop_map(Op::ResizeWeight),
        4 => (key(), weight()).prop_map(|(key, weight)| Op::Upsert(key, weight)),
        4 => (key(), weight()).prop_map(|(key, weight)| Op::Update(key, weight)),
        4 => key().prop_map(Op::Read),
        2 => key().prop_map(Op::Remove),
        1 => (2u16..20).prop_map(Op::Retain),
        2 => (1u64..10).prop_map(Op::Advance),
        1 => Just(Op::Sweep),
        1 => Just(Op::Clear),
    ]
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    entries: Option<usize>,
    weight: Option<u64>,
    shards: usize,
    policy: Policy,
    depth: f64,
    idle: Option<u64>,
}

/// Bounds, a number of shards that fits them, and each way to choose victims.
fn shape() -> impl Strategy<Value = Shape> {
    let bounds = prop_oneof![
        (1usize..120).prop_map(|entries| (Some(entries), None)),
        (1u64..300).prop_map(|weight| (None, Some(weight))),
        (1usize..120, 1u64..300).prop_map(|(entries, weight)| (Some(entries), Some(weight))),
    ];
    let policy = prop_oneof![Just(Policy::Lru), Just(Policy::TinyLfu)];
    let depth = prop_oneof![Just(0.0), 0.0..=1.0];
    let idle = prop_oneof![Just(None), (1u64..20).prop_map(Some)];
    (bounds, 0u32..5, policy, depth, idle).prop_map(|((entries, weight), bits, policy, depth, idle)| {
        let most = entries.unwrap_or(usize::MAX).min(weight.map_or(usize::MAX, |weight| weight as usize));
        Shape { entries, weight, shards: (1 << bits).min(1 << most.ilog2()), policy, depth, idle }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_look_from_anywhere_finds_the_bounds_kept(
        shape in shape(),
        ops in prop::collection::vec(op(), 1..250),
    ) {
        let watched = Watched::new(shape);
        for op in &ops {
            watched.run(op);
        }
        prop_assert!(watched.link.looks.load(Ordering::Relaxed) >= ops.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn observers_beside_writers_find_the_bounds_kept(
        shape in shape(),
        works in prop::collection::vec(prop::collection::vec(op(), 200..400), 3),
    ) {
        // Beside others, nobody can tell which capacity his look belongs to; see the next test.
        let is_resizing = |op: &Op| matches!(op, Op::Resize(_) | Op::ResizeWeight(_));
        let works: Vec<Vec<Op>> =
            works.into_iter().map(|ops| ops.into_iter().filter(|op| !is_resizing(op)).collect()).collect();
        let watched = Watched::new(shape);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let observer = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    watched.link.look();
                    assert!(watched.cache.hottest(usize::MAX, |item| Some(*item.key)).len() <= 200);
                }
            });
            let writers: Vec<_> =
                works.iter().map(|ops| scope.spawn(|| ops.iter().for_each(|op| watched.run(op)))).collect();
            let outcomes: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
            done.store(true, Ordering::Relaxed);
            observer.join().expect("the observer found the bounds kept");
            outcomes.into_iter().for_each(|outcome| outcome.expect("the writers found the bounds kept"));
        });
        let stats = watched.cache.stats();
        let gone = stats.evictions + stats.expirations + stats.removals + stats.cleared;
        prop_assert_eq!(stats.inserts, watched.cache.len() as u64 + gone);
    }
}

/// Ends the loops of other threads, also when an assertion fails: a test then fails rather than hangs.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_smaller_capacity_holds_from_the_moment_it_is_told() {
    const LARGE: usize = 1_000;
    for policy in [Policy::Lru, Policy::TinyLfu] {
        let cache =
            Cache::builder().capacity(LARGE).shards(8).policy(policy).build().expect("a right configuration");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for seed in 0..2_u64 {
                let (cache, done) = (&cache, &done);
                scope.spawn(move || {
                    let mut n = seed;
                    while !done.load(Ordering::Relaxed) {
                        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        cache.insert(n >> 50, n);
                        cache.insert_remote(n >> 48, n, Expiry::Default);
                        assert!(cache.len() <= LARGE);
                    }
                });
            }
            let _ends = Ends(&done);
            for entries in (8..LARGE).step_by(31) {
                cache.resize(entries).expect("as many as shards at least");
                assert!(cache.len() <= entries, "{policy:?}: {} of {entries}", cache.len());
                cache.resize(LARGE).expect("as many as shards at least");
            }
        });
        let stats = cache.stats();
        assert_eq!(stats.inserts, cache.len() as u64 + stats.evictions);
    }
}

#[test]
fn the_body_of_a_loop_finds_the_bounds_kept() {
    let cache = Cache::builder().capacity(1_000).shards(8).build().expect("a right configuration");
    for n in 0..5_000_u32 {
        cache.insert(n, n);
    }
    for (key, value) in &cache {
        cache.insert(key + 10_000, value);
        assert!(cache.len() <= 1_000 && cache.weight() <= 1_000);
    }
}

#[test]
fn a_full_cache_keeps_what_it_has_when_a_write_is_over_at_once() {
    for policy in [Policy::Lru, Policy::TinyLfu] {
        let cache: Cache<u16, u32> = Cache::builder().capacity(10).policy(policy).build().unwrap();
        (0..10).for_each(|key| assert_eq!(cache.insert(key, 0), None));
        let less_than_a_tick = Duration::from_millis(9);
        for key in 10..100 {
            assert_eq!(cache.insert_with_ttl(key, 1, less_than_a_tick), None);
        }
        assert!((0..10).all(|key| cache.contains(&key)), "{policy:?}");
        let stats = cache.stats();
        assert_eq!((stats.inserts, stats.expirations, stats.evictions), (100, 90, 0), "{policy:?}");
    }
}
