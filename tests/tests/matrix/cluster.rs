//! Several regions in one process.

use std::{sync::Arc, time::Duration};

use geocache::{Error, GeoCluster};
use tests::wait_until;

use super::{BOUND, Clusters, reads};

const LIFE: Duration = Duration::from_secs(600);

pub(crate) async fn what_is_put_in_one_region_is_read_in_the_others(clusters: Clusters) {
    let cluster = clusters.of(["us-east", "eu-central", "ap-south"]).await;
    let read = |key: &str, region: &str| cluster.get::<u64>(key, region).unwrap().as_deref().copied();
    cluster.put("n", &1_u64, "us-east").unwrap();
    cluster.put("other", &1_u64, "us-east").unwrap();
    cluster.put_with_ttl("lives", &1_u64, LIFE, "eu-central").unwrap();
    assert_eq!(read("n", "us-east"), Some(1), "at once, where it was written");
    cluster.settled(BOUND).await.unwrap();
    assert_eq!(["us-east", "eu-central", "ap-south"].map(|region| read("n", region)), [Some(1); 3]);
    let left = |region| cluster.region(region).unwrap().peek_item(b"lives").unwrap().left;
    assert!(left("us-east").is_some_and(|left| left <= LIFE));

    let one_more = |n: Option<Arc<u64>>| n.map(|n| *n + 1);
    assert_eq!(cluster.update("n", one_more, "ap-south").unwrap().as_deref(), Some(&2));
    assert!(cluster.touch("lives", 2 * LIFE, "ap-south").unwrap());
    assert!(cluster.remove("other", "ap-south").unwrap());
    cluster.settled(BOUND).await.unwrap();
    assert_eq!((read("n", "us-east"), read("other", "us-east")), (Some(2), None));
    assert!(left("us-east").is_some_and(|left| left > LIFE));

    cluster.clear("eu-central").unwrap();
    cluster.settled(BOUND).await.unwrap();
    assert_eq!(["us-east", "eu-central", "ap-south"].map(|region| read("n", region)), [None; 3]);

    // One that is told nothing has a hub of its own, and so hears nobody.
    cluster.put("n", &3_u64, "us-east").unwrap();
    let alone = GeoCluster::new(["us-east"]).await.unwrap();
    let built = GeoCluster::builder().regions(["us-east"]).build().await.unwrap();
    for other in [&alone, &built] {
        assert_eq!(other.get::<u64>("n", "us-east").unwrap(), None);
    }
    let error = alone.put("n", &1_u64, "mars").unwrap_err();
    assert!(matches!(error, Error::UnknownRegion { .. }), "{error}");
    cluster.close(BOUND).await;
}

pub(crate) async fn its_regions_are_whole_nodes(clusters: Clusters) {
    let cluster = clusters.of(["us-east", "ap-south"]).await;
    let nodes = cluster.nodes();
    assert_eq!(nodes.iter().map(|node| node.region().as_str()).collect::<Vec<_>>(), ["us-east", "ap-south"]);
    let here = cluster.region("us-east").unwrap();
    here.put("k", "v").unwrap();
    reads(&nodes[1], "k", Some("v")).await;
    let endpoint = cluster.endpoint("ap-south").unwrap();
    assert_eq!(endpoint.get(b"k").await.unwrap().unwrap().decode::<String>().unwrap(), "v");
    let writes: Vec<_> = cluster.stats().iter().map(|(_, stats)| stats.writes).collect();
    assert_eq!(writes, [1, 0]);
    cluster.close(BOUND).await;
    for node in nodes {
        assert!(matches!(node.put("k", "w"), Err(Error::Closed)));
    }
}

pub(crate) async fn a_region_that_was_away_has_the_state_of_the_others_when_it_is_ready(clusters: Clusters) {
    let cluster = clusters.of(["us-east", "ap-south"]).await;
    for (turn, crashes) in [false, true].into_iter().enumerate() {
        cluster.put("before", &turn, "us-east").unwrap();
        cluster.settled(BOUND).await.unwrap();
        if crashes {
            cluster.kill("us-east").await.unwrap();
        } else {
            cluster.stop("us-east").await.unwrap();
        }
        let gone = cluster.get::<usize>("before", "us-east").unwrap_err();
        assert!(matches!(gone, Error::RegionStopped { .. }), "{gone}");
        cluster.put("meanwhile", &turn, "ap-south").unwrap();
        assert_eq!(cluster.get::<usize>("before", "ap-south").unwrap().as_deref(), Some(&turn));

        cluster.start("us-east").await.unwrap();
        let back = cluster.region("us-east").unwrap();
        tokio::time::timeout(BOUND, back.ready()).await.unwrap().unwrap();
        for key in ["before", "meanwhile"] {
            assert_eq!(back.get::<usize>(key).unwrap().as_deref(), Some(&turn), "{key}, crashes: {crashes}");
        }
    }
    cluster.close(BOUND).await;
}

/// Regions that are joined by transports of the user's cannot be parted by the cluster, and that is said.
pub(crate) async fn regions_are_parted_where_there_is_a_hub(clusters: Clusters) {
    let cluster = clusters.of(["us-east", "ap-south"]).await;
    let parted = cluster.partition("us-east", "ap-south");
    if clusters.have_a_hub() {
        parted.unwrap();
        cluster.put("k", "v", "us-east").unwrap();
        let error = cluster.settled(Duration::from_millis(100)).await.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
        assert!(cluster.hub().stats().cut > 0);
        cluster.heal();
    } else {
        let error = parted.unwrap_err();
        assert!(matches!(error, Error::NoHub), "{error}");
        cluster.heal();
        cluster.put("k", "v", "us-east").unwrap();
    }
    wait_until("both have it", BOUND, async || {
        cluster.nodes().iter().all(|node| super::text(node, "k").as_deref() == Some("v"))
    })
    .await;
    cluster.close(BOUND).await;
}
