//! Calls every region now and then, so that the router knows the way to those that nobody else calls.
//!
//! The async shell around a [`Router`]: it needs a tokio runtime with time. Each region has its own due time, an interval
//! after its last probe began, jittered so that many probers do not fall into step. A probe is a call like any
//! other: a success is a round trip, and failures put a region out, as successes bring it back. One that takes longer than
//! the timeout failed.
//!
//! Invariants: at most `concurrency` probes are under way, and of one region at most one; a probe that is due beyond
//! that waits and is counted as late. Dropping the running future ends all probes, as cancelled calls.

mod config;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    future::{Future, pending},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    task::{AbortHandle, JoinError, JoinSet},
    time::{timeout, timeout_at},
};

pub use config::ProberBuilder;

use crate::{InFlight, RegionId, Router};

/// How late a probe may begin without being counted as late: timers are coarse.
const LATE_AFTER: Duration = Duration::from_millis(100);

/// Probes all regions of a router, including those that are out or drained.
///
/// ```
/// use std::{sync::{Arc, atomic::{AtomicU32, Ordering::Relaxed}}, time::Duration};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let router = geo::Router::builder().from("us-east").region("us-east").region("eu-central").build()?;
/// let prober = geo::Prober::builder(router.clone()).interval(Duration::from_secs(5)).build()?;
/// let probes = prober.probes();
///
/// // Returns when dropped: run it as a task of its own, and abort that.
/// let ping = |region: geo::RegionId| async move {
///     // … call the region here …
///     tokio::time::sleep(Duration::from_millis(if region.as_str() == "us-east" { 2 } else { 88 })).await;
///     Ok::<(), std::io::Error>(())
/// };
/// let _ = tokio::time::timeout(Duration::from_secs(60), prober.run(ping)).await;
/// assert!(probes.succeeded() >= 20);
///
/// let now = tokio::time::Instant::now().into_std();
/// assert_eq!(router.plan(now).first().basis, geo::Basis::Measured);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Prober {
    router: Router,
    interval: Duration,
    jitter: f64,
    timeout: Duration,
    concurrency: usize,
    random: fastrand::Rng,
    counts: Arc<Counts>,
}

/// What a prober has done so far. A clone reads the same counts.
///
/// ```
/// let router = geo::Router::builder().region("eu-central").build()?;
/// let probes = geo::Prober::builder(router).build()?.probes();
/// assert_eq!((probes.begun(), probes.succeeded(), probes.failed(), probes.timed_out()), (0, 0, 0, 0));
/// assert_eq!((probes.panicked(), probes.late()), (0, 0));
/// # Ok::<(), geo::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Probes {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
    panicked: AtomicU64,
    late: AtomicU64,
}

impl Probes {
    /// How many probes have begun.
    pub fn begun(&self) -> u64 {
        self.counts.begun.load(Relaxed)
    }

    /// How many succeeded.
    pub fn succeeded(&self) -> u64 {
        self.counts.succeeded.load(Relaxed)
    }

    /// How many ended with an error, in time.
    pub fn failed(&self) -> u64 {
        self.counts.failed.load(Relaxed)
    }

    /// How many took too long.
    pub fn timed_out(&self) -> u64 {
        self.counts.timed_out.load(Relaxed)
    }

    /// How many panicked; to the router these are failures.
    pub fn panicked(&self) -> u64 {
        self.counts.panicked.load(Relaxed)
    }

    /// How many began later than they were due, since as many as allowed were under way, or the region's last one was.
    pub fn late(&self) -> u64 {
        self.counts.late.load(Relaxed)
    }
}

impl Prober {
    /// Settings to change before building.
    pub fn builder(router: Router) -> ProberBuilder {
        ProberBuilder::new(router)
    }

    /// What it has done so far; to be taken before it runs.
    pub fn probes(&self) -> Probes {
        Probes { counts: Arc::clone(&self.counts) }
    }

    /// Probes until it is dropped; the first probes begin at once.
    ///
    /// `ping` makes one call to a region. It should be what the router's other calls are like, so that their times
    /// compare, and it may be dropped at any `.await`.
    ///
    /// # Cancel safety
    /// Dropping the call drops the probes under way, which count as cancelled.
    ///
    /// # Panics
    /// Outside a tokio runtime, or in one without time; and as `ping` does before it returns its future. One that panics later
    /// is a failure, and is counted.
    pub async fn run<P, F, E>(mut self, ping: P)
    where
        P: Fn(RegionId) -> F + Send,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: 'static,
    {
        let mut due: HashMap<RegionId, Instant> = HashMap::new();
        let mut running = Running::default();
        loop {
            let now = clock_now();
            // Regions may be added to the router while it runs.
            let regions = self.router.regions();
            for region in &regions {
                due.entry(region.clone()).or_insert(now);
            }
            while let Some((region, was_due)) = running.next_due(&due, now, self.concurrency) {
                self.counts.late.fetch_add(u64::from(now - was_due > LATE_AFTER), Relaxed);
                due.insert(region.clone(), now + self.until_next());
                self.begin(region, now, &ping, &mut running);
            }
            let ended = match running.wake(&due, self.concurrency) {
                Some(wake) => timeout_at(wake.into(), running.ended()).await.ok(),
                None => Some(running.ended().await),
            };
            if let Some(ended) = ended {
                self.finish(ended);
            }
        }
    }

    /// An interval, shorter or longer by up to the jitter.
    fn until_next(&mut self) -> Duration {
        self.interval.mul_f64(1.0 + self.jitter * (2.0 * self.random.f64() - 1.0))
    }

    fn begin<P, F, E>(&self, region: RegionId, now: Instant, ping: &P, running: &mut Running)
    where
        P: Fn(RegionId) -> F,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: 'static,
    {
        // The router loses no regions.
        let Ok(call) = self.router.begin(&region, now) else { return };
        self.counts.begun.fetch_add(1, Relaxed);
        let ping = ping(region.clone());
        let limit = self.timeout;
        running.begin(region, call, async move {
            match timeout(limit, ping).await {
                Ok(Ok(())) => Answer::Succeeded,
                Ok(Err(_)) => Answer::Failed,
                Err(_) => Answer::TimedOut,
            }
        });
    }

    fn finish(&self, (call, ended): (InFlight, Result<(Answer, Instant), JoinError>)) {
        let (answer, at) = ended.unwrap_or_else(|_| (Answer::Panicked, clock_now()));
        let count = match answer {
            Answer::Succeeded => &self.counts.succeeded,
            Answer::Failed => &self.counts.failed,
            Answer::TimedOut => &self.counts.timed_out,
            Answer::Panicked => &self.counts.panicked,
        };
        count.fetch_add(1, Relaxed);
        match answer {
            Answer::Succeeded => call.success(at),
            _ => call.failure(at),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Succeeded,
    Failed,
    TimedOut,
    Panicked,
}

/// The probes under way.
#[derive(Default)]
struct Running {
    /// Dropped, it ends them.
    tasks: JoinSet<(Answer, Instant)>,
    calls: HashMap<tokio::task::Id, InFlight>,
    regions: HashSet<RegionId>,
}

impl Running {
    fn begin(
        &mut self,
        region: RegionId,
        call: InFlight,
        probe: impl Future<Output = Answer> + Send + 'static,
    ) {
        // The time is taken in the task, so that it holds no wait for the prober.
        let task: AbortHandle = self.tasks.spawn(async move {
            let answer = probe.await;
            (answer, clock_now())
        });
        self.calls.insert(task.id(), call);
        self.regions.insert(region);
    }

    /// The region that has been due longest, if another probe may begin.
    fn next_due(
        &self,
        due: &HashMap<RegionId, Instant>,
        now: Instant,
        concurrency: usize,
    ) -> Option<(RegionId, Instant)> {
        if self.tasks.len() >= concurrency {
            return None;
        }
        let ready = due.iter().filter(|(region, at)| **at <= now && !self.regions.contains(*region));
        let (region, at) = ready.min_by(|a, b| a.1.cmp(b.1).then_with(|| a.0.cmp(b.0)))?;
        Some((region.clone(), *at))
    }

    /// When the next one is due; never while as many as allowed are under way.
    fn wake(&self, due: &HashMap<RegionId, Instant>, concurrency: usize) -> Option<Instant> {
        if self.tasks.len() >= concurrency {
            return None;
        }
        due.iter().filter(|(region, _)| !self.regions.contains(*region)).map(|(_, at)| *at).min()
    }

    /// Waits for one to end. Given up while it waits, it loses none.
    async fn ended(&mut self) -> (InFlight, Result<(Answer, Instant), JoinError>) {
        loop {
            let Some(ended) = self.tasks.join_next_with_id().await else { return pending().await };
            let (id, answer) = match ended {
                Ok((id, answer)) => (id, Ok(answer)),
                Err(error) => (error.id(), Err(error)),
            };
            if let Some(call) = self.calls.remove(&id) {
                self.regions.remove(call.region());
                return (call, answer);
            }
        }
    }
}

/// The time by tokio's clock, which tests can pause.
fn clock_now() -> Instant {
    tokio::time::Instant::now().into_std()
}
