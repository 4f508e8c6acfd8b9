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

use cache_core::{Cache, Expiry, ManualClock, Verdict};
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
            assert!(cache.len() <= cache.capacity().unwrap_or(usize::MAX));
            assert!(cache.weight() <= cache.weight_capacity().unwrap_or(u64::MAX));
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
    fn new(entries: Option<usize>, weight: Option<u64>, shards: usize) -> Self {
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
            .clock(clock.clone());
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

/// Bounds and a number of shards that fits them.
fn shape() -> impl Strategy<Value = (Option<usize>, Option<u64>, usize)> {
    let bounds = prop_oneof![
        (1usize..120).prop_map(|entries| (Some(entries), None)),
        (1u64..300).prop_map(|weight| (None, Some(weight))),
        (1usize..120, 1u64..300).prop_map(|(entries, weight)| (Some(entries), Some(weight))),
    ];
    (bounds, 0u32..5).prop_map(|((entries, weight), bits)| {
        let most = entries.unwrap_or(usize::MAX).min(weight.map_or(usize::MAX, |weight| weight as usize));
        (entries, weight, (1 << bits).min(1 << most.ilog2()))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_look_from_anywhere_finds_the_bounds_kept(
        (entries, weight, shards) in shape(),
        ops in prop::collection::vec(op(), 1..250),
    ) {
        let watched = Watched::new(entries, weight, shards);
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
        (entries, weight, shards) in shape(),
        works in prop::collection::vec(prop::collection::vec(op(), 200..400), 3),
    ) {
        let watched = Watched::new(entries, weight, shards);
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
