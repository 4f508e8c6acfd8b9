//! What the end of an outage costs: about what changed, whatever the nodes hold.
//!
//! 100,000 keys on three nodes; one of them is cut off for five minutes, in which one key in a hundred changes. All frames
//! that are sent after the cut has ended are counted but beats and the questions of the scrub, which go on whether there
//! was an outage or not; together they may be at most twice the keys and values that changed.

use replication::sim::{FrameKind, NodeSetup, Traffic, World};

const KEYS: usize = 100_000;
const CHANGED: usize = KEYS / 100;
const VALUE_BYTES: usize = 128;
const CUT_MS: u64 = 300_000;
/// The node that is cut off.
const AWAY: usize = 2;

fn key(number: usize) -> String {
    format!("customer:{number:07}")
}

fn value(number: usize, version: usize) -> String {
    format!("{:VALUE_BYTES$}", format!("customer {number}, version {version}"))
}

/// Three nodes that hold all keys, with rings of so many bytes.
fn filled(ring_bytes_max: usize) -> World {
    let mut world = World::new(7);
    for region in ["us-east", "eu-central", "ap-south"] {
        let setup = NodeSetup::new(region, "n1").bootstrapped().store(2 * KEYS, 2 * KEYS);
        world.add(setup.config(|config| config.ring_bytes_max = ring_bytes_max));
    }
    for number in 0..KEYS {
        world.put(number % 2, key(number), value(number, 0));
    }
    assert!(settle(&mut world).is_some(), "the nodes hold everything at first");
    world
}

/// Lets time pass until the nodes hold the same, for at most two minutes; how long it took, to half a second.
fn settle(world: &mut World) -> Option<u64> {
    let began_ms = world.time_ms();
    for _ in 0..240 {
        world.run_ms(500);
        if world.converged() {
            return Some(world.time_ms() - began_ms);
        }
    }
    None
}

/// The bytes that all nodes sent of what repairs.
fn repair_bytes(world: &World) -> u64 {
    let is_repair = |kind: &FrameKind| !matches!(kind, FrameKind::Beat | FrameKind::Probe);
    let of = |traffic: &Traffic| -> u64 {
        FrameKind::ALL.into_iter().filter(is_repair).map(|kind| traffic.bytes(kind)).sum()
    };
    (0..world.len()).map(|node| of(world.traffic(node))).sum()
}

/// Has one key in a hundred changed on the other nodes during the outage, each `times` times; the repair that follows, over
/// the keys and values that changed.
fn cost_of_outage(
    world: &mut World,
    times: usize,
    begin: impl Fn(&mut World),
    end: impl Fn(&mut World),
) -> f64 {
    begin(world);
    for change in 0..CHANGED * times {
        let number = 100 * (change % CHANGED);
        world.put(change % 2, key(number), value(number, change + 1));
        world.run_ms(CUT_MS / (CHANGED * times) as u64);
    }
    let before = repair_bytes(world);
    end(world);
    let repaired_ms = settle(world).expect("the nodes hold the same in the end");
    // What is still on its way then, and what follows from it, counts as well.
    world.run_ms(10_000);
    let changed_bytes = CHANGED * (key(0).len() + VALUE_BYTES);
    let repair_bytes = repair_bytes(world) - before;
    let ratio = repair_bytes as f64 / changed_bytes as f64;
    println!(
        "{changed_bytes} bytes changed, {repair_bytes} repaired them within {repaired_ms} ms: {ratio:.2}"
    );
    ratio
}

fn cut(world: &mut World) {
    world.partition(&[AWAY], &[0, 1]);
}

fn heal(world: &mut World) {
    world.heal();
}

#[test]
fn a_cut_costs_what_changed_where_the_rings_still_have_it() {
    let mut world = filled(16 << 20);
    assert!(cost_of_outage(&mut world, 1, cut, heal) <= 2.0);
    let pulls: u64 =
        (0..3).filter_map(|node| world.status(node)).map(|node| node.counters.pulls_served).sum();
    assert!(pulls > 0, "it was pulled");
}

#[test]
fn a_cut_costs_what_changed_where_the_rings_have_forgotten_it() {
    let mut world = filled(20_000);
    assert!(cost_of_outage(&mut world, 1, cut, heal) <= 2.0);
    let synced = world.status(AWAY).unwrap().counters.syncs_finished;
    assert!(synced > 0, "it was synced");
}

#[test]
fn what_a_disconnected_node_wrote_again_and_again_leaves_once() {
    let mut world = filled(16 << 20);
    let begin = |world: &mut World| {
        world.disconnect(0);
        world.disconnect(1);
    };
    let end = |world: &mut World| {
        world.connect(0);
        world.connect(1);
    };
    // Each of the two writers sends what it changed to both others.
    assert!(cost_of_outage(&mut world, 5, begin, end) <= 2.0 * 2.0);
}
