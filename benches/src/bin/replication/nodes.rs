//! Ours: three whole nodes in this process over RabbitMQ, one of which writes.
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
};

/// The writer first.
const REGIONS: [&str; 3] = ["us-east", "eu-central", "ap-south"];

/// Distinct keys, written in turn: as many as a cache holds by default, and far more than an outbox does here, so that
/// nothing coalesces.
const KEYS: u32 = 100_000;

const MEETING_BOUND: Duration = Duration::from_secs(30);
const STATUS_BOUND: Duration = Duration::from_secs(5);

pub(crate) struct Nodes {
    caches: Vec<GeoCache>,
    probes: Vec<Arc<Probe>>,
    writer: Writer,
}

/// What a flood reached, and what it cost this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speed {
    pub(crate) records_per_s: f64,
    pub(crate) processor_us_per_record: Option<f64>,
}

impl Speed {
    /// Since a moment, and the processor time used by then.
    pub(crate) fn of(records: u64, took: Duration, processor_s_before: Option<f64>) -> Self {
        let records = records as f64;
        let used = offer::processor_seconds().zip(processor_s_before).map(|(now, before)| now - before);
        Self {
            records_per_s: records / took.as_secs_f64(),
            processor_us_per_record: used.map(|seconds| seconds * 1e6 / records),
        }
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
    next: u32,
}

impl Writer {
    /// Writes the next key; the value begins with the time.
    fn write(&mut self) {
        let key = record::key(self.next);
        self.next = (self.next + 1) % KEYS;
        let now = u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX);
        record::write(&self.cache, &key, now).expect("an open cache takes a small value");
    }
}

impl Nodes {
    pub(crate) async fn start(url: &str, profile: Profile, name: &str) -> Result<Self> {
        let (mut caches, mut probes) = (Vec::new(), Vec::new());
        for region in REGIONS {
            let node = NodeId::new(region.parse()?, "bench")?;
            let config = Config::new(node, vec![url.to_owned()]).cache(name).profile(profile);
            let transport = RabbitMq::connect(config).await?;
            let probe = Probe::new(transport);
            let builder = GeoCache::builder().cache(name).capacity(2 * KEYS as usize).bootstrap(true);
            caches.push(builder.transport(Arc::clone(&probe) as Arc<dyn Transport>).build().await?);
            probes.push(probe);
        }
        let writer = Writer { cache: caches[0].clone(), base: Instant::now(), next: 0 };
        let nodes = Self { caches, probes, writer };
        nodes.met().await?;
        Ok(nodes)
    }

    async fn met(&self) -> Result<()> {
        let has_met = |stats: &Stats| {
            stats.regions.len() == REGIONS.len() - 1
                && stats.regions.iter().all(geocache::RegionStats::is_ready)
        };
        let start = Instant::now();
        while !self.caches.iter().all(|cache| has_met(&cache.stats())) {
            ensure!(
                start.elapsed() < MEETING_BOUND,
                "the three nodes did not hear each other within {MEETING_BOUND:?}"
            );
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Writes as fast as the others keep up, until both have all of it.
    pub(crate) async fn flood(&mut self, length: Duration) -> Result<Flood> {
        let (before, published) = (self.applied(), self.probes[0].published());
        let (mut writer, receivers) = (self.writer.clone(), self.receivers());
        let arrived: Vec<u64> = receivers.iter().map(|arrivals| arrivals.records()).collect();
        let (start, processor_s) = (Instant::now(), offer::processor_seconds());
        let flood = spawn_blocking(move || {
            let least = || receivers.iter().map(|arrivals| arrivals.records()).min().unwrap_or(0);
            (offer::flat_out(length, || writer.write(), least), writer)
        });
        let written;
        (written, self.writer) = flood.await?;
        let mut end = start;
        for (arrivals, before) in self.receivers().iter().zip(arrived) {
            end = end.max(arrivals.reached(before + written).await.with_context(|| self.trouble())?);
        }
        let speed = Speed::of(written, end - start, processor_s);
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

const _: () = assert!(KEYS as u64 > 3 * offer::LEAD);
