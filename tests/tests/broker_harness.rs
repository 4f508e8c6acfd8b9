//! The harness's own promises about brokers and programs: what it starts ends with the test, however the test ends.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tests::{
    broker::{self, Broker, Footprint, Options},
    wait_until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const GONE_BOUND: Duration = Duration::from_secs(30);

/// Says that a check does not apply to this broker, past the test runner, which shows only what a failing test prints.
fn left_out(test: &str, check: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "{test}: left out: {check}, for {why}");
}

async fn answers(addr: std::net::SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(addr).await else { return false };
    let mut first = [0];
    stream.write_all(b"AMQP\0\0\x09\x01").await.is_ok()
        && stream.read_exact(&mut first).await.is_ok()
        && first == [1]
}

async fn everything_is_gone(broker: &Footprint) {
    wait_until("the broker, its port mapper or container, and its folder are gone", GONE_BOUND, async || {
        broker.left().unwrap().is_empty()
    })
    .await;
}

/// Starts `broker` with these arguments and reads the line that it prints when it is ready.
fn ready(arguments: &[&str], stdin: Stdio) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_broker"))
        .args(arguments)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line)
}

fn footprint_in(reply: &str) -> Footprint {
    let reply: serde_json::Value = serde_json::from_str(reply).unwrap();
    let folder: PathBuf = reply["folder"].as_str().unwrap_or_else(|| panic!("{reply}")).into();
    let footprint = Footprint::of(&folder);
    assert!(!footprint.running().unwrap().is_empty(), "nothing runs for {}", folder.display());
    footprint
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shared_broker_answers() {
    let url = tokio::task::spawn_blocking(broker::shared_url).await.unwrap().unwrap();
    let place = url.rsplit_once('@').map(|(_, place)| place.split('/').next().unwrap().to_owned()).unwrap();
    let addr = tokio::net::lookup_host(place).await.unwrap().next().unwrap();
    assert!(answers(addr).await, "no answer at {addr}");
}

mod harms_the_broker {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn one_killed_with_9_comes_back_with_its_data_on_its_port() {
        let broker = Broker::start(Options::default()).await.unwrap();
        assert!(broker.addr().ip().is_loopback());
        assert!(answers(broker.addr()).await);
        broker.ctl(&["add_vhost", "kept"]).await.unwrap();
        let footprint = Footprint::of(broker.folder());
        assert!(!footprint.running().unwrap().is_empty());
        broker.kill_9().await.unwrap();
        assert!(!answers(broker.addr()).await);
        assert_eq!(footprint.running().unwrap(), [""; 0], "kill -9 left something");
        broker.restart().await.unwrap();
        assert!(answers(broker.addr()).await);
        let vhosts = broker.ctl(&["list_vhosts"]).await.unwrap();
        assert!(vhosts.lines().any(|line| line == "kept"), "{vhosts}");
        drop(broker);
        everything_is_gone(&footprint).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_stopped_in_good_order_or_frozen_comes_back() {
        let broker = Broker::start(Options::default()).await.unwrap();
        broker.freeze().await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(200), answers(broker.addr())).await.is_err());
        broker.thaw().await.unwrap();
        wait_until("it answers again", GONE_BOUND, async || answers(broker.addr()).await).await;
        broker.stop().await.unwrap();
        assert_eq!(Footprint::of(broker.folder()).running().unwrap(), [""; 0], "stop left something");
        broker.restart().await.unwrap();
        assert!(answers(broker.addr()).await);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn options_reach_the_broker_and_a_bad_one_is_told() {
        let broker = Broker::start(
            Options::default().config("default_vhost = elsewhere").plugin("rabbitmq_federation"),
        )
        .await
        .unwrap();
        assert!(broker.ctl(&["list_vhosts"]).await.unwrap().contains("elsewhere"));
        let plugins = broker.ctl(&["eval", "rabbit_plugins:active()."]).await.unwrap();
        assert!(plugins.contains("rabbitmq_federation"), "{plugins}");
        let error = broker.ctl(&["no_such_command"]).await.unwrap_err();
        assert!(format!("{error:#}").contains("no_such_command"), "{error:#}");
        let error = Broker::start(Options::default().config("no.such.key = 1")).await.unwrap_err();
        assert!(format!("{error:#}").contains("no.such.key"), "{error:#}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_test_killed_with_9_leaves_nothing() {
        let (mut test, line) = ready(&["hold"], Stdio::null());
        let footprint = Footprint::of(line.trim().as_ref());
        let running = footprint.running().unwrap();
        assert!(!running.is_empty());
        if let Some(engine) = footprint.engine() {
            left_out(
                "a_test_killed_with_9_leaves_nothing",
                "that a port mapper (epmd) and a virtual machine (beam) are among what ends",
                &format!("they run inside a container of {engine}; that the container is gone is checked"),
            );
        } else {
            assert!(running.iter().any(|name| name == "epmd"), "no port mapper among {running:?}");
            assert!(running.iter().any(|name| name.starts_with("beam")), "no broker among {running:?}");
        }
        test.kill().unwrap();
        test.wait().unwrap();
        everything_is_gone(&footprint).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_end_of_its_input_or_a_signal_ends_a_supervisor_and_all_it_started() {
        let (mut by_input, line) = ready(&["run", "--private"], Stdio::piped());
        let footprint = footprint_in(&line);
        drop(by_input.stdin.take());
        everything_is_gone(&footprint).await;
        assert!(by_input.wait().unwrap().success());

        for signal in ["INT", "TERM"] {
            let (mut by_signal, line) = ready(&["run", "--private", "--until-signal"], Stdio::null());
            let footprint = footprint_in(&line);
            let kill = format!("kill -{signal} {}", by_signal.id());
            assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
            everything_is_gone(&footprint).await;
            assert!(by_signal.wait().unwrap().success());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_member_of_a_cluster_dies_alone_and_they_all_end_together() {
        let (mut supervisor, line) = ready(&["run", "--private", "--members", "2"], Stdio::piped());
        let all = footprint_in(&line);
        let reply: serde_json::Value = serde_json::from_str(&line).unwrap();
        let members = reply["members"].as_array().unwrap();
        let member = |number: usize| Footprint::of(members[number]["folder"].as_str().unwrap().as_ref());
        let orders = supervisor.stdin.as_mut().unwrap();
        writeln!(orders, r#"{{"members":[0],"do":"kill"}}"#).unwrap();
        wait_until("the first member is gone", GONE_BOUND, async || member(0).running().unwrap().is_empty())
            .await;
        assert!(!member(1).running().unwrap().is_empty(), "the second member died too");
        let running = all.running().unwrap();
        assert!(running.iter().any(|name| name == "epmd"), "the port mapper died with it: {running:?}");
        drop(supervisor.stdin.take());
        everything_is_gone(&all).await;
        assert!(supervisor.wait().unwrap().success());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_killed_supervisor_left_is_ended_by_the_next() {
        let (mut killed, line) = ready(&["run", "--private"], Stdio::piped());
        let footprint = footprint_in(&line);
        killed.kill().unwrap();
        killed.wait().unwrap();
        assert!(!footprint.running().unwrap().is_empty(), "there is nothing to end");
        let next = Broker::start(Options::default()).await.unwrap();
        everything_is_gone(&footprint).await;
        assert!(answers(next.addr()).await);
    }
}
