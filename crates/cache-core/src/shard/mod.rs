//! One shard: entries, their order, their bounds. Pure: it is given the time and owns no lock.
//!
//! Look-ups go through a hash table of slot numbers into a slab of entries; the recency order holds the same slot numbers. So an
//! entry's key is stored once, a hit touches neither the table nor the order's links, and eviction needs no key.
//!
//! Whatever user code may panic (the sidecar) is called before anything is changed for the entry it is told of, so the shard stays
//! whole.

mod entry;
mod recency;
mod run;
mod sweep;
#[cfg(test)]
mod tests;

use std::{borrow::Borrow, mem};

use hashbrown::HashTable;

use crate::{Cause, Sidecar, Stats, departed::Departed};

use entry::Entry;
use recency::Recency;
use run::Run;
use sweep::Due;

pub(crate) use entry::{New, WEIGHT_MAX};
pub(crate) use run::{Gathering, Page};
pub(crate) use sweep::Budget;

/// How many second chances one search for a victim gives before it evicts the coldest entry all the same.
pub const SECOND_CHANCES_MAX: usize = 64;

/// A shard and its companion, as they sit under one lock.
pub(crate) struct Shard<K, V, X> {
    pub(crate) store: Store<K, V>,
    pub(crate) sidecar: X,
}

/// What one shard may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// At least 1, less than `u32::MAX`: slots are numbered by `u32`.
    pub(crate) entries: usize,
    pub(crate) weight: u64,
}

pub(crate) struct Store<K, V> {
    table: HashTable<u32>,
    slab: Vec<Option<Entry<K, V>>>,
    pub(crate) counts: Stats,
    recency: Recency,
    free: Vec<u32>,
    weight: u64,
    share: Share,
    due: Due,
    /// Where a scan is under way.
    run: Option<Box<Run>>,
}

impl<K, V> Store<K, V> {
    pub(crate) fn new(share: Share) -> Self {
        debug_assert!(
            share.entries >= 1 && share.entries < u32::MAX as usize,
            "the builder checked the share"
        );
        Store {
            table: HashTable::new(),
            slab: Vec::new(),
            counts: Stats::default(),
            recency: Recency::new(),
            free: Vec::new(),
            weight: 0,
            share,
            due: Due::new(),
            run: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// The slot of a key, whether its entry is live or not.
    #[inline]
    pub(crate) fn find<Q>(&self, hash: u64, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let same = |slot: &u32| {
            self.slab[*slot as usize].as_ref().is_some_and(|e| e.hash == hash && e.key.borrow() == key)
        };
        self.table.find(table_hash(hash), same).copied()
    }

    /// The slot of a key's live entry; an expired one is given up on the way.
    pub(crate) fn live<Q>(
        &mut self,
        hash: u64,
        key: &Q,
        now: u64,
        sidecar: &mut impl Sidecar<K, V>,
        out: &mut Departed<K, V>,
    ) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let slot = self.find(hash, key)?;
        if self.entry(slot).deadline > now {
            return Some(slot);
        }
        self.give_up(slot, Cause::Expired, sidecar, out);
        None
    }

    /// The slots of the entries at a position, live or not: nearly always at most one.
    pub(crate) fn slots_at(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        let is_there = move |slot: &u32| self.slab[*slot as usize].as_ref().is_some_and(|e| e.hash == hash);
        self.table.iter_hash(table_hash(hash)).copied().filter(is_there)
    }

    #[inline]
    pub(crate) fn entry(&self, slot: u32) -> &Entry<K, V> {
        self.slab[slot as usize].as_ref().expect("a slot in the table or the order is occupied")
    }

    #[inline]
    pub(crate) fn entry_mut(&mut self, slot: u32) -> &mut Entry<K, V> {
        self.slab[slot as usize].as_mut().expect("a slot in the table or the order is occupied")
    }

    /// Puts a key in that is not there, after making room for it.
    ///
    /// An entry heavier than the share is told as evicted and not kept; nothing else leaves for its sake.
    pub(crate) fn insert(
        &mut self,
        new: New<K, V>,
        now: u64,
        sidecar: &mut impl Sidecar<K, V>,
        out: &mut Departed<K, V>,
    ) {
        let Some(weight) = self.admissible(new.weight) else {
            sidecar.victim(new.hash, &new.key, &new.value, Cause::Evicted);
            self.counts.inserts += 1;
            self.counts.evictions += 1;
            self.counts.refusals += 1;
            out.push(new.key, new.value, Cause::Evicted);
            return;
        };
        // The last victim's slot is reused together with its node in the order, which saves the order a removal and an insertion.
        let mut spare = None;
        while self.len() >= self.share.entries || self.weight + u64::from(weight) > self.share.weight {
            if let Some(slot) = spare.take() {
                self.release(slot);
            }
            let (slot, cause) = self.victim(None, now).expect("a shard over its share is not empty");
            self.detach_victim(slot, cause, sidecar, out);
            spare = Some(slot);
        }
        let slot = match spare {
            Some(slot) => {
                self.recency.promote(slot);
                slot
            }
            None => {
                let slot = self.vacant_slot();
                self.recency.push(slot);
                slot
            }
        };
        self.due.note(new.deadline);
        if self.run.as_mut().is_some_and(|run| !run.note(new.hash, slot)) {
            self.run = None;
        }
        self.weight += u64::from(weight);
        self.counts.inserts += 1;
        let New { hash, key, value, deadline, .. } = new;
        self.slab[slot as usize] = Some(Entry { key, value, hash, deadline, weight, marked: false });
        let rehash = |slot: &u32| {
            let entry = self.slab[*slot as usize].as_ref();
            table_hash(entry.expect("a slot in the table is occupied").hash)
        };
        self.table.insert_unique(table_hash(hash), slot, rehash);
    }

    /// Puts a new value into a live entry, after making room for it, and returns the old one.
    ///
    /// One heavier than the share takes the old value's place and is evicted at once; nothing else leaves for its sake.
    pub(crate) fn replace(
        &mut self,
        slot: u32,
        (value, weight, deadline): (V, u64, u64),
        now: u64,
        sidecar: &mut impl Sidecar<K, V>,
        out: &mut Departed<K, V>,
    ) -> V {
        let Some(weight) = self.admissible(weight) else {
            let entry = self.entry(slot);
            sidecar.victim(entry.hash, &entry.key, &value, Cause::Evicted);
            let entry = self.take(slot);
            self.counts.replacements += 1;
            self.counts.evictions += 1;
            self.counts.refusals += 1;
            out.push(entry.key, value, Cause::Evicted);
            return entry.value;
        };
        self.reweigh(slot, (weight, deadline), now, sidecar, out);
        self.counts.replacements += 1;
        mem::replace(&mut self.entry_mut(slot).value, value)
    }

    /// Takes note of a live entry whose value was changed in its place, after making room for its weight.
    ///
    /// One that is heavier than the share now is evicted; nothing else leaves for its sake.
    pub(crate) fn update(
        &mut self,
        slot: u32,
        (weight, deadline): (u64, u64),
        now: u64,
        sidecar: &mut impl Sidecar<K, V>,
        out: &mut Departed<K, V>,
    ) {
        self.counts.updates += 1;
        let Some(weight) = self.admissible(weight) else {
            self.give_up(slot, Cause::Evicted, sidecar, out);
            self.counts.refusals += 1;
            return;
        };
        self.reweigh(slot, (weight, deadline), now, sidecar, out);
    }

    /// Gives a live entry another weight, after making room for it, and another deadline, and counts that as a use.
    fn reweigh(
        &mut self,
        slot: u32,
        (weight, deadline): (u32, u64),
        now: u64,
        sidecar: &mut impl Sidecar<K, V>,
        out: &mut Departed<K, V>,
    ) {
        // The entry's own weight is going, so room is needed beside the others only, and the entry itself is never the victim.
        while self.weight - u64::from(self.entry(slot).weight) + u64::from(weight) > self.share.weight {
            let (victim, cause) = self.victim(Some(slot), now).expect("alone, an entry fits into the share");
            self.give_up(victim, cause, sidecar, out);
        }
        self.due.note(deadline);
        let entry = self.entry_mut(slot);
        let old_weight = mem::replace(&mut entry.weight, weight);
        entry.deadline = deadline;
        entry.marked = true;
        self.weight = self.weight - u64::from(old_weight) + u64::from(weight);
    }

    /// The slots of the live entries among the `visits` hottest, the hottest first: those with a mark, which were used since they
    /// came there, and those without.
    pub(crate) fn hottest(&self, visits: usize, now: u64) -> (Vec<u32>, Vec<u32>) {
        let live = self.recency.hottest().take(visits).filter(|slot| self.entry(*slot).deadline > now);
        live.partition(|slot| self.entry(*slot).marked)
    }

    /// Sets a live entry's deadline and counts that as a use.
    pub(crate) fn touch(&mut self, slot: u32, deadline: u64) {
        self.due.note(deadline);
        let entry = self.entry_mut(slot);
        entry.deadline = deadline;
        entry.marked = true;
    }

    /// Takes an entry out because a caller asked for it.
    pub(crate) fn remove(&mut self, slot: u32) -> (K, V) {
        self.counts.removals += 1;
        let entry = self.take(slot);
        (entry.key, entry.value)
    }

    /// Takes everything out, leaving an empty store with the same share and counters.
    pub(crate) fn clear(&mut self) -> Cleared<K, V> {
        self.counts.cleared += self.len() as u64;
        self.weight = 0;
        self.due = Due::new();
        self.allocations()
    }

    fn allocations(&mut self) -> Cleared<K, V> {
        Cleared {
            slab: mem::take(&mut self.slab),
            _table: mem::take(&mut self.table),
            _free: mem::take(&mut self.free),
            _recency: mem::replace(&mut self.recency, Recency::new()),
            _run: self.run.take(),
        }
    }

    /// An entry's weight as it is stored, if the shard may keep the entry at all.
    fn admissible(&self, weight: u64) -> Option<u32> {
        if weight > self.share.weight { None } else { u32::try_from(weight).ok() }
    }

    /// The entry to give up next, and why: the coldest one that expired or has no second chance left. Never `keep`.
    fn victim(&mut self, keep: Option<u32>, now: u64) -> Option<(u32, Cause)> {
        let mut chances = SECOND_CHANCES_MAX;
        loop {
            let slot = self.recency.coldest()?;
            if keep == Some(slot) {
                if self.len() == 1 {
                    return None;
                }
                self.recency.promote(slot);
                continue;
            }
            let entry = self.entry_mut(slot);
            if entry.deadline <= now {
                return Some((slot, Cause::Expired));
            }
            if !entry.marked || chances == 0 {
                return Some((slot, Cause::Evicted));
            }
            entry.marked = false;
            chances -= 1;
            self.recency.promote(slot);
        }
    }

    pub(crate) fn give_up(
        &mut self,
        slot: u32,
        cause: Cause,
        sidecar: &mut impl Sidecar<K, V>,
        out: &mut Departed<K, V>,
    ) {
        self.detach_victim(slot, cause, sidecar, out);
        self.release(slot);
    }

    /// Tells the sidecar, then takes the entry out of table and slab. Its slot is still in the order.
    fn detach_victim(
        &mut self,
        slot: u32,
        cause: Cause,
        sidecar: &mut impl Sidecar<K, V>,
        out: &mut Departed<K, V>,
    ) {
        let entry = self.entry(slot);
        sidecar.victim(entry.hash, &entry.key, &entry.value, cause);
        match cause {
            Cause::Expired => self.counts.expirations += 1,
            _ => self.counts.evictions += 1,
        }
        let entry = self.detach(slot);
        out.push(entry.key, entry.value, cause);
    }

    fn take(&mut self, slot: u32) -> Entry<K, V> {
        let entry = self.detach(slot);
        self.release(slot);
        entry
    }

    fn detach(&mut self, slot: u32) -> Entry<K, V> {
        let entry = self.slab[slot as usize].take().expect("a slot in the table or the order is occupied");
        if let Ok(bucket) = self.table.find_entry(table_hash(entry.hash), |&other| other == slot) {
            bucket.remove();
        }
        self.weight -= u64::from(entry.weight);
        entry
    }

    fn release(&mut self, slot: u32) {
        self.recency.remove(slot);
        self.free.push(slot);
    }

    fn vacant_slot(&mut self) -> u32 {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        if self.slab.len() == self.slab.capacity() {
            // Doubling, but never past what the share can fill.
            let more = self.slab.len().max(4).min(self.share.entries - self.slab.len());
            self.slab.reserve_exact(more);
        }
        let slot = u32::try_from(self.slab.len()).expect("a share has fewer entries than u32 has numbers");
        self.slab.push(None);
        slot
    }
}

/// What `clear` took out: the live entries, and the allocations around them, to be dropped after unlocking.
pub(crate) struct Cleared<K, V> {
    slab: Vec<Option<Entry<K, V>>>,
    _table: HashTable<u32>,
    _free: Vec<u32>,
    _recency: Recency,
    _run: Option<Box<Run>>,
}

impl<K, V> Cleared<K, V> {
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&K, &V)> {
        self.slab.iter().flatten().map(|entry| (&entry.key, &entry.value))
    }
}

/// The hash as the table inside a shard takes it.
///
/// The top bits chose the shard, so they are equal here, and the table reads its tags from the top and its buckets from the bottom:
/// exchanging the halves gives both of them bits that still differ.
#[inline]
fn table_hash(hash: u64) -> u64 {
    hash.rotate_left(32)
}
