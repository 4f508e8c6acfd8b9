//! Runs a replica on a transport: one tokio task per node.
//!
//! The task keeps at most [`Transport::window`] publishes unresolved and builds a frame only when a place is free, so
//! that records accumulate in the outbox: alone they leave at once, under load many to a frame, with no timer. A frame
//! that the transport could not take because it was not connected is published again, in order, once it is; meanwhile
//! changes coalesce in the outbox. A received frame is acknowledged after the core handled it.
//!
//! # Bounds
//! Frames that wait to be published again: the window. A publish without an answer counts as not connected after
//! [`NodeConfig::publish_wait`]. A subscription that ends is opened again, after waits
//! that grow until a frame is delivered.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use resilience::Backoff;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};

use crate::{
    replica::{Failure, Now, Outbox, Replica, ReplicaConfig, Status, Store},
    transport::{Delivery, Destination, Health, Subscription, Transport, TransportError},
    wall::WallClock,
};

/// How often time passes for the replica.
const TICK: Duration = Duration::from_millis(25);
/// How long nothing is published after the transport said that it is not connected.
const PAUSE: Duration = Duration::from_millis(50);
/// The first and the longest wait before a subscription that ended is opened again.
const REOPEN_WAIT: Duration = Duration::from_millis(50);
const REOPEN_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a try to subscribe may take.
const SUBSCRIBE_WAIT: Duration = Duration::from_secs(10);
/// How long closing the transport may take after the drain.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// How a node runs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeConfig {
    /// The replica's timers and bounds.
    pub replica: ReplicaConfig,
    /// How long a publish may go unanswered before it is sent again. Default 30 s.
    pub publish_wait: Duration,
}

impl NodeConfig {
    /// The defaults.
    pub fn new(replica: ReplicaConfig) -> Self {
        Self { replica, publish_wait: Duration::from_secs(30) }
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
    /// Frames that were handed to the transport and not confirmed.
    pub unconfirmed_frames: usize,
}

/// A running node. Dropped without [`Handle::close`], the node ends at once.
#[derive(Debug)]
pub struct Handle {
    status: watch::Receiver<Status>,
    commands: mpsc::Sender<Close>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Close {
    deadline: Instant,
    done: oneshot::Sender<Closed>,
}

/// Subscribes and starts the node's task on the current tokio runtime.
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
    let subscription =
        subscribing.map_err(|_| StartError::NoAnswer(SUBSCRIBE_WAIT))?.map_err(StartError::Subscribe)?;
    let replica = Replica::new(config.replica.clone(), store, Arc::clone(&outbox), now(), fastrand::u64(..));
    let (status_sender, status) = watch::channel(replica.status(now()));
    let (commands, commands_receiver) = mpsc::channel(1);
    let driver = Driver {
        replica,
        outbox,
        health: transport.health(),
        transport,
        publish_wait: config.publish_wait,
        publishing: FuturesUnordered::new(),
        again: BTreeMap::new(),
        paused_until: Instant::now(),
        published: 0,
        refused: 0,
        retried: 0,
        status: status_sender,
    };
    let task = tokio::spawn(driver.run(subscription, commands_receiver));
    Ok(Handle { status, commands, task })
}

impl Handle {
    /// The node's state; a new one is shown about every 25 ms.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Sends what is in the outbox, to the deadline, then ends the node and its transport; says what could not be sent.
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

/// A publish that has an answer.
struct Published {
    number: u64,
    to: Destination,
    frame: Bytes,
    result: Result<(), TransportError>,
}

struct Driver<S> {
    replica: Replica<S>,
    outbox: Arc<Outbox>,
    transport: Arc<dyn Transport>,
    health: watch::Receiver<Health>,
    publish_wait: Duration,
    publishing: FuturesUnordered<BoxFuture<'static, Published>>,
    /// Frames to publish again, by the order in which they were made.
    again: BTreeMap<u64, (Destination, Bytes)>,
    /// A transport that refuses at once while it calls itself connected is not asked in a tight loop.
    paused_until: Instant,
    published: u64,
    refused: u64,
    retried: u64,
    status: watch::Sender<Status>,
}

/// Resolves when the caller of a close that is under way went away.
async fn given_up(closing: &mut Option<Close>) {
    match closing {
        Some(close) => close.done.closed().await,
        None => std::future::pending().await,
    }
}

/// The receiving side: open, or being opened again.
enum Receiving {
    Open(Box<dyn Subscription>),
    Opening(BoxFuture<'static, Result<Box<dyn Subscription>, TransportError>>),
}

/// What woke the task.
enum Event {
    Delivered(Option<Delivery>),
    Opened(Result<Box<dyn Subscription>, TransportError>),
    Published(Published),
    Written,
    HealthChanged,
    Ticked,
    Close(Option<Close>),
}

impl<S: Store> Driver<S> {
    async fn run(mut self, subscription: Box<dyn Subscription>, mut commands: mpsc::Receiver<Close>) {
        let mut receiving = Receiving::Open(subscription);
        let mut backoff = Backoff::new(REOPEN_WAIT, REOPEN_WAIT_MAX);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut closing: Option<Close> = None;
        loop {
            let connected = self.health.borrow_and_update().can_publish();
            if connected && Instant::now() >= self.paused_until {
                self.fill_window();
            }
            if let Some(close) =
                closing.take_if(|close| self.is_drained() || Instant::now() >= close.deadline)
            {
                return self.end(close).await;
            }
            let has_room = connected && self.has_room();
            let event = tokio::select! {
                event = receiving.next() => event,
                Some(published) = self.publishing.next() => Event::Published(published),
                () = self.outbox.filled(), if has_room => Event::Written,
                Ok(()) = self.health.changed() => Event::HealthChanged,
                _ = ticks.tick() => Event::Ticked,
                close = commands.recv(), if closing.is_none() => Event::Close(close),
                // Whoever closed the node does not wait for it any more.
                () = given_up(&mut closing) => Event::Close(None),
            };
            match event {
                Event::Delivered(Some(delivery)) => {
                    backoff.reset();
                    self.replica.handle(now(), delivery.frame);
                    delivery.ack.done();
                }
                Event::Delivered(None) => receiving = self.reopen(&mut backoff),
                Event::Opened(Ok(subscription)) => receiving = Receiving::Open(subscription),
                Event::Opened(Err(error)) => {
                    self.note_fatal(&error);
                    receiving = self.reopen(&mut backoff);
                }
                Event::Published(published) => self.on_published(published),
                Event::Ticked => {
                    self.replica.tick(now());
                    self.show_status();
                }
                Event::Written | Event::HealthChanged => {}
                Event::Close(Some(close)) => closing = Some(close),
                Event::Close(None) => {
                    let (done, _) = oneshot::channel();
                    return self.end(Close { deadline: Instant::now(), done }).await;
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        self.publishing.len() < self.transport.window().max(1)
    }

    fn is_drained(&self) -> bool {
        let sends_nothing_more = self.replica.failure().is_some() || !self.replica.has_unsent();
        self.publishing.is_empty() && self.again.is_empty() && sends_nothing_more
    }

    /// Publishes while there is room: first what has to go again, then what the replica has.
    fn fill_window(&mut self) {
        while self.has_room() {
            let next = match self.again.pop_first() {
                Some((number, (to, frame))) => Some((number, to, frame)),
                None => self.replica.poll(now()).map(|(to, frame)| {
                    self.published += 1;
                    (self.published, to, frame)
                }),
            };
            let Some((number, to, frame)) = next else { return };
            self.publish(number, to, frame);
        }
    }

    fn publish(&mut self, number: u64, to: Destination, frame: Bytes) {
        let transport = Arc::clone(&self.transport);
        let wait = self.publish_wait;
        self.publishing.push(Box::pin(async move {
            let publishing = tokio::time::timeout(wait, transport.publish(to.clone(), frame.clone()));
            let result = publishing.await.unwrap_or_else(|_| {
                Err(TransportError::Unavailable { reason: format!("no answer to a publish within {wait:?}") })
            });
            Published { number, to, frame, result }
        }));
    }

    fn on_published(&mut self, published: Published) {
        match published.result {
            Ok(()) => {}
            Err(TransportError::Unavailable { .. }) => {
                self.retried += 1;
                self.paused_until = Instant::now() + PAUSE;
                self.again.insert(published.number, (published.to, published.frame));
            }
            // Lost like any frame: peers find the gap, or ask again.
            Err(error @ (TransportError::Unroutable { .. } | TransportError::Refused { .. })) => {
                self.refused += 1;
                tracing::debug!(%error, "a frame was not taken");
            }
            Err(error) => self.note_fatal(&error),
        }
    }

    /// Opens the subscription again after a wait, which grows until a frame is delivered.
    fn reopen(&self, backoff: &mut Backoff) -> Receiving {
        let wait = backoff.next().unwrap_or(REOPEN_WAIT_MAX);
        let transport = Arc::clone(&self.transport);
        Receiving::Opening(Box::pin(async move {
            tokio::time::sleep(wait).await;
            let subscribing = tokio::time::timeout(SUBSCRIBE_WAIT, transport.subscribe()).await;
            subscribing.unwrap_or_else(|_| {
                Err(TransportError::Unavailable {
                    reason: format!("no answer to a subscribe within {SUBSCRIBE_WAIT:?}"),
                })
            })
        }))
    }

    fn note_fatal(&mut self, error: &TransportError) {
        if let TransportError::Fatal { reason } = error {
            self.replica.fail(Failure::Transport { reason: reason.clone() });
        }
    }

    fn show_status(&self) {
        let mut status = self.replica.status(now());
        status.counters.publishes_refused = self.refused;
        status.counters.publishes_retried = self.retried;
        self.status.send_replace(status);
    }

    async fn end(self, close: Close) {
        let unconfirmed_frames = self.publishing.len() + self.again.len();
        let unsent_records = self.outbox.stats().records;
        match tokio::time::timeout(CLOSE_WAIT, self.transport.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the transport did not end cleanly"),
            Err(_) => tracing::warn!("the transport did not end within {CLOSE_WAIT:?}"),
        }
        self.show_status();
        // Nobody listens where the handle was dropped.
        let _ = close.done.send(Closed { unsent_records, unconfirmed_frames });
    }
}

impl Receiving {
    async fn next(&mut self) -> Event {
        match self {
            Self::Open(subscription) => Event::Delivered(subscription.next().await),
            Self::Opening(opening) => Event::Opened(opening.await),
        }
    }
}

#[cfg(test)]
mod tests;
