//! Reads of single keys: each takes one shard's lock, and changes no more than a mark.

use std::{
    borrow::Borrow,
    hash::{BuildHasher, Hash},
    time::Duration,
};

use crate::{
    Cache, Cause, Sidecar,
    clock::left,
    departed::Departed,
    shard::{Shard, Store},
    sync::MutexGuard,
};

impl<K, V, S, X> Cache<K, V, S, X>
where
    K: Hash + Eq,
    S: BuildHasher,
    X: Sidecar<K, V>,
{
    /// The value under a key, cloned, or `None` if there is none or it expired. Counts as a hit or a miss, and a hit as a use.
    ///
    /// One hash, one lock, one load of the clock, and nothing copied but what `V::clone` copies. The clone is made under the lock,
    /// so keep it cheap: put large values into an `Arc`.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(10).build()?;
    /// cache.insert("k".to_owned(), 1);
    /// // A borrowed form of the key will do.
    /// assert_eq!((cache.get("k"), cache.get("none")), (Some(1), None));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    #[inline]
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        self.access(key, |store, slot, _| store.entry(slot).value.clone())
    }

    /// Reads the value in place, under the shard's lock, with the lifetime it has left (`None`: for ever). Otherwise as [`get`](Self::get).
    ///
    /// The closure must be short and must not call back into the cache: that would deadlock.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(10).build()?;
    /// cache.insert("k", vec![1, 2, 3]);
    /// assert_eq!(cache.read("k", |v, left| (v.len(), left)), Some((3, None)));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    #[inline]
    pub fn read<Q, R>(&self, key: &Q, f: impl FnOnce(&V, Option<Duration>) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.access(key, |store, slot, now| f(&store.entry(slot).value, left(store.deadline(slot), now)))
    }

    #[inline]
    fn access<Q, R>(&self, key: &Q, f: impl FnOnce(&Store<K, V>, u32, u64) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.inner().hasher.hash_one(key);
        let now = self.inner().time.now();
        let mut shard = self.inner().lock(hash);
        let store = &mut shard.store;
        let Some(slot) = store.find(hash, key) else {
            store.counts.misses += 1;
            return None;
        };
        if !store.is_live(slot, now) {
            self.miss_expired(shard, slot);
            return None;
        }
        store.hit(slot, now);
        Some(f(store, slot, now))
    }

    /// A read met an expired entry: reclaims it under the lock that the read has.
    #[cold]
    fn miss_expired(&self, mut guard: MutexGuard<'_, Shard<K, V, X>>, slot: u32) {
        let mut departed = Departed::new();
        let Shard { store, sidecar } = &mut *guard;
        store.counts.misses += 1;
        store.give_up(slot, Cause::Expired, sidecar, &mut departed);
        drop(guard);
        self.inner().settle(&mut departed);
    }

    /// The value under a key, cloned, without counting a read or a use.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(10).build()?;
    /// cache.insert("k", 1);
    /// assert_eq!((cache.peek("k"), cache.stats().hits), (Some(1), 0));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn peek<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        self.look(key, V::clone)
    }

    /// Whether a key has a live entry, without counting a read or a use.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(10).build()?;
    /// cache.insert("k", 1);
    /// assert!(cache.contains("k") && !cache.contains("none"));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.look(key, |_| ()).is_some()
    }

    fn look<Q, R>(&self, key: &Q, f: impl FnOnce(&V) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.inner().hasher.hash_one(key);
        let now = self.inner().time.now();
        let shard = self.inner().lock(hash);
        let slot = shard.store.find(hash, key)?;
        shard.store.is_live(slot, now).then(|| f(&shard.store.entry(slot).value))
    }

    /// Shows the closure the live values of many keys, in no order, ahead of operations on those keys.
    ///
    /// In a large cache most of an operation's time is waiting for memory, one entry after the other. Here the keys of a shard are
    /// looked up together under one lock, so that their entries are fetched at once, and what the closure reads of the values too;
    /// each operation that follows soon finds its entry near. Some hundred keys at a time are right: many more would push each
    /// other out again. Counts neither as reads nor as uses.
    ///
    /// The closure must be short and must not call back into the cache: that would deadlock.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(100).build()?;
    /// (0..50).for_each(|n| { cache.insert(n, vec![n; 10]); });
    /// let keys = [7, 9, 1_000];
    /// cache.look_ahead(&keys, |value| { std::hint::black_box(value[0]); });
    /// let values: Vec<_> = keys.iter().filter_map(|key| cache.get(key)).collect();
    /// assert_eq!(values.len(), 2);
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn look_ahead<'a, Q>(&self, keys: impl IntoIterator<Item = &'a Q>, mut f: impl FnMut(&V))
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized + 'a,
    {
        /// Look-ups whose outcomes are kept until the values are shown.
        const TOGETHER: usize = 64;
        let inner = &**self.inner();
        let now = inner.time.now();
        let mut keys: Vec<(u64, &Q)> =
            keys.into_iter().map(|key| (inner.hasher.hash_one(key), key)).collect();
        // Shards are ranges of hashes.
        keys.sort_unstable_by_key(|(hash, _)| *hash);
        for of_shard in
            keys.chunk_by(|(one, _), (next, _)| inner.shard_index(*one) == inner.shard_index(*next))
        {
            let shard = inner.lock(of_shard[0].0);
            for together in of_shard.chunks(TOGETHER) {
                let mut found = [None; TOGETHER];
                for (slot, (hash, key)) in found.iter_mut().zip(together) {
                    *slot = shard.store.find(*hash, *key);
                }
                let live = found.into_iter().flatten().filter(|slot| shard.store.is_live(*slot, now));
                for slot in live {
                    f(&shard.store.entry(slot).value);
                }
            }
        }
    }
}
