//! The records that wait to leave, one for each key.
//!
//! A record is laid down as it will stand in its frame, so that leaving is a copy: a queue of owned records would
//! allocate a key for each write, share each value's count between the writer's core and the sender's, and move 200
//! bytes a record more than once. A long value is not copied but shared with the store.

use std::collections::VecDeque;

use bytes::Bytes;
use hashbrown::{HashTable, hash_table::Entry};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    OutboxStats, RECORD_BYTES,
    log::{CHUNK_BYTES, Log, Place},
    superseded::Superseded,
};
use crate::{
    record::Change,
    stamp::{Hlc, Stamp},
    wire::{self, RecordsEncoder},
};

/// From this length on a value is shared rather than copied.
const LONG_VALUE_BYTES: usize = 4 << 10;

/// What a record laid down takes at most beside key and value.
const LAID_BYTES: usize = 128;

/// Empty, a queue keeps room for so many records.
const ROOM_KEPT: usize = 16 << 10;

/// What left at once.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Left {
    /// How many numbers to pass over before the first record: records skipped at the bound.
    pub(crate) skipped: u64,
    /// The clock of the newest of them.
    pub(crate) skipped_through: Hlc,
    pub(crate) records: u64,
    /// The clock of the newest record.
    pub(crate) newest: Option<Hlc>,
    /// The lowest clock of a change that was superseded, and whose successor still waits.
    pub(crate) held_back: Option<Hlc>,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Slots in stamp order; `None` where a key moved to the tail.
    slots: VecDeque<Option<Slot>>,
    /// The number of the first slot; slots count on from it.
    head: u64,
    /// The slot number of each key's record, clears apart. The keys themselves are in the log.
    index: HashTable<u64>,
    log: Log,
    records: usize,
    /// What counts against the bound.
    bytes: usize,
    /// What the records take of the log.
    laid_bytes: usize,
    last_issued: Stamp,
    superseded: Superseded,
    skipped_since_take: u64,
    skipped_through: Hlc,
    coalesced: u64,
    skipped: u64,
}

/// A record that waits.
#[derive(Debug)]
struct Slot {
    hlc: Hlc,
    key_hash: u64,
    place: Place,
    key_at: u32,
    key_bytes: u32,
    is_clear: bool,
    is_put: bool,
    long_value: Option<Box<Bytes>>,
}

impl Slot {
    fn key<'a>(&self, log: &'a Log) -> &'a [u8] {
        log.get(self.place, self.key_at as usize..(self.key_at + self.key_bytes) as usize)
    }

    /// What is not in the log.
    fn long_value(&self) -> &[u8] {
        self.long_value.as_ref().map_or(&[], |value| value)
    }

    /// Its bytes in a frame, but for its clock.
    fn frame_bytes(&self) -> usize {
        self.place.len() + self.long_value().len()
    }

    fn weight(&self) -> usize {
        RECORD_BYTES + self.frame_bytes()
    }
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub(super) fn last_issued(&self) -> Stamp {
        self.last_issued
    }

    pub(super) fn stats(&self) -> OutboxStats {
        OutboxStats {
            records: self.records,
            bytes: self.bytes,
            coalesced: self.coalesced,
            skipped: self.skipped,
        }
    }

    pub(super) fn push(&mut self, stamp: Stamp, key: &[u8], change: Change<'_>, previous: Option<Stamp>) {
        self.last_issued = stamp;
        let (key_hash, is_clear) = (xxh3_64(key), matches!(change, Change::Clear));
        if is_clear {
            self.drop_cleared(key, stamp.hlc);
        } else if let Some(slot) = self.index_tail(key_hash, key) {
            self.supersede(slot, stamp.hlc);
        }
        let slot = self.lay(stamp.hlc, key_hash, key, change, previous);
        self.records += 1;
        self.bytes += slot.weight();
        self.laid_bytes += slot.place.len();
        self.slots.push_back(Some(slot));
        self.tidy();
    }

    fn lay(
        &mut self,
        hlc: Hlc,
        key_hash: u64,
        key: &[u8],
        change: Change<'_>,
        previous: Option<Stamp>,
    ) -> Slot {
        let value = match change {
            Change::Put(value) => Some(&value.bytes),
            Change::Remove | Change::Clear => None,
        };
        let (long, short) = value.map_or((None, &[][..]), |value| {
            if value.len() >= LONG_VALUE_BYTES { (Some(value), &[]) } else { (None, value) }
        });
        let (place, key_at) = self.log.append(LAID_BYTES + key.len() + short.len(), |bytes| {
            let key_at = wire::lay(bytes, hlc, key, change, previous);
            bytes.extend_from_slice(short);
            key_at
        });
        Slot {
            hlc,
            key_hash,
            place,
            // A record is far below 4 GiB.
            key_at: key_at as u32,
            key_bytes: key.len() as u32,
            is_clear: matches!(change, Change::Clear),
            is_put: matches!(change, Change::Put(_)),
            long_value: long.map(|value| Box::new(value.clone())),
        }
    }

    /// Notes that a key's record is the one about to be pushed; returns where the one before is.
    fn index_tail(&mut self, key_hash: u64, key: &[u8]) -> Option<u64> {
        let tail = self.head + self.slots.len() as u64;
        let (slots, log, head) = (&self.slots, &self.log, self.head);
        let is_same = |&slot: &u64| {
            slot_of(slots, head, slot).is_some_and(|slot| slot.key_hash == key_hash && slot.key(log) == key)
        };
        // A slot that is indexed holds a record, but for the one about to be pushed, which has this hash.
        let rehash = |&slot: &u64| slot_of(slots, head, slot).map_or(key_hash, |slot| slot.key_hash);
        match self.index.entry(key_hash, is_same, rehash) {
            Entry::Occupied(mut held) => Some(std::mem::replace(held.get_mut(), tail)),
            Entry::Vacant(place) => {
                place.insert(tail);
                None
            }
        }
    }

    /// What a slot held does not wait any more.
    fn forget(&mut self, slot: &Slot) {
        self.records -= 1;
        self.bytes -= slot.weight();
        self.laid_bytes -= slot.place.len();
    }

    fn unindex(&mut self, slot: &Slot, number: u64) {
        if slot.is_clear {
            return;
        }
        if let Ok(entry) = self.index.find_entry(slot.key_hash, |&held| held == number) {
            entry.remove();
        }
    }

    fn supersede(&mut self, number: u64, newer: Hlc) {
        let index = usize::try_from(number - self.head).expect("a slot of the queue fits its length");
        if let Some(slot) = self.slots[index].take() {
            self.superseded.add(slot.hlc, newer);
            self.forget(&slot);
            self.coalesced += 1;
        }
    }

    /// A clear supersedes what is queued of its namespace, older clears of it included.
    fn drop_cleared(&mut self, namespace: &[u8], newer: Hlc) {
        for number in self.head..self.head + self.slots.len() as u64 {
            let held = slot_of(&self.slots, self.head, number);
            if !held.is_some_and(|slot| slot.key(&self.log).starts_with(namespace)) {
                continue;
            }
            let index = (number - self.head) as usize;
            if let Some(slot) = self.slots[index].take() {
                self.unindex(&slot, number);
                self.superseded.add(slot.hlc, newer);
                self.forget(&slot);
                self.coalesced += 1;
            }
        }
    }

    /// Gives back what is in front of the first record, and keeps slots and log at most about twice as long as the
    /// records need, at a constant cost per push.
    fn tidy(&mut self) {
        while matches!(self.slots.front(), Some(None)) {
            self.slots.pop_front();
            self.head += 1;
        }
        match self.slots.front().and_then(Option::as_ref) {
            Some(first) => self.log.release_before(first.place),
            None => self.rest(),
        }
        let log_max = 2 * self.laid_bytes + 2 * CHUNK_BYTES;
        if self.slots.len() > 2 * self.records + 64 || self.log.bytes() > log_max {
            self.compact();
        }
    }

    /// Nothing waits.
    fn rest(&mut self) {
        self.log.rewind();
        if self.slots.capacity() > ROOM_KEPT {
            self.slots = VecDeque::new();
            self.index = HashTable::new();
        }
    }

    fn compact(&mut self) {
        self.slots.retain(Option::is_some);
        self.index.clear();
        let sparse = std::mem::take(&mut self.log);
        for slot in self.slots.iter_mut().flatten() {
            let bytes = sparse.get(slot.place, 0..slot.place.len());
            (slot.place, ()) = self.log.append(bytes.len(), |log| log.extend_from_slice(bytes));
        }
        let (slots, head) = (&self.slots, self.head);
        let rehash = |&slot: &u64| slot_of(slots, head, slot).map_or(0, |slot| slot.key_hash);
        for (number, slot) in (head..).zip(slots.iter().flatten()).filter(|(_, slot)| !slot.is_clear) {
            self.index.insert_unique(slot.key_hash, number, rehash);
        }
    }

    /// Takes the oldest record out; what it was in the log stays there until [`tidy`](Self::tidy).
    fn pop(&mut self) -> Option<Slot> {
        loop {
            let slot = self.slots.pop_front()?;
            self.head += 1;
            if let Some(slot) = slot {
                self.forget(&slot);
                self.unindex(&slot, self.head - 1);
                self.superseded.forget(slot.hlc);
                return Some(slot);
            }
        }
    }

    /// Skips the oldest records until the rest is within the bound, or one is left.
    pub(super) fn skip_over(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max && self.records > 1 {
            let Some(slot) = self.pop() else { return };
            self.skipped_through = slot.hlc;
            self.skipped_since_take += 1;
            self.skipped += 1;
            self.tidy();
        }
    }

    /// Moves the oldest records into a frame: at most `records_max`, and while it takes them.
    pub(super) fn fill(&mut self, frame: &mut RecordsEncoder, records_max: usize) -> Left {
        self.leave(records_max, |slot, log| {
            let takes = frame.takes_laid(slot.frame_bytes());
            if takes {
                frame.push_laid(slot.hlc, log.get(slot.place, 0..slot.place.len()), slot.long_value());
            }
            takes
        })
    }

    /// Takes all puts out without sending them; removes and clears stay.
    pub(super) fn discard_puts(&mut self) -> Left {
        let mut left = Left {
            skipped: std::mem::take(&mut self.skipped_since_take),
            skipped_through: self.skipped_through,
            ..Left::default()
        };
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots[index].take_if(|slot| slot.is_put) else { continue };
            self.forget(&slot);
            self.unindex(&slot, self.head + index as u64);
            self.superseded.forget(slot.hlc);
            left.newest = Some(slot.hlc);
            left.records += 1;
        }
        self.tidy();
        left
    }

    fn leave(&mut self, records_max: usize, mut goes: impl FnMut(&Slot, &Log) -> bool) -> Left {
        let mut left = Left {
            skipped: std::mem::take(&mut self.skipped_since_take),
            skipped_through: self.skipped_through,
            ..Left::default()
        };
        while left.records < records_max as u64 {
            let Some(next) = self.slots.iter().flatten().next() else { break };
            if !goes(next, &self.log) {
                break;
            }
            left.newest = self.pop().map(|slot| slot.hlc);
            left.records += 1;
        }
        self.tidy();
        left.held_back = self.superseded.lowest();
        left
    }

    /// How many slots there are, how many entries in the index, and how many bytes in the log.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.slots.len(), self.index.len(), self.log.bytes())
    }
}

/// The record in a slot, if there is one.
fn slot_of(slots: &VecDeque<Option<Slot>>, head: u64, number: u64) -> Option<&Slot> {
    slots.get(usize::try_from(number.checked_sub(head)?).ok()?)?.as_ref()
}
