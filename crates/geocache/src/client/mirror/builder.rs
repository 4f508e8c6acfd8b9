//! How a mirrored client is set up.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use geo::RegionId;
use parking_lot::Mutex;
use resilience::{CircuitBreaker, ConfigError, Failover, FailoverBuilder, Journal};
use tokio::sync::{broadcast, watch};

use super::{
    Mirror,
    books::{Books, MAIN, Opening},
    event::WAITING_MAX,
    place::Place,
    record::Record,
    shared::{Settings, Shared},
    task,
};
use crate::{
    client::{Endpoint, GeoClient},
    error::BuildError,
    value::Codec,
    write::TimeToLive,
};

/// Where a server is, and how it is reached.
type Server = (RegionId, Arc<dyn Endpoint>);

/// The longest key that a memcached server takes, in bytes.
const KEY_BYTES_MAX: usize = 250;

/// Settings of a client that keeps several servers alike; begin with [`GeoClient::mirrored`](crate::client::GeoClient::mirrored).
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct MirrorBuilder {
    main: Option<(String, Arc<dyn Endpoint>)>,
    fallback: Option<(String, Arc<dyn Endpoint>)>,
    backups: Vec<(String, Arc<dyn Endpoint>)>,
    codec: Codec,
    default_ttl: Option<Duration>,
    key_bytes_max: usize,
    call_timeout: Duration,
    probe_every: Duration,
    journal: (usize, usize),
    record: usize,
    resync: (usize, u32),
    copies_are_filled: bool,
    failover: FailoverBuilder,
    breaker: resilience::Builder,
}

impl MirrorBuilder {
    pub(crate) fn new() -> Self {
        Self {
            main: None,
            fallback: None,
            backups: Vec::new(),
            codec: Codec::default(),
            default_ttl: None,
            key_bytes_max: KEY_BYTES_MAX,
            call_timeout: Duration::from_secs(1),
            probe_every: Duration::from_secs(1),
            journal: (100_000, 64 << 20),
            record: 100_000,
            resync: (16, 10_000),
            copies_are_filled: false,
            failover: Failover::builder(),
            breaker: CircuitBreaker::builder()
                .open_wait(Duration::from_secs(5))
                .open_wait_max(Duration::from_secs(60)),
        }
    }

    /// The server that leads while all is well. Required.
    pub fn main(mut self, region: impl Into<String>, endpoint: impl Endpoint) -> Self {
        self.main = Some((region.into(), Arc::new(endpoint)));
        self
    }

    /// The server that leads while main is down, and takes a copy of each write meanwhile. Default: the first backup.
    pub fn fallback(mut self, region: impl Into<String>, endpoint: impl Endpoint) -> Self {
        self.fallback = Some((region.into(), Arc::new(endpoint)));
        self
    }

    /// One more server that takes a copy of each write, and answers reads when neither main nor the fallback does. Default: none.
    pub fn backup(mut self, region: impl Into<String>, endpoint: impl Endpoint) -> Self {
        self.backups.push((region.into(), Arc::new(endpoint)));
        self
    }

    /// How typed values are encoded. Default: MessagePack with named fields.
    pub const fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// How long values live that are written without a time to live of their own, at every server. Default: until they are
    /// evicted or removed.
    pub const fn default_ttl(mut self, ttl: Duration) -> Self {
        self.default_ttl = Some(ttl);
        self
    }

    /// The longest key, in bytes. Default 250, as memcached has it.
    pub const fn key_bytes_max(mut self, bytes: usize) -> Self {
        self.key_bytes_max = bytes;
        self
    }

    /// How long one call to a server may take; longer, it counts as failed. Default 1 s, above zero.
    pub const fn call_timeout(mut self, limit: Duration) -> Self {
        self.call_timeout = limit;
        self
    }

    /// The pause between two probes of a server. Default 1 s, above zero.
    pub const fn probe_every(mut self, pause: Duration) -> Self {
        self.probe_every = pause;
        self
    }

    /// How many keys, and bytes of keys and values, are kept for each server that missed them. Default 100,000 and 64 MiB, above zero.
    pub const fn journal(mut self, entries_max: usize, bytes_max: usize) -> Self {
        self.journal = (entries_max, bytes_max);
        self
    }

    /// How many written keys are remembered, which full resyncs go by where a server cannot list its keys. Default 100,000.
    pub const fn record(mut self, keys_max: usize) -> Self {
        self.record = keys_max;
        self
    }

    /// How many keys a resync brings over at once, and per second. Default 16 and 10,000, above zero.
    ///
    /// Each key takes a round trip to its source and one to its target: with 50 ms for each, 16 at once are 160 keys a second, of which a
    /// full copy may take as long as [`resync_patience`](FailoverBuilder::resync_patience) allows. For much content far away, use more.
    pub const fn resync(mut self, at_once: usize, per_second: u32) -> Self {
        self.resync = (at_once, per_second);
        self
    }

    /// Whether the fallback and the backups are known to hold no older value of any key than main when this client begins, as when all
    /// that was ever written went through clients that were closed in time. Default no: until all was copied to one, or it is seen to
    /// begin empty, it is not read and does not lead.
    pub const fn copies_are_filled(mut self, filled: bool) -> Self {
        self.copies_are_filled = filled;
        self
    }

    /// Changes when main is left, and how it is gone back to; [`FailoverBuilder`] states its defaults.
    ///
    /// Whether the fallback is filled is said by [`copies_are_filled`](Self::copies_are_filled), whatever is said here.
    pub fn failover(mut self, change: impl FnOnce(FailoverBuilder) -> FailoverBuilder) -> Self {
        self.failover = change(self.failover);
        self
    }

    /// Changes the breakers, of which each server has one for its copies and for reads as a last link. Default: open after 3 failures in a
    /// row, for 5 s, growing to 60 s.
    pub fn breaker(mut self, change: impl FnOnce(resilience::Builder) -> resilience::Builder) -> Self {
        self.breaker = change(self.breaker);
        self
    }

    /// Asks each server once, and starts the tasks that go on asking. A server that is down does not fail it.
    ///
    /// # Errors
    /// A [`BuildError`] that names the setting that is wrong or missing.
    pub async fn build(mut self) -> Result<GeoClient, BuildError> {
        tokio::runtime::Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
        let places = self.places()?;
        for (field, wrong) in [
            ("call_timeout", self.call_timeout.is_zero()),
            ("probe_every", self.probe_every.is_zero()),
            ("resync", self.resync.0 == 0 || self.resync.1 == 0),
            ("key_bytes_max", self.key_bytes_max == 0),
            ("default_ttl", self.default_ttl.is_some_and(|ttl| ttl.is_zero())),
        ] {
            if wrong {
                return Err(setting(field, "0 is not allowed; use more"));
            }
        }
        let failover = self
            .failover
            .clone()
            .fallback_filled(self.copies_are_filled)
            .build()
            .map_err(|error| refused(&error))?;
        let events = broadcast::Sender::new(WAITING_MAX);
        let mut opened = Vec::new();
        let mut reached = Vec::new();
        for (index, (region, endpoint)) in places.into_iter().enumerate() {
            let breaker = self.breaker.clone().build().map_err(|error| refused(&error))?;
            let journal =
                Journal::bounded(self.journal.0, self.journal.1).map_err(|error| refused(&error))?;
            let stale = index != MAIN && !self.copies_are_filled;
            opened.push(Opening { region: region.clone(), journal, stale });
            reached.push(Place::new(region, endpoint, breaker, self.call_timeout));
        }
        let books = Books::new(failover, opened, Record::bounded(self.record), events.clone());
        let settings = Settings {
            default_ttl: self.default_ttl,
            probe_every: self.probe_every,
            resync_concurrency: self.resync.0,
            resync_keys_per_second: self.resync.1,
        };
        let shared = Arc::new(Shared::new(reached, books, settings, events));
        let first = join_all((0..shared.places.len()).map(|place| shared.ask_pulse(place))).await;
        // In their order: what main remembers of the lead counts before what the fallback does.
        for (place, (fence, pulse)) in first.into_iter().enumerate() {
            shared.heard(place, fence, pulse).await;
        }
        let (alive, ended) = watch::channel(());
        task::start(&shared, &ended);
        let default_ttl = self.default_ttl.map_or(TimeToLive::Never, TimeToLive::For);
        let mirror = Mirror { shared, tasks: Arc::new(Mutex::new(Some(alive))) };
        Ok(GeoClient::of(Arc::new(mirror), self.codec, default_ttl, self.key_bytes_max))
    }

    /// Main, the fallback and the backups, each region once.
    fn places(&mut self) -> Result<Vec<Server>, BuildError> {
        let main = self.main.take().ok_or_else(|| setting("main", "missing; name the server that leads"))?;
        if self.fallback.is_none() && !self.backups.is_empty() {
            self.fallback = Some(self.backups.remove(0));
        }
        let fallback =
            self.fallback.take().ok_or_else(|| setting("fallback", "missing; name a second server"))?;
        let named = [("main", main), ("fallback", fallback)];
        let backups = self.backups.drain(..).map(|backup| ("backup", backup));
        let mut places: Vec<Server> = Vec::new();
        for (field, (region, endpoint)) in named.into_iter().chain(backups) {
            let region = RegionId::new(region).map_err(|source| BuildError::Name { field, source })?;
            if places.iter().any(|(other, _)| *other == region) {
                return Err(setting(
                    field,
                    &format!("the region {region} is named twice; each has one server"),
                ));
            }
            places.push((region, endpoint));
        }
        Ok(places)
    }
}

fn setting(field: &'static str, reason: &str) -> BuildError {
    BuildError::Setting { field, reason: reason.to_owned() }
}

fn refused(error: &ConfigError) -> BuildError {
    BuildError::Setting { field: error.field, reason: format!("it {}", error.problem) }
}

impl GeoClient {
    /// A client that keeps several servers alike by itself, for servers that do not replicate, such as plain memcached. See
    /// [`mirror`](crate::client::mirror) for what holds, what does not, and every bound.
    ///
    /// ```no_run
    /// # async fn build(us: geocache::GeoCache, eu: geocache::GeoCache, ap: geocache::GeoCache) -> Result<(), geocache::BuildError> {
    /// use geocache::client::GeoClient;
    /// let client =
    ///     GeoClient::mirrored().main("us-east", us).fallback("eu-central", eu).backup("ap-south", ap).build().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn mirrored() -> MirrorBuilder {
        MirrorBuilder::new()
    }

    /// The operator's side of a [mirrored](Self::mirrored) client; `None` of another.
    pub fn mirror(&self) -> Option<Mirror> {
        self.engine().mirror()
    }
}
