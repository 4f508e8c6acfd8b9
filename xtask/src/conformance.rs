//! A standalone geocached against `memccapable`, the protocol suite of libmemcached.

use std::{
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    child::{Running, cargo, run, run_reading, wait_until},
    workspace::Workspace,
};

const LISTEN_BOUND: Duration = Duration::from_secs(30);
const SUITE_BOUND: Duration = Duration::from_secs(300);
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
    // The minder kills the daemon when xtask ends, however it ends.
    let mut command = Command::new(workspace.binary("broker"));
    command.args(["mind", "--"]).arg(&daemon).args(["--listen", &format!("127.0.0.1:{port}")]);
    let mut minder = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::null()))?;
    wait_until(&format!("geocached listens on port {port}"), LISTEN_BOUND, || {
        if let Some(status) = minder.child().try_wait()? {
            bail!("geocached ended ({status}) before it listened on port {port}");
        }
        Ok(TcpStream::connect(("127.0.0.1", port)).is_ok())
    })?;
    let mut suite = Command::new("memccapable");
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

fn provide_suite() -> Result<()> {
    if on_path() {
        return Ok(());
    }
    if !Path::new("/etc/debian_version").exists() || !rustix::process::geteuid().is_root() {
        bail!(
            "memccapable is not on PATH; install it (Debian and Ubuntu: apt-get install libmemcached-tools; \
             elsewhere it is part of libmemcached)"
        );
    }
    println!("no memccapable found: installing libmemcached-tools with apt-get");
    if apt("install --no-install-recommends libmemcached-tools").is_err() {
        apt("update")?;
        apt("install --no-install-recommends libmemcached-tools")?;
    }
    if !on_path() {
        bail!("apt-get succeeded, yet memccapable is not on PATH");
    }
    Ok(())
}

fn on_path() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("memccapable").is_file())
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
