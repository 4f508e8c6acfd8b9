//! A page of the store as it travels: live records and graves side by side.
//!
//! A page's records do not share the memory of what is stored. A clone of a key or a value would first make its bytes
//! countable, 32 bytes each that the entry keeps for the rest of its life, so that one transfer of a whole store would
//! make the store larger by a sixth. Short ones are copied into one allocation for the page instead, which costs less
//! than counting them would, and under the lock no more than a page's bytes; long values are cloned, since the 32 bytes
//! are little beside them.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use cache_core::{ScanItem, ScanPage};
use replication::{
    Op, Record, Stamp, Ttl, Value,
    message::{Bar, Grave},
    replica::StorePage,
    wire,
};

use super::{Key, NodeStore, Shard, whole_ms};
use crate::value::Stored;

/// Values longer than this are shared with the store rather than copied.
const COPY_BYTES_MAX: usize = 1024;

/// Entries looked at under one hold of a shard's lock.
pub(super) const PAGE_ENTRIES: usize = 1024;

/// No record takes less of a page's budget than this.
pub(super) const RECORD_BYTES_LEAST: usize = 64;

/// A page of fewer records says little about how long they are.
const TELLING_RECORDS: usize = 16;

/// How long records are, as the last page had them: so that about as many entries are looked at as fill a page.
#[derive(Debug)]
pub(super) struct RecordSize(AtomicUsize);

impl RecordSize {
    pub(super) fn new() -> Self {
        Self(AtomicUsize::new(RECORD_BYTES_LEAST))
    }

    fn entries(&self, budget_bytes: usize) -> usize {
        let bytes = self.0.load(Ordering::Relaxed);
        // Some more, since the next records can be shorter.
        (budget_bytes / (bytes - bytes / 8)).clamp(1, PAGE_ENTRIES)
    }

    fn learn(&self, bytes: usize, records: usize) {
        if records >= TELLING_RECORDS {
            self.0.store((bytes / records).max(RECORD_BYTES_LEAST), Ordering::Relaxed);
        }
    }
}

impl NodeStore {
    pub(super) fn page_from(&self, position: u64, budget_bytes: usize, mono_ms: u64) -> StorePage {
        let entries = self.record_size.entries(budget_bytes);
        let laid = self
            .cache
            .scan(position, entries, |page, shard| self.lay_page(&page, shard, budget_bytes, mono_ms));
        self.record_size.learn(laid.record_bytes, laid.records.len());
        laid.finish()
    }

    /// Walks live entries and graves in position order, until the budget is spent. A position is never split over two
    /// pages.
    fn lay_page(
        &self,
        page: &ScanPage<'_, Key, Stored>,
        shard: &Shard,
        budget_bytes: usize,
        mono_ms: u64,
    ) -> Laid {
        let is_within = |grave: &Grave| page.next.is_none_or(|next| grave.position < next);
        let mut buried = shard.guard.graves_from(page.lo).take_while(is_within).peekable();
        let mut laid = Laid::new(page, shard.guard.floor(page.lo));
        // What it takes lies scattered over memory: looked at in one short loop, the processor waits for many at once.
        let bytes: Vec<Option<usize>> = page.items.iter().map(|item| self.visible_bytes(item)).collect();
        let mut items = page.items.iter().zip(bytes).peekable();
        loop {
            let nearest =
                [items.peek().map(|(item, _)| item.position), buried.peek().map(|grave| grave.position)];
            let Some(position) = nearest.into_iter().flatten().min() else { return laid };
            let before = laid.mark();
            while let Some((item, bytes)) = items.next_if(|(item, _)| item.position == position) {
                if let Some(bytes) = bytes {
                    laid.push(item, bytes, mono_ms);
                }
            }
            while let Some(grave) = buried.next_if(|grave| grave.position == position) {
                laid.graves.push(grave);
            }
            // A page always takes one position; with one more beside it, the longest value would fit no frame.
            if before.bytes > 0 && laid.bytes() > budget_bytes {
                laid.cut(before, position);
                return laid;
            }
        }
    }

    /// The length of key and value, where the entry is visible.
    fn visible_bytes(&self, item: &ScanItem<'_, Key, Stored>) -> Option<usize> {
        let bytes = item.key.len() + item.value.bytes.len();
        self.is_visible(item.key, item.value).then_some(bytes)
    }
}

/// What a page lists. Its records get their keys and short values after the lock, as slices of one allocation.
struct Laid {
    hi: Option<u64>,
    floor: Bar,
    graves: Vec<Grave>,
    positions: Vec<u64>,
    records: Vec<Record>,
    /// The keys of the records and their short values, one after the other.
    copies: Vec<u8>,
    /// The length of each record's key, and of its value where that was copied.
    lengths: Vec<(usize, Option<usize>)>,
    /// What the records take on the wire, and what each of them takes beside its key and value.
    record_bytes: usize,
    overhead_bytes: usize,
}

/// How far a page was laid at some time.
#[derive(Clone, Copy)]
struct Mark {
    records: usize,
    graves: usize,
    record_bytes: usize,
    bytes: usize,
}

impl Laid {
    fn new(page: &ScanPage<'_, Key, Stored>, floor: Bar) -> Self {
        let op = Op::Put(Value::default());
        let empty = Record { stamp: Stamp::ZERO, key: Bytes::new(), op, previous: None };
        Self {
            hi: page.next,
            floor,
            graves: Vec::new(),
            positions: Vec::with_capacity(page.items.len()),
            records: Vec::with_capacity(page.items.len()),
            copies: Vec::new(),
            lengths: Vec::with_capacity(page.items.len()),
            record_bytes: 0,
            overhead_bytes: wire::record_bytes_max(&empty),
        }
    }

    fn push(&mut self, item: &ScanItem<'_, Key, Stored>, bytes: usize, mono_ms: u64) {
        let stored = item.value;
        self.record_bytes += self.overhead_bytes + bytes;
        self.copies.extend_from_slice(item.key);
        let is_short = stored.bytes.len() <= COPY_BYTES_MAX;
        let shared = if is_short {
            self.copies.extend_from_slice(&stored.bytes);
            Bytes::new()
        } else {
            stored.bytes.clone()
        };
        self.positions.push(item.position);
        self.lengths.push((item.key.len(), is_short.then_some(stored.bytes.len())));
        self.records.push(record(Bytes::new(), shared, stored, item.left, mono_ms));
    }

    fn bytes(&self) -> usize {
        self.record_bytes + StorePage::GRAVE_BYTES * self.graves.len()
    }

    fn mark(&self) -> Mark {
        let (records, graves) = (self.records.len(), self.graves.len());
        Mark { records, graves, record_bytes: self.record_bytes, bytes: self.bytes() }
    }

    /// Ends the page at `position`, with no more than it had at the mark.
    fn cut(&mut self, mark: Mark, position: u64) {
        self.positions.truncate(mark.records);
        self.records.truncate(mark.records);
        self.lengths.truncate(mark.records);
        self.graves.truncate(mark.graves);
        self.record_bytes = mark.record_bytes;
        self.hi = Some(position);
    }

    /// The page, for which no lock is needed.
    fn finish(mut self) -> StorePage {
        let copies = Bytes::from(self.copies);
        let mut at = 0;
        let mut next = |length: usize| {
            at += length;
            copies.slice(at - length..at)
        };
        for (record, (key, value)) in self.records.iter_mut().zip(self.lengths) {
            record.key = next(key);
            if let (Op::Put(put), Some(length)) = (&mut record.op, value) {
                put.bytes = next(length);
            }
        }
        let Self { hi, floor, graves, positions, records, .. } = self;
        StorePage { hi, records, positions, graves, floor }
    }
}

/// A live record on its own, as in a page.
pub(super) fn copied(key: &[u8], stored: &Stored, left: Option<Duration>, mono_ms: u64) -> Record {
    let is_short = stored.bytes.len() <= COPY_BYTES_MAX;
    let bytes = if is_short { Bytes::copy_from_slice(&stored.bytes) } else { stored.bytes.clone() };
    record(Bytes::copy_from_slice(key), bytes, stored, left, mono_ms)
}

/// A live record as it travels: with what is left of its life.
fn record(key: Bytes, bytes: Bytes, stored: &Stored, left: Option<Duration>, mono_ms: u64) -> Record {
    let value = Value {
        bytes,
        flags: stored.flags,
        codec: stored.codec.number(),
        cas: Some(stored.cas).filter(|cas| *cas != stored.stamp.hlc.0),
        ttl: left.map(|left| Ttl { left_ms: whole_ms(left), born_ms: mono_ms }),
    };
    Record { stamp: stored.stamp, key, op: Op::Put(value), previous: None }
}
