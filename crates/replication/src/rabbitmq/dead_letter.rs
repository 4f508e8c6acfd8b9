//! Dead letters: what a node received and could not read, kept at the broker with the reason.
//!
//! A frame that is none, whoever published it, goes to the exchange `geocache-dead.<cache>` and from there into the queue
//! of the same name, with headers that say what was wrong with it:
//!
//! | header | what it holds |
//! |---|---|
//! | `geocache-error` | why the frame was refused |
//! | `geocache-node` | the node that refused it |
//! | `geocache-exchange`, `geocache-routing-key` | where it was published |
//! | `geocache-time-ms` | when it was refused, in milliseconds since the Unix epoch |
//! | `geocache-bytes` | how long it was; the body holds its beginning, up to [`DeadLetters::body_bytes_max`] |
//!
//! The content type and the application's id are those of the original, by which a foreign application is known.
//!
//! # Why this way
//! - **Published by the node itself.** The broker's own dead-lettering knows that a message was rejected, not why.
//! - **Over a connection of its own**, made for the first letter and closed when none came for a while. On the consuming
//!   connection a letter would have the broker hold back acknowledgements while it is short of memory; on the publishing
//!   one a refused letter would end the flow of frames.
//! - **Every node that refuses a broadcast keeps a copy**, with its own name in it: in a rolling upgrade it is just some of
//!   them that cannot read a frame, and those are what an operator looks for. What that costs is bounded by a rate for each
//!   node and by the queue, which all nodes share.
//! - **Exchange and queue are outside the names that federation carries** and are declared with the first letter, so that
//!   a cache without poison has neither.
//!
//! # Invariants
//! - A letter never stops the consumer. Its original is acknowledged once the letter was confirmed or given up, and while
//!   letters hold half of the prefetch, at once. A letter waits at most [`Config::operation_timeout`] for its
//!   confirm, after a connection was made within the limits of any other; [`WAITING_MAX`] letters wait at a time; what is beyond that, or comes within [`RETRY_WAIT`] of a failure, is counted
//!   as lost and dropped.
//! - Each rejected frame is counted once: as dead-lettered, lost, or skipped.
//!
//! [`Config::operation_timeout`]: super::Config::operation_timeout

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use lapin::{
    BasicProperties, Confirmation, Connection, ExchangeKind,
    options::{BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{
    Shared,
    acks::Receipt,
    breaker::Purpose,
    closed,
    config::{problem, within},
    connection::{Blame, Line, limited, open_as, text},
    error::ConfigError,
    rotation::Rotation,
    topology::short,
};
use crate::transport::{Ack, Handled};

/// Letters that wait for the broker at a time.
const WAITING_MAX: usize = 64;

/// After a letter that could not be sent, how long further ones are given up without trying.
const RETRY_WAIT: Duration = Duration::from_secs(5);

/// How long the connection stays open without a letter.
const IDLE: Duration = Duration::from_secs(30);

/// Between two log lines about letters that were lost.
const TOLD: Duration = Duration::from_secs(10);

const MINUTE: Duration = Duration::from_secs(60);

/// Whether, and within which bounds, a node keeps at the broker what it could not read.
///
/// The bounds of the queue are those of the node that declared it first; a queue that an operator made is used as it is.
///
/// ```
/// # use std::time::Duration;
/// use replication::rabbitmq::DeadLetters;
///
/// let few = DeadLetters::default().per_minute(5).keep(Duration::from_secs(3_600));
/// assert!(few != DeadLetters::off());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetters {
    per_minute: u32,
    queue_frames_max: u32,
    queue_bytes_max: u64,
    keep: Duration,
    body_bytes_max: usize,
}

impl Default for DeadLetters {
    fn default() -> Self {
        Self {
            per_minute: 60,
            queue_frames_max: 1_000,
            queue_bytes_max: 16 << 20,
            keep: Duration::from_secs(7 * 86_400),
            body_bytes_max: 64 << 10,
        }
    }
}

impl DeadLetters {
    /// None are kept: what cannot be read is counted and dropped.
    pub fn off() -> Self {
        Self { per_minute: 0, ..Self::default() }
    }

    /// How many letters this node sends in a minute at most; what is rejected beyond is counted alone. Default 60.
    #[must_use]
    pub fn per_minute(mut self, letters: u32) -> Self {
        self.per_minute = letters;
        self
    }

    /// How many letters the queue holds at most, the oldest going first. 1 to 1,000,000. Default 1,000.
    #[must_use]
    pub fn queue_frames_max(mut self, letters: u32) -> Self {
        self.queue_frames_max = letters;
        self
    }

    /// How many bytes of bodies the queue holds at most, the oldest going first. 64 KiB to 1 TiB. Default 16 MiB.
    #[must_use]
    pub fn queue_bytes_max(mut self, bytes: u64) -> Self {
        self.queue_bytes_max = bytes;
        self
    }

    /// How long a letter is kept. 1 s to 30 days. Default 7 days.
    #[must_use]
    pub fn keep(mut self, time: Duration) -> Self {
        self.keep = time;
        self
    }

    /// How much of a frame its letter holds. Up to 1 MiB, and no more than the queue. Default 64 KiB.
    #[must_use]
    pub fn body_bytes_max(mut self, bytes: usize) -> Self {
        self.body_bytes_max = bytes;
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let month = Duration::from_secs(30 * 86_400);
        within("dead_letters_queue_frames_max", self.queue_frames_max, 1, 1_000_000)?;
        within("dead_letters_queue_bytes_max", self.queue_bytes_max, 64 << 10, 1 << 40)?;
        within("dead_letters_keep", self.keep, Duration::from_secs(1), month)?;
        within("dead_letters_body_bytes_max", self.body_bytes_max, 0, 1 << 20)?;
        if self.body_bytes_max as u64 > self.queue_bytes_max {
            let (body, queue) = (self.body_bytes_max, self.queue_bytes_max);
            return Err(problem(
                "dead_letters_body_bytes_max",
                format!("has bodies of {body} bytes and a queue of {queue}"),
            ));
        }
        Ok(())
    }

    fn queue_arguments(&self) -> FieldTable {
        let ttl_ms = i64::try_from(self.keep.as_millis()).unwrap_or(i64::MAX);
        let bytes_max = i64::try_from(self.queue_bytes_max).unwrap_or(i64::MAX);
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(i64::from(self.queue_frames_max)));
        arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(bytes_max));
        arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(ttl_ms));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
        arguments
    }
}

/// What a message carried beside its bytes.
pub(super) struct Envelope {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
}

/// The handle of a delivered frame: acknowledges it, or has it dead-lettered first.
pub(super) fn ack(shared: &Arc<Shared>, receipt: Receipt, frame: Bytes, envelope: Envelope) -> Ack {
    let shared = Arc::clone(shared);
    Ack::judged(move |handled| match handled {
        Handled::Done => receipt.handled(),
        Handled::Rejected { reason } => shared.desk.post(&shared, receipt, &frame, envelope, reason),
    })
}

/// Where rejected frames are handed in; never waits.
pub(super) struct Desk {
    letters: mpsc::Sender<Letter>,
    rate: Mutex<Rate>,
    /// How many letters hold their originals unacknowledged, and how many may.
    holding: Arc<AtomicUsize>,
    holding_max: usize,
}

impl Desk {
    /// A desk, and what is handed in there, for [`Office`].
    pub(super) fn new(settings: &DeadLetters, prefetch: u16) -> (Self, mpsc::Receiver<Letter>) {
        let (letters, waiting) = mpsc::channel(WAITING_MAX);
        let rate = Mutex::new(Rate { per_minute: settings.per_minute, left: 0, ends: None });
        (Self { letters, rate, holding: Arc::default(), holding_max: usize::from(prefetch) / 2 }, waiting)
    }

    fn post(&self, shared: &Shared, receipt: Receipt, frame: &Bytes, envelope: Envelope, reason: String) {
        let counters = &shared.counters;
        counters.rejected.add(1);
        if !self.rate.lock().take(Instant::now()) {
            counters.dead_letters_skipped.add(1);
            receipt.handled();
            return;
        }
        // Copied, so that a letter that waits does not keep a long frame in memory.
        let kept = frame.len().min(shared.config.dead_letters.body_bytes_max);
        let body = Bytes::copy_from_slice(&frame[..kept]);
        let original = self.hold(receipt);
        let letter = Letter { envelope, reason, body, bytes: frame.len(), time: SystemTime::now(), original };
        if self.letters.try_send(letter).is_err() {
            counters.dead_letters_lost.add(1);
        }
    }

    /// The original as the letter keeps it: unacknowledged, unless the consumer needs the place.
    fn hold(&self, receipt: Receipt) -> Option<Original> {
        let original = Original { _receipt: receipt.settled(), holding: Arc::clone(&self.holding) };
        let holding = self.holding.fetch_add(1, Ordering::Relaxed);
        (holding < self.holding_max).then_some(original)
    }
}

/// How many letters may still be sent in the present minute, which begins with its first letter.
#[derive(Debug)]
struct Rate {
    per_minute: u32,
    left: u32,
    ends: Option<Instant>,
}

impl Rate {
    fn take(&mut self, now: Instant) -> bool {
        if self.ends.is_none_or(|ends| now >= ends) {
            (self.left, self.ends) = (self.per_minute, Some(now + MINUTE));
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

/// A frame that was rejected, on its way.
pub(super) struct Letter {
    envelope: Envelope,
    reason: String,
    body: Bytes,
    /// The frame's whole length.
    bytes: usize,
    time: SystemTime,
    original: Option<Original>,
}

/// Acknowledged when dropped, whatever became of the letter: delivered again it would be rejected again.
struct Original {
    _receipt: Receipt,
    holding: Arc<AtomicUsize>,
}

impl Drop for Original {
    fn drop(&mut self) {
        self.holding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sends letters, one after the other, over a connection that it makes when one waits.
pub(super) struct Office {
    shared: Arc<Shared>,
    letters: mpsc::Receiver<Letter>,
    closing: watch::Receiver<bool>,
    name: ShortString,
    rotation: Rotation,
    line: Option<Line>,
    retry: Option<Instant>,
    told: Option<Instant>,
}

impl Office {
    pub(super) fn new(
        shared: Arc<Shared>,
        letters: mpsc::Receiver<Letter>,
        closing: watch::Receiver<bool>,
    ) -> Self {
        let name = short(&format!("geocache-dead.{}", shared.config.cache));
        let rotation = Rotation::new(shared.breakers.of(Purpose::DeadLetters), shared.backoff());
        Self { shared, letters, closing, name, rotation, line: None, retry: None, told: None }
    }

    /// Sends until the transport is closed.
    pub(super) async fn run(mut self) {
        loop {
            let letter = tokio::select! {
                biased;
                () = closed(&mut self.closing) => break,
                letter = self.letters.recv() => letter,
                () = sleep(IDLE), if self.line.is_some() => {
                    self.hang_up().await;
                    continue;
                }
            };
            let Some(letter) = letter else { break };
            self.deliver(letter).await;
        }
        while self.letters.try_recv().is_ok() {
            self.shared.counters.dead_letters_lost.add(1);
        }
        self.hang_up().await;
    }

    async fn deliver(&mut self, letter: Letter) {
        let counters = &self.shared.counters;
        if self.retry.is_some_and(|retry| Instant::now() < retry) {
            counters.dead_letters_lost.add(1);
            return;
        }
        let mut closing = self.closing.clone();
        let sent = tokio::select! {
            biased;
            () = closed(&mut closing) => Err("the transport was closed".to_owned()),
            // Each of its steps has a limit of its own.
            sent = self.send(&letter) => sent,
        };
        match sent {
            Ok(()) => self.shared.counters.dead_lettered.add(1),
            Err(reason) => {
                self.shared.counters.dead_letters_lost.add(1);
                self.retry = Some(Instant::now() + RETRY_WAIT);
                // A connection that failed once is not trusted again; its socket ends with it.
                self.line = None;
                if self.told.is_none_or(|told| told.elapsed() >= TOLD) {
                    self.told = Some(Instant::now());
                    warn!(reason, fault = letter.reason, "a dead letter was lost");
                }
            }
        }
        drop(letter.original);
    }

    async fn send(&mut self, letter: &Letter) -> Result<(), String> {
        if self.line.as_ref().is_none_or(|line| line.broken().is_some()) {
            self.line = None;
            self.line = Some(self.open().await?);
        }
        let Some(channel) = self.line.as_ref().map(|line| line.channel.clone()) else {
            return Err("no connection".to_owned());
        };
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let (name, key) = (self.name.clone(), letter.envelope.routing_key.clone());
        let properties = properties(letter, &self.shared.config.node.to_string());
        let publish = channel.basic_publish(name, key, options, &letter.body, properties);
        let limit = self.shared.config.operation_timeout;
        let confirmation = timeout(limit, async { publish.await?.await }).await;
        match confirmation
            .map_err(|_| format!("not confirmed within {limit:?}"))?
            .map_err(|error| text(&error))?
        {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => Err(format!("no queue is bound to the exchange {:?}", self.name)),
            _ => Err("the broker did not accept it".to_owned()),
        }
    }

    /// A connection to the broker whose turn it is, with exchange and queue declared. Whatever it fails with, the next letter tries
    /// the next broker.
    async fn open(&mut self) -> Result<Line, String> {
        let turn = self.rotation.turn(Instant::now().into_std());
        let opened = match open_as(&self.shared, "dead letters", true, turn.index).await {
            Ok(line) => declare(&self.shared, &self.name, &line.connection).await.map(|()| line),
            Err(fault) => Err(fault.to_string()),
        };
        let now = Instant::now().into_std();
        match opened {
            Ok(line) => {
                self.rotation.connected(turn, now);
                info!(
                    queue = self.name.as_str(),
                    broker = line.broker,
                    "frames that cannot be read are kept"
                );
                Ok(line)
            }
            Err(reason) => {
                self.rotation.failed(turn, now);
                Err(reason)
            }
        }
    }

    async fn hang_up(&mut self) {
        let Some(line) = self.line.take() else { return };
        debug!(broker = line.broker, "closing the dead letters' connection");
        line.close(self.shared.config.close_timeout).await;
    }
}

/// Declares exchange and queue; what is there with other bounds, or may not be declared, is used as it is.
async fn declare(shared: &Shared, name: &ShortString, connection: &Connection) -> Result<(), String> {
    let name = || name.clone();
    let declare = async {
        // On a channel of its own, which a refusal closes.
        let channel = connection.create_channel().await?;
        let (durable, none) = (true, FieldTable::default);
        let options = ExchangeDeclareOptions { durable, ..Default::default() };
        channel.exchange_declare(name(), ExchangeKind::Fanout, options, none()).await?;
        let options = QueueDeclareOptions { durable, ..Default::default() };
        let arguments = shared.config.dead_letters.queue_arguments();
        channel.queue_declare(name(), options, arguments).await?;
        channel.queue_bind(name(), name(), short(""), QueueBindOptions::default(), none()).await?;
        channel.close(200, short("OK")).await
    };
    match limited(shared.config.operation_timeout, "declare the dead letters", declare).await {
        Err(failure) if matches!(failure.blame, Blame::Refused(_)) => {
            warn!(reason = failure.reason, "the dead letters' exchange and queue are used as they are");
            Ok(())
        }
        declared => declared.map_err(|failure| failure.reason),
    }
}

/// The properties of a letter. It outlives a restart of the broker.
fn properties(letter: &Letter, node: &str) -> BasicProperties {
    let Letter { envelope, reason, bytes, time, .. } = letter;
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let text = |text: &str| AMQPValue::LongString(text.into());
    let number = |number: u128| AMQPValue::LongLongInt(i64::try_from(number).unwrap_or(i64::MAX));
    let mut headers = FieldTable::default();
    headers.insert("geocache-error".into(), text(reason));
    headers.insert("geocache-node".into(), text(node));
    headers.insert("geocache-exchange".into(), text(envelope.exchange.as_str()));
    headers.insert("geocache-routing-key".into(), text(envelope.routing_key.as_str()));
    headers.insert("geocache-time-ms".into(), number(since_epoch.as_millis()));
    headers.insert("geocache-bytes".into(), number(*bytes as u128));
    let mut properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_timestamp(since_epoch.as_secs())
        .with_headers(headers);
    if let Some(content_type) = envelope.properties.content_type() {
        properties = properties.with_content_type(content_type.clone());
    }
    if let Some(app_id) = envelope.properties.app_id() {
        properties = properties.with_app_id(app_id.clone());
    }
    properties
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_lets_so_many_letters_through_and_no_more() {
        let mut rate = Rate { per_minute: 2, left: 0, ends: None };
        let start = Instant::now();
        let taken = |rate: &mut Rate, seconds| rate.take(start + Duration::from_secs(seconds));
        assert_eq!([0, 1, 2, 59].map(|second| taken(&mut rate, second)), [true, true, false, false]);
        assert_eq!([60, 61, 62].map(|second| taken(&mut rate, second)), [true, true, false]);
        let mut off = Rate { per_minute: 0, left: 0, ends: None };
        assert!(!off.take(start) && !off.take(start + MINUTE));
    }

    #[test]
    fn wrong_bounds_are_refused_by_name() {
        assert_eq!(DeadLetters::default().check(), Ok(()));
        assert_eq!(DeadLetters::off().check(), Ok(()));
        let letters = DeadLetters::default;
        for (wrong, bound) in [
            (letters().queue_frames_max(0), "queue_frames_max"),
            (letters().queue_bytes_max(1), "queue_bytes_max"),
            (letters().keep(Duration::ZERO), "keep"),
            (letters().body_bytes_max(2 << 20), "body_bytes_max"),
            (letters().queue_bytes_max(64 << 10).body_bytes_max(65 << 10), "body_bytes_max"),
        ] {
            assert_eq!(wrong.check().unwrap_err().field, format!("dead_letters_{bound}"));
        }
    }

    #[test]
    fn a_letter_says_what_was_wrong_where_and_with_whose_message() {
        let envelope = Envelope {
            exchange: "geocache.shop".into(),
            routing_key: "all.0".into(),
            properties: BasicProperties::default()
                .with_content_type("application/json".into())
                .with_app_id("billing".into()),
        };
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let body = Bytes::from_static(b"{}");
        let letter =
            Letter { envelope, reason: "not a frame".to_owned(), body, bytes: 2, time, original: None };
        let properties = properties(&letter, "eu-central/node-1");
        let headers = properties.headers().as_ref().unwrap().inner();
        assert_eq!(headers["geocache-error"], AMQPValue::LongString("not a frame".into()));
        assert_eq!(headers["geocache-node"], AMQPValue::LongString("eu-central/node-1".into()));
        assert_eq!(headers["geocache-exchange"], AMQPValue::LongString("geocache.shop".into()));
        assert_eq!(headers["geocache-routing-key"], AMQPValue::LongString("all.0".into()));
        assert_eq!(headers["geocache-time-ms"], AMQPValue::LongLongInt(1_700_000_000_123));
        assert_eq!(headers["geocache-bytes"], AMQPValue::LongLongInt(2));
        assert_eq!(properties.content_type().as_ref().map(ShortString::as_str), Some("application/json"));
        assert_eq!(properties.app_id().as_ref().map(ShortString::as_str), Some("billing"));
    }
}
