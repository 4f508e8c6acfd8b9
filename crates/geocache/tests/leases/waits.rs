//! What ends the wait for another region's value: that one, any other, or time.

use async_trait::async_trait;
use bytes::Bytes;
use replication::{
    Destination, Health, Subscription, Transport, TransportError, memory::HubTransport, message::Message,
    wire,
};

use super::*;

/// A region that was told of a write which is kept from it, and of which the grantor says nothing more.
async fn told_of_a_write_that_does_not_come(origin: &Origin) -> (GeoCluster, String, JoinHandle<Outcome>) {
    let cluster = cluster().await;
    let [us, eu, ap] = REGIONS.map(|region| node(&cluster, region));
    let key = key_of([&eu, &us, &ap]);
    cluster.hub().hold(us.region().clone(), ap.region().clone());
    assert_eq!(value(origin.load(&us, &key, leased(), "v")).await.1, Source::Loader);
    let knows = || eu.stats().replication.leases_granted == 1 && eu.peek_item(key.as_bytes()).is_some();
    until("the grantor knows of the load", knows).await;
    let late = origin.load(&ap, &key, leased(), "again");
    until("it waits", || ap.stats().loads.flying == 1).await;
    tokio::time::sleep(SECOND).await;
    assert!(!late.is_finished());
    (cluster, key, late)
}

#[tokio::test(start_paused = true)]
async fn another_value_ends_the_wait_for_a_write_that_does_not_come() {
    for writer in ["ap-south", "eu-central"] {
        let origin = Origin::new(true);
        let (cluster, key, late) = told_of_a_write_that_does_not_come(&origin).await;
        let began = tokio::time::Instant::now();
        node(&cluster, writer).put(&key, "written").unwrap();
        assert_eq!(value(late).await, ("written".to_owned(), Source::Elsewhere));
        assert!(began.elapsed() < SECOND, "{writer}: {:?}", began.elapsed());
        assert_eq!(origin.asked(), 1);
    }
}

/// A node of which nobody ever gets a record: it beats, and speaks of leases.
struct Mute(Arc<HubTransport>);

#[async_trait]
impl Transport for Mute {
    fn node(&self) -> &NodeId {
        self.0.node()
    }

    async fn publish(&self, to: Destination, frame: Bytes) -> Result<(), TransportError> {
        match wire::decode(frame.clone()).expect("its own frame").message {
            Message::Beat(_) | Message::Lease { .. } | Message::Granted { .. } => {
                self.0.publish(to, frame).await
            }
            _ => Ok(()),
        }
    }

    async fn subscribe(&self) -> Result<Box<dyn Subscription>, TransportError> {
        self.0.subscribe().await
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.0.health()
    }

    fn window(&self) -> usize {
        self.0.window()
    }

    async fn close(&self) -> Result<(), TransportError> {
        self.0.close().await
    }
}

/// Its holder said what it loaded, and was gone before that came to anybody.
#[tokio::test(start_paused = true)]
async fn a_write_that_never_comes_is_waited_for_no_longer_than_a_lease() {
    let hub = Hub::new();
    let [us, eu, ap] = REGIONS.map(|region| NodeId::new(region.parse().unwrap(), "n").unwrap());
    let transports: [Arc<dyn Transport>; 3] =
        [Arc::new(Mute(hub.join(us.clone()))), hub.join(eu), hub.join(ap)];
    let mut nodes = Vec::new();
    for transport in transports {
        nodes.push(GeoCache::builder().transport(transport).bootstrap(true).build().await.unwrap());
    }
    met(&nodes).await;
    let (key, origin) = (key_of([&nodes[1], &nodes[0], &nodes[2]]), Origin::new(true));
    assert_eq!(value(origin.load(&nodes[0], &key, leased(), "lost")).await.1, Source::Loader);
    tokio::time::sleep(SECOND).await;
    hub.isolate(us.region().clone());
    let began = tokio::time::Instant::now();
    let late = [1, 2].map(|n| origin.load(&nodes[n], &key, leased(), "again"));
    for late in late {
        assert_eq!(value(late).await.0, "again");
    }
    let waited = began.elapsed();
    assert!(waited > HOLD / 2 && waited < HOLD + 2 * SECOND, "{waited:?}");
    let stats = loads(&nodes[1..]);
    assert_eq!((origin.asked(), stats.leases_given_up), (2, 0), "one of them loaded for both");
}

/// The loader is another region's, the value an application's on this node.
#[tokio::test(start_paused = true)]
async fn a_value_written_here_ends_the_wait_for_another_region() {
    let cluster = cluster().await;
    let [us, eu, ap] = REGIONS.map(|region| node(&cluster, region));
    let (key, origin) = (key_of([&eu, &us, &ap]), Origin::new(false));
    let first = origin.load(&us, &key, leased(), "loaded");
    until("it loads", || origin.asked() == 1).await;
    let second = origin.load(&ap, &key, leased(), "again");
    until("the other waits", || ap.stats().loads.flying == 1).await;
    tokio::time::sleep(SECOND).await;
    let began = tokio::time::Instant::now();
    ap.put(&key, "written").unwrap();
    assert_eq!(value(second).await, ("written".to_owned(), Source::Elsewhere));
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    until("the write is where it is loaded", || us.contains(&key).unwrap()).await;
    origin.open();
    assert_eq!(value(first).await.0, "written");
    assert_eq!(origin.asked(), 1);
}
