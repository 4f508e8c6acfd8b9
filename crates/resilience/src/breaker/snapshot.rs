//! What a breaker tells of itself.

use std::time::Duration;

use super::{outcome::Outcome, window::Totals};

/// What a circuit is doing.
///
/// ```
/// use resilience::{CircuitBreaker, State};
///
/// let breaker = CircuitBreaker::default();
/// assert_eq!(breaker.state(), State::Closed);
/// breaker.force_open();
/// assert_eq!(breaker.state(), State::ForcedOpen);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Calls pass and are counted.
    Closed,
    /// Calls are refused until the wait is over.
    Open,
    /// A few probes pass, to find out whether the circuit may close.
    HalfOpen,
    /// Calls are refused until someone says otherwise.
    ForcedOpen,
    /// Calls pass and nothing is counted.
    Disabled,
    /// Calls pass and are counted, but nothing opens the circuit.
    MetricsOnly,
}

impl State {
    const ALL: [Self; 6] =
        [Self::Closed, Self::Open, Self::HalfOpen, Self::ForcedOpen, Self::Disabled, Self::MetricsOnly];

    /// Whether every call passes.
    pub(super) fn passes(self) -> bool {
        matches!(self, Self::Closed | Self::Disabled | Self::MetricsOnly)
    }

    /// A number below 8.
    pub(super) fn code(self) -> u64 {
        self as u64
    }

    /// The state of a [`code`](Self::code).
    pub(super) fn of_code(code: u64) -> Self {
        Self::ALL[code as usize % Self::ALL.len()]
    }
}

/// What a breaker was doing at one moment, and what it has counted since it was built.
///
/// ```
/// use std::time::Instant;
/// use resilience::CircuitBreaker;
///
/// let breaker = CircuitBreaker::default();
/// let now = Instant::now();
/// breaker.try_acquire_at(now)?.success_at(now);
/// breaker.try_acquire_at(now)?.failure_at(now);
/// let snapshot = breaker.snapshot_at(now);
/// assert_eq!((snapshot.window_calls, snapshot.failure_rate()), (2, 0.5));
/// assert_eq!((snapshot.succeeded, snapshot.failed), (1, 1));
/// # Ok::<(), resilience::CircuitOpen>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The state. An open circuit turns half-open when a call asks, not when its wait ends.
    pub state: State,
    /// As [`CircuitBreaker::retry_after`](super::CircuitBreaker::retry_after).
    pub retry_after: Duration,
    /// Failures in a row so far, while closed.
    pub consecutive_failures: u32,
    /// Calls in the window.
    pub window_calls: u64,
    /// Failures in the window.
    pub window_failures: u64,
    /// Overloaded calls in the window.
    pub window_overloaded: u64,
    /// Slow calls in the window, whatever their outcome; 0 without a
    /// [`slow_call_threshold`](super::Builder::slow_call_threshold).
    pub window_slow: u64,
    /// Probes that are out and whose lease runs.
    pub probes_out: u32,
    /// Probes that have succeeded since the circuit turned half-open.
    pub probes_succeeded: u32,
    /// How long the next opening would wait at most, if the circuit opened without further success and the callee named
    /// no later time.
    pub next_open_wait: Duration,
    /// How many times the state has changed, or was set anew.
    pub generation: u64,
    /// How often the circuit opened.
    pub opened: u64,
    /// Calls refused.
    pub refused: u64,
    /// Calls that were reported as succeeded, late ones not among them.
    pub succeeded: u64,
    /// Calls that were reported as failed, late ones not among them.
    pub failed: u64,
    /// Calls that were reported as overloaded, late ones not among them.
    pub overloaded: u64,
    /// Calls whose outcome was ignored on request.
    pub ignored: u64,
    /// Calls whose permit was dropped without an outcome.
    pub cancelled: u64,
    /// Outcomes that came after the state had changed or their lease had ended; they changed nothing.
    pub late: u64,
    /// Probes whose lease ended without an answer.
    pub leases_ended: u64,
}

impl Snapshot {
    /// The share of failures in the window, 0 of no calls.
    ///
    /// ```
    /// assert_eq!(resilience::CircuitBreaker::default().snapshot().failure_rate(), 0.0);
    /// ```
    pub fn failure_rate(&self) -> f64 {
        self.window().share(self.window_failures)
    }

    /// The share of overloaded calls in the window, 0 of no calls.
    ///
    /// ```
    /// let breaker = resilience::CircuitBreaker::default();
    /// breaker.try_acquire()?.overloaded(None);
    /// assert_eq!(breaker.snapshot().overload_rate(), 1.0);
    /// # Ok::<(), resilience::CircuitOpen>(())
    /// ```
    pub fn overload_rate(&self) -> f64 {
        self.window().share(self.window_overloaded)
    }

    /// The share of slow calls in the window, 0 of no calls.
    ///
    /// ```
    /// assert_eq!(resilience::CircuitBreaker::default().snapshot().slow_call_rate(), 0.0);
    /// ```
    pub fn slow_call_rate(&self) -> f64 {
        self.window().share(self.window_slow)
    }

    fn window(&self) -> Totals {
        Totals {
            calls: self.window_calls,
            failed: self.window_failures,
            overloaded: self.window_overloaded,
            slow: self.window_slow,
        }
    }
}

/// What has happened since the breaker was built.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) opened: u64,
    pub(super) refused: u64,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) overloaded: u64,
    pub(super) ignored: u64,
    pub(super) cancelled: u64,
    pub(super) late: u64,
    pub(super) leases_ended: u64,
}

impl Counters {
    /// Counts an outcome, `None` of a permit that was dropped.
    pub(super) fn count(&mut self, outcome: Option<Outcome>) {
        let counter = match outcome {
            Some(Outcome::Success) => &mut self.succeeded,
            Some(Outcome::Failure) => &mut self.failed,
            Some(Outcome::Overloaded { .. }) => &mut self.overloaded,
            Some(Outcome::Ignored) => &mut self.ignored,
            None => &mut self.cancelled,
        };
        *counter += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_a_code_of_its_own() {
        for (code, state) in State::ALL.into_iter().enumerate() {
            assert_eq!((state.code(), State::of_code(state.code())), (code as u64, state));
        }
    }
}
