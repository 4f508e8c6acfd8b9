//! Against servers that are scripted: slow, cut short, mad, full.

use std::{net::SocketAddr, time::Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
};

use super::*;

const BOUND: Duration = Duration::from_secs(20);

/// A server whose answers a test gives by hand; it greets by itself.
struct Scripted {
    address: SocketAddr,
    asked: UnboundedReceiver<(usize, Vec<u8>)>,
    connections: UnboundedReceiver<UnboundedSender<Say>>,
    serving: JoinHandle<()>,
}

enum Say {
    Bytes(Vec<u8>),
    Close,
}

impl Scripted {
    async fn start() -> Self {
        Self::greeting(b"VERSION 1.6.18\r\nMN\r\n").await
    }

    async fn greeting(greeting: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, asked) = unbounded_channel();
        let (opened, connections) = unbounded_channel();
        let serving = tokio::spawn(async move {
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (say, said) = unbounded_channel();
                tokio::spawn(serve(stream, number, greeting, heard.clone(), said));
                let _ = opened.send(say);
            }
        });
        Self { address, asked, connections, serving }
    }

    fn endpoint(&self) -> MemcachedBuilder {
        Memcached::builder(self.address.to_string()).connect_timeout(BOUND)
    }

    /// The next connection, to answer over.
    async fn connection(&mut self) -> UnboundedSender<Say> {
        timeout(BOUND, self.connections.recv()).await.expect("a connection in time").unwrap()
    }

    /// The next request: over which connection, and its bytes so far.
    async fn asked(&mut self) -> (usize, String) {
        let (number, bytes) = timeout(BOUND, self.asked.recv()).await.expect("a request in time").unwrap();
        (number, String::from_utf8(bytes).unwrap())
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    number: usize,
    greeting: &[u8],
    heard: UnboundedSender<(usize, Vec<u8>)>,
    mut said: UnboundedReceiver<Say>,
) {
    let mut hello = [0; b"version\r\nmn\r\n".len()];
    if stream.read_exact(&mut hello).await.is_err() || stream.write_all(greeting).await.is_err() {
        return;
    }
    let mut input = vec![0; 64 * 1024];
    loop {
        tokio::select! {
            read = stream.read(&mut input) => match read {
                Ok(0) | Err(_) => return,
                Ok(bytes) => drop(heard.send((number, input[..bytes].to_vec()))),
            },
            say = said.recv() => match say {
                Some(Say::Bytes(bytes)) => drop(stream.write_all(&bytes).await),
                Some(Say::Close) | None => return,
            },
        }
    }
}

fn bytes(text: &str) -> Say {
    Say::Bytes(text.as_bytes().to_vec())
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let reached = async {
        while !holds() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(BOUND, reached).await.is_ok(), "{what} did not come");
}

fn get(endpoint: &Memcached, key: &'static str) -> JoinHandle<Result<Option<Item>, EndpointError>> {
    let endpoint = endpoint.clone();
    tokio::spawn(async move { endpoint.get(key.as_bytes()).await })
}

#[tokio::test]
async fn an_answer_in_pieces_is_put_together() {
    let mut server = Scripted::start().await;
    let endpoint = server.endpoint().build().unwrap();
    let call = get(&endpoint, "k");
    let say = server.connection().await;
    assert_eq!(server.asked().await, (0, "mg k v f c t\r\n".to_owned()));
    for piece in ["V", "A 4 f7 c", "9 t-1\r", "\nab", "\r\n\r", "\n"] {
        say.send(bytes(piece)).unwrap();
        tokio::task::yield_now().await;
    }
    let item = call.await.unwrap().unwrap().unwrap();
    assert_eq!((&item.bytes[..], item.flags, item.cas, item.left), (&b"ab\r\n"[..], 7, 9, None));
    until("the connection is kept", || endpoint.stats().idle == 1).await;
}

#[tokio::test]
async fn half_an_answer_is_an_error_and_never_a_value() {
    let mut server = Scripted::start().await;
    let endpoint = server.endpoint().build().unwrap();
    for half in ["", "VA", "VA 4 f0 c1 t-1\r\n", "VA 4 f0 c1 t-1\r\nabcd", "VA 4 f0 c1 t-1\r\nabcd\r"] {
        let call = get(&endpoint, "k");
        let say = server.connection().await;
        server.asked().await;
        say.send(bytes(half)).unwrap();
        say.send(Say::Close).unwrap();
        let error = call.await.unwrap().unwrap_err();
        assert!(error.is_fault() && !error.may_be_done(), "{half:?}: {error:?}");
    }
    assert_eq!((endpoint.stats().idle, endpoint.stats().discarded), (0, 5));
}

#[tokio::test]
async fn what_is_no_answer_ends_the_connection() {
    let mut server = Scripted::start().await;
    let endpoint = server.endpoint().value_bytes_max(1_000).build().unwrap();
    let long = "x".repeat(5_000);
    for (mad, is_fault) in [
        ("HTTP/1.1 200 OK\r\n", true),
        ("VA x\r\n", true),
        ("VA 2 f0\r\nabcd\r\n", true),
        ("VA 99999999999999999999 f0\r\n", true),
        ("VA 1001 f0\r\n", false),
        ("HD\r\n", true),
        ("MN\r\n", true),
        ("\u{0}\u{1}\r\n", true),
        (&long, true),
        ("SERVER_ERROR out of memory\r\n", true),
        ("CLIENT_ERROR bad command line format\r\n", false),
    ] {
        let call = get(&endpoint, "k");
        let say = server.connection().await;
        server.asked().await;
        say.send(bytes(mad)).unwrap();
        let error = timeout(BOUND, call).await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.is_fault(), is_fault, "{mad:.40}: {error:?}");
        assert!(error.to_string().len() < 300, "{error}");
    }
    assert_eq!((endpoint.stats().idle, endpoint.stats().discarded), (0, 11));
}

/// Two answers to one request: the second would be the next call's.
#[tokio::test]
async fn an_answer_that_nobody_asked_for_reaches_nobody() {
    let mut server = Scripted::start().await;
    let endpoint = server.endpoint().build().unwrap();
    let call = get(&endpoint, "k");
    let say = server.connection().await;
    server.asked().await;
    say.send(bytes("EN\r\nVA 5 f0 c1 t-1\r\nwrong\r\n")).unwrap();
    assert_eq!(call.await.unwrap().unwrap(), None);
    assert_eq!((endpoint.stats().idle, endpoint.stats().discarded), (0, 1));

    let call = get(&endpoint, "k");
    let say = server.connection().await;
    assert_eq!(server.asked().await.0, 1);
    say.send(bytes("EN\r\n")).unwrap();
    assert_eq!(call.await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn a_dropped_calls_connection_is_never_used_again() {
    let mut server = Scripted::start().await;
    let endpoint = server.endpoint().connections_max(1).build().unwrap();
    let call = get(&endpoint, "slow");
    let late = server.connection().await;
    assert_eq!(server.asked().await.0, 0);
    call.abort();
    until("the connection is closed", || endpoint.stats().discarded == 1).await;
    let call = get(&endpoint, "next");
    let say = server.connection().await;
    assert_eq!(server.asked().await, (1, "mg next v f c t\r\n".to_owned()));
    // Where the server had not seen the close, its late answer goes nowhere.
    let _ = late.send(bytes("VA 4 f0 c1 t-1\r\nslow\r\n"));
    say.send(bytes("VA 4 f0 c1 t-1\r\nnext\r\n")).unwrap();
    assert_eq!(call.await.unwrap().unwrap().unwrap().bytes, "next");
}

#[tokio::test]
async fn calls_beyond_the_bound_wait_for_a_connection() {
    let mut server = Scripted::start().await;
    let endpoint = server.endpoint().connections_max(2).connections_idle_max(1).build().unwrap();
    let calls = [get(&endpoint, "a"), get(&endpoint, "b"), get(&endpoint, "c")];
    let says = [server.connection().await, server.connection().await];
    let first = [server.asked().await.0, server.asked().await.0];
    until("the third waits", || endpoint.stats().waited == 1).await;
    assert_eq!((endpoint.stats().busy, endpoint.stats().opened), (2, 2));
    says[first[0]].send(bytes("EN\r\n")).unwrap();
    let (third, _) = server.asked().await;
    for number in [first[1], third] {
        says[number].send(bytes("EN\r\n")).unwrap();
    }
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), None);
    }
    assert_eq!((endpoint.stats().busy, endpoint.stats().idle, endpoint.stats().opened), (0, 1, 2));
}

#[tokio::test]
async fn a_waiting_call_that_is_dropped_leaves_its_place() {
    let mut server = Scripted::start().await;
    let endpoint = server.endpoint().connections_max(1).build().unwrap();
    let first = get(&endpoint, "a");
    let say = server.connection().await;
    server.asked().await;
    let waiting = get(&endpoint, "b");
    until("it waits", || endpoint.stats().waited == 1).await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    say.send(bytes("EN\r\n")).unwrap();
    assert_eq!(first.await.unwrap().unwrap(), None);
    let third = get(&endpoint, "c");
    assert_eq!(server.asked().await, (0, "mg c v f c t\r\n".to_owned()));
    say.send(bytes("EN\r\n")).unwrap();
    assert_eq!(third.await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn a_broken_connection_takes_the_idle_ones_with_it() {
    let mut server = Scripted::start().await;
    let endpoint = server.endpoint().build().unwrap();
    let calls = [get(&endpoint, "a"), get(&endpoint, "b")];
    let says = [server.connection().await, server.connection().await];
    server.asked().await;
    server.asked().await;
    for (say, call) in says.iter().zip(calls) {
        say.send(bytes("EN\r\n")).unwrap();
        call.await.unwrap().unwrap();
    }
    assert_eq!(endpoint.stats().idle, 2);
    let call = get(&endpoint, "c");
    let (number, _) = server.asked().await;
    says[number].send(Say::Close).unwrap();
    assert!(call.await.unwrap().unwrap_err().is_fault());
    assert_eq!(endpoint.stats().idle, 0);
}

/// A server that answers as it reads fills both sides' buffers where nobody takes its answers meanwhile.
#[tokio::test]
async fn answers_are_taken_while_requests_are_still_sent() {
    const KEYS: usize = 900;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = vec![0; b"version\r\nmn\r\n".len()];
        stream.read_exact(&mut seen).await.unwrap();
        stream.write_all(b"VERSION 1.6.18\r\nMN\r\n").await.unwrap();
        let value = vec![b'v'; 20_000];
        // One request read, one answered: it holds no more than a line.
        for index in 0..KEYS {
            while stream.read_u8().await.unwrap() != b'\n' {}
            let head = format!("VA {} f0 c1 t-1 O{index}\r\n", value.len());
            stream.write_all(&[head.as_bytes(), &value, b"\r\n"].concat()).await.unwrap();
        }
        while stream.read_u8().await.unwrap() != b'\n' {}
        stream.write_all(b"MN\r\n").await.unwrap();
        stream
    });
    let endpoint = Memcached::new(address).unwrap();
    let keys: Vec<_> = (0..KEYS).map(|number| Bytes::from(format!("{number:0>200}"))).collect();
    let items = timeout(BOUND, endpoint.get_many(&keys)).await.expect("no deadlock").unwrap();
    assert!(items.iter().all(Option::is_some));
    serving.await.unwrap();
}

#[tokio::test]
async fn a_server_that_speaks_no_meta_protocol_is_told_by_name() {
    for (greeting, reason) in [
        (&b"VERSION 1.4.39\r\nERROR\r\n"[..], "1.4.39"),
        (b"ERROR Too many open connections\r\n", "Too many open connections"),
    ] {
        let server = Scripted::greeting(greeting).await;
        let error = server.endpoint().build().unwrap().get(b"k").await.unwrap_err();
        let EndpointError::Refused { reason: told, .. } = &error else { panic!("{error:?}") };
        assert!(told.contains(reason), "{told}");
    }
    let server = Scripted::greeting(b"SSH-2.0-OpenSSH_9.2\r\n").await;
    let error = server.endpoint().build().unwrap().get(b"k").await.unwrap_err();
    assert!(
        matches!(&error, EndpointError::Unreachable { reason, .. } if reason.contains("SSH")),
        "{error:?}"
    );
}

#[tokio::test]
async fn nobody_there_is_unreachable_and_nothing_was_done() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let endpoint = Memcached::new(address.clone()).unwrap();
    let error = endpoint.write(b"k", Write::default(), Expect::Any).await.unwrap_err();
    assert!(error.is_fault() && !error.may_be_done());
    assert!(error.to_string().contains(&address), "{error}");
    let error = Memcached::new("no-such-host.invalid").unwrap().get(b"k").await.unwrap_err();
    assert!(error.is_fault(), "{error}");
}

#[tokio::test]
async fn a_write_cut_off_behind_its_request_may_be_done() {
    let mut server = Scripted::start().await;
    let endpoint = server.endpoint().build().unwrap();
    let call = tokio::spawn({
        let endpoint = endpoint.clone();
        async move { endpoint.write(b"k", Write { bytes: "ab".into(), ..Write::default() }, Expect::Any).await }
    });
    let say = server.connection().await;
    assert_eq!(server.asked().await.1, "ms k 2 c F0 T0\r\nab\r\n");
    say.send(Say::Close).unwrap();
    assert!(call.await.unwrap().unwrap_err().may_be_done());
}

#[tokio::test]
async fn a_listing_that_is_cut_short_ends_with_an_error() {
    let mut server = Scripted::start().await;
    let endpoint = server.endpoint().build().unwrap();
    let listing = tokio::spawn(async move { endpoint.keys().await.unwrap() });
    let say = server.connection().await;
    assert_eq!(server.asked().await.1, "lru_crawler metadump all\r\n");
    // memcached lists for one client at a time.
    say.send(bytes("BUSY currently processing crawler request\r\n")).unwrap();
    server.asked().await;
    say.send(bytes("key=a%20b exp=-1\nkey=c exp=-1\n")).unwrap();
    let mut keys = listing.await.unwrap();
    assert_eq!(keys.recv().await.unwrap().unwrap(), "a b");
    assert_eq!(keys.recv().await.unwrap().unwrap(), "c");
    say.send(Say::Close).unwrap();
    assert!(timeout(BOUND, keys.recv()).await.unwrap().unwrap().unwrap_err().is_fault());
    assert!(keys.recv().await.is_none());
}

#[tokio::test]
async fn a_server_without_listings_says_so() {
    let mut server = Scripted::start().await;
    let endpoint = server.endpoint().build().unwrap();
    let listing = tokio::spawn(async move { endpoint.keys().await });
    let say = server.connection().await;
    server.asked().await;
    say.send(bytes("ERROR lru crawler disabled\r\n")).unwrap();
    assert!(matches!(listing.await.unwrap(), Err(EndpointError::Unsupported { .. })));
}

#[tokio::test]
async fn idle_connections_are_not_used_for_ever() {
    let mut server = Scripted::start().await;
    let endpoint = server.endpoint().idle_timeout(Duration::from_millis(1)).build().unwrap();
    for number in 0..2 {
        let call = get(&endpoint, "k");
        let say = server.connection().await;
        assert_eq!(server.asked().await.0, number);
        say.send(bytes("EN\r\n")).unwrap();
        call.await.unwrap().unwrap();
        let idle = Instant::now();
        until("it grew old", || idle.elapsed() > Duration::from_millis(2)).await;
    }
}

/// A server that greets when it is told to.
async fn shy() -> (MemcachedBuilder, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (Memcached::builder(address).connect_timeout(BOUND), listener)
}

#[tokio::test]
async fn a_connection_that_a_call_gave_up_waiting_for_is_the_next_calls() {
    let (builder, listener) = shy().await;
    let endpoint = builder.build().unwrap();
    let call = get(&endpoint, "k");
    let (mut stream, _) = listener.accept().await.unwrap();
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!((endpoint.stats().busy, endpoint.stats().opened), (1, 0), "it is still being made");
    stream.write_all(b"VERSION 1.6.18\r\nMN\r\n").await.unwrap();
    until("the connection is kept", || endpoint.stats().idle == 1 && endpoint.stats().busy == 0).await;
    let call = get(&endpoint, "k");
    let mut asked = vec![0; b"version\r\nmn\r\nmg k v f c t\r\n".len()];
    timeout(BOUND, stream.read_exact(&mut asked)).await.expect("asked over the same connection").unwrap();
    stream.write_all(b"EN\r\n").await.unwrap();
    assert!(call.await.unwrap().unwrap().is_none());
    assert_eq!(endpoint.stats().opened, 1);
}

#[tokio::test]
async fn what_connects_ends_with_the_last_handle() {
    let (builder, listener) = shy().await;
    let endpoint = builder.build().unwrap();
    let call = get(&endpoint, "k");
    let (mut stream, _) = listener.accept().await.unwrap();
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    drop(endpoint);
    let mut heard = Vec::new();
    let end = timeout(BOUND, stream.read_to_end(&mut heard)).await;
    assert!(end.is_ok(), "nobody greeted, and the connection is closed all the same");
}

#[tokio::test]
async fn an_address_that_swallows_what_is_sent_leaves_time_for_the_next() {
    let (_, silent) = shy().await;
    let server = Scripted::start().await;
    let addresses = [silent.local_addr().unwrap(), server.address];
    let end = tokio::time::Instant::now() + Duration::from_secs(2);
    let reached = timeout(BOUND, pool::first_of(&addresses, end, 1)).await.unwrap().unwrap();
    assert!(reached.is_some(), "the second address answers");
    let end = tokio::time::Instant::now() + Duration::from_millis(50);
    assert!(pool::first_of(&addresses[..1], end, 1).await.unwrap().is_none(), "the time was over");
}

#[test]
fn settings_out_of_range_name_their_field() {
    for address in
        ["", ":11211", "host:", "host:0", "host:65536", "a b", "::1", "[::1", "user@host", "tcp://host:1"]
    {
        let error = Memcached::new(address).unwrap_err().to_string();
        assert!(error.contains("address"), "{address:?}: {error}");
    }
    for (given, address) in
        [("host", "host:11211"), ("host:1", "host:1"), ("[::1]:2", "[::1]:2"), ("[::1]", "[::1]:11211")]
    {
        assert_eq!(Memcached::new(given).unwrap().address(), address);
    }
    let field = |builder: MemcachedBuilder| match builder.build() {
        Err(BuildError::Setting { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let builder = || Memcached::builder("host");
    assert_eq!(field(builder().connections_max(0)), "connections_max");
    assert_eq!(field(builder().connect_timeout(Duration::ZERO)), "connect_timeout");
    assert_eq!(field(builder().value_bytes_max(0)), "value_bytes_max");
    assert_eq!(field(builder().connections_max(usize::MAX)), "connections_max");
    assert_eq!(field(builder().connect_timeout(Duration::MAX)), "connect_timeout");
    assert_eq!(field(builder().value_bytes_max(usize::MAX)), "value_bytes_max");
    assert_eq!(field(builder().connections_idle_max(17)), "connections_idle_max");
}
