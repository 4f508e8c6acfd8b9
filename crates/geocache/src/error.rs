//! What can go wrong, by what the caller does next.

use std::time::Duration;

use geo::{NameError, RegionId};
use replication::{
    NodeId,
    driver::{Behind, StartError},
};

use crate::value::Codec;

/// The cause of a failed encoding or decoding, from the codec's own library.
pub type CodecError = Box<dyn std::error::Error + Send + Sync>;

/// Why an operation on a cache failed. Nothing that was stored is lost by any of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The key breaks the limits: use another.
    #[error("a key of {bytes} bytes was given; a key has 1 to {max} bytes")]
    Key {
        /// The bytes of the key given.
        bytes: usize,
        /// The most that the cache was built to take.
        max: usize,
    },
    /// The key is one that a client keeps for itself: use another.
    #[error("the key {key:?} is kept by the client for itself; use another")]
    Reserved {
        /// The key given.
        key: String,
    },
    /// The encoded value breaks the limit: store less, or raise `value_bytes_max` when building every node.
    #[error("the encoded value has {bytes} bytes, at most {max} are allowed; nothing was changed")]
    ValueTooLarge {
        /// The bytes of the encoded value.
        bytes: usize,
        /// The most that the cache was built to take.
        max: usize,
    },
    /// The value was given a weight that no part of the cache holds: give less, or raise `capacity_bytes`.
    #[error(
        "a value was given a weight of {weight} bytes, and at most {max} fit one part of the cache; nothing was changed"
    )]
    TooHeavy {
        /// The weight given.
        weight: u64,
        /// The most that a value under this key may weigh.
        max: u64,
    },
    /// The value could not be encoded: change its type, or the codec.
    #[error("a value of type {type_name} cannot be encoded as {codec}; nothing was changed")]
    Encode {
        /// The Rust type given.
        type_name: &'static str,
        /// The codec of the cache.
        codec: Codec,
        /// What the codec said.
        #[source]
        source: CodecError,
    },
    /// What is stored is not of the type asked for: read it as another type. It stays stored.
    #[error("the stored {codec} value cannot be read as {type_name}; it is left as it is")]
    Decode {
        /// The Rust type asked for.
        type_name: &'static str,
        /// How the stored value is encoded.
        codec: Codec,
        /// What the codec said.
        #[source]
        source: CodecError,
    },
    /// A namespace's name breaks the rule for names: use another.
    #[error("a namespace cannot be named so: {source}")]
    Namespace {
        /// How it breaks the rule.
        source: NameError,
    },
    /// The node has as many namespaces as it can clear apart: use one of those, or a prefix of your own.
    #[error("this node has {max} namespaces, as many as there may be")]
    TooManyNamespaces {
        /// The bound.
        max: usize,
    },
    /// One of many keys or values is wrong; nothing was changed.
    #[error("at index {index}: {source}")]
    Many {
        /// Which of those given, from 0.
        index: usize,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// No such region: use one of those listed.
    #[error("there is no region {region:?}; the regions are {}", names(known))]
    UnknownRegion {
        /// The region asked for.
        region: String,
        /// The regions there are.
        known: Vec<RegionId>,
    },
    /// The region's node was stopped: use another region, or start it again ([`GeoCluster::start`](crate::GeoCluster::start)).
    #[error("the region {region} is stopped; start it again, or use another")]
    RegionStopped {
        /// The region.
        region: RegionId,
    },
    /// A stopped region could not be started.
    #[error("the region could not be started")]
    Start {
        /// Why.
        source: Box<BuildError>,
    },
    /// The regions are joined by transports of their own: make faults where those run, or build the cluster without
    /// [`transport`](crate::ClusterBuilder::transport).
    #[error("this cluster runs over transports of its own, whose faults are not the hub's to make")]
    NoHub,
    /// Other writers changed the key before each of the tries: try again later.
    #[error("the key changed under each of {tries} tries to update it; try again")]
    Contended {
        /// How often the update was tried.
        tries: u32,
    },
    /// The wait ended first: wait again, or look at [`Stats`](crate::Stats) for what is behind.
    #[error("not done within {waited:?}: {behind}")]
    Timeout {
        /// How long was waited.
        waited: Duration,
        /// What was still missing.
        behind: String,
    },
    /// What the session has written is not here by the end of the wait: wait again, or read what is here, which is older.
    #[error("the session's write is not here after {waited:?}{}", older(*lag))]
    Stale {
        /// How long was waited.
        waited: Duration,
        /// How much newer the write is than the newest that is here of the node that took it; `None` where nothing is.
        lag: Option<Duration>,
    },
    /// This node could not be shown to be as fresh as was asked: wait longer, allow more, read what is here
    /// ([`GeoCache::get`](crate::GeoCache::get)), or read in another region.
    #[error("not shown to have all that was written {max_lag:?} ago, after a wait of {waited:?}: {behind}")]
    NotFresh {
        /// How far behind the answer was allowed to be.
        max_lag: Duration,
        /// How long was waited.
        waited: Duration,
        /// Which region or node it is about, and how old what is here of it may be.
        behind: Behind,
    },
    /// What the session has written will not come: begin the session anew.
    #[error("the session's write is lost: its node ended before any live node got it")]
    Lost,
    /// Too many calls wait for other regions: call again later.
    #[error("too many calls wait for other regions at once; call again later")]
    Busy,
    /// The node had to stop replicating: mend the cause, and start it anew. Until then it is a cache by itself.
    #[error("the node stopped replicating: {reason}")]
    Stopped {
        /// What happened and what to do.
        reason: String,
    },
    /// This runs a task: call it within a tokio runtime.
    #[error("a tokio runtime is needed here; call this from within one")]
    NoRuntime,
    /// The cache was closed: write to another. Its reads still answer.
    #[error("the cache is closed")]
    Closed,
}

/// Why a cache could not be built: mend the configuration it names, or what it needs to reach.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A name breaks the rule for names.
    #[error("{field}: {source}")]
    Name {
        /// Which of the builder's settings.
        field: &'static str,
        /// How it breaks the rule.
        source: NameError,
    },
    /// The transport belongs to another node than the builder was told to build.
    #[error(
        "{field} is {given:?}, but the transport given belongs to {transport:?}; leave one out or make them equal"
    )]
    Mismatch {
        /// Which of the builder's settings.
        field: &'static str,
        /// What it was set to.
        given: String,
        /// What the transport says.
        transport: String,
    },
    /// A setting is out of its range.
    #[error("{field}: {reason}")]
    Setting {
        /// Which of the builder's settings.
        field: &'static str,
        /// What is wrong, and what is allowed.
        reason: String,
    },
    /// A replicated cache, and a client of several regions, need a tokio runtime to run on.
    #[error(
        "a cache with a transport, and a client of several regions, must be built inside a tokio runtime"
    )]
    NoRuntime,
    /// A node of a cluster has no transport: see what the source says.
    #[error("the transport of {node} could not be had")]
    Transport {
        /// The node.
        node: NodeId,
        /// What the transport's maker said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A node of a cluster had to stop before it was ready: mend the cause.
    #[error("{node} had to stop before it was ready: {reason}")]
    Stopped {
        /// The node.
        node: NodeId,
        /// What happened and what to do.
        reason: String,
    },
    /// Replication could not start: see what the transport says.
    #[error("replication could not start")]
    Start(#[from] StartError),
}

fn older(lag: Option<Duration>) -> String {
    lag.map_or_else(String::new, |lag| format!("; what is here is {lag:?} older"))
}

fn names(regions: &[RegionId]) -> String {
    let names: Vec<_> = regions.iter().map(RegionId::as_str).collect();
    names.join(", ")
}
