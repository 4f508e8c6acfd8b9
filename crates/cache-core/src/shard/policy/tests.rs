use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::{
    Sidecar,
    clock::NEVER,
    departed::Departed,
    shard::{Change, New, Rules, Share},
};

/// Collects the keys that it is told of.
#[derive(Default)]
struct Told(Vec<u64>);

impl Sidecar<u64, u64> for Told {
    fn victim(&mut self, _: u64, key: &u64, _: &u64, _: Cause) {
        self.0.push(*key);
    }
}

struct Fixture {
    store: Store<u64, u64>,
    told: Told,
    out: Departed<u64, u64>,
}

fn rules(policy: Policy, remote_depth: f64, is_weighed: bool) -> Rules {
    Rules { policy, remote_depth, is_weighed, idle_ms: None }
}

impl Fixture {
    fn new(entries: usize, weight: u64, rules: Rules) -> Self {
        let store = Store::new(Share { entries, weight }, rules);
        Fixture { store, told: Told::default(), out: Departed::new() }
    }

    fn hash(key: u64) -> u64 {
        (key + 1).wrapping_mul(0xBF58_476D_1CE4_E5B9) ^ (key << 20)
    }

    fn slot(&self, key: u64) -> Option<u32> {
        self.store.find(Self::hash(key), &key)
    }

    /// Writes a key, and checks what must hold after each write.
    fn write(&mut self, key: u64, weight: u64, origin: Origin) {
        match self.slot(key) {
            Some(slot) => {
                let change = Change { weight, deadline: NEVER, origin, now: 0 };
                self.store.replace(slot, key, change, &mut self.told, &mut self.out);
            }
            None => {
                let hash = Self::hash(key);
                let new = New { hash, key, value: key, weight, deadline: NEVER, origin };
                self.store.insert(new, 0, &mut self.told, &mut self.out);
            }
        }
        assert!(self.store.len() <= self.store.share.entries);
        assert!(self.store.weight() <= self.store.share.weight);
    }

    /// Reads a key and puts it in if it is not there; returns whether it was.
    fn read_through(&mut self, key: u64, origin: Origin) -> bool {
        let found = self.read(key);
        if !found {
            self.write(key, 1, origin);
        }
        found
    }

    fn read(&mut self, key: u64) -> bool {
        let slot = self.slot(key);
        match slot {
            Some(slot) => self.store.hit(slot, 0),
            None => self.store.counts.misses += 1,
        }
        slot.is_some()
    }

    fn remove(&mut self, key: u64) {
        if let Some(slot) = self.slot(key) {
            self.store.remove(slot);
        }
    }

    /// The keys of a segment, the hottest first.
    fn segment(&self, segment: Segment) -> Vec<u64> {
        self.store.order.recency.hottest(segment).map(|slot| self.store.entry(slot).key).collect()
    }

    /// Each entry is in the order of its own segment once, and found under its key.
    fn check(&self) {
        let mut seen = HashSet::new();
        for segment in [Segment::First, Segment::Second, Segment::Third] {
            for key in self.segment(segment) {
                let slot = self.slot(key).expect("what is in the order is in the table");
                assert_eq!(self.store.entry(slot).word.segment(), segment);
                assert!(seen.insert(key), "{key} is there twice");
            }
        }
        assert_eq!(seen.len(), self.store.len());
        if let (Rule::Midpoint(midpoint), Some(weights)) = (&self.store.order.rule, &self.store.weights) {
            let upper = self.store.order.recency.hottest(Segment::First);
            let sum: u64 = upper.map(|slot| u64::from(weights[slot as usize])).sum();
            assert_eq!(midpoint.upper_weight, sum);
        }
    }
}

/// Midpoint insertion as one would write it without a thought for speed: the hottest first.
struct Naive {
    upper: Vec<(u64, bool)>,
    lower: Vec<(u64, bool)>,
    capacity: usize,
    depth: f64,
    victims: Vec<u64>,
}

impl Naive {
    fn find(&mut self, key: u64) -> Option<&mut (u64, bool)> {
        self.upper.iter_mut().chain(&mut self.lower).find(|(other, _)| *other == key)
    }

    fn target(&self) -> usize {
        ((self.capacity as f64 * self.depth) as usize).max(1)
    }

    fn len(&self) -> usize {
        self.upper.len() + self.lower.len()
    }

    /// What the upper segment holds too much falls to the lower one.
    fn settle(&mut self, most: usize) {
        for _ in 0..most {
            if self.upper.len() > self.target() {
                let fallen = self.upper.pop().expect("it is too long");
                self.lower.insert(0, fallen);
            }
        }
    }

    fn write(&mut self, key: u64, origin: Origin) {
        if let Some(held) = self.find(key) {
            held.1 |= origin == Origin::Local;
            return;
        }
        if self.len() >= self.capacity {
            self.settle(2);
            self.evict();
        }
        match origin {
            Origin::Local => self.upper.insert(0, (key, false)),
            Origin::Remote => self.lower.insert(0, (key, false)),
        }
        self.settle(2);
    }

    fn evict(&mut self) {
        for _ in 0..SECOND_CHANCES_MAX {
            let is_lower = !self.lower.is_empty();
            let (key, marked) =
                if is_lower { self.lower.pop() } else { self.upper.pop() }.expect("it is full");
            if !marked {
                self.victims.push(key);
                return;
            }
            self.upper.insert(0, (key, false));
            self.settle(usize::from(is_lower));
        }
        unreachable!("there are fewer entries than chances");
    }
}

#[derive(Debug, Clone)]
enum Op {
    Write(u64, bool),
    Read(u64),
    Remove(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (0..30_u64, any::<bool>()).prop_map(|(key, local)| Op::Write(key, local)),
        4 => (0..30_u64).prop_map(Op::Read),
        1 => (0..30_u64).prop_map(Op::Remove),
    ]
}

fn origin(is_local: bool) -> Origin {
    if is_local { Origin::Local } else { Origin::Remote }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    #[cfg_attr(miri, ignore = "so many operations take Miri many minutes")]
    fn midpoint_insertion_keeps_the_order_of_the_naive_model(
        capacity in 2usize..16,
        depth in prop_oneof![Just(0.05), Just(0.5), Just(0.7), Just(1.0)],
        ops in prop::collection::vec(op(), 1..300),
    ) {
        let mut f = Fixture::new(capacity, u64::MAX, rules(Policy::Lru, depth, false));
        let mut naive = Naive { upper: vec![], lower: vec![], capacity, depth, victims: vec![] };
        for op in ops {
            match op {
                Op::Write(key, is_local) => {
                    f.write(key, 1, origin(is_local));
                    naive.write(key, origin(is_local));
                }
                Op::Read(key) => {
                    let held = naive.find(key);
                    prop_assert_eq!(f.read(key), held.is_some());
                    if let Some(held) = held {
                        held.1 = true;
                    }
                }
                Op::Remove(key) => {
                    f.remove(key);
                    naive.upper.retain(|(other, _)| *other != key);
                    naive.lower.retain(|(other, _)| *other != key);
                }
            }
            let keys = |list: &[(u64, bool)]| list.iter().map(|(key, _)| *key).collect::<Vec<_>>();
            prop_assert_eq!(f.segment(Segment::First), keys(&naive.upper));
            prop_assert_eq!(f.segment(Segment::Second), keys(&naive.lower));
            prop_assert_eq!(&f.told.0, &naive.victims);
            f.check();
        }
    }

    /// With weights, segments and all, the books balance: each entry went once, and the bounds hold after every write.
    #[test]
    #[cfg_attr(miri, ignore = "so many operations take Miri many minutes")]
    fn every_policy_loses_each_entry_once_and_keeps_its_bounds(
        policy in prop_oneof![Just(Policy::Lru), Just(Policy::TinyLfu)],
        depth in prop_oneof![Just(0.0), Just(0.4)],
        capacity in 1usize..20,
        weight in 4u64..60,
        ops in prop::collection::vec((op(), 1..9u64), 1..300),
    ) {
        let mut f = Fixture::new(capacity, weight, rules(policy, depth, true));
        let mut put = HashMap::new();
        for (op, weight) in ops {
            match op {
                Op::Write(key, is_local) => {
                    let before = f.store.counts.inserts;
                    f.write(key, weight, origin(is_local));
                    *put.entry(key).or_insert(0) += f.store.counts.inserts - before;
                }
                Op::Read(key) => {
                    f.read(key);
                }
                Op::Remove(key) => {
                    put.entry(key).and_modify(|times| *times -= u64::from(f.slot(key).is_some()));
                    f.remove(key);
                }
            }
            f.check();
        }
        for (key, times) in put {
            let told = f.told.0.iter().filter(|told| **told == key).count() as u64;
            prop_assert_eq!(times, told + u64::from(f.slot(key).is_some()));
        }
        prop_assert_eq!(f.told.0.len(), f.out.len());
    }

    /// A depth is nothing to local writes: they alone make one list.
    #[test]
    #[cfg_attr(miri, ignore = "so many operations take Miri many minutes")]
    fn local_writes_alone_are_ordered_as_without_a_depth(
        depth in 0.01..1.0,
        ops in prop::collection::vec((0..40_u64, any::<bool>()), 1..400),
    ) {
        let mut plain = Fixture::new(12, u64::MAX, rules(Policy::Lru, 0.0, false));
        let mut split = Fixture::new(12, u64::MAX, rules(Policy::Lru, depth, false));
        for (key, is_read) in ops {
            for f in [&mut plain, &mut split] {
                if is_read {
                    f.read(key);
                } else {
                    f.write(key, 1, Origin::Local);
                }
            }
            prop_assert_eq!(&plain.told.0, &split.told.0);
        }
    }
}

/// Numbers that look random and mostly small ones: the product of two even draws.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    fn skewed(&mut self, n: u64) -> u64 {
        let (one, other, third) = (self.below(n), self.below(n), self.below(n));
        one * other / n * third / n
    }
}

/// Reads of a skewed kind among writes of another region that nobody here asks for: how often the reads hit, in percent.
fn local_hits(rules: Rules) -> u64 {
    let mut f = Fixture::new(1_000, u64::MAX, rules);
    let mut draw = Draw(0x5EED);
    let (mut hits, mut reads) = (0, 0);
    for n in 0..40_000 {
        let hit = f.read_through(draw.skewed(10_000), Origin::Local);
        for remote in 0..3 {
            f.write(1_000_000 + n * 3 + remote, 1, Origin::Remote);
        }
        if n > 10_000 {
            (hits, reads) = (hits + u64::from(hit), reads + 1);
        }
    }
    f.check();
    hits * 100 / reads
}

#[test]
#[cfg_attr(miri, ignore = "so many entries take Miri many minutes")]
fn writes_of_other_regions_leave_the_local_working_set_alone() {
    let plain = local_hits(rules(Policy::Lru, 0.0, false));
    let deep = local_hits(rules(Policy::Lru, 0.7, false));
    assert!(deep >= plain + 10, "{plain} % without, {deep} % with a remote depth");
    let plain = local_hits(rules(Policy::TinyLfu, 0.0, false));
    let deep = local_hits(rules(Policy::TinyLfu, 0.7, false));
    assert!(deep >= plain, "{plain} % without, {deep} % with a remote depth, by frequency");
}

#[test]
#[cfg_attr(miri, ignore = "so many operations take Miri many minutes")]
fn heavy_writes_of_other_regions_leave_what_stands_above_the_depth_alone() {
    let kept = |policy, local: u64, heavy: u64| {
        let mut f = Fixture::new(1 << 20, 1_000, rules(policy, 0.5, true));
        (0..local).for_each(|key| f.write(key, 1, Origin::Local));
        // By frequency, what nobody asked for is worth no more than what comes from elsewhere.
        if policy == Policy::TinyLfu {
            (0..local).for_each(|key| assert!(f.read(key)));
        }
        (0..2_000).for_each(|n| f.write(1_000_000 + n, heavy - n % 3, Origin::Remote));
        f.check();
        (0..local).filter(|key| f.slot(*key).is_some()).count()
    };
    for heavy in [3, 10, 50, 300] {
        assert_eq!(kept(Policy::Lru, 1_000, heavy), 500, "beside entries that weigh {heavy}");
        assert_eq!(kept(Policy::Lru, 400, heavy), 400, "beside entries that weigh {heavy}");
    }
    for heavy in [3, 10, 50] {
        let kept = kept(Policy::TinyLfu, 400, heavy);
        assert!(kept >= 380, "by frequency, {kept} of 400 beside entries that weigh {heavy}");
    }
}

#[test]
fn what_comes_to_weigh_more_above_the_depth_falls_below_it() {
    let mut f = Fixture::new(1_000, 100, rules(Policy::Lru, 0.5, true));
    (0..50).for_each(|key| f.write(key, 1, Origin::Local));
    (40..50).for_each(|key| f.write(key, 6, Origin::Local));
    for key in 100..200 {
        f.write(key, 1, Origin::Remote);
    }
    let upper = f.segment(Segment::First);
    assert!(upper.iter().all(|key| (40..50).contains(key)), "{upper:?}");
    assert_eq!(upper.len(), 8, "8 x 6 are within half of 100");
    f.check();
}

#[test]
fn what_is_read_here_moves_up_and_what_is_overwritten_from_there_does_not() {
    let mut f = Fixture::new(10, u64::MAX, rules(Policy::Lru, 0.5, false));
    (0..10).for_each(|key| f.write(key, 1, Origin::Local));
    f.write(100, 1, Origin::Remote);
    f.write(101, 1, Origin::Remote);
    f.read(100);
    f.write(101, 1, Origin::Remote);
    (200..210).for_each(|key| f.write(key, 1, Origin::Remote));
    assert!(f.segment(Segment::First).contains(&100));
    assert_eq!(f.slot(101), None);
}

#[test]
#[cfg_attr(miri, ignore = "so many entries take Miri many minutes")]
fn a_scan_does_not_push_out_what_is_popular() {
    let hits_after_scans = |policy| {
        let mut f = Fixture::new(500, u64::MAX, rules(policy, 0.0, false));
        let mut hits = 0;
        for round in 0..30 {
            for key in 0..300 {
                hits += u64::from(round > 9 && f.read_through(key, Origin::Local));
                f.read(key);
            }
            (0..2_000).for_each(|n| {
                f.read_through(1_000 + round * 2_000 + n, Origin::Local);
            });
        }
        f.check();
        (hits, f.store.counts.rejections)
    };
    let (hits, rejections) = hits_after_scans(Policy::TinyLfu);
    assert!(hits > 4_000, "{hits} of 6,000");
    assert!(rejections > 30_000, "{rejections}");
    assert_eq!(hits_after_scans(Policy::Lru), (0, 0));
}

#[test]
#[cfg_attr(miri, ignore = "so many entries take Miri many minutes")]
fn the_window_grows_where_what_is_recent_is_what_is_asked_for() {
    let mut f = Fixture::new(1_000, u64::MAX, rules(Policy::TinyLfu, 0.0, false));
    let mut draw = Draw(0xD1CE);
    for n in 0..200_000_u64 {
        let key = (n / 4).saturating_sub(draw.below(1_500));
        f.read_through(key, Origin::Local);
    }
    let window = f.segment(Segment::First).len();
    assert!(window > 100, "it began with 10 and has {window}");
    f.check();
}

#[test]
#[cfg_attr(miri, ignore = "so many entries take Miri many minutes")]
fn churn_makes_neither_table_nor_order_grow() {
    for policy in [rules(Policy::Lru, 0.0, false), rules(Policy::Lru, 0.3, false)] {
        let mut f = Fixture::new(1_563, u64::MAX, policy);
        (0..60_000).for_each(|key| f.write(key, 1, Origin::Local));
        assert_eq!((f.store.table.num_buckets(), f.store.slab.capacity()), (2_048, 1_563));
        assert_eq!(f.store.order.len(), 1_563);
        f.check();
    }
}
