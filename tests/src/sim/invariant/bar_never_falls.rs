//! The bar of a key never goes down in one life of a node.
//!
//! This is the lemma on which all safety rests: forgetting may only raise a bar, so nothing old comes back.

use replication::{Stamp, message::Bar};

use super::{At, Invariant, KEYS_MAX, Ledger, Others, PerNode, Shown, Verdict, key_named};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct BarNeverFalls {
    last: PerNode<[Last; KEYS_MAX]>,
}

/// What a node showed of a key when it was last looked at.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    bar: Bar,
    live: Option<Stamp>,
}

impl Invariant for BarNeverFalls {
    fn name(&self) -> &'static str {
        "a bar never falls"
    }

    fn started(&mut self, at: At, _others: &Others<'_>) {
        self.last.forget(at.node);
    }

    fn shows(&mut self, at: At, _ledger: &Ledger, shown: &Shown) -> Verdict {
        let last = &mut self.last.of(at.node)[shown.key];
        // An evicted record may come back under its own stamp, so the strict bar that it had while it lived becomes the
        // non-strict one of its grave. No other step down is allowed.
        let was_evicted = last.live.is_some_and(|stamp| {
            last.bar == Bar::above(stamp) && shown.bar == Bar::at(stamp) && shown.held.is_none()
        });
        if shown.bar < last.bar && !was_evicted {
            let (key, node, before) = (key_named(shown.key), at.node, last.bar);
            return Err(format!("the bar of {key:?} on node {node} fell from {before:?} to {:?}", shown.bar));
        }
        *last = Last { bar: shown.bar, live: shown.held.as_ref().map(|held| held.stamp) };
        Ok(())
    }
}
