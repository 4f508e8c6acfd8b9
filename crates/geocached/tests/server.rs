//! A server in this process, spoken to over loopback.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use geocache::{
    GeoCache, GeoCluster, NodeId,
    memory::{Faults, Hub},
};
use geocached::memcached::{self, Counter, LINE_BYTES_MAX, Options, Server, Shared};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// No wait in these tests is longer than this.
const BOUND: Duration = Duration::from_secs(30);

struct Running {
    address: SocketAddr,
    shared: std::sync::Arc<Shared>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

async fn start(options: Options) -> Running {
    let builder = GeoCache::builder().capacity_bytes(256 << 20).value_bytes_max(options.value_bytes_max);
    start_on(builder.build().await.unwrap(), options).await
}

async fn start_on(cache: GeoCache, options: Options) -> Running {
    let listener = memcached::listen((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::new(listener, cache, options);
    let shared = std::sync::Arc::clone(server.shared());
    let (stop, stopping) = watch::channel(false);
    Running { address, shared, stop, serving: tokio::spawn(server.run(stopping)) }
}

impl Running {
    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }
}

struct Client(TcpStream);

impl Client {
    async fn send(&mut self, request: impl AsRef<[u8]>) {
        timeout(BOUND, self.0.write_all(request.as_ref())).await.expect("in time").unwrap();
    }

    /// Reads exactly this.
    #[track_caller]
    fn expect(&mut self, answer: impl AsRef<[u8]>) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let answer = answer.as_ref();
            let mut got = vec![0; answer.len()];
            timeout(BOUND, self.0.read_exact(&mut got))
                .await
                .unwrap_or_else(|_| panic!("{caller}: in time"))
                .unwrap();
            let (got, answer) = (String::from_utf8_lossy(&got), String::from_utf8_lossy(answer));
            assert!(got == answer, "{caller}: got {got:.200}, not {answer:.200}");
        }
    }

    async fn ask(&mut self, request: &str, answer: &str) {
        self.send(request).await;
        self.expect(answer).await;
    }

    /// Reads until the server closes.
    async fn rest(mut self) -> String {
        let mut rest = Vec::new();
        timeout(BOUND, self.0.read_to_end(&mut rest)).await.expect("closed in time").unwrap();
        String::from_utf8(rest).unwrap()
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let poll = async {
        while !holds().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(BOUND, poll).await.unwrap_or_else(|_| panic!("{what} within {BOUND:?}"));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = start(Options::default()).await;
    let mut client = server.connect().await;
    let mut requests = String::new();
    let mut answers = String::new();
    for number in 0..1000 {
        requests.push_str(&format!("set k{number} 0 0 4\r\n{number:04}\r\nget k{number}\r\n"));
        answers.push_str(&format!("STORED\r\nVALUE k{number} 0 4\r\n{number:04}\r\nEND\r\n"));
    }
    client.send(&requests).await;
    client.expect(&answers).await;
    assert!(server.shared.counters().value(Counter::ConnYields) > 0, "others had their turns");
}

#[tokio::test]
async fn a_request_may_arrive_byte_by_byte() {
    let server = start(Options::default()).await;
    let mut client = server.connect().await;
    client.0.set_nodelay(true).unwrap();
    for byte in b"set k 0 0 5\r\nhello\r\nget k\r\n" {
        client.send([*byte]).await;
    }
    client.expect("STORED\r\nVALUE k 0 5\r\nhello\r\nEND\r\n").await;
}

#[tokio::test]
async fn the_largest_value_comes_back_whole() {
    let server = start(Options::default()).await;
    let mut client = server.connect().await;
    let value = "x".repeat(1 << 20);
    client.send(format!("set k 0 0 {}\r\n{value}\r\n", value.len())).await;
    client.expect("STORED\r\n").await;
    client.send("get k k k\r\n").await;
    for _ in 0..3 {
        client.expect(format!("VALUE k 0 {}\r\n{value}\r\n", value.len())).await;
    }
    client.expect("END\r\n").await;
    client.send(format!("set k 0 0 {}\r\n{value}y\r\nget k\r\n", value.len() + 1)).await;
    client.expect("SERVER_ERROR object too large for cache\r\n").await;
    client.expect(format!("VALUE k 0 {}\r\n{value}\r\nEND\r\n", value.len())).await;
}

#[tokio::test]
async fn a_line_without_end_is_answered_and_the_connection_closed() {
    let server = start(Options::default()).await;
    let mut client = server.connect().await;
    client.send([b'x'; 4 * LINE_BYTES_MAX]).await;
    assert_eq!(client.rest().await, "CLIENT_ERROR line too long\r\n");
}

#[tokio::test]
async fn http_is_hung_up_on() {
    let server = start(Options::default()).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\n").await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn the_binary_protocol_is_hung_up_on_and_counted() {
    let server = start(Options::default()).await;
    let mut client = server.connect().await;
    // A binary `noop`, shorter than any line would have to be.
    let mut noop = [0; 24];
    (noop[0], noop[1]) = (0x80, 0x0a);
    client.send(noop).await;
    let mut rest = Vec::new();
    // The close may come as a reset, if it outran bytes of ours.
    let _ = timeout(BOUND, client.0.read_to_end(&mut rest)).await.expect("closed in time");
    assert_eq!(rest, b"");
    until("it is counted", async || server.shared.counters().value(Counter::BinaryKicks) == 1).await;
}

/// A request of a value of 1 MiB without its last bytes.
fn half_a_set(key: &str) -> String {
    format!("set {key} 0 0 {}\r\n{}", 1 << 20, "x".repeat((1 << 20) - 10))
}

impl Client {
    async fn read_buffers(&mut self) -> u64 {
        self.send("stats\r\n").await;
        let mut stats = Vec::new();
        while !stats.ends_with(b"END\r\n") {
            timeout(BOUND, self.0.read_buf(&mut stats)).await.expect("in time").unwrap();
        }
        let stats = String::from_utf8(stats).unwrap();
        let line = stats.lines().find_map(|line| line.strip_prefix("STAT read_buf_bytes "));
        line.unwrap().parse().unwrap()
    }
}

/// 600 clients that sent most of a value took 600 MiB, for ever.
#[tokio::test]
async fn values_that_are_half_read_share_a_budget() {
    let mut options = Options::default();
    options.request_bytes_max = 3 << 20;
    let server = start(options).await;
    let mut watcher = server.connect().await;
    watcher.ask("set k19 0 0 1\r\na\r\n", "STORED\r\n").await;
    let mut clients = Vec::new();
    for number in 0..20 {
        let mut client = server.connect().await;
        client.send(half_a_set(&format!("k{number}"))).await;
        clients.push(client);
    }
    let refused = || server.shared.counters().value(Counter::StoreNoMemory);
    until("those over the budget are refused", async || refused() >= 17).await;
    assert!(watcher.read_buffers().await <= 3 << 20);
    // Each hears of its own value, and its connection goes on.
    let mut stored = 0;
    for client in &mut clients {
        client.send("0123456789\r\n").await;
        let mut answer = [0; 8];
        timeout(BOUND, client.0.read_exact(&mut answer)).await.unwrap().unwrap();
        if &answer == b"STORED\r\n" {
            stored += 1;
        } else {
            client.expect(&"SERVER_ERROR out of memory storing object\r\n"[8..]).await;
        }
        client.ask("get nope\r\n", "END\r\n").await;
    }
    assert!(stored >= 2 && stored as u64 + refused() == 20, "{stored} stored, {} refused", refused());
    // What is done gives its memory back.
    until("all is given back", async || watcher.read_buffers().await == 0).await;
    clients[0].ask(&(half_a_set("k") + "0123456789\r\n"), "STORED\r\n").await;
}

#[tokio::test]
async fn a_line_over_the_budget_ends_its_connection() {
    let mut options = Options::default();
    options.request_bytes_max = 100 * 1024;
    let server = start(options).await;
    let mut client = server.connect().await;
    let keys = "k ".repeat(250 * 1024);
    client.send(format!("get {keys}")).await;
    assert_eq!(client.rest().await, "SERVER_ERROR out of memory reading request\r\n");
    until("it is counted", async || server.shared.counters().value(Counter::ReadBufOom) == 1).await;
    assert_eq!(server.connect().await.read_buffers().await, 0, "given back before the last bytes are");
}

#[tokio::test]
async fn half_a_value_is_not_held_for_ever() {
    let mut options = Options::default();
    options.stall_timeout = Duration::from_millis(50);
    let server = start(options).await;
    let mut quiet = server.connect().await;
    let mut client = server.connect().await;
    client.send(half_a_set("k")).await;
    assert_eq!(client.rest().await, "");
    until("it is counted", async || server.shared.counters().value(Counter::IdleKicks) == 1).await;
    assert_eq!(quiet.read_buffers().await, 0, "and who holds nothing may be silent");
}

#[tokio::test]
async fn very_many_keys_in_one_request_let_others_have_their_turns() {
    let server = start(Options::default()).await;
    let mut client = server.connect().await;
    let keys = "b ".repeat(100_000);
    client.ask("set b 0 0 0\r\n\r\n", "STORED\r\n").await;
    client.send(format!("get {keys}\r\n")).await;
    client.expect("VALUE b 0 0\r\n\r\n".repeat(100_000) + "END\r\n").await;
    // The tally is handed over after the batch.
    until("they are counted", async || server.shared.counters().value(Counter::ConnYields) >= 100_000 / 256)
        .await;
}

#[tokio::test]
async fn quit_ends_the_connection_after_the_answers() {
    let server = start(Options::default()).await;
    let mut client = server.connect().await;
    client.send("version\r\nquit\r\nversion\r\n").await;
    assert_eq!(client.rest().await, format!("VERSION {}\r\n", memcached::VERSION));
    until("the connection is counted as closed", async || server.shared.connections() == 0).await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let mut options = Options::default();
    options.connections_max = 2;
    let server = start(options).await;
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    first.ask("get a\r\n", "END\r\n").await;
    second.ask("get a\r\n", "END\r\n").await;
    assert_eq!(server.connect().await.rest().await, "ERROR Too many open connections\r\n");
    first.ask("get a\r\n", "END\r\n").await;
    drop(first);
    until("a place is free again", async || server.shared.connections() < 2).await;
    server.connect().await.ask("get a\r\n", "END\r\n").await;
    assert_eq!(server.shared.counters().value(Counter::RejectedConnections), 1);
}

#[tokio::test]
async fn a_silent_client_is_closed_after_the_idle_timeout() {
    let mut options = Options::default();
    options.idle_timeout = Some(Duration::from_millis(50));
    let server = start(options).await;
    let mut client = server.connect().await;
    client.send("set k 0 0 5\r\nhe").await;
    assert_eq!(client.rest().await, "");
    until("it is counted", async || server.shared.counters().value(Counter::IdleKicks) == 1).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_harms_nobody() {
    let mut options = Options::default();
    options.write_timeout = Duration::from_millis(100);
    let server = start(options).await;
    let mut good = server.connect().await;
    let value = "x".repeat(1 << 20);
    good.send(format!("set k 0 0 {}\r\n{value}\r\n", value.len())).await;
    good.expect("STORED\r\n").await;
    let mut bad = server.connect().await;
    bad.send("get k k k k k k k k k k k k k k k k k k k k k k k k k k k k k k k k k\r\n".repeat(20)).await;
    until("it is closed", async || server.shared.counters().value(Counter::WriteKicks) == 1).await;
    until("its place is free", async || server.shared.connections() == 1).await;
    good.ask("get nope\r\n", "END\r\n").await;
}

#[tokio::test]
async fn a_delayed_flush_comes_in_its_time() {
    let server = start(Options::default()).await;
    let mut client = server.connect().await;
    client
        .ask("set k 0 0 1\r\na\r\nflush_all 1\r\nget k\r\n", "STORED\r\nOK\r\nVALUE k 0 1\r\na\r\nEND\r\n")
        .await;
    let cache = server.shared.cache().clone();
    until("the flush came", async || cache.peek_item(b"k").is_none()).await;
    client.ask("set k 0 0 1\r\nb\r\nget k\r\n", "STORED\r\nVALUE k 0 1\r\nb\r\nEND\r\n").await;
}

#[tokio::test]
async fn the_end_closes_connections_and_returns() {
    let server = start(Options::default()).await;
    let mut client = server.connect().await;
    client.ask("set k 0 0 1\r\na\r\n", "STORED\r\n").await;
    server.stop.send_replace(true);
    timeout(BOUND, server.serving).await.expect("in time").unwrap();
    assert_eq!(client.rest().await, "");
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let server = start(Options::default()).await;
    let error = memcached::listen(server.address).await.unwrap_err().to_string();
    assert!(error.contains(&server.address.to_string()) && error.contains("in use"), "{error}");
}

#[tokio::test]
async fn a_write_in_one_region_is_read_in_another() {
    let cluster = GeoCluster::new(["us-east", "eu-central"]).await.unwrap();
    let east = start_on(cluster.region("us-east").unwrap(), Options::default()).await;
    let europe = start_on(cluster.region("eu-central").unwrap(), Options::default()).await;
    let (mut east, mut europe) = (east.connect().await, europe.connect().await);
    east.ask("set greeting 7 60 5\r\nhello\r\nset n 0 0 1\r\n1\r\nincr n 4\r\n", "STORED\r\nSTORED\r\n5\r\n")
        .await;
    cluster.settled(BOUND).await.unwrap();
    europe.ask("get greeting n\r\n", "VALUE greeting 7 5\r\nhello\r\nVALUE n 0 1\r\n5\r\nEND\r\n").await;
    europe.ask("delete greeting\r\n", "DELETED\r\n").await;
    cluster.settled(BOUND).await.unwrap();
    east.ask("get greeting\r\n", "END\r\n").await;
    europe.ask("flush_all\r\n", "OK\r\n").await;
    cluster.settled(BOUND).await.unwrap();
    east.ask("get n\r\n", "END\r\n").await;
}

#[tokio::test]
async fn cas_fails_on_a_newer_write_of_another_region() {
    let cluster = GeoCluster::new(["us-east", "eu-central"]).await.unwrap();
    let east = start_on(cluster.region("us-east").unwrap(), Options::default()).await;
    let mut client = east.connect().await;
    client.ask("set k 0 0 1\r\na\r\n", "STORED\r\n").await;
    let cas = cluster.region("us-east").unwrap().peek_item(b"k").unwrap().cas;
    cluster.settled(BOUND).await.unwrap();
    let europe = start_on(cluster.region("eu-central").unwrap(), Options::default()).await;
    europe.connect().await.ask("set k 0 0 1\r\nb\r\n", "STORED\r\n").await;
    cluster.settled(BOUND).await.unwrap();
    client
        .ask(&format!("cas k 0 0 1 {cas}\r\nc\r\nget k\r\n"), "EXISTS\r\nVALUE k 0 1\r\nb\r\nEND\r\n")
        .await;
}

fn node(region: &str) -> NodeId {
    NodeId::new(region.parse().unwrap(), "node-1").unwrap()
}

/// What is written before the other region starts: its state takes some seconds over a way of 40 ms.
const KEYS: usize = 6_000;

/// A region that holds `k0`, `k1`, … , and a server on another that has just begun to take them over.
async fn warming(hub: &Hub, fetch_timeout: Option<Duration>) -> (GeoCache, GeoCache, Running) {
    let mut options = Options::default();
    options.fetch_timeout = fetch_timeout;
    let old = GeoCache::builder().transport(hub.join(node("us-east"))).bootstrap(true).build().await.unwrap();
    for n in 0..KEYS {
        let write = geocache::Write { bytes: format!("{n:01000}").into(), ..geocache::Write::default() };
        old.write(format!("k{n}").as_bytes(), write, geocache::Expect::Any).unwrap();
    }
    let way = Duration::from_millis(40);
    hub.set_faults(Faults::none().delay(way..=way));
    let new = GeoCache::builder().transport(hub.join(node("ap-south"))).build().await.unwrap();
    let server = start_on(new.clone(), options).await;
    until("a part of the state is here", async || new.stats().entries > 0).await;
    (old, new, server)
}

/// The first of the keys that the node lacks.
fn lacking(cache: &GeoCache, count: usize) -> Vec<usize> {
    let lacks = |n: &usize| !cache.contains(format!("k{n}")).unwrap();
    let found: Vec<usize> = (0..KEYS).filter(lacks).take(count).collect();
    assert_eq!(found.len(), count, "the state is not here yet");
    found
}

#[tokio::test]
async fn a_warming_node_reads_through_and_answers_in_order() {
    let hub = Hub::new();
    let (_old, new, server) = warming(&hub, Some(Duration::from_secs(10))).await;
    let mut client = server.connect().await;
    let [a, b, c] = lacking(&new, 3)[..] else { unreachable!("three") };
    client
        .send(format!(
            "set own 0 0 1\r\nv\r\nget k{a} own absent k{b}\r\ndelete own\r\nget own\r\ngat 100 k{c}\r\n"
        ))
        .await;
    let value = |n: usize| format!("VALUE k{n} 0 1000\r\n{n:01000}\r\n");
    let found = [value(a), "VALUE own 0 1\r\nv\r\n".to_owned(), value(b)].concat();
    client.expect(format!("STORED\r\n{found}END\r\nDELETED\r\nEND\r\n{}END\r\n", value(c))).await;
    assert!(!new.is_ready(), "all of that was answered while warming");
    let counted = [Counter::FetchHits, Counter::FetchMisses, Counter::FetchFailures, Counter::GetMisses];
    until("counted", async || server.shared.counters().value(Counter::TouchHits) == 1).await;
    // Asked for in vain: `absent`, and `own` once it was deleted.
    assert_eq!(counted.map(|counter| server.shared.counters().value(counter)), [3, 2, 0, 2]);

    timeout(BOUND, new.ready()).await.unwrap().unwrap();
    client.ask("get absent\r\n", "END\r\n").await;
    assert_eq!(server.shared.counters().value(Counter::FetchMisses), 2, "a ready node asks nobody");
}

#[tokio::test]
async fn a_region_that_does_not_answer_costs_a_warming_node_one_wait() {
    let hub = Hub::new();
    let (_old, new, server) = warming(&hub, Some(Duration::from_millis(50))).await;
    hub.isolate(node("us-east"));
    let mut client = server.connect().await;
    let mut requests = String::new();
    let mut answers = String::new();
    for n in lacking(&new, 100) {
        requests.push_str(&format!("get k{n}\r\nset x 0 0 1\r\nv\r\n"));
        answers.push_str("END\r\nSTORED\r\n");
    }
    client.send(requests).await;
    client.expect(answers).await;
    until("counted", async || server.shared.counters().value(Counter::CmdSet) == 100).await;
    let failures = server.shared.counters().value(Counter::FetchFailures);
    // One at first, and one for each second of silence that a slow machine takes for the rest.
    assert!((1..20).contains(&failures), "{failures}");
    assert_eq!(server.shared.counters().value(Counter::GetMisses), 100);
}

#[tokio::test]
async fn a_node_told_to_wait_for_nobody_takes_a_miss_for_a_miss_while_warming() {
    let hub = Hub::new();
    let (_old, new, server) = warming(&hub, None).await;
    let mut client = server.connect().await;
    let key = lacking(&new, 1)[0];
    client.ask(&format!("get k{key}\r\n"), "END\r\n").await;
    assert_eq!(new.stats().replication.fetches_sent, 0);
}
