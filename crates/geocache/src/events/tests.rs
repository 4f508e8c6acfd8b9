use std::time::Duration;

use cache_core::ManualClock;

use super::*;
use crate::GeoCluster;

const LONG: Duration = Duration::from_secs(20);

fn key(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn next(events: &mut Events) -> Event {
    tokio::time::timeout(LONG, events.next()).await.expect("an event").expect("none missed").expect("a node")
}

/// The next event that is about keys.
async fn next_of_keys(events: &mut Events) -> Event {
    loop {
        match next(events).await {
            Event::PeerReady { .. } | Event::PeerWarming { .. } | Event::PeerDown { .. } | Event::Ready => {}
            event => return event,
        }
    }
}

#[tokio::test]
async fn changes_of_a_key_are_told_in_their_order() {
    let cache = GeoCache::builder().build().await.unwrap();
    let mut events = cache.watch().unwrap();
    cache.put("k", "v").unwrap();
    cache.touch("k", LONG).unwrap();
    cache.remove("k").unwrap();
    cache.remove("k").unwrap();
    cache.clear().unwrap();
    let put = Event::Put { key: key("k"), remote: false };
    assert_eq!(next(&mut events).await, put);
    assert_eq!(next(&mut events).await, put);
    assert_eq!(next(&mut events).await, Event::Removed { key: key("k"), remote: false });
    assert_eq!(
        next(&mut events).await,
        Event::Cleared { prefix: key(""), remote: false },
        "there was no second remove"
    );
}

#[tokio::test]
async fn what_another_region_does_is_told_as_remote() {
    let cluster = GeoCluster::new(["us-east", "eu-central"]).await.unwrap();
    let mut events = cluster.region("eu-central").unwrap().watch().unwrap();
    let here = cluster.region("us-east").unwrap();
    here.put("k", "v").unwrap();
    cluster.settled(LONG).await.unwrap();
    here.remove("k").unwrap();
    cluster.settled(LONG).await.unwrap();
    here.clear().unwrap();
    assert_eq!(next_of_keys(&mut events).await, Event::Put { key: key("k"), remote: true });
    assert_eq!(next_of_keys(&mut events).await, Event::Removed { key: key("k"), remote: true });
    assert_eq!(next_of_keys(&mut events).await, Event::Cleared { prefix: key(""), remote: true });
}

#[tokio::test]
async fn evictions_and_expiries_are_told() {
    let clock = ManualClock::new();
    let cache = GeoCache::builder().capacity(1).clock(clock.clone().into()).build().await.unwrap();
    let mut events = cache.watch().unwrap();
    cache.put("a", "v").unwrap();
    cache.put_with_ttl("b", "v", Duration::from_secs(1)).unwrap();
    let told = [next(&mut events).await, next(&mut events).await, next(&mut events).await];
    assert!(told.contains(&Event::Evicted { key: key("a") }), "{told:?}");
    clock.advance(Duration::from_secs(2));
    // The sweep may have been first.
    cache.put("c", "v").unwrap();
    let told = [next(&mut events).await, next(&mut events).await];
    assert!(told.contains(&Event::Expired { key: key("b") }), "{told:?}");
}

#[tokio::test]
async fn a_namespace_hears_of_its_own_keys_alone() {
    let cache = GeoCache::builder().build().await.unwrap();
    let users = cache.namespace("user").unwrap();
    let mut events = users.watch().unwrap();
    cache.put("other", "v").unwrap();
    users.put("1", "v").unwrap();
    cache.namespace("order").unwrap().clear().unwrap();
    users.clear().unwrap();
    cache.clear().unwrap();
    assert_eq!(next(&mut events).await, Event::Put { key: key("1"), remote: false });
    let cleared = Event::Cleared { prefix: key(""), remote: false };
    assert_eq!([next(&mut events).await, next(&mut events).await], [cleared.clone(), cleared]);
}

#[tokio::test]
async fn a_watcher_that_falls_behind_is_told_how_far() {
    let cache = GeoCache::builder().build().await.unwrap();
    let mut events = cache.watch().unwrap();
    for _ in 0..WAITING_MAX + 10 {
        cache.put("k", "v").unwrap();
    }
    assert_eq!(events.next().await, Err(Missed { events: 10 }));
    assert!(matches!(next(&mut events).await, Event::Put { .. }));
    drop(cache);
    for _ in 1..WAITING_MAX {
        next(&mut events).await;
    }
    assert_eq!(events.next().await, Ok(None));
}

#[tokio::test]
async fn regions_that_go_and_come_are_told() {
    let cluster = GeoCluster::new(["us-east", "eu-central"]).await.unwrap();
    let here = cluster.region("us-east").unwrap();
    let mut events = here.watch().unwrap();
    let other = cluster.region("eu-central").unwrap().node().clone();
    cluster.stop("eu-central").await.unwrap();
    let down = Event::PeerDown { node: other.clone() };
    while next(&mut events).await != down {}
    cluster.start("eu-central").await.unwrap();
    let ready = Event::PeerReady { node: other };
    while next(&mut events).await != ready {}
}

#[test]
fn what_changed_of_a_peer_is_told_once() {
    let node = |name: &str| NodeId::new("eu-west".parse().unwrap(), name).unwrap();
    let seen = |ready, peers: &[(&str, State, bool)]| Seen {
        ready,
        peers: peers.iter().map(|&(name, state, drifts)| (node(name), Peer { state, drifts })).collect(),
    };
    let before = seen(
        false,
        &[("a", State::Warming, false), ("gone", State::Ready, false), ("dead", State::Down, false)],
    );
    let after = seen(true, &[("a", State::Ready, true), ("b", State::Warming, false)]);
    let expected = [
        Event::Ready,
        Event::PeerReady { node: node("a") },
        Event::PeerDrift { node: node("a"), drifts: true },
        Event::PeerWarming { node: node("b") },
        Event::PeerDown { node: node("gone") },
    ];
    assert_eq!(after.news_since(&before), expected);
    assert_eq!(after.news_since(&after), []);
}
