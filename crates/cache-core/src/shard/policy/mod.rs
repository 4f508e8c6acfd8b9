//! Which entry goes when room is needed, and where a new one stands.
//!
//! Each policy is an arrangement of *segments*, each of which is one [`Recency`]:
//!
//! * [`Policy::Lru`]: one segment.
//! * [`Policy::Lru`] with a remote depth: an upper and a lower one, with the *midpoint insertion* that databases use to keep scans out
//!   of their buffer pools. Local writes enter at the hot end of the upper segment, whose overflow falls to the hot end of the lower
//!   one, so for them alone it is one list; remote writes enter at the hot end of the lower one.
//! * [`Policy::TinyLfu`]: a window for what is new, and the two halves of a segmented LRU, probation and protected. See [`tiny_lfu`].
//!
//! In all of them a hit is a mark, and what it means is decided when the entry's turn comes at the cold end.
//!
//! Where all segments have the length that they should have, an insert takes no slot from one order to give it to another: the last
//! victim's slot is used, and entries that fall to another segment exchange slots.

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
pub(super) enum Order {
    Single(Recency),
    Segmented(Box<Segmented>),
}

pub(super) struct Segmented {
    lists: [Recency; 3],
    /// What the entries of each weigh, where entries have weights of their own.
    weights: Option<[u64; 3]>,
    pub(super) rule: Rule,
}

/// How long segments are, and who is worth more.
pub(super) enum Rule {
    Midpoint(Midpoint),
    TinyLfu(TinyLfu),
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
    pub(super) fn new(policy: Policy, remote_depth: f64, is_weighed: bool) -> Self {
        let rule = match policy {
            Policy::Lru if remote_depth > 0.0 => Rule::Midpoint(Midpoint::new(remote_depth)),
            Policy::Lru => return Order::Single(Recency::new()),
            Policy::TinyLfu => Rule::TinyLfu(TinyLfu::new()),
        };
        let lists = [Recency::new(), Recency::new(), Recency::new()];
        Order::Segmented(Box::new(Segmented { lists, weights: is_weighed.then_some([0; 3]), rule }))
    }

    /// The same order with nothing in it; what it knows of frequencies stays.
    pub(super) fn take(&mut self) -> Vec<Recency> {
        let lists = match self {
            Order::Single(list) => std::slice::from_mut(list),
            Order::Segmented(segmented) => {
                segmented.weights = segmented.weights.map(|_| [0; 3]);
                &mut segmented.lists[..]
            }
        };
        lists.iter_mut().map(|list| std::mem::replace(list, Recency::new())).collect()
    }

    /// How many slots are in the order, vacant ones among them.
    pub(super) fn len(&self) -> usize {
        match self {
            Order::Single(list) => list.len(),
            Order::Segmented(segmented) => segmented.lists.iter().map(Recency::len).sum(),
        }
    }

    /// All slots, the hottest first. Of several segments, the ones that are safest from eviction first.
    pub(super) fn hottest(&self) -> impl Iterator<Item = u32> + '_ {
        let (first, others) = match self {
            Order::Single(list) => (list, None),
            Order::Segmented(segmented) => {
                let [first, second, third] = &segmented.lists;
                match segmented.rule {
                    Rule::Midpoint(_) => (first, Some((second, third))),
                    Rule::TinyLfu(_) => (third, Some((first, second))),
                }
            }
        };
        let others = others.into_iter().flat_map(|(next, last)| next.hottest().chain(last.hottest()));
        first.hottest().chain(others)
    }

    /// Prepares for so many slots.
    pub(super) fn fit(&mut self, slots: usize) {
        if let Order::Segmented(segmented) = self
            && let Rule::TinyLfu(tiny_lfu) = &mut segmented.rule
        {
            tiny_lfu.sketch.fit(slots);
        }
    }

    pub(super) fn remove(&mut self, slot: u32, segment: Segment) {
        match self {
            Order::Single(list) => list.remove(slot),
            Order::Segmented(segmented) => segmented.list(segment).remove(slot),
        }
    }

    /// An entry of a segment weighs this now and weighed that before: 0 where it was not there, or is not any more.
    #[inline]
    pub(super) fn reweigh(&mut self, segment: Segment, old: u32, new: u32) {
        if let Order::Segmented(segmented) = self
            && let Some(weights) = &mut segmented.weights
        {
            let weight = &mut weights[segment as usize];
            *weight = *weight - u64::from(old) + u64::from(new);
        }
    }
}

impl Segmented {
    fn list(&mut self, segment: Segment) -> &mut Recency {
        &mut self.lists[segment as usize]
    }

    fn length(&self, segment: Segment) -> usize {
        self.lists[segment as usize].len()
    }

    fn coldest(&self, segment: Segment) -> Option<u32> {
        self.lists[segment as usize].coldest()
    }

    /// Whether a segment has all that it should have, when all have `len` slots of this share.
    fn is_full(&self, segment: Segment, (len, share): (usize, Share)) -> bool {
        match &self.rule {
            Rule::Midpoint(midpoint) => {
                let target = midpoint.target(segment, share);
                self.length(segment) >= target.entries || self.weight(segment) >= target.weight
            }
            Rule::TinyLfu(tiny_lfu) => self.length(segment) >= tiny_lfu.target(segment, len),
        }
    }

    /// Whether a segment has more than that. One entry is never too much.
    fn is_overfull(&self, segment: Segment, (len, share): (usize, Share)) -> bool {
        match &self.rule {
            Rule::Midpoint(midpoint) => {
                let target = midpoint.target(segment, share);
                self.length(segment) > target.entries
                    || (self.length(segment) > 1 && self.weight(segment) > target.weight)
            }
            Rule::TinyLfu(tiny_lfu) => self.length(segment) > tiny_lfu.target(segment, len),
        }
    }

    /// What a segment's entries weigh; 0 where entries have no weights of their own.
    fn weight(&self, segment: Segment) -> u64 {
        self.weights.map_or(0, |weights| weights[segment as usize])
    }

    /// Where a used entry of the second segment goes.
    fn better(&self) -> Segment {
        match self.rule {
            Rule::Midpoint(_) => Segment::First,
            Rule::TinyLfu(_) => Segment::Third,
        }
    }

    /// Where a new entry enters.
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
        match &self.order {
            Order::Single(_) => self.single_victim(keep, now),
            Order::Segmented(_) => self.segmented_victim(entering, keep, now),
        }
    }

    /// The coldest entry that expired or has no second chance left.
    #[inline]
    fn single_victim(&mut self, keep: Option<u32>, now: u64) -> Option<Victim> {
        let Order::Single(list) = &mut self.order else { return None };
        let mut chances = SECOND_CHANCES_MAX;
        loop {
            let slot = list.coldest()?;
            if keep == Some(slot) {
                if list.len() == 1 {
                    return None;
                }
                list.promote(slot);
                continue;
            }
            let word = &mut self.slab[slot as usize].as_mut().expect("a victim is sought among entries").word;
            let cause = if word.deadline() <= now {
                Cause::Expired
            } else if word.is_marked() && chances > 0 {
                word.unmark();
                chances -= 1;
                list.promote(slot);
                continue;
            } else {
                Cause::Evicted
            };
            return Some(Victim { slot, segment: Segment::First, cause, is_rejected: false });
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
                self.segmented().list(Segment::First).promote(candidate);
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
        if let Order::Single(list) = &mut self.order {
            if let Some((slot, _)) = spare {
                list.promote(slot);
                return (slot, Segment::First);
            }
            return (self.place_single(), Segment::First);
        }
        let (slot, segment) = self.place_segmented(spare, origin);
        if origin == Origin::Remote && self.is_unwanted(hash) {
            self.segmented().list(segment).demote(slot);
        }
        (slot, segment)
    }

    fn place_single(&mut self) -> u32 {
        let slot = self.vacant_slot();
        if let Order::Single(list) = &mut self.order {
            list.push(slot);
        }
        slot
    }

    fn place_segmented(&mut self, spare: Option<(u32, Segment)>, origin: Origin) -> (u32, Segment) {
        let whole = (self.len() + 1, self.share);
        let entrance = self.segmented().entrance(origin);
        let Some((slot, segment)) = spare else {
            let slot = self.vacant_slot();
            self.segmented().list(entrance).push(slot);
            self.shorten(Segment::First, Some(slot));
            return (slot, entrance);
        };
        let order = self.segmented();
        if segment == entrance {
            order.list(segment).promote(slot);
            return (slot, entrance);
        }
        let falling = order.coldest(Segment::First).filter(|_| order.is_full(Segment::First, whole));
        match falling {
            Some(falling) if entrance == Segment::First => {
                if segment == Segment::Second {
                    order.list(Segment::Second).promote(slot);
                } else {
                    order.list(segment).remove(slot);
                    order.list(Segment::Second).push(slot);
                }
                order.list(Segment::First).promote(falling);
                self.relocate(falling, slot);
                self.enter(slot, Segment::Second);
                (falling, entrance)
            }
            _ => {
                order.list(segment).remove(slot);
                order.list(entrance).push(slot);
                (slot, entrance)
            }
        }
    }

    pub(super) fn release(&mut self, slot: u32, segment: Segment) {
        self.order.remove(slot, segment);
        self.free.push(slot);
    }

    /// The next victim by its place alone: the second segment's coldest, else another's.
    fn coldest_but(&mut self, keep: Option<u32>) -> Option<(u32, Segment)> {
        for segment in [Segment::Second, Segment::Third, Segment::First] {
            let list = self.segmented().list(segment);
            let mut slot = list.coldest();
            if let Some(kept) = slot.filter(|slot| keep == Some(*slot)) {
                list.promote(kept);
                slot = list.coldest().filter(|slot| *slot != kept);
            }
            if let Some(slot) = slot {
                return Some((slot, segment));
            }
        }
        None
    }

    /// A used entry goes up, and if there is no room, the coldest one there comes down in its stead.
    fn rise(&mut self, slot: u32, segment: Segment, keep: Option<u32>) {
        let whole = (self.len(), self.share);
        let order = self.segmented();
        let better = order.better();
        if segment != Segment::Second {
            order.list(segment).promote(slot);
            return;
        }
        if !order.is_full(better, whole) {
            order.list(Segment::Second).remove(slot);
            order.list(better).push(slot);
            self.enter(slot, better);
            return;
        }
        order.list(Segment::Second).promote(slot);
        let Some(falling) = order.coldest(better).filter(|falling| keep != Some(*falling)) else { return };
        order.list(better).promote(falling);
        self.exchange(slot, falling);
        self.enter(falling, better);
        self.enter(slot, Segment::Second);
    }

    /// Lets a segment that is longer or heavier than it should be fall towards its bound: by two entries, which is more than can have
    /// come to it, or where entries have weights, by as many as one search may let rise, since one heavy entry makes up for many.
    fn shorten(&mut self, segment: Segment, keep: Option<u32>) {
        let whole = (self.order.len(), self.share);
        let falls = if self.weights.is_some() { SECOND_CHANCES_MAX } else { 2 };
        for _ in 0..falls {
            let order = self.segmented();
            if !order.is_overfull(segment, whole) {
                return;
            }
            let Some(slot) = order.coldest(segment).filter(|slot| keep != Some(*slot)) else { return };
            order.list(segment).remove(slot);
            order.list(Segment::Second).push(slot);
            self.enter(slot, Segment::Second);
        }
    }

    /// Notes that an entry's slot stands in another segment now.
    fn enter(&mut self, slot: u32, segment: Segment) {
        let word = &mut self.entry_mut(slot).word;
        let left = word.segment();
        word.set_segment(segment);
        if let Some(weights) = &self.weights {
            let weight = weights[slot as usize];
            self.order.reweigh(left, weight, 0);
            self.order.reweigh(segment, 0, weight);
        }
    }

    fn segmented(&mut self) -> &mut Segmented {
        match &mut self.order {
            Order::Segmented(segmented) => segmented,
            Order::Single(_) => unreachable!("only asked where the order has segments"),
        }
    }
}

#[cfg(test)]
mod tests;
