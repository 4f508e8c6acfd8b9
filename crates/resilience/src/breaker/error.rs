//! What a breaker says when it refuses a call or a configuration.

use std::time::Duration;

/// The call was refused without being attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("circuit open, retry in {retry_after:?}")]
#[non_exhaustive]
pub struct CircuitOpen {
    /// How long until a call may be admitted, never zero: the rest of the open wait; or, while the probes are
    /// out, the time until the first of their leases ends (an answer may free the circuit sooner).
    pub retry_after: Duration,
}

/// Why [`CircuitBreaker::call`](super::CircuitBreaker::call) gave no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The call was not attempted: back off, or ask someone else.
    #[error(transparent)]
    Open(#[from] CircuitOpen),
    /// The call was attempted and failed; the breaker has counted it.
    #[error("the call failed: {0}")]
    Failed(#[source] E),
}

/// A setting that a breaker cannot work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part} setting `{field}` {problem}")]
#[non_exhaustive]
pub struct ConfigError {
    /// What was being built, such as "circuit breaker".
    pub part: &'static str,
    /// The builder's method that set it.
    pub field: &'static str,
    /// What is wrong with the value, and which values are right.
    pub problem: String,
}
