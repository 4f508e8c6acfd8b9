//! Transitions and named regressions; `model` holds the breaker to a naive reference.

mod model;

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Builder, CallError, CircuitBreaker, Permit, State};

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
    assert_eq!(breaker.state(), State::Open, "four of eight");
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

#[tokio::test(start_paused = true)]
async fn by_the_paused_clock_it_opens_waits_probes_and_closes() {
    let breaker = exact().build().unwrap();
    for _ in 0..3 {
        let result: Result<(), _> = breaker.call(async { Err("down") }).await;
        assert_eq!(result, Err(CallError::Failed("down")));
    }
    let refused = breaker.call(async { Ok::<_, &str>(1) }).await.unwrap_err();
    let CallError::Open(open) = refused else { panic!("the call was made") };
    assert_eq!(open.retry_after, WAIT);
    assert_eq!(open.to_string(), "circuit open, retry in 60s");

    tokio::time::advance(open.retry_after).await;
    assert_eq!(breaker.call(async { Ok::<_, &str>(2) }).await, Ok(2));
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_is_never_polled() {
    let breaker = exact().build().unwrap();
    for _ in 0..3 {
        let _ = breaker.call(async { Err::<(), _>("down") }).await;
    }
    let polled = AtomicUsize::new(0);
    let result = breaker
        .call(async {
            polled.fetch_add(1, Ordering::Relaxed);
            Ok::<_, &str>(())
        })
        .await;
    assert!(matches!(result, Err(CallError::Open(_))));
    assert_eq!(polled.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_times_out_is_cancelled_and_frees_the_probe() {
    let breaker = exact().build().unwrap();
    for _ in 0..3 {
        let _ = breaker.call(async { Err::<(), _>("down") }).await;
    }
    tokio::time::advance(WAIT).await;
    let hanging = breaker.call(std::future::pending::<Result<(), &str>>());
    assert!(tokio::time::timeout(SECOND, hanging).await.is_err());
    let snapshot = breaker.snapshot();
    assert_eq!((snapshot.state, snapshot.cancelled, snapshot.probes_out), (State::HalfOpen, 1, 0));
    assert_eq!(breaker.call(async { Ok::<_, &str>(()) }).await, Ok(()));
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn it_works_outside_a_runtime() {
    let breaker = CircuitBreaker::default();
    breaker.try_acquire().unwrap().success();
    breaker.try_acquire().unwrap().failure();
    breaker.try_acquire().unwrap().ignore();
    drop(breaker.try_acquire().unwrap());
    let snapshot = breaker.snapshot();
    assert_eq!((snapshot.succeeded, snapshot.failed, snapshot.ignored, snapshot.cancelled), (1, 1, 1, 1));
}
