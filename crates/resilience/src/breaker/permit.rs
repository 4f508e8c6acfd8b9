//! The right to make one call.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{lane::Lane, outcome::Outcome, state::Admission};
use crate::clock;

/// The right to make one call; hand it back with the call's outcome.
///
/// Dropped without one (the caller was cancelled or panicked), it counts as *cancelled*: a probe's slot is free
/// again and nothing is held against the callee. An outcome that comes after the circuit changed its state, or
/// after the probe's lease ended, changes nothing.
///
/// ```
/// use resilience::CircuitBreaker;
///
/// let breaker = CircuitBreaker::default();
/// let permit = breaker.try_acquire()?;
/// match "7".parse::<u8>() {
///     Ok(_) => permit.success(),
///     Err(_) => permit.failure(),
/// }
/// assert_eq!(breaker.snapshot().succeeded, 1);
/// # Ok::<(), resilience::CircuitOpen>(())
/// ```
#[derive(Debug)]
#[must_use = "a permit dropped without an outcome counts as cancelled"]
pub struct Permit {
    lane: Arc<Lane>,
    /// `None` once the outcome was given.
    admission: Option<Admission>,
}

impl Permit {
    pub(super) fn new(lane: Arc<Lane>, admission: Admission) -> Self {
        Self { lane, admission: Some(admission) }
    }

    /// The call succeeded.
    ///
    /// ```
    /// resilience::CircuitBreaker::default().try_acquire()?.success();
    /// # Ok::<(), resilience::CircuitOpen>(())
    /// ```
    pub fn success(self) {
        self.success_at(clock::now());
    }

    /// The call failed in a way that speaks against the callee.
    ///
    /// ```
    /// resilience::CircuitBreaker::default().try_acquire()?.failure();
    /// # Ok::<(), resilience::CircuitOpen>(())
    /// ```
    pub fn failure(self) {
        self.failure_at(clock::now());
    }

    /// The call ended in a way that says nothing about the callee's health, as when the request was wrong.
    ///
    /// ```
    /// resilience::CircuitBreaker::default().try_acquire()?.ignore();
    /// # Ok::<(), resilience::CircuitOpen>(())
    /// ```
    pub fn ignore(self) {
        self.ignore_at(clock::now());
    }

    /// The callee asked for less, and said when to come back if it did; see [`Outcome::Overloaded`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let breaker = resilience::CircuitBreaker::default();
    /// breaker.try_acquire()?.overloaded(Some(Duration::from_secs(2)));
    /// # Ok::<(), resilience::CircuitOpen>(())
    /// ```
    pub fn overloaded(self, retry_after: Option<Duration>) {
        self.overloaded_at(retry_after, clock::now());
    }

    /// The call ended so.
    ///
    /// ```
    /// resilience::CircuitBreaker::default().try_acquire()?.finish(resilience::Outcome::Success);
    /// # Ok::<(), resilience::CircuitOpen>(())
    /// ```
    pub fn finish(self, outcome: Outcome) {
        self.finish_at(outcome, clock::now());
    }

    /// [`success`](Self::success) at a given time.
    ///
    /// ```
    /// let now = std::time::Instant::now();
    /// resilience::CircuitBreaker::default().try_acquire_at(now)?.success_at(now);
    /// # Ok::<(), resilience::CircuitOpen>(())
    /// ```
    pub fn success_at(self, now: Instant) {
        self.finish_at(Outcome::Success, now);
    }

    /// [`failure`](Self::failure) at a given time.
    ///
    /// ```
    /// let now = std::time::Instant::now();
    /// resilience::CircuitBreaker::default().try_acquire_at(now)?.failure_at(now);
    /// # Ok::<(), resilience::CircuitOpen>(())
    /// ```
    pub fn failure_at(self, now: Instant) {
        self.finish_at(Outcome::Failure, now);
    }

    /// [`ignore`](Self::ignore) at a given time.
    ///
    /// ```
    /// let now = std::time::Instant::now();
    /// resilience::CircuitBreaker::default().try_acquire_at(now)?.ignore_at(now);
    /// # Ok::<(), resilience::CircuitOpen>(())
    /// ```
    pub fn ignore_at(self, now: Instant) {
        self.finish_at(Outcome::Ignored, now);
    }

    /// [`overloaded`](Self::overloaded) at a given time.
    ///
    /// ```
    /// let now = std::time::Instant::now();
    /// resilience::CircuitBreaker::default().try_acquire_at(now)?.overloaded_at(None, now);
    /// # Ok::<(), resilience::CircuitOpen>(())
    /// ```
    pub fn overloaded_at(self, retry_after: Option<Duration>, now: Instant) {
        self.finish_at(Outcome::Overloaded { retry_after }, now);
    }

    /// [`finish`](Self::finish) at a given time.
    ///
    /// ```
    /// use resilience::{CircuitBreaker, Outcome};
    ///
    /// let now = std::time::Instant::now();
    /// CircuitBreaker::default().try_acquire_at(now)?.finish_at(Outcome::Failure, now);
    /// # Ok::<(), resilience::CircuitOpen>(())
    /// ```
    pub fn finish_at(mut self, outcome: Outcome, now: Instant) {
        self.give_back(Some(outcome), now);
    }

    /// Gives the permit back unused, as a drop does, at a given time.
    ///
    /// ```
    /// let now = std::time::Instant::now();
    /// let breaker = resilience::CircuitBreaker::default();
    /// breaker.try_acquire_at(now)?.cancel_at(now);
    /// assert_eq!(breaker.snapshot_at(now).cancelled, 1);
    /// # Ok::<(), resilience::CircuitOpen>(())
    /// ```
    pub fn cancel_at(mut self, now: Instant) {
        self.give_back(None, now);
    }

    fn give_back(&mut self, outcome: Option<Outcome>, now: Instant) {
        let Some(admission) = self.admission.take() else { return };
        if outcome != Some(Outcome::Success) || !self.lane.count_success(admission, now) {
            self.lane.hub.act(|core| core.finish(admission, outcome, now));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.admission.is_some() {
            self.give_back(None, clock::now());
        }
    }
}
