//! One record's way: from a write to its frame, and from a frame into the store.
//!
//! Two whole nodes share one thread, each with its transport in our hands, so what is timed is all that a node does:
//! check, stamp and store under the shard's lock, outbox, numbers, encoding and ring on one side; decoding, judging,
//! storing and acknowledging on the other; on both the driver's task, once a frame. The bare codec then encodes and
//! decodes the very same frames. What is taken is the thread's processor time, since the thread never waits: what else
//! runs on the machine costs it cache, but not its turn.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use benches::record;
use bytes::Bytes;
use geocache::GeoCache;
use replication::{NodeId, message::Frame, wire};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;

use crate::tap::Tap;

/// Writes between two turns of the writing node's task: the driver's four frames, as under a flood.
const BATCH: usize = 4_096;

/// Keys whose values are compared after each round.
const COMPARED: usize = 1_000;

/// How long the nodes' counters may lag behind what they did.
const STATUS_BOUND: Duration = Duration::from_secs(5);

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Keys that are there, in random order.
    Overwrite,
    /// Keys that were never there, each at the cost of the coldest.
    New,
}

/// What one round took, in microseconds a record, and its frames.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    pub(crate) write_us: f64,
    pub(crate) encode_us: f64,
    pub(crate) apply_us: f64,
    pub(crate) decode_us: f64,
    pub(crate) records_per_frame: f64,
    pub(crate) bytes_per_record: f64,
}

pub(crate) struct Path {
    runtime: Runtime,
    writer: Node,
    reader: Node,
    random: fastrand::Rng,
    /// The number of the next key that was never there.
    next: u32,
    written: u64,
}

struct Node {
    cache: GeoCache,
    tap: Arc<Tap>,
}

impl Node {
    async fn start(region: &str, entries: usize) -> Result<Self> {
        let tap = Arc::new(Tap::new(NodeId::new(region.parse()?, "bench")?));
        let builder = GeoCache::builder().capacity(entries).bootstrap(true);
        let cache = builder.transport(Arc::<Tap>::clone(&tap)).build().await?;
        Ok(Self { cache, tap })
    }
}

impl Path {
    /// Two nodes with so many entries each.
    pub(crate) fn start(entries: usize, seed: u64) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let writer = runtime.block_on(Node::start("us-east", entries))?;
        let reader = runtime.block_on(Node::start("eu-central", entries))?;
        let random = fastrand::Rng::with_seed(seed);
        let mut path = Self { runtime, writer, reader, random, next: 0, written: 0 };
        // Some shards are full before others, so it takes some keys more than entries.
        let full = entries - entries / 1_000;
        while path.writer.cache.stats().entries < full || path.reader.cache.stats().entries < full {
            let keys = path.new_keys(entries / 10);
            let (_, frames) = path.write(&keys)?;
            path.apply(&frames, keys.len())?;
        }
        Ok(path)
    }

    pub(crate) fn round(&mut self, kind: Kind, records: usize) -> Result<Round> {
        let keys = match kind {
            Kind::Overwrite => self.live_keys(records),
            Kind::New => self.new_keys(records),
        };
        let (write, frames) = self.write(&keys)?;
        let decode = decode(&frames)?;
        let encode = encode(&frames)?;
        let apply = self.apply(&frames, keys.len())?;
        self.check(&keys)?;
        let us = |took: Duration| took.as_secs_f64() * 1e6 / keys.len() as f64;
        let bytes: usize = frames.iter().map(Bytes::len).sum();
        Ok(Round {
            write_us: us(write),
            encode_us: us(encode),
            apply_us: us(apply),
            decode_us: us(decode),
            records_per_frame: keys.len() as f64 / frames.len() as f64,
            bytes_per_record: bytes as f64 / keys.len() as f64,
        })
    }

    fn new_keys(&mut self, count: usize) -> Vec<[u8; record::KEY_BYTES]> {
        let first = self.next;
        self.next += count as u32;
        (first..self.next).map(record::key).collect()
    }

    /// Distinct keys that the writing node holds, in random order.
    fn live_keys(&mut self, count: usize) -> Vec<[u8; record::KEY_BYTES]> {
        let mut numbers: Vec<u32> = (0..self.next).collect();
        self.random.shuffle(&mut numbers);
        let keys = numbers.into_iter().map(record::key);
        let is_live = |key: &[u8; record::KEY_BYTES]| self.writer.cache.peek_item(key).is_some();
        keys.filter(is_live).take(count).collect()
    }

    /// Writes the keys; how long it took until the last had left, and the frames.
    fn write(&mut self, keys: &[[u8; record::KEY_BYTES]]) -> Result<(Duration, Vec<Bytes>)> {
        let Node { cache, tap } = &self.writer;
        let written = &mut self.written;
        let start = processor_time();
        self.runtime.block_on(async {
            for batch in keys.chunks(BATCH) {
                for key in batch {
                    *written += 1;
                    record::write(cache, key, *written)?;
                }
                tap.has_published(*written).await?;
            }
            anyhow::Ok(())
        })?;
        Ok((processor_time() - start, tap.take_published()))
    }

    /// Gives the frames to the reading node; how long it took until the last was acknowledged.
    fn apply(&mut self, frames: &[Bytes], records: usize) -> Result<Duration> {
        let tap = &self.reader.tap;
        let frames = frames.to_vec();
        let wanted = self.written;
        ensure!(records > 0 && !frames.is_empty(), "nothing was published");
        let start = processor_time();
        tap.give(frames);
        self.runtime.block_on(tap.has_handled(wanted))?;
        Ok(processor_time() - start)
    }

    /// Holds the figures to their terms: each record left and was applied, none merged with another on the way, and both
    /// nodes hold the same.
    fn check(&self, keys: &[[u8; record::KEY_BYTES]]) -> Result<()> {
        let applied = || self.reader.cache.stats().replication.records_applied;
        let start = Instant::now();
        while applied() < self.written && start.elapsed() < STATUS_BOUND {
            // The counters are shown about every 25 ms.
            self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(5)).await });
        }
        ensure!(applied() == self.written, "{} records were applied, {} written", applied(), self.written);
        let outbox = self.writer.cache.stats().outbox;
        ensure!(outbox.coalesced == 0 && outbox.skipped == 0, "not every write was sent: {outbox:?}");
        for key in keys.iter().rev().take(COMPARED) {
            let [ours, theirs] = [&self.writer, &self.reader].map(|node| node.cache.peek_item(key));
            ensure!(ours.is_some() && ours == theirs, "the nodes differ at a key that was just written");
        }
        Ok(())
    }
}

/// How long the codec takes to decode the frames.
fn decode(frames: &[Bytes]) -> Result<Duration> {
    let frames = frames.to_vec();
    let start = processor_time();
    for frame in frames {
        std::hint::black_box(wire::decode(frame)?);
    }
    Ok(processor_time() - start)
}

/// How long the codec takes to encode the frames from their records.
fn encode(frames: &[Bytes]) -> Result<Duration> {
    let decoded: Vec<Frame> =
        frames.iter().map(|frame| wire::decode(frame.clone())).collect::<Result<_, _>>()?;
    let is_same = decoded.iter().zip(frames).all(|(decoded, frame)| wire::encode(decoded) == frame);
    ensure!(is_same, "the codec gives other bytes than the node");
    let start = processor_time();
    for frame in &decoded {
        std::hint::black_box(wire::encode(frame));
    }
    Ok(processor_time() - start)
}

/// The processor time that this thread has used.
fn processor_time() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    // Neither is ever negative.
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}
