//! Three regions' nodes of one cache under steady writes: what a fault may delay and must not lose.
//!
//! Each node writes 500 keys a second and reads each back at once, whatever happens to the brokers. A recovery is timed
//! from the fault until each node has a write that each other one made after it. At the end every node is asked for
//! every write of all.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use geocache::{
    GeoCache,
    rabbitmq::{Config, Profile, RabbitMq},
};
use replication::NodeId;
use tests::{unique_name, wait_until};
use tokio::task::JoinHandle;

/// Generous: the machine may have two cores, shared with three brokers.
pub(crate) const BOUND: Duration = Duration::from_secs(120);

pub(crate) const REGIONS: [&str; 3] = ["us-east", "eu-central", "ap-south"];

/// More than is ever written: what was evicted would look lost.
const CAPACITY: usize = 2_000_000;

const PACE: Duration = Duration::from_millis(2);

/// One region's node and its writer.
pub(crate) struct Node {
    region: &'static str,
    pub(crate) cache: GeoCache,
    pub(crate) transport: Arc<RabbitMq>,
    /// How many keys it wrote.
    written: Arc<AtomicU32>,
    writer: Option<JoinHandle<()>>,
}

/// The nodes of one cache, a region each.
pub(crate) struct Fleet {
    /// The cache's name.
    pub(crate) cache: String,
    profile: Profile,
    nodes: Vec<Node>,
    stop: Arc<AtomicBool>,
}

impl Fleet {
    /// Starts a node a region, at these brokers, and their writers.
    pub(crate) async fn start(profile: Profile, uris: &[Vec<String>]) -> Self {
        let cache = unique_name("steady");
        let mut fleet = Self { cache, profile, nodes: Vec::new(), stop: Arc::default() };
        for uris in uris {
            fleet.join(uris.clone()).await;
        }
        for node in &mut fleet.nodes {
            tokio::time::timeout(BOUND, node.cache.ready()).await.unwrap().unwrap();
            let (cache, prefix) = (node.cache.clone(), node.region);
            node.writer = Some(tokio::spawn(write(cache, prefix, node.written.clone(), fleet.stop.clone())));
        }
        fleet
    }

    /// One region's node more, which writes nothing of its own; it may not be ready yet.
    pub(crate) async fn join(&mut self, uris: Vec<String>) {
        let node = self.start_node(REGIONS[self.nodes.len()], uris).await;
        self.nodes.push(node);
    }

    pub(crate) fn node(&self, region: usize) -> &Node {
        &self.nodes[region]
    }

    async fn start_node(&self, region: &'static str, uris: Vec<String>) -> Node {
        let name = NodeId::new(region.parse().unwrap(), "n").unwrap();
        let config = Config::new(name, uris).cache(&self.cache).profile(self.profile);
        let transport = RabbitMq::connect(config).await.unwrap();
        let builder = GeoCache::builder().cache(&self.cache).capacity(CAPACITY);
        let cache = builder.transport(transport.clone()).build().await.unwrap();
        Node { region, cache, transport, written: Arc::default(), writer: None }
    }

    /// Waits until each of these regions' nodes has what each other of them writes from now on; prints how long it took.
    pub(crate) async fn recovers(&self, regions: &[usize], from: &str) {
        let start = Instant::now();
        let marks: Vec<(&str, u32)> = regions
            .iter()
            .map(|&region| &self.nodes[region])
            .map(|node| (node.region, node.written.load(Ordering::Relaxed)))
            .collect();
        for &region in regions {
            let node = &self.nodes[region];
            for &(origin, mark) in &marks {
                let what = format!("{} has what {origin} wrote after {from}", node.region);
                let arrives = wait_until(&what, BOUND, async || has(&node.cache, origin, mark));
                let _told = ToldOnPanic(self);
                arrives.await;
            }
        }
        println!("{:?}: recovered from {from} in {:.1?}", self.profile, start.elapsed());
    }

    /// Waits until these regions' nodes wrote some more: a fault that is over before anything was written tests nothing.
    pub(crate) async fn writes_on(&self, regions: &[usize], count: u32) {
        for &region in regions {
            let node = &self.nodes[region];
            let target = node.written.load(Ordering::Relaxed) + count;
            let what = format!("{} writes and reads {count} keys more", node.region);
            wait_until(&what, BOUND, async || node.written.load(Ordering::Relaxed) >= target).await;
        }
    }

    /// Ends the writers and waits until every node has every write.
    pub(crate) async fn lost_nothing(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for node in &mut self.nodes {
            if let Some(writer) = node.writer.take() {
                writer.await.unwrap();
            }
        }
        let start = Instant::now();
        let mut records = 0;
        for node in &self.nodes {
            for origin in &self.nodes {
                let count = origin.written.load(Ordering::Relaxed);
                records += count;
                let mut next = 0;
                let what = format!("{} has the {count} writes of {}", node.region, origin.region);
                wait_until(&what, BOUND, async || {
                    while next < count && has(&node.cache, origin.region, next) {
                        next += 1;
                    }
                    next == count
                })
                .await;
            }
        }
        println!("{:?}: {records} reads found every write, after {:.1?}", self.profile, start.elapsed());
    }
}

/// What the transports say of themselves, where a wait was in vain.
struct ToldOnPanic<'a>(&'a Fleet);

impl Drop for ToldOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.0.nodes {
                println!("{:?}", node.transport);
            }
        }
    }
}

fn has(cache: &GeoCache, origin: &str, number: u32) -> bool {
    cache.get::<u32>(format!("{origin}-{number}")).unwrap().as_deref() == Some(&number)
}

async fn write(cache: GeoCache, prefix: &'static str, written: Arc<AtomicU32>, stop: Arc<AtomicBool>) {
    let mut pace = tokio::time::interval(PACE);
    for number in 0.. {
        pace.tick().await;
        if stop.load(Ordering::Relaxed) {
            return;
        }
        cache.put(format!("{prefix}-{number}"), &number).unwrap();
        assert!(has(&cache, prefix, number), "the local cache answers");
        written.store(number + 1, Ordering::Relaxed);
    }
}
