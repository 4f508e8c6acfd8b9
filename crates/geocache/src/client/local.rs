//! A node of this process as an endpoint, and a region of a cluster in it.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use geo::RegionId;
use resilience::Life;
use tokio::{runtime::Handle, sync::mpsc};

use super::{Doubt, Endpoint, EndpointError, KEYS_WAITING_MAX, Keys, Pulse};
use crate::{
    cluster::GeoCluster,
    error::Error,
    node::GeoCache,
    read::Item,
    store::Outcome,
    write::{Expect, TimeToLive, Write},
};

/// Calls end at once, so none is ever under way when its future is dropped. A node that was closed refuses changes and still reads; as
/// an endpoint it refuses both, so that the client goes to one that is kept up to date.
#[async_trait]
impl Endpoint for GeoCache {
    fn address(&self) -> String {
        format!("{} in this process", self.node())
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Item>, EndpointError> {
        self.is_open()?;
        self.checked(key)?;
        Ok(self.item(key))
    }

    async fn write(&self, key: &[u8], write: Write, expect: Expect) -> Result<Outcome, EndpointError> {
        self.told(GeoCache::write(self, key, write, expect))
    }

    async fn remove(&self, key: &[u8], expect: Expect) -> Result<Outcome, EndpointError> {
        self.told(self.remove_if(key, expect))
    }

    async fn touch(&self, key: &[u8], ttl: TimeToLive) -> Result<bool, EndpointError> {
        Ok(self.told(self.touch_item(key, ttl))?.is_some())
    }

    async fn clear(&self) -> Result<(), EndpointError> {
        self.told(GeoCache::clear(self))
    }

    async fn probe(&self) -> Result<Pulse, EndpointError> {
        self.pulse()
    }

    async fn keys(&self) -> Result<Keys, EndpointError> {
        self.is_open()?;
        let (sender, keys) = mpsc::channel(KEYS_WAITING_MAX);
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let (cache, mut position) = (self.downgrade(), Some(0));
        runtime.spawn(async move {
            while let Some(from) = position {
                // The node is let go between pages, so that a slow reader does not keep it alive.
                let Some((keys, next)) = cache.upgrade().map(|cache| cache.keys_from(from)) else { return };
                for key in keys {
                    if sender.send(Ok(key)).await.is_err() {
                        return;
                    }
                }
                position = next;
            }
        });
        Ok(keys)
    }
}

/// A region of a cluster in this process, whichever node it has.
struct ClusterRegion {
    cluster: GeoCluster,
    region: RegionId,
}

impl ClusterRegion {
    /// The node that the region has now; a region that is stopped cannot be reached.
    fn node(&self) -> Result<GeoCache, EndpointError> {
        self.cluster.region(&self.region).map_err(|error| EndpointError::Unreachable {
            address: self.address(),
            reason: error.to_string(),
            may_be_done: false,
        })
    }
}

#[async_trait]
impl Endpoint for ClusterRegion {
    fn address(&self) -> String {
        format!("{} in this process", self.region)
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Item>, EndpointError> {
        Endpoint::get(&self.node()?, key).await
    }

    async fn write(&self, key: &[u8], write: Write, expect: Expect) -> Result<Outcome, EndpointError> {
        Endpoint::write(&self.node()?, key, write, expect).await
    }

    async fn remove(&self, key: &[u8], expect: Expect) -> Result<Outcome, EndpointError> {
        Endpoint::remove(&self.node()?, key, expect).await
    }

    async fn touch(&self, key: &[u8], ttl: TimeToLive) -> Result<bool, EndpointError> {
        Endpoint::touch(&self.node()?, key, ttl).await
    }

    async fn clear(&self) -> Result<(), EndpointError> {
        Endpoint::clear(&self.node()?).await
    }

    async fn probe(&self) -> Result<Pulse, EndpointError> {
        self.node()?.probe().await
    }

    async fn keys(&self) -> Result<Keys, EndpointError> {
        self.node()?.keys().await
    }
}

impl fmt::Debug for ClusterRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterRegion").field("region", &self.region).finish_non_exhaustive()
    }
}

impl GeoCluster {
    /// A region of this cluster as a client reaches it: by the node that it has when it is asked, so that a region that was stopped
    /// and started again is reached again. While it is stopped, it cannot be reached.
    ///
    /// # Errors
    /// [`Error::UnknownRegion`].
    pub fn endpoint(&self, region: impl AsRef<str>) -> Result<Arc<dyn Endpoint>, Error> {
        let name = region.as_ref();
        let found = self.endpoints().find(|(region, _)| region.as_str() == name);
        let unknown = || Error::UnknownRegion {
            region: name.to_owned(),
            known: self.endpoints().map(|(region, _)| region).collect(),
        };
        found.map(|(_, endpoint)| endpoint).ok_or_else(unknown)
    }

    /// Every region, in the order in which they were named.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = (RegionId, Arc<dyn Endpoint>)> {
        self.names().map(|region| {
            let endpoint = ClusterRegion { cluster: self.clone(), region: region.clone() };
            (region.clone(), Arc::new(endpoint) as Arc<dyn Endpoint>)
        })
    }
}

impl GeoCache {
    /// What the node says of itself to clients.
    ///
    /// # Errors
    /// [`EndpointError::Refused`] where it was closed.
    pub fn pulse(&self) -> Result<Pulse, EndpointError> {
        self.is_open()?;
        let life = Life::new(self.life_number(), self.store().len() as u64).began_empty();
        Ok(Pulse::new(life).doubt(self.doubt()))
    }

    fn is_open(&self) -> Result<(), EndpointError> {
        self.told(self.open())
    }

    fn checked(&self, key: &[u8]) -> Result<(), EndpointError> {
        self.told(self.full(key).map(drop))
    }

    /// An outcome as an endpoint tells it: a closed node is a refusal, all else the caller's mistake.
    fn told<T>(&self, outcome: Result<T, Error>) -> Result<T, EndpointError> {
        outcome.map_err(|error| match error {
            Error::Closed => EndpointError::Refused { address: self.address(), reason: error.to_string() },
            error => EndpointError::Input(error),
        })
    }

    /// Why what this node serves may be older than what others hold.
    fn doubt(&self) -> Option<Doubt> {
        let health = self.health();
        if !health.ready {
            return Some(Doubt::Warming);
        }
        (!health.is_well()).then_some(Doubt::CutOff)
    }

    /// Some of the keys of this handle's namespace, without its prefix, and where those after them begin; `None` where there are none.
    /// A listing begins at 0. A page may be empty; a key that is written or gone meanwhile may be told or not.
    pub fn keys_from(&self, position: u64) -> (Vec<Bytes>, Option<u64>) {
        let (keys, next) = self.store().keys_from(position);
        let prefix = self.prefix();
        let own = keys.into_iter().filter_map(|key| {
            let begins = key.starts_with(prefix);
            begins.then(|| key.slice(prefix.len()..))
        });
        (own.collect(), next)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc, time::Duration};

    use replication::{NodeId, memory::Hub};

    use super::*;
    use crate::{GeoCluster, client::contract};

    const LONG: Duration = Duration::from_secs(20);

    async fn node() -> GeoCache {
        GeoCache::builder().build().await.unwrap()
    }

    async fn until(what: &str, condition: impl AsyncFn() -> bool) {
        let reached = async {
            while !condition().await {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(tokio::time::timeout(LONG, reached).await.is_ok(), "{what} did not come");
    }

    async fn listed(mut keys: Keys) -> BTreeSet<Bytes> {
        let mut listed = BTreeSet::new();
        while let Some(key) = keys.recv().await {
            listed.insert(key.unwrap());
        }
        listed
    }

    #[tokio::test]
    async fn a_node_of_this_process_holds_the_contract() {
        contract::holds(Arc::new(node().await)).await;
    }

    #[tokio::test]
    async fn a_namespace_holds_the_contract_and_lists_its_own_keys_alone() {
        let cache = node().await;
        let namespace = cache.namespace("users").unwrap();
        contract::holds(Arc::new(namespace.clone())).await;
        Endpoint::clear(&cache).await.unwrap();
        Endpoint::clear(&namespace).await.unwrap();
        cache.put("outside", "a").unwrap();
        namespace.put("inside", "b").unwrap();
        assert_eq!(listed(Endpoint::keys(&namespace).await.unwrap()).await, ["inside".into()].into());
        let all = listed(Endpoint::keys(&cache).await.unwrap()).await;
        assert!(all.len() == 2 && all.contains(&b"outside"[..]), "{all:?}");
    }

    #[tokio::test]
    async fn a_closed_node_refuses_everything() {
        let cache = node().await;
        cache.put("k", "v").unwrap();
        cache.close(LONG).await;
        let endpoint: &dyn Endpoint = &cache;
        let refusals = [
            endpoint.get(b"k").await.map(drop),
            endpoint.get_many(&["k".into()]).await.map(drop),
            endpoint.write(b"k", Write::default(), Expect::Any).await.map(drop),
            endpoint.remove(b"k", Expect::Any).await.map(drop),
            endpoint.touch(b"k", TimeToLive::Never).await.map(drop),
            endpoint.clear().await,
            endpoint.probe().await.map(drop),
            endpoint.keys().await.map(drop),
        ];
        for refusal in refusals {
            let error = refusal.unwrap_err();
            assert!(matches!(error, EndpointError::Refused { .. }) && error.is_fault(), "{error:?}");
            assert!(error.to_string().contains("in this process"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_listing_does_not_keep_its_node_alive() {
        let cache = node().await;
        for number in 0..5 * KEYS_WAITING_MAX {
            cache.put(number.to_string(), &number).unwrap();
        }
        let mut alive = cache.alive();
        let mut keys = Endpoint::keys(&cache).await.unwrap();
        assert!(keys.recv().await.is_some());
        drop(cache);
        let ended = async { while alive.changed().await.is_ok() {} };
        assert!(tokio::time::timeout(LONG, ended).await.is_ok(), "the node lives on");
        let mut rest = 0;
        while keys.recv().await.is_some() {
            rest += 1;
        }
        assert!(rest < 5 * KEYS_WAITING_MAX, "it ended with the node");
    }

    #[tokio::test]
    async fn each_life_is_another_however_soon_it_follows() {
        // Many of them in the same millisecond.
        let mut lives = BTreeSet::new();
        for _ in 0..50 {
            let life = node().await.pulse().unwrap().life;
            assert!(life.began_empty && lives.insert(life.incarnation));
        }
    }

    #[tokio::test]
    async fn a_node_that_is_cut_off_or_warming_is_in_doubt() {
        let cluster = GeoCluster::new(["us-east", "eu-central"]).await.unwrap();
        let here = cluster.region("us-east").unwrap();
        assert_eq!(here.pulse().unwrap().doubt, None);
        cluster.partition("us-east", "eu-central").unwrap();
        until("the doubt", async || here.pulse().unwrap().doubt == Some(Doubt::CutOff)).await;
        cluster.heal();
        until("the return", async || here.pulse().unwrap().doubt.is_none()).await;

        let alone = NodeId::new("ap-south".parse().unwrap(), "n1").unwrap();
        let warming = GeoCache::builder().transport(Hub::new().join(alone)).build().await.unwrap();
        assert_eq!(warming.pulse().unwrap().doubt, Some(Doubt::Warming));
    }
}
