//! Where the records live, as the replica sees it.
//!
//! The replica decides about streams, peers and transfers; the per-key decision is the store's, inside the lock that
//! guards the key, so that merges run in parallel with local writes and no moment exists between an eviction and its
//! grave. The rule is one for every store, [`judge`]; a store keeps a [`super::Guard`] beside each shard and the
//! shared [`super::Barriers`].

use std::time::Duration;

use bytes::Bytes;

use super::Now;
use crate::{
    message::{Bar, Grave},
    record::{Op, Record},
    stamp::Stamp,
    wire,
};

/// Holds the live records and the graves of a node. Called by the replica's task while other threads read and write.
///
/// No method waits, calls back into the replica, or holds a lock longer than for one key or one page.
pub trait Store: Send + Sync + 'static {
    /// Merges a remote put or remove under its key's lock. `left` is what is left of its life after transit: `None` for
    /// a record that does not expire, zero for one that died on the way (it leaves a strict grave).
    fn merge(&self, record: &Record, left: Option<Duration>) -> Merged;

    /// Hears which records are merged next: those of a frame. Nothing has to be done. A store so large that merging is
    /// mostly waiting for memory can look all of their keys up here, at once.
    fn look_ahead(&self, _records: &[Record]) {}

    /// Hears of a record that is refused, since it or its sender's clock is further ahead than is allowed. Nothing has to
    /// be done.
    fn refused(&self, _record: &Record) {}

    /// Raises a clear barrier. What is behind it is invisible at once and reclaimed lazily.
    fn clear(&self, namespace: &[u8], stamp: Stamp) -> Merged;

    /// Merges a peer's grave. A live record that its bar does not admit goes and leaves that grave
    /// ([`super::Guard::bury`]); where none lives the grave is kept if it is news ([`super::Guard::learn`]). `Applied` if
    /// a live record went.
    fn bury(&self, grave: Grave) -> Merged;

    /// Everything known from `position` on, live records and graves side by side under one lock, up to about
    /// `budget_bytes` of both but at least one where there is one ([`StorePage::within`] cuts a page to size). Records carry what is left of their lives now,
    /// born at `mono_ms`, the node's monotonic clock.
    fn page(&self, position: u64, budget_bytes: usize, mono_ms: u64) -> StorePage;

    /// The clear barriers.
    fn cleared(&self) -> Vec<(Bytes, Stamp)>;

    /// Drops the live records at positions `lo..hi` whose stamp is below `below` and that `keep` does not name, each
    /// with a non-strict grave; returns how many.
    fn sweep(&self, lo: u64, hi: Option<u64>, below: Bar, keep: &dyn Fn(u64) -> bool) -> usize;

    /// While a full sync runs: keys that are not live at positions below `end` have at least this bar.
    fn cover(&self, end: u64, bar: Bar);

    /// Adopts a peer's floor everywhere, and ends a cover.
    fn raise_floor(&self, bar: Bar);

    /// The live stamps from `position` on, at most `limit` positions of them, for a comparison with a peer's.
    fn samples(&self, position: u64, limit: usize) -> Samples;

    /// What is known at a position, for a comparison with a peer's.
    fn known(&self, position: u64) -> Known;

    /// The live record at a position, as in a page; more than one where keys share it.
    fn at(&self, position: u64, mono_ms: u64) -> Vec<Record>;

    /// The most recently used live records, hottest first, up to about `budget_bytes`, as in a page. Not more than a few
    /// thousand are looked at under one lock.
    fn hottest(&self, budget_bytes: usize, mono_ms: u64) -> Vec<Record>;

    /// The live record of a key, as in a page; no use of it is counted.
    fn record(&self, key: &[u8], mono_ms: u64) -> Option<Record>;

    /// Gives a live record a new stamp from the outbox, as a local write of the same value with what is left of its
    /// life, if it is still the one stamped `stamp`. Returns whether it was.
    fn reissue(&self, key: &[u8], stamp: Stamp, now: Now) -> bool;
}

/// Live stamps of a range of positions, in position order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Samples {
    /// The first position after the range; `None` at the end of the space.
    pub hi: Option<u64>,
    /// Position and stamp of what is live and visible in the range.
    pub live: Vec<(u64, Stamp)>,
}

/// What a store knows at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// The stamp of the record that is live and visible there; the highest where keys share the position.
    pub live: Option<Stamp>,
    /// The grave there, where none is live.
    pub grave: Option<Bar>,
    /// The bar of the key there, clear barriers aside where none is live.
    pub bar: Bar,
}

/// What became of a record that was merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Merged {
    /// It is what the node holds now.
    Applied,
    /// The node knows something newer, or the same.
    Older,
}

/// A page of a store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StorePage {
    /// The first position after the page; `None` at the end of the space.
    pub hi: Option<u64>,
    /// The live records of the range, in position order.
    pub records: Vec<Record>,
    /// The positions of `records`, in the same order.
    pub positions: Vec<u64>,
    /// The graves of the range.
    pub graves: Vec<Grave>,
    /// The bar of what was forgotten in the range ([`super::Guard::floor`] of its first position).
    pub floor: Bar,
}

impl StorePage {
    /// About how many bytes a grave takes in a frame.
    pub const GRAVE_BYTES: usize = 28;

    /// Ends the page earlier if its records and graves together pass `budget_bytes`, but keeps at least one of them.
    /// What shares a position stays together.
    #[must_use]
    pub fn within(mut self, budget_bytes: usize) -> Self {
        let records = self
            .positions
            .iter()
            .zip(&self.records)
            .map(|(at, record)| (*at, wire::record_bytes_max(record)));
        let graves = self.graves.iter().map(|grave| (grave.position, Self::GRAVE_BYTES));
        let mut items: Vec<(u64, usize)> = records.chain(graves).collect();
        items.sort_unstable();
        let mut bytes = 0;
        let mut end = None;
        for pair in items.windows(2) {
            bytes += pair[0].1;
            if bytes + pair[1].1 > budget_bytes && pair[0].0 != pair[1].0 {
                end = Some(pair[1].0);
                break;
            }
        }
        if let Some(end) = end {
            let kept = self.positions.partition_point(|position| *position < end);
            self.positions.truncate(kept);
            self.records.truncate(kept);
            self.graves.retain(|grave| grave.position < end);
            self.hi = Some(end);
        }
        self
    }
}

/// Whether `record` replaces what is known of its key: the live record, or the bar where none lives.
///
/// `bar` is the key's bar (see [`super::Guard::bar`]), the clear barriers over it included. The same stamp with other
/// bytes comes from two lives under one backward clock: a remove wins then, and else the larger bytes, so that every
/// node ends with the same.
pub fn judge(record: &Record, live: Option<(Stamp, &Bytes)>, bar: Bar) -> bool {
    if bar.admits(record.stamp) {
        return true;
    }
    match (live, &record.op) {
        (Some((stamp, _)), Op::Remove) => stamp == record.stamp && bar == Bar::above(stamp),
        (Some((stamp, held)), Op::Put(value)) => {
            stamp == record.stamp && bar == Bar::above(stamp) && value.bytes > *held
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{message::Bar, node::Origin, record::Value, stamp::Hlc};

    fn stamp(ms: u64) -> Stamp {
        Stamp { hlc: Hlc::from_ms(ms), origin: Origin(1) }
    }

    fn put(ms: u64, value: &'static str) -> Record {
        let value = Value { bytes: Bytes::from_static(value.as_bytes()), ..Value::default() };
        Record { stamp: stamp(ms), key: Bytes::from_static(b"k"), op: Op::Put(value), previous: None }
    }

    #[test]
    fn an_older_record_is_ignored_and_a_newer_one_applied() {
        let held = Bytes::from_static(b"v");
        let live = Some((stamp(5), &held));
        assert!(!judge(&put(4, "z"), live, Bar::above(stamp(5))));
        assert!(!judge(&put(5, "v"), live, Bar::above(stamp(5))), "the same again is no news");
        assert!(judge(&put(6, "a"), live, Bar::above(stamp(5))));
    }

    #[test]
    fn at_one_stamp_a_remove_wins_then_the_larger_bytes() {
        let held = Bytes::from_static(b"m");
        let live = Some((stamp(5), &held));
        let bar = Bar::above(stamp(5));
        assert!(judge(&Record { op: Op::Remove, ..put(5, "") }, live, bar));
        assert!(judge(&put(5, "z"), live, bar));
        assert!(!judge(&put(5, "a"), live, bar));
        assert!(!judge(&put(5, "z"), None, bar), "a strict grave stays");
        assert!(!judge(&put(5, "z"), live, Bar::above(stamp(9))), "a barrier over the key stays");
    }

    #[test]
    fn a_page_is_cut_at_its_budget_but_keeps_what_shares_a_position_together() {
        let grave = |position| Grave { position, bar: Bar::at(stamp(1)) };
        let page = StorePage {
            hi: None,
            records: vec![put(1, "a"), put(2, "b")],
            positions: vec![10, 20],
            graves: vec![grave(5), grave(20), grave(30)],
            floor: Bar::NONE,
        };
        let cut = page.clone().within(130);
        assert_eq!((cut.hi, cut.records.len(), cut.graves.len()), (Some(20), 1, 1));
        let smallest = page.clone().within(0);
        assert_eq!((smallest.hi, smallest.records.len(), smallest.graves.len()), (Some(10), 0, 1));
        assert_eq!(page.clone().within(10_000), page);
    }
}
