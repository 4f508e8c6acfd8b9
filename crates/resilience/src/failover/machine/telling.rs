//! What a machine says of itself: its status, what it waits for, and when to look again.

use std::time::{Duration, Instant};

use super::{Machine, Phase, Running, later};
use crate::failover::{Status, Waiting};

impl Machine {
    pub(in crate::failover) fn status(&self, now: Instant) -> Status {
        let counters = &self.counters;
        Status {
            state: self.state(),
            epoch: self.epoch,
            since: self.entered.map_or(Duration::ZERO, |entered| now.saturating_duration_since(entered)),
            held: self.held,
            why: self.why.clone(),
            waiting: self.waiting(now),
            next_dwell: self.dwell_at(self.level),
            fallback_failures: self.fallback_failures,
            failovers: counters.failovers,
            failbacks: counters.failbacks,
            broken_off: counters.broken_off,
            resyncs: counters.resyncs,
            resyncs_failed: counters.resyncs_failed,
            restarts: counters.restarts,
            late: counters.late,
        }
    }

    fn waiting(&self, now: Instant) -> Vec<Waiting> {
        let mut waiting = Vec::new();
        let needed = self.settings.up_after;
        let down = matches!(self.phase, Phase::OnMain { failures, .. } if failures >= self.settings.down_after)
            || self.main_lost();
        if self.held && (down || !self.main_leads()) {
            waiting.push(Waiting::Held);
        }
        if (down || !self.main_leads()) && self.fallback.stale {
            waiting.push(Waiting::FallbackStale);
        }
        if (down || self.fallback.behind || !self.main_leads()) && self.fallback_down() {
            waiting.push(Waiting::FallbackDown);
        }
        match &self.phase {
            Phase::OnFallback => {
                let Some(away) = &self.away else { return waiting };
                if away.successes < needed {
                    waiting.push(Waiting::Probes { seen: away.successes, needed });
                }
                let left = away.dwell_end.saturating_duration_since(now);
                if !left.is_zero() && !away.asked_back && !self.dwell_waived() {
                    waiting.push(Waiting::Dwell { left });
                }
                if self.fallback.behind && self.main_needs_everything() {
                    waiting.push(Waiting::FallbackBehind);
                }
            }
            Phase::Probation { begun, successes, .. } => {
                if *successes < needed {
                    waiting.push(Waiting::Probes { seen: *successes, needed });
                }
                let left = self.settings.probation.saturating_sub(now.saturating_duration_since(*begun));
                if !left.is_zero() {
                    waiting.push(Waiting::Probation { left, share: self.share(*begun, now) });
                }
            }
            Phase::OnMain { .. } | Phase::Resyncing { .. } => {}
        }
        waiting.extend(self.waiting_for_resync(now));
        waiting
    }

    fn waiting_for_resync(&self, now: Instant) -> Option<Waiting> {
        if let Some(Running { resync, begun, .. }) = self.running {
            let running = now.saturating_duration_since(begun);
            return Some(Waiting::Resync { to: resync.to, scope: resync.scope, running });
        }
        if matches!(self.phase, Phase::Probation { .. }) {
            return None;
        }
        let (to, scope) = match self.needed(now)? {
            (_, Err(why)) => return Some(Waiting::Source(why)),
            (to, Ok(scope)) => (to, scope),
        };
        let left = self.pause.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        if !left.is_zero() {
            return Some(Waiting::ResyncWait { left, failures: self.pause.failures });
        }
        if let Some(side) = self.unheard() {
            return Some(Waiting::Answer { side });
        }
        self.transfer(now).map(|_| Waiting::ResyncNotStarted { to, scope })
    }

    /// When time alone changes something next.
    pub(in crate::failover) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::OnFallback => self.away.as_ref().map(|away| away.dwell_end),
            Phase::Probation { begun, .. } => Some(later(*begun, self.settings.probation)),
            Phase::OnMain { .. } | Phase::Resyncing { .. } => None,
        };
        let times = [phase, self.running.map(|running| running.until), self.pause.until];
        times.into_iter().flatten().filter(|time| *time > now).min()
    }
}
