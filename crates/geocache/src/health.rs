//! How a node is: one value to show, to alert on, and to decide by.

use std::time::Duration;

use geo::RegionId;
use replication::Health as TransportHealth;

use crate::{node::GeoCache, stats::RegionStats};

/// How a node is at this moment.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Health {
    /// Whether it has the state of the others; see [`GeoCache::is_ready`].
    pub ready: bool,
    /// Whether it was closed.
    pub closed: bool,
    /// Why it had to stop replicating, where it had to. It goes on as a cache by itself.
    pub failure: Option<String>,
    /// Whether its transport carries frames; `None` without one.
    pub transport: Option<TransportHealth>,
    /// The other regions, in the order of their names.
    pub regions: Vec<RegionHealth>,
}

/// How another region is, as this node hears it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegionHealth {
    /// The region.
    pub region: RegionId,
    /// How it is.
    pub state: RegionState,
    /// The time from its newest write to its application here; `None` before the first. See [`RegionStats::lag_ms`].
    pub lag: Option<Duration>,
    /// How many of its records are known to exist and are not applied here yet.
    pub behind_records: u64,
    /// Whether a clock of it is so far ahead that writes are refused.
    pub drifts: bool,
}

/// How a region is: as its best node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RegionState {
    /// It is heard and ready.
    Ready,
    /// It is heard, and takes the state of the others.
    Warming,
    /// It is not heard.
    Down,
}

impl Health {
    /// Whether all is as it should be: ready, replicating, connected, every region ready and no clock refused.
    pub fn is_well(&self) -> bool {
        let connected = self.transport.as_ref().is_none_or(|health| *health == TransportHealth::Connected);
        let is_well = |region: &RegionHealth| region.state == RegionState::Ready && !region.drifts;
        self.ready && !self.closed && self.failure.is_none() && connected && self.regions.iter().all(is_well)
    }
}

impl RegionHealth {
    fn of(stats: &RegionStats) -> Self {
        let state = if stats.is_ready() {
            RegionState::Ready
        } else if stats.nodes.iter().any(|node| node.alive) {
            RegionState::Warming
        } else {
            RegionState::Down
        };
        Self {
            region: stats.region.clone(),
            state,
            lag: stats.lag_ms().map(Duration::from_millis),
            behind_records: stats.behind_records(),
            drifts: stats.nodes.iter().any(|node| node.drifts),
        }
    }
}

impl GeoCache {
    /// How the node is.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use geocache::{GeoCluster, RegionState};
    ///
    /// let cluster = GeoCluster::new(["us-east", "eu-central"]).await?;
    /// let health = cluster.region("us-east")?.health();
    /// assert!(health.is_well());
    /// assert_eq!(health.regions[0].state, RegionState::Ready);
    /// # Ok(())
    /// # }
    /// ```
    pub fn health(&self) -> Health {
        let Some(replication) = self.replication() else {
            return Health {
                ready: self.is_ready(),
                closed: self.is_closed(),
                failure: None,
                transport: None,
                regions: Vec::new(),
            };
        };
        let status = replication.status.borrow();
        let died = (!self.is_closed() && !replication.is_running()).then(|| self.ended().to_string());
        Health {
            ready: status.ready && replication.is_running(),
            closed: self.is_closed(),
            failure: status.failure.as_ref().map(ToString::to_string).or(died),
            transport: Some(replication.health.borrow().clone()),
            regions: RegionStats::of(&status.peers).iter().map(RegionHealth::of).collect(),
        }
    }

    /// The time from the newest write of each other region to its application here, in the order of the regions' names; `None`
    /// before the first. See [`RegionStats::lag_ms`] for what it is exact to.
    pub fn lag(&self) -> Vec<(RegionId, Option<Duration>)> {
        self.health().regions.into_iter().map(|region| (region.region, region.lag)).collect()
    }

    /// The divergence meter: how many records a background comparison with another node brought here although this node's watermarks
    /// claimed them. It stays zero unless a write was lost on its way in spite of all rules.
    pub fn divergence(&self) -> u64 {
        self.replication().map_or(0, |replication| replication.status.borrow().counters.divergence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GeoCluster, memory::Place};

    const LONG: Duration = Duration::from_secs(20);

    async fn until(what: &str, condition: impl Fn() -> bool) {
        let reached = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(tokio::time::timeout(LONG, reached).await.is_ok(), "{what} did not come");
    }

    #[tokio::test]
    async fn a_node_alone_is_well_until_it_is_closed() {
        let cache = GeoCache::builder().build().await.unwrap();
        assert!(cache.health().is_well());
        assert_eq!((cache.lag(), cache.divergence()), (vec![], 0));
        cache.close(LONG).await;
        assert!(cache.health().closed && !cache.health().is_well());
    }

    #[tokio::test]
    async fn lag_is_known_once_a_region_has_written() {
        let cluster = GeoCluster::new(["us-east", "eu-central"]).await.unwrap();
        let there = cluster.region("eu-central").unwrap();
        assert_eq!(there.lag(), [("us-east".parse().unwrap(), None)]);
        cluster.put("k", "v", "us-east").unwrap();
        until("the lag", || there.lag()[0].1.is_some()).await;
        assert_eq!(there.health().regions[0].behind_records, 0);
        assert_eq!(there.divergence(), 0);
    }

    #[tokio::test]
    async fn a_region_that_is_not_heard_is_down_and_a_broken_transport_is_told() {
        let cluster = GeoCluster::new(["us-east", "eu-central"]).await.unwrap();
        let here = cluster.region("us-east").unwrap();
        cluster.hub().isolate(Place::Region("eu-central".parse().unwrap()));
        until("the outage", || here.health().regions[0].state == RegionState::Down).await;
        assert!(here.health().ready && !here.health().is_well(), "it serves what it has");
        cluster.heal();
        until("the return", || here.health().is_well()).await;
        cluster.hub().disconnect(here.node());
        assert!(matches!(here.health().transport, Some(TransportHealth::Connecting { .. })));
        cluster.hub().reconnect(here.node());
        until("the connection", || here.health().is_well()).await;
    }
}
