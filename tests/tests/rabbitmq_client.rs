//! A client that routes over two daemons by the memcached protocol; the daemons replicate to each other over RabbitMQ.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

mod routed;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use geocache::client::{Endpoint, GeoClient, Hedge, Memcached};
use routed::Regions;
use tests::{
    broker::shared_url,
    process::{Process, free_ports, geocached},
    unique_name, wait_until,
};
use tokio::sync::Mutex;

const BOUND: Duration = Duration::from_secs(90);
const NEAR: &str = "eu-central";
const FAR: &str = "us-east";

/// A daemon of a process of its own, which may come back at the same port.
struct Daemon {
    region: &'static str,
    addr: SocketAddr,
    cache: String,
    process: Mutex<Process>,
}

impl Daemon {
    async fn start(region: &'static str, cache: &str) -> Self {
        let addr: SocketAddr = ([127, 0, 0, 1], free_ports(1)).into();
        let process = Mutex::new(spawn(region, addr, cache));
        let daemon = Self { region, addr, cache: cache.to_owned(), process };
        daemon.serves().await;
        daemon
    }

    async fn serves(&self) {
        self.process.lock().await.wait_for_port(self.addr, BOUND).await;
    }

    fn endpoint(&self) -> Arc<dyn Endpoint> {
        Arc::new(Memcached::new(self.addr.to_string()).unwrap())
    }
}

fn spawn(region: &str, addr: SocketAddr, cache: &str) -> Process {
    let (url, listen) = (shared_url().unwrap(), addr.to_string());
    let node = ["--region", region, "--amqp", &url, "--cache", cache, "--listen", &listen];
    Process::spawn(&geocached().unwrap(), &node).unwrap()
}

/// Two daemons that replicate over the broker. The closest one is killed, and started anew with nothing.
struct Killed {
    near: Daemon,
    far: Daemon,
}

/// As [`Killed`], but the closest one is stopped in its tracks: the system still takes connections for it, and nobody answers.
struct Frozen(Killed);

impl Killed {
    async fn new() -> Self {
        let cache = unique_name("routed");
        Self { near: Daemon::start(NEAR, &cache).await, far: Daemon::start(FAR, &cache).await }
    }
}

impl Regions for Killed {
    fn near(&self) -> (&'static str, Arc<dyn Endpoint>) {
        (NEAR, self.near.endpoint())
    }

    fn far(&self) -> (&'static str, Arc<dyn Endpoint>) {
        (FAR, self.far.endpoint())
    }

    async fn take_away(&self) {
        let process = self.near.process.lock().await;
        process.kill_9().unwrap();
        process.exit_code(BOUND).await;
    }

    async fn give_back(&self) {
        let Daemon { region, addr, cache, process } = &self.near;
        *process.lock().await = spawn(region, *addr, cache);
        self.near.serves().await;
    }
}

impl Regions for Frozen {
    fn near(&self) -> (&'static str, Arc<dyn Endpoint>) {
        self.0.near()
    }

    fn far(&self) -> (&'static str, Arc<dyn Endpoint>) {
        self.0.far()
    }

    async fn take_away(&self) {
        self.0.near.process.lock().await.freeze().unwrap();
    }

    async fn give_back(&self) {
        self.0.near.process.lock().await.thaw().unwrap();
    }

    /// What was sent to it waits in its socket.
    fn does_later(&self) -> bool {
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_daemon_is_the_next_regions_work_until_it_is_back() {
    routed::an_outage_of_the_closest_region_is_survived(&Killed::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_daemon_is_the_next_regions_work_until_it_goes_on() {
    routed::an_outage_of_the_closest_region_is_survived(&Frozen(Killed::new().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_judges_updates_of_what_it_gave() {
    routed::updates_are_judged_where_the_value_was_read(&Killed::new().await).await;
}

/// While the closest region takes calls and answers none, a read is answered by the other before the first one's time is over, and what
/// the first has to say later reaches no other read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_a_frozen_daemon_holds_up_are_answered_by_the_other() {
    const KEYS: usize = 10;
    let regions = Frozen(Killed::new().await);
    let slow = Duration::from_secs(30);
    let client = routed::builder(&regions).hedge(Hedge::after(Duration::from_millis(300)));
    // Neither its probes nor its calls put the region that hangs out: a hedge alone can be what answers.
    let client = client.call_limit(2 * slow).attempt_limit(slow).probe_limit(slow).build().unwrap();
    let (far, there) = regions.far();
    for n in 0..KEYS {
        client.put(format!("k{n}"), &n.to_string()).await.unwrap();
    }
    let reader = GeoClient::builder().endpoint(far, there).build().unwrap();
    wait_until("the other region has it all", BOUND, async || {
        let keys = (0..KEYS).map(|n| format!("k{n}"));
        reader.get_many::<String, _>(keys).await.is_ok_and(|all| all.iter().all(Option::is_some))
    })
    .await;
    // A tenth of the reads may be hedged.
    for turn in 0..10 * KEYS {
        let n = turn % KEYS;
        assert_eq!(client.get::<String>(format!("k{n}")).await.unwrap(), Some(n.to_string()));
    }

    let stats = || client.routes().unwrap().status().stats;
    let before = stats();
    regions.take_away().await;
    for n in 0..KEYS / 2 {
        assert_eq!(routed::served(&client, &format!("k{n}")).await, Some((far.to_owned(), n.to_string())));
    }
    let after = stats();
    assert!(after.hedges - before.hedges >= (KEYS / 2) as u64, "{before:?} {after:?}");
    assert!(after.hedge_wins - before.hedge_wins >= (KEYS / 2) as u64, "{before:?} {after:?}");

    regions.give_back().await;
    wait_until("the closest region answers again, each read with its own value", BOUND, async || {
        let mut by = Vec::new();
        for n in 0..KEYS {
            let (region, value) = routed::served(&client, &format!("k{n}")).await.unwrap();
            assert_eq!(value, n.to_string());
            by.push(region);
        }
        by.iter().all(|region| region != far)
    })
    .await;
}

/// A region that stands still may do later what it was asked, when nobody waits for it any more: then that is what was written last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_frozen_daemon_was_asked_is_done_when_it_goes_on_and_is_the_newest() {
    let regions = Frozen(Killed::new().await);
    let client = routed::builder(&regions).build().unwrap();
    let put = client.put("k", "before").await.unwrap();
    assert_eq!(put.region.as_str(), NEAR);
    regions.take_away().await;
    // Asked of both, since the first does not answer.
    let put = client.put("k", "asked of both").await.unwrap();
    assert_eq!((put.region.as_str(), put.asked), (FAR, 2));
    let there = GeoClient::builder().endpoint(FAR, regions.far().1).build().unwrap();
    there.put("k", "later").await.unwrap();
    assert_eq!(there.get::<String>("k").await.unwrap().as_deref(), Some("later"));
    regions.give_back().await;
    wait_until("the late one wins everywhere", BOUND, async || {
        let (here, there) = (routed::served(&client, "k").await, there.get::<String>("k").await);
        here == Some((NEAR.to_owned(), "asked of both".to_owned()))
            && there.unwrap().as_deref() == Some("asked of both")
    })
    .await;
}
