//! The driver on transports that fail, and what callers are told.

mod close;
mod faults;
mod fresh;
mod leases;
mod waits;

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use mockall::{Sequence, mock};
use parking_lot::Mutex;

use super::*;
use crate::{
    memory::Hub,
    message::Message,
    node::{NodeId, Origin, Stream},
    record::{Op, Value},
    replica::{Failure, Token},
    sim::{MapStore, Rules, SimStore, StoreSettings},
    transport::{Delivery, Destination, Health, Subscription},
    wire,
};

mock! {
    Link {}
    #[async_trait]
    impl Transport for Link {
        fn node(&self) -> &NodeId;
        async fn publish(&self, to: Destination, frame: Bytes) -> Result<(), TransportError>;
        async fn subscribe(&self) -> Result<Box<dyn Subscription>, TransportError>;
        fn health(&self) -> watch::Receiver<Health>;
        fn window(&self) -> usize;
        async fn close(&self) -> Result<(), TransportError>;
    }
}

/// A subscription that never delivers.
struct Silent;

#[async_trait]
impl Subscription for Silent {
    async fn next(&mut self) -> Option<Delivery> {
        std::future::pending().await
    }
}

struct Running {
    store: Arc<MapStore>,
    outbox: Arc<Outbox>,
    handle: Handle,
}

fn node(region: &str) -> NodeId {
    NodeId::new(region.parse().unwrap(), "n").unwrap()
}

/// A mocked link of `us-east` that is connected, subscribes silently and closes.
fn link() -> MockLink {
    let mut link = MockLink::new();
    link.expect_node().return_const(node("us-east"));
    link.expect_window().return_const(4usize);
    link.expect_health().returning(|| watch::channel(Health::Connected).1);
    link.expect_close().returning(|| Ok(()));
    link
}

fn silent(link: &mut MockLink) {
    link.expect_subscribe().returning(|| Ok(Box::new(Silent)));
}

async fn run(region: &str, transport: Arc<dyn Transport>, change: impl FnOnce(&mut NodeConfig)) -> Running {
    let mut config = NodeConfig::new(ReplicaConfig { bootstrap: true, ..ReplicaConfig::new(node(region)) });
    change(&mut config);
    let outbox = Arc::new(Outbox::new(config.replica.node.origin(), 1 << 20));
    let store = store(&outbox);
    let handle = start(config, Arc::clone(&store), Arc::clone(&outbox), transport).await.unwrap();
    Running { store, outbox, handle }
}

fn store(outbox: &Arc<Outbox>) -> Arc<MapStore> {
    let settings = StoreSettings { capacity: 1_000, graves_max: 1_000, rules: Rules::ALL };
    MapStore::open(&settings, Arc::clone(outbox), now())
}

impl Running {
    fn put(&self, key: &str) -> Token {
        let value = Value { bytes: Bytes::from_static(b"v"), ..Value::default() };
        self.store.set_now(now());
        self.outbox.token(self.store.write(key.as_bytes(), Op::Put(value)))
    }

    async fn until(&self, what: &str, mut is_so: impl FnMut(&Self, &Status) -> bool) {
        let mut status = self.handle.status();
        let waiting = async {
            loop {
                let seen = status.borrow_and_update().clone();
                if is_so(self, &seen) {
                    return;
                }
                status.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), waiting).await.is_err() {
            panic!("{what}: not within a minute; {:?}", *self.handle.status().borrow());
        }
    }
}

/// The keys of a frame of records; beats and the like have none.
fn keys(frame: &Bytes) -> Vec<String> {
    match wire::decode(frame.clone()).unwrap().message {
        Message::Records { records, .. } => {
            records.iter().map(|record| String::from_utf8_lossy(&record.key).into_owned()).collect()
        }
        _ => Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_on_one_node_is_read_on_the_others() {
    let hub = Hub::new();
    let here = run("us-east", hub.join(node("us-east")), |_| ()).await;
    let there = run("ap-south", hub.join(node("ap-south")), |_| ()).await;
    here.put("k");
    there.until("the write arrives", |there, _| there.store.get(b"k").is_some()).await;
    let closed = here.handle.close(Duration::from_secs(1)).await;
    assert_eq!(closed, Closed::default());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_later_becomes_ready_with_what_was_written_before() {
    let hub = Hub::new();
    let here = run("us-east", hub.join(node("us-east")), |_| ()).await;
    here.put("k");
    let late = run("ap-south", hub.join(node("ap-south")), |config| config.replica.bootstrap = false).await;
    assert!(!late.handle.status().borrow().ready);
    late.until("ready", |_, status| status.ready).await;
    assert!(late.store.get(b"k").is_some());
}

#[tokio::test(start_paused = true)]
async fn what_was_written_while_disconnected_leaves_once_connected() {
    let hub = Hub::new();
    let here = run("us-east", hub.join(node("us-east")), |_| ()).await;
    let there = run("ap-south", hub.join(node("ap-south")), |_| ()).await;
    here.until("they met", |_, status| !status.peers.is_empty()).await;
    hub.disconnect(&node("us-east"));
    for _ in 0..100 {
        here.put("k");
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(there.store.get(b"k").is_none());
    assert_eq!(here.outbox.stats().records, 1, "a key written again coalesces");
    hub.reconnect(&node("us-east"));
    there.until("the write arrives", |there, _| there.store.get(b"k").is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_was_not_taken_goes_again_before_later_ones() {
    let mut link = link();
    silent(&mut link);
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut order = Sequence::new();
    let fails = |_, _| Err(TransportError::Unavailable { reason: "a fault".into() });
    link.expect_publish()
        .withf(|_, frame| keys(frame) == ["a"])
        .times(2)
        .in_sequence(&mut order)
        .returning(fails);
    let log = Arc::clone(&seen);
    link.expect_publish().returning(move |_, frame| {
        log.lock().extend(keys(&frame));
        Ok(())
    });
    let here = run("us-east", Arc::new(link), |config| config.replica.beat_ms = u64::MAX / 4).await;
    here.put("a");
    here.until("tried twice", |_, status| status.counters.publishes_retried == 2).await;
    here.put("b");
    here.until("both left", |_, _| seen.lock().len() == 2).await;
    assert_eq!(*seen.lock(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_frame_is_counted_and_not_sent_again() {
    let mut link = link();
    silent(&mut link);
    link.expect_publish()
        .withf(|_, frame| keys(frame) == ["a"])
        .times(1)
        .returning(|_, _| Err(TransportError::Refused { reason: "a nack".into() }));
    link.expect_publish().returning(|_, _| Ok(()));
    let here = run("us-east", Arc::new(link), |_| ()).await;
    here.put("a");
    here.until("refused", |_, status| status.counters.publishes_refused == 1).await;
    assert_eq!(here.handle.close(Duration::from_secs(1)).await, Closed::default());
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_cannot_work_fails_the_node_with_its_reason() {
    let mut link = link();
    silent(&mut link);
    link.expect_publish().returning(|_, _| Err(TransportError::Fatal { reason: "no permission".into() }));
    let here = run("us-east", Arc::new(link), |_| ()).await;
    let failure = Failure::Transport { reason: "no permission".into() };
    here.until("failed", |_, status| status.failure == Some(failure.clone())).await;
    here.put("a");
    let asked = Instant::now();
    let closed = here.handle.close(Duration::from_secs(3_600)).await;
    assert_eq!(closed.unsent_records, 1);
    assert!(asked.elapsed() < Duration::from_secs(3_600), "what is never sent is not waited for");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_ends_is_opened_again() {
    struct Ended;
    #[async_trait]
    impl Subscription for Ended {
        async fn next(&mut self) -> Option<Delivery> {
            None
        }
    }
    let opened = Arc::new(AtomicUsize::new(0));
    let mut link = link();
    link.expect_publish().returning(|_, _| Ok(()));
    let count = Arc::clone(&opened);
    link.expect_subscribe().returning(move || match count.fetch_add(1, Ordering::Relaxed) {
        0 => Ok(Box::new(Ended)),
        1 => Err(TransportError::Unavailable { reason: "a fault".into() }),
        _ => Ok(Box::new(Silent)),
    });
    let here = run("us-east", Arc::new(link), |_| ()).await;
    here.until("opened again", |_, _| opened.load(Ordering::Relaxed) == 3).await;
}

#[tokio::test]
async fn a_node_starts_alone_while_its_transport_is_not_connected_and_subscribes_later() {
    let opened = Arc::new(AtomicUsize::new(0));
    let mut link = link();
    link.expect_publish().returning(|_, _| Ok(()));
    let count = Arc::clone(&opened);
    link.expect_subscribe().returning(move || match count.fetch_add(1, Ordering::Relaxed) {
        0..3 => Err(TransportError::Unavailable { reason: "no broker yet".into() }),
        _ => Ok(Box::new(Silent)),
    });
    let here = run("us-east", Arc::new(link), |_| ()).await;
    here.until("subscribed", |_, _| opened.load(Ordering::Relaxed) == 4).await;
}

#[tokio::test]
async fn a_transport_that_cannot_work_lets_no_node_start() {
    let config = NodeConfig::new(ReplicaConfig::new(node("us-east")));
    let outbox = Arc::new(Outbox::new(config.replica.node.origin(), 1 << 20));
    let mut link = link();
    link.expect_subscribe().returning(|| Err(TransportError::Fatal { reason: "no permission".into() }));
    let error = start(config, store(&outbox), outbox, Arc::new(link)).await.unwrap_err();
    assert!(matches!(error, StartError::Subscribe(_)), "{error}");
}

#[tokio::test]
async fn a_transport_of_another_node_is_refused() {
    let hub = Hub::new();
    let config = NodeConfig::new(ReplicaConfig::new(node("us-east")));
    let outbox = Arc::new(Outbox::new(config.replica.node.origin(), 1 << 20));
    let transport = hub.join(node("ap-south"));
    let error = start(config, store(&outbox), outbox, transport).await.unwrap_err();
    assert!(matches!(error, StartError::OtherNode { .. }), "{error}");
}

/// What becomes of one publish, or of the close.
#[derive(Debug, Clone)]
enum Fate {
    Now(Result<(), TransportError>),
    After(Duration, Result<(), TransportError>),
    Never,
}

impl Fate {
    async fn come(self) -> Result<(), TransportError> {
        match self {
            Self::Now(result) => result,
            Self::After(wait, result) => {
                tokio::time::sleep(wait).await;
                result
            }
            Self::Never => std::future::pending().await,
        }
    }
}

type Script = Box<dyn Fn(usize, &Bytes) -> Fate + Send + Sync>;

/// A transport of `us-east` that does with each publish what its script says of the publish's number, from 0, and
/// frame, and notes what it was given and what it accepted.
struct Scripted {
    node: NodeId,
    health: watch::Sender<Health>,
    script: Script,
    /// The keys of the frames of records, and whether they were accepted, one entry a publish, when it was made.
    given: Mutex<Vec<String>>,
    accepted: Mutex<Vec<String>>,
    publishes: AtomicUsize,
    opened: AtomicUsize,
    /// Whether each subscription ends as soon as it was opened.
    ends: bool,
    /// What becomes of the close.
    closes: Fate,
}

struct Ended;

#[async_trait]
impl Subscription for Ended {
    async fn next(&mut self) -> Option<Delivery> {
        None
    }
}

impl Scripted {
    fn new(script: impl Fn(usize, &Bytes) -> Fate + Send + Sync + 'static) -> Self {
        Self {
            node: node("us-east"),
            health: watch::Sender::new(Health::Connected),
            script: Box::new(script),
            given: Mutex::default(),
            accepted: Mutex::default(),
            publishes: AtomicUsize::new(0),
            opened: AtomicUsize::new(0),
            ends: false,
            closes: Fate::Now(Ok(())),
        }
    }

    fn given(&self) -> Vec<String> {
        self.given.lock().clone()
    }

    fn accepted(&self) -> Vec<String> {
        self.accepted.lock().clone()
    }

    fn connect(&self, is_up: bool) {
        let down = Health::Connecting { since: std::time::Instant::now(), last_error: None };
        self.health.send_replace(if is_up { Health::Connected } else { down });
    }
}

#[async_trait]
impl Transport for Scripted {
    fn node(&self) -> &NodeId {
        &self.node
    }

    async fn publish(&self, _to: Destination, frame: Bytes) -> Result<(), TransportError> {
        let number = self.publishes.fetch_add(1, Ordering::Relaxed);
        self.given.lock().extend(keys(&frame));
        let result = (self.script)(number, &frame).come().await;
        if result.is_ok() {
            self.accepted.lock().extend(keys(&frame));
        }
        result
    }

    async fn subscribe(&self) -> Result<Box<dyn Subscription>, TransportError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(if self.ends { Box::new(Ended) } else { Box::new(Silent) })
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    async fn close(&self) -> Result<(), TransportError> {
        self.closes.clone().come().await
    }
}

/// The token of a node that nobody here has heard of.
fn unheard() -> Token {
    Token { stream: Stream { origin: Origin(1), epoch: 1 }, hlc: Hlc(2) }
}

fn unavailable() -> Result<(), TransportError> {
    Err(TransportError::Unavailable { reason: "a fault".into() })
}

fn refused() -> Result<(), TransportError> {
    Err(TransportError::Refused { reason: "a nack".into() })
}

/// Runs `us-east` on a scripted transport, almost without heartbeats, so that the script's numbers are those of records.
async fn run_scripted(transport: &Arc<Scripted>) -> Running {
    let quiet = |config: &mut NodeConfig| config.replica.beat_ms = u64::MAX / 4;
    let running = run("us-east", Arc::clone(transport) as Arc<dyn Transport>, quiet).await;
    let first_beat = |_: &Running, _: &Status| transport.publishes.load(Ordering::Relaxed) == 1;
    running.until("the first beat has left", first_beat).await;
    running
}
