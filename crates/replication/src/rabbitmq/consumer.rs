//! Receiving: one task that keeps the node's queue and a consumer on it, and the subscription that reads it.
//!
//! The subscription reads lapin's stream directly, one task hop less than a queue in between; the broker's prefetch
//! bounds what waits there. The task declares, consumes, acknowledges, and after each loss hands the subscription a new
//! stream. What the subscription had read from the old one is delivered again by the broker, and acknowledgements for it
//! reach nobody.
//!
//! With the profile `Stream` the task reads the regions' streams too ([`streams`](super::streams)), each by a consumer of its
//! own; the subscription reads them all.
//!
//! From a classic queue, acknowledgements gather for a few milliseconds, since each costs both sides a few wakes: 1,000 frames
//! a second are 200 acknowledgements a node instead of 1,000. What waits for one meanwhile counts against the prefetch, so
//! where few frames are delivered ahead nothing gathers. Nor from a quorum queue, where gathering was measured and gained nothing.
//!
//! Bindings vanish without a word when somebody deletes the exchange and another node declares it again; so they are
//! declared again from time to time, beside everything else ([`assertion`]).

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use lapin::{
    Channel, Event,
    options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    protocol::AMQPSoftError,
    types::FieldTable,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tracing::{debug, warn};

use super::{
    Shared,
    acks::{Acks, Act},
    assertion::{self, Assertion},
    closed,
    config::{Config, Profile},
    connection::{Dialer, Failure, Line, limited, text},
    dead_letter::{self, Envelope},
    error::{Fault, FaultKind},
    feed::{Feed, Feeds},
    marker,
    permission::Step,
    queue::Queue,
    stats::Counters,
    streams::{self, Event as Streamed, Streams},
    topology::short,
};
use crate::{
    transport::{Delivery, Subscription, TransportError},
    wire::FRAME_BYTES,
};

/// How often a line is looked at for what makes no event.
const LOOK: Duration = Duration::from_millis(500);

/// How often queue and bindings are declared again.
const ASSERT: Duration = Duration::from_secs(5);

/// How long acknowledgements gather.
const GATHER: Duration = Duration::from_millis(5);

/// With fewer frames delivered ahead they do not: what waits for them would hold up the frames behind it.
const GATHER_FRAMES_MIN: u16 = 64;

/// A consumer that lived shorter than this is begun again only after the wait of a lost connection.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// A wish to subscribe.
pub(super) struct Subscribe {
    pub(super) reply: oneshot::Sender<Result<RabbitSubscription, TransportError>>,
}

/// The consumer of the queue that runs on the present connection.
struct Active {
    channel: Channel,
    feed: Feed,
    since: Instant,
}

pub(super) struct Consumer {
    shared: Arc<Shared>,
    dialer: Dialer,
    commands: mpsc::Receiver<Subscribe>,
    closing: watch::Receiver<bool>,
    queue: Queue,
    /// The regions' streams, where the profile has them.
    streams: Option<Streams>,
    /// The present subscription's end of the feeds.
    subscriber: Option<watch::Sender<Vec<Feed>>>,
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
        let streams = Streams::new(&shared);
        Self { shared, dialer, commands, closing, queue, streams, subscriber: None, active: None }
    }

    /// Receives until the transport is closed; then deletes the queue and says whether that worked. From `line`, or from
    /// one that is yet to be made.
    pub(super) async fn run(mut self, mut line: Option<Line>) -> Result<(), String> {
        let mut lost: Option<String> = None;
        loop {
            let mut up = match line.take() {
                Some(line) => line,
                None => match self.reconnect(lost.as_deref()).await {
                    Some(next) => next,
                    None => return lost.map_or(Ok(()), |reason| Err(self.queue.left(&reason))),
                },
            };
            let end = match self.begin(&mut up).await {
                Ok(()) => {
                    self.shared.status.up(self.dialer.role());
                    self.serve(&mut up).await
                }
                Err(failure) => Err(self.fault(&failure, &up).to_string()),
            };
            let Err(reason) = end else {
                return self.finish(up).await;
            };
            self.shared.status.down(self.dialer.role(), Instant::now().into_std(), reason.clone());
            self.active = None;
            self.streams.iter_mut().for_each(Streams::lost);
            drop(up);
            lost = Some(reason);
        }
    }

    /// Works on one connection. `Ok` when the transport closes, else why the connection is of no use any more.
    async fn serve(&mut self, line: &mut Line) -> Result<(), String> {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asserted = Instant::now();
        let mut asserting: Option<Assertion> = None;
        let gathers = gathers(&self.shared.config);
        let mut tell_at: Option<Instant> = None;
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
                    self.look(line).map_err(|failure| self.fault(&failure, line).to_string())?;
                    if self.subscriber.is_some() && asserting.is_none() && asserted.elapsed() >= ASSERT {
                        asserting = Some(assertion::of_queue(&self.shared, &line.channel, self.queue.name()));
                        self.streams.iter_mut().for_each(Streams::assert);
                    }
                }
                done = done(&mut asserting) => {
                    asserting = None;
                    asserted = Instant::now();
                    done.map_err(|failure| self.fault(&failure, line).to_string())?;
                }
                () = acks_changed(&self.active), if tell_at.is_none() => {
                    if gathers && !self.has_ended() {
                        tell_at = Some(Instant::now() + GATHER);
                    } else {
                        self.tell(line).await?;
                    }
                }
                () = sleep_until(tell_at.unwrap_or_else(Instant::now)), if tell_at.is_some() => {
                    tell_at = None;
                    self.tell(line).await?;
                }
                event = streamed(&mut self.streams) => {
                    let taken_in = self.streamed(line, event).await;
                    taken_in.map_err(|failure| self.fault(&failure, line).to_string())?;
                }
            }
        }
    }

    /// Begins a subscription in place of the one before.
    async fn subscribe(&mut self, line: &mut Line, command: Subscribe) -> Result<(), String> {
        self.unsubscribe().await;
        let (subscriber, feeds) = watch::channel(Vec::new());
        self.subscriber = Some(subscriber);
        let begun = match self.resume(line).await {
            Ok(()) => self.first_begun().await,
            failed => failed,
        };
        match begun {
            Ok(()) => {
                let subscription =
                    RabbitSubscription { shared: self.shared.clone(), feeds, current: Feeds::default() };
                // Nobody waits any more: dropping it ends the subscription.
                let _ = command.reply.send(Ok(subscription));
                Ok(())
            }
            Err(failure) => {
                self.subscriber = None;
                let fault = self.fault(&failure, line);
                let reason = fault.to_string();
                // Whoever was told to start without a broker waits for an operator, and so does whoever was overtaken by
                // nodes of another profile since it connected.
                let waits = self.shared.is_dialled || matches!(fault.kind, FaultKind::Profile { .. });
                let error = match fault.lasting() {
                    Some(_) if !waits => TransportError::Fatal { reason: reason.clone() },
                    _ => TransportError::Unavailable { reason: reason.clone() },
                };
                // The channel died with the refusal: a new connection follows; health says so before the caller knows.
                self.shared.status.down(self.dialer.role(), Instant::now().into_std(), reason.clone());
                let _ = command.reply.send(Err(error));
                Err(reason)
            }
        }
    }

    /// What a failure to declare, bind or consume means.
    fn fault(&self, failure: &Failure, line: &Line) -> Fault {
        let queue = self.queue.name();
        let kind = failure.kind(|soft| match soft {
            AMQPSoftError::ACCESSREFUSED => {
                let step = failure.step.unwrap_or(Step::Declare);
                self.shared.forbidden(step, &failure.reason, &format!("queue '{queue}'"))
            }
            // Marker and exchange are declared with the queue.
            AMQPSoftError::PRECONDITIONFAILED if marker::is_blamed(failure, &self.shared.topology) => {
                self.shared.profile_conflict()
            }
            AMQPSoftError::PRECONDITIONFAILED if failure.reason.contains("for exchange '") => {
                FaultKind::Conflict(self.shared.topology.exchange.clone())
            }
            AMQPSoftError::PRECONDITIONFAILED => FaultKind::Queue(queue.to_owned()),
            _ => FaultKind::Transient,
        });
        Fault { kind, broker: line.broker.clone(), reason: failure.reason.clone() }
    }

    /// Begins on a new connection.
    async fn begin(&mut self, line: &mut Line) -> Result<(), Failure> {
        if let Some(streams) = &mut self.streams {
            streams.listen(&line.connection);
        }
        self.resume(line).await
    }

    /// Consumes whatever is not consumed yet, for the present subscription, if there is one.
    async fn resume(&mut self, line: &mut Line) -> Result<(), Failure> {
        if self.subscriber.is_none() {
            return Ok(());
        }
        if self.active.is_none() {
            let consumers = self.streams.as_ref().map_or(1, Streams::consumers);
            let ahead = self.shared.config.frames_ahead_each(consumers);
            match consume(&self.shared, &mut self.queue, line, ahead).await {
                Ok((channel, stream)) => {
                    self.queue.worked();
                    let feed = Feed::new(stream, Arc::default());
                    self.active = Some(Active { channel, feed, since: Instant::now() });
                }
                Err(failure) => {
                    self.queue.failed(&failure, Instant::now().into_std());
                    return Err(failure);
                }
            }
        }
        if let Some(streams) = &mut self.streams {
            streams.begin(&line.connection);
        }
        self.hand_over();
        Ok(())
    }

    /// Waits for the streams that are begun for a new subscription.
    async fn first_begun(&mut self) -> Result<(), Failure> {
        if let Some(streams) = &mut self.streams {
            streams.first_begun().await?;
            self.hand_over();
        }
        Ok(())
    }

    /// Gives the present subscription, if there is one, what is consumed now.
    fn hand_over(&self) {
        let Some(subscriber) = &self.subscriber else { return };
        let queue = self.active.iter().map(|active| active.feed.clone());
        subscriber.send_replace(queue.chain(self.streams.iter().flat_map(Streams::feeds)).collect());
    }

    /// Takes in what happened to the streams.
    async fn streamed(&mut self, line: &mut Line, event: Streamed) -> Result<(), Failure> {
        let Some(streams) = &mut self.streams else { return Ok(()) };
        match event {
            Streamed::Settled => streams.tell().await,
            Streamed::Heard(hello) => {
                if streams.hear(&hello) && self.subscriber.is_some() {
                    streams.begin(&line.connection);
                }
            }
            Streamed::Begun => self.hand_over(),
            Streamed::Failed(failure) => return Err(failure),
        }
        Ok(())
    }

    /// Looks at what makes no event.
    fn look(&mut self, line: &Line) -> Result<(), Failure> {
        if let Some(streams) = &mut self.streams {
            streams.look(&line.connection)?;
            if self.subscriber.is_some() {
                streams.begin(&line.connection);
            }
        }
        Ok(())
    }

    /// Whether the broker ended the consumer, which then has to begin again at once.
    fn has_ended(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.feed.acks.ended().is_some())
    }

    /// Tells the broker what was handled; begins again where the broker ended the consumer.
    async fn tell(&mut self, line: &mut Line) -> Result<(), String> {
        let Some(active) = &self.active else { return Ok(()) };
        let acks = &active.feed.acks;
        let ended = acks.ended();
        let limit = self.shared.config.operation_timeout;
        let counters = &self.shared.counters;
        let told = limited(limit, "acknowledge", acknowledge(&active.channel, acks, counters)).await;
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
                self.resume(line).await.map_err(|failure| self.fault(&failure, line).to_string())
            }
        }
    }

    /// Ends the subscription; what was handled is acknowledged first.
    async fn unsubscribe(&mut self) {
        self.subscriber = None;
        if let Some(active) = &self.active {
            let telling = acknowledge(&active.channel, &active.feed.acks, &self.shared.counters);
            if let Err(failure) = limited(self.shared.config.operation_timeout, "acknowledge", telling).await
            {
                debug!(reason = failure.reason, "acknowledging before the end");
            }
        }
        if let Some(streams) = &mut self.streams {
            streams.stop().await;
        }
        self.end_consumer().await;
    }

    /// Closes the consumer's channel, at which the broker takes back what was not acknowledged.
    async fn end_consumer(&mut self) {
        let Some(active) = self.active.take() else { return };
        if let Some(subscriber) = &self.subscriber {
            subscriber.send_replace(Vec::new());
        }
        let goodbye = active.channel.close(200, short("OK"));
        if let Ok(Err(error)) = timeout(self.shared.config.operation_timeout, goodbye).await {
            debug!(%error, "closing the consumer's channel");
        }
    }

    /// The next connection, refusing subscriptions meanwhile; `None` when the transport closes.
    async fn reconnect(&mut self, lost: Option<&str>) -> Option<Line> {
        let Self { dialer, closing, commands, shared, .. } = self;
        let role = dialer.role();
        let again = dialer.again(lost);
        tokio::pin!(again);
        loop {
            tokio::select! {
                biased;
                () = closed(closing) => break,
                line = &mut again => return Some(line),
                Some(command) = commands.recv() => {
                    let _ = command.reply.send(Err(shared.unavailable(role)));
                }
            }
        }
        None
    }

    /// The end: acknowledges what was handled, deletes the queue, closes the connection.
    async fn finish(mut self, mut line: Line) -> Result<(), String> {
        self.unsubscribe().await;
        let limit = self.shared.config.close_timeout;
        let deleted = self.queue.delete(&mut line, limit).await;
        if let Err(failure) = marker::leave(&self.shared, &line.connection).await {
            debug!(reason = failure.reason, "the profile's marker may stay");
        }
        line.close(limit).await;
        deleted
    }
}

/// Whether acknowledgements gather: by the frames that the broker delivers ahead, which bytes may bound below the prefetch.
fn gathers(config: &Config) -> bool {
    config.profile == Profile::Fast && config.frames_ahead() >= GATHER_FRAMES_MIN
}

/// Begins to consume from the queue, declared first.
async fn consume(
    shared: &Shared,
    queue: &mut Queue,
    line: &mut Line,
    ahead: u16,
) -> Result<(Channel, lapin::Consumer), Failure> {
    queue.declare(line).await?;
    let begin = async {
        let channel = line.connection.create_channel().await?;
        channel.basic_qos(ahead, BasicQosOptions::default()).await?;
        let (name, options) = (short(queue.name()), BasicConsumeOptions::default());
        let stream = channel.basic_consume(name, short(""), options, FieldTable::default()).await?;
        Ok((channel, stream))
    };
    let begun = limited(shared.config.operation_timeout, "consume", begin).await;
    begun.map_err(|failure| failure.at(Step::Consume))
}

pub(super) async fn acknowledge(channel: &Channel, acks: &Acks, counters: &Counters) -> lapin::Result<()> {
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
            Act::Requeue(tag) if acks.trail().is_some() => {
                // A stream takes nothing back (asking ends the connection); it is read again from there instead.
                channel.basic_ack(tag, BasicAckOptions { multiple: false }).await?;
                counters.requeued.add(1);
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
        Some(active) => active.feed.acks.changed().await,
        None => std::future::pending().await,
    }
}

/// Resolves when the assertion that is under way has ended.
async fn done(asserting: &mut Option<Assertion>) -> Result<(), Failure> {
    match asserting {
        Some(assertion) => assertion.await,
        None => std::future::pending().await,
    }
}

async fn streamed(streams: &mut Option<Streams>) -> Streamed {
    match streams {
        Some(streams) => streams.event().await,
        None => std::future::pending().await,
    }
}

/// Resolves when the subscription was dropped.
async fn unsubscribed(subscriber: &Option<watch::Sender<Vec<Feed>>>) {
    match subscriber {
        Some(subscriber) => subscriber.closed().await,
        None => std::future::pending().await,
    }
}

/// The frames for one node; it outlives reconnects and ends with the transport, or with the next subscription.
pub(super) struct RabbitSubscription {
    shared: Arc<Shared>,
    feeds: watch::Receiver<Vec<Feed>>,
    current: Feeds,
}

#[async_trait]
impl Subscription for RabbitSubscription {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            if self.feeds.has_changed().unwrap_or(false) {
                self.take_over();
            }
            if self.current.is_empty() {
                self.feeds.changed().await.ok()?;
                self.take_over();
                continue;
            }
            tokio::select! {
                biased;
                (place, next) = self.current.next() => match next {
                    Some(Ok(delivery)) => {
                        let counters = &self.shared.counters;
                        counters.received.add(1);
                        counters.redelivered.add(u64::from(delivery.redelivered));
                        counters.received_long.add(u64::from(delivery.data.len() > FRAME_BYTES));
                        let (acks, offset) = (self.current.acks(place), streams::offset(&delivery));
                        let has_gap = acks.trail().zip(offset).is_some_and(|(trail, offset)| trail.hand_out(offset));
                        if has_gap {
                            counters.stream_gaps.add(1);
                            warn!(offset, "a stream does not hold the next frames any more");
                        }
                        let receipt = acks.hand_out(delivery.delivery_tag, offset);
                        let lapin::message::Delivery { exchange, routing_key, properties, data, .. } = delivery;
                        let (frame, envelope) = (Bytes::from(data), Envelope { exchange, routing_key, properties });
                        let ack = dead_letter::ack(&self.shared, receipt, frame.clone(), envelope);
                        return Some(Delivery { frame, ack });
                    }
                    Some(Err(error)) => self.current.remove(place).acks.end(text(&error)),
                    None => self.current.remove(place).acks.end("cancelled".to_owned()),
                },
                changed = self.feeds.changed() => {
                    changed.ok()?;
                    self.take_over();
                }
            }
        }
    }
}

impl RabbitSubscription {
    /// Reads the feeds that were made last. Where there is nothing in their place yet, what the old ones still hold may be
    /// read meanwhile.
    fn take_over(&mut self) {
        let feeds = self.feeds.borrow_and_update();
        if !feeds.is_empty() {
            self.current = Feeds::new(feeds.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeId;

    #[test]
    fn acknowledgements_gather_only_where_many_frames_are_delivered_ahead() {
        let node = NodeId::new("eu-central".parse().unwrap(), "node-1").unwrap();
        let config = Config::new(node, vec!["amqp://localhost".to_owned()]);
        assert!(gathers(&config));
        assert!(!gathers(&config.clone().prefetch(GATHER_FRAMES_MIN - 1)));
        assert!(!gathers(&config.clone().waiting_bytes_max(1 << 20)), "eight frames fit");
        assert!(!gathers(&config.clone().profile(Profile::Durable)));
        assert!(!gathers(&config.profile(Profile::Stream)));
    }
}
