//! Everything at once: a snapshot of the order, and the entries cloned chunk by chunk.
//!
//! A loop over a cache is somebody's code that may take its time and may use the cache, so no lock can be held around its body. What
//! is taken first, shard by shard, is only the order: the position of each live entry. The entries themselves are found again and
//! cloned when the loop comes near them, a few hundred at a time, each shard's under one short lock. Positions rather than slots,
//! because a slot may hold another entry by then. Rejected: cloning everything at once, which holds a second
//! cache's worth of memory, and a walk of the shard's list between locks, which others' writes would lead astray.

use std::{
    collections::HashSet,
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    iter::FusedIterator,
    vec,
};

use crate::{Cache, Sidecar, scan::in_turns};

/// How many entries are cloned ahead, over all shards together, if there are no more shards than this.
const CHUNK: usize = 512;

/// A snapshot of a cache, the hottest entry first; made by [`Cache::iter`].
///
/// It holds a handle on the cache, 8 bytes for each entry that was live when it was made, and up to 512 clones (or one for each
/// shard, if there are more shards than that) that it was not asked for yet.
///
/// ```
/// let cache = cache_core::Cache::builder().capacity(10).build()?;
/// cache.insert("a", 1);
/// let mut entries = cache.iter();
/// assert_eq!(entries.next(), Some(("a", 1)));
/// assert_eq!(entries.next(), None);
/// # Ok::<(), cache_core::ConfigError>(())
/// ```
#[must_use = "an iterator does nothing until it is read"]
pub struct Iter<K, V, S = RandomState, X = ()> {
    cache: Cache<K, V, S, X>,
    /// For each shard what is still to be cloned: first what was used since it came to the hot end, then the rest.
    used: Vec<vec::IntoIter<u64>>,
    unused: Vec<vec::IntoIter<u64>>,
    ready: vec::IntoIter<(K, V)>,
}

impl<K, V, S, X> Cache<K, V, S, X>
where
    K: Hash + Eq + Clone,
    V: Clone,
    S: BuildHasher,
    X: Sidecar<K, V>,
{
    /// A snapshot of the live entries, cloned, the hottest first, in the order that [`hottest`](Self::hottest) describes.
    ///
    /// The loop's body runs without a lock, so it may take its time and may call the cache. The order is taken at once, each shard's
    /// under its lock, which costs some tens of nanoseconds an entry; the entries are cloned when they come near, up to 512 under short locks.
    /// Therefore, while others write:
    ///
    /// * a key is shown at most once, and one that was there when the snapshot was made and stays is shown exactly once;
    /// * what is shown is the value as it was shortly before it was shown, not as it was when the snapshot was made;
    /// * what was removed, evicted or over before its turn came is not shown, unless its key came back meanwhile;
    /// * a key that was put in after the snapshot is not shown. (Keys are known by their [position](Self::position): the one exception is
    ///   a key that shares the position of another one that is shown.)
    ///
    /// Counts neither as reads nor as uses. Whoever needs every entry in a stable order, page by page and without clones, has
    /// [`scan`](Self::scan).
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(100).build()?;
    /// (0..50).for_each(|n| { cache.insert(n, n * n); });
    /// cache.get(&7);
    /// assert_eq!(cache.iter().take(3).collect::<Vec<_>>(), [(7, 49), (49, 2401), (48, 2304)]);
    /// // The body may change the cache.
    /// for (key, value) in &cache {
    ///     cache.insert(key, value + 1);
    /// }
    /// assert_eq!(cache.peek(&7), Some(50));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn iter(&self) -> Iter<K, V, S, X> {
        let now = self.inner().time.now();
        let (mut used, mut unused) = (Vec::new(), Vec::new());
        for shard in &self.inner().shards {
            let (mut marked, mut unmarked) = {
                let store = &shard.0.lock().store;
                let positions = |slots: Vec<u32>| -> Vec<u64> {
                    slots.into_iter().map(|slot| store.entry(slot).hash).collect()
                };
                let (marked, unmarked) = store.hottest(usize::MAX, now);
                (positions(marked), positions(unmarked))
            };
            show_once(&mut marked, &mut unmarked);
            used.push(marked.into_iter());
            unused.push(unmarked.into_iter());
        }
        Iter { cache: self.clone(), used, unused, ready: Vec::new().into_iter() }
    }
}

/// Leaves a position that several entries share in one place: where it is met, all of them are shown.
fn show_once(marked: &mut Vec<u64>, unmarked: &mut Vec<u64>) {
    let mut all: Vec<u64> = marked.iter().chain(&*unmarked).copied().collect();
    all.sort_unstable();
    let shared: HashSet<u64> = all.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    if shared.is_empty() {
        return; // Nearly always: positions are hashes of 64 bits.
    }
    let mut met = HashSet::new();
    let mut is_first = |position: &u64| !shared.contains(position) || met.insert(*position);
    marked.retain(&mut is_first);
    unmarked.retain(is_first);
}

impl<K: Clone, V: Clone, S, X> Iter<K, V, S, X> {
    /// Clones the next chunk; `false` when nothing is left to clone.
    fn refill(&mut self) -> bool {
        let inner = self.cache.inner();
        let share = (CHUNK / inner.shards.len()).max(1);
        let now = inner.time.now();
        for lists in [&mut self.used, &mut self.unused] {
            while lists.iter().any(|positions| positions.len() > 0) {
                // Outside the lock, so that what was cloned is dropped outside it, too, if a clone panics.
                let mut chunks: Vec<Vec<(K, V)>> = lists.iter().map(|_| Vec::new()).collect();
                for ((positions, chunk), shard) in lists.iter_mut().zip(&mut chunks).zip(&inner.shards) {
                    if positions.len() == 0 {
                        continue;
                    }
                    let store = &shard.0.lock().store;
                    for position in positions.by_ref().take(share) {
                        for slot in store.slots_at(position).filter(|slot| store.is_live(*slot, now)) {
                            let entry = store.entry(slot);
                            chunk.push((entry.key.clone(), entry.value.clone()));
                        }
                    }
                }
                self.ready = in_turns(chunks).into_iter();
                if self.ready.len() > 0 {
                    return true;
                }
            }
        }
        false
    }
}

impl<K: Clone, V: Clone, S, X> Iterator for Iter<K, V, S, X> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        loop {
            if let Some(entry) = self.ready.next() {
                return Some(entry);
            }
            if !self.refill() {
                return None;
            }
        }
    }

    /// Nothing is certain to be there still but what was cloned already; and any position may come to hold more than one entry.
    fn size_hint(&self) -> (usize, Option<usize>) {
        let is_last = self.used.iter().chain(&self.unused).all(|positions| positions.len() == 0);
        (self.ready.len(), is_last.then_some(self.ready.len()))
    }
}

impl<K: Clone, V: Clone, S, X> FusedIterator for Iter<K, V, S, X> {}

/// As [`Cache::iter`].
impl<K, V, S, X> IntoIterator for &Cache<K, V, S, X>
where
    K: Hash + Eq + Clone,
    V: Clone,
    S: BuildHasher,
    X: Sidecar<K, V>,
{
    type Item = (K, V);
    type IntoIter = Iter<K, V, S, X>;

    fn into_iter(self) -> Iter<K, V, S, X> {
        self.iter()
    }
}

impl<K, V, S, X> fmt::Debug for Iter<K, V, S, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let positions: usize = self.used.iter().chain(&self.unused).map(ExactSizeIterator::len).sum();
        f.debug_struct("Iter")
            .field("ready", &self.ready.len())
            .field("positions", &positions)
            .finish_non_exhaustive()
    }
}
