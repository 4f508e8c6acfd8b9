//! Two segments whose border lies at a fixed depth of the whole.

use super::Segment;

/// Where in the list remote writes enter.
pub(crate) struct Midpoint {
    /// From 0, the hot end, to 1, the cold end.
    depth: f64,
}

impl Midpoint {
    pub(crate) fn new(depth: f64) -> Self {
        Midpoint { depth }
    }

    pub(super) fn target(&self, segment: Segment, len: usize) -> usize {
        match segment {
            Segment::First => ((len as f64 * self.depth) as usize).max(1),
            Segment::Second | Segment::Third => usize::MAX,
        }
    }
}
