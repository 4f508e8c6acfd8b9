//! Local changes on their way out: stamped, coalesced, bounded.
//!
//! A write takes its stamp and its place here under one short lock, so that within a stream stamps strictly increase
//! with numbers; "what is newer than this stamp" is sound with many writers because of it. A key that is written again
//! before it left moves to the tail with its newest stamp, so an outage costs what changed, not what was written.
//! Numbers are given when records leave. Past the bound in bytes the oldest record is *skipped*: it gets its number and
//! is not sent, so that every peer finds the gap and repairs it by a sync; the writer never waits.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use hashbrown::HashTable;
use parking_lot::Mutex;
use tokio::sync::Notify;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    node::Origin,
    record::{Op, Record},
    stamp::{Clock, Stamp},
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
    pub(crate) records: Vec<Record>,
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
    skipped_since_take: u64,
    coalesced: u64,
    skipped: u64,
}

impl Outbox {
    /// An outbox of the node `origin` that holds at most `bytes_max` bytes of records (but always one record).
    pub fn new(origin: Origin, bytes_max: usize) -> Self {
        let queue = Some(Mutex::default());
        Self { origin, clock: Clock::new(), queue, bytes_max, filled: Arc::default() }
    }

    /// An outbox of a node without peers: it stamps and keeps nothing.
    pub fn standalone(origin: Origin) -> Self {
        Self { origin, clock: Clock::new(), queue: None, bytes_max: 0, filled: Arc::default() }
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
            self.drop_cleared(&record.key);
        } else if let Some(slot) = self.index_tail(&record.key) {
            self.empty_slot(slot);
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

    fn empty_slot(&mut self, slot: u64) {
        let index = usize::try_from(slot - self.head).expect("a slot of the queue fits its length");
        if let Some(record) = self.slots[index].take() {
            self.records -= 1;
            self.bytes -= record.weight();
        }
    }

    /// A clear supersedes what is queued of its namespace, older clears of it included.
    fn drop_cleared(&mut self, namespace: &[u8]) {
        for index in 0..self.slots.len() {
            let superseded = self.slots[index].take_if(|record| record.key.starts_with(namespace));
            if let Some(record) = superseded {
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
                return Some(record);
            }
        }
    }

    fn skip_oldest(&mut self) {
        if self.pop().is_some() {
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
        Batch { skipped, records }
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
