//! Asks a running node: what became of a write, whether a session's writes are here, what others hold.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use geo::RegionId;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};

use super::{
    concern::{FetchError, LeaseError, Receipt, SessionError, WriteConcern},
    fetches,
    leases::{self, Leased},
};
use crate::{
    record::Record,
    replica::{Outbox, Status, Token},
    stamp::Hlc,
    wire,
};

/// Questions to the node's task that it has not looked at; further ones wait, within their own time.
pub(super) const REQUESTS_MAX: usize = 256;

/// What a node's task is asked.
#[derive(Debug)]
pub(super) enum Request {
    Wait {
        token: Token,
        deadline: Instant,
        question: Question,
    },
    Fetch {
        keys: Vec<Bytes>,
        at_least: Hlc,
        asked: Instant,
        deadline: Instant,
        reply: fetches::Reply,
    },
    Lease {
        key: Bytes,
        hold: Duration,
        seen: Option<Token>,
        asked: Instant,
        deadline: Instant,
        reply: leases::Reply,
    },
    /// Every node is asked for a beat.
    Beats,
}

/// What is asked about a write, and where the answer goes.
#[derive(Debug)]
pub(super) enum Question {
    /// How far it came.
    Receipt { concern: WriteConcern, reply: oneshot::Sender<Receipt> },
    /// Whether it is here.
    Here { reply: oneshot::Sender<Result<(), SessionError>> },
}

impl Question {
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Receipt { reply, .. } => reply.is_closed(),
            Self::Here { reply } => reply.is_closed(),
        }
    }
}

/// Asks a running node. Cheap to clone; it neither keeps the node running nor ends it.
///
/// Every wait is in a bounded table of the node's task ([`NodeConfig::waits_max`](super::NodeConfig::waits_max)). Where
/// that is full, the answer is what is true at once, and is counted.
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) abandoned: Arc<AtomicUsize>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) region: RegionId,
    /// The configured regions.
    pub(super) regions: Arc<BTreeSet<RegionId>>,
    pub(super) status: watch::Receiver<Status>,
}

impl Client {
    /// Waits until a write came as far as `concern` says, or the time is over; says what is true then. It never fails: a
    /// write is never taken back, and a receipt that was not reached says how far it came.
    ///
    /// A write that the transport refused, or that was never sent because the outbox was full, ends the wait for
    /// [`WriteConcern::Published`] at once. Where the node's task has ended, the answer is that of
    /// [`WriteConcern::Local`].
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait and nothing else.
    pub async fn receipt(&self, token: Token, concern: WriteConcern, timeout: Duration) -> Receipt {
        if concern == WriteConcern::Local {
            return self.local_receipt(token, concern);
        }
        // What is on its way to leave asks for a prompt answer as long as somebody waits for it.
        let _wanted = (concern != WriteConcern::Published).then(|| self.outbox.want_receipts());
        let (reply, answer) = oneshot::channel();
        let deadline = after(Instant::now(), timeout);
        let question = Question::Receipt { concern, reply };
        let answer = self.ask(Request::Wait { token, deadline, question }, answer, deadline).await;
        answer.unwrap_or_else(|_| self.local_receipt(token, concern))
    }

    /// Waits until a write that another node, or this one, took is here, so that reads here return it or something
    /// newer.
    ///
    /// # Errors
    /// [`SessionError::Stale`] at the end of the time, [`SessionError::Lost`] as soon as that is known,
    /// [`SessionError::Ended`].
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait and nothing else.
    pub async fn at_least(&self, token: Token, timeout: Duration) -> Result<(), SessionError> {
        let (reply, answer) = oneshot::channel();
        let deadline = after(Instant::now(), timeout);
        let request = Request::Wait { token, deadline, question: Question::Here { reply } };
        match self.ask(request, answer, deadline).await {
            Ok(answer) => answer,
            Err(Unanswered::Late) => Err(SessionError::Stale { lag: None }),
            Err(Unanswered::Ended) => Err(SessionError::Ended),
        }
    }

    /// Asks the nearest ready node for keys, and returns what it holds of them. What comes is merged into the node like
    /// any record, so that the next read here finds it; read it there, since something newer may be here already.
    /// Nothing stamped below `at_least` is wanted. A question that is not answered is asked once more. An empty answer
    /// says that the asked node holds none of the keys.
    ///
    /// # Errors
    /// See [`FetchError`]. More keys than [`NodeConfig::waits_max`](super::NodeConfig::waits_max), or than
    /// [`wire::KEYS_MAX`], are [`FetchError::Busy`].
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait; what is asked already may still come, and is merged.
    pub async fn fetch(
        &self,
        keys: Vec<Bytes>,
        at_least: Hlc,
        timeout: Duration,
    ) -> Result<Vec<Record>, FetchError> {
        if keys.len() > wire::KEYS_MAX {
            return Err(FetchError::Busy);
        }
        let (reply, answer) = oneshot::channel();
        let asked = Instant::now();
        let deadline = after(asked, timeout);
        let request = Request::Fetch { keys, at_least, asked, deadline, reply };
        match self.ask(request, answer, deadline).await {
            Ok(answer) => answer,
            Err(Unanswered::Late) => Err(FetchError::NoAnswer { waited: timeout }),
            Err(Unanswered::Ended) => Err(FetchError::Ended),
        }
    }

    /// Asks whether this node is to load a key for all, for `hold` at most, and waits while another does
    /// ([`crate::replica`], `lease/`). `seen` is what was told to be loaded before, where the key is missed again.
    ///
    /// Ask for a key once at a time, as whoever loads it once for all its callers does: of two questions of one node for one
    /// key, the later one counts, and both may be granted the lease.
    ///
    /// A lease is advice: nothing that is written needs one, and where there is none the caller loads all the same.
    ///
    /// # Errors
    /// See [`LeaseError`]: each says to load without a lease.
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait; a lease that was granted meanwhile goes to the next one.
    pub async fn lease(
        &self,
        key: Bytes,
        hold: Duration,
        seen: Option<Token>,
        timeout: Duration,
    ) -> Result<Leased, LeaseError> {
        let (reply, answer) = oneshot::channel();
        let asked = Instant::now();
        let deadline = after(asked, timeout);
        let request = Request::Lease { key, hold, seen, asked, deadline, reply };
        match self.ask(request, answer, deadline).await {
            Ok(answer) => answer,
            Err(Unanswered::Late) => Err(LeaseError::Late { waited: timeout }),
            Err(Unanswered::Ended) => Err(LeaseError::Ended),
        }
    }

    async fn ask<T>(
        &self,
        request: Request,
        answer: oneshot::Receiver<T>,
        deadline: Instant,
    ) -> Result<T, Unanswered> {
        let sending = timeout_at(deadline, self.requests.send(request)).await;
        sending.map_err(|_| Unanswered::Late)?.map_err(|_| Unanswered::Ended)?;
        let mut waiting = Waiting { abandoned: &self.abandoned, is_answered: false };
        let answer = answer.await.map_err(|_| Unanswered::Ended);
        waiting.is_answered = true;
        answer
    }

    /// What can be said without asking: the writer has its write.
    fn local_receipt(&self, token: Token, concern: WriteConcern) -> Receipt {
        let status = self.status.borrow();
        let heard = status.peers.iter().map(|peer| peer.region().clone());
        let known = if self.regions.is_empty() { heard.collect() } else { BTreeSet::clone(&self.regions) };
        drop(status);
        let is_own = token.stream.origin == self.outbox.origin();
        let have: BTreeSet<RegionId> = is_own.then(|| self.region.clone()).into_iter().collect();
        Receipt::new(token, concern, false, have, &known)
    }
}

/// Why the node's task gave no answer.
enum Unanswered {
    /// It was too busy to look at the question in time.
    Late,
    /// It has ended.
    Ended,
}

/// Tells the task that somebody stopped waiting, so that it need not look for that.
struct Waiting<'a> {
    abandoned: &'a AtomicUsize,
    is_answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.abandoned.fetch_add(1, Ordering::Release);
        }
    }
}

/// Waits longer than this are cut to it: beyond it an instant might not exist.
const TIMEOUT_MAX: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

pub(super) fn after(now: Instant, timeout: Duration) -> Instant {
    now + timeout.min(TIMEOUT_MAX)
}
