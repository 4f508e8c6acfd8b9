//! A node takes nothing that is stamped further ahead of its wall clock than is allowed.
//!
//! Otherwise one clock that is set wrong would drag the clocks of all nodes along, for good.

use super::{At, Invariant, Ledger, Shown, Verdict, key_named};

/// How far ahead a stamp may be: five minutes.
const DRIFT_MS_MAX: u64 = 300_000;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct WithinDrift;

impl Invariant for WithinDrift {
    fn name(&self) -> &'static str {
        "clocks beyond the drift are refused"
    }

    fn shows(&mut self, at: At, _ledger: &Ledger, shown: &Shown) -> Verdict {
        let stamp = shown.held.as_ref().map_or(shown.bar.stamp, |held| held.stamp);
        if stamp.hlc.ms() <= at.wall_ms + DRIFT_MS_MAX {
            return Ok(());
        }
        let (key, ahead_ms) = (key_named(shown.key), stamp.hlc.ms() - at.wall_ms);
        Err(format!("node {} took {key:?} at {stamp}, {ahead_ms} ms ahead of its clock", at.node))
    }
}
