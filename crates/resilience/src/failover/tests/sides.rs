//! Sides that restart, are empty, or are down: what is copied from whom, and who may lead.

use super::*;

/// Symptom: both sides had answered that they were empty, and were then filled. Main restarted empty, the fallback was
/// still thought to be empty, counted as the younger one, and after one write was overwritten with main's one entry.
#[test]
fn a_side_that_was_empty_and_then_written_is_not_thought_empty() {
    for first in [Side::Main, Side::Fallback] {
        for write_first in [false, true] {
            let mut pair = Pair::new(Failover::builder());
            pair.live(SECOND);
            for key in 0..10 {
                assert!(pair.set(key, 1));
            }
            pair.main.restart();
            if write_first {
                assert!(pair.set(200, 1));
            }
            pair.now += SECOND;
            pair.probe(first);
            if first == Side::Main {
                assert_eq!(
                    pair.failover.leader(),
                    Side::Fallback,
                    "it was written, and need not be asked again"
                );
            }
            pair.probe(first.other());
            assert!(pair.set(200, 1));
            for _ in 0..300 {
                pair.live(SECOND);
                for key in 0..10 {
                    assert_eq!(pair.fallback.map.get(&key).copied(), Some(1), "{}", pair.status());
                }
            }
            assert_eq!((pair.main.map.len(), pair.fallback.map.len()), (11, 11), "{}", pair.status());
            assert_eq!(pair.failover.state(), FailoverState::OnMain);
        }
    }
}

/// The same after the fallback had lost its life and was filled again.
#[test]
fn a_fallback_that_was_refilled_is_not_thought_empty() {
    let mut pair = Pair::new(Failover::builder());
    pair.live(SECOND);
    for key in 0..10 {
        assert!(pair.set(key, 1));
    }
    pair.live(SECOND);
    pair.fallback.restart();
    pair.probe(Side::Fallback);
    for _ in 0..100 {
        pair.probe(Side::Main);
        while pair.work() {}
    }
    assert_eq!(pair.fallback.map.len(), 10, "{}", pair.status());
    pair.main.restart();
    pair.probe(Side::Main);
    assert!(pair.set(200, 1));
    pair.live_for(300 * SECOND);
    assert_eq!((pair.main.map.len(), pair.fallback.map.len()), (11, 11), "{}", pair.status());
}

#[test]
fn a_source_that_was_never_heard_of_is_not_copied() {
    let mut pair = Pair::new(Failover::builder().fallback_filled(false));
    for key in 0..10 {
        pair.fallback.map.insert(key, 1);
    }
    assert!(!pair.work(), "{}", pair.status());
    pair.probe(Side::Fallback);
    assert!(!pair.work(), "{}", pair.status());
    // Main is empty. That it is written to later makes it no better source.
    pair.live(SECOND);
    assert!(pair.set(200, 1));
    pair.live_for(100 * SECOND);
    assert_eq!(pair.fallback.map.len(), 11, "{}", pair.status());

    let (mut failover, mut now) =
        (Failover::builder().down_after(1).up_after(1).build().unwrap(), Instant::now());
    failover.failed(Side::Main, failover.fence(), now);
    failover.journal_overflowed(Side::Main, now);
    now += DWELL;
    answer(&mut failover, Side::Main, Life::new(1, 10), now);
    assert_eq!(failover.transfer(now), None);
    assert_eq!(failover.status(now).waiting, [Waiting::Answer { side: Side::Fallback }]);
    answer(&mut failover, Side::Fallback, Life::new(1, 10), now);
    assert_eq!(failover.transfer(now).map(|wanted| wanted.scope), Some(Scope::Everything));
}

/// Symptom: main restarted empty after its last probe; the copy began, found nothing, and removed all.
#[test]
fn a_source_that_restarts_before_or_during_a_copy_erases_nothing() {
    for steps in [0, 1, 5, 45] {
        let mut pair = Pair::new(Failover::builder());
        for key in 0..40 {
            assert!(pair.set(key, 1));
        }
        pair.live(SECOND);
        pair.fallback.up = false;
        for key in 0..30 {
            assert!(pair.set(key, 2));
        }
        assert!(pair.journals_overflowed());
        pair.live_for(5 * SECOND);
        pair.fallback.up = true;
        pair.now += 120 * SECOND;
        pair.probe(Side::Fallback);
        pair.probe(Side::Main);
        for _ in 0..steps {
            pair.work();
        }
        pair.main.restart();
        while pair.work() {}
        pair.live_for(100 * SECOND);
        assert_eq!(pair.fallback.map.len(), 40, "after {steps} steps: {}", pair.status());
    }
}

/// A probe may be under way when the copy ends, and show the source as it was before.
#[test]
fn an_answer_from_before_the_end_of_a_copy_confirms_nothing() {
    let (mut failover, now) = (Failover::builder().fallback_filled(false).build().unwrap(), Instant::now());
    let life = Life::new(1, 10);
    answer(&mut failover, Side::Fallback, life, now);
    answer(&mut failover, Side::Main, life, now);
    let wanted = failover.transfer(now).unwrap();
    let resync = failover.resync_started(wanted, now).unwrap();
    for _ in 0..5 {
        answer(&mut failover, Side::Main, life, now);
    }
    assert!(!failover.resync_copied(resync, now));
    answer(&mut failover, Side::Main, life, now);
    answer(&mut failover, Side::Fallback, life, now);
    assert!(!failover.resync_copied(resync, now) && !failover.resync_finished(resync, now));
    answer(&mut failover, Side::Main, Life::new(2, 0), now);
    assert!(!failover.resync_holds(resync, now) && !failover.resync_finished(resync, now));
    assert_eq!(failover.status(now).resyncs_failed, 1);
}

#[test]
fn main_is_not_left_for_a_fallback_that_is_down() {
    let mut pair = Pair::new(Failover::builder());
    for key in 0..10 {
        assert!(pair.set(key, 1));
    }
    pair.live(SECOND);
    pair.fallback.up = false;
    for _ in 0..60 {
        assert!(pair.set(1, 2));
        pair.live(SECOND);
    }
    pair.main.up = false;
    pair.live_for(5 * SECOND);
    assert_eq!(pair.failover.leader(), Side::Main);
    let waiting = pair.failover.status(pair.now).waiting;
    assert!(waiting.contains(&Waiting::FallbackDown), "{waiting:?}");
    assert_eq!(pair.failover.fail_over("a test", pair.now), Err(Refused::FallbackDown));
    pair.main.up = true;
    pair.live_for(5 * SECOND);
    assert_eq!((pair.failover.state(), pair.read(1)), (FailoverState::OnMain, Found::Value(2)));
    // Once the fallback is up again, main may be left for it.
    pair.main.up = false;
    pair.fallback.up = true;
    pair.live_for(5 * SECOND);
    assert_eq!(
        (pair.failover.leader(), pair.read(1)),
        (Side::Fallback, Found::Value(2)),
        "{}",
        pair.status()
    );
}

/// Symptom: the fallback had missed writes and died while it led; main was healthy, and an hour later still waited for
/// the fallback to be told what it had missed.
#[test]
fn a_fallback_that_dies_while_it_leads_and_is_behind_keeps_main_out_no_longer_than_its_probation() {
    let mut pair = Pair::new(Failover::builder());
    pair.live(SECOND);
    assert!(pair.set(1, 1));
    pair.fallback.up = false;
    assert!(pair.set(1, 2));
    pair.main.up = false;
    pair.suspect();
    assert_eq!(pair.failover.leader(), Side::Fallback);
    pair.main.up = true;
    pair.live_for(40 * SECOND);
    assert_eq!(pair.failover.state(), FailoverState::OnMain, "{}", pair.status());
    assert_eq!(pair.read(1), Found::Value(2));
    assert!(pair.set(1, 3));
    pair.fallback.up = true;
    pair.live_for(10 * SECOND);
    assert_eq!(pair.fallback.map[&1], 3);
}

#[test]
fn a_main_that_someone_empties_leads_again_although_the_fallback_died_with_what_main_missed() {
    let mut pair = Pair::new(Failover::builder());
    for key in 0..50 {
        assert!(pair.set(key, 1));
    }
    pair.live(SECOND);
    pair.main.up = false;
    for key in 0..40 {
        assert!(pair.set(key, 2));
    }
    assert!(pair.journals_overflowed());
    (pair.main.up, pair.fallback.up) = (true, false);
    pair.live_for(1_000 * SECOND);
    assert_eq!(pair.failover.leader(), Side::Fallback, "main has old values");
    assert!(
        pair.status().contains("a source worth copying (it is down), or an empty target"),
        "{}",
        pair.status()
    );
    pair.main.map.clear();
    pair.live_for(100 * SECOND);
    assert_eq!(pair.failover.state(), FailoverState::OnMain, "{}", pair.status());
    assert!(pair.set(1, 3));
    // What the fallback still has is not lost when it comes back.
    pair.fallback.up = true;
    pair.live_for(1_000 * SECOND);
    assert_eq!(
        (pair.read(1), pair.read(2), pair.read(45)),
        (Found::Value(3), Found::Value(2), Found::Value(1))
    );
    assert_eq!(pair.failover.state(), FailoverState::OnMain, "{}", pair.status());
}

#[test]
fn a_leading_fallback_that_restarts_with_old_content_is_not_read_from_its_next_probe_on() {
    let mut pair = Pair::new(Failover::builder());
    for key in 0..10 {
        assert!(pair.set(key, 1));
    }
    pair.live(SECOND);
    pair.main.up = false;
    let old = pair.fallback.map.clone();
    assert!(pair.set(1, 2) && pair.remove(2));
    pair.fallback.map = old;
    pair.fallback.restart_full();
    pair.probe(Side::Fallback);
    assert_eq!((pair.read(1), pair.read(2)), (Found::Miss, Found::Miss));
    assert!(pair.status().contains("the stale fallback to be refilled or emptied"), "{}", pair.status());
    // Main has the rest in its journal, and no dwell keeps it out.
    pair.main.up = true;
    for _ in 0..40 {
        pair.live(SECOND);
        assert!(matches!(pair.read(1), Found::Miss | Found::Value(2)), "{}", pair.status());
        assert_eq!(pair.read(2), Found::Miss);
    }
    assert_eq!(pair.failover.state(), FailoverState::OnMain, "{}", pair.status());
    pair.live_for(10 * SECOND);
    assert_eq!(pair.read(1), Found::Value(2));
    assert_eq!(pair.main.map, pair.fallback.map);
}

#[test]
fn a_stale_fallback_that_is_emptied_while_it_leads_is_read_again() {
    let mut pair = Pair::new(Failover::builder());
    assert!(pair.set(1, 1));
    pair.live(SECOND);
    pair.main.up = false;
    pair.suspect();
    pair.fallback.restart_full();
    pair.live(SECOND);
    assert_eq!(pair.read(1), Found::Miss);
    pair.fallback.map.clear();
    pair.live(SECOND);
    assert!(pair.set(1, 3));
    assert_eq!(pair.read(1), Found::Value(3));
}

#[test]
fn a_fallback_that_says_it_began_empty_is_read_although_it_was_written_since() {
    let mut pair = Pair::new(Failover::builder());
    assert!(pair.set(1, 1));
    pair.live(SECOND);
    pair.main.up = false;
    pair.suspect();
    pair.fallback.restart_and_say_so();
    assert!(pair.set(1, 2));
    pair.live(SECOND);
    assert_eq!(pair.read(1), Found::Value(2), "{}", pair.status());
}

/// Of two restarts that are noticed late, nobody knows which was first: neither side may erase the other.
#[test]
fn two_sides_that_both_restarted_are_united() {
    for first in [Side::Main, Side::Fallback] {
        let mut pair = Pair::new(Failover::builder());
        pair.live_for(5 * SECOND);
        assert!(pair.set(10, 1));
        let restart = |pair: &mut Pair, side| match side {
            Side::Main => pair.main.restart_and_say_so(),
            Side::Fallback => pair.fallback.restart_and_say_so(),
        };
        restart(&mut pair, first);
        assert!(pair.set(11, 1));
        restart(&mut pair, first.other());
        assert!(pair.set(12, 1));
        pair.live_for(100 * SECOND);
        assert_eq!(pair.failover.state(), FailoverState::OnMain, "{}", pair.status());
        for key in [11, 12] {
            assert_eq!(
                (pair.main.map.get(&key), pair.fallback.map.get(&key)),
                (Some(&1), Some(&1)),
                "{first}, {key}"
            );
        }
    }
}
