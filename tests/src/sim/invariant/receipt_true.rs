//! A receipt never lies: of a region that is said to have a write, a node had it, or something newer of its key.
//!
//! Had, not has: a process that ended after it said so has taken its memory along.

use replication::message::Bar;

use super::{At, BarOf, Invariant, KEYS_MAX, Receipt, Verdict};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct ReceiptTrue {
    /// The highest bars of each node's lives that ended.
    ended: Vec<[Bar; KEYS_MAX]>,
}

impl Invariant for ReceiptTrue {
    fn name(&self) -> &'static str {
        "a receipt is true"
    }

    fn ended(&mut self, at: At, bars: BarOf<'_>) {
        if self.ended.len() <= at.node {
            self.ended.resize(at.node + 1, [Bar::NONE; KEYS_MAX]);
        }
        for (key, highest) in self.ended[at.node].iter_mut().enumerate() {
            *highest = bars(key).max(*highest);
        }
    }

    fn receipt(&mut self, at: At, receipt: &Receipt<'_>, bars: &dyn Fn(usize, usize) -> Bar) -> Verdict {
        let write = receipt.write;
        let ended = |node: usize| self.ended.get(node).map_or(Bar::NONE, |bars| bars[write.key]);
        let has_or_had = |node: usize| bars(node, write.key).max(ended(node)) >= Bar::at(write.stamp);
        if receipt.nodes.is_empty() || receipt.nodes.iter().any(|node| has_or_had(*node)) {
            return Ok(());
        }
        Err(format!("node {} says that node {:?} has {write}, but none had it", at.node, receipt.nodes))
    }
}
