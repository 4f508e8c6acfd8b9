use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

use super::Proxy;
use crate::wait_until;

const BOUND: Duration = Duration::from_secs(10);

/// Sends back what it receives, and closes when its client does.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    addr
}

async fn link() -> (Proxy, TcpStream) {
    let proxy = Proxy::start(echo().await).await.unwrap();
    let client = TcpStream::connect(proxy.addr()).await.unwrap();
    (proxy, client)
}

async fn round_trip(client: &mut TcpStream, bytes: &[u8]) {
    client.write_all(bytes).await.unwrap();
    let mut back = vec![0; bytes.len()];
    timeout(BOUND, client.read_exact(&mut back)).await.expect("an answer").unwrap();
    assert_eq!(back, bytes);
}

#[tokio::test]
async fn bytes_pass_both_ways_and_are_counted() {
    let (proxy, mut client) = link().await;
    round_trip(&mut client, b"hello").await;
    assert_eq!((proxy.accepted(), proxy.open()), (1, 1));
    assert_eq!(proxy.bytes(), 10);
}

#[tokio::test]
async fn more_than_the_buffers_hold_passes_whole() {
    let (_proxy, client) = link().await;
    let sent: Vec<u8> = (0..4 * 1024 * 1024_u32).map(|i| (i % 251) as u8).collect();
    let (mut read, mut write) = client.into_split();
    let copy = sent.clone();
    let writing = tokio::spawn(async move { write.write_all(&copy).await });
    let mut back = vec![0; sent.len()];
    timeout(BOUND, read.read_exact(&mut back)).await.expect("all of it").unwrap();
    assert!(back == sent, "the bytes came back changed");
    writing.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_close_passes_when_the_link_does() {
    let (proxy, mut client) = link().await;
    round_trip(&mut client, b"x").await;
    client.shutdown().await.unwrap();
    assert_eq!(timeout(BOUND, client.read(&mut [0; 8])).await.expect("a close").unwrap(), 0);
    wait_until("the link carries nothing", BOUND, async || proxy.open() == 0).await;
}

#[tokio::test]
async fn a_delayed_link_answers_after_twice_the_delay() {
    let (proxy, mut client) = link().await;
    round_trip(&mut client, b"x").await;
    proxy.delay(Duration::from_millis(60));
    let start = Instant::now();
    round_trip(&mut client, b"later").await;
    assert!(start.elapsed() >= Duration::from_millis(120), "answered after {:?}", start.elapsed());
}

#[tokio::test]
async fn a_held_link_is_silent_and_loses_nothing_when_healed() {
    let (proxy, mut client) = link().await;
    round_trip(&mut client, b"before").await;
    proxy.hold();
    let passed = proxy.bytes();
    client.write_all(b"during").await.unwrap();
    let mut back = [0; 6];
    assert!(timeout(Duration::from_millis(100), client.read(&mut back)).await.is_err(), "it was not silent");
    assert_eq!(proxy.bytes(), passed);
    proxy.heal();
    timeout(BOUND, client.read_exact(&mut back)).await.expect("the held bytes").unwrap();
    assert_eq!(&back, b"during");
}

#[tokio::test]
async fn a_held_link_accepts_and_serves_after_it_healed() {
    let proxy = Proxy::start(echo().await).await.unwrap();
    proxy.hold();
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    wait_until("the held link accepted", BOUND, async || proxy.accepted() == 1).await;
    assert_eq!(proxy.open(), 0, "the other side must not hear of it");
    proxy.heal();
    round_trip(&mut client, b"hello").await;
}

#[tokio::test]
async fn a_cut_resets_and_new_connections_are_reset_until_healed() {
    let (proxy, mut client) = link().await;
    round_trip(&mut client, b"x").await;
    proxy.cut();
    let broken = timeout(BOUND, client.read(&mut [0; 8])).await.expect("a reset").unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
    let mut again = TcpStream::connect(proxy.addr()).await.unwrap();
    timeout(BOUND, again.read(&mut [0; 8])).await.expect("a reset").unwrap_err();
    proxy.heal();
    let mut healed = TcpStream::connect(proxy.addr()).await.unwrap();
    round_trip(&mut healed, b"hello").await;
}

#[tokio::test]
async fn a_dropped_proxy_resets_and_frees_its_port() {
    let (proxy, mut client) = link().await;
    round_trip(&mut client, b"x").await;
    let addr = proxy.addr();
    drop(proxy);
    timeout(BOUND, client.read(&mut [0; 8])).await.expect("a reset").unwrap_err();
    wait_until("its port refuses", BOUND, async || TcpStream::connect(addr).await.is_err()).await;
}

#[tokio::test]
async fn an_upstream_that_refuses_shows_as_a_reset() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let proxy = Proxy::start(nobody).await.unwrap();
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    timeout(BOUND, client.read(&mut [0; 8])).await.expect("a reset").unwrap_err();
}

#[tokio::test]
async fn a_url_keeps_everything_but_its_host_and_port() {
    let proxy = Proxy::start(echo().await).await.unwrap();
    let addr = proxy.addr();
    assert_eq!(
        proxy.url("amqp://u:p%40@host:5672/%2f?heartbeat=5"),
        format!("amqp://u:p%40@{addr}/%2f?heartbeat=5")
    );
    assert_eq!(proxy.url("amqp://host"), format!("amqp://{addr}"));
}
