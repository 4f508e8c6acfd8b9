//! Transitions and named regressions; `model` holds the breaker to a naive reference, `shell` tests what waits and
//! calls.
#![cfg(not(loom))]

#[cfg(feature = "tower")]
mod layer;
mod model;
mod shell;

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Builder, CircuitBreaker, Permit, State};

const SECOND: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(30);

fn exact() -> Builder {
    CircuitBreaker::builder().open_wait_jitter(0.0)
}

/// A breaker that has just opened at `now`.
fn opened(builder: Builder, now: Instant) -> CircuitBreaker {
    let breaker = builder.build().unwrap();
    fail_until_open(&breaker, now);
    breaker
}

fn fail_until_open(breaker: &CircuitBreaker, now: Instant) {
    for _ in 0..3 {
        breaker.try_acquire_at(now).unwrap().failure_at(now);
    }
    assert_eq!(breaker.state(), State::Open);
}

fn refused_for(breaker: &CircuitBreaker, now: Instant) -> Duration {
    breaker.try_acquire_at(now).map(|_| ()).unwrap_err().retry_after
}

#[test]
fn three_failures_in_a_row_open_it_for_sixty_seconds() {
    let now = Instant::now();
    let breaker = exact().build().unwrap();
    for _ in 0..2 {
        breaker.try_acquire_at(now).unwrap().failure_at(now);
    }
    breaker.try_acquire_at(now).unwrap().success_at(now);
    for _ in 0..2 {
        breaker.try_acquire_at(now).unwrap().failure_at(now);
    }
    assert_eq!(breaker.state(), State::Closed, "the success broke the row");
    breaker.try_acquire_at(now).unwrap().failure_at(now);
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(refused_for(&breaker, now), WAIT);
    assert_eq!(refused_for(&breaker, now + 59 * SECOND), SECOND);
    assert!(breaker.try_acquire_at(now + WAIT).is_ok());
}

#[test]
fn a_failure_rate_opens_it_only_with_enough_calls() {
    let now = Instant::now();
    let breaker = exact()
        .consecutive_failures(100)
        .window_calls(10)
        .minimum_calls(8)
        .failure_rate(0.5)
        .build()
        .unwrap();
    for call in 0..7 {
        let permit = breaker.try_acquire_at(now).unwrap();
        if call % 2 == 0 { permit.failure_at(now) } else { permit.success_at(now) }
    }
    assert_eq!(breaker.state(), State::Closed, "four of seven failed, but eight are needed");
    breaker.try_acquire_at(now).unwrap().success_at(now);
    assert_eq!(breaker.state(), State::Closed, "four of eight, but a good call opens nothing");
    breaker.try_acquire_at(now).unwrap().failure_at(now);
    assert_eq!(breaker.state(), State::Open, "five of nine");
}

#[test]
fn a_thousand_successes_do_not_hide_a_full_outage() {
    let now = Instant::now();
    let breaker = exact().consecutive_failures(u32::MAX).build().unwrap();
    for _ in 0..1_000 {
        breaker.try_acquire_at(now).unwrap().success_at(now);
    }
    let failures = (1..).find(|_| {
        breaker.try_acquire_at(now).unwrap().failure_at(now);
        breaker.state() == State::Open
    });
    assert_eq!(failures, Some(50), "half of the window of a hundred");
}

#[test]
fn ignored_and_cancelled_calls_count_for_nothing() {
    let now = Instant::now();
    let breaker = exact().failure_rate(0.6).build().unwrap();
    for _ in 0..10 {
        breaker.try_acquire_at(now).unwrap().failure_at(now);
        breaker.try_acquire_at(now).unwrap().ignore_at(now);
        drop(breaker.try_acquire_at(now).unwrap());
        breaker.try_acquire_at(now).unwrap().success_at(now);
    }
    let snapshot = breaker.snapshot_at(now);
    assert_eq!((snapshot.window_calls, snapshot.window_failures), (20, 10));
    assert_eq!((snapshot.ignored, snapshot.cancelled), (10, 10));
}

#[test]
fn a_probe_that_never_answers_loses_its_slot_when_its_lease_ends() {
    let now = Instant::now();
    let breaker = opened(exact(), now);
    let half_open = now + WAIT;
    let hanging = breaker.try_acquire_at(half_open).unwrap();
    assert_eq!(refused_for(&breaker, half_open), LEASE);
    assert_eq!(refused_for(&breaker, half_open + LEASE - SECOND), SECOND);

    let second = breaker.try_acquire_at(half_open + LEASE).unwrap();
    hanging.failure_at(half_open + LEASE);
    assert_eq!(breaker.state(), State::HalfOpen, "the hanging probe's answer came too late to count");
    second.success_at(half_open + LEASE);
    assert_eq!(breaker.state(), State::Closed);
    let snapshot = breaker.snapshot_at(half_open + LEASE);
    assert_eq!((snapshot.leases_ended, snapshot.late), (1, 1));
}

#[test]
fn a_cancelled_probe_frees_its_slot_at_once() {
    let now = Instant::now();
    let breaker = opened(exact(), now);
    let half_open = now + WAIT;
    for _ in 0..100 {
        breaker.try_acquire_at(half_open).unwrap().cancel_at(half_open);
    }
    breaker.try_acquire_at(half_open).unwrap().ignore_at(half_open);
    assert_eq!(breaker.state(), State::HalfOpen);
    breaker.try_acquire_at(half_open).unwrap().success_at(half_open);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_late_success_after_reopening_does_not_close_it() {
    let now = Instant::now();
    let breaker = exact().probes(2).build().unwrap();
    let slow = breaker.try_acquire_at(now).unwrap();
    fail_until_open(&breaker, now);
    let half_open = now + WAIT;
    let probe = breaker.try_acquire_at(half_open).unwrap();
    let other_probe = breaker.try_acquire_at(half_open).unwrap();
    probe.failure_at(half_open);
    assert_eq!(breaker.state(), State::Open);

    let before = breaker.snapshot_at(half_open);
    slow.success_at(half_open);
    other_probe.success_at(half_open);
    let after = breaker.snapshot_at(half_open);
    assert_eq!(after.late, before.late + 2);
    assert_eq!(
        (after.state, after.generation, after.retry_after),
        (State::Open, before.generation, 2 * WAIT)
    );
}

#[test]
fn a_late_failure_after_closing_does_not_open_it() {
    let now = Instant::now();
    let breaker = exact().build().unwrap();
    let slow: Vec<Permit> = (0..10).map(|_| breaker.try_acquire_at(now).unwrap()).collect();
    fail_until_open(&breaker, now);
    breaker.try_acquire_at(now + WAIT).unwrap().success_at(now + WAIT);
    slow.into_iter().for_each(|permit| permit.failure_at(now + WAIT));
    let snapshot = breaker.snapshot_at(now + WAIT);
    assert_eq!((snapshot.state, snapshot.window_failures, snapshot.late), (State::Closed, 0, 10));
}

#[test]
fn a_thousand_callers_at_the_half_open_moment_pass_exactly_the_probes() {
    const THREADS: usize = 8;
    const PROBES: u32 = 5;
    let now = Instant::now();
    let breaker = opened(exact().probes(PROBES), now);
    let half_open = now + WAIT;
    let passed = Arc::new(AtomicUsize::new(0));
    let start = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (breaker, passed, start) = (breaker.clone(), passed.clone(), start.clone());
            std::thread::spawn(move || {
                start.wait();
                let permits: Vec<_> =
                    (0..1_000 / THREADS).filter_map(|_| breaker.try_acquire_at(half_open).ok()).collect();
                passed.fetch_add(permits.len(), Ordering::Relaxed);
                permits
            })
        })
        .collect();
    let permits: Vec<Permit> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    assert_eq!(passed.load(Ordering::Relaxed), PROBES as usize);
    assert_eq!(breaker.snapshot_at(half_open).refused, 1_000 - u64::from(PROBES));

    // Each success but the last leaves it half-open, and a success does not make room for another caller.
    for permit in permits {
        assert_eq!(breaker.state(), State::HalfOpen);
        assert!(breaker.try_acquire_at(half_open).is_err());
        permit.success_at(half_open);
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn each_reopening_waits_twice_as_long_up_to_the_cap() {
    let mut now = Instant::now();
    let breaker = opened(exact().open_wait_max(5 * WAIT), now);
    for factor in [1, 2, 4, 5, 5] {
        assert_eq!(refused_for(&breaker, now), factor * WAIT);
        now += factor * WAIT;
        breaker.try_acquire_at(now).unwrap().failure_at(now);
    }
}

#[test]
fn proven_good_time_shrinks_the_wait_back() {
    let mut now = Instant::now();
    let breaker = opened(exact(), now);
    for factor in [1, 2, 4] {
        now += factor * WAIT;
        breaker.try_acquire_at(now).unwrap().failure_at(now);
    }
    now += 8 * WAIT;
    breaker.try_acquire_at(now).unwrap().success_at(now);
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.snapshot_at(now).next_open_wait, 10 * WAIT);

    // The last step had caused a wait of 8, the one before it of 4: twelve minutes undo both.
    now += 12 * WAIT;
    breaker.try_acquire_at(now).unwrap().success_at(now);
    fail_until_open(&breaker, now);
    assert_eq!(refused_for(&breaker, now), 4 * WAIT);
}

#[test]
fn idle_time_proves_nothing() {
    let mut now = Instant::now();
    let breaker = opened(exact(), now);
    now += WAIT;
    breaker.try_acquire_at(now).unwrap().success_at(now);
    now += 1_000 * WAIT;
    fail_until_open(&breaker, now);
    assert_eq!(refused_for(&breaker, now), 2 * WAIT);
}

#[test]
fn jitter_shortens_the_wait_by_at_most_its_share_and_repeats_by_seed() {
    let now = Instant::now();
    let wait = |seed| {
        let breaker = opened(CircuitBreaker::builder().open_wait_jitter(0.2).seed(seed), now);
        refused_for(&breaker, now)
    };
    let waits: Vec<Duration> = (0..200).map(wait).collect();
    assert!(waits.iter().all(|wait| (48 * SECOND..=WAIT).contains(wait)));
    assert!(waits.iter().max().unwrap().saturating_sub(*waits.iter().min().unwrap()) > 9 * SECOND);
    assert_eq!(waits[7], wait(7));
}

#[test]
fn a_clock_that_steps_back_neither_panics_nor_opens_early() {
    let now = Instant::now() + 100 * SECOND;
    let breaker = opened(exact(), now);
    assert_eq!(refused_for(&breaker, now - 50 * SECOND), WAIT + 50 * SECOND);
    let probe = breaker.try_acquire_at(now + WAIT).unwrap();
    assert!(refused_for(&breaker, now) > LEASE);
    probe.success_at(now);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_time_window_forgets_the_failures_of_before() {
    let now = Instant::now();
    let breaker = exact()
        .consecutive_failures(u32::MAX)
        .window_time(10 * SECOND)
        .minimum_calls(10)
        .failure_rate(0.5)
        .build()
        .unwrap();
    for _ in 0..9 {
        breaker.try_acquire_at(now).unwrap().failure_at(now);
    }
    let later = now + 10 * SECOND;
    breaker.try_acquire_at(later).unwrap().failure_at(later);
    assert_eq!(breaker.state(), State::Closed, "the nine are ten seconds old");
    assert_eq!(breaker.snapshot_at(later).window_calls, 1);
    for _ in 0..9 {
        breaker.try_acquire_at(later + 9 * SECOND).unwrap().failure_at(later + 9 * SECOND);
    }
    assert_eq!(breaker.state(), State::Open, "these ten are within ten seconds");
}

#[test]
fn a_thousand_successes_do_not_hide_a_full_outage_from_a_time_window() {
    let start = Instant::now();
    let breaker = exact().consecutive_failures(u32::MAX).window_time(10 * SECOND).build().unwrap();
    let at = |call: u32| start + call * SECOND / 100;
    for call in 0..1_000 {
        breaker.try_acquire_at(at(call)).unwrap().success_at(at(call));
    }
    let opened = (1_000..).find(|call| {
        breaker.try_acquire_at(at(*call)).unwrap().failure_at(at(*call));
        breaker.state() == State::Open
    });
    // A hundred calls a second: half of the window is there after five seconds, less the tenth that just ended.
    assert!(opened.is_some_and(|call| (1_440..=1_500).contains(&call)), "{opened:?}");
}

#[test]
fn slow_calls_open_it_even_if_they_succeed() {
    let now = Instant::now();
    let breaker = exact().slow_call_threshold(SECOND).slow_call_rate(0.6).minimum_calls(5).build().unwrap();
    let call = |took| breaker.try_acquire_at(now).unwrap().success_at(now + took);
    for took in [SECOND, 2 * SECOND, SECOND - Duration::from_nanos(1), Duration::ZERO] {
        call(took);
    }
    assert_eq!(breaker.snapshot_at(now).window_slow, 2);
    assert_eq!(breaker.state(), State::Closed);
    call(9 * SECOND);
    assert_eq!(breaker.state(), State::Open, "three of five");
}

#[test]
fn probes_that_succeed_too_slowly_do_not_close_it() {
    let now = Instant::now();
    let builder = exact().slow_call_threshold(SECOND).slow_call_rate(0.5).probes(2);
    let breaker = opened(builder, now);
    let probe = |at: Instant, took: [Duration; 2]| {
        let permits = [0, 1].map(|_| breaker.try_acquire_at(at).unwrap());
        permits.into_iter().zip(took).for_each(|(permit, took)| permit.success_at(at + took));
    };
    probe(now + WAIT, [SECOND, Duration::ZERO]);
    assert_eq!(breaker.state(), State::Open, "one of two was slow");
    probe(now + 4 * WAIT, [Duration::ZERO; 2]);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn overloaded_calls_open_it_by_a_rule_of_their_own() {
    let now = Instant::now();
    let breaker = exact().minimum_calls(8).overload_rate(0.5).build().unwrap();
    for _ in 0..4 {
        breaker.try_acquire_at(now).unwrap().overloaded_at(None, now);
    }
    let snapshot = breaker.snapshot_at(now);
    assert_eq!((snapshot.consecutive_failures, snapshot.window_failures), (0, 0));
    assert_eq!((snapshot.window_overloaded, snapshot.overloaded), (4, 4));
    for _ in 0..4 {
        breaker.try_acquire_at(now).unwrap().success_at(now);
    }
    assert_eq!(breaker.state(), State::Closed);
    breaker.try_acquire_at(now).unwrap().overloaded_at(None, now);
    assert_eq!(breaker.state(), State::Open, "five of nine");
}

#[test]
fn an_overloaded_call_neither_lengthens_nor_ends_the_row_of_failures() {
    let now = Instant::now();
    let breaker = exact().build().unwrap();
    for _ in 0..2 {
        breaker.try_acquire_at(now).unwrap().failure_at(now);
        breaker.try_acquire_at(now).unwrap().overloaded_at(None, now);
    }
    assert_eq!(breaker.state(), State::Closed);
    breaker.try_acquire_at(now).unwrap().failure_at(now);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn the_time_that_a_callee_asks_for_is_kept_up_to_the_cap() {
    let now = Instant::now();
    let wait_after = |told| {
        let breaker = opened(exact(), now);
        let probe = breaker.try_acquire_at(now + WAIT).unwrap();
        probe.overloaded_at(told, now + WAIT);
        refused_for(&breaker, now + WAIT)
    };
    assert_eq!(wait_after(None), 2 * WAIT);
    assert_eq!(wait_after(Some(SECOND)), 2 * WAIT, "its own wait is longer");
    assert_eq!(wait_after(Some(5 * WAIT)), 5 * WAIT);
    assert_eq!(wait_after(Some(Duration::MAX)), 10 * WAIT);
}

#[test]
fn nobody_returns_before_the_time_that_the_callee_asked_for() {
    let now = Instant::now();
    let wait = |seed| {
        let breaker = opened(CircuitBreaker::builder().open_wait_jitter(0.2).seed(seed), now);
        let later = now + WAIT;
        breaker.try_acquire_at(later).unwrap().overloaded_at(Some(5 * WAIT), later);
        refused_for(&breaker, later)
    };
    let waits: Vec<Duration> = (0..200).map(wait).collect();
    assert!(waits.iter().all(|wait| (5 * WAIT..=6 * WAIT).contains(wait)));
    assert!(waits.iter().max().unwrap().saturating_sub(*waits.iter().min().unwrap()) > WAIT / 2);
}

#[test]
fn forced_open_it_refuses_until_it_is_reset() {
    let now = Instant::now();
    let breaker = exact().build().unwrap();
    let under_way = breaker.try_acquire_at(now).unwrap();
    breaker.force_open();
    assert_eq!(refused_for(&breaker, now), WAIT);
    under_way.success_at(now);
    assert_eq!(refused_for(&breaker, now + 1_000 * WAIT), WAIT);
    assert_eq!(breaker.retry_after_at(now), WAIT);
    breaker.reset();
    breaker.try_acquire_at(now).unwrap().success_at(now);
    let snapshot = breaker.snapshot_at(now);
    assert_eq!((snapshot.state, snapshot.late, snapshot.succeeded), (State::Closed, 1, 1));
    assert_eq!(snapshot.opened, 0, "nothing was wrong with the callee");
}

#[test]
fn disabled_it_passes_all_and_counts_none() {
    let now = Instant::now();
    let breaker = exact().build().unwrap();
    let before = breaker.try_acquire_at(now).unwrap();
    breaker.disable();
    for _ in 0..100 {
        breaker.try_acquire_at(now).unwrap().failure_at(now);
    }
    before.failure_at(now);
    let snapshot = breaker.snapshot_at(now);
    assert_eq!(
        (snapshot.state, snapshot.failed, snapshot.window_calls, snapshot.late),
        (State::Disabled, 0, 0, 1)
    );
}

#[test]
fn with_metrics_only_it_counts_all_and_never_opens() {
    let now = Instant::now();
    let breaker = exact().window_calls(50).build().unwrap();
    breaker.metrics_only();
    for _ in 0..100 {
        breaker.try_acquire_at(now).unwrap().failure_at(now);
    }
    let snapshot = breaker.snapshot_at(now);
    assert_eq!((snapshot.state, snapshot.failed, snapshot.window_failures), (State::MetricsOnly, 100, 50));
    assert_eq!(snapshot.consecutive_failures, 100);
}

#[test]
fn a_reset_forgets_the_window_the_row_and_the_growth() {
    let now = Instant::now();
    let breaker = opened(exact(), now);
    breaker.reset();
    fail_until_open(&breaker, now);
    assert_eq!(refused_for(&breaker, now), WAIT, "as the first time");
    breaker.reset();
    for _ in 0..2 {
        breaker.try_acquire_at(now).unwrap().failure_at(now);
    }
    let under_way = breaker.try_acquire_at(now).unwrap();
    breaker.reset();
    under_way.failure_at(now);
    let snapshot = breaker.snapshot_at(now);
    assert_eq!((snapshot.state, snapshot.consecutive_failures, snapshot.window_calls), (State::Closed, 0, 0));
    assert_eq!(snapshot.opened, 2);
}

#[test]
fn more_successes_than_a_lane_holds_are_all_counted() {
    let now = Instant::now();
    let breaker = exact().window_calls(3_000).build().unwrap();
    for _ in 0..5_000 {
        breaker.try_acquire_at(now).unwrap().success_at(now);
    }
    let snapshot = breaker.snapshot_at(now);
    assert_eq!((snapshot.succeeded, snapshot.window_calls), (5_000, 3_000));
}

#[test]
fn successes_of_a_tenth_that_is_over_stay_in_it() {
    let now = Instant::now();
    let breaker = exact().window_time(10 * SECOND).build().unwrap();
    for call in 0..20 {
        breaker.try_acquire_at(now + call * SECOND).unwrap().success_at(now + call * SECOND);
    }
    assert_eq!(breaker.snapshot_at(now + 19 * SECOND).window_calls, 10);
    assert_eq!(breaker.snapshot_at(now + 25 * SECOND).window_calls, 4);
}

#[test]
fn what_many_threads_report_is_all_counted() {
    const THREADS: u64 = 8;
    const CALLS: u64 = 5_000;
    let now = Instant::now();
    let breaker =
        exact().consecutive_failures(u32::MAX).failure_rate(1.0).window_calls(65_536).build().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for call in 0..CALLS {
                    let permit = breaker.try_acquire_at(now).unwrap();
                    if call % 100 == 99 { permit.failure_at(now) } else { permit.success_at(now) }
                }
            });
        }
    });
    let snapshot = breaker.snapshot_at(now);
    assert_eq!((snapshot.succeeded, snapshot.failed), (THREADS * CALLS * 99 / 100, THREADS * CALLS / 100));
    assert_eq!((snapshot.window_calls, snapshot.window_failures), (THREADS * CALLS, THREADS * CALLS / 100));
    assert_eq!(snapshot.late, 0);
}

/// Good time was counted up to the moment at which the breaker was built, if that came later: a history replayed in a
/// simulation, or by a paused clock, gave other waits each time.
#[test]
fn when_it_was_built_changes_nothing() {
    let now = Instant::now();
    let waits = |built: Instant| -> Vec<Duration> {
        let breaker = exact().consecutive_failures(1).open_wait(2 * SECOND).build_at(built).unwrap();
        let mut at = now;
        let mut waits = Vec::new();
        for _ in 0..5 {
            breaker.try_acquire_at(at).unwrap().failure_at(at);
            waits.push(breaker.retry_after_at(at));
            at += breaker.retry_after_at(at);
            // The probe, and successes that the core is told of by the lot.
            for _ in 0..3 {
                breaker.try_acquire_at(at).unwrap().success_at(at);
                at += SECOND / 2;
            }
        }
        waits
    };
    let usual = waits(now);
    assert_eq!(usual, [2, 4, 8, 16, 20].map(|seconds| seconds * SECOND), "no good time to speak of");
    for later in [1, 4_200, 3_600_000] {
        assert_eq!(waits(now + Duration::from_millis(later)), usual, "built {later} ms later");
    }
}
