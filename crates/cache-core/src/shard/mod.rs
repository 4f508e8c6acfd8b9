//! One shard: entries, their order, their bounds. Pure: it is given the time and owns no lock.
//!
//! Look-ups go through a hash table of slot numbers into a slab of entries; the recency order holds the same slot numbers. So an
//! entry's key is stored once, a hit touches neither the table nor the order's links, and eviction needs no key.
//!
//! Whatever user code may panic (the sidecar) is called before anything is changed for the entry it is told of, so the shard stays
//! whole.

mod entry;
mod policy;
mod recency;
mod run;
mod shrink;
mod sweep;
mod table;
#[cfg(test)]
mod tests;

use std::{borrow::Borrow, mem};

use hashbrown::HashTable;

use crate::{Cause, Policy, Sidecar, Stats, clock::NEVER, departed::Departed, load::Flights};

use entry::{Entry, Word};
use policy::{Order, Victim};
use recency::Recency;
use run::Run;
use sweep::Due;
use table::table_hash;

pub(crate) use entry::{New, Origin, WEIGHT_MAX};
pub(crate) use run::{Gathering, Page};
pub(crate) use sweep::Budget;

/// How many second chances one search for a victim gives before it evicts the coldest entry all the same.
///
/// ```
/// use cache_core::{Cache, SECOND_CHANCES_MAX};
///
/// let entries = SECOND_CHANCES_MAX as u64 + 1;
/// let cache = Cache::builder().capacity(entries as usize).build()?;
/// for n in 0..entries {
///     cache.insert(n, ());
///     cache.get(&n);
/// }
/// // All of them were used. The first ones have their second chance, and then the search is over.
/// cache.insert(1_000, ());
/// assert!(cache.contains(&0) && !cache.contains(&(entries - 1)));
/// # Ok::<(), cache_core::ConfigError>(())
/// ```
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

/// How a shard behaves, apart from how much it holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) policy: Policy,
    /// 0 for none.
    pub(crate) remote_depth: f64,
    /// Entries have weights of their own.
    pub(crate) is_weighed: bool,
    pub(crate) idle_ms: Option<u64>,
}

pub(crate) struct Store<K, V> {
    table: HashTable<u32>,
    slab: Vec<Option<Entry<K, V>>>,
    /// A use is more than a mark: there are frequencies to count, or deadlines to put off.
    notes_uses: bool,
    /// Writes of other regions are told from those of here.
    tells_remote: bool,
    pub(crate) counts: Stats,
    order: Order,
    free: Vec<u32>,
    /// The weights of the slots, where entries have weights of their own.
    weights: Option<Vec<u32>>,
    /// Where entries expire when idle, what is known beside of when each does.
    lifetimes: Option<Lifetimes>,
    weight: u64,
    share: Share,
    due: Due,
    /// Where a scan is under way.
    run: Option<Box<Run>>,
    pub(crate) flights: Flights<K, V>,
}

/// What a store with a time-to-idle knows beside.
struct Lifetimes {
    idle_ms: u64,
    /// By slot. The deadline that an entry itself bears is the sooner of the two.
    ends: Vec<Ends>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    /// The end of its lifetime, however much it is used.
    lifetime: u64,
    /// Until when it may be idle.
    idle: u64,
}

impl<K, V> Store<K, V> {
    pub(crate) fn new(share: Share, rules: Rules) -> Self {
        debug_assert!(
            share.entries >= 1 && share.entries < u32::MAX as usize,
            "the builder checked the share"
        );
        Store {
            table: HashTable::new(),
            slab: Vec::new(),
            tells_remote: rules.remote_depth > 0.0,
            notes_uses: rules.policy == Policy::TinyLfu || rules.idle_ms.is_some(),
            counts: Stats::default(),
            order: Order::new(rules.policy, rules.remote_depth),
            free: Vec::new(),
            weights: rules.is_weighed.then(Vec::new),
            lifetimes: rules.idle_ms.map(|idle_ms| Lifetimes { idle_ms, ends: Vec::new() }),
            weight: 0,
            share,
            due: Due::new(),
            run: None,
            flights: Flights::new(),
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    #[inline]
    pub(crate) fn weight(&self) -> u64 {
        if self.weights.is_some() { self.weight } else { self.len() as u64 }
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
    #[inline]
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
        if self.is_live(slot, now) {
            return Some(slot);
        }
        self.give_up(slot, Cause::Expired, sidecar, out);
        None
    }

    #[inline]
    pub(crate) fn is_live(&self, slot: u32, now: u64) -> bool {
        self.entry(slot).word.deadline() > now
    }

    /// When an entry's lifetime ends, however much it is used.
    #[inline]
    pub(crate) fn deadline(&self, slot: u32) -> u64 {
        match &self.lifetimes {
            None => self.entry(slot).word.deadline(),
            Some(lifetimes) => lifetimes.ends[slot as usize].lifetime,
        }
    }

    /// The slots of the entries at a position, live or not: nearly always at most one.
    pub(crate) fn slots_at(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        let is_there = move |slot: &u32| self.slab[*slot as usize].as_ref().is_some_and(|e| e.hash == hash);
        self.table.iter_hash(table_hash(hash)).copied().filter(is_there)
    }

    #[inline]
    pub(crate) fn entry(&self, slot: u32) -> &Entry<K, V> {
        self.slab[slot as usize].as_ref().expect("a slot in the table is occupied")
    }

    #[inline]
    pub(crate) fn entry_mut(&mut self, slot: u32) -> &mut Entry<K, V> {
        self.slab[slot as usize].as_mut().expect("a slot in the table is occupied")
    }

    /// Takes note of a read of a live entry.
    #[inline]
    pub(crate) fn hit(&mut self, slot: u32, now: u64) {
        self.counts.hits += 1;
        let word = &mut self.entry_mut(slot).word;
        // Most hits are on marked entries, and what is only read need not be written back.
        if !word.is_marked() {
            word.mark();
        }
        if self.notes_uses {
            self.note_use(slot, now);
        }
    }

    fn note_use(&mut self, slot: u32, now: u64) {
        self.count_use(self.entry(slot).hash);
        if let Some(lifetimes) = &mut self.lifetimes {
            let idle = lifetimes.idle_end(now);
            let ends = &mut lifetimes.ends[slot as usize];
            ends.idle = idle;
            let deadline = ends.lifetime.min(idle);
            self.entry_mut(slot).word.set_deadline(deadline);
        }
    }

    /// Puts a key in that is not there, after making room for it.
    ///
    /// An entry that is over at once is told as expired, and one heavier than the share as evicted: neither is kept, and nothing else
    /// leaves for its sake.
    #[inline]
    pub(crate) fn insert(
        &mut self,
        new: New<K, V>,
        now: u64,
        sidecar: &mut impl Sidecar<K, V>,
        out: &mut Departed<K, V>,
    ) {
        let origin = self.origin(new.origin);
        self.flights.overtake(new.hash);
        let weight = match self.admit(new.weight, new.deadline, now) {
            Ok(weight) => weight,
            Err(cause) => return self.refuse(new, cause, sidecar, out),
        };
        // The last victim's slot stays in the order until the new entry has it, which saves the order a removal and an insertion.
        let mut spare = None;
        while self.has_no_room(weight) {
            if let Some((slot, segment)) = spare.take() {
                self.release(slot, segment);
            }
            let victim = self.victim(Some(origin), None, now).expect("a shard over its share is not empty");
            self.detach_victim(victim, sidecar, out);
            spare = Some((victim.slot, victim.segment));
        }
        let (slot, segment) = self.place(spare, (new.hash, origin));
        let New { hash, key, value, deadline, .. } = new;
        let deadline = self.begin_lifetime(slot, deadline, now);
        self.due.note(deadline);
        if self.run.as_mut().is_some_and(|run| !run.note(hash, slot)) {
            self.run = None;
        }
        if let Some(weights) = &mut self.weights {
            weights[slot as usize] = weight;
            self.weight += u64::from(weight);
            self.order.reweigh(segment, 0, weight);
        }
        self.counts.inserts += 1;
        self.index(hash, slot);
        self.slab[slot as usize] = Some(Entry { key, value, hash, word: Word::new(deadline, segment) });
        if self.notes_uses && origin == Origin::Local {
            self.count_use(hash);
        }
    }

    /// What a write counts as: without a remote depth, each one as one from here.
    #[inline]
    fn origin(&self, origin: Origin) -> Origin {
        if self.tells_remote { origin } else { Origin::Local }
    }

    #[cold]
    fn refuse(
        &mut self,
        new: New<K, V>,
        cause: Cause,
        sidecar: &mut impl Sidecar<K, V>,
        out: &mut Departed<K, V>,
    ) {
        sidecar.victim(new.hash, &new.key, &new.value, cause);
        self.counts.inserts += 1;
        self.count_refusal(cause);
        out.push(new.key, new.value, cause);
    }

    fn count_refusal(&mut self, cause: Cause) {
        match cause {
            Cause::Expired => self.counts.expirations += 1,
            _ => {
                self.counts.evictions += 1;
                self.counts.refusals += 1;
            }
        }
    }

    #[inline]
    fn has_no_room(&self, weight: u32) -> bool {
        self.len() >= self.share.entries
            || (self.weights.is_some() && self.weight + u64::from(weight) > self.share.weight)
    }

    /// What an entry's word says when its lifetime ends then and it is used now.
    #[inline]
    fn begin_lifetime(&mut self, slot: u32, deadline: u64, now: u64) -> u64 {
        let Some(lifetimes) = &mut self.lifetimes else { return deadline };
        let idle = lifetimes.idle_end(now);
        lifetimes.ends[slot as usize] = Ends { lifetime: deadline, idle };
        deadline.min(idle)
    }

    /// Puts a new value into a live entry, after making room for it, and returns the old one.
    ///
    /// One that is over at once, or heavier than the share, takes the old value's place and is given up at once; nothing else leaves for
    /// its sake.
    pub(crate) fn replace(
        &mut self,
        slot: u32,
        value: V,
        change: Change,
        sidecar: &mut impl Sidecar<K, V>,
        out: &mut Departed<K, V>,
    ) -> V {
        let weight = match self.admit(change.weight, change.deadline, change.now) {
            Ok(weight) => weight,
            Err(cause) => {
                let entry = self.entry(slot);
                sidecar.victim(entry.hash, &entry.key, &value, cause);
                let entry = self.take(slot);
                self.counts.replacements += 1;
                self.count_refusal(cause);
                out.push(entry.key, value, cause);
                return entry.value;
            }
        };
        self.change(slot, weight, change, sidecar, out);
        self.counts.replacements += 1;
        mem::replace(&mut self.entry_mut(slot).value, value)
    }

    /// Takes note of a live entry whose value was changed in its place, after making room for its weight.
    ///
    /// One that is over now, or heavier than the share, is given up; nothing else leaves for its sake.
    pub(crate) fn update(
        &mut self,
        slot: u32,
        change: Change,
        sidecar: &mut impl Sidecar<K, V>,
        out: &mut Departed<K, V>,
    ) {
        self.counts.updates += 1;
        let weight = match self.admit(change.weight, change.deadline, change.now) {
            Ok(weight) => weight,
            Err(cause) => {
                self.give_up(slot, cause, sidecar, out);
                self.counts.refusals += u64::from(cause == Cause::Evicted);
                return;
            }
        };
        self.change(slot, weight, change, sidecar, out);
    }

    /// Gives a live entry another weight, after making room for it, and another deadline, and counts that as a use if it counts as
    /// one from here.
    fn change(
        &mut self,
        slot: u32,
        weight: u32,
        change: Change,
        sidecar: &mut impl Sidecar<K, V>,
        out: &mut Departed<K, V>,
    ) {
        // The entry's own weight is going, so room is needed beside the others only, and the entry itself is never the victim.
        while let Some(weights) = &self.weights
            && self.weight - u64::from(weights[slot as usize]) + u64::from(weight) > self.share.weight
        {
            let victim =
                self.victim(None, Some(slot), change.now).expect("alone, an entry fits into the share");
            self.detach_victim(victim, sidecar, out);
            self.release(victim.slot, victim.segment);
        }
        let segment = self.entry(slot).word.segment();
        if let Some(weights) = &mut self.weights {
            let old = mem::replace(&mut weights[slot as usize], weight);
            self.weight = self.weight - u64::from(old) + u64::from(weight);
            self.order.reweigh(segment, old, weight);
        }
        match self.origin(change.origin) {
            Origin::Local => self.touch(slot, change.deadline, change.now),
            Origin::Remote => self.set_lifetime(slot, change.deadline),
        }
    }

    /// The slots of the live entries among the `visits` hottest, the hottest first: those with a mark, which were used since they
    /// came there, and those without.
    pub(crate) fn hottest(&self, visits: usize, now: u64) -> (Vec<u32>, Vec<u32>) {
        let live = self.order.hottest().take(visits).filter(|slot| self.is_live(*slot, now));
        live.partition(|slot| self.entry(*slot).word.is_marked())
    }

    /// Sets the end of a live entry's lifetime and counts that as a use.
    pub(crate) fn touch(&mut self, slot: u32, deadline: u64, now: u64) {
        let deadline = self.begin_lifetime(slot, deadline, now);
        self.due.note(deadline);
        let entry = self.entry_mut(slot);
        entry.word.set_deadline(deadline);
        entry.word.mark();
        if self.notes_uses {
            self.count_use(self.entry(slot).hash);
        }
    }

    /// Sets the end of a live entry's lifetime, which is no use: what was left of the time that it may be idle stays.
    fn set_lifetime(&mut self, slot: u32, deadline: u64) {
        let deadline = match &mut self.lifetimes {
            None => deadline,
            Some(lifetimes) => {
                let ends = &mut lifetimes.ends[slot as usize];
                ends.lifetime = deadline;
                deadline.min(ends.idle)
            }
        };
        self.due.note(deadline);
        self.entry_mut(slot).word.set_deadline(deadline);
    }

    /// Takes an entry out because a caller asked for it.
    pub(crate) fn remove(&mut self, slot: u32) -> (K, V) {
        self.counts.removals += 1;
        let entry = self.take(slot);
        (entry.key, entry.value)
    }

    /// Takes everything out, leaving an empty store with the same share and counters.
    pub(crate) fn clear(&mut self) -> Cleared<K, V> {
        self.flights.overtake_all();
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
            _weights: self.weights.as_mut().map(mem::take),
            _lifetimes: self.lifetimes.as_mut().map(|lifetimes| mem::take(&mut lifetimes.ends)),
            _order: self.order.take(),
            _run: self.run.take(),
        }
    }

    /// An entry's weight as it is stored, if the shard may keep the entry at all; else why not.
    #[inline]
    fn admit(&self, weight: u64, deadline: u64, now: u64) -> Result<u32, Cause> {
        if deadline <= now {
            return Err(Cause::Expired);
        }
        u32::try_from(weight).ok().filter(|_| weight <= self.share.weight).ok_or(Cause::Evicted)
    }

    pub(crate) fn give_up(
        &mut self,
        slot: u32,
        cause: Cause,
        sidecar: &mut impl Sidecar<K, V>,
        out: &mut Departed<K, V>,
    ) {
        let segment = self.entry(slot).word.segment();
        self.detach_victim(Victim { slot, segment, cause, is_rejected: false }, sidecar, out);
        self.release(slot, segment);
    }

    /// Tells the sidecar, then takes the entry out of table and slab. Its slot is still in the order.
    #[inline]
    fn detach_victim(&mut self, victim: Victim, sidecar: &mut impl Sidecar<K, V>, out: &mut Departed<K, V>) {
        let entry = self.entry(victim.slot);
        sidecar.victim(entry.hash, &entry.key, &entry.value, victim.cause);
        match victim.cause {
            Cause::Expired => self.counts.expirations += 1,
            _ => self.counts.evictions += 1,
        }
        self.counts.rejections += u64::from(victim.is_rejected);
        let entry = self.detach(victim.slot);
        out.push(entry.key, entry.value, victim.cause);
    }

    fn take(&mut self, slot: u32) -> Entry<K, V> {
        let entry = self.detach(slot);
        self.release(slot, entry.word.segment());
        entry
    }

    #[inline]
    fn detach(&mut self, slot: u32) -> Entry<K, V> {
        let entry = self.slab[slot as usize].take().expect("a slot in the table is occupied");
        self.unindex(entry.hash, slot);
        if let Some(weights) = &self.weights {
            let weight = weights[slot as usize];
            self.weight -= u64::from(weight);
            self.order.reweigh(entry.word.segment(), weight, 0);
        }
        entry
    }

    /// A slot that is not in the order.
    fn vacant_slot(&mut self) -> u32 {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        if self.slab.len() == self.slab.capacity() {
            // Doubling, but never past what the share can fill.
            let more = self.slab.len().max(4).min(self.share.entries.saturating_sub(self.slab.len())).max(1);
            self.slab.reserve_exact(more);
            let slots = self.slab.capacity();
            if let Some(weights) = &mut self.weights {
                weights.reserve_exact(slots - weights.len());
            }
            if let Some(lifetimes) = &mut self.lifetimes {
                lifetimes.ends.reserve_exact(slots - lifetimes.ends.len());
            }
            self.order.fit(slots);
        }
        let slot = u32::try_from(self.slab.len()).expect("a share has fewer entries than u32 has numbers");
        self.push_slot();
        slot
    }

    fn push_slot(&mut self) {
        self.slab.push(None);
        if let Some(weights) = &mut self.weights {
            weights.push(0);
        }
        if let Some(lifetimes) = &mut self.lifetimes {
            lifetimes.ends.push(Ends::default());
        }
    }
}

impl Lifetimes {
    /// Until when an entry that is used now may be idle.
    #[inline]
    fn idle_end(&self, now: u64) -> u64 {
        now.saturating_add(self.idle_ms).min(NEVER - 1)
    }
}

/// What a write changes of an entry beside its value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    pub(crate) weight: u64,
    pub(crate) deadline: u64,
    pub(crate) origin: Origin,
    pub(crate) now: u64,
}

/// What `clear` took out: the live entries, and the allocations around them, to be dropped after unlocking.
pub(crate) struct Cleared<K, V> {
    slab: Vec<Option<Entry<K, V>>>,
    _table: HashTable<u32>,
    _free: Vec<u32>,
    _weights: Option<Vec<u32>>,
    _lifetimes: Option<Vec<Ends>>,
    _order: Recency,
    _run: Option<Box<Run>>,
}

impl<K, V> Cleared<K, V> {
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&K, &V)> {
        self.slab.iter().flatten().map(|entry| (&entry.key, &entry.value))
    }
}
