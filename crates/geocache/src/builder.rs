//! Configures one node; everything is checked once, at `build`.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use geo::{RegionId, check_name};
use replication::{
    NodeId, Transport,
    driver::{self, NodeConfig},
    replica::{OUTBOX_BYTES_MAX, Outbox, ReplicaConfig},
    wire,
};
use tokio::sync::watch;
use tracing::Instrument as _;

use crate::{
    error::BuildError,
    namespace::Namespaces,
    node::{GeoCache, Node, Replication},
    store::{ENTRY_OVERHEAD_BYTES, Layout, NodeStore, Time},
    trace::TARGET,
    value::Codec,
};

/// What `capacity` is where neither it nor `capacity_bytes` was set.
const CAPACITY_DEFAULT: usize = 100_000;

/// What `value_bytes_max` is where it was not set.
const VALUE_BYTES_DEFAULT: usize = 1 << 20;

/// What `loads_max` is where it was not set.
const LOADS_MAX_DEFAULT: usize = 10_000;

/// The longest key that one replicated frame carries beside the longest value.
const KEY_BYTES_LIMIT: usize = 60 << 10;

/// The map makes shards no smaller than this of itself, and with values this long no more than this many.
const SHARE_BYTES_USUAL: u64 = 4 << 20;
const SHARDS_MAX: u64 = 64;

/// The names of a node without a transport that was given none.
pub(crate) const REGION_DEFAULT: &str = "local";
pub(crate) const NODE_DEFAULT: &str = "node-1";

/// Configures a [`GeoCache`].
#[derive(Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    cache: String,
    region: Option<String>,
    node: Option<String>,
    transport: Option<Arc<dyn Transport>>,
    capacity: Option<usize>,
    capacity_bytes: Option<u64>,
    default_ttl: Option<Duration>,
    remote_depth: f64,
    value_bytes_max: Option<usize>,
    key_bytes_max: usize,
    outbox_bytes_max: usize,
    graves_max: Option<usize>,
    explain_history: usize,
    codec: Codec,
    bootstrap: bool,
    compress_above: Option<usize>,
    regions: Vec<String>,
    loads_max: usize,
    clock: Option<cache_core::Clock>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            cache: "geocache".to_owned(),
            region: None,
            node: None,
            transport: None,
            capacity: None,
            capacity_bytes: None,
            default_ttl: None,
            remote_depth: 0.0,
            value_bytes_max: None,
            key_bytes_max: 250,
            outbox_bytes_max: OUTBOX_BYTES_MAX,
            graves_max: None,
            explain_history: 0,
            codec: Codec::MessagePack,
            bootstrap: false,
            compress_above: None,
            regions: Vec::new(),
            loads_max: LOADS_MAX_DEFAULT,
            clock: None,
        }
    }

    /// The cache's name, the same on all its nodes; nodes of other names do not hear each other. Default `geocache`.
    pub fn cache(mut self, name: impl Into<String>) -> Self {
        self.cache = name.into();
        self
    }

    /// The node's region. Default: the transport's, and `local` without a transport.
    pub fn region(mut self, name: impl Into<String>) -> Self {
        self.region = Some(name.into());
        self
    }

    /// The node's own name, unlike that of any other live node of the region. Default: the transport's, and `node-1`
    /// without a transport.
    pub fn node(mut self, name: impl Into<String>) -> Self {
        self.node = Some(name.into());
        self
    }

    /// How frames travel to the other nodes. Default none: the node is alone, and ready at once.
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// The most values held. Default 100,000, or unbounded where `capacity_bytes` is set.
    pub fn capacity(mut self, entries: usize) -> Self {
        self.capacity = Some(entries);
        self
    }

    /// The most bytes held: keys, encoded values (or [what they are said to weigh](crate::PutOptions::weight)), and 256 bytes an
    /// entry for the tables and handles. Decoded forms
    /// kept by typed reads, and the graves (see [`graves_max`](Self::graves_max)), come on top. Default unbounded.
    pub fn capacity_bytes(mut self, bytes: u64) -> Self {
        self.capacity_bytes = Some(bytes);
        self
    }

    /// How long a value lives that is written without a time of its own. Default: until evicted or removed.
    pub fn default_ttl(mut self, ttl: Duration) -> Self {
        self.default_ttl = Some(ttl);
        self
    }

    /// How deep in the order of use a value enters that another region wrote: from 0, at the hot end as any write, to 1, at the
    /// cold end, where it goes next. In between, what other regions write can push out at most the rest below that depth, and
    /// moves up when it is read here. Default 0. See [`cache_core::Builder::remote_depth`].
    pub fn remote_depth(mut self, depth: f64) -> Self {
        self.remote_depth = depth;
        self
    }

    /// The longest encoded value taken from callers. Default 1 MiB, or less where `capacity_bytes` holds no such value.
    /// With a transport at most [`wire::VALUE_BYTES_MAX`], just under 8 MiB: what one frame carries.
    pub fn value_bytes_max(mut self, bytes: usize) -> Self {
        self.value_bytes_max = Some(bytes);
        self
    }

    /// The longest key taken from callers. Default 250.
    pub fn key_bytes_max(mut self, bytes: usize) -> Self {
        self.key_bytes_max = bytes;
        self
    }

    /// The most bytes of changes that wait to leave; past it the oldest is not sent, and the other nodes fetch it by a
    /// state transfer. Default 64 MiB.
    pub fn outbox_bytes_max(mut self, bytes: usize) -> Self {
        self.outbox_bytes_max = bytes;
        self
    }

    /// The most keys remembered as gone, about 50 bytes each and at most 72. Default: `capacity`; where only
    /// `capacity_bytes` is set, one for each KiB of it, at least 1,024 and at most 4 million.
    pub fn graves_max(mut self, graves: usize) -> Self {
        self.graves_max = Some(graves);
        self
    }

    /// How many outcomes (a write applied, refused, evicted…) the node remembers of all keys together, for
    /// [`GeoCache::explain`]: 40 bytes each, split over the shards (at most 64) with at least one each, the oldest of a shard
    /// going first. Default 0: none.
    pub fn explain_history(mut self, outcomes: usize) -> Self {
        self.explain_history = outcomes;
        self
    }

    /// How typed values are encoded. Every node reads every codec. Default [`Codec::MessagePack`].
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Whether the node is ready at once rather than after it asked the others for their state: for the first nodes of
    /// a cache that is made at once. Default no.
    pub fn bootstrap(mut self, bootstrap: bool) -> Self {
        self.bootstrap = bootstrap;
        self
    }

    /// Has frames of so many bytes and more travel compressed (lz4) where that saves an eighth and all known nodes read it;
    /// see [`ReplicaConfig::compress_above`]. Default: nothing is compressed.
    pub fn compress_above(mut self, bytes: usize) -> Self {
        self.compress_above = Some(bytes);
        self
    }

    /// The regions there are, this node's own included: what [`WriteConcern::All`](crate::WriteConcern::All) waits for,
    /// and which of them a receipt calls missing. Default: those that were heard within the last hour.
    pub fn regions<R: AsRef<str>>(mut self, regions: impl IntoIterator<Item = R>) -> Self {
        self.regions = regions.into_iter().map(|region| region.as_ref().to_owned()).collect();
        self
    }

    /// The most loads under way at a time ([`GeoCache::get_or_load`]); a read that needs one more is refused, or served an older
    /// value where there is one. At least 1. Default 10,000.
    pub fn loads_max(mut self, loads: usize) -> Self {
        self.loads_max = loads;
        self
    }

    /// The clock by which values expire. Default: the process's coarse one.
    #[cfg(test)]
    pub(crate) fn clock(mut self, clock: cache_core::Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Checks the settings and starts the node. With a transport it receives before this returns; it may be warming
    /// still (see [`GeoCache::ready`]).
    ///
    /// # Errors
    /// A [`BuildError`] that names the setting, or why the transport does not let the node receive.
    pub async fn build(self) -> Result<GeoCache, BuildError> {
        let id = self.node_id()?;
        let span = tracing::debug_span!(
            target: TARGET,
            "build",
            cache = self.cache,
            region = %id.region(),
            node = id.name()
        );
        let built = self.start(id).instrument(span.clone()).await;
        match &built {
            Ok(cache) => tracing::debug!(target: TARGET, parent: &span, ready = cache.is_ready(), "built"),
            Err(error) => tracing::debug!(target: TARGET, parent: &span, %error, "not built"),
        }
        built
    }

    async fn start(self, id: NodeId) -> Result<GeoCache, BuildError> {
        self.check()?;
        let regions = self.all_regions(id.region())?;
        let value_bytes_max = self.value_bytes_limit(self.transport.is_some())?;
        let outbox = Arc::new(match &self.transport {
            Some(_) => Outbox::new(id.origin(), self.outbox_bytes_max),
            None => Outbox::standalone(id.origin()),
        });
        let store = self.store(value_bytes_max, Arc::clone(&outbox))?;
        let wall_ms = Time::Process.wall_ms();
        let since = match &self.transport {
            Some(_) => outbox.clock().tick(wall_ms),
            None => outbox.begin_alone(wall_ms),
        };
        let replication = match self.transport {
            Some(transport) => {
                tokio::runtime::Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
                let mut config = ReplicaConfig::new(id.clone());
                config.cache = self.cache.clone();
                config.bootstrap = self.bootstrap;
                config.compress_above = self.compress_above;
                let (store, outbox) = (Arc::clone(&store), Arc::clone(&outbox));
                let mut config = NodeConfig::new(config);
                config.regions = regions;
                let reporter = Arc::downgrade(&transport);
                let handle = driver::start(config, store, outbox, transport).await?;
                Some(Replication::new(handle, reporter))
            }
            None => None,
        };
        Ok(GeoCache::of(Node {
            id,
            cache: self.cache,
            store,
            outbox,
            codec: self.codec,
            key_bytes_max: self.key_bytes_max,
            value_bytes_max,
            replication,
            closed: AtomicBool::new(false),
            since,
            life: fastrand::u64(..),
            flights: Arc::default(),
            namespaces: Namespaces::default(),
            loads_max: self.loads_max,
            alive: watch::Sender::new(()),
        }))
    }

    /// All that `build` checks, as for a node that is to have a transport or not; nothing is kept.
    #[cfg(feature = "config")]
    pub(crate) fn verify(&self, is_replicated: bool) -> Result<(), BuildError> {
        let id = self.node_id()?;
        self.check()?;
        self.all_regions(id.region())?;
        let value_bytes_max = self.value_bytes_limit(is_replicated)?;
        let outbox = Arc::new(Outbox::standalone(id.origin()));
        self.store(value_bytes_max, outbox).map(drop)
    }

    fn store(&self, value_bytes_max: usize, outbox: Arc<Outbox>) -> Result<Arc<NodeStore>, BuildError> {
        let store = NodeStore::new(&self.layout(value_bytes_max), outbox);
        store.map_err(|error| BuildError::Setting {
            field: setting(error.field),
            reason: error.reason.to_string(),
        })
    }

    fn node_id(&self) -> Result<NodeId, BuildError> {
        let own = self.transport.as_ref().map(|transport| transport.node());
        let same = |field, given: &Option<String>, transport: Option<&str>| match (given, transport) {
            (Some(given), Some(transport)) if given != transport => {
                Err(BuildError::Mismatch { field, given: given.clone(), transport: transport.to_owned() })
            }
            _ => Ok(()),
        };
        same("region", &self.region, own.map(|own| own.region().as_str()))?;
        same("node", &self.node, own.map(NodeId::name))?;
        if let Some(own) = own {
            return Ok(own.clone());
        }
        let region = RegionId::new(self.region.as_deref().unwrap_or(REGION_DEFAULT))
            .map_err(|source| BuildError::Name { field: "region", source })?;
        NodeId::new(region, self.node.as_deref().unwrap_or(NODE_DEFAULT))
            .map_err(|source| BuildError::Name { field: "node", source })
    }

    /// The regions that were named; none, or the node's own among them.
    fn all_regions(&self, own: &RegionId) -> Result<BTreeSet<RegionId>, BuildError> {
        let regions = self.regions.iter().map(RegionId::new).collect::<Result<BTreeSet<_>, _>>();
        let regions = regions.map_err(|source| BuildError::Name { field: "regions", source })?;
        if !regions.is_empty() && !regions.contains(own) {
            let reason = format!("the node's own, {own}, is not among them; name all regions there are");
            return Err(BuildError::Setting { field: "regions", reason });
        }
        Ok(regions)
    }

    fn check(&self) -> Result<(), BuildError> {
        check_name(&self.cache).map_err(|source| BuildError::Name { field: "cache", source })?;
        let setting = |field, reason: &str| Err(BuildError::Setting { field, reason: reason.to_owned() });
        if self.key_bytes_max == 0 {
            return setting("key_bytes_max", "0 would refuse every key; give at least 1");
        }
        if self.loads_max == 0 {
            return setting("loads_max", "0 would refuse every load; give at least 1");
        }
        if matches!(self.codec, Codec::Unknown(_)) {
            return setting(
                "codec",
                "a number that this program does not know cannot be written; choose another",
            );
        }
        if self.default_ttl.is_some_and(|ttl| ttl < cache_core::Clock::TICK) {
            return setting(
                "default_ttl",
                "less than 10 ms is over at once; leave it out for values that stay",
            );
        }
        Ok(())
    }

    /// The longest value taken: one that `capacity_bytes` can hold, or it would be evicted as it is written.
    fn value_bytes_limit(&self, is_replicated: bool) -> Result<usize, BuildError> {
        if is_replicated {
            self.check_frame_limits()?;
        }
        let beside = self.key_bytes_max as u64 + ENTRY_OVERHEAD_BYTES;
        let room = self.capacity_bytes.map_or(u64::MAX, |bytes| bytes.saturating_sub(beside));
        match self.value_bytes_max {
            Some(wanted) if wanted as u64 > room => Err(BuildError::Setting {
                field: "capacity_bytes",
                reason: format!(
                    "{} bytes hold no value of value_bytes_max, {wanted}, with its key and {ENTRY_OVERHEAD_BYTES} more; \
                     raise it to at least {} or lower value_bytes_max",
                    self.capacity_bytes.unwrap_or(0),
                    beside.saturating_add(wanted as u64),
                ),
            }),
            Some(wanted) => Ok(wanted),
            None => Ok(VALUE_BYTES_DEFAULT.min(usize::try_from(room).unwrap_or(usize::MAX))),
        }
    }

    /// What does not fit one frame would stay on this node alone.
    fn check_frame_limits(&self) -> Result<(), BuildError> {
        let limits = [
            ("value_bytes_max", self.value_bytes_max.unwrap_or(0), wire::VALUE_BYTES_MAX),
            ("key_bytes_max", self.key_bytes_max, KEY_BYTES_LIMIT),
        ];
        let over = limits.into_iter().find(|(_, wanted, most)| wanted > most);
        let Some((field, wanted, most)) = over else { return Ok(()) };
        let reason = format!("{wanted} is more than the {most} that one replicated frame carries; lower it");
        Err(BuildError::Setting { field, reason })
    }

    fn layout(&self, value_bytes_max: usize) -> Layout {
        let unbounded = self.capacity.is_none() && self.capacity_bytes.is_none();
        let capacity = if unbounded { Some(CAPACITY_DEFAULT) } else { self.capacity };
        let by_bytes = || (self.capacity_bytes.unwrap_or(0) / 1024).clamp(1_024, 4_000_000) as usize;
        Layout {
            cache: self.cache.clone(),
            capacity,
            capacity_bytes: self.capacity_bytes,
            shards: self.shards(value_bytes_max),
            default_ttl: self.default_ttl,
            remote_depth: self.remote_depth,
            graves_max: self.graves_max.or(capacity).unwrap_or_else(by_bytes),
            history: self.explain_history,
            clock: self.clock.clone(),
            time: Time::Process,
        }
    }

    /// Fewer shards than the map would make of itself, where the share of one would not hold the longest value.
    fn shards(&self, value_bytes_max: usize) -> Option<usize> {
        let largest = (value_bytes_max + self.key_bytes_max) as u64 + ENTRY_OVERHEAD_BYTES;
        let bytes = self.capacity_bytes.filter(|_| largest > SHARE_BYTES_USUAL)?;
        let most =
            (bytes / largest).clamp(1, SHARDS_MAX).min(self.capacity.unwrap_or(usize::MAX).max(1) as u64);
        Some(1 << most.ilog2())
    }
}

/// The builder's own name for a setting of the map's.
fn setting(field: &'static str) -> &'static str {
    if field == "weight_capacity" { "capacity_bytes" } else { field }
}
