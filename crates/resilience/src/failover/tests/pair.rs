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
}

impl Store {
    fn new() -> Self {
        Self { up: true, answers_lost: false, map: BTreeMap::new(), incarnation: 1 }
    }

    pub(super) fn restart(&mut self) {
        self.map.clear();
        self.incarnation += 1;
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
            self.failover.answered(side, fence, life, now);
        } else {
            self.failover.failed(side, fence, now);
        }
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
            if resync.scope == Scope::Everything {
                todo.extend(self.main.map.keys().chain(self.fallback.map.keys()));
            }
            self.work = Some(Work { resync, todo });
            return true;
        };
        let to = work.resync.to;
        if !self.failover.resync_holds(work.resync, now) {
            return true;
        }
        let free = |key: &u8| !self.busy.contains(key);
        let entry = self.missed_of(to).first(usize::MAX).into_iter().find(|entry| free(&entry.key));
        let done = if let Some(at) = work.todo.iter().position(free) {
            let key = work.todo.remove(at).unwrap();
            let from = self.store(to.other());
            let (reachable, value) = (from.up, from.map.get(&key).copied());
            reachable && self.store(to).write(key, value)
        } else if let Some(entry) = entry {
            let value = match entry.missed {
                Missed::Write(value) => Some(value),
                Missed::Remove => None,
            };
            let taken = self.store(to).write(entry.key, value);
            if taken {
                self.missed(to).applied(entry.mark);
            }
            taken
        } else if work.todo.is_empty() && self.missed(to).is_empty() {
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
