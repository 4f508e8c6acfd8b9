//! Which entry goes when room is needed, and where a new one stands.
//!
//! Each policy is an arrangement of *segments*, lists of one [`Recency`] between which slots move:
//!
//! * [`Policy::Lru`]: one segment.
//! * [`Policy::Lru`] with a remote depth: an upper and a lower one, with the *midpoint insertion* that databases use to keep scans out
//!   of their buffer pools. Local writes enter at the hot end of the upper segment, whose overflow falls to the hot end of the lower
//!   one, so for them alone it is one list; remote writes enter at the hot end of the lower one.
//! * [`Policy::TinyLfu`]: a window for what is new, and the two halves of a segmented LRU, probation and protected. See [`tiny_lfu`].
//!
//! In all of them a hit is a mark, and what it means is decided when the entry's turn comes at the cold end.
//!
//! An entry stays in its slot for as long as it is held, whichever segments it comes through: to rise and to fall changes links alone.

mod midpoint;
mod sketch;
mod tiny_lfu;

use super::{Origin, SECOND_CHANCES_MAX, Share, Store, recency::Recency};
use crate::{Cause, Policy};

use midpoint::Midpoint;
use tiny_lfu::TinyLfu;

/// Which segment of a policy an entry is in. What falls out of another one falls into the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Segment {
    /// The only one; the upper one; the window.
    First = 0,
    /// The lower one; probation.
    Second = 1,
    /// Protected.
    Third = 2,
}

impl Segment {
    #[inline]
    pub(crate) fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Segment::First,
            1 => Segment::Second,
            _ => Segment::Third,
        }
    }
}

/// The order of a shard's slots.
pub(super) struct Order {
    recency: Recency,
    rule: Rule,
}

/// How long segments are, and who is worth more.
enum Rule {
    Lru,
    Midpoint(Midpoint),
    TinyLfu(Box<TinyLfu>),
}

/// An entry to be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Victim {
    pub(super) slot: u32,
    pub(super) segment: Segment,
    pub(super) cause: Cause,
    /// It was new, and was asked for less often than what it would have pushed out.
    pub(super) is_rejected: bool,
}

impl Order {
    pub(super) fn new(policy: Policy, remote_depth: f64) -> Self {
        let rule = match policy {
            Policy::Lru if remote_depth > 0.0 => Rule::Midpoint(Midpoint::new(remote_depth)),
            Policy::Lru => Rule::Lru,
            Policy::TinyLfu => Rule::TinyLfu(Box::new(TinyLfu::new())),
        };
        Order { recency: Recency::new(), rule }
    }

    /// The same order with nothing in it; what it knows of frequencies stays.
    pub(super) fn take(&mut self) -> Recency {
        if let Rule::Midpoint(midpoint) = &mut self.rule {
            midpoint.upper_weight = 0;
        }
        std::mem::replace(&mut self.recency, Recency::new())
    }

    /// How many slots are in the order: those of all entries, and while one is put in, the one that it is to have.
    pub(super) fn len(&self) -> usize {
        [Segment::First, Segment::Second, Segment::Third]
            .map(|segment| self.recency.len(segment))
            .iter()
            .sum()
    }

    /// All slots, the hottest first. Of several segments, the ones that are safest from eviction first.
    pub(super) fn hottest(&self) -> impl Iterator<Item = u32> + '_ {
        let segments = match self.rule {
            Rule::Lru | Rule::Midpoint(_) => [Segment::First, Segment::Second, Segment::Third],
            Rule::TinyLfu(_) => [Segment::Third, Segment::First, Segment::Second],
        };
        segments.into_iter().flat_map(|segment| self.recency.hottest(segment))
    }

    /// Prepares for so many slots.
    pub(super) fn fit(&mut self, slots: usize) {
        if let Rule::TinyLfu(tiny_lfu) = &mut self.rule {
            tiny_lfu.sketch.fit(slots);
        }
    }

    pub(super) fn remove(&mut self, slot: u32, segment: Segment) {
        self.recency.remove(slot, segment);
    }

    /// An entry of a segment weighs this now and weighed that before: 0 where it was not there, or is not any more.
    #[inline]
    pub(super) fn reweigh(&mut self, segment: Segment, old: u32, new: u32) {
        if let (Rule::Midpoint(midpoint), Segment::First) = (&mut self.rule, segment) {
            midpoint.upper_weight = midpoint.upper_weight - u64::from(old) + u64::from(new);
        }
    }

    /// The most that a segment should hold of this share.
    fn target(&self, segment: Segment, share: Share) -> Share {
        match (&self.rule, segment) {
            (Rule::Midpoint(midpoint), Segment::First) => midpoint.target(share),
            (Rule::TinyLfu(tiny_lfu), _) => {
                Share { entries: tiny_lfu.target(segment, self.len()), weight: u64::MAX }
            }
            (Rule::Lru | Rule::Midpoint(_), _) => Share { entries: usize::MAX, weight: u64::MAX },
        }
    }

    /// What a segment's entries weigh, where its length is one of weight, too; else 0.
    fn weight(&self, segment: Segment) -> u64 {
        match (&self.rule, segment) {
            (Rule::Midpoint(midpoint), Segment::First) => midpoint.upper_weight,
            _ => 0,
        }
    }

    /// Whether a segment has all that it should have.
    fn is_full(&self, segment: Segment, share: Share) -> bool {
        let target = self.target(segment, share);
        self.recency.len(segment) >= target.entries || self.weight(segment) >= target.weight
    }

    /// Whether a segment has more than that. One entry is never too heavy.
    fn is_overfull(&self, segment: Segment, share: Share) -> bool {
        let (len, target) = (self.recency.len(segment), self.target(segment, share));
        len > target.entries || (len > 1 && self.weight(segment) > target.weight)
    }

    /// Where a used entry of the second segment goes.
    fn better(&self) -> Segment {
        match self.rule {
            Rule::Lru | Rule::Midpoint(_) => Segment::First,
            Rule::TinyLfu(_) => Segment::Third,
        }
    }

    /// Where a new entry enters.
    #[inline]
    fn entrance(&self, origin: Origin) -> Segment {
        match (&self.rule, origin) {
            (Rule::Midpoint(_), Origin::Remote) => Segment::Second,
            _ => Segment::First,
        }
    }
}

impl<K, V> Store<K, V> {
    /// The entry to give up next, so that one of this origin may enter, or another one may grow. Never `keep`.
    #[inline]
    pub(super) fn victim(&mut self, entering: Option<Origin>, keep: Option<u32>, now: u64) -> Option<Victim> {
        match self.order.rule {
            Rule::Lru => self.single_victim(keep, now),
            Rule::Midpoint(_) | Rule::TinyLfu(_) => self.segmented_victim(entering, keep, now),
        }
    }

    /// The coldest entry that expired or has no second chance left.
    #[inline]
    fn single_victim(&mut self, keep: Option<u32>, now: u64) -> Option<Victim> {
        const ONLY: Segment = Segment::First;
        let recency = &mut self.order.recency;
        let mut chances = SECOND_CHANCES_MAX;
        loop {
            let slot = recency.coldest(ONLY)?;
            if keep == Some(slot) {
                if recency.len(ONLY) == 1 {
                    return None;
                }
                recency.promote(slot, ONLY);
                continue;
            }
            let word = &mut self.slab[slot as usize].as_mut().expect("a victim is sought among entries").word;
            let cause = if word.deadline() <= now {
                Cause::Expired
            } else if word.is_marked() && chances > 0 {
                word.unmark();
                chances -= 1;
                recency.promote(slot, ONLY);
                continue;
            } else {
                Cause::Evicted
            };
            return Some(Victim { slot, segment: ONLY, cause, is_rejected: false });
        }
    }

    fn segmented_victim(&mut self, entering: Option<Origin>, keep: Option<u32>, now: u64) -> Option<Victim> {
        self.adapt();
        self.shorten(Segment::First, keep);
        self.shorten(Segment::Third, keep);
        let mut chances = SECOND_CHANCES_MAX;
        loop {
            let (slot, segment) = self.coldest_but(keep)?;
            let word = &mut self.entry_mut(slot).word;
            let victim = |cause| Victim { slot, segment, cause, is_rejected: false };
            if word.deadline() <= now {
                return Some(victim(Cause::Expired));
            }
            if word.is_marked() && chances > 0 {
                word.unmark();
                chances -= 1;
                self.rise(slot, segment, keep);
                continue;
            }
            let candidate = self.candidate(entering, keep).filter(|candidate| *candidate != slot);
            let Some(candidate) = candidate else { return Some(victim(Cause::Evicted)) };
            let word = &mut self.entry_mut(candidate).word;
            let beaten =
                |cause, is_rejected| Victim { slot: candidate, segment: Segment::First, cause, is_rejected };
            if word.deadline() <= now {
                return Some(beaten(Cause::Expired, false));
            }
            if word.is_marked() && chances > 0 {
                word.unmark();
                chances -= 1;
                self.order.recency.promote(candidate, Segment::First);
                continue;
            }
            let is_admitted = self.is_worth_more(candidate, slot);
            return Some(if is_admitted { victim(Cause::Evicted) } else { beaten(Cause::Evicted, true) });
        }
    }

    /// Finds the slot for a new entry, in its place in the order: the last victim's if there was one.
    #[inline]
    pub(super) fn place(
        &mut self,
        spare: Option<(u32, Segment)>,
        (hash, origin): (u64, Origin),
    ) -> (u32, Segment) {
        let entrance = self.order.entrance(origin);
        let slot = match spare {
            Some((slot, segment)) => {
                self.order.recency.shift(slot, segment, entrance);
                slot
            }
            None => self.place_vacant(entrance),
        };
        if !matches!(self.order.rule, Rule::Lru) {
            self.shorten(Segment::First, Some(slot));
            if origin == Origin::Remote && self.is_unwanted(hash) {
                self.order.recency.demote(slot, entrance);
            }
        }
        (slot, entrance)
    }

    fn place_vacant(&mut self, entrance: Segment) -> u32 {
        let slot = self.vacant_slot();
        self.order.recency.push(slot, entrance);
        slot
    }

    pub(super) fn release(&mut self, slot: u32, segment: Segment) {
        self.order.remove(slot, segment);
        self.free.push(slot);
    }

    /// The next victim by its place alone: the second segment's coldest, else another's.
    fn coldest_but(&mut self, keep: Option<u32>) -> Option<(u32, Segment)> {
        let recency = &mut self.order.recency;
        for segment in [Segment::Second, Segment::Third, Segment::First] {
            let mut slot = recency.coldest(segment);
            if let Some(kept) = slot.filter(|slot| keep == Some(*slot)) {
                recency.promote(kept, segment);
                slot = recency.coldest(segment).filter(|slot| *slot != kept);
            }
            if let Some(slot) = slot {
                return Some((slot, segment));
            }
        }
        None
    }

    /// A used entry goes up, and if there is no room, the coldest one there comes down for it.
    fn rise(&mut self, slot: u32, segment: Segment, keep: Option<u32>) {
        let order = &mut self.order;
        if segment != Segment::Second {
            return order.recency.promote(slot, segment);
        }
        let better = order.better();
        if order.is_full(better, self.share) {
            let falling = order.recency.coldest(better).filter(|falling| keep != Some(*falling));
            let Some(falling) = falling else { return order.recency.promote(slot, segment) };
            self.shift(falling, Segment::Second);
        }
        self.shift(slot, better);
    }

    /// Lets a segment that is longer or heavier than it should be fall towards its bound: by two entries, which is more than can have
    /// come to it, or where entries have weights, by as many as one search may let rise, since one heavy entry makes up for many.
    fn shorten(&mut self, segment: Segment, keep: Option<u32>) {
        let falls = if self.weights.is_some() { SECOND_CHANCES_MAX } else { 2 };
        for _ in 0..falls {
            if !self.order.is_overfull(segment, self.share) {
                return;
            }
            let coldest = self.order.recency.coldest(segment);
            let Some(slot) = coldest.filter(|slot| keep != Some(*slot)) else { return };
            self.shift(slot, Segment::Second);
        }
    }

    /// Moves an entry to the hot end of another segment.
    fn shift(&mut self, slot: u32, to: Segment) {
        let word = &mut self.entry_mut(slot).word;
        let from = word.segment();
        word.set_segment(to);
        self.order.recency.shift(slot, from, to);
        if let Some(weights) = &self.weights {
            let weight = weights[slot as usize];
            self.order.reweigh(from, weight, 0);
            self.order.reweigh(to, 0, weight);
        }
    }
}

#[cfg(test)]
mod tests;
