//! What happens at the edges: the longest values, and a node whose task died.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use geocache::{Error, Expect, GeoCache, NodeId, Transport, Write, memory::Hub};
use replication::{Destination, Health, Subscription, TransportError, wire};
use tokio::sync::watch;

const BOUND: Duration = Duration::from_secs(30);

fn node(region: &str) -> NodeId {
    NodeId::new(region.parse().unwrap(), "n").unwrap()
}

/// A late node never became ready: one page held a value of the limit and others beside it, more than a frame.
#[tokio::test]
async fn a_late_node_gets_the_longest_values_among_short_ones() {
    let hub = Hub::new();
    let build = |region, bootstrap| {
        let builder = GeoCache::builder().transport(hub.join(node(region))).bootstrap(bootstrap);
        builder.value_bytes_max(wire::VALUE_BYTES_MAX).build()
    };
    let first = build("us-east", true).await.unwrap();
    let write = |key: String, bytes: usize| {
        let write = Write { bytes: Bytes::from(vec![7; bytes]), ..Write::default() };
        first.write(key.as_bytes(), write, Expect::Any).unwrap();
    };
    (0..300).for_each(|n| write(format!("short-{n}"), 1_000));
    (0..3).for_each(|n| write(format!("long-{n}"), wire::VALUE_BYTES_MAX));
    let late = build("ap-south", false).await.unwrap();
    tokio::time::timeout(BOUND, late.ready()).await.unwrap().unwrap();
    assert!((0..300).all(|n| late.item(format!("short-{n}").as_bytes()).is_some()));
    for n in 0..3 {
        let item = late.item(format!("long-{n}").as_bytes()).unwrap();
        assert_eq!(item.bytes.len(), wire::VALUE_BYTES_MAX);
    }
}

/// A transport with a defect: it panics in the task that calls it.
struct Defective {
    node: NodeId,
    hub: Arc<dyn Transport>,
}

#[async_trait]
impl Transport for Defective {
    fn node(&self) -> &NodeId {
        &self.node
    }

    async fn publish(&self, _to: Destination, _frame: Bytes) -> Result<(), TransportError> {
        panic!("a defect of the transport, as this test wants it");
    }

    async fn subscribe(&self) -> Result<Box<dyn Subscription>, TransportError> {
        self.hub.subscribe().await
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.hub.health()
    }

    async fn close(&self) -> Result<(), TransportError> {
        self.hub.close().await
    }
}

/// A node whose task had died looked well for ever, and nobody replicated its writes.
#[tokio::test]
async fn a_node_whose_task_died_says_so() {
    let hub = Hub::new().join(node("us-east"));
    let transport = Arc::new(Defective { node: node("us-east"), hub });
    let cache = GeoCache::builder().transport(transport).bootstrap(true).build().await.unwrap();
    let error = tokio::time::timeout(BOUND, cache.failed()).await.unwrap();
    assert!(matches!(&error, Error::Stopped { reason } if reason.contains("unexpectedly")), "{error}");
    assert!(!cache.is_ready());
    assert!(matches!(cache.ready().await, Err(Error::Stopped { .. })));
    cache.put("k", "still stored here").unwrap();
    assert!(cache.contains("k").unwrap());
}
