//! Several regions over the in-memory hub: what is written in one is read in the others.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use geocache::{BuildError, Error, Expect, GeoCache, GeoCluster, Item, Outcome, TimeToLive, Write};
use replication::{
    NodeId, Transport,
    memory::{Faults, Hub, HubTransport},
};

const REGIONS: [&str; 3] = ["us-east", "eu-central", "ap-south"];
const LONG: Duration = Duration::from_secs(30);

async fn cluster() -> GeoCluster {
    GeoCluster::new(REGIONS).await.expect("valid names")
}

fn node(region: &str, name: &str) -> NodeId {
    NodeId::new(region.parse().expect("a region"), name).expect("a name")
}

/// Waits until the condition holds, to a bound.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, waiting).await.is_ok(), "not within {LONG:?}: {what}");
}

fn text(cache: &GeoCache, key: &str) -> Option<String> {
    cache.get::<String>(key).expect("text").map(|value| value.as_str().to_owned())
}

/// What a node holds of the keys `k0`, `k1`, …: bytes and numbers.
fn held(cache: &GeoCache, keys: usize) -> BTreeMap<String, Item> {
    let items = (0..keys).map(|n| format!("k{n}"));
    items.filter_map(|key| cache.peek_item(key.as_bytes()).map(|item| (key, item))).collect()
}

#[tokio::test]
async fn a_write_in_one_region_is_read_in_the_others() {
    let cluster = cluster().await;
    for (n, region) in REGIONS.iter().enumerate() {
        cluster.put(format!("k{n}"), &n, region).unwrap();
        assert_eq!(*cluster.get::<usize>(format!("k{n}"), region).unwrap().unwrap(), n, "here at once");
    }
    cluster.settled(LONG).await.unwrap();
    for region in REGIONS {
        for n in 0..REGIONS.len() {
            assert_eq!(*cluster.get::<usize>(format!("k{n}"), region).unwrap().unwrap(), n, "{region}");
        }
    }
}

#[tokio::test]
async fn flags_numbers_and_lives_travel_with_the_value() {
    let cluster = cluster().await;
    let write = Write { bytes: "v".into(), flags: 7, ttl: TimeToLive::For(LONG), ..Write::default() };
    let here = cluster.region("us-east").unwrap();
    here.write(b"k", write, Expect::Absent).unwrap();
    cluster.settled(LONG).await.unwrap();
    let here = here.item(b"k").unwrap();
    let there = cluster.region("ap-south").unwrap();
    let item = there.item(b"k").unwrap();
    assert_eq!((&item.bytes, item.flags, item.cas, item.codec), (&here.bytes, 7, here.cas, here.codec));
    assert!(item.left.is_some_and(|left| left <= LONG), "{:?}", item.left);
    assert!(matches!(there.remove_if(b"k", Expect::Cas(item.cas)).unwrap(), Outcome::Done { .. }));
}

#[tokio::test]
async fn a_value_expires_in_every_region() {
    let cluster = cluster().await;
    cluster.put_with_ttl("k", "v", Duration::from_millis(300), "us-east").unwrap();
    until("the value is everywhere, or already gone there", || {
        cluster.nodes().iter().all(|node| node.stats().expirations > 0 || node.contains("k").unwrap())
    })
    .await;
    until("the value is gone everywhere", || cluster.nodes().iter().all(|node| !node.contains("k").unwrap()))
        .await;
    // Nothing was sent for it: expiry is each node's own.
    assert_eq!(cluster.region("us-east").unwrap().stats().replication.records_sent, 1);
}

#[tokio::test]
async fn removes_touches_and_clears_travel() {
    let cluster = cluster().await;
    for key in ["removed", "touched", "cleared"] {
        cluster.put_with_ttl(key, "v", LONG, "us-east").unwrap();
    }
    cluster.settled(LONG).await.unwrap();

    assert!(cluster.remove("removed", "eu-central").unwrap());
    assert!(cluster.touch("touched", 10 * LONG, "ap-south").unwrap());
    cluster.settled(LONG).await.unwrap();
    for node in cluster.nodes() {
        assert!(!node.contains("removed").unwrap(), "{node:?}");
        assert!(node.peek_item(b"touched").unwrap().left > Some(2 * LONG), "{node:?}");
    }

    cluster.clear("eu-central").unwrap();
    cluster.settled(LONG).await.unwrap();
    assert!(cluster.nodes().iter().all(|node| !node.contains("cleared").unwrap()));
    cluster.put("later", "v", "us-east").unwrap();
    cluster.settled(LONG).await.unwrap();
    assert!(cluster.nodes().iter().all(|node| node.contains("later").unwrap()));
}

#[tokio::test]
async fn a_remove_takes_a_key_that_only_others_hold() {
    let hub = Hub::new();
    let small = GeoCache::builder().capacity(1).transport(hub.join(node("us-east", "small"))).bootstrap(true);
    let small = small.build().await.unwrap();
    let large = GeoCache::builder().transport(hub.join(node("us-east", "large"))).bootstrap(true);
    let large = large.build().await.unwrap();
    small.put("a", "v").unwrap();
    small.put("b", "v").unwrap();
    until("both values arrive", || large.contains("a").unwrap() && large.contains("b").unwrap()).await;
    assert!(!small.contains("a").unwrap(), "evicted here");
    assert!(!small.remove("a").unwrap(), "nothing was held here");
    until("the remove arrives", || !large.contains("a").unwrap()).await;
    assert!(large.contains("b").unwrap());
}

#[tokio::test]
async fn an_update_elsewhere_wins_over_what_it_saw() {
    let cluster = cluster().await;
    let increment = |n: Option<Arc<u64>>| Some(n.map_or(1, |n| *n + 1));
    for round in 1..=10 {
        let region = REGIONS[round as usize % REGIONS.len()];
        assert_eq!(cluster.update("n", increment, region).unwrap().as_deref(), Some(&round));
        cluster.settled(LONG).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_converge_under_faults() {
    const KEYS: usize = 20;
    let hub = Hub::seeded(7);
    let cluster = GeoCluster::builder().regions(REGIONS).hub(hub.clone()).build().await.unwrap();
    hub.set_faults(Faults::none().drop(0.1).duplicate(0.1).reorder(0.2));
    let writers: Vec<_> = cluster
        .nodes()
        .iter()
        .cloned()
        .map(|node| {
            tokio::spawn(async move {
                for n in 0..600_usize {
                    let key = format!("k{}", n * 7 % KEYS);
                    match n % 10 {
                        9 => drop(node.remove(&key).unwrap()),
                        _ => node.put(&key, &format!("{} {n}", node.region())).unwrap(),
                    }
                    if n % 20 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    hub.heal();
    cluster.settled(LONG).await.unwrap();
    let first: BTreeMap<_, _> =
        held(&cluster.nodes()[0], KEYS).into_iter().map(|(key, item)| (key, item.bytes)).collect();
    assert!(!first.is_empty());
    for node in cluster.nodes() {
        let here: BTreeMap<_, _> =
            held(&node, KEYS).into_iter().map(|(key, item)| (key, item.bytes)).collect();
        assert_eq!(here, first, "{node:?}");
    }
}

#[tokio::test]
async fn a_region_that_was_cut_off_serves_and_catches_up() {
    let cluster = cluster().await;
    cluster.hub().isolate(cluster.region("us-east").unwrap().region());
    cluster.put("here", "v", "us-east").unwrap();
    cluster.put("there", "v", "ap-south").unwrap();
    assert_eq!(text(&cluster.region("us-east").unwrap(), "here").as_deref(), Some("v"));
    let error = cluster.settled(Duration::from_millis(300)).await.unwrap_err();
    let Error::Timeout { behind, .. } = error else { panic!("{error:?}") };
    assert_eq!(behind, "us-east has not applied all writes of ap-south");
    cluster.hub().heal();
    cluster.settled(LONG).await.unwrap();
    for node in cluster.nodes() {
        assert_eq!((text(&node, "here").as_deref(), text(&node, "there").as_deref()), (Some("v"), Some("v")));
    }
}

#[tokio::test]
async fn a_node_that_starts_late_gets_the_state() {
    let hub = Hub::new();
    let cluster =
        GeoCluster::builder().regions(["us-east", "eu-central"]).hub(hub.clone()).build().await.unwrap();
    for n in 0..3_000_usize {
        cluster.put(format!("k{n}"), &n, "us-east").unwrap();
    }
    cluster.remove("k7", "eu-central").unwrap();
    cluster.settled(LONG).await.unwrap();

    let late = GeoCache::builder().transport(hub.join(node("ap-south", "node-1"))).build().await.unwrap();
    tokio::time::timeout(LONG, late.ready()).await.expect("ready in time").unwrap();
    assert_eq!(held(&late, 3_000), held(&cluster.region("us-east").unwrap(), 3_000));
    assert!(!late.contains("k7").unwrap());

    late.put("k7", "back").unwrap();
    until("the late node's write arrives", || {
        cluster.nodes().iter().all(|node| node.contains("k7").unwrap())
    })
    .await;
}

#[tokio::test]
async fn a_node_that_restarts_gets_the_state_back() {
    let hub = Hub::new();
    let stays = GeoCache::builder().transport(hub.join(node("us-east", "node-1"))).bootstrap(true);
    let stays = stays.build().await.unwrap();
    let builder = GeoCache::builder().bootstrap(true);
    let first = builder.transport(hub.join(node("eu-central", "node-1"))).build().await.unwrap();
    first.put("k", "written before").unwrap();
    until("the write arrives", || stays.contains("k").unwrap()).await;
    first.close(LONG).await;
    drop(first);

    stays.put("meanwhile", "v").unwrap();
    let second = GeoCache::builder().transport(hub.join(node("eu-central", "node-1"))).build().await.unwrap();
    tokio::time::timeout(LONG, second.ready()).await.expect("ready in time").unwrap();
    assert_eq!(text(&second, "k").as_deref(), Some("written before"));
    assert_eq!(text(&second, "meanwhile").as_deref(), Some("v"));
}

#[tokio::test]
async fn an_unknown_region_names_the_known_ones() {
    let cluster = cluster().await;
    let error = cluster.put("k", "v", "mars").unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"there is no region "mars"; the regions are us-east, eu-central, ap-south"#
    );
    assert!(matches!(cluster.get::<String>("k", "").unwrap_err(), Error::UnknownRegion { .. }));
}

#[tokio::test]
async fn a_cluster_without_regions_or_with_one_twice_is_refused() {
    let refusal = async |regions: &[&str]| GeoCluster::new(regions).await.expect_err("refused").to_string();
    assert_eq!(refusal(&[]).await, "regions: there are none; name at least one");
    assert_eq!(refusal(&["a", "b", "a"]).await, "regions: a is named twice; name each once");
    assert!(refusal(&["a", "B"]).await.starts_with("regions: the name \"B\" holds 'B'"));
}

#[tokio::test]
async fn a_builder_that_names_another_node_than_its_transport_is_refused() {
    let hub = Hub::new();
    let builder = GeoCache::builder().region("us-west").transport(hub.join(node("us-east", "node-1")));
    let error = builder.build().await.unwrap_err().to_string();
    assert!(
        error.starts_with("region is \"us-west\", but the transport given belongs to \"us-east\""),
        "{error}"
    );
}

#[tokio::test]
async fn stats_tell_the_lag_and_the_readiness_of_the_other_regions() {
    let cluster = cluster().await;
    cluster.put("k", "v", "us-east").unwrap();
    let here = cluster.region("eu-central").unwrap();
    until("both other regions are known and the write's lag is measured", || {
        let stats = here.stats();
        let ready = stats.regions.iter().filter(|region| region.is_ready()).count();
        let lag = stats.regions.iter().find(|region| region.region.as_str() == "us-east");
        ready == 2 && lag.is_some_and(|region| region.lag_ms().is_some() && region.behind_records() == 0)
    })
    .await;
    assert_eq!(here.stats().replication.records_applied, 1);
    assert_eq!(cluster.stats().len(), 3);
}

#[tokio::test]
async fn closing_hands_over_what_waits_to_leave() {
    let cluster = cluster().await;
    for n in 0..500 {
        cluster.put(format!("k{n}"), &n, "us-east").unwrap();
    }
    let closed = cluster.region("us-east").unwrap().close(LONG).await;
    assert_eq!((closed.unsent_records, closed.unconfirmed_frames), (0, 0));
    until("all of it arrives", || cluster.nodes().iter().skip(1).all(|node| held(node, 500).len() == 500))
        .await;
}

#[tokio::test]
async fn a_closed_cluster_says_so_rather_than_waiting() {
    let cluster = cluster().await;
    cluster.close(LONG).await;
    assert!(matches!(cluster.put("k", "v", "us-east"), Err(Error::Closed)));
    let node = cluster.region("us-east").unwrap();
    assert!(matches!(node.ready().await, Err(Error::Closed)));
    assert!(!node.is_ready());
}

#[tokio::test]
async fn dropping_every_handle_ends_the_node() {
    let hub = Hub::new();
    let transport = hub.join(node("us-east", "node-1"));
    let cache = GeoCache::builder().transport(transport.clone()).build().await.unwrap();
    let clone = cache.clone();
    drop(cache);
    assert_ne!(*transport.health().borrow(), replication::Health::Closed);
    drop(clone);
    until("the node closes its transport", || *transport.health().borrow() == replication::Health::Closed)
        .await;
}

#[tokio::test]
async fn a_stopped_region_hands_over_and_a_killed_one_does_not_take_the_others_along() {
    let cluster = cluster().await;
    cluster.put("handed over", "v", "us-east").unwrap();
    cluster.stop("us-east").await.unwrap();
    assert!(matches!(cluster.put("k", "v", "us-east"), Err(Error::RegionStopped { .. })));
    assert!(matches!(cluster.stop("us-east").await, Err(Error::RegionStopped { .. })));
    assert_eq!(cluster.nodes().len(), REGIONS.len() - 1);
    cluster.settled(LONG).await.unwrap();
    assert!(cluster.nodes().iter().all(|node| node.contains("handed over").unwrap()));
    cluster.kill("ap-south").await.unwrap();
    cluster.put("meanwhile", "v", "eu-central").unwrap();
    for region in ["us-east", "ap-south"] {
        cluster.start(region).await.unwrap();
        cluster.start(region).await.unwrap();
        tokio::time::timeout(LONG, cluster.region(region).unwrap().ready()).await.unwrap().unwrap();
        assert!(
            cluster.region(region).unwrap().contains("meanwhile").unwrap(),
            "{region} caught up before it is ready"
        );
    }
    assert!(matches!(cluster.start("mars").await, Err(Error::UnknownRegion { .. })));
}

#[tokio::test]
async fn what_a_killed_region_had_not_published_is_lost_and_the_rest_is_not() {
    let cluster = cluster().await;
    cluster.put("published", "v", "us-east").unwrap();
    cluster.settled(LONG).await.unwrap();
    cluster.hub().freeze(cluster.region("us-east").unwrap().region());
    cluster.put("unpublished", "v", "us-east").unwrap();
    cluster.kill("us-east").await.unwrap();
    cluster.heal();
    cluster.start("us-east").await.unwrap();
    tokio::time::timeout(LONG, cluster.region("us-east").unwrap().ready()).await.unwrap().unwrap();
    let held = |key| cluster.nodes().iter().map(|node| node.contains(key).unwrap()).collect::<Vec<_>>();
    assert_eq!(held("published"), [true; 3]);
}

#[tokio::test]
async fn parted_regions_go_on_apart_and_meet_again() {
    let cluster = cluster().await;
    cluster.partition("us-east", "eu-central").unwrap();
    assert!(matches!(cluster.partition("us-east", "mars"), Err(Error::UnknownRegion { .. })));
    cluster.put("k", "v", "us-east").unwrap();
    cluster.put("l", "v", "eu-central").unwrap();
    assert!(!cluster.region("us-east").unwrap().contains("l").unwrap());
    cluster.heal();
    cluster.settled(LONG).await.unwrap();
    assert!(cluster.nodes().iter().all(|node| node.contains("k").unwrap() && node.contains("l").unwrap()));
}

#[tokio::test]
async fn each_node_gets_the_transport_that_the_user_makes_for_it() {
    let hub = Hub::new();
    let joined = hub.clone();
    let cluster = GeoCluster::builder()
        .regions(REGIONS)
        .configure(|node| node.bootstrap(true))
        .transport(move |node| std::future::ready(Ok::<_, std::convert::Infallible>(joined.join(node))))
        .build()
        .await
        .unwrap();
    cluster.put("k", "v", "us-east").unwrap();
    cluster.settled(LONG).await.unwrap();
    assert!(cluster.nodes().iter().all(|node| node.contains("k").unwrap()));
    assert!(matches!(cluster.partition("us-east", "ap-south"), Err(Error::NoHub)));
    hub.cut_both(node("us-east", "node-1"), node("ap-south", "node-1"));
    cluster.put("apart", "v", "us-east").unwrap();
    until("eu-central has it", || cluster.region("eu-central").unwrap().contains("apart").unwrap()).await;
    assert!(!cluster.region("ap-south").unwrap().contains("apart").unwrap(), "the user's hub has the faults");
    hub.heal();
    // Or the new life may take its state from ap-south before that has it.
    cluster.settled(LONG).await.unwrap();
    cluster.stop("us-east").await.unwrap();
    cluster.start("us-east").await.unwrap();
    tokio::time::timeout(LONG, cluster.region("us-east").unwrap().ready()).await.unwrap().unwrap();
    assert!(cluster.region("us-east").unwrap().contains("apart").unwrap(), "it was joined again");
}

#[tokio::test]
async fn a_node_without_a_transport_is_named_with_the_reason() {
    let refused = |node: NodeId| std::future::ready(Err::<Arc<HubTransport>, _>(format!("no {node}")));
    let building = GeoCluster::builder().regions(REGIONS).transport(refused).build().await;
    let Err(error @ BuildError::Transport { .. }) = building else { panic!("{building:?}") };
    assert_eq!(error.to_string(), "the transport of us-east/node-1 could not be had");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "no us-east/node-1");
}
