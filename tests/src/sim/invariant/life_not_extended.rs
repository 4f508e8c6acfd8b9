//! No value is served for longer than its writer granted, by the true time.
//!
//! There is no tolerance: a copy's life is shortened by at least the time it took to come, whatever the clocks of the
//! two nodes say. It is looked at when a value arrives, by what the node means to serve it for.

use super::{At, Invariant, Ledger, Shown, Verdict, key_named};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct LifeNotExtended;

impl Invariant for LifeNotExtended {
    fn name(&self) -> &'static str {
        "no life is extended"
    }

    fn shows(&mut self, at: At, ledger: &Ledger, shown: &Shown) -> Verdict {
        let Some(held) = &shown.held else { return Ok(()) };
        let granted = ledger.of_value(shown.key, held.stamp, &held.bytes);
        let Some(deadline_ms) = granted.and_then(|write| write.deadline_ms) else { return Ok(()) };
        let meant_ms = held.left_ms.map(|left_ms| at.now_ms + left_ms);
        if meant_ms.is_some_and(|meant_ms| meant_ms <= deadline_ms) {
            return Ok(());
        }
        let (node, key) = (at.node, key_named(shown.key));
        let over = meant_ms.map_or("for ever".to_owned(), |ms| format!("{} ms too long", ms - deadline_ms));
        Err(format!(
            "node {node} serves {key:?} at {} {over}: it was granted until {deadline_ms}",
            held.stamp
        ))
    }
}
