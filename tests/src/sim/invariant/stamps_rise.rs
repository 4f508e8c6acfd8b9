//! The stamps that a node serves of a key never go back in one of its lives.
//!
//! A miss is always allowed; an older value after a newer one never is.

use replication::Stamp;

use super::{At, Invariant, KEYS_MAX, Ledger, Others, PerNode, Shown, Verdict, key_named};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct StampsRise {
    highest: PerNode<[Stamp; KEYS_MAX]>,
}

impl Invariant for StampsRise {
    fn name(&self) -> &'static str {
        "served stamps rise"
    }

    fn started(&mut self, at: At, _others: &Others<'_>) {
        self.highest.forget(at.node);
    }

    fn shows(&mut self, at: At, _ledger: &Ledger, shown: &Shown) -> Verdict {
        let Some(held) = &shown.held else { return Ok(()) };
        let highest = &mut self.highest.of(at.node)[shown.key];
        if held.stamp < *highest {
            let key = key_named(shown.key);
            return Err(format!("node {} served {key:?} at {} after {highest}", at.node, held.stamp));
        }
        *highest = held.stamp;
        Ok(())
    }
}
