//! A handful of replicas, a lossy network between them, and one seed that decides everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use fastrand::Rng;

use super::super::*;
use crate::{
    message::Bar,
    node::NodeId,
    record::{Op, Ttl, Value},
    sim::{MapStore, Rules, SimStore, StoreSettings},
    transport::Destination,
};

const KEYS: usize = 12;
const START_WALL_MS: i64 = 1_700_000_000_000;

/// A fault that lasts until the world is healed.
#[derive(Clone, Copy)]
pub(super) enum Fault {
    Cut { from: usize, to: usize },
}

#[derive(Clone, Copy, Default)]
struct Loss {
    drop: f64,
    duplicate: f64,
    delay_ms_max: u64,
}

struct Node {
    config: ReplicaConfig,
    skew_ms: i64,
    store: Arc<MapStore>,
    outbox: Arc<Outbox>,
    replica: Option<Replica<MapStore>>,
    /// The highest bar seen per key in this life.
    bars: BTreeMap<String, Bar>,
}

pub(super) struct World {
    now_ms: u64,
    rng: Rng,
    nodes: Vec<Node>,
    cuts: BTreeSet<(usize, usize)>,
    loss: Loss,
    /// Frames under way, by arrival and a running number.
    flying: BTreeMap<(u64, u64), (usize, Bytes)>,
    sent: u64,
    capacity: usize,
    graves_max: usize,
    outbox_bytes: usize,
    seed: u64,
}

impl World {
    fn new(seed: u64, nodes: usize, bootstrap: bool) -> Self {
        let mut world = Self {
            now_ms: 1_000,
            rng: Rng::with_seed(seed),
            nodes: Vec::new(),
            cuts: BTreeSet::new(),
            loss: Loss { delay_ms_max: 4, ..Loss::default() },
            flying: BTreeMap::new(),
            sent: 0,
            capacity: 100_000,
            graves_max: 100_000,
            outbox_bytes: 1 << 20,
            seed,
        };
        for index in 0..nodes {
            let region = ["us-east", "eu-central", "ap-south", "eu-west", "sa-east"][index % 5];
            world.add(NodeId::new(region.parse().unwrap(), format!("n{index}")).unwrap(), bootstrap);
        }
        world
    }

    /// Nodes that are ready from the start and have heard each other.
    pub(super) fn bootstrapped(seed: u64, nodes: usize) -> Self {
        let mut world = Self::new(seed, nodes, true);
        world.run(100);
        world
    }

    /// Nodes that all just started.
    pub(super) fn warming(seed: u64, nodes: usize) -> Self {
        Self::new(seed, nodes, false)
    }

    fn add(&mut self, node: NodeId, bootstrap: bool) -> usize {
        let config = ReplicaConfig { bootstrap, ..ReplicaConfig::new(node) };
        let outbox = Arc::new(Outbox::standalone(config.node.origin()));
        let settings = StoreSettings { capacity: 0, graves_max: 0, rules: Rules::ALL };
        let store = MapStore::open(&settings, Arc::clone(&outbox), Now::default());
        self.nodes.push(Node { config, skew_ms: 0, store, outbox, replica: None, bars: BTreeMap::new() });
        let index = self.nodes.len() - 1;
        self.boot(index);
        index
    }

    pub(super) fn add_twin_of(&mut self, index: usize) -> usize {
        let node = self.nodes[index].config.node.clone();
        self.add(node, false)
    }

    fn boot(&mut self, index: usize) {
        let now = self.now(index);
        let seed = self.rng.u64(..);
        let node = &mut self.nodes[index];
        node.outbox = Arc::new(Outbox::new(node.config.node.origin(), self.outbox_bytes));
        let settings =
            StoreSettings { capacity: self.capacity, graves_max: self.graves_max, rules: Rules::ALL };
        node.store = MapStore::open(&settings, Arc::clone(&node.outbox), now);
        node.bars.clear();
        let (store, outbox) = (Arc::clone(&node.store), Arc::clone(&node.outbox));
        node.replica = Some(Replica::new(node.config.clone(), store, outbox, now, seed));
    }

    pub(super) fn config(&mut self, change: impl Fn(&mut ReplicaConfig)) {
        for node in &mut self.nodes {
            change(&mut node.config);
        }
    }

    pub(super) fn outbox_bytes(&mut self, bytes: usize) {
        self.outbox_bytes = bytes;
    }

    pub(super) fn restart_all(&mut self) {
        self.run(10);
        for index in 0..self.nodes.len() {
            self.boot(index);
        }
        self.flying.clear();
        self.run(100);
    }

    pub(super) fn crash(&mut self, index: usize) {
        self.nodes[index].replica = None;
    }

    /// Starts a node that crashed, with nothing in memory.
    pub(super) fn start(&mut self, index: usize) {
        self.nodes[index].config.bootstrap = false;
        self.boot(index);
    }

    pub(super) fn start_bootstrapped(&mut self, index: usize) {
        self.nodes[index].config.bootstrap = true;
        self.boot(index);
    }

    pub(super) fn skew(&mut self, index: usize, skew_ms: i64) {
        self.nodes[index].skew_ms = skew_ms;
    }

    /// What the driver does when this node's own wall clock stepped.
    pub(super) fn forget_clocks(&mut self, index: usize) {
        if let Some(replica) = &mut self.nodes[index].replica {
            replica.forget_clocks();
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Cut { from, to } => self.cuts.insert((from, to)),
        };
    }

    pub(super) fn heal(&mut self) {
        self.cuts.clear();
        self.loss = Loss { delay_ms_max: 4, ..Loss::default() };
    }

    fn now(&self, index: usize) -> Now {
        let wall_ms = START_WALL_MS + self.now_ms as i64 + self.nodes[index].skew_ms;
        Now { mono_ms: self.now_ms, wall_ms: wall_ms as u64 }
    }

    fn tell_time(&self, index: usize) {
        self.nodes[index].store.set_now(self.now(index));
    }

    fn wall_ms(&self, index: usize) -> u64 {
        self.now(index).wall_ms
    }

    pub(super) fn put(&mut self, index: usize, key: &str, value: &str, ttl_ms: Option<u64>) {
        let wall_ms = self.wall_ms(index);
        let ttl = ttl_ms.map(|left_ms| Ttl { left_ms, born_ms: wall_ms });
        let value = Value { bytes: Bytes::copy_from_slice(value.as_bytes()), ttl, ..Value::default() };
        self.tell_time(index);
        self.nodes[index].store.write(key.as_bytes(), Op::Put(value));
    }

    pub(super) fn remove(&mut self, index: usize, key: &str) {
        self.tell_time(index);
        self.nodes[index].store.write(key.as_bytes(), Op::Remove);
    }

    pub(super) fn clear(&mut self, index: usize) {
        self.tell_time(index);
        self.nodes[index].store.clear_local(b"");
    }

    pub(super) fn value(&self, index: usize, key: &str) -> Option<String> {
        let held = self.nodes[index].store.get(key.as_bytes())?;
        Some(String::from_utf8_lossy(&held.bytes).into_owned())
    }

    pub(super) fn is_ready(&self, index: usize) -> bool {
        self.nodes[index].replica.as_ref().is_some_and(Replica::is_ready)
    }

    pub(super) fn status(&self, index: usize) -> Status {
        self.nodes[index].replica.as_ref().unwrap().status(self.now(index))
    }

    pub(super) fn stream(&self, index: usize) -> crate::node::Stream {
        self.nodes[index].replica.as_ref().unwrap().stream()
    }

    pub(super) fn counters(&self, index: usize) -> Counters {
        self.status(index).counters
    }

    pub(super) fn outbox(&self, index: usize) -> OutboxStats {
        self.nodes[index].outbox.stats()
    }

    pub(super) fn deliver(&mut self, index: usize, frame: Bytes) {
        let now = self.now(index);
        self.nodes[index].replica.as_mut().unwrap().handle(now, frame);
    }

    /// Only time passes.
    pub(super) fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
    }

    /// Everything that happens in the next `ms` milliseconds.
    pub(super) fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now_ms += 1;
            self.arrive();
            for index in 0..self.nodes.len() {
                self.step(index);
            }
        }
    }

    fn arrive(&mut self) {
        while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now_ms) {
            let (index, frame) = entry.remove();
            let now = self.now(index);
            if let Some(replica) = &mut self.nodes[index].replica {
                replica.handle(now, frame);
            }
        }
    }

    fn step(&mut self, index: usize) {
        let now = self.now(index);
        let node = &mut self.nodes[index];
        node.store.set_now(now);
        let Some(replica) = &mut node.replica else { return };
        if now.mono_ms % 25 == index as u64 {
            replica.tick(now);
        }
        while let Some((to, frame)) = self.nodes[index].replica.as_mut().and_then(|replica| replica.poll(now))
        {
            self.send(index, &to, &frame);
        }
    }

    fn send(&mut self, from: usize, to: &Destination, frame: &Bytes) {
        for index in 0..self.nodes.len() {
            let id = &self.nodes[index].config.node;
            let is_addressed = match to {
                Destination::Everyone => index != from,
                Destination::Node(node) => id == node,
                Destination::Region(region) => index != from && id.region() == region,
            };
            if !is_addressed || self.cuts.contains(&(from, index)) || self.rng.f64() < self.loss.drop {
                continue;
            }
            let copies = if self.rng.f64() < self.loss.duplicate { 2 } else { 1 };
            for _ in 0..copies {
                self.sent += 1;
                let arrives_ms = self.now_ms + 1 + self.rng.u64(..=self.loss.delay_ms_max);
                self.flying.insert((arrives_ms, self.sent), (index, frame.clone()));
            }
        }
    }

    /// A world that the seed decides: how many nodes, how small its bounds, what goes wrong and when.
    pub(super) fn chaos(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut world = Self::new(seed, rng.usize(2..=5), true);
        world.capacity = if rng.bool() { 100_000 } else { 8 };
        world.graves_max = if rng.bool() { 100_000 } else { 6 };
        world.outbox_bytes = if rng.bool() { 1 << 20 } else { 2_600 };
        let ring = if rng.bool() { 1 << 20 } else { 500 };
        world.config(|config| {
            config.ring_bytes_max = ring;
            config.page_bytes = 700;
        });
        for index in 0..world.nodes.len() {
            world.nodes[index].skew_ms = rng.i64(-120_000..=120_000);
        }
        world.restart_all();
        world
    }

    pub(super) fn run_chaos(&mut self) {
        self.loss = Loss {
            drop: self.rng.f64() * 0.3,
            duplicate: self.rng.f64() * 0.3,
            delay_ms_max: self.rng.u64(1..400),
        };
        for _ in 0..300 {
            self.chaos_step();
            let ms = self.rng.u64(1..60);
            self.run(ms);
            self.check_bars();
        }
        self.heal();
        for index in 0..self.nodes.len() {
            if self.nodes[index].replica.is_none() {
                self.start(index);
            }
        }
        self.run(45_000);
        self.check_bars();
        self.check_converged();
    }

    fn chaos_step(&mut self) {
        let index = self.rng.usize(..self.nodes.len());
        let key = format!("k{}", self.rng.usize(..KEYS));
        let is_up = self.nodes[index].replica.is_some();
        let live = self.nodes.iter().filter(|node| node.replica.is_some()).count();
        match self.rng.u32(..100) {
            0..60 if is_up => {
                let value = format!("{}@{}", self.now_ms, index);
                let ttl_ms = (self.rng.u32(..5) == 0).then(|| self.rng.u64(50..2_000));
                self.put(index, &key, &value, ttl_ms);
            }
            60..80 if is_up => self.remove(index, &key),
            80..82 if is_up => self.clear(index),
            82..86 if live > 1 && is_up => self.crash(index),
            86..92 if !is_up => self.start(index),
            92..96 => {
                let to = self.rng.usize(..self.nodes.len());
                self.cuts.insert((index, to));
            }
            96..100 => self.cuts.clear(),
            _ => {}
        }
    }

    /// No key's bar goes down in one life, but for an evicted record's own stamp, which may come back.
    fn check_bars(&mut self) {
        for (index, node) in self.nodes.iter_mut().enumerate().filter(|(_, node)| node.replica.is_some()) {
            for key in (0..KEYS).map(|n| format!("k{n}")) {
                let bar = node.store.bar(key.as_bytes());
                let held = node.bars.entry(key.clone()).or_insert(Bar::NONE);
                let seed = self.seed;
                assert!(bar.stamp >= held.stamp, "seed {seed}, node {index}: the bar of {key} went down");
                *held = bar;
            }
        }
    }

    fn check_converged(&self) {
        let seed = self.seed;
        let all: Vec<_> = self.nodes.iter().map(|node| node.store.contents()).collect();
        for index in 0..self.nodes.len() {
            assert!(self.is_ready(index), "seed {seed}: node {index} is not ready: {:?}", self.status(index));
        }
        for (a, mine) in all.iter().enumerate() {
            for (b, theirs) in all.iter().enumerate().skip(a + 1) {
                for (key, stamp) in mine {
                    if let Some(other) = theirs.get(key) {
                        assert_eq!(stamp, other, "seed {seed}: nodes {a} and {b} hold {key:?} differently");
                    } else if self.capacity > KEYS && self.graves_max > KEYS {
                        panic!("seed {seed}: node {a} holds {key:?} ({stamp}), node {b} does not");
                    }
                }
                if self.capacity > KEYS && self.graves_max > KEYS {
                    assert_eq!(mine.len(), theirs.len(), "seed {seed}: nodes {a} and {b} hold other keys");
                }
            }
        }
    }
}
