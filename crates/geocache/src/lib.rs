//! One cache, close to everyone: a TTL-LRU in every region, each write replicated to all the others.
//!
//! ```toml
//! [dependencies]
//! geocache = { path = "…/crates/geocache" } # in a clone of the repository
//! serde = { version = "1", features = ["derive"] } # for values of your own types
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! ```
//!
//! A cache in this process: values of any `serde` type, and a loader for what is missing, which runs once for all who ask at once.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use geocache::GeoCache;
//!
//! let cache = GeoCache::builder().capacity(10_000).default_ttl(Duration::from_secs(600)).build().await?;
//! cache.put("greeting", "hello")?;
//! let price = cache.get_or_load("price:7", || async { Ok::<_, std::io::Error>(42_u64) }).await?;
//! assert_eq!(*price, 42);
//! # Ok(())
//! # }
//! ```
//!
//! Several regions: what is written in one is read in the others. Here they are in one process, for tests and demos; deployed, each
//! is a [`GeoCache`] in a process of its own, with the same calls and a [transport](Builder::transport), such as [RabbitMQ](rabbitmq).
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
//! # Which handle
//!
//! | you have | take |
//! |---|---|
//! | a program that should hold its region's cache in its own memory, or needs no other region | [`GeoCache`]: one node |
//! | a test or a demo of several regions, and of their outages | [`GeoCluster`]: nodes of this process, by region |
//! | a program without a node, or one that wants another region's answer when its own is gone | [`GeoClient::builder`](client::GeoClient::builder): each call to the closest healthy region |
//! | servers that do not replicate, such as plain memcached | [`GeoClient::mirrored`](client::GeoClient::mirrored): main, fallback and backups kept alike |
//!
//! Handles are cheap to clone and are shared by threads and tasks; dropping the last one ends its tasks, and `close` does so in good order.
//!
//! # Where each answer is
//!
//! | question | answer |
//! |---|---|
//! | How long does a value live, what does it weigh, which bytes are stored? | [`GeoCache::put_with_ttl`], [`PutOptions`], [`GeoCache::write`] and [`Write`], [`Codec`] |
//! | How are keys kept apart, and emptied apart? | [`GeoCache::namespace`] |
//! | How is a value changed without losing another caller's change? | [`GeoCache::update`], on this node; [`Expect`] for a condition |
//! | Who has what I wrote? | [`GeoCache::put_with`] waits for a [`Receipt`], as far as a [`WriteConcern`] asks |
//! | How does a read elsewhere see it? | the receipt's [`Token`], with [`GeoCache::get_at_least`] |
//! | How old may an answer be? | [`GeoCache::get_fresh`] says how old at most, or which region is how far behind; [`GeoCache::lag`] |
//! | What of a key that is not here? | [`GeoCache::get_or_fetch`] asks the nearest ready region, [`GeoCache::get_or_load`] the origin |
//! | What if the origin is slow, down, or asked by every region at once? | [`LoadOptions`]: old values, a soft limit, refresh ahead, jitter, [a lease](LoadOptions::lease) |
//! | Is the node well, and ready? | [`GeoCache::health`], [`GeoCache::ready`] |
//! | What happens, as it happens? | [`GeoCache::watch`] |
//! | Why is a key as it is? | [`GeoCache::explain`] |
//! | How much of everything? | [`GeoCache::stats`]; for Prometheus [`metrics`] |
//! | Which region answers a client, and why? | [`Served`](client::Served), [`Routes::status`](client::Routes::status), [`Mirror::status`](client::Mirror::status) |
//! | How is an outage rehearsed in a unit test? | [`GeoCluster::stop`], [`GeoCluster::partition`], and the [hub](memory::Hub)'s faults |
//! | How are settings read from a file and the environment? | [`config`] |
//! | What do I do about an error? | [`Error`], [`LoadError`], [`ClientError`](client::ClientError), [`BuildError`]: each variant says what to do next |
//! | How do I write a transport, or reach a server of my own kind? | [`Transport`] and [`client::Endpoint`], held to their suites by the feature `contract` |
//! | Where is what I knew in the system before? | [`docs`] has a page for each of the two that this one grew from |
//!
//! Every default is stated at its setter in [`Builder`], [`ClusterBuilder`], [`ClientBuilder`](client::ClientBuilder) and
//! [`MirrorBuilder`](client::MirrorBuilder); the siblings' own interfaces are [`geo`], [`replication`] and [`resilience`].
//!
//! # Features
//!
//! None is on by default, and each only adds.
//!
//! | feature | what it adds |
//! |---|---|
//! | `rabbitmq` | the RabbitMQ transport: [`rabbitmq`] |
//! | `memcached` | memcached and `geocached` servers as a client's regions: [`client::Memcached`] |
//! | `config` | settings from a file and the environment: [`config`] |
//! | `metrics` | all that is counted, for Prometheus: [`metrics`] |
//! | `contract` | the suites for transports and endpoints of your own: [`replication::contract`], [`client::contract`] |
//! | `sim` | the node's own store under the simulation of `replication`: [`sim`] |
//!
//! **Logs.** Calls that wait have a span of `tracing` (target `geocache::call`, level `DEBUG`) with the cache, the region and the node,
//! and each call of a client has one that says who answered. No value is ever logged, and a key at the level `TRACE` alone.
//!
//! # What is not promised
//!
//! Two regions that write one key at once keep one of the two values everywhere, the one with the higher stamp. Conditional writes
//! are atomic on their node only. A read elsewhere is as old as the lag. A write that no other node and no broker has heard of is gone
//! with its node.
//!
//! This crate composes its siblings and decides nothing that one of them could decide: `cache-core` evicts and expires,
//! `replication` orders and repairs, `resilience` and `geo` say which region is asked, and the per-key merge that joins the first two is
//! in `store`.

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
