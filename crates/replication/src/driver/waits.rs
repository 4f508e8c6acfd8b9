//! What the node's callers wait for, and when they are answered.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use geo::RegionId;
use tokio::time::Instant;

use super::{
    client::{Question, Request},
    concern::{FetchError, LeaseError, Receipt, SessionError, WriteConcern},
    fetches::Fetches,
    leases::{Leases, Release},
    now,
    task::Driver,
    waiters::{Need, Waiters},
};
use crate::replica::{Progress, Store, Token};

/// Who waits for an answer from this node.
pub(super) struct Waits {
    pub(super) max: usize,
    /// The configured regions.
    pub(super) regions: Arc<BTreeSet<RegionId>>,
    pub(super) waiters: Waiters<Question>,
    pub(super) fetches: Fetches,
    pub(super) leases: Leases,
    /// How many callers went away since that was looked at.
    pub(super) abandoned: Arc<AtomicUsize>,
    pub(super) refused: u64,
}

/// What this node's callers wait for.
impl<S: Store> Driver<S> {
    pub(super) fn take_in(&mut self, request: Request) {
        match request {
            Request::Wait { token, deadline, question } => {
                let need = question.need();
                let waits = !question.is_abandoned()
                    && deadline > Instant::now()
                    && !self.is_decided(need, token)
                    && self.has_room_for(1);
                if waits {
                    self.waits.waiters.add(need, token, deadline, question);
                } else {
                    self.answer(token, question);
                }
            }
            Request::Beats => self.replica.ask_beats(now()),
            Request::Fetch { keys, at_least, asked, deadline, reply } => {
                if reply.is_closed() {
                    // Nobody waits for it any more.
                } else if self.has_room_for(keys.len()) {
                    self.waits.fetches.add(keys, at_least, (asked, deadline), reply);
                } else {
                    let _ = reply.send(Err(FetchError::Busy));
                }
            }
            Request::Lease { key, hold, seen, asked, deadline, reply } => {
                if reply.is_closed() {
                    // Nobody waits for it any more.
                } else if self.waits.leases.has_ended() {
                    let _ = reply.send(Err(LeaseError::Ended));
                } else if self.has_room_for_lease() {
                    let hold_ms = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX);
                    let id = self.replica.lease(now(), &key, hold_ms, seen);
                    self.waits.leases.add(id, (asked, deadline), reply);
                    self.note_leased();
                } else {
                    let _ = reply.send(Err(LeaseError::Busy));
                }
            }
        }
    }

    pub(super) fn ask_peers(&mut self) {
        if self.waits.fetches.has_to_ask() {
            let (replica, now) = (&mut self.replica, now());
            let is_listening = replica.is_listening(now);
            self.waits.fetches.ask(Instant::now(), |keys, at_least| {
                // While the node says nothing, a question would only wait for that to end.
                if is_listening { None } else { replica.fetch(now, keys, at_least) }
            });
        }
    }

    pub(super) fn note_fetched(&mut self) {
        for answer in self.replica.take_fetched() {
            self.waits.fetches.answered(&answer);
        }
    }

    pub(super) fn note_leased(&mut self) {
        for told in self.replica.take_leased() {
            self.waits.leases.tell(told);
        }
    }

    /// A holder's last word.
    pub(super) fn note_release(&mut self, Release { id, loaded }: Release) {
        self.waits.leases.note_release();
        self.replica.release(now(), id, loaded);
        self.note_leased();
    }

    /// The node is being closed: whoever waits for a lease is told, and the next ones need not wait for those that are out.
    pub(super) fn end_leases(&mut self) {
        self.waits.leases.end();
        self.replica.release_all(now());
        self.note_leased();
    }

    /// Whether so many more may wait for writes and reads; counted where not.
    fn has_room_for(&mut self, more: usize) -> bool {
        self.has_room(|waits| waits.waiters.len() + waits.fetches.len() + more <= waits.max)
    }

    /// The same of one more lease.
    fn has_room_for_lease(&mut self) -> bool {
        self.has_room(|waits| waits.leases.len() < waits.max)
    }

    fn has_room(&mut self, has_place: impl Fn(&Waits) -> bool) -> bool {
        if !has_place(&self.waits) {
            self.forget_abandoned();
        }
        let has_room = has_place(&self.waits);
        self.waits.refused += u64::from(!has_room);
        has_room
    }

    /// Lets go of whoever waits no longer.
    pub(super) fn forget_abandoned(&mut self) {
        for id in self.waits.forget_abandoned() {
            self.replica.release(now(), id, None);
        }
    }

    pub(super) fn answer_waiters(&mut self) {
        if self.waits.waiters.len() == 0 {
            return;
        }
        let mut waiters = std::mem::replace(&mut self.waits.waiters, Waiters::new());
        let decided = waiters.settle(|need, token| self.is_decided(need, token));
        self.waits.waiters = waiters;
        for (token, question) in decided {
            self.answer(token, question);
        }
    }

    pub(super) fn answer_late(&mut self) {
        let now = Instant::now();
        while let Some((token, question)) = self.waits.waiters.take_late(now) {
            self.answer(token, question);
        }
        self.waits.fetches.expire(now);
        for id in self.waits.leases.expire(now) {
            self.replica.release(super::now(), id, None);
        }
    }

    /// Whether waiting longer would change nothing.
    fn is_decided(&self, need: Need, token: Token) -> bool {
        match need {
            Need::Concern(WriteConcern::Published) if self.is_ours(token) => {
                let is_published = self.window.confirms.is_published(token.hlc);
                is_published.is_some() || self.receipt(token, WriteConcern::Published).published
            }
            Need::Concern(concern) => self.receipt(token, concern).reached,
            Need::Here => !matches!(self.replica.progress(now(), token), Progress::Behind { .. }),
        }
    }

    /// Tells what is true now. Whoever dropped the future meanwhile needs no answer.
    pub(super) fn answer(&self, token: Token, question: Question) {
        match question {
            Question::Receipt { concern, reply } => {
                let _ = reply.send(self.receipt(token, concern));
            }
            Question::Here { reply } => {
                let _ = reply.send(match self.replica.progress(now(), token) {
                    Progress::Reached => Ok(()),
                    Progress::Behind { lag_ms } => {
                        Err(SessionError::Stale { lag: lag_ms.map(Duration::from_millis) })
                    }
                    Progress::Lost => Err(SessionError::Lost),
                });
            }
        }
    }

    /// Whether this process took the write.
    fn is_ours(&self, token: Token) -> bool {
        token.stream.origin == self.replica.stream().origin && self.lives.contains(&token.stream.epoch)
    }

    fn receipt(&self, token: Token, concern: WriteConcern) -> Receipt {
        let have = self.replica.regions_with(token);
        let published = if self.is_ours(token) {
            // The own region counts once the node has the write, which says nothing of others.
            have.len() > 1 || self.window.confirms.is_published(token.hlc) == Some(true)
        } else {
            !have.is_empty()
        };
        if self.waits.regions.is_empty() {
            return Receipt::new(token, concern, published, have, &self.replica.regions());
        }
        Receipt::new(token, concern, published, have, &self.waits.regions)
    }
}

impl Question {
    fn need(&self) -> Need {
        match self {
            Self::Receipt { concern, .. } => Need::Concern(*concern),
            Self::Here { .. } => Need::Here,
        }
    }
}

impl Waits {
    /// Lets go of callers who went away; returns the questions for leases that nobody waits for.
    fn forget_abandoned(&mut self) -> Vec<u64> {
        if self.abandoned.swap(0, Ordering::Acquire) == 0 {
            return Vec::new();
        }
        self.waiters.retain(|question| !question.is_abandoned());
        self.fetches.forget_abandoned();
        self.leases.take_abandoned()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let deadlines = [self.waiters.deadline(), self.fetches.deadline(), self.leases.deadline()];
        deadlines.into_iter().flatten().min()
    }
}
