//! Links: what passes, when, and what does not.

use super::*;

/// When each frame of records from node 0 to node 1 arrives.
fn arrivals(world: &mut World) -> Rc<RefCell<Vec<u64>>> {
    let arrived = Rc::<RefCell<Vec<u64>>>::default();
    let noted = Rc::clone(&arrived);
    world.observe(move |world, event| {
        let is_records = event.kind() == Some(FrameKind::Records);
        if is_records && matches!(event, Event::Handled { node: 1, from: 0, .. }) {
            noted.borrow_mut().push(world.time_ms());
        }
    });
    arrived
}

#[test]
fn a_cut_is_one_way_and_a_partition_both() {
    let mut world = world(1, 3);
    world.cut(0, 1);
    world.put(0, "from 0", "v");
    world.put(1, "from 1", "v");
    world.run_ms(100);
    assert_eq!((world.text(1, "from 0"), world.text(0, "from 1").as_deref()), (None, Some("v")));
    world.mend(0, 1);
    world.run_ms(2_000);
    assert!(world.text(1, "from 0").is_some());
    world.partition(&[0], &[1, 2]);
    world.put(0, "late", "v");
    world.put(1, "late too", "v");
    world.run_ms(2_000);
    assert!(world.text(1, "late").is_none() && world.text(0, "late too").is_none());
    assert!(world.text(2, "late too").is_some(), "within a side all passes");
    world.heal();
    assert!(world.until(5_000, |world| world.converged()).is_some());
}

#[test]
fn frames_take_the_time_of_their_link_and_keep_their_order() {
    let mut world = world(2, 2);
    world.rtt(0, 1, 80);
    let arrived = arrivals(&mut world);
    world.put(0, "k", "v");
    world.run_ms(200);
    assert_eq!(arrived.take(), [140], "it was written at 100 ms");
    world.set_link(0, 1, Link::delay(1, 50));
    let sent_ms = world.time_ms();
    for n in 0..100 {
        world.put(0, format!("k{n}"), "v");
        world.run_ms(1);
    }
    world.run_ms(100);
    let spread: Vec<_> = arrived.take().into_iter().zip(sent_ms..).map(|(at, sent)| at - sent).collect();
    assert_eq!(spread.len(), 100);
    assert!(spread.iter().all(|ms| (1..=50).contains(ms)), "{spread:?}");
    assert_eq!(world.status(1).unwrap().counters.pulls_sent, 0, "none passed another");
}

#[test]
fn late_frames_are_passed_by_others() {
    let mut world = world(3, 2);
    world.set_links(Link { late: 0.3, late_ms_max: 60, ..Link::delay(1, 1) });
    let sent = watch_sent(&mut world);
    for n in 0..100 {
        world.put(0, format!("k{n}"), "v");
        world.run_ms(1);
    }
    let sent = sent.take();
    let records = sent.iter().filter(|sent| (sent.from, sent.kind) == (0, FrameKind::Records));
    let at: Vec<u64> = records
        .filter_map(|sent| if let Fate::Arrives { at_ms, .. } = sent.fate { Some(at_ms) } else { None })
        .collect();
    assert_eq!(at.len(), 100);
    assert!(!at.is_sorted());
}

#[test]
fn chance_strikes_about_as_often_as_it_is_told_to() {
    let mut world = world(4, 2);
    world.set_links(Link { drop: 0.2, duplicate: 0.3, corrupt: 0.25, ..Link::default() });
    let sent = watch_sent(&mut world);
    world.run_ms(500_000);
    let sent = sent.take();
    let share = |of: &dyn Fn(&Fate) -> bool, among: usize| {
        sent.iter().filter(|sent| of(&sent.fate)).count() as f64 / among as f64
    };
    let lost = share(&|fate| *fate == Fate::Lost, sent.len());
    let passed = sent.iter().filter(|sent| sent.fate != Fate::Lost).count();
    let twice = share(&|fate| matches!(fate, Fate::Arrives { copy_at_ms: Some(_), .. }), passed);
    let corrupt = share(&|fate| matches!(fate, Fate::Arrives { corrupt: Some(_), .. }), passed);
    for (found, wanted) in [(lost, 0.2), (twice, 0.3), (corrupt, 0.25)] {
        assert!((found - wanted).abs() < 0.03, "{found} in place of {wanted}, of {}", sent.len());
    }
}

#[test]
fn a_corrupt_frame_is_refused_and_counted() {
    let mut world = world(5, 2);
    world.run_ms(1_000);
    world.set_links(Link { corrupt: 1.0, ..Link::default() });
    world.put(0, "k", "v");
    world.run_ms(100);
    assert_eq!(world.text(1, "k"), None);
    assert!(world.status(1).unwrap().counters.frames_undecodable > 0);
    world.calm();
    world.run_ms(5_000);
    assert!(world.text(1, "k").is_some());
}

#[test]
fn a_narrow_link_delays_what_it_carries_and_loses_what_would_wait_too_long() {
    let mut world = world(6, 2);
    world.run_ms(1_000);
    world.set_link(0, 1, Link { bytes_per_ms: Some(10), ..Link::delay(5, 5) });
    let sent = watch_sent(&mut world);
    let began_ms = world.time_ms();
    world.put(0, "k", vec![b'v'; 20_000]);
    world.run_ms(1);
    world.put(0, "l", vec![b'v'; 100_000]);
    world.run_ms(1);
    world.put(0, "m", "v");
    world.run_ms(1);
    let sent = sent.take();
    let records = sent.iter().filter(|sent| (sent.from, sent.kind) == (0, FrameKind::Records));
    let records: Vec<Fate> = records.map(|sent| sent.fate).collect();
    let Fate::Arrives { at_ms, .. } = records[0] else { panic!("{records:?}") };
    assert!((2_005..2_100).contains(&(at_ms - began_ms)), "{at_ms}");
    assert!(matches!(records[1], Fate::Arrives { .. }));
    assert_eq!(records[2], Fate::Lost, "the link is taken for more than ten seconds");
}

#[test]
fn what_was_sent_is_counted_by_kind() {
    let mut world = world(7, 3);
    let before = *world.traffic(0);
    world.put(0, "k", vec![b'v'; 1_000]);
    world.run_ms(10);
    let traffic = world.traffic(0);
    assert_eq!(
        traffic.frames(FrameKind::Records),
        before.frames(FrameKind::Records) + 2,
        "one for each node"
    );
    assert!(traffic.bytes(FrameKind::Records) - before.bytes(FrameKind::Records) > 2_000);
    assert!(traffic.frames(FrameKind::Beat) > 0);
}

#[test]
#[should_panic(expected = "there is no link 0 -> 5 among 2 nodes")]
fn a_link_that_is_not_there_cannot_be_cut() {
    world(8, 2).cut(0, 5);
}
