//! A node that is warming shows nothing that every ready node had replaced before it started.
//!
//! It remembers nothing itself, so whatever still flies about of its last life would be news to it. Once it is ready it has
//! the bars of a ready node, and the other invariants hold it to those. A node that becomes ready meanwhile may give it what
//! that one has: it may be behind the others, or know nothing where it became ready by itself.

use replication::Stamp;

use super::{At, BarOf, Invariant, KEYS_MAX, Ledger, Others, PerNode, Shown, Verdict, key_named};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct StartIsFresh {
    /// For each node that is warming, the lowest stamps that every ready node still took when it started.
    lowest: PerNode<Option<[Stamp; KEYS_MAX]>>,
}

impl Invariant for StartIsFresh {
    fn name(&self) -> &'static str {
        "a start is fresh"
    }

    fn started(&mut self, at: At, others: &Others<'_>) {
        let lowest = |key| others.ready.iter().map(|node| (others.bars)(*node, key).stamp).min();
        let lowest = std::array::from_fn(|key| lowest(key).unwrap_or(Stamp::ZERO));
        *self.lowest.of(at.node) = Some(lowest);
    }

    fn readied(&mut self, at: At, bars: BarOf<'_>) {
        *self.lowest.of(at.node) = None;
        for lowest in self.lowest.all().flatten() {
            for (key, lowest) in lowest.iter_mut().enumerate() {
                *lowest = bars(key).stamp.min(*lowest);
            }
        }
    }

    fn shows(&mut self, at: At, _ledger: &Ledger, shown: &Shown) -> Verdict {
        let (Some(held), Some(lowest)) = (&shown.held, self.lowest.of(at.node)) else { return Ok(()) };
        let lowest = lowest[shown.key];
        // Its own writes are above all that it was told of, not above all that there is.
        if held.stamp >= lowest || held.stamp.origin == at.origin {
            return Ok(());
        }
        let (key, node) = (key_named(shown.key), at.node);
        Err(format!("node {node} warms and shows {key:?} at {}, replaced everywhere by {lowest}", held.stamp))
    }
}
