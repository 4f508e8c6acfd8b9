//! The handle: what it tells of itself, inserting and removing, and what goes through all shards.
//!
//! The other operations on single keys are beside: `read.rs`, `update.rs`, `upsert.rs`, `load/`.

use std::{
    borrow::Borrow,
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    sync::Arc,
    time::Duration,
};

use crate::{
    Builder, Cause, Expiry, Sidecar, Stats,
    departed::{Departing, Panics},
    inner::Inner,
    shard::{Budget, Change, New, Origin, Shard},
};

/// A sharded TTL LRU cache in memory. Cloning makes another handle on the same cache; when the last is dropped, so is the cache
/// (on the ticker's thread, if that is in the middle of a step).
///
/// The [crate's documentation](crate) tells how it evicts and what runs under its locks.
///
/// ```
/// use std::time::Duration;
/// use cache_core::Cache;
///
/// let cache: Cache<String, u32> = Cache::builder().capacity(1_000).default_ttl(Duration::from_secs(60)).build()?;
/// let other_handle = cache.clone();
/// other_handle.insert("answer".to_owned(), 42);
/// assert_eq!(cache.get("answer"), Some(42));
/// # Ok::<(), cache_core::ConfigError>(())
/// ```
pub struct Cache<K, V, S = RandomState, X = ()> {
    inner: Arc<Inner<K, V, S, X>>,
}

impl<K, V> Cache<K, V> {
    /// Begins the configuration of a cache.
    ///
    /// ```
    /// let cache: cache_core::Cache<u64, String> = cache_core::Cache::builder().capacity(1_000).build()?;
    /// assert!(cache.is_empty());
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn builder() -> Builder<K, V> {
        Builder::new()
    }
}

impl<K, V, S, X> Cache<K, V, S, X> {
    pub(crate) fn from_inner(inner: Arc<Inner<K, V, S, X>>) -> Self {
        Cache { inner }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner<K, V, S, X>> {
        &self.inner
    }

    /// How many entries are held, counting those that expired and were not reclaimed yet. Never more than the capacity.
    ///
    /// Takes each shard's lock in turn, so under concurrent writes it is not one instant's number.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(2).build()?;
    /// (0..5).for_each(|n| { cache.insert(n, ()); });
    /// assert_eq!(cache.len(), 2);
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.shards.iter().map(|shard| shard.0.lock().store.len()).sum()
    }

    /// Whether [`len`](Self::len) is 0.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(2).build()?;
    /// cache.insert("k", 1);
    /// assert!(!cache.is_empty());
    /// cache.remove("k");
    /// assert!(cache.is_empty());
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.shards.iter().all(|shard| shard.0.lock().store.len() == 0)
    }

    /// The weight of what is held, as [`len`](Self::len) counts it. Without a weigher, the same number. Never more than the capacity.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().weight_capacity(100).weigher(|_, v: &Vec<u8>| v.len() as u64).build()?;
    /// cache.insert("a", vec![0; 30]);
    /// cache.insert("b", vec![0; 50]);
    /// assert_eq!((cache.len(), cache.weight()), (2, 80));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.inner.shards.iter().fold(0, |sum, shard| shard.0.lock().store.weight().saturating_add(sum))
    }

    /// The most entries, if they are bounded.
    ///
    /// ```
    /// let cache = cache_core::Cache::<u32, u32>::builder().capacity(100).build()?;
    /// assert_eq!((cache.capacity(), cache.weight_capacity()), (Some(100), None));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn capacity(&self) -> Option<usize> {
        self.inner.capacity.entries()
    }

    /// The most weight, if it is bounded.
    ///
    /// ```
    /// let cache = cache_core::Cache::<u32, u32>::builder().weight_capacity(4_096).weigher(|_, v| u64::from(*v)).build()?;
    /// assert_eq!((cache.capacity(), cache.weight_capacity()), (None, Some(4_096)));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn weight_capacity(&self) -> Option<u64> {
        self.inner.capacity.weight()
    }

    /// The number of shards, a power of two.
    ///
    /// ```
    /// let cache = cache_core::Cache::<u32, u32>::builder().capacity(100_000).build()?;
    /// assert_eq!(cache.shards(), 64);
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn shards(&self) -> usize {
        self.inner.shards.len()
    }

    /// What the cache did since it was built. Takes each shard's lock in turn.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(10).build()?;
    /// cache.insert("k", 1);
    /// (cache.get("k"), cache.get("none"));
    /// let stats = cache.stats();
    /// assert_eq!((stats.inserts, stats.hits, stats.misses), (1, 1, 1));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// Gives each shard's sidecar to the closure in turn, under that shard's lock, in the order of positions.
    ///
    /// The closure must not call back into the cache: that would deadlock.
    ///
    /// ```
    /// use cache_core::{Cache, Cause, Sidecar};
    ///
    /// /// Counts what its shard gave up.
    /// #[derive(Default)]
    /// struct Lost(u64);
    ///
    /// impl Sidecar<u32, ()> for Lost {
    ///     fn victim(&mut self, _: u64, _: &u32, _: &(), _: Cause) {
    ///         self.0 += 1;
    ///     }
    /// }
    ///
    /// let cache = Cache::builder().capacity(16).shards(4).sidecar(Lost::default).build()?;
    /// (0..100).for_each(|n| { cache.insert(n, ()); });
    /// let mut lost = 0;
    /// cache.with_sidecars(|shard| lost += shard.0);
    /// assert_eq!(lost, cache.stats().evictions);
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn with_sidecars(&self, mut f: impl FnMut(&mut X)) {
        for shard in &self.inner.shards {
            f(&mut shard.0.lock().sidecar);
        }
    }

    /// Gives the closure the sidecar of the shard that a position belongs to, under the shard's lock.
    ///
    /// The closure must not call back into the cache: that would deadlock.
    ///
    /// ```
    /// use cache_core::{Cache, Cause, Sidecar};
    ///
    /// /// Counts what its shard gave up.
    /// #[derive(Default)]
    /// struct Lost(u64);
    ///
    /// impl Sidecar<u32, ()> for Lost {
    ///     fn victim(&mut self, _: u64, _: &u32, _: &(), _: Cause) {
    ///         self.0 += 1;
    ///     }
    /// }
    ///
    /// let cache = Cache::builder().capacity(16).shards(4).sidecar(Lost::default).build()?;
    /// (0..100).for_each(|n| { cache.insert(n, ()); });
    /// let lost_beside_7 = cache.with_sidecar_at(cache.position(&7), |shard| shard.0);
    /// assert!(lost_beside_7 <= cache.stats().evictions);
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn with_sidecar_at<R>(&self, position: u64, f: impl FnOnce(&mut X) -> R) -> R {
        f(&mut self.inner.lock(position).sidecar)
    }

    /// Takes every entry out, shard after shard; writes of other threads may come between.
    ///
    /// The sidecars are not told: this is a caller's will, and whoever needs it there has [`with_sidecars`](Self::with_sidecars).
    /// The listener hears of each entry as [`Removed`](Cause::Removed), after the locks.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(10).build()?;
    /// cache.insert("k", 1);
    /// cache.clear();
    /// assert_eq!((cache.get("k"), cache.stats().cleared), (None, 1));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn clear(&self) {
        let mut panics = Panics::default();
        for shard in &self.inner.shards {
            let cleared = shard.0.lock().store.clear();
            if let Some(listener) = &self.inner.listener {
                for (key, value) in cleared.entries() {
                    panics.catch(|| listener(key, value, Cause::Removed));
                }
            }
            panics.catch(|| drop(cleared));
        }
        panics.resume();
    }
}

impl<K, V, S, X> Cache<K, V, S, X>
where
    K: Hash + Eq,
    S: BuildHasher,
    X: Sidecar<K, V>,
{
    /// Puts a value under a key for the default lifetime, and returns the live value that it replaced.
    ///
    /// May evict others to make room. See [`Builder::weight_capacity`] for values that are too heavy to keep.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(10).build()?;
    /// assert_eq!(cache.insert("k", 1), None);
    /// assert_eq!(cache.insert("k", 2), Some(1));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn insert(&self, key: K, value: V) -> Option<V> {
        self.insert_with_expiry(key, value, Expiry::Default)
    }

    /// [`insert`](Self::insert) with an [`Expiry`]: a lifetime of its own, none, the default one, or the present entry's.
    ///
    /// ```
    /// use std::time::Duration;
    /// use cache_core::{Cache, Expiry};
    ///
    /// let cache = Cache::builder().capacity(10).default_ttl(Duration::from_secs(60)).build()?;
    /// cache.insert_with_expiry("pinned", 1, Expiry::Never);
    /// assert_eq!(cache.insert_with_expiry("pinned", 2, Expiry::Keep), Some(1));
    /// assert_eq!(cache.read("pinned", |value, left| (*value, left)), Some((2, None)));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn insert_with_expiry(&self, key: K, value: V, expiry: Expiry) -> Option<V> {
        self.write(key, value, expiry, Origin::Local)
    }

    /// [`insert`](Self::insert) for this long: [`Expiry::After`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// let cache = cache_core::Cache::builder().capacity(10).build()?;
    /// cache.insert_with_ttl("k", 1, Duration::from_secs(60));
    /// assert!(cache.read("k", |_, left| left).flatten() <= Some(Duration::from_secs(60)));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn insert_with_ttl(&self, key: K, value: V, ttl: Duration) -> Option<V> {
        self.write(key, value, Expiry::After(ttl), Origin::Local)
    }

    /// Puts a value under a key for a write that came from another region, and returns the live value that it replaced.
    ///
    /// With a [remote depth](crate::Builder::remote_depth), a new entry stands there, so that it does not push out what is used here,
    /// and a new value in the place of a live one is not a use of it: its place in the order does not change, and it may not be idle
    /// for longer. Without one (0.0), both are as with [`insert`](Self::insert).
    ///
    /// Either way the lifetime was decided where it was written, so no [jitter](crate::Builder::ttl_jitter) is applied to it:
    /// regions that shortened it each for themselves would not hold the entry for the same time.
    ///
    /// ```
    /// use cache_core::{Cache, Expiry};
    ///
    /// let cache = Cache::builder().capacity(4).remote_depth(0.5).build()?;
    /// (0..4).for_each(|n| { cache.insert(n, "here"); });
    /// (4..100).for_each(|n| { cache.insert_remote(n, "there", Expiry::Default); });
    /// assert!(cache.contains(&3) && cache.contains(&2), "only the colder half of the list was for the taking");
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn insert_remote(&self, key: K, value: V, expiry: Expiry) -> Option<V> {
        self.write(key, value, expiry, Origin::Remote)
    }

    #[inline]
    fn write(&self, key: K, value: V, expiry: Expiry, origin: Origin) -> Option<V> {
        let inner = &*self.inner;
        let hash = inner.hasher.hash_one(&key);
        let weight = inner.weigh(&key, &value);
        let now = inner.time.now();
        let mut departed = Departing::new(inner);
        let (key, old) = {
            let mut guard = inner.lock(hash);
            let Shard { store, sidecar } = &mut *guard;
            match store.live(hash, &key, now, sidecar, &mut departed) {
                Some(slot) => {
                    let deadline = inner.deadline(expiry, now, Some(store.deadline(slot)), (hash, origin));
                    let change = Change { weight, deadline, origin, now };
                    (key, store.replace(slot, value, change, sidecar, &mut departed))
                }
                None => {
                    let deadline = inner.deadline(expiry, now, None, (hash, origin));
                    let new = New { hash, key, value, weight, deadline, origin };
                    store.insert(new, now, sidecar, &mut departed);
                    drop(guard);
                    inner.settle(&mut departed);
                    return None;
                }
            }
        };
        if let Some(listener) = &inner.listener {
            listener(&key, &old, Cause::Replaced);
        }
        inner.settle(&mut departed);
        Some(old)
    }

    /// Takes an entry out and returns its value, if it was live.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(10).build()?;
    /// cache.insert("k", 1);
    /// assert_eq!((cache.remove("k"), cache.remove("k")), (Some(1), None));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn remove<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let inner = &*self.inner;
        let hash = inner.hasher.hash_one(key);
        let now = inner.time.now();
        let (key, value) = inner.within(hash, |store, sidecar, departed| {
            store.flights.overtake(hash);
            store.live(hash, key, now, sidecar, departed).map(|slot| store.remove(slot))
        })?;
        if let Some(listener) = &inner.listener {
            listener(&key, &value, Cause::Removed);
        }
        Some(value)
    }

    /// The place of a key in the order of a [`scan`](Self::scan): its hash.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(10).build()?;
    /// cache.insert("k", 1);
    /// let first = cache.scan(0, 1, |page, ()| page.items.first().map(|item| item.position));
    /// assert_eq!(first, Some(cache.position("k")));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn position<Q>(&self, key: &Q) -> u64
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.inner.hasher.hash_one(key)
    }

    /// Reclaims everything that has expired by now and returns how many entries that were.
    ///
    /// The ticker's thread does this by itself in the background; a cache on a [`ManualClock`](crate::ManualClock) has no thread
    /// and leaves it to this. It works in the same short steps, so other threads are not held up.
    ///
    /// ```
    /// use std::time::Duration;
    /// use cache_core::{Cache, ManualClock};
    ///
    /// let clock = ManualClock::new();
    /// let cache = Cache::builder().capacity(10).default_ttl(Duration::from_secs(1)).clock(clock.clone()).build()?;
    /// cache.insert("k", 1);
    /// clock.advance(Duration::from_secs(1));
    /// assert_eq!((cache.len(), cache.sweep(), cache.len()), (1, 1, 0));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn sweep(&self) -> usize {
        let now = self.inner.time.now();
        let (mut departed, mut panics) = (Departing::new(&self.inner), Panics::default());
        let mut reclaimed = 0;
        for index in 0..self.inner.shards.len() {
            // The first walk may have been begun by the ticker at an earlier time; the second is then wholly ours.
            for _ in 0..2 {
                while self.inner.is_due(index, now) {
                    let mut budget = Budget::unlimited();
                    let swept = self.inner.sweep_step(index, &mut budget, &mut departed);
                    self.inner.tell(&mut departed, &mut panics);
                    reclaimed += swept.reclaimed;
                    if swept.finished {
                        break;
                    }
                }
            }
        }
        panics.resume();
        reclaimed
    }
}

impl<K, V, S, X> Clone for Cache<K, V, S, X> {
    fn clone(&self) -> Self {
        Cache { inner: Arc::clone(&self.inner) }
    }
}

/// Shows the configuration and takes no lock, so it may be printed where one is held.
impl<K, V, S, X> fmt::Debug for Cache<K, V, S, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("capacity", &self.inner.capacity.entries())
            .field("weight_capacity", &self.inner.capacity.weight())
            .field("shards", &self.shards())
            .finish_non_exhaustive()
    }
}
