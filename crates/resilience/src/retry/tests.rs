//! Retries by the paused clock.

use std::cell::Cell;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn steady() -> Retry {
    Retry::builder().tries(5).backoff(Backoff::new(SECOND, 8 * SECOND).jitter(0.0)).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn it_waits_between_tries_and_stops_at_the_last() {
    let (retry, begun, made) = (steady(), clock::now(), Cell::new(0));
    let answer: Result<(), _> = retry
        .run(
            Deadline::never(),
            |_| Verdict::Retry,
            |attempt| {
                made.set(made.get() + 1);
                assert_eq!(attempt.number, made.get());
                async { Err("down") }
            },
        )
        .await;
    assert_eq!(answer, Err(RetryError::Failed { error: "down", attempts: 5, stop: Stop::Tries }));
    assert_eq!((made.get(), clock::now() - begun), (5, 15 * SECOND), "1 + 2 + 4 + 8 s");
    let snapshot = retry.budget().snapshot();
    assert_eq!((snapshot.first_attempts, snapshot.retries, snapshot.refused), (1, 4, 0));
}

#[tokio::test(start_paused = true)]
async fn no_retry_is_waited_for_that_could_not_end_in_time() {
    let (retry, begun) = (steady(), clock::now());
    let run = retry.run(Deadline::after(3 * SECOND), |_| Verdict::Retry, |_| async { Err::<(), _>("down") });
    let stopped = RetryError::Failed { error: "down", attempts: 2, stop: Stop::Deadline };
    assert_eq!(run.await, Err(stopped));
    assert_eq!(clock::now() - begun, SECOND, "the wait of 2 s was not begun");
    assert_eq!(retry.budget().snapshot().retries, 1, "nothing was taken for a retry that was not made");
}

#[tokio::test(start_paused = true)]
async fn a_try_that_hangs_ends_with_the_deadline_and_the_error_before_it_is_kept() {
    let retry = steady();
    let run = retry.run(
        Deadline::after(3 * SECOND),
        |_| Verdict::Retry,
        |attempt| async move {
            if attempt.number > 1 {
                std::future::pending::<()>().await;
            }
            Err::<(), _>("reset")
        },
    );
    match run.await.unwrap_err() {
        RetryError::DeadlineOver { over, attempts: 2, last: Some("reset") } => {
            assert_eq!(over.to_string(), "deadline over after waiting 2s for a try to end");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_deadline_nothing_is_tried_nor_counted() {
    let retry = steady();
    let run = retry.run(
        Deadline::after(Duration::ZERO),
        |_| Verdict::Retry,
        |_| async {
            panic!("it was tried");
            #[expect(unreachable_code, reason = "it gives the block its type")]
            Ok::<(), &str>(())
        },
    );
    assert!(matches!(run.await, Err(RetryError::DeadlineOver { attempts: 0, last: None, .. })));
    assert_eq!(retry.budget().snapshot().attempts(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_callees_own_wait_comes_before_that_of_the_backoff() {
    let (retry, begun) = (steady(), clock::now());
    let run = retry.run(
        Deadline::never(),
        |wait| Verdict::RetryAfter(*wait),
        |attempt| async move { if attempt.number == 1 { Err(7 * SECOND) } else { Ok(()) } },
    );
    run.await.unwrap();
    assert_eq!(clock::now() - begun, 8 * SECOND, "7 s as told, and 1 s");
}

/// All whom one breaker had refused came back in the same instant.
#[test]
fn those_who_were_told_the_same_time_come_back_apart_and_none_of_them_sooner() {
    let (retry, now, told) = (Retry::default(), Instant::now(), 60 * SECOND);
    let mut waits: Vec<Duration> = (0..20)
        .map(|_| retry.begin_at(Deadline::never(), now).failed_at(now, Verdict::RetryAfter(told)).unwrap())
        .collect();
    assert!(waits.iter().all(|wait| (told..=told + SECOND / 10).contains(wait)), "{waits:?}");
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 15, "{waits:?}");
}

/// A caller without a deadline waited a day because the callee said so.
#[test]
fn a_wait_beyond_the_cap_ends_the_run_and_takes_nothing() {
    let (retry, now) = (steady(), Instant::now());
    let after = |wait| retry.begin_at(Deadline::never(), now).failed_at(now, Verdict::RetryAfter(wait));
    for told in [61 * SECOND, 86_400 * SECOND, Duration::MAX] {
        assert_eq!(after(told), Err(Stop::RetryAfter));
    }
    assert_eq!(retry.budget().snapshot_at(now).retries, 0);
    assert_eq!(after(60 * SECOND), Ok(61 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_stops_every_caller_that_shares_it() {
    let budget = RetryBudget::builder().share(0.0).per_second(0.1).build().unwrap();
    let retry = |tries| Retry::builder().tries(tries).budget(budget.clone()).build().unwrap();
    let (one, other) = (retry(2), retry(3));
    let fail = |_: Attempt| async { Err::<(), _>("down") };
    let spent = RetryError::Failed { error: "down", attempts: 1, stop: Stop::Budget };
    assert!(matches!(
        one.run(Deadline::never(), |_| Verdict::Retry, fail).await,
        Err(RetryError::Failed { attempts: 2, stop: Stop::Tries, .. })
    ));
    assert_eq!(other.run(Deadline::never(), |_| Verdict::Retry, fail).await, Err(spent));
    let snapshot = budget.snapshot();
    assert_eq!((snapshot.attempts(), snapshot.retries, snapshot.refused), (3, 1, 1));
}

#[test]
fn runs_do_not_wait_in_step() {
    let (retry, now) = (Retry::default(), Instant::now());
    let waits: Vec<Duration> = (0..20)
        .map(|_| retry.begin_at(Deadline::never(), now).failed_at(now, Verdict::Retry).unwrap())
        .collect();
    let mut apart = waits.clone();
    apart.sort_unstable();
    apart.dedup();
    assert!(apart.len() > 15, "{waits:?}");
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let field = |builder: RetryBuilder| builder.build().expect_err("the settings are wrong").field;
    assert_eq!(field(Retry::builder().tries(0)), "tries");
    assert_eq!(field(Retry::builder().tries(101)), "tries");
    assert_eq!(field(Retry::builder().least_time(Duration::MAX)), "least_time");
    assert_eq!(field(Retry::builder().retry_after_max(Duration::MAX)), "retry_after_max");
    assert!(Retry::builder().least_time(Duration::ZERO).retry_after_max(Duration::ZERO).build().is_ok());
}

#[test]
fn a_run_can_be_moved_to_another_thread() {
    fn sendable<T: Send>(_: &T) {}
    let retry = Retry::default();
    sendable(&retry.run(Deadline::never(), |_: &&str| Verdict::Retry, |_| async { Ok::<(), &str>(()) }));
}
