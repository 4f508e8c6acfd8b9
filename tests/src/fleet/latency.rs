//! How long local reads take while the fleet goes through a fault: measured all along, kept by phase.
//!
//! A thread of its own reads as an application would, in bursts, and takes the time of each single read (the two looks at
//! the clock, some 50 ns, are in it). A stop of the whole process falls into one read, and shows in the longest.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use geocache::GeoCache;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::plan::{OWN_KEYS, SHARED_KEYS, own_key};

/// Reads in a burst…
const BURST: usize = 200;
/// …and the time from one burst to the next: 10,000 reads a second.
const PAUSE: Duration = Duration::from_millis(20);

/// How long the reads of a phase took, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// How many reads.
    pub reads: u64,
    /// Half took no longer.
    pub p50_ns: u64,
    /// 99 of 100 took no longer.
    pub p99_ns: u64,
    /// 999 of 1,000 took no longer.
    pub p999_ns: u64,
    /// None took longer.
    pub max_ns: u64,
}

/// What was measured, by the name of the phase, in their order.
type Phases = Vec<(String, Histogram<u64>)>;

/// Reads until it is dropped.
#[derive(Debug)]
pub(super) struct Reader {
    phases: Arc<Mutex<Phases>>,
    ends: Arc<AtomicBool>,
}

impl Reader {
    /// Starts to read the keys of `owner` and those that all regions write, in an order that `seed` decides; the first
    /// phase has the name `start`.
    pub(super) fn start(node: GeoCache, owner: &str, seed: u64) -> anyhow::Result<Self> {
        let phases = Arc::new(Mutex::new(vec![("start".to_owned(), histogram())]));
        let ends = Arc::new(AtomicBool::new(false));
        let shared = (0..SHARED_KEYS).map(|index| format!("all/{index}"));
        let keys: Vec<String> = (0..OWN_KEYS).map(|index| own_key(owner, index)).chain(shared).collect();
        let (at, until) = (Arc::clone(&phases), Arc::clone(&ends));
        thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || read(&node, &keys, seed, &at, &until))?;
        Ok(Self { phases, ends })
    }

    /// Measures under this name from now on.
    pub(super) fn phase(&self, name: String) {
        self.phases.lock().push((name, histogram()));
    }

    /// What was measured, by phase.
    pub(super) fn latencies(&self) -> Vec<(String, Latency)> {
        let phases = self.phases.lock();
        phases.iter().map(|(name, times)| (name.clone(), Latency::of(times))).collect()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

impl Latency {
    fn of(times: &Histogram<u64>) -> Self {
        Self {
            reads: times.len(),
            p50_ns: times.value_at_quantile(0.5),
            p99_ns: times.value_at_quantile(0.99),
            p999_ns: times.value_at_quantile(0.999),
            max_ns: times.max(),
        }
    }
}

fn read(node: &GeoCache, keys: &[String], seed: u64, phases: &Mutex<Phases>, ends: &AtomicBool) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut times = [0; BURST];
    while !ends.load(Ordering::Relaxed) {
        for time in &mut times {
            let key = &keys[random.usize(..keys.len())];
            let start = Instant::now();
            black_box(node.item(key.as_bytes()));
            *time = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        }
        if let Some((_, phase)) = phases.lock().last_mut() {
            for &time in &times {
                phase.saturating_record(time);
            }
        }
        thread::sleep(PAUSE);
    }
}

fn histogram() -> Histogram<u64> {
    // Up to ten minutes, a process that was stopped included.
    Histogram::new_with_bounds(1, 600_000_000_000, 2).expect("the bounds are constants that are in order")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_are_kept_by_phase() {
        let node = GeoCache::builder().build().await.unwrap();
        let reader = Reader::start(node, "local.1", 7).unwrap();
        reader.phase("before".to_owned());
        crate::wait_until("it has read", Duration::from_secs(20), async || {
            reader.latencies()[1].1.reads >= 2 * BURST as u64
        })
        .await;
        let latencies = reader.latencies();
        assert_eq!(latencies[1].0, "before");
        let times = latencies[1].1;
        assert!(0 < times.p50_ns && times.p50_ns <= times.p99_ns && times.p99_ns <= times.max_ns);
    }
}
