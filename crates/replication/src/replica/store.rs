//! Where the records live, as the replica sees it.
//!
//! The replica decides about streams, peers and transfers; the per-key decision is the store's, inside the lock that
//! guards the key, so that merges run in parallel with local writes and no moment exists between an eviction and its
//! grave. The rule is one for every store, [`judge`]; a store keeps a [`super::Guard`] beside each shard and the
//! shared [`super::Barriers`].

use std::time::Duration;

use bytes::Bytes;

use crate::{
    message::{Bar, Grave},
    record::{Op, Record},
    stamp::Stamp,
};

/// Holds the live records and the graves of a node. Called by the replica's task while other threads read and write.
///
/// No method waits, calls back into the replica, or holds a lock longer than for one key or one page.
pub trait Store: Send + Sync + 'static {
    /// Merges a remote put or remove under its key's lock. `left` is what is left of its life after transit: `None` for
    /// a record that does not expire, zero for one that died on the way (it leaves a strict grave).
    fn merge(&self, record: &Record, left: Option<Duration>) -> Merged;

    /// Raises a clear barrier. What is behind it is invisible at once and reclaimed lazily.
    fn clear(&self, namespace: &[u8], stamp: Stamp) -> Merged;

    /// Merges a peer's grave: a live record that its bar does not admit goes, and the grave is kept.
    fn bury(&self, grave: Grave);

    /// Everything known from `position` on, live records and graves side by side under one lock, up to about
    /// `budget_bytes` of records but at least one where there is one. Records carry what is left of their lives now,
    /// born at `wall_ms`.
    fn page(&self, position: u64, budget_bytes: usize, wall_ms: u64) -> StorePage;

    /// The clear barriers.
    fn cleared(&self) -> Vec<(Bytes, Stamp)>;

    /// Drops the live records at positions `lo..hi` whose stamp is below `below` and that `keep` does not name, each
    /// with a non-strict grave; returns how many.
    fn sweep(&self, lo: u64, hi: Option<u64>, below: Bar, keep: &dyn Fn(u64) -> bool) -> usize;

    /// While a full sync runs: keys that are not live at positions below `end` have at least this bar.
    fn cover(&self, end: u64, bar: Bar);

    /// Adopts a peer's floor everywhere, and ends a cover.
    fn raise_floor(&self, bar: Bar);
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
    /// The bar of what was forgotten in the range.
    pub floor: Bar,
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
