//! Ours: whole nodes in this process over RabbitMQ, one of which writes.
//!
//! The path measured is the whole one: `GeoCache::write` → shard and outbox → driver → frame → RabbitMQ → driver of the
//! other node → merge under the shard's lock → acknowledgement.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use benches::{offer, record};
use geocache::{GeoCache, Stats};
use replication::{
    NodeId, Op, Transport,
    message::Message,
    rabbitmq::{Config, Profile, RabbitMq},
    wire,
};
use tokio::{task::spawn_blocking, time::sleep};

use crate::{
    arrivals::{Arrivals, Lag, Lags},
    probe::Probe,
    usage::{Meter, Usage},
};

/// The writer first.
pub(crate) const REGIONS: [&str; 8] =
    ["us-east", "eu-central", "ap-south", "sa-east", "us-west", "eu-west", "ap-northeast", "ap-southeast"];

/// Distinct keys where nothing else is said: as many as a cache holds by default.
pub(crate) const KEYS: u32 = 100_000;

/// What stands side by side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    /// At most 8.
    pub(crate) nodes: usize,
    /// Distinct keys: more than an outbox holds here, so that nothing coalesces.
    pub(crate) keys: u32,
    pub(crate) value_bytes: usize,
}

impl Setup {
    /// The three nodes and the records that the targets are about.
    pub(crate) const THREE: Self = Self { nodes: 3, keys: KEYS, value_bytes: record::VALUE_BYTES };
}

/// Numbers of keys, each one of them once in every turn, in an order in which neighbours are far apart: what is written was
/// not written in the order of its neighbours in memory.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    count: u64,
    stride: u64,
    next: u64,
}

impl Keys {
    pub(crate) fn new(count: u32) -> Self {
        let count = u64::from(count);
        // The golden section spreads best; a number that shares no divisor with the count reaches all of them.
        let near = (count as f64 * 0.618_034) as u64;
        let stride = (near..).find(|stride| divisor(*stride, count) == 1).unwrap_or(1);
        Self { count, stride, next: 0 }
    }

    pub(crate) fn next(&mut self) -> u32 {
        let number = self.next;
        self.next = (number + self.stride) % self.count;
        u32::try_from(number).expect("it is less than a count of 32 bits")
    }
}

/// The greatest common one.
fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

const MEETING_BOUND: Duration = Duration::from_secs(30);
const STATUS_BOUND: Duration = Duration::from_secs(5);

pub(crate) struct Nodes {
    setup: Setup,
    meter: Meter,
    caches: Vec<GeoCache>,
    probes: Vec<Arc<Probe>>,
    writer: Writer,
}

/// What a flood reached, and what it cost in processor seconds for a million records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speed {
    pub(crate) records_per_s: f64,
    /// This process: all nodes with their client library, or the client library alone.
    pub(crate) nodes_s: Option<f64>,
    pub(crate) broker_s: Option<f64>,
}

impl Speed {
    /// Of so many records in so long, at the cost of `used`.
    pub(crate) fn of(records: u64, took: Duration, used: Usage) -> Self {
        let millions = records as f64 / 1e6;
        let each = |seconds: Option<f64>| seconds.map(|seconds| seconds / millions);
        let records_per_s = records as f64 / took.as_secs_f64();
        Self { records_per_s, nodes_s: each(used.nodes_s), broker_s: each(used.broker_s) }
    }
}

/// What a flood reached, and of what frames it was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flood {
    pub(crate) speed: Speed,
    pub(crate) records_per_frame: f64,
    pub(crate) bytes_per_record: f64,
}

impl Flood {
    /// The bytes of a record in its frame, to the next whole one.
    pub(crate) fn record_bytes(&self) -> usize {
        self.bytes_per_record.round() as usize
    }
}

#[derive(Clone)]
struct Writer {
    cache: GeoCache,
    base: Instant,
    keys: Keys,
    value_bytes: usize,
}

impl Writer {
    /// Writes the next key; the value begins with the time.
    fn write(&mut self) {
        let key = record::key(self.keys.next());
        let now = u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX);
        record::write_sized(&self.cache, &key, now, self.value_bytes)
            .expect("an open cache takes a small value");
    }
}

impl Nodes {
    pub(crate) async fn start(
        url: &str,
        meter: &Meter,
        profile: Profile,
        name: &str,
        setup: Setup,
    ) -> Result<Self> {
        let (mut caches, mut probes) = (Vec::new(), Vec::new());
        for region in &REGIONS[..setup.nodes] {
            let node = NodeId::new(region.parse()?, "bench")?;
            let config = Config::new(node, vec![url.to_owned()]).cache(name).profile(profile);
            let transport = RabbitMq::connect(config).await?;
            let probe = Probe::new(transport);
            let builder = GeoCache::builder().cache(name).capacity(2 * setup.keys as usize).bootstrap(true);
            caches.push(builder.transport(Arc::clone(&probe) as Arc<dyn Transport>).build().await?);
            probes.push(probe);
        }
        let writer = Writer {
            cache: caches[0].clone(),
            base: Instant::now(),
            keys: Keys::new(setup.keys),
            value_bytes: setup.value_bytes,
        };
        let nodes = Self { setup, meter: meter.clone(), caches, probes, writer };
        nodes.met().await?;
        Ok(nodes)
    }

    async fn met(&self) -> Result<()> {
        let has_met = |stats: &Stats| {
            stats.regions.len() == self.setup.nodes - 1
                && stats.regions.iter().all(geocache::RegionStats::is_ready)
        };
        let start = Instant::now();
        while !self.caches.iter().all(|cache| has_met(&cache.stats())) {
            ensure!(
                start.elapsed() < MEETING_BOUND,
                "the nodes did not hear each other within {MEETING_BOUND:?}"
            );
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Writes as fast as the others keep up, until all of them have all of it.
    pub(crate) async fn flood(&mut self, length: Duration) -> Result<Flood> {
        let start = Instant::now();
        self.flood_while(move |_| start.elapsed() < length).await
    }

    /// Writes each key once, as a flood does.
    pub(crate) async fn fill(&mut self) -> Result<Flood> {
        let keys = u64::from(self.setup.keys);
        self.flood_while(move |written| written < keys).await
    }

    async fn flood_while(&mut self, goes_on: impl Fn(u64) -> bool + Send + 'static) -> Result<Flood> {
        let (before, published) = (self.applied(), self.probes[0].published());
        let (mut writer, receivers) = (self.writer.clone(), self.receivers());
        let arrived: Vec<u64> = receivers.iter().map(|arrivals| arrivals.records()).collect();
        let (start, used) = (Instant::now(), self.meter.read());
        let flood = spawn_blocking(move || {
            let least = || receivers.iter().map(|arrivals| arrivals.records()).min().unwrap_or(0);
            (offer::flat_out(goes_on, || writer.write(), least), writer)
        });
        let written;
        (written, self.writer) = flood.await?;
        let mut end = start;
        for (arrivals, before) in self.receivers().iter().zip(arrived) {
            end = end.max(arrivals.reached(before + written).await.with_context(|| self.trouble())?);
        }
        let speed = Speed::of(written, end - start, self.meter.read().since(used));
        self.check(&before, written).await?;
        let now = self.probes[0].published();
        let records = (now.records - published.records) as f64;
        Ok(Flood {
            speed,
            records_per_frame: records / (now.frames - published.frames) as f64,
            bytes_per_record: (now.bytes - published.bytes) as f64 / records,
        })
    }

    /// Writes at a rate, and takes each record's time from before its write until the frame that carried it was applied.
    pub(crate) async fn lag(&mut self, rate: u64, length: Duration) -> Result<Lag> {
        let before = self.applied();
        let receivers = self.receivers();
        let arrived: Vec<u64> = receivers.iter().map(|arrivals| arrivals.records()).collect();
        receivers.iter().for_each(|arrivals| arrivals.keep());
        let mut writer = self.writer.clone();
        let offered = spawn_blocking(move || {
            let mut written = 0;
            let write = || {
                writer.write();
                written += 1;
            };
            (offer::steadily(rate, length, write), written, writer)
        });
        let (written_per_s, written);
        (written_per_s, written, self.writer) = offered.await?;
        let mut lags = Lags::since(self.writer.base)?;
        let mut frames = 0;
        for (arrivals, before) in receivers.iter().zip(arrived) {
            arrivals.reached(before + written).await.with_context(|| self.trouble())?;
            for (came, frame) in arrivals.take_kept() {
                frames += 1;
                let Message::Records { records, .. } = wire::decode(frame)?.message else { continue };
                for record in records {
                    let Op::Put(value) = record.op else { continue };
                    lags.add(came, &value.bytes)?;
                }
            }
        }
        self.check(&before, written).await?;
        Ok(lags.lag(frames, written_per_s))
    }

    /// What the nodes' own counters say of how it went.
    pub(crate) fn trouble(&self) -> String {
        let outbox = self.caches[0].stats().outbox;
        let counts = self.caches.iter().map(|cache| cache.stats().replication);
        let (pulls, syncs) =
            counts.fold((0, 0), |(pulls, syncs), now| (pulls + now.pulls_sent, syncs + now.syncs_started));
        format!("skipped {}, coalesced {}, pulls {pulls}, syncs {syncs}", outbox.skipped, outbox.coalesced)
    }

    pub(crate) async fn close(self) {
        for cache in &self.caches {
            cache.close(Duration::from_secs(5)).await;
        }
    }

    fn receivers(&self) -> Vec<Arc<Arrivals>> {
        self.probes[1..].iter().map(|probe| Arc::clone(&probe.arrivals)).collect()
    }

    fn applied(&self) -> Vec<u64> {
        self.caches[1..].iter().map(|cache| cache.stats().replication.records_applied).collect()
    }

    /// Holds the figure to its terms: both others applied each write, and none was merged with another on the way.
    async fn check(&self, before: &[u64], written: u64) -> Result<()> {
        let has_applied = || self.applied().iter().zip(before).all(|(now, before)| now - before >= written);
        let start = Instant::now();
        // The counters are shown about every 25 ms.
        while !has_applied() {
            if start.elapsed() > STATUS_BOUND {
                let applied = self.applied();
                bail!("{written} records were written, applied are {applied:?} after {before:?}");
            }
            sleep(Duration::from_millis(10)).await;
        }
        let outbox = self.caches[0].stats().outbox;
        ensure!(outbox.skipped == 0 && outbox.coalesced == 0, "not every write was sent: {}", self.trouble());
        Ok(())
    }
}

const _: () = assert!(KEYS as u64 > offer::LEAD);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_comes_once_in_every_turn_and_neighbours_are_far_apart() {
        for count in [1_u32, 10, 10_000] {
            let mut keys = Keys::new(count);
            let turn: Vec<u32> = (0..count).map(|_| keys.next()).collect();
            assert_eq!(keys.next(), turn[0]);
            let mut sorted = turn.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..count));
            let near = turn.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < count / 10).count();
            assert_eq!(near, 0, "of {count}");
        }
    }
}
