//! What a breaker says when it refuses a call or a configuration.

use std::time::Duration;

/// The call was refused without being attempted.
///
/// ```
/// use resilience::CircuitBreaker;
///
/// let breaker = CircuitBreaker::default();
/// breaker.force_open();
/// let open = breaker.try_acquire().unwrap_err();
/// assert_eq!(open.to_string(), "circuit open, retry in 60s");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("circuit open, retry in {retry_after:?}")]
#[non_exhaustive]
pub struct CircuitOpen {
    /// How long until a call may be admitted, never zero: the rest of the open wait; or, while the probes are
    /// out, the time until the first of their leases ends (an answer may free the circuit sooner). Of a circuit that was
    /// forced open nobody knows: [`open_wait`](super::Builder::open_wait), to look again.
    pub retry_after: Duration,
}

/// Why [`CircuitBreaker::call`](super::CircuitBreaker::call) gave no value.
///
/// ```
/// use resilience::{CallError, CircuitBreaker};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let breaker = CircuitBreaker::default();
/// let answer: Result<(), _> = breaker.call(async { Err("down") }).await;
/// assert_eq!(answer, Err(CallError::Failed("down")));
/// breaker.force_open();
/// let answer = breaker.call(async { Ok::<_, &str>(1) }).await;
/// assert!(matches!(answer, Err(CallError::Open(open)) if !open.retry_after.is_zero()));
/// # }
/// ```
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

/// A setting that a part of this crate cannot work with; every builder here gives it.
///
/// ```
/// let error = resilience::CircuitBreaker::builder().window_calls(0).build().unwrap_err();
/// assert_eq!(error.field, "window_calls");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part} setting `{field}` {problem}")]
#[non_exhaustive]
pub struct ConfigError {
    /// What was being built, such as "circuit breaker" or "retry budget".
    pub part: &'static str,
    /// The builder's method that set it.
    pub field: &'static str,
    /// What is wrong with the value, and which values are right.
    pub problem: String,
}
