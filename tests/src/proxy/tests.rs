use std::{io::ErrorKind, net::SocketAddr, num::NonZeroU64, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

use super::{CHUNK_BYTES, CHUNKS_QUEUED_MAX, Death, Direction, DyingHandshake, End, Fault, Proxy};
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

/// A link whose upstream the test plays itself: the link, the client's end and the upstream's.
async fn both_ends() -> (Proxy, TcpListener, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
    let (client, upstream) = dial(&proxy, &listener).await;
    (proxy, listener, client, upstream)
}

async fn dial(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(proxy.addr()).await.unwrap();
    let (upstream, _) = timeout(BOUND, listener.accept()).await.expect("the link dials").unwrap();
    (client, upstream)
}

async fn tells(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    from.write_all(bytes).await.unwrap();
    let mut there = vec![0; bytes.len()];
    timeout(BOUND, to.read_exact(&mut there)).await.expect("the bytes").unwrap();
    assert_eq!(there, bytes);
}

async fn is_reset(end: &mut TcpStream) {
    let error = timeout(BOUND, end.read(&mut [0; 8])).await.expect("a reset").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// It is open, and nothing came: whatever will come was not sent yet.
fn is_silent(end: &TcpStream) {
    let nothing = end.try_read(&mut [0; 8]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_direction_held_keeps_its_bytes_while_the_other_passes() {
    for held in Direction::BOTH {
        let (proxy, _listener, client, upstream) = both_ends().await;
        let (mut from, mut to) = match held {
            Direction::ToUpstream => (client, upstream),
            Direction::ToClient => (upstream, client),
        };
        proxy.fault(Fault::HoldOneWay(held));
        from.write_all(b"held").await.unwrap();
        wait_until("the link has read them", BOUND, async || proxy.waiting(held) == 4).await;
        tells(&mut to, &mut from, b"passes").await;
        assert_eq!((proxy.passed(held), proxy.passed(held.reverse())), (0, 6));
        is_silent(&to);
        proxy.heal();
        tells(&mut from, &mut to, b"").await;
        let mut there = [0; 4];
        timeout(BOUND, to.read_exact(&mut there)).await.expect("the held bytes").unwrap();
        assert_eq!(&there, b"held");
        wait_until("nothing waits", BOUND, async || proxy.waiting(held) == 0).await;
    }
}

#[tokio::test]
async fn a_held_link_buffers_no_more_than_its_bound() {
    let (proxy, listener, mut client, _upstream) = both_ends().await;
    proxy.only(1..=1);
    proxy.hold();
    let writing = tokio::spawn(async move { client.write_all(&vec![7; 64 << 20]).await });
    let waiting = || usize::try_from(proxy.waiting(Direction::ToUpstream)).unwrap();
    let bound = (CHUNKS_QUEUED_MAX + 2) * CHUNK_BYTES;
    wait_until("it is nearly full", BOUND, async || waiting() > bound / 2).await;
    // While a connection that is spared passes eight times the bound, the held one has every chance to take more.
    let (mut spared, mut upstream) = dial(&proxy, &listener).await;
    for _ in 0..8 * bound / CHUNK_BYTES {
        tells(&mut spared, &mut upstream, &[7; CHUNK_BYTES]).await;
    }
    assert!(waiting() <= bound, "{} bytes wait", waiting());
    assert!(!writing.is_finished());
    writing.abort();
}

#[tokio::test]
async fn a_reset_is_not_told_through_a_held_link() {
    let (proxy, listener, client, upstream) = both_ends().await;
    proxy.hold();
    client.set_zero_linger().unwrap();
    drop(client);
    proxy.only(1..=1);
    let (mut other, mut other_upstream) = dial(&proxy, &listener).await;
    // A connection that is spared passes in both directions after the reset was there to be told.
    tells(&mut other, &mut other_upstream, b"ping").await;
    tells(&mut other_upstream, &mut other, b"pong").await;
    is_silent(&upstream);
    proxy.heal();
    let mut upstream = upstream;
    is_reset(&mut upstream).await;
}

#[tokio::test]
async fn a_connection_that_lost_bytes_is_reset_when_the_link_heals() {
    let (proxy, _listener, mut client, mut upstream) = both_ends().await;
    proxy.fault(Fault::SwallowOneWay(Direction::ToUpstream));
    client.write_all(&[7; 100_000]).await.unwrap();
    wait_until("they are lost", BOUND, async || proxy.swallowed(Direction::ToUpstream) == 100_000).await;
    tells(&mut upstream, &mut client, b"passes").await;
    is_silent(&upstream);
    proxy.heal();
    is_reset(&mut client).await;
    is_reset(&mut upstream).await;
}

#[tokio::test]
async fn a_connection_that_lost_nothing_goes_on_after_a_link_that_swallows() {
    let (proxy, _listener, mut client, mut upstream) = both_ends().await;
    proxy.fault(Fault::SwallowOneWay(Direction::ToUpstream));
    tells(&mut upstream, &mut client, b"passes").await;
    proxy.heal();
    tells(&mut client, &mut upstream, b"passes").await;
}

#[tokio::test]
async fn a_half_open_link_passes_bytes_and_tells_no_end() {
    let (proxy, _listener, mut client, mut upstream) = both_ends().await;
    proxy.fault(Fault::HalfOpen);
    tells(&mut client, &mut upstream, b"there").await;
    tells(&mut upstream, &mut client, b"back").await;
    upstream.set_zero_linger().unwrap();
    drop(upstream);
    // The link learns of the reset when it writes; what the client sends then waits, and nobody answers it.
    client.write_all(b"into the void").await.unwrap();
    wait_until("the link has read it", BOUND, async || proxy.waiting(Direction::ToUpstream) == 13).await;
    is_silent(&client);
    proxy.heal();
    is_reset(&mut client).await;
}

#[tokio::test]
async fn a_new_connection_leads_nowhere_while_the_link_is_half_open() {
    let (proxy, listener, _client, _upstream) = both_ends().await;
    proxy.fault(Fault::HalfOpen);
    let mut lost = TcpStream::connect(proxy.addr()).await.unwrap();
    wait_until("it is accepted", BOUND, async || proxy.accepted() == 2).await;
    lost.write_all(b"anybody?").await.unwrap();
    assert_eq!(proxy.open(), 1, "the other side must not hear of it");
    proxy.heal();
    is_reset(&mut lost).await;
    let (mut client, mut upstream) = dial(&proxy, &listener).await;
    tells(&mut client, &mut upstream, b"first to come").await;
}

#[tokio::test]
async fn a_stranded_end_hears_nothing_until_the_link_heals() {
    for left in [End::Client, End::Upstream] {
        let (proxy, _listener, mut client, mut upstream) = both_ends().await;
        tells(&mut client, &mut upstream, b"hello").await;
        proxy.strand(left);
        let (mut left, mut lost) = match left {
            End::Client => (client, upstream),
            End::Upstream => (upstream, client),
        };
        is_reset(&mut lost).await;
        is_silent(&left);
        left.write_all(b"anybody?").await.unwrap();
        proxy.heal();
        is_reset(&mut left).await;
    }
}

#[tokio::test]
async fn a_cut_healed_at_once_is_one_reset() {
    let (proxy, listener, mut client, mut upstream) = both_ends().await;
    tells(&mut client, &mut upstream, b"hello").await;
    proxy.cut();
    proxy.heal();
    is_reset(&mut client).await;
    is_reset(&mut upstream).await;
    let (mut client, mut upstream) = dial(&proxy, &listener).await;
    tells(&mut client, &mut upstream, b"again").await;
}

#[tokio::test]
async fn a_fault_spares_the_connections_that_were_not_chosen() {
    let (proxy, listener, mut first, mut first_upstream) = both_ends().await;
    proxy.only(2..);
    proxy.hold();
    let mut second = TcpStream::connect(proxy.addr()).await.unwrap();
    second.write_all(b"held").await.unwrap();
    wait_until("it is accepted", BOUND, async || proxy.accepted() == 2).await;
    tells(&mut first, &mut first_upstream, b"passes").await;
    assert_eq!(proxy.open(), 1);
    proxy.heal();
    let (mut upstream, _) = timeout(BOUND, listener.accept()).await.expect("the link dials").unwrap();
    tells(&mut second, &mut upstream, b"").await;
    let mut there = [0; 4];
    timeout(BOUND, upstream.read_exact(&mut there)).await.expect("the held bytes").unwrap();
}

#[tokio::test]
async fn a_narrow_link_takes_the_time_that_its_rate_says() {
    let (proxy, mut client) = link().await;
    round_trip(&mut client, b"x").await;
    proxy.bandwidth(Direction::ToUpstream, NonZeroU64::new(100_000));
    let start = Instant::now();
    round_trip(&mut client, &[7; 20_000]).await;
    assert!(start.elapsed() >= Duration::from_millis(200), "answered after {:?}", start.elapsed());
    assert_eq!(proxy.passed(Direction::ToUpstream), 20_001);
}

#[tokio::test]
async fn what_waits_for_a_narrow_link_goes_on_at_once_when_it_is_wide_again() {
    let (proxy, mut client) = link().await;
    // At this rate the bytes would take a day.
    proxy.bandwidth(Direction::ToUpstream, NonZeroU64::new(1));
    client.write_all(&[7; 86_400]).await.unwrap();
    wait_until("they wait", BOUND, async || proxy.waiting(Direction::ToUpstream) > 80_000).await;
    proxy.bandwidth(Direction::ToUpstream, None);
    let mut back = vec![0; 86_400];
    timeout(BOUND, client.read_exact(&mut back)).await.expect("all of it").unwrap();
}

#[tokio::test]
async fn a_handshake_dies_after_its_bytes_passed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
    proxy.kill_handshakes(DyingHandshake { client_bytes: 9, passed: true, then: Death::Close });
    let (mut client, mut upstream) = dial(&proxy, &listener).await;
    tells(&mut client, &mut upstream, b"AMQP0091").await;
    tells(&mut upstream, &mut client, b"start").await;
    client.write_all(b"!").await.unwrap();
    assert_eq!(timeout(BOUND, client.read(&mut [0; 8])).await.expect("a close").unwrap(), 0);
    let mut last = [0; 1];
    timeout(BOUND, upstream.read_exact(&mut last)).await.expect("the last byte").unwrap();
    assert_eq!(timeout(BOUND, upstream.read(&mut last)).await.expect("a close").unwrap(), 0);
    proxy.heal();
    let (mut client, mut upstream) = dial(&proxy, &listener).await;
    tells(&mut client, &mut upstream, b"hello").await;
}

#[tokio::test]
async fn a_handshake_that_is_swallowed_reaches_nobody() {
    for (client_bytes, then) in [(0, Death::Reset), (8, Death::Reset), (8, Death::Close)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
        proxy.kill_handshakes(DyingHandshake { client_bytes, passed: false, then });
        let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
        // At 0 it may be reset before this is sent.
        let _ = client.write_all(b"AMQP0091").await;
        let end = timeout(BOUND, client.read(&mut [0; 8])).await.expect("an end");
        match then {
            Death::Close => assert_eq!(end.unwrap(), 0),
            _ => assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset),
        }
        proxy.heal();
        // The first that it hears of is the one after the heal.
        let (mut client, mut upstream) = dial(&proxy, &listener).await;
        tells(&mut client, &mut upstream, b"hello").await;
    }
}

#[tokio::test]
async fn a_mute_handshake_stays_open_until_the_link_heals() {
    let (proxy, mut spared) = link().await;
    round_trip(&mut spared, b"x").await;
    proxy.kill_handshakes(DyingHandshake { client_bytes: 8, passed: true, then: Death::Mute });
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    client.write_all(b"AMQP0091").await.unwrap();
    wait_until("it is accepted", BOUND, async || proxy.accepted() == 2).await;
    // Those that shook hands before go on.
    round_trip(&mut spared, b"still here").await;
    proxy.heal();
    let mut back = Vec::new();
    let end = timeout(BOUND, client.read_to_end(&mut back)).await.expect("a reset").unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
}
