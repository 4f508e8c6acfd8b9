//! One node of the cache: its handle and its life.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use geo::RegionId;
use parking_lot::Mutex;
use replication::{
    Health, Hlc, NodeId, Transport,
    driver::{Client, Handle},
    replica::{Outbox, Status},
    report::Report,
};
use tokio::sync::watch;
use tracing::Instrument as _;

use crate::{
    builder::Builder,
    error::Error,
    load::Flights,
    namespace::{FullKey, Namespaces, Scope},
    stats::{RegionStats, Stats},
    store::NodeStore,
    trace::{self, TARGET},
    value::Codec,
};

/// One node of the cache. A cheap handle: clones share the node, and dropping the last one ends it.
///
/// Reads and writes are synchronous and local; no method but the `async` ones waits for anything but a short lock.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use geocache::GeoCache;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct User {
///     name: String,
/// }
///
/// let cache = GeoCache::builder().capacity(10_000).build().await?;
/// cache.put("user:1", &User { name: "Ada".into() })?;
/// cache.put("visits", &41_u64)?;
/// cache.update("visits", |visits| Some(visits.map_or(1, |visits: std::sync::Arc<u64>| *visits + 1)))?;
///
/// assert_eq!(cache.get::<User>("user:1")?.expect("just put").name, "Ada");
/// assert_eq!(*cache.get::<u64>("visits")?.expect("just put"), 42);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct GeoCache {
    node: Arc<Node>,
    /// Set where the handle has a prefix or defaults of its own.
    scope: Option<Arc<Scope>>,
}

/// A handle that keeps nothing alive.
#[derive(Clone)]
pub(crate) struct WeakGeoCache {
    node: Weak<Node>,
    scope: Option<Arc<Scope>>,
}

impl WeakGeoCache {
    pub(crate) fn upgrade(&self) -> Option<GeoCache> {
        self.node.upgrade().map(|node| GeoCache { node, scope: self.scope.clone() })
    }
}

/// What the handles share.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) cache: String,
    pub(crate) store: Arc<NodeStore>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) codec: Codec,
    pub(crate) key_bytes_max: usize,
    pub(crate) value_bytes_max: usize,
    pub(crate) replication: Option<Replication>,
    pub(crate) closed: AtomicBool,
    /// The clock before the first write.
    pub(crate) since: Hlc,
    /// A random number: what tells this life of the node from another.
    pub(crate) life: u64,
    pub(crate) flights: Arc<Flights>,
    pub(crate) loads_max: usize,
    pub(crate) namespaces: Namespaces,
    /// Dropped with the node, which ends the tasks that watch it.
    pub(crate) alive: watch::Sender<()>,
}

/// The running replication of a node.
pub(crate) struct Replication {
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) health: watch::Receiver<Health>,
    pub(crate) client: Client,
    /// Kept by the node's task.
    transport: Weak<dyn Transport>,
    /// Taken by the close; dropped with the node, it ends the node's task.
    handle: Mutex<Option<Handle>>,
}

impl Replication {
    pub(crate) fn new(handle: Handle, transport: Weak<dyn Transport>) -> Self {
        Self {
            status: handle.status(),
            health: handle.health(),
            client: handle.client(),
            transport,
            handle: Mutex::new(Some(handle)),
        }
    }

    /// The transport; it is gone once the node is.
    pub(crate) fn transport(&self) -> Weak<dyn Transport> {
        Weak::clone(&self.transport)
    }

    /// Whether the node's task is there.
    pub(crate) fn is_running(&self) -> bool {
        self.status.has_changed().is_ok()
    }
}

/// How a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Closed {
    /// Records that were not handed to the transport by the deadline; no other node has them.
    pub unsent_records: usize,
    /// Frames that were handed to the transport, which had not confirmed them by the deadline; others may have them.
    pub unconfirmed_frames: usize,
}

impl GeoCache {
    /// Begins to configure a node; every setting has a default.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn of(node: Node) -> Self {
        Self { node: Arc::new(node), scope: None }
    }

    /// The region that the node belongs to.
    pub fn region(&self) -> &RegionId {
        self.node.id.region()
    }

    /// The node: its region and its own name.
    pub fn node(&self) -> &NodeId {
        &self.node.id
    }

    /// The name of the cache that it is a node of ([`Builder::cache`]).
    pub fn cache_name(&self) -> &str {
        &self.node.cache
    }

    /// How this handle encodes the typed values that it writes. It reads every codec.
    pub fn codec(&self) -> Codec {
        self.own_codec().unwrap_or(self.node.codec)
    }

    /// Whether the node is ready: it took the state of a ready one, so that a miss here is a miss there. What that one had not
    /// heard of by then, as where a partition had just healed, follows as any gap does; [`get_fresh`](Self::get_fresh) waits for
    /// it. A node that is not ready serves what it has. One without a transport is always ready.
    pub fn is_ready(&self) -> bool {
        let is_ready =
            |replication: &Replication| replication.is_running() && replication.status.borrow().ready;
        self.node.replication.as_ref().is_none_or(is_ready)
    }

    /// Waits until the node is ready.
    ///
    /// # Errors
    /// [`Error::Stopped`] where it had to stop, [`Error::Closed`] where it was closed.
    pub async fn ready(&self) -> Result<(), Error> {
        let Some(replication) = &self.node.replication else { return Ok(()) };
        let mut status = replication.status.clone();
        let reached = status.wait_for(|status| status.ready || status.failure.is_some()).await;
        match reached.map_err(|_| self.ended())?.failure.as_ref() {
            Some(failure) => Err(Error::Stopped { reason: failure.to_string() }),
            None if !replication.is_running() => Err(self.ended()),
            None => Ok(()),
        }
    }

    /// Resolves when the node had to stop replicating, with the reason: another live process uses its name, the
    /// transport cannot work as configured, or its task ended with a panic. Never resolves for a node that is well,
    /// without a transport, or closed.
    pub async fn failed(&self) -> Error {
        let Some(replication) = &self.node.replication else { return std::future::pending().await };
        let mut status = replication.status.clone();
        let failed = status.wait_for(|status| status.failure.is_some()).await;
        let reason = failed.ok().and_then(|status| status.failure.as_ref().map(ToString::to_string));
        match reason {
            Some(reason) => Error::Stopped { reason },
            None if self.node.closed.load(Ordering::Acquire) => std::future::pending().await,
            None => self.ended(),
        }
    }

    /// Why the node's task is not there any more.
    pub(crate) fn ended(&self) -> Error {
        if self.node.closed.load(Ordering::Acquire) {
            return Error::Closed;
        }
        let reason = "its replication task ended unexpectedly, with a panic that was printed; start it again";
        Error::Stopped { reason: reason.to_owned() }
    }

    /// What the node holds, did, and knows of the other regions.
    pub fn stats(&self) -> Stats {
        let mut stats = self.store().stats();
        stats.outbox = self.node.outbox.stats();
        stats.ready = self.is_ready();
        let flights = self.flights();
        stats.loads = flights.counters().snapshot(flights.len());
        if let Some(replication) = &self.node.replication {
            let status = replication.status.borrow();
            stats.replication = status.counters;
            stats.regions = RegionStats::of(&status.peers);
            stats.transport = Some(replication.health.borrow().clone());
        }
        stats
    }

    /// What the node's transport tells of itself: its counts, and the breakers in front of its brokers. `None` without a
    /// transport, and once the node is closed.
    pub fn transport_report(&self) -> Option<Report> {
        Some(self.node.replication.as_ref()?.transport.upgrade()?.report())
    }

    /// Ends the node: writes are refused from now on, and what waits to leave is handed to the transport, until the
    /// deadline. Reads still answer. A second call returns at once.
    ///
    /// # Cancel safety
    /// Dropping the future ends the node at once, without handing over the rest.
    pub async fn close(&self, deadline: Duration) -> Closed {
        self.node.closed.store(true, Ordering::Release);
        let Some(replication) = &self.node.replication else { return Closed::default() };
        let handle = replication.handle.lock().take();
        let Some(handle) = handle else { return Closed::default() };
        let span = trace::call!(self, "close");
        let closed = handle.close(deadline).instrument(span.clone()).await;
        let (unsent, unconfirmed) = (closed.unsent_records, closed.unconfirmed_frames);
        tracing::debug!(target: TARGET, parent: &span, unsent, unconfirmed, "closed");
        Closed { unsent_records: closed.unsent_records, unconfirmed_frames: closed.unconfirmed_frames }
    }

    pub(crate) fn downgrade(&self) -> WeakGeoCache {
        WeakGeoCache { node: Arc::downgrade(&self.node), scope: self.scope.clone() }
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn is_same_node(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.node, &other.node)
    }

    pub(crate) fn scope(&self) -> Option<&Scope> {
        self.scope.as_deref()
    }

    /// Another handle on the same node.
    pub(crate) fn scoped(&self, scope: Arc<Scope>) -> Self {
        Self { node: Arc::clone(&self.node), scope: Some(scope) }
    }

    pub(crate) fn namespaces(&self) -> &Namespaces {
        &self.node.namespaces
    }

    pub(crate) fn key_bytes_max(&self) -> usize {
        self.node.key_bytes_max
    }

    /// Changes to an error when the node is gone.
    pub(crate) fn alive(&self) -> watch::Receiver<()> {
        self.node.alive.subscribe()
    }

    pub(crate) fn flights(&self) -> &Arc<Flights> {
        &self.node.flights
    }

    pub(crate) fn loads_max(&self) -> usize {
        self.node.loads_max
    }

    pub(crate) fn store(&self) -> &NodeStore {
        &self.node.store
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.node.outbox
    }

    pub(crate) fn replication(&self) -> Option<&Replication> {
        self.node.replication.as_ref()
    }

    pub(crate) fn since(&self) -> Hlc {
        self.node.since
    }

    pub(crate) fn life_number(&self) -> u64 {
        self.node.life
    }

    pub(crate) fn value_bytes_max(&self) -> usize {
        self.node.value_bytes_max
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.node.closed.load(Ordering::Acquire)
    }

    /// Whether changes are taken.
    pub(crate) fn open(&self) -> Result<(), Error> {
        if self.is_closed() { Err(Error::Closed) } else { Ok(()) }
    }

    /// The key as the store has it, if a change of it is taken.
    pub(crate) fn writable<'a>(&self, key: &'a [u8]) -> Result<FullKey<'a>, Error> {
        self.open()?;
        self.full(key)
    }
}

impl fmt::Debug for GeoCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("GeoCache");
        shown.field("node", &self.node.id);
        if let Some(scope) = self.scope() {
            shown.field("namespace", &format_args!("{scope}"));
        }
        shown.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
