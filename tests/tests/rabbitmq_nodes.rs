//! Whole nodes over a real RabbitMQ: they converge, survive the broker's death and a dead link, and start late.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use geocache::{
    GeoCache,
    rabbitmq::{Config, ConnectError, Profile, RabbitMq},
};
use replication::NodeId;
use tests::{
    broker::{Broker, Options, shared_url},
    proxy::Proxy,
    unique_name, wait_until,
};

/// Generous: the machine may have two cores, shared with a broker.
const BOUND: Duration = Duration::from_secs(90);

fn config(cache: &str, region: &str, url: &str) -> Config {
    let node = NodeId::new(region.parse().unwrap(), "n").unwrap();
    Config::new(node, vec![url.to_owned()]).cache(cache)
}

/// A node over RabbitMQ that becomes ready by itself, as a deployed one does.
async fn node(config: Config, cache: &str) -> GeoCache {
    let transport = RabbitMq::connect(config).await.unwrap();
    GeoCache::builder().cache(cache).transport(transport).build().await.unwrap()
}

/// Two ready nodes of one cache, in two regions.
async fn pair(url: &str, profile: Profile) -> (GeoCache, GeoCache) {
    let cache = unique_name("nodes");
    let here = node(config(&cache, "us-east", url).profile(profile), &cache).await;
    let there = node(config(&cache, "ap-south", url).profile(profile), &cache).await;
    for node in [&here, &there] {
        tokio::time::timeout(BOUND, node.ready()).await.unwrap().unwrap();
    }
    (here, there)
}

fn text(node: &GeoCache, key: &str) -> Option<String> {
    node.get::<String>(key).unwrap().map(|value| value.as_ref().clone())
}

async fn reads(node: &GeoCache, key: &str, value: Option<&str>) {
    let what = format!("{} reads {value:?} for {key}", node.node());
    wait_until(&what, BOUND, async || text(node, key).as_deref() == value).await;
}

async fn two_nodes_converge(profile: Profile) {
    let (here, there) = pair(&shared_url().unwrap(), profile).await;
    here.put("kept", "one").unwrap();
    there.put("expiring", "short").unwrap();
    here.put_with_ttl("expiring", "short", Duration::from_secs(2)).unwrap();
    reads(&there, "kept", Some("one")).await;
    reads(&there, "expiring", Some("short")).await;
    there.put("kept", "two").unwrap();
    reads(&here, "kept", Some("two")).await;
    here.remove("kept").unwrap();
    reads(&there, "kept", None).await;
    reads(&there, "expiring", None).await;
    here.put("cleared", "x").unwrap();
    reads(&there, "cleared", Some("x")).await;
    there.clear().unwrap();
    reads(&here, "cleared", None).await;
    for node in [here, there] {
        let closed = node.close(Duration::from_secs(5)).await;
        assert_eq!((closed.unsent_records, closed.unconfirmed_frames), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_converge_in_the_fast_profile() {
    two_nodes_converge(Profile::Fast).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_converge_in_the_durable_profile() {
    two_nodes_converge(Profile::Durable).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_converge_in_the_stream_profile() {
    two_nodes_converge(Profile::Stream).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_late_gets_the_state() {
    let url = shared_url().unwrap();
    let cache = unique_name("late");
    let first = node(config(&cache, "us-east", &url), &cache).await;
    tokio::time::timeout(BOUND, first.ready()).await.unwrap().unwrap();
    for n in 0..20_000 {
        first.put(format!("key-{n}"), &n).unwrap();
    }
    first.put("gone", "x").unwrap();
    first.remove("gone").unwrap();
    let late = node(config(&cache, "ap-south", &url), &cache).await;
    tokio::time::timeout(BOUND, late.ready()).await.unwrap().unwrap();
    for n in 0..20_000 {
        let value = late.get::<i32>(format!("key-{n}")).unwrap();
        assert_eq!(value.as_deref(), Some(&n), "key-{n} is there as soon as the node is ready");
    }
    assert_eq!(text(&late, "gone"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_frames_arrive_as_what_they_were() {
    const WRITES: u32 = 2_000;
    let (url, cache) = (shared_url().unwrap(), unique_name("compressed"));
    let start = async |region| {
        let transport = RabbitMq::connect(config(&cache, region, &url)).await.unwrap();
        let builder = GeoCache::builder().cache(&cache).compress_above(1_024);
        builder.transport(transport).build().await.unwrap()
    };
    let (here, there) = (start("us-east").await, start("ap-south").await);
    for node in [&here, &there] {
        tokio::time::timeout(BOUND, node.ready()).await.unwrap().unwrap();
    }
    let value = |n: u32| format!("{{\"customer\":{n},\"visits\":{n},\"active\":true}}");
    for n in 0..WRITES {
        here.put(format!("customer:{n}"), &value(n)).unwrap();
    }
    for n in 0..WRITES {
        reads(&there, &format!("customer:{n}"), Some(&value(n))).await;
    }
    let (sent, received) = (here.stats().replication, there.stats().replication);
    assert!(sent.frames_compressed > 0 && sent.compressed_bytes_saved > 0, "{sent:?}");
    assert_eq!(received.frames_undecodable, 0, "{received:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_live_process_of_one_name_is_refused_and_the_first_goes_on() {
    let url = shared_url().unwrap();
    let cache = unique_name("twin");
    let first = node(config(&cache, "us-east", &url), &cache).await;
    tokio::time::timeout(BOUND, first.ready()).await.unwrap().unwrap();
    let second = node(config(&cache, "us-east", &url), &cache).await;
    let error = tokio::time::timeout(BOUND, second.failed()).await.unwrap();
    assert!(error.to_string().contains("us-east/n"), "{error}");
    assert!(first.is_ready());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_broker_and_wrong_credentials_are_told_apart() {
    let url = shared_url().unwrap();
    let cache = unique_name("refused");
    let nowhere = config(&cache, "us-east", "amqp://127.0.0.1:1/%2f").connect_wait(Duration::from_secs(1));
    let error = RabbitMq::connect(nowhere).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    let (_, host) = url.rsplit_once('@').unwrap();
    let stranger = config(&cache, "us-east", &format!("amqp://stranger:secret-word@{host}"));
    let error = RabbitMq::connect(stranger).await.unwrap_err();
    assert!(matches!(error, ConnectError::Credentials { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("secret-word"), "no password is printed");
}

/// Two writers, one on each node, and how far they are.
struct Load {
    stop: AtomicBool,
    written: [AtomicU32; 2],
}

/// Of the two writers, what their keys begin with.
const PREFIXES: [&str; 2] = ["here", "there"];

impl Load {
    /// Writes `prefix-0`, `prefix-1`… every two milliseconds until told to stop, and reads each back at once on the same node.
    async fn write(self: Arc<Self>, node: GeoCache, writer: usize) {
        let mut pace = tokio::time::interval(Duration::from_millis(2));
        while !self.stop.load(Ordering::Relaxed) {
            pace.tick().await;
            let written = self.written[writer].load(Ordering::Relaxed);
            let key = format!("{}-{written}", PREFIXES[writer]);
            node.put(&key, &written).unwrap();
            assert_eq!(node.get::<u32>(&key).unwrap().as_deref(), Some(&written), "the local cache answers");
            self.written[writer].store(written + 1, Ordering::Relaxed);
        }
    }

    fn written(&self) -> [u32; 2] {
        [0, 1].map(|writer: usize| self.written[writer].load(Ordering::Relaxed))
    }

    /// Waits until each writer wrote so many more.
    async fn goes_on(&self, more: u32) {
        let before = self.written();
        wait_until(&format!("each writer wrote {more} more"), BOUND, async || {
            self.written().iter().zip(before).all(|(now, before)| *now >= before + more)
        })
        .await;
    }
}

/// Writes on both nodes while `fault` goes on; afterwards each node has every write of both.
async fn loses_nothing(here: GeoCache, there: GeoCache, fault: impl AsyncFnOnce(&Load)) {
    let load = Arc::new(Load { stop: AtomicBool::new(false), written: [0.into(), 0.into()] });
    let writers = [(0, &here), (1, &there)]
        .map(|(writer, node)| tokio::spawn(Arc::clone(&load).write(node.clone(), writer)));
    load.goes_on(200).await;
    fault(&load).await;
    load.goes_on(200).await;
    load.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    for node in [&here, &there] {
        for (prefix, count) in PREFIXES.into_iter().zip(load.written()) {
            let what = format!("{} has the {count} writes of {prefix}", node.node());
            wait_until(&what, BOUND, async || {
                (0..count).all(|n| node.contains(format!("{prefix}-{n}")).unwrap())
            })
            .await;
        }
    }
}

/// Tests that kill, freeze or reconfigure their broker, which is a private one.
mod harms_the_broker {
    use super::*;

    async fn survives_the_brokers_death(profile: Profile) {
        let broker = Broker::start(Options::default()).await.unwrap();
        let (here, there) = pair(broker.url(), profile).await;
        loses_nothing(here, there, async |load| {
            broker.kill_9().await.unwrap();
            // At least three seconds without a broker.
            load.goes_on(1_500).await;
            broker.restart().await.unwrap();
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_killed_broker_loses_no_write_in_the_fast_profile() {
        survives_the_brokers_death(Profile::Fast).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_killed_broker_loses_no_write_in_the_durable_profile() {
        survives_the_brokers_death(Profile::Durable).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_killed_broker_loses_no_write_in_the_stream_profile() {
        survives_the_brokers_death(Profile::Stream).await;
    }

    /// The broker ends the consumer, which is noticed at once, and the queue is declared again under the same name.
    async fn survives_the_deletion_of_its_queue(profile: Profile) {
        let broker = Broker::start(Options::default()).await.unwrap();
        let cache = unique_name("deleted");
        let here = node(config(&cache, "us-east", broker.url()).profile(profile), &cache).await;
        let config = config(&cache, "ap-south", broker.url()).profile(profile);
        let transport = RabbitMq::connect(config).await.unwrap();
        let there = GeoCache::builder().cache(&cache).transport(transport.clone()).build().await.unwrap();
        for node in [&here, &there] {
            tokio::time::timeout(BOUND, node.ready()).await.unwrap().unwrap();
        }
        let queue = transport.queue();
        loses_nothing(here, there, async |_| {
            broker.ctl(&["delete_queue", &queue]).await.unwrap();
            let is_told = async || transport.stats().consumer_cancels > 0;
            wait_until("the end of the consumer is noticed", BOUND, is_told).await;
        })
        .await;
        let stats = transport.stats();
        assert_eq!((stats.consumer_cancels, stats.queues_replaced), (1, 0), "{stats:?}");
        assert_eq!(transport.queue(), queue);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_deleted_queue_loses_no_write_in_the_fast_profile() {
        survives_the_deletion_of_its_queue(Profile::Fast).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_deleted_queue_loses_no_write_in_the_durable_profile() {
        survives_the_deletion_of_its_queue(Profile::Durable).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_exchange_of_another_type_is_refused_with_what_to_do() {
        let broker = Broker::start(Options::default()).await.unwrap();
        let cache = unique_name("conflict");
        let declare = format!(
            "rabbit_exchange:declare({{resource, <<\"/\">>, exchange, <<\"geocache.{cache}\">>}}, \
             fanout, true, false, false, [], <<\"test\">>)."
        );
        broker.ctl(&["eval", &declare]).await.unwrap();
        let error = RabbitMq::connect(config(&cache, "us-east", broker.url())).await.unwrap_err();
        assert!(matches!(error, ConnectError::ExchangeConflict { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_held_for_ten_seconds_and_healed_loses_no_write() {
    let url = shared_url().unwrap();
    let address = url.rsplit_once('@').unwrap().1.split('/').next().unwrap().to_owned();
    let upstream = tokio::net::lookup_host(address).await.unwrap().next().unwrap();
    let proxy = Proxy::start(upstream).await.unwrap();
    let cache = unique_name("held");
    let here = node(config(&cache, "us-east", &url), &cache).await;
    let there = node(config(&cache, "ap-south", &proxy.url(&url)), &cache).await;
    for node in [&here, &there] {
        tokio::time::timeout(BOUND, node.ready()).await.unwrap().unwrap();
    }
    loses_nothing(here, there, async |_| {
        proxy.hold();
        // Time is the input: so long nothing passes, and nothing says so.
        tokio::time::sleep(Duration::from_secs(10)).await;
        proxy.heal();
    })
    .await;
}
