//! Two segments whose border lies at a fixed depth of the whole.

use crate::shard::Share;

/// Where in the list remote writes enter, and what stands above that.
pub(crate) struct Midpoint {
    /// From 0, the hot end, to 1, the cold end.
    depth: f64,
    /// What the entries of the upper segment weigh; 0 where entries have no weights of their own.
    pub(super) upper_weight: u64,
}

impl Midpoint {
    pub(crate) fn new(depth: f64) -> Self {
        Midpoint { depth, upper_weight: 0 }
    }

    /// The most that the upper segment should hold: so much of the share, by entries and by weight, but one entry at least.
    ///
    /// Of the share and not of what is held. Where a few heavy entries take the room of many, as many entries would have to leave the
    /// upper segment as their number falls by, and it is them that the upper segment is for.
    pub(super) fn target(&self, share: Share) -> Share {
        let of = |bound: f64| bound * self.depth;
        Share {
            entries: (of(share.entries as f64) as usize).max(1),
            weight: (of(share.weight as f64) as u64).max(1),
        }
    }
}
