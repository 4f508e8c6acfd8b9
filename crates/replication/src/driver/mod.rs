//! Runs a replica on a transport: one tokio task per node.
//!
//! The task keeps at most [`Transport::window`] publishes unresolved and builds a frame only when a place is free, so
//! that records accumulate in the outbox: alone they leave at once, under load many to a frame, with no timer. A frame
//! that the transport could not take because it was not connected is published again, in order, once it is; meanwhile
//! changes coalesce in the outbox. A received frame is acknowledged after the core handled it.
//!
//! # Asking the node
//! A [`Client`] asks the running node how far a write came ([`Client::receipt`]), whether the writes of a session are
//! here ([`Client::at_least`]), how fresh it is ([`Client::fresh`]), what the nearest region holds ([`Client::fetch`]),
//! and who loads a key for all ([`Client::lease`]). Those who wait stand in a bounded
//! table and are looked at when something changed that can answer them: a heartbeat, records, a confirmed publish. No
//! wait holds up the node, and one that ends early takes nothing back.
//!
//! # A transport that fails
//! | what it does | what the node does |
//! |---|---|
//! | refuses a frame as unavailable | publishes it again, in order, after 50 ms; not a heartbeat: the next one says more |
//! | does not answer a publish | gives it up after [`NodeConfig::publish_wait`] and publishes the frame again |
//! | answers after that | hears nothing of it, so nothing is counted twice; peers hold a frame that came twice for one |
//! | refuses a frame for good | counts it; peers find the gap and repair it |
//! | is not connected yet when the node starts | starts alone, and opens the subscription as after its end |
//! | ends the subscription | opens it again, after waits that grow until a frame is delivered |
//! | cannot work as configured, or was closed by somebody else | stops with [`Failure::Transport`] |
//!
//! # Bounds
//! Frames that wait to be published again: the window. Waits, and leases apart from them: [`NodeConfig::waits_max`]; past it
//! a question about a write is answered at once with what is true, a fetch or a lease is refused as busy, and both are counted
//! ([`Counters::waits_refused`]).
//!
//! [`Failure::Transport`]: crate::replica::Failure::Transport
//! [`Counters::waits_refused`]: crate::replica::Counters::waits_refused

mod client;
mod concern;
mod confirms;
mod fetches;
mod fresh;
mod leases;
mod task;
mod waiters;
mod waits;
mod window;

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use geo::RegionId;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};

pub use self::{
    client::Client,
    concern::{FetchError, LeaseError, Receipt, SessionError, WriteConcern},
    fresh::{Behind, FreshError, FreshTo},
    leases::{Lease, Leased},
};
use self::{
    client::REQUESTS_MAX, fetches::Fetches, leases::Leases, task::Driver, waiters::Waiters, waits::Waits,
    window::Window,
};
use crate::{
    replica::{Now, Outbox, Replica, ReplicaConfig, Status, Store},
    stamp::Hlc,
    transport::{Health, Transport, TransportError},
    wall::WallClock,
};

/// How long a try to subscribe may take.
const SUBSCRIBE_WAIT: Duration = Duration::from_secs(10);

/// How a node runs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeConfig {
    /// The replica's timers and bounds.
    pub replica: ReplicaConfig,
    /// How long a publish may go unanswered before it is sent again. Default 30 s.
    pub publish_wait: Duration,
    /// The regions there are: what [`WriteConcern::All`] means, and which of them a receipt calls missing. Default none:
    /// those that were heard within [`ReplicaConfig::retire_ms`].
    pub regions: BTreeSet<RegionId>,
    /// How many may wait at once for receipts, sessions and fetches, of which one counts once a key; and, apart from these, how
    /// many may wait for leases or hold one. Default 4,096.
    pub waits_max: usize,
}

impl NodeConfig {
    /// The defaults.
    pub fn new(replica: ReplicaConfig) -> Self {
        let publish_wait = Duration::from_secs(30);
        Self { replica, publish_wait, regions: BTreeSet::new(), waits_max: 4_096 }
    }
}

/// Why a node could not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The transport belongs to another node than the configuration names.
    #[error("the transport belongs to the node {transport}, the configuration names {config}")]
    OtherNode {
        /// The transport's node.
        transport: String,
        /// The configuration's node.
        config: String,
    },
    /// The transport did not let the node subscribe.
    #[error("cannot receive frames: {0}")]
    Subscribe(#[source] TransportError),
    /// The transport did not answer in time.
    #[error("the transport did not answer within {0:?}")]
    NoAnswer(Duration),
}

/// What a node that ended could not bring to the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// Records that never left the outbox.
    pub unsent_records: usize,
    /// Frames that were handed to the transport and not confirmed, heartbeats aside.
    pub unconfirmed_frames: usize,
}

/// A running node. Dropped without [`Handle::close`], the node ends at once.
#[derive(Debug)]
pub struct Handle {
    status: watch::Receiver<Status>,
    health: watch::Receiver<Health>,
    commands: mpsc::Sender<Close>,
    client: Client,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Close {
    deadline: Instant,
    done: oneshot::Sender<Closed>,
}

/// Subscribes and starts the node's task on the current tokio runtime. A transport that is not connected yet is subscribed
/// to later.
///
/// # Errors
/// See [`StartError`]; nothing runs then.
pub async fn start<S: Store>(
    config: NodeConfig,
    store: Arc<S>,
    outbox: Arc<Outbox>,
    transport: Arc<dyn Transport>,
) -> Result<Handle, StartError> {
    if transport.node() != &config.replica.node {
        let (transport, config) = (transport.node().to_string(), config.replica.node.to_string());
        return Err(StartError::OtherNode { transport, config });
    }
    let subscribing = tokio::time::timeout(SUBSCRIBE_WAIT, transport.subscribe()).await;
    let subscription = match subscribing.map_err(|_| StartError::NoAnswer(SUBSCRIBE_WAIT))? {
        Ok(subscription) => Some(subscription),
        // A cache that is up must be able to start, too, while what connects it to the others is down.
        Err(TransportError::Unavailable { reason }) => {
            tracing::warn!(reason, "the node starts alone: its transport is not connected yet");
            None
        }
        Err(error) => return Err(StartError::Subscribe(error)),
    };
    let health = transport.health();
    let replica = Replica::new(config.replica.clone(), store, Arc::clone(&outbox), now(), fastrand::u64(..));
    let (status_sender, status) = watch::channel(replica.status(now()));
    let (commands, commands_receiver) = mpsc::channel(1);
    let (requests, requests_receiver) = mpsc::channel(REQUESTS_MAX);
    let (abandoned, regions) = (Arc::new(AtomicUsize::new(0)), Arc::new(config.regions));
    let client = Client {
        requests,
        abandoned: Arc::clone(&abandoned),
        outbox: Arc::clone(&outbox),
        region: config.replica.node.region().clone(),
        regions: Arc::clone(&regions),
        status: status.clone(),
    };
    let epoch = replica.stream().epoch;
    let mut window = Window::new(Arc::clone(&transport), config.publish_wait);
    window.confirms.begin_life(Hlc(epoch));
    let (waiters, fetches) = (Waiters::new(), Fetches::default());
    let (leases, releases) = Leases::new();
    let driver = Driver {
        claim: replica.claim(),
        replica,
        outbox,
        health: health.clone(),
        transport,
        window,
        waits: Waits { max: config.waits_max, regions, waiters, fetches, leases, abandoned, refused: 0 },
        lives: vec![epoch],
        status: status_sender,
    };
    let task = tokio::spawn(driver.run(subscription, commands_receiver, requests_receiver, releases));
    Ok(Handle { status, health, commands, client, task })
}

impl Handle {
    /// The node's state; a new one is shown about every 25 ms.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Whether the node's transport can carry frames.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Asks the running node.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Sends what is in the outbox, to the deadline, then ends the node and its transport; says what could not be sent.
    /// Whoever waits for an answer of the node gets what is true then.
    ///
    /// # Cancel safety
    /// Dropping the future ends the node at once, without sending the rest.
    pub async fn close(mut self, deadline: Duration) -> Closed {
        let (done, closed) = oneshot::channel();
        let close = Close { deadline: Instant::now() + deadline, done };
        if self.commands.send(close).await.is_err() {
            return Closed::default();
        }
        let closed = closed.await.unwrap_or_default();
        // The task ends right after it answered; a panic in it was reported by the runtime.
        let _ = (&mut self.task).await;
        closed
    }
}

/// What time it is for a node of this process.
fn now() -> Now {
    let clock = WallClock::shared();
    Now { mono_ms: clock.mono_ms(), wall_ms: clock.now_ms() }
}

#[cfg(test)]
mod tests;
