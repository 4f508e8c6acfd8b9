//! What a routing client tells those who watch it.

use geo::RegionId;
use tokio::sync::broadcast;

use crate::{client::Doubt, events::Missed};

/// How many events wait for a watcher; past it the oldest are dropped, and the watcher is told how many. They are rare.
const WAITING_MAX: usize = 256;

/// Something that changed in how calls are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouteEvent {
    /// A region is out: its breaker opened.
    Down {
        /// The region.
        region: RegionId,
        /// The error that was last seen of it.
        reason: String,
    },
    /// A region that was out is tried again: its breaker is half-open.
    Trying {
        /// The region.
        region: RegionId,
    },
    /// A region is back: its breaker closed.
    Up {
        /// The region.
        region: RegionId,
    },
    /// Calls go to another region first.
    First {
        /// The region.
        region: RegionId,
    },
    /// What a region serves may be old from now on, or no more.
    Doubt {
        /// The region.
        region: RegionId,
        /// Why; `None` when that is over.
        doubt: Option<Doubt>,
    },
    /// A region's cache was started anew.
    Restarted {
        /// The region.
        region: RegionId,
    },
    /// A region was drained, or is used again.
    Drained {
        /// The region.
        region: RegionId,
        /// Whether it is drained.
        drained: bool,
    },
}

#[derive(Debug)]
pub(super) struct Bell {
    events: broadcast::Sender<RouteEvent>,
}

impl Default for Bell {
    fn default() -> Self {
        Self { events: broadcast::Sender::new(WAITING_MAX) }
    }
}

impl Bell {
    pub(super) fn tell(&self, event: RouteEvent) {
        // Nobody may be watching.
        let _ = self.events.send(event);
    }

    pub(super) fn watch(&self) -> RouteEvents {
        RouteEvents { events: self.events.subscribe() }
    }
}

/// What changes in how calls are sent, from the call of [`Routes::watch`](super::Routes::watch) on.
#[derive(Debug)]
pub struct RouteEvents {
    events: broadcast::Receiver<RouteEvent>,
}

impl RouteEvents {
    /// The next event; `None` when the client is gone, and every [`Routes`](super::Routes) of it.
    ///
    /// # Errors
    /// [`Missed`] where this watcher fell behind by more than 256 events.
    ///
    /// # Cancel safety
    /// Safe: no event is lost by dropping the future.
    pub async fn next(&mut self) -> Result<Option<RouteEvent>, Missed> {
        match self.events.recv().await {
            Ok(event) => Ok(Some(event)),
            Err(broadcast::error::RecvError::Lagged(events)) => Err(Missed { events }),
            Err(broadcast::error::RecvError::Closed) => Ok(None),
        }
    }
}
