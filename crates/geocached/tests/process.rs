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

#[cfg(unix)]
#[test]
fn a_signal_ends_it_while_the_broker_is_dialled() {
    // It takes connections and never says a word.
    let broker = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let amqp = format!("amqp://127.0.0.1:{}", broker.local_addr().unwrap().port());
    for signal in ["TERM", "INT"] {
        let node = geocached(&["--region", "us-east", "--amqp", &amqp, "--listen", "0"]).spawn();
        let mut node = Running(node.unwrap());
        let dialled = broker.accept().unwrap();
        node.signal(signal);
        assert_eq!(node.ended().code(), Some(0), "{signal}");
        drop(dialled);
    }
}

/// AMQP's `connection.start`, which makes a client send its password.
const START: &[u8] = b"\x01\0\0\0\0\0\x1c\0\x0a\0\x0a\0\x09\0\0\0\0\0\0\0\x05PLAIN\0\0\0\x05en_US\xce";

/// The library writes the frame with the password into its log at `trace`.
#[test]
fn no_log_level_shows_the_brokers_password() {
    let broker = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let amqp = format!("amqp://ann:hunter2@127.0.0.1:{}", broker.local_addr().unwrap().port());
    for filter in ["trace", "lapin=trace,info"] {
        let options = ["--region", "us-east", "--amqp", &amqp, "--listen", "0", "--log", filter];
        let mut node = Running(geocached(&options).spawn().unwrap());
        let (mut line, _) = broker.accept().unwrap();
        line.set_read_timeout(Some(BOUND)).unwrap();
        line.read_exact(&mut [0; 8]).unwrap();
        line.write_all(START).unwrap();
        let mut sent = Vec::new();
        while !sent.windows(7).any(|bytes| bytes == b"hunter2") {
            let mut bytes = [0; 1024];
            let count = line.read(&mut bytes).unwrap();
            assert!(count > 0, "closed before the password was sent");
            sent.extend_from_slice(&bytes[..count]);
        }
        node.0.kill().unwrap();
        let mut log = String::new();
        node.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        let numbers = b"hunter2".map(|byte| byte.to_string()).join(", ");
        assert!(!log.contains("hunter2") && !log.contains(&numbers), "{filter}: {log}");
    }
}

/// A node with this limit of open files, set by `ulimit`, and its log from the line after the port.
#[cfg(target_os = "linux")]
fn limited(ulimit: &str, connections: &str) -> (Running, u16, impl Iterator<Item = String>) {
    let script =
        format!("ulimit {ulimit}; exec \"$0\" --listen 0 --max-connections {connections} --threads 2");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_geocached")]);
    let mut node = Running(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut log = BufReader::new(node.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut before = Vec::new();
    let serving = loop {
        let line = log.next().unwrap();
        if line.contains("serving") {
            break line;
        }
        before.push(line);
    };
    let port = serving.rsplit(':').next().unwrap().trim().parse().unwrap();
    (node, port, before.into_iter().chain(log))
}

#[cfg(target_os = "linux")]
fn stat(client: &mut TcpStream, name: &str) -> u64 {
    client.set_read_timeout(Some(BOUND)).unwrap();
    client.write_all(b"stats\r\n").unwrap();
    let mut found = None;
    for line in BufReader::new(client).lines().map(Result::unwrap).take_while(|line| line != "END") {
        found = line.strip_prefix(&format!("STAT {name} ")).map(|value| value.parse().unwrap()).or(found);
    }
    found.unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_low_soft_limit_of_files_is_raised_for_the_connections() {
    let (_node, port, _log) = limited("-Sn 100", "200");
    let mut clients: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()).collect();
    assert_eq!(stat(&mut clients[199], "curr_connections"), 200);
    assert_eq!(ask(port, ""), "ERROR Too many open connections\r\n");
}

#[cfg(target_os = "linux")]
#[test]
fn a_low_hard_limit_of_files_lowers_the_connections() {
    let (_node, port, mut log) = limited("-n 100", "200");
    assert!(log.any(|line| line.contains("WARN") && line.contains("allowed=36")), "it is told");
    let mut clients: Vec<TcpStream> =
        (0..36).map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()).collect();
    assert_eq!(stat(&mut clients[35], "max_connections"), 36);
    assert_eq!(ask(port, ""), "ERROR Too many open connections\r\n");
    assert_eq!(stat(&mut clients[0], "rejected_connections"), 1);
}

/// It logged ten lines a second for as long as it lasted.
#[cfg(target_os = "linux")]
#[test]
fn a_system_without_files_is_told_of_once_and_counted() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};

    let (mut node, port, log) = limited("-n 4096", "200");
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    assert_eq!(stat(&mut client, "listen_disabled_num"), 0);
    let pid = Pid::from_child(&node.0);
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(4), maximum: Some(4096) }).unwrap();
    let mut waiting = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let start = Instant::now();
    while stat(&mut client, "listen_disabled_num") < 5 {
        assert!(start.elapsed() < BOUND);
        std::thread::sleep(Duration::from_millis(10));
    }
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(4096), maximum: Some(4096) }).unwrap();
    assert_eq!(stat(&mut waiting, "curr_connections"), 2, "who waited is taken");
    node.signal("TERM");
    assert!(node.ended().success());
    assert_eq!(log.filter(|line| line.contains("cannot accept")).count(), 1);
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = geocached(arguments).envs(variables.iter().copied()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let names = ["AMQP", "NODE", "CONFIG", "THREADS", "LOG", "MEMORY"].map(|name| format!("GEOCACHE_{name}"));
    let empty: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    let (code, text) = run(&["--region", "us-east"], &empty);
    assert!(code == Some(1) && text.contains("no broker is named"), "{text}");
    // Without the empty region it would be refused for having one and no broker.
    let (code, text) = run(&["--threads", "1000"], &[("GEOCACHE_REGION", "")]);
    assert!(code == Some(1) && text.contains("--threads: is 1000"), "{text}");
}

#[test]
fn what_is_no_node_does_not_look_at_a_nodes_variables() {
    for arguments in [&["version"][..], &["demo", "--help"]] {
        let output =
            geocached(arguments).env("GEOCACHE_REGION", "BAD X").env("GEOCACHE_THREADS", "x").output();
        assert!(output.unwrap().status.success(), "{arguments:?}");
    }
    let mut node = geocached(&[]);
    let output = node.env("GEOCACHE_REGION", "BAD X").output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("only a-z"));
}

#[test]
fn a_forgotten_option_does_not_print_the_password() {
    for arguments in [
        &["--region", "a", "--amqp", "amqp://u:hunter2@a", "amqp://u:hunter2@b"][..],
        &["amqp://u:hunter2@b"],
    ] {
        let (output, text) = output(arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(
            text.contains("'amqp://***@b'")
                && text.contains("put --amqp before")
                && !text.contains("hunter2"),
            "{text}"
        );
    }
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
    assert!(text.contains("/nonexistent/geocached.toml cannot be read"), "{text}");
    assert_eq!(text.matches("No such file").count(), 1, "{text}");
}

#[cfg(unix)]
#[test]
fn an_unreachable_broker_is_told_of_without_its_password_and_the_node_serves_alone() {
    // A port that was free a moment ago refuses the connection.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let amqp = format!("amqp://ann:hunter2@127.0.0.1:{port}");
    let mut node =
        Running(geocached(&["--region", "us-east", "--amqp", &amqp, "--listen", "0"]).spawn().unwrap());
    let mut seen = Vec::new();
    let mut log = BufReader::new(node.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut line_with = |what: &str| {
        let line = log.by_ref().inspect(|line| seen.push(line.clone())).find(|line| line.contains(what));
        line.unwrap_or_else(|| panic!("no line with {what:?} in {seen:?}"))
    };
    assert!(line_with("serving alone").contains(&port.to_string()));
    let serving = line_with("serving memcached clients");
    let own = serving.rsplit(':').next().unwrap().trim().parse().unwrap();
    assert_eq!(ask(own, "set k 0 0 1\r\na\r\nget k\r\nquit\r\n"), "STORED\r\nVALUE k 0 1\r\na\r\nEND\r\n");
    node.signal("TERM");
    // It may have a write that no broker took, which it says by how it ends.
    node.ended();
    seen.extend(log);
    assert!(!seen.iter().any(|line| line.contains("hunter2")), "{seen:?}");
}

#[test]
fn what_is_no_uri_is_an_error_without_its_password() {
    let (output, text) = output(&["--region", "us-east", "--amqp", "ann:hunter2@host", "--listen", "0"]);
    assert_eq!(output.status.code(), Some(1));
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
