//! Two separate daemons over RabbitMQ, used as any memcached client would.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use std::{net::SocketAddr, time::Duration};

use tests::{
    broker::shared_url,
    memcached::Memcached,
    process::{Process, free_ports, geocached},
    unique_name, wait_until,
};

const BOUND: Duration = Duration::from_secs(90);

struct Daemon {
    process: Process,
    addr: SocketAddr,
}

async fn daemon(region: &str, cache: &str, url: &str) -> Daemon {
    let addr: SocketAddr = ([127, 0, 0, 1], free_ports(1)).into();
    let listen = addr.to_string();
    let arguments = ["--region", region, "--amqp", url, "--cache", cache, "--listen", &listen];
    let process = Process::spawn(&geocached().unwrap(), &arguments).unwrap();
    process.wait_for_port(addr, BOUND).await;
    Daemon { process, addr }
}

async fn reads(addr: SocketAddr, key: &str, value: Option<&[u8]>) {
    let mut client = Memcached::connect(addr).await.unwrap();
    let client = &mut client;
    let what = format!("{addr} answers {value:?} for {key}");
    let held = tokio::sync::Mutex::new(client);
    wait_until(&what, BOUND, async || held.lock().await.get(key).await.unwrap().as_deref() == value).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_daemon_stores_the_other_serves() {
    let url = shared_url().unwrap();
    let cache = unique_name("daemons");
    let east = daemon("us-east", &cache, &url).await;
    let south = daemon("ap-south", &cache, &url).await;
    let mut client = Memcached::connect(east.addr).await.unwrap();
    client.set("greeting", b"hello", 60).await.unwrap();
    reads(south.addr, "greeting", Some(b"hello")).await;

    let mut there = Memcached::connect(south.addr).await.unwrap();
    there.set("count", b"41", 0).await.unwrap();
    reads(east.addr, "count", Some(b"41")).await;
    assert_eq!(client.command("incr count 1").await.unwrap(), "42");
    reads(south.addr, "count", Some(b"42")).await;
    assert_eq!(there.command("delete greeting").await.unwrap(), "DELETED");
    reads(east.addr, "greeting", None).await;
    assert_eq!(client.command("flush_all").await.unwrap(), "OK");
    reads(south.addr, "count", None).await;

    for daemon in [east, south] {
        daemon.process.terminate().unwrap();
        assert_eq!(daemon.process.exit_code(BOUND).await, 0, "{}", daemon.process.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_without_its_broker_says_so_and_ends() {
    let addr: SocketAddr = ([127, 0, 0, 1], free_ports(1)).into();
    let listen = addr.to_string();
    let stranger = "amqp://stranger:secret-word@127.0.0.1:1/%2f";
    let arguments = ["--region", "us-east", "--amqp", stranger, "--listen", &listen];
    let process = Process::spawn(&geocached().unwrap(), &arguments).unwrap();
    assert_ne!(process.exit_code(BOUND).await, 0);
    let log = process.log();
    assert!(log.contains("no broker could be reached") && log.contains("127.0.0.1:1"), "{log}");
    assert!(!log.contains("secret-word"), "no password is printed: {log}");
}
