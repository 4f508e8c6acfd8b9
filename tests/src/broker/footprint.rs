//! Finds every process of one broker, by a mark in its environment.
//!
//! A broker is a shell script, a virtual machine, a few helpers and a port mapper that outlives them all. Each inherits
//! the environment of the first, so the mark finds them all; process groups and pid files do not (the port mapper and
//! the helpers leave the group, and a pid may be someone else's by now).

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// The variable that marks the processes of the broker whose folder it holds.
pub(super) const MARK: &str = "GEOCACHE_BROKER_FOLDER";

const GONE_BOUND: Duration = Duration::from_secs(10);

/// The processes marked with `folder` that run now.
pub(super) fn processes(folder: &Path) -> Vec<Pid> {
    let mark = format!("{MARK}={}", folder.display());
    if Path::new("/proc/self/environ").exists() { in_proc(&mark) } else { in_ps(&mark) }
}

/// Sends a signal to each of them.
pub(super) fn signal(folder: &Path, signal: Signal) {
    for pid in processes(folder) {
        // One that is gone by now needs no signal.
        let _ = kill_process(pid, signal);
    }
}

/// Kills them until none is left. One that was just being started shows up in a later look.
pub(super) fn kill_all(folder: &Path) -> Result<()> {
    let start = Instant::now();
    loop {
        let left = processes(folder);
        if left.is_empty() {
            return Ok(());
        }
        if start.elapsed() > GONE_BOUND {
            bail!("processes {left:?} of {} are still there {GONE_BOUND:?} after SIGKILL", folder.display());
        }
        signal(folder, Signal::KILL);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A process that is ending shows an empty environment; one of another user cannot be read. Neither is ours to end.
fn in_proc(mark: &str) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            let environment = fs::read(entry.path().join("environ")).ok()?;
            environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes()).then_some(pid)
        })
        .collect()
}

/// Elsewhere (macOS) `ps` shows the environment of one's own processes after the command.
fn in_ps(mark: &str) -> Vec<Pid> {
    let Ok(shown) = Command::new("ps").args(["-A", "-E", "-ww", "-o", "pid=,command="]).output() else {
        return Vec::new();
    };
    String::from_utf8_lossy(&shown.stdout)
        .lines()
        .filter_map(|line| {
            let (pid, rest) = line.trim_start().split_once(' ')?;
            let pid = Pid::from_raw(pid.parse().ok()?)?;
            rest.split(' ').any(|word| word == mark).then_some(pid)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_processes_are_found_and_killed_and_others_are_not() {
        let folder = std::env::temp_dir().join(crate::unique_name("footprint"));
        let start = |folder: &Path| {
            Command::new("sh")
                .args(["-c", "read line"])
                .env(MARK, folder)
                .stdin(std::process::Stdio::piped())
                .spawn()
        };
        let mut ours = start(&folder).unwrap();
        let mut other = start(&folder.join("x")).unwrap();
        assert_eq!(processes(&folder), [Pid::from_child(&ours)]);
        kill_all(&folder).unwrap();
        assert!(!ours.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none(), "the other broker's process was hit");
        drop(other.stdin.take());
        other.wait().unwrap();
    }
}
