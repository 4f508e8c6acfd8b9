//! The memory of keys that are gone, and the bar below which nothing comes back.
//!
//! Safety rests on one stamp per key, its *bar*: the smallest acceptable stamp, which never goes down. A live key's bar
//! is above its own stamp. A removed or expired key leaves a *strict* grave, an evicted one a *non-strict* grave (that
//! very record may come back, an older one may not). Graves are bounded: when the oldest is dropped, the *floor* rises
//! to its bar, and a key of which nothing is known is refused below the floor. So forgetting only ever raises a bar; a
//! late duplicate finds it and cannot resurrect what it carries.

mod ledger;

use self::ledger::Ledger;
use super::Rules;
use crate::{
    message::{Bar, Grave},
    stamp::Stamp,
};

/// The graves and the floor of one shard. Pure: its owner holds it under the shard's lock.
#[derive(Debug)]
pub struct Guard {
    graves: Ledger,
    graves_max: usize,
    floor: Bar,
    cover: Cover,
    forgotten: u64,
    rules: Rules,
}

/// While a full sync runs: the floor of its peer, for the positions that the peer has already listed.
#[derive(Debug, Clone, Copy)]
enum Cover {
    None,
    Below(u64, Bar),
}

impl Guard {
    /// A guard that keeps at most `graves_max` graves. Each takes 72 bytes at most and about 48 usually, its key's hash
    /// of 8 included; 2 KiB come on top.
    pub fn new(graves_max: usize) -> Self {
        Self {
            graves: Ledger::default(),
            graves_max,
            floor: Bar::NONE,
            cover: Cover::None,
            forgotten: 0,
            rules: Rules::ALL,
        }
    }

    /// A guard that follows only these rules.
    #[cfg(any(test, feature = "sim"))]
    #[must_use]
    pub fn with_rules(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// What is known of the key at `position`, which is not live here: its grave's bar.
    pub fn grave(&self, position: u64) -> Option<Bar> {
        self.graves.bar(position)
    }

    /// Remembers a live key that was evicted: that very record may come back, an older one may not.
    pub fn evicted(&mut self, position: u64, stamp: Stamp) {
        if self.rules.grave_on_eviction {
            self.bury(position, Bar::at(stamp));
        }
    }

    /// Remembers a live key whose life ended.
    pub fn expired(&mut self, position: u64, stamp: Stamp) {
        if self.rules.grave_on_expiry {
            self.bury(position, Bar::above(stamp));
        }
    }

    /// The bar of the key at `position`, where `live` is the stamp it is held with. Clear barriers come on top.
    pub fn bar(&self, position: u64, live: Option<Stamp>) -> Bar {
        if let Some(stamp) = live {
            return Bar::above(stamp);
        }
        let known = self.graves.bar(position).unwrap_or(self.floor);
        match self.cover {
            Cover::Below(end, floor) if position < end => known.max(floor),
            _ => known,
        }
    }

    /// Takes over a peer's grave of a key that is not live here. What is known already stays where it is higher: a grave
    /// below the floor would lower the key's bar.
    pub fn learn(&mut self, position: u64, bar: Bar) {
        if bar > self.bar(position, None) {
            self.bury(position, bar);
        }
    }

    /// Remembers that the key at `position`, which was live here, is gone below `bar`. The higher bar stays where there
    /// is one already.
    pub fn bury(&mut self, position: u64, bar: Bar) {
        let Some(forgotten) = self.graves.bury(position, bar, self.graves_max) else { return };
        if self.rules.floor_rises {
            self.floor = self.floor.max(forgotten.bar);
        }
        self.forgotten += 1;
    }

    /// The key at `position` lives again: its entry carries the bar from here on.
    pub fn lift(&mut self, position: u64) {
        self.graves.remove(position);
    }

    /// The bar of keys of which nothing is known, at positions from `lo` on: a cover that reaches past it counts too.
    pub fn floor(&self, lo: u64) -> Bar {
        match self.cover {
            Cover::Below(end, bar) if lo < end => self.floor.max(bar),
            _ => self.floor,
        }
    }

    /// Adopts a peer's floor after a full sync: graves below it go, since the peer may have forgotten a newer one.
    pub fn raise_floor(&mut self, bar: Bar) {
        self.cover = Cover::None;
        if !self.rules.floor_adopted {
            return;
        }
        if bar > self.floor {
            self.floor = bar;
        }
        self.graves.remove_below(bar);
    }

    /// Until the floor is raised, keys not live at positions below `end` have at least this bar.
    pub fn cover(&mut self, end: u64, bar: Bar) {
        if !self.rules.cover_while_syncing {
            return;
        }
        self.cover = Cover::Below(end, bar);
    }

    /// The graves at positions `lo..hi`, in that order; `hi` absent is the end of the space.
    pub fn graves_in(&self, lo: u64, hi: Option<u64>) -> Vec<Grave> {
        self.graves_from(lo).take_while(|grave| hi.is_none_or(|hi| grave.position < hi)).collect()
    }

    /// The graves at positions from `lo` on, in that order: each costs only itself, so take no more than a page holds.
    pub fn graves_from(&self, lo: u64) -> impl Iterator<Item = Grave> + '_ {
        self.graves.from(lo)
    }

    /// How many graves it holds.
    pub fn len(&self) -> usize {
        self.graves.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.graves.len() == 0
    }

    /// How many graves it dropped at its bound, each raising the floor.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{node::Origin, stamp::Hlc};

    fn stamp(ms: u64) -> Stamp {
        Stamp { hlc: Hlc::from_ms(ms), origin: Origin(1) }
    }

    #[test]
    fn a_strict_grave_refuses_its_own_stamp_and_a_non_strict_one_admits_it() {
        let mut guard = Guard::new(8);
        guard.bury(1, Bar::above(stamp(5)));
        guard.bury(2, Bar::at(stamp(5)));
        assert!(!guard.bar(1, None).admits(stamp(5)));
        assert!(guard.bar(2, None).admits(stamp(5)));
        assert!(!guard.bar(2, None).admits(stamp(4)));
    }

    #[test]
    fn a_dropped_grave_raises_the_floor_to_its_bar() {
        let mut guard = Guard::new(2);
        for position in 1..=3 {
            guard.bury(position, Bar::above(stamp(position)));
        }
        assert_eq!((guard.len(), guard.forgotten()), (2, 1));
        assert_eq!(guard.floor(0), Bar::above(stamp(1)));
        assert!(!guard.bar(99, None).admits(stamp(1)), "an unknown key below the floor is refused");
        assert!(guard.bar(99, None).admits(stamp(2)));
    }

    #[test]
    fn a_bar_never_goes_down_by_burying_lower() {
        let mut guard = Guard::new(8);
        guard.bury(1, Bar::above(stamp(9)));
        guard.bury(1, Bar::at(stamp(3)));
        assert_eq!(guard.bar(1, None), Bar::above(stamp(9)));
    }

    #[test]
    fn a_grave_learned_from_a_peer_does_not_lower_a_bar_that_the_floor_gives() {
        let mut guard = Guard::new(8);
        guard.raise_floor(Bar::above(stamp(10)));
        guard.learn(1, Bar::above(stamp(3)));
        assert_eq!(guard.bar(1, None), Bar::above(stamp(10)));
        guard.learn(1, Bar::above(stamp(30)));
        assert_eq!(guard.bar(1, None), Bar::above(stamp(30)));
    }

    #[test]
    fn an_adopted_floor_silences_the_graves_below_it() {
        let mut guard = Guard::new(8);
        guard.bury(1, Bar::at(stamp(3)));
        guard.bury(2, Bar::at(stamp(30)));
        guard.raise_floor(Bar::above(stamp(10)));
        assert_eq!(guard.bar(1, None), Bar::above(stamp(10)));
        assert_eq!(guard.bar(2, None), Bar::at(stamp(30)));
    }

    #[test]
    fn a_cover_counts_below_its_end_until_the_floor_is_raised() {
        let mut guard = Guard::new(8);
        guard.cover(100, Bar::above(stamp(7)));
        assert!(!guard.bar(99, None).admits(stamp(7)));
        assert!(guard.bar(100, None).admits(stamp(7)));
        assert_eq!((guard.floor(99), guard.floor(100)), (Bar::above(stamp(7)), Bar::NONE));
        guard.raise_floor(Bar::above(stamp(7)));
        assert!(!guard.bar(100, None).admits(stamp(7)));
    }

    #[test]
    fn nothing_is_left_of_keys_that_come_and_go() {
        let mut guard = Guard::new(1_000);
        for round in 0..100_000u64 {
            guard.bury(round % 10, Bar::at(stamp(round)));
            guard.lift(round % 10);
        }
        assert_eq!((guard.len(), guard.forgotten()), (0, 0));
        assert!(guard.graves.bytes() <= 2_048, "{}", guard.graves.bytes());
    }

    #[test]
    fn a_grave_that_is_raised_counts_as_the_newest() {
        let mut guard = Guard::new(2);
        guard.bury(1, Bar::at(stamp(1)));
        guard.bury(2, Bar::at(stamp(2)));
        guard.bury(1, Bar::at(stamp(3)));
        guard.bury(3, Bar::at(stamp(4)));
        assert_eq!((guard.grave(1), guard.grave(2)), (Some(Bar::at(stamp(3))), None));
        assert_eq!(guard.floor(0), Bar::at(stamp(2)));
    }

    #[test]
    fn the_graves_of_a_range_come_in_the_order_of_their_positions() {
        let mut guard = Guard::new(1_000);
        for n in 0..500_u64 {
            guard.bury((n * 7) % 500, Bar::at(stamp(n)));
        }
        let positions =
            |lo, hi| guard.graves_in(lo, hi).iter().map(|grave| grave.position).collect::<Vec<_>>();
        assert_eq!(positions(100, Some(400)), (100..400).collect::<Vec<_>>());
        assert_eq!(positions(490, None), (490..500).collect::<Vec<_>>());
        assert_eq!(positions(500, None), [0; 0]);
        assert_eq!(guard.graves_from(7).take(2).map(|grave| grave.position).collect::<Vec<_>>(), [7, 8]);
    }
}
