//! Counters of what a cache did.

use std::time::Duration;

/// Counters since the cache was built, summed over its shards.
///
/// Each shard is read in turn, so under concurrent use the counters are not one instant's. At rest
/// `inserts = len + evictions + expirations + removals + cleared`.
///
/// ```
/// let cache = cache_core::Cache::builder().capacity(2).build()?;
/// (0..5).for_each(|n| { cache.insert(n, ()); });
/// cache.remove(&4);
/// let stats = cache.stats();
/// assert_eq!((stats.inserts, stats.evictions, stats.removals), (5, 3, 1));
/// assert_eq!(stats.inserts, cache.len() as u64 + stats.evictions + stats.removals);
/// # Ok::<(), cache_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Reads (`get`, `read`) that found a live entry. `peek`, `contains`, `touch`, `update`, `upsert`, `iter` and `scan` count no reads.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// Writes that put a key in that was not there.
    pub inserts: u64,
    /// Writes that put a new value in place of a live one.
    pub replacements: u64,
    /// Updates, and upserts by [`Verdict::Update`](crate::Verdict::Update), that changed a value in its place.
    pub updates: u64,
    /// Entries given up to make room, with those in [`refusals`](Self::refusals) and [`rejections`](Self::rejections).
    pub evictions: u64,
    /// Of the evictions, the entries that were never kept because they are heavier than their shard's share.
    pub refusals: u64,
    /// Of the evictions, the new entries that [`Policy::TinyLfu`](crate::Policy::TinyLfu) gave up because they were asked for less
    /// often than what would have had to go for them. (What is neither here nor a refusal went for want of capacity.)
    pub rejections: u64,
    /// Entries reclaimed because their lifetime ended, by whoever met them first, and those never kept because it was over at once.
    pub expirations: u64,
    /// Entries taken out by `remove`, by `retain` and its like, or by an upsert's verdict.
    pub removals: u64,
    /// Entries taken out by `clear`.
    pub cleared: u64,
    /// Loads whose loader gave a value.
    pub loads: u64,
    /// Of the loads, those whose value was not kept because the key was written or invalidated in the meantime.
    pub loads_overtaken: u64,
    /// Loaders that gave no value: they failed, panicked, or were cancelled.
    pub load_failures: u64,
    /// Calls that waited for the loader of another one.
    pub load_waits: u64,
    /// The time that all loaders took, with those that gave no value.
    pub load_time: Duration,
    /// Panics of a sidecar, a listener or a value's `Drop` that the ticker's thread caught, each of them. Anything
    /// but 0 is a fault of theirs.
    pub sweep_panics: u64,
}

impl Stats {
    /// Hits over all reads, 0 when there were none.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(10).build()?;
    /// cache.insert(1, "one");
    /// (cache.get(&1), cache.get(&2));
    /// assert_eq!(cache.stats().hit_ratio(), 0.5);
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn hit_ratio(&self) -> f64 {
        let reads = self.hits + self.misses;
        if reads == 0 { 0.0 } else { self.hits as f64 / reads as f64 }
    }

    pub(crate) fn add(&mut self, other: &Stats) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.inserts += other.inserts;
        self.replacements += other.replacements;
        self.updates += other.updates;
        self.evictions += other.evictions;
        self.refusals += other.refusals;
        self.rejections += other.rejections;
        self.expirations += other.expirations;
        self.removals += other.removals;
        self.cleared += other.cleared;
        self.loads += other.loads;
        self.loads_overtaken += other.loads_overtaken;
        self.load_failures += other.load_failures;
        self.load_waits += other.load_waits;
        self.load_time = self.load_time.saturating_add(other.load_time);
        self.sweep_panics += other.sweep_panics;
    }
}
