//! The order of use: slot numbers from the coldest to the hottest.
//!
//! A list whose links are slot numbers, in one vector: 8 bytes a slot, and each change touches three of them. The same list in the
//! `lru` crate takes a node of its own for each slot and a table to find it by, 46 bytes and a search for each change: with it, inserts that evict
//! were measured at half the speed.

/// No slot: the end of the list, in either direction.
const NONE: u32 = u32::MAX;

/// Slots in order of recency. It knows nothing of entries.
pub(crate) struct Recency {
    /// By slot: its neighbours, if it is in the order.
    links: Vec<Links>,
    hottest: u32,
    coldest: u32,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Links {
    hotter: u32,
    colder: u32,
}

impl Links {
    const NONE: Self = Links { hotter: NONE, colder: NONE };
}

impl Recency {
    pub(crate) fn new() -> Self {
        Recency { links: Vec::new(), hottest: NONE, coldest: NONE, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds a slot that is not in the order, at the hot end.
    #[inline]
    pub(crate) fn push(&mut self, slot: u32) {
        if self.links.len() <= slot as usize {
            self.grow(slot as usize + 1);
        }
        self.attach(slot);
        self.len += 1;
    }

    #[inline]
    pub(crate) fn coldest(&self) -> Option<u32> {
        (self.coldest != NONE).then_some(self.coldest)
    }

    /// All slots, from the hottest to the coldest.
    pub(crate) fn hottest(&self) -> impl Iterator<Item = u32> + '_ {
        let present = |slot: u32| (slot != NONE).then_some(slot);
        std::iter::successors(present(self.hottest), move |slot| present(self.links[*slot as usize].colder))
    }

    /// Moves a slot to the hot end.
    #[inline]
    pub(crate) fn promote(&mut self, slot: u32) {
        if self.hottest != slot {
            self.detach(slot);
            self.attach(slot);
        }
    }

    /// Moves a slot to the cold end.
    pub(crate) fn demote(&mut self, slot: u32) {
        if self.coldest == slot {
            return;
        }
        self.detach(slot);
        self.links[slot as usize] = Links { hotter: self.coldest, colder: NONE };
        match self.coldest {
            NONE => self.hottest = slot,
            coldest => self.links[coldest as usize].colder = slot,
        }
        self.coldest = slot;
    }

    pub(crate) fn remove(&mut self, slot: u32) {
        self.detach(slot);
        self.len -= 1;
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
    fn attach(&mut self, slot: u32) {
        self.links[slot as usize] = Links { hotter: NONE, colder: self.hottest };
        match self.hottest {
            NONE => self.coldest = slot,
            hottest => self.links[hottest as usize].hotter = slot,
        }
        self.hottest = slot;
    }

    #[inline]
    fn detach(&mut self, slot: u32) {
        let Links { hotter, colder } = self.links[slot as usize];
        match hotter {
            NONE => self.hottest = colder,
            hotter => self.links[hotter as usize].colder = colder,
        }
        match colder {
            NONE => self.coldest = hotter,
            colder => self.links[colder as usize].hotter = hotter,
        }
    }
}

#[cfg(test)]
mod tests {
    use lru::LruCache;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// The `lru` crate's order is the model.
        #[test]
        fn the_order_is_that_of_an_lru_list(steps in prop::collection::vec((0..4_u8, 0..12_u32), 1..200)) {
            let (mut order, mut model) = (Recency::new(), LruCache::<u32, ()>::unbounded());
            for (step, slot) in steps {
                match (step, model.contains(&slot)) {
                    (0, false) => {
                        order.push(slot);
                        model.push(slot, ());
                    }
                    (1, true) => {
                        order.promote(slot);
                        model.promote(&slot);
                    }
                    (2, true) => {
                        order.demote(slot);
                        model.demote(&slot);
                    }
                    (3, true) => {
                        order.remove(slot);
                        model.pop(&slot);
                    }
                    _ => {}
                }
                let hottest: Vec<u32> = model.iter().map(|(slot, ())| *slot).collect();
                prop_assert_eq!(order.hottest().collect::<Vec<_>>(), hottest);
                prop_assert_eq!(order.coldest(), model.peek_lru().map(|(slot, ())| *slot));
                prop_assert_eq!(order.len(), model.len());
            }
        }
    }
}
