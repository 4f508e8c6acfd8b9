//! Leases over the hub: what callers hear, and nodes from before leases among the others.

use super::*;
use crate::memory::HubTransport;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(60);
const REGIONS: [&str; 3] = ["us-east", "eu-central", "ap-south"];

/// Three regions that know each other's clocks, the last of them on a transport of its own.
async fn three(hub: &Hub, last: Option<Arc<dyn Transport>>) -> [Running; 3] {
    let mut nodes = Vec::new();
    for region in &REGIONS[..2] {
        nodes.push(run(region, hub.join(node(region)), |_| ()).await);
    }
    let last = last.unwrap_or_else(|| hub.join(node(REGIONS[2])));
    nodes.push(run(REGIONS[2], last, |_| ()).await);
    for running in &nodes {
        let met = |_: &Running, status: &Status| {
            status.peers.len() == 2 && status.peers.iter().all(|peer| peer.rtt_ms.is_some())
        };
        running.until("they met", met).await;
    }
    nodes.try_into().unwrap_or_else(|_| unreachable!("three regions"))
}

/// A key whose lease the nodes of these regions grant, each after the one before it was passed over.
fn key_of(order: [&str; 3]) -> Bytes {
    let order = order.map(|region| node(region).origin());
    let position = wire::KeyHasher::new("geocache");
    let falls = |key: &String| {
        let weigh = |node: &Origin| wire::lease_weight(position.position(key.as_bytes()), *node);
        order.is_sorted_by(|a, b| weigh(a) > weigh(b))
    };
    (0..).map(|n| format!("k{n}")).find(falls).expect("one in a few").into()
}

impl Running {
    async fn lease(&self, key: &Bytes) -> Result<Leased, LeaseError> {
        self.handle.client().lease(key.clone(), 10 * SECOND, None, LONG).await
    }

    fn lease_later(&self, key: &Bytes) -> tokio::task::JoinHandle<Result<Leased, LeaseError>> {
        let (client, key) = (self.handle.client(), key.clone());
        tokio::spawn(async move { client.lease(key, 10 * SECOND, None, LONG).await })
    }
}

fn granted(answer: Result<Leased, LeaseError>) -> Lease {
    match answer {
        Ok(Leased::Granted(lease)) => lease,
        other => panic!("not granted: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_hears_of_the_write_and_reads_it() {
    let [us, eu, ap] = three(&Hub::new(), None).await;
    let key = key_of(["eu-central", "us-east", "ap-south"]);
    let lease = granted(us.lease(&key).await);
    let others = [eu.lease_later(&key), ap.lease_later(&key)];
    tokio::time::sleep(SECOND).await;
    assert!(others.iter().all(|other| !other.is_finished()));
    let token = us.put(std::str::from_utf8(&key).unwrap());
    lease.loaded(crate::Stamp { hlc: token.hlc, origin: token.stream.origin });
    for (running, other) in [&eu, &ap].into_iter().zip(others) {
        match other.await.unwrap().unwrap() {
            Leased::Arrived => {}
            Leased::Loaded(loaded) => {
                assert_eq!(loaded, token);
                running.handle.client().at_least(loaded, LONG).await.unwrap();
            }
            Leased::Granted(lease) => panic!("{lease:?}"),
        }
        assert!(running.store.get(&key).is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_dropped_goes_to_the_next() {
    let [us, eu, ap] = three(&Hub::new(), None).await;
    let key = key_of(["eu-central", "us-east", "ap-south"]);
    let lease = granted(us.lease(&key).await);
    let next = eu.lease_later(&key);
    tokio::time::sleep(SECOND).await;
    let last = ap.lease_later(&key);
    tokio::time::sleep(SECOND).await;
    drop(lease);
    let lease = granted(next.await.unwrap());
    assert!(!last.is_finished());
    drop(lease);
    drop(granted(last.await.unwrap()));
    eu.until("counted", |_, status| status.counters.leases_passed_on == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_went_away_holds_nobody_up() {
    let [us, eu, ap] = three(&Hub::new(), None).await;
    let key = key_of(["ap-south", "us-east", "eu-central"]);
    let lease = granted(us.lease(&key).await);
    let gone = eu.lease_later(&key);
    tokio::time::sleep(SECOND).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    let next = ap.lease_later(&key);
    tokio::time::sleep(SECOND).await;
    drop(lease);
    // It is granted to the one who went away, which gives it back.
    drop(granted(next.await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_lease_ends_at_its_time() {
    let [us, eu, _ap] = three(&Hub::new(), None).await;
    let key = key_of(["eu-central", "us-east", "ap-south"]);
    let lease = granted(us.lease(&key).await);
    let began = Instant::now();
    let error = eu.handle.client().lease(key.clone(), SECOND, None, 2 * SECOND).await.unwrap_err();
    assert_eq!((error, began.elapsed()), (LeaseError::Late { waited: 2 * SECOND }, 2 * SECOND));
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn at_the_bound_of_what_is_waited_for_a_question_for_a_lease_is_refused() {
    let here = run("us-east", Hub::new().join(node("us-east")), |config| config.waits_max = 2).await;
    let keys = ["a", "b", "c"].map(Bytes::from);
    let (first, second) = (granted(here.lease(&keys[0]).await), granted(here.lease(&keys[1]).await));
    assert_eq!(here.lease(&keys[2]).await.unwrap_err(), LeaseError::Busy);
    here.until("counted", |_, status| status.counters.waits_refused == 1).await;
    drop(first);
    let third = loop {
        match here.lease(&keys[2]).await {
            Err(LeaseError::Busy) => tokio::task::yield_now().await,
            answer => break granted(answer),
        }
    };
    drop((second, third));
}

#[tokio::test(start_paused = true)]
async fn what_came_of_a_load_is_said_before_its_node_closes() {
    let [us, eu, _ap] = three(&Hub::new(), None).await;
    let key = key_of(["eu-central", "us-east", "ap-south"]);
    let lease = granted(us.lease(&key).await);
    let other = eu.lease_later(&key);
    tokio::time::sleep(SECOND).await;
    let token = us.put(std::str::from_utf8(&key).unwrap());
    lease.loaded(crate::Stamp { hlc: token.hlc, origin: token.stream.origin });
    assert_eq!(us.handle.close(LONG).await, Closed::default());
    let began = Instant::now();
    assert!(matches!(other.await.unwrap(), Ok(Leased::Arrived | Leased::Loaded(_))));
    assert!(began.elapsed() < SECOND);
}

/// A node that is closed while it holds a lease, which `ends` may end just before: how long the next one waits.
async fn next_one_waits(ends: fn(Lease) -> Option<Lease>) -> Duration {
    let [us, eu, _ap] = three(&Hub::new(), None).await;
    let key = key_of(["eu-central", "us-east", "ap-south"]);
    let lease = granted(us.lease(&key).await);
    let next = eu.lease_later(&key);
    tokio::time::sleep(SECOND).await;
    let began = Instant::now();
    let rest = ends(lease);
    assert_eq!(us.handle.close(LONG).await, Closed::default());
    drop(granted(next.await.unwrap()));
    drop(rest);
    began.elapsed()
}

/// The task may look at the end before it looks at what holders said.
#[tokio::test(start_paused = true)]
async fn a_lease_given_back_just_before_the_end_of_its_node_goes_to_the_next_at_once() {
    for _ in 0..16 {
        let waited = next_one_waits(|lease| {
            drop(lease);
            None
        })
        .await;
        assert!(waited < SECOND, "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_node_that_is_closed_goes_to_the_next_at_once() {
    let waited = next_one_waits(Some).await;
    assert!(waited < SECOND, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn the_own_lease_of_a_grantor_that_is_closed_goes_to_the_next_at_once() {
    let [us, eu, ap] = three(&Hub::new(), None).await;
    let key = key_of(["us-east", "eu-central", "ap-south"]);
    let lease = granted(us.lease(&key).await);
    let others = [us.lease_later(&key), eu.lease_later(&key)];
    tokio::time::sleep(SECOND).await;
    let began = Instant::now();
    let client = us.handle.client();
    assert_eq!(us.handle.close(LONG).await, Closed::default());
    let [own, next] = others;
    assert!(matches!(own.await.unwrap(), Err(LeaseError::Ended) | Ok(Leased::Granted(_))));
    drop(granted(next.await.unwrap()));
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    assert!(matches!(client.lease(key, SECOND, None, LONG).await, Err(LeaseError::Ended)));
    drop((lease, ap));
}

/// Else an origin that is slow would have whoever waits for a write answered too early.
#[tokio::test(start_paused = true)]
async fn leases_take_no_places_of_those_who_wait_for_writes() {
    let hub = Hub::new();
    let here = run("us-east", hub.join(node("us-east")), |config| config.waits_max = 2).await;
    let leases = [granted(here.lease(&"a".into()).await), granted(here.lease(&"b".into()).await)];
    let there = run("ap-south", hub.join(node("ap-south")), |_| ()).await;
    there.until("they met", |_, status| status.peers.iter().any(|peer| peer.rtt_ms.is_some())).await;
    let token = here.put("k");
    let receipt = here.handle.client().receipt(token, WriteConcern::Regions(2), LONG).await;
    assert!(receipt.reached, "{receipt:?}");
    drop(leases);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_told_when_the_node_closes() {
    let [us, eu, _ap] = three(&Hub::new(), None).await;
    let key = key_of(["eu-central", "us-east", "ap-south"]);
    let lease = granted(us.lease(&key).await);
    let other = eu.lease_later(&key);
    tokio::time::sleep(SECOND).await;
    let client = eu.handle.client();
    eu.handle.close(LONG).await;
    assert_eq!(other.await.unwrap().unwrap_err(), LeaseError::Ended);
    assert_eq!(client.lease(key, SECOND, None, LONG).await.unwrap_err(), LeaseError::Ended);
    drop(lease);
}

/// The kinds of frames that a node from before leases does not know.
const NEW_KINDS: std::ops::RangeInclusive<u8> = 11..=12;

/// The transport of a node from before leases: what it does not know stays unknown to it, and its beats say nothing of
/// leases, unless `boasts`.
struct Older {
    hub: Arc<HubTransport>,
    boasts: bool,
}

struct OlderFrames(Box<dyn Subscription>);

#[async_trait]
impl Transport for Older {
    fn node(&self) -> &NodeId {
        self.hub.node()
    }

    async fn publish(&self, to: Destination, frame: Bytes) -> Result<(), TransportError> {
        let mut said = wire::decode(frame).unwrap();
        if let Message::Beat(beat) = &mut said.message
            && !self.boasts
        {
            beat.capabilities &= !wire::GRANTS_LEASES;
        }
        self.hub.publish(to, wire::encode(&said)).await
    }

    async fn subscribe(&self) -> Result<Box<dyn Subscription>, TransportError> {
        Ok(Box::new(OlderFrames(self.hub.subscribe().await?)))
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.hub.health()
    }

    fn window(&self) -> usize {
        self.hub.window()
    }

    async fn close(&self) -> Result<(), TransportError> {
        self.hub.close().await
    }
}

#[async_trait]
impl Subscription for OlderFrames {
    async fn next(&mut self) -> Option<Delivery> {
        let mut delivery = self.0.next().await?;
        if NEW_KINDS.contains(&delivery.frame[3]) {
            // A number that this version does not know either.
            let (mut bytes, end) = (delivery.frame.to_vec(), delivery.frame.len() - 4);
            bytes[3] += 100;
            let checksum = crc32fast::hash(&bytes[..end]);
            bytes[end..].copy_from_slice(&checksum.to_le_bytes());
            delivery.frame = bytes.into();
        }
        Some(delivery)
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_from_before_leases_is_not_asked_and_lives_on_among_the_others() {
    let hub = Hub::new();
    let older = Older { hub: hub.join(node("ap-south")), boasts: false };
    let [us, eu, ap] = three(&hub, Some(Arc::new(older))).await;
    let key = key_of(["ap-south", "eu-central", "us-east"]);
    let began = Instant::now();
    let lease = granted(us.lease(&key).await);
    assert!(began.elapsed() < SECOND / 4, "the next in the order was asked at once");
    let other = eu.lease_later(&key);
    tokio::time::sleep(SECOND).await;
    let token = us.put(std::str::from_utf8(&key).unwrap());
    lease.loaded(crate::Stamp { hlc: token.hlc, origin: token.stream.origin });
    assert!(matches!(other.await.unwrap(), Ok(Leased::Arrived | Leased::Loaded(_))));
    ap.until("it has the value", |ap, _| ap.store.get(&key).is_some()).await;
    ap.until("it was asked nothing", |_, status| status.counters.frames_unknown == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_skips_what_it_is_asked_is_passed_over_after_a_bounded_wait() {
    let hub = Hub::new();
    let older = Older { hub: hub.join(node("ap-south")), boasts: true };
    let [us, eu, ap] = three(&hub, Some(Arc::new(older))).await;
    let key = key_of(["ap-south", "eu-central", "us-east"]);
    let began = Instant::now();
    let lease = granted(us.lease(&key).await);
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    let other = eu.lease_later(&key);
    tokio::time::sleep(SECOND).await;
    assert!(!other.is_finished(), "both passed the same node over, and asked the same next one");
    drop(lease);
    drop(granted(other.await.unwrap()));
    ap.until("it skipped them", |_, status| status.counters.frames_unknown == 2).await;
    // Where nobody else is left, the caller is told.
    hub.cut_both(node("us-east"), node("eu-central"));
    let key = key_of(["ap-south", "eu-central", "us-east"]);
    let answer = us.handle.client().lease(key, SECOND, None, LONG).await;
    assert!(matches!(answer, Err(LeaseError::NoGrantor)), "{answer:?}");
}
