//! One thing at a time per key.
//!
//! A change of a key, from its route to its answer, and a resync's copy or replay of that key must not overlap. Keys share a fixed
//! number of locks, so memory is bounded whatever the number of keys; two keys that share one wait for each other now and then. A
//! clear waits for all changes, and they for it.

use std::hash::{BuildHasher, RandomState};

use tokio::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How many locks the keys share.
const STRIPES: usize = 1_024;

#[derive(Debug)]
pub(super) struct KeyLocks {
    gate: RwLock<()>,
    stripes: Box<[Mutex<()>]>,
    hasher: RandomState,
}

/// The right to change one key; the others wait as long as it lives.
#[derive(Debug)]
pub(super) struct KeyLock<'a> {
    _gate: RwLockReadGuard<'a, ()>,
    _stripe: MutexGuard<'a, ()>,
}

impl KeyLocks {
    pub(super) fn new() -> Self {
        let stripes = (0..STRIPES).map(|_| Mutex::new(())).collect();
        Self { gate: RwLock::new(()), stripes, hasher: RandomState::new() }
    }

    /// A number of the key, the same for the life of this client.
    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Waits until nobody else changes the key; first come, first served.
    pub(super) async fn lock(&self, key: &[u8]) -> KeyLock<'_> {
        let gate = self.gate.read().await;
        let index = self.hash(key) as usize % self.stripes.len();
        KeyLock { _gate: gate, _stripe: self.stripes[index].lock().await }
    }

    /// Waits until nobody changes any key.
    pub(super) async fn lock_all(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().await
    }
}
