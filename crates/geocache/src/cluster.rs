//! Several regions in one process, joined by an in-memory hub: for tests, demos, and a first look.
//!
//! Each region is a whole node with its own memory; what travels between them is encoded and decoded as over a broker.
//! The hub can drop, delay and cut (see [`Hub`]), so an outage can be rehearsed in a unit test.

use std::{sync::Arc, time::Duration};

use geo::RegionId;
use replication::{
    NodeId, Origin, Stamp,
    memory::Hub,
    replica::{Status, Token},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    builder::Builder,
    error::{BuildError, Error},
    node::GeoCache,
    stats::Stats,
};

/// How long the nodes of a new cluster are given to hear each other.
const ACQUAINT_WAIT: Duration = Duration::from_secs(1);

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
#[derive(Debug, Clone)]
pub struct GeoCluster {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    regions: Vec<GeoCache>,
    hub: Hub,
}

/// Configures a [`GeoCluster`].
#[must_use = "a builder does nothing until `build`"]
pub struct ClusterBuilder {
    regions: Vec<String>,
    node: Builder,
    hub: Option<Hub>,
}

impl ClusterBuilder {
    /// The regions, each with one node. No default.
    pub fn regions<R: AsRef<str>>(mut self, regions: impl IntoIterator<Item = R>) -> Self {
        self.regions = regions.into_iter().map(|region| region.as_ref().to_owned()).collect();
        self
    }

    /// Sets up the nodes, all alike. Default: as [`GeoCache::builder`] does.
    ///
    /// Region, regions, node, transport and bootstrap are the cluster's to set.
    pub fn configure(mut self, configure: impl FnOnce(Builder) -> Builder) -> Self {
        self.node = configure(self.node);
        self
    }

    /// The hub that joins the nodes. Default: a new one without faults.
    pub fn hub(mut self, hub: Hub) -> Self {
        self.hub = Some(hub);
        self
    }

    /// Starts the nodes; all are ready when this returns.
    ///
    /// # Errors
    /// A [`BuildError`] that names the setting.
    pub async fn build(self) -> Result<GeoCluster, BuildError> {
        let invalid = |reason: String| BuildError::Setting { field: "regions", reason };
        if self.regions.is_empty() {
            return Err(invalid("there are none; name at least one".to_owned()));
        }
        let hub = self.hub.unwrap_or_default();
        let mut regions: Vec<GeoCache> = Vec::with_capacity(self.regions.len());
        for name in &self.regions {
            let region =
                RegionId::new(name).map_err(|source| BuildError::Name { field: "regions", source })?;
            if regions.iter().any(|node| *node.region() == region) {
                return Err(invalid(format!("{region} is named twice; name each once")));
            }
            let id =
                NodeId::new(region, NODE).map_err(|source| BuildError::Name { field: "node", source })?;
            let node = self.node.clone().regions(&self.regions).transport(hub.join(id)).bootstrap(true);
            regions.push(node.build().await?);
        }
        acquaint(&regions).await;
        Ok(GeoCluster { inner: Arc::new(Inner { regions, hub }) })
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
        ClusterBuilder { regions: Vec::new(), node: GeoCache::builder(), hub: None }
    }

    /// The node of a region.
    ///
    /// # Errors
    /// [`Error::UnknownRegion`], which names the regions there are.
    pub fn region(&self, region: impl AsRef<str>) -> Result<&GeoCache, Error> {
        let region = region.as_ref();
        let found = self.inner.regions.iter().find(|node| node.region().as_str() == region);
        found.ok_or_else(|| Error::UnknownRegion {
            region: region.to_owned(),
            known: self.inner.regions.iter().map(|node| node.region().clone()).collect(),
        })
    }

    /// The nodes, in the order in which the regions were named.
    pub fn nodes(&self) -> &[GeoCache] {
        &self.inner.regions
    }

    /// The hub that joins them; its faults can be set at any time.
    pub fn hub(&self) -> &Hub {
        &self.inner.hub
    }

    /// Stores a value in a region; it reaches the others after the lag. See [`GeoCache::put`].
    ///
    /// # Errors
    /// [`Error::UnknownRegion`]; as [`GeoCache::put`].
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
    /// [`Error::UnknownRegion`]; as [`GeoCache::put_with_ttl`].
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
    /// [`Error::UnknownRegion`]; as [`GeoCache::get`].
    pub fn get<T>(&self, key: impl AsRef<[u8]>, region: impl AsRef<str>) -> Result<Option<Arc<T>>, Error>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        self.region(region)?.get(key)
    }

    /// Changes a value in a region. See [`GeoCache::update`].
    ///
    /// # Errors
    /// [`Error::UnknownRegion`]; as [`GeoCache::update`].
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
    /// [`Error::UnknownRegion`]; as [`GeoCache::remove`].
    pub fn remove(&self, key: impl AsRef<[u8]>, region: impl AsRef<str>) -> Result<bool, Error> {
        self.region(region)?.remove(key)
    }

    /// Gives a value a new life, from a region on. See [`GeoCache::touch`].
    ///
    /// # Errors
    /// [`Error::UnknownRegion`]; as [`GeoCache::touch`].
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
    /// [`Error::UnknownRegion`]; as [`GeoCache::clear`].
    pub fn clear(&self, region: impl AsRef<str>) -> Result<(), Error> {
        self.region(region)?.clear()
    }

    /// What each region counts, in the order in which they were named.
    pub fn stats(&self) -> Vec<(RegionId, Stats)> {
        self.inner.regions.iter().map(|node| (node.region().clone(), node.stats())).collect()
    }

    /// Waits until every region has applied what the others wrote before the call.
    ///
    /// # Errors
    /// [`Error::Timeout`], which names a region that is behind and what it lacks.
    pub async fn settled(&self, timeout: Duration) -> Result<(), Error> {
        let written: Vec<_> = self.inner.regions.iter().map(Written::by).collect();
        let deadline = tokio::time::Instant::now() + timeout;
        for node in &self.inner.regions {
            let Some(replication) = node.replication() else { continue };
            let mut status = replication.status.clone();
            let mut behind = None;
            let applied = status.wait_for(|status| {
                behind = written.iter().find(|written| !written.is_applied(node.node().origin(), status));
                behind.is_none()
            });
            match tokio::time::timeout_at(deadline, applied).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(Error::Closed),
                Err(_) => {
                    let whose = behind.map_or("another region", |written| written.region.as_str());
                    let behind = format!("{} has not applied all writes of {whose}", node.region());
                    return Err(Error::Timeout { waited: timeout, behind });
                }
            }
        }
        Ok(())
    }

    /// Ends every node, handing what waits to leave to the hub until the deadline.
    pub async fn close(&self, deadline: Duration) {
        for node in &self.inner.regions {
            node.close(deadline).await;
        }
    }
}

/// Waits until each node knows the clocks of the others, which takes two heartbeats; until then what expires would wait
/// there. A hub that loses frames may take longer: after [`ACQUAINT_WAIT`] the nodes are given out as they are, and
/// what waits is repaired as any gap.
async fn acquaint(regions: &[GeoCache]) {
    let others = regions.len() - 1;
    let all = async {
        for replication in regions.iter().filter_map(GeoCache::replication) {
            let knows_all = |status: &Status| {
                status.peers.len() >= others && status.peers.iter().all(|peer| peer.rtt_ms.is_some())
            };
            // A node that ended has nobody to wait for.
            let _ = replication.status.clone().wait_for(knows_all).await;
        }
    };
    let _ = tokio::time::timeout(ACQUAINT_WAIT, all).await;
}

/// The newest change that a node made.
struct Written {
    region: RegionId,
    /// `None` before the first.
    newest: Option<Token>,
}

impl Written {
    fn by(node: &GeoCache) -> Self {
        let last = node.outbox().last_issued();
        let newest = (last != Stamp::ZERO).then(|| node.outbox().token(last));
        Self { region: node.region().clone(), newest }
    }

    /// Whether the node of this status has applied it. Within a stream stamps rise with numbers, so a watermark at or
    /// above the newest stamp covers all before it; one of another life of the node says nothing of this one.
    fn is_applied(&self, by: Origin, status: &Status) -> bool {
        let Some(Token { stream, hlc }) = self.newest.filter(|newest| newest.stream.origin != by) else {
            return true;
        };
        status.streams.iter().any(|report| report.stream == stream && report.watermark_hlc >= hlc)
    }
}

#[cfg(test)]
mod tests {
    use replication::{Hlc, Stream, message::StreamReport};

    use super::*;

    #[test]
    fn a_write_is_applied_once_the_watermark_of_its_own_life_covers_it() {
        let (own, other) = (Origin(1), Origin(2));
        let life = |epoch| Stream { origin: other, epoch };
        let written = |newest| Written { region: "eu-west".parse().unwrap(), newest };
        let second = written(Some(Token { stream: life(20), hlc: Hlc(25) }));
        let status = |epoch, hlc| {
            let watermark_hlc = Hlc(hlc);
            let mut status = Status::default();
            status.streams.push(StreamReport {
                stream: life(epoch),
                watermark_hlc,
                ..StreamReport::default()
            });
            status
        };
        assert!(!second.is_applied(own, &status(20, 24)));
        assert!(second.is_applied(own, &status(20, 25)));
        assert!(!second.is_applied(own, &status(10, 30)), "of another life");
        assert!(!second.is_applied(own, &Status::default()));
        assert!(second.is_applied(other, &Status::default()), "a node has its own");
        assert!(written(None).is_applied(own, &Status::default()));
    }
}
