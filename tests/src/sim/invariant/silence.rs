//! Once all is settled, nodes send beats and the questions of the scrub, and nothing else.
//!
//! A repair that goes on for ever would be a storm; an answer to the scrub would mean that two nodes still differ.

use replication::sim::FrameKind;

use super::{End, Invariant, Verdict};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Silence;

impl Invariant for Silence {
    fn name(&self) -> &'static str {
        "silence follows"
    }

    fn settled(&mut self, end: &End<'_>) -> Verdict {
        let is_noise = |kind: &FrameKind| !matches!(kind, FrameKind::Beat | FrameKind::Probe);
        let mut noise = FrameKind::ALL.into_iter().filter(is_noise);
        match noise.find(|kind| (end.sent)(*kind) > 0) {
            Some(kind) => Err(format!("{} {kind:?} frames were sent at the end", (end.sent)(kind))),
            None => Ok(()),
        }
    }
}
