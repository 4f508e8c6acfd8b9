//! Receiving: one task that keeps the node's queue and a consumer on it, and the subscription that reads it.
//!
//! The subscription reads lapin's stream directly, one task hop less than a queue in between; the broker's prefetch
//! bounds what waits there. The task declares, consumes, acknowledges, and after each loss hands the subscription a new
//! stream. What the subscription had read from the old one is delivered again by the broker, and acknowledgements for it
//! reach nobody.
//!
//! Bindings vanish without a word when somebody deletes the exchange and another node declares it again; so they are
//! declared again from time to time, which costs nothing where they exist.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use lapin::{
    Channel, Event,
    options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    protocol::AMQPSoftError,
    types::FieldTable,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tracing::{debug, warn};

use super::{
    Shared,
    acks::{Acks, Act},
    closed,
    connection::{Dialer, Failure, Line, limited, text},
    error::FaultKind,
    queue::Queue,
    stats::Counters,
    topology::short,
};
use crate::transport::{Delivery, Subscription, TransportError};

/// How often a line is looked at for what makes no event.
const LOOK: Duration = Duration::from_millis(500);

/// How often queue and bindings are declared again.
const ASSERT: Duration = Duration::from_secs(5);

/// A consumer that lived shorter than this is begun again only after the wait of a lost connection.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// A wish to subscribe.
pub(super) struct Subscribe {
    pub(super) reply: oneshot::Sender<Result<RabbitSubscription, TransportError>>,
}

/// One consumer's stream and the record of what was handled of it.
#[derive(Clone)]
struct Feed {
    stream: lapin::Consumer,
    acks: Arc<Acks>,
}

/// The consumer that runs on the present connection.
struct Active {
    channel: Channel,
    acks: Arc<Acks>,
    since: Instant,
}

pub(super) struct Consumer {
    shared: Arc<Shared>,
    dialer: Dialer,
    commands: mpsc::Receiver<Subscribe>,
    closing: watch::Receiver<bool>,
    queue: Queue,
    /// The present subscription's end of the feed.
    subscriber: Option<watch::Sender<Option<Feed>>>,
    active: Option<Active>,
}

impl Consumer {
    pub(super) fn new(
        shared: Arc<Shared>,
        dialer: Dialer,
        commands: mpsc::Receiver<Subscribe>,
        closing: watch::Receiver<bool>,
    ) -> Self {
        let queue = Queue::new(shared.clone());
        Self { shared, dialer, commands, closing, queue, subscriber: None, active: None }
    }

    /// Receives until the transport is closed; then deletes the queue and says whether that worked.
    pub(super) async fn run(mut self, mut line: Line) -> Result<(), String> {
        loop {
            let end = match self.resume(&mut line).await {
                Ok(()) => {
                    self.shared.status.up(self.dialer.role());
                    self.serve(&mut line).await
                }
                Err(failure) => Err(failure.reason),
            };
            let Err(reason) = end else {
                return self.finish(line).await;
            };
            let reason = format!("{reason} ({})", line.broker);
            self.shared.status.down(self.dialer.role(), Instant::now().into_std(), reason.clone());
            self.active = None;
            drop(line);
            match self.reconnect(&reason).await {
                Some(next) => line = next,
                None => return Err(self.queue.left(&reason)),
            }
        }
    }

    /// Works on one connection. `Ok` when the transport closes, else why the connection is of no use any more.
    async fn serve(&mut self, line: &mut Line) -> Result<(), String> {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asserted = Instant::now();
        loop {
            tokio::select! {
                biased;
                // What is rarely ready comes first, so that a steady flow of frames cannot hide it.
                () = closed(&mut self.closing) => return Ok(()),
                Some(command) = self.commands.recv() => self.subscribe(line, command).await?,
                () = unsubscribed(&self.subscriber) => self.unsubscribe().await,
                event = line.event() => match event {
                    Some(Event::Error(error)) => return Err(text(&error)),
                    Some(_) => {}
                    None => return Err("the connection ended".to_owned()),
                },
                _ = look.tick() => {
                    if let Some(reason) = line.broken() {
                        return Err(reason);
                    }
                    if self.subscriber.is_some() && asserted.elapsed() >= ASSERT {
                        self.queue.declare(line).await.map_err(|failure| failure.reason)?;
                        asserted = Instant::now();
                    }
                }
                () = acks_changed(&self.active) => self.tell(line).await?,
            }
        }
    }

    /// Begins a subscription in place of the one before.
    async fn subscribe(&mut self, line: &mut Line, command: Subscribe) -> Result<(), String> {
        self.unsubscribe().await;
        let (subscriber, feeds) = watch::channel(None);
        self.subscriber = Some(subscriber);
        match self.resume(line).await {
            Ok(()) => {
                let subscription = RabbitSubscription { shared: self.shared.clone(), feeds, current: None };
                // Nobody waits any more: dropping it ends the subscription.
                let _ = command.reply.send(Ok(subscription));
                Ok(())
            }
            Err(failure) => {
                self.subscriber = None;
                let reason = failure.reason.clone();
                let lasting = failure.kind(|soft| match soft {
                    AMQPSoftError::ACCESSREFUSED | AMQPSoftError::PRECONDITIONFAILED => {
                        FaultKind::Forbidden(self.queue.name().to_owned())
                    }
                    _ => FaultKind::Transient,
                });
                let error = if lasting == FaultKind::Transient {
                    TransportError::Unavailable { reason: reason.clone() }
                } else {
                    let queue = self.queue.name();
                    TransportError::Fatal {
                        reason: format!(
                            "the broker refused the queue {queue:?}: {reason}; give the user configure, write and read \
                             permissions for names that begin with {:?}",
                            self.shared.topology.exchange
                        ),
                    }
                };
                // The channel died with the refusal: a new connection follows; health says so before the caller knows.
                self.shared.status.down(self.dialer.role(), Instant::now().into_std(), reason.clone());
                let _ = command.reply.send(Err(error));
                Err(reason)
            }
        }
    }

    /// Declares the queue and consumes from it for the present subscription, if there is one.
    async fn resume(&mut self, line: &mut Line) -> Result<(), Failure> {
        let Some(subscriber) = &self.subscriber else { return Ok(()) };
        match consume(&self.shared, &mut self.queue, line).await {
            Ok((channel, stream)) => {
                self.queue.worked();
                let acks = Arc::new(Acks::default());
                subscriber.send_replace(Some(Feed { stream, acks: acks.clone() }));
                self.active = Some(Active { channel, acks, since: Instant::now() });
                Ok(())
            }
            Err(failure) => {
                self.queue.failed(&failure, Instant::now().into_std());
                Err(failure)
            }
        }
    }

    /// Tells the broker what was handled; begins again where the broker ended the consumer.
    async fn tell(&mut self, line: &mut Line) -> Result<(), String> {
        let Some(active) = &self.active else { return Ok(()) };
        let ended = active.acks.ended();
        let limit = self.shared.config.operation_timeout;
        let counters = &self.shared.counters;
        let told = limited(limit, "acknowledge", acknowledge(&active.channel, &active.acks, counters)).await;
        match ended {
            None => {
                told.map_err(|failure| failure.reason)?;
                Ok(())
            }
            Some(reason) => {
                counters.consumer_cancels.add(1);
                warn!(reason, "the broker ended the consumer");
                if line.broken().is_some() || active.since.elapsed() < SHORT_LIFE {
                    return Err(format!("the consumer ended: {reason}"));
                }
                self.end_consumer().await;
                self.resume(line).await.map_err(|failure| failure.reason)
            }
        }
    }

    async fn unsubscribe(&mut self) {
        self.subscriber = None;
        self.end_consumer().await;
    }

    /// Closes the consumer's channel, at which the broker takes back what was not acknowledged.
    async fn end_consumer(&mut self) {
        let Some(active) = self.active.take() else { return };
        if let Some(subscriber) = &self.subscriber {
            subscriber.send_replace(None);
        }
        let goodbye = active.channel.close(200, short("OK"));
        if let Ok(Err(error)) = timeout(self.shared.config.operation_timeout, goodbye).await {
            debug!(%error, "closing the consumer's channel");
        }
    }

    /// The next connection, refusing subscriptions meanwhile; `None` when the transport closes.
    async fn reconnect(&mut self, reason: &str) -> Option<Line> {
        let Self { dialer, closing, commands, .. } = self;
        let again = dialer.again(reason);
        tokio::pin!(again);
        loop {
            tokio::select! {
                biased;
                () = closed(closing) => break,
                line = &mut again => return Some(line),
                Some(command) = commands.recv() => {
                    let _ = command.reply.send(Err(TransportError::Unavailable { reason: reason.to_owned() }));
                }
            }
        }
        None
    }

    /// The end: acknowledges what was handled, deletes the queue, closes the connection.
    async fn finish(mut self, mut line: Line) -> Result<(), String> {
        let limit = self.shared.config.close_timeout;
        if let Some(active) = &self.active {
            let telling = acknowledge(&active.channel, &active.acks, &self.shared.counters);
            if let Err(failure) = limited(limit, "acknowledge", telling).await {
                debug!(reason = failure.reason, "acknowledging before the end");
            }
        }
        self.unsubscribe().await;
        let deleted = self.queue.delete(&mut line, limit).await;
        line.close(limit).await;
        deleted
    }
}

/// Begins to consume from the queue, declared first.
async fn consume(
    shared: &Shared,
    queue: &mut Queue,
    line: &mut Line,
) -> Result<(Channel, lapin::Consumer), Failure> {
    queue.declare(line).await?;
    let begin = async {
        let channel = line.connection.create_channel().await?;
        channel.basic_qos(shared.config.prefetch, BasicQosOptions::default()).await?;
        let (name, options) = (short(queue.name()), BasicConsumeOptions::default());
        let stream = channel.basic_consume(name, short(""), options, FieldTable::default()).await?;
        Ok((channel, stream))
    };
    limited(shared.config.operation_timeout, "consume", begin).await
}

async fn acknowledge(channel: &Channel, acks: &Acks, counters: &Counters) -> lapin::Result<()> {
    for act in acks.take() {
        match act {
            Act::AckTo { tag, count } => {
                channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
                counters.acknowledged.add(count);
            }
            Act::Ack(tag) => {
                channel.basic_ack(tag, BasicAckOptions { multiple: false }).await?;
                counters.acknowledged.add(1);
            }
            Act::Requeue(tag) => {
                channel.basic_nack(tag, BasicNackOptions { multiple: false, requeue: true }).await?;
                counters.requeued.add(1);
            }
        }
    }
    Ok(())
}

async fn acks_changed(active: &Option<Active>) {
    match active {
        Some(active) => active.acks.changed().await,
        None => std::future::pending().await,
    }
}

/// Resolves when the subscription was dropped.
async fn unsubscribed(subscriber: &Option<watch::Sender<Option<Feed>>>) {
    match subscriber {
        Some(subscriber) => subscriber.closed().await,
        None => std::future::pending().await,
    }
}

/// The frames for one node; it outlives reconnects and ends with the transport, or with the next subscription.
pub(super) struct RabbitSubscription {
    shared: Arc<Shared>,
    feeds: watch::Receiver<Option<Feed>>,
    current: Option<Feed>,
}

#[async_trait]
impl Subscription for RabbitSubscription {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            let Some(feed) = &mut self.current else {
                self.feeds.changed().await.ok()?;
                self.current.clone_from(&self.feeds.borrow_and_update());
                continue;
            };
            tokio::select! {
                biased;
                next = feed.stream.next() => match next {
                    Some(Ok(delivery)) => {
                        self.shared.counters.received.add(1);
                        self.shared.counters.redelivered.add(u64::from(delivery.redelivered));
                        let ack = feed.acks.hand_out(delivery.delivery_tag);
                        return Some(Delivery { frame: Bytes::from(delivery.data), ack });
                    }
                    Some(Err(error)) => {
                        feed.acks.end(text(&error));
                        self.current = None;
                    }
                    None => {
                        feed.acks.end("cancelled".to_owned());
                        self.current = None;
                    }
                },
                changed = self.feeds.changed() => {
                    changed.ok()?;
                    // Nothing in its place yet: what the old stream still holds may be read meanwhile.
                    if let Some(next) = self.feeds.borrow_and_update().clone() {
                        self.current = Some(next);
                    }
                }
            }
        }
    }
}
