//! Finds every process of one broker, by a mark in its environment.
//!
//! A broker is a shell script, a virtual machine, a few helpers and a port mapper that outlives them all. Each inherits
//! the environment of the first, so the mark finds them all; process groups and pid files do not (the port mapper and
//! the helpers leave the group, and a pid may be someone else's by now).
//!
//! A container's processes are not to be seen from here, so of a broker in a container the engine is asked.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::container::Named;

/// What one broker has on this machine: how a test tells whether it is gone.
#[derive(Debug, Clone)]
pub struct Footprint {
    folder: PathBuf,
    container: Option<Named>,
}

impl Footprint {
    /// That of the broker whose folder this is. The folder names the container, so this is for while it exists.
    pub fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), container: Named::in_folder(folder) }
    }

    /// The engine whose container the broker is; `None` where it is processes of this machine.
    pub fn engine(&self) -> Option<&str> {
        self.container.as_ref().map(|container| container.engine.as_str())
    }

    /// The names of what runs: the broker's processes, its helpers' and its port mapper's, or its container.
    ///
    /// # Errors
    /// When the engine does not say.
    pub fn running(&self) -> Result<Vec<String>> {
        match &self.container {
            None => Ok(processes(&self.folder).into_iter().map(name_of).collect()),
            Some(container) => Ok(container.runs()?.then(|| container.name.clone()).into_iter().collect()),
        }
    }

    /// The names of all that is left: what runs, a container that ended, the folder.
    ///
    /// # Errors
    /// When the engine does not say.
    pub fn left(&self) -> Result<Vec<String>> {
        let mut left = match &self.container {
            None => self.running()?,
            Some(container) => container.exists()?.then(|| container.name.clone()).into_iter().collect(),
        };
        left.extend(self.folder.exists().then(|| self.folder.display().to_string()));
        Ok(left)
    }
}

/// The variable that marks the processes of the broker whose folder it holds. The members of a cluster have folders
/// within the cluster's, so what is asked of that folder is asked of them all.
pub(super) const MARK: &str = "GEOCACHE_BROKER_FOLDER";

const GONE_BOUND: Duration = Duration::from_secs(10);

/// The processes marked with `folder`, or with one within it, that run now.
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

/// Kills them until two looks in a row find none: one that is just becoming another program shows no environment for a moment.
pub(super) fn kill_all(folder: &Path) -> Result<()> {
    let start = Instant::now();
    let mut was_empty = false;
    loop {
        let left = processes(folder);
        if left.is_empty() && was_empty {
            return Ok(());
        }
        was_empty = left.is_empty();
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
            environment
                .split(|&byte| byte == 0)
                .any(|variable| is_marked(variable, mark.as_bytes()))
                .then_some(pid)
        })
        .collect()
}

fn is_marked(variable: &[u8], mark: &[u8]) -> bool {
    variable.strip_prefix(mark).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
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
            rest.split(' ').any(|word| is_marked(word.as_bytes(), mark.as_bytes())).then_some(pid)
        })
        .collect()
}

/// The name of a process's program; empty if the process is gone.
fn name_of(pid: Pid) -> String {
    let pid = pid.as_raw_nonzero();
    let shown = fs::read_to_string(format!("/proc/{pid}/comm")).or_else(|_| {
        let shown = Command::new("ps").args(["-o", "comm=", "-p", &pid.to_string()]).output()?;
        std::io::Result::Ok(String::from_utf8_lossy(&shown.stdout).into_owned())
    });
    // Where ps shows a path.
    shown.unwrap_or_default().trim().rsplit('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A broker in a container was looked for among this machine's processes, where it never is.
    #[test]
    fn a_container_is_asked_after_at_its_engine() {
        let folder = std::env::temp_dir().join(crate::unique_name("footprint"));
        fs::create_dir(&folder).unwrap();
        let engine = folder.join("engine");
        let answers = |script: &str| {
            // Put in place whole: a file still open for writing cannot be run.
            fs::write(folder.join("new"), format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(folder.join("new"), fs::Permissions::from_mode(0o755)).unwrap();
            fs::rename(folder.join("new"), &engine).unwrap();
        };
        fs::write(folder.join("container"), format!("{} ours", engine.display())).unwrap();
        let footprint = Footprint::of(&folder);
        assert_eq!(footprint.engine(), engine.to_str());
        answers("echo ours-too; echo ours");
        assert_eq!(footprint.running().unwrap(), ["ours"]);
        answers("echo ours-too; if [ \"$2\" = --all ]; then echo ours; fi");
        assert!(footprint.running().unwrap().is_empty());
        assert_eq!(footprint.left().unwrap(), ["ours", folder.to_str().unwrap()]);
        answers("echo is the engine there >&2; exit 1");
        assert!(footprint.left().is_err(), "no answer is not the answer that nothing is left");
        answers("echo ours-too");
        assert_eq!(footprint.left().unwrap(), [folder.to_str().unwrap()]);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn marked_processes_are_found_and_killed_with_those_within_and_others_are_not() {
        let folder = std::env::temp_dir().join(crate::unique_name("footprint"));
        let start = |folder: &Path| {
            Command::new("sh")
                .args(["-c", "read line"])
                .env(MARK, folder)
                .stdin(std::process::Stdio::piped())
                .spawn()
        };
        let mut ours = start(&folder).unwrap();
        let member_folder = folder.join("c1");
        let mut member = start(&member_folder).unwrap();
        let mut name = folder.clone().into_os_string();
        name.push("x");
        let mut other = start(name.as_ref()).unwrap();
        // A process that has just been started may not show its environment yet.
        let began = Instant::now();
        while processes(&folder).len() < 2 && began.elapsed() < GONE_BOUND {
            std::thread::yield_now();
        }
        assert_eq!(processes(&member_folder), [Pid::from_child(&member)]);
        let mut both = [Pid::from_child(&ours), Pid::from_child(&member)];
        let mut found = processes(&folder);
        both.sort_by_key(|pid| pid.as_raw_nonzero());
        found.sort_by_key(|pid| pid.as_raw_nonzero());
        assert_eq!(found, both);
        kill_all(&member_folder).unwrap();
        assert!(!member.wait().unwrap().success());
        assert_eq!(Footprint::of(&folder).left().unwrap(), [name_of(Pid::from_child(&ours))]);
        kill_all(&folder).unwrap();
        assert!(!ours.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none(), "the other broker's process was hit");
        drop(other.stdin.take());
        other.wait().unwrap();
    }
}
