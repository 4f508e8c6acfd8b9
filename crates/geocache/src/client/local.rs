//! A node of this process as an endpoint.

use async_trait::async_trait;
use bytes::Bytes;
use resilience::Life;
use tokio::{runtime::Handle, sync::mpsc};

use super::{Doubt, Endpoint, EndpointError, KEYS_WAITING_MAX, Keys, Pulse};
use crate::{
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
        self.is_open()?;
        // The clock at its start is as good as random: no two lives of a node share it.
        let life = Life::new(self.since().0, self.store().len() as u64).began_empty();
        Ok(Pulse::new(life).doubt(self.doubt()))
    }

    async fn keys(&self) -> Result<Keys, EndpointError> {
        self.is_open()?;
        let (sender, keys) = mpsc::channel(KEYS_WAITING_MAX);
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let (cache, mut position) = (self.downgrade(), Some(0));
        runtime.spawn(async move {
            while let Some(from) = position {
                // The node is let go between pages, so that a slow reader does not keep it alive.
                let Some(page) = cache.upgrade().map(|cache| cache.keys_from(from)) else { return };
                for key in page.keys {
                    if sender.send(Ok(key)).await.is_err() {
                        return;
                    }
                }
                position = page.next;
            }
        });
        Ok(keys)
    }
}

/// Some of the keys of a handle, and where the next ones begin.
struct KeyPage {
    keys: Vec<Bytes>,
    next: Option<u64>,
}

impl GeoCache {
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

    /// The keys of this handle's namespace, without the prefix.
    fn keys_from(&self, position: u64) -> KeyPage {
        let (keys, next) = self.store().keys_from(position);
        let prefix = self.prefix();
        let own = keys.into_iter().filter_map(|key| {
            let begins = key.starts_with(prefix);
            begins.then(|| key.slice(prefix.len()..))
        });
        KeyPage { keys: own.collect(), next }
    }
}
