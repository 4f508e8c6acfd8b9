//! The breaker around a tower service.

use std::{
    future::{Future, Pending, pending, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use tower_layer::Layer;
use tower_service::Service;

use super::{LEASE, SECOND, WAIT, exact, opened};
use crate::breaker::{CallError, CircuitBreaker, CircuitBreakerLayer, CircuitBreakerService, Outcome, State};

type Answer = Result<u16, &'static str>;

/// Answers with what it is asked for; is ready only where it says so.
#[derive(Clone)]
struct Echo {
    ready: bool,
}

impl Service<Answer> for Echo {
    type Response = u16;
    type Error = &'static str;
    type Future = Pin<Box<dyn Future<Output = Answer>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if self.ready { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, answer: Answer) -> Self::Future {
        assert!(self.ready, "called without being ready");
        Box::pin(std::future::ready(answer))
    }
}

/// Never answers.
struct Hanging;

impl Service<()> for Hanging {
    type Response = u16;
    type Error = &'static str;
    type Future = Pending<Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        pending()
    }
}

/// Never becomes ready: its peer is gone, or was told wrongly.
struct Gone {
    error: &'static str,
}

impl Service<()> for Gone {
    type Response = u16;
    type Error = &'static str;
    type Future = Pending<Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Err(self.error))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        unreachable!("called without being ready")
    }
}

fn classified(answer: &Answer) -> Outcome {
    match answer {
        Ok(500..) => Outcome::Failure,
        _ => Outcome::of(answer),
    }
}

type Echoing = CircuitBreakerService<Echo, fn(&Answer) -> Outcome>;

fn echoing(breaker: &CircuitBreaker, ready: bool) -> Echoing {
    CircuitBreakerLayer::new(breaker.clone(), classified as fn(&Answer) -> Outcome).layer(Echo { ready })
}

async fn ask(service: &mut Echoing, answer: Answer) -> Result<u16, CallError<&'static str>> {
    poll_fn(|context| service.poll_ready(context)).await?;
    service.call(answer).await
}

#[tokio::test(start_paused = true)]
async fn answers_are_classified_and_the_open_circuit_refuses() {
    let breaker = exact().build().unwrap();
    let mut service = echoing(&breaker, true);
    assert_eq!(ask(&mut service, Ok(200)).await, Ok(200));
    assert_eq!(ask(&mut service, Ok(503)).await, Ok(503));
    assert_eq!(ask(&mut service, Err("down")).await, Err(CallError::Failed("down")));
    assert_eq!(ask(&mut service.clone(), Ok(500)).await, Ok(500));
    assert_eq!(breaker.state(), State::Open, "two statuses and an error");
    assert!(
        matches!(ask(&mut service, Ok(200)).await, Err(CallError::Open(open)) if open.retry_after == WAIT)
    );
    tokio::time::advance(WAIT).await;
    assert_eq!(ask(&mut service, Ok(200)).await, Ok(200));
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_refuses_without_waiting_for_the_inner_service() {
    let breaker = exact().build().unwrap();
    let mut service = echoing(&breaker, false);
    let waited = tokio::time::timeout(SECOND, ask(&mut service, Ok(200))).await;
    assert!(waited.is_err(), "a closed circuit waits for the inner service");
    breaker.force_open();
    assert!(matches!(ask(&mut service, Ok(200)).await, Err(CallError::Open(_))));
    // Ready while it refused, called when it no longer does: the inner service is not ready, and is not called.
    poll_fn(|context| service.poll_ready(context)).await.unwrap();
    breaker.reset();
    assert!(matches!(service.call(Ok(200)).await, Err(CallError::Open(open)) if open.retry_after < SECOND));
    assert_eq!(breaker.snapshot().cancelled, 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_answer_frees_the_probe() {
    let now = tokio::time::Instant::now().into_std();
    let breaker = opened(exact(), now);
    tokio::time::advance(WAIT).await;
    let mut service = CircuitBreakerLayer::new(breaker.clone(), Outcome::of).layer(Hanging);
    poll_fn(|context| service.poll_ready(context)).await.unwrap();
    {
        let mut answer = pin!(service.call(()));
        assert!(tokio::time::timeout(SECOND, &mut answer).await.is_err());
        assert_eq!(breaker.retry_after(), LEASE - SECOND, "the only slot is taken");
    }
    assert_eq!((breaker.snapshot().cancelled, breaker.snapshot().probes_out), (1, 0));
    assert!(breaker.try_acquire().is_ok());
}

/// Where services reconnect or pool, this is how a dead peer shows, and the circuit stayed closed.
#[tokio::test(start_paused = true)]
async fn a_service_that_cannot_become_ready_opens_the_circuit() {
    let breaker = exact().build().unwrap();
    let mut service = CircuitBreakerLayer::new(breaker.clone(), Outcome::of).layer(Gone { error: "refused" });
    for _ in 0..3 {
        let readied = poll_fn(|context| service.poll_ready(context)).await;
        assert_eq!(readied, Err(CallError::Failed("refused")));
    }
    assert_eq!((breaker.state(), breaker.snapshot().failed), (State::Open, 3));
    poll_fn(|context| service.poll_ready(context)).await.unwrap();
    assert!(matches!(service.call(()).await, Err(CallError::Open(open)) if open.retry_after == WAIT));

    tokio::time::advance(WAIT).await;
    assert!(poll_fn(|context| service.poll_ready(context)).await.is_err(), "the probe of this wait");
    let seen = breaker.snapshot();
    assert_eq!((seen.state, seen.opened, seen.probes_out), (State::Open, 2, 0));

    // Another holds the only slot of the next wait: the error is neither counted nor a refusal.
    tokio::time::advance(2 * WAIT).await;
    let probe = breaker.try_acquire().unwrap();
    service.count_not_ready(&Err::<u16, _>("refused"));
    let seen = breaker.snapshot();
    assert_eq!((seen.failed, seen.refused), (4, 1));
    probe.success();
}

#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_is_classified_as_an_answer_is() {
    let breaker = exact().build().unwrap();
    let classify = |answer: &Answer| match answer {
        Err("shut down") => Outcome::Ignored,
        _ => Outcome::of(answer),
    };
    let mut service = CircuitBreakerLayer::new(breaker.clone(), classify).layer(Gone { error: "shut down" });
    for _ in 0..3 {
        assert!(poll_fn(|context| service.poll_ready(context)).await.is_err());
    }
    assert_eq!((breaker.state(), breaker.snapshot().ignored), (State::Closed, 3));
}
