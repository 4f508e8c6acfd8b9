//! The live entries at one position.

use std::{fmt, mem};

use crate::{Cause, ScanItem, Sidecar, departed::Departed, shard::Store};

/// What [`Cache::at`](crate::Cache::at) found at a position, valid while its shard is locked.
///
/// A position is a hash, so this is nearly always nothing or one entry; but two keys may share a hash, and then both are here.
///
/// ```
/// let cache = cache_core::Cache::builder().capacity(10).build()?;
/// cache.insert("k", 1);
/// let found = cache.at(cache.position("k"), |place, ()| place.iter().map(|item| *item.value).collect::<Vec<_>>());
/// assert_eq!(found, [1]);
/// # Ok::<(), cache_core::ConfigError>(())
/// ```
pub struct Place<'a, K, V> {
    position: u64,
    now: u64,
    store: &'a mut Store<K, V>,
    departed: &'a mut Departed<K, V>,
    /// The slots of the entries. The first needs no allocation.
    first: Option<u32>,
    rest: Vec<u32>,
}

impl<'a, K, V> Place<'a, K, V> {
    /// Looks a position up; what has expired there is given up on the way.
    pub(crate) fn find(
        position: u64,
        now: u64,
        store: &'a mut Store<K, V>,
        sidecar: &mut impl Sidecar<K, V>,
        departed: &'a mut Departed<K, V>,
    ) -> Self {
        let mut slots = store.slots_at(position);
        let (first, rest) = (slots.next(), slots.collect());
        let mut place = Place { position, now, store, departed, first, rest };
        for slot in place.take() {
            if place.store.is_live(slot, now) {
                place.push(slot);
            } else {
                place.store.give_up(slot, Cause::Expired, sidecar, place.departed);
            }
        }
        place
    }

    /// Whether no live entry is there.
    ///
    /// ```
    /// let cache = cache_core::Cache::<&str, u32>::builder().capacity(10).build()?;
    /// assert!(cache.at(cache.position("none"), |place, ()| place.is_vacant()));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn is_vacant(&self) -> bool {
        self.first.is_none()
    }

    /// The live entries.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(10).build()?;
    /// cache.insert("k", 1);
    /// let of_k = cache.at(cache.position("k"), |place, ()| place.iter().any(|item| *item.key == "k"));
    /// assert!(of_k);
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = ScanItem<'_, K, V>> {
        self.first.iter().chain(&self.rest).map(|slot| self.store.item(self.position, *slot, self.now))
    }

    /// Takes out the entries that the closure does not keep. The sidecar is not told, since it is at hand; the listener hears of
    /// each as [`Removed`](Cause::Removed), after the lock.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(10).build()?;
    /// cache.insert("k", 1);
    /// cache.at(cache.position("k"), |place, ()| place.retain(|item| *item.value > 1));
    /// assert!(!cache.contains("k"));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn retain(&mut self, mut keep: impl FnMut(ScanItem<'_, K, V>) -> bool) {
        self.store.flights.overtake(self.position);
        for slot in self.take() {
            if keep(self.store.item(self.position, slot, self.now)) {
                self.push(slot);
            } else {
                let (key, value) = self.store.remove(slot);
                self.departed.push(key, value, Cause::Removed);
            }
        }
    }

    fn take(&mut self) -> impl Iterator<Item = u32> + use<K, V> {
        self.first.take().into_iter().chain(mem::take(&mut self.rest))
    }

    fn push(&mut self, slot: u32) {
        if self.first.is_none() {
            self.first = Some(slot);
        } else {
            self.rest.push(slot);
        }
    }
}

impl<K, V> fmt::Debug for Place<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = usize::from(self.first.is_some()) + self.rest.len();
        f.debug_struct("Place").field("position", &self.position).field("entries", &entries).finish()
    }
}
