//! The cache of this workspace, and exact LRU.

use std::{num::NonZeroUsize, time::Duration};

use anyhow::{Context, Result};
use cache_core::{Cache, Policy};
use lru::LruCache;
use parking_lot::Mutex;

use super::{Hasher, Key, Subject};

/// Longer than any measurement: what is measured is that entries have a deadline, not that they reach it.
const TTL: Duration = Duration::from_secs(3600);

pub(super) fn with_ttl<K: Key>(capacity: usize) -> Result<Cache<K, u64, Hasher>> {
    Ok(Cache::builder().capacity(capacity).default_ttl(TTL).hasher(Hasher::default()).build()?)
}

pub(super) fn without_ttl<K: Key>(capacity: usize) -> Result<Cache<K, u64, Hasher>> {
    Ok(Cache::builder().capacity(capacity).hasher(Hasher::default()).build()?)
}

pub(super) fn tiny_lfu<K: Key>(capacity: usize) -> Result<Cache<K, u64, Hasher>> {
    let builder = Cache::builder().capacity(capacity).default_ttl(TTL).policy(Policy::TinyLfu);
    Ok(builder.hasher(Hasher::default()).build()?)
}

impl<K: Key> Subject<K> for Cache<K, u64, Hasher> {
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

/// The mutex is parking_lot's, as in our own shards.
pub(super) fn mutex_lru<K: Key>(capacity: usize) -> Result<Mutex<LruCache<K, u64, Hasher>>> {
    let capacity = NonZeroUsize::new(capacity).context("a capacity of 0")?;
    Ok(Mutex::new(LruCache::with_hasher(capacity, Hasher::default())))
}

impl<K: Key> Subject<K> for Mutex<LruCache<K, u64, Hasher>> {
    #[inline]
    fn get(&self, key: &K) -> Option<u64> {
        self.lock().get(key).copied()
    }

    #[inline]
    fn insert(&self, key: K, value: u64) {
        self.lock().put(key, value);
    }

    fn entries(&self) -> usize {
        self.lock().len()
    }
}
