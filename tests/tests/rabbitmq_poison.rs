//! Poison at the broker: what is no frame of the cache stops nobody, is counted, and is kept with its error.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

mod bare_client;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bare_client::{BareClient, Letter};
use bytes::Bytes;
use geocache::{
    GeoCache,
    rabbitmq::{Config, DeadLetters, Profile, RabbitMq, Stats},
};
use replication::{
    NodeId,
    message::{Beat, Frame, Message},
    wire,
};
use tests::{broker::shared_url, unique_name, wait_until};

/// Generous: the machine may have two cores, shared with a broker.
const BOUND: Duration = Duration::from_secs(90);

/// How a broadcast is addressed; the queues of all nodes take it.
const EVERYONE: &str = "all.us-east.0";

/// A node, and its transport to ask for its counts.
struct Node {
    cache: GeoCache,
    transport: Arc<RabbitMq>,
}

impl Node {
    async fn start(region: &str, cache: &str, set: impl FnOnce(Config) -> Config) -> Self {
        let node = NodeId::new(region.parse().unwrap(), "n").unwrap();
        let config = set(Config::new(node, vec![shared_url().unwrap()]).cache(cache));
        let transport = RabbitMq::connect(config).await.unwrap();
        let cache =
            GeoCache::builder().cache(cache).transport(Arc::clone(&transport) as _).build().await.unwrap();
        Self { cache, transport }
    }

    async fn counts(&self, what: &str, enough: impl Fn(&Stats) -> bool) {
        let what = format!("{} counts {what}", self.cache.node());
        wait_until(&what, BOUND, async || enough(&self.transport.stats())).await;
    }
}

/// Two ready nodes of a cache, in two regions.
async fn pair(cache: &str, set: impl Fn(Config) -> Config) -> [Node; 2] {
    let nodes = [Node::start("us-east", cache, &set).await, Node::start("ap-south", cache, &set).await];
    for node in &nodes {
        tokio::time::timeout(BOUND, node.cache.ready()).await.unwrap().unwrap();
    }
    nodes
}

/// What one node writes the other reads, both ways.
async fn replicate([here, there]: &[Node; 2], key: &str) {
    for (from, to) in [(here, there), (there, here)] {
        let key = format!("{key} of {}", from.cache.node());
        from.cache.put(&key, &7_u32).unwrap();
        let what = format!("{} reads the {key}", to.cache.node());
        wait_until(&what, BOUND, async || to.cache.get::<u32>(&key).unwrap().as_deref() == Some(&7)).await;
    }
}

fn beat(cache: &str) -> Vec<u8> {
    let from = NodeId::new("eu-central".parse().unwrap(), "stranger").unwrap();
    let message = Message::Beat(Beat::default());
    let frame = Frame { from, epoch: 1, cache: wire::cache_id(cache), wants_receipt: false, message };
    wire::encode(&frame).to_vec()
}

/// The frame with a byte of its header changed and a checksum that fits again.
fn with_byte(frame: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let mut frame = frame[..frame.len() - 4].to_vec();
    frame[at] = byte;
    let checksum = crc32fast::hash(&frame);
    frame.extend_from_slice(&checksum.to_le_bytes());
    frame
}

/// Messages that are no frames of this cache, each with what its dead letter says.
fn poison(cache: &str) -> Vec<(Vec<u8>, &'static str)> {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut garbage: Vec<u8> = (0..1_000).map(|_| random.u8(..)).collect();
    garbage[0] = b'#';
    let frame = beat(cache);
    vec![
        (garbage, "not a frame: it begins with [23,"),
        (Vec::new(), "the header needs 6 bytes and 0 are left"),
        (frame[..frame.len() / 2].to_vec(), "the frame's checksum is"),
        (frame[..3].to_vec(), "the header needs 6 bytes and 3 are left"),
        (with_byte(&frame, 2, 9), "the frame has wire version 9, this node reads 1"),
        (with_byte(&frame, 4, 0x08), "the frame's flags 0x08"),
        (beat("another-cache"), "is of another cache"),
        (vec![b'G'; wire::FRAME_BYTES_MAX + 1_000_000], "at most 8388608 are read"),
    ]
}

async fn letters(client: &BareClient, queue: &str) -> Vec<Letter> {
    let mut letters = Vec::new();
    while let Some(letter) = client.read(queue).await {
        letters.push(letter);
    }
    letters
}

async fn poison_is_kept_and_stops_nothing(profile: Profile) {
    let cache = unique_name("poison");
    let nodes = pair(&cache, |config| config.profile(profile)).await;
    let client = BareClient::connect(&shared_url().unwrap()).await;
    let exchange = format!("geocache.{cache}");
    let poison = poison(&cache);
    for (message, _) in &poison {
        client.publish(&exchange, EVERYONE, message).await;
    }
    client.publish_json(&exchange, EVERYONE, r#"{"order": 17}"#, "billing").await;
    // A kind of a later version is skipped; it is no poison.
    client.publish(&exchange, EVERYONE, &with_byte(&beat(&cache), 3, 200)).await;
    replicate(&nodes, "key written after the poison").await;

    let all = poison.len() as u64 + 1;
    for node in &nodes {
        node.counts("all of it", |stats| stats.rejected == all && stats.dead_lettered == all).await;
        let stats = node.transport.stats();
        assert_eq!((stats.dead_letters_lost, stats.dead_letters_skipped), (0, 0), "{stats:?}");
        assert_eq!((stats.reconnects, stats.consumer_cancels), (0, 0), "{stats:?}");
    }
    let letters = letters(&client, &format!("geocache-dead.{cache}")).await;
    for node in &nodes {
        let own = |letter: &&Letter| letter.header("geocache-node") == node.cache.node().to_string();
        let own: Vec<&Letter> = letters.iter().filter(own).collect();
        assert_eq!(own.len() as u64, all, "one for each message");
        for (message, error) in &poison {
            let found = own.iter().find(|letter| letter.header("geocache-error").contains(error));
            let letter = found.unwrap_or_else(|| panic!("no letter says {error:?} of {own:?}"));
            assert_eq!(letter.header("geocache-bytes"), message.len().to_string());
            assert_eq!(letter.body, message[..message.len().min(64 << 10)], "{error}");
        }
        let json = own.iter().find(|letter| letter.app_id.as_deref() == Some("billing")).unwrap();
        assert_eq!(json.content_type.as_deref(), Some("application/json"));
        assert_eq!(json.body, br#"{"order": 17}"#);
        assert!(json.header("geocache-error").contains("not a frame"), "{json:?}");
    }
    for letter in &letters {
        assert_eq!(letter.header("geocache-exchange"), exchange);
        assert_eq!(letter.header("geocache-routing-key"), EVERYONE);
        assert!(letter.header("geocache-time-ms").parse::<u64>().unwrap() > 1_700_000_000_000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_is_kept_with_its_error_and_stops_nothing_in_the_fast_profile() {
    poison_is_kept_and_stops_nothing(Profile::Fast).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_is_kept_with_its_error_and_stops_nothing_in_the_durable_profile() {
    poison_is_kept_and_stops_nothing(Profile::Durable).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_poison_keeps_within_the_rate_and_the_queue_s_bound() {
    const FLOOD: u64 = 2_000;
    let cache = unique_name("flood");
    let bounds = DeadLetters::default().per_minute(40).queue_frames_max(10);
    let nodes = pair(&cache, |config| config.prefetch(1).dead_letters(bounds.clone())).await;
    let client = BareClient::connect(&shared_url().unwrap()).await;
    for number in 0..FLOOD {
        client.publish(&format!("geocache.{cache}"), EVERYONE, format!("flood {number}").as_bytes()).await;
    }
    replicate(&nodes, "key written behind the flood").await;
    for node in &nodes {
        node.counts("the flood", |stats| {
            let ends = stats.dead_lettered + stats.dead_letters_lost + stats.dead_letters_skipped;
            stats.rejected == FLOOD && ends == FLOOD
        })
        .await;
        let stats = node.transport.stats();
        // The flood may have lasted into a second minute, on a machine that is busy with other things.
        let minutes = stats.dead_lettered.div_ceil(40);
        assert!((1..=3).contains(&minutes), "{stats:?}");
        assert_eq!(stats.dead_letters_lost, 0, "{stats:?}");
    }
    let queue = format!("geocache-dead.{cache}");
    assert_eq!(client.waiting(&queue).await, Some(10));
    // The oldest went first.
    let kept: BTreeSet<Bytes> =
        letters(&client, &queue).await.into_iter().map(|letter| letter.body.into()).collect();
    assert!(!kept.contains(&b"flood 0"[..]), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_that_nobody_takes_are_counted_and_stop_nothing() {
    let cache = unique_name("nobody");
    let client = BareClient::connect(&shared_url().unwrap()).await;
    let dead = format!("geocache-dead.{cache}");
    // Of another type than ours, and with no queue behind it.
    client.declare_topic(&dead).await;
    let nodes = pair(&cache, |config| config).await;
    for number in 0..50 {
        client.publish(&format!("geocache.{cache}"), EVERYONE, format!("poison {number}").as_bytes()).await;
    }
    replicate(&nodes, "key written after it").await;
    for node in &nodes {
        node.counts("all as lost", |stats| stats.rejected == 50 && stats.dead_letters_lost == 50).await;
        node.counts("all as acknowledged", |stats| stats.acknowledged == stats.received).await;
        assert_eq!(node.transport.stats().dead_lettered, 0);
    }
    assert_eq!(client.waiting(&dead).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switched_off_poison_is_counted_alone() {
    let cache = unique_name("off");
    let nodes = pair(&cache, |config| config.dead_letters(DeadLetters::off())).await;
    let client = BareClient::connect(&shared_url().unwrap()).await;
    client.publish(&format!("geocache.{cache}"), EVERYONE, b"poison").await;
    for node in &nodes {
        node.counts("it", |stats| stats.rejected == 1 && stats.dead_letters_skipped == 1).await;
    }
    replicate(&nodes, "key written after it").await;
    assert_eq!(client.waiting(&format!("geocache-dead.{cache}")).await, None);
}
