//! `client::Memcached` against real servers: the contract, and what becomes of calls whose server dies, freezes and returns.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use geocache::{
    Expect, TimeToLive, Write,
    client::{Endpoint, EndpointError, Memcached, contract},
};
use tests::{
    memcached_server::MemcachedServer,
    process::{Process, free_ports, geocached},
    wait_until,
};
use tokio::time::timeout;

const BOUND: Duration = Duration::from_secs(20);
/// What a caller gives a call that will have no answer.
const SHORT: Duration = Duration::from_millis(200);

fn endpoint(server: &MemcachedServer) -> Memcached {
    Memcached::new(server.addr().to_string()).unwrap()
}

fn value(bytes: &'static str) -> Write {
    Write { bytes: bytes.into(), ttl: TimeToLive::Never, ..Write::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memcached_holds_the_contract() {
    let server = MemcachedServer::start().await.unwrap();
    contract::holds(Arc::new(endpoint(&server))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_is_enough_for_the_contract() {
    let server = MemcachedServer::start().await.unwrap();
    let narrow = Memcached::builder(server.addr().to_string()).connections_max(1).build().unwrap();
    contract::holds(Arc::new(narrow.clone())).await;
    let stats = narrow.stats();
    assert!(stats.waited > 0 && stats.busy == 0 && stats.idle <= 1, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_geocached_of_its_own_process_holds_the_contract() {
    let addr = ([127, 0, 0, 1], free_ports(1)).into();
    let daemon = Process::spawn(&geocached().unwrap(), &["--listen", &format!("{addr}")]).unwrap();
    daemon.wait_for_port(addr, BOUND).await;
    let endpoint = Memcached::new(addr.to_string()).unwrap();
    assert!(endpoint.keys().await.is_ok(), "it lists its keys");
    contract::holds(Arc::new(endpoint)).await;
}

#[tokio::test]
async fn a_call_under_way_when_its_server_dies_fails_and_the_next_reaches_its_successor() {
    let mut server = MemcachedServer::start().await.unwrap();
    let endpoint = endpoint(&server);
    endpoint.write(b"k", value("v"), Expect::Any).await.unwrap();
    let before = endpoint.probe().await.unwrap().life;

    server.freeze().unwrap();
    let calling = tokio::spawn({
        let endpoint = endpoint.clone();
        async move { endpoint.write(b"k", value("w"), Expect::Any).await }
    });
    wait_until("the call is under way", BOUND, async || endpoint.stats().busy == 1).await;
    server.kill_9().await.unwrap();
    let error = timeout(BOUND, calling).await.unwrap().unwrap().unwrap_err();
    assert!(error.is_fault() && error.may_be_done(), "{error:?}");
    let error = endpoint.write(b"k", value("w"), Expect::Any).await.unwrap_err();
    assert!(error.is_fault() && !error.may_be_done(), "nobody was reached: {error:?}");

    server.restart().await.unwrap();
    assert_eq!(endpoint.get(b"k").await.unwrap(), None, "it came back empty");
    let after = endpoint.probe().await.unwrap().life;
    assert_ne!(before.incarnation, after.incarnation);
    assert!(after.began_empty);
}

#[tokio::test]
async fn a_life_stays_the_same_while_the_servers_clock_goes_on() {
    let server = MemcachedServer::start().await.unwrap();
    let endpoint = endpoint(&server);
    let life = endpoint.probe().await.unwrap().life;
    let mut client = server.client().await.unwrap();
    wait_until("the server is three seconds old", BOUND, async || {
        assert_eq!(endpoint.probe().await.unwrap().life.incarnation, life.incarnation);
        let stats = client.lines("stats").await.unwrap();
        let uptime = stats.iter().find_map(|line| line.strip_prefix("STAT uptime ")?.parse::<u32>().ok());
        uptime.unwrap() >= 3
    })
    .await;
}

#[tokio::test]
async fn a_frozen_servers_late_answer_reaches_nobody() {
    let server = MemcachedServer::start().await.unwrap();
    let endpoint = Memcached::builder(server.addr().to_string()).connections_max(2).build().unwrap();
    for (key, bytes) in [(&b"a"[..], "of a"), (b"b", "of b")] {
        endpoint.write(key, value(bytes), Expect::Any).await.unwrap();
    }
    server.freeze().unwrap();
    for _ in 0..2 {
        assert!(timeout(SHORT, endpoint.get(b"a")).await.is_err(), "the caller's bound holds");
    }
    server.thaw().unwrap();
    for _ in 0..20 {
        assert_eq!(endpoint.get(b"b").await.unwrap().unwrap().bytes, Bytes::from("of b"));
        assert_eq!(endpoint.get(b"none").await.unwrap(), None);
    }
    assert!(endpoint.stats().discarded >= 1, "{:?}", endpoint.stats());
}

/// The system still accepts connections for a frozen server, so connecting has to be bounded until it says a word.
#[tokio::test]
async fn connecting_to_a_frozen_server_ends_at_its_bound() {
    let server = MemcachedServer::start().await.unwrap();
    server.freeze().unwrap();
    let endpoint = Memcached::builder(server.addr().to_string()).connect_timeout(SHORT).build().unwrap();
    let error = timeout(BOUND, endpoint.get(b"k")).await.unwrap().unwrap_err();
    assert!(
        matches!(&error, EndpointError::Unreachable { reason, .. } if reason.contains("200ms")),
        "{error:?}"
    );
    server.thaw().unwrap();
    wait_until("it answers", BOUND, async || endpoint.get(b"k").await.is_ok()).await;
}

#[tokio::test]
async fn a_value_too_large_is_rejected_and_a_full_server_refuses() {
    let server = MemcachedServer::start_with(&["-M", "-m", "2"]).await.unwrap();
    let endpoint = endpoint(&server);
    let large = Write { bytes: vec![b'x'; 2_000_000].into(), ..Write::default() };
    let error = endpoint.write(b"large", large, Expect::Any).await.unwrap_err();
    assert!(matches!(error, EndpointError::Rejected { .. }), "{error:?}");
    let mut refused = None;
    for number in 0..2_000_u32 {
        let write = Write { bytes: vec![b'x'; 30_000].into(), ..Write::default() };
        if let Err(error) = endpoint.write(&number.to_be_bytes(), write, Expect::Any).await {
            refused = Some(error);
            break;
        }
    }
    assert!(
        matches!(&refused, Some(EndpointError::Refused { reason, .. }) if reason.contains("memory")),
        "{refused:?}"
    );
}
