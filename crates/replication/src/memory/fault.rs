//! What goes wrong on a link, and what decides it.

use std::{ops::RangeInclusive, time::Duration};

use bytes::Bytes;
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
    corrupt: f64,
    delay: RangeInclusive<Duration>,
    bytes_per_s: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self::none()
    }
}

impl Faults {
    /// Every frame arrives once, in order, at once.
    pub const fn none() -> Self {
        let delay = Duration::ZERO..=Duration::ZERO;
        Self { drop: 0.0, duplicate: 0.0, reorder: 0.0, corrupt: 0.0, delay, bytes_per_s: 0 }
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

    /// The probability that one bit of a frame is flipped on the way. Default 0.
    pub fn corrupt(self, probability: f64) -> Self {
        Self { corrupt: probability, ..self }
    }

    /// What a link carries a second: each frame waits until those before it are through, and its own bytes take their
    /// time. What waits counts against the receiver's queue ([`Limits`](super::Limits)). Default 0: no bound.
    pub fn bytes_per_s(self, rate: u64) -> Self {
        Self { bytes_per_s: rate, ..self }
    }

    /// How long a frame is on the way, drawn evenly from this range. Default none. Frames of a link keep their order
    /// all the same: one that drew less waits for those before it. A link has two directions, each with faults of its
    /// own, so the way there may take longer than the way back ([`Hub::set_link_faults`](super::Hub::set_link_faults)).
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
        let [corrupt, bit] = [rng.f64(), rng.f64()];
        Fate {
            dropped: drop < self.drop,
            delay: delay_at(&self.delay, delay),
            late: (reorder < self.reorder).then(|| REORDER_MAX.mul_f64(late)),
            copy_delay: (duplicate < self.duplicate).then(|| delay_at(&self.delay, copy_delay)),
            flipped: (corrupt < self.corrupt).then_some(bit),
        }
    }

    /// How long the link is busy with a frame of so many bytes.
    pub(super) fn busy(&self, bytes: usize) -> Duration {
        if self.bytes_per_s == 0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64)
    }
}

/// The delay at this fraction of the range; an empty range is its start.
pub(super) fn delay_at(range: &RangeInclusive<Duration>, fraction: f64) -> Duration {
    let (least, most) = (*range.start(), *range.end());
    least + most.saturating_sub(least).mul_f64(fraction)
}

/// What befalls one frame on one link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fate {
    pub(super) dropped: bool,
    pub(super) delay: Duration,
    /// How much longer it stays on the way while later ones pass it.
    pub(super) late: Option<Duration>,
    /// The delay of its copy, where it comes twice.
    pub(super) copy_delay: Option<Duration>,
    /// Where in the frame a bit is flipped, as a fraction of its length.
    pub(super) flipped: Option<f64>,
}

/// The frame with the bit at this fraction of its length flipped.
pub(super) fn flip_bit(frame: &Bytes, fraction: f64) -> Bytes {
    let mut bytes = frame.to_vec();
    let bit = ((bytes.len() * 8) as f64 * fraction) as usize;
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
    Bytes::from(bytes)
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
