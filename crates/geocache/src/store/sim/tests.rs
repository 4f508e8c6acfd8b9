use std::collections::BTreeSet;

use replication::{
    Hlc, Origin, Record, Ttl, Value,
    message::Grave,
    replica::{Rules, Store, StorePage},
    sim::{Action, Difference, Link, MapStore, NodeSetup, World},
    wire::KeyHasher,
};

use super::*;

const WALL_MS: u64 = 1_700_000_000_000;
const KEYS: u64 = 40;
const NAMESPACES: [&str; 4] = ["", "a", "b", "b1"];

/// The two stores, told the same.
struct Pair {
    node: Arc<NodeStore>,
    map: Arc<MapStore>,
    outboxes: [Arc<Outbox>; 2],
    now: Now,
    random: fastrand::Rng,
    /// What is behind a barrier is still in the one and no longer in the other, which shows in what they answer.
    clears: bool,
    seed: u64,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let settings = StoreSettings { capacity: 4_096, graves_max: 4_096, rules: Rules::ALL };
        let now = Now { mono_ms: 5_000, wall_ms: WALL_MS };
        let outboxes = [(); 2].map(|()| Arc::new(Outbox::new(Origin(1), 1 << 20)));
        let [node, map] = [0, 1].map(|index| Arc::clone(&outboxes[index]));
        Self {
            node: NodeStore::open(&settings, node, now),
            map: MapStore::open(&settings, map, now),
            outboxes,
            now,
            random: fastrand::Rng::with_seed(seed),
            clears: seed.is_multiple_of(2),
            seed,
        }
    }

    fn key(&mut self) -> String {
        let n = self.random.u64(0..KEYS);
        format!("{}{}", if n.is_multiple_of(2) { 'a' } else { 'b' }, n)
    }

    /// A stamp of another node's, about now. Both clocks observe it, as a replica makes them.
    fn stamp(&mut self) -> Stamp {
        let ms = self.now.wall_ms - 20 + self.random.u64(0..30);
        let stamp = Stamp { hlc: Hlc::from_ms(ms), origin: Origin(self.random.u64(2..5)) };
        self.outboxes.iter().for_each(|outbox| outbox.clock().observe(stamp.hlc));
        stamp
    }

    fn value(&mut self) -> Value {
        let bytes = Bytes::from(vec![b'x'; self.random.usize(0..40)]);
        let ttl = self.random.bool().then(|| Ttl { left_ms: self.random.u64(0..60), born_ms: 0 });
        Value { bytes, flags: self.random.u32(0..3), codec: self.random.u8(0..5), cas: None, ttl }
    }

    fn bar(&mut self) -> Bar {
        Bar { stamp: self.stamp(), strict: self.random.bool() }
    }

    fn position(&mut self) -> u64 {
        if self.random.bool() { self.random.u64(..) } else { positions().position(self.key().as_bytes()) }
    }

    fn step(&mut self) {
        let Self { node, map, .. } = self;
        let (node, map) = (Arc::clone(node), Arc::clone(map));
        match self.random.u32(0..100) {
            0..25 => {
                let op = if self.random.u32(0..4) > 0 { Op::Put(self.value()) } else { Op::Remove };
                let key = self.key();
                assert_eq!(node.write(key.as_bytes(), op.clone()), map.write(key.as_bytes(), op));
            }
            25..60 => {
                let op = if self.random.u32(0..4) > 0 { Op::Put(self.value()) } else { Op::Remove };
                let left = match &op {
                    Op::Put(value) => value.ttl.map(|ttl| Duration::from_millis(ttl.left_ms)),
                    _ => None,
                };
                let (stamp, key) = (self.stamp(), Bytes::from(self.key()));
                let record = Record { stamp, key, op, previous: None };
                let merged = (node.merge(&record, left), map.merge(&record, left));
                assert!(self.clears || merged.0 == merged.1, "{merged:?} of {record:?}");
            }
            60..70 => {
                let grave = Grave { position: positions().position(self.key().as_bytes()), bar: self.bar() };
                let merged = (node.bury(grave), map.bury(grave));
                assert!(self.clears || merged.0 == merged.1, "{merged:?} of {grave:?}");
            }
            70..80 => {
                self.now.mono_ms += self.random.u64(0..20);
                self.now.wall_ms += self.random.u64(0..20);
                node.set_now(self.now);
                // The plain store gives up at once. Given up after a floor rose, an entry leaves its own grave instead of
                // one that the rise took in: right as well, but another bar.
                node.cache.sweep();
                map.set_now(self.now);
            }
            80..84 if self.clears => {
                let namespace = NAMESPACES[self.random.usize(0..4)].as_bytes();
                if self.random.bool() {
                    assert_eq!(node.clear_local(namespace), map.clear_local(namespace));
                } else {
                    let stamp = self.stamp();
                    assert_eq!(node.clear(namespace, stamp), map.clear(namespace, stamp));
                }
            }
            80..82 => {
                let bar = self.bar();
                node.raise_floor(bar);
                map.raise_floor(bar);
            }
            82..84 => {
                let (end, bar) = (self.position(), self.bar());
                node.cover(end, bar);
                map.cover(end, bar);
            }
            84..88 => {
                let (lo, hi) = (self.position(), self.random.bool().then(|| self.position()));
                let (bar, kept) = (self.bar(), self.position());
                let keep = |position| position == kept;
                let swept = (node.sweep(lo, hi, bar, &keep), map.sweep(lo, hi, bar, &keep));
                assert!(self.clears || swept.0 == swept.1, "{swept:?}");
            }
            88..92 => {
                let (key, stamp) = (self.key(), self.stamp());
                let held = map.contents().get(key.as_bytes()).copied().unwrap_or(stamp);
                let reissued = node.reissue(key.as_bytes(), held, self.now);
                assert_eq!(reissued, map.reissue(key.as_bytes(), held, self.now));
            }
            _ => {
                let key = self.key();
                assert_eq!(node.get(key.as_bytes()), map.get(key.as_bytes()));
            }
        }
    }

    fn compare(&mut self) {
        let (node, map, seed) = (&*self.node, &*self.map, self.seed);
        assert_eq!(node.contents(), map.contents(), "seed {seed}");
        let mono_ms = self.now.mono_ms;
        for n in 0..KEYS {
            let key = format!("{}{}", if n.is_multiple_of(2) { 'a' } else { 'b' }, n);
            let key = key.as_bytes();
            let position = positions().position(key);
            assert_eq!(SimStore::bar(node, key), SimStore::bar(map, key), "seed {seed}, key {n}");
            assert_eq!(plain(node.record(key, mono_ms)), plain(map.record(key, mono_ms)), "seed {seed}");
            assert_eq!(plain(node.at(position, mono_ms)), plain(map.at(position, mono_ms)), "seed {seed}");
            let (mine, theirs) = (node.known(position), map.known(position));
            assert_eq!(mine.live, theirs.live, "seed {seed}");
            assert!(self.clears || mine == theirs, "seed {seed}: {mine:?} {theirs:?}");
        }
        let budgets = [self.random.usize(0..3_000), self.random.usize(0..3_000)];
        let (mine, mut theirs) = (listed(node, budgets[0], mono_ms), listed(map, budgets[1], mono_ms));
        theirs.0.retain(|(key, ..)| map.contents().contains_key(key));
        assert_eq!(mine.0, theirs.0, "seed {seed}");
        assert!(self.clears || mine.1 == theirs.1, "seed {seed}: {:?} {:?}", mine.1, theirs.1);
        let limit = self.random.usize(1..20);
        assert_eq!(samples(node, limit), samples(map, limit), "seed {seed}");
        let hottest = |hottest: Vec<Record>| plain(hottest).into_iter().collect::<BTreeSet<_>>();
        assert_eq!(
            hottest(node.hottest(1 << 20, mono_ms)),
            hottest(map.hottest(1 << 20, mono_ms)),
            "seed {seed}"
        );
        assert!(self.clears || node.sizes() == map.sizes(), "seed {seed}");
    }
}

fn positions() -> KeyHasher {
    KeyHasher::new("geocache")
}

/// A record without its compare-and-set number, which is the node's own.
type Plain = (Bytes, Stamp, Bytes, u32, u8, Option<(u64, u64)>);

fn plain(records: impl IntoIterator<Item = Record>) -> Vec<Plain> {
    let plain = records.into_iter().map(|record| {
        let Op::Put(value) = record.op else { panic!("what lives is a put") };
        let ttl = value.ttl.map(|ttl| (ttl.left_ms, ttl.born_ms));
        (record.key, record.stamp, value.bytes, value.flags, value.codec, ttl)
    });
    plain.collect()
}

/// All that the pages list, records and graves, in order.
fn listed(store: &impl Store, budget_bytes: usize, mono_ms: u64) -> (Vec<Plain>, Vec<Grave>) {
    let (mut records, mut graves, mut next) = (Vec::new(), Vec::new(), Some(0));
    while let Some(lo) = next {
        let page: StorePage = store.page(lo, budget_bytes, mono_ms);
        assert_eq!(page.clone().within(budget_bytes), page, "a page keeps to its budget");
        let listed = page.positions.iter().copied().chain(page.graves.iter().map(|grave| grave.position));
        assert!(listed.into_iter().all(|at| at >= lo && page.hi.is_none_or(|hi| at < hi)));
        assert!(page.hi.is_none_or(|hi| hi > lo));
        records.extend(page.records);
        graves.extend(page.graves);
        next = page.hi;
    }
    (plain(records), graves)
}

fn samples(store: &impl Store, limit: usize) -> Vec<(u64, Stamp)> {
    let (mut live, mut next) = (Vec::new(), Some(0));
    while let Some(position) = next {
        let samples = store.samples(position, limit);
        live.extend(samples.live);
        next = samples.hi;
    }
    live
}

#[test]
fn it_does_what_the_plain_store_does() {
    for seed in 0..60 {
        let mut pair = Pair::new(seed);
        println!("seed {seed}");
        for step in 0..400 {
            pair.step();
            if step % 20 == 0 {
                pair.compare();
            }
        }
        pair.compare();
    }
}

#[test]
fn what_is_over_is_gone_with_a_strict_grave_once_the_time_is_set() {
    let settings = StoreSettings { capacity: 100, graves_max: 100, rules: Rules::ALL };
    let now = |ms| Now { mono_ms: 7_000 + ms, wall_ms: WALL_MS + ms };
    let store = NodeStore::open(&settings, Arc::new(Outbox::new(Origin(1), 1 << 20)), now(0));
    let value = Value { ttl: Some(Ttl { left_ms: 250, born_ms: 0 }), ..Value::default() };
    let stamp = store.write(b"k", Op::Put(value));
    store.set_now(now(249));
    assert_eq!(store.get(b"k").and_then(|held| held.left_ms), Some(1));
    store.set_now(now(250));
    assert_eq!((store.get(b"k"), store.sizes()), (None, (0, 1)));
    assert_eq!(SimStore::bar(&*store, b"k"), Bar::above(stamp));
}

#[test]
fn what_is_over_is_left_to_be_met_on_most_ticks() {
    let settings = StoreSettings { capacity: 100, graves_max: 100, rules: Rules::ALL };
    let store = NodeStore::open(&settings, Arc::new(Outbox::new(Origin(1), 1 << 20)), Now::default());
    let value = Value { ttl: Some(Ttl { left_ms: 1, born_ms: 0 }), ..Value::default() };
    store.write(b"k", Op::Put(value));
    for tick in 1..=SWEEP_TICKS {
        store.set_now(Now { mono_ms: tick, wall_ms: tick });
        assert_eq!(store.cache.len(), usize::from(tick < SWEEP_TICKS), "tick {tick}");
    }
}

#[test]
fn a_rule_that_is_off_is_off_in_every_shard() {
    let rules = Rules::ALL.without("grave_on_expiry").expect("a rule of this name");
    let settings = StoreSettings { capacity: 8_192, graves_max: 8_192, rules };
    let store = NodeStore::open(&settings, Arc::new(Outbox::new(Origin(1), 1 << 20)), Now::default());
    assert!(store.cache.shards() > 1);
    for n in 0..500 {
        let value = Value { ttl: Some(Ttl { left_ms: 10, born_ms: 0 }), ..Value::default() };
        store.write(format!("k{n}").as_bytes(), Op::Put(value));
    }
    store.set_now(Now { mono_ms: 10, wall_ms: 0 });
    assert_eq!(store.sizes(), (0, 0));
}

#[test]
fn the_bounds_of_all_shards_add_up_to_what_was_asked() {
    let settings = StoreSettings { capacity: 2_000, graves_max: 7, rules: Rules::ALL };
    let store = NodeStore::open(&settings, Arc::new(Outbox::new(Origin(1), 1 << 20)), Now::default());
    for n in 0..10_000 {
        store.write(format!("k{n}").as_bytes(), Op::Put(Value::default()));
        assert!(store.sizes().0 <= 2_000 && store.sizes().1 <= 7);
    }
}

#[test]
fn regions_on_it_agree_after_an_outage() {
    for seed in 0..8 {
        let run = || {
            let mut world = World::<NodeStore>::with_stores(seed);
            for (index, region) in ["us-east", "eu-central", "ap-south"].into_iter().enumerate() {
                // Small bounds in every other world: more is forgotten than is known.
                let (capacity, graves_max) = if seed % 2 == 0 { (100_000, 100_000) } else { (40, 20) };
                let skew_ms = [0, 90_000, -90_000][index];
                world.add(
                    NodeSetup::new(region, "n1").bootstrapped().store(capacity, graves_max).skew_ms(skew_ms),
                );
            }
            world.set_links(Link { drop: 0.05, duplicate: 0.05, late: 0.1, ..Link::delay(1, 80) });
            for n in 0..600_u64 {
                let (node, key) = (n as usize % 3, format!("k{}", n * 7 % 90));
                let action = match n % 5 {
                    0 => Action::remove(node, key),
                    1 => Action::put_for(2_000, node, key, n.to_string()),
                    _ => Action::put(node, key, n.to_string()),
                };
                world.at(1_000 + n * 30, action);
            }
            world.at(4_000, Action::partition([2], [0, 1]));
            world.at(9_000, Action::Crash { node: 1 });
            world.at(11_000, Action::Start { node: 1 });
            world.run_until(22_000);
            world.calm();
            world.heal();
            let at_rest = |world: &World<NodeStore>| {
                (0..3).all(|node| world.is_ready(node))
                    && !world.differences().iter().any(Difference::is_conflict)
            };
            assert!(world.until(60_000, at_rest).is_some(), "seed {seed}: {:?}", world.differences());
            if seed % 2 == 0 {
                assert!(
                    world.until(60_000, World::converged).is_some(),
                    "seed {seed}: {:?}",
                    world.differences()
                );
            }
            world.trace_hash()
        };
        println!("seed {seed}");
        let trace = run();
        if seed == 0 {
            assert_eq!(run(), trace, "one seed, one trace");
        }
    }
}
