//! The caches of others, configured as their documentation begins: a capacity, the shared hasher, nothing else.

use std::time::{Duration, Instant};

use anyhow::Result;
use foyer_memory::{CacheBuilder as FoyerBuilder, CacheProperties};
use mini_moka::sync::ConcurrentCacheExt;
use quick_cache::{UnitWeighter, sync::DefaultLifecycle};

use super::{Entrant, Hasher, Key, MOKA_EXPIRING, Subject};

type Moka<K> = moka::sync::Cache<K, u64, Hasher>;
type MiniMoka<K> = mini_moka::sync::Cache<K, u64, Hasher>;
type QuickCache<K> = quick_cache::sync::Cache<K, u64, UnitWeighter, Hasher, DefaultLifecycle<K, u64>>;
type Foyer<K> = foyer_memory::Cache<K, u64, Hasher, CacheProperties>;

pub(super) fn entrants<K: Key>() -> Vec<Entrant<K>> {
    vec![
        Entrant::new("quick_cache", quick_cache),
        Entrant::new("moka", moka),
        Entrant::new("mini_moka", mini_moka),
        Entrant::new("foyer", foyer),
    ]
}

pub(super) fn expiring<K: Key>() -> Vec<Entrant<K>> {
    vec![Entrant::new(MOKA_EXPIRING, moka_expiring)]
}

fn quick_cache<K: Key>(capacity: usize) -> Result<QuickCache<K>> {
    let lifecycle = DefaultLifecycle::default();
    Ok(quick_cache::sync::Cache::with(capacity, capacity as u64, UnitWeighter, Hasher::default(), lifecycle))
}

impl<K: Key> Subject<K> for QuickCache<K> {
    #[inline]
    fn get(&self, key: &K) -> Option<u64> {
        self.get(key)
    }

    #[inline]
    fn insert(&self, key: K, value: u64) {
        self.insert(key, value);
    }

    fn entries(&self) -> usize {
        self.len()
    }
}

fn moka<K: Key>(capacity: usize) -> Result<Moka<K>> {
    Ok(moka::sync::Cache::builder().max_capacity(capacity as u64).build_with_hasher(Hasher::default()))
}

/// A lifetime for each entry, told when it is written.
struct Hour;

impl<K> moka::Expiry<K, u64> for Hour {
    fn expire_after_create(&self, _: &K, _: &u64, _: Instant) -> Option<Duration> {
        Some(Duration::from_secs(3600))
    }
}

fn moka_expiring<K: Key>(capacity: usize) -> Result<Moka<K>> {
    let builder = moka::sync::Cache::builder().max_capacity(capacity as u64).expire_after(Hour);
    Ok(builder.build_with_hasher(Hasher::default()))
}

impl<K: Key> Subject<K> for Moka<K> {
    #[inline]
    fn get(&self, key: &K) -> Option<u64> {
        self.get(key)
    }

    #[inline]
    fn insert(&self, key: K, value: u64) {
        self.insert(key, value);
    }

    fn settle(&self) {
        self.run_pending_tasks();
    }

    fn entries(&self) -> usize {
        self.entry_count() as usize
    }
}

fn mini_moka<K: Key>(capacity: usize) -> Result<MiniMoka<K>> {
    Ok(mini_moka::sync::Cache::builder().max_capacity(capacity as u64).build_with_hasher(Hasher::default()))
}

impl<K: Key> Subject<K> for MiniMoka<K> {
    #[inline]
    fn get(&self, key: &K) -> Option<u64> {
        self.get(key)
    }

    #[inline]
    fn insert(&self, key: K, value: u64) {
        self.insert(key, value);
    }

    fn settle(&self) {
        self.sync();
    }

    fn entries(&self) -> usize {
        self.entry_count() as usize
    }
}

fn foyer<K: Key>(capacity: usize) -> Result<Foyer<K>> {
    Ok(FoyerBuilder::new(capacity).with_hash_builder(Hasher::default()).build())
}

impl<K: Key> Subject<K> for Foyer<K> {
    #[inline]
    fn get(&self, key: &K) -> Option<u64> {
        self.get(key).map(|entry| *entry.value())
    }

    #[inline]
    fn insert(&self, key: K, value: u64) {
        self.insert(key, value);
    }

    fn entries(&self) -> usize {
        self.usage()
    }
}
