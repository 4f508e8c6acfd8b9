//! A standalone geocached against `memccapable`, the protocol suite of libmemcached.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    child::{Running, cargo, run, run_reading, wait_until},
    workspace::Workspace,
};

const LISTEN_BOUND: Duration = Duration::from_secs(30);
const SUITE_BOUND: Duration = Duration::from_secs(300);
const STATS_BYTES_MAX: u64 = 1 << 20;
/// The region that a standalone daemon names.
const STANDALONE_REGION: &str = "local";
const SUITE: &str = "memccapable";
/// How many text tests Debian's memccapable has.
const TEXT_TESTS: usize = 27;

/// Runs all text tests; `cargo xtask conformance`.
///
/// # Errors
/// When one fails, or fewer run than the suite has, or the suite cannot be had.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    provide_suite()?;
    run(&mut cargo("build --quiet --package tests --bin broker --package geocached --bin geocached"))?;
    let port = free_port()?;
    let daemon = workspace.binary("geocached");
    // The minder kills the daemon when xtask ends, however it ends, and withholds the caller's GEOCACHE_… settings from
    // it: with a region and a broker among them the suite's flush would empty a live cluster.
    let mut command = Command::new(workspace.binary("broker"));
    command.args(["mind", "--"]).arg(&daemon).args(["--listen", &format!("127.0.0.1:{port}")]);
    let mut minder = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let mut printed = BufReader::new(minder.child().stdout.take().context("no standard output")?);
    let mut pid = String::new();
    printed.read_line(&mut pid)?;
    // Read on, or a full pipe would stop the daemon.
    thread::spawn(move || io::copy(&mut printed, &mut io::sink()));
    wait_until(&format!("geocached listens on port {port}"), LISTEN_BOUND, || {
        if let Some(status) = minder.child().try_wait()? {
            bail!("geocached ended ({status}) before it listened on port {port}");
        }
        Ok(TcpStream::connect(("127.0.0.1", port)).is_ok())
    })?;
    ours_alone(&stats(port)?, pid.trim())?;
    let mut suite = Command::new(SUITE);
    suite.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-a"]);
    let (mut passed, mut failed) = (0, 0);
    run_reading(&mut suite, SUITE_BOUND, |line| {
        passed += usize::from(line.contains("[pass]"));
        failed += usize::from(line.contains("[FAIL]"));
    })?;
    if let Some(status) = minder.child().try_wait()? {
        bail!("geocached ended ({status}) during the suite");
    }
    println!("memccapable: {passed} text tests passed, {failed} failed");
    if failed > 0 || passed < TEXT_TESTS {
        bail!("memccapable has {TEXT_TESTS} text tests; {passed} passed and {failed} failed");
    }
    Ok(())
}

/// The lines of the answer to `stats`.
fn stats(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LISTEN_BOUND))?;
    stream.write_all(b"stats\r\nquit\r\n")?;
    let mut answer = String::new();
    stream.take(STATS_BYTES_MAX).read_to_string(&mut answer).context("no answer to stats")?;
    Ok(answer)
}

/// The suite flushes what it talks to, so that must be the daemon just started (another program may have taken the port
/// in between), and one that replicates to nobody.
fn ours_alone(stats: &str, pid: &str) -> Result<()> {
    let stat = |name: &str| {
        let prefix = format!("STAT {name} ");
        stats.lines().find_map(|line| line.trim_end().strip_prefix(&prefix))
    };
    if stat("pid") != Some(pid) {
        bail!("it is not the daemon of this run (process {pid}) that answers; it says: {stats:?}");
    }
    if stat("replication_region") != Some(STANDALONE_REGION) {
        bail!(
            "the daemon is not a standalone one, so the suite, which flushes it, was not run; it says: {stats:?}"
        );
    }
    Ok(())
}

/// Where memccapable would come from: what can be said before anything is built.
///
/// # Errors
/// When memccapable is neither there nor can be installed here, with what to do.
pub(crate) fn suite_can_be_had() -> Result<&'static str> {
    if on_path(SUITE) {
        return Ok("installed");
    }
    let debian = Path::new("/etc/debian_version").exists();
    if debian && rustix::process::geteuid().is_root() && on_path("apt-get") {
        return Ok("apt-get will install it");
    }
    bail!(
        "memccapable is not on PATH; install it (Debian and Ubuntu: apt-get install libmemcached-tools; elsewhere it is \
         part of libmemcached)"
    );
}

fn provide_suite() -> Result<()> {
    suite_can_be_had()?;
    if on_path(SUITE) {
        return Ok(());
    }
    println!("no memccapable found: installing libmemcached-tools with apt-get");
    if apt("install --no-install-recommends libmemcached-tools").is_err() {
        apt("update")?;
        apt("install --no-install-recommends libmemcached-tools")?;
    }
    if !on_path(SUITE) {
        bail!("apt-get succeeded, yet memccapable is not on PATH");
    }
    Ok(())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn apt(arguments: &str) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(["-y", "-q", "-o", "DPkg::Lock::Timeout=120"]).args(arguments.split(' '));
    run(command.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no loopback port is free")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A developer's exported settings made the daemon a member of a live cluster, and the suite emptied that.
    #[test]
    fn the_suite_is_let_at_this_runs_standalone_daemon_alone() {
        ours_alone("STAT pid 7\r\nSTAT replication_region local\r\nEND\r\n", "7").unwrap();
        let other = ours_alone("STAT pid 77\r\nSTAT replication_region local\r\nEND\r\n", "7").unwrap_err();
        assert!(other.to_string().contains("process 7"), "{other}");
        let member = ours_alone("STAT pid 7\r\nSTAT replication_region us-east\r\nEND\r\n", "7").unwrap_err();
        assert!(member.to_string().contains("not a standalone"), "{member}");
        assert!(ours_alone("ERROR\r\n", "7").is_err());
    }
}
