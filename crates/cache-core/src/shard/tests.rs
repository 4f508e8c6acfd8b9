use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{sweep::STEP_VISITS, *};
use crate::clock::NEVER;

/// Collects what it is told, and panics at one key.
#[derive(Default)]
struct Told {
    victims: Vec<(u64, Cause)>,
    panics_at: Option<u64>,
}

impl Sidecar<u64, u64> for Told {
    fn victim(&mut self, _: u64, key: &u64, _: &u64, cause: Cause) {
        assert_ne!(self.panics_at, Some(*key), "told to panic here");
        self.victims.push((*key, cause));
    }
}

const WEIGHED: Rules = Rules { policy: Policy::Lru, remote_depth: 0.0, is_weighed: true, idle_ms: None };

fn change(weight: u64) -> Change {
    Change { weight, deadline: NEVER, origin: Origin::Local, now: 0 }
}

struct Fixture {
    store: Store<u64, u64>,
    told: Told,
    out: Departed<u64, u64>,
    /// When pages are asked for.
    now: u64,
}

impl Fixture {
    fn new(entries: usize, weight: u64) -> Self {
        Self::with(entries, weight, WEIGHED)
    }

    fn with(entries: usize, weight: u64, rules: Rules) -> Self {
        let store = Store::new(Share { entries, weight }, rules);
        Fixture { store, told: Told::default(), out: Departed::new(), now: 0 }
    }

    /// Positions are the keys spread over 64 bits, in the keys' order.
    fn hash(key: u64) -> u64 {
        key << 40
    }

    fn insert(&mut self, key: u64, weight: u64, deadline: u64) {
        let new =
            New { hash: Self::hash(key), key, value: key * 10, weight, deadline, origin: Origin::Local };
        self.store.insert(new, 0, &mut self.told, &mut self.out);
    }

    fn slot(&self, key: u64) -> Option<u32> {
        self.store.find(Self::hash(key), &key)
    }

    fn use_it(&mut self, key: u64) {
        let slot = self.slot(key).expect("the key is there");
        self.store.entry_mut(slot).word.mark();
    }

    fn remove(&mut self, key: u64) {
        let slot = self.slot(key).expect("the key is there");
        self.store.remove(slot);
    }

    /// One step towards a page.
    fn step(&mut self, position: u64, limit: usize, gathering: &mut Gathering) -> Option<Page> {
        self.store.page(position, limit, self.now, gathering, &mut self.told, &mut self.out)
    }

    fn page(&mut self, position: u64, limit: usize) -> Page {
        let mut gathering = Gathering::default();
        loop {
            if let Some(page) = self.step(position, limit, &mut gathering) {
                return page;
            }
        }
    }

    fn page_keys(&mut self, position: u64, limit: usize) -> (Vec<u64>, Option<u64>) {
        let page = self.page(position, limit);
        (page.picked.iter().map(|(hash, _)| hash >> 40).collect(), page.next)
    }

    fn evicted(&self) -> Vec<u64> {
        self.told.victims.iter().map(|(key, _)| *key).collect()
    }

    fn sweep(&mut self, now: u64) -> bool {
        self.store.sweep_step(now, &mut Budget::unlimited(), &mut self.told, &mut self.out).finished
    }
}

#[test]
fn the_least_recently_used_goes_first_and_a_used_one_gets_a_second_chance() {
    let mut f = Fixture::new(3, u64::MAX);
    (1..=3).for_each(|key| f.insert(key, 1, NEVER));
    f.use_it(1);
    f.insert(4, 1, NEVER);
    assert_eq!(f.evicted(), [2], "1 was the coldest but was used");
    f.insert(5, 1, NEVER);
    f.insert(6, 1, NEVER);
    assert_eq!(f.evicted(), [2, 3, 1], "1 moved behind 3 with its second chance, which it has only once");
}

#[test]
fn a_search_gives_a_bounded_number_of_second_chances() {
    let hot = SECOND_CHANCES_MAX as u64 + 10;
    let mut f = Fixture::new(hot as usize, u64::MAX);
    (0..hot).for_each(|key| f.insert(key, 1, NEVER));
    (0..hot).for_each(|key| f.use_it(key));
    f.insert(1000, 1, NEVER);
    assert_eq!(f.evicted(), [SECOND_CHANCES_MAX as u64]);
    assert!(f.slot(0).is_some());
}

#[test]
fn an_expired_entry_at_the_cold_end_goes_as_expired_even_if_used() {
    let mut f = Fixture::new(2, u64::MAX);
    f.insert(1, 1, 50);
    f.insert(2, 1, NEVER);
    f.use_it(1);
    let new =
        New { hash: Fixture::hash(3), key: 3, value: 0, weight: 1, deadline: NEVER, origin: Origin::Local };
    f.store.insert(new, 50, &mut f.told, &mut f.out);
    assert_eq!(f.told.victims, [(1, Cause::Expired)]);
}

#[test]
fn an_insert_makes_room_for_its_whole_weight() {
    let mut f = Fixture::new(100, 10);
    (1..=5).for_each(|key| f.insert(key, 2, NEVER));
    f.insert(6, 7, NEVER);
    assert_eq!(f.evicted(), [1, 2, 3, 4]);
    assert_eq!((f.store.weight(), f.store.len()), (9, 2));
    assert_eq!(
        f.out.drain().map(|(key, value, _)| (key, value)).collect::<Vec<_>>(),
        [(1, 10), (2, 20), (3, 30), (4, 40)]
    );
}

#[test]
fn an_entry_heavier_than_the_share_is_refused_alone() {
    let mut f = Fixture::new(100, 10);
    f.insert(1, 5, NEVER);
    f.insert(2, 11, NEVER);
    assert_eq!(f.told.victims, [(2, Cause::Evicted)]);
    assert_eq!((f.store.len(), f.store.counts.refusals), (1, 1));
    let slot = f.slot(1).expect("1 stayed");
    let old = f.store.replace(slot, 77, change(11), &mut f.told, &mut f.out);
    assert_eq!((old, f.slot(1), f.store.weight()), (10, None, 0), "the old value may not survive the write");
    assert_eq!(f.out.drain().last(), Some((1, 77, Cause::Evicted)));
}

#[test]
fn a_weight_beyond_32_bits_is_refused_even_without_a_bound() {
    let mut f = Fixture::new(100, u64::MAX);
    f.insert(1, WEIGHT_MAX, NEVER);
    f.insert(2, WEIGHT_MAX + 1, NEVER);
    assert_eq!((f.slot(1).is_some(), f.slot(2)), (true, None));
    assert_eq!(f.store.weight(), WEIGHT_MAX);
}

#[test]
fn a_replacement_that_grows_never_evicts_itself() {
    let mut f = Fixture::new(100, 10);
    (1..=5).for_each(|key| f.insert(key, 2, NEVER));
    (2..=5).for_each(|key| f.use_it(key));
    let slot = f.slot(1).expect("1 is there");
    let old = f.store.replace(slot, 0, change(10), &mut f.told, &mut f.out);
    assert_eq!((old, f.store.weight(), f.store.len()), (10, 10, 1));
    let mut gone = f.evicted();
    gone.sort_unstable();
    assert_eq!(gone, [2, 3, 4, 5]);
}

#[test]
fn a_panicking_sidecar_leaves_the_shard_whole() {
    let mut f = Fixture::new(100, 10);
    (1..=5).for_each(|key| f.insert(key, 2, NEVER));
    f.told.panics_at = Some(2);
    let result = catch_unwind(AssertUnwindSafe(|| f.insert(6, 6, NEVER)));
    assert!(result.is_err());
    assert_eq!(
        (f.store.len(), f.store.weight(), f.slot(6)),
        (4, 8, None),
        "1 went, 2 stayed, 6 was not put in"
    );
    f.told.panics_at = None;
    f.insert(6, 6, NEVER);
    (7..=20).for_each(|key| f.insert(key, 2, NEVER));
    assert_eq!((f.store.len(), f.store.weight()), (5, 10));
    assert_eq!(f.evicted().len(), 15, "each of the others was told exactly once");
}

#[test]
fn slots_are_reused_and_the_slab_never_outgrows_the_share() {
    let mut f = Fixture::new(5, u64::MAX);
    (0..1000).for_each(|key| f.insert(key, 1, NEVER));
    assert_eq!((f.store.slab.len(), f.store.slab.capacity()), (5, 5));
    let slot = f.slot(999).expect("the last one is there");
    f.store.remove(slot);
    f.insert(1000, 1, NEVER);
    assert_eq!((f.store.slab.len(), f.store.free.len()), (5, 0));
}

#[test]
fn a_page_takes_the_smallest_positions_in_order_and_tells_of_more() {
    let mut f = Fixture::new(1000, u64::MAX);
    (0..500).for_each(|key| f.insert((key * 7) % 500, 1, NEVER));
    assert_eq!(f.page_keys(0, 3), (vec![0, 1, 2], Some(Fixture::hash(2) + 1)));
    assert_eq!(f.page_keys(Fixture::hash(100) + 1, 2), (vec![101, 102], Some(Fixture::hash(102) + 1)));
    assert_eq!(f.page_keys(Fixture::hash(498), 2), (vec![498, 499], None));
    assert_eq!(f.page_keys(Fixture::hash(500), 2), (vec![], None));
    assert_eq!(f.page_keys(Fixture::hash(499), 0), (vec![499], None));
    assert_eq!(f.page_keys(0, usize::MAX).0.len(), 500);
    assert!(f.store.run.is_none(), "what was read to its end is not kept");
}

#[test]
fn a_page_never_splits_equal_positions() {
    let mut f = Fixture::new(1000, u64::MAX);
    for key in 0..90 {
        let new =
            New { hash: (key % 3) << 40, key, value: 0, weight: 1, deadline: NEVER, origin: Origin::Local };
        f.store.insert(new, 0, &mut f.told, &mut f.out);
    }
    let page = f.page(0, 2);
    assert!(page.picked.iter().all(|(hash, _)| *hash == 0));
    assert_eq!((page.picked.len(), page.next), (30, Some(1)));
    let page = f.page(1, 31);
    assert_eq!((page.picked.len(), page.next), (60, None));
}

#[test]
fn a_run_knows_what_came_and_went_since_it_was_gathered() {
    let mut f = Fixture::new(1000, u64::MAX);
    (0..100).for_each(|key| f.insert(key * 10, 1, NEVER));
    assert_eq!(f.page_keys(0, 2).0, [0, 10]);
    let visited = f.store.run.as_ref().map(|run| std::ptr::from_ref(&**run));
    // Gone; gone and come again, into a slot of its own or another's; new; gone and new in turn, often.
    for key in [40, 50, 60] {
        f.remove(key);
    }
    f.insert(60, 1, NEVER);
    f.insert(50, 1, NEVER);
    f.insert(25, 1, NEVER);
    f.insert(5, 1, NEVER);
    for _ in 0..5 {
        f.insert(55, 1, NEVER);
        f.remove(55);
    }
    f.insert(55, 1, NEVER);
    assert_eq!(f.page_keys(Fixture::hash(11), 7).0, [20, 25, 30, 50, 55, 60, 70]);
    assert_eq!(f.page_keys(Fixture::hash(3), 2).0, [5, 10], "a run is read from anywhere in its range");
    assert_eq!(
        f.store.run.as_ref().map(|run| std::ptr::from_ref(&**run)),
        visited,
        "it is still the first run"
    );
}

#[test]
fn a_page_gives_up_what_expired_in_its_range_and_nothing_beyond_it() {
    let mut f = Fixture::new(1000, u64::MAX);
    (0..100).for_each(|key| f.insert(key, 2, if key % 3 == 0 { NEVER } else { 50 }));
    f.now = 50;
    assert_eq!(f.page_keys(0, 5), (vec![0, 3], Some(Fixture::hash(4) + 1)), "the expired count too");
    assert_eq!(f.told.victims, [1, 2, 4].map(|key| (key, Cause::Expired)));
    assert_eq!((f.store.len(), f.store.weight(), f.store.counts.expirations), (97, 194, 3));
    assert_eq!(f.out.drain().map(|(key, ..)| key).collect::<Vec<_>>(), [1, 2, 4]);
    assert_eq!(f.page_keys(0, 2), (vec![0, 3], Some(Fixture::hash(3) + 1)), "met once");
    assert_eq!(
        f.page_keys(Fixture::hash(4), 1),
        (vec![], Some(Fixture::hash(5) + 1)),
        "a page of one expired"
    );
    // A slot that was given up here is taken again while the run goes on.
    f.insert(4, 2, NEVER);
    assert_eq!(f.page_keys(Fixture::hash(4), 2).0, [4, 6]);
    assert_eq!(f.page_keys(Fixture::hash(7), usize::MAX).0.len(), 31);
    assert_eq!((f.store.len(), f.store.counts.expirations), (35, 66));
    assert!(f.store.run.is_none());
}

#[test]
fn a_page_whose_sidecar_panics_leaves_the_shard_whole() {
    let mut f = Fixture::new(100, u64::MAX);
    (1..=5).for_each(|key| f.insert(key, 1, 50));
    f.now = 50;
    f.told.panics_at = Some(3);
    assert!(catch_unwind(AssertUnwindSafe(|| f.page(0, 10))).is_err());
    assert_eq!((f.evicted(), f.store.len()), (vec![1, 2], 3));
    f.told.panics_at = None;
    assert_eq!(f.page_keys(0, 10), (vec![], None));
    assert_eq!((f.evicted(), f.store.len()), (vec![1, 2, 3, 4, 5], 0));
}

#[test]
#[cfg_attr(miri, ignore = "so many entries take Miri many minutes")]
fn a_run_that_too_much_was_put_into_is_given_up() {
    let mut f = Fixture::new(100_000, u64::MAX);
    (0..100).for_each(|key| f.insert(key * 1_000, 1, NEVER));
    assert_eq!(f.page_keys(0, 1).0, [0]);
    (0..run::ADDED_MAX as u64).for_each(|n| f.insert(n * 7 + 1, 1, NEVER));
    assert!(f.store.run.is_some());
    f.insert(2, 1, NEVER);
    assert!(f.store.run.is_none());
    assert_eq!(f.page_keys(1, 3).0, [1, 2, 8]);
}

#[test]
#[cfg_attr(miri, ignore = "so many entries take Miri many minutes")]
fn a_scan_of_a_large_shard_walks_it_once_for_each_run() {
    let entries = 3 * run::GATHER_VISITS as u64;
    let mut f = Fixture::new(usize::MAX >> 40, u64::MAX);
    (0..entries).for_each(|n| f.insert((n * 61_813) % entries, 1, NEVER));
    let (mut at, mut keys, mut steps) = (Some(0), Vec::new(), 0);
    while let Some(position) = at {
        let mut gathering = Gathering::default();
        steps += 1;
        let page = loop {
            match f.step(position, 700, &mut gathering) {
                Some(page) => break page,
                None => steps += 1,
            }
        };
        keys.extend(page.picked.iter().map(|(hash, _)| hash >> 40));
        at = page.next;
    }
    assert!(keys.into_iter().eq(0..entries), "in order, each once");
    let runs = entries.div_ceil(run::RUN_ENTRIES as u64);
    let pages = runs * (run::RUN_ENTRIES as u64).div_ceil(700);
    assert_eq!(steps, pages + runs * 2, "two steps more than its pages for each run");
}

#[test]
#[cfg_attr(miri, ignore = "so many entries take Miri many minutes")]
fn what_is_put_in_while_a_run_is_gathered_is_in_it() {
    let mut f = Fixture::new(usize::MAX >> 40, u64::MAX);
    let entries = 2 * run::GATHER_VISITS as u64 - 10;
    (0..entries).for_each(|key| f.insert(key * 2, 1, NEVER));
    let mut gathering = Gathering::default();
    assert!(f.step(0, 4, &mut gathering).is_none(), "the first step ends inside the slab");
    // One into a slot that was passed, one into a slot that is still to come, and one that goes again.
    f.remove(2);
    f.insert(1, 1, NEVER);
    f.insert(3, 1, NEVER);
    f.insert(5, 1, NEVER);
    f.remove(5);
    let page = f.step(0, 4, &mut gathering).expect("the second step ends the walk");
    assert_eq!(page.picked.iter().map(|(hash, _)| hash >> 40).collect::<Vec<_>>(), [0, 1, 3, 4]);
}

/// Two scans of one shard, each of whose steps undoes the other's, both come to an end.
#[test]
#[cfg_attr(miri, ignore = "so many entries take Miri many minutes")]
fn two_scans_of_a_large_shard_do_not_hold_each_other_up() {
    let mut f = Fixture::new(usize::MAX >> 40, u64::MAX);
    let entries = 5 * run::GATHER_VISITS as u64;
    (0..entries).for_each(|key| f.insert(key, 1, NEVER));
    let (mut one, mut other) = (Gathering::default(), Gathering::default());
    let (low, high) = (0, Fixture::hash(entries - 10));
    let (mut pages, mut turns) = (0, 0);
    while pages < 2 {
        pages += usize::from(f.step(high, 1, &mut one).is_some());
        pages += usize::from(f.step(low, 1, &mut other).is_some());
        turns += 1;
        assert!(turns < 100);
    }
}

#[test]
fn a_run_that_nobody_reads_on_is_dropped_by_the_sweep() {
    let mut f = Fixture::new(1000, u64::MAX);
    (0..100).for_each(|key| f.insert(key, 1, NEVER));
    f.page(0, 2);
    assert!(!f.store.is_due(run::RUN_IDLE_MS - 1) && f.sweep(run::RUN_IDLE_MS - 1) && f.store.run.is_some());
    assert!(f.store.is_due(run::RUN_IDLE_MS) && f.sweep(run::RUN_IDLE_MS) && f.store.run.is_none());
}

#[test]
#[cfg_attr(miri, ignore = "so many entries take Miri many minutes")]
fn a_sweep_step_is_bounded_and_the_walk_reaches_everything() {
    let mut f = Fixture::new(100_000, u64::MAX);
    (0..10_000).for_each(|key| f.insert(key, 1, if key % 2 == 0 { 100 } else { 200 }));
    assert!(f.sweep(99), "nothing is due, so nothing is walked");
    assert_eq!(f.out.len(), 0);
    let mut steps = 0;
    loop {
        let before = f.out.len();
        let mut budget = Budget::unlimited();
        let finished = f.store.sweep_step(150, &mut budget, &mut f.told, &mut f.out).finished;
        assert!(f.out.len() - before <= sweep::STEP_RECLAIMS);
        assert!(usize::MAX - budget.visits <= STEP_VISITS);
        steps += 1;
        if finished {
            break;
        }
    }
    assert_eq!((f.out.len(), f.store.len()), (5_000, 5_000));
    assert_eq!(steps, 20, "5,000 entries by 256 a step");
    assert!(!f.store.is_due(199) && f.store.is_due(200), "the walk found out what is due next");
}

#[test]
#[cfg_attr(miri, ignore = "so many entries take Miri many minutes")]
fn a_deadline_set_behind_the_cursor_is_not_forgotten() {
    let mut f = Fixture::new(100_000, u64::MAX);
    (0..10_000).for_each(|key| f.insert(key, 1, if key == 9_999 { 100 } else { NEVER }));
    assert!(!f.sweep(100), "the first step ends inside the slab");
    let slot = f.slot(0).expect("0 is there");
    f.store.touch(slot, 120, 0);
    while !f.sweep(110) {}
    assert_eq!(f.out.len(), 1);
    assert!(f.store.is_due(120));
    while !f.sweep(120) {}
    assert_eq!(f.out.len(), 2);
}

#[test]
fn a_shard_that_the_sweep_emptied_gives_its_memory_back() {
    let mut f = Fixture::new(1000, u64::MAX);
    (0..100).for_each(|key| f.insert(key, 1, 100));
    while !f.sweep(100) {}
    assert_eq!((f.store.len(), f.store.slab.capacity(), f.store.table.capacity()), (0, 0, 0));
    f.insert(1, 1, 300);
    assert!(f.slot(1).is_some() && f.store.is_due(300));
}

#[test]
#[cfg_attr(miri, ignore = "so many entries take Miri many minutes")]
fn a_reduction_goes_in_bounded_steps_that_nobody_can_hold_up() {
    for is_weighed in [true, false] {
        let mut f = Fixture::with(10_000, u64::MAX, Rules { is_weighed, ..WEIGHED });
        (0..8_000).for_each(|key| f.insert(key, 1, NEVER));
        (0..1_000).for_each(|key| f.remove(key));
        let target = Share { entries: 500, weight: u64::MAX };
        let (mut steps, mut fresh) = (0, 10_000);
        loop {
            let before = f.out.len();
            let is_reached = f.store.resize_step(target, 0, &mut f.told, &mut f.out);
            assert!(f.out.len() - before <= shrink::STEP_SLOTS);
            steps += 1;
            if is_reached {
                break;
            }
            let held = f.store.len();
            (0..100).for_each(|_| {
                fresh += 1;
                f.insert(fresh, 1, NEVER);
            });
            assert!(f.store.len() <= held.max(f.store.share.entries), "what comes meanwhile pays for itself");
        }
        assert_eq!((f.store.len(), f.store.share), (500, target));
        assert!(steps <= 8_000 / shrink::STEP_SLOTS + 2, "{steps} steps");
        (0..1_000).for_each(|key| f.insert(key, 1, NEVER));
        assert_eq!(f.store.len(), 500);
        assert!(f.store.resize_step(Share { entries: 900, ..target }, 0, &mut f.told, &mut f.out));
        (2_000..4_000).for_each(|key| f.insert(key, 1, NEVER));
        assert_eq!(f.store.len(), 900);
    }
}

#[test]
fn an_entry_that_is_idle_for_too_long_expires_and_a_use_puts_that_off() {
    let mut f = Fixture::with(100, u64::MAX, Rules { idle_ms: Some(50), remote_depth: 1.0, ..WEIGHED });
    (1..=4).for_each(|key| f.insert(key, 1, if key == 4 { 70 } else { NEVER }));
    let slots = [1, 2, 3, 4].map(|key| f.slot(key).expect("it is there"));
    f.store.hit(slots[0], 40);
    f.store.hit(slots[3], 40);
    let change = |origin| Change { weight: 1, deadline: 1_000, origin, now: 40 };
    f.store.replace(slots[1], 0, change(Origin::Remote), &mut f.told, &mut f.out);
    f.store.replace(slots[2], 0, change(Origin::Local), &mut f.told, &mut f.out);
    let live = |f: &Fixture, now| slots.map(|slot| f.store.is_live(slot, now));
    assert_eq!(live(&f, 49), [true; 4]);
    assert_eq!(live(&f, 50), [true, false, true, true], "a write of another region is no use");
    assert_eq!(live(&f, 70), [true, false, true, false], "no use prolongs a lifetime");
    assert_eq!(live(&f, 90), [false; 4]);
    assert_eq!(slots.map(|slot| f.store.deadline(slot)), [NEVER, 1_000, 1_000, 70], "lifetimes stay");
    assert!(f.store.is_due(50));
    while !f.sweep(60) {}
    assert_eq!(f.told.victims, [(2, Cause::Expired)]);
    while !f.sweep(90) {}
    assert_eq!((f.told.victims.len(), f.store.len(), f.store.counts.expirations), (4, 0, 4));
}

/// A cache of 1 M entries in 64 shards, all of which expire at once: each step's work is bounded, and the steps are few enough that a
/// round of the ticker's, 32 ticks of 10 ms, meets them all with its budgets.
#[test]
#[cfg_attr(miri, ignore = "so many entries take Miri many minutes")]
fn all_that_expires_at_once_is_reclaimed_in_few_bounded_steps() {
    let share = 1_000_000 / 64;
    let mut f = Fixture::with(share, u64::MAX, Rules { is_weighed: false, ..WEIGHED });
    (0..share as u64).for_each(|key| f.insert(key, 1, 1_000));
    let mut steps = 0;
    loop {
        let before = f.out.len();
        let mut budget = Budget::unlimited();
        let finished = f.store.sweep_step(1_000, &mut budget, &mut f.told, &mut f.out).finished;
        assert!(f.out.len() - before <= sweep::STEP_RECLAIMS && usize::MAX - budget.visits <= STEP_VISITS);
        steps += 1;
        if finished {
            break;
        }
    }
    assert_eq!((f.store.len(), steps), (0, share.div_ceil(sweep::STEP_RECLAIMS)));
}

/// A write whose lifetime is over at once was given the room of an entry that was still of use.
#[test]
fn what_is_over_at_once_is_not_kept_and_nothing_leaves_for_it() {
    let mut f = Fixture::new(100, 10);
    (1..=5).for_each(|key| f.insert(key, 2, 1_000));
    let over = Change { deadline: 100, now: 100, ..change(7) };
    let new =
        New { hash: Fixture::hash(6), key: 6, value: 60, weight: 7, deadline: 100, origin: Origin::Local };
    f.store.insert(new, 100, &mut f.told, &mut f.out);
    assert_eq!((f.store.len(), f.slot(6)), (5, None), "the cache is full of what lives");
    let slot = f.slot(1).expect("1 stayed");
    assert_eq!(f.store.replace(slot, 77, over, &mut f.told, &mut f.out), 10);
    assert_eq!(f.slot(1), None, "the old value may not survive the write");
    let slot = f.slot(2).expect("2 stayed");
    f.store.update(slot, over, &mut f.told, &mut f.out);
    assert_eq!((f.store.len(), f.store.weight()), (3, 6));
    assert_eq!(f.told.victims, [6, 1, 2].map(|key| (key, Cause::Expired)));
    assert_eq!(f.out.drain().map(|(_, value, _)| value).collect::<Vec<_>>(), [60, 77, 20]);
    let counts = &f.store.counts;
    assert_eq!((counts.expirations, counts.evictions, counts.refusals), (3, 0, 0));
    assert_eq!((counts.inserts, counts.replacements, counts.updates), (6, 1, 1));
}
