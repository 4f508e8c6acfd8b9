//! How nodes end: with their last handle, or in good order.

use std::fmt;

use tokio::runtime::Handle as Runtime;

use super::*;
use crate::{FreshOptions, GeoCluster, LoadOptions, PutOptions, WriteConcern, memory::Place};

const LONG: Duration = Duration::from_secs(20);

fn tasks() -> usize {
    Runtime::current().metrics().num_alive_tasks()
}

async fn until_tasks(count: usize) {
    let ended = async {
        while tasks() > count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let in_time = tokio::time::timeout(LONG, ended).await;
    assert!(in_time.is_ok(), "{} tasks are left, {count} were there before", tasks());
}

/// With everything under way that runs a task: replication, a watcher's, the reclaim of a clear, a load that hangs, a
/// refresh, and waits that were dropped midway.
#[tokio::test]
async fn dropping_every_handle_ends_every_task() {
    let before = tasks();
    let cluster = GeoCluster::new(["us-east", "eu-central"]).await.unwrap();
    let (here, there) = (cluster.region("us-east").unwrap(), cluster.region("eu-central").unwrap());
    let users = here.namespace("user").unwrap().with_default_ttl(LONG);
    let events = here.watch().unwrap();
    for number in 0..2_000_u32 {
        users.put(number.to_string(), &number).unwrap();
    }
    users.clear().unwrap();
    let hangs = std::future::pending::<Result<u8, fmt::Error>>;
    let waits = tokio::time::timeout(Duration::from_millis(20), here.get_or_load("hangs", hangs));
    assert!(waits.await.is_err());
    here.put_with_ttl("old", &1_u8, Duration::from_secs(2)).unwrap();
    let ahead = LoadOptions::new().ttl(Duration::from_secs(600)).refresh_ahead(0.9);
    here.get_or_load_with("old", ahead, hangs).await.unwrap();
    cluster.hub().isolate(Place::Region("eu-central".parse().unwrap()));
    let all = PutOptions::new().concern(WriteConcern::All).timeout(LONG);
    let waits = tokio::time::timeout(Duration::from_millis(20), here.put_with("k", "v", all));
    assert!(waits.await.is_err());
    let patient = FreshOptions::new().timeout(LONG);
    let waits = tokio::time::timeout(Duration::from_millis(20), there.fresh(Duration::ZERO, patient));
    assert!(waits.await.is_err());
    assert!(tasks() > before, "there is something to end");
    drop((cluster, here, there, users));
    until_tasks(before).await;
    drop(events);
}

#[tokio::test]
async fn a_handle_of_a_namespace_keeps_the_node_and_an_event_stream_does_not() {
    let before = tasks();
    let hub = crate::memory::Hub::new();
    let node = replication::NodeId::new("us-east".parse().unwrap(), "n").unwrap();
    let cache = GeoCache::builder().transport(hub.join(node)).bootstrap(true).build().await.unwrap();
    let users = cache.namespace("user").unwrap();
    let mut events = cache.watch().unwrap();
    drop(cache);
    users.put("1", "Ada").unwrap();
    assert!(users.contains("1").unwrap() && users.is_ready());
    drop(users);
    until_tasks(before).await;
    while events.next().await.unwrap().is_some() {}
}

#[tokio::test]
async fn a_close_that_cannot_hand_over_says_what_it_keeps() {
    let cluster = GeoCluster::new(["us-east", "eu-central"]).await.unwrap();
    let here = cluster.region("us-east").unwrap();
    cluster.hub().disconnect(here.node());
    for key in ["a", "b", "c"] {
        here.put(key, "v").unwrap();
    }
    let closed = here.close(Duration::from_millis(50)).await;
    assert_eq!((closed.unsent_records, closed.unconfirmed_frames), (3, 0));
    assert!(matches!(here.put("k", "late"), Err(Error::Closed)));
    assert!(here.contains("a").unwrap(), "its reads still answer");
}
