//! An ordered plan, and why each candidate stands where it does.

use std::{fmt, sync::Arc, time::Duration};

use super::{core::Region, from_ms};
use crate::{RegionId, estimator::Basis};

/// The regions in order, as ranked at one moment: what plans share.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Ranking {
    pub(super) candidates: Vec<Candidate>,
    /// Where the router keeps each candidate.
    pub(super) slots: Vec<u16>,
    pub(super) left_out: Vec<RegionId>,
    /// So many candidates, from the first on, are as close as the first.
    pub(super) band: usize,
    /// So many candidates have been written since it was begun.
    filled: usize,
}

impl Ranking {
    /// Begins anew. What was there stays until it is written over, since most of it is what comes.
    pub(super) fn begin(&mut self) {
        self.filled = 0;
        self.left_out.clear();
    }

    /// Adds a region as a candidate.
    pub(super) fn push(&mut self, slot: usize, region: &Region, standing: Standing) {
        let slot = slot as u16;
        let (rtt, basis) = (region.rtt_ms.map(from_ms), region.basis);
        match self.candidates.get_mut(self.filled) {
            Some(candidate) => {
                // The same slot is the same region: its name need not be counted up and down again.
                if std::mem::replace(&mut self.slots[self.filled], slot) != slot {
                    candidate.region = region.id.clone();
                }
                (candidate.rtt, candidate.basis, candidate.standing) = (rtt, basis, standing);
            }
            None => {
                self.slots.push(slot);
                self.candidates.push(Candidate { region: region.id.clone(), rtt, basis, standing });
            }
        }
        self.filled += 1;
    }

    /// Adds a region that is no candidate.
    pub(super) fn leave_out(&mut self, region: &RegionId) {
        self.left_out.push(region.clone());
    }

    /// Whether it has no candidates since it was begun.
    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Drops what is left of before.
    pub(super) fn finish(&mut self, band: usize) {
        self.candidates.truncate(self.filled);
        self.slots.truncate(self.filled);
        self.band = band;
    }
}

/// The candidates of one request, best first; never empty.
///
/// A plan is a view of the router's last ranking, which it shares: it costs no allocation, is cheap to clone, and
/// stays as it is while the router changes. Do not keep it for longer than a request, since the router then takes
/// new memory for the next ranking.
///
/// ```
/// use std::time::Instant;
///
/// let now = Instant::now();
/// let router =
///     geo::Router::builder().from("us-east").region("us-east").region("eu-central").region("ap-south").build()?;
/// router.set_health(&"ap-south".parse()?, geo::Health::Unhealthy, now)?;
/// let plan = router.plan(now);
/// assert_eq!(plan.first().region.as_str(), "us-east");
/// let fallback: Vec<&str> = plan.iter().skip(1).map(|candidate| candidate.region.as_str()).collect();
/// assert_eq!(fallback, ["eu-central"]);
/// assert_eq!(plan.left_out()[0].as_str(), "ap-south");
/// assert!(!plan.is_last_resort());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    ranking: Arc<Ranking>,
    /// The candidate that this plan begins with.
    lead: usize,
}

/// A region of a [`Plan`], and why it stands where it does.
///
/// Shown as text, it says so:
///
/// ```
/// let now = std::time::Instant::now();
/// let router = geo::Router::builder().from("us-east").region("eu-west").build()?;
/// assert_eq!(router.plan(now).first().to_string(), "eu-west (94 ms, by distance)");
/// # Ok::<(), geo::ConfigError>(())
/// ```
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

/// What decided a candidate's place beside its round trip; a later one comes after.
///
/// ```
/// use geo::Standing;
/// assert!(Standing::Healthy < Standing::Drained);
/// assert_eq!(Standing::Drained.to_string(), ", drained");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Standing {
    /// It is healthy.
    Healthy,
    /// It is being tried again after it was unhealthy: to be used after the healthy ones.
    Probing,
    /// It is healthy but drained: to be used only if no other answers.
    Drained,
    /// It looks unhealthy, as all regions do; it is the best of them, and better than asking nobody.
    LastResort,
}

impl Plan {
    /// A plan of a ranking that has candidates, beginning with the one at `lead`.
    pub(super) fn new(ranking: Arc<Ranking>, lead: usize) -> Self {
        Self { ranking, lead }
    }

    /// The best candidate.
    pub fn first(&self) -> &Candidate {
        &self.ranking.candidates[self.lead]
    }

    /// Whether all regions look unhealthy, so that the only candidate is a last resort.
    pub fn is_last_resort(&self) -> bool {
        self.first().standing == Standing::LastResort
    }

    /// All candidates, best first.
    pub fn iter(&self) -> impl Iterator<Item = &Candidate> {
        let (before, from) = self.ranking.candidates.split_at(self.lead);
        from.iter().take(1).chain(before).chain(from.iter().skip(1))
    }

    /// How many candidates there are, at least one.
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.ranking.candidates.len()
    }

    /// The regions that are no candidates since they look unhealthy, best first.
    pub fn left_out(&self) -> &[RegionId] {
        &self.ranking.left_out
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
            Self::Probing => ", probing",
            Self::Drained => ", drained",
            Self::LastResort => ", last resort: all regions look unhealthy",
        })
    }
}
