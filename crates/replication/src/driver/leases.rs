//! Callers who want to load a key for all, and the leases that are out.
//!
//! A question is in the replica until its caller's time is over; a lease is released by its holder's last word or, where
//! that is dropped without one, as a load that failed. So no panic and no cancelled load holds the others up.
//!
//! # Bounds
//! Of questions and leases together there are as many as [`NodeConfig::waits_max`](super::NodeConfig::waits_max), apart from all else
//! that is waited for: were it one table, an origin that is slow would fill it with loads, and whoever waits for a write
//! would be answered too early. What is released goes by a channel of its own, which is never longer than there are leases
//! out.
//!
//! # At the end of the node
//! What was said of leases before the node was closed is sent, and the leases that are still out go to the next ones at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::concern::LeaseError;
use crate::{
    replica::{self, LeaseNews, Token},
    stamp::Stamp,
};

/// What a caller gets.
pub(super) type Reply = oneshot::Sender<Result<Leased, LeaseError>>;

/// What a caller hears who wants to load.
#[derive(Debug)]
#[non_exhaustive]
pub enum Leased {
    /// It is to load. The others wait.
    Granted(Lease),
    /// Another node loaded; whoever has this write has the value ([`Client::at_least`](super::Client::at_least)).
    Loaded(Token),
    /// A value of the key came while it waited: read it here.
    Arrived,
}

/// The word of a holder: for its time the others wait. Dropped, it lets the next one load.
#[must_use = "dropped, it says that the load failed"]
pub struct Lease {
    id: u64,
    releases: mpsc::UnboundedSender<Release>,
    is_over: bool,
}

/// A holder's last word.
#[derive(Debug)]
pub(super) struct Release {
    pub(super) id: u64,
    pub(super) loaded: Option<Stamp>,
}

impl Lease {
    /// Says that the value was loaded and stored under this stamp. Say it after the value was written to the node's store,
    /// which hands it to replication.
    pub fn loaded(mut self, stamp: Stamp) {
        self.release(Some(stamp));
    }

    fn release(&mut self, loaded: Option<Stamp>) {
        if !std::mem::replace(&mut self.is_over, true) {
            // Of a node that has ended the lease ends by time.
            let _ = self.releases.send(Release { id: self.id, loaded });
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.release(None);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The questions under way, and how many leases are out.
#[derive(Debug)]
pub(super) struct Leases {
    callers: BTreeMap<u64, Caller>,
    deadlines: BTreeSet<(Instant, u64)>,
    out: usize,
    releases: mpsc::UnboundedSender<Release>,
    has_ended: bool,
}

#[derive(Debug)]
struct Caller {
    asked: Instant,
    deadline: Instant,
    reply: Reply,
}

impl Leases {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Release>) {
        let (releases, released) = mpsc::unbounded_channel();
        let (callers, deadlines) = (BTreeMap::new(), BTreeSet::new());
        (Self { callers, deadlines, out: 0, releases, has_ended: false }, released)
    }

    /// How many are waited for or out.
    pub(super) fn len(&self) -> usize {
        self.callers.len() + self.out
    }

    /// Takes a caller in, whose question has this number.
    pub(super) fn add(&mut self, id: u64, (asked, deadline): (Instant, Instant), reply: Reply) {
        self.deadlines.insert((deadline, id));
        self.callers.insert(id, Caller { asked, deadline, reply });
    }

    /// Tells a caller what became of its question. A lease that nobody takes comes back as a release.
    pub(super) fn tell(&mut self, told: replica::Leased) {
        let caller = self.remove(told.id);
        let answer = match told.news {
            LeaseNews::Granted => {
                self.out += 1;
                let releases = self.releases.clone();
                Ok(Leased::Granted(Lease { id: told.id, releases, is_over: false }))
            }
            LeaseNews::Loaded(token) => Ok(Leased::Loaded(token)),
            LeaseNews::Arrived => Ok(Leased::Arrived),
            LeaseNews::Refused => Err(LeaseError::Refused),
            LeaseNews::NoGrantor => Err(LeaseError::NoGrantor),
        };
        if let Some(Caller { reply, .. }) = caller {
            let _ = reply.send(answer);
        }
    }

    /// A lease that was out is not any more.
    pub(super) fn note_release(&mut self) {
        self.out -= 1;
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Answers those whose time is over, and returns their questions.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<u64> {
        let mut late = Vec::new();
        while let Some(&(_, id)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            if let Some(Caller { asked, reply, .. }) = self.remove(id) {
                let _ = reply.send(Err(LeaseError::Late { waited: now - asked }));
            }
            late.push(id);
        }
        late
    }

    /// Lets go of callers who wait no longer, and returns their questions.
    pub(super) fn take_abandoned(&mut self) -> Vec<u64> {
        let gone = self.callers.iter().filter(|(_, caller)| caller.reply.is_closed());
        let gone: Vec<u64> = gone.map(|(id, _)| *id).collect();
        for id in &gone {
            self.remove(*id);
        }
        gone
    }

    /// Whether nobody is taken in any more.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Answers everyone that there will be no answer, now and from now on.
    pub(super) fn end(&mut self) {
        self.has_ended = true;
        self.deadlines.clear();
        for caller in std::mem::take(&mut self.callers).into_values() {
            let _ = caller.reply.send(Err(LeaseError::Ended));
        }
    }

    fn remove(&mut self, id: u64) -> Option<Caller> {
        let caller = self.callers.remove(&id)?;
        self.deadlines.remove(&(caller.deadline, id));
        Some(caller)
    }
}
