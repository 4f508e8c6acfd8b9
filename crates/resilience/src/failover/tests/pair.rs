//! Two small maps behind a `Failover`, driven as its documentation says: what a caller of it looks like.
//!
//! Writes go step by step, so that a test may let other things happen between the steps.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use crate::failover::{
    Failover, FailoverBuilder, Journal, Life, Missed, OtherSide, Resync, Scope, Side, WriteRoute,
};

/// How often a write is tried while its leader fails.
const TRIES: u32 = 5;
/// How many keys a journal of these tests holds.
const JOURNAL_ENTRIES: usize = 20;

/// A side: a map that can be cut off, and can lose its life.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) up: bool,
    /// Whether a write to it is applied although its answer is lost.
    pub(super) answers_lost: bool,
    pub(super) map: BTreeMap<u8, u32>,
    incarnation: u64,
    /// Whether its answers say that its life began with nothing.
    began_empty: bool,
}

impl Store {
    fn new() -> Self {
        Self { up: true, answers_lost: false, map: BTreeMap::new(), incarnation: 1, began_empty: false }
    }

    pub(super) fn restart(&mut self) {
        self.map.clear();
        self.restart_full();
    }

    /// Begins anew with what it had.
    pub(super) fn restart_full(&mut self) {
        self.incarnation += 1;
        self.began_empty = false;
    }

    /// Begins anew with nothing, and says so.
    pub(super) fn restart_and_say_so(&mut self) {
        self.restart();
        self.began_empty = true;
    }

    fn write(&mut self, key: u8, value: Option<u32>) -> bool {
        if self.up || self.answers_lost {
            match value {
                Some(value) => self.map.insert(key, value),
                None => self.map.remove(&key),
            };
        }
        self.up
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Found {
    Value(u32),
    Miss,
    Error,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Leader,
    Other,
    Settle { other_took: bool },
}

/// A write under way.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) key: u8,
    pub(super) value: Option<u32>,
    route: WriteRoute,
    stage: Stage,
    tries: u32,
}

/// A resync under way.
#[derive(Debug)]
struct Work {
    resync: Resync,
    /// Keys that are still to be copied.
    todo: VecDeque<u8>,
    /// Keys that the target keeps: they were copied, or written since.
    kept: BTreeSet<u8>,
    /// Keys that are still to be removed, once it is known that they may be.
    extra: Option<VecDeque<u8>>,
}

/// What a resync put in the place of a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replaced {
    pub(super) key: u8,
    pub(super) old: u32,
    pub(super) new: Option<u32>,
    pub(super) at: Side,
}

#[derive(Debug)]
pub(super) struct Pair {
    pub(super) failover: Failover,
    pub(super) main: Store,
    pub(super) fallback: Store,
    main_missed: Journal<u8, u32>,
    fallback_missed: Journal<u8, u32>,
    pub(super) now: Instant,
    pub(super) main_reads: u32,
    /// Keys that a write is under way of: a resync waits with them.
    pub(super) busy: BTreeSet<u8>,
    work: Option<Work>,
    /// What resyncs have replaced, for those who know what was right.
    pub(super) replaced: Vec<Replaced>,
}

impl Pair {
    pub(super) fn new(builder: FailoverBuilder) -> Self {
        let journal = || Journal::bounded(JOURNAL_ENTRIES, 1_000_000).unwrap();
        Self {
            failover: builder.build().unwrap(),
            main: Store::new(),
            fallback: Store::new(),
            main_missed: journal(),
            fallback_missed: journal(),
            now: Instant::now(),
            main_reads: 0,
            busy: BTreeSet::new(),
            work: None,
            replaced: Vec::new(),
        }
    }

    pub(super) fn status(&mut self) -> String {
        self.failover.status(self.now).to_string()
    }

    pub(super) fn journals_overflowed(&self) -> bool {
        self.main_missed.overflowed() || self.fallback_missed.overflowed()
    }

    fn store(&mut self, side: Side) -> &mut Store {
        match side {
            Side::Main => &mut self.main,
            Side::Fallback => &mut self.fallback,
        }
    }

    fn missed_of(&self, side: Side) -> &Journal<u8, u32> {
        match side {
            Side::Main => &self.main_missed,
            Side::Fallback => &self.fallback_missed,
        }
    }

    fn missed(&mut self, side: Side) -> &mut Journal<u8, u32> {
        match side {
            Side::Main => &mut self.main_missed,
            Side::Fallback => &mut self.fallback_missed,
        }
    }

    // Reads.

    pub(super) fn read(&mut self, key: u8) -> Found {
        let route = self.failover.route_read(self.now);
        if route.miss {
            return Found::Miss;
        }
        for side in [Some(route.side), route.or_else].into_iter().flatten() {
            if self.missed(side).contains(&key) {
                return Found::Miss;
            }
            if self.store(side).up {
                self.failover.succeeded(side, route.fence, self.now);
                self.main_reads += u32::from(side == Side::Main);
                return self.store(side).map.get(&key).map_or(Found::Miss, |value| Found::Value(*value));
            }
            self.failover.failed(side, route.fence, self.now);
        }
        Found::Error
    }

    // Writes.

    pub(super) fn set(&mut self, key: u8, value: u32) -> bool {
        self.write(key, Some(value))
    }

    pub(super) fn remove(&mut self, key: u8) -> bool {
        self.write(key, None)
    }

    fn write(&mut self, key: u8, value: Option<u32>) -> bool {
        let mut write = self.begin(key, value);
        loop {
            if let Some(done) = self.step(&mut write) {
                return done;
            }
        }
    }

    pub(super) fn begin(&mut self, key: u8, value: Option<u32>) -> Write {
        assert!(self.busy.insert(key), "one write of a key at a time");
        let route = self.failover.route_write(self.now);
        Write { key, value, route, stage: Stage::Leader, tries: 1 }
    }

    /// One step of a write; says whether it succeeded, once it has ended.
    pub(super) fn step(&mut self, write: &mut Write) -> Option<bool> {
        let ended = self.step_on(write);
        if ended.is_some() {
            self.busy.remove(&write.key);
        }
        ended
    }

    fn step_on(&mut self, write: &mut Write) -> Option<bool> {
        let Write { key, value, route, .. } = *write;
        match write.stage {
            Stage::Leader => {
                if self.store(route.side).write(key, value) {
                    self.failover.succeeded(route.side, route.fence, self.now);
                    write.stage = Stage::Other;
                    return None;
                }
                self.failover.failed(route.side, route.fence, self.now);
                if self.failover.holds(route.fence) {
                    self.forget_on_other(key, route);
                    if write.tries >= TRIES {
                        return Some(false);
                    }
                    write.tries += 1;
                }
                write.route = self.failover.route_write(self.now);
                None
            }
            Stage::Other => {
                let other = route.side.other();
                let other_took = route.other == OtherSide::Copy && self.store(other).write(key, value);
                write.stage = Stage::Settle { other_took };
                None
            }
            Stage::Settle { other_took } => {
                if !self.failover.holds(route.fence) {
                    (write.route, write.stage) = (self.failover.route_write(self.now), Stage::Leader);
                    return None;
                }
                if let Some(work) = &mut self.work {
                    work.kept.insert(key);
                }
                self.missed(route.side).forget(&key);
                if other_took {
                    self.missed(route.side.other()).forget(&key);
                } else {
                    self.owe(key, value.map_or(Missed::Remove, Missed::Write), route);
                }
                Some(true)
            }
        }
    }

    /// The leader may or may not have taken a write: the other side must not keep the older value.
    fn forget_on_other(&mut self, key: u8, route: WriteRoute) {
        let other = route.side.other();
        if route.other == OtherSide::Copy && self.store(other).write(key, None) {
            self.missed(other).forget(&key);
        } else {
            self.owe(key, Missed::Remove, route);
        }
    }

    fn owe(&mut self, key: u8, missed: Missed<u32>, route: WriteRoute) {
        let other = route.side.other();
        if self.missed(other).record(key, missed, 1).is_err() {
            self.failover.journal_overflowed(other, self.now);
        }
        if route.other == OtherSide::Copy {
            self.failover.missed_write(other, route.fence, self.now);
        }
    }

    // What goes on by itself.

    /// Lets time pass, probes both sides and goes on with the resync as far as it goes.
    pub(super) fn live(&mut self, time: Duration) {
        self.now += time;
        self.probe(Side::Main);
        self.probe(Side::Fallback);
        for _ in 0..1_000 {
            if !self.work() {
                return;
            }
        }
    }

    pub(super) fn live_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.live(Duration::from_secs(1));
        }
    }

    /// Fails reads until main is given up.
    pub(super) fn suspect(&mut self) {
        for _ in 0..3 {
            self.read(200);
        }
    }

    pub(super) fn probe(&mut self, side: Side) {
        let (fence, now) = (self.failover.fence(), self.now);
        let store = self.store(side);
        if store.up {
            let life = Life::new(store.incarnation, store.map.len() as u64);
            let life = if store.began_empty { life.began_empty() } else { life };
            self.failover.answered(side, fence, life, now);
        } else {
            self.failover.failed(side, fence, now);
        }
    }

    /// Writes for a resync.
    fn bring(&mut self, to: Side, key: u8, value: Option<u32>) -> bool {
        let old = self.store(to).map.get(&key).copied();
        let taken = self.store(to).write(key, value);
        let new = self.store(to).map.get(&key).copied();
        self.replaced.extend(old.filter(|_| new != old).map(|old| Replaced { key, old, new, at: to }));
        taken
    }

    /// One step of a resync; says whether there was one to be made.
    pub(super) fn work(&mut self) -> bool {
        let now = self.now;
        let Some(mut work) = self.work.take() else {
            let Some(wanted) = self.failover.transfer(now) else { return false };
            let Some(resync) = self.failover.resync_started(wanted, now) else { return false };
            if self.missed(resync.to).overflowed() {
                self.missed(resync.to).restart();
            }
            let mut todo = VecDeque::new();
            if resync.scope != Scope::Missed {
                todo.extend(self.store(resync.to.other()).map.keys());
            }
            self.work = Some(Work { resync, todo, kept: BTreeSet::new(), extra: None });
            return true;
        };
        let to = work.resync.to;
        if !self.failover.resync_holds(work.resync, now) {
            return true;
        }
        let free = |key: &u8| !self.busy.contains(key);
        let entry = self.missed_of(to).first(usize::MAX).into_iter().find(|entry| free(&entry.key));
        let next = |keys: &mut VecDeque<u8>| keys.iter().position(free).and_then(|at| keys.remove(at));
        let done = if let Some(key) = next(&mut work.todo) {
            let from = self.store(to.other());
            let (reachable, value) = (from.up, from.map.get(&key).copied());
            // What the source does not hold any more may be lost and not removed: that is seen later.
            work.kept.extend(value.map(|_| key));
            reachable && (value.is_none() || self.bring(to, key, value))
        } else if !work.todo.is_empty() {
            true
        } else if work.extra.is_none() {
            if !self.failover.resync_copied(work.resync, now) {
                self.work = Some(work);
                return false;
            }
            let held = self.store(to).map.keys().copied();
            work.extra = Some(match work.resync.scope {
                Scope::Everything => held.filter(|key| !work.kept.contains(key)).collect(),
                Scope::Missed | Scope::Lacking => VecDeque::new(),
            });
            true
        } else if let Some(key) = work.extra.as_mut().and_then(next) {
            work.kept.contains(&key) || self.bring(to, key, None)
        } else if let Some(entry) = entry {
            let value = match entry.missed {
                Missed::Write(value) => Some(value),
                Missed::Remove => None,
            };
            let taken = self.bring(to, entry.key, value);
            if taken {
                self.missed(to).applied(entry.mark);
            }
            taken
        } else if work.extra.as_ref().is_some_and(VecDeque::is_empty) && self.missed(to).is_empty() {
            assert!(self.failover.resync_finished(work.resync, now));
            return true;
        } else {
            true
        };
        if done {
            self.work = Some(work);
        } else {
            self.failover.resync_failed(work.resync, now);
        }
        true
    }
}
