//! What transports and replicas tell operators, by name: counts that a program may export without knowing each, and breakers.

use std::{fmt, time::Duration};

/// One count of what happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Count {
    /// Its name, that of the field which has it.
    pub name: &'static str,
    /// What is counted: the field's documentation, as it stands in the source.
    pub doc: &'static str,
    /// How often it happened.
    pub value: u64,
}

impl Count {
    /// A count, for a transport's own [`report`](crate::Transport::report).
    pub fn new(name: &'static str, doc: &'static str, value: u64) -> Self {
        Self { name, doc, value }
    }
}

/// What a transport tells of itself beside its [`Health`](crate::Health).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The kind of transport, a word of `[a-z]` that the names of its counts may be put behind; empty where it tells nothing.
    pub kind: &'static str,
    /// What it counts.
    pub counts: Vec<Count>,
    /// The breakers in front of those that it connects to.
    pub breakers: Vec<Breaker>,
}

impl Report {
    /// A report of a transport of this kind.
    pub fn new(kind: &'static str, counts: Vec<Count>, breakers: Vec<Breaker>) -> Self {
        Self { kind, counts, breakers }
    }
}

/// A breaker in front of a broker, for one use of a connection to it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Breaker {
    /// The broker, without its password.
    pub broker: String,
    /// What it is connected to for, as `publishing`.
    pub purpose: &'static str,
    /// What the breaker does. It stays open after its wait, until the broker is tried again.
    pub state: BreakerState,
    /// How long until the broker is tried again although there are others; zero unless open.
    pub retry_after: Duration,
    /// Attempts in a row that failed while the breaker was closed.
    pub consecutive_failures: u32,
    /// How often it opened.
    pub opened: u64,
}

impl Breaker {
    /// A breaker in this state, for a transport's own [`report`](crate::Transport::report): nothing counted, and no wait; set the
    /// fields that say more. `broker` holds no password.
    ///
    /// ```
    /// use replication::report::{Breaker, BreakerState, Report};
    ///
    /// let mut breaker = Breaker::new("broker-1:4222", "publishing", BreakerState::Open);
    /// breaker.opened = 3;
    /// let report = Report::new("nats", Vec::new(), vec![breaker]);
    /// # assert_eq!(report.breakers[0].opened, 3);
    /// ```
    pub fn new(broker: impl Into<String>, purpose: &'static str, state: BreakerState) -> Self {
        let broker = broker.into();
        Self { broker, purpose, state, retry_after: Duration::ZERO, consecutive_failures: 0, opened: 0 }
    }
}

/// What a breaker does about its broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BreakerState {
    /// The broker has its turn.
    Closed,
    /// It is passed over while another can be tried.
    Open,
    /// It is being tried again.
    HalfOpen,
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        })
    }
}
