//! What the transport declares at the broker, and how it names it.
//!
//! One durable topic exchange per cache, one queue per node *life*, bound to everyone's frames and to those for its region
//! and itself. The queue is not exclusive, so that it collects frames while the node's link is down, and its name carries
//! a random life, so that a restarted node never consumes what was meant for its former self. In the profile `Stream` the
//! frames for everyone go to one stream per *origin* region instead, and the queue takes the addressed ones alone.
//!
//! Routing keys end in a slice of the key space, which is always `0` today: it lets a later version split the traffic
//! without a new exchange. The key of a frame for everyone names the region it comes from, which is what a region's
//! stream is bound to; a queue is bound to all of them.
//!
//! Transient queues were rejected because newer brokers refuse those that are not exclusive; a fanout exchange because
//! it cannot address one region or one node; `reject-publish` at the bound because one dead node's full queue would
//! then turn everybody's publishes into refusals.

use std::time::Duration;

use geo::RegionId;
use lapin::{
    BasicProperties, Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};

use super::config::{Config, Profile};
use crate::{node::NodeId, transport::Destination};

/// A stream keeps at least so many segments before the oldest goes, so that its bound is kept to about a sixteenth.
const SEGMENTS: u64 = 16;

/// Larger segments would only make the oldest ones go later.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// The slice of the key space that frames are about: all of it.
const SLICE: &str = "0";

/// The routing key of hellos for every node.
pub(super) const HELLO_EVERYONE: &str = "hello.0";

/// The names and properties of a node's place at the broker.
#[derive(Debug, Clone)]
pub(super) struct Topology {
    pub(super) exchange: String,
    marker: String,
    /// What the names of the node's queues begin with.
    queues: String,
    bindings: Vec<String>,
    /// The region whose frames this node publishes.
    origin: RegionId,
    profile: Profile,
    expires: Duration,
    frames_max: u32,
    bytes_max: u64,
    stream_bytes_max: u64,
    stream_age_max: Duration,
}

impl Topology {
    /// The topology of the configured node.
    pub(super) fn new(config: &Config) -> Self {
        let node = &config.node;
        let exchange = format!("geocache.{}", config.cache);
        let queues = format!("{exchange}.{}.{}", node.region(), node.name());
        let mut bindings = vec![region_key(node.region()), node_key(node)];
        if config.profile != Profile::Stream {
            bindings.push(everyone_key("*"));
        }
        Self {
            exchange,
            marker: format!("geocache-profile.{}", config.cache),
            queues,
            bindings,
            origin: node.region().clone(),
            profile: config.profile,
            expires: config.queue_expires,
            frames_max: config.queue_frames_max,
            bytes_max: config.queue_bytes_max,
            stream_bytes_max: config.stream_bytes_max,
            stream_age_max: config.stream_age_max,
        }
    }

    /// The name of the queue of one life of the node.
    pub(super) fn queue(&self, life: u64) -> String {
        format!("{}.{life:016x}", self.queues)
    }

    /// The name of the stream of a region's frames for everyone.
    pub(super) fn stream(&self, region: &RegionId) -> String {
        format!("{}.stream.{region}", self.exchange)
    }

    /// The routing key of a frame.
    pub(super) fn routing_key(&self, to: &Destination) -> String {
        match to {
            Destination::Everyone => everyone_key(self.origin.as_str()),
            Destination::Region(region) => region_key(region),
            Destination::Node(node) => node_key(node),
        }
    }

    /// The routing keys that the queue is bound to.
    pub(super) fn bindings(&self) -> &[String] {
        &self.bindings
    }

    /// The exchange whose type says which kind of profile the cache's nodes run with, and that type.
    pub(super) fn marker(&self) -> (&str, ExchangeKind) {
        let kind = match self.profile {
            Profile::Fast | Profile::Durable => ExchangeKind::Topic,
            Profile::Stream => ExchangeKind::Fanout,
        };
        (&self.marker, kind)
    }

    /// The profile of this node.
    pub(super) fn profile(&self) -> Profile {
        self.profile
    }

    /// The name of the queue that takes hellos for a node.
    pub(super) fn hello_queue(&self, queue: &str) -> String {
        format!("{queue}.hello")
    }

    /// The routing key of hellos for one node.
    pub(super) fn hello_key(&self, node: &NodeId) -> String {
        format!("hello.{}.{}.{SLICE}", node.region(), node.name())
    }

    /// Declares the exchange; changes nothing where it exists as it should.
    pub(super) async fn declare_exchange(&self, channel: &Channel) -> lapin::Result<()> {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel
            .exchange_declare(short(&self.exchange), ExchangeKind::Topic, options, FieldTable::default())
            .await
    }

    /// Declares the queue; changes nothing where it exists.
    pub(super) async fn declare_queue(&self, channel: &Channel, queue: &str) -> lapin::Result<()> {
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(short(queue), options, self.queue_arguments()).await.map(drop)
    }

    /// Binds the queue; changes nothing where it is bound.
    pub(super) async fn bind_queue(&self, channel: &Channel, queue: &str) -> lapin::Result<()> {
        for key in &self.bindings {
            let (queue, exchange) = (short(queue), short(&self.exchange));
            channel
                .queue_bind(queue, exchange, short(key), QueueBindOptions::default(), FieldTable::default())
                .await?;
        }
        Ok(())
    }

    fn queue_arguments(&self) -> FieldTable {
        let kind = match self.profile {
            Profile::Fast | Profile::Stream => "classic",
            Profile::Durable => "quorum",
        };
        let mut arguments = FieldTable::default();
        // The type is always named: a virtual host may have another default.
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        let expires = i64::try_from(self.expires.as_millis()).unwrap_or(i64::MAX);
        arguments.insert("x-expires".into(), AMQPValue::LongLongInt(expires));
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(i64::from(self.frames_max)));
        let bytes_max = i64::try_from(self.bytes_max).unwrap_or(i64::MAX);
        arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(bytes_max));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
        arguments
    }

    /// Declares a region's stream; changes nothing where it exists with the same bounds.
    pub(super) async fn declare_stream(&self, channel: &Channel, region: &RegionId) -> lapin::Result<()> {
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let stream = short(&self.stream(region));
        channel.queue_declare(stream, options, self.stream_arguments()).await.map(|_| ())
    }

    /// Asks for a region's stream, whatever its bounds are.
    pub(super) async fn find_stream(&self, channel: &Channel, region: &RegionId) -> lapin::Result<()> {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        channel.queue_declare(short(&self.stream(region)), options, FieldTable::default()).await.map(|_| ())
    }

    /// Binds a region's stream to the frames that come from there.
    pub(super) async fn bind_stream(&self, channel: &Channel, region: &RegionId) -> lapin::Result<()> {
        let (stream, exchange) = (short(&self.stream(region)), short(&self.exchange));
        let key = short(&everyone_key(region.as_str()));
        channel.queue_bind(stream, exchange, key, QueueBindOptions::default(), FieldTable::default()).await
    }

    fn stream_arguments(&self) -> FieldTable {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
        let bytes = |bytes: u64| AMQPValue::LongLongInt(i64::try_from(bytes).unwrap_or(i64::MAX));
        arguments.insert("x-max-length-bytes".into(), bytes(self.stream_bytes_max));
        let age = format!("{}s", self.stream_age_max.as_secs());
        arguments.insert("x-max-age".into(), AMQPValue::LongString(age.into()));
        let segment = (self.stream_bytes_max / SEGMENTS).min(SEGMENT_BYTES_MAX);
        arguments.insert("x-stream-max-segment-size-bytes".into(), bytes(segment));
        arguments
    }

    /// The properties of a message: kept on disk or not. A stream keeps every message on disk.
    pub(super) fn properties(&self) -> BasicProperties {
        BasicProperties::default().with_delivery_mode(match self.profile {
            Profile::Fast | Profile::Stream => 1,
            Profile::Durable => 2,
        })
    }
}

/// The routing key of the frames for everyone that come from a region, or from any (`*`, in a binding).
fn everyone_key(origin: &str) -> String {
    format!("all.{origin}.{SLICE}")
}

fn region_key(region: &RegionId) -> String {
    format!("region.{region}.{SLICE}")
}

fn node_key(node: &NodeId) -> String {
    format!("node.{}.{}.{SLICE}", node.region(), node.name())
}

pub(super) fn short(text: &str) -> ShortString {
    ShortString::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let node = NodeId::new("eu-central".parse().unwrap(), "node-1").unwrap();
        Config::new(node, vec!["amqp://localhost".to_owned()]).cache("shop")
    }

    #[test]
    fn names_carry_cache_region_node_and_life() {
        let topology = Topology::new(&config());
        assert_eq!(topology.exchange, "geocache.shop");
        assert_eq!(topology.queue(0xab), "geocache.shop.eu-central.node-1.00000000000000ab");
    }

    #[test]
    fn a_node_is_bound_to_everyone_its_region_and_itself() {
        let topology = Topology::new(&config());
        assert_eq!(topology.bindings, ["region.eu-central.0", "node.eu-central.node-1.0", "all.*.0"]);
        let streaming = Topology::new(&config().profile(Profile::Stream));
        assert_eq!(streaming.bindings, topology.bindings[..2]);
    }

    #[test]
    fn a_frame_for_everyone_names_the_region_it_comes_from() {
        for profile in [Profile::Fast, Profile::Durable, Profile::Stream] {
            let topology = Topology::new(&config().profile(profile));
            assert_eq!(topology.routing_key(&Destination::Everyone), "all.eu-central.0");
        }
    }

    #[test]
    fn a_stream_is_named_by_its_region_and_bounded_apart_from_the_queue() {
        let config = config().profile(Profile::Stream).stream_bytes_max(16 << 20);
        let topology = Topology::new(&config.stream_age_max(Duration::from_secs(7_200)));
        assert_eq!(topology.stream(&"ap-south".parse().unwrap()), "geocache.shop.stream.ap-south");
        let arguments = topology.stream_arguments();
        assert_eq!(arguments.inner()["x-queue-type"], AMQPValue::LongString("stream".into()));
        assert_eq!(arguments.inner()["x-max-length-bytes"], AMQPValue::LongLongInt(16 << 20));
        assert_eq!(arguments.inner()["x-max-age"], AMQPValue::LongString("7200s".into()));
        assert_eq!(arguments.inner()["x-stream-max-segment-size-bytes"], AMQPValue::LongLongInt(1 << 20));
        assert!(!arguments.contains_key("x-expires") && !arguments.contains_key("x-overflow"));
    }

    #[test]
    fn the_longest_names_fit_amqps_255_bytes() {
        let longest = "a".repeat(geo::NAME_BYTES_MAX);
        let node = NodeId::new(longest.parse().unwrap(), &longest).unwrap();
        let config = Config::new(node.clone(), vec!["amqp://localhost".to_owned()]).cache(longest.clone());
        let topology = Topology::new(&config);
        assert!(topology.hello_queue(&topology.queue(u64::MAX)).len() <= 255);
        assert!(topology.stream(node.region()).len() <= 255);
        assert!(topology.routing_key(&Destination::Node(node.clone())).len() <= 255);
        assert!(topology.hello_key(&node).len() <= 255);
    }

    #[test]
    fn the_profile_decides_queue_type_and_persistence() {
        let profiles =
            [(Profile::Fast, "classic", 1), (Profile::Durable, "quorum", 2), (Profile::Stream, "classic", 1)];
        for (profile, kind, mode) in profiles {
            let topology = Topology::new(&config().profile(profile));
            let arguments = topology.queue_arguments();
            assert_eq!(arguments.inner()["x-queue-type"], AMQPValue::LongString(kind.into()));
            assert_eq!(arguments.inner()["x-overflow"], AMQPValue::LongString("drop-head".into()));
            assert_eq!(arguments.inner()["x-expires"], AMQPValue::LongLongInt(600_000));
            assert_eq!(topology.properties().delivery_mode(), &Some(mode));
        }
    }
}
