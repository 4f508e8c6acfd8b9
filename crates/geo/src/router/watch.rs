//! Hears of a router's changes without asking again and again.

use std::sync::Arc;

use tokio::sync::watch;

use super::Health;
use crate::RegionId;

/// What a router stands at: its first choice, and who is healthy.
///
/// ```
/// let router = geo::Router::builder().from("us-east").region("eu-central").build()?;
/// let status = router.watch(std::time::Instant::now()).status();
/// assert_eq!(status.first.as_str(), "eu-central");
/// assert!(!status.last_resort && !status.regions[0].drained);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The region that plans begin with, apart from the balance of load among those as close.
    pub first: RegionId,
    /// Whether all regions look unhealthy.
    pub last_resort: bool,
    /// Each region's state, in the order in which they were given.
    pub regions: Vec<RegionStatus>,
    /// Grows with each change.
    pub(super) version: u64,
}

/// What a region stands at, as part of a [`Status`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegionStatus {
    /// The region.
    pub region: RegionId,
    /// Whether it is worth asking.
    pub health: Health,
    /// Whether it is drained.
    pub drained: bool,
}

/// Hears of the changes of one router; from [`Router::watch`](super::Router::watch).
///
/// It holds the latest [`Status`] alone: of several changes between two looks, the last one is seen, and a slow
/// watcher holds up nobody. A clone looks on for itself.
///
/// ```
/// use std::time::Instant;
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let now = Instant::now();
/// let router = geo::Router::builder().from("us-east").region("us-east").region("eu-central").build()?;
/// let mut watch = router.watch(now);
/// router.set_health(&"us-east".parse()?, geo::Health::Unhealthy, now)?;
/// assert_eq!(watch.changed().await.expect("the router lives").first.as_str(), "eu-central");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Watch {
    receiver: watch::Receiver<Arc<Status>>,
}

impl Watch {
    /// The latest status.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.receiver.borrow())
    }

    /// Waits until the status is another than at the last look; `None` once the router is gone.
    ///
    /// # Cancel safety
    /// Dropping the call loses no change: the next one returns it.
    pub async fn changed(&mut self) -> Option<Arc<Status>> {
        self.receiver.changed().await.ok()?;
        Some(Arc::clone(&self.receiver.borrow_and_update()))
    }

    /// Begins with what has been told so far, as if it had been looked at.
    pub(super) fn seen(mut self) -> Self {
        self.receiver.mark_unchanged();
        self
    }
}

/// Where a router tells of its changes.
#[derive(Debug)]
pub(super) struct Bell {
    sender: watch::Sender<Arc<Status>>,
}

impl Bell {
    pub(super) fn new(status: Status) -> Self {
        Self { sender: watch::Sender::new(Arc::new(status)) }
    }

    /// Whether anybody listens.
    pub(super) fn is_heard(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    /// Tells of a status, unless a newer one was told of meanwhile: two threads may come here in either order.
    pub(super) fn ring(&self, status: Status) {
        self.sender.send_if_modified(|latest| {
            let newer = status.version > latest.version;
            if newer {
                *latest = Arc::new(status);
            }
            newer
        });
    }

    /// A watch that hears of what is told from here on; what it has [`seen`](Watch::seen) is said afterwards.
    pub(super) fn subscribe(&self) -> Watch {
        Watch { receiver: self.sender.subscribe() }
    }
}
