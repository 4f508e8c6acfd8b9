//! One cache, close to everyone: a TTL-LRU in every region, each write replicated to all the others.
//!
//! [`GeoCache`] is one node: it answers reads from its own memory and applies writes at once, then replicates them
//! through a [`Transport`]. [`GeoCluster`] is several regions in one process, for tests and
//! demos:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use geocache::GeoCluster;
//!
//! // Initialize the cache
//! let cache = GeoCluster::new(["us-east", "eu-central"]).await?;
//!
//! // Add an item to the cache
//! cache.put("myKey", "myValue", "us-east")?;
//!
//! // Retrieve an item from the cache, once the regions have told each other
//! cache.settled(Duration::from_secs(5)).await?;
//! let value = cache.get::<String>("myKey", "eu-central")?;
//! assert_eq!(value.as_deref().map(String::as_str), Some("myValue"));
//! # Ok(())
//! # }
//! ```
//!
//! This crate composes its siblings and decides nothing that one of them could decide: `cache-core` evicts and expires,
//! `replication` orders and repairs, and the per-key merge that joins the two is in `store`.
//!
//! **Sessions.** A write may wait for a receipt of who has it ([`GeoCache::put_with`]); its token makes a read in another
//! region see it ([`GeoCache::get_at_least`]); a node that is still warming reads through to a ready one
//! ([`GeoCache::get_or_fetch`]).
//!
//! **Freshness.** A read may demand that no write made anywhere longer ago than some time is missing from it, and is answered
//! so or told which region is how far behind ([`GeoCache::get_fresh`]).
//!
//! **Reading through.** A miss may run a loader, one for all who ask at once ([`GeoCache::get_or_load`]), with old values for when
//! the origin is slow or gone ([`LoadOptions`]); with a lease ([`LoadOptions::lease`]) one region loads for all.
//!
//! **Running it.** Settings come from a file and the environment (module `config`), metrics go to Prometheus (module `metrics`), each behind a
//! feature of its name. [`docs`] has guides.
//!
//! **Logs.** Calls that wait have a span of `tracing` (target `geocache::call`, level `DEBUG`) with the cache, the region and the node,
//! and each call of a client has one that says who answered. No value is ever logged, and a key at the level `TRACE` alone.
//!
//! **Looking in.** Why a key is as it is on a node, and with a history what happened to it lately, is told by
//! [`GeoCache::explain`]; what happens, as it happens, by [`GeoCache::watch`]; how the node is, by [`GeoCache::health`].
//!
//! **What is not promised.** Two regions that write one key at once keep one of the two values everywhere, the one with
//! the higher stamp. Conditional writes are atomic on their node only. A read elsewhere is as old as the lag.

mod builder;
mod bulk;
pub mod client;
mod cluster;
#[cfg(feature = "config")]
pub mod config;
pub mod docs;
mod error;
mod events;
mod explain;
mod fresh;
mod health;
mod load;
#[cfg(feature = "metrics")]
pub mod metrics;
mod namespace;
mod node;
mod read;
mod session;
#[cfg(feature = "sim")]
pub mod sim;
mod stats;
mod store;
mod trace;
mod value;
mod write;

/// For a [`Transport`] or an [`Endpoint`](client::Endpoint) of your own: both traits have asynchronous methods, and are used as objects.
pub use async_trait::async_trait;
/// What values and keys are as bytes: [`Write`], [`Item`] and [`Endpoint`](client::Endpoint) have it.
pub use bytes::Bytes;
/// The siblings, whole: whatever of them is named in this crate's interface, or takes part in a [`Transport`] of your own, is had
/// without depending on them.
#[doc(no_inline)]
pub use {geo, replication, resilience};

pub use builder::Builder;
pub use cluster::{ClusterBuilder, GeoCluster};
pub use error::{BuildError, CodecError, Error};
pub use events::{Event, Events, Missed};
pub use explain::{Explanation, Past, Present, What};
pub use fresh::FreshOptions;
pub use geo::RegionId;
pub use health::{Health, RegionHealth, RegionState};
pub use load::{AskRegion, LoadError, LoadOptions, Loaded, Source};
pub use node::{Closed, GeoCache};
pub use read::Item;
#[cfg(feature = "rabbitmq")]
pub use replication::rabbitmq;
pub use replication::{
    Health as TransportHealth, NodeId, Stamp, Transport,
    driver::{Behind, FreshTo, Receipt, WriteConcern},
    memory,
    replica::{Token, TokenError},
    report,
};
pub use session::PutOptions;
pub use stats::{LoadStats, RegionStats, Stats};
pub use store::Outcome;
pub use value::Codec;
pub use write::{Expect, TimeToLive, Write};

/// The examples of the repository's README, compiled and run with the other doc tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct ReadmeExamples;
