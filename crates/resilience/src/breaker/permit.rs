//! The right to make one call.

use std::time::Instant;

use super::{
    CircuitBreaker, clock_now,
    state::{Admission, Outcome},
};

/// The right to make one call; hand it back with the call's outcome.
///
/// Dropped without one (the caller was cancelled or panicked), it counts as *cancelled*: a probe's slot is free
/// again and nothing is held against the callee. An outcome that comes after the circuit changed its state, or
/// after the probe's lease ended, changes nothing.
#[derive(Debug)]
#[must_use = "a permit dropped without an outcome counts as cancelled"]
pub struct Permit {
    breaker: CircuitBreaker,
    /// `None` once the outcome was given.
    admission: Option<Admission>,
}

impl Permit {
    pub(super) fn new(breaker: CircuitBreaker, admission: Admission) -> Self {
        Self { breaker, admission: Some(admission) }
    }

    /// The call succeeded.
    pub fn success(self) {
        self.success_at(clock_now());
    }

    /// The call failed in a way that speaks against the callee.
    pub fn failure(self) {
        self.failure_at(clock_now());
    }

    /// The call ended in a way that says nothing about the callee's health, as when the request was wrong.
    pub fn ignore(self) {
        self.ignore_at(clock_now());
    }

    /// [`success`](Self::success) at a given time.
    pub fn success_at(mut self, now: Instant) {
        self.finish(Outcome::Success, now);
    }

    /// [`failure`](Self::failure) at a given time.
    pub fn failure_at(mut self, now: Instant) {
        self.finish(Outcome::Failure, now);
    }

    /// [`ignore`](Self::ignore) at a given time.
    pub fn ignore_at(mut self, now: Instant) {
        self.finish(Outcome::Ignored, now);
    }

    /// Gives the permit back unused, as a drop does, at a given time.
    pub fn cancel_at(mut self, now: Instant) {
        self.finish(Outcome::Cancelled, now);
    }

    fn finish(&mut self, outcome: Outcome, now: Instant) {
        if let Some(admission) = self.admission.take() {
            self.breaker.finish(admission, outcome, now);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.admission.is_some() {
            self.finish(Outcome::Cancelled, clock_now());
        }
    }
}
