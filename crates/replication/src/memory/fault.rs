//! What goes wrong on a link, and what decides it.

use std::{ops::RangeInclusive, time::Duration};

use fastrand::Rng;
use geo::RegionId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::node::{NodeId, Origin};

/// How much longer than its delay a reordered frame stays on the way, at most.
const REORDER_MAX: Duration = Duration::from_millis(20);

/// What happens to frames by chance. Probabilities are from 0 to 1; the default is no fault.
///
/// ```
/// use std::time::Duration;
/// use replication::memory::Faults;
///
/// let poor = Faults::none().drop(0.05).duplicate(0.01).delay(Duration::from_millis(40)..=Duration::from_millis(90));
/// # assert_ne!(poor, Faults::none());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    drop: f64,
    duplicate: f64,
    reorder: f64,
    delay: RangeInclusive<Duration>,
}

impl Default for Faults {
    fn default() -> Self {
        Self::none()
    }
}

impl Faults {
    /// Every frame arrives once, in order, at once.
    pub const fn none() -> Self {
        Self { drop: 0.0, duplicate: 0.0, reorder: 0.0, delay: Duration::ZERO..=Duration::ZERO }
    }

    /// The probability that a frame is lost. Default 0.
    pub fn drop(self, probability: f64) -> Self {
        Self { drop: probability, ..self }
    }

    /// The probability that a frame comes twice. Default 0.
    pub fn duplicate(self, probability: f64) -> Self {
        Self { duplicate: probability, ..self }
    }

    /// The probability that a frame stays on the way up to 20 ms longer while later ones pass it. Default 0.
    pub fn reorder(self, probability: f64) -> Self {
        Self { reorder: probability, ..self }
    }

    /// How long a frame is on the way, drawn evenly from this range. Default none. Frames of a link keep their order
    /// all the same: one that drew less waits for those before it.
    pub fn delay(self, range: RangeInclusive<Duration>) -> Self {
        Self { delay: range, ..self }
    }

    /// What befalls the `count`th frame from one node to another: the same for the same seed, link and count.
    pub(super) fn fate(&self, seed: u64, from: Origin, to: Origin, count: u64) -> Fate {
        let mut place = [0; 24];
        place[..8].copy_from_slice(&from.0.to_le_bytes());
        place[8..16].copy_from_slice(&to.0.to_le_bytes());
        place[16..].copy_from_slice(&count.to_le_bytes());
        let mut rng = Rng::with_seed(xxh3_64_with_seed(&place, seed));
        // Every number is drawn whatever came before, so that one fault's setting does not change another's outcome.
        let [drop, duplicate, reorder] = [rng.f64(), rng.f64(), rng.f64()];
        let [delay, late, copy_delay] = [rng.f64(), rng.f64(), rng.f64()];
        Fate {
            dropped: drop < self.drop,
            delay: self.delay_at(delay),
            late: (reorder < self.reorder).then(|| REORDER_MAX.mul_f64(late)),
            copy_delay: (duplicate < self.duplicate).then(|| self.delay_at(copy_delay)),
        }
    }

    /// The delay at this fraction of the range; an empty range is its start.
    fn delay_at(&self, fraction: f64) -> Duration {
        let (least, most) = (*self.delay.start(), *self.delay.end());
        least + most.saturating_sub(least).mul_f64(fraction)
    }
}

/// What befalls one frame on one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) dropped: bool,
    pub(super) delay: Duration,
    /// How much longer it stays on the way while later ones pass it.
    pub(super) late: Option<Duration>,
    /// The delay of its copy, where it comes twice.
    pub(super) copy_delay: Option<Duration>,
}

/// One end of a link, or many: a node, a region's nodes, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// Every node.
    Everywhere,
    /// The nodes of a region.
    Region(RegionId),
    /// One node.
    Node(NodeId),
}

impl Place {
    pub(super) fn contains(&self, node: &NodeId) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Region(region) => node.region() == region,
            Self::Node(one) => node == one,
        }
    }
}

impl From<RegionId> for Place {
    fn from(region: RegionId) -> Self {
        Self::Region(region)
    }
}

impl From<&RegionId> for Place {
    fn from(region: &RegionId) -> Self {
        Self::Region(region.clone())
    }
}

impl From<NodeId> for Place {
    fn from(node: NodeId) -> Self {
        Self::Node(node)
    }
}

impl From<&NodeId> for Place {
    fn from(node: &NodeId) -> Self {
        Self::Node(node.clone())
    }
}

/// The links from one place to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    from: Place,
    to: Place,
}

impl Rule {
    pub(super) fn new(from: impl Into<Place>, to: impl Into<Place>) -> Self {
        Self { from: from.into(), to: to.into() }
    }

    pub(super) fn reversed(&self) -> Self {
        Self { from: self.to.clone(), to: self.from.clone() }
    }

    pub(super) fn matches(&self, from: &NodeId, to: &NodeId) -> bool {
        self.from.contains(from) && self.to.contains(to)
    }
}
