//! The breaker around a tower service.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{CallError, CircuitBreaker, CircuitOpen, Outcome, Permit, state::Core};
use crate::clock;

/// Puts services behind one circuit breaker.
///
/// `classify` is a `Fn(&Result<Response, Error>) -> Outcome`; [`Outcome::of`] takes `Ok` for success and `Err` for
/// failure.
///
/// ```
/// use resilience::{CircuitBreaker, CircuitBreakerLayer, Outcome};
/// use tower_layer::Layer;
///
/// /// A service that answers with a status.
/// struct Http;
///
/// fn classified(answer: &Result<u16, std::io::Error>) -> Outcome {
///     match answer {
///         Ok(429 | 503) => Outcome::Overloaded { retry_after: None },
///         Ok(500..) | Err(_) => Outcome::Failure,
///         Ok(_) => Outcome::Success,
///     }
/// }
/// let layer = CircuitBreakerLayer::new(CircuitBreaker::default(), classified);
/// let service = layer.layer(Http);
/// ```
#[derive(Debug, Clone)]
pub struct CircuitBreakerLayer<C> {
    breaker: CircuitBreaker,
    classify: C,
}

impl<C> CircuitBreakerLayer<C> {
    /// A layer whose services share `breaker`.
    ///
    /// ```
    /// use resilience::{CircuitBreaker, CircuitBreakerLayer, Outcome};
    ///
    /// let layer = CircuitBreakerLayer::new(CircuitBreaker::default(), Outcome::of::<u16, std::io::Error>);
    /// ```
    pub fn new(breaker: CircuitBreaker, classify: C) -> Self {
        Self { breaker, classify }
    }
}

impl<S, C: Clone> Layer<S> for CircuitBreakerLayer<C> {
    type Service = CircuitBreakerService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreakerService {
            inner,
            breaker: self.breaker.clone(),
            classify: self.classify.clone(),
            inner_ready: false,
        }
    }
}

/// A service behind a circuit breaker; made by a [`CircuitBreakerLayer`].
///
/// The circuit is asked in `call`, so that a service that is ready and never called holds no probe's slot. While it
/// refuses, the service is ready at once without asking the inner one, which may well not be, and `call` answers with
/// [`CallError::Open`].
///
/// An inner service that fails to become ready has failed, as one that reconnects or pools connections does when its
/// peer is gone: the error is classified and counted like a call's.
///
/// What the inner service reserves when it becomes ready, such as a slot of a concurrency limit, it holds until the next
/// call that passes: through an open wait too, if the circuit opens in between. Drop the service, or a clone that was
/// made ready and is not called, to give it back.
///
/// ```
/// use std::{future::{Ready, ready}, task::{Context, Poll}};
/// use resilience::{CallError, CircuitBreaker, CircuitBreakerLayer, Outcome};
/// use tower_layer::Layer;
/// use tower_service::Service;
///
/// struct Down;
///
/// impl Service<()> for Down {
///     type Response = ();
///     type Error = &'static str;
///     type Future = Ready<Result<(), &'static str>>;
///
///     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
///         Poll::Ready(Ok(()))
///     }
///
///     fn call(&mut self, (): ()) -> Self::Future {
///         ready(Err("down"))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let breaker = CircuitBreaker::builder().consecutive_failures(1).build().unwrap();
/// let mut service = CircuitBreakerLayer::new(breaker, Outcome::of).layer(Down);
/// let mut call = async || {
///     std::future::poll_fn(|context| service.poll_ready(context)).await?;
///     service.call(()).await
/// };
/// assert_eq!(call().await, Err(CallError::Failed("down")));
/// assert!(matches!(call().await, Err(CallError::Open(_))));
/// # }
/// ```
#[derive(Debug)]
pub struct CircuitBreakerService<S, C> {
    inner: S,
    breaker: CircuitBreaker,
    classify: C,
    /// Whether the inner service may be called.
    inner_ready: bool,
}

/// Readiness is a service's own; its clone has to be asked again.
impl<S: Clone, C: Clone> Clone for CircuitBreakerService<S, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            breaker: self.breaker.clone(),
            classify: self.classify.clone(),
            inner_ready: false,
        }
    }
}

impl<S, C> CircuitBreakerService<S, C> {
    /// Counts a service that cannot become ready, which takes a permit for that moment alone: while it only waits, no
    /// probe's slot is held. Where there is none, nothing is counted, and nobody refused.
    pub(super) fn count_not_ready<T, E>(&self, answer: &Result<T, E>)
    where
        C: Fn(&Result<T, E>) -> Outcome,
    {
        if let Ok(permit) = self.breaker.admit(clock::now(), Core::admit_waiting) {
            permit.finish((self.classify)(answer));
        }
    }
}

impl<S, C, Request> Service<Request> for CircuitBreakerService<S, C>
where
    S: Service<Request>,
    C: Fn(&Result<S::Response, S::Error>) -> Outcome + Clone,
{
    type Response = S::Response;
    type Error = CallError<S::Error>;
    type Future = CircuitBreakerFuture<S::Future, C>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if !self.inner_ready && self.breaker.retry_after().is_zero() {
            if let Err(error) = ready!(self.inner.poll_ready(context)) {
                let answer = Err(error);
                self.count_not_ready(&answer);
                return Poll::Ready(answer.map(drop).map_err(CallError::Failed));
            }
            self.inner_ready = true;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let admitted = self.breaker.try_acquire();
        let state = match admitted {
            Ok(permit) if self.inner_ready => {
                self.inner_ready = false;
                let future = self.inner.call(request);
                Call::Made { future, permit: Some(permit), classify: self.classify.clone() }
            }
            // The wait ended between `poll_ready` and here; the permit goes back, and the next try will pass.
            Ok(_) => Call::Refused { open: CircuitOpen { retry_after: Duration::from_nanos(1) } },
            // The inner service stays ready for the next call.
            Err(open) => Call::Refused { open },
        };
        CircuitBreakerFuture { state }
    }
}

pin_project! {
    /// The answer of a [`CircuitBreakerService`]; dropped before it is there, the call counts as cancelled.
    ///
    /// ```
    /// use std::future::Ready;
    /// use resilience::{CallError, CircuitBreakerFuture, Outcome};
    ///
    /// type Answer = Result<u16, std::io::Error>;
    /// async fn status(future: CircuitBreakerFuture<Ready<Answer>, fn(&Answer) -> Outcome>) -> u16 {
    ///     match future.await {
    ///         Ok(status) => status,
    ///         Err(CallError::Open(_)) => 503,
    ///         Err(_) => 502,
    ///     }
    /// }
    /// ```
    #[derive(Debug)]
    pub struct CircuitBreakerFuture<F, C> {
        #[pin]
        state: Call<F, C>,
    }
}

pin_project! {
    #[project = CallProjection]
    #[derive(Debug)]
    enum Call<F, C> {
        Made {
            #[pin]
            future: F,
            // `None` once the answer was given.
            permit: Option<Permit>,
            classify: C,
        },
        Refused {
            open: CircuitOpen,
        },
    }
}

impl<F, C, T, E> Future for CircuitBreakerFuture<F, C>
where
    F: Future<Output = Result<T, E>>,
    C: Fn(&Result<T, E>) -> Outcome,
{
    type Output = Result<T, CallError<E>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            CallProjection::Made { future, permit, classify } => {
                let result = ready!(future.poll(context));
                if let Some(permit) = permit.take() {
                    permit.finish(classify(&result));
                }
                Poll::Ready(result.map_err(CallError::Failed))
            }
            CallProjection::Refused { open } => Poll::Ready(Err(CallError::Open(*open))),
        }
    }
}
