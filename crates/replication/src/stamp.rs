//! The hybrid logical clock and the stamps it gives: one total order of all writes.
//!
//! A stamp is 48 bits of milliseconds since the Unix epoch, a 16-bit counter, and the writer's [`Origin`]. The clock
//! ticks to `max(last + 1, wall clock)` and observes every stamp it is shown, so that a write made after seeing a
//! value wins over that value whatever the wall clocks say. Ten lines of our own rather than a crate: the known one
//! reads the system clock itself, which a simulation cannot drive, and its stamps are three times as large.
//! Source: Kulkarni et al., *Logical Physical Clocks*, 2014.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::node::Origin;

/// A reading of the hybrid logical clock: 48 bits of milliseconds since the Unix epoch, then a 16-bit counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The first reading within a millisecond of the wall clock.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms << 16)
    }

    /// Its milliseconds since the Unix epoch.
    pub const fn ms(self) -> u64 {
        self.0 >> 16
    }
}

/// When and where a record was written. Ordered by clock, then by origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp {
    /// The writer's clock.
    pub hlc: Hlc,
    /// The writer.
    pub origin: Origin,
}

impl Stamp {
    /// Below every stamp that a clock gives.
    pub const ZERO: Self = Self { hlc: Hlc(0), origin: Origin(0) };
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}@{:016x}", self.hlc.ms(), self.hlc.0 & 0xffff, self.origin.0)
    }
}

/// A node's hybrid logical clock. Shared by its threads; each operation is one atomic update.
#[derive(Debug, Default)]
pub struct Clock {
    last: AtomicU64,
    /// Follows the wall clock alone: for a simulation of what happens then.
    deaf: bool,
}

impl Clock {
    /// A clock that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn deaf() -> Self {
        Self { deaf: true, ..Self::default() }
    }

    /// The next reading: above everything given or observed, and not before the wall clock (ms since the Unix epoch).
    pub fn tick(&self, wall_ms: u64) -> Hlc {
        let next = |last: u64| Some((last + 1).max(wall_ms << 16));
        let last =
            self.last.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).unwrap_or_else(|last| last);
        Hlc((last + 1).max(wall_ms << 16))
    }

    /// Takes note of a reading seen elsewhere.
    pub fn observe(&self, seen: Hlc) {
        if !self.deaf {
            self.last.fetch_max(seen.0, Ordering::AcqRel);
        }
    }

    /// The highest reading given or observed.
    pub fn last(&self) -> Hlc {
        Hlc(self.last.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_rise_when_the_wall_clock_stands_or_goes_back() {
        let clock = Clock::new();
        let readings: Vec<_> = [1_000, 1_000, 400, 1_001].map(|wall| clock.tick(wall)).into();
        assert!(readings.is_sorted_by(|a, b| a < b), "{readings:?}");
        assert_eq!(readings[0], Hlc::from_ms(1_000));
        assert_eq!(readings[3], Hlc::from_ms(1_001));
    }

    #[test]
    fn a_tick_after_an_observation_is_above_it() {
        let clock = Clock::new();
        clock.observe(Hlc::from_ms(9_000));
        assert!(clock.tick(1) > Hlc::from_ms(9_000));
    }

    #[test]
    fn stamps_order_by_clock_then_origin() {
        let stamp = |ms, origin| Stamp { hlc: Hlc::from_ms(ms), origin: Origin(origin) };
        assert!(stamp(1, 9) < stamp(2, 1));
        assert!(stamp(2, 1) < stamp(2, 2));
    }
}
