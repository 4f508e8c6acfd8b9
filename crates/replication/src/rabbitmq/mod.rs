//! Frames over RabbitMQ: one exchange per cache, one queue per node life, or one stream per region.
//!
//! [`RabbitMq`] implements [`Transport`] on a broker, a cluster of brokers, or a broker per region
//! linked by federation. Tested on RabbitMQ 3.10.8, and supported from 3.10: before 3.9.14 a consumer of a stream
//! could fall silent for good. It uses nothing that 3.11 to 4.x changed, which was not tried (queues that outlive a
//! connection are durable and not exclusive, queue types are named explicitly, frames stay below the default message limit
//! of 4.x).
//!
//! # Why this way
//! - **An own reconnection loop**, with fresh connections, a limit on every wait, growing jittered pauses and all brokers in
//!   turn. The client library's own recovery hangs when a reconnect dies in the AMQP handshake, as it does behind a load
//!   balancer whose broker is down.
//! - **Two connections**, since a broker short of memory stops reading from connections that publish, and with them
//!   acknowledgements; so receiving goes on while publishing waits.
//! - **At most four unconfirmed frames and no timer.** The broker's cost is per message, so records gather above the
//!   transport while four frames are under way. A larger window only lengthens the broker's queue.
//! - **The broker's own refusal keeps unlike profiles apart**, by an exchange whose type says the kind; a number in each
//!   frame would not be seen by those who do not hear it.
//! - **A queue per node *life*, not exclusive**: it collects frames while the node's link is down, and a restarted node,
//!   which begins with a full state transfer anyway, is not flooded with its former self's frames.
//!
//! # Profiles
//! [`Config::profile`]; what the broker does with a frame that a node does not take at once.
//!
//! | profile | frames for everyone | a frame that was confirmed survives | kept for a node that is away | what it costs |
//! |---|---|---|---|---|
//! | [`Fast`](Profile::Fast) | the queue of each node, classic, not on disk | the loss of a node's link | [`queue_expires`](Config::queue_expires), or its queue's bounds | memory at the broker, a copy for each node |
//! | [`Durable`](Profile::Durable) | the queue of each node, quorum, on disk | also a broker's restart, and the loss of a minority of a cluster | the same | a write to disk for each node, an agreement of the cluster for each frame |
//! | [`Stream`](Profile::Stream) | one stream for each origin region, on disk | the same | [`stream_age_max`](Config::stream_age_max) or [`stream_bytes_max`](Config::stream_bytes_max) | one write to disk, whatever the number of nodes; disk for the whole retention, read or not; a consumer for each region at each node |
//!
//! Measured with three nodes and the broker on two cores, records of 128 bytes, rounded:
//!
//! | profile | records/s | CPU s a million, nodes + broker | lag p50 at 200/s | at 50,000/s |
//! |---|--:|--:|--:|--:|
//! | `Fast` | 780,000 | 1.7 + 0.5 | 0.5 ms | 0.7 ms |
//! | `Durable` | 520,000 | 1.8 + 1.1 | 1.1 ms | 2.9 ms |
//! | `Stream` | 560,000 | 1.9 + 1.3 | 0.8 ms | 2.8 ms |
//!
//! The command is `cargo xtask bench replication` (`-- --only durable` for one), which has the same frames through the bare client
//! beside them; `docs/rabbitmq.md` has the whole table, and what an operator does about profiles.
//!
//! In `Stream`, frames to one node or one region go to the queue of `Fast`. A node keeps its place in each stream in
//! memory, for its life: after a loss of its link, however long, it goes on behind the last frame that it handled. A new life
//! begins at the streams' ends, and state transfer brings the rest. Where a stream does not hold the next frame any more,
//! the broker gives the oldest that it has, [`Stats::stream_gaps`] counts it, and the replica protocol repairs the gap. A
//! frame given back unhandled is read again together with what came after it.
//!
//! Nodes learn of each other's regions by hellos on the same exchange, when they connect and every 30 s, and read the streams
//! of at most 64 regions; [`Stats::regions_refused`] counts hellos of further ones. A stream that a node hears of late is
//! read from the time at which it last knew all regions, less 5 s; where the clocks of broker and node are further apart,
//! the replica protocol repairs what was missed.
//!
//! **A stream that cannot be read**, as where the broker has no replica of it that runs, is tried again after growing waits,
//! and the others are read meanwhile ([`Stats::stream_failures`]). After 15 s the connection is made anew once, to the next
//! broker where there are several. A region that says hello for 90 s while its stream gives no frame has a dead consumer at
//! the broker, which is begun again at its place ([`Stats::stream_silences`]).
//!
//! **A region that is given up** leaves its stream behind, since streams have no expiry of their own. Once its nodes are
//! closed, wait 90 s, in which the others stop declaring it, and delete it: `rabbitmqctl delete_queue
//! geocache.<cache>.stream.<region>`. Deleted earlier, it is declared again.
//!
//! # Changing the profile of a deployment
//! - **Between `Fast` and `Durable`**: restart the nodes one after the other with the new profile. Each has its own queue
//!   and the frames go to all, so both kinds work together meanwhile.
//! - **To or from `Stream`**: close every node, then start them with the new profile; it starts at once. A cache is empty
//!   after that, unless it is filled by other means: nodes of the two kinds would not hear each other, so no state can pass
//!   between them. [`ConnectError::ProfileConflict`] refuses a node of the other kind while one lives. The queue of a node
//!   that crashed counts as one until it expires; to not wait for that, delete the exchange `geocache-profile.<cache>`.
//!   A node that finds the other kind in its place after a loss of its link says so in its health, and tries again
//!   every 30 s. Afterwards delete the streams that are left over.
//! - With a broker for each region, each broker refuses for its own nodes alone: change all regions together.
//!
//! # What is promised
//! A frame whose publish returned `Ok` is in every queue bound to its address at that time, and is delivered at least once,
//! unless it is in a stream (see above) or its queue overflowed ([`Config::queue_frames_max`], [`Config::queue_bytes_max`]: oldest first), expired
//! ([`Config::queue_expires`]) or, with [`Profile::Fast`], the broker restarted. The order of one sender's frames is kept
//! except after a reconnect. A sender receives its own broadcasts too.
//!
//! What bounds what: four frames unconfirmed and 64 more waiting to be sent; `prefetch` frames unacknowledged, fewer
//! where [`Config::waiting_bytes_max`] holds no more of 128 KiB each, shared in `Stream` by the regions and the queue; the broker's
//! queue by frames, bytes and time. Nothing waits without a limit except the reconnection loop, which never gives up while the
//! transport is open, and, while the broker takes nothing for lack of memory or disk, those that were handed over before it said so; [`RabbitMq::stats`] counts what happens at each bound.
//!
//! # Poison
//! What arrives and is no frame of the cache, be it damaged, of another version or a foreign application's, is counted
//! ([`Stats::rejected`]) and kept with its error in the queue `geocache-dead.<cache>`, within the bounds of
//! [`DeadLetters`]; each node that refuses a message keeps its own copy. The consumer goes on in any case. An operator reads
//! the queue with any AMQP client; the headers `geocache-error`, `geocache-node`, `geocache-exchange`,
//! `geocache-routing-key`, `geocache-time-ms` and `geocache-bytes` say what happened.
//!
//! Known limits: AMQP bounds the frames that are delivered ahead by number alone, so values of more than 128 KiB may take
//! more than [`Config::waiting_bytes_max`] here. A quorum queue of RabbitMQ 4 drops a frame after 20 deliveries without acknowledgement. A quorum queue
//! that lost its leader for good *and* its owner stops every publisher until an operator deletes it; with its owner alive,
//! the owner leaves it within about 15 s. A channel on which the broker only refuses frames is left after half a second, and
//! later after up to a minute: RabbitMQ 3.10 keeps refusing on one that met a quorum queue between two leaders.
//!
//! # Access
//! TLS with an own authority and a client certificate ([`Config::tls_ca`], [`Config::tls_identity`]), credentials from the URI,
//! a file or the environment ([`Config::credentials`]). Files are read at each attempt to connect, so renewed certificates
//! and rotated passwords need no restart; what waiting does not mend is an error of [`RabbitMq::connect`] that says what to
//! do. A user needs configure, write and read permission for [`permission_pattern`] and nothing else; one empty message
//! with the routing key `all.probe`, which no queue takes, proves at each connection that the broker takes publishes. No
//! password is logged, by the client library's threads either, which are held to `info`; it is not wiped from memory.
//! `docs/rabbitmq-access.md` has the operator's side.
//!
//! [`RabbitMq::dial`] starts without a broker. [`Health`] says since when and why there is no connection, and
//! tells apart a broker that takes no publishes for lack of memory or disk: receiving goes on then.
//!
//! The client library logs each returned frame whole, as a warning of the target `lapin::returned_messages`. Where logs
//! must not hold cached values, switch that target off.
//!
//! ```no_run
//! use replication::{NodeId, Transport, rabbitmq::{Config, Profile, RabbitMq}};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let node = NodeId::new("eu-central".parse()?, "node-1")?;
//! let brokers = vec!["amqp://geocache:secret@10.0.0.5:5672".to_owned()];
//! let transport = RabbitMq::connect(Config::new(node, brokers).cache("shop").profile(Profile::Durable)).await?;
//! let mut frames = transport.subscribe().await?;
//! while let Some(delivery) = frames.next().await {
//!     println!("{} bytes", delivery.frame.len());
//!     delivery.ack.done();
//! }
//! # Ok(())
//! # }
//! ```

mod acks;
mod assertion;
mod breaker;
mod config;
mod connection;
mod consumer;
mod credentials;
mod dead_letter;
mod endpoint;
mod error;
mod feed;
mod flight;
mod hello;
mod marker;
mod patience;
mod permission;
mod publisher;
mod queue;
mod quiet;
mod reading;
mod refusal;
mod regions;
mod rotation;
mod setback;
mod socket;
mod source;
mod stats;
mod status;
mod streams;
mod tls;
mod topology;
mod trail;
mod vigil;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use resilience::Backoff;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};

pub use config::{Config, Profile};
pub use credentials::Credentials;
pub use dead_letter::DeadLetters;
pub use error::{ConfigError, ConnectError};
pub use permission::{Permission, permission_pattern};
pub use source::{FILE_BYTES_MAX, Pem};
pub use stats::Stats;
pub use tls::TlsProblem;

use breaker::Breakers;
use connection::{Dialer, Line};
use consumer::{Consumer, Subscribe};
use dead_letter::{Desk, Letter, Office};
use endpoint::Endpoint;
use hello::Greetings;
use publisher::{Command, Publisher};
use stats::Counters;
use status::{Role, Status};
use topology::Topology;

use crate::{
    node::NodeId,
    report::{Breaker, Report},
    transport::{Destination, Health, Subscription, Transport, TransportError},
};

/// How many frames are unconfirmed at a time.
const WINDOW: usize = 4;

/// How many threads may be reading files of credentials and certificates at a time, one for each use of a connection.
const READERS_MAX: usize = 3;

/// What the tasks and the handle share.
struct Shared {
    config: Config,
    endpoints: Vec<Endpoint>,
    topology: Topology,
    /// The name of the node's queue.
    queue: Mutex<String>,
    status: Status,
    breakers: Breakers,
    counters: Counters,
    greetings: Greetings,
    /// Where frames that cannot be read are handed in.
    desk: Desk,
    /// Places for threads that read files of credentials and certificates.
    readers: Arc<Semaphore>,
    /// It was begun without a connection: what waiting does not mend is waited for too.
    is_dialled: bool,
}

impl Shared {
    /// With where the letters that are handed in come out.
    fn new(config: Config, is_dialled: bool) -> Result<(Arc<Self>, mpsc::Receiver<Letter>), ConfigError> {
        config.check()?;
        let topology = Topology::new(&config);
        let (desk, letters) = Desk::new(&config.dead_letters, config.frames_ahead());
        let endpoints = config.endpoints()?;
        let shared = Self {
            breakers: Breakers::new(&config, endpoints.len()),
            endpoints,
            queue: Mutex::new(topology.queue(fastrand::u64(..))),
            topology,
            status: Status::new(Instant::now().into_std()),
            counters: Counters::default(),
            greetings: Greetings::default(),
            desk,
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            is_dialled,
            config,
        };
        Ok((Arc::new(shared), letters))
    }

    /// What whoever asks gets while there is no connection.
    fn unavailable(&self, role: Role) -> TransportError {
        let reason = self.status.trouble(role).unwrap_or_else(|| "the connection is being made".to_owned());
        TransportError::Unavailable { reason }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(self.config.retry_base, self.config.retry_max)
    }
}

/// A [`Transport`] over RabbitMQ.
///
/// It runs three tasks on the tokio runtime it was connected on. Dropped without [`close`](Transport::close), it ends them in the
/// background, as `close` does.
pub struct RabbitMq {
    shared: Arc<Shared>,
    publishes: mpsc::Sender<Command>,
    subscribes: mpsc::Sender<Subscribe>,
    closing: watch::Sender<bool>,
    tasks: Mutex<Option<Tasks>>,
}

struct Tasks {
    publisher: JoinHandle<()>,
    consumer: JoinHandle<Result<(), String>>,
    office: JoinHandle<()>,
}

impl RabbitMq {
    /// Connects to one of the configured brokers and declares the cache's exchange there.
    ///
    /// The node's queue is declared by the first [`subscribe`](Transport::subscribe). Once this returned, the transport
    /// reconnects by itself for as long as it is open.
    ///
    /// # Errors
    /// [`ConnectError`] says what to mend. Brokers that cannot be reached are tried again for
    /// [`Config::connect_wait`]; everything else is an error at once.
    pub async fn connect(config: Config) -> Result<Arc<Self>, ConnectError> {
        let (shared, letters) = Shared::new(config, false)?;
        let deadline = Instant::now() + shared.config.connect_wait;
        let mut publishing = Dialer::new(shared.clone(), Role::Publishing);
        let mut consuming = Dialer::new(shared.clone(), Role::Consuming);
        let publishing_line = publishing.first(deadline).await?;
        let consuming_line = consuming.first(deadline).await?;
        // Both lines work: health says so before the caller can ask. The publisher says it of its own, which may be blocked.
        if publishing_line.blocked.is_none() {
            shared.status.up(Role::Publishing);
        }
        shared.status.up(Role::Consuming);
        Ok(Self::run(shared, letters, (publishing, Some(publishing_line)), (consuming, Some(consuming_line))))
    }

    /// Begins without a connection and makes it in the background: for a node that must start while its brokers are
    /// down.
    ///
    /// [`health`](Transport::health) says what the attempts end with, in the words of [`ConnectError`]. They never stop
    /// while the transport is open: not after what waiting does not mend, either (refused credentials, a missing
    /// permission, a certificate that is not trusted), which is tried again every few seconds, up to
    /// [`Config::retry`]'s longest wait.
    ///
    /// Call it within a tokio runtime; it returns at once, having read the files that the configuration names.
    ///
    /// # Errors
    /// A [`ConfigError`] that names the first setting that is wrong.
    pub fn dial(config: Config) -> Result<Arc<Self>, ConfigError> {
        let (shared, letters) = Shared::new(config, true)?;
        let dialer = |role| (Dialer::new(shared.clone(), role), None);
        let (publishing, consuming) = (dialer(Role::Publishing), dialer(Role::Consuming));
        Ok(Self::run(shared, letters, publishing, consuming))
    }

    /// Starts the tasks, each with its line if it is made.
    fn run(
        shared: Arc<Shared>,
        letters: mpsc::Receiver<Letter>,
        publishing: (Dialer, Option<Line>),
        consuming: (Dialer, Option<Line>),
    ) -> Arc<Self> {
        let (closing, closing_seen) = watch::channel(false);
        let (publishes, commands) = mpsc::channel(publisher::QUEUE);
        let publisher = Publisher::new(shared.clone(), publishing.0, commands, closing_seen.clone(), WINDOW);
        let (subscribes, commands) = mpsc::channel(1);
        let office = Office::new(shared.clone(), letters, closing_seen.clone());
        let consumer = Consumer::new(shared.clone(), consuming.0, commands, closing_seen);
        let tasks = Tasks {
            publisher: tokio::spawn(publisher.run(publishing.1)),
            consumer: tokio::spawn(consumer.run(consuming.1)),
            office: tokio::spawn(office.run()),
        };
        Arc::new(Self { shared, publishes, subscribes, closing, tasks: Mutex::new(Some(tasks)) })
    }

    /// What happened since the start.
    pub fn stats(&self) -> Stats {
        self.shared.counters.snapshot()
    }

    /// The breakers in front of the brokers ([`Config::breaker_failure_threshold`]): for each use of a connection, one for each
    /// broker in the order of the URIs.
    pub fn breakers(&self) -> Vec<Breaker> {
        self.shared.breakers.snapshot(&self.shared.endpoints)
    }

    /// The name of this node's queue at the broker. It changes when the queue became useless there and was replaced
    /// ([`Stats::queues_replaced`]).
    pub fn queue(&self) -> String {
        self.shared.queue.lock().clone()
    }

    fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }
}

#[async_trait]
impl Transport for RabbitMq {
    fn node(&self) -> &NodeId {
        &self.shared.config.node
    }

    async fn publish(&self, to: Destination, frame: Bytes) -> Result<(), TransportError> {
        if self.is_closing() {
            return Err(TransportError::Closed);
        }
        let max = self.shared.config.frame_bytes_max;
        if frame.len() > max {
            self.shared.counters.oversized.add(1);
            let reason =
                format!("the frame has {} bytes, at most {max} are sent (frame_bytes_max)", frame.len());
            return Err(TransportError::Refused { reason });
        }
        if let Some(reason) = self.shared.status.trouble(Role::Publishing) {
            self.shared.counters.unavailable.add(1);
            return Err(TransportError::Unavailable { reason });
        }
        let (reply, answer) = oneshot::channel();
        self.publishes.send(Command { to, frame, reply }).await.map_err(|_| TransportError::Closed)?;
        answer.await.unwrap_or(Err(TransportError::Closed))
    }

    async fn subscribe(&self) -> Result<Box<dyn Subscription>, TransportError> {
        if self.is_closing() {
            return Err(TransportError::Closed);
        }
        if let Some(reason) = self.shared.status.trouble(Role::Consuming) {
            return Err(TransportError::Unavailable { reason });
        }
        let (reply, answer) = oneshot::channel();
        self.subscribes.send(Subscribe { reply }).await.map_err(|_| TransportError::Closed)?;
        let subscription = answer.await.unwrap_or(Err(TransportError::Closed))?;
        Ok(Box::new(subscription))
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.shared.status.health()
    }

    fn window(&self) -> usize {
        WINDOW
    }

    fn report(&self) -> Report {
        Report::new("rabbitmq", self.stats().counts(), self.breakers())
    }

    async fn close(&self) -> Result<(), TransportError> {
        self.closing.send_replace(true);
        self.shared.status.closed();
        let tasks = self.tasks.lock().take();
        let Some(Tasks { mut publisher, mut consumer, mut office }) = tasks else { return Ok(()) };
        // Each step of the tasks has its own limit; this one holds whatever happens in them.
        let limit = self.shared.config.close_timeout * 3 + self.shared.config.operation_timeout;
        let ended = timeout(limit, async {
            let ended = ((&mut publisher).await, (&mut consumer).await);
            // It has nothing to say but goodbye.
            let _ = (&mut office).await;
            ended
        })
        .await;
        match ended {
            Ok((Ok(()), Ok(Ok(())))) => Ok(()),
            Ok((_, Ok(Err(reason)))) => Err(TransportError::Unavailable { reason }),
            Ok((publisher, consumer)) => {
                let reason = format!("a task of the transport failed: {publisher:?}, {consumer:?}");
                Err(TransportError::Fatal { reason })
            }
            Err(_) => {
                publisher.abort();
                consumer.abort();
                office.abort();
                Err(TransportError::Unavailable { reason: format!("not closed within {limit:?}") })
            }
        }
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.closing.send_replace(true);
        self.shared.status.closed();
    }
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMq")
            .field("node", &self.shared.config.node)
            .field("queue", &self.queue())
            .field("health", &*self.shared.status.health().borrow())
            .field("breakers", &self.breakers())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Resolves when the transport closes, or its handle is gone.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

#[cfg(test)]
mod tests;
