//! The named scenarios, over two small maps; those of sides that restart or are down are in [`sides`], the random ones
//! in [`model`].

mod model;
mod pair;
mod sides;

use std::time::{Duration, Instant};

use super::*;
use pair::{Found, Pair};

const SECOND: Duration = Duration::from_secs(1);
const DWELL: Duration = Duration::from_secs(30);

#[test]
fn main_is_blocked_and_after_its_return_no_old_value_is_served() {
    let mut pair = Pair::new(Failover::builder());
    for key in 0..10 {
        assert!(pair.set(key, 1));
    }
    pair.main.up = false;
    assert!(pair.remove(0), "the delete goes to the fallback once main is down");
    assert!(pair.set(1, 2));
    assert_eq!(pair.failover.leader(), Side::Fallback);
    pair.main.up = true;
    assert_eq!((pair.main.map[&0], pair.main.map[&1]), (1, 1), "main still has the old values");
    for _ in 0..200 {
        assert_eq!(pair.read(0), Found::Miss);
        assert_eq!(pair.read(1), Found::Value(2));
        assert_eq!(pair.read(2), Found::Value(1));
        pair.live(SECOND);
    }
    assert_eq!(pair.failover.state(), FailoverState::OnMain);
    assert_eq!(pair.failover.epoch(), 2);
    assert_eq!(pair.main.map, pair.fallback.map);
    assert!(pair.main_reads > 0, "main was read on probation and after");
}

#[test]
fn a_main_that_restarts_empty_erases_nothing() {
    for outage in [Duration::ZERO, 10 * SECOND] {
        let mut pair = Pair::new(Failover::builder());
        for key in 0..100 {
            assert!(pair.set(key, u32::from(key)));
        }
        pair.live(SECOND);
        pair.main.up = outage.is_zero();
        pair.main.restart();
        pair.live_for(outage);
        pair.main.up = true;
        pair.live(SECOND);
        assert_eq!(pair.failover.leader(), Side::Fallback, "{}", pair.status());
        for _ in 0..300 {
            pair.live(SECOND);
            for key in 0..100 {
                assert_eq!(pair.read(key), Found::Value(u32::from(key)), "{}", pair.status());
            }
        }
        assert_eq!(pair.failover.state(), FailoverState::OnMain, "{}", pair.status());
        assert_eq!((pair.main.map.len(), pair.fallback.map.len()), (100, 100));
    }
}

#[test]
fn a_main_that_fails_half_of_the_time_goes_back_at_most_once_per_dwell() {
    let mut most = 0;
    for seed in 0..8 {
        // A probation that good stretches outlast now and then: otherwise it would never go back, and prove nothing.
        let builder = Failover::builder().probation(SECOND).up_after(2);
        let (mut pair, mut random) = (Pair::new(builder), fastrand::Rng::with_seed(seed));
        // When it left main last, and the dwell that was in force then.
        let mut left = None;
        let mut good = 0;
        for _ in 0..4 * 3600 {
            pair.main.up = random.bool();
            let before = pair.failover.status(pair.now);
            pair.set(random.u8(..10), random.u32(..));
            pair.read(random.u8(..10));
            pair.live(SECOND);
            let after = pair.failover.status(pair.now);
            if after.failovers > before.failovers {
                assert_eq!(after.failovers, before.failovers + 1, "seed {seed}");
                left = Some((pair.now - SECOND, before.next_dwell));
            }
            if after.failbacks > before.failbacks {
                let (since, dwell) = left.take().unwrap();
                // Of the second in which it left, only the end is known.
                assert!(
                    pair.now - since >= dwell,
                    "seed {seed}: back after {:?} of {dwell:?}",
                    pair.now - since
                );
                good += 1;
            }
        }
        assert!(good >= 3, "seed {seed}: {good} failbacks prove nothing");
        // Ten minutes are the cap of the dwell, and reached within an hour.
        most = most.max(good);
    }
    assert!(most <= 4 * 6 + 6, "{most} failbacks in four hours");
}

#[test]
fn the_dwell_doubles_per_flap_up_to_its_cap_and_good_time_undoes_it() {
    let (mut failover, mut now) = (Failover::builder().down_after(1).build().unwrap(), Instant::now());
    let mut dwells = Vec::new();
    for _ in 0..7 {
        dwells.push(failover.status(now).next_dwell.as_secs());
        failover.failed(Side::Main, failover.fence(), now);
        go_back(&mut failover, &mut now);
    }
    assert_eq!(dwells, [30, 60, 120, 240, 480, 600, 600]);
    // 480 + 240 s of good time undo the two doublings that had followed such dwells, and not the third.
    for _ in 0..725 {
        now += SECOND;
        failover.succeeded(Side::Main, failover.fence(), now);
    }
    failover.failed(Side::Main, failover.fence(), now);
    let waiting = failover.status(now).waiting;
    assert!(waiting.contains(&Waiting::Dwell { left: Duration::from_secs(240) }), "{waiting:?}");
}

fn answer(failover: &mut Failover, side: Side, life: Life, now: Instant) {
    failover.answered(side, failover.fence(), life, now);
}

/// Does the resync that is wanted, if one is, both sides living on through it with ten entries.
fn resync(failover: &mut Failover, now: Instant) {
    let Some(wanted) = failover.transfer(now) else { return };
    let resync = failover.resync_started(wanted, now).unwrap();
    while !failover.resync_copied(resync, now) {
        answer(failover, wanted.from(), Life::new(1, 10), now);
    }
    assert!(failover.resync_finished(resync, now));
}

/// Lets everything that the way back needs happen.
fn go_back(failover: &mut Failover, now: &mut Instant) {
    for _ in 0..10_000 {
        if failover.leader() == Side::Main {
            return;
        }
        *now += SECOND;
        answer(failover, Side::Fallback, Life::new(1, 10), *now);
        answer(failover, Side::Main, Life::new(1, 10), *now);
        resync(failover, *now);
    }
    panic!("it never went back: {}", failover.status(*now));
}

#[test]
fn the_read_share_grows_evenly_on_probation() {
    let (mut failover, mut now) = (Failover::builder().down_after(1).build().unwrap(), Instant::now());
    failover.failed(Side::Main, failover.fence(), now);
    while failover.state() != FailoverState::Probation {
        now += SECOND;
        failover.answered(Side::Main, failover.fence(), Life::new(1, 10), now);
        if let Some(resync) = failover.transfer(now).and_then(|wanted| failover.resync_started(wanted, now)) {
            failover.resync_finished(resync, now);
        }
    }
    let begun = now;
    for (passed, share) in [(0, 10), (10, 40), (20, 70), (30, 100)] {
        now = begun + passed * SECOND;
        let reads = (0..1_000).filter(|_| failover.route_read(now).side == Side::Main).count();
        assert!(reads.abs_diff(share * 10) <= 1, "{reads} of 1,000 after {passed} s");
    }
    assert_eq!(failover.state(), FailoverState::Probation, "time alone proves nothing");
    for _ in 0..3 {
        failover.succeeded(Side::Main, failover.fence(), now);
    }
    assert_eq!(failover.state(), FailoverState::OnMain);
}

#[test]
fn one_missed_write_ends_the_probation() {
    let mut pair = Pair::new(Failover::builder());
    assert!(pair.set(1, 1));
    pair.main.up = false;
    assert!(pair.set(1, 2));
    pair.main.up = true;
    while pair.failover.state() != FailoverState::Probation {
        pair.live(SECOND);
    }
    pair.main.up = false;
    assert!(pair.set(1, 3));
    assert_eq!(pair.failover.state(), FailoverState::OnFallback);
    pair.main.up = true;
    for _ in 0..300 {
        assert_eq!(pair.read(1), Found::Value(3));
        pair.live(SECOND);
    }
    assert_eq!(pair.failover.state(), FailoverState::OnMain);
    assert_eq!(pair.main.map[&1], 3);
}

#[test]
fn a_late_report_from_an_older_epoch_changes_nothing() {
    let (mut failover, now) = (Failover::builder().build().unwrap(), Instant::now());
    let old = failover.fence();
    failover.fail_over("maintenance", now).unwrap();
    let before = format!("{}", failover.status(now));
    for side in [Side::Main, Side::Fallback] {
        failover.failed(side, old, now);
        failover.succeeded(side, old, now);
        failover.missed_write(side, old, now);
        failover.answered(side, old, Life::new(9, 0), now);
    }
    assert_eq!(format!("{}", failover.status(now)), before);
    assert_eq!(failover.status(now).late, 8);
}

#[test]
fn an_overflow_asks_for_everything_and_removes_are_not_lost_by_it() {
    let mut pair = Pair::new(Failover::builder());
    for key in 0..50 {
        assert!(pair.set(key, 1));
    }
    pair.main.up = false;
    for key in 0..40 {
        assert!(pair.remove(key), "{}", pair.status());
    }
    assert!(pair.journals_overflowed(), "the journal of these tests holds fewer");
    pair.main.up = true;
    for _ in 0..300 {
        for key in 0..50 {
            let found = if key < 40 { Found::Miss } else { Found::Value(1) };
            assert_eq!(pair.read(key), found);
        }
        pair.live(SECOND);
    }
    assert_eq!(pair.failover.state(), FailoverState::OnMain, "{}", pair.status());
    assert_eq!(pair.main.map.len(), 10);
}

#[test]
fn everything_is_not_copied_from_a_source_that_is_empty_or_younger() {
    for (entries, kept) in [(0, false), (5, false), (5, true)] {
        let (mut failover, mut now) = (Failover::builder().down_after(1).build().unwrap(), Instant::now());
        failover.answered(Side::Main, failover.fence(), Life::new(1, 100), now);
        failover.answered(Side::Fallback, failover.fence(), Life::new(1, 100), now);
        failover.failed(Side::Main, failover.fence(), now);
        failover.journal_overflowed(Side::Main, now);
        // The fallback loses its life, and with it what it held.
        let life = Life { began_empty: !kept, ..Life::new(2, entries) };
        answer(&mut failover, Side::Fallback, life, now);
        for _ in 0..1_000 {
            now += SECOND;
            failover.answered(Side::Main, failover.fence(), Life::new(1, 100), now);
            assert_eq!(failover.transfer(now), None);
        }
        let waiting = failover.status(now).waiting;
        let scope = if kept {
            assert_eq!(waiting, [Waiting::FallbackStale, Waiting::Source(Distrust::Stale)]);
            Scope::Missed
        } else {
            let distrust = if entries == 0 { Distrust::Empty } else { Distrust::Younger };
            assert_eq!(waiting, [Waiting::Source(distrust)]);
            Scope::Everything
        };
        // Someone empties main: nothing is left to be erased, nor to be out of date.
        answer(&mut failover, Side::Main, Life::new(1, 0), now);
        assert_eq!(
            failover.transfer(now).map(|wanted| wanted.scope),
            (scope == Scope::Missed).then_some(scope)
        );
        answer(&mut failover, Side::Fallback, life, now);
        let transfer = failover.transfer(now).unwrap();
        assert_eq!(transfer.scope, scope);
        assert!(failover.resync_started(transfer, now).is_some());
    }
}

#[test]
fn a_fallback_that_restarted_is_no_hindrance_while_the_journal_is_whole() {
    let mut pair = Pair::new(Failover::builder());
    for key in 0..20 {
        assert!(pair.set(key, 1));
    }
    pair.live(SECOND);
    pair.main.up = false;
    assert!(pair.set(3, 2));
    pair.live(SECOND);
    pair.fallback.restart();
    pair.main.up = true;
    pair.live_for(300 * SECOND);
    assert_eq!(pair.failover.state(), FailoverState::OnMain, "{}", pair.status());
    assert_eq!(pair.main.map.len(), 20, "main's content was not erased");
    assert_eq!(pair.read(3), Found::Value(2));
    assert_eq!(pair.main.map, pair.fallback.map, "and the fallback was filled again");
}

#[test]
fn a_fallback_that_was_not_filled_is_not_used_until_it_is() {
    let mut pair = Pair::new(Failover::builder().fallback_filled(false));
    pair.main.map.insert(1, 5);
    pair.fallback.map.insert(1, 4);
    pair.main.up = false;
    for _ in 0..10 {
        pair.live(SECOND);
        assert_eq!(pair.read(1), Found::Error, "better none than the old one");
    }
    assert!(pair.failover.status(pair.now).waiting.contains(&Waiting::FallbackStale));
    pair.main.up = true;
    pair.live_for(10 * SECOND);
    assert_eq!(pair.fallback.map[&1], 5);
    pair.main.up = false;
    pair.live_for(10 * SECOND);
    assert_eq!((pair.failover.leader(), pair.read(1)), (Side::Fallback, Found::Value(5)));
}

#[test]
fn what_the_fallback_missed_is_a_miss_there_until_it_is_told() {
    let mut pair = Pair::new(Failover::builder());
    assert!(pair.set(1, 1));
    pair.fallback.up = false;
    assert!(pair.set(1, 2), "main leads and took it");
    pair.main.up = false;
    pair.fallback.up = true;
    pair.suspect();
    assert_eq!(pair.failover.leader(), Side::Fallback);
    assert_eq!(pair.read(1), Found::Miss, "the fallback has 1, which is old");
    pair.live(SECOND);
    assert_eq!(pair.read(1), Found::Value(2), "its journal was applied");
}

#[test]
fn a_write_that_straddles_a_change_of_the_leader_is_made_again() {
    let mut pair = Pair::new(Failover::builder());
    let mut write = pair.begin(1, Some(7));
    assert_eq!(pair.step(&mut write), None);
    assert_eq!((pair.main.map.get(&1), pair.fallback.map.get(&1)), (Some(&7), None));
    pair.fallback.up = false;
    assert_eq!(pair.step(&mut write), None, "the copy fails");
    pair.fallback.up = true;
    pair.failover.fail_over("a test", pair.now).unwrap();
    while pair.step(&mut write).is_none() {}
    assert_eq!(pair.fallback.map.get(&1), Some(&7), "the new leader took it before it was answered");
    assert_eq!(pair.read(1), Found::Value(7));
}

#[test]
fn a_fallback_that_kept_its_content_through_a_restart_is_not_used_until_it_is_refilled() {
    let (mut failover, now) = (Failover::builder().build().unwrap(), Instant::now());
    failover.answered(Side::Fallback, failover.fence(), Life::new(1, 5), now);
    failover.answered(Side::Fallback, failover.fence(), Life::new(2, 5), now);
    assert_eq!(failover.fail_over("a test", now), Err(Refused::FallbackStale), "nobody knows what it missed");
    assert_eq!(failover.route_read(now).or_else, None);
    assert_eq!(failover.transfer(now), None, "main was never heard of");
    assert_eq!(failover.status(now).waiting, [Waiting::Answer { side: Side::Main }]);
    answer(&mut failover, Side::Main, Life::new(1, 10), now);
    let transfer = failover.transfer(now).unwrap();
    assert_eq!((transfer.to, transfer.scope), (Side::Fallback, Scope::Everything));
    resync(&mut failover, now);
    assert_eq!(failover.fail_over("a test", now), Ok(()));
}

#[test]
fn the_journal_of_a_fallback_that_was_emptied_is_settled_although_it_overflowed() {
    let mut pair = Pair::new(Failover::builder());
    pair.live(SECOND);
    pair.fallback.up = false;
    for key in 0..40 {
        assert!(pair.set(key, 1));
    }
    assert!(pair.journals_overflowed());
    pair.fallback.restart();
    (pair.fallback.up, pair.main.up) = (true, false);
    pair.probe(Side::Fallback);
    pair.suspect();
    assert_eq!(pair.failover.leader(), Side::Fallback, "empty, it holds nothing old");
    pair.live(SECOND);
    assert!(pair.set(1, 2));
    assert_eq!(pair.read(1), Found::Value(2), "{}", pair.status());
}

/// Symptom: the restart was noticed after the fallback had been written again and had missed a remove; the journal was
/// taken for settled, and main was filled with the value that was removed.
#[test]
fn a_restart_that_is_noticed_late_does_not_settle_the_journal() {
    let mut pair = Pair::new(Failover::builder());
    pair.live(SECOND);
    pair.fallback.restart();
    assert!(pair.set(5, 1));
    pair.fallback.up = false;
    assert!(pair.remove(5), "main takes it, the fallback misses it");
    (pair.main.up, pair.fallback.up) = (false, true);
    pair.suspect();
    pair.probe(Side::Fallback);
    pair.main.restart();
    pair.main.up = true;
    for _ in 0..300 {
        assert_eq!(pair.read(5), Found::Miss, "{}", pair.status());
        pair.live(SECOND);
    }
    assert_eq!(pair.failover.state(), FailoverState::OnMain);
}

#[test]
fn while_it_is_held_no_way_back_is_begun() {
    let (mut failover, mut now) = (Failover::builder().build().unwrap(), Instant::now());
    failover.fail_over("maintenance", now).unwrap();
    failover.hold(true, now);
    for _ in 0..1_000 {
        now += SECOND;
        failover.answered(Side::Main, failover.fence(), Life::new(1, 10), now);
        assert_eq!(failover.transfer(now), None);
    }
    assert_eq!(failover.status(now).waiting, [Waiting::Held]);
    failover.hold(false, now);
    assert!(failover.transfer(now).is_some());
}

#[test]
fn a_resync_that_never_ends_is_given_up_and_tried_again_later() {
    let (mut failover, mut now) = (Failover::builder().down_after(1).build().unwrap(), Instant::now());
    failover.failed(Side::Main, failover.fence(), now);
    let mut waits = Vec::new();
    let mut last: Option<Instant> = None;
    while waits.len() < 8 {
        now += SECOND;
        failover.answered(Side::Main, failover.fence(), Life::new(1, 10), now);
        if let Some(wanted) = failover.transfer(now) {
            waits.extend(last.map(|given_up| (now - given_up).as_secs()));
            let resync = failover.resync_started(wanted, now).unwrap();
            now += Duration::from_secs(600);
            assert_eq!(failover.status(now).why, Some(Why::ResyncFailed));
            assert!(!failover.resync_finished(resync, now), "it comes too late");
            last = Some(now);
        }
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    go_back(&mut failover, &mut now);
}

#[test]
fn a_command_waives_the_dwell_and_nothing_else() {
    let (mut failover, now) = (Failover::builder().build().unwrap(), Instant::now());
    failover.fail_over("maintenance", now).unwrap();
    failover.fail_back(now).unwrap();
    assert_eq!(failover.status(now).waiting, [Waiting::Probes { seen: 0, needed: 3 }]);
    for _ in 0..3 {
        assert_eq!(failover.transfer(now), None);
        failover.answered(Side::Main, failover.fence(), Life::new(1, 10), now);
    }
    let transfer = failover.transfer(now).unwrap();
    let resync = failover.resync_started(transfer, now).unwrap();
    failover.fail_back(now).unwrap();
    assert_eq!(failover.state(), FailoverState::Resyncing, "no command leads around the resync");
    assert!(failover.resync_finished(resync, now));
    failover.fail_over("changed my mind", now).unwrap();
    assert_eq!(failover.state(), FailoverState::OnFallback);
    let status = failover.status(now);
    assert_eq!((status.epoch, status.broken_off, status.failbacks), (1, 1, 0));
    assert!(status.waiting.contains(&Waiting::Dwell { left: DWELL }), "a planned stay is no flap: {status}");
}

#[test]
fn a_new_process_learns_from_the_fallback_that_it_was_leading() {
    for filled in [true, false] {
        let builder = Failover::builder().fallback_filled(filled);
        let (mut failover, mut now) = (builder.build().unwrap(), Instant::now());
        answer(&mut failover, Side::Main, Life::new(1, 10).epoch(6), now);
        assert_eq!((failover.leader(), failover.epoch()), (Side::Main, 6));
        answer(&mut failover, Side::Fallback, Life::new(1, 10).epoch(7), now);
        assert_eq!((failover.leader(), failover.epoch()), (Side::Fallback, 7));
        assert_eq!(failover.status(now).why, Some(Why::NewerEpoch));
        assert!(!failover.route_read(now).miss, "it led, so what it holds is right");
        answer(&mut failover, Side::Main, Life::new(1, 10).epoch(u64::MAX), now);
        assert_eq!(failover.epoch(), 7, "senseless, and so ignored");
        for _ in 0..40 {
            now += SECOND;
            answer(&mut failover, Side::Main, Life::new(1, 10).epoch(6), now);
            answer(&mut failover, Side::Fallback, Life::new(1, 10).epoch(7), now);
        }
        let scope = failover.transfer(now).unwrap().scope;
        assert_eq!(scope, Scope::Everything, "the journal was the earlier process's");
        go_back(&mut failover, &mut now);
        assert_eq!(failover.epoch(), 8);
    }
}

#[test]
fn the_status_says_what_it_waits_for() {
    let mut pair = Pair::new(Failover::builder());
    pair.main.up = false;
    pair.suspect();
    pair.now += 12 * SECOND;
    assert_eq!(
        pair.status(),
        "on fallback in epoch 1 for 12s (3 failures of main), \
         waiting for 3 more successes of main in a row, 18s of dwell"
    );
    pair.failover.hold(true, pair.now);
    assert!(pair.status().contains("waiting for the hold to be released, 3 more"));
}
