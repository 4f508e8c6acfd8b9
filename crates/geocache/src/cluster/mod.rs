//! Several regions in one process, joined by an in-memory hub or by transports of the user's.
//!
//! Each region is a whole node with its own memory; what travels between them is encoded and decoded as over a broker.
//! Regions can be stopped and started, and parted from each other ([`GeoCluster::stop`], [`GeoCluster::partition`]); the hub can also drop,
//! delay and hold (see [`Hub`]). So an outage can be rehearsed in a unit test. With [`ClusterBuilder::transport`] the same regions run
//! over a broker.

mod outage;
mod settle;
mod transports;

use std::{fmt, sync::Arc, time::Duration};

use geo::RegionId;
use parking_lot::RwLock;
use replication::{NodeId, Transport, memory::Hub};
use serde::{Serialize, de::DeserializeOwned};

use self::transports::Transports;
use crate::{
    builder::Builder,
    error::{BuildError, Error},
    node::GeoCache,
    stats::Stats,
};

/// The name of each region's node.
const NODE: &str = "node-1";

/// Several regions in one process. A cheap handle; dropping the last one ends the nodes.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = geocache::GeoCluster::new(["us-east", "eu-central"]).await?;
/// let error = cache.put("myKey", "myValue", "mars").expect_err("no such region");
/// assert_eq!(error.to_string(), r#"there is no region "mars"; the regions are us-east, eu-central"#);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct GeoCluster {
    inner: Arc<Inner>,
}

struct Inner {
    regions: Vec<Region>,
    node: Builder,
    transports: Transports,
}

/// A region, and its node while it runs.
#[derive(Debug)]
struct Region {
    id: NodeId,
    node: RwLock<Option<GeoCache>>,
}

/// Configures a [`GeoCluster`].
#[must_use = "a builder does nothing until `build`"]
pub struct ClusterBuilder {
    regions: Vec<String>,
    node: Builder,
    transports: Transports,
}

impl ClusterBuilder {
    /// The regions, each with one node. No default.
    pub fn regions<R: AsRef<str>>(mut self, regions: impl IntoIterator<Item = R>) -> Self {
        self.regions = regions.into_iter().map(|region| region.as_ref().to_owned()).collect();
        self
    }

    /// Sets up the nodes, all alike. Default: as [`GeoCache::builder`] does.
    ///
    /// Region, regions, node and transport are the cluster's to set, and with a hub bootstrap.
    pub fn configure(mut self, configure: impl FnOnce(Builder) -> Builder) -> Self {
        self.node = configure(self.node);
        self
    }

    /// The hub that joins the nodes. Default: a new one without faults.
    pub fn hub(mut self, hub: Hub) -> Self {
        self.transports = Transports::of_hub(hub);
        self
    }

    /// How each node gets a transport of its own, in place of the hub: when the cluster is built, and when
    /// [`start`](GeoCluster::start) starts a region again.
    ///
    /// ```no_run
    /// # #[cfg(feature = "rabbitmq")]
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use geocache::{GeoCluster, rabbitmq::{Config, RabbitMq}};
    ///
    /// let broker = "amqp://user:password@localhost:5672";
    /// let cache = GeoCluster::builder()
    ///     .regions(["us-east", "eu-central"])
    ///     .transport(move |node| RabbitMq::connect(Config::new(node, vec![broker.to_owned()])))
    ///     .build()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The nodes begin as deployed ones do: they look for others of their cache, take their state, and are ready then. The hub's faults
    /// ([`partition`](GeoCluster::partition)) are not there.
    pub fn transport<F, R, T, E>(mut self, connect: F) -> Self
    where
        F: Fn(NodeId) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Arc<T>, E>> + Send + 'static,
        T: Transport + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.transports = Transports::of(connect);
        self
    }

    /// Starts the nodes; all are ready when this returns.
    ///
    /// # Errors
    /// A [`BuildError`] that names the setting, or the node whose transport could not be had. [`BuildError::Stopped`] where a node had
    /// to stop before it was ready.
    pub async fn build(self) -> Result<GeoCluster, BuildError> {
        let invalid = |reason: String| BuildError::Setting { field: "regions", reason };
        if self.regions.is_empty() {
            return Err(invalid("there are none; name at least one".to_owned()));
        }
        let (transports, node) = (self.transports, self.node.regions(&self.regions));
        let mut regions: Vec<Region> = Vec::with_capacity(self.regions.len());
        for name in &self.regions {
            let region =
                RegionId::new(name).map_err(|source| BuildError::Name { field: "regions", source })?;
            if regions.iter().any(|known| *known.id.region() == region) {
                return Err(invalid(format!("{region} is named twice; name each once")));
            }
            let id =
                NodeId::new(region, NODE).map_err(|source| BuildError::Name { field: "node", source })?;
            let started = transports.begin(node.clone(), &id).await?.build().await?;
            regions.push(Region { id, node: RwLock::new(Some(started)) });
        }
        let cluster = GeoCluster { inner: Arc::new(Inner { regions, node, transports }) };
        for node in cluster.nodes() {
            node.ready().await.map_err(|error| BuildError::Stopped {
                node: node.node().clone(),
                reason: error.to_string(),
            })?;
        }
        settle::acquaint(&cluster.nodes()).await;
        Ok(cluster)
    }
}

impl GeoCluster {
    /// Regions of these names, each with one node of the default configuration.
    ///
    /// # Errors
    /// A [`BuildError`] where a name is not 1 to 63 bytes of `[a-z0-9-]`, given twice, or none is given.
    pub async fn new<R: AsRef<str>>(regions: impl IntoIterator<Item = R>) -> Result<Self, BuildError> {
        Self::builder().regions(regions).build().await
    }

    /// Begins to configure a cluster.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder { regions: Vec::new(), node: GeoCache::builder(), transports: Transports::default() }
    }

    /// The node of a region.
    ///
    /// # Errors
    /// [`Error::UnknownRegion`], which names the regions there are; [`Error::RegionStopped`].
    pub fn region(&self, region: impl AsRef<str>) -> Result<GeoCache, Error> {
        let region = self.known(region.as_ref())?;
        let node = region.node.read().clone();
        node.ok_or_else(|| Error::RegionStopped { region: region.id.region().clone() })
    }

    /// The nodes that run, in the order in which the regions were named.
    pub fn nodes(&self) -> Vec<GeoCache> {
        self.inner.regions.iter().filter_map(|region| region.node.read().clone()).collect()
    }

    /// The regions, in the order in which they were named.
    pub(crate) fn names(&self) -> impl Iterator<Item = &RegionId> {
        self.inner.regions.iter().map(|region| region.id.region())
    }

    fn known(&self, name: &str) -> Result<&Region, Error> {
        let found = self.inner.regions.iter().find(|region| region.id.region().as_str() == name);
        found.ok_or_else(|| Error::UnknownRegion {
            region: name.to_owned(),
            known: self.inner.regions.iter().map(|region| region.id.region().clone()).collect(),
        })
    }

    /// The hub that joins them; its faults can be set at any time. Nobody is joined by it where the nodes have
    /// [transports of their own](ClusterBuilder::transport).
    pub fn hub(&self) -> &Hub {
        self.inner.transports.hub()
    }

    /// Stores a value in a region; it reaches the others after the lag. See [`GeoCache::put`].
    ///
    /// # Errors
    /// [`Error::UnknownRegion`], [`Error::RegionStopped`]; as [`GeoCache::put`].
    pub fn put<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        region: impl AsRef<str>,
    ) -> Result<(), Error> {
        self.region(region)?.put(key, value)
    }

    /// As [`put`](Self::put), with a time to live of its own.
    ///
    /// # Errors
    /// [`Error::UnknownRegion`], [`Error::RegionStopped`]; as [`GeoCache::put_with_ttl`].
    pub fn put_with_ttl<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        ttl: Duration,
        region: impl AsRef<str>,
    ) -> Result<(), Error> {
        self.region(region)?.put_with_ttl(key, value, ttl)
    }

    /// What a region holds for a key. See [`GeoCache::get`].
    ///
    /// # Errors
    /// [`Error::UnknownRegion`], [`Error::RegionStopped`]; as [`GeoCache::get`].
    pub fn get<T>(&self, key: impl AsRef<[u8]>, region: impl AsRef<str>) -> Result<Option<Arc<T>>, Error>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        self.region(region)?.get(key)
    }

    /// Changes a value in a region. See [`GeoCache::update`].
    ///
    /// # Errors
    /// [`Error::UnknownRegion`], [`Error::RegionStopped`]; as [`GeoCache::update`].
    pub fn update<T, F>(
        &self,
        key: impl AsRef<[u8]>,
        change: F,
        region: impl AsRef<str>,
    ) -> Result<Option<Arc<T>>, Error>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
        F: FnMut(Option<Arc<T>>) -> Option<T>,
    {
        self.region(region)?.update(key, change)
    }

    /// Removes a key, from a region on. See [`GeoCache::remove`].
    ///
    /// # Errors
    /// [`Error::UnknownRegion`], [`Error::RegionStopped`]; as [`GeoCache::remove`].
    pub fn remove(&self, key: impl AsRef<[u8]>, region: impl AsRef<str>) -> Result<bool, Error> {
        self.region(region)?.remove(key)
    }

    /// Gives a value a new life, from a region on. See [`GeoCache::touch`].
    ///
    /// # Errors
    /// [`Error::UnknownRegion`], [`Error::RegionStopped`]; as [`GeoCache::touch`].
    pub fn touch(
        &self,
        key: impl AsRef<[u8]>,
        ttl: Duration,
        region: impl AsRef<str>,
    ) -> Result<bool, Error> {
        self.region(region)?.touch(key, ttl)
    }

    /// Forgets every key, from a region on. See [`GeoCache::clear`].
    ///
    /// # Errors
    /// [`Error::UnknownRegion`], [`Error::RegionStopped`]; as [`GeoCache::clear`].
    pub fn clear(&self, region: impl AsRef<str>) -> Result<(), Error> {
        self.region(region)?.clear()
    }

    /// What each running region counts, in the order in which they were named.
    pub fn stats(&self) -> Vec<(RegionId, Stats)> {
        self.nodes().iter().map(|node| (node.region().clone(), node.stats())).collect()
    }

    /// Ends every node, handing what waits to leave to its transport until the deadline.
    pub async fn close(&self, deadline: Duration) {
        for node in self.nodes() {
            node.close(deadline).await;
        }
    }
}

impl fmt::Debug for GeoCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeoCluster")
            .field("regions", &self.inner.regions)
            .field("transports", &self.inner.transports)
            .finish()
    }
}
