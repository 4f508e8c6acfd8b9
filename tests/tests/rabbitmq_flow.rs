//! Bounds at the broker: the queue of a node that takes nothing stays within them, nobody waits for it, and it repairs
//! itself; and a node without its broker goes on writing.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

#[expect(dead_code, reason = "the tests of poison use the rest of it")]
mod bare_client;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bare_client::BareClient;
use geocache::{
    GeoCache,
    rabbitmq::{Config, Profile, RabbitMq},
};
use replication::{NodeId, Transport, wire};
use tests::{broker::shared_url, proxy::Proxy, unique_name, wait_until};

/// Generous: the machine may have two cores, shared with a broker.
const BOUND: Duration = Duration::from_secs(90);

/// The smallest queue that may be configured, by either bound.
const QUEUE_FRAMES_MAX: u32 = 16;
const QUEUE_BYTES_MAX: u64 = 1 << 20;

struct Node {
    cache: GeoCache,
    transport: Arc<RabbitMq>,
}

impl Node {
    async fn start(region: &str, cache: &str, url: &str, set: impl FnOnce(Config) -> Config) -> Self {
        let node = NodeId::new(region.parse().unwrap(), "n").unwrap();
        let transport =
            RabbitMq::connect(set(Config::new(node, vec![url.to_owned()]).cache(cache))).await.unwrap();
        let cache =
            GeoCache::builder().cache(cache).transport(Arc::clone(&transport) as _).build().await.unwrap();
        Self { cache, transport }
    }

    async fn ready(&self) {
        tokio::time::timeout(BOUND, self.cache.ready()).await.unwrap().unwrap();
    }

    /// Waits until what this node wrote so far was confirmed.
    async fn flushed(&self) {
        let what = format!("{} has nothing left to send", self.cache.node());
        wait_until(&what, BOUND, async || {
            let stats = self.transport.stats();
            self.cache.stats().outbox.records == 0 && stats.published == stats.confirmed + stats.returned
        })
        .await;
    }
}

async fn proxy(url: &str) -> Proxy {
    let address = url.rsplit_once('@').unwrap().1.split('/').next().unwrap().to_owned();
    let upstream: SocketAddr = tokio::net::lookup_host(address).await.unwrap().next().unwrap();
    Proxy::start(upstream).await.unwrap()
}

async fn a_silent_peer_s_queue_stays_within_its_bounds(profile: Profile, value_bytes: usize, writes: usize) {
    let url = shared_url().unwrap();
    let cache = unique_name("bounds");
    let link = proxy(&url).await;
    let bounds = |config: Config| {
        let config = config.profile(profile).frame_bytes_max(1 << 20).prefetch(4);
        config.queue_frames_max(QUEUE_FRAMES_MAX).queue_bytes_max(QUEUE_BYTES_MAX)
    };
    let here = Node::start("us-east", &cache, &url, bounds).await;
    let silent = Node::start("ap-south", &cache, &link.url(&url), |config| {
        bounds(config).heartbeat(Duration::from_secs(1))
    })
    .await;
    here.ready().await;
    silent.ready().await;
    let client = BareClient::connect(&url).await;
    let queue = silent.transport.queue();

    // Nothing reaches it any more, and it says nothing; the broker keeps its frames.
    link.hold();
    let value = "x".repeat(value_bytes);
    let mut longest = 0;
    for n in 0..writes {
        here.cache.put(format!("key-{n}"), &value).unwrap();
        // Each in a frame of its own, so that the broker has more of them than the queue may hold.
        here.flushed().await;
        let waiting = client.waiting(&queue).await.unwrap();
        assert!(waiting <= QUEUE_FRAMES_MAX, "{waiting} frames wait after {n} writes");
        // Keys, headers and the others' heartbeats come on top of the values, so this is on the safe side.
        let values_max = QUEUE_BYTES_MAX / value_bytes as u64;
        assert!(
            value_bytes < 1_000 || u64::from(waiting) <= values_max + 4,
            "{waiting} of {value_bytes} bytes"
        );
        longest = longest.max(waiting);
    }
    assert!(longest >= 4, "at most {longest} frames waited: the queue never filled");
    let sent = here.transport.stats();
    assert!(sent.confirmed > u64::from(QUEUE_FRAMES_MAX), "{sent:?}");
    assert_eq!((sent.nacked, sent.reconnects), (0, 0), "the writer notices nothing: {sent:?}");

    link.heal();
    let what = "the silent node has every write";
    wait_until(what, BOUND, async || (0..writes).all(|n| silent.cache.contains(format!("key-{n}")).unwrap()))
        .await;
    let counters = silent.cache.stats().replication;
    assert_eq!(counters.divergence, 0, "found by what was missing, not by chance: {counters:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peers_queue_stays_within_its_frames_in_the_fast_profile() {
    a_silent_peer_s_queue_stays_within_its_bounds(Profile::Fast, 100, 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peers_queue_stays_within_its_frames_in_the_durable_profile() {
    a_silent_peer_s_queue_stays_within_its_bounds(Profile::Durable, 100, 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peers_queue_stays_within_its_bytes_in_the_fast_profile() {
    a_silent_peer_s_queue_stays_within_its_bounds(Profile::Fast, 200_000, 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peers_queue_stays_within_its_bytes_in_the_durable_profile() {
    a_silent_peer_s_queue_stays_within_its_bounds(Profile::Durable, 200_000, 30).await;
}

/// While the broker is away each write returns at once, what is written again coalesces, and all of it leaves in frames of
/// at most 1,024 records or 128 KiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_its_broker_writes_on_and_sends_in_full_frames_later() {
    const WRITES: usize = 50_000;
    let url = shared_url().unwrap();
    let cache = unique_name("away");
    let link = proxy(&url).await;
    let far = Node::start("ap-south", &cache, &link.url(&url), |config| config).await;
    let here = Node::start("us-east", &cache, &url, |config| config).await;
    for node in [&here, &far] {
        node.ready().await;
    }
    link.cut();
    wait_until("the link is known to be lost", BOUND, async || {
        !far.transport.health().borrow().can_publish()
    })
    .await;
    // Without a single await, and with the link cut until it is done: whatever blocked here would never be released.
    for n in 0..WRITES {
        far.cache.put(format!("key-{n}"), &(n as u64)).unwrap();
        far.cache.put("the same key", &(n as u64)).unwrap();
    }
    let waiting = far.cache.stats().outbox;
    assert_eq!((waiting.records, waiting.skipped), (WRITES + 1, 0), "{waiting:?}");
    let (before, healed) = (far.transport.stats().published, Instant::now());
    link.heal();
    let what = "the other node has every write";
    wait_until(what, BOUND, async || {
        (0..WRITES)
            .all(|n| here.cache.get::<u64>(format!("key-{n}")).unwrap().as_deref() == Some(&(n as u64)))
    })
    .await;
    let frames = far.transport.stats().published - before;
    let least = (WRITES / wire::FRAME_RECORDS) as u64;
    assert!(frames >= least, "{frames} frames for {WRITES} records, {least} at least");
    // Heartbeats go between them, four a second, and answers.
    let beats = 5 * healed.elapsed().as_secs();
    assert!(frames <= 4 * least + beats, "{frames} frames for {WRITES} records, which fill {least}");
}
