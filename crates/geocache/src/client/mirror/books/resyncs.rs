//! Who is brought up to date, from whom, and what the leader is filled with.
//!
//! The sides as the failover asks for it. A further backup by the same rules, judged here: what it missed while that is known, else all
//! that the leader holds; nothing is removed for the sake of a source that has not lived through the copy.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use resilience::Scope;

use super::{Books, Fill, Job, KEPT_MAX, Ticket, index, side};
use crate::client::mirror::event::MirrorEvent;

/// How many answers prove what was so at a moment: the first may have been given before it.
const ANSWERS: u64 = 2;
/// The wait after a failed resync of a backup, which doubles up to the cap; a failover's own waits are its settings.
const RETRY_WAIT: Duration = Duration::from_secs(1);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(60);

impl Books {
    /// The resync of a side that is to be done now.
    pub(in crate::client::mirror) fn begin_side(&mut self, now: Instant) -> Option<Job> {
        let transfer = self.failover.transfer(now)?;
        let resync = self.failover.resync_started(transfer, now)?;
        self.side_job = Some(resync);
        let (to, from) = (index(resync.to), index(transfer.from()));
        Some(self.begin(to, from, resync.scope, Ticket::Side(resync)))
    }

    /// The resync of a backup that is to be done now.
    pub(in crate::client::mirror) fn begin_backup(&mut self, place: usize, now: Instant) -> Option<Job> {
        let scope = self.backup_needs(place, now).ok()??;
        self.jobs += 1;
        let number = self.jobs;
        let job = self.begin(place, self.leader(), scope, Ticket::Backup(number));
        self.standings[place].job = Some(number);
        Some(job)
    }

    /// What a backup needs, if it may be had; an error says what is waited for.
    pub(in crate::client::mirror) fn backup_needs(
        &self,
        place: usize,
        now: Instant,
    ) -> Result<Option<Scope>, &'static str> {
        let (standing, leader) = (&self.standings[place], &self.standings[self.leader()]);
        let scope = if standing.stale {
            Scope::Everything
        } else if standing.lacking {
            Scope::Lacking
        } else if standing.journal.is_empty() {
            return Ok(None);
        } else {
            Scope::Missed
        };
        if standing.up != Some(true) {
            return Err("it to be up again");
        }
        if standing.retry_at.is_some_and(|at| now < at) {
            return Err("the next try after failed resyncs");
        }
        if scope != Scope::Missed {
            if leader.up != Some(true) {
                return Err("the region that leads to be up again");
            }
            if leader.stale || leader.lacking {
                return Err("the region that leads to be filled");
            }
            if !leader.journal.is_empty() {
                // What it holds of those keys is old, and some it does not list.
                return Err("the region that leads to be told what it missed");
            }
        }
        let empty = leader.life.is_none_or(|life| life.entries == 0);
        if scope == Scope::Everything && empty && standing.life.is_none_or(|life| life.entries > 0) {
            return Err("the region that leads to hold something, or this one to be emptied");
        }
        Ok(Some(scope))
    }

    fn begin(&mut self, to: usize, from: usize, scope: Scope, ticket: Ticket) -> Job {
        let source_life = self.standings[from].life;
        let standing = &mut self.standings[to];
        let bare = standing.journal.overflowed();
        if bare {
            standing.journal.restart();
        }
        standing.kept = (scope != Scope::Missed).then(HashSet::new);
        let region = standing.region.clone();
        self.tell(MirrorEvent::Resyncing { region, scope });
        Job { to, from, scope, ticket, bare, source_life }
    }

    /// Whether a resync is still wanted.
    pub(in crate::client::mirror) fn job_holds(&mut self, job: &Job, now: Instant) -> bool {
        match job.ticket {
            Ticket::Side(resync) => self.failover.resync_holds(resync, now),
            Ticket::Backup(number) => {
                let source = &self.standings[job.from];
                let same =
                    source.life.map(|life| life.incarnation) == job.source_life.map(|life| life.incarnation);
                let fit = self.leader() == job.from && same && !source.stale;
                self.standings[job.to].job == Some(number) && (job.scope == Scope::Missed || fit)
            }
        }
    }

    /// How often the source of a resync has answered; handed to [`all_copied`](Self::all_copied) as it was when all was copied.
    pub(in crate::client::mirror) fn source_answers(&self, job: &Job) -> u64 {
        self.standings[job.from].answers
    }

    /// All was copied that the source holds; whether the rest may be done.
    pub(in crate::client::mirror) fn all_copied(&mut self, job: &Job, answers: u64, now: Instant) -> bool {
        match job.ticket {
            Ticket::Side(resync) => self.failover.resync_copied(resync, now),
            Ticket::Backup(_) => {
                job.scope == Scope::Missed || self.standings[job.from].answers >= answers + ANSWERS
            }
        }
    }

    pub(in crate::client::mirror) fn keep(&mut self, to: usize, hash: u64) {
        if let Some(kept) = &mut self.standings[to].kept
            && kept.len() < KEPT_MAX
        {
            kept.insert(hash);
        }
    }

    pub(in crate::client::mirror) fn keeps(&self, to: usize, hash: u64) -> bool {
        self.standings[to].kept.as_ref().is_some_and(|kept| kept.contains(&hash))
    }

    /// Ends a resync if nothing is missed any more; says whether it has ended.
    pub(in crate::client::mirror) fn finish(&mut self, job: &Job, now: Instant) -> bool {
        if !self.standings[job.to].journal.is_empty() {
            return false;
        }
        let counted = match job.ticket {
            Ticket::Side(resync) => self.failover.resync_finished(resync, now),
            Ticket::Backup(number) => self.standings[job.to].job == Some(number),
        };
        if !counted {
            return false;
        }
        let standing = &mut self.standings[job.to];
        if job.scope != Scope::Missed {
            (standing.stale, standing.lacking) = (false, false);
        } else if job.bare {
            (standing.stale, standing.lacking) = (false, true);
        }
        (standing.job, standing.kept, standing.failures, standing.retry_at) = (None, None, 0, None);
        let region = standing.region.clone();
        self.tell(MirrorEvent::Resynced { region });
        true
    }

    /// A resync has failed, or was overtaken by events.
    pub(in crate::client::mirror) fn give_up(&mut self, job: &Job, reason: String, now: Instant) {
        if !self.job_holds(job, now) && matches!(job.ticket, Ticket::Backup(_)) {
            // Another one may be on its way already.
            return;
        }
        let standing = &mut self.standings[job.to];
        standing.kept = None;
        let region = standing.region.clone();
        match job.ticket {
            Ticket::Side(resync) => {
                self.failover.resync_failed(resync, now);
            }
            Ticket::Backup(_) => {
                standing.job = None;
                let wait = RETRY_WAIT * 2_u32.saturating_pow(standing.failures.min(10));
                standing.failures = standing.failures.saturating_add(1);
                standing.retry_at = Some(now + wait.min(RETRY_WAIT_MAX));
            }
        }
        self.tell(MirrorEvent::ResyncFailed { region, reason });
    }

    /// When a backup that waits may be tried again.
    pub(in crate::client::mirror) fn retry_at(&self, place: usize) -> Option<Instant> {
        self.standings[place].retry_at
    }

    // Filling the leader.

    /// The leader lacks what others hold: who they are. One at a time.
    pub(in crate::client::mirror) fn begin_fill(&mut self, now: Instant) -> Option<Fill> {
        let leader = self.leader();
        let standing = &self.standings[leader];
        let waits = self.fill_retry_at.is_some_and(|at| now < at);
        if !standing.lacking || standing.up != Some(true) || self.filling || waits {
            return None;
        }
        let mut sources = self.sources(leader);
        if sources.is_empty() && self.standings.iter().any(|standing| standing.up.is_none()) {
            return None;
        }
        sources.retain(|place| self.standings[*place].life.is_none_or(|life| life.entries > 0));
        if sources.is_empty() {
            // Nobody who can be asked has more.
            self.standings[leader].lacking = false;
            return None;
        }
        self.filling = true;
        let life = standing.life.map(|life| life.incarnation);
        self.tell(MirrorEvent::Filling { region: self.region(leader) });
        let whole = sources.iter().any(|place| !self.standings[*place].lacking);
        Some(Fill { leader, sources, whole, life })
    }

    pub(in crate::client::mirror) fn fill_holds(&self, fill: &Fill) -> bool {
        let standing = &self.standings[fill.leader];
        self.leader() == fill.leader && standing.life.map(|life| life.incarnation) == fill.life
    }

    pub(in crate::client::mirror) fn end_fill(&mut self, fill: &Fill, done: bool, now: Instant) {
        self.filling = false;
        if !self.fill_holds(fill) {
            return;
        }
        if done {
            self.fill_retry_at = None;
            self.standings[fill.leader].lacking = false;
            if let Some(side) = side(fill.leader).filter(|_| fill.whole) {
                self.failover.filled(side, now);
            }
            self.tell(MirrorEvent::Filled { region: self.region(fill.leader) });
        } else {
            self.fill_retry_at = Some(now + RETRY_WAIT);
        }
    }

    /// When a fill that failed may be tried again.
    pub(in crate::client::mirror) fn fill_retry_at(&self) -> Option<Instant> {
        self.fill_retry_at
    }

    /// Someone emptied a place: nothing in it is old, and all is to be copied there.
    pub(in crate::client::mirror) fn emptied(&mut self, place: usize, now: Instant) {
        if let Some(resync) = self.side_job.filter(|resync| index(resync.to) == place) {
            self.failover.resync_failed(resync, now);
        }
        let standing = &mut self.standings[place];
        standing.journal.restart();
        (standing.stale, standing.lacking) = (false, true);
        (standing.job, standing.kept) = (None, None);
        if let Some(side) = side(place) {
            // It has missed whatever there is; its next answer says that it holds nothing old either.
            self.failover.journal_overflowed(side, now);
        }
    }
}
