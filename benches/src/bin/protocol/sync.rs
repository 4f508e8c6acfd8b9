//! A full sync between two whole nodes over the in-memory hub, while the source is written to.
//!
//! Each round is a process of its own, so that its memory begins with nothing: this program, run again with
//! [`CHILD`](crate::CHILD). The yardstick of memory is the growth of another such process by one finished store, a node
//! without a transport that holds the same entries.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use benches::{offer, record};
use geocache::{GeoCache, memory::Hub};
use replication::{NodeId, Transport};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::memory;

/// How long the writer runs before the transfer begins.
const LEAD_IN: Duration = Duration::from_millis(500);

/// How long a node may take to become ready, and then to catch up.
const BOUND: Duration = Duration::from_secs(60);

/// Keys whose values are compared in the end.
const COMPARED: u32 = 10_000;

/// What a transfer came to.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Transfer {
    /// From the moment the target was started until it was ready.
    pub(crate) ready_s: f64,
    /// Until it had also applied what was written meanwhile.
    pub(crate) caught_up_s: f64,
    /// The rate that the writer reached in that time.
    pub(crate) written_per_s: f64,
    /// By how much the process had grown before the transfer.
    pub(crate) source_mib: f64,
    /// By how much it had grown at the peak of the transfer and the catching up.
    pub(crate) peak_mib: f64,
    pub(crate) pages: u64,
    pub(crate) pulls: u64,
    pub(crate) syncs: u64,
}

/// By how much this process grows by one store of so many entries.
pub(crate) fn store_mib(entries: u32) -> Result<f64> {
    let before = memory::resident_mib()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cache = runtime.block_on(GeoCache::builder().capacity(room_for(entries)).build())?;
    for number in 0..entries {
        record::write(&cache, &record::key(number), u64::from(number))?;
    }
    ensure!(cache.stats().entries == entries as usize, "a store that has room evicted");
    Ok(memory::resident_mib()? - before)
}

/// Shards fill unevenly.
fn room_for(entries: u32) -> usize {
    entries as usize * 5 / 4
}

/// Transfers so many entries in this process, while `rate` of them a second are overwritten.
pub(crate) fn transfer(entries: u32, rate: u64) -> Result<Transfer> {
    let before_mib = memory::resident_mib()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let hub = Hub::new();
    let source = runtime.block_on(node(&hub, "us-east", entries, true))?;
    fill(&source, entries)?;
    let source_mib = memory::resident_mib()? - before_mib;
    let writer = Writer::start(source.clone(), entries, rate);
    thread::sleep(LEAD_IN);

    memory::forget_peak()?;
    let (start, written) = (Instant::now(), writer.written());
    let target = runtime.block_on(node(&hub, "eu-central", entries, false))?;
    let (ready, caught_up) = runtime.block_on(async {
        tokio::time::timeout(BOUND, target.ready()).await.context("the target did not become ready")??;
        let ready = start.elapsed();
        until(|| is_caught_up(&target), "the target did not catch up").await?;
        anyhow::Ok((ready, start.elapsed()))
    })?;
    let written = writer.written() - written;
    let peak_mib = memory::peak_mib()? - before_mib;
    writer.stop()?;
    runtime.block_on(compare(&source, &target, entries))?;
    let (sent, received) = (source.stats().replication, target.stats().replication);
    Ok(Transfer {
        ready_s: ready.as_secs_f64(),
        caught_up_s: caught_up.as_secs_f64(),
        written_per_s: written as f64 / caught_up.as_secs_f64(),
        source_mib,
        peak_mib,
        pages: sent.pages_sent,
        pulls: received.pulls_sent,
        syncs: received.syncs_started,
    })
}

async fn node(hub: &Hub, region: &str, entries: u32, bootstrap: bool) -> Result<GeoCache> {
    let transport: Arc<dyn Transport> = hub.join(NodeId::new(region.parse()?, "bench")?);
    let builder = GeoCache::builder().capacity(room_for(entries)).bootstrap(bootstrap);
    Ok(builder.transport(transport).build().await?)
}

/// Writes every key once, no faster than the records leave.
fn fill(source: &GeoCache, entries: u32) -> Result<()> {
    for number in 0..entries {
        record::write(source, &record::key(number), u64::from(number))?;
        while u64::from(number) % 1_024 == 0 && source.stats().outbox.records as u64 > offer::LEAD {
            thread::sleep(Duration::from_micros(100));
        }
    }
    let stats = source.stats();
    ensure!(stats.entries == entries as usize, "the source has room for all and holds {}", stats.entries);
    ensure!(stats.outbox.skipped == 0, "the outbox was over its bound: {:?}", stats.outbox);
    Ok(())
}

/// Whether a ready node has applied every record of the source that it knows to exist.
fn is_caught_up(target: &GeoCache) -> bool {
    let stats = target.stats();
    stats.ready
        && !stats.regions.is_empty()
        && stats.regions.iter().all(|region| region.behind_records() == 0)
}

async fn until(reached: impl Fn() -> bool, otherwise: &'static str) -> Result<()> {
    let start = Instant::now();
    while !reached() {
        ensure!(start.elapsed() < BOUND, "{otherwise} within {BOUND:?}");
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Holds the figures to their terms: once nothing is written any more, the target holds what the source holds.
async fn compare(source: &GeoCache, target: &GeoCache, entries: u32) -> Result<()> {
    // Keys from all over: a step that is coprime to any number of entries in use here.
    let keys = || (0..COMPARED.min(entries)).map(|turn| record::key((turn * 7_919) % entries));
    let is_same = || keys().all(|key| source.peek_item(&key) == target.peek_item(&key));
    until(is_same, "the target does not hold what the source holds").await?;
    let held = target.stats().entries;
    ensure!(held == entries as usize, "the target holds {held} entries, the source {entries}");
    Ok(())
}

/// Overwrites random keys at a steady rate, on a thread of its own.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: thread::JoinHandle<()>,
}

impl Writer {
    fn start(cache: GeoCache, entries: u32, rate: u64) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&written));
        let thread = thread::spawn(move || {
            let mut random = fastrand::Rng::with_seed(1);
            let write = || {
                let key = record::key(random.u32(..entries));
                let number = count.fetch_add(1, Ordering::Relaxed);
                record::write(&cache, &key, number).expect("an open cache takes a small value");
            };
            offer::paced(rate, |_| !stopped.load(Ordering::Relaxed), write);
        });
        Self { stop, written, thread }
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        ensure!(self.thread.join().is_ok(), "the writer panicked");
        Ok(())
    }
}
