//! What a mirrored client tells as it happens.

use geo::RegionId;
use resilience::{Scope, Why};
use tokio::sync::broadcast;

use crate::events::Missed;

/// How many events wait for a watcher; past it the oldest are dropped, and the watcher is told how many.
pub(super) const WAITING_MAX: usize = 256;

/// Something that happened to a mirrored client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MirrorEvent {
    /// The fallback leads.
    FailedOver {
        /// Where that is.
        to: RegionId,
        /// How often the lead has changed by now.
        epoch: u64,
        /// Why.
        why: Option<Why>,
    },
    /// Main is brought up to date and takes each write again, as well as a growing share of the reads.
    Probation,
    /// The way back to main was broken off; the fallback leads on.
    BrokenOff {
        /// Why.
        why: Option<Why>,
    },
    /// Main leads again.
    FailedBack {
        /// Where that is.
        to: RegionId,
        /// How often the lead has changed by now.
        epoch: u64,
    },
    /// A region is being brought up to date.
    Resyncing {
        /// The region.
        region: RegionId,
        /// What is brought there.
        scope: Scope,
    },
    /// A region was brought up to date.
    Resynced {
        /// The region.
        region: RegionId,
    },
    /// A region could not be brought up to date; it is tried again.
    ResyncFailed {
        /// The region.
        region: RegionId,
        /// What happened.
        reason: String,
    },
    /// The region that leads lacks what others hold, and is filled from them.
    Filling {
        /// The region.
        region: RegionId,
    },
    /// The region that leads was filled.
    Filled {
        /// The region.
        region: RegionId,
    },
    /// A region missed more than its journal can keep: all must be copied there.
    JournalOverflowed {
        /// The region.
        region: RegionId,
    },
    /// A region lives another life than before.
    Restarted {
        /// The region.
        region: RegionId,
    },
    /// A region answers its probes; told after it did not.
    Up {
        /// The region.
        region: RegionId,
    },
    /// A region did not answer its probe; told after it did.
    Down {
        /// The region.
        region: RegionId,
        /// What happened.
        reason: String,
    },
}

/// What happens to a mirrored client, from the call of [`Mirror::watch`](super::Mirror::watch) on.
#[derive(Debug)]
pub struct MirrorEvents {
    pub(super) events: broadcast::Receiver<MirrorEvent>,
}

impl MirrorEvents {
    /// The next event; `None` when the client is gone.
    ///
    /// # Errors
    /// [`Missed`] where this watcher fell behind by more than 256 events.
    ///
    /// # Cancel safety
    /// Safe: no event is lost by dropping the future.
    pub async fn next(&mut self) -> Result<Option<MirrorEvent>, Missed> {
        match self.events.recv().await {
            Ok(event) => Ok(Some(event)),
            Err(broadcast::error::RecvError::Lagged(events)) => Err(Missed { events }),
            Err(broadcast::error::RecvError::Closed) => Ok(None),
        }
    }
}
