//! The words of an atomic upsert: what its closure sees, and what it decides.

use std::time::Duration;

use crate::Expiry;

/// What an [`upsert`](crate::Cache::upsert) found under its key.
#[derive(Debug)]
#[non_exhaustive]
pub struct Slot<'a, V> {
    /// The live value, or `None` when the key is vacant (an expired entry counts as vacant).
    pub value: Option<&'a V>,
    /// The lifetime that is left; `None` for an entry that never expires, and for a vacant key.
    pub left: Option<Duration>,
    /// The key's position in scan order: its hash.
    pub position: u64,
}

/// What an [`upsert`](crate::Cache::upsert) does with what it found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<V> {
    /// Leave everything as it is. Not a use: the entry's place in the eviction order does not change.
    Keep,
    /// Put this value there, with this lifetime. On a vacant key this is an insert.
    Replace(V, Expiry),
    /// Take the entry out. On a vacant key this does nothing.
    Remove,
}
