//! Small worlds under many faults at once, the core's own smoke test.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use fastrand::Rng;

use super::*;
use crate::{
    message::Bar,
    sim::{Action, Event, Link, SimStore},
};

const KEYS: usize = 12;

/// When the faults end, and how long the world then has to settle.
const FAULTS_MS: u64 = 9_000;
const SETTLE_MS: u64 = 45_000;

/// A world that the seed decides: how many nodes, how small its bounds, what goes wrong and when.
pub(super) fn run(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut world = chaos(seed, &mut rng);
    let bars = Rc::<RefCell<Bars>>::default();
    world.observe(move |world, event| bars.borrow_mut().check(world, event));
    world.play(&faults(&mut rng, world.len()));
    world.run_until(FAULTS_MS);
    world.calm();
    world.heal();
    for node in 0..world.len() {
        world.start(node);
    }
    world.run_ms(SETTLE_MS);
    check_converged(&world);
}

fn chaos(seed: u64, rng: &mut Rng) -> World {
    let count = rng.usize(2..=5);
    let (capacity, graves) = (if rng.bool() { 100_000 } else { 8 }, if rng.bool() { 100_000 } else { 6 });
    let (outbox, ring) = (if rng.bool() { 1 << 20 } else { 2_600 }, if rng.bool() { 1 << 20 } else { 500 });
    let mut world = World::new(seed);
    for region in &REGIONS[..count] {
        let setup = NodeSetup::new(region, "n1").bootstrapped().store(capacity, graves);
        let setup = setup.outbox_bytes_max(outbox).skew_ms(rng.i64(-120_000..=120_000));
        world.add(setup.config(|config| {
            config.ring_bytes_max = ring;
            config.page_bytes = 700;
        }));
    }
    let (drop, duplicate, late) = (rng.f64() * 0.3, rng.f64() * 0.3, rng.f64());
    world.set_links(Link { drop, duplicate, late, late_ms_max: rng.u64(1..400), ..Link::default() });
    world
}

fn faults(rng: &mut Rng, nodes: usize) -> Vec<(u64, Action)> {
    let mut at_ms = 100;
    let mut schedule = Vec::new();
    while at_ms < FAULTS_MS {
        let (node, to, key) = (rng.usize(..nodes), rng.usize(..nodes), format!("k{}", rng.usize(..KEYS)));
        let action = match rng.u32(..100) {
            0..12 => Action::put_for(rng.u64(50..2_000), node, key, format!("{node} at {at_ms}")),
            12..60 => Action::put(node, key, format!("{node} at {at_ms}")),
            60..80 => Action::remove(node, key),
            80..82 => Action::Clear { node, namespace: String::new() },
            // The last node stays up, so that not all memory is lost at once.
            82..86 => Action::Crash { node: node.min(nodes - 2) },
            86..92 => Action::Start { node },
            92..96 => Action::Cut { from: node, to },
            _ => Action::Heal,
        };
        schedule.push((at_ms, action));
        at_ms += rng.u64(1..60);
    }
    schedule
}

/// The highest bar seen per node, life and key.
#[derive(Default)]
struct Bars(BTreeMap<(usize, u64, usize), Bar>);

impl Bars {
    /// No key's bar goes down in one life, but for an evicted record's own stamp, which may come back.
    fn check(&mut self, world: &World, event: &Event<'_>) {
        let Some(node) = event.node().filter(|node| world.is_up(*node)) else { return };
        for key in 0..KEYS {
            let bar = world.store(node).bar(format!("k{key}").as_bytes());
            let held = self.0.entry((node, world.life(node), key)).or_insert(Bar::NONE);
            let (seed, at_ms) = (world.seed(), world.time_ms());
            assert!(
                bar.stamp >= held.stamp,
                "seed {seed}, {at_ms} ms, node {node}: the bar of k{key} went down"
            );
            *held = bar;
        }
    }
}

fn check_converged(world: &World) {
    let seed = world.seed();
    for node in 0..world.len() {
        assert!(world.is_ready(node), "seed {seed}: node {node} is not ready: {:?}", world.status(node));
    }
    let setup = world.setup_of(0);
    let all_fits = setup.capacity > KEYS && setup.graves_max > KEYS;
    for difference in world.differences() {
        assert!(!all_fits && !difference.is_conflict(), "seed {seed}: {difference}");
    }
}
