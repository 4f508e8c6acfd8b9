//! An ordered plan, and why each candidate stands where it does.

use std::{fmt, time::Duration};

use crate::{RegionId, estimator::Basis};

/// The candidates of one request, best first; never empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    first: Candidate,
    rest: Vec<Candidate>,
}

/// A region of a [`Plan`], and why it stands where it does.
///
/// Shown as text, it says so: `eu-west (66 ms, measured)`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Candidate {
    /// The region.
    pub region: RegionId,
    /// The estimated round trip; `None` if there is nothing to tell it by.
    pub rtt: Option<Duration>,
    /// What the estimate rests on.
    pub basis: Basis,
    /// What else decided its place.
    pub standing: Standing,
}

/// What decided a candidate's place beside its round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Standing {
    /// It is healthy.
    Healthy,
    /// It is healthy but drained: to be used only if no other answers.
    Drained,
    /// It looks unhealthy, as all regions do; it is the best of them, and better than asking nobody.
    LastResort,
}

impl Plan {
    /// A plan of these candidates, `None` if there are none.
    pub(super) fn new(candidates: Vec<Candidate>) -> Option<Self> {
        let mut candidates = candidates.into_iter();
        let first = candidates.next()?;
        Some(Self { first, rest: candidates.collect() })
    }

    /// The best candidate.
    pub fn first(&self) -> &Candidate {
        &self.first
    }

    /// Whether all regions look unhealthy, so that the only candidate is a last resort.
    pub fn is_last_resort(&self) -> bool {
        self.first.standing == Standing::LastResort
    }

    /// All candidates, best first.
    pub fn iter(&self) -> impl Iterator<Item = &Candidate> {
        std::iter::once(&self.first).chain(&self.rest)
    }
}

impl IntoIterator for Plan {
    type Item = Candidate;
    type IntoIter = std::iter::Chain<std::iter::Once<Candidate>, std::vec::IntoIter<Candidate>>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self.first).chain(self.rest)
    }
}

impl fmt::Display for Plan {
    /// One candidate after the other, separated by semicolons.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().enumerate().try_for_each(|(at, candidate)| {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{candidate}")
        })
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.region)?;
        if let Some(rtt) = self.rtt {
            write!(f, "{:.0} ms, ", rtt.as_secs_f64() * 1_000.0)?;
        }
        write!(f, "{}{})", self.basis, self.standing)
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Distance => f.write_str("by distance"),
            Self::Mixed { measured } => write!(f, "{:.0} % measured", measured * 100.0),
            Self::Measured => f.write_str("measured"),
            Self::Nothing => f.write_str("place unknown, not measured"),
        }
    }
}

impl fmt::Display for Standing {
    /// What to add to the reason; nothing for the healthy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "",
            Self::Drained => ", drained",
            Self::LastResort => ", last resort: all regions look unhealthy",
        })
    }
}
