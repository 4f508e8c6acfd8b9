#![doc = include_str!("../README.md")]

mod backoff;
mod breaker;

pub use backoff::Backoff;
pub use breaker::{Builder, CallError, CircuitBreaker, CircuitOpen, ConfigError, Permit, Snapshot, State};
