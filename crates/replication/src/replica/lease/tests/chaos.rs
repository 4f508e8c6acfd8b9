//! Leases in small worlds under many faults: every question ends, nothing stays behind, and afterwards one loads at a time.

use std::collections::BTreeMap;

use fastrand::Rng;

use crate::{
    replica::lease::*,
    sim::{Link, NodeSetup, World},
};

const KEYS: usize = 6;
const HOLD_MS: u64 = 800;
const LEASES_MAX: usize = 4;
const FAULTS_MS: u64 = 15_000;
const STEP_MS: u64 = 20;

/// Whoever wants a key on a node.
#[derive(Debug, Clone, Copy)]
struct Caller {
    id: u64,
    /// It goes then, and does without a lease.
    patience_ms: u64,
    load: Option<Load>,
}

/// A load under a lease.
#[derive(Debug, Clone, Copy)]
struct Load {
    until_ms: u64,
    brings: bool,
}

struct Chaos {
    rng: Rng,
    world: World,
    /// By node and key; of each node's present life.
    callers: BTreeMap<(usize, usize), Caller>,
    granted: u64,
}

fn key(key: usize) -> String {
    format!("k{key}")
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut world = World::new(seed);
        for region in &["us-east", "eu-central", "ap-south", "sa-east"][..rng.usize(2..=4)] {
            let setup = NodeSetup::new(region, "n1").bootstrapped().store(100, 100);
            world.add(setup.config(|config| config.leases_max = LEASES_MAX));
        }
        let (drop, duplicate, late) = (rng.f64() * 0.3, rng.f64() * 0.3, rng.f64());
        world.set_links(Link { drop, duplicate, late, late_ms_max: rng.u64(1..400), ..Link::default() });
        Self { rng, world, callers: BTreeMap::new(), granted: 0 }
    }

    /// Time passes; callers are told, load, and go.
    fn step(&mut self) {
        self.world.run_ms(STEP_MS);
        let now_ms = self.world.time_ms();
        for node in 0..self.world.len() {
            let told = self.world.call(node, |replica, _| replica.take_leased().collect::<Vec<_>>());
            for leased in told.unwrap_or_default() {
                self.tell(node, leased, now_ms);
            }
        }
        for ((node, key), caller) in self.callers.clone() {
            if !self.world.is_up(node) {
                self.callers.remove(&(node, key));
                continue;
            }
            match caller.load {
                Some(load) if load.until_ms <= now_ms => self.end(node, key, caller.id, load.brings),
                None if caller.patience_ms <= now_ms => self.end(node, key, caller.id, false),
                _ => {}
            }
        }
    }

    fn tell(&mut self, node: usize, leased: Leased, now_ms: u64) {
        let callers = self.callers.iter_mut().filter(|((of, _), _)| *of == node);
        let Some((&at, caller)) = callers.into_iter().find(|(_, caller)| caller.id == leased.id) else {
            panic!("seed {}: {leased:?} was told to nobody of node {node}", self.world.seed());
        };
        if leased.news != LeaseNews::Granted {
            self.callers.remove(&at);
            return;
        }
        assert!(caller.load.is_none(), "seed {}: granted twice", self.world.seed());
        self.granted += 1;
        let takes_ms = if self.rng.f64() < 0.1 { 2 * HOLD_MS } else { self.rng.u64(5..300) };
        caller.load = Some(Load { until_ms: now_ms + takes_ms, brings: self.rng.f64() < 0.7 });
    }

    /// A load ended, or its caller went away.
    fn end(&mut self, node: usize, at: usize, id: u64, brings: bool) {
        self.callers.remove(&(node, at));
        let stamp = if brings { self.world.put(node, key(at), "v") } else { None };
        self.world.call(node, |replica, now| replica.release(now, id, stamp));
    }

    fn ask(&mut self, node: usize, at: usize) {
        if self.callers.contains_key(&(node, at)) {
            return;
        }
        let id = self.world.call(node, |replica, now| replica.lease(now, key(at).as_bytes(), HOLD_MS, None));
        let patience_ms = self.world.time_ms() + 2 * HOLD_MS;
        if let Some(id) = id {
            self.callers.insert((node, at), Caller { id, patience_ms, load: None });
        }
    }

    fn crash(&mut self, node: usize) {
        self.world.crash(node);
        self.callers.retain(|(of, _), _| *of != node);
    }

    fn harm(&mut self) {
        let (node, other) = (self.rng.usize(..self.world.len()), self.rng.usize(..self.world.len()));
        match self.rng.u32(..60) {
            0 => self.crash(node),
            1..4 => drop(self.world.start(node)),
            4 => self.world.cut(node, other),
            5 => self.world.heal(),
            _ => {}
        }
    }

    fn holders(&self, at: usize) -> usize {
        self.callers.iter().filter(|((_, key), caller)| *key == at && caller.load.is_some()).count()
    }

    fn check_bounds(&self) {
        for node in (0..self.world.len()).filter(|node| self.world.is_up(*node)) {
            let Some(replica) = self.world.replica(node) else { continue };
            let (held, done) = replica.leases.grants.lens();
            assert!(held.max(done) <= LEASES_MAX, "seed {}: {held} held, {done} done", self.world.seed());
            assert!(replica.leases.questions.len() <= KEYS && replica.leases.unsent <= 2 * LEASES_MAX);
        }
    }
}

fn run(seed: u64) -> u64 {
    let mut chaos = Chaos::new(seed);
    while chaos.world.time_ms() < FAULTS_MS {
        let (node, at) = (chaos.rng.usize(..chaos.world.len()), chaos.rng.usize(..KEYS));
        chaos.ask(node, at);
        chaos.harm();
        chaos.step();
        chaos.check_bounds();
    }
    chaos.world.calm();
    chaos.world.heal();
    for node in 0..chaos.world.len() {
        chaos.world.start(node);
    }
    // Nobody asks any more: all questions end, and the leases and memories with their times.
    chaos.world.until(30_000, |world| (0..world.len()).all(|node| world.is_ready(node))).expect("ready");
    for _ in 0..6 * HOLD_MS / STEP_MS {
        chaos.step();
    }
    assert!(chaos.callers.is_empty(), "seed {seed}: {:?}", chaos.callers);
    for node in 0..chaos.world.len() {
        let leases = &chaos.world.replica(node).expect("it is up").leases;
        assert_eq!((leases.grants.lens(), leases.questions.len()), ((0, 0), 0), "seed {seed}: node {node}");
        assert!(leases.are_sent());
    }
    // In a well world one loads at a time.
    for at in 0..KEYS {
        for node in 0..chaos.world.len() {
            chaos.ask(node, at);
        }
        while !chaos.callers.is_empty() {
            chaos.step();
            for caller in chaos.callers.values_mut() {
                // None of them hangs.
                caller.load = caller.load.map(|load| Load { until_ms: 0, ..load });
            }
            assert!(chaos.holders(at) <= 1, "seed {seed}: {:?}", chaos.callers);
        }
    }
    chaos.granted
}

#[test]
fn under_faults_every_question_ends_and_afterwards_one_loads_at_a_time() {
    let granted: u64 = (0..60).map(run).sum();
    println!("{granted} leases in 60 seeds");
    assert!(granted > 60 * 100, "{granted}: too few to say anything");
}
