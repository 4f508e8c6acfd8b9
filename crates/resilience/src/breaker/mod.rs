//! Stops calling what keeps failing, and finds out by itself when to go on.
//!
//! *Closed*, a circuit passes every call and counts outcomes. Three failures in a row, or too high a share of
//! failures, of slow or of overloaded calls in the window, *open* it: calls are refused at once, for a wait that grows
//! with each opening and shrinks back with proven good time. Then the next callers are let through as *probes*, a fixed
//! number of them; the circuit is *half-open*. All succeed: it closes. One fails: it opens again.
//!
//! ```text
//!              too many failures, or slow or overloaded calls
//!     ┌────────┐ ───────────────────────────────────────────────▶ ┌──────┐
//!     │ closed │                                                  │ open │ ◀─┐
//!     └────────┘ ◀─────────┐                          wait over,  └──────┘   │ a probe fails
//!          ▲               │ all probes succeed       a call asks    │       │ or is overloaded,
//!          │               │                                         ▼       │ or they are too slow
//!          │               └──────────────────────────────── ┌───────────┐ ──┘
//!          │ reset                                           │ half-open │ ◀─┐ a probe is ignored, cancelled,
//!          │                                                 └───────────┘ ──┘ or its lease ends: the next one
//!     forced open │ disabled │ metrics only  ◀── force_open, disable, metrics_only, from anywhere
//! ```
//!
//! What is counted when: [`Outcome`] has the table. A call counts when it *ends*, in the state that admitted it; the
//! rules are judged with each call that failed, was slow or met overload, so a good call never opens the circuit, nor
//! does time. A probe counts for the circuit's return alone: the window begins empty when the circuit closes.
//!
//! What goes wrong elsewhere, and what is done about it here:
//! - Probes are counted when they are *admitted*, not when they end, so that a thousand callers who wait for
//!   the moment do not all pass.
//! - A probe's slot is a *lease*. A caller that is cancelled gives it back by dropping its [`Permit`]; one that
//!   hangs loses it when the lease ends. Neither can keep the circuit shut forever.
//! - A permit carries the *generation* of the state that issued it. A success that was under way when the
//!   circuit opened cannot close it.
//! - Two kinds of rule open it: failures in a row for callees that are called seldom, rates over an exact window for
//!   busy ones that fail in part. A mean that fades was rejected, since it cannot say over which calls it was
//!   taken.
//! - A callee that says "not so much" is no outage. It has an outcome of its own, with a rule of its own, and the time
//!   that it asks for is kept.
//!
//! The decisions are a pure core that takes `now`; each method has an `_at` form that hands it through, for
//! simulations and for callers that have the time at hand. The forms without it ask tokio's clock, so that
//! tests may pause it; they work outside a runtime as well, except that [`CircuitBreaker::ready`] needs its timer.
//! While every call passes, an admission is one atomic load of what all threads share. Beside it, a good call takes three
//! atomic steps, on cache lines that few threads share: one that counts it, and two for the permit's hold on the breaker,
//! taken and given back. Everything else takes one short lock, under which nobody is woken.
//!
//! Sources: M. Nygard, *Release It!* (2007), chapter "Stability Patterns", for the pattern;
//! [resilience4j](https://resilience4j.readme.io/docs/circuitbreaker) for the windows, slow calls and forced states, of
//! which the half-open permits that never come back are not taken over; *Site Reliability Engineering* (2016),
//! chapter "Handling Overload", and RFC 9110 §10.2.3 (`Retry-After`) for overload.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use resilience::{CircuitBreaker, State};
//!
//! let breaker = CircuitBreaker::builder().consecutive_failures(2).open_wait(Duration::from_secs(5)).build()?;
//! let now = Instant::now();
//! breaker.try_acquire_at(now)?.failure_at(now);
//! breaker.try_acquire_at(now)?.failure_at(now);
//! assert!(breaker.try_acquire_at(now).is_err());
//!
//! let later = now + Duration::from_secs(5);
//! let probe = breaker.try_acquire_at(later)?;
//! assert!(breaker.try_acquire_at(later).is_err(), "one probe at a time");
//! probe.success_at(later);
//! assert_eq!(breaker.state(), State::Closed);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod error;
mod hub;
mod lane;
#[cfg(feature = "tower")]
mod layer;
mod outcome;
mod permit;
mod signal;
mod snapshot;
mod state;
mod watch;
mod window;

#[cfg(all(test, loom))]
mod model;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

pub use config::Builder;
pub use error::{CallError, CircuitOpen, ConfigError};
#[cfg(feature = "tower")]
pub use layer::{CircuitBreakerFuture, CircuitBreakerLayer, CircuitBreakerService};
pub use outcome::Outcome;
pub use permit::Permit;
pub use snapshot::{Snapshot, State};
pub use watch::Watch;

use hub::Hub;
use lane::Lane;
use state::{Admission, Core, Order};

use crate::clock;

/// A circuit breaker. A clone is another handle on the same circuit.
///
/// ```
/// use resilience::{CallError, CircuitBreaker};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let breaker = CircuitBreaker::default();
/// match breaker.call(async { Ok::<_, std::io::Error>("pong") }).await {
///     Ok(answer) => assert_eq!(answer, "pong"),
///     Err(CallError::Open(open)) => println!("not called; try again in {:?}", open.retry_after),
///     Err(error) => println!("{error}"),
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct CircuitBreaker {
    hub: Arc<Hub>,
    lanes: Arc<[Arc<Lane>]>,
}

impl CircuitBreaker {
    /// Settings to change before building; the defaults open after 3 failures in a row, for 60 s.
    ///
    /// ```
    /// let breaker = resilience::CircuitBreaker::builder().consecutive_failures(5).build()?;
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Lets a call pass, now.
    ///
    /// # Errors
    /// [`CircuitOpen`] if the call must not be made, with the time to wait before asking again.
    ///
    /// ```
    /// let breaker = resilience::CircuitBreaker::default();
    /// breaker.try_acquire()?.success();
    /// # Ok::<(), resilience::CircuitOpen>(())
    /// ```
    pub fn try_acquire(&self) -> Result<Permit, CircuitOpen> {
        self.try_acquire_at(clock::now())
    }

    /// [`try_acquire`](Self::try_acquire) at a given time.
    ///
    /// # Errors
    /// As [`try_acquire`](Self::try_acquire).
    ///
    /// ```
    /// let now = std::time::Instant::now();
    /// let breaker = resilience::CircuitBreaker::default();
    /// breaker.try_acquire_at(now)?.success_at(now);
    /// # Ok::<(), resilience::CircuitOpen>(())
    /// ```
    pub fn try_acquire_at(&self, now: Instant) -> Result<Permit, CircuitOpen> {
        self.admit(now, Core::admit)
    }

    /// Waits until a call may pass, and lets it.
    ///
    /// It sleeps for the open wait or the lease of the probe before it, and looks sooner when something changes. Of
    /// many who wait, as many pass as there are slots, in no particular order; the others wait on, and none of them
    /// counts as refused. It never gives up: put a timeout around it.
    ///
    /// # Panics
    /// As tokio's `sleep`: outside a runtime with a timer, if it has to wait.
    ///
    /// # Cancel safety
    /// A dropped future has taken nothing.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience::CircuitBreaker;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let breaker = CircuitBreaker::builder().consecutive_failures(1).open_wait(Duration::from_millis(1)).build()?;
    /// breaker.try_acquire()?.failure();
    /// let probe = tokio::time::timeout(Duration::from_secs(10), breaker.ready()).await?;
    /// probe.success();
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ready(&self) -> Permit {
        loop {
            let stirs = self.hub.signal.news().stirs;
            match self.admit(clock::now(), Core::admit_waiting) {
                Ok(permit) => return permit,
                Err(open) => {
                    // Whichever it was, the next look tells.
                    let _ = tokio::time::timeout(open.retry_after, self.hub.signal.past(stirs)).await;
                }
            }
        }
    }

    /// Runs `future` if the circuit lets it pass, and counts `Ok` as success, `Err` as failure.
    ///
    /// A future that is refused is dropped without having been polled.
    ///
    /// # Errors
    /// [`CallError::Open`] if the call was refused, [`CallError::Failed`] with the call's own error.
    ///
    /// # Cancel safety
    /// Dropping this call drops `future`, and the circuit counts nothing; a probe's slot is free again. So put a
    /// timeout that should count inside of `future`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let breaker = resilience::CircuitBreaker::default();
    /// assert_eq!(breaker.call(async { Ok::<_, ()>(7) }).await, Ok(7));
    /// # }
    /// ```
    pub async fn call<T, E>(&self, future: impl Future<Output = Result<T, E>>) -> Result<T, CallError<E>> {
        self.call_with(Outcome::of, future).await
    }

    /// Runs `future` if the circuit lets it pass, and counts what `classify` says of its result.
    ///
    /// # Errors
    /// As [`call`](Self::call): an `Err` of the future is one whatever it was counted as.
    ///
    /// # Cancel safety
    /// As [`call`](Self::call).
    ///
    /// ```
    /// use std::io::{Error, ErrorKind};
    /// use resilience::{CircuitBreaker, Outcome};
    ///
    /// fn classified(result: &Result<String, Error>) -> Outcome {
    ///     match result {
    ///         Err(error) if error.kind() == ErrorKind::InvalidInput => Outcome::Ignored,
    ///         _ => Outcome::of(result),
    ///     }
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let breaker = CircuitBreaker::default();
    /// let wrong = async { Err(Error::from(ErrorKind::InvalidInput)) };
    /// assert!(breaker.call_with(classified, wrong).await.is_err());
    /// assert_eq!(breaker.snapshot().failed, 0);
    /// # }
    /// ```
    pub async fn call_with<T, E>(
        &self,
        classify: impl FnOnce(&Result<T, E>) -> Outcome,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CallError<E>> {
        let permit = self.try_acquire()?;
        let result = future.await;
        permit.finish(classify(&result));
        result.map_err(CallError::Failed)
    }

    /// What the circuit is doing. One atomic load.
    ///
    /// ```
    /// use resilience::{CircuitBreaker, State};
    ///
    /// assert_eq!(CircuitBreaker::default().state(), State::Closed);
    /// ```
    pub fn state(&self) -> State {
        self.hub.published().0
    }

    /// How long until a call may be admitted; zero if one would be now. Of a circuit that was forced open nobody knows:
    /// [`open_wait`](Builder::open_wait), to look again.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience::CircuitBreaker;
    ///
    /// assert_eq!(CircuitBreaker::default().retry_after(), Duration::ZERO);
    /// ```
    pub fn retry_after(&self) -> Duration {
        self.retry_after_at(clock::now())
    }

    /// [`retry_after`](Self::retry_after) at a given time.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use resilience::CircuitBreaker;
    ///
    /// let now = Instant::now();
    /// let breaker = CircuitBreaker::builder().consecutive_failures(1).open_wait_jitter(0.0).build()?;
    /// breaker.try_acquire_at(now)?.failure_at(now);
    /// assert_eq!(breaker.retry_after_at(now + Duration::from_secs(50)), Duration::from_secs(10));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn retry_after_at(&self, now: Instant) -> Duration {
        if self.hub.published().0.passes() {
            return Duration::ZERO;
        }
        self.hub.act(|core| core.retry_after(now))
    }

    /// What the circuit is doing and what it has counted.
    ///
    /// ```
    /// let breaker = resilience::CircuitBreaker::default();
    /// assert_eq!(breaker.snapshot().opened, 0);
    /// ```
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot_at(clock::now())
    }

    /// [`snapshot`](Self::snapshot) at a given time.
    ///
    /// ```
    /// let breaker = resilience::CircuitBreaker::default();
    /// assert_eq!(breaker.snapshot_at(std::time::Instant::now()).window_calls, 0);
    /// ```
    pub fn snapshot_at(&self, now: Instant) -> Snapshot {
        self.hub.act(|core| core.snapshot(now))
    }

    /// Follows the state from now on.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let breaker = resilience::CircuitBreaker::default();
    /// let mut watch = breaker.watch();
    /// breaker.force_open();
    /// assert_eq!(watch.changed().await, Some(resilience::State::ForcedOpen));
    /// # }
    /// ```
    pub fn watch(&self) -> Watch {
        Watch::new(Arc::clone(&self.hub.signal))
    }

    /// Closes the circuit, whatever it is doing, as if it were new: the window, the row of failures and the growth of
    /// the wait are forgotten, and what is under way no longer counts. The counters of a [`Snapshot`] go on.
    ///
    /// It is also the way back from [`force_open`](Self::force_open), [`disable`](Self::disable) and
    /// [`metrics_only`](Self::metrics_only).
    ///
    /// ```
    /// use resilience::{CircuitBreaker, State};
    ///
    /// let breaker = CircuitBreaker::default();
    /// (0..3).for_each(|_| breaker.try_acquire().unwrap().failure());
    /// breaker.reset();
    /// assert_eq!(breaker.state(), State::Closed);
    /// ```
    pub fn reset(&self) {
        self.hub.act(|core| core.obey(Order::Reset));
    }

    /// Refuses every call from now on, until [`reset`](Self::reset) or another order, as before the callee's
    /// maintenance. What is under way no longer counts.
    ///
    /// ```
    /// let breaker = resilience::CircuitBreaker::default();
    /// breaker.force_open();
    /// assert!(breaker.try_acquire().is_err());
    /// ```
    pub fn force_open(&self) {
        self.hub.act(|core| core.obey(Order::ForceOpen));
    }

    /// Passes every call from now on and counts none, until [`reset`](Self::reset) or another order.
    ///
    /// ```
    /// let breaker = resilience::CircuitBreaker::default();
    /// breaker.disable();
    /// (0..9).for_each(|_| breaker.try_acquire().unwrap().failure());
    /// assert_eq!(breaker.snapshot().failed, 0);
    /// ```
    pub fn disable(&self) {
        self.hub.act(|core| core.obey(Order::Disable));
    }

    /// Passes every call from now on and counts them as a closed circuit does, but never opens, until
    /// [`reset`](Self::reset) or another order. So one learns which settings suit a callee.
    ///
    /// ```
    /// let breaker = resilience::CircuitBreaker::default();
    /// breaker.metrics_only();
    /// (0..9).for_each(|_| breaker.try_acquire().unwrap().failure());
    /// assert_eq!(breaker.snapshot().failure_rate(), 1.0);
    /// ```
    pub fn metrics_only(&self) {
        self.hub.act(|core| core.obey(Order::MetricsOnly));
    }

    fn from_core(core: Core, origin: Instant, slow_call_threshold: Option<Duration>) -> Self {
        let hub = Arc::new(Hub::new(core, origin, slow_call_threshold));
        let lanes = lane::of(&hub);
        Self { hub, lanes }
    }

    fn admit(
        &self,
        now: Instant,
        ask: impl FnOnce(&mut Core, Instant) -> Result<Admission, CircuitOpen>,
    ) -> Result<Permit, CircuitOpen> {
        let (state, generation) = self.hub.published();
        let admission = if state.passes() {
            Admission::free(generation, now)
        } else {
            self.hub.act(|core| ask(core, now))?
        };
        Ok(Permit::new(Arc::clone(lane::mine(&self.lanes)), admission))
    }
}

impl Default for CircuitBreaker {
    /// A breaker with the default settings.
    fn default() -> Self {
        Self::builder().build().expect("the default settings are in their ranges")
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (state, generation) = self.hub.published();
        formatter
            .debug_struct("CircuitBreaker")
            .field("state", &state)
            .field("generation", &generation)
            .finish_non_exhaustive()
    }
}

/// `now + wait`; a clock so late that this overflows makes the wait end at once.
fn later(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now)
}
