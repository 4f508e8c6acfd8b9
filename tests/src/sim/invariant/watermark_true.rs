//! What a node says it has of a stream, it has: the bar of each key that the stream wrote is at least the write's stamp.
//!
//! This is the second lemma: it makes receipts and session tokens true, and lets a repair send only what is newer than a
//! watermark. It is looked at for all changes of a stream, those that were superseded before they left included.

use std::collections::HashMap;

use replication::{Hlc, Stream, message::Bar};

use super::{
    At, BarOf, Claims, Invariant, Ledger, Others, PerNode, Verdict, first_above_its_bar, key, key_named,
    named,
};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct WatermarkTrue {
    /// Up to where each claim of a node was looked at already: bars do not fall.
    judged: PerNode<HashMap<Stream, Hlc>>,
}

impl Invariant for WatermarkTrue {
    fn name(&self) -> &'static str {
        "a watermark is true"
    }

    fn started(&mut self, at: At, _others: &Others<'_>) {
        self.judged.forget(at.node);
    }

    fn claims(&mut self, at: At, ledger: &Ledger, claims: &Claims<'_>, bars: BarOf<'_>) -> Verdict {
        for report in claims.streams {
            let judged = self.judged.of(at.node).entry(report.stream).or_default();
            let (from, to) = (*judged, report.watermark_hlc);
            if to <= from {
                continue;
            }
            *judged = to;
            let is_new = |hlc: Hlc| hlc > from && hlc <= to;
            // The newest are few, and at the end.
            let writes = ledger.of_stream(report.stream).rev().skip_while(|write| write.stamp.hlc > to);
            let writes = writes.take_while(|write| is_new(write.stamp.hlc));
            if let Some((write, bar)) = first_above_its_bar(writes, bars) {
                return Err(format!(
                    "node {} claims {} up to {to:?}, but its bar lets {write} through: {bar:?}",
                    at.node,
                    named(report.stream)
                ));
            }
            for clear in ledger.clears_of(report.stream).filter(|clear| is_new(clear.stamp.hlc)) {
                let lower = key::within(&clear.namespace).find(|key| bars(*key) < Bar::above(clear.stamp));
                if let Some(lower) = lower {
                    return Err(format!(
                        "node {} claims {} up to {to:?}, but its bar of {:?} is below the clear at {}",
                        at.node,
                        named(report.stream),
                        key_named(lower),
                        clear.stamp
                    ));
                }
            }
        }
        Ok(())
    }
}
