//! The order of use: slot numbers from the coldest to the hottest, in up to three lists.
//!
//! The links of all lists are in one vector, by slot: 8 bytes a slot, however many lists there are, because a slot is in one of them
//! at most. So a change touches three links, and a slot goes from list to list without leaving its place in the slab. The same list in
//! the `lru` crate takes a node of its own for each slot and a table to find it by, 46 bytes and a search for each change: with it,
//! inserts that evict were measured at half the speed.
//!
//! Which list a slot is in is known to whoever asks: it is not kept here, and a slot that is named with another one than its own
//! leaves both astray.

use super::policy::Segment;

/// No slot: the end of a list, in either direction.
const NONE: u32 = u32::MAX;

/// Slots in order of recency, each in one segment. It knows nothing of entries.
pub(crate) struct Recency {
    /// By slot: its neighbours, if it is in the order.
    links: Vec<Links>,
    lists: [List; 3],
}

#[derive(Debug, Clone, Copy)]
struct Links {
    hotter: u32,
    colder: u32,
}

impl Links {
    const NONE: Self = Links { hotter: NONE, colder: NONE };
}

/// The two ends of a segment, and how many slots are between them.
#[derive(Debug, Clone, Copy)]
struct List {
    hottest: u32,
    coldest: u32,
    len: u32,
}

impl List {
    const EMPTY: Self = List { hottest: NONE, coldest: NONE, len: 0 };
}

impl Recency {
    pub(crate) fn new() -> Self {
        Recency { links: Vec::new(), lists: [List::EMPTY; 3] }
    }

    #[inline]
    pub(crate) fn len(&self, segment: Segment) -> usize {
        self.lists[segment as usize].len as usize
    }

    /// Adds a slot that is in no segment, at the hot end.
    #[inline]
    pub(crate) fn push(&mut self, slot: u32, segment: Segment) {
        if self.links.len() <= slot as usize {
            self.grow(slot as usize + 1);
        }
        self.attach(slot, segment);
        self.lists[segment as usize].len += 1;
    }

    #[inline]
    pub(crate) fn coldest(&self, segment: Segment) -> Option<u32> {
        present(self.lists[segment as usize].coldest)
    }

    /// All slots of a segment, from the hottest to the coldest.
    pub(crate) fn hottest(&self, segment: Segment) -> impl Iterator<Item = u32> + '_ {
        let hottest = present(self.lists[segment as usize].hottest);
        std::iter::successors(hottest, move |slot| present(self.links[*slot as usize].colder))
    }

    /// Moves a slot to the hot end of its segment.
    #[inline]
    pub(crate) fn promote(&mut self, slot: u32, segment: Segment) {
        if self.lists[segment as usize].hottest != slot {
            self.detach(slot, segment);
            self.attach(slot, segment);
        }
    }

    /// Moves a slot to the cold end of its segment.
    pub(crate) fn demote(&mut self, slot: u32, segment: Segment) {
        if self.lists[segment as usize].coldest == slot {
            return;
        }
        self.detach(slot, segment);
        let list = &mut self.lists[segment as usize];
        self.links[slot as usize] = Links { hotter: list.coldest, colder: NONE };
        match list.coldest {
            NONE => list.hottest = slot,
            coldest => self.links[coldest as usize].colder = slot,
        }
        list.coldest = slot;
    }

    /// Moves a slot to the hot end of another segment, or of the same.
    #[inline]
    pub(crate) fn shift(&mut self, slot: u32, from: Segment, to: Segment) {
        if from == to {
            return self.promote(slot, from);
        }
        self.remove(slot, from);
        self.attach(slot, to);
        self.lists[to as usize].len += 1;
    }

    #[inline]
    pub(crate) fn remove(&mut self, slot: u32, segment: Segment) {
        self.detach(slot, segment);
        self.lists[segment as usize].len -= 1;
    }

    /// By a quarter: a shard is full for nearly all of its time, and what is beyond its slots is of no use then.
    #[cold]
    fn grow(&mut self, slots: usize) {
        if self.links.capacity() < slots {
            self.links.reserve_exact(slots + self.links.len() / 4 - self.links.len());
        }
        self.links.resize(slots, Links::NONE);
    }

    #[inline]
    fn attach(&mut self, slot: u32, segment: Segment) {
        let list = &mut self.lists[segment as usize];
        self.links[slot as usize] = Links { hotter: NONE, colder: list.hottest };
        match list.hottest {
            NONE => list.coldest = slot,
            hottest => self.links[hottest as usize].hotter = slot,
        }
        list.hottest = slot;
    }

    #[inline]
    fn detach(&mut self, slot: u32, segment: Segment) {
        let list = &mut self.lists[segment as usize];
        let Links { hotter, colder } = self.links[slot as usize];
        match hotter {
            NONE => list.hottest = colder,
            hotter => self.links[hotter as usize].colder = colder,
        }
        match colder {
            NONE => list.coldest = hotter,
            colder => self.links[colder as usize].hotter = hotter,
        }
    }
}

#[inline]
fn present(slot: u32) -> Option<u32> {
    (slot != NONE).then_some(slot)
}

#[cfg(test)]
mod tests {
    use lru::LruCache;
    use proptest::prelude::*;

    use super::*;

    const SEGMENTS: [Segment; 3] = [Segment::First, Segment::Second, Segment::Third];

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// As many lists of the `lru` crate are the model.
        #[test]
        fn the_order_of_each_segment_is_that_of_an_lru_list(
            steps in prop::collection::vec((0..5_u8, 0..12_u32, 0..3_usize), 1..200),
        ) {
            let (mut order, mut model) = (Recency::new(), SEGMENTS.map(|_| LruCache::<u32, ()>::unbounded()));
            for (step, slot, other) in steps {
                let from = model.iter().position(|list| list.contains(&slot));
                match (step, from) {
                    (0, None) => {
                        order.push(slot, SEGMENTS[other]);
                        model[other].push(slot, ());
                    }
                    (1, Some(from)) => {
                        order.promote(slot, SEGMENTS[from]);
                        model[from].promote(&slot);
                    }
                    (2, Some(from)) => {
                        order.demote(slot, SEGMENTS[from]);
                        model[from].demote(&slot);
                    }
                    (3, Some(from)) => {
                        order.remove(slot, SEGMENTS[from]);
                        model[from].pop(&slot);
                    }
                    (4, Some(from)) => {
                        order.shift(slot, SEGMENTS[from], SEGMENTS[other]);
                        model[from].pop(&slot);
                        model[other].push(slot, ());
                    }
                    _ => {}
                }
                for (segment, model) in SEGMENTS.into_iter().zip(&model) {
                    let hottest: Vec<u32> = model.iter().map(|(slot, ())| *slot).collect();
                    prop_assert_eq!(order.hottest(segment).collect::<Vec<_>>(), hottest);
                    prop_assert_eq!(order.coldest(segment), model.peek_lru().map(|(slot, ())| *slot));
                    prop_assert_eq!(order.len(segment), model.len());
                }
            }
        }
    }
}
