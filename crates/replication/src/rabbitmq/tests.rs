//! What the transport does at brokers that are none: they accept and never speak, or hang up in the handshake.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::*;
use crate::report::BreakerState;

const BOUND: Duration = Duration::from_secs(60);

/// Listens on loopback and gives each connection to `serve`, on a thread of its own; counts them.
fn listener(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (ended, serve) = (Arc::new(AtomicUsize::new(0)), Arc::new(serve));
    let count = Arc::clone(&ended);
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let (serve, count) = (Arc::clone(&serve), Arc::clone(&count));
            std::thread::spawn(move || {
                serve(socket);
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    (port, ended)
}

fn config(scheme: &str, port: u16) -> Config {
    let node = NodeId::new("us-east".parse().unwrap(), "n").unwrap();
    Config::new(node, vec![format!("{scheme}://ann:hunter2@127.0.0.1:{port}")])
        .connect_timeout(Duration::from_millis(200))
        .connect_wait(Duration::from_millis(500))
        .retry(Duration::from_millis(10), Duration::from_millis(50))
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(BOUND, waiting).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

/// Reads until the other side hangs up, and says nothing.
fn mute(mut socket: TcpStream) {
    let mut some = [0; 512];
    while matches!(socket.read(&mut some), Ok(1..)) {}
}

/// Reads the protocol header and hangs up: a load balancer whose broker is down.
fn hang_up(mut socket: TcpStream) {
    let mut header = [0; 8];
    let _ = socket.read_exact(&mut header);
    let _ = socket.shutdown(Shutdown::Both);
}

/// Answers the protocol header with what is no AMQP.
fn babble(mut socket: TcpStream) {
    let _ = socket.read_exact(&mut [0; 8]);
    let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    mute(socket);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_speaks_no_amqp_is_given_up_within_the_limit_and_named() {
    for (scheme, serve) in [
        ("amqp", mute as fn(TcpStream)),
        ("amqps", mute),
        ("amqp", hang_up),
        ("amqps", hang_up),
        ("amqp", babble),
    ] {
        let (port, _) = listener(serve);
        let trying = RabbitMq::connect(config(scheme, port));
        let error = timeout(BOUND, trying).await.expect("a limit on every wait").unwrap_err();
        assert!(matches!(error, ConnectError::Unreachable { .. }), "{scheme}: {error}");
        let shown = error.to_string();
        assert!(shown.contains(&port.to_string()) && !shown.contains("hunter2"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dialled_transport_goes_on_at_a_mute_broker_says_so_and_leaves_no_socket_behind() {
    let (port, ended) = listener(mute);
    let transport = RabbitMq::dial(config("amqp", port)).unwrap();
    let health = transport.health();
    assert!(matches!(*health.borrow(), Health::Connecting { .. }), "it returned at once");
    // Each attempt ends its socket: the other side sees the end of as many as were tried.
    until("six sockets were ended", || ended.load(Ordering::Relaxed) >= 6).await;
    let told = health.borrow().reason().map(str::to_owned).unwrap();
    assert!(told.contains("no AMQP handshake within 200ms"), "{told}");
    let frame = Bytes::from_static(b"frame");
    let refused = timeout(BOUND, transport.publish(Destination::Everyone, frame)).await.unwrap();
    assert!(matches!(refused, Err(TransportError::Unavailable { .. })), "{refused:?}");
    let refused = timeout(BOUND, transport.subscribe()).await.unwrap().map(drop);
    assert!(matches!(refused, Err(TransportError::Unavailable { .. })), "{refused:?}");
    timeout(BOUND, transport.close()).await.unwrap().unwrap();
    assert_eq!(*health.borrow(), Health::Closed);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_before_anything_is_dialled() {
    let error = RabbitMq::dial(config("amqp", 1).cache("No Name")).unwrap_err();
    assert_eq!(error.field, "cache");
    let error = RabbitMq::dial(config("amqps", 1).tls_ca(Pem::file("/nowhere/ca.pem"))).unwrap_err();
    assert_eq!(error.field, "tls_ca");
    assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_breaker_of_a_broker_that_is_not_one_opens_and_is_told() {
    let (port, _) = listener(hang_up);
    let transport = RabbitMq::dial(config("amqp", port).breaker_failure_threshold(3)).unwrap();
    let told = transport.breakers();
    assert_eq!(told.len(), 3, "one for each use of a connection");
    assert!(told.iter().all(|breaker| breaker.broker == format!("amqp://ann:***@127.0.0.1:{port}")));
    let is = |purpose, state| move |told: &Breaker| told.purpose == purpose && told.state == state;
    until("the breakers for frames opened", || {
        let told = transport.breakers();
        told.iter().any(is("publishing", BreakerState::Open))
            && told.iter().any(is("consuming", BreakerState::Open))
    })
    .await;
    let told = transport.breakers();
    assert!(told.iter().any(is("dead letters", BreakerState::Closed)), "nobody tried for them");
    assert_eq!(told[0].opened, 1);
    let report = Transport::report(&*transport);
    let failures = report.counts.iter().find(|count| count.name == "connect_failures").unwrap();
    assert!(failures.value >= 6, "three attempts for each use");
    assert_eq!((report.kind, report.breakers.len()), ("rabbitmq", 3));
    assert!(!format!("{transport:?}").contains("hunter2"));
    timeout(BOUND, transport.close()).await.unwrap().unwrap();
}
