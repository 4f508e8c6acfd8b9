//! An atomic upsert: what its closure sees, what it decides, and how that is done.

use std::{
    borrow::Borrow,
    hash::{BuildHasher, Hash},
    time::Duration,
};

use crate::{
    Cache, Cause, Expiry, Sidecar,
    clock::left,
    departed::Departing,
    shard::{Change, New, Origin, Shard},
};

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

impl<K, V, S, X> Cache<K, V, S, X>
where
    K: Hash + Eq,
    S: BuildHasher,
    X: Sidecar<K, V>,
{
    /// Looks at a key and decides what becomes of it, atomically: the closure runs once, under the shard's lock, with the shard's
    /// sidecar at hand.
    ///
    /// An expired entry is first given to the sidecar as a victim and then shown as vacant. `own` makes the owned key, and is called
    /// only if one is needed: for an insert under the lock, before anything is changed; for a replacement only if there is a
    /// listener to show it to. Counts neither as a read nor, with [`Verdict::Keep`], as a use.
    ///
    /// The closures must be short and must not call back into the cache: that would deadlock. If one panics, nothing was
    /// written but what it changed in place.
    ///
    /// ```
    /// use cache_core::{Cache, Expiry, Verdict};
    ///
    /// let cache: Cache<String, u64> = Cache::builder().capacity(10).build()?;
    /// let mut count = || {
    ///     cache.upsert("visits", str::to_owned, |slot, ()| {
    ///         let next = slot.value.map_or(1, |n| *n + 1);
    ///         (Verdict::Replace(next, Expiry::Keep), next)
    ///     })
    /// };
    /// assert_eq!((count(), count()), (1, 2));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn upsert<Q, R>(
        &self,
        key: &Q,
        own: impl FnOnce(&Q) -> K,
        f: impl FnOnce(Slot<'_, V>, &mut X) -> (Verdict<V>, R),
    ) -> R
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let inner = &**self.inner();
        let hash = inner.hasher.hash_one(key);
        let now = inner.time.now();
        let mut departed = Departing::new(inner);
        let (mut replaced, mut removed) = (None, None);
        let mut own = Some(own);
        let answer = {
            let mut guard = inner.lock(hash);
            let Shard { store, sidecar } = &mut *guard;
            let slot = store.live(hash, key, now, sidecar, &mut departed);
            let present = slot.map(|slot| store.deadline(slot));
            let shown = Slot {
                left: present.and_then(|deadline| left(deadline, now)),
                value: slot.map(|slot| &mut store.entry_mut(slot).value),
                position: hash,
            };
            let (verdict, answer) = f(shown, sidecar);
            let origin = verdict.origin();
            let deadline = |expiry| inner.deadline(expiry, now, present, (hash, origin));
            match (verdict, slot) {
                (Verdict::Keep, _) | (Verdict::Update(_) | Verdict::UpdateRemote(_), None) => {}
                (Verdict::Remove, None) => store.flights.overtake(hash),
                (Verdict::Update(expiry) | Verdict::UpdateRemote(expiry), Some(slot)) => {
                    let entry = store.entry(slot);
                    let weight = inner.weigh(&entry.key, &entry.value);
                    let change = Change { weight, deadline: deadline(expiry), origin, now };
                    store.update(slot, change, sidecar, &mut departed);
                }
                (Verdict::Remove, Some(slot)) => removed = Some(store.remove(slot)),
                (Verdict::Replace(value, expiry) | Verdict::ReplaceRemote(value, expiry), Some(slot)) => {
                    let weight = inner.weigh(&store.entry(slot).key, &value);
                    let change = Change { weight, deadline: deadline(expiry), origin, now };
                    replaced = Some(store.replace(slot, value, change, sidecar, &mut departed));
                }
                (Verdict::Replace(value, expiry) | Verdict::ReplaceRemote(value, expiry), None) => {
                    if let Some(own) = own.take() {
                        let key = own(key);
                        let weight = inner.weigh(&key, &value);
                        let new = New { hash, key, value, weight, deadline: deadline(expiry), origin };
                        store.insert(new, now, sidecar, &mut departed);
                    }
                }
            }
            answer
        };
        if let Some(listener) = &inner.listener {
            if let (Some(old), Some(own)) = (&replaced, own.take()) {
                listener(&own(key), old, Cause::Replaced);
            }
            if let Some((key, value)) = &removed {
                listener(key, value, Cause::Removed);
            }
        }
        inner.settle(&mut departed);
        answer
    }
}
