//! Every value that is served was written, to that key, under that stamp.

use super::{At, Invariant, Ledger, Shown, Verdict, key_named};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct NoPhantom;

impl Invariant for NoPhantom {
    fn name(&self) -> &'static str {
        "no phantom is served"
    }

    fn shows(&mut self, at: At, ledger: &Ledger, shown: &Shown) -> Verdict {
        let Some(held) = &shown.held else { return Ok(()) };
        if ledger.of_value(shown.key, held.stamp, &held.bytes).is_some() {
            return Ok(());
        }
        let (node, key) = (at.node, key_named(shown.key));
        Err(format!("node {node} serves {:?} for {key:?} at {}, never written so", held.bytes, held.stamp))
    }
}
