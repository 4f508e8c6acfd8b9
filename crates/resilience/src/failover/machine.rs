//! The decisions of a failover: what is known of the two sides, and the moves between the states.
//!
//! Invariants: the epoch grows with each change of the leader and never falls; main leads again only out of a
//! probation, and a probation begins only with a finished resync; while it is held, the leader does not change; a
//! side is not copied over one that is not empty if it is empty itself, or began its life later than the other's
//! content did.

mod telling;

use std::time::{Duration, Instant};

use super::{
    Distrust, Failover, FailoverState, Fence, Life, Resync, Scope, Side, Transfer, Why, config::Settings,
};
use crate::{backoff::grown, setting::DURATION_MAX};

/// Steps of growth are bounded; by then any factor that grows at all has long met its cap in practice.
const LEVEL_MAX: u32 = 64;
/// An answer with a later epoch is senseless: nothing fails over so often.
const EPOCH_MAX: u64 = u64::MAX / 2;

/// What is known of one side's content.
#[derive(Debug, Clone, Default)]
pub(super) struct Holding {
    pub(super) life: Option<Life>,
    /// The number of the event that its content begins with: the lower, the older. A full copy takes over the
    /// source's.
    pub(super) age: u64,
    /// Whether it may hold values that are out of date, of keys that nobody can name.
    pub(super) stale: bool,
    /// Whether its journal names keys that it missed writes of.
    pub(super) behind: bool,
}

impl Holding {
    fn known_empty(&self) -> bool {
        self.life.is_some_and(|life| life.entries == 0)
    }

    /// Takes in that it began anew. What it holds in spite of that may have been kept from before, and nobody knows
    /// what it missed; if it is empty, nothing in it is out of date, and a journal that overflowed is to be settled. What
    /// it was known to have missed it still has: it may hold what was written between the restart and this answer.
    fn emptied_or_not(&mut self, life: Life) {
        let empty = life.entries == 0;
        self.behind |= empty && self.stale;
        self.stale = !empty;
    }
}

#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// Suspect, if there are failures.
    OnMain {
        failures: u32,
        successes: u32,
    },
    OnFallback,
    Resyncing {
        failures: u32,
    },
    /// `credit` is the part of a read that main is owed.
    Probation {
        begun: Instant,
        failures: u32,
        successes: u32,
        credit: f64,
    },
}

/// The stay on the fallback, through all its phases.
#[derive(Debug, Clone)]
pub(super) struct Away {
    dwell_end: Instant,
    /// Successes of main in a row.
    pub(super) successes: u32,
    pub(super) asked_back: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    pub(super) resync: Resync,
    begun: Instant,
    until: Instant,
}

/// Failed resyncs in a row, and when to try again.
#[derive(Debug, Clone, Default)]
struct Pause {
    failures: u32,
    until: Option<Instant>,
}

#[derive(Debug, Clone, Default)]
struct Counters {
    failovers: u64,
    failbacks: u64,
    broken_off: u64,
    resyncs: u64,
    resyncs_failed: u64,
    restarts: u64,
    late: u64,
}

/// The state; `Failover` is the face of it.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) settings: Settings,
    pub(super) phase: Phase,
    pub(super) epoch: u64,
    step: u64,
    pub(super) held: bool,
    pub(super) main: Holding,
    pub(super) fallback: Holding,
    /// Failures of the fallback in a row; nothing is decided by them.
    pub(super) fallback_failures: u32,
    /// The newest age that was given.
    ages: u64,
    /// How many steps the next dwell has grown.
    level: u32,
    /// The first and the newest success of main since it leads: the proven good time that growth decays by.
    good: Option<(Instant, Instant)>,
    /// `Some` while the fallback leads.
    pub(super) away: Option<Away>,
    pub(super) running: Option<Running>,
    pause: Pause,
    resync_number: u64,
    why: Option<Why>,
    entered: Option<Instant>,
    counters: Counters,
}

impl Machine {
    pub(super) fn new(settings: Settings) -> Self {
        let unfilled = !settings.fallback_filled;
        Self {
            phase: Phase::OnMain { failures: 0, successes: 0 },
            epoch: settings.epoch,
            step: 0,
            held: false,
            main: Holding::default(),
            fallback: Holding { age: unfilled.into(), stale: unfilled, ..Holding::default() },
            fallback_failures: 0,
            ages: unfilled.into(),
            level: 0,
            good: None,
            away: None,
            running: None,
            pause: Pause::default(),
            resync_number: 0,
            why: None,
            entered: None,
            counters: Counters::default(),
            settings,
        }
    }

    pub(super) fn state(&self) -> FailoverState {
        match self.phase {
            Phase::OnMain { failures: 0, .. } => FailoverState::OnMain,
            Phase::OnMain { .. } => FailoverState::Suspect,
            Phase::OnFallback => FailoverState::OnFallback,
            Phase::Resyncing { .. } => FailoverState::Resyncing,
            Phase::Probation { .. } => FailoverState::Probation,
        }
    }

    pub(super) fn fence(&self) -> Fence {
        Fence { epoch: self.epoch, step: self.step }
    }

    pub(super) fn main_leads(&self) -> bool {
        matches!(self.phase, Phase::OnMain { .. })
    }

    /// Whether a report belongs to this moment; counts it if not.
    pub(super) fn timely(&mut self, fence: Fence) -> bool {
        let timely = fence == self.fence();
        self.counters.late += u64::from(!timely);
        timely
    }

    /// Does what time alone decides.
    pub(super) fn advance(&mut self, now: Instant) {
        self.entered.get_or_insert(now);
        if let Some(running) = self.running.filter(|running| running.until <= now) {
            self.resync_failed(running.resync, now);
        }
        match self.phase {
            Phase::OnMain { failures, .. } => {
                if self.main_lost() && self.fallback.known_empty() {
                    // Nothing is left to be rescued: what main holds now is all there is.
                    self.fallback.age = self.next_age();
                }
                if self.held || self.fallback.stale {
                    return;
                }
                if self.main_lost() {
                    self.leave_main(Why::MainRestarted, now);
                } else if failures >= self.settings.down_after {
                    self.leave_main(Why::Failures(failures), now);
                }
            }
            Phase::Probation { begun, successes, .. } => {
                let passed = now.saturating_duration_since(begun) >= self.settings.probation;
                if passed && successes >= self.settings.up_after && !self.held {
                    self.lead_again(now);
                }
            }
            Phase::OnFallback | Phase::Resyncing { .. } => {}
        }
    }

    /// Whether main, which leads, began anew after the fallback's content did.
    fn main_lost(&self) -> bool {
        self.main_leads() && self.main.age > self.fallback.age
    }

    fn next_age(&mut self) -> u64 {
        self.ages += 1;
        self.ages
    }

    // What was seen of the two sides.

    pub(super) fn learn(&mut self, side: Side, life: Life, now: Instant) {
        let holding = match side {
            Side::Main => &mut self.main,
            Side::Fallback => &mut self.fallback,
        };
        let earlier = holding.life.replace(life);
        if earlier.is_some_and(|earlier| earlier.incarnation != life.incarnation) {
            self.restarted(side, life, now);
        } else if side == Side::Fallback && self.main_leads() && life.entries == 0 {
            // Emptied, nothing in it is out of date; new and empty, it lacks what main holds.
            if self.fallback.stale || earlier.is_none() {
                self.fallback.emptied_or_not(life);
                self.fallback.age = self.next_age();
            }
        }
        if let Some(epoch) = life.epoch.filter(|epoch| (self.epoch + 1..=EPOCH_MAX).contains(epoch)) {
            self.catch_up(side, epoch, now);
        }
    }

    fn restarted(&mut self, side: Side, life: Life, now: Instant) {
        self.counters.restarts += 1;
        let age = self.next_age();
        let holding = match side {
            Side::Main => &mut self.main,
            Side::Fallback => &mut self.fallback,
        };
        holding.age = age;
        holding.emptied_or_not(life);
        match (side, &self.phase) {
            (Side::Main, Phase::Resyncing { .. } | Phase::Probation { .. }) => {
                self.break_off(Why::MainRestarted, true, now);
            }
            (Side::Fallback, Phase::Resyncing { .. }) => self.break_off(Why::FallbackRestarted, false, now),
            _ => self.drop_running(),
        }
    }

    /// Takes over an epoch that an earlier process had reached.
    fn catch_up(&mut self, side: Side, epoch: u64, now: Instant) {
        if side == Side::Fallback && self.main_leads() {
            if self.held {
                // It is learnt from the first answer after the hold.
                return;
            }
            self.epoch = epoch - 1;
            self.leave_main(Why::NewerEpoch, now);
            // What main missed since then was in that process's journal.
            self.main.stale = true;
        } else {
            self.epoch = epoch;
            self.step += 1;
        }
    }

    pub(super) fn main_succeeded(&mut self, now: Instant) {
        let up_after = self.settings.up_after;
        match &mut self.phase {
            Phase::OnMain { failures, successes } => {
                *successes = successes.saturating_add(1);
                if *successes >= up_after {
                    *failures = 0;
                }
                self.good = Some(self.good.map_or((now, now), |(first, last)| (first, last.max(now))));
            }
            Phase::OnFallback => {
                if let Some(away) = &mut self.away {
                    away.successes = away.successes.saturating_add(1);
                }
            }
            Phase::Resyncing { failures } => *failures = 0,
            Phase::Probation { failures, successes, .. } => {
                (*failures, *successes) = (0, successes.saturating_add(1));
            }
        }
    }

    pub(super) fn main_failed(&mut self, now: Instant) {
        let down_after = self.settings.down_after;
        match &mut self.phase {
            Phase::OnMain { failures, successes } => {
                (*failures, *successes) = (failures.saturating_add(1), 0);
            }
            Phase::OnFallback => {
                if let Some(away) = &mut self.away {
                    away.successes = 0;
                }
            }
            Phase::Resyncing { failures } => {
                *failures += 1;
                if *failures >= down_after {
                    let why = Why::Failures(*failures);
                    self.break_off(why, true, now);
                }
            }
            Phase::Probation { failures, successes, .. } => {
                (*failures, *successes) = (*failures + 1, 0);
                if *failures >= down_after {
                    let why = Why::Failures(*failures);
                    self.break_off(why, true, now);
                }
            }
        }
    }

    pub(super) fn missed_write(&mut self, side: Side, now: Instant) {
        match (side, &self.phase) {
            (Side::Fallback, Phase::OnMain { .. }) => self.fallback.behind = true,
            (Side::Main, Phase::Probation { .. }) => self.break_off(Why::MissedWrite, true, now),
            // The route said to record it, or the side leads and the write has failed.
            _ => {}
        }
    }

    pub(super) fn journal_overflowed(&mut self, side: Side, now: Instant) {
        match (side, &self.phase) {
            (Side::Fallback, Phase::OnMain { .. }) => {
                self.fallback.stale = true;
                self.drop_running();
            }
            (Side::Main, Phase::OnFallback) => self.main.stale = true,
            (Side::Main, Phase::Resyncing { .. } | Phase::Probation { .. }) => {
                self.break_off(Why::JournalOverflowed, false, now);
                self.main.stale = true;
                self.pause(now);
            }
            // The journal of the side that leads is not written.
            _ => {}
        }
    }

    // The moves.

    /// The fallback begins to lead.
    pub(super) fn leave_main(&mut self, why: Why, now: Instant) {
        let good =
            self.good.take().map_or(Duration::ZERO, |(first, last)| last.saturating_duration_since(first));
        self.decay(good);
        let flap = matches!(why, Why::Failures(_) | Why::MainRestarted);
        let dwell = self.next_dwell(flap);
        self.drop_running();
        self.pause = Pause::default();
        // A main that restarted and yet holds something holds what nobody knows the age of.
        self.main.stale = why == Why::MainRestarted && !self.main.known_empty();
        self.counters.failovers += 1;
        self.epoch += 1;
        self.away = Some(Away { dwell_end: later(now, dwell), successes: 0, asked_back: false });
        self.enter(Phase::OnFallback, now);
        self.why = Some(why);
    }

    /// The way back ends early; the fallback goes on leading.
    pub(super) fn break_off(&mut self, why: Why, flap: bool, now: Instant) {
        self.counters.broken_off += 1;
        self.drop_running();
        let asked = matches!(why, Why::Asked(_));
        if flap || asked {
            let dwell = self.next_dwell(flap);
            self.away = Some(Away { dwell_end: later(now, dwell), successes: 0, asked_back: false });
        }
        self.enter(Phase::OnFallback, now);
        self.why = Some(why);
    }

    /// Main leads again.
    fn lead_again(&mut self, now: Instant) {
        self.counters.failbacks += 1;
        self.epoch += 1;
        self.away = None;
        self.pause = Pause::default();
        self.good = Some((now, now));
        self.enter(Phase::OnMain { failures: 0, successes: 0 }, now);
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        self.step += 1;
        self.entered = Some(now);
        self.phase = phase;
    }

    /// Begins the dwell anew, as asked by someone who failed over what is on the fallback already.
    pub(super) fn stay(&mut self, why: Why, now: Instant) {
        let dwell = self.next_dwell(false);
        if let Some(away) = &mut self.away {
            (away.dwell_end, away.asked_back) = (later(now, dwell), false);
        }
        self.why = Some(why);
    }

    // The dwell.

    fn dwell_at(&self, level: u32) -> Duration {
        let settings = &self.settings;
        grown(settings.dwell, settings.dwell_factor, settings.dwell_max, level)
    }

    fn next_dwell(&mut self, flap: bool) -> Duration {
        let dwell = self.dwell_at(self.level);
        if flap && self.level < LEVEL_MAX && self.dwell_at(self.level + 1) > dwell {
            self.level += 1;
        }
        dwell
    }

    /// Undoes one step of growth for each stretch of good time as long as the dwell that the step had caused.
    fn decay(&mut self, mut good: Duration) {
        while self.level > 0 {
            let dwell = self.dwell_at(self.level - 1);
            if good < dwell {
                return;
            }
            good -= dwell;
            self.level -= 1;
        }
    }

    // Resyncs.

    /// Whether main may be brought up to date, apart from what it would be copied from.
    fn may_resync(&self, now: Instant) -> bool {
        let proven = self.away.as_ref().is_some_and(|away| {
            away.successes >= self.settings.up_after && (away.asked_back || away.dwell_end <= now)
        });
        proven && !self.held
    }

    /// The resync that the sides need, with what stands against copying.
    fn needed(&self) -> Option<(Side, Result<Scope, Distrust>)> {
        let everything = |from: &Holding, to: &Holding| {
            if to.known_empty() {
                Ok(Scope::Everything)
            } else if from.known_empty() {
                Err(Distrust::Empty)
            } else if from.age > to.age {
                Err(Distrust::Younger)
            } else {
                Ok(Scope::Everything)
            }
        };
        if self.main_leads() {
            return if self.fallback.stale || self.fallback.age > self.main.age {
                Some((Side::Fallback, everything(&self.main, &self.fallback)))
            } else {
                self.fallback.behind.then_some((Side::Fallback, Ok(Scope::Missed)))
            };
        }
        Some(if self.fallback.behind {
            (Side::Fallback, Ok(Scope::Missed))
        } else if self.main.stale || self.main.age > self.fallback.age {
            (Side::Main, everything(&self.fallback, &self.main))
        } else {
            (Side::Main, Ok(Scope::Missed))
        })
    }

    pub(super) fn transfer(&self, now: Instant) -> Option<Transfer> {
        if self.running.is_some() || self.pause.until.is_some_and(|until| now < until) {
            return None;
        }
        let (to, Ok(scope)) = self.needed()? else { return None };
        let due = match self.phase {
            Phase::OnMain { failures, .. } => failures == 0,
            Phase::OnFallback => to == Side::Fallback || self.may_resync(now),
            Phase::Resyncing { .. } | Phase::Probation { .. } => false,
        };
        due.then_some(Transfer { to, scope, fence: self.fence() })
    }

    pub(super) fn resync_started(&mut self, transfer: Transfer, now: Instant) -> Option<Resync> {
        if self.transfer(now) != Some(transfer) {
            self.counters.late += 1;
            return None;
        }
        self.resync_number += 1;
        let resync = Resync { to: transfer.to, scope: transfer.scope, number: self.resync_number };
        let until = later(now, self.settings.resync_patience);
        self.running = Some(Running { resync, begun: now, until });
        if resync.to == Side::Main {
            self.enter(Phase::Resyncing { failures: 0 }, now);
        }
        Some(resync)
    }

    pub(super) fn resync_finished(&mut self, resync: Resync, now: Instant) -> bool {
        if self.running.is_none_or(|running| running.resync != resync) {
            self.counters.late += 1;
            return false;
        }
        self.running = None;
        self.pause = Pause::default();
        self.counters.resyncs += 1;
        let (from, to) = match resync.to {
            Side::Main => (&self.fallback, &mut self.main),
            Side::Fallback => (&self.main, &mut self.fallback),
        };
        to.behind = false;
        if resync.scope == Scope::Everything {
            (to.age, to.stale) = (from.age, false);
        }
        if resync.to == Side::Main {
            self.enter(Phase::Probation { begun: now, failures: 0, successes: 0, credit: 0.0 }, now);
        }
        true
    }

    pub(super) fn resync_failed(&mut self, resync: Resync, now: Instant) -> bool {
        if self.running.is_none_or(|running| running.resync != resync) {
            self.counters.late += 1;
            return false;
        }
        match resync.to {
            Side::Main => self.break_off(Why::ResyncFailed, false, now),
            Side::Fallback => self.drop_running(),
        }
        self.pause(now);
        true
    }

    /// Makes the resync under way void, if there is one.
    fn drop_running(&mut self) {
        self.counters.resyncs_failed += u64::from(self.running.take().is_some());
    }

    fn pause(&mut self, now: Instant) {
        let settings = &self.settings;
        let wait = grown(settings.resync_wait, 2.0, settings.resync_wait_max, self.pause.failures);
        self.pause = Pause { failures: self.pause.failures.saturating_add(1), until: Some(later(now, wait)) };
    }

    // The share.

    /// Main's share of the reads.
    pub(super) fn share(&self, begun: Instant, now: Instant) -> f64 {
        let (first, whole) = (self.settings.first_share, self.settings.probation.as_secs_f64());
        let passed = now.saturating_duration_since(begun).as_secs_f64() / whole;
        (first + (1.0 - first) * passed).min(1.0)
    }

    /// Whether the next read on probation is main's: of each `1 / share` reads, one.
    pub(super) fn takes_turn(&mut self, share: f64) -> bool {
        let Phase::Probation { credit, .. } = &mut self.phase else { return false };
        *credit += share;
        let mine = *credit >= 1.0;
        *credit -= f64::from(u8::from(mine));
        mine
    }
}

impl Failover {
    pub(super) fn new(settings: Settings) -> Self {
        Self { machine: Machine::new(settings) }
    }
}

/// `now + wait`; every wait is a setting and so bounded, but a clock near its end is not refused for it.
fn later(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait.min(DURATION_MAX)).unwrap_or(now)
}
