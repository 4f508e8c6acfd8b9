//! The program itself: what it prints, how it ends.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// No wait in these tests is longer than this.
const BOUND: Duration = Duration::from_secs(30);

/// The program, deaf to the settings of whoever runs the tests.
fn geocached(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_geocached"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GEOCACHE_") {
            command.env_remove(name);
        }
    }
    command
}

/// What it prints when it is expected to end by itself.
fn output(arguments: &[&str]) -> (Output, String) {
    let output = geocached(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, text)
}

/// A running program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    #[cfg(unix)]
    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.0.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    fn ended(&mut self) -> std::process::ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < BOUND, "still running after {BOUND:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn ask(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[cfg(unix)]
#[test]
fn the_demo_shows_a_write_of_one_region_in_the_others() {
    let mut demo = Running(geocached(&["demo", "--base-port", "0"]).spawn().unwrap());
    let mut lines = BufReader::new(demo.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let ports: Vec<u16> = lines
        .by_ref()
        .filter_map(|line| line.split_once("127.0.0.1:").and_then(|(_, port)| port.parse().ok()))
        .take(3)
        .collect();
    let tried: Vec<String> = lines.by_ref().take_while(|line| line != "Ctrl-C ends it.").collect();
    assert!(tried.iter().any(|line| line.contains("printf 'set greeting")), "{tried:?}");
    let answer = ask(ports[0], "set greeting 0 60 5\r\nhello\r\nget greeting\r\nquit\r\n");
    assert_eq!(answer, "STORED\r\nVALUE greeting 0 5\r\nhello\r\nEND\r\n");
    for port in &ports[1..] {
        let start = Instant::now();
        while ask(*port, "get greeting\r\nquit\r\n") != "VALUE greeting 0 5\r\nhello\r\nEND\r\n" {
            assert!(start.elapsed() < BOUND);
        }
    }
    let status = lines.by_ref().find(|line| line.contains("us-east ")).unwrap();
    assert!(status.contains("ready"), "{status}");
    demo.signal("INT");
    assert!(demo.ended().success());
    assert_eq!(lines.last().as_deref(), Some("ended"));
}

#[test]
fn a_port_in_use_is_an_error_that_names_it_and_the_way_out() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    for (arguments, option) in [
        (&["--listen", &port.to_string()][..], "--listen"),
        (&["demo", "--base-port", &port.to_string()], "--base-port"),
    ] {
        // The two ports after one at the very top would not exist.
        if option == "--base-port" && port > 65533 {
            continue;
        }
        let (output, text) = output(arguments);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains(option), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn a_standalone_cache_serves_and_ends_at_sigterm() {
    // The port is chosen by the system and told in the log.
    let mut node = Running(geocached(&["--listen", "0"]).spawn().unwrap());
    let mut log = BufReader::new(node.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let serving = log.find(|line| line.contains("serving")).unwrap();
    let port = serving.rsplit(':').next().unwrap().trim().parse().unwrap();
    assert_eq!(ask(port, "set k 0 0 1\r\na\r\nget k\r\nquit\r\n"), "STORED\r\nVALUE k 0 1\r\na\r\nEND\r\n");
    // An idle client does not hold it up.
    let idle = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    node.signal("TERM");
    assert_eq!(node.ended().code(), Some(0));
    assert!(log.any(|line| line.ends_with("ended")));
    drop(idle);
}

#[test]
fn listening_beyond_loopback_is_warned_of() {
    let mut node = Running(geocached(&["--listen", "0.0.0.0:0"]).spawn().unwrap());
    let mut log = BufReader::new(node.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let before = log.by_ref().take_while(|line| !line.contains("serving"));
    assert!(before.into_iter().any(|line| line.contains("WARN") && line.contains("without authentication")));
}

#[test]
fn a_region_without_a_broker_is_refused() {
    let (output, text) = output(&["--region", "us-east"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.starts_with("geocached: --region: is us-east but no broker is named"), "{text}");
}

#[test]
fn a_name_that_is_none_is_refused_by_its_option() {
    let (output, text) = output(&["--region", "US East"]);
    assert!(!output.status.success());
    assert!(text.contains("--region") && text.contains("only a-z"), "{text}");
}

#[test]
fn a_mistake_in_the_configuration_file_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("geocached.toml");
    std::fs::write(&path, "region = \"us-east\"\nregoin = \"eu-central\"\n").unwrap();
    let (output, text) = output(&["--config", &path.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("geocached.toml, line 2, column 1, setting \"regoin\": unknown field"), "{text}");
    let (_, text) = self::output(&["--config", "/nonexistent/geocached.toml"]);
    assert!(text.contains("/nonexistent/geocached.toml: No such file"), "{text}");
}

#[test]
fn an_unreachable_broker_is_an_error_without_its_password() {
    // A port that was free a moment ago refuses the connection.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let amqp = format!("amqp://ann:hunter2@127.0.0.1:{port}");
    let (output, text) = output(&["--region", "us-east", "--amqp", &amqp, "--listen", "0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains(&port.to_string()) && !text.contains("hunter2"), "{text}");
    let (_, text) = self::output(&["--region", "us-east", "--amqp", "ann:hunter2@host", "--listen", "0"]);
    assert!(text.contains("URI") && !text.contains("hunter2"), "{text}");
}

#[test]
fn the_environment_is_between_the_command_line_and_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("geocached.toml");
    std::fs::write(&path, "threads = 0\n").unwrap();
    let run = |file: &Path, environment: &str, arguments: &[&str]| {
        let mut command = geocached(arguments);
        command.env("GEOCACHE_CONFIG", file).env("GEOCACHE_THREADS", environment);
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    assert!(run(&path, "1000", &[]).contains("--threads: is 1000"));
    assert!(run(&path, "1000", &["--threads", "2000"]).contains("--threads: is 2000"));
}

#[test]
fn version_and_help_are_given() {
    let (output, _) = output(&["version"]);
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("geocached 0."));
    let (output, _) = self::output(&["--help"]);
    let help = String::from_utf8(output.stdout).unwrap();
    for word in ["demo", "--region", "--amqp", "--listen", "GEOCACHE_REGION", "Examples:"] {
        assert!(help.contains(word), "{word}");
    }
}
