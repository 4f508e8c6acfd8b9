//! Who must be brought up to date, from whom, and whether that may be done.
//!
//! A copy of more than what was missed begins only if its source holds nothing old and has answered since the copy was
//! due; it ends only if the source has answered twice since all was copied, in the life that it had at the beginning.
//! It removes something only if its target may hold old values and its source lacks nothing.

use std::time::Instant;

use super::{ANSWERS, Machine, Pause, Phase, Running, later};
use crate::{
    backoff::grown,
    failover::{Distrust, Resync, Scope, Side, Transfer, Why},
};

impl Machine {
    /// Whether main may be brought up to date, apart from what it would be copied from. No dwell is worth a fallback that
    /// is down or must not be read.
    pub(super) fn may_resync(&self, now: Instant) -> bool {
        let proven = self.away.as_ref().is_some_and(|away| {
            let waived = away.asked_back || self.dwell_waived();
            away.successes >= self.settings.up_after && (waived || away.dwell_end <= now)
        });
        proven && !self.held
    }

    /// Whether the fallback, which leads, is of no use.
    pub(in crate::failover) fn dwell_waived(&self) -> bool {
        self.fallback.stale || self.fallback_down()
    }

    /// Whether all must be copied to main before it may lead.
    pub(in crate::failover) fn main_needs_everything(&self) -> bool {
        self.main.stale || self.main.lacks
    }

    /// What stands against copying all that one side holds over the other.
    pub(super) fn distrust(&self, to: Side) -> Option<Distrust> {
        let (from, to) = match to {
            Side::Main => (&self.fallback, &self.main),
            Side::Fallback => (&self.main, &self.fallback),
        };
        if from.stale {
            Some(Distrust::Stale)
        } else if to.known_empty() {
            None
        } else if to.stale && from.seen_empty() {
            Some(Distrust::Empty)
        } else {
            // Of a target that holds nothing old, nothing is removed.
            (to.stale && from.lacks).then_some(Distrust::Younger)
        }
    }

    /// How much is copied to a side that may lack something.
    pub(super) fn full(&self, to: Side) -> Scope {
        let target = match to {
            Side::Main => &self.main,
            Side::Fallback => &self.fallback,
        };
        if target.stale { Scope::Everything } else { Scope::Lacking }
    }

    /// The resync that the sides need, with what stands against copying.
    pub(super) fn needed(&self, now: Instant) -> Option<(Side, Result<Scope, Distrust>)> {
        let everything = |to| (to, self.distrust(to).map_or_else(|| Ok(self.full(to)), Err));
        let missed = |to| (to, Ok(Scope::Missed));
        if self.main_leads() {
            return if self.fallback.stale || self.fallback.lacks {
                Some(everything(Side::Fallback))
            } else {
                self.fallback.behind.then_some(missed(Side::Fallback))
            };
        }
        Some(if !self.main_needs_everything() {
            // What the fallback missed, main took: it is not read for main's sake.
            missed(if self.fallback.behind && !self.may_resync(now) { Side::Fallback } else { Side::Main })
        } else if self.dwell_waived() && self.main.known_empty() {
            // An empty main holds nothing old, and there is nothing to be had from the fallback.
            missed(Side::Main)
        } else if self.fallback_down() {
            (Side::Main, Err(Distrust::Down))
        } else if self.fallback.behind {
            missed(Side::Fallback)
        } else {
            everything(Side::Main)
        })
    }

    /// The resync that is needed and may begin, apart from what was heard of the source of late.
    pub(super) fn due(&self, now: Instant) -> Option<(Side, Scope)> {
        if self.running.is_some() || self.pause.until.is_some_and(|until| now < until) {
            return None;
        }
        let (to, Ok(scope)) = self.needed(now)? else { return None };
        let due = match self.phase {
            Phase::OnMain { failures, .. } => failures == 0 && !self.fallback_down(),
            Phase::OnFallback if to == Side::Fallback => !self.fallback_down(),
            Phase::OnFallback => self.may_resync(now),
            Phase::Resyncing { .. } | Phase::Probation { .. } => false,
        };
        due.then_some((to, scope))
    }

    /// Whose answer a full copy that is due has to wait for.
    pub(in crate::failover) fn unheard(&self) -> Option<Side> {
        let (to, heard) = self.wish?;
        let target = match to {
            Side::Main => &self.main,
            Side::Fallback => &self.fallback,
        };
        if heard { target.life.is_none().then_some(to) } else { Some(to.other()) }
    }

    pub(in crate::failover) fn transfer(&self, now: Instant) -> Option<Transfer> {
        let (to, scope) = self.due(now)?;
        let waits = scope != Scope::Missed && (self.wish.is_none() || self.unheard().is_some());
        (!waits).then_some(Transfer { to, scope, fence: self.fence() })
    }

    pub(in crate::failover) fn resync_started(&mut self, transfer: Transfer, now: Instant) -> Option<Resync> {
        if self.transfer(now) != Some(transfer) {
            self.counters.late += 1;
            return None;
        }
        self.resync_number += 1;
        let resync = Resync { to: transfer.to, scope: transfer.scope, number: self.resync_number };
        let until = later(now, self.settings.resync_patience);
        let target = match resync.to {
            Side::Main => &mut self.main,
            Side::Fallback => &mut self.fallback,
        };
        let onto_empty = target.known_empty();
        target.touched();
        self.wish = None;
        self.running = Some(Running { resync, begun: now, until, onto_empty, confirmed: None });
        if resync.to == Side::Main {
            self.enter(Phase::Resyncing { failures: 0 }, now);
        }
        Some(resync)
    }

    pub(in crate::failover) fn resync_copied(&mut self, resync: Resync) -> bool {
        let Some(running) = self.running.as_mut().filter(|running| running.resync == resync) else {
            self.counters.late += 1;
            return false;
        };
        let answers = *running.confirmed.get_or_insert(0);
        resync.scope == Scope::Missed || answers >= ANSWERS
    }

    pub(in crate::failover) fn resync_finished(&mut self, resync: Resync, now: Instant) -> bool {
        let Some(running) = self.running.filter(|running| running.resync == resync) else {
            self.counters.late += 1;
            return false;
        };
        if resync.scope != Scope::Missed && running.confirmed.is_none_or(|answers| answers < ANSWERS) {
            return false;
        }
        // A main that is behind by more than it was told was empty, and there was nothing to be had.
        let bare = resync.scope == Scope::Missed && resync.to == Side::Main && self.main_needs_everything();
        if bare {
            self.main.began_empty();
        }
        self.running = None;
        self.pause = Pause::default();
        self.counters.resyncs += 1;
        let to = match resync.to {
            Side::Main => &mut self.main,
            Side::Fallback => &mut self.fallback,
        };
        to.touched();
        to.behind = false;
        if resync.scope != Scope::Missed {
            // The source may go on lacking what the target had, or took from its journal.
            (to.lacks, to.stale) = (false, false);
        }
        self.unfilled &= resync.to == Side::Main || resync.scope == Scope::Missed;
        if resync.to == Side::Main {
            self.enter(Phase::Probation { begun: now, failures: 0, successes: 0, credit: 0.0 }, now);
        }
        true
    }

    pub(in crate::failover) fn resync_failed(&mut self, resync: Resync, now: Instant) -> bool {
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
    pub(super) fn drop_running(&mut self) {
        self.counters.resyncs_failed += u64::from(self.running.take().is_some());
    }

    pub(super) fn pause(&mut self, now: Instant) {
        let settings = &self.settings;
        let wait = grown(settings.resync_wait, 2.0, settings.resync_wait_max, self.pause.failures);
        self.pause = Pause { failures: self.pause.failures.saturating_add(1), until: Some(later(now, wait)) };
    }
}
