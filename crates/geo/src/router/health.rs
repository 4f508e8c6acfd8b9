//! Whether a region is worth asking: what the caller says, and what the router counts.
//!
//! The caller's word usually comes from a circuit breaker per region. Those who have none let the router count: so many
//! failed calls in a row put a region out, and so many successful probes in a row bring it back. Time alone never brings
//! it back: a region is not well because nobody has asked it for a while.
//!
//! Of the two the worse one holds, but a word overrules what was counted before it. A breaker learns by calls, and by
//! plan a region that is out gets none: where the count alone kept a region out that its breaker wants to try or
//! to use again, neither would ever learn better.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// Whether a region is worth asking; a later one is worse.
///
/// ```
/// use geo::Health;
/// assert!(Health::Healthy < Health::Probing && Health::Probing < Health::Unhealthy);
/// assert_eq!(Health::Probing.to_string(), "probing");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// It answers, as far as is known: its breaker is closed.
    Healthy,
    /// It is being tried again after it was unhealthy: its breaker is half-open. To be asked after the healthy ones.
    Probing,
    /// It does not answer: its breaker is open.
    Unhealthy,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Healthy => "healthy",
            Self::Probing => "probing",
            Self::Unhealthy => "unhealthy",
        })
    }
}

/// When counting puts a region out and brings it back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// So many failures in a row put it out.
    pub(super) failures: u32,
    /// So many successes in a row bring it back.
    pub(super) probes: u32,
    /// How long until it is due for another probe.
    pub(super) wait: Duration,
}

/// What the outcomes of a region's calls say.
#[derive(Debug, Clone, Copy)]
pub(super) enum Counted {
    /// In, after so many failures in a row.
    Up { failures: u32 },
    /// Out, after so many successes in a row.
    Down { successes: u32, due: Instant },
}

impl Counted {
    pub(super) const START: Self = Self::Up { failures: 0 };

    pub(super) fn health(self) -> Health {
        match self {
            Self::Up { .. } => Health::Healthy,
            Self::Down { successes: 0, .. } => Health::Unhealthy,
            Self::Down { .. } => Health::Probing,
        }
    }

    pub(super) fn success(&mut self, rules: Rules) {
        match self {
            Self::Up { failures } => *failures = 0,
            Self::Down { successes, .. } if *successes + 1 < rules.probes => *successes += 1,
            Self::Down { .. } => *self = Self::START,
        }
    }

    pub(super) fn failure(&mut self, rules: Rules, now: Instant) {
        match self {
            Self::Up { failures } if *failures + 1 < rules.failures => *failures += 1,
            _ => *self = Self::Down { successes: 0, due: later(now, rules.wait) },
        }
    }

    /// What is left of it once the caller said how the region is: by a word that takes it back in, nothing.
    pub(super) fn told(&mut self, said: Health) {
        if said != Health::Unhealthy && self.health() != Health::Healthy {
            *self = Self::START;
        }
    }

    /// When it is to be probed, if it is out.
    pub(super) fn due(self) -> Option<Instant> {
        match self {
            Self::Up { .. } => None,
            Self::Down { due, .. } => Some(due),
        }
    }

    /// Puts the next probe off, since one is on its way.
    pub(super) fn claim(&mut self, rules: Rules, now: Instant) {
        if let Self::Down { due, .. } = self {
            *due = later(now, rules.wait);
        }
    }
}

/// `now + wait`, or a far day if that is beyond the clock.
fn later(now: Instant, wait: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(365 * 24 * 3_600);
    now.checked_add(wait.min(FAR)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { failures: 3, probes: 2, wait: Duration::from_secs(5) };

    #[test]
    fn failures_in_a_row_put_it_out_and_a_success_between_starts_anew() {
        let now = Instant::now();
        let mut counted = Counted::START;
        for _ in 0..2 {
            counted.failure(RULES, now);
        }
        counted.success(RULES);
        for _ in 0..2 {
            counted.failure(RULES, now);
            assert_eq!(counted.health(), Health::Healthy);
        }
        counted.failure(RULES, now);
        assert_eq!(counted.health(), Health::Unhealthy);
        assert_eq!(counted.due(), Some(now + RULES.wait));
    }

    #[test]
    fn probes_in_a_row_bring_it_back_and_a_failure_between_starts_anew() {
        let now = Instant::now();
        let mut counted = Counted::Down { successes: 0, due: now };
        counted.success(RULES);
        assert_eq!(counted.health(), Health::Probing);
        counted.failure(RULES, now);
        assert_eq!(counted.health(), Health::Unhealthy);
        counted.success(RULES);
        counted.success(RULES);
        assert_eq!(counted.health(), Health::Healthy);
        assert_eq!(counted.due(), None);
    }

    #[test]
    fn a_word_that_takes_it_back_in_overrules_the_count_and_others_do_not() {
        let now = Instant::now();
        for (said, expected) in [
            (Health::Healthy, Health::Healthy),
            (Health::Probing, Health::Healthy),
            (Health::Unhealthy, Health::Unhealthy),
        ] {
            let mut counted = Counted::Down { successes: 0, due: now };
            counted.told(said);
            assert_eq!(counted.health(), expected, "{said}");
        }
        // A caller that says so again and again does not keep failures from being counted.
        let mut counted = Counted::START;
        for _ in 0..RULES.failures {
            counted.told(Health::Healthy);
            counted.failure(RULES, now);
        }
        assert_eq!(counted.health(), Health::Unhealthy);
    }

    #[test]
    fn an_endless_wait_does_not_overflow_the_clock() {
        let now = Instant::now();
        assert!(later(now, Duration::MAX) > now);
    }
}
