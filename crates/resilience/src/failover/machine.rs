//! The decisions of a failover: what is known of the two sides, and the moves between the states.
//!
//! Invariants: the epoch grows with each change of the leader and never falls; main leads again only out of a
//! probation, and a probation begins only with a finished resync; while it is held, the leader does not change; main is
//! not left for a fallback that is down or may hold old values. A side is copied to the other only if it holds nothing
//! old and answered since the copy was due. The other loses nothing by it, unless it may hold old values itself; even
//! then, only if the first lacks nothing, and was seen to have lived through the copy.
//!
//! That a side lacks something is a word of its own rather than an age of its content: of two restarts that are noticed
//! one after the other, nobody knows which was first, so each side may lack what the other has.

mod resyncs;
mod telling;

use std::time::{Duration, Instant};

use super::{Failover, FailoverState, Fence, Life, Resync, Scope, Side, Why, config::Settings};
use crate::{backoff::grown, setting::DURATION_MAX};

/// Steps of growth are bounded; by then any factor that grows at all has long met its cap in practice.
const LEVEL_MAX: u32 = 64;
/// An answer with a later epoch is senseless: nothing fails over so often.
const EPOCH_MAX: u64 = u64::MAX / 2;

/// How many answers prove what was so at a moment: as each side is probed by one question at a time, the first answer
/// after it may have been given before, and the second was not even asked for.
const ANSWERS: u8 = 2;

/// What is known of one side's content.
#[derive(Debug, Clone, Default)]
pub(super) struct Holding {
    pub(super) life: Option<Life>,
    /// Whether it may lack what the other side holds, apart from what its journal names.
    pub(super) lacks: bool,
    /// Whether it may hold values that are out of date, of keys that nobody can name.
    pub(super) stale: bool,
    /// Whether its journal names keys that it missed writes of.
    pub(super) behind: bool,
    /// How many answers it owes since it was last sent something: until then, the entries of the last answer may be
    /// outdated.
    unsure: u8,
}

impl Holding {
    fn known_empty(&self) -> bool {
        self.unsure == 0 && self.seen_empty()
    }

    /// Whether it was empty when it answered last.
    fn seen_empty(&self) -> bool {
        self.life.is_some_and(|life| life.entries == 0)
    }

    /// Something is sent to it: what its last answer said of its entries holds no more.
    pub(super) fn touched(&mut self) {
        self.unsure = ANSWERS;
    }

    /// Takes in that it began from nothing: nothing in it is out of date, and a journal that overflowed is to be settled.
    /// What it was known to have missed it still has: it may hold what was written between the restart and this answer.
    fn began_empty(&mut self) {
        self.behind |= self.stale;
        (self.stale, self.lacks) = (false, true);
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
    /// Whether the target was empty at the beginning, so that nothing can be erased.
    onto_empty: bool,
    /// How often the source has answered since all was copied; none before.
    confirmed: Option<u8>,
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
    /// Failures of the fallback in a row.
    pub(super) fallback_failures: u32,
    /// Whether the fallback is stale for no other reason than that it was said to be unfilled.
    unfilled: bool,
    /// The target of a full copy that is due, and whether its source has answered since that became so.
    wish: Option<(Side, bool)>,
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
            fallback: Holding { stale: unfilled, ..Holding::default() },
            fallback_failures: 0,
            unfilled,
            wish: None,
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
            Phase::OnMain { .. } if self.held || self.fallback.stale || self.fallback_down() => {}
            Phase::OnMain { failures, .. } => {
                // A fallback that was never heard of, or was empty, must say first whether there is anything to rescue.
                let rescue = self.fallback.life.is_some() && !self.fallback.known_empty();
                if self.main_lost() && rescue {
                    self.leave_main(Why::MainRestarted, now);
                } else if failures >= self.settings.down_after {
                    self.leave_main(Why::Failures(failures), now);
                }
            }
            Phase::Probation { .. } if self.main_needs_everything() && !self.dwell_waived() => {
                // Main was tried without what the fallback holds, for that was out of reach.
                self.break_off(Why::FallbackReturned, false, now);
            }
            Phase::Probation { begun, successes, .. } => {
                let passed = now.saturating_duration_since(begun) >= self.settings.probation;
                if passed && successes >= self.settings.up_after && !self.held {
                    self.lead_again(now);
                }
            }
            Phase::OnFallback | Phase::Resyncing { .. } => {}
        }
        let wish = match self.due(now) {
            Some((to, Scope::Everything | Scope::Lacking)) => Some(to),
            _ => None,
        };
        if self.wish.map(|(to, _)| to) != wish {
            self.wish = wish.map(|to| (to, false));
        }
    }

    /// Whether main leads though it may lack what the fallback holds, or began anew with what nobody knows the age of.
    fn main_lost(&self) -> bool {
        self.main_leads() && (self.main.stale || self.main.lacks)
    }

    /// Whether the fallback failed as often in a row as takes main down.
    pub(super) fn fallback_down(&self) -> bool {
        self.fallback_failures >= self.settings.down_after
    }

    pub(super) fn fallback_failed(&mut self) {
        self.fallback_failures = self.fallback_failures.saturating_add(1);
    }

    /// A write is sent: what takes it is not known to be empty any more.
    pub(super) fn write_sent(&mut self) {
        if !matches!(self.phase, Phase::OnFallback | Phase::Resyncing { .. }) {
            self.main.touched();
        }
        self.fallback.touched();
    }

    // What was seen of the two sides.

    pub(super) fn learn(&mut self, side: Side, life: Life, now: Instant) {
        let holding = match side {
            Side::Main => &mut self.main,
            Side::Fallback => &mut self.fallback,
        };
        let earlier = holding.life.replace(life);
        holding.unsure = holding.unsure.saturating_sub(1);
        if side == Side::Fallback {
            self.fallback_failures = 0;
        }
        if earlier.is_some_and(|earlier| earlier.incarnation != life.incarnation) {
            self.restarted(side, life, now);
        } else if life.entries == 0 {
            self.found_empty(side, earlier.is_none(), now);
        }
        self.confirm(side, life, now);
        if let Some(epoch) = life.epoch.filter(|epoch| (self.epoch + 1..=EPOCH_MAX).contains(epoch)) {
            self.catch_up(side, epoch, life, now);
        }
    }

    /// Takes in that a side that did not restart holds nothing.
    fn found_empty(&mut self, side: Side, first: bool, now: Instant) {
        match side {
            // It lacks what the fallback may hold.
            Side::Main if first => {
                self.main.began_empty();
                if matches!(self.phase, Phase::Resyncing { .. } | Phase::Probation { .. }) {
                    self.break_off(Why::MainRestarted, false, now);
                }
            }
            // New and empty, it lacks what main holds; emptied, nothing in it is out of date.
            Side::Fallback if self.fallback.stale || first => {
                self.fallback.began_empty();
                self.fallback.lacks = !self.main.known_empty();
                self.unfilled = false;
            }
            // An emptied main is filled again when it needs to be; a side whose entries ran out goes on.
            _ => {}
        }
        if side == Side::Fallback && self.main_lost() && self.fallback.known_empty() {
            // Nothing is left to be rescued: what main holds now is all there is.
            (self.main.stale, self.main.lacks) = (false, false);
            self.fallback.lacks = !self.main.known_empty();
        }
    }

    pub(super) fn lacks(&self, side: Side) -> bool {
        let holding = match side {
            Side::Main => &self.main,
            Side::Fallback => &self.fallback,
        };
        holding.lacks || holding.stale
    }

    /// Takes in that a side was brought what it lacked from elsewhere.
    pub(super) fn filled(&mut self, side: Side) {
        let holding = match side {
            Side::Main => &mut self.main,
            Side::Fallback => &mut self.fallback,
        };
        holding.touched();
        holding.lacks = false;
    }

    fn restarted(&mut self, side: Side, life: Life, now: Instant) {
        self.counters.restarts += 1;
        let copied =
            self.running.filter(|running| running.resync.scope != Scope::Missed).map(|run| run.resync.to);
        let (holding, other) = match side {
            Side::Main => (&mut self.main, &mut self.fallback),
            Side::Fallback => (&mut self.fallback, &mut self.main),
        };
        if life.entries == 0 || life.began_empty {
            holding.began_empty();
        } else {
            // What it holds was kept from before, or came since; nobody knows what it missed.
            holding.stale = true;
            // Nor what of it was copied already.
            other.stale |= copied == Some(side.other());
        }
        if side == Side::Fallback {
            self.unfilled = false;
        }
        match (side, &self.phase) {
            (Side::Main, Phase::Resyncing { .. } | Phase::Probation { .. }) => {
                self.break_off(Why::MainRestarted, true, now);
            }
            (Side::Fallback, Phase::Resyncing { .. }) => self.break_off(Why::FallbackRestarted, false, now),
            _ => self.drop_running(),
        }
    }

    /// Takes in that the source of a full copy has answered, in the life that it had when the copy began: a new life
    /// has made it void.
    fn confirm(&mut self, side: Side, life: Life, now: Instant) {
        if let Some((_, heard)) = self.wish.as_mut().filter(|(to, _)| to.other() == side) {
            *heard = true;
        }
        let Some(running) = &mut self.running else { return };
        if running.resync.scope == Scope::Missed || running.resync.to.other() != side {
            return;
        }
        if life.entries == 0 && running.resync.scope == Scope::Everything && !running.onto_empty {
            let resync = running.resync;
            self.resync_failed(resync, now);
        } else if let Some(answers) = &mut running.confirmed {
            *answers = answers.saturating_add(1);
        }
    }

    /// Takes over an epoch that an earlier process had reached.
    fn catch_up(&mut self, side: Side, epoch: u64, life: Life, now: Instant) {
        if side == Side::Fallback && self.main_leads() {
            if self.held {
                // It is learnt from the first answer after the hold.
                return;
            }
            self.epoch = epoch - 1;
            self.leave_main(Why::NewerEpoch, now);
            if life.entries > 0 && std::mem::take(&mut self.unfilled) {
                // It has led, so it holds nothing old.
                (self.fallback.stale, self.fallback.lacks) = (false, false);
            }
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
                (self.fallback.stale, self.unfilled) = (true, false);
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
