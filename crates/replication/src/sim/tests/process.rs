//! Processes and clocks: crash, pause, slowness, a lost transport, and what the wall clock says.

use super::*;
use crate::replica::Now;

#[test]
fn a_crash_takes_the_memory_and_a_start_begins_another_life() {
    let mut world = world(1, 1);
    world.put(0, "k", "v");
    assert!(world.crash(0) && !world.crash(0));
    assert!(!world.is_up(0) && world.replica(0).is_none() && world.status(0).is_none());
    assert_eq!(world.store(0).contents().len(), 1, "what it held can be looked at");
    assert_eq!((world.put(0, "l", "v"), world.get(0, "k")), (None, None));
    assert!(world.start(0) && !world.start(0));
    assert_eq!((world.life(0), world.text(0, "k")), (2, None));
    assert!(!world.is_ready(0), "it warms, though its first life was ready at once");
}

#[test]
fn frames_for_a_paused_process_wait_and_past_the_bound_the_oldest_go() {
    let mut world = world(2, 2);
    world.setup(1).inbox_frames_max = 10;
    world.run_ms(1_000);
    assert!(world.pause(1) && !world.pause(1));
    let heard = world.status(1).unwrap();
    for n in 0..30 {
        world.put(0, format!("k{n}"), "v");
        world.run_ms(10);
    }
    assert_eq!((world.put(1, "l", "v"), world.text(1, "k29")), (None, None), "it does nothing");
    assert_eq!(world.status(1).unwrap().counters, heard.counters);
    let dropped = world.traffic(1).inbox_dropped;
    assert!((20..30).contains(&dropped), "{dropped}");
    assert!(world.resume(1) && !world.resume(1));
    world.run_ms(0);
    assert!(world.text(1, "k29").is_some() && world.text(1, "k0").is_none());
    assert!(world.until(5_000, |world| world.converged()).is_some(), "what was dropped is repaired");
}

#[test]
fn a_slow_process_falls_behind_and_catches_up() {
    let mut world = world(3, 2);
    world.run_ms(1_000);
    world.slow(1, 50);
    let began_ms = world.time_ms();
    for n in 0..20 {
        world.put(0, format!("k{n}"), "v");
        world.run_ms(10);
    }
    assert!(world.text(1, "k0").is_some() && world.text(1, "k19").is_none());
    assert!(world.until(5_000, |world| world.converged()).is_some());
    assert!(world.time_ms() - began_ms >= 20 * 50);
}

#[test]
fn what_a_disconnected_node_writes_gathers_and_leaves_as_one_change_a_key() {
    let mut world = world(4, 2);
    world.run_ms(1_000);
    assert!(world.disconnect(0) && !world.disconnect(0));
    let frames = world.traffic(0).frames(FrameKind::Records);
    for n in 0..100 {
        world.put(0, "k", n.to_string());
        world.run_ms(20);
    }
    world.put(1, "l", "v");
    world.run_ms(100);
    assert_eq!(world.traffic(0).frames(FrameKind::Records), frames);
    assert_eq!((world.outbox(0).stats().records, world.outbox(0).stats().coalesced), (1, 99));
    assert_eq!(world.text(0, "l"), None);
    assert!(world.connect(0) && !world.connect(0));
    world.run_ms(10);
    assert_eq!(world.text(0, "l").as_deref(), Some("v"), "what came meanwhile waited");
    assert_eq!(world.text(1, "k").as_deref(), Some("99"));
    assert_eq!(world.traffic(0).frames(FrameKind::Records), frames + 1);
}

#[test]
fn records_gather_while_the_transport_has_no_room() {
    let mut world = World::new(5);
    for region in &REGIONS[..2] {
        let mut setup = NodeSetup::new(region, "n1").bootstrapped();
        (setup.window, setup.confirm_ms) = (1, 40);
        world.add(setup);
    }
    world.run_ms(1_000);
    let before = world.traffic(0).frames(FrameKind::Records);
    for n in 0..200 {
        world.put(0, format!("k{n}"), "v");
        world.run_ms(1);
    }
    world.run_ms(100);
    let frames = world.traffic(0).frames(FrameKind::Records) - before;
    assert!((3..=7).contains(&frames), "{frames}");
    assert!(world.converged());
}

#[test]
fn wall_clocks_are_skewed_stepped_and_drift_and_outlive_the_process() {
    let mut world = World::new(6);
    let ahead = world.add(NodeSetup::new("us-east", "n1").bootstrapped().skew_ms(5_000));
    let right = world.add(NodeSetup::new("eu-central", "n1").bootstrapped());
    let wall_ms =
        |world: &World, node| world.now(node).wall_ms as i64 - (START_WALL_MS + world.time_ms()) as i64;
    assert_eq!((wall_ms(&world, ahead), wall_ms(&world, right)), (5_000, 0));
    world.run_ms(10_000);
    world.step_clock(ahead, -65_000);
    world.clock_rate(right, 500);
    world.crash(ahead);
    world.run_ms(10_000);
    world.start(ahead);
    assert_eq!((wall_ms(&world, ahead), wall_ms(&world, right)), (-60_000, 5));
    world.clock_rate(right, -1_000);
    world.run_ms(3_000);
    assert_eq!(wall_ms(&world, right), 2);
    assert_eq!(world.now(ahead), Now { mono_ms: 3_000, wall_ms: START_WALL_MS + 23_000 - 60_000 });
}

#[test]
fn a_frame_for_a_process_that_is_down_is_missed() {
    let mut world = world(8, 2);
    world.crash(1);
    world.run_ms(1_000);
    assert!(world.traffic(1).missed > 0);
}

#[test]
#[should_panic(expected = "cannot set up the node \"EU\"/\"n1\"")]
fn a_name_that_breaks_the_rule_is_told() {
    NodeSetup::new("EU", "n1");
}
