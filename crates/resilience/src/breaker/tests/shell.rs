//! What calls and waits: by the paused clock, and outside a runtime.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{LEASE, SECOND, WAIT, exact, fail_until_open};
use crate::breaker::{CallError, CircuitBreaker, Outcome, State};

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

#[tokio::test(start_paused = true)]
async fn a_classified_call_counts_as_it_was_classified() {
    let breaker = exact().build().unwrap();
    let status = async |status: u16| {
        let classify = |result: &Result<u16, &str>| match result {
            Ok(404) | Err(_) => Outcome::Ignored,
            Ok(429) => Outcome::Overloaded { retry_after: None },
            Ok(500..) => Outcome::Failure,
            Ok(_) => Outcome::Success,
        };
        let answer = if status == 0 { Err("no request") } else { Ok(status) };
        breaker.call_with(classify, async { answer }).await
    };
    assert_eq!(status(200).await, Ok(200));
    assert_eq!(status(404).await, Ok(404));
    assert_eq!(status(429).await, Ok(429));
    assert_eq!(status(500).await, Ok(500));
    assert_eq!(status(0).await, Err(CallError::Failed("no request")));
    let seen = breaker.snapshot();
    assert_eq!((seen.succeeded, seen.ignored, seen.overloaded, seen.failed), (1, 2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn ready_waits_exactly_the_open_wait() {
    let breaker = exact().build().unwrap();
    let start = tokio::time::Instant::now();
    fail_until_open(&breaker, start.into_std());
    breaker.ready().await.success();
    assert_eq!(start.elapsed(), WAIT);
    assert_eq!((breaker.state(), breaker.snapshot().refused), (State::Closed, 0));
    breaker.ready().await.success();
    assert_eq!(start.elapsed(), WAIT, "a closed circuit is ready at once");
}

#[tokio::test(start_paused = true)]
async fn of_many_that_wait_to_be_ready_as_many_pass_as_there_are_probes() {
    let breaker = exact().probes(2).build().unwrap();
    let start = tokio::time::Instant::now();
    fail_until_open(&breaker, start.into_std());
    let passed = Arc::new(AtomicUsize::new(0));
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let (breaker, passed) = (breaker.clone(), passed.clone());
            tokio::spawn(async move {
                let permit = breaker.ready().await;
                passed.fetch_add(1, Ordering::Relaxed);
                permit
            })
        })
        .collect();
    tokio::time::sleep(WAIT + SECOND).await;
    assert_eq!(passed.load(Ordering::Relaxed), 2);
    tokio::time::sleep(LEASE).await;
    assert_eq!(passed.load(Ordering::Relaxed), 4, "the first two hang, and their leases have ended");
    breaker.reset();
    for task in waiting {
        drop(task.await.unwrap());
    }
    assert_eq!(passed.load(Ordering::Relaxed), 100);
    assert!(start.elapsed() < WAIT + LEASE + 2 * SECOND, "the reset woke all of them at once");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_back_wakes_who_waits_to_be_ready() {
    let breaker = exact().build().unwrap();
    let start = tokio::time::Instant::now();
    fail_until_open(&breaker, start.into_std());
    let probe = breaker.ready().await;
    let next = tokio::spawn({
        let breaker = breaker.clone();
        async move { breaker.ready().await.success() }
    });
    tokio::time::sleep(SECOND).await;
    drop(probe);
    next.await.unwrap();
    assert_eq!(start.elapsed(), WAIT + SECOND, "it did not wait for the lease to end");
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_the_newest_state_and_ends_with_the_breaker() {
    let breaker = exact().build().unwrap();
    let mut watch = breaker.watch();
    let mut other = watch.clone();
    assert_eq!(watch.state(), State::Closed);
    assert!(tokio::time::timeout(SECOND, watch.changed()).await.is_err(), "nothing has changed");

    fail_until_open(&breaker, tokio::time::Instant::now().into_std());
    assert_eq!(watch.changed().await, Some(State::Open));
    tokio::time::advance(WAIT).await;
    let probe = breaker.ready().await;
    assert_eq!(watch.changed().await, Some(State::HalfOpen));
    probe.success();
    assert_eq!(other.changed().await, Some(State::Closed), "what came before is skipped");
    assert_eq!(watch.changed().await, Some(State::Closed));
    let follower = tokio::spawn(async move { watch.changed().await });
    tokio::task::yield_now().await;
    drop(breaker);
    assert_eq!(follower.await.unwrap(), None);
    assert_eq!((other.changed().await, other.state()), (None, State::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_gives_up_leaves_nothing_behind() {
    let breaker = exact().build().unwrap();
    breaker.force_open();
    for _ in 0..10 {
        assert!(tokio::time::timeout(SECOND, breaker.ready()).await.is_err());
    }
    assert!(
        tokio::time::timeout(SECOND, breaker.watch().changed()).await.is_err(),
        "it begins where it was made"
    );
    assert_eq!(breaker.hub.signal.waiting(), 0);
}
