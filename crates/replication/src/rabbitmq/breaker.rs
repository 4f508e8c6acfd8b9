//! The breakers in front of the brokers: their settings, and what they tell.
//!
//! Each use of a connection (publishing, consuming, dead letters) has a breaker for each broker, since a broker may take
//! the one and refuse the other. They decide only whose turn it is (see [`rotation`](super::rotation)): publishing itself fails
//! at once while there is no connection, whatever a breaker says.

use std::{sync::Arc, time::Duration};

use resilience::{CircuitBreaker, State};

use super::{
    config::{Config, within},
    endpoint::Endpoint,
    error::ConfigError,
    status::Role,
};
use crate::report::{Breaker, BreakerState};

/// As many failures in a row as the breaker's window holds: beyond, its rate of failures would open it sooner.
const FAILURES_MAX: u32 = 100;

/// When the breaker of a broker opens, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) failure_threshold: u32,
    pub(super) recovery_wait: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { failure_threshold: 2, recovery_wait: Duration::from_secs(10) }
    }
}

impl Settings {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("breaker_failure_threshold", self.failure_threshold, 1, FAILURES_MAX)?;
        let (least, most) = (Duration::from_millis(10), Duration::from_secs(3_600));
        within("breaker_recovery_wait", self.recovery_wait, least, most)
    }

    /// A breaker that only failures in a row open.
    pub(super) fn breaker(&self) -> CircuitBreaker {
        CircuitBreaker::builder()
            .consecutive_failures(self.failure_threshold)
            .window_calls(FAILURES_MAX)
            .minimum_calls(FAILURES_MAX)
            .failure_rate(1.0)
            .open_wait(self.recovery_wait)
            .build()
            .expect("what was checked is in the breaker's ranges")
    }
}

/// What a broker is connected to for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Frames that this node publishes.
    Publishing,
    /// Frames that it receives.
    Consuming,
    /// What it received and could not read.
    DeadLetters,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Publishing, Self::Consuming, Self::DeadLetters];

    fn name(self) -> &'static str {
        match self {
            Self::Publishing => Role::Publishing.name(),
            Self::Consuming => Role::Consuming.name(),
            Self::DeadLetters => "dead letters",
        }
    }
}

impl From<Role> for Purpose {
    fn from(role: Role) -> Self {
        match role {
            Role::Publishing => Self::Publishing,
            Role::Consuming => Self::Consuming,
        }
    }
}

/// All of a transport's.
pub(super) struct Breakers {
    uses: [Arc<[CircuitBreaker]>; Purpose::ALL.len()],
}

impl Breakers {
    /// Those that the settings, which were checked, ask for.
    pub(super) fn new(config: &Config, brokers: usize) -> Self {
        let of_all = |_| (0..brokers).map(|_| config.breaker.breaker()).collect();
        Self { uses: Purpose::ALL.map(of_all) }
    }

    /// The breakers for one use, in the order of the brokers.
    pub(super) fn of(&self, purpose: Purpose) -> Arc<[CircuitBreaker]> {
        Arc::clone(&self.uses[purpose as usize])
    }

    pub(super) fn snapshot(&self, brokers: &[Endpoint]) -> Vec<Breaker> {
        let told = |purpose: Purpose| {
            let breakers = self.uses[purpose as usize].iter();
            brokers.iter().zip(breakers).map(move |(broker, breaker)| {
                let seen = breaker.snapshot();
                Breaker {
                    broker: broker.to_string(),
                    purpose: purpose.name(),
                    state: match seen.state {
                        State::Open | State::ForcedOpen => BreakerState::Open,
                        State::HalfOpen => BreakerState::HalfOpen,
                        _ => BreakerState::Closed,
                    },
                    retry_after: seen.retry_after,
                    consecutive_failures: seen.consecutive_failures,
                    opened: seen.opened,
                }
            })
        };
        Purpose::ALL.into_iter().flat_map(told).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn only_as_many_failures_in_a_row_as_were_asked_for_open_a_breaker() {
        for threshold in [1, 2, 30, FAILURES_MAX] {
            let settings = Settings { failure_threshold: threshold, ..Settings::default() };
            settings.check().unwrap();
            let (breaker, now) = (settings.breaker(), Instant::now());
            // Nearly all attempts fail, but never that many in a row.
            for _ in 0..5 {
                (1..threshold).for_each(|_| breaker.try_acquire_at(now).unwrap().failure_at(now));
                breaker.try_acquire_at(now).unwrap().success_at(now);
            }
            assert_eq!(breaker.state(), State::Closed, "{threshold}");
            (0..threshold).for_each(|_| breaker.try_acquire_at(now).unwrap().failure_at(now));
            assert_eq!(breaker.state(), State::Open, "{threshold}");
        }
    }
}
