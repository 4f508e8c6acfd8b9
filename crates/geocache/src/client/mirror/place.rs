//! One of the servers that hold a copy: how it is reached, and how long is waited.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use geo::RegionId;
use resilience::{CircuitBreaker, Deadline};
use tokio::time::timeout;

use crate::{
    client::{Endpoint, EndpointError, Keys, Pulse},
    read::Item,
    store::Outcome,
    write::{Expect, TimeToLive, Write},
};

/// Each call is bounded in time; one that is over counts as a fault of the place.
pub(super) struct Place {
    pub(super) region: RegionId,
    endpoint: Arc<dyn Endpoint>,
    /// Judges what goes there while it does not lead: copies of writes, and reads as a last link.
    pub(super) breaker: CircuitBreaker,
    limit: Duration,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("region", &self.region).field("endpoint", &self.endpoint).finish()
    }
}

impl Place {
    pub(super) fn new(
        region: RegionId,
        endpoint: Arc<dyn Endpoint>,
        breaker: CircuitBreaker,
        limit: Duration,
    ) -> Self {
        Self { region, endpoint, breaker, limit }
    }

    pub(super) fn address(&self) -> String {
        self.endpoint.address()
    }

    pub(super) async fn get(&self, key: &[u8]) -> Result<Option<Item>, EndpointError> {
        self.bounded("a value", self.endpoint.get(key)).await
    }

    pub(super) async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Item>>, EndpointError> {
        if let [key] = keys {
            return Ok(vec![self.get(key).await?]);
        }
        let items = self.bounded("values", self.endpoint.get_many(keys)).await?;
        if items.len() == keys.len() {
            return Ok(items);
        }
        let reason = format!("it answered with {} values for {} keys", items.len(), keys.len());
        Err(EndpointError::Unreachable { address: self.address(), reason, may_be_done: false })
    }

    pub(super) async fn write(
        &self,
        key: &[u8],
        write: Write,
        expect: Expect,
    ) -> Result<Outcome, EndpointError> {
        self.bounded("a write", self.endpoint.write(key, write, expect)).await
    }

    pub(super) async fn remove(&self, key: &[u8], expect: Expect) -> Result<Outcome, EndpointError> {
        self.bounded("a remove", self.endpoint.remove(key, expect)).await
    }

    pub(super) async fn touch(&self, key: &[u8], ttl: TimeToLive) -> Result<bool, EndpointError> {
        self.bounded("a touch", self.endpoint.touch(key, ttl)).await
    }

    pub(super) async fn clear(&self) -> Result<(), EndpointError> {
        self.bounded("a clear", self.endpoint.clear()).await
    }

    pub(super) async fn probe(&self) -> Result<Pulse, EndpointError> {
        self.bounded("a probe", self.endpoint.probe()).await
    }

    pub(super) async fn keys(&self) -> Result<Keys, EndpointError> {
        self.bounded("its keys", self.endpoint.keys()).await
    }

    /// The next of the listed keys; `None` at the end.
    pub(super) async fn next_key(&self, keys: &mut Keys) -> Result<Option<Bytes>, EndpointError> {
        match timeout(self.limit, keys.recv()).await {
            Ok(key) => key.transpose(),
            Err(_) => Err(self.silent("the next key", self.limit)),
        }
    }

    async fn bounded<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, EndpointError>>,
    ) -> Result<T, EndpointError> {
        match Deadline::after(self.limit).wait_for(what, call).await {
            Ok(answer) => answer,
            Err(over) => Err(self.silent(what, over.waited)),
        }
    }

    fn silent(&self, what: &str, waited: Duration) -> EndpointError {
        let reason = format!("no answer within {waited:?} to the call for {what}");
        EndpointError::Unreachable { address: self.address(), reason, may_be_done: true }
    }
}
