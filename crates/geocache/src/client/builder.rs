//! Configures a client of regions that replicate by themselves; everything is checked once, at `build`.

use std::{fmt, sync::Arc, time::Duration};

use geo::{Prober, RegionId, Router};
use resilience::{CircuitBreaker, RetryBudget};
use tokio::runtime::Handle;

use super::{
    Endpoint, GeoClient,
    route::{Doubts, Hedge, Limits, Routed, Table, hedge::Hedging, region::Region},
};
use crate::{cluster::GeoCluster, error::BuildError, node::GeoCache, value::Codec, write::TimeToLive};

/// How long a breaker of a node of this process stays open: asking such a node costs nothing, so there is nobody to spare.
const LOCAL_OPEN_WAIT: Duration = Duration::from_millis(100);

/// A breaker's wait grows to this, or to what was set if that is longer.
const OPEN_WAIT_MAX: Duration = Duration::from_secs(60);

/// The longest that a limit or a wait may be.
const TIME_MAX: Duration = Duration::from_secs(24 * 3_600);

/// The most calls in flight that may be asked for.
const IN_FLIGHT_MAX: u32 = 1_000_000;

/// How many regions are probed at the same time.
const PROBES_AT_ONCE: usize = 16;

/// Configures a [`GeoClient`] that sends each call to the closest healthy region; from [`GeoClient::builder`].
#[derive(Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct ClientBuilder {
    from: Option<(String, Option<(f64, f64)>)>,
    targets: Vec<Target>,
    codec: Codec,
    default_ttl: TimeToLive,
    key_bytes_max: usize,
    call_limit: Duration,
    attempt_limit: Duration,
    in_flight_max: u32,
    failures: u32,
    open_wait: Duration,
    fallback_share: f64,
    fallbacks_per_second: f64,
    hedge: Option<Hedge>,
    miss_asks_next: bool,
    require_fresh: bool,
    balance: bool,
    probe_interval: Duration,
    probe_limit: Duration,
    seed: Option<u64>,
}

/// A region as it was given; checked at `build`.
#[derive(Clone)]
struct Target {
    /// The builder's method that gave it.
    field: &'static str,
    region: String,
    degrees: Option<(f64, f64)>,
    endpoint: Arc<dyn Endpoint>,
    /// Whether it is in this process.
    local: bool,
}

impl ClientBuilder {
    pub(super) fn new() -> Self {
        Self {
            from: None,
            targets: Vec::new(),
            codec: Codec::MessagePack,
            default_ttl: TimeToLive::Default,
            key_bytes_max: 250,
            call_limit: Duration::from_secs(2),
            attempt_limit: Duration::from_millis(500),
            in_flight_max: 1_024,
            failures: 3,
            open_wait: Duration::from_secs(5),
            fallback_share: 0.2,
            fallbacks_per_second: 10.0,
            hedge: None,
            miss_asks_next: true,
            require_fresh: false,
            balance: false,
            probe_interval: Duration::from_secs(5),
            probe_limit: Duration::from_secs(1),
            seed: None,
        }
    }

    /// The region that the program runs in, a name of the catalogue ([`geo::catalog`]), by which distances are guessed until round trips
    /// are measured. Default: the region of the first [`node`](Self::node); without one unknown, so that only measured
    /// round trips count.
    pub fn from(mut self, region: impl Into<String>) -> Self {
        self.from = Some((region.into(), None));
        self
    }

    /// As [`from`](Self::from), with latitude and longitude in degrees.
    pub fn from_at(mut self, region: impl Into<String>, latitude: f64, longitude: f64) -> Self {
        self.from = Some((region.into(), Some((latitude, longitude))));
        self
    }

    /// A node of this process as its region's endpoint. Its breaker waits a tenth of a second, and never more than one,
    /// since asking it costs nothing.
    pub fn node(mut self, cache: GeoCache) -> Self {
        let region = cache.region().to_string();
        self.targets.push(Target {
            field: "node",
            region,
            degrees: None,
            endpoint: Arc::new(cache),
            local: true,
        });
        self
    }

    /// Every region of a cluster in this process; see [`GeoCluster::endpoint`]. Measured, they are all as close: which is asked first goes by
    /// distance, and after an outage of that one the client stays with the region that it went to.
    pub fn cluster(mut self, cluster: &GeoCluster) -> Self {
        for (region, endpoint) in cluster.endpoints() {
            let region = region.to_string();
            self.targets.push(Target { field: "cluster", region, degrees: None, endpoint, local: true });
        }
        self
    }

    /// A region and how it is reached. A name that the catalogue does not have is ranked by measured round trips alone.
    pub fn endpoint(mut self, region: impl Into<String>, endpoint: Arc<dyn Endpoint>) -> Self {
        let region = region.into();
        self.targets.push(Target { field: "endpoint", region, degrees: None, endpoint, local: false });
        self
    }

    /// As [`endpoint`](Self::endpoint), with latitude and longitude in degrees.
    pub fn endpoint_at(
        mut self,
        region: impl Into<String>,
        latitude: f64,
        longitude: f64,
        endpoint: Arc<dyn Endpoint>,
    ) -> Self {
        let (region, degrees) = (region.into(), Some((latitude, longitude)));
        self.targets.push(Target { field: "endpoint_at", region, degrees, endpoint, local: false });
        self
    }

    /// How typed values are encoded that this client writes. It reads every codec. Default [`Codec::MessagePack`].
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// How long a value lives that is written without a time of its own. Default: the endpoint's own default.
    pub fn default_ttl(mut self, ttl: impl Into<TimeToLive>) -> Self {
        self.default_ttl = ttl.into();
        self
    }

    /// The longest key taken from callers. Default 250, which is memcached's; at least 1.
    pub fn key_bytes_max(mut self, bytes: usize) -> Self {
        self.key_bytes_max = bytes;
        self
    }

    /// How long a call may take, however many regions it asks. Default 2 s; above zero, at most a day.
    pub fn call_limit(mut self, limit: Duration) -> Self {
        self.call_limit = limit;
        self
    }

    /// How long one region may take to answer before the next is asked. It may get less: its share of what the call has left, as long as
    /// there are others to ask, though never less than a quarter of that. Default 500 ms; above zero, at most a day.
    pub fn attempt_limit(mut self, limit: Duration) -> Self {
        self.attempt_limit = limit;
        self
    }

    /// The most calls of this client in flight to one region; at the bound the next region is asked. Default 1,024; 1 to 1,000,000.
    pub fn in_flight_max(mut self, calls: u32) -> Self {
        self.in_flight_max = calls;
        self
    }

    /// How many failures in a row put a region out. Default 3, at least 1. Beside it, half of the latest hundred calls
    /// that fail do so, once there were 20.
    pub fn failures(mut self, failures: u32) -> Self {
        self.failures = failures;
        self
    }

    /// How long a region that was put out is left alone, the first time; each further time twice as long, up to a minute, unless it
    /// was well in between. Default 5 s, but a tenth of a second for a node of this process; above zero, at most a day.
    pub fn open_wait(mut self, wait: Duration) -> Self {
        self.open_wait = wait;
        self
    }

    /// How many failed calls may be sent to a further region: so many for each call of the last ten seconds, and as many per second of
    /// them as [`fallbacks_per_second`](Self::fallbacks_per_second) says. Passing a region by that is out or full costs none. At the
    /// bound a call that failed is not sent on; it is counted. Default 0.2, from 0 to 1.
    pub fn fallback_share(mut self, share: f64) -> Self {
        self.fallback_share = share;
        self
    }

    /// See [`fallback_share`](Self::fallback_share). Default 10, from 0 to 1,000,000.
    pub fn fallbacks_per_second(mut self, fallbacks: f64) -> Self {
        self.fallbacks_per_second = fallbacks;
        self
    }

    /// Asks a second region as well when the first is slow to answer a read, and takes the answer that comes first; of at most a
    /// tenth of the reads. One in [doubt](super::Doubt) is asked where no other is left, and its answer is flagged; a warming one is
    /// not, nor any in doubt with [`require_fresh`](Self::require_fresh). Default: never.
    pub fn hedge(mut self, hedge: Hedge) -> Self {
        self.hedge = Some(hedge);
        self
    }

    /// Whether a key that is missing at a region that is [warming](super::Doubt::Warming) is asked for at another, within the budget of
    /// fallbacks. Default yes.
    pub fn miss_asks_next(mut self, asks: bool) -> Self {
        self.miss_asks_next = asks;
        self
    }

    /// Whether reads go to regions that are not in [doubt](super::Doubt) first, however far. If all are, the closest answers,
    /// flagged. Default no: the closest answers, flagged.
    pub fn require_fresh(mut self, require: bool) -> Self {
        self.require_fresh = require;
        self
    }

    /// Whether calls are shared among regions as close as the closest, by what is in flight there. A client then may not read at once what
    /// it wrote. Default no.
    pub fn balance(mut self, balance: bool) -> Self {
        self.balance = balance;
        self
    }

    /// The time from one probe of a region to its next, give or take a fifth. Default 5 s; above zero, at most a day.
    pub fn probe_interval(mut self, interval: Duration) -> Self {
        self.probe_interval = interval;
        self
    }

    /// How long a probe may take. Default 1 s; above zero, at most half a day.
    pub fn probe_limit(mut self, limit: Duration) -> Self {
        self.probe_limit = limit;
        self
    }

    /// What draws are made of, so that a run can be repeated. Default: another one for each client.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Checks the settings and begins to probe. No endpoint has to be there yet.
    ///
    /// # Errors
    /// A [`BuildError`] that names the setting; [`BuildError::NoRuntime`] outside a tokio runtime.
    pub fn build(self) -> Result<GeoClient, BuildError> {
        Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
        self.check()?;
        let router = self.router()?;
        let regions = self.targets.iter().map(|target| self.region(target)).collect::<Result<_, _>>()?;
        let budget = RetryBudget::builder()
            .share(self.fallback_share)
            .per_second(self.fallbacks_per_second)
            .build()
            .map_err(|error| match error.field {
                "share" => refused("fallback_share", error.problem),
                _ => refused("fallbacks_per_second", error.problem),
            })?;
        let hedging = self.hedge.map(Hedging::new).transpose();
        let hedging = hedging.map_err(|error| refused("hedge", error.to_string()))?;
        let limits = Limits { call: self.call_limit, attempt: self.attempt_limit, probe: self.probe_limit };
        let doubts = Doubts { miss_asks_next: self.miss_asks_next, require_fresh: self.require_fresh };
        let prober = Prober::builder(router.clone())
            .interval(self.probe_interval)
            // The probe's own limit comes first, so that the breaker hears of it.
            .timeout(self.probe_limit.saturating_mul(2))
            .concurrency(PROBES_AT_ONCE);
        let prober = self.seed.into_iter().fold(prober, geo::ProberBuilder::seed);
        let prober = prober.build().map_err(|error| refused("probe_interval", error.to_string()))?;
        let table = Table::new(router, regions, limits, doubts, budget, hedging);
        let engine = Arc::new(Routed::start(table, prober));
        Ok(GeoClient::of(engine, self.codec, self.default_ttl, self.key_bytes_max))
    }

    fn check(&self) -> Result<(), BuildError> {
        if self.targets.is_empty() {
            return Err(refused("endpoint", "there is no region; give at least one node or endpoint"));
        }
        if matches!(self.codec, Codec::Unknown(_)) {
            let reason = "a number that this program does not know cannot be written; choose another";
            return Err(refused("codec", reason));
        }
        if matches!(self.default_ttl, TimeToLive::For(ttl) if ttl < cache_core::Clock::TICK) {
            let reason = "less than 10 ms is over at once; leave it out for the endpoint's own";
            return Err(refused("default_ttl", reason));
        }
        if self.key_bytes_max == 0 {
            return Err(refused("key_bytes_max", "0 would refuse every key; give at least 1"));
        }
        let times = [
            ("call_limit", self.call_limit, TIME_MAX),
            ("attempt_limit", self.attempt_limit, TIME_MAX),
            ("open_wait", self.open_wait, TIME_MAX),
            ("probe_interval", self.probe_interval, TIME_MAX),
            ("probe_limit", self.probe_limit, TIME_MAX / 2),
        ];
        for (field, time, max) in times {
            if time.is_zero() || time > max {
                return Err(refused(
                    field,
                    format!("{time:?} cannot be used; give more than zero, up to {max:?}"),
                ));
            }
        }
        if !(1..=IN_FLIGHT_MAX).contains(&self.in_flight_max) {
            let reason = format!("{} cannot be used; give 1 to {IN_FLIGHT_MAX}", self.in_flight_max);
            return Err(refused("in_flight_max", reason));
        }
        self.hedge.and_then(Hedge::problem).map_or(Ok(()), |problem| Err(refused("hedge", problem)))
    }

    fn router(&self) -> Result<Router, BuildError> {
        let local = self.targets.iter().find(|target| target.field == "node");
        let from = self.from.clone().or_else(|| local.map(|target| (target.region.clone(), None)));
        let mut router = Router::builder().health_by_caller().balance(self.balance);
        router = match from {
            Some((region, Some((latitude, longitude)))) => router.from_at(region, latitude, longitude),
            Some((region, None)) => router.from(region),
            None => router,
        };
        let mut known: Vec<RegionId> = Vec::with_capacity(self.targets.len());
        for Target { field, region, degrees, .. } in &self.targets {
            let id = RegionId::new(region).map_err(|source| BuildError::Name { field, source })?;
            if known.contains(&id) {
                return Err(refused(field, format!("{id} is given twice; give each region one endpoint")));
            }
            known.push(id);
            router = match degrees {
                Some((latitude, longitude)) => router.region_at(region, *latitude, *longitude),
                None => router.region(region),
            };
        }
        router = self.seed.into_iter().fold(router, geo::Builder::seed);
        router.build().map_err(|error| match error {
            geo::ConfigError::Name { source, .. } => BuildError::Name { field: "from", source },
            geo::ConfigError::Location { field: "from_at", region, source } => {
                refused("from_at", format!("{region}: {source}"))
            }
            geo::ConfigError::Location { region, source, .. } => {
                refused("endpoint_at", format!("{region}: {source}"))
            }
            error => refused("endpoint", error.to_string()),
        })
    }

    fn region(&self, target: &Target) -> Result<Region, BuildError> {
        let Target { field, region, endpoint, local, .. } = target;
        let id = RegionId::new(region).map_err(|source| BuildError::Name { field, source })?;
        let wait = if *local { self.open_wait.min(LOCAL_OPEN_WAIT) } else { self.open_wait };
        let longest = if *local { wait.saturating_mul(10) } else { wait.max(OPEN_WAIT_MAX) };
        let breaker = CircuitBreaker::builder()
            .consecutive_failures(self.failures)
            .open_wait(wait)
            .open_wait_max(longest)
            // Calls and probes end by their limits; a lease need not outlast the longer of them.
            .probe_lease(self.call_limit.max(self.probe_limit).saturating_mul(2));
        let breaker = self.seed.into_iter().fold(breaker, resilience::Builder::seed).build();
        let breaker = breaker.map_err(|error| match error.field {
            "consecutive_failures" => refused("failures", error.problem),
            _ => refused("open_wait", error.problem),
        })?;
        Ok(Region::new(id, Arc::clone(endpoint), breaker, self.in_flight_max))
    }
}

fn refused(field: &'static str, reason: impl Into<String>) -> BuildError {
    BuildError::Setting { field, reason: reason.into() }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let regions: Vec<_> =
            self.targets.iter().map(|target| (&target.region, target.endpoint.address())).collect();
        f.debug_struct("ClientBuilder")
            .field("from", &self.from)
            .field("regions", &regions)
            .finish_non_exhaustive()
    }
}
