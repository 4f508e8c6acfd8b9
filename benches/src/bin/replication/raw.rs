//! The baseline: the client library alone, doing the broker's part of the same job.
//!
//! One publishing connection with confirms and at most four frames unconfirmed; a topic exchange; a queue a node with the
//! arguments of ours, or one stream that all read, each consumed on a connection of its own, the publisher's own among
//! them, since a node receives its own broadcast too. Nothing is encoded, decoded, numbered, or kept. Floods send one frame
//! of our frames' size over and over, as fast as they are taken or at the pace of ours; at a rate, records accumulate while
//! four frames are unconfirmed, as ours do. What a receiver takes it acknowledges by the rule of ours: from a classic queue
//! gathered for 5 ms, else at once for all that was there.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use benches::offer;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use parking_lot::Mutex;
use replication::{rabbitmq::Profile, wire};
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{Instant as TaskInstant, sleep_until},
};

use crate::{
    arrivals::{Arrivals, Lag, Lags},
    nodes::{Flood, REGIONS, Speed},
    usage::Meter,
};

const WINDOW: usize = 4;
const PREFETCH: u16 = 128;
/// How long acknowledgements gather with the profile `Fast`, as at ours: see `replication::rabbitmq`'s consumer.
const GATHER: Duration = Duration::from_millis(5);
const KEY: &str = "all.us-east.0";
/// What a queue is bound to, and what a stream.
const ALL_KEYS: &str = "all.*.0";

pub(crate) struct Raw {
    channel: Channel,
    exchange: ShortString,
    queues: Vec<ShortString>,
    properties: BasicProperties,
    /// The publisher's own copy first.
    arrivals: Vec<Arc<Arrivals>>,
    /// How many bytes a record has in the frames that are sent now: how receivers count.
    record_bytes: Arc<Mutex<usize>>,
    connections: Vec<Connection>,
    meter: Meter,
}

/// Records that wait for a place in the window.
#[derive(Default)]
struct Waiting {
    bytes: Mutex<Vec<u8>>,
    filled: Notify,
}

impl Waiting {
    fn add(&self, record: &[u8]) {
        let mut bytes = self.bytes.lock();
        let was_empty = bytes.is_empty();
        bytes.extend_from_slice(record);
        drop(bytes);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// What waits, up to `bytes_max`.
    fn take(&self, bytes_max: usize) -> Option<Vec<u8>> {
        let mut bytes = self.bytes.lock();
        let length = bytes_max.min(bytes.len());
        let rest = bytes.split_off(length);
        let taken = std::mem::replace(&mut *bytes, rest);
        Some(taken).filter(|taken| !taken.is_empty())
    }
}

impl Raw {
    /// With as many queues as `nodes`.
    pub(crate) async fn start(
        url: &str,
        meter: &Meter,
        profile: Profile,
        name: &str,
        nodes: usize,
    ) -> Result<Self> {
        let publishing = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = publishing.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let exchange = ShortString::from(format!("geocache.{name}-raw"));
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel
            .exchange_declare(exchange.clone(), ExchangeKind::Topic, options, FieldTable::default())
            .await?;
        let persistence = if profile == Profile::Durable { 2 } else { 1 };
        let mut raw = Self {
            channel,
            exchange,
            queues: Vec::new(),
            properties: BasicProperties::default().with_delivery_mode(persistence),
            arrivals: Vec::new(),
            record_bytes: Arc::new(Mutex::new(1)),
            connections: vec![publishing],
            meter: meter.clone(),
        };
        for index in 0..nodes {
            raw.consume(url, profile, index).await?;
        }
        Ok(raw)
    }

    async fn consume(&mut self, url: &str, profile: Profile, index: usize) -> Result<()> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let is_stream = profile == Profile::Stream;
        let name = if is_stream { "stream".to_owned() } else { index.to_string() };
        let queue = ShortString::from(format!("{}.{name}", self.exchange));
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(queue.clone(), options, queue_arguments(profile)).await?;
        // The same bindings as ours.
        let keys = if is_stream {
            vec![KEY.to_owned()]
        } else {
            vec![ALL_KEYS.to_owned(), format!("region.r{index}.0"), format!("node.r{index}.bench.0")]
        };
        for key in keys {
            let (queue, exchange) = (queue.clone(), self.exchange.clone());
            let options = QueueBindOptions::default();
            channel
                .queue_bind(queue, exchange, ShortString::from(key), options, FieldTable::default())
                .await?;
        }
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let tag = ShortString::from("");
        let options = BasicConsumeOptions::default();
        let mut arguments = FieldTable::default();
        if is_stream {
            arguments.insert("x-stream-offset".into(), AMQPValue::LongString("next".into()));
        }
        let stream = channel.basic_consume(queue.clone(), tag, options, arguments).await?;
        let arrivals = Arc::new(Arrivals::default());
        let (noting, record_bytes) = (Arc::clone(&arrivals), Arc::clone(&self.record_bytes));
        let note = move |data: Vec<u8>| {
            let records = data.len() / *record_bytes.lock();
            noting.note(records as u64, Bytes::from(data));
        };
        if profile == Profile::Fast {
            tokio::spawn(receive_gathering(stream, channel, note));
        } else {
            tokio::spawn(receive(stream, channel, note));
        }
        self.arrivals.push(arrivals);
        if !self.queues.contains(&queue) {
            self.queues.push(queue);
        }
        self.connections.push(connection);
        Ok(())
    }

    /// Sends frames like those of `ours` as fast as the receivers keep up, until all others have all.
    pub(crate) async fn flood(&self, length: Duration, ours: Flood) -> Result<Speed> {
        self.send(length, ours, f64::INFINITY).await
    }

    /// As [`flood`](Self::flood), but no faster than `ours` was.
    pub(crate) async fn keep_pace(&self, length: Duration, ours: Flood) -> Result<Speed> {
        self.send(length, ours, ours.speed.records_per_s).await
    }

    async fn send(&self, length: Duration, ours: Flood, records_per_s: f64) -> Result<Speed> {
        let (per_frame, record_bytes) = (ours.records_per_frame.round() as u64, ours.record_bytes());
        *self.record_bytes.lock() = record_bytes;
        let frame = vec![b'v'; per_frame as usize * record_bytes];
        let before: Vec<u64> = self.receivers().map(|arrivals| arrivals.records()).collect();
        let mut confirms = FuturesUnordered::new();
        let mut frames = 0;
        let (start, used) = (Instant::now(), self.meter.read());
        while start.elapsed() < length {
            let lagging = self.receivers().zip(&before).find(|(arrivals, before)| {
                frames * per_frame + per_frame > arrivals.records() - *before + offer::LEAD
            });
            if let Some((arrivals, _)) = lagging {
                tokio::select! {
                    confirmed = confirms.next(), if !confirms.is_empty() => { confirmed.transpose()?; }
                    () = arrivals.news() => {}
                }
                continue;
            }
            if confirms.len() == WINDOW {
                confirms.next().await.transpose()?;
            }
            let due = start + Duration::from_secs_f64((frames * per_frame) as f64 / records_per_s);
            while Instant::now() < due {
                tokio::select! {
                    confirmed = confirms.next(), if !confirms.is_empty() => { confirmed.transpose()?; }
                    () = sleep_until(due.into()) => {}
                }
            }
            confirms.push(self.publish(&frame));
            frames += 1;
        }
        while confirms.next().await.transpose()?.is_some() {}
        let mut end = start;
        for (arrivals, before) in self.receivers().zip(before) {
            end = end.max(arrivals.reached(before + frames * per_frame).await?);
        }
        Ok(Speed::of(frames * per_frame, end - start, self.meter.read().since(used)))
    }

    /// Offers records of our records' size at a rate, and takes each one's time from before it was offered until its frame
    /// was received.
    pub(crate) async fn lag(&self, rate: u64, length: Duration, ours: Flood) -> Result<Lag> {
        let record_bytes = ours.record_bytes();
        *self.record_bytes.lock() = record_bytes;
        self.receivers().for_each(|arrivals| arrivals.keep());
        let before: Vec<u64> = self.receivers().map(|arrivals| arrivals.records()).collect();
        let base = Instant::now();
        let waiting = Arc::new(Waiting::default());
        let offering = Arc::clone(&waiting);
        let mut offered = spawn_blocking(move || {
            let mut record = vec![b'v'; record_bytes];
            let mut written: u64 = 0;
            let write = || {
                let now = u64::try_from(base.elapsed().as_nanos()).unwrap_or(u64::MAX);
                record[..8].copy_from_slice(&now.to_le_bytes());
                offering.add(&record);
                written += 1;
            };
            (offer::steadily(rate, length, write), written)
        });
        let frame_bytes_max = wire::FRAME_BYTES / record_bytes * record_bytes;
        let mut confirms = FuturesUnordered::new();
        let mut done = None;
        let (written_per_s, written) = loop {
            while confirms.len() < WINDOW
                && let Some(frame) = waiting.take(frame_bytes_max)
            {
                confirms.push(async move { self.publish(&frame).await });
            }
            if let Some(done) = done.filter(|_| confirms.is_empty()) {
                break done;
            }
            tokio::select! {
                confirmed = confirms.next(), if !confirms.is_empty() => { confirmed.transpose()?; }
                () = waiting.filled.notified(), if confirms.len() < WINDOW => {}
                ended = &mut offered, if done.is_none() => done = Some(ended?),
            }
        };
        let mut lags = Lags::since(base)?;
        let mut frames = 0;
        for (arrivals, before) in self.receivers().zip(before) {
            arrivals.reached(before + written).await?;
            for (came, frame) in arrivals.take_kept() {
                frames += 1;
                for record in frame.chunks_exact(record_bytes) {
                    lags.add(came, record)?;
                }
            }
        }
        Ok(lags.lag(frames, written_per_s))
    }

    /// Deletes what was declared, the exchange and the streams of ours among it, which nodes leave behind.
    pub(crate) async fn close(self, ours: &str) -> Result<()> {
        let streams = REGIONS.map(|region| ShortString::from(format!("geocache.{ours}.stream.{region}")));
        // Where there is no such stream, the broker says that it is deleted.
        for queue in self.queues.iter().chain(&streams) {
            self.channel.queue_delete(queue.clone(), QueueDeleteOptions::default()).await?;
        }
        for exchange in [self.exchange.clone(), ShortString::from(format!("geocache.{ours}"))] {
            self.channel.exchange_delete(exchange, ExchangeDeleteOptions::default()).await?;
        }
        for connection in &self.connections {
            connection.close(200, ShortString::from("OK")).await?;
        }
        Ok(())
    }

    fn receivers(&self) -> impl Iterator<Item = &Arc<Arrivals>> {
        self.arrivals[1..].iter()
    }

    async fn publish(&self, frame: &[u8]) -> Result<()> {
        let (exchange, key) = (self.exchange.clone(), ShortString::from(KEY));
        let options = BasicPublishOptions::default();
        let publish = self.channel.basic_publish(exchange, key, options, frame, self.properties.clone());
        match publish.await?.await? {
            Confirmation::Ack(_) => Ok(()),
            other => anyhow::bail!("the broker did not confirm a frame of the baseline: {other:?}"),
        }
    }
}

/// Takes what is there and acknowledges it at once; ends with the connection.
async fn receive(mut stream: Consumer, channel: Channel, note: impl Fn(Vec<u8>)) {
    while let Some(Ok(first)) = stream.next().await {
        let mut next = Some(first);
        let mut last = 0;
        while let Some(delivery) = next {
            last = delivery.delivery_tag;
            note(delivery.data);
            next = stream.next().now_or_never().flatten().and_then(Result::ok);
        }
        if channel.basic_ack(last, BasicAckOptions { multiple: true }).await.is_err() {
            return;
        }
    }
}

/// Takes what comes and acknowledges all of it [`GATHER`] after the first that was not; ends with the connection.
async fn receive_gathering(mut stream: Consumer, channel: Channel, note: impl Fn(Vec<u8>)) {
    let mut last = 0;
    let mut due: Option<TaskInstant> = None;
    loop {
        tokio::select! {
            biased;
            () = sleep_until(due.unwrap_or_else(TaskInstant::now)), if due.is_some() => {
                due = None;
                if channel.basic_ack(last, BasicAckOptions { multiple: true }).await.is_err() {
                    return;
                }
            }
            next = stream.next() => {
                let Some(Ok(delivery)) = next else { return };
                last = delivery.delivery_tag;
                due.get_or_insert_with(|| TaskInstant::now() + GATHER);
                note(delivery.data);
            }
        }
    }
}

/// As a node's queue is declared.
fn queue_arguments(profile: Profile) -> FieldTable {
    if profile == Profile::Stream {
        return stream_arguments();
    }
    let kind = if profile == Profile::Durable { "quorum" } else { "classic" };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
    arguments.insert("x-expires".into(), AMQPValue::LongLongInt(600_000));
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(100_000));
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(64 << 20));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
    arguments
}

/// As a region's stream is declared.
fn stream_arguments() -> FieldTable {
    const BYTES_MAX: i64 = 1 << 30;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(BYTES_MAX));
    arguments.insert("x-max-age".into(), AMQPValue::LongString("86400s".into()));
    arguments.insert("x-stream-max-segment-size-bytes".into(), AMQPValue::LongLongInt(BYTES_MAX / 16));
    arguments
}
