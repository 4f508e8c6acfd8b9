//! One way between two nodes: how long frames take, and what befalls them.

use std::fmt;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

/// A frame that would wait longer than this for a link's bandwidth is lost, as at the end of a full queue.
pub const LINK_WAIT_MS_MAX: u64 = 10_000;

/// A longer time on the way counts as this: a day.
const DELAY_MS_MAX: u64 = 86_400_000;

/// How a link treats frames, one way. Probabilities are from 0 to 1, times in milliseconds up to a day.
///
/// Frames keep their order but for those that are late and for copies. The default takes 1 to 5 ms and loses nothing.
///
/// ```
/// use replication::sim::Link;
///
/// let poor = Link { drop: 0.05, late: 0.1, ..Link::rtt(180) };
/// # assert_eq!(poor.delay_ms_min, 90);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// The shortest time on the way, at least 1. Default 1.
    pub delay_ms_min: u64,
    /// The longest time on the way, unless the frame is late. Default 5.
    pub delay_ms_max: u64,
    /// The probability that a frame is lost.
    pub drop: f64,
    /// The probability that a frame comes twice; the copy is as late as a late frame.
    pub duplicate: f64,
    /// The probability that a frame stays longer on the way while later ones pass it.
    pub late: f64,
    /// How much longer that is, at most. Default 200.
    pub late_ms_max: u64,
    /// The probability that a byte of a frame is flipped.
    pub corrupt: f64,
    /// Bytes that pass in a millisecond, where that is limited. A frame that would have to wait more than
    /// [`LINK_WAIT_MS_MAX`] is lost.
    pub bytes_per_ms: Option<u64>,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            delay_ms_min: 1,
            delay_ms_max: 5,
            drop: 0.0,
            duplicate: 0.0,
            late: 0.0,
            late_ms_max: 200,
            corrupt: 0.0,
            bytes_per_ms: None,
        }
    }
}

impl Link {
    /// One direction of a way with this round-trip time in milliseconds: each frame takes half of it.
    pub fn rtt(ms: u64) -> Self {
        Self::delay(ms / 2, ms / 2)
    }

    /// A link on which frames take from `ms_min` to `ms_max` milliseconds.
    pub fn delay(ms_min: u64, ms_max: u64) -> Self {
        Self { delay_ms_min: ms_min, delay_ms_max: ms_max.max(ms_min), ..Self::default() }
    }

    /// The same way with nothing going wrong on it.
    #[must_use]
    pub fn without_faults(self) -> Self {
        let none = Self::default();
        Self { drop: none.drop, duplicate: none.duplicate, late: none.late, corrupt: none.corrupt, ..self }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{} ms", self.delay_ms_min, self.delay_ms_max)?;
        for (name, probability) in
            [("drop", self.drop), ("duplicate", self.duplicate), ("corrupt", self.corrupt)]
        {
            if probability > 0.0 {
                write!(f, ", {name} {probability:.3}")?;
            }
        }
        if self.late > 0.0 {
            write!(f, ", late {:.3} by up to {} ms", self.late, self.late_ms_max)?;
        }
        if let Some(bytes) = self.bytes_per_ms {
            write!(f, ", {bytes} B/ms")?;
        }
        Ok(())
    }
}

/// What befell a frame on one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// The link was cut.
    Cut,
    /// It was dropped by chance, or for want of bandwidth.
    Lost,
    /// It is on its way.
    Arrives {
        /// When, in virtual milliseconds.
        at_ms: u64,
        /// When a copy of it arrives, where it comes twice.
        copy_at_ms: Option<u64>,
        /// The byte that is flipped on the way, as a place modulo its length; the copy is whole.
        corrupt: Option<u64>,
    },
}

/// A link and what is on it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Way {
    pub(super) link: Link,
    pub(super) is_cut: bool,
    /// The moment of the last frame, and how many went at that moment.
    last_ms: u64,
    nth: u64,
    /// When the last frame that keeps the order arrives.
    order_ms: u64,
    /// When the bandwidth is free again.
    free_ms: u64,
}

impl Way {
    pub(super) fn new(link: Link) -> Self {
        Self { link, ..Self::default() }
    }

    /// Decides what befalls a frame sent now. Chance is a hash of the world's seed, the link and the moment, so that a
    /// frame more or less at one moment leaves the fate of all at other moments as it was.
    pub(super) fn send(&mut self, seed: u64, now_ms: u64, bytes: usize) -> Fate {
        self.nth = if self.last_ms == now_ms { self.nth + 1 } else { 0 };
        self.last_ms = now_ms;
        if self.is_cut {
            return Fate::Cut;
        }
        let link = self.link;
        let mut chance = Rng::with_seed(mix(mix(seed, now_ms), self.nth));
        // Every number is drawn whatever came before, so that one fault's setting does not change another's outcome.
        let [drop, duplicate, late, corrupt] = [chance.f64(), chance.f64(), chance.f64(), chance.f64()];
        let [delay, late_by, copy_by, place] = [chance.f64(), chance.f64(), chance.f64(), chance.f64()];
        if drop < link.drop {
            return Fate::Lost;
        }
        let leaves_ms = match link.bytes_per_ms {
            None => now_ms,
            Some(rate) => {
                let free_ms = self.free_ms.max(now_ms);
                if free_ms - now_ms > LINK_WAIT_MS_MAX {
                    return Fate::Lost;
                }
                self.free_ms = free_ms + (bytes as u64).div_ceil(rate.max(1));
                self.free_ms
            }
        };
        let within = |fraction: f64, ms: u64| (fraction * (ms as f64 + 1.0)) as u64;
        let spread_ms = link.delay_ms_max.saturating_sub(link.delay_ms_min);
        // No frame arrives at the moment it is sent, or an endless exchange would keep time from passing.
        let delay_ms = link.delay_ms_min.saturating_add(within(delay, spread_ms)).clamp(1, DELAY_MS_MAX);
        let due_ms = leaves_ms + delay_ms;
        let late_ms_max = link.late_ms_max.min(DELAY_MS_MAX);
        let at_ms = if late < link.late {
            due_ms + within(late_by, late_ms_max)
        } else {
            self.order_ms = self.order_ms.max(due_ms);
            self.order_ms
        };
        let copy_at_ms = (duplicate < link.duplicate).then(|| due_ms + within(copy_by, late_ms_max));
        let corrupt = (corrupt < link.corrupt).then_some((place * bytes as f64) as u64);
        Fate::Arrives { at_ms, copy_at_ms, corrupt }
    }
}

/// Mixes a number into a seed, so that neighbouring numbers give unrelated seeds.
pub(super) fn mix(seed: u64, number: u64) -> u64 {
    let mut mixed = seed ^ number.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
