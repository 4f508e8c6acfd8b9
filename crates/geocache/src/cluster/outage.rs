//! Outages to rehearse: a region that is stopped or killed, and regions that do not hear each other.

use std::time::Duration;

use super::{GeoCluster, Region};
use crate::error::{BuildError, Error};

/// How long a region that is stopped may take to hand over what it wrote.
const STOP_WAIT: Duration = Duration::from_secs(5);

impl GeoCluster {
    /// Stops a region in good order: it hands over what it wrote and is gone. The others go on.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use geocache::{Error, GeoCluster};
    ///
    /// let cluster = GeoCluster::new(["us-east", "eu-central"]).await?;
    /// cluster.put("k", "v", "us-east")?;
    /// cluster.stop("us-east").await?;
    /// assert!(matches!(cluster.get::<String>("k", "us-east"), Err(Error::RegionStopped { .. })));
    /// assert!(cluster.get::<String>("k", "eu-central")?.is_some());
    ///
    /// cluster.start("us-east").await?;
    /// cluster.region("us-east")?.ready().await?;
    /// assert!(cluster.get::<String>("k", "us-east")?.is_some(), "it has the state of the others before it is ready");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownRegion`]; [`Error::RegionStopped`] where it is already.
    pub async fn stop(&self, region: impl AsRef<str>) -> Result<(), Error> {
        let node = self.take(region.as_ref())?;
        node.close(STOP_WAIT).await;
        Ok(())
    }

    /// Ends a region as a crash does: what it did not publish is lost.
    ///
    /// # Errors
    /// As [`stop`](Self::stop).
    pub async fn kill(&self, region: impl AsRef<str>) -> Result<(), Error> {
        let node = self.take(region.as_ref())?;
        self.hub().disconnect(node.node());
        node.close(Duration::ZERO).await;
        Ok(())
    }

    /// Starts a stopped region anew. It is empty and warming: it takes the state of the others before it is ready
    /// ([`GeoCache::ready`](crate::GeoCache::ready)). Nothing happens where it runs.
    ///
    /// # Errors
    /// [`Error::UnknownRegion`]; [`Error::Start`].
    pub async fn start(&self, region: impl AsRef<str>) -> Result<(), Error> {
        let region = self.known(region.as_ref())?;
        if region.node.read().is_some() {
            return Ok(());
        }
        let refused = |source: BuildError| Error::Start { source: Box::new(source) };
        let builder = self.inner.transports.again(self.inner.node.clone(), &region.id).await;
        let node = builder.map_err(refused)?.build().await.map_err(refused)?;
        // Of two who started it at once, the later one's node has the name at the hub.
        *region.node.write() = Some(node);
        Ok(())
    }

    /// Parts two regions: neither hears the other until [`heal`](Self::heal).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use geocache::GeoCluster;
    ///
    /// let cluster = GeoCluster::new(["us-east", "eu-central"]).await?;
    /// cluster.partition("us-east", "eu-central")?;
    /// cluster.put("k", "v", "us-east")?;
    /// assert!(cluster.get::<String>("k", "eu-central")?.is_none());
    /// cluster.heal();
    /// cluster.settled(Duration::from_secs(20)).await?;
    /// assert!(cluster.get::<String>("k", "eu-central")?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownRegion`]; [`Error::NoHub`] where the nodes have transports of their own.
    pub fn partition(&self, one: impl AsRef<str>, other: impl AsRef<str>) -> Result<(), Error> {
        if !self.inner.transports.are_of_hub() {
            return Err(Error::NoHub);
        }
        let (one, other) = (self.known(one.as_ref())?, self.known(other.as_ref())?);
        self.hub().cut_both(one.id.region(), other.id.region());
        Ok(())
    }

    /// Ends every fault between the regions, those set at the [`hub`](Self::hub) included. Stopped regions stay so, and faults beyond the
    /// hub do.
    pub fn heal(&self) {
        self.hub().heal();
    }

    fn take(&self, name: &str) -> Result<crate::GeoCache, Error> {
        let region: &Region = self.known(name)?;
        let node = region.node.write().take();
        node.ok_or_else(|| Error::RegionStopped { region: region.id.region().clone() })
    }
}
