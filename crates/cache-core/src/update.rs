//! Changes to an entry that is there: its value in place, or its lifetime alone.

use std::{
    borrow::Borrow,
    hash::{BuildHasher, Hash},
};

use crate::{
    Cache, Expiry, Sidecar,
    shard::{Change, Origin},
};

impl<K, V, S, X> Cache<K, V, S, X>
where
    K: Hash + Eq,
    S: BuildHasher,
    X: Sidecar<K, V>,
{
    /// Changes a live value in its place, atomically, and returns what the closure answers; `None` if there is no live entry.
    ///
    /// The entry keeps its deadline ([`update_with_expiry`](Self::update_with_expiry) gives it another), is weighed anew, and counts as
    /// used. If it became heavier than [its share](crate::Builder::weight_capacity) it is evicted at once; otherwise others make room for it.
    /// Nobody sees the value that it was: the listener is not told. [`upsert`](Self::upsert) does the same for a key that may be
    /// vacant.
    ///
    /// The closure runs under the shard's lock: it must be short and must not call back into the cache, which would deadlock. If it
    /// panics, the entry stays with what was changed by then, as heavy as it was.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(10).build()?;
    /// cache.insert("list", vec![1]);
    /// let len = cache.update("list", |list| { list.push(2); list.len() });
    /// assert_eq!((len, cache.get("list")), (Some(2), Some(vec![1, 2])));
    /// assert_eq!(cache.update("none", |list| list.clear()), None);
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn update<Q, R>(&self, key: &Q, f: impl FnOnce(&mut V) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.update_with_expiry(key, Expiry::Keep, f)
    }

    /// [`update`](Self::update) that gives the entry another lifetime, beginning now.
    ///
    /// ```
    /// use std::time::Duration;
    /// use cache_core::{Cache, Expiry};
    ///
    /// let cache = Cache::builder().capacity(10).build()?;
    /// cache.insert("n", 1);
    /// cache.update_with_expiry("n", Expiry::After(Duration::from_secs(5)), |n| *n += 1);
    /// assert!(cache.read("n", |n, left| *n == 2 && left.is_some()).is_some_and(|right| right));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn update_with_expiry<Q, R>(&self, key: &Q, expiry: Expiry, f: impl FnOnce(&mut V) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let inner = &**self.inner();
        let hash = inner.hasher.hash_one(key);
        let now = inner.time.now();
        inner.within(hash, |store, sidecar, departed| {
            let slot = store.live(hash, key, now, sidecar, departed)?;
            let answer = f(&mut store.entry_mut(slot).value);
            let entry = store.entry(slot);
            let weight = inner.weigh(&entry.key, &entry.value);
            let origin = Origin::Local;
            let deadline = inner.deadline(expiry, now, Some(store.deadline(slot)), (hash, origin));
            store.update(slot, Change { weight, deadline, origin, now }, sidecar, departed);
            Some(answer)
        })
    }

    /// Gives a live entry another lifetime, beginning now, and counts as a use; `false` if there is none.
    ///
    /// ```
    /// use std::time::Duration;
    /// use cache_core::{Cache, Expiry, ManualClock};
    ///
    /// let clock = ManualClock::new();
    /// let cache = Cache::builder().capacity(10).clock(clock.clone()).build()?;
    /// cache.insert_with_ttl("session", 1, Duration::from_secs(30));
    /// clock.advance(Duration::from_secs(29));
    /// assert!(cache.touch("session", Expiry::After(Duration::from_secs(30))));
    /// clock.advance(Duration::from_secs(29));
    /// assert!(cache.contains("session"));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn touch<Q>(&self, key: &Q, expiry: Expiry) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let inner = &**self.inner();
        let hash = inner.hasher.hash_one(key);
        let now = inner.time.now();
        inner.within(hash, |store, sidecar, departed| {
            let slot = store.live(hash, key, now, sidecar, departed);
            if let Some(slot) = slot {
                let present = Some(store.deadline(slot));
                store.touch(slot, inner.deadline(expiry, now, present, (hash, Origin::Local)), now);
            }
            slot.is_some()
        })
    }
}
