//! One region loads for all: what the origin is asked when a key is missed everywhere at once, and what faults change.

mod waits;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use geocache::{GeoCache, GeoCluster, LoadError, LoadOptions, LoadStats, Loaded, Source};
use replication::{
    NodeId, Origin as Node,
    memory::{Faults, Hub},
    wire::{KeyHasher, lease_weight},
};
use tokio::{sync::watch, task::JoinHandle};

const REGIONS: [&str; 3] = ["us-east", "eu-central", "ap-south"];
const CALLERS: usize = 100;
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(60);
/// How long the leases of these tests are: longer than a loaded machine takes for what has to happen within one.
const HOLD: Duration = Duration::from_secs(20);

type Outcome = Result<Loaded<String>, LoadError<&'static str>>;

/// Waits until the condition holds, to a bound.
async fn until(what: impl fmt::Display, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(5 * MS).await;
        }
    };
    assert!(tokio::time::timeout(LONG, waiting).await.is_ok(), "not within {LONG:?}: {what}");
}

/// Whether a node can ask each of so many regions.
fn knows(node: &GeoCache, regions: usize) -> bool {
    let stats = node.stats();
    let nodes = stats.regions.iter().flat_map(|region| &region.nodes);
    nodes.filter(|node| node.alive && node.ready && node.rtt_ms.is_some()).count() == regions
}

/// Three regions that know each other.
async fn cluster() -> GeoCluster {
    let cluster = GeoCluster::new(REGIONS).await.expect("valid names");
    met(&cluster.nodes()).await;
    cluster
}

async fn met(nodes: &[GeoCache]) {
    for node in nodes {
        until(format_args!("{node:?} knows the others"), || knows(node, nodes.len() - 1)).await;
    }
}

fn node(cluster: &GeoCluster, region: &str) -> GeoCache {
    cluster.region(region).expect("it runs")
}

/// A key whose lease the first of these nodes grants, the next of them where that is passed over, and so on.
fn key_of<'a>(order: impl IntoIterator<Item = &'a GeoCache>) -> String {
    let order: Vec<Node> = order.into_iter().map(|node| node.node().origin()).collect();
    let weighs = |key: &String, node| lease_weight(KeyHasher::new("geocache").position(key.as_bytes()), node);
    let falls = |key: &String| order.is_sorted_by(|a, b| weighs(key, *a) > weighs(key, *b));
    (0..).map(|n| format!("key-{n}")).find(falls).expect("one in a few")
}

/// The origin of the data: counts who asks, and answers once it is open.
#[derive(Clone)]
struct Origin {
    asked: Arc<AtomicUsize>,
    open: watch::Sender<bool>,
}

impl Origin {
    fn new(is_open: bool) -> Self {
        Self { asked: Arc::default(), open: watch::Sender::new(is_open) }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn open(&self) {
        self.open.send_replace(true);
    }

    /// Loads with these options, in a task of its own.
    fn load(
        &self,
        node: &GeoCache,
        key: &str,
        options: LoadOptions,
        value: &'static str,
    ) -> JoinHandle<Outcome> {
        self.call(node, key, options, move || Ok(value.to_owned()))
    }

    fn call(
        &self,
        node: &GeoCache,
        key: &str,
        options: LoadOptions,
        answer: impl FnOnce() -> Result<String, &'static str> + Send + 'static,
    ) -> JoinHandle<Outcome> {
        let (node, key, asked, mut open) =
            (node.clone(), key.to_owned(), Arc::clone(&self.asked), self.open.subscribe());
        let loader = move || async move {
            asked.fetch_add(1, Ordering::Relaxed);
            if open.wait_for(|open| *open).await.is_err() {
                std::future::pending::<()>().await; // An origin that is gone never answers.
            }
            answer()
        };
        tokio::spawn(async move { node.get_or_load_with(key, options, loader).await })
    }
}

fn leased() -> LoadOptions {
    LoadOptions::new().lease(HOLD)
}

async fn value(call: JoinHandle<Outcome>) -> (String, Source) {
    let loaded =
        tokio::time::timeout(LONG, call).await.expect("in time").expect("no panic").expect("a value");
    ((*loaded.value).clone(), loaded.source)
}

/// The sums over all nodes.
fn loads(nodes: &[GeoCache]) -> LoadStats {
    let mut sums = LoadStats::default();
    for stats in nodes.iter().map(|node| node.stats().loads) {
        sums.flying += stats.flying;
        sums.loads += stats.loads;
        sums.shared += stats.shared;
        sums.leases_granted += stats.leases_granted;
        sums.leases_waited += stats.leases_waited;
        sums.leases_given_up += stats.leases_given_up;
    }
    sums
}

/// As many callers on each of these nodes, all before the origin answers; what it was asked, and who loaded.
async fn all_ask(nodes: &[GeoCache], key: &str) -> (usize, LoadStats) {
    let origin = Origin::new(false);
    let before = loads(nodes);
    let options = leased().ttl(LONG);
    let calls: Vec<_> = nodes
        .iter()
        .flat_map(|node| (0..CALLERS).map(|_| origin.load(node, key, options, "loaded")).collect::<Vec<_>>())
        .collect();
    until("all callers wait", || {
        let now = loads(nodes);
        now.flying + (now.shared - before.shared) as usize == calls.len() && origin.asked() > 0
    })
    .await;
    origin.open();
    for call in calls {
        assert_eq!(value(call).await.0, "loaded");
    }
    (origin.asked(), loads(nodes))
}

#[tokio::test]
async fn three_regions_of_a_hundred_callers_on_one_expired_key_ask_the_origin_once() {
    let cluster = cluster().await;
    let nodes = cluster.nodes();
    cluster.put_with_ttl("k", "old", 300 * MS, "us-east").unwrap();
    let is_everywhere =
        || nodes.iter().all(|node| node.stats().expirations > 0 || node.contains("k").unwrap());
    until("the value is everywhere, or already gone there", is_everywhere).await;
    until("it is gone everywhere", || nodes.iter().all(|node| !node.contains("k").unwrap())).await;
    let (asked, stats) = all_ask(&nodes, "k").await;
    assert_eq!(asked, 1);
    assert_eq!((stats.loads, stats.leases_granted, stats.leases_waited, stats.leases_given_up), (1, 1, 2, 0));
}

/// Whoever grants it, and whoever asks first.
#[tokio::test(start_paused = true)]
async fn of_every_key_the_origin_is_asked_once() {
    let cluster = cluster().await;
    let nodes = cluster.nodes();
    for n in 0..12 {
        let mut order: Vec<&GeoCache> = nodes.iter().collect();
        order.rotate_left(n % 3);
        if n % 2 == 0 {
            order.swap(1, 2);
        }
        let key = key_of(order);
        for node in &nodes {
            node.remove(&key).unwrap();
        }
        cluster.settled(LONG).await.unwrap();
        assert_eq!(all_ask(&nodes, &key).await.0, 1, "{key}");
    }
    assert_eq!(loads(&nodes).leases_given_up, 0);
}

#[tokio::test(start_paused = true)]
async fn of_regions_with_several_nodes_one_node_loads() {
    let hub = Hub::new();
    let mut nodes = Vec::new();
    for (region, name) in
        [("us-east", "a"), ("us-east", "b"), ("eu-central", "a"), ("eu-central", "b"), ("ap-south", "a")]
    {
        let id = NodeId::new(region.parse().unwrap(), name).unwrap();
        nodes.push(GeoCache::builder().transport(hub.join(id)).bootstrap(true).build().await.unwrap());
    }
    met(&nodes).await;
    for key in ["k", "l", "m"] {
        assert_eq!(all_ask(&nodes, key).await.0, 1, "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_keys_are_loaded_once_each() {
    let cluster = cluster().await;
    let nodes = cluster.nodes();
    let origin = Origin::new(true);
    let keys: Vec<String> = (0..1_000).map(|n| format!("k{n}")).collect();
    let calls: Vec<_> = keys
        .iter()
        .flat_map(|key| nodes.iter().map(|node| origin.load(node, key, leased(), "v")).collect::<Vec<_>>())
        .collect();
    for call in calls {
        value(call).await;
    }
    let stats = loads(&nodes);
    assert_eq!((origin.asked(), stats.leases_given_up), (keys.len(), 0));
}

/// It had missed the key before the value came there, and asked after the lease was over.
#[tokio::test(start_paused = true)]
async fn a_region_that_asks_late_waits_for_the_write_instead_of_loading() {
    let cluster = cluster().await;
    let [us, eu, ap] = REGIONS.map(|region| node(&cluster, region));
    let (key, origin) = (key_of([&eu, &us, &ap]), Origin::new(true));
    cluster.hub().hold(us.region().clone(), ap.region().clone());
    assert_eq!(value(origin.load(&us, &key, leased(), "v")).await, ("v".to_owned(), Source::Loader));
    let granted = || eu.stats().replication.leases_granted;
    until("the grantor granted it", || granted() == 1).await;
    until("the grantor has the value", || eu.contains(&key).unwrap()).await;
    let late = origin.load(&ap, &key, leased(), "again");
    until("it waits", || ap.stats().loads.flying == 1).await;
    tokio::time::sleep(SECOND).await;
    assert!(!late.is_finished());
    cluster.hub().release(us.region().clone(), ap.region().clone());
    assert_eq!(value(late).await, ("v".to_owned(), Source::Elsewhere));
    assert_eq!(origin.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_loaded_and_removed_is_loaded_again() {
    let cluster = cluster().await;
    let nodes = cluster.nodes();
    let origin = Origin::new(true);
    for (n, region) in [0, 1, 2, 0, 1, 2].into_iter().enumerate() {
        assert_eq!(value(origin.load(&nodes[region], "k", leased(), "v")).await.1, Source::Loader);
        assert_eq!(origin.asked(), n + 1);
        cluster.settled(LONG).await.unwrap();
        assert!(nodes.iter().all(|node| node.contains("k").unwrap()));
        nodes[(region + 1) % 3].remove("k").unwrap();
        cluster.settled(LONG).await.unwrap();
    }
    assert_eq!(loads(&nodes).leases_given_up, 0);
}

/// The first one's load ends as `ends` has it; the others are told at once, and one of them loads.
async fn the_next_one_loads_when(
    what: &str,
    options: LoadOptions,
    ends: fn() -> Result<String, &'static str>,
) {
    let cluster = cluster().await;
    for grantor in 0..3 {
        let nodes = cluster.nodes();
        let key = key_of([&nodes[grantor], &nodes[(grantor + 1) % 3], &nodes[(grantor + 2) % 3]]);
        let (broken, well) = (Origin::new(false), Origin::new(true));
        let first = broken.call(&nodes[0], &key, options, ends);
        until("the first one loads", || broken.asked() == 1).await;
        let others = [1, 2].map(|n| well.load(&nodes[n], &key, leased(), "v"));
        until("the others wait", || loads(&nodes).flying == 3).await;
        tokio::time::sleep(SECOND).await;
        assert_eq!(well.asked(), 0, "{what}: they wait for the first");
        broken.open();
        let began = tokio::time::Instant::now();
        for other in others {
            assert_eq!(value(other).await.0, "v", "{what}");
        }
        assert!(first.await.expect("no panic").is_err(), "{what}");
        assert!(began.elapsed() < HOLD / 2, "{what}: they did not wait for the end of the lease");
        assert_eq!(well.asked(), 1, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_that_fails_lets_another_region_load() {
    the_next_one_loads_when("it fails", leased(), || Err("the origin is down")).await;
}

#[tokio::test(start_paused = true)]
async fn a_load_that_panics_lets_another_region_load() {
    the_next_one_loads_when("it panics", leased(), || panic!("a loader that panics")).await;
}

#[tokio::test(start_paused = true)]
async fn a_load_that_hangs_lets_another_region_load_at_its_limit() {
    let options = leased().time_limit(2 * SECOND);
    // It is never answered: the limit comes before the test opens the origin.
    let cluster = cluster().await;
    let nodes = cluster.nodes();
    let (broken, well) = (Origin::new(false), Origin::new(true));
    let first = broken.load(&nodes[0], "k", options, "never");
    until("the first one loads", || broken.asked() == 1).await;
    let others = [1, 2].map(|n| well.load(&nodes[n], "k", leased(), "v"));
    for other in others {
        assert_eq!(value(other).await.0, "v");
    }
    assert!(matches!(first.await.unwrap(), Err(LoadError::TimedOut { .. })));
    assert_eq!(well.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_takes_longer_than_its_lease_is_not_waited_for() {
    let cluster = cluster().await;
    let nodes = cluster.nodes();
    let (slow, well) = (Origin::new(false), Origin::new(true));
    let options = LoadOptions::new().lease(2 * SECOND);
    let first = slow.load(&nodes[0], "k", options, "slow");
    until("the first one loads", || slow.asked() == 1).await;
    let others = [1, 2].map(|n| well.load(&nodes[n], "k", options, "v"));
    for other in others {
        assert_eq!(value(other).await.0, "v");
    }
    assert_eq!(well.asked(), 1, "the next one loaded for the rest");
    assert_eq!(loads(&nodes).leases_given_up, 0);
    slow.open();
    assert_eq!(value(first).await.0, "v", "what came meanwhile stays");
}

#[tokio::test(start_paused = true)]
async fn where_all_who_hold_the_lease_hang_whoever_waits_loads_by_itself() {
    let cluster = cluster().await;
    let nodes = cluster.nodes();
    let (slow, well) = (Origin::new(false), Origin::new(true));
    let options = LoadOptions::new().lease(2 * SECOND).time_limit(LONG);
    let first = slow.load(&nodes[0], "k", options, "slow");
    until("the first one loads", || slow.asked() == 1).await;
    let second = slow.load(&nodes[1], "k", options, "slow");
    until("the second one is in the line", || nodes[1].stats().loads.flying == 1).await;
    tokio::time::sleep(SECOND).await;
    let third = well.load(&nodes[2], "k", options, "v");
    let began = tokio::time::Instant::now();
    assert_eq!(value(third).await, ("v".to_owned(), Source::Loader));
    let waited = began.elapsed();
    assert!(waited <= 5 * SECOND, "{waited:?}, twice the lease at most");
    assert_eq!(slow.asked(), 2, "the second was granted the lease in its turn");
    slow.open();
    for call in [first, second] {
        assert_eq!(value(call).await.0, "v");
    }
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_killed_region_goes_to_another() {
    for grantor in 0..3 {
        let cluster = cluster().await;
        let nodes = cluster.nodes();
        let key = key_of([&nodes[grantor], &nodes[(grantor + 1) % 3], &nodes[(grantor + 2) % 3]]);
        let (lost, well) = (Origin::new(false), Origin::new(true));
        let first = lost.load(&nodes[0], &key, leased(), "lost");
        until("the first one loads", || lost.asked() == 1).await;
        let others = [1, 2].map(|n| well.load(&nodes[n], &key, leased(), "v"));
        until("the others wait", || loads(&nodes).flying == 3).await;
        tokio::time::sleep(SECOND).await;
        cluster.kill(REGIONS[0]).await.unwrap();
        first.abort();
        let began = tokio::time::Instant::now();
        for other in others {
            assert_eq!(value(other).await.0, "v");
        }
        assert_eq!(well.asked(), 1, "granted by {}", REGIONS[grantor]);
        assert!(began.elapsed() < HOLD / 2, "not at the end of the lease, but once the region was not heard");
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_ends_the_wait_though_the_node_that_granted_the_lease_was_killed() {
    let cluster = cluster().await;
    let [us, eu, ap] = REGIONS.map(|region| node(&cluster, region));
    let (key, origin) = (key_of([&eu, &us, &ap]), Origin::new(false));
    let first = origin.load(&us, &key, leased(), "v");
    until("it loads", || origin.asked() == 1).await;
    let second = origin.load(&ap, &key, leased(), "again");
    until("the other waits", || ap.stats().loads.flying == 1).await;
    tokio::time::sleep(SECOND).await;
    cluster.kill("eu-central").await.unwrap();
    origin.open();
    assert_eq!(value(first).await, ("v".to_owned(), Source::Loader));
    assert_eq!(value(second).await, ("v".to_owned(), Source::Elsewhere));
    assert_eq!(origin.asked(), 1);
}

/// For some seconds the others still count it as alive.
#[tokio::test(start_paused = true)]
async fn where_the_grantor_was_just_killed_the_others_agree_on_the_next() {
    let cluster = cluster().await;
    let [us, eu, ap] = REGIONS.map(|region| node(&cluster, region));
    for order in [[&eu, &us, &ap], [&eu, &ap, &us]] {
        let key = key_of(order);
        if cluster.region("eu-central").is_ok() {
            cluster.kill("eu-central").await.unwrap();
        }
        assert_eq!(all_ask(&[us.clone(), ap.clone()], &key).await.0, 1);
    }
    let stats = loads(&[us, ap]);
    assert_eq!((stats.leases_granted, stats.leases_given_up), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn each_side_of_a_partition_loads_once_and_one_value_stays() {
    let cluster = cluster().await;
    let nodes = cluster.nodes();
    let keys: BTreeMap<usize, String> =
        (0..3).map(|n| (n, key_of([&nodes[n], &nodes[(n + 1) % 3], &nodes[(n + 2) % 3]]))).collect();
    cluster.hub().isolate(nodes[0].region().clone());
    for (n, key) in &keys {
        let (alone, together) = tokio::join!(all_ask(&nodes[..1], key), all_ask(&nodes[1..], key));
        assert_eq!((alone.0, together.0), (1, 1), "granted by {}", REGIONS[*n]);
    }
    until("the sides count each other as dead", || knows(&nodes[0], 0) && knows(&nodes[1], 1)).await;
    let (alone, together) = tokio::join!(all_ask(&nodes[..1], "late"), all_ask(&nodes[1..], "late"));
    assert_eq!((alone.0, together.0), (1, 1));
    cluster.heal();
    cluster.settled(LONG).await.unwrap();
    for key in keys.values() {
        let held = nodes.iter().map(|node| node.peek_item(key.as_bytes()).expect("loaded").cas);
        assert_eq!(held.collect::<std::collections::BTreeSet<_>>().len(), 1, "one write of {key}");
    }
}

/// Of values that no region may have, as one that is too long, each region has to load its own.
#[tokio::test(start_paused = true)]
async fn a_value_that_cannot_be_shared_is_loaded_by_each_region_in_turn() {
    let builder = GeoCluster::builder().regions(REGIONS).configure(|node| node.value_bytes_max(8));
    let cluster = builder.build().await.unwrap();
    let nodes = cluster.nodes();
    met(&nodes).await;
    let origin = Origin::new(true);
    let calls: Vec<_> =
        nodes.iter().map(|node| origin.load(node, "k", leased(), "longer than eight bytes")).collect();
    for call in calls {
        assert_eq!(value(call).await.1, Source::Loader);
    }
    assert_eq!((origin.asked(), loads(&nodes).leases_given_up), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_and_a_node_that_is_dropped_leave_the_lease_to_others() {
    let hub = Hub::new();
    let mut nodes = Vec::new();
    for region in REGIONS {
        let id = NodeId::new(region.parse().unwrap(), "n").unwrap();
        nodes.push(GeoCache::builder().transport(hub.join(id)).bootstrap(true).build().await.unwrap());
    }
    met(&nodes).await;
    let (lost, well) = (Origin::new(false), Origin::new(true));
    let key = key_of([&nodes[1], &nodes[0], &nodes[2]]);
    let dropped = nodes.remove(0);
    let call = lost.load(&dropped, &key, leased(), "lost");
    until("it loads", || lost.asked() == 1).await;
    call.abort();
    let _ = call.await;
    let others: Vec<_> = nodes.iter().map(|node| well.load(node, &key, leased(), "v")).collect();
    until("the others wait", || loads(&nodes).flying == 2).await;
    drop(dropped);
    for other in others {
        assert_eq!(value(other).await.0, "v");
    }
    assert_eq!(well.asked(), 1);
}

#[tokio::test]
async fn an_old_value_is_served_at_the_soft_limit_while_another_region_loads() {
    let cluster = cluster().await;
    let nodes = cluster.nodes();
    let options = leased().ttl(100 * MS).stale_for(LONG);
    let old = Origin::new(true);
    assert_eq!(value(old.load(&nodes[0], "k", options, "old")).await.1, Source::Loader);
    cluster.settled(LONG).await.unwrap();
    let is_stale = |node: &GeoCache| node.peek_item(b"k").is_some_and(|item| item.left <= Some(LONG));
    until("its time is over everywhere", || nodes.iter().all(is_stale)).await;
    let origin = Origin::new(false);
    let loading = origin.load(&nodes[0], "k", options, "new");
    until("one region loads", || origin.asked() == 1).await;
    for node in &nodes[1..] {
        let served = origin.load(node, "k", options.soft_limit(50 * MS), "again");
        assert_eq!(value(served).await, ("old".to_owned(), Source::Stale));
    }
    origin.open();
    assert_eq!(value(loading).await.0, "new");
    until("the new value is everywhere", || {
        nodes.iter().all(|node| node.get::<String>("k").unwrap().is_some_and(|value| *value == "new"))
    })
    .await;
    until("nobody loads any more", || loads(&nodes).flying == 0).await;
    assert_eq!(origin.asked(), 1);
}

#[tokio::test]
async fn one_region_refreshes_ahead_for_all() {
    let cluster = cluster().await;
    let nodes = cluster.nodes();
    let options = leased().ttl(LONG).refresh_ahead(1.0);
    let first = Origin::new(true);
    value(first.load(&nodes[0], "k", options.refresh_ahead(0.0), "old")).await;
    cluster.settled(LONG).await.unwrap();
    let origin = Origin::new(false);
    for node in &nodes {
        let read = origin.load(node, "k", options, "new");
        assert_eq!(value(read).await, ("old".to_owned(), Source::Cache));
    }
    until("one region refreshes and the others wait", || loads(&nodes).flying == 3 && origin.asked() == 1)
        .await;
    origin.open();
    until("it is done everywhere", || loads(&nodes).flying == 0).await;
    assert!(nodes.iter().all(|node| *node.get::<String>("k").unwrap().unwrap() == "new"));
    assert_eq!(origin.asked(), 1);
}

/// Lost questions, answers and releases cost loads and waits, and leave nobody without a value.
#[tokio::test(start_paused = true)]
async fn over_links_that_lose_and_disorder_frames_all_get_a_value() {
    let hub = Hub::seeded(11);
    let cluster = GeoCluster::builder().regions(REGIONS).hub(hub.clone()).build().await.unwrap();
    let nodes = cluster.nodes();
    met(&nodes).await;
    hub.set_faults(Faults::none().drop(0.2).duplicate(0.2).reorder(0.3).delay(MS..=100 * MS));
    let (origin, keys) = (Origin::new(true), 200);
    let options = LoadOptions::new().lease(2 * SECOND);
    for key in (0..keys).map(|n| format!("k{n}")) {
        let calls = nodes.iter().map(|node| origin.load(node, &key, options, "v")).collect::<Vec<_>>();
        for call in calls {
            assert_eq!(value(call).await.0, "v");
        }
    }
    let asked = origin.asked();
    println!("{asked} loads of {keys} keys by {} regions", nodes.len());
    assert!((keys..nodes.len() * keys).contains(&asked), "{asked}: fewer than without leases");
}

#[tokio::test(start_paused = true)]
async fn without_others_a_lease_changes_nothing() {
    let alone = GeoCache::builder().build().await.unwrap();
    let origin = Origin::new(true);
    assert_eq!(value(origin.load(&alone, "k", leased(), "v")).await.1, Source::Loader);
    let stats = loads(&[alone]);
    assert_eq!((stats.loads, stats.leases_granted, stats.leases_given_up), (1, 0, 0));
    let cluster = GeoCluster::new(["us-east"]).await.unwrap();
    assert_eq!(value(origin.load(&node(&cluster, "us-east"), "k", leased(), "v")).await.1, Source::Loader);
    let stats = loads(&cluster.nodes());
    assert_eq!((stats.leases_granted, stats.leases_given_up), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_any_length_is_taken() {
    let cluster = cluster().await;
    let origin = Origin::new(true);
    for hold in [Duration::ZERO, Duration::MAX] {
        for node in cluster.nodes() {
            let key = format!("{hold:?} of {node:?}");
            assert_eq!(value(origin.load(&node, &key, LoadOptions::new().lease(hold), "v")).await.0, "v");
        }
    }
}
