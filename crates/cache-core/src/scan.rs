//! Many entries at once: a page of a scan, a single position, the hottest.

use std::{
    hash::{BuildHasher, Hash},
    time::Duration,
};

use crate::{
    Cache, Cause, Place, Sidecar,
    clock::left,
    departed::{Departing, Panics},
    shard::{Shard, Store},
};

/// How many entries of a shard [`Cache::hottest`] looks at.
///
/// ```
/// use cache_core::{Cache, HOTTEST_VISITS_MAX};
///
/// let cache = Cache::builder().capacity(10_000).shards(1).build()?;
/// (0..10_000).for_each(|n| { cache.insert(n, ()); });
/// assert_eq!(cache.hottest(10_000, |item| Some(*item.key)).len(), HOTTEST_VISITS_MAX);
/// # Ok::<(), cache_core::ConfigError>(())
/// ```
pub const HOTTEST_VISITS_MAX: usize = 2_048;

/// How many entries [`Cache::retain`] judges under one lock.
const RETAIN_PAGE: usize = 256;

/// One page of [`Cache::scan`](crate::Cache::scan), valid while its shard is locked.
///
/// It covers the positions from [`lo`](Self::lo) up to, but not including, [`next`](Self::next): every live entry of that range is
/// in [`items`](Self::items), so an absent position is known to be absent. A page may be empty while `next` is still `Some`.
///
/// ```
/// let cache = cache_core::Cache::builder().capacity(10).build()?;
/// cache.insert("k", 1);
/// cache.scan(0, 8, |page, ()| {
///     assert_eq!((page.lo, page.items.len(), page.next), (0, 1, None));
/// });
/// # Ok::<(), cache_core::ConfigError>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct ScanPage<'a, K, V> {
    /// The live entries, in ascending order of position.
    pub items: &'a [ScanItem<'a, K, V>],
    /// The position that this page starts at, as it was asked for.
    pub lo: u64,
    /// Where to go on; `None` after the last page.
    pub next: Option<u64>,
}

/// An entry as a scan shows it.
///
/// ```
/// let cache = cache_core::Cache::builder().capacity(10).build()?;
/// cache.insert("k", 1);
/// cache.scan(0, 8, |page, ()| {
///     let item = &page.items[0];
///     assert_eq!((*item.key, *item.value, item.left), ("k", 1, None));
/// });
/// # Ok::<(), cache_core::ConfigError>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct ScanItem<'a, K, V> {
    /// The key's hash.
    pub position: u64,
    /// The key.
    pub key: &'a K,
    /// The value.
    pub value: &'a V,
    /// The lifetime that is left, `None` if the entry never expires.
    pub left: Option<Duration>,
}

impl<K, V, S, X> Cache<K, V, S, X>
where
    K: Hash + Eq,
    S: BuildHasher,
    X: Sidecar<K, V>,
{
    /// Gives the closure the live entries at one position, with the shard's sidecar at hand; it may take them out.
    ///
    /// A look-up for those who know a key by its [`position`](Self::position) alone: one lock, and no scan. Expired entries there
    /// are first given to the sidecar as victims. Counts neither as a read nor as a use.
    ///
    /// The closure must be short and must not call back into the cache: that would deadlock.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(10).build()?;
    /// cache.insert("k", 1);
    /// let position = cache.position("k");
    /// cache.at(position, |place, ()| place.retain(|item| *item.value > 1));
    /// assert!(cache.at(position, |place, ()| place.is_vacant()));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn at<R>(&self, position: u64, f: impl FnOnce(&mut Place<'_, K, V>, &mut X) -> R) -> R {
        let inner = self.inner();
        let now = inner.time.now();
        inner.within(position, |store, sidecar, departed| {
            f(&mut Place::find(position, now, store, sidecar, departed), sidecar)
        })
    }

    /// One page of a walk over all live entries in the order of their positions, given to a closure under the shard's lock.
    ///
    /// A key's position is its hash; shards are contiguous ranges of positions. A page begins at `position`, holds the next
    /// `limit` entries (0 is taken as 1) or fewer, never spans two shards, and never splits entries of equal position, for whose
    /// sake it can be longer. Begin at 0 and go on with [`ScanPage::next`]: each entry that is there all the time is met exactly
    /// once, whatever is written meanwhile.
    ///
    /// Expired entries of the page's range are first given to the sidecar as victims, so it knows of whatever is not shown. They
    /// count towards `limit`, which bounds what a page may cost.
    ///
    /// A page costs itself, and the first of about 16,384 entries a walk over its shard's slots beside, in steps of at most
    /// 32,768 slots under the lock. Where others' writes made it begin that walk anew three times (each time some thousands of
    /// them in the shard while the walk was under way), it does it in one step, so that it ends. For that long, and at most a second longer than pages are asked for, 16 bytes are kept for
    /// each of those entries.
    ///
    /// The closure must be short and must not call back into the cache: that would deadlock.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(100).build()?;
    /// (0..50).for_each(|n| { cache.insert(n, ()); });
    /// let (mut at, mut seen) = (Some(0), 0);
    /// while let Some(position) = at {
    ///     at = cache.scan(position, 8, |page, ()| { seen += page.items.len(); page.next });
    /// }
    /// assert_eq!(seen, 50);
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn scan<R>(&self, position: u64, limit: usize, f: impl FnOnce(ScanPage<'_, K, V>, &mut X) -> R) -> R {
        let now = self.inner().time.now();
        let mut departed = Departing::new(self.inner());
        let (page, mut guard) = self.inner().page(position, limit, now, &mut departed);
        let Shard { store, sidecar } = &mut *guard;
        let items: Vec<_> = page.picked.iter().map(|&(at, slot)| store.item(at, slot, now)).collect();
        let answer = f(ScanPage { items: &items, lo: position, next: page.next }, sidecar);
        drop(items);
        drop(guard);
        self.inner().settle(&mut departed);
        answer
    }

    /// Takes out the entries of a page that the closure does not keep, as [`scan`](Self::scan) shows them and all under one lock.
    /// Returns where to go on.
    ///
    /// The sidecar is not told of these, since it is at hand; the listener hears of each entry as [`Removed`](Cause::Removed), after the
    /// lock. The closure must be short and must not call back into the cache: that would deadlock. If it panics, nothing of the page
    /// was taken out.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(100).build()?;
    /// (0..50).for_each(|n| { cache.insert(n, ()); });
    /// let mut at = Some(0);
    /// while let Some(position) = at {
    ///     at = cache.retain_page(position, 8, |item, ()| item.key % 2 == 0);
    /// }
    /// assert_eq!(cache.len(), 25);
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn retain_page(
        &self,
        position: u64,
        limit: usize,
        mut keep: impl FnMut(ScanItem<'_, K, V>, &mut X) -> bool,
    ) -> Option<u64> {
        let mut panics = Panics::default();
        let next = self.judge_page(position, limit, &mut keep, &mut panics);
        panics.resume();
        next
    }

    /// Takes out every live entry that the closure does not keep, and returns how many those were.
    ///
    /// Works through the cache in pages of 256, each decided and cleaned under one lock: an entry that is there all the time is judged
    /// exactly once, whatever is written meanwhile, and no value can change between the judgement and the removal. What is put in
    /// while it runs may be judged or not. The listener hears of each entry as [`Removed`](Cause::Removed), after the lock; the
    /// sidecars are not told, so whoever has one takes [`retain_page`](Self::retain_page). Counts neither as reads nor as uses.
    ///
    /// The closure must be short and must not call back into the cache: that would deadlock. If it panics, nothing of that page
    /// was taken out.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(100).build()?;
    /// (0..50).for_each(|n| { cache.insert(n, n * 10); });
    /// assert_eq!(cache.retain(|key, value| key % 2 == 0 && *value < 400), 30);
    /// assert_eq!(cache.len(), 20);
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn retain(&self, mut keep: impl FnMut(&K, &V) -> bool) -> usize {
        let mut removed = 0;
        let mut keep = |item: ScanItem<'_, K, V>, _: &mut X| {
            let stays = keep(item.key, item.value);
            removed += usize::from(!stays);
            stays
        };
        let mut panics = Panics::default();
        let mut next = Some(0);
        while let Some(position) = next {
            next = self.judge_page(position, RETAIN_PAGE, &mut keep, &mut panics);
        }
        panics.resume();
        removed
    }

    /// Takes out what the closure does not keep of a page. Panics of a listener are for the caller to go on with.
    fn judge_page(
        &self,
        position: u64,
        limit: usize,
        keep: &mut impl FnMut(ScanItem<'_, K, V>, &mut X) -> bool,
        panics: &mut Panics,
    ) -> Option<u64> {
        let now = self.inner().time.now();
        let mut departed = Departing::new(self.inner());
        let (page, mut guard) = self.inner().page(position, limit, now, &mut departed);
        let Shard { store, sidecar } = &mut *guard;
        store.flights.overtake_range(position, page.next);
        let mut gone = page.picked;
        gone.retain(|&(at, slot)| !keep(store.item(at, slot, now), sidecar));
        for (_, slot) in gone {
            let (key, value) = store.remove(slot);
            departed.push(key, value, Cause::Removed);
        }
        drop(guard);
        self.inner().tell(&mut departed, panics);
        page.next
    }

    /// The most recently used entries, the hottest first, as the closure shows them; it may leave some out.
    ///
    /// About right rather than exact, at no cost for those who read and write. Each shard gives its share of `count` and a little
    /// more, so a shard with less leaves the answer shorter. Entries that were used since they came to the hot end of their shard's
    /// order come before those that were not, each in that order, the shards taking turns. No more than [`HOTTEST_VISITS_MAX`]
    /// entries of a shard are looked at, from the hot end on. Expired ones are passed over and stay: the answer speaks of no range,
    /// so it says of no key that it is absent. Counts neither as a read nor as a use.
    ///
    /// The closure must be short and must not call back into the cache: that would deadlock.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(100).build()?;
    /// (0..50).for_each(|n| { cache.insert(n, ()); });
    /// cache.get(&7);
    /// assert_eq!(cache.hottest(2, |item| Some(*item.key)), [7, 49]);
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    pub fn hottest<R>(&self, count: usize, mut f: impl FnMut(ScanItem<'_, K, V>) -> Option<R>) -> Vec<R> {
        let even = count.div_ceil(self.shards());
        // Hashes do not fill the shards quite evenly.
        let share = even.saturating_add(even / 4 + 4).min(count).min(HOTTEST_VISITS_MAX);
        let now = self.inner().time.now();
        let (mut used, mut unused) = (Vec::new(), Vec::new());
        for shard in &self.inner().shards {
            let store = &shard.0.lock().store;
            let mut shown = |slots: Vec<u32>, most| -> Vec<R> {
                let items = slots.into_iter().map(|slot| store.item(store.entry(slot).hash, slot, now));
                items.filter_map(&mut f).take(most).collect()
            };
            let (marked, unmarked) = store.hottest(HOTTEST_VISITS_MAX, now);
            let marked = shown(marked, share);
            unused.push(shown(unmarked, share - marked.len()));
            used.push(marked);
        }
        let mut hottest = in_turns(used);
        hottest.extend(in_turns(unused));
        hottest.truncate(count);
        hottest
    }
}

/// The first of each list, then the second of each, and so on.
pub(crate) fn in_turns<R>(lists: Vec<Vec<R>>) -> Vec<R> {
    let mut turns = Vec::with_capacity(lists.iter().map(Vec::len).sum());
    let mut lists: Vec<_> = lists.into_iter().map(Vec::into_iter).collect();
    loop {
        let before = turns.len();
        turns.extend(lists.iter_mut().filter_map(Iterator::next));
        if turns.len() == before {
            return turns;
        }
    }
}

impl<K, V> Store<K, V> {
    /// An entry as a scan shows it.
    pub(crate) fn item(&self, position: u64, slot: u32, now: u64) -> ScanItem<'_, K, V> {
        let entry = self.entry(slot);
        ScanItem { position, key: &entry.key, value: &entry.value, left: left(self.deadline(slot), now) }
    }
}
