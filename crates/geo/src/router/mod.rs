//! Orders regions by how soon they are likely to answer.
//!
//! A router stands in one place and plans for it: round trips are measured from somewhere, so one router cannot
//! serve two places. Each region's round trip is guessed by distance and then measured. A plan lists healthy regions by
//! that estimate; healthy ones of which nothing is known come after them until they are measured; those on
//! probation come next; drained ones come last, for when nobody else answers; unhealthy ones are left out. If all look
//! unhealthy, the fault may well be on our own side, so the plan still names the best of them, flagged as a last
//! resort: a plan is never empty.
//!
//! The order is looked at once a *round* (a second, unless set otherwise) and at once when health, a drain or the regions
//! change; in between a plan is a view of it, without allocation. The first choice is held on to until another
//! one has been closer by more than 5 ms and 10 % for three rounds. Where several are as close as that, plans share their
//! calls among them by what is in flight; one of whose latest calls more failed than of the others gets none so.
//!
//! It makes no calls itself. The caller says when one begins and how it ends ([`Router::begin`]), or what it measured
//! otherwise ([`Router::observe`]), and who is healthy ([`Router::set_health`], say from a circuit breaker). Failures tell
//! nothing of a round trip, so a region that refuses quickly does not look close. It takes `now` as an argument and
//! owns no clock; with a [seed](Builder::seed), its decisions repeat.
//!
//! A [`Router`] is a handle: clones share one state behind a short lock, under which no code of a caller runs.
//!
//! Invariants: at least one region; each name once; at most [`REGIONS_MAX`].
//!
//! ```
//! use std::time::{Duration, Instant};
//!
//! let now = Instant::now();
//! let router = geo::Router::builder().from("eu-central").region("us-east").region("eu-west").build()?;
//! assert_eq!(router.plan(now).to_string(), "eu-west (28 ms, by distance); us-east (110 ms, by distance)");
//!
//! router.set_health(&"eu-west".parse()?, geo::Health::Unhealthy, now)?;
//! assert_eq!(router.plan(now).to_string(), "us-east (110 ms, by distance)");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod core;
mod explain;
mod flight;
mod health;
mod plan;
mod tally;
#[cfg(feature = "watch")]
mod watch;

#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

pub use config::Builder;
pub use explain::{Explained, Explanation, Reason};
pub use flight::{InFlight, Outcome};
pub use health::Health;
pub use plan::{Candidate, Plan, Standing};
#[cfg(feature = "watch")]
pub use watch::{RegionStatus, Status, Watch};

use self::core::Core;
use crate::{ConfigError, Location, RegionId, UnknownRegion};

/// The most regions a router plans over.
///
/// ```
/// let names = (0..=geo::REGIONS_MAX).map(|n| format!("r{n}"));
/// assert!(names.fold(geo::Router::builder(), |builder, name| builder.region(name)).build().is_err());
/// ```
pub const REGIONS_MAX: usize = 1_024;

/// Orders regions by how soon they are likely to answer, from one place.
///
/// A clone is another handle on the same router.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let mut now = Instant::now();
/// let router = geo::Router::builder().from("us-east").region("us-east").region("eu-central").build()?;
/// for candidate in router.plan(now).iter() {
///     let call = router.begin(&candidate.region, now)?;
///     // … call the region here …
///     now += Duration::from_millis(15);
///     call.success(now);
///     break;
/// }
/// println!("{}", router.explain(now));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Router {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    core: Mutex<Core>,
    #[cfg(feature = "watch")]
    bell: watch::Bell,
}

impl Router {
    /// Settings to change before building.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// A router of a core that has regions.
    fn new(core: Core) -> Self {
        #[cfg(feature = "watch")]
        let bell = watch::Bell::new(core.status());
        let shared = Shared {
            core: Mutex::new(core),
            #[cfg(feature = "watch")]
            bell,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Runs `decide` under the lock, and tells watchers afterwards if something changed that they want to hear of.
    fn with<T>(&self, decide: impl FnOnce(&mut Core) -> T) -> T {
        let mut core = self.shared.core.lock();
        let before = core.version();
        let decided = decide(&mut core);
        if core.version() != before {
            self.tell(core);
        }
        decided
    }

    #[cfg(feature = "watch")]
    #[cold]
    fn tell(&self, core: parking_lot::MutexGuard<'_, Core>) {
        if self.shared.bell.is_heard() {
            let status = core.status();
            // Waking a watcher runs its executor's code.
            drop(core);
            self.shared.bell.ring(status);
        }
    }

    #[cfg(not(feature = "watch"))]
    fn tell(&self, _core: parking_lot::MutexGuard<'_, Core>) {}

    /// Adds a region that came to be known later, healthy and not measured; it is part of the next plan. Without a
    /// location it is ranked by measured round trips alone; [`catalog::find`](crate::catalog::find) may know it.
    ///
    /// # Errors
    /// [`ConfigError::DuplicateRegion`] or [`ConfigError::TooManyRegions`]; the router is as it was.
    pub fn add(&self, region: RegionId, location: Option<Location>) -> Result<(), ConfigError> {
        self.with(|core| core.add(region, location))
    }

    /// The regions, in the order in which they were given.
    pub fn regions(&self) -> Vec<RegionId> {
        self.shared.core.lock().regions().cloned().collect()
    }

    /// The candidates, best first, with a reason each.
    ///
    /// Cheap enough for each request: one short lock, and no allocation but once a round where an older plan still lives.
    pub fn plan(&self, now: Instant) -> Plan {
        self.with(|core| core.plan(now))
    }

    /// The candidates' names, best first, apart from the balance of load: for people and tests.
    ///
    /// ```
    /// let router = geo::Router::builder().from("us-east").region("ap-south").region("eu-central").build()?;
    /// assert_eq!(router.order(std::time::Instant::now())[0].as_str(), "eu-central");
    /// # Ok::<(), geo::ConfigError>(())
    /// ```
    pub fn order(&self, now: Instant) -> Vec<RegionId> {
        self.with(|core| {
            core.ranking(now).candidates.iter().map(|candidate| candidate.region.clone()).collect()
        })
    }

    /// Says that a call to a region begins; what is returned says how it ends.
    ///
    /// # Errors
    /// [`UnknownRegion`] if the router has no such region.
    pub fn begin(&self, region: &RegionId, now: Instant) -> Result<InFlight, UnknownRegion> {
        self.begin_with(region, now, ignore as fn(Outcome))
    }

    /// Says that a call to a region begins, and how its end is passed on, for instance to the permit that a circuit
    /// breaker gave for it.
    ///
    /// `end` is called exactly once, on the thread that ends or drops the call. If it panics, then so does that; where a
    /// panic is already under way, as in any destructor, the process is aborted.
    ///
    /// ```
    /// use std::time::Instant;
    /// use geo::Outcome;
    ///
    /// let (now, failures) = (Instant::now(), std::cell::Cell::new(0));
    /// let router = geo::Router::builder().region("eu-central").build()?;
    /// let count = |outcome| failures.set(failures.get() + u32::from(outcome == Outcome::Failure));
    /// router.begin_with(&"eu-central".parse()?, now, count)?.failure(now);
    /// drop(router.begin_with(&"eu-central".parse()?, now, count)?);
    /// assert_eq!(failures.get(), 1, "a call that is dropped is cancelled");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`UnknownRegion`] if the router has no such region; `end` is dropped without having been called.
    pub fn begin_with<F: FnOnce(Outcome)>(
        &self,
        region: &RegionId,
        now: Instant,
        end: F,
    ) -> Result<InFlight<F>, UnknownRegion> {
        let ticket = self.shared.core.lock().begin(region, now)?;
        Ok(InFlight::new(self.clone(), region.clone(), ticket, end))
    }

    fn end(&self, ticket: flight::Ticket, outcome: Outcome, now: Instant) {
        self.with(|core| core.end(ticket, outcome, now));
    }

    /// How many calls to a region are under way: begun, and neither ended nor dropped.
    ///
    /// # Errors
    /// [`UnknownRegion`] if the router has no such region.
    pub fn in_flight(&self, region: &RegionId) -> Result<u32, UnknownRegion> {
        self.shared.core.lock().in_flight(region)
    }

    /// Takes the round trip of a call that *succeeded* and that was not begun here, as of a heartbeat. It tells of the
    /// way there alone: a region that is out stays so.
    ///
    /// # Errors
    /// [`UnknownRegion`] if the router has no such region.
    pub fn observe(&self, region: &RegionId, rtt: Duration, now: Instant) -> Result<(), UnknownRegion> {
        self.with(|core| core.observe(region, rtt, now))
    }

    /// Says whether a region is healthy, as its circuit breaker sees it. One that goes down loses its measurements: by
    /// the time it is back, the way there may be another.
    ///
    /// Where the router also counts by itself (unless [told otherwise](Builder::health_by_caller)), the worse of the
    /// two holds, and `Healthy` or `Probing` overrules what was counted until then: a region that counting put
    /// out is back by that word. Such a word is needed, or [probes](Self::probe_due): a breaker that stayed closed says
    /// nothing, so those who have one for each region leave the counting to it.
    ///
    /// ```
    /// use std::time::Instant;
    /// use geo::Health;
    ///
    /// let now = Instant::now();
    /// let router = geo::Router::builder().region("us-east").region("eu-central").failures(1).build()?;
    /// let region: geo::RegionId = "us-east".parse()?;
    /// router.begin(&region, now)?.failure(now);
    /// router.set_health(&region, Health::Unhealthy, now)?;
    /// assert_eq!(router.plan(now).left_out(), [region.clone()]);
    /// router.set_health(&region, Health::Healthy, now)?;
    /// assert!(router.plan(now).left_out().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`UnknownRegion`] if the router has no such region.
    pub fn set_health(&self, region: &RegionId, health: Health, now: Instant) -> Result<(), UnknownRegion> {
        self.with(|core| core.set_health(region, health, now))
    }

    /// Says whether a region is drained: still healthy, but to be used only if no other answers.
    ///
    /// # Errors
    /// [`UnknownRegion`] if the router has no such region.
    pub fn drain(&self, region: &RegionId, drained: bool, now: Instant) -> Result<(), UnknownRegion> {
        self.with(|core| core.drain(region, drained, now))
    }

    /// The region that is out since its calls failed and that has been due for a probe longest; asking puts its
    /// next probe off, so that of many callers one tries.
    ///
    /// A region that is out gets no calls by plan, so somebody must try it: a prober (feature `prober`), or now and then
    /// a caller who asks here first and sends the region a call of its own.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// let mut now = Instant::now();
    /// let router = geo::Router::builder().region("us-east").region("eu-central").failures(1).probes(1).build()?;
    /// let region: geo::RegionId = "us-east".parse()?;
    /// router.begin(&region, now)?.failure(now);
    /// assert_eq!(router.plan(now).left_out(), [region.clone()]);
    /// assert_eq!(router.probe_due(now), None);
    ///
    /// now += Duration::from_secs(5);
    /// assert_eq!(router.probe_due(now), Some(region.clone()));
    /// assert_eq!(router.probe_due(now), None, "one probe at a time");
    /// router.begin(&region, now)?.success(now);
    /// assert!(router.plan(now).left_out().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn probe_due(&self, now: Instant) -> Option<RegionId> {
        self.with(|core| core.probe_due(now))
    }

    /// What is known of each region and why it stands where it does, for an operator's eyes.
    pub fn explain(&self, now: Instant) -> Explanation {
        self.with(|core| core.explain(now))
    }

    /// Hears of changes of the first choice, of health, of drains and of the regions.
    ///
    /// Round trips change the first choice when a plan is made, since the router has no clock of its own.
    #[cfg(feature = "watch")]
    pub fn watch(&self, now: Instant) -> Watch {
        let (watch, status) = self.subscribe(now);
        self.shared.bell.ring(status);
        watch.seen()
    }

    /// A watch, and how things stood when it began.
    ///
    /// Both under one lock: a change is told of to those who listen by the time it is made, so that one made between
    /// the status and the subscription would be told to nobody, and the watch would show what was before it.
    #[cfg(feature = "watch")]
    fn subscribe(&self, now: Instant) -> (Watch, watch::Status) {
        self.with(|core| {
            core.ranking(now);
            (self.shared.bell.subscribe(), core.status())
        })
    }
}

/// The end of a call that nobody else wants to hear of.
fn ignore(_: Outcome) {}

/// An estimate as a duration, to the nearest nanosecond; it is not negative, since samples and distances are not.
fn from_ms(ms: f64) -> Duration {
    // The cast saturates, at some centuries.
    Duration::from_nanos((ms * 1e6 + 0.5) as u64)
}
