//! What has arrived at a receiver, and when.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// How long a measurement waits for its last record.
const ARRIVAL_BOUND: Duration = Duration::from_secs(60);

/// A receiver's count, and the frames it keeps while lag is measured: they are looked into afterwards.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    records: AtomicU64,
    log: Mutex<Log>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Log {
    last: Option<Instant>,
    keeps: bool,
    kept: Vec<(Instant, Bytes)>,
}

impl Arrivals {
    /// A frame of so many records was handled, just now.
    pub(crate) fn note(&self, records: u64, frame: Bytes) {
        let now = Instant::now();
        let mut log = self.log.lock();
        log.last = Some(now);
        if log.keeps {
            log.kept.push((now, frame));
        }
        drop(log);
        self.records.fetch_add(records, Ordering::Release);
        self.news.notify_one();
    }

    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Acquire)
    }

    pub(crate) fn keep(&self) {
        self.log.lock().keeps = true;
    }

    pub(crate) fn take_kept(&self) -> Vec<(Instant, Bytes)> {
        let mut log = self.log.lock();
        log.keeps = false;
        std::mem::take(&mut log.kept)
    }

    /// Waits until the count is at least `records`; when the last frame came.
    pub(crate) async fn reached(&self, records: u64) -> Result<Instant> {
        let reached = async {
            while self.records() < records {
                self.news.notified().await;
            }
        };
        if tokio::time::timeout(ARRIVAL_BOUND, reached).await.is_err() {
            bail!("{} of {records} records arrived within {ARRIVAL_BOUND:?}", self.records());
        }
        self.log.lock().last.context("nothing was sent")
    }

    /// Resolves after news. One waiter at a time.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }
}

/// Percentiles of lag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lag {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// The mean, over the frames that carried them.
    pub(crate) records_per_frame: f64,
    /// What the writer kept up with.
    pub(crate) written_per_s: f64,
}

/// Collects the lags of single records.
pub(crate) struct Lags {
    base: Instant,
    nanoseconds: Histogram<u64>,
}

impl Lags {
    /// Records carry the time of their write in nanoseconds since `base`.
    pub(crate) fn since(base: Instant) -> Result<Self> {
        Ok(Self { base, nanoseconds: Histogram::new_with_bounds(1, 600_000_000_000, 3)? })
    }

    /// A record with this value came at this time.
    pub(crate) fn add(&mut self, came: Instant, value: &[u8]) -> Result<()> {
        let stamp = value.first_chunk().context("a value is shorter than the time it should hold")?;
        let written = Duration::from_nanos(u64::from_le_bytes(*stamp));
        let lag = came.saturating_duration_since(self.base + written);
        self.nanoseconds.saturating_record(u64::try_from(lag.as_nanos()).unwrap_or(u64::MAX));
        Ok(())
    }

    pub(crate) fn lag(&self, frames: usize, written_per_s: f64) -> Lag {
        let ms = |quantile| self.nanoseconds.value_at_quantile(quantile) as f64 / 1e6;
        let records_per_frame = self.nanoseconds.len() as f64 / frames.max(1) as f64;
        Lag { p50_ms: ms(0.5), p99_ms: ms(0.99), records_per_frame, written_per_s }
    }
}
