//! The world itself: what it promises to those who test with it.

mod network;
mod process;
mod store;

use std::{cell::RefCell, rc::Rc};

use super::*;

const REGIONS: [&str; 3] = ["us-east", "eu-central", "ap-south"];

fn world(seed: u64, nodes: usize) -> World {
    let mut world = World::of_regions(seed, REGIONS[..nodes].iter().copied());
    world.run_ms(100);
    world
}

fn poor() -> Link {
    Link { drop: 0.1, duplicate: 0.1, late: 0.2, corrupt: 0.05, ..Link::delay(1, 60) }
}

fn busy() -> Vec<(u64, Action)> {
    let put = |n: u64| (n * 50, Action::put(n as usize % 3, format!("k{}", n % 7), n.to_string()));
    let mut schedule: Vec<_> = (0..40).map(put).collect();
    schedule.push((700, Action::Crash { node: 1 }));
    schedule.push((1_000, Action::Step { node: 2, by_ms: -4_000 }));
    schedule.push((1_200, Action::Start { node: 1 }));
    schedule
}

/// A frame that was sent.
#[derive(Debug)]
struct Sent {
    at_ms: u64,
    from: usize,
    to: usize,
    kind: FrameKind,
    fate: Fate,
}

/// Everything that is sent, as it happens.
fn watch_sent(world: &mut World) -> Rc<RefCell<Vec<Sent>>> {
    let sent = Rc::<RefCell<Vec<_>>>::default();
    let noted = Rc::clone(&sent);
    world.observe(move |world, event| {
        if let Event::Sent { from, to, frame, fate } = *event {
            let (at_ms, kind) = (world.time_ms(), FrameKind::of(frame));
            noted.borrow_mut().push(Sent { at_ms, from, to, kind, fate });
        }
    });
    sent
}

#[test]
fn one_seed_run_twice_gives_one_trace() {
    let run = |seed| {
        let mut world = World::of_regions(seed, REGIONS);
        world.set_links(poor());
        world.keep_trace(10_000);
        world.play(&busy());
        world.run_ms(10_000);
        (world.trace_hash(), world.trace().map(str::to_owned).collect::<Vec<_>>())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).0, run(2).0);
}

#[test]
fn how_time_is_cut_up_into_runs_changes_nothing() {
    let run = |step_ms| {
        let mut world = World::of_regions(5, REGIONS);
        world.set_links(poor());
        world.play(&busy());
        while world.time_ms() < 6_000 {
            world.run_ms(step_ms);
        }
        world.trace_hash()
    };
    assert_eq!(run(6_000), run(1));
}

#[test]
fn a_line_taken_out_of_a_schedule_leaves_the_fate_of_other_moments_as_it_was() {
    let fates = |schedule: &[(u64, Action)]| {
        let mut world = World::of_regions(4, REGIONS);
        world.set_links(Link { drop: 0.4, ..Link::delay(1, 60) });
        let sent = watch_sent(&mut world);
        world.play(schedule);
        world.run_ms(3_000);
        let beats = sent.take().into_iter().filter(|sent| sent.kind == FrameKind::Beat);
        beats.map(|sent| (sent.at_ms, sent.from, sent.to, sent.fate == Fate::Lost)).collect::<Vec<_>>()
    };
    // Neither write falls on the moment of a beat.
    let both = [(110, Action::put(0, "a", "1")), (130, Action::put(0, "b", "2"))];
    assert_eq!(fates(&both), fates(&both[1..]));
}

#[test]
fn an_action_that_does_not_apply_does_nothing() {
    let mut world = world(6, 2);
    let link = Link::default();
    let elsewhere = [
        Action::put(2, "k", "v"),
        Action::Cut { from: 0, to: 2 },
        Action::partition([0], [1, 9]),
        Action::SetLink { from: 7, to: 0, link },
        Action::Slow { node: 2, frame_ms: 1 },
    ];
    let not_now = [
        Action::Start { node: 0 },
        Action::Resume { node: 0 },
        Action::Connect { node: 0 },
        Action::put(1, "k", "v"),
        Action::put_for(5, 1, "k", "v"),
        Action::remove(1, "k"),
        Action::read(1, "k"),
        Action::Clear { node: 1, namespace: String::new() },
        Action::Crash { node: 1 },
        Action::Pause { node: 1 },
    ];
    assert!(world.apply(&Action::Crash { node: 1 }));
    for action in elsewhere.iter().chain(&not_now) {
        assert!(!world.apply(action), "{action}");
    }
    world.run_ms(1_000);
    assert_eq!(world.text(0, "k"), None);
}

#[test]
fn an_action_with_absurd_numbers_does_not_panic() {
    let absurd = Link {
        delay_ms_max: u64::MAX,
        late: 1.0,
        late_ms_max: u64::MAX,
        duplicate: f64::MAX,
        corrupt: f64::NAN,
        bytes_per_ms: Some(0),
        ..Link::delay(u64::MAX, 0)
    };
    let mut world = world(11, 3);
    world.play(&[
        (u64::MIN, Action::SetLink { from: 0, to: 1, link: absurd }),
        (200, Action::SetLink { from: 1, to: 1, link: Link { drop: f64::INFINITY, ..absurd } }),
        (300, Action::Step { node: 0, by_ms: i64::MIN }),
        (400, Action::Step { node: 1, by_ms: i64::MAX }),
        (400, Action::Step { node: 1, by_ms: i64::MAX }),
        (400, Action::Rate { node: 2, ppm: i64::MIN }),
        (500, Action::Slow { node: 2, frame_ms: u64::MAX }),
        (600, Action::put_for(u64::MAX, 0, "", "v")),
        (600, Action::put_for(0, 1, "k", "")),
        (700, Action::Cut { from: 2, to: 2 }),
        (u64::MAX, Action::Heal),
    ]);
    world.run_ms(5_000);
    for node in 0..3 {
        world.crash(node);
        world.start(node);
    }
    world.run_ms(10_000);
}

/// Frames that take no time would let two nodes that answer each other keep time from passing.
#[test]
fn time_passes_on_links_that_take_none() {
    let mut world = world(12, 2);
    world.set_links(Link::delay(0, 0));
    let sent = watch_sent(&mut world);
    world.put(0, "k", "v");
    world.run_ms(1_000);
    let takes = |sent: &Sent| matches!(sent.fate, Fate::Arrives { at_ms, .. } if at_ms == sent.at_ms + 1);
    assert!(sent.take().iter().all(takes));
    assert!(world.text(1, "k").is_some());
}

#[test]
fn every_action_survives_json_and_prints_as_one_line() {
    let link = poor();
    let node = 1;
    let all = [
        Action::put(0, "k", "v"),
        Action::put_for(500, 0, "k", "v"),
        Action::remove(0, "k"),
        Action::Clear { node, namespace: "user:".into() },
        Action::read(0, "k"),
        Action::Crash { node },
        Action::Start { node },
        Action::Pause { node },
        Action::Resume { node },
        Action::Slow { node, frame_ms: 40 },
        Action::Disconnect { node },
        Action::Connect { node },
        Action::Step { node, by_ms: -60_000 },
        Action::Rate { node, ppm: 200 },
        Action::Cut { from: 0, to: 1 },
        Action::Mend { from: 0, to: 1 },
        Action::partition([0], [1, 2]),
        Action::Heal,
        Action::SetLink { from: 0, to: 1, link },
        Action::SetLinks { link },
    ];
    let schedule: Vec<(u64, Action)> = (0..).zip(all).collect();
    let json = serde_json::to_string(&schedule).unwrap();
    assert_eq!(serde_json::from_str::<Vec<(u64, Action)>>(&json).unwrap(), schedule);
    let mut lines: Vec<_> = schedule.iter().map(|(_, action)| action.to_string()).collect();
    assert!(lines.iter().all(|line| !line.contains('\n')));
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), schedule.len(), "each says what it is: {lines:?}");
}

#[test]
fn an_observer_is_told_of_everything_and_can_end_the_run() {
    let mut world = world(7, 2);
    let told = Rc::<RefCell<Vec<String>>>::default();
    let noted = Rc::clone(&told);
    world.observe(move |world, event| {
        if let Event::Wrote { key, .. } = event {
            assert!(world.store(0).contents().contains_key(*key), "the world is the one after the event");
        }
        if event.kind() == Some(FrameKind::Records) {
            assert!(event.message().is_some());
        }
        let name = format!("{event:?}");
        let name = name.split([' ', '{']).next().unwrap_or_default().to_owned();
        noted.borrow_mut().push(name);
        if matches!(event, Event::Acted { action: Action::Heal, .. }) {
            world.stop();
        }
    });
    world.put(0, "k", "v");
    world.get(0, "k");
    world.clear(0, "");
    world.call(0, |replica, _| replica.is_ready());
    world.run_ms(1_000);
    world.crash(1);
    world.start(1);
    world.at(2_000, Action::Heal);
    world.run_until(9_000);
    assert_eq!((world.time_ms(), world.is_stopped()), (2_000, true));
    let mut told = told.take();
    told.sort();
    told.dedup();
    let all =
        ["Acted", "Called", "Cleared", "Crashed", "Handled", "Read", "Sent", "Started", "Ticked", "Wrote"];
    assert_eq!(told, all);
}

#[test]
fn a_wait_ends_when_its_condition_holds_or_at_its_bound() {
    let mut world = world(8, 2);
    world.set_links(Link::delay(30, 30));
    world.put(0, "k", "v");
    let waited_ms = world.until(1_000, |world| !world.store(1).contents().is_empty());
    assert_eq!(waited_ms, Some(30));
    assert_eq!(world.until(500, |_| false), None);
    assert_eq!(world.time_ms(), 100 + 30 + 500);
}

#[test]
fn what_nodes_hold_differently_is_named() {
    let mut world = world(9, 2);
    assert!(world.converged() && world.differences().is_empty());
    world.partition(&[0], &[1]);
    world.put(0, "both", "v");
    world.put(0, "one", "v");
    world.run_ms(1);
    world.put(1, "both", "w");
    assert!(!world.converged());
    let differences = world.differences();
    let keys: Vec<_> = differences.iter().map(|it| (&it.key[..], it.is_conflict())).collect();
    assert_eq!(keys, [(&b"both"[..], true), (b"one", false)]);
    assert!(differences[1].to_string().ends_with("node 1 has none;"), "{}", differences[1]);
    world.heal();
    assert!(world.until(5_000, |world| world.converged()).is_some());
}

#[test]
fn the_text_of_a_trace_keeps_to_its_bound() {
    let mut world = world(10, 2);
    assert_eq!(world.trace().count(), 0);
    world.keep_trace(5);
    world.run_ms(1_000);
    world.put(0, "k", "v");
    assert_eq!(world.trace().count(), 5);
    assert!(
        world.trace().last().is_some_and(|line| line.contains("put b\"v\"")),
        "{:?}",
        world.trace().last()
    );
    world.keep_trace(2);
    assert_eq!(world.trace().count(), 2);
    assert!(world.trace().last().is_some_and(|line| line.contains("put")), "the newest stay");
}
