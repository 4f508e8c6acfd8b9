//! The words of an atomic upsert: what its closure sees, and what it decides.

use std::time::Duration;

use crate::{Expiry, shard::Origin};

/// What an [`upsert`](crate::Cache::upsert) found under its key.
///
/// ```
/// use cache_core::{Cache, Expiry, Verdict};
///
/// let cache = Cache::builder().capacity(10).build()?;
/// cache.insert(7, vec![1]);
/// let was = cache.upsert(&7, |key| *key, |slot, ()| {
///     assert_eq!(slot.left, None);
///     match slot.value {
///         Some(list) => {
///             list.push(2);
///             (Verdict::Update(Expiry::Keep), true)
///         }
///         None => (Verdict::Replace(vec![2], Expiry::Default), false),
///     }
/// });
/// assert_eq!((was, cache.get(&7)), (true, Some(vec![1, 2])));
/// # Ok::<(), cache_core::ConfigError>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Slot<'a, V> {
    /// The live value, or `None` when the key is vacant (an expired entry counts as vacant). What is changed in it in place has to
    /// be told by [`Verdict::Update`].
    pub value: Option<&'a mut V>,
    /// The lifetime that is left; `None` for an entry that never expires, and for a vacant key.
    pub left: Option<Duration>,
    /// The key's position in scan order: its hash.
    pub position: u64,
}

/// What an [`upsert`](crate::Cache::upsert) does with what it found.
///
/// ```
/// use cache_core::{Cache, Expiry, Verdict};
///
/// /// Writes a version unless a newer one is there.
/// fn offer(cache: &Cache<String, u64>, key: &str, version: u64) -> bool {
///     cache.upsert(key, str::to_owned, |slot, ()| match slot.value {
///         Some(held) if *held >= version => (Verdict::Keep, false),
///         _ => (Verdict::Replace(version, Expiry::Default), true),
///     })
/// }
///
/// let cache = Cache::builder().capacity(10).build()?;
/// assert!(offer(&cache, "k", 2) && !offer(&cache, "k", 1));
/// assert_eq!(cache.get("k"), Some(2));
/// # Ok::<(), cache_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<V> {
    /// Leave everything as it is. Not a use: the entry's place in the eviction order does not change.
    Keep,
    /// Put this value there, with this lifetime. On a vacant key this is an insert.
    Replace(V, Expiry),
    /// The value was changed in its place: weigh it anew, and give it this lifetime. Saves what a replacement costs where the value
    /// can take over the new one's content, an equally long buffer for instance. Nobody sees the value that it was: the listener
    /// is not told. On a vacant key this does nothing.
    Update(Expiry),
    /// [`Replace`](Self::Replace) for a write that came from another region. With a [remote depth](crate::Builder::remote_depth), a new
    /// entry stands there, and a new value in the place of a live one is not a use; without one (0.0), both are as with
    /// `Replace`. Either way the lifetime was decided where it was written, so no [jitter](crate::Builder::ttl_jitter) is applied
    /// to it.
    ReplaceRemote(V, Expiry),
    /// [`Update`](Self::Update) for a write that came from another region: without jitter, and with a
    /// [remote depth](crate::Builder::remote_depth) not a use.
    UpdateRemote(Expiry),
    /// Take the entry out. On a vacant key this does nothing.
    Remove,
}

impl<V> Verdict<V> {
    pub(crate) fn origin(&self) -> Origin {
        match self {
            Verdict::ReplaceRemote(..) | Verdict::UpdateRemote(_) => Origin::Remote,
            Verdict::Keep | Verdict::Replace(..) | Verdict::Update(_) | Verdict::Remove => Origin::Local,
        }
    }
}
