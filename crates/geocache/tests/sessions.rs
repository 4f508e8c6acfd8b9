//! Receipts, session tokens and reads of the nearest region, over the in-memory hub.

use std::{collections::BTreeSet, time::Duration};

use geocache::{
    BuildError, Error, GeoCache, GeoCluster, NodeId, PutOptions, RegionId, Token, WriteConcern, memory::Hub,
};
use replication::memory::{Faults, Place};

const REGIONS: [&str; 3] = ["us-east", "eu-central", "ap-south"];
const LONG: Duration = Duration::from_secs(30);
/// What is waited for in vain.
const SHORT: Duration = Duration::from_millis(300);

fn node(region: &str) -> NodeId {
    NodeId::new(region.parse().expect("a region"), "node-1").expect("a name")
}

fn region(name: &str) -> RegionId {
    name.parse().expect("a region")
}

fn regions(names: &[&str]) -> BTreeSet<RegionId> {
    names.iter().map(|name| region(name)).collect()
}

fn all(timeout: Duration) -> PutOptions {
    PutOptions::new().concern(WriteConcern::All).timeout(timeout)
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, waiting).await.is_ok(), "not within {LONG:?}: {what}");
}

fn text(value: Option<std::sync::Arc<String>>) -> Option<String> {
    value.map(|value| value.as_str().to_owned())
}

#[tokio::test]
async fn a_write_with_the_concern_all_is_everywhere_when_its_receipt_says_so() {
    let cluster = GeoCluster::new(REGIONS).await.unwrap();
    for n in 0..50 {
        let here = cluster.region(REGIONS[n % 3]).unwrap();
        let receipt = here.put_with("k", &n, all(LONG).ttl(LONG)).await.unwrap();
        assert!(receipt.reached && receipt.published, "{receipt:?}");
        assert_eq!((receipt.have, receipt.missing), (regions(&REGIONS), regions(&[])));
        for there in REGIONS {
            assert_eq!(cluster.get::<usize>("k", there).unwrap().as_deref(), Some(&n), "{there}");
        }
    }
}

#[tokio::test]
async fn under_a_partition_a_receipt_is_partial_and_it_is_whole_after_the_heal() {
    let cluster = GeoCluster::new(REGIONS).await.unwrap();
    let here = cluster.region("us-east").unwrap();
    cluster.hub().isolate(region("ap-south"));
    let partial = here.put_with("k", "v", all(SHORT)).await.unwrap();
    assert!(!partial.reached && partial.published, "{partial:?}");
    assert_eq!((&partial.have, &partial.missing), (&regions(&REGIONS[..2]), &regions(&["ap-south"])));
    assert_eq!(text(here.get("k").unwrap()).as_deref(), Some("v"), "the write stays");

    let two = here.receipt(&partial.token, WriteConcern::Regions(2), LONG).await;
    assert!(two.reached);
    cluster.hub().heal();
    let whole = here.receipt(&partial.token, WriteConcern::All, LONG).await;
    assert!(whole.reached && whole.missing.is_empty(), "{whole:?}");
    assert_eq!(text(cluster.get("k", "ap-south").unwrap()).as_deref(), Some("v"));
}

#[tokio::test]
async fn without_a_connection_a_receipt_says_that_nothing_left() {
    let cluster = GeoCluster::new(REGIONS).await.unwrap();
    let here = cluster.region("us-east").unwrap();
    cluster.hub().disconnect(&node("us-east"));
    let options = PutOptions::new().concern(WriteConcern::Published).timeout(SHORT);
    let receipt = here.put_with("k", "v", options).await.unwrap();
    assert!(!receipt.reached && !receipt.published);
    assert_eq!(receipt.have, regions(&["us-east"]));
    cluster.hub().heal();
    assert!(here.receipt(&receipt.token, WriteConcern::Published, LONG).await.reached);
}

#[tokio::test]
async fn a_token_makes_a_read_elsewhere_see_the_write() {
    let cluster = GeoCluster::new(REGIONS).await.unwrap();
    let (here, there) = (cluster.region("us-east").unwrap(), cluster.region("ap-south").unwrap());
    // Slow enough that a read without the token would come too early.
    cluster.hub().set_faults(Faults::none().delay(Duration::from_millis(20)..=Duration::from_millis(40)));
    for n in 0..20 {
        let receipt = here.put_with("k", &n, PutOptions::new()).await.unwrap();
        let token: Token = receipt.token.to_string().parse().unwrap();
        let read = there.get_at_least::<i32>("k", &token, LONG).await.unwrap();
        assert!(read.is_some_and(|read| *read >= n), "{n}");
    }
    here.remove("k").unwrap();
    assert!(there.get_at_least::<i32>("k", &here.token(), LONG).await.unwrap().is_none());
}

#[tokio::test]
async fn a_read_that_cannot_see_the_write_in_time_says_how_old_it_would_be() {
    let cluster = GeoCluster::new(REGIONS).await.unwrap();
    let (here, there) = (cluster.region("us-east").unwrap(), cluster.region("ap-south").unwrap());
    cluster.put("k", "old", "us-east").unwrap();
    cluster.settled(LONG).await.unwrap();
    cluster.hub().isolate(region("ap-south"));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let receipt = here.put_with("k", "new", PutOptions::new()).await.unwrap();
    let stale = there.get_at_least::<String>("k", &receipt.token, SHORT).await.unwrap_err();
    assert!(
        matches!(stale, Error::Stale { lag: Some(lag), .. } if lag >= Duration::from_millis(20)),
        "{stale}"
    );
    assert_eq!(text(there.get("k").unwrap()).as_deref(), Some("old"), "what is here can still be read");
    cluster.hub().heal();
    let read = there.get_at_least::<String>("k", &receipt.token, LONG).await.unwrap();
    assert_eq!(text(read).as_deref(), Some("new"));
}

#[tokio::test]
async fn a_write_that_died_with_its_node_is_lost_and_said_to_be() {
    let hub = Hub::new();
    let build = async |name: &str, bootstrap| {
        let builder = GeoCache::builder().transport(hub.join(node(name))).bootstrap(bootstrap);
        builder.build().await.unwrap()
    };
    let there = build("eu-central", true).await;
    let here = build("us-east", true).await;
    until("they met", || there.stats().regions.len() == 1 && here.stats().regions.len() == 1).await;
    hub.isolate(region("us-east"));
    let receipt = here.put_with("k", "v", all(SHORT)).await.unwrap();
    assert_eq!(receipt.missing, regions(&["eu-central"]));
    drop(here);
    hub.heal();
    let back = build("us-east", false).await;
    tokio::time::timeout(LONG, back.ready()).await.unwrap().unwrap();
    for node in [&there, &back] {
        let lost = node.get_at_least::<String>("k", &receipt.token, LONG).await;
        assert!(matches!(lost, Err(Error::Lost)), "{node:?}: {lost:?}");
    }
}

#[tokio::test]
async fn a_node_that_is_warming_reads_through_to_a_ready_region() {
    const KEYS: usize = 4_000;
    let hub = Hub::new();
    let old = GeoCache::builder().transport(hub.join(node("us-east"))).bootstrap(true).build().await.unwrap();
    let value = vec![7_u8; 1_000];
    for n in 0..KEYS {
        old.put(format!("k{n}"), &value).unwrap();
    }
    // With this way between them the state takes some seconds: a round trip for each 128 KiB.
    let way = Duration::from_millis(40);
    hub.set_faults(Faults::none().delay(way..=way));
    let new = GeoCache::builder().transport(hub.join(node("ap-south"))).build().await.unwrap();
    assert!(new.get_or_fetch::<Vec<u8>>("k0", LONG).await.unwrap().is_none(), "nobody was heard yet");
    until("a ready region is heard, and was asked for its state", || {
        let stats = new.stats();
        stats.regions.iter().any(|region| region.is_ready()) && stats.entries > 0
    })
    .await;

    let keys: Vec<String> = (0..KEYS).map(|n| format!("k{n}")).collect();
    for key in keys.iter().filter(|key| !new.contains(key).unwrap()).take(3) {
        let fetched = new.get_or_fetch::<Vec<u8>>(key, LONG).await.unwrap();
        assert_eq!(fetched.as_deref(), Some(&value), "{key}");
        assert!(new.contains(key).unwrap(), "it is stored here");
    }
    let key = keys.iter().find(|key| !new.contains(key).unwrap()).expect("not all has come");
    let item = new.fetch_item(key.as_bytes(), LONG).await.unwrap().expect("held there");
    assert_eq!(item.bytes, old.item(key.as_bytes()).unwrap().bytes);
    assert!(!new.is_ready(), "all of this was read while warming");
    assert!(new.get_or_fetch::<Vec<u8>>("absent", LONG).await.unwrap().is_none());
    tokio::time::timeout(LONG, new.ready()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_fetch_does_not_bring_back_what_was_removed_here() {
    let cluster = GeoCluster::new(REGIONS).await.unwrap();
    cluster.put("k", "v", "us-east").unwrap();
    cluster.settled(LONG).await.unwrap();
    let there = cluster.region("ap-south").unwrap();
    cluster.hub().cut(node("ap-south"), Place::Everywhere);
    there.remove("k").unwrap();
    let fetched = there.get_or_fetch::<String>("k", SHORT).await;
    assert!(matches!(fetched, Err(Error::Timeout { .. })), "{fetched:?}");
    assert!(there.fetch_item(b"", SHORT).await.unwrap().is_none(), "no node holds such a key");
    cluster.hub().heal();
    let fetched = there.get_or_fetch::<String>("k", LONG).await.unwrap();
    assert!(fetched.is_none(), "the remove is newer than what the others hold");
}

/// What the documentation of `get_or_fetch` and `AskRegion::Always` warns of.
#[tokio::test]
async fn an_evicted_key_is_fetched_back_only_while_its_stamp_is_remembered() {
    let hub = Hub::new();
    let large = GeoCache::builder().capacity(1_000).transport(hub.join(node("us-east"))).bootstrap(true);
    let small = GeoCache::builder().capacity(1).graves_max(1).transport(hub.join(node("eu-central")));
    let large = large.build().await.unwrap();
    let small = small.bootstrap(true).build().await.unwrap();
    until("they met", || small.stats().regions.iter().any(|region| region.is_ready())).await;
    for number in 0..200 {
        let receipt = large.put_with(number.to_string(), &number, all(LONG).ttl(LONG)).await.unwrap();
        assert!(receipt.reached, "{receipt:?}");
    }
    assert!(small.stats().graves_dropped > 0);
    assert!(large.contains("0").unwrap() && !small.contains("198").unwrap());
    let last = small.get_or_fetch::<i32>("198", LONG).await.unwrap();
    assert_eq!(last.as_deref(), Some(&198), "its stamp is remembered");
    assert!(small.get_or_fetch::<i32>("0", LONG).await.unwrap().is_none(), "its stamp is not");
    let options = geocache::LoadOptions::new().ask_region(geocache::AskRegion::Always);
    let loaded =
        small.get_or_load_with("1", options, || async { Ok::<i32, std::io::Error>(-1) }).await.unwrap();
    assert_eq!(*loaded.value, -1, "it is loaded from the origin");
}

#[tokio::test]
async fn a_node_alone_reaches_what_needs_no_other() {
    let cache = GeoCache::builder().build().await.unwrap();
    let receipt = cache.put_with("k", "v", all(LONG)).await.unwrap();
    assert!(receipt.reached && !receipt.published && receipt.missing.is_empty());
    assert!(cache.receipt(&receipt.token, WriteConcern::Local, LONG).await.reached);
    assert!(!cache.receipt(&receipt.token, WriteConcern::Regions(2), LONG).await.reached);
    let read = cache.get_at_least::<String>("k", &receipt.token, LONG).await.unwrap();
    assert_eq!(text(read).as_deref(), Some("v"));
    assert!(cache.get_or_fetch::<String>("other", LONG).await.unwrap().is_none());

    // Several: one may begin in the very millisecond of the write.
    for _ in 0..100 {
        let next = GeoCache::builder().build().await.unwrap();
        let lost = next.get_at_least::<String>("k", &receipt.token, LONG).await;
        assert!(matches!(lost, Err(Error::Lost)), "another process's write will not come: {lost:?}");
    }
}

#[tokio::test]
async fn a_put_that_is_refused_changes_nothing_and_waits_for_nothing() {
    let cluster = GeoCluster::new(REGIONS).await.unwrap();
    let here = cluster.region("us-east").unwrap();
    assert!(matches!(here.put_with("", "v", all(LONG)).await, Err(Error::Key { .. })));
    cluster.close(LONG).await;
    assert!(matches!(here.put_with("k", "v", all(LONG)).await, Err(Error::Closed)));
    let token = here.token();
    assert!(matches!(here.at_least(&token, LONG).await, Err(Error::Closed)));
    assert!(matches!(here.get_or_fetch::<String>("k", LONG).await, Err(Error::Closed)));
    assert!(!here.receipt(&token, WriteConcern::All, LONG).await.reached);
}

#[tokio::test]
async fn a_life_of_no_millisecond_is_a_remove_with_a_receipt() {
    let cluster = GeoCluster::new(REGIONS).await.unwrap();
    let here = cluster.region("us-east").unwrap();
    here.put_with("k", "v", all(LONG)).await.unwrap();
    let receipt = here.put_with("k", "v", all(LONG).ttl(Duration::ZERO)).await.unwrap();
    assert!(receipt.reached);
    assert!(REGIONS.iter().all(|region| cluster.get::<String>("k", region).unwrap().is_none()));
}

#[tokio::test]
async fn a_token_before_the_first_write_is_reached_everywhere() {
    let cluster = GeoCluster::new(REGIONS).await.unwrap();
    let token = cluster.region("us-east").unwrap().token();
    for region in REGIONS {
        cluster.region(region).unwrap().at_least(&token, LONG).await.unwrap();
    }
}

#[tokio::test]
async fn regions_without_the_node_s_own_are_refused() {
    let build = async |regions: &[&str]| {
        GeoCache::builder().region("us-east").regions(regions).build().await.map(drop).unwrap_err()
    };
    let error = build(&["eu-central"]).await;
    assert!(matches!(error, BuildError::Setting { field: "regions", .. }), "{error}");
    assert!(matches!(build(&["us-east", "EU"]).await, BuildError::Name { field: "regions", .. }));
}
