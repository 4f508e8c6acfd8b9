//! The node's records on top of `cache-core`: every per-key decision, under the lock of the key's shard.
//!
//! A shard of the map carries a [`Guard`] (graves and floor) as its sidecar, so that a local write, a remote merge and
//! an eviction each take one lock and leave no moment between a value's end and its grave. A stamp is issued inside
//! that lock as well: the order of stamps of a key is the order in which readers see its values. Rejected: one lock
//! around a whole replica (writes would not scale over threads), and graves in a map of their own (a late duplicate
//! could slip in between eviction and burial).
//!
//! Invariants: a key's bar never goes down; every bar is shown to the clock before it can be met, so a local write is
//! always above it. What is behind a clear barrier is invisible at once and reclaimed a page at a time (`reclaim.rs`).

mod history;
mod key;
mod local;
mod page;
mod reclaim;
mod remote;
#[cfg(any(test, feature = "sim"))]
mod sim;
#[cfg(test)]
mod tests;
mod time;

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cache_core::{Cache, Cause, Expiry, Sidecar, Slot, Verdict};
use replication::{
    Hlc, Stamp, Value,
    message::Bar,
    replica::{Barriers, Guard, Outbox},
    wire::KeyHasher,
};

use history::History;
pub(crate) use history::Trace;
use key::Key;
pub(crate) use local::{Condition, Life, Payload};
use page::RecordSize;
use reclaim::Reclaim;
pub(crate) use time::Time;

use crate::{
    events::{Bell, Event},
    explain::What,
    stats::Stats,
    value::{Decoded, Stored},
};

/// What an entry takes in memory beside its key and value: stamp and handles, look-up and recency tables. Measured as the
/// bytes requested from the allocator: 134 at 100,000 entries with keys of 16 bytes where their number is bounded, and 150
/// with keys of 40; where only bytes are bounded 169 to 250, the most where the slabs have just doubled. Each takes 8 more since it has a weight
/// of its own. Rounded up.
pub(crate) const ENTRY_OVERHEAD_BYTES: u64 = 256;

/// The most that one entry of the map weighs, whatever is bounded.
const ENTRY_WEIGHT_MAX: u64 = u32::MAX as u64;

/// Lives are cut to this: far beyond any cache, far below where a clock overflows.
pub(crate) const LIFE_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How a store is laid out.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) cache: String,
    pub(crate) capacity: Option<usize>,
    pub(crate) capacity_bytes: Option<u64>,
    pub(crate) default_ttl: Option<Duration>,
    pub(crate) shards: Option<usize>,
    pub(crate) remote_depth: f64,
    pub(crate) graves_max: usize,
    /// Outcomes that are remembered.
    pub(crate) history: usize,
    /// By what values expire, and by what writes are stamped.
    pub(crate) clock: Option<cache_core::Clock>,
    pub(crate) time: Time,
}

/// The records of one node.
#[cfg_attr(not(feature = "sim"), expect(unreachable_pub, reason = "simulations alone name it"))]
pub struct NodeStore {
    cache: Cache<Key, Stored, KeyHasher, Shard>,
    barriers: Arc<Barriers>,
    outbox: Arc<Outbox>,
    default_ttl: Option<Duration>,
    keeps_history: bool,
    /// What one shard holds at most, where bytes are bounded.
    share_bytes: Option<u64>,
    time: Time,
    /// Reads that found an entry behind a barrier: the map counted them as hits, and they are misses.
    hidden_reads: AtomicU64,
    reclaim: Reclaim,
    record_size: RecordSize,
    bell: Arc<Bell>,
    me: Weak<NodeStore>,
}

/// What lives beside a shard, under its lock.
#[derive(Debug)]
struct Shard {
    guard: Guard,
    barriers: Arc<Barriers>,
    bell: Arc<Bell>,
    /// Local changes, counted here since the lock is held anyway.
    writes: u64,
    removes: u64,
    history: Option<Box<History>>,
}

impl Sidecar<Key, Stored> for Shard {
    fn victim(&mut self, position: u64, key: &Key, value: &Stored, cause: Cause) {
        if self.barriers.hides(key, value.stamp) {
            return; // The barrier says it already, for ever, and without taking a grave's place.
        }
        let key = || Bytes::copy_from_slice(key);
        self.note(position, if cause == Cause::Expired { What::Expired } else { What::Evicted }, value.stamp);
        if cause == Cause::Expired {
            self.guard.expired(position, value.stamp);
            self.bell.tell(|| Event::Expired { key: key() });
        } else {
            self.guard.evicted(position, value.stamp);
            self.bell.tell(|| Event::Evicted { key: key() });
        }
    }
}

impl Shard {
    fn new(barriers: Arc<Barriers>, bell: Arc<Bell>) -> Self {
        Self { guard: Guard::new(0), barriers, bell, writes: 0, removes: 0, history: None }
    }

    /// The smallest acceptable stamp of a key, clear barriers included.
    fn bar(&self, position: u64, key: &[u8], live: Option<&Stored>) -> Bar {
        let bar = self.guard.bar(position, live.map(|live| live.stamp));
        self.barriers.over(key).map_or(bar, |cleared| bar.max(Bar::above(cleared)))
    }

    /// Changes a live value in its place, where that can be; its compare-and-set number then. From here on the key's
    /// entry carries the bar.
    fn renew(&mut self, slot: &mut Slot<'_, Stored>, value: &Value, stamp: Stamp) -> Option<u64> {
        match &mut slot.value {
            Some(live) => live.renew(value, stamp).then_some(live.cas),
            None => {
                self.guard.lift(slot.position);
                None
            }
        }
    }
}

/// What became of a conditional change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Done; the key's compare-and-set number is now this (0 after a remove).
    Done {
        /// The number.
        cas: u64,
    },
    /// Nothing was changed: another value than expected is stored.
    Exists,
    /// Nothing was changed: the key is not there.
    Missing,
    /// Nothing was changed: the key is there, and was expected to be absent.
    Present,
}

impl Layout {
    fn build(
        &self,
        barriers: &Arc<Barriers>,
        bell: &Arc<Bell>,
    ) -> Result<Cache<Key, Stored, KeyHasher, Shard>, cache_core::ConfigError> {
        let (shared, told) = (Arc::clone(barriers), Arc::clone(bell));
        let mut builder = Cache::builder()
            .weigher(|key: &Key, stored: &Stored| key.len() as u64 + stored.weight + ENTRY_OVERHEAD_BYTES)
            .hasher(KeyHasher::new(&self.cache))
            .remote_depth(self.remote_depth)
            .sidecar(move || Shard::new(Arc::clone(&shared), Arc::clone(&told)));
        if let Some(entries) = self.capacity {
            builder = builder.capacity(entries);
        }
        if let Some(bytes) = self.capacity_bytes {
            builder = builder.weight_capacity(bytes);
        }
        if let Some(shards) = self.shards {
            builder = builder.shards(shards);
        }
        if let Some(clock) = &self.clock {
            builder = builder.clock(clock.clone());
        }
        let cache = builder.build()?;
        // How many shards there are is known only now; nothing was buried yet. Shares add up to the bound.
        let mut graves = shares(self.graves_max, cache.shards());
        // One each at least: a shard without would say that no history is kept.
        let history = if self.history == 0 { 0 } else { self.history.max(cache.shards()) };
        let mut outcomes = shares(history, cache.shards());
        cache.with_sidecars(|shard| {
            shard.guard = Guard::new(graves.next().unwrap_or(0));
            shard.history = History::new(outcomes.next().unwrap_or(0), &self.time);
        });
        Ok(cache)
    }
}

impl NodeStore {
    pub(crate) fn new(layout: &Layout, outbox: Arc<Outbox>) -> Result<Arc<Self>, cache_core::ConfigError> {
        let (barriers, bell) = (Arc::new(Barriers::new()), Arc::new(Bell::default()));
        let cache = layout.build(&barriers, &bell)?;
        Ok(Arc::new_cyclic(|me| Self {
            share_bytes: layout.capacity_bytes.map(|bytes| bytes / cache.shards() as u64),
            cache,
            barriers,
            outbox,
            default_ttl: layout.default_ttl,
            keeps_history: layout.history > 0,
            time: layout.time.clone(),
            hidden_reads: AtomicU64::new(0),
            reclaim: Reclaim::new(),
            record_size: RecordSize::new(),
            bell,
            me: Weak::clone(me),
        }))
    }

    /// Reads a live value under its shard's lock; `read` must be short.
    #[inline]
    pub(crate) fn read<R>(&self, key: &[u8], read: impl FnOnce(&Stored, Option<Duration>) -> R) -> Option<R> {
        let seen =
            self.cache.read(key, |stored, left| self.is_visible(key, stored).then(|| read(stored, left)))?;
        if seen.is_none() {
            self.hidden_reads.fetch_add(1, Ordering::Relaxed);
        }
        seen
    }

    /// Looks at a live value as [`read`](Self::read) does, neither counted nor promoted.
    pub(crate) fn peek<R>(&self, key: &[u8], look: impl FnOnce(&Stored, Option<Duration>) -> R) -> Option<R> {
        self.cache.upsert(key, Key::new, |slot, _| {
            let live = slot.value.as_deref().filter(|live| self.is_visible(key, live));
            (Verdict::Keep, live.map(|live| look(live, slot.left)))
        })
    }

    /// Keeps a value as it was decoded, if it is still the one stamped `stamp`.
    pub(crate) fn keep_decoded(&self, key: &[u8], stamp: Stamp, decoded: Decoded) {
        self.cache.upsert(key, Key::new, |slot, _| {
            let refused = match slot.value {
                Some(live) => live.keep_decoded(stamp, decoded),
                None => Some(decoded),
            };
            // What is not kept is dropped after the lock: it is a caller's.
            (Verdict::Keep, refused)
        });
    }

    /// How many values are held, with those whose memory is yet to be given back.
    pub(crate) fn len(&self) -> usize {
        self.cache.len()
    }

    /// The keys of live values from a position on, and where those after them begin; `None` where there are none.
    pub(crate) fn keys_from(&self, position: u64) -> (Vec<Bytes>, Option<u64>) {
        self.cache.scan(position, page::PAGE_ENTRIES, |page, _| {
            let live = page.items.iter().filter(|item| self.is_visible(item.key, item.value));
            (live.map(|item| Bytes::copy_from_slice(item.key)).collect(), page.next)
        })
    }

    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// How long a value lives that is written without a time of its own.
    pub(crate) fn default_ttl(&self) -> Option<Duration> {
        self.default_ttl
    }

    /// The most that a value under a key of this length may weigh; one that weighs more would be evicted as it is written.
    pub(crate) fn weight_max(&self, key_bytes: usize) -> u64 {
        let beside = key_bytes as u64 + ENTRY_OVERHEAD_BYTES;
        let share = self.share_bytes.unwrap_or(u64::MAX).min(ENTRY_WEIGHT_MAX);
        share.saturating_sub(beside)
    }

    /// A clock reading above that of all that was written or heard of here.
    pub(crate) fn tick(&self) -> Hlc {
        self.outbox.clock().tick(self.time.wall_ms())
    }

    /// What the store counts; the rest of [`Stats`] is its caller's.
    pub(crate) fn stats(&self) -> Stats {
        let counted = self.cache.stats();
        let hidden = self.hidden_reads.load(Ordering::Relaxed);
        let mut stats = Stats {
            hits: counted.hits.saturating_sub(hidden),
            misses: counted.misses + hidden,
            evictions: counted.evictions,
            expirations: counted.expirations,
            entries: self.cache.len(),
            bytes: self.cache.weight(),
            ..Stats::default()
        };
        self.cache.with_sidecars(|shard| {
            stats.writes += shard.writes;
            stats.removes += shard.removes;
            stats.graves += shard.guard.len();
            stats.graves_dropped += shard.guard.forgotten();
        });
        stats
    }

    fn is_visible(&self, key: &[u8], stored: &Stored) -> bool {
        !self.barriers.hides(key, stored.stamp)
    }
}

/// What each of so many shards gets of a bound: shares that add up to it.
fn shares(bound: usize, shards: usize) -> impl Iterator<Item = usize> {
    (0..shards).map(move |index| bound / shards + usize::from(index < bound % shards))
}

/// The expiry of an entry with this much life left.
fn expiry(left: Option<Duration>) -> Expiry {
    left.map_or(Expiry::Never, |left| Expiry::After(left.min(LIFE_MAX)))
}

fn whole_ms(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX)
}
