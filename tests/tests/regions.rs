//! Regions in one process over the in-memory hub: outages rehearsed through the public API.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use std::time::Duration;

use geocache::{GeoCache, GeoCluster};
use replication::{
    NodeId,
    memory::{Faults, Hub},
};
use tests::wait_until;

const BOUND: Duration = Duration::from_secs(60);
const REGIONS: [&str; 3] = ["us-east", "eu-central", "ap-south"];

fn region(name: &str) -> geo::RegionId {
    name.parse().unwrap()
}

async fn reads(cluster: &GeoCluster, key: &str, region: &str, value: Option<&str>) {
    let what = format!("{region} reads {value:?} for {key}");
    wait_until(&what, BOUND, async || {
        cluster.get::<String>(key, region).unwrap().as_deref().map(String::as_str) == value
    })
    .await;
}

#[tokio::test]
async fn a_region_that_was_cut_off_serves_all_along_and_catches_up() {
    let cluster = GeoCluster::new(REGIONS).await.unwrap();
    cluster.put("before", "1", "us-east").unwrap();
    cluster.settled(BOUND).await.unwrap();
    cluster.hub().isolate(region("ap-south"));
    cluster.put("outside", "2", "us-east").unwrap();
    cluster.put("inside", "3", "ap-south").unwrap();
    reads(&cluster, "outside", "eu-central", Some("2")).await;
    assert_eq!(cluster.get::<String>("before", "ap-south").unwrap().unwrap().as_str(), "1");
    assert_eq!(cluster.get::<String>("inside", "ap-south").unwrap().unwrap().as_str(), "3");
    assert!(cluster.get::<String>("outside", "ap-south").unwrap().is_none());
    cluster.hub().heal();
    reads(&cluster, "outside", "ap-south", Some("2")).await;
    reads(&cluster, "inside", "us-east", Some("3")).await;
}

#[tokio::test]
async fn a_remove_made_while_a_region_was_cut_off_is_not_undone_by_it() {
    let cluster = GeoCluster::new(REGIONS).await.unwrap();
    cluster.put("k", "old", "ap-south").unwrap();
    cluster.settled(BOUND).await.unwrap();
    cluster.hub().isolate(region("ap-south"));
    cluster.remove("k", "us-east").unwrap();
    reads(&cluster, "k", "eu-central", None).await;
    cluster.hub().heal();
    reads(&cluster, "k", "ap-south", None).await;
    cluster.settled(BOUND).await.unwrap();
    assert!(cluster.get::<String>("k", "us-east").unwrap().is_none());
}

#[tokio::test]
async fn writes_under_loss_duplicates_and_reordering_converge() {
    for seed in 0..4 {
        let hub = Hub::seeded(seed);
        let cluster = GeoCluster::builder().regions(REGIONS).hub(hub.clone()).build().await.unwrap();
        let delay = Duration::ZERO..=Duration::from_millis(20);
        hub.set_faults(Faults::none().drop(0.2).duplicate(0.2).reorder(0.2).delay(delay));
        for n in 0..300u32 {
            cluster.put(format!("k{}", n % 40), &n, REGIONS[n as usize % 3]).unwrap();
            if n % 7 == 0 {
                cluster.remove(format!("k{}", n % 40), REGIONS[(n as usize + 1) % 3]).unwrap();
            }
            tokio::task::yield_now().await;
        }
        hub.heal();
        cluster.settled(BOUND).await.unwrap();
        assert!(hub.stats().dropped > 0, "seed {seed}: the fault was met");
        for n in 0..40 {
            let key = format!("k{n}");
            let values = REGIONS.map(|region| cluster.get::<u32>(&key, region).unwrap());
            assert!(values.iter().all(|value| *value == values[0]), "seed {seed}, {key}: {values:?}");
        }
    }
}

#[tokio::test]
async fn a_region_that_restarts_is_ready_with_what_the_others_have() {
    let hub = Hub::new();
    let cluster =
        GeoCluster::builder().regions(["us-east", "eu-central"]).hub(hub.clone()).build().await.unwrap();
    for n in 0..5_000u32 {
        cluster.put(format!("k{n}"), &n, "us-east").unwrap();
    }
    let id = NodeId::new(region("ap-south"), "node-1").unwrap();
    for life in 0..2 {
        let node = GeoCache::builder().transport(hub.join(id.clone())).build().await.unwrap();
        tokio::time::timeout(BOUND, node.ready()).await.unwrap().unwrap();
        for n in 0..5_000u32 {
            assert_eq!(node.get::<u32>(format!("k{n}")).unwrap().as_deref(), Some(&n), "life {life}");
        }
        let closed = node.close(Duration::from_secs(5)).await;
        assert_eq!((closed.unsent_records, closed.unconfirmed_frames), (0, 0));
    }
}

#[tokio::test]
async fn stats_say_what_replication_did_and_how_far_behind_it_is() {
    let cluster = GeoCluster::new(REGIONS).await.unwrap();
    for n in 0..100u32 {
        cluster.put(format!("k{n}"), &n, "us-east").unwrap();
    }
    cluster.settled(BOUND).await.unwrap();
    let (_, stats) = cluster.stats().into_iter().find(|(name, _)| name.as_str() == "ap-south").unwrap();
    assert_eq!(stats.replication.records_applied, 100);
    let east = stats.regions.iter().find(|other| other.region.as_str() == "us-east").unwrap();
    assert!(east.is_ready());
    assert_eq!(east.behind_records(), 0);
    assert!(east.lag_ms().is_some());
}

#[tokio::test]
async fn a_value_written_with_a_time_to_live_ends_in_every_region() {
    let cluster = GeoCluster::new(REGIONS).await.unwrap();
    cluster.put_with_ttl("k", "v", Duration::from_millis(1_500), "us-east").unwrap();
    reads(&cluster, "k", "ap-south", Some("v")).await;
    for name in REGIONS {
        reads(&cluster, "k", name, None).await;
    }
}
