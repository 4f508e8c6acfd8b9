//! What a mirrored client knows, and decides: all that lies under its one lock.
//!
//! Pure: it takes the time as an argument and asks nobody. [`Failover`] decides which of the two sides leads; what is added here is
//! what each place has missed, which of them may be read for what the leader lacks, and how the further backups, which never lead,
//! are brought up to date by the same rules.
//!
//! Invariants: a place that is *stale* is read by nobody until all was copied to it, or it was seen to begin empty; a key in a place's
//! journal is never read there; an entry leaves a journal only when the place took it or something newer.

mod resyncs;

use std::{collections::HashSet, time::Instant};

use bytes::Bytes;
use geo::RegionId;
use resilience::{
    Failover, FailoverState, Fence, Journal, Life, Missed, OtherSide, Resync, Scope, Side, WriteRoute,
};
use tokio::sync::broadcast;

use super::{
    event::MirrorEvent,
    parcel::{Parcel, weight_of_key},
    record::Record,
};

pub(super) const MAIN: usize = 0;
pub(super) const FALLBACK: usize = 1;

/// How many copied keys are remembered; those beyond are compared once more.
const KEPT_MAX: usize = 1 << 20;

/// What a place is owed of a key.
pub(super) type Owed = Missed<Parcel>;

pub(super) const fn index(side: Side) -> usize {
    match side {
        Side::Main => MAIN,
        Side::Fallback => FALLBACK,
    }
}

pub(super) const fn side(place: usize) -> Option<Side> {
    match place {
        MAIN => Some(Side::Main),
        FALLBACK => Some(Side::Fallback),
        _ => None,
    }
}

/// What is known of one place.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) region: RegionId,
    pub(super) journal: Journal<Bytes, Parcel>,
    pub(super) life: Option<Life>,
    /// Whether its last probe was answered; `None` before the first.
    pub(super) up: Option<bool>,
    pub(super) answers: u64,
    /// Whether it may hold old values of keys that nobody can name.
    pub(super) stale: bool,
    /// Whether it may lack what others hold.
    pub(super) lacking: bool,
    /// Makes its compare-and-set numbers unlike those of others, and of its other lives.
    pub(super) mask: u64,
    /// Keys that it keeps while all is copied to it: they were copied, or written since.
    kept: Option<HashSet<u64>>,
    /// The number of the resync of a backup.
    job: Option<u64>,
    failures: u32,
    retry_at: Option<Instant>,
}

/// Something that brings a place up to date.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    pub(super) to: usize,
    /// Where all is copied from, unless the scope is what was missed.
    pub(super) from: usize,
    pub(super) scope: Scope,
    ticket: Ticket,
    /// Whether what it holds is forgotten with the journal, for it was emptied.
    bare: bool,
    source_life: Option<Life>,
}

#[derive(Debug, Clone, Copy)]
enum Ticket {
    Side(Resync),
    Backup(u64),
}

/// What the leader lacks is brought to it.
#[derive(Debug, Clone)]
pub(super) struct Fill {
    pub(super) leader: usize,
    pub(super) sources: Vec<usize>,
    /// Whether one of them lacks nothing itself.
    whole: bool,
    life: Option<u64>,
}

/// What is known of a key before anybody is asked for it.
#[derive(Debug)]
pub(super) enum Known {
    /// Ask.
    Nothing,
    /// The place has missed this, so it is not asked.
    Missed(Owed),
    /// The place may have missed it, and nobody knows what.
    Unknown,
}

/// Whom to read from.
#[derive(Debug)]
pub(super) enum ReadFrom {
    /// Nobody: it is a miss there.
    Nobody(usize),
    /// This side.
    Side { place: usize, fence: Fence, leads: bool },
    /// Both sides were asked.
    Backups,
}

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counters {
    pub(super) writes: u64,
    pub(super) rewritten: u64,
    pub(super) copies_taken: u64,
    pub(super) copies_missed: u64,
    pub(super) copies_refused: u64,
    pub(super) read_through: u64,
    pub(super) filled: u64,
}

#[derive(Debug)]
pub(super) struct Books {
    pub(super) failover: Failover,
    pub(super) standings: Vec<Standing>,
    pub(super) record: Record,
    pub(super) counters: Counters,
    pub(super) closed: bool,
    filling: bool,
    fill_retry_at: Option<Instant>,
    jobs: u64,
    /// The newest resync of a side.
    side_job: Option<Resync>,
    told: (FailoverState, u64),
    events: broadcast::Sender<MirrorEvent>,
}

/// How a place is begun with.
pub(super) struct Opening {
    pub(super) region: RegionId,
    pub(super) journal: Journal<Bytes, Parcel>,
    pub(super) stale: bool,
}

impl Books {
    pub(super) fn new(
        failover: Failover,
        places: Vec<Opening>,
        record: Record,
        events: broadcast::Sender<MirrorEvent>,
    ) -> Self {
        let standings = places.into_iter().map(|opening| Standing {
            region: opening.region,
            journal: opening.journal,
            life: None,
            up: None,
            answers: 0,
            stale: opening.stale,
            lacking: false,
            mask: fastrand::u64(..),
            kept: None,
            job: None,
            failures: 0,
            retry_at: None,
        });
        Self {
            told: (failover.state(), failover.epoch()),
            standings: standings.collect(),
            failover,
            record,
            counters: Counters::default(),
            closed: false,
            filling: false,
            fill_retry_at: None,
            jobs: 0,
            side_job: None,
            events,
        }
    }

    pub(super) fn leader(&self) -> usize {
        index(self.failover.leader())
    }

    pub(super) fn others(&self, place: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.standings.len()).filter(move |other| *other != place)
    }

    pub(super) fn tell(&self, event: MirrorEvent) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    fn region(&self, place: usize) -> RegionId {
        self.standings[place].region.clone()
    }

    /// Tells what has changed of the lead; to be called at the end of whatever may have changed it.
    pub(super) fn observe(&mut self, now: Instant) {
        let (state, epoch) = (self.failover.state(), self.failover.epoch());
        let (was, before) = std::mem::replace(&mut self.told, (state, epoch));
        let leads = |state| matches!(state, FailoverState::OnMain | FailoverState::Suspect);
        if was == state && before == epoch {
            return;
        }
        let why = self.failover.status(now).why;
        let away = matches!(was, FailoverState::Resyncing | FailoverState::Probation);
        match (leads(was), leads(state)) {
            (true, false) => {
                self.tell(MirrorEvent::FailedOver { to: self.region(FALLBACK), epoch, why });
            }
            (false, true) => self.tell(MirrorEvent::FailedBack { to: self.region(MAIN), epoch }),
            (false, false) if state == FailoverState::Probation && was != state => {
                self.tell(MirrorEvent::Probation);
            }
            (false, false) if state == FailoverState::OnFallback && away => {
                self.tell(MirrorEvent::BrokenOff { why });
            }
            _ => {}
        }
    }

    // What probes show.

    /// A place has answered a probe; `fence` is of before it was sent.
    pub(super) fn answered(&mut self, place: usize, fence: Fence, life: Life, now: Instant) {
        let standing = &mut self.standings[place];
        let was_up = standing.up.replace(true);
        let earlier = standing.life.replace(life);
        standing.answers += 1;
        let restarted = earlier.is_some_and(|earlier| earlier.incarnation != life.incarnation);
        let empty = life.entries == 0 || life.began_empty;
        if restarted {
            standing.mask = fastrand::u64(..);
            (standing.job, standing.kept) = (None, None);
        }
        if (restarted && empty) || (earlier.is_none() && life.entries == 0) {
            // Of a journal that overflowed nobody knows what was written since it began anew.
            standing.stale = standing.journal.overflowed();
            standing.lacking = true;
        } else if restarted {
            standing.stale = true;
        }
        let region = standing.region.clone();
        if restarted {
            self.tell(MirrorEvent::Restarted { region: region.clone() });
        }
        if was_up == Some(false) {
            self.tell(MirrorEvent::Up { region });
        }
        let Some(side) = side(place) else { return };
        let led = self.leader();
        self.failover.answered(side, fence, life, now);
        let learnt = life.epoch.is_some_and(|epoch| epoch == self.failover.epoch());
        if led == MAIN && self.leader() == FALLBACK && place == FALLBACK && learnt {
            // An earlier process had failed over: what main missed was in its journal.
            self.standings[MAIN].stale = true;
            self.standings[FALLBACK].stale = false;
        }
        if self.leader() == MAIN && !self.standings[MAIN].lacking && !self.failover.lacks(Side::Fallback) {
            // Where both have begun with nothing, no copy from the one to the other is asked for.
            self.standings[FALLBACK].lacking = false;
        }
    }

    /// A place did not answer a probe.
    pub(super) fn silent(&mut self, place: usize, fence: Fence, reason: String, now: Instant) {
        let standing = &mut self.standings[place];
        let was_up = standing.up.replace(false);
        let region = standing.region.clone();
        if was_up != Some(false) {
            self.tell(MirrorEvent::Down { region, reason });
        }
        if let Some(side) = side(place) {
            self.failover.failed(side, fence, now);
        }
    }

    // Reads.

    /// Whom to read from, of the sides that were not asked yet.
    pub(super) fn read_from(&mut self, asked: &[bool; 2], now: Instant) -> ReadFrom {
        let route = self.failover.route_read(now);
        if route.miss {
            return ReadFrom::Nobody(index(route.side));
        }
        let mut sides = [Some(route.side), route.or_else].into_iter().flatten().map(index);
        match sides.find(|place| !asked[*place]) {
            Some(place) => ReadFrom::Side { place, fence: route.fence, leads: place == index(route.side) },
            None => ReadFrom::Backups,
        }
    }

    /// Whether reads of the leader are misses, for what it holds may be old.
    pub(super) fn leader_is_stale(&mut self, now: Instant) -> bool {
        // On probation the route may be main's, which is no answer to this; then the fallback's own word is as good.
        match self.failover.state() {
            FailoverState::Probation => self.standings[FALLBACK].stale,
            _ => self.failover.route_read(now).miss,
        }
    }

    pub(super) fn known(&self, place: usize, key: &Bytes) -> Known {
        let journal = &self.standings[place].journal;
        match journal.entry(key) {
            Some(entry) => Known::Missed(entry.missed),
            None if journal.overflowed() => Known::Unknown,
            None => Known::Nothing,
        }
    }

    /// Who may be read for what the leader lacks, the freshest first.
    pub(super) fn sources(&self, leader: usize) -> Vec<usize> {
        let mut sources: Vec<_> = self
            .others(leader)
            .filter(|place| {
                let standing = &self.standings[*place];
                standing.up == Some(true) && !standing.stale && !standing.journal.overflowed()
            })
            .collect();
        sources.sort_by_key(|place| {
            let standing = &self.standings[*place];
            (standing.lacking, standing.journal.len())
        });
        sources
    }

    // Writes.

    /// A change was made by `route`, and those of `taken` took it: says whether it may be answered, and if so, notes who is
    /// owed it.
    pub(super) fn settle(
        &mut self,
        key: (&Bytes, u64),
        owed: &Owed,
        route: &WriteRoute,
        taken: &[bool],
        now: Instant,
    ) -> bool {
        if !self.failover.holds(route.fence) {
            self.counters.rewritten += 1;
            return false;
        }
        self.standings[index(route.side)].journal.forget(key.0);
        self.owe_others(key, owed, route, taken, now);
        match owed {
            Missed::Write(_) => self.record.wrote(key.0),
            Missed::Remove => self.record.forget(key.0),
        }
        true
    }

    /// The leader may or may not have taken a change: no other place may keep the older value.
    pub(super) fn settle_doubt(
        &mut self,
        key: (&Bytes, u64),
        route: &WriteRoute,
        taken: &[bool],
        now: Instant,
    ) -> bool {
        let holds = self.failover.holds(route.fence);
        if holds {
            self.owe_others(key, &Missed::Remove, route, taken, now);
        }
        holds
    }

    fn owe_others(
        &mut self,
        (key, hash): (&Bytes, u64),
        owed: &Owed,
        route: &WriteRoute,
        taken: &[bool],
        now: Instant,
    ) {
        let leader = index(route.side);
        for place in self.others(leader) {
            let standing = &mut self.standings[place];
            if let Some(kept) = &mut standing.kept
                && kept.len() < KEPT_MAX
            {
                kept.insert(hash);
            }
            if taken[place] {
                standing.journal.forget(key);
                self.counters.copies_taken += 1;
                continue;
            }
            self.counters.copies_missed += 1;
            self.owe(place, key, owed.clone(), now);
            if place == index(route.side.other()) && route.other == OtherSide::Copy {
                self.failover.missed_write(route.side.other(), route.fence, now);
            }
        }
    }

    fn owe(&mut self, place: usize, key: &Bytes, owed: Owed, now: Instant) {
        let bytes = match &owed {
            Missed::Write(parcel) => parcel.weight(key),
            Missed::Remove => weight_of_key(key),
        };
        if self.standings[place].journal.record(key.clone(), owed, bytes).is_err() {
            self.overflowed(place, now);
        }
    }

    /// A clear was made at the leader.
    pub(super) fn settle_clear(&mut self, route: &WriteRoute, taken: &[bool], now: Instant) -> bool {
        if !self.failover.holds(route.fence) {
            self.counters.rewritten += 1;
            return false;
        }
        let leader = index(route.side);
        self.standings[leader].journal.restart();
        for place in self.others(leader) {
            if taken[place] {
                self.standings[place].journal.restart();
            } else {
                self.standings[place].journal.overflow();
                self.overflowed(place, now);
                if place == index(route.side.other()) && route.other == OtherSide::Copy {
                    self.failover.missed_write(route.side.other(), route.fence, now);
                }
            }
        }
        self.record.clear();
        true
    }

    fn overflowed(&mut self, place: usize, now: Instant) {
        let standing = &mut self.standings[place];
        // One that is told already has to be told again only when its journal was restarted since.
        if !std::mem::replace(&mut standing.stale, true) || standing.kept.is_some() || standing.job.is_some()
        {
            let region = standing.region.clone();
            (standing.job, standing.kept) = (None, None);
            self.tell(MirrorEvent::JournalOverflowed { region });
        }
        if let Some(side) = side(place) {
            self.failover.journal_overflowed(side, now);
        }
    }
}
