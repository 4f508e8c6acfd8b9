//! Clocks that are wrong or step, and the lives of nodes and values under them.

use super::*;

#[test]
fn a_node_whose_clock_is_too_far_ahead_is_refused_and_one_within_the_bound_is_not() {
    for (ahead_ms, is_let_in) in [(4 * 60_000, true), (6 * 60_000, false)] {
        let mut world = bootstrapped(13, 2);
        world.crash(1);
        world.step_clock(1, ahead_ms);
        world.setup(1).config.bootstrap = true;
        world.start(1);
        world.run_ms(1_000);
        world.put(1, "k", "from the future");
        world.run_ms(2_000);
        assert_eq!(world.text(0, "k").is_some(), is_let_in, "{ahead_ms}");
        assert_eq!(counters(&world, 0).frames_drifting > 0, !is_let_in);
        let peer_drifts = world.status(0).unwrap().peers.iter().any(|peer| peer.drifts);
        assert_eq!(peer_drifts, !is_let_in);
    }
}

#[test]
fn a_restart_under_a_clock_that_went_back_begins_above_the_last_life() {
    let mut world = bootstrapped(15, 2);
    world.put(0, "k", "old");
    world.run_ms(1_000);
    let last = world.status(0).unwrap().streams[0].stream.epoch;
    world.crash(0);
    world.step_clock(0, -60_000);
    world.start(0);
    world.put(0, "early", "written before the others were heard");
    world.run_ms(5_000);
    assert_eq!(world.status(0).unwrap().failure, None);
    assert!(world.is_ready(0));
    assert!(world.status(0).unwrap().streams[0].stream.epoch > last);
    world.put(0, "k", "new");
    world.run_ms(2_000);
    assert_eq!(world.text(1, "k").as_deref(), Some("new"));
    assert!(world.text(1, "early").is_some());
}

#[test]
fn a_life_that_was_overtaken_after_it_wrote_brings_what_it_wrote_along() {
    let mut world = bootstrapped(15, 2);
    world.put(0, "removed", "by the overtaken life");
    world.run_ms(1_000);
    world.crash(0);
    world.step_clock(0, -60_000);
    world.setup(0).config.bootstrap = true;
    world.start(0);
    let overtaken = world.replica(0).unwrap().stream();
    world.put(0, "k", "ignored by the others at first");
    world.put_for(6_000, 0, "short", "keeps what is left of its life");
    world.run_ms(2_000);
    assert_eq!(world.status(0).unwrap().failure, None);
    assert_eq!(counters(&world, 0).re_epochs, 1);
    assert!(world.replica(0).unwrap().stream().epoch > overtaken.epoch);
    world.run_ms(2_000);
    assert!(world.text(1, "k").is_some() && world.text(1, "short").is_some());
    world.run_ms(2_001);
    assert_eq!((world.text(0, "short"), world.text(1, "short")), (None, None));
}

/// What an overtaken life removed is told by its stream, since a grave has no key to issue anew.
#[test]
fn a_life_that_was_overtaken_brings_its_removes_and_clears_along() {
    let mut world = bootstrapped(23, 2);
    world.put(1, "removed", "v");
    world.run_ms(1_000);
    world.clear(1, "");
    world.put(1, "cleared", "v");
    world.put(1, "removed", "v");
    world.run_ms(120_000);
    world.setup(0).config.scrub_samples = 0;
    world.crash(0);
    world.setup(0).config.bootstrap = true;
    world.start(0);
    world.run_ms(200);
    world.crash(0);
    world.step_clock(0, -60_000);
    world.setup(0).config.bootstrap = true;
    world.start(0);
    world.remove(0, "removed");
    world.put(0, "kept", "v");
    world.run_ms(10_000);
    assert_eq!(counters(&world, 0).re_epochs, 1);
    assert_eq!(world.text(1, "removed"), None);
    assert!(world.text(1, "kept").is_some());
}

#[test]
fn a_node_whose_clock_is_too_far_behind_does_not_call_itself_ready() {
    let mut world = bootstrapped(19, 2);
    world.put(0, "k", "v");
    world.crash(1);
    world.step_clock(1, -6 * 60_000);
    world.start(1);
    world.run_ms(20_000);
    assert!(!world.is_ready(1), "it has nothing");
    assert!(world.status(1).unwrap().peers.iter().all(|peer| peer.drifts));
    world.crash(1);
    world.step_clock(1, 6 * 60_000);
    world.start(1);
    world.run_ms(5_000);
    assert!(world.is_ready(1) && world.text(1, "k").is_some());
}

/// One node whose clock is ahead must not keep the others from starting together.
#[test]
fn a_cold_start_goes_on_beside_a_node_whose_clock_is_too_far_ahead() {
    for nodes in [2, 3] {
        let mut world = warming(22, nodes);
        world.crash(0);
        world.step_clock(0, 6 * 60_000);
        world.start(0);
        world.run_ms(15_000);
        assert!((1..nodes).all(|node| world.is_ready(node)), "of {nodes}");
        world.put(nodes - 1, "k", "v");
        world.run_ms(2_000);
        assert!((1..nodes).all(|node| world.text(node, "k").is_some()), "of {nodes}");
    }
}

/// A put with a life of 5 s was served for longer after its receiver's clock had gone back a minute, and one from a
/// sender whose clock had gone forward was dead on arrival.
#[test]
fn a_clock_that_steps_neither_lengthens_lives_nor_kills_what_is_new() {
    for (stepped, by_ms) in [(0, 60_000), (0, -60_000), (1, 60_000), (1, -60_000)] {
        let mut world = bootstrapped(20, 2);
        world.run_ms(2_000);
        world.step_clock(stepped, by_ms);
        world.run_ms(1_000);
        world.put_for(5_000, 0, "k", "v");
        world.run_ms(4_000);
        assert!(world.text(1, "k").is_some(), "node {stepped} by {by_ms}");
        world.run_ms(1_001);
        assert_eq!(world.text(1, "k"), None, "node {stepped} by {by_ms}");
    }
}

/// A record written right after its node's clock had been set forward, and pulled a while later, was served by another
/// for as much longer.
#[test]
fn a_life_is_right_between_a_clock_step_and_the_beat_that_shows_it() {
    for by_ms in [40_000, -40_000] {
        let mut world = bootstrapped(25, 2);
        world.run_ms(2_000);
        world.step_clock(1, by_ms);
        world.cut(1, 0);
        world.put_for(5_000, 1, "k", "v");
        world.run_ms(2_000);
        world.mend(1, 0);
        world.run_ms(2_900);
        assert!(world.get(0, "k").is_some(), "stepped by {by_ms}");
        world.run_ms(100);
        assert_eq!(world.text(0, "k"), None, "stepped by {by_ms}");
    }
}
