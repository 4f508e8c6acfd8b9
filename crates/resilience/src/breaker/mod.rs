//! Stops calling what keeps failing, and finds out by itself when to go on.
//!
//! *Closed*, a circuit passes every call and counts outcomes. Three failures in a row, or too high a share of
//! failures among the last calls, *open* it: calls are refused at once, for a wait that grows with each opening
//! and shrinks back with proven good time. Then the next callers are let through as *probes*, a fixed number of
//! them; the circuit is *half-open*. All succeed: it closes. One fails: it opens again.
//!
//! What goes wrong elsewhere, and what is done about it here:
//! - Probes are counted when they are *admitted*, not when they end, so that a thousand callers who wait for
//!   the moment do not all pass.
//! - A probe's slot is a *lease*. A caller that is cancelled gives it back by dropping its [`Permit`]; one that
//!   hangs loses it when the lease ends. Neither can keep the circuit shut forever.
//! - A permit carries the *generation* of the state that issued it. A success that was under way when the
//!   circuit opened cannot close it.
//! - Two rules open it: failures in a row for callees that are called seldom, the rate over a count window for
//!   busy ones that fail in part. A mean that fades was rejected, since it cannot say over which calls it was
//!   taken.
//!
//! The decisions are a pure core that takes `now`; each method has an `_at` form that hands it through, for
//! simulations and for callers that have the time at hand. The forms without it ask tokio's clock, so that
//! tests may pause it; they work outside a runtime as well.
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
mod permit;
mod state;
mod window;

#[cfg(test)]
mod tests;

use std::{future::Future, sync::Arc, time::Instant};

use parking_lot::Mutex;

pub use config::Builder;
pub use error::{CallError, CircuitOpen, ConfigError};
pub use permit::Permit;
pub use state::{Snapshot, State};

use state::{Admission, Core, Outcome};

/// A circuit breaker. A clone is another handle on the same circuit.
#[derive(Debug, Clone)]
pub struct CircuitBreaker {
    core: Arc<Mutex<Core>>,
}

impl CircuitBreaker {
    /// Settings to change before building; the defaults open after 3 failures in a row, for 60 s.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Lets a call pass, now.
    ///
    /// # Errors
    /// [`CircuitOpen`] if the call must not be made, with the time to wait before asking again.
    pub fn try_acquire(&self) -> Result<Permit, CircuitOpen> {
        self.try_acquire_at(clock_now())
    }

    /// [`try_acquire`](Self::try_acquire) at a given time.
    ///
    /// # Errors
    /// As [`try_acquire`](Self::try_acquire).
    pub fn try_acquire_at(&self, now: Instant) -> Result<Permit, CircuitOpen> {
        let admission = self.core.lock().admit(now)?;
        Ok(Permit::new(self.clone(), admission))
    }

    /// Runs `future` if the circuit lets it pass, and counts `Ok` as success, `Err` as failure.
    ///
    /// A future that is refused is dropped without having been polled.
    ///
    /// # Errors
    /// [`CallError::Open`] if the call was refused, [`CallError::Failed`] with the call's own error.
    ///
    /// # Cancel safety
    /// Dropping this call drops `future`, and the circuit counts nothing; a probe's slot is free again.
    pub async fn call<T, E>(&self, future: impl Future<Output = Result<T, E>>) -> Result<T, CallError<E>> {
        let permit = self.try_acquire()?;
        match future.await {
            Ok(value) => {
                permit.success();
                Ok(value)
            }
            Err(error) => {
                permit.failure();
                Err(CallError::Failed(error))
            }
        }
    }

    /// What the circuit is doing.
    pub fn state(&self) -> State {
        self.snapshot().state
    }

    /// What the circuit is doing and what it has counted.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot_at(clock_now())
    }

    /// [`snapshot`](Self::snapshot) at a given time.
    pub fn snapshot_at(&self, now: Instant) -> Snapshot {
        self.core.lock().snapshot(now)
    }

    fn from_core(core: Core) -> Self {
        Self { core: Arc::new(Mutex::new(core)) }
    }

    fn finish(&self, admission: Admission, outcome: Outcome, now: Instant) {
        self.core.lock().finish(admission, outcome, now);
    }
}

impl Default for CircuitBreaker {
    /// A breaker with the default settings.
    fn default() -> Self {
        Self::builder().build().expect("the default settings are in their ranges")
    }
}

/// The time by tokio's clock, which tests can pause.
fn clock_now() -> Instant {
    tokio::time::Instant::now().into_std()
}
