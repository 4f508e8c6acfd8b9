//! Random events against the machine's invariants, and against what a reader of two maps must never see.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::pair::{Found, Pair, Write};
use crate::failover::{Failover, FailoverState, Fence, Life, OtherSide, Resync, Scope, Side, Transfer};

const DWELL: Duration = Duration::from_secs(10);

fn failover(filled: bool) -> Failover {
    let probation = Duration::from_secs(5);
    let builder = Failover::builder().down_after(3).up_after(2).dwell(DWELL).probation(probation);
    builder.fallback_filled(filled).build().unwrap()
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Pass(u64),
    Succeed(Side),
    Fail(Side),
    /// Reports with the fence of some events ago.
    Late(u8),
    Answer(Side),
    Restart(Side, u64),
    /// The fallback answers that an earlier process had failed over.
    Epoch,
    MissWrite(Side),
    Overflow(Side),
    Start,
    Finish,
    Break,
    FailOver,
    FailBack,
    Hold(bool),
    Route,
}

fn side() -> impl Strategy<Value = Side> {
    // Main is where the interesting things happen.
    prop_oneof![3 => Just(Side::Main), 1 => Just(Side::Fallback)]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0u64..8_000).prop_map(Event::Pass),
        5 => side().prop_map(Event::Succeed),
        4 => side().prop_map(Event::Fail),
        2 => any::<u8>().prop_map(Event::Late),
        6 => side().prop_map(Event::Answer),
        1 => (side(), 0u64..2).prop_map(|(side, entries)| Event::Restart(side, entries)),
        1 => Just(Event::Epoch),
        1 => side().prop_map(Event::MissWrite),
        1 => side().prop_map(Event::Overflow),
        5 => Just(Event::Start),
        5 => Just(Event::Finish),
        1 => Just(Event::Break),
        1 => Just(Event::FailOver),
        1 => Just(Event::FailBack),
        1 => any::<bool>().prop_map(Event::Hold),
        3 => Just(Event::Route),
    ]
}

/// A machine, and what was seen of it.
struct Watched {
    failover: Failover,
    now: Instant,
    fences: Vec<Fence>,
    lives: [Life; 2],
    wanted: Option<Transfer>,
    resync: Option<Resync>,
    held: bool,
    /// Whether a resync of main was finished since the fallback began to lead, and not broken off since.
    resynced: bool,
    left_main: Option<Instant>,
    waived: bool,
}

impl Watched {
    fn new(filled: bool) -> Self {
        Self {
            failover: failover(filled),
            now: Instant::now(),
            fences: Vec::new(),
            lives: [Life::new(1, 10); 2],
            wanted: None,
            resync: None,
            held: false,
            resynced: false,
            left_main: None,
            waived: false,
        }
    }

    fn life(&mut self, side: Side) -> &mut Life {
        &mut self.lives[usize::from(side == Side::Fallback)]
    }

    fn apply(&mut self, event: Event) -> Result<(), TestCaseError> {
        let fence = self.failover.fence();
        self.fences.push(fence);
        let now = self.now;
        match event {
            Event::Pass(millis) => self.now += Duration::from_millis(millis),
            Event::Succeed(side) => self.failover.succeeded(side, fence, now),
            Event::Fail(side) => self.failover.failed(side, fence, now),
            Event::Late(ago) => self.late(ago)?,
            Event::Answer(side) => {
                let life = *self.life(side);
                self.failover.answered(side, fence, life, now);
            }
            Event::Restart(side, entries) => {
                let life = self.life(side);
                *life = Life::new(life.incarnation + 1, entries);
            }
            Event::Epoch if self.failover.leader() == Side::Fallback => {}
            Event::Epoch => {
                let life = self.life(Side::Fallback).epoch(fence.epoch() + 1);
                self.failover.answered(Side::Fallback, fence, life, now);
            }
            Event::MissWrite(side) => self.failover.missed_write(side, fence, now),
            Event::Overflow(side) => self.failover.journal_overflowed(side, now),
            Event::Start => {
                self.wanted = self.failover.transfer(now).or(self.wanted);
                if let Some(wanted) = self.wanted {
                    let started = self.failover.resync_started(wanted, now);
                    if started.is_some() {
                        self.check_source(wanted)?;
                        self.resync = started;
                    }
                }
            }
            Event::Finish => {
                if let Some(resync) = self.resync {
                    let _ = self.failover.resync_copied(resync, now);
                    let counted = self.failover.resync_finished(resync, now);
                    self.resynced |= counted && resync.to == Side::Main;
                }
            }
            Event::Break => {
                if let Some(resync) = self.resync {
                    self.failover.resync_failed(resync, now);
                }
            }
            Event::FailOver => {
                let answer = self.failover.fail_over("a test", now);
                prop_assert!(!self.held || answer.is_err());
            }
            Event::FailBack => self.waived |= self.failover.fail_back(now).is_ok(),
            Event::Hold(held) => {
                self.held = held;
                self.failover.hold(held, now);
            }
            Event::Route => self.check_routes()?,
        }
        Ok(())
    }

    /// What an old fence reports changes nothing but its counter.
    fn late(&mut self, ago: u8) -> Result<(), TestCaseError> {
        let fence = self.fences[self.fences.len().saturating_sub(1 + usize::from(ago))];
        let before = self.failover.status(self.now);
        if !self.failover.holds(fence) {
            let now = self.now;
            self.failover.failed(Side::Main, fence, now);
            self.failover.succeeded(Side::Main, fence, now);
            self.failover.missed_write(Side::Main, fence, now);
            self.failover.answered(Side::Main, fence, Life::new(999, 0), now);
            let mut after = self.failover.status(now);
            prop_assert_eq!(after.late, before.late + 4);
            after.late = before.late;
            prop_assert_eq!(after, before);
        }
        Ok(())
    }

    /// Nothing is removed for a side that is empty, may lack something or may be old, from one that is not empty.
    fn check_source(&mut self, wanted: Transfer) -> Result<(), TestCaseError> {
        let (main, fallback) = (&self.failover.machine.main, &self.failover.machine.fallback);
        let (from, to) = if wanted.to == Side::Main { (fallback, main) } else { (main, fallback) };
        if wanted.scope != Scope::Missed {
            prop_assert!(!from.stale);
        }
        if wanted.scope == Scope::Everything {
            let (from_life, to_life) = (from.life.unwrap(), to.life.unwrap());
            prop_assert!(to_life.entries == 0 || (from_life.entries > 0 && !from.lacks));
        }
        Ok(())
    }

    fn check_routes(&mut self) -> Result<(), TestCaseError> {
        let (read, write) = (self.failover.route_read(self.now), self.failover.route_write(self.now));
        prop_assert_eq!(write.side, self.failover.leader());
        prop_assert!(self.failover.holds(read.fence) && self.failover.holds(write.fence));
        let on_probation = self.failover.state() == FailoverState::Probation;
        prop_assert!(read.side == self.failover.leader() || on_probation);
        let main_takes_writes = self.failover.leader() == Side::Main || on_probation;
        prop_assert_eq!(write.other == OtherSide::Copy, main_takes_writes);
        Ok(())
    }

    /// What must hold between any two events.
    fn step(&mut self, event: Event) -> Result<(), TestCaseError> {
        let (epoch, leader, held) = (self.failover.epoch(), self.failover.leader(), self.held);
        let before = self.failover.state();
        self.waived |= self.failover.machine.dwell_waived();
        self.apply(event)?;
        self.failover.status(self.now);
        let after = self.failover.leader();
        prop_assert!(self.failover.epoch() >= epoch, "epochs only grow");
        prop_assert_eq!(self.failover.epoch() > epoch, after != leader, "and with each change of the leader");
        prop_assert!(after == leader || !(held && self.held), "a hold holds");
        match (leader, after) {
            (Side::Main, Side::Fallback) => {
                (self.left_main, self.resynced, self.waived) = (Some(self.now), false, false);
            }
            (Side::Fallback, Side::Main) => {
                prop_assert!(self.resynced, "never back on main without a resync");
                prop_assert_eq!(before, FailoverState::Probation);
                let stayed = self.now - self.left_main.unwrap();
                prop_assert!(self.waived || stayed >= DWELL, "back after {stayed:?}");
            }
            _ => {}
        }
        if matches!(self.failover.state(), FailoverState::OnFallback | FailoverState::Resyncing) {
            self.resynced = false;
        }
        prop_assert_eq!(
            self.failover.state() == FailoverState::Probation,
            self.resynced && after == Side::Fallback
        );
        Ok(())
    }
}

/// With main healthy and the caller doing as it is asked, it goes back, whatever was before. Someone empties main if
/// nothing is worth copying, as the status asks for. The fallback may be dead for good.
fn goes_back(watched: &mut Watched, dead: bool) -> Result<(), TestCaseError> {
    watched.failover.hold(false, watched.now);
    for _ in 0..5_000 {
        if watched.failover.state() == FailoverState::OnMain {
            return Ok(());
        }
        watched.now += Duration::from_secs(1);
        let (now, fence) = (watched.now, watched.failover.fence());
        for side in [Side::Fallback, Side::Main] {
            let life = *watched.life(side);
            if dead && side == Side::Fallback {
                watched.failover.failed(side, fence, now);
            } else {
                watched.failover.answered(side, fence, life, now);
            }
        }
        let status = watched.failover.status(now);
        if status.waiting.iter().any(|waiting| matches!(waiting, crate::Waiting::Source(_))) {
            watched.life(Side::Main).entries = 0;
        }
        if let Some(resync) =
            watched.failover.transfer(now).and_then(|wanted| watched.failover.resync_started(wanted, now))
        {
            watched.resync = Some(resync);
        }
        if let Some(resync) = watched.resync
            && watched.failover.resync_copied(resync, now)
        {
            prop_assert!(watched.failover.resync_finished(resync, now));
            watched.resync = None;
        }
    }
    let status = watched.failover.status(watched.now);
    Err(TestCaseError::fail(format!("it never went back: {status}")))
}

/// What may happen to two maps and to the writes between them.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Begin(u8, Option<u32>),
    Step(u8),
    Read(u8),
    Pass(u64),
    Probe(Side),
    Work,
    Up(Side, bool),
    LoseAnswers(Side, bool),
    Restart(Side, Restart),
}

#[derive(Debug, Clone, Copy)]
enum Restart {
    Empty,
    EmptyAndSaid,
    Full,
}

fn restart() -> impl Strategy<Value = Restart> {
    prop_oneof![Just(Restart::Empty), Just(Restart::EmptyAndSaid), Just(Restart::Full)]
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        6 => (0u8..30, any::<Option<u32>>()).prop_map(|(key, value)| Turn::Begin(key, value)),
        14 => (0u8..3).prop_map(Turn::Step),
        12 => (0u8..30).prop_map(Turn::Read),
        6 => (0u64..6_000).prop_map(Turn::Pass),
        8 => side().prop_map(Turn::Probe),
        16 => Just(Turn::Work),
        2 => (side(), prop::bool::weighted(0.6)).prop_map(|(side, up)| Turn::Up(side, up)),
        1 => (side(), any::<bool>()).prop_map(|(side, lost)| Turn::LoseAnswers(side, lost)),
        1 => (side(), restart()).prop_map(|(side, how)| Turn::Restart(side, how)),
    ]
}

/// What a reader may be told of one key besides a miss.
type Allowed = Vec<Option<u32>>;

struct Readers {
    pair: Pair,
    under_way: Vec<Write>,
    allowed: Vec<Allowed>,
    hits: u32,
}

impl Readers {
    fn apply(&mut self, turn: Turn) -> Result<(), TestCaseError> {
        let store = |pair: &mut Pair, side, change: &dyn Fn(&mut super::pair::Store)| match side {
            Side::Main => change(&mut pair.main),
            Side::Fallback => change(&mut pair.fallback),
        };
        match turn {
            // Writes of one key are the caller's to order.
            Turn::Begin(key, value) => {
                if self.under_way.len() < 3 && !self.pair.busy.contains(&key) {
                    self.under_way.push(self.pair.begin(key, value));
                    self.allowed[usize::from(key)].push(value);
                }
            }
            Turn::Step(at) => {
                let at = usize::from(at);
                if at < self.under_way.len()
                    && let Some(succeeded) = self.pair.step(&mut self.under_way[at])
                {
                    let write = self.under_way.swap_remove(at);
                    if succeeded {
                        // From now on nobody may read what was before.
                        self.allowed[usize::from(write.key)] = vec![write.value];
                    }
                }
            }
            Turn::Read(key) => self.read(key)?,
            Turn::Pass(millis) => self.pair.now += Duration::from_millis(millis),
            Turn::Probe(side) => self.pair.probe(side),
            Turn::Work => drop(self.pair.work()),
            Turn::Up(side, up) => store(&mut self.pair, side, &|store| store.up = up),
            Turn::LoseAnswers(side, lost) => store(&mut self.pair, side, &|store| store.answers_lost = lost),
            Turn::Restart(side, how) => store(&mut self.pair, side, &|store| match how {
                Restart::Empty => store.restart(),
                Restart::EmptyAndSaid => store.restart_and_say_so(),
                Restart::Full => store.restart_full(),
            }),
        }
        self.check_replaced()
    }

    /// No resync removes or replaces a value that is the right one, whatever the machine believes.
    fn check_replaced(&mut self) -> Result<(), TestCaseError> {
        for replaced in self.pair.replaced.drain(..) {
            let allowed = &self.allowed[usize::from(replaced.key)];
            if allowed[..] == [Some(replaced.old)] {
                let status = self.pair.failover.status(self.pair.now);
                let super::pair::Replaced { key, old, new, at } = replaced;
                let problem = format!("key {key} at {at}: {old}, the last written, became {new:?}; {status}");
                return Err(TestCaseError::fail(problem));
            }
        }
        Ok(())
    }

    fn read(&mut self, key: u8) -> Result<(), TestCaseError> {
        if let Found::Value(value) = self.pair.read(key) {
            self.hits += 1;
            let allowed = &self.allowed[usize::from(key)];
            if !allowed.contains(&Some(value)) {
                let status = self.pair.status();
                return Err(TestCaseError::fail(format!("key {key}: {value}, not of {allowed:?}; {status}")));
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn the_invariants_hold_under_any_events(
        events in prop::collection::vec(event(), 1..250), filled: bool, dead: bool,
    ) {
        let mut watched = Watched::new(filled);
        for event in events {
            watched.step(event)?;
        }
        goes_back(&mut watched, dead)?;
    }

    #[test]
    fn no_reader_ever_sees_an_old_value(turns in prop::collection::vec(turn(), 1..600), filled: bool) {
        let builder = Failover::builder()
            .down_after(2)
            .up_after(2)
            .dwell(Duration::from_secs(5))
            .dwell_max(Duration::from_secs(20))
            .probation(Duration::from_secs(5))
            .fallback_filled(filled);
        let mut readers =
            Readers { pair: Pair::new(builder), under_way: Vec::new(), allowed: vec![vec![None]; 30], hits: 0 };
        // As is owed: each side is heard of before the first write.
        readers.pair.probe(Side::Main);
        readers.pair.probe(Side::Fallback);
        for turn in turns {
            readers.apply(turn)?;
        }
        // Faults end; what is under way ends; it goes back by itself, and each key is what was written last.
        for store in [&mut readers.pair.main, &mut readers.pair.fallback] {
            (store.up, store.answers_lost) = (true, false);
        }
        for at in (0..3).rev() {
            for _ in 0..60 {
                readers.apply(Turn::Step(at))?;
            }
        }
        prop_assert!(readers.under_way.is_empty());
        for _ in 0..400 {
            if readers.pair.status().contains("or an empty target") {
                readers.pair.main.map.clear();
            }
            readers.pair.live(Duration::from_secs(1));
            readers.check_replaced()?;
            readers.read(7)?;
        }
        prop_assert_eq!(readers.pair.failover.state(), FailoverState::OnMain, "{}", readers.pair.status());
        for key in 0..30 {
            readers.read(key)?;
        }
    }
}
