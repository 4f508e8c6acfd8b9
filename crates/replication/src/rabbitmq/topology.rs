//! What the transport declares at the broker, and how it names it.
//!
//! One durable topic exchange per cache, one queue per node *life*, three bindings. The queue is not exclusive, so
//! that it collects frames while the node's link is down, and its name carries a random life, so that a restarted node
//! never consumes what was meant for its former self. Routing keys end in a slice of the key space, which is always
//! `0` today: it lets a later version split the traffic without a new exchange.
//!
//! Transient queues were rejected because newer brokers refuse those that are not exclusive; a fanout exchange because
//! it cannot address one region or one node; `reject-publish` at the bound because one dead node's full queue would
//! then turn everybody's publishes into refusals.

use std::time::Duration;

use lapin::{
    BasicProperties, Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};

use super::config::{Config, Profile};
use crate::{node::NodeId, transport::Destination};

/// The slice of the key space that frames are about: all of it.
const SLICE: &str = "0";

/// The names and properties of a node's place at the broker.
#[derive(Debug, Clone)]
pub(super) struct Topology {
    pub(super) exchange: String,
    /// What the names of the node's queues begin with.
    queues: String,
    bindings: [String; 3],
    profile: Profile,
    expires: Duration,
    frames_max: u32,
    bytes_max: u64,
}

impl Topology {
    /// The topology of the configured node.
    pub(super) fn new(config: &Config) -> Self {
        let node = &config.node;
        let exchange = format!("geocache.{}", config.cache);
        let queues = format!("{exchange}.{}.{}", node.region(), node.name());
        let bindings = [
            routing_key(&Destination::Everyone),
            routing_key(&Destination::Region(node.region().clone())),
            routing_key(&Destination::Node(node.clone())),
        ];
        Self {
            exchange,
            queues,
            bindings,
            profile: config.profile,
            expires: config.queue_expires,
            frames_max: config.queue_frames_max,
            bytes_max: config.queue_bytes_max,
        }
    }

    /// The name of the queue of one life of the node.
    pub(super) fn queue(&self, life: u64) -> String {
        format!("{}.{life:016x}", self.queues)
    }

    /// The routing keys that the queue is bound to.
    pub(super) fn bindings(&self) -> &[String] {
        &self.bindings
    }

    /// Declares the exchange; changes nothing where it exists as it should.
    pub(super) async fn declare_exchange(&self, channel: &Channel) -> lapin::Result<()> {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel
            .exchange_declare(short(&self.exchange), ExchangeKind::Topic, options, FieldTable::default())
            .await
    }

    /// Declares the queue and its bindings; changes nothing where they exist.
    pub(super) async fn declare_queue(&self, channel: &Channel, queue: &str) -> lapin::Result<()> {
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(short(queue), options, self.queue_arguments()).await?;
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
            Profile::Fast => "classic",
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

    /// The properties of a message: kept on disk or not.
    pub(super) fn properties(&self) -> BasicProperties {
        BasicProperties::default().with_delivery_mode(match self.profile {
            Profile::Fast => 1,
            Profile::Durable => 2,
        })
    }
}

/// The routing key of an address.
pub(super) fn routing_key(to: &Destination) -> String {
    match to {
        Destination::Everyone => format!("all.{SLICE}"),
        Destination::Region(region) => format!("region.{region}.{SLICE}"),
        Destination::Node(node) => node_key(node),
    }
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
        assert_eq!(topology.bindings, ["all.0", "region.eu-central.0", "node.eu-central.node-1.0"]);
    }

    #[test]
    fn the_longest_names_fit_amqps_255_bytes() {
        let longest = "a".repeat(geo::NAME_BYTES_MAX);
        let node = NodeId::new(longest.parse().unwrap(), &longest).unwrap();
        let config = Config::new(node.clone(), vec!["amqp://localhost".to_owned()]).cache(longest.clone());
        assert!(Topology::new(&config).queue(u64::MAX).len() <= 255);
        assert!(routing_key(&Destination::Node(node)).len() <= 255);
    }

    #[test]
    fn the_profile_decides_queue_type_and_persistence() {
        for (profile, kind, mode) in [(Profile::Fast, "classic", 1), (Profile::Durable, "quorum", 2)] {
            let topology = Topology::new(&config().profile(profile));
            let arguments = topology.queue_arguments();
            assert_eq!(arguments.inner()["x-queue-type"], AMQPValue::LongString(kind.into()));
            assert_eq!(arguments.inner()["x-overflow"], AMQPValue::LongString("drop-head".into()));
            assert_eq!(arguments.inner()["x-expires"], AMQPValue::LongLongInt(600_000));
            assert_eq!(topology.properties().delivery_mode(), &Some(mode));
        }
    }
}
