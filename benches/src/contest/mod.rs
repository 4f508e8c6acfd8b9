//! Caches that are measured beside each other: one face for all, and the loops around it.
//!
//! Everybody gets the same hasher (foldhash with a fixed seed), the same keys in the same order, the same capacity in
//! entries, and values of 8 bytes. What is each one's own stays as its authors ship it: shards, segments, buffers. The
//! peers are built without expiry, which is to their advantage: `cache-core` has a time to live in every comparison.
//!
//! The loops are generic and called through one virtual call per measurement, never per operation.

mod drive;
mod ours;
#[cfg(feature = "peers")]
mod peers;
mod zipf;

use std::hash::Hash;

use anyhow::Result;

pub use self::{
    drive::{Drive, Effort, Kind, Latencies, Load, Run},
    zipf::{Zipf, scrambled},
};

/// The hasher that everybody gets. Its seed is fixed, so a run differs from the next by the machine alone.
pub type Hasher = foldhash::fast::FixedState;

/// How the cache of this workspace is called, with a time to live.
pub const OURS: &str = "cache_core";

/// The same without a time to live.
pub const WITHOUT_TTL: &str = "without_ttl";

/// moka with a lifetime for each entry.
pub const MOKA_EXPIRING: &str = "moka_expiring";

/// The same with `Policy::TinyLfu`.
pub const TINY_LFU: &str = "tiny_lfu";

/// One mutex around the cache of the crate `lru`: exact LRU, and what a service writes first.
pub const MUTEX_LRU: &str = "mutex_lru";

/// What all of them do. Values are 1, so their sum counts the hits and no read can be optimised away.
pub trait Subject<K>: Send + Sync {
    /// Reads as a user of the cache would.
    fn get(&self, key: &K) -> Option<u64>;

    /// Writes as a user of the cache would.
    fn insert(&self, key: K, value: u64);

    /// Does what the cache would do later of its own accord, so that [`entries`](Self::entries) is true.
    fn settle(&self) {}

    /// How many entries it holds.
    fn entries(&self) -> usize;
}

/// A key of the measurements.
pub trait Key: Hash + Eq + Clone + Send + Sync + std::fmt::Debug + 'static {
    /// How the type is called in a figure's name.
    const NAME: &'static str;

    /// The key of a number; different numbers have different keys.
    fn of(number: u64) -> Self;
}

impl Key for u64 {
    const NAME: &'static str = "u64";

    fn of(number: u64) -> Self {
        scrambled(number)
    }
}

impl Key for String {
    const NAME: &'static str = "20-byte String";

    fn of(number: u64) -> Self {
        // A u64 has at most 20 digits.
        format!("{:020}", scrambled(number))
    }
}

type Make<K> = Box<dyn Fn(usize) -> Result<Box<dyn Drive<K>>>>;

/// A cache to be measured: its name, and how to make one.
pub struct Entrant<K> {
    /// As in the figures.
    pub name: &'static str,
    make: Make<K>,
}

impl<K: Key> Entrant<K> {
    /// `make` is given the capacity in entries.
    pub fn new<C: Subject<K> + 'static>(
        name: &'static str,
        make: impl Fn(usize) -> Result<C> + 'static,
    ) -> Self {
        Self { name, make: Box::new(move |capacity| Ok(Box::new(make(capacity)?))) }
    }

    /// An empty cache.
    ///
    /// # Errors
    /// When the cache refuses its configuration.
    pub fn make(&self, capacity: usize) -> Result<Box<dyn Drive<K>>> {
        (self.make)(capacity)
    }
}

/// Everybody, ours first: without the feature `peers` only what the workspace has anyway.
pub fn entrants<K: Key>() -> Vec<Entrant<K>> {
    let ours = vec![
        Entrant::new(OURS, ours::with_ttl),
        Entrant::new(TINY_LFU, ours::tiny_lfu),
        Entrant::new(MUTEX_LRU, ours::mutex_lru),
    ];
    ours.into_iter().chain(peers()).collect()
}

#[cfg(feature = "peers")]
fn peers<K: Key>() -> Vec<Entrant<K>> {
    self::peers::entrants()
}

#[cfg(not(feature = "peers"))]
fn peers<K: Key>() -> Vec<Entrant<K>> {
    Vec::new()
}

/// Those among the peers that can give each entry a lifetime of its own, doing so.
#[cfg(feature = "peers")]
pub fn expiring<K: Key>() -> Vec<Entrant<K>> {
    peers::expiring()
}

/// Without the feature `peers` nobody.
#[cfg(not(feature = "peers"))]
pub fn expiring<K: Key>() -> Vec<Entrant<K>> {
    Vec::new()
}

/// What a cache holds of the allocator's memory, in bytes an entry beyond key and value, as requested.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Footprint {
    /// Whose it is.
    pub name: String,
    /// Just filled.
    pub fresh: f64,
    /// After ten times as many inserts as it has capacity.
    pub churned: f64,
}

/// Ours as it is without a time to live.
pub fn without_ttl<K: Key>() -> Entrant<K> {
    Entrant::new(WITHOUT_TTL, ours::without_ttl)
}
