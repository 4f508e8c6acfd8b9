//! The outcomes that the rates are taken over, as exact sliding counts.
//!
//! Both windows keep running totals, so that a rate costs no walk. Nothing in them fades: at any moment one can say
//! which calls the rate was taken over.

mod calls;
mod time;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use calls::Calls;
use time::Tenths;

/// What the rates ask of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Call {
    pub(super) failed: bool,
    pub(super) overloaded: bool,
    pub(super) slow: bool,
}

/// How many calls a window holds, and how many of them are of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) overloaded: u64,
    pub(super) slow: u64,
}

impl Totals {
    fn add(&mut self, call: Call) {
        self.calls += 1;
        self.failed += u64::from(call.failed);
        self.overloaded += u64::from(call.overloaded);
        self.slow += u64::from(call.slow);
    }

    fn subtract(&mut self, other: Self) {
        self.calls -= other.calls;
        self.failed -= other.failed;
        self.overloaded -= other.overloaded;
        self.slow -= other.slow;
    }

    /// The share of `part` among the calls, 0 if there are none.
    pub(super) fn share(&self, part: u64) -> f64 {
        if part == 0 { 0.0 } else { part as f64 / self.calls as f64 }
    }
}

/// Over what the rates are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    /// The newest calls, at least 1.
    Calls(u32),
    /// The newest ten tenths of this, each at least a nanosecond.
    Time(Duration),
}

/// For how long it makes no difference to a window at which time a call is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Uniform {
    Ever,
    Until(Instant),
    /// The next call decides when the window begins.
    Never,
}

#[derive(Debug)]
pub(super) enum Window {
    Calls(Calls),
    Time(Tenths),
}

impl Window {
    /// An empty window.
    pub(super) fn new(span: Span) -> Self {
        match span {
            Span::Calls(size) => Self::Calls(Calls::new(size)),
            Span::Time(length) => Self::Time(Tenths::new(length)),
        }
    }

    /// Adds a call that ended `now`, and drops those that have left the window.
    pub(super) fn push(&mut self, call: Call, now: Instant) {
        match self {
            Self::Calls(window) => window.push(call),
            Self::Time(window) => window.push(call, now),
        }
    }

    /// For how long it makes no difference at which time a call is pushed.
    pub(super) fn uniform(&self) -> Uniform {
        match self {
            Self::Calls(_) => Uniform::Ever,
            Self::Time(window) => window.tenth_ends().map_or(Uniform::Never, Uniform::Until),
        }
    }

    /// What it holds as of the newest call.
    pub(super) fn totals(&self) -> Totals {
        match self {
            Self::Calls(window) => window.totals(),
            Self::Time(window) => window.totals(),
        }
    }

    /// What it would hold if a call ended `now`, that call not among them.
    pub(super) fn totals_at(&self, now: Instant) -> Totals {
        match self {
            Self::Calls(window) => window.totals(),
            Self::Time(window) => window.totals_at(now),
        }
    }

    /// Forgets all calls.
    pub(super) fn clear(&mut self) {
        match self {
            Self::Calls(window) => window.clear(),
            Self::Time(window) => window.clear(),
        }
    }
}
