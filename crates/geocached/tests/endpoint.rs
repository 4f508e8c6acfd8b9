//! Servers in this process as endpoints of clients: the contract, typed values from region to region, and what a server says of itself.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use geocache::{
    Codec, Expect, GeoCache, GeoCluster, NodeId, TimeToLive, Write,
    client::{Doubt, Endpoint, EndpointError, Memcached, contract},
    memory::{Faults, Hub},
};
use geocached::memcached::{self, Options, Server};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};

const BOUND: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    visits: u64,
}

fn ada() -> User {
    User { name: "Ada".into(), visits: 42 }
}

/// A server in front of a cache; it ends with this.
struct Running {
    address: SocketAddr,
    _stop: watch::Sender<bool>,
}

impl Running {
    async fn start(cache: GeoCache) -> Self {
        let listener = memcached::listen((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(Server::new(listener, cache, Options::default()).run(stopping));
        Self { address, _stop: stop }
    }

    fn endpoint(&self) -> Memcached {
        Memcached::new(self.address.to_string()).unwrap()
    }

    /// What a client of another language is answered to one request.
    async fn plain(&self, request: &str, lines: usize) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while answer.iter().filter(|&&byte| byte == b'\n').count() < lines {
            let byte = timeout(BOUND, stream.read_u8()).await.unwrap().unwrap();
            answer.push(byte);
        }
        String::from_utf8(answer).unwrap()
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

async fn two_regions() -> (GeoCluster, GeoCache, Running) {
    let cluster = GeoCluster::new(["us-east", "eu-central"]).await.unwrap();
    let here = cluster.region("us-east").unwrap();
    let there = Running::start(cluster.region("eu-central").unwrap()).await;
    (cluster, here, there)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_alone_holds_the_contract() {
    let server = Running::start(GeoCache::builder().build().await.unwrap()).await;
    contract::holds(Arc::new(server.endpoint())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_regions_server_holds_the_contract_while_it_replicates() {
    let (cluster, here, there) = two_regions().await;
    contract::holds(Arc::new(there.endpoint())).await;
    cluster.settled(BOUND).await.unwrap();
    assert_eq!(here.peek_item(b"cleared").unwrap().bytes, "b", "the last that the contract wrote");
}

#[tokio::test]
async fn what_a_program_put_in_one_region_is_read_typed_from_anothers_server() {
    let (cluster, here, there) = two_regions().await;
    let endpoint = there.endpoint();
    here.put("ada", &ada()).unwrap();
    here.write(b"ada:json", Write::encoded(&ada(), Codec::Json).unwrap(), Expect::Any).unwrap();
    here.write(b"text", Write::encoded("plain", Codec::Raw).unwrap(), Expect::Any).unwrap();
    cluster.settled(BOUND).await.unwrap();
    for (key, codec) in [(&b"ada"[..], Codec::MessagePack), (b"ada:json", Codec::Json)] {
        let item = endpoint.get(key).await.unwrap().unwrap();
        assert_eq!((item.codec, item.flags), (codec, 0));
        assert_eq!(item.decode::<User>().unwrap(), ada());
    }
    assert_eq!(endpoint.get(b"text").await.unwrap().unwrap().decode::<String>().unwrap(), "plain");
}

#[tokio::test]
async fn what_was_written_through_a_server_is_read_typed_in_another_region() {
    let (cluster, here, there) = two_regions().await;
    let endpoint = there.endpoint();
    for (key, codec) in [(&b"ada"[..], Codec::MessagePack), (b"ada:json", Codec::Json)] {
        let write = Write::encoded(&ada(), codec).unwrap();
        endpoint.write(key, write, Expect::Any).await.unwrap();
    }
    cluster.settled(BOUND).await.unwrap();
    for key in ["ada", "ada:json"] {
        assert_eq!(*here.get::<User>(key).unwrap().unwrap(), ada());
    }
    // An update there goes on from what came, in the node's own codec.
    here.update("ada:json", |user| user.map(|user: Arc<User>| User { visits: 43, ..(*user).clone() }))
        .unwrap();
    cluster.settled(BOUND).await.unwrap();
    let item = endpoint.get(b"ada:json").await.unwrap().unwrap();
    assert_eq!((item.codec, item.decode::<User>().unwrap().visits), (Codec::MessagePack, 43));
}

#[tokio::test]
async fn flags_of_other_languages_clients_come_back_in_every_region_as_they_were_set() {
    let (cluster, here, there) = two_regions().await;
    let other = Running::start(here.clone()).await;
    let mark = Codec::Json.to_flags();
    for flags in [7, 0x4743_4300, u32::MAX, mark] {
        let stored = there.plain(&format!("set k {flags} 0 2\r\n41\r\n"), 1).await;
        assert_eq!(stored, "STORED\r\n");
        cluster.settled(BOUND).await.unwrap();
        let read = other.plain("get k\r\n", 3).await;
        assert_eq!(read, format!("VALUE k {flags} 2\r\n41\r\nEND\r\n"));
    }
    assert_eq!(*here.get::<u64>("k").unwrap().unwrap(), 41, "the last of them is a codec's mark");
}

#[tokio::test]
async fn a_server_says_what_speaks_against_it() {
    let (cluster, here, there) = two_regions().await;
    let endpoint = there.endpoint();
    let well = endpoint.probe().await.unwrap();
    let node = cluster.region("eu-central").unwrap();
    assert_eq!(well.life.incarnation, node.pulse().unwrap().life.incarnation, "as the node itself says");
    assert_ne!(well.life.incarnation, here.pulse().unwrap().life.incarnation);
    assert_eq!(well.doubt, None);

    cluster.partition("us-east", "eu-central").unwrap();
    until("it is cut off", async || endpoint.probe().await.unwrap().doubt == Some(Doubt::CutOff)).await;
    cluster.heal();
    until("it is well again", async || endpoint.probe().await.unwrap().doubt.is_none()).await;
    assert_eq!(endpoint.probe().await.unwrap().life.incarnation, well.life.incarnation);

    node.close(BOUND).await;
    let closed = endpoint.probe().await;
    assert!(matches!(closed, Err(EndpointError::Refused { .. })), "{closed:?}");
    let refused = endpoint.write(b"k", Write::default(), Expect::Any).await;
    assert!(matches!(refused, Err(EndpointError::Refused { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_warming_server_says_so_and_reads_through_meanwhile() {
    let node = |region: &str| NodeId::new(region.parse().unwrap(), "n1").unwrap();
    let hub = Hub::new();
    let old = GeoCache::builder().transport(hub.join(node("us-east"))).bootstrap(true).build().await.unwrap();
    for number in 0..3_000 {
        old.put(format!("k{number}"), &format!("{number:01000}")).unwrap();
    }
    let way = Duration::from_millis(40);
    hub.set_faults(Faults::none().delay(way..=way));
    let new = GeoCache::builder().transport(hub.join(node("ap-south"))).build().await.unwrap();
    let endpoint = Running::start(new.clone()).await;
    let endpoint = endpoint.endpoint();
    assert_eq!(endpoint.probe().await.unwrap().doubt, Some(Doubt::Warming));
    let lacking = (0..3_000).find(|number| !new.contains(format!("k{number}")).unwrap()).unwrap();
    let read = async || endpoint.get(format!("k{lacking}").as_bytes()).await.unwrap();
    until("it was read through", async || read().await.is_some()).await;
    assert!(!new.is_ready(), "all of that was answered while warming");
}

/// Whole seconds are read, so a life that is read and written back would change each time.
#[tokio::test]
async fn a_kept_life_does_not_wander_however_often_it_is_kept() {
    let cache = GeoCache::builder().build().await.unwrap();
    let server = Running::start(cache.clone()).await;
    let endpoint = server.endpoint();
    let write = |ttl| Write { bytes: "v".into(), ttl, ..Write::default() };
    let minute = Duration::from_secs(60);
    endpoint.write(b"k", write(minute.into()), Expect::Any).await.unwrap();
    for _ in 0..100 {
        endpoint.write(b"k", write(TimeToLive::Keep), Expect::Any).await.unwrap();
    }
    let left = cache.item(b"k").unwrap().left.unwrap();
    assert!(left <= minute && left > minute - BOUND, "{left:?}");
}
