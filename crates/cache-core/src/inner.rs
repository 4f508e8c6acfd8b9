//! What the handles of one cache share: the shards and how a key finds its own.

use std::{
    hash::{BuildHasher, Hash},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    Cause, Expiry, Sidecar, Stats,
    capacity::Capacity,
    clock::{Jitter, NEVER, Time},
    departed::{Departed, Departing, Panics},
    shard::{Budget, Gathering, Origin, Page, Shard, Store},
    sync::{Mutex, MutexGuard},
};

pub(crate) type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u64 + Send + Sync>;
pub(crate) type Listener<K, V> = Box<dyn Fn(&K, &V, Cause) + Send + Sync>;

/// A shard on cache lines of its own (two, as processors fetch pairs), so that neighbours do not slow each other down.
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

pub(crate) type Shards<K, V, X> = Box<[Padded<Mutex<Shard<K, V, X>>>]>;

pub(crate) struct Inner<K, V, S, X> {
    pub(crate) shards: Shards<K, V, X>,
    /// The number of shards is two to this power; that many top bits of a hash choose the shard.
    pub(crate) shard_bits: u32,
    pub(crate) hasher: S,
    pub(crate) time: Time,
    pub(crate) default_ttl_ms: Option<u64>,
    pub(crate) ttl_jitter: Jitter,
    pub(crate) capacity: Capacity,
    pub(crate) weigher: Option<Weigher<K, V>>,
    pub(crate) listener: Option<Listener<K, V>>,
    pub(crate) sweep_panics: AtomicU64,
}

/// What one step of a sweep over one shard came to.
pub(crate) struct Swept {
    pub(crate) finished: bool,
    pub(crate) slots: usize,
    pub(crate) reclaimed: usize,
}

impl<K, V, S, X> Inner<K, V, S, X> {
    #[inline]
    pub(crate) fn shard_index(&self, position: u64) -> usize {
        // In two steps, because a shift by all 64 bits (one shard) would overflow.
        ((position >> 1) >> (63 - self.shard_bits)) as usize
    }

    #[inline]
    pub(crate) fn lock(&self, position: u64) -> MutexGuard<'_, Shard<K, V, X>> {
        self.shards[self.shard_index(position)].0.lock()
    }

    /// Does something in the shard of a position, under its lock, and tells of what left once the lock is free. A panic in it is
    /// no reason not to tell.
    #[inline]
    pub(crate) fn within<R>(
        &self,
        position: u64,
        f: impl FnOnce(&mut Store<K, V>, &mut X, &mut Departed<K, V>) -> R,
    ) -> R {
        let mut departed = Departing::new(self);
        let answer = {
            let mut guard = self.lock(position);
            let Shard { store, sidecar } = &mut *guard;
            f(store, sidecar, &mut departed)
        };
        self.settle(&mut departed);
        answer
    }

    /// The first position of the shard after this one.
    pub(crate) fn shard_end(&self, index: usize) -> Option<u64> {
        let next = index + 1;
        (next < self.shards.len()).then(|| (next as u64) << (64 - self.shard_bits))
    }

    /// An entry that weighs nothing would be bounded by nothing, so the least weight is 1.
    #[inline]
    pub(crate) fn weigh(&self, key: &K, value: &V) -> u64 {
        self.weigher.as_ref().map_or(1, |weigh| weigh(key, value).max(1))
    }

    /// The end of a lifetime that begins now, with the jitter of a local write. A remote one has none, whether or not there is a remote
    /// depth: its lifetime was decided, and perhaps shortened, where it was written, and regions that shortened it each for themselves
    /// would not hold the same entry for the same time.
    #[inline]
    pub(crate) fn deadline(
        &self,
        expiry: Expiry,
        now: u64,
        present: Option<u64>,
        (position, origin): (u64, Origin),
    ) -> u64 {
        let lifetime_ms = match (expiry, present) {
            (Expiry::Never, _) => return NEVER,
            (Expiry::Keep, Some(deadline)) => return deadline,
            (Expiry::Default | Expiry::Keep, _) => match self.default_ttl_ms {
                None => return NEVER,
                Some(ttl) => ttl,
            },
            (Expiry::After(ttl), _) => crate::clock::millis(ttl),
        };
        let lifetime_ms = match origin {
            Origin::Local => self.ttl_jitter.shorten(lifetime_ms, position, now, self.time.tick_ms()),
            Origin::Remote => lifetime_ms,
        };
        self.time.deadline(now, lifetime_ms)
    }

    /// Tells the listener of what left, and drops it. To be called without a lock.
    ///
    /// If others' code panics at one entry, the rest is told all the same, and then the panic goes on.
    #[inline]
    pub(crate) fn settle(&self, departed: &mut Departed<K, V>) {
        // Nearly always it is one, and then there is no rest that a panic could keep from being told.
        if let Some((key, value, cause)) = departed.take_only() {
            self.tell_one(&key, &value, cause);
        } else if departed.len() > 0 {
            self.settle_each(departed);
        }
    }

    #[cold]
    fn settle_each(&self, departed: &mut Departed<K, V>) {
        let mut panics = Panics::default();
        self.tell(departed, &mut panics);
        panics.resume();
    }

    /// [`settle`](Self::settle) for an operation that has more to do before a panic may go on.
    pub(crate) fn tell(&self, departed: &mut Departed<K, V>, panics: &mut Panics) {
        for (key, value, cause) in departed.drain() {
            panics.catch(|| {
                self.tell_one(&key, &value, cause);
                drop((key, value));
            });
        }
    }

    #[inline]
    fn tell_one(&self, key: &K, value: &V, cause: Cause) {
        if let Some(listener) = &self.listener {
            listener(key, value, cause);
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        for shard in &self.shards {
            sum.add(&shard.0.lock().store.counts);
        }
        sum.sweep_panics = self.sweep_panics.load(Ordering::Relaxed);
        sum
    }
}

impl<K, V, S, X> Inner<K, V, S, X>
where
    K: Hash + Eq,
    S: BuildHasher,
    X: Sidecar<K, V>,
{
    /// A page of the shard that a position belongs to, valid while the lock that comes with it is held. Where its entries have to be
    /// gathered first and are many, the lock is let go between the steps. What had expired there is to be settled after unlocking.
    pub(crate) fn page(
        &self,
        position: u64,
        limit: usize,
        now: u64,
        departed: &mut Departed<K, V>,
    ) -> (Page, MutexGuard<'_, Shard<K, V, X>>) {
        let mut gathering = Gathering::default();
        loop {
            let mut guard = self.lock(position);
            let Shard { store, sidecar } = &mut *guard;
            if let Some(mut page) = store.page(position, limit, now, &mut gathering, sidecar, departed) {
                page.next = page.next.or_else(|| self.shard_end(self.shard_index(position)));
                return (page, guard);
            }
        }
    }

    /// One short step in one shard, under its lock; what it reclaimed is to be told of by the caller.
    pub(crate) fn sweep_step(
        &self,
        index: usize,
        budget: &mut Budget,
        departed: &mut Departed<K, V>,
    ) -> Swept {
        let now = self.time.now();
        let before = departed.len();
        let step = {
            let mut guard = self.shards[index].0.lock();
            let Shard { store, sidecar } = &mut *guard;
            store.sweep_step(now, budget, sidecar, departed)
        };
        Swept { finished: step.finished, slots: step.slots, reclaimed: departed.len() - before }
    }

    pub(crate) fn is_due(&self, index: usize, now: u64) -> bool {
        self.shards[index].0.lock().store.is_due(now)
    }
}
