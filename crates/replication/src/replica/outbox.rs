//! Local changes on their way out: stamped, coalesced, bounded.
//!
//! A write takes its stamp and its place here under one short lock, so that within a stream stamps strictly increase
//! with numbers; "what is newer than this stamp" is sound with many writers because of it. A key that is written again
//! before it left moves to the tail with its newest stamp, so an outage costs what changed, not what was written.
//! What a write superseded has no number of its own; as long as the newer one waits, the node does not claim to have sent
//! everything up to the older stamp (`superseded.rs`). Numbers are given when records leave. Past the bound in bytes the
//! oldest record is *skipped*: it gets its number and is not sent, so that every peer finds the gap and repairs it by a
//! sync; the writer never waits.

mod log;
mod queue;
mod superseded;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) use self::queue::Left;
use self::queue::Queue;
use super::Token;
use crate::{
    node::{Origin, Stream},
    record::Change,
    stamp::{Clock, Hlc, Stamp},
    wire::RecordsEncoder,
};

/// The bound of [`Outbox::new`] where none is given: 64 MiB of keys, values and 160 bytes a record.
pub const OUTBOX_BYTES_MAX: usize = 64 << 20;

/// What a record that waits takes beside key and value: its place in a queue that may be half empty, an entry in an index,
/// and its fields.
const RECORD_BYTES: usize = 160;

/// Stamps the local changes of a node and queues them for its driver.
#[derive(Debug)]
pub struct Outbox {
    origin: Origin,
    clock: Clock,
    queue: Option<Mutex<Queue>>,
    bytes_max: usize,
    filled: Arc<Notify>,
    /// The epochs of the node's lives in this process, the present one last; few.
    epochs: Mutex<Vec<u64>>,
    /// Writers that are about to wait for receipts.
    receipts_wanted: Arc<AtomicUsize>,
}

/// While it lives, the records that leave ask their receivers to say at once that they have them.
#[derive(Debug)]
pub struct ReceiptsWanted(Arc<AtomicUsize>);

impl Drop for ReceiptsWanted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What an outbox holds and what became of the rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxStats {
    /// Records waiting to leave.
    pub records: usize,
    /// Their bytes: keys, values and 160 a record.
    pub bytes: usize,
    /// Records replaced before they left, by a newer change of the same key.
    pub coalesced: u64,
    /// Records that were numbered but not sent because the outbox was full; peers repair them by a sync.
    pub skipped: u64,
}

impl Outbox {
    /// An outbox of the node `origin` that holds at most `bytes_max` bytes of records (but always one record).
    pub fn new(origin: Origin, bytes_max: usize) -> Self {
        let queue = Some(Mutex::default());
        Self { queue, bytes_max, ..Self::standalone(origin) }
    }

    /// An outbox of a node without peers: it stamps and keeps nothing.
    pub fn standalone(origin: Origin) -> Self {
        Self {
            origin,
            clock: Clock::new(),
            queue: None,
            bytes_max: 0,
            filled: Arc::default(),
            epochs: Mutex::default(),
            receipts_wanted: Arc::default(),
        }
    }

    /// An outbox that follows only these rules.
    #[cfg(any(test, feature = "sim"))]
    #[must_use]
    pub fn with_rules(self, rules: super::Rules) -> Self {
        let clock = if rules.hybrid_clock { self.clock } else { Clock::deaf() };
        Self { clock, ..self }
    }

    /// Stamps a local change and queues it. Call it under the lock of the key's shard, so that the order of stamps is
    /// the order in which the shard sees them. `wall_ms` is the wall clock in milliseconds since the Unix epoch; the key
    /// of a clear is its namespace; `previous` is the stamp that a compare-and-set replaced.
    pub fn issue(&self, wall_ms: u64, key: &[u8], change: Change<'_>, previous: Option<Stamp>) -> Stamp {
        let Some(queue) = &self.queue else {
            return Stamp { hlc: self.clock.tick(wall_ms), origin: self.origin };
        };
        let mut queue = queue.lock();
        let stamp = Stamp { hlc: self.clock.tick(wall_ms), origin: self.origin };
        let was_empty = queue.is_empty();
        queue.push(stamp, key, change, previous);
        queue.skip_over(self.bytes_max);
        drop(queue);
        if was_empty {
            self.filled.notify_one();
        }
        stamp
    }

    /// The node's hybrid logical clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The node it belongs to.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The stamp of the newest local change, [`Stamp::ZERO`] before the first.
    pub fn last_issued(&self) -> Stamp {
        self.queue.as_ref().map_or(Stamp::ZERO, |queue| queue.lock().last_issued())
    }

    /// Names a write of this process for its receipt and its session.
    pub fn token(&self, stamp: Stamp) -> Token {
        let epochs = self.epochs.lock();
        // A life's stamps lie above its epoch. The life may have been overtaken since the write was made.
        let epoch = epochs.iter().rev().find(|epoch| **epoch <= stamp.hlc.0).copied().unwrap_or_default();
        Token { stream: Stream { origin: self.origin, epoch }, hlc: stamp.hlc }
    }

    /// Names all changes of the node's present life until now; those of the one before where there is none yet.
    pub fn newest(&self) -> Token {
        let hlc = match &self.queue {
            None => self.clock.last(),
            Some(queue) => queue.lock().last_issued().hlc,
        };
        // Before the first change it is the life's beginning.
        let begun = self.epochs.lock().last().copied().unwrap_or_default();
        let hlc = if hlc == Hlc::default() { Hlc(begun) } else { hlc };
        self.token(Stamp { hlc, origin: self.origin })
    }

    /// Call it before a write whose receipt is waited for, and keep what it returns while waiting: the others then
    /// answer the record at once instead of with their next beat.
    pub fn want_receipts(&self) -> ReceiptsWanted {
        self.receipts_wanted.fetch_add(1, Ordering::AcqRel);
        ReceiptsWanted(Arc::clone(&self.receipts_wanted))
    }

    pub(crate) fn are_receipts_wanted(&self) -> bool {
        self.receipts_wanted.load(Ordering::Acquire) > 0
    }

    /// Begins the life of a node without peers, told apart from other such lives by random low bits, as the lives of a replica
    /// are; gives its epoch.
    pub fn begin_alone(&self, wall_ms: u64) -> Hlc {
        self.begin_life(|clock| clock.tick(wall_ms).0 | u64::from(fastrand::u16(..)));
        self.clock.last()
    }

    /// Begins a life of the node at the epoch that `begin` says, to which the clock is lifted. No change is stamped
    /// meanwhile, so each is of the life before or of this one for certain.
    pub(crate) fn begin_life(&self, begin: impl FnOnce(&Clock) -> u64) {
        let _waits = self.queue.as_ref().map(Mutex::lock);
        self.begin_life_locked(begin);
    }

    /// As [`begin_life`](Self::begin_life), but first takes out the puts that wait: they count for the life that ends, and
    /// are to be issued anew. Removes and clears stay, with the stamps they have, and are the first of the new life.
    pub(crate) fn begin_life_anew(&self, begin: impl FnOnce(&Clock) -> u64) -> Left {
        let mut queue = self.queue.as_ref().map(Mutex::lock);
        let left = queue.as_mut().map_or_else(Left::default, |queue| queue.discard_puts());
        self.begin_life_locked(begin);
        left
    }

    fn begin_life_locked(&self, begin: impl FnOnce(&Clock) -> u64) {
        let epoch = begin(&self.clock);
        self.clock.observe(Hlc(epoch));
        self.epochs.lock().push(epoch);
    }

    /// What it holds, and what became of the rest.
    pub fn stats(&self) -> OutboxStats {
        self.queue.as_ref().map_or_else(OutboxStats::default, |queue| queue.lock().stats())
    }

    /// Resolves when a record was queued into an empty outbox since the last call resolved.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Whether no change was stamped yet in this process.
    pub(crate) fn is_fresh(&self) -> bool {
        self.last_issued() == Stamp::ZERO
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.as_ref().is_none_or(|queue| queue.lock().is_empty())
    }

    /// Moves the oldest records into a frame: at most `records_max`, and while it takes them, but at least one.
    pub(crate) fn fill(&self, frame: &mut RecordsEncoder, records_max: usize) -> Left {
        self.queue.as_ref().map_or_else(Left::default, |queue| queue.lock().fill(frame, records_max))
    }
}

#[cfg(test)]
mod tests;
