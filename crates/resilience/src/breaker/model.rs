//! Every interleaving of a few threads at one breaker, as loom tells them.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p resilience --release --lib breaker::model::` runs the code as shipped but for its
//! locks and atomics, which are loom's (`src/sync.rs`). All of it takes seconds, so no bound is set; `LOOM_LOG=trace` tells
//! the interleaving that failed.
//!
//! loom looks for a race where an access meets the *last* one of another thread, and so overlooks some where a thread
//! reads what it then changes. It finds them with the threads started in the other order, so each model is run in both.

use std::time::{Duration, Instant};

use loom::{future::block_on, thread};

use super::{CircuitBreaker, Permit, State};

const WAIT: Duration = Duration::from_secs(60);

type Act = Box<dyn FnOnce() + Send>;

/// Runs each act on a thread of its own, in the order given or in the other.
fn at_once<const N: usize>(reversed: bool, acts: [Act; N]) {
    let mut acts = Vec::from(acts);
    if reversed {
        acts.reverse();
    }
    let threads: Vec<_> = acts.into_iter().map(thread::spawn).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn explore(scenario: fn(bool)) {
    for reversed in [false, true] {
        loom::model(move || scenario(reversed));
    }
}

/// A breaker that opens after so many failures in a row, and with it a time.
fn closed(consecutive_failures: u32) -> (CircuitBreaker, Instant) {
    let builder = CircuitBreaker::builder().consecutive_failures(consecutive_failures);
    (builder.open_wait_jitter(0.0).seed(1).build().unwrap(), Instant::now())
}

/// One whose open wait ends at the returned time.
fn half_open() -> (CircuitBreaker, Instant) {
    let (breaker, now) = closed(1);
    breaker.try_acquire_at(now).unwrap().failure_at(now);
    assert_eq!(breaker.state(), State::Open);
    (breaker, now + WAIT)
}

fn ending(permit: Permit, end: fn(Permit, Instant), now: Instant) -> Act {
    Box::new(move || end(permit, now))
}

/// One success after another on one thread, those that are let pass.
fn succeeding(breaker: &CircuitBreaker, times: usize, now: Instant) -> Act {
    let breaker = breaker.clone();
    Box::new(move || {
        for _ in 0..times {
            let _ = breaker.try_acquire_at(now).map(|permit| permit.success_at(now));
        }
    })
}

#[test]
fn of_three_callers_at_the_half_open_moment_one_passes() {
    explore(|reversed| {
        let (breaker, now) = half_open();
        let ask = || -> Act {
            let breaker = breaker.clone();
            Box::new(move || std::mem::forget(breaker.try_acquire_at(now)))
        };
        at_once(reversed, [ask(), ask(), ask()]);
        let snapshot = breaker.snapshot_at(now);
        assert_eq!((snapshot.state, snapshot.probes_out, snapshot.refused), (State::HalfOpen, 1, 2));
    });
}

#[test]
fn no_success_is_lost_or_counted_twice() {
    explore(|reversed| {
        let (breaker, now) = closed(1);
        let look: Act = {
            let breaker = breaker.clone();
            Box::new(move || {
                let looked = breaker.snapshot_at(now);
                assert_eq!(looked.window_calls, looked.succeeded);
            })
        };
        at_once(reversed, [succeeding(&breaker, 2, now), succeeding(&breaker, 1, now), look]);
        let snapshot = breaker.snapshot_at(now);
        assert_eq!((snapshot.window_calls, snapshot.succeeded, snapshot.late), (3, 3, 0));
    });
}

#[test]
fn a_success_counts_before_the_circuit_opens_or_is_late() {
    explore(|reversed| {
        let (breaker, now) = closed(1);
        let [success, failure] = [(), ()].map(|()| breaker.try_acquire_at(now).unwrap());
        at_once(
            reversed,
            [ending(success, Permit::success_at, now), ending(failure, Permit::failure_at, now)],
        );
        let snapshot = breaker.snapshot_at(now);
        assert_eq!((snapshot.state, snapshot.generation, snapshot.window_calls), (State::Open, 1, 0));
        assert_eq!((snapshot.succeeded + snapshot.late, snapshot.failed), (1, 1));
    });
}

/// One whose time window slides by this, with a first success in its first tenth.
const TENTH: Duration = Duration::from_secs(1);

fn timed() -> (CircuitBreaker, Instant) {
    let builder = CircuitBreaker::builder().consecutive_failures(1).window_time(10 * TENTH);
    let (breaker, now) = (builder.open_wait_jitter(0.0).seed(1).build().unwrap(), Instant::now());
    breaker.try_acquire_at(now).unwrap().success_at(now);
    (breaker, now)
}

#[test]
fn a_success_of_the_next_tenth_is_not_counted_in_the_one_before() {
    explore(|reversed| {
        let (breaker, start) = timed();
        let (early, late) = (start + TENTH / 2, start + TENTH * 3 / 2);
        at_once(reversed, [succeeding(&breaker, 1, early), succeeding(&breaker, 2, late)]);
        let calls_at = |tenths: u32| breaker.snapshot_at(start + TENTH * tenths).window_calls;
        assert_eq!((calls_at(9), breaker.snapshot_at(start).succeeded), (4, 4));
        // One that comes too late for its tenth counts in the running one.
        assert!((2..=3).contains(&calls_at(10)), "{} of the second tenth", calls_at(10));
        assert_eq!(calls_at(11), 0);
    });
}

#[test]
fn the_end_of_a_tenth_that_a_reset_forgot_bounds_no_later_one() {
    explore(|reversed| {
        let (breaker, start) = timed();
        let reset: Act = {
            let breaker = breaker.clone();
            Box::new(move || breaker.reset())
        };
        let (first, second) = (start + TENTH / 10, start + TENTH * 9 / 10);
        let succeed_twice: Act = {
            let breaker = breaker.clone();
            Box::new(move || {
                for at in [first, second] {
                    breaker.try_acquire_at(at).unwrap().success_at(at);
                }
            })
        };
        at_once(reversed, [succeed_twice, reset]);
        let calls_at = |at: Instant| breaker.snapshot_at(at).window_calls;
        // A window begins with its first call, and its first tenth leaves as a whole.
        let kept = calls_at(second);
        assert!(kept <= 2);
        let begins = if kept == 2 { first } else { second };
        assert_eq!(calls_at(begins + 10 * TENTH - TENTH / 100), kept);
        assert_eq!(calls_at(begins + 10 * TENTH), 0);
    });
}

#[test]
fn a_success_of_before_a_reset_is_not_taken_for_one_of_after() {
    explore(|reversed| {
        let (breaker, now) = closed(1);
        let permit = breaker.try_acquire_at(now).unwrap();
        let reset: Act = {
            let breaker = breaker.clone();
            Box::new(move || breaker.reset())
        };
        at_once(reversed, [ending(permit, Permit::success_at, now), reset]);
        let snapshot = breaker.snapshot_at(now);
        assert_eq!((snapshot.state, snapshot.window_calls), (State::Closed, 0));
        assert_eq!(snapshot.succeeded + snapshot.late, 1);
    });
}

#[test]
fn a_success_of_another_thread_breaks_the_row_or_does_not_come_between() {
    explore(|reversed| {
        let (breaker, now) = closed(2);
        let fail_twice: Act = {
            let breaker = breaker.clone();
            Box::new(move || {
                for _ in 0..2 {
                    breaker.try_acquire_at(now).unwrap().failure_at(now);
                }
            })
        };
        at_once(reversed, [succeeding(&breaker, 1, now), fail_twice]);
        let snapshot = breaker.snapshot_at(now);
        match snapshot.state {
            State::Open => assert_eq!(snapshot.succeeded + snapshot.late + snapshot.refused, 1),
            _ => assert_eq!((snapshot.succeeded, snapshot.window_failures), (1, 2)),
        }
        assert_eq!(snapshot.opened, u64::from(snapshot.state == State::Open));
    });
}

#[test]
fn two_probes_that_end_at_once_close_it_or_open_it_as_the_first_of_them_says() {
    explore(|reversed| {
        let now = Instant::now();
        let builder = CircuitBreaker::builder().consecutive_failures(1).probes(2).open_wait_jitter(0.0);
        let breaker = builder.seed(1).build().unwrap();
        breaker.try_acquire_at(now).unwrap().failure_at(now);
        let now = now + WAIT;
        let [good, bad] = [(), ()].map(|()| breaker.try_acquire_at(now).unwrap());
        at_once(reversed, [ending(good, Permit::success_at, now), ending(bad, Permit::failure_at, now)]);
        let snapshot = breaker.snapshot_at(now);
        assert_eq!((snapshot.state, snapshot.opened, snapshot.failed), (State::Open, 2, 2));
        assert_eq!(snapshot.succeeded + snapshot.late, 1);
    });
}

#[test]
fn a_probe_that_is_given_back_makes_room_for_one() {
    explore(|reversed| {
        let (breaker, now) = half_open();
        let probe = breaker.try_acquire_at(now).unwrap();
        let ask: Act = {
            let breaker = breaker.clone();
            Box::new(move || std::mem::forget(breaker.try_acquire_at(now)))
        };
        at_once(reversed, [ending(probe, Permit::cancel_at, now), ask]);
        let asked_too_soon = breaker.snapshot_at(now).refused == 1;
        assert_eq!(breaker.try_acquire_at(now).is_ok(), asked_too_soon);
    });
}

#[test]
fn whoever_follows_hears_of_a_change_and_of_the_end() {
    explore(|reversed| {
        let (breaker, _) = closed(1);
        let mut watch = breaker.watch();
        let kept = breaker.clone();
        at_once(
            reversed,
            [
                Box::new(move || {
                    assert_eq!(block_on(watch.changed()), Some(State::ForcedOpen));
                    drop(kept);
                    assert_eq!(block_on(watch.changed()), None);
                }),
                Box::new(move || breaker.force_open()),
            ],
        );
    });
}

#[test]
fn whoever_waits_for_a_slot_hears_of_it() {
    explore(|reversed| {
        let (breaker, now) = half_open();
        let probe = breaker.try_acquire_at(now).unwrap();
        // The loop of `ready`, without the sleep that would hide a wake-up that was lost.
        let wait: Act = Box::new(move || {
            block_on(async {
                loop {
                    let stirs = breaker.hub.signal.news().stirs;
                    if let Ok(permit) = breaker.admit(now, super::Core::admit_waiting) {
                        return permit.success_at(now);
                    }
                    breaker.hub.signal.past(stirs).await;
                }
            });
            assert_eq!(breaker.state(), State::Closed);
        });
        at_once(reversed, [ending(probe, Permit::cancel_at, now), wait]);
    });
}
