#![doc = include_str!("../README.md")]

mod backoff;
mod breaker;
mod clock;
mod deadline;
mod retry;
mod setting;

pub use backoff::{Backoff, BackoffBuilder};
pub use breaker::{Builder, CallError, CircuitBreaker, CircuitOpen, ConfigError, Permit, Snapshot, State};
pub use deadline::{Deadline, DeadlineOver};
pub use retry::{
    Attempt, BudgetSnapshot, Retry, RetryBudget, RetryBudgetBuilder, RetryBuilder, RetryError, Stop, Tries,
    Verdict,
};
