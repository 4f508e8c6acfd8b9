//! Local changes on their way out: stamped, coalesced, bounded.
//!
//! A write takes its stamp and its place here under one short lock, so that within a stream stamps strictly increase
//! with numbers; "what is newer than this stamp" is sound with many writers because of it. A key that is written again
//! before it left moves to the tail with its newest stamp, so an outage costs what changed, not what was written.
//! What a write superseded has no number of its own; as long as the newer one waits, the node does not claim to have sent
//! everything up to the older stamp ([`Superseded`]). Numbers are given when records leave. Past the bound in bytes the oldest record is *skipped*: it gets its number and
//! is not sent, so that every peer finds the gap and repairs it by a sync; the writer never waits.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use hashbrown::HashTable;
use parking_lot::Mutex;
use tokio::sync::Notify;
use xxhash_rust::xxh3::xxh3_64;

use super::Token;
use crate::{
    node::{Origin, Stream},
    record::{Op, Record},
    stamp::{Clock, Hlc, Stamp},
    wire,
};

/// The bound of [`Outbox::new`] where none is given: 64 MiB of keys, values and 320 bytes a record.
pub const OUTBOX_BYTES_MAX: usize = 64 << 20;

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
    /// Their bytes: keys, values and 320 a record.
    pub bytes: usize,
    /// Records replaced before they left, by a newer change of the same key.
    pub coalesced: u64,
    /// Records that were numbered but not sent because the outbox was full; peers repair them by a sync.
    pub skipped: u64,
}

/// What leaves at once.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// How many numbers to pass over before the first record: records skipped at the bound.
    pub(crate) skipped: u64,
    /// The stamp of the newest of them.
    pub(crate) skipped_through: Stamp,
    pub(crate) records: Vec<Record>,
    /// The lowest stamp of a change that was superseded, and whose successor still waits after this batch.
    pub(crate) held_back: Option<Hlc>,
}

/// The changes that were superseded before they left, by newer ones that still wait.
///
/// Whoever has all records up to a stamp has all changes up to it, but for these: their successors come later. Without
/// this, a receipt for a superseded write would be given before anything of it had left.
#[derive(Debug, Default)]
struct Superseded {
    /// For each waiting record that superseded others, by its stamp: the lowest of theirs.
    first_of: BTreeMap<Hlc, Hlc>,
    firsts: BTreeSet<Hlc>,
}

impl Superseded {
    /// `newer` supersedes the waiting change `older`, and what that superseded.
    fn add(&mut self, older: Hlc, newer: Hlc) {
        let first = self.forget(older).unwrap_or(older);
        let known = self.first_of.get(&newer).copied();
        if known.is_none_or(|known| first < known) {
            known.map(|known| self.firsts.remove(&known));
            self.first_of.insert(newer, first);
            self.firsts.insert(first);
        }
    }

    /// The change of this stamp waits no longer. Returns the lowest stamp that it superseded.
    fn forget(&mut self, stamp: Hlc) -> Option<Hlc> {
        let first = self.first_of.remove(&stamp)?;
        self.firsts.remove(&first);
        Some(first)
    }

    fn lowest(&self) -> Option<Hlc> {
        self.firsts.first().copied()
    }
}

#[derive(Debug, Default)]
struct Queue {
    /// Slots in stamp order; `None` where a key moved to the tail.
    slots: VecDeque<Option<Record>>,
    /// The number of the first slot; slots count on from it.
    head: u64,
    /// The slot number of each key's record, clears apart. The keys themselves are in the slots.
    index: HashTable<u64>,
    records: usize,
    bytes: usize,
    last_issued: Stamp,
    superseded: Superseded,
    skipped_since_take: u64,
    skipped_through: Stamp,
    coalesced: u64,
    skipped: u64,
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
    /// the order in which the shard sees them. `wall_ms` is the wall clock in milliseconds since the Unix epoch.
    pub fn issue(&self, wall_ms: u64, key: Bytes, op: Op, previous: Option<Stamp>) -> Stamp {
        let Some(queue) = &self.queue else {
            return Stamp { hlc: self.clock.tick(wall_ms), origin: self.origin };
        };
        let mut queue = queue.lock();
        let stamp = Stamp { hlc: self.clock.tick(wall_ms), origin: self.origin };
        let was_empty = queue.records == 0;
        queue.push(Record { stamp, key, op, previous });
        while queue.bytes > self.bytes_max && queue.records > 1 {
            queue.skip_oldest();
        }
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
        self.queue.as_ref().map_or(Stamp::ZERO, |queue| queue.lock().last_issued)
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
            Some(queue) => queue.lock().last_issued.hlc,
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

    pub(crate) fn set_epoch(&self, epoch: u64) {
        self.epochs.lock().push(epoch);
    }

    /// What it holds, and what became of the rest.
    pub fn stats(&self) -> OutboxStats {
        let Some(queue) = &self.queue else { return OutboxStats::default() };
        let queue = queue.lock();
        OutboxStats {
            records: queue.records,
            bytes: queue.bytes,
            coalesced: queue.coalesced,
            skipped: queue.skipped,
        }
    }

    /// Resolves when a record was queued into an empty outbox since the last call resolved.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.as_ref().is_none_or(|queue| queue.lock().records == 0)
    }

    /// Takes the oldest records: at most `records_max`, and no further one past `bytes_max` on the wire, but at least
    /// one.
    pub(crate) fn take(&self, records_max: usize, bytes_max: usize) -> Batch {
        self.queue.as_ref().map_or_else(Batch::default, |queue| queue.lock().take(records_max, bytes_max))
    }
}

impl Queue {
    fn push(&mut self, record: Record) {
        self.last_issued = record.stamp;
        if matches!(record.op, Op::Clear) {
            self.drop_cleared(&record.key, record.stamp.hlc);
        } else if let Some(slot) = self.index_tail(&record.key) {
            self.empty_slot(slot, record.stamp.hlc);
            self.coalesced += 1;
        }
        self.records += 1;
        self.bytes += record.weight();
        self.slots.push_back(Some(record));
        self.drop_empty_slots();
    }

    /// Notes that a key's record is the one about to be pushed; returns where the one before is.
    fn index_tail(&mut self, key: &[u8]) -> Option<u64> {
        let tail = self.head + self.slots.len() as u64;
        let hash = xxh3_64(key);
        let (slots, head) = (&self.slots, self.head);
        match self.index.find_mut(hash, |&slot| key_of(slots, head, slot) == Some(key)) {
            Some(slot) => Some(std::mem::replace(slot, tail)),
            None => {
                // A slot that is indexed holds a record, but for the one about to be pushed, which has this hash.
                let rehash = |&slot: &u64| key_of(slots, head, slot).map_or(hash, xxh3_64);
                self.index.insert_unique(hash, tail, rehash);
                None
            }
        }
    }

    fn unindex(&mut self, record: &Record, slot: u64) {
        if matches!(record.op, Op::Clear) {
            return;
        }
        if let Ok(entry) = self.index.find_entry(xxh3_64(&record.key), |&held| held == slot) {
            entry.remove();
        }
    }

    fn empty_slot(&mut self, slot: u64, newer: Hlc) {
        let index = usize::try_from(slot - self.head).expect("a slot of the queue fits its length");
        if let Some(record) = self.slots[index].take() {
            self.superseded.add(record.stamp.hlc, newer);
            self.records -= 1;
            self.bytes -= record.weight();
        }
    }

    /// A clear supersedes what is queued of its namespace, older clears of it included.
    fn drop_cleared(&mut self, namespace: &[u8], newer: Hlc) {
        for index in 0..self.slots.len() {
            let superseded = self.slots[index].take_if(|record| record.key.starts_with(namespace));
            if let Some(record) = superseded {
                self.superseded.add(record.stamp.hlc, newer);
                self.records -= 1;
                self.bytes -= record.weight();
                self.coalesced += 1;
                self.unindex(&record, self.head + index as u64);
            }
        }
    }

    /// Keeps the slots at most twice as many as the records, at a constant cost per push.
    fn drop_empty_slots(&mut self) {
        while matches!(self.slots.front(), Some(None)) {
            self.slots.pop_front();
            self.head += 1;
        }
        if self.slots.len() > 2 * self.records + 64 {
            self.slots.retain(Option::is_some);
            self.index.clear();
            let slots = &self.slots;
            for (slot, record) in (self.head..).zip(slots) {
                if let Some(record) = record.as_ref().filter(|record| !matches!(record.op, Op::Clear)) {
                    let rehash = |&slot: &u64| key_of(slots, self.head, slot).map_or(0, xxh3_64);
                    self.index.insert_unique(xxh3_64(&record.key), slot, rehash);
                }
            }
        }
    }

    fn pop(&mut self) -> Option<Record> {
        loop {
            let record = self.slots.pop_front()?;
            self.head += 1;
            if let Some(record) = record {
                self.records -= 1;
                self.bytes -= record.weight();
                self.unindex(&record, self.head - 1);
                self.superseded.forget(record.stamp.hlc);
                return Some(record);
            }
        }
    }

    fn skip_oldest(&mut self) {
        if let Some(record) = self.pop() {
            self.skipped_through = record.stamp;
            self.skipped_since_take += 1;
            self.skipped += 1;
        }
    }

    fn take(&mut self, records_max: usize, bytes_max: usize) -> Batch {
        let skipped = std::mem::take(&mut self.skipped_since_take);
        let mut records = Vec::with_capacity(self.records.min(records_max));
        let mut bytes = 0;
        while records.len() < records_max {
            let Some(next) = self.slots.iter().flatten().next() else { break };
            bytes += wire::record_bytes_max(next);
            if bytes > bytes_max && !records.is_empty() {
                break;
            }
            records.extend(self.pop());
        }
        Batch { skipped, skipped_through: self.skipped_through, records, held_back: self.superseded.lowest() }
    }
}

/// The key of the record in a slot, if there is one.
fn key_of(slots: &VecDeque<Option<Record>>, head: u64, slot: u64) -> Option<&[u8]> {
    let index = usize::try_from(slot.checked_sub(head)?).ok()?;
    Some(&slots.get(index)?.as_ref()?.key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Value;

    fn put(outbox: &Outbox, key: &str, value: &str) -> Stamp {
        let value = Value { bytes: Bytes::copy_from_slice(value.as_bytes()), ..Value::default() };
        outbox.issue(1_000, Bytes::copy_from_slice(key.as_bytes()), Op::Put(value), None)
    }

    fn keys(batch: &Batch) -> Vec<String> {
        batch.records.iter().map(|record| String::from_utf8_lossy(&record.key).into_owned()).collect()
    }

    #[test]
    fn a_key_written_again_moves_to_the_tail_with_its_newest_stamp() {
        let outbox = Outbox::new(Origin(1), 1 << 20);
        for key in ["a", "b", "a"] {
            put(&outbox, key, key);
        }
        let batch = outbox.take(10, 1 << 20);
        assert_eq!(keys(&batch), ["b", "a"]);
        assert!(batch.records.is_sorted_by(|x, y| x.stamp < y.stamp));
        assert_eq!(outbox.stats().coalesced, 1);
        assert!(outbox.is_empty());
    }

    /// A receipt for the first write of a key was given when only what lay between its two writes had left.
    #[test]
    fn a_superseded_change_is_held_back_until_its_successor_left() {
        let outbox = Outbox::new(Origin(1), 1 << 20);
        let first = put(&outbox, "a", "1");
        put(&outbox, "b", "1");
        put(&outbox, "a", "2");
        put(&outbox, "c", "1");
        put(&outbox, "a", "3");
        let held_back = |batch: &Batch| batch.held_back;
        assert_eq!(held_back(&outbox.take(1, 1 << 20)), Some(first.hlc));
        assert_eq!(held_back(&outbox.take(1, 1 << 20)), Some(first.hlc));
        assert_eq!(held_back(&outbox.take(1, 1 << 20)), None);
        let cleared = put(&outbox, "a", "4");
        outbox.issue(1_000, Bytes::from_static(b"a"), Op::Clear, None);
        put(&outbox, "d", "1");
        assert_eq!(held_back(&outbox.take(1, 1)), None, "the clear left: {cleared}");
    }

    /// A write made just before its life was overtaken was named as one of the next life, whose watermarks say nothing of it.
    #[test]
    fn a_token_names_the_life_in_which_its_write_was_made() {
        let outbox = Outbox::new(Origin(1), 1 << 20);
        let before = put(&outbox, "a", "1");
        let epochs = [Hlc(before.hlc.0 + 1), Hlc(before.hlc.0 + 100)];
        outbox.set_epoch(epochs[0].0);
        let first = Stamp { hlc: Hlc(epochs[0].0 + 1), origin: Origin(1) };
        outbox.set_epoch(epochs[1].0);
        let second = Stamp { hlc: Hlc(epochs[1].0 + 1), origin: Origin(1) };
        let lives = [before, first, second].map(|stamp| outbox.token(stamp).stream.epoch);
        assert_eq!(lives, [0, epochs[0].0, epochs[1].0]);
    }

    #[test]
    fn past_the_bound_the_oldest_is_skipped_and_counted() {
        let outbox = Outbox::new(Origin(1), 3 * 322);
        for key in ["a", "b", "c", "d", "e"] {
            put(&outbox, key, "v");
        }
        let batch = outbox.take(10, 1 << 20);
        assert_eq!((batch.skipped, keys(&batch)), (2, vec!["c".into(), "d".into(), "e".into()]));
        assert_eq!(outbox.stats().skipped, 2);
        assert_eq!(outbox.take(10, 1 << 20).skipped, 0, "a number is passed over once");
    }

    #[test]
    fn a_batch_closes_at_its_records_or_bytes_but_takes_at_least_one() {
        let outbox = Outbox::new(Origin(1), 1 << 20);
        for key in ["a", "b", "c"] {
            put(&outbox, key, "v");
        }
        assert_eq!(keys(&outbox.take(2, 1 << 20)), ["a", "b"]);
        assert_eq!(keys(&outbox.take(2, 1)), ["c"]);
    }

    #[test]
    fn a_clear_supersedes_what_is_queued_of_its_namespace() {
        let outbox = Outbox::new(Origin(1), 1 << 20);
        put(&outbox, "user:1", "v");
        put(&outbox, "order:1", "v");
        outbox.issue(1_000, Bytes::from_static(b"user:"), Op::Clear, None);
        put(&outbox, "user:1", "w");
        assert_eq!(keys(&outbox.take(10, 1 << 20)), ["order:1", "user:", "user:1"]);
    }

    #[test]
    fn slots_stay_bounded_while_one_key_is_rewritten() {
        let outbox = Outbox::new(Origin(1), 1 << 20);
        put(&outbox, "first", "stays at the head");
        for _ in 0..10_000 {
            put(&outbox, "hot", "v");
        }
        let queue = outbox.queue.as_ref().unwrap().lock();
        assert!(queue.slots.len() <= 2 * 2 + 64 + 1, "{}", queue.slots.len());
        assert_eq!(queue.records, 2);
    }

    #[test]
    fn what_leaves_is_the_newest_change_of_each_key_in_the_order_of_stamps() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let outbox = Outbox::new(Origin(1), 1 << 20);
            let mut wanted: Vec<(String, Stamp)> = Vec::new();
            for _ in 0..random.usize(..600) {
                let key = format!("{}:{}", random.u8(..3), random.u8(..40));
                match random.u8(..40) {
                    0 => {
                        let namespace = key[..2].to_owned();
                        wanted.retain(|(key, _)| !key.starts_with(&namespace));
                        let stamp = outbox.issue(1_000, Bytes::from(namespace.clone()), Op::Clear, None);
                        wanted.push((namespace, stamp));
                    }
                    1..4 => {
                        let left = outbox.take(random.usize(1..20), 1 << 20).records;
                        for (record, (key, stamp)) in left.iter().zip(wanted.drain(..left.len())) {
                            assert_eq!(
                                (&record.key[..], record.stamp),
                                (key.as_bytes(), stamp),
                                "seed {seed}"
                            );
                        }
                    }
                    _ => {
                        let stamp = put(&outbox, &key, "v");
                        wanted.retain(|(held, _)| *held != key);
                        wanted.push((key, stamp));
                    }
                }
            }
            let left = outbox.take(usize::MAX, usize::MAX).records;
            let left: Vec<_> = left.iter().map(|record| (record.key.clone(), record.stamp)).collect();
            let wanted: Vec<_> = wanted.into_iter().map(|(key, stamp)| (Bytes::from(key), stamp)).collect();
            assert_eq!(left, wanted, "seed {seed}");
            assert!(outbox.queue.as_ref().unwrap().lock().index.is_empty(), "seed {seed}");
        }
    }
}
