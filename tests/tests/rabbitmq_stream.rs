//! The profile `Stream` and changes of profile, on a real RabbitMQ: absences that outlast a queue, streams that were
//! truncated or deleted, regions heard of late, and nodes of unlike profiles.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use geocache::{
    GeoCache,
    rabbitmq::{Config, ConnectError, Profile, RabbitMq},
};
use replication::{Destination, Health, NodeId, Subscription, Transport, TransportError};
use tests::{
    broker::{Broker, Options, shared_url},
    proxy::Proxy,
    unique_name, wait_until,
};

/// Generous: the machine may have two cores, shared with a broker.
const BOUND: Duration = Duration::from_secs(90);

/// The shortest life of a queue that nobody reads.
const QUEUE_EXPIRES: Duration = Duration::from_secs(10);

fn config(cache: &str, region: &str, url: &str, profile: Profile) -> Config {
    let node = NodeId::new(region.parse().unwrap(), "n").unwrap();
    Config::new(node, vec![url.to_owned()])
        .cache(cache)
        .profile(profile)
        .heartbeat(Duration::from_secs(1))
        .queue_expires(QUEUE_EXPIRES)
}

/// A node and its transport.
struct Node {
    cache: GeoCache,
    transport: Arc<RabbitMq>,
}

impl Node {
    async fn start(config: Config, cache: &str) -> Self {
        let transport = RabbitMq::connect(config).await.unwrap();
        let cache = GeoCache::builder().cache(cache).transport(transport.clone()).build().await.unwrap();
        Self { cache, transport }
    }

    async fn ready(&self) {
        tokio::time::timeout(BOUND, self.cache.ready()).await.unwrap().unwrap();
    }

    /// Has every `prefix-n` below `count`.
    async fn has(&self, prefix: &str, count: u32) {
        let what = format!("{} has the {count} values of {prefix}", self.cache.node());
        wait_until(&what, BOUND, async || {
            (0..count).all(|n| self.cache.contains(format!("{prefix}-{n}")).unwrap())
        })
        .await;
    }

    async fn close(self) {
        self.cache.close(Duration::from_secs(5)).await;
    }
}

async fn proxy(url: &str) -> Proxy {
    let address = url.rsplit_once('@').unwrap().1.split('/').next().unwrap().to_owned();
    Proxy::start(tokio::net::lookup_host(address).await.unwrap().next().unwrap()).await.unwrap()
}

/// Two ready nodes, the second over a link of its own.
async fn pair(url: &str, cache: &str, adapt: impl Fn(Config) -> Config) -> (Node, Node, Proxy) {
    let link = proxy(url).await;
    let here = Node::start(adapt(config(cache, "us-east", url, Profile::Stream)), cache).await;
    let there = Node::start(adapt(config(cache, "ap-south", &link.url(url), Profile::Stream)), cache).await;
    for node in [&here, &there] {
        node.ready().await;
    }
    (here, there, link)
}

/// Receives until this frame comes.
async fn receive(subscription: &mut Box<dyn Subscription>, frame: &Bytes) {
    let receiving = async {
        while let Some(delivery) = subscription.next().await {
            let is_it = delivery.frame == *frame;
            delivery.ack.done();
            if is_it {
                return;
            }
        }
        panic!("the subscription ended");
    };
    tokio::time::timeout(BOUND, receiving).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stream_no_longer_holds_is_noticed_and_repaired() {
    let (url, cache) = (shared_url().unwrap(), unique_name("truncated"));
    let (here, there, link) = pair(&url, &cache, |config| config.stream_bytes_max(1 << 20)).await;
    here.cache.put("before-0", &0_u32).unwrap();
    there.has("before", 1).await;

    link.cut();
    let value = "x".repeat(4_096);
    for n in 0..1_500 {
        here.cache.put(format!("long-{n}"), &value).unwrap();
    }
    let waits = "what was written has left";
    wait_until(waits, BOUND, async || here.cache.stats().outbox.records == 0).await;
    link.heal();
    there.has("long", 1_500).await;
    let stats = there.transport.stats();
    assert!(stats.stream_gaps > 0 && stats.stream_resets == 0, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_heard_of_late_misses_nothing() {
    let (url, cache) = (shared_url().unwrap(), unique_name("late"));
    let listener = RabbitMq::connect(config(&cache, "us-east", &url, Profile::Stream)).await.unwrap();
    let mut frames = listener.subscribe().await.unwrap();
    // Published before the listener can have heard of the region.
    let late = RabbitMq::connect(config(&cache, "ap-south", &url, Profile::Stream)).await.unwrap();
    let first = Bytes::from_static(b"the first of a new region");
    late.publish(Destination::Everyone, first.clone()).await.unwrap();
    receive(&mut frames, &first).await;
    // The same over a second life, whose stream is there.
    late.close().await.unwrap();
    let again = RabbitMq::connect(config(&cache, "ap-south", &url, Profile::Stream)).await.unwrap();
    let second = Bytes::from_static(b"the first of its second life");
    again.publish(Destination::Everyone, second.clone()).await.unwrap();
    receive(&mut frames, &second).await;
    for transport in [listener, again] {
        transport.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_life_hears_nothing_of_its_former_selves() {
    let (url, cache) = (shared_url().unwrap(), unique_name("lives"));
    for life in 0..3 {
        let node = RabbitMq::connect(config(&cache, "ap-south", &url, Profile::Stream)).await.unwrap();
        let mut frames = node.subscribe().await.unwrap();
        let marker = Bytes::from(format!("life {life}"));
        node.publish(Destination::Everyone, marker.clone()).await.unwrap();
        let delivery = tokio::time::timeout(BOUND, frames.next()).await.unwrap().unwrap();
        assert_eq!(delivery.frame, marker, "a frame of a life before");
        delivery.ack.done();
        node.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_was_dropped_unhandled_comes_again_to_the_same_subscription() {
    let (url, cache) = (shared_url().unwrap(), unique_name("dropped"));
    let node = RabbitMq::connect(config(&cache, "us-east", &url, Profile::Stream)).await.unwrap();
    let mut frames = node.subscribe().await.unwrap();
    let frame = Bytes::from_static(b"dropped once");
    node.publish(Destination::Everyone, frame.clone()).await.unwrap();
    drop(tokio::time::timeout(BOUND, frames.next()).await.unwrap().unwrap());
    receive(&mut frames, &frame).await;
    node.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_restarts_at_once_is_not_its_own_twin() {
    let (url, cache) = (shared_url().unwrap(), unique_name("restart"));
    let (here, there, _link) = pair(&url, &cache, |config| config).await;
    for n in 0..100_u32 {
        there.cache.put(format!("kept-{n}"), &n).unwrap();
    }
    here.has("kept", 100).await;
    there.close().await;
    let again = Node::start(config(&cache, "ap-south", &url, Profile::Stream), &cache).await;
    again.ready().await;
    again.has("kept", 100).await;
    again.cache.put("after-0", &0_u32).unwrap();
    here.has("after", 1).await;
    // A twin is noticed by two of its beats. Those of the former self would be in its own stream, in front of all that it has
    // sent since: after so many frames of two regions they have come, if they come at all.
    let read = async || again.transport.stats().received >= 40;
    wait_until("it has read its own stream for some seconds", BOUND, read).await;
    assert!(again.cache.is_ready());
    let failed = tokio::time::timeout(Duration::ZERO, again.cache.failed()).await;
    assert!(failed.is_err(), "it took itself for another: {failed:?}");
}

/// Tests whose broker is asked and told things behind the nodes' backs, which is a private one.
mod harms_the_broker {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stream_keeps_its_bounds_and_nodes_with_others_read_it() {
        let (broker, cache) = (Broker::start(Options::default()).await.unwrap(), unique_name("bounds"));
        let bounds = async || {
            let listed = broker.ctl(&["list_queues", "--silent", "name", "arguments"]).await.unwrap();
            let stream =
                listed.lines().find(|line| line.starts_with(&format!("geocache.{cache}.stream.us-east\t")));
            stream.unwrap_or_else(|| panic!("no stream of the region among: {listed}")).to_owned()
        };
        let config = || config(&cache, "us-east", broker.url(), Profile::Stream);
        let here = RabbitMq::connect(config().stream_bytes_max(5 << 20)).await.unwrap();
        let _listening = here.subscribe().await.unwrap();
        let declared = bounds().await;
        assert!(declared.contains(&(5_u64 << 20).to_string()), "{declared}");
        let there = RabbitMq::connect(config().stream_bytes_max(2 << 20)).await.unwrap();
        let mut frames = there.subscribe().await.unwrap();
        let frame = Bytes::from_static(b"whatever the bounds");
        here.publish(Destination::Everyone, frame.clone()).await.unwrap();
        receive(&mut frames, &frame).await;
        assert_eq!(bounds().await, declared);
        for transport in [here, there] {
            transport.close().await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_that_was_away_for_longer_than_its_queue_lives_catches_up_from_the_streams() {
        let broker = Broker::start(Options::default()).await.unwrap();
        let cache = unique_name("away");
        let (here, there, link) = pair(broker.url(), &cache, |config| config).await;
        here.cache.put("before-0", &0_u32).unwrap();
        there.has("before", 1).await;
        let before = there.cache.stats().replication;

        link.hold();
        let queue = there.transport.queue();
        for n in 0..2_000_u32 {
            here.cache.put(format!("away-{n}"), &n).unwrap();
        }
        wait_until("the queue of the node that is away expired", BOUND, async || {
            !broker.ctl(&["list_queues", "--silent", "name"]).await.unwrap().contains(&queue)
        })
        .await;
        link.heal();
        there.has("away", 2_000).await;
        let (after, stats) = (there.cache.stats().replication, there.transport.stats());
        assert_eq!(after.syncs_started, before.syncs_started, "no state was transferred");
        assert_eq!(after.pulls_sent, before.pulls_sent, "nothing was missing");
        assert_eq!((stats.stream_gaps, stats.stream_resets), (0, 0), "{stats:?}");
        assert!(stats.reconnects > 0, "{stats:?}");
        // The other way works again too: its queue and its hellos are back.
        there.cache.put("back-0", &0_u32).unwrap();
        here.has("back", 1).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stream_that_was_deleted_is_begun_anew_by_its_readers() {
        let broker = Broker::start(Options::default()).await.unwrap();
        let cache = unique_name("deleted");
        let (here, there, _link) = pair(broker.url(), &cache, |config| config).await;
        for n in 0..50_u32 {
            here.cache.put(format!("before-{n}"), &n).unwrap();
        }
        there.has("before", 50).await;
        broker.ctl(&["delete_queue", &format!("geocache.{cache}.stream.us-east")]).await.unwrap();
        for n in 0..50_u32 {
            here.cache.put(format!("after-{n}"), &n).unwrap();
        }
        there.has("after", 50).await;
        assert!(there.transport.stats().consumer_cancels > 0, "{:?}", there.transport.stats());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stream_that_cannot_be_read_holds_up_no_other_and_is_read_once_it_can_be() {
        let broker = Broker::start(Options::default()).await.unwrap();
        let (url, cache) = (broker.url(), unique_name("sick"));
        let connect =
            async |region| RabbitMq::connect(config(&cache, region, url, Profile::Stream)).await.unwrap();
        let (sick, well) = (connect("ap-south").await, connect("us-east").await);
        // A queue of another type in the place of the stream: the broker refuses each declaration.
        let stream = format!("geocache.{cache}.stream.ap-south");
        broker.ctl(&["delete_queue", &stream]).await.unwrap();
        let declare = format!(
            "rabbit_amqqueue:declare(rabbit_misc:r(<<\"/\">>, queue, <<\"{stream}\">>), true, false, [], none, <<\"test\">>)."
        );
        broker.ctl(&["eval", &declare]).await.unwrap();

        let listener = connect("eu-central").await;
        let mut frames = listener.subscribe().await.unwrap();
        wait_until("the stream was tried several times", BOUND, async || {
            listener.stats().stream_failures >= 3
        })
        .await;
        let first = Bytes::from_static(b"of a region that is well");
        well.publish(Destination::Everyone, first.clone()).await.unwrap();
        receive(&mut frames, &first).await;
        assert_eq!(listener.stats().reconnects, 0, "{:?}", listener.stats());
        // Once, after a while, another broker is tried, of which there is none here.
        wait_until("the connection was made anew", BOUND, async || listener.stats().reconnects == 1).await;
        let second = Bytes::from_static(b"of the same region, later");
        well.publish(Destination::Everyone, second.clone()).await.unwrap();
        receive(&mut frames, &second).await;

        broker.ctl(&["delete_queue", &stream]).await.unwrap();
        let third = Bytes::from_static(b"of the region that was sick");
        let published = std::cell::Cell::new(false);
        let publishing = async {
            while !published.get() {
                sick.publish(Destination::Everyone, third.clone()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let receiving = async {
            receive(&mut frames, &third).await;
            published.set(true);
        };
        tokio::join!(publishing, receiving);
        assert_eq!(listener.stats().reconnects, 1, "{:?}", listener.stats());
        for transport in [sick, well, listener] {
            transport.close().await.unwrap();
        }
    }

    /// The marker goes with the last queue that is bound to it, which may be just between another node's declaring and binding
    /// it. That node took the refusal for its own queue's end, failed to subscribe and left the queue.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_marker_that_goes_before_the_queue_is_bound_to_it_is_declared_again() {
        let broker = Broker::start(Options::default()).await.unwrap();
        let (cache, link) = (unique_name("marker"), Proxy::start(broker.addr()).await.unwrap());
        let config = config(&cache, "us-east", &link.url(broker.url()), Profile::Fast);
        let transport = RabbitMq::connect(config).await.unwrap();
        // Within the broker: deletes the marker that was claimed, and once more as soon as it is declared again.
        let marker = format!("{{resource, <<\"/\">>, exchange, <<\"geocache-profile.{cache}\">>}}");
        let delete = format!(
            "Delete = fun Delete(0) -> never; Delete(Looks) -> \
                 case rabbit_exchange:delete({marker}, true, <<\"test\">>) of \
                     ok -> deleted; \
                     {{error, in_use}} -> bound; \
                     {{error, not_found}} -> timer:sleep(1), Delete(Looks - 1) \
                 end \
             end, \
             First = Delete(1), \
             spawn(fun() -> application:set_env(rabbit, geocache_second, Delete(60000)) end), \
             First."
        );
        assert_eq!(broker.ctl(&["eval", &delete]).await.unwrap().trim(), "deleted");
        // A round trip lies between the marker's declaration and the queue's binding to it.
        link.delay(Duration::from_millis(50));
        let mut subscription = transport.subscribe().await.unwrap();
        link.heal();
        let second = broker.ctl(&["eval", "application:get_env(rabbit, geocache_second)."]).await.unwrap();
        assert_eq!(second.trim(), "{ok,deleted}", "the marker went in between");
        assert_eq!(transport.stats().queues_replaced, 0);
        assert_eq!(transport.stats().reconnects, 0);
        let bindings = broker.ctl(&["list_bindings", "--silent", "source_name", "destination_name"]);
        let bound = format!("geocache-profile.{cache}\t{}", transport.queue());
        assert!(bindings.await.unwrap().contains(&bound), "it holds the marker again");
        let own = NodeId::new("us-east".parse().unwrap(), "n").unwrap();
        let frame = Bytes::from_static(b"still there");
        transport.publish(Destination::Node(own), frame.clone()).await.unwrap();
        receive(&mut subscription, &frame).await;
    }
}

/// Changes of profile.
mod profile {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn fast_and_durable_nodes_hear_each_other() {
        let (url, cache) = (shared_url().unwrap(), unique_name("mixed"));
        let fast = Node::start(config(&cache, "us-east", &url, Profile::Fast), &cache).await;
        let durable = Node::start(config(&cache, "ap-south", &url, Profile::Durable), &cache).await;
        for (node, prefix) in [(&fast, "fast"), (&durable, "durable")] {
            node.ready().await;
            for n in 0..100_u32 {
                node.cache.put(format!("{prefix}-{n}"), &n).unwrap();
            }
        }
        durable.has("fast", 100).await;
        fast.has("durable", 100).await;
        // The first is restarted with the other's profile, and gets what it had from there.
        fast.close().await;
        let rolled = Node::start(config(&cache, "us-east", &url, Profile::Durable), &cache).await;
        rolled.ready().await;
        rolled.has("fast", 100).await;
        rolled.has("durable", 100).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn another_kind_is_refused_while_a_node_lives_and_starts_at_once_after() {
        let url = shared_url().unwrap();
        for (old, new) in [
            (Profile::Fast, Profile::Stream),
            (Profile::Durable, Profile::Stream),
            (Profile::Stream, Profile::Fast),
        ] {
            let cache = unique_name("kinds");
            let first = RabbitMq::connect(config(&cache, "us-east", &url, old)).await.unwrap();
            let mut frames = first.subscribe().await.unwrap();
            let other = config(&cache, "ap-south", &url, new);
            let error = RabbitMq::connect(other.clone()).await.unwrap_err();
            assert!(matches!(error, ConnectError::ProfileConflict { .. }), "{old:?}, {new:?}: {error}");
            let text = error.to_string();
            assert!(
                text.contains(&format!("geocache-profile.{cache}")) && text.contains("close every"),
                "{text}"
            );
            // The refusal harmed nobody.
            let frame = Bytes::from_static(b"still heard");
            first.publish(Destination::Everyone, frame.clone()).await.unwrap();
            receive(&mut frames, &frame).await;
            first.close().await.unwrap();
            let second = RabbitMq::connect(other).await.unwrap();
            let mut frames = second.subscribe().await.unwrap();
            second.publish(Destination::Everyone, frame.clone()).await.unwrap();
            receive(&mut frames, &frame).await;
            second.close().await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_that_never_subscribed_leaves_nothing_in_the_way() {
        let (url, cache) = (shared_url().unwrap(), unique_name("unbound"));
        let publisher = RabbitMq::connect(config(&cache, "us-east", &url, Profile::Fast)).await.unwrap();
        let stream = RabbitMq::connect(config(&cache, "ap-south", &url, Profile::Stream)).await.unwrap();
        for transport in [publisher, stream] {
            transport.close().await.unwrap();
        }
        let fast = RabbitMq::connect(config(&cache, "us-east", &url, Profile::Fast)).await.unwrap();
        fast.close().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_overtaken_by_another_kind_before_it_subscribes_is_told_of_the_profile() {
        let (url, cache) = (shared_url().unwrap(), unique_name("overtaken"));
        let first = RabbitMq::connect(config(&cache, "us-east", &url, Profile::Fast)).await.unwrap();
        // Its marker is free as long as it has no queue.
        let other = RabbitMq::connect(config(&cache, "ap-south", &url, Profile::Stream)).await.unwrap();
        let _other_frames = other.subscribe().await.unwrap();
        let error = first.subscribe().await.map(drop).unwrap_err();
        assert!(matches!(error, TransportError::Unavailable { .. }), "an operator may mend it: {error}");
        let told = error.to_string();
        assert!(told.contains("close every node with the profile Stream"), "{told}");
        assert!(told.contains(&format!("delete the exchange \"geocache-profile.{cache}\"")), "{told}");
        assert!(!told.contains(&format!("\"geocache.{cache}\"")), "not the cache's exchange: {told}");
        other.close().await.unwrap();
        // It may be dialling just then, and say that the queue it had declared is left to expire.
        let _ = first.close().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_that_finds_another_kind_in_its_place_says_so_and_waits() {
        let (url, cache) = (shared_url().unwrap(), unique_name("taken"));
        let link = proxy(&url).await;
        let away =
            RabbitMq::connect(config(&cache, "us-east", &link.url(&url), Profile::Fast)).await.unwrap();
        let _frames = away.subscribe().await.unwrap();
        link.cut();
        // Once its queue expired, the other kind may start.
        let other = config(&cache, "ap-south", &url, Profile::Stream);
        let mut started = None;
        wait_until("the other kind starts", BOUND, async || {
            match RabbitMq::connect(other.clone()).await {
                Ok(transport) => started = Some(transport),
                Err(error) => assert!(matches!(error, ConnectError::ProfileConflict { .. }), "{error}"),
            }
            started.is_some()
        })
        .await;
        let other = started.unwrap();
        let _other_frames = other.subscribe().await.unwrap();
        let tried = link.accepted();
        link.heal();
        let says_so = |health: &Health| match health {
            Health::Connecting { last_error: Some(error), .. } => error.contains("geocache-profile"),
            _ => false,
        };
        let mut health = away.health();
        tokio::time::timeout(BOUND, health.wait_for(says_so)).await.unwrap().unwrap();
        other.close().await.unwrap();
        let connected = health.wait_for(|health| *health == Health::Connected);
        tokio::time::timeout(BOUND, connected).await.unwrap().unwrap();
        // Each half tried once or twice before it met the conflict, once to meet it, and once after.
        let attempts = link.accepted() - tried;
        assert!(attempts <= 10, "{attempts} connections");
        away.close().await.unwrap();
    }
}
