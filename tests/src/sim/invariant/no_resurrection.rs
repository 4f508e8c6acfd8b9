//! Once all is settled, nobody holds what a living node was told is gone or replaced.
//!
//! What a node was told is kept outside of its own bounded memory, so that a grave which it had to forget still counts.

use super::{End, Invariant, Verdict, key_named};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct NoResurrection;

impl Invariant for NoResurrection {
    fn name(&self) -> &'static str {
        "nothing is resurrected"
    }

    fn settled(&mut self, end: &End<'_>) -> Verdict {
        for (holder, settled) in end.up() {
            for shown in &settled.shown {
                let Some(held) = &shown.held else { continue };
                let told = end.up().map(|(node, settled)| (node, settled.told[shown.key]));
                if let Some((node, bar)) = told.into_iter().find(|(_, bar)| !bar.admits(held.stamp)) {
                    let key = key_named(shown.key);
                    return Err(format!(
                        "node {holder} holds {key:?} at {}, but node {node} was told {bar:?}",
                        held.stamp
                    ));
                }
            }
        }
        Ok(())
    }
}
