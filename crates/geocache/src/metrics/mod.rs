//! Metrics for Prometheus and whoever reads its format: every count and gauge of a process's caches.
//!
//! [`Metrics`] holds caches, weakly, and is a collector of the crate `prometheus-client`: registered with a program's own registry, or
//! rendered alone. There is no global state; a process may have several caches, each told apart by the labels `cache`, `region` and
//! `node`.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use geocache::{GeoCache, metrics::Metrics};
//!
//! let (users, prices) = (GeoCache::builder().cache("users"), GeoCache::builder().cache("prices"));
//! let (users, prices) = (users.build().await?, prices.build().await?);
//! let metrics = Metrics::new();
//! metrics.add(&users)?;
//! metrics.add(&prices)?;
//!
//! users.put("user:1", "Ada")?;
//! let text = metrics.render();
//! assert!(text.contains(r#"geocache_writes_total{cache="users",region="local",node="node-1"} 1"#));
//! assert!(text.contains(r#"geocache_writes_total{cache="prices",region="local",node="node-1"} 0"#));
//!
//! // Or among a program's own:
//! let mut registry = prometheus_client::registry::Registry::default();
//! registry.register_collector(Box::new(metrics));
//! # Ok(())
//! # }
//! ```
//!
//! # Why this way
//! A node counts anyway ([`Stats`](crate::Stats)), so metrics are read when they are asked for and cost nothing in between. The facade crate
//! `metrics` was rejected: its recorder is told of each event or polled by a task of ours, and is global unless each call is wrapped.
//!
//! # The metrics
//! Each has the labels `cache`, `region` and `node` of the node that tells it, and those of the third column. Names end with the unit.
//! A count begins at 0 when the node is built. What is not known yet, such as the lag of a region that wrote nothing, is left out.
//!
#![doc = include_str!("../../docs/metrics.md")]

mod sample;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, sync::Arc};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use self::sample::{Label, Sample, Value};
use crate::node::{GeoCache, WeakGeoCache};

/// The caches of a process whose metrics are exported. A cheap handle; it keeps no cache alive.
#[derive(Clone, Default)]
pub struct Metrics {
    caches: Arc<Mutex<Vec<WeakGeoCache>>>,
}

/// Two live nodes of one name, which metrics could not tell apart: name the caches of a process differently
/// ([`Builder::cache`](crate::Builder::cache)).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the node {node} of the cache {cache:?} is exported already; give each cache of a process a name of its own"
)]
#[non_exhaustive]
pub struct SameName {
    /// The cache's name.
    pub cache: String,
    /// The node.
    pub node: crate::NodeId,
}

impl Metrics {
    /// No caches yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Exports a cache, until it is dropped. One that is there already stays there once; a closed one of its name gives way.
    ///
    /// # Errors
    /// [`SameName`].
    pub fn add(&self, cache: &GeoCache) -> Result<(), SameName> {
        let is_same =
            |other: &GeoCache| other.node() == cache.node() && other.cache_name() == cache.cache_name();
        let mut caches = self.caches.lock();
        let mut taken = false;
        caches.retain(|other| match other.upgrade() {
            None => false,
            Some(other) if other.is_same_node(cache) => false,
            Some(other) if is_same(&other) && other.is_closed() => false,
            Some(other) => {
                taken |= is_same(&other);
                true
            }
        });
        if taken {
            return Err(SameName { cache: cache.cache_name().to_owned(), node: cache.node().clone() });
        }
        caches.push(cache.downgrade());
        Ok(())
    }

    /// All metrics, in the OpenMetrics text format (`application/openmetrics-text; version=1.0.0; charset=utf-8`).
    pub fn render(&self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut text, &registry);
        text
    }

    /// The samples of all caches, by the names of their metrics: a metric of several caches is described once.
    fn samples(&self) -> BTreeMap<String, Vec<(Vec<Label>, Sample)>> {
        // Nothing of a node is asked under the lock.
        let caches: Vec<GeoCache> = self.caches.lock().iter().filter_map(WeakGeoCache::upgrade).collect();
        let mut families: BTreeMap<String, Vec<(Vec<Label>, Sample)>> = BTreeMap::new();
        for cache in caches {
            let own = [
                ("cache", cache.cache_name().to_owned()),
                ("region", cache.region().to_string()),
                ("node", cache.node().name().to_owned()),
            ];
            for sample in sample::all(&cache.stats(), cache.transport_report().as_ref()) {
                let labels = own.iter().chain(&sample.labels).cloned().collect();
                families.entry(sample.name.clone()).or_default().push((labels, sample));
            }
        }
        families
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, samples) in self.samples() {
            let Some((_, first)) = samples.first() else { continue };
            let kind =
                if matches!(first.value, Value::Count(_)) { MetricType::Counter } else { MetricType::Gauge };
            let mut family = encoder.encode_descriptor(&name, &first.help, first.unit.as_ref(), kind)?;
            for (labels, sample) in &samples {
                let encoder = family.encode_family(labels)?;
                match sample.value {
                    Value::Count(count) => ConstCounter::new(count).encode(encoder)?,
                    Value::Whole(number) => ConstGauge::new(number).encode(encoder)?,
                    Value::Real(number) => ConstGauge::new(number).encode(encoder)?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("caches", &self.caches.lock().len()).finish()
    }
}
