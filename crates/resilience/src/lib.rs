#![doc = include_str!("../README.md")]

mod backoff;
mod breaker;
mod clock;
mod deadline;
mod failover;
mod fallback;
mod retry;
mod setting;
mod sync;

pub use backoff::{Backoff, BackoffBuilder};
pub use breaker::{
    Builder, CallError, CircuitBreaker, CircuitOpen, ConfigError, Outcome, Permit, Snapshot, State, Watch,
};
#[cfg(feature = "tower")]
pub use breaker::{CircuitBreakerFuture, CircuitBreakerLayer, CircuitBreakerService};
pub use deadline::{Deadline, DeadlineOver};
pub use failover::{
    Distrust, Entry, Failover, FailoverBuilder, FailoverState, Fence, Journal, Life, Mark, Missed, OtherSide,
    Overflowed, ReadRoute, Refused, Resync, Scope, Side, Status, Transfer, Waiting, Why, WriteRoute,
};
pub use fallback::{
    Answer, Blame, Fallback, FallbackBuilder, FallbackError, Link, LinkFailure, Reason, Reply, Turn,
};
pub use retry::{
    Attempt, BudgetSnapshot, Retry, RetryBudget, RetryBudgetBuilder, RetryBuilder, RetryError, Stop, Tries,
    Verdict,
};
