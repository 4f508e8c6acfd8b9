//! How much a cache may hold, how that is divided among its shards, and how it changes at run time.

use std::{
    hash::{BuildHasher, Hash},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use crate::{
    Cache, ConfigError, Sidecar,
    departed::{Departing, Panics},
    inner::Inner,
    shard::{Shard, Share},
    sync::Mutex,
};

/// The bounds of a cache. 0 stands for none.
pub(crate) struct Capacity {
    /// What is promised: never less than what the shards may hold together.
    entries: AtomicUsize,
    weight: AtomicU64,
    /// Held for a step of a resize, and never while others' code is told of what that evicted, which may resize, too.
    wanted: Mutex<Wanted>,
}

/// What the shards' shares are to add up to. Each step of a resize goes by this, so of several under way the newest wins.
struct Wanted {
    entries: Option<usize>,
    weight: Option<u64>,
    /// The number of the newest resize. The one that bears it when it ends has been through all shards with what is wanted.
    newest: u64,
}

impl Capacity {
    pub(crate) fn new(entries: Option<usize>, weight: Option<u64>) -> Self {
        Capacity {
            entries: AtomicUsize::new(entries.unwrap_or(0)),
            weight: AtomicU64::new(weight.unwrap_or(0)),
            wanted: Mutex::new(Wanted { entries, weight, newest: 0 }),
        }
    }

    pub(crate) fn entries(&self) -> Option<usize> {
        Some(self.entries.load(Ordering::Relaxed)).filter(|entries| *entries > 0)
    }

    pub(crate) fn weight(&self) -> Option<u64> {
        Some(self.weight.load(Ordering::Relaxed)).filter(|weight| *weight > 0)
    }

    /// A resize has been through all shards. If it is still the newest, each has the share that is wanted.
    fn reached(&self, number: u64) {
        let wanted = self.wanted.lock();
        if wanted.newest == number {
            self.entries.store(wanted.entries.unwrap_or(0), Ordering::Relaxed);
            self.weight.store(wanted.weight.unwrap_or(0), Ordering::Relaxed);
        }
    }
}

/// The share of one shard: the first ones take what does not divide evenly.
pub(crate) fn share(entries: Option<usize>, weight: Option<u64>, index: usize, count: usize) -> Share {
    let weight = weight.map_or(u64::MAX, |weight| {
        let (count, index) = (count as u64, index as u64);
        weight / count + u64::from(index < weight % count)
    });
    let entries =
        entries.map_or(usize::MAX, |entries| entries / count + usize::from(index < entries % count));
    // Each entry weighs at least 1, so more entries than weight cannot be; and slots are numbered by 32 bits.
    let entries = entries.min(usize::try_from(weight).unwrap_or(usize::MAX)).min(u32::MAX as usize - 1);
    Share { entries, weight }
}

impl<K, V, S, X> Cache<K, V, S, X>
where
    K: Hash + Eq,
    S: BuildHasher,
    X: Sidecar<K, V>,
{
    /// Changes the most entries that the cache may hold, at run time.
    ///
    /// A larger capacity holds at once. For a smaller one, what is too much is evicted shard after shard, in steps of at most 256
    /// entries under a lock, so other threads are not held up; the sidecars hear of each under the lock and the listener after it, as of any
    /// eviction. Once this returns, the new capacity is never exceeded. The number of shards stays. So does memory that is laid out
    /// already, until the cache is cleared, or the last entries of a shard expire; it is used again when the capacity grows.
    ///
    /// Resizes may overlap, also by a listener that resizes: the one that was called last wins. If a listener panics, the resize is
    /// done all the same, and then the panic goes on.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with the field `capacity`: if it is less than the number of shards (each must have room for an entry), or if
    /// the cache was built without a capacity in entries. Then nothing has changed.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(100).build()?;
    /// (0..100).for_each(|n| { cache.insert(n, ()); });
    /// cache.resize(10)?;
    /// assert_eq!((cache.capacity(), cache.len()), (Some(10), 10));
    /// assert_eq!(cache.resize(0).unwrap_err().field, "capacity");
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn resize(&self, entries: usize) -> Result<(), ConfigError> {
        let capacity = &self.inner().capacity;
        let number = {
            let mut wanted = capacity.wanted.lock();
            if wanted.entries.is_none() {
                let reason = "the cache is bounded by weight alone; use resize_weight";
                return Err(ConfigError::new("capacity", reason));
            }
            if entries < self.shards() {
                return Err(too_small("capacity", entries as u64, self.shards()));
            }
            // Whoever compares what is held with the capacity never finds more: a larger one is told before it is used, a smaller
            // one when it is reached.
            capacity.entries.fetch_max(entries, Ordering::Relaxed);
            wanted.entries = Some(entries);
            wanted.begin()
        };
        self.resize_shards(number);
        Ok(())
    }

    /// Changes the most weight that the cache may hold, at run time: [`resize`](Self::resize) in the weigher's unit.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with the field `weight_capacity`: if it is less than the number of shards, or if the cache was built without
    /// a capacity by weight. Then nothing has changed.
    ///
    /// ```
    /// let weigher = |_: &u32, text: &String| text.len() as u64;
    /// let cache = cache_core::Cache::builder().weight_capacity(1_000).weigher(weigher).build()?;
    /// (0..10).for_each(|n| { cache.insert(n, "x".repeat(100)); });
    /// cache.resize_weight(250)?;
    /// assert_eq!((cache.weight_capacity(), cache.weight()), (Some(250), 200));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn resize_weight(&self, weight: u64) -> Result<(), ConfigError> {
        let capacity = &self.inner().capacity;
        let number = {
            let mut wanted = capacity.wanted.lock();
            if wanted.weight.is_none() {
                let reason = "the cache is not bounded by weight; use resize";
                return Err(ConfigError::new("weight_capacity", reason));
            }
            if weight < self.shards() as u64 {
                return Err(too_small("weight_capacity", weight, self.shards()));
            }
            capacity.weight.fetch_max(weight, Ordering::Relaxed);
            wanted.weight = Some(weight);
            wanted.begin()
        };
        self.resize_shards(number);
        Ok(())
    }

    fn resize_shards(&self, number: u64) {
        let inner: &Inner<K, V, S, X> = self.inner();
        let (mut departed, mut panics) = (Departing::new(inner), Panics::default());
        for (index, shard) in inner.shards.iter().enumerate() {
            let mut is_reached = false;
            while !is_reached {
                let now = inner.time.now();
                {
                    let wanted = inner.capacity.wanted.lock();
                    let target = share(wanted.entries, wanted.weight, index, inner.shards.len());
                    let mut guard = shard.0.lock();
                    let Shard { store, sidecar } = &mut *guard;
                    is_reached = store.resize_step(target, now, sidecar, &mut departed);
                }
                inner.tell(&mut departed, &mut panics);
            }
        }
        inner.capacity.reached(number);
        panics.resume();
    }
}

impl Wanted {
    /// Begins a resize, and returns its number.
    fn begin(&mut self) -> u64 {
        self.newest += 1;
        self.newest
    }
}

fn too_small(field: &'static str, asked: u64, shards: usize) -> ConfigError {
    let reason = format!("{asked} cannot be divided among {shards} shards; it must be at least {shards}");
    ConfigError::new(field, reason)
}

#[cfg(test)]
mod tests;
