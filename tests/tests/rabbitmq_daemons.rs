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
    daemon_of(region, cache, url, "fast").await
}

async fn daemon_of(region: &str, cache: &str, url: &str, profile: &str) -> Daemon {
    let addr: SocketAddr = ([127, 0, 0, 1], free_ports(1)).into();
    let listen = addr.to_string();
    let node = ["--region", region, "--amqp", url, "--cache", cache];
    let arguments = [&node[..], &["--profile", profile, "--listen", &listen]].concat();
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

/// One line of the answer to `stats`.
async fn stat(addr: SocketAddr, name: &str) -> Option<String> {
    let mut client = Memcached::connect(addr).await.ok()?;
    let lines = client.lines("stats").await.ok()?;
    let prefix = format!("STAT {name} ");
    lines.iter().find_map(|line| line.strip_prefix(&prefix).map(str::to_owned))
}

/// What waiting does not mend ends the daemon, before it took any client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_its_broker_refuses_says_why_and_ends() {
    let url = shared_url().unwrap();
    let listen = format!("127.0.0.1:{}", free_ports(1));
    let (_, host) = url.rsplit_once('@').unwrap();
    let stranger = format!("amqp://stranger@{host}");
    let arguments = ["--region", "us-east", "--amqp", &stranger, "--listen", &listen];
    let password = [("GEOCACHE_AMQP_PASSWORD", "secret-word")];
    let process = Process::spawn_with(&geocached().unwrap(), &arguments, &password).unwrap();
    assert_ne!(process.exit_code(BOUND).await, 0);
    let log = process.log();
    assert!(log.contains("refused the credentials") && log.contains("stranger"), "{log}");
    assert!(!log.contains("secret-word"), "no password is printed: {log}");
}

/// A deployment's change to another kind of profile, node by node: nobody ends, and no supervisor has to start anybody twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_of_another_profile_serves_alone_until_the_others_are_gone() {
    let url = shared_url().unwrap();
    let cache = unique_name("rolled");
    let old = daemon("us-east", &cache, &url).await;
    // From here on it receives, and so stands in the way of the other kind.
    old.process.wait_for_line("serving memcached clients", BOUND).await;
    let new = daemon_of("ap-south", &cache, &url, "stream").await;
    new.process.wait_for_line("serving memcached clients", BOUND).await;
    let told = new.process.log();
    assert_eq!(told.matches("serving alone until the others are gone").count(), 1, "{told}");
    assert!(told.contains("close every node with the profile Fast or Durable"), "{told}");
    Memcached::connect(new.addr).await.unwrap().set("new", b"alone", 0).await.unwrap();
    reads(new.addr, "new", Some(b"alone")).await;
    let reason = async || stat(new.addr, "replication_transport_reason").await.unwrap_or_default();
    wait_until("stats say why", BOUND, async || reason().await.contains("geocache-profile")).await;
    assert_eq!(stat(new.addr, "replication_transport").await.as_deref(), Some("connecting"));

    old.process.terminate().unwrap();
    assert_eq!(old.process.exit_code(BOUND).await, 0, "{}", old.process.log());
    let rolled = daemon_of("us-east", &cache, &url, "stream").await;
    reads(rolled.addr, "new", Some(b"alone")).await;
    Memcached::connect(rolled.addr).await.unwrap().set("rolled", b"heard", 0).await.unwrap();
    reads(new.addr, "rolled", Some(b"heard")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_reads_its_credentials_from_a_file_or_the_environment() {
    let url = shared_url().unwrap();
    let (scheme, rest) = url.split_once("://").unwrap();
    let (userinfo, host) = rest.rsplit_once('@').unwrap();
    let (user, password) = userinfo.split_once(':').unwrap();
    let bare = format!("{scheme}://{host}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{user}\n{password}\n")).unwrap();
    let cache = unique_name("credentials");
    let start = async |region: &str, more: &[&str], environment: &[(&str, &str)]| {
        let addr: SocketAddr = ([127, 0, 0, 1], free_ports(1)).into();
        let listen = addr.to_string();
        let plain = ["--region", region, "--amqp", &bare, "--cache", &cache, "--listen", &listen];
        let arguments = [&plain[..], more].concat();
        let process = Process::spawn_with(&geocached().unwrap(), &arguments, environment).unwrap();
        process.wait_for_port(addr, BOUND).await;
        Daemon { process, addr }
    };
    let variables = [("GEOCACHE_AMQP_USER", user), ("GEOCACHE_AMQP_PASSWORD", password)];
    let east = start("us-east", &["--amqp-credentials-file", file.path().to_str().unwrap()], &[]).await;
    let south = start("ap-south", &[], &variables).await;
    Memcached::connect(east.addr).await.unwrap().set("greeting", b"hello", 60).await.unwrap();
    reads(south.addr, "greeting", Some(b"hello")).await;
}

/// They start their broker late.
mod harms_the_broker {
    use tests::broker::{Broker, Options};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn daemons_that_start_before_their_broker_serve_alone_and_meet_when_it_is_there() {
        let broker = Broker::start(Options::default()).await.unwrap();
        broker.stop().await.unwrap();
        let cache = unique_name("early");
        let east = daemon("us-east", &cache, broker.url()).await;
        let south = daemon("ap-south", &cache, broker.url()).await;
        for (daemon, key) in [(&east, "of-east"), (&south, "of-south")] {
            // It waits for the broker first, then serves without.
            daemon.process.wait_for_line("serving memcached clients", BOUND).await;
            let mut client = Memcached::connect(daemon.addr).await.unwrap();
            client.set(key, b"alone", 0).await.unwrap();
            assert_eq!(client.get(key).await.unwrap().as_deref(), Some(&b"alone"[..]));
            assert_eq!(stat(daemon.addr, "replication_transport").await.as_deref(), Some("connecting"));
            assert!(
                daemon.process.log().contains("serving alone until a broker is reached"),
                "{}",
                daemon.process.log()
            );
            let ready = async || stat(daemon.addr, "replication_ready").await.as_deref() == Some("1");
            wait_until("it is ready, alone", BOUND, ready).await;
        }
        broker.restart().await.unwrap();
        reads(south.addr, "of-east", Some(b"alone")).await;
        reads(east.addr, "of-south", Some(b"alone")).await;
        for daemon in [&east, &south] {
            let connected =
                async || stat(daemon.addr, "replication_transport").await.as_deref() == Some("connected");
            wait_until("it says connected", BOUND, connected).await;
        }
    }
}
