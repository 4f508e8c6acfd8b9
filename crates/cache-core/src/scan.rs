//! A page of a scan in position order.

use std::time::Duration;

use crate::{clock::left, shard::Store};

/// One page of [`Cache::scan`](crate::Cache::scan), valid while its shard is locked.
///
/// It covers the positions from [`lo`](Self::lo) up to, but not including, [`next`](Self::next): every live entry of that range is
/// in [`items`](Self::items), so an absent position is known to be absent. A page may be empty while `next` is still `Some`.
#[derive(Debug)]
#[non_exhaustive]
pub struct ScanPage<'a, K, V> {
    /// The live entries, in ascending order of position.
    pub items: &'a [ScanItem<'a, K, V>],
    /// The position that this page starts at, as it was asked for.
    pub lo: u64,
    /// Where to go on; `None` after the last page.
    pub next: Option<u64>,
}

/// An entry as a scan shows it.
#[derive(Debug)]
#[non_exhaustive]
pub struct ScanItem<'a, K, V> {
    /// The key's hash.
    pub position: u64,
    /// The key.
    pub key: &'a K,
    /// The value.
    pub value: &'a V,
    /// The lifetime that is left, `None` if the entry never expires.
    pub left: Option<Duration>,
}

impl<K, V> Store<K, V> {
    /// An entry as a scan shows it.
    pub(crate) fn item(&self, position: u64, slot: u32, now: u64) -> ScanItem<'_, K, V> {
        let entry = self.entry(slot);
        ScanItem { position, key: &entry.key, value: &entry.value, left: left(entry.deadline, now) }
    }
}
