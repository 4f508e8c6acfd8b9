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

#[tokio::test]
async fn a_region_that_warms_is_told_and_so_is_this_nodes_own_readiness() {
    let cluster = GeoCluster::new(["us-east", "eu-central"]).await.unwrap();
    let mut events = cluster.region("us-east").unwrap().watch().unwrap();
    cluster.stop("eu-central").await.unwrap();
    cluster.start("eu-central").await.unwrap();
    let there = cluster.region("eu-central").unwrap();
    let mut own = there.watch().unwrap();
    let node = there.node().clone();
    let told = |event| match event {
        Event::PeerWarming { node } => Some(("warming", node)),
        Event::PeerReady { node } => Some(("ready", node)),
        _ => None,
    };
    let mut states = Vec::new();
    while states.last() != Some(&("ready", node.clone())) {
        states.extend(told(next(&mut events).await));
    }
    // Whether it was missed meanwhile is a matter of time.
    states.retain(|(_, of)| *of == node);
    assert_eq!(states, [("warming", node.clone()), ("ready", node)]);
    while next(&mut own).await != Event::Ready {}
}

/// A node played by the test: what it says is a heartbeat with its clock so far ahead.
async fn beat(transport: &crate::memory::HubTransport, ahead_ms: u64, mono_ms: u64) {
    use replication::{
        Destination, Hlc, Transport, WallClock,
        message::{Beat, Frame, Message},
        wire,
    };
    let wall_ms = WallClock::shared().now_ms() + ahead_ms;
    let beat = Beat { ready: true, hlc: Hlc::from_ms(wall_ms), wall_ms, mono_ms, ..Beat::default() };
    let frame = Frame {
        from: transport.node().clone(),
        epoch: 1,
        cache: wire::cache_id("geocache"),
        wants_receipt: false,
        message: Message::Beat(beat),
    };
    transport.publish(Destination::Everyone, wire::encode(&frame)).await.unwrap();
}

#[tokio::test]
async fn a_clock_that_is_too_far_ahead_is_told_and_so_is_its_mending() {
    let cluster = GeoCluster::new(["us-east"]).await.unwrap();
    let mut events = cluster.region("us-east").unwrap().watch().unwrap();
    let node = NodeId::new("mars".parse().unwrap(), "node-1").unwrap();
    let played = cluster.hub().join(node.clone());
    beat(&played, 600_000, 1).await;
    let drift = |drifts| Event::PeerDrift { node: node.clone(), drifts };
    while next(&mut events).await != drift(true) {}
    beat(&played, 0, 2).await;
    while next(&mut events).await != drift(false) {}
}

#[tokio::test]
async fn what_another_region_lets_expire_or_evicts_is_told_where_it_happens() {
    let cluster = GeoCluster::builder()
        .regions(["us-east", "eu-central"])
        .configure(|node| node.capacity(1))
        .build()
        .await
        .unwrap();
    let mut events = cluster.region("eu-central").unwrap().watch().unwrap();
    cluster.put("a", "v", "us-east").unwrap();
    cluster.settled(LONG).await.unwrap();
    cluster.put_with_ttl("b", "v", Duration::from_millis(300), "us-east").unwrap();
    let mut told = Vec::new();
    while !told.contains(&Event::Expired { key: key("b") }) {
        told.push(next_of_keys(&mut events).await);
    }
    let put = |text| Event::Put { key: key(text), remote: true };
    assert!(told.contains(&put("a")) && told.contains(&put("b")), "{told:?}");
    assert!(told.contains(&Event::Evicted { key: key("a") }), "{told:?}");
}

/// A hub's transport that tells of a breaker, as the test sets it.
struct Breaking {
    inner: Arc<crate::memory::HubTransport>,
    state: parking_lot::Mutex<BreakerState>,
}

#[async_trait::async_trait]
impl Transport for Breaking {
    fn node(&self) -> &NodeId {
        self.inner.node()
    }

    async fn publish(
        &self,
        to: replication::Destination,
        frame: Bytes,
    ) -> Result<(), replication::TransportError> {
        self.inner.publish(to, frame).await
    }

    async fn subscribe(&self) -> Result<Box<dyn replication::Subscription>, replication::TransportError> {
        self.inner.subscribe().await
    }

    fn health(&self) -> watch::Receiver<replication::Health> {
        self.inner.health()
    }

    fn report(&self) -> replication::report::Report {
        let breaker = Breaker::new("broker:5672", "publishing", *self.state.lock());
        replication::report::Report::new("rabbitmq", Vec::new(), vec![breaker])
    }

    async fn close(&self) -> Result<(), replication::TransportError> {
        self.inner.close().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_opens_and_closes_is_told() {
    let node = NodeId::new("us-east".parse().unwrap(), "n").unwrap();
    let inner = crate::memory::Hub::new().join(node);
    let transport = Arc::new(Breaking { inner, state: parking_lot::Mutex::new(BreakerState::Open) });
    let cache = GeoCache::builder().transport(transport.clone()).bootstrap(true).build().await.unwrap();
    let mut events = cache.watch().unwrap();
    for state in [BreakerState::HalfOpen, BreakerState::Closed, BreakerState::Open] {
        *transport.state.lock() = state;
        let told = loop {
            if let Event::Breaker { broker, purpose, state } = next(&mut events).await {
                break (broker, purpose, state);
            }
        };
        assert_eq!(told, ("broker:5672".to_owned(), "publishing", state), "as it was before is not told");
    }
}
