//! A broker for the developer's own use: `broker up`, `broker status`, `broker down`.
//!
//! It is the same supervisor, detached from the terminal and ended by a signal. `target/broker/up.json` says where it is.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{URL_VARIABLE, handshake, protocol::Reply, supervisor::root};

const DOWN_BOUND: Duration = Duration::from_secs(60);

/// Starts a broker that outlives the caller, or finds the one that runs; its URL.
///
/// # Errors
/// As [`Broker::start`](super::Broker::start).
pub fn up() -> Result<String> {
    if let Some(running) = running()? {
        return running.url.context("the state file names no url");
    }
    fs::create_dir_all(root())?;
    let log = root().join("up.log");
    let mut child = Command::new(std::env::current_exe()?)
        .args(["run", "--private", "--until-signal"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&log)?)
        .process_group(0)
        .spawn()?;
    let mut line = String::new();
    let stdout = child.stdout.take().context("the supervisor has no standard output")?;
    BufReader::new(stdout).read_line(&mut line)?;
    let reply: Reply = serde_json::from_str(&line)
        .with_context(|| format!("the supervisor ended without an answer; see {}", log.display()))?;
    if let Some(error) = reply.error {
        return Err(anyhow!(error));
    }
    fs::write(state_file(), &line)?;
    reply.url.context("the supervisor named no url")
}

/// Ends the broker that `up` started; whether there was one.
///
/// # Errors
/// When it does not end within 60 s.
pub fn down() -> Result<bool> {
    let Some(running) = running()? else { return Ok(false) };
    let pid = running.pid.and_then(|pid| Pid::from_raw(pid.cast_signed()));
    let folder = running.folder.context("the state file names no folder")?;
    kill_process(pid.context("the state file names no process")?, Signal::TERM)?;
    let start = Instant::now();
    while folder.exists() {
        if start.elapsed() > DOWN_BOUND {
            bail!("the broker in {} did not end within {DOWN_BOUND:?}", folder.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::remove_file(state_file())?;
    Ok(true)
}

/// What to tell about it, if one runs.
///
/// # Errors
/// When the state file cannot be read.
pub fn status() -> Result<Option<String>> {
    Ok(running()?.map(|running| {
        let answers = running.addr.is_some_and(handshake::answers);
        format!(
            "{} {}\nfrom {}, supervised by process {}, in {}\nexport {URL_VARIABLE}={}",
            "the broker is up and",
            if answers { "answers" } else { "does not answer" },
            running.source.unwrap_or_default(),
            running.pid.unwrap_or_default(),
            running.folder.unwrap_or_default().display(),
            running.url.unwrap_or_default(),
        )
    }))
}

/// The state of the broker that runs. Its folder exists for as long as its supervisor does not end it; the supervisor
/// is the one in the state file if it still holds the lock there.
fn running() -> Result<Option<Reply>> {
    let text = match fs::read_to_string(state_file()) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(format!("could not read {}", state_file().display())),
    };
    let state: Reply = serde_json::from_str(&text)
        .with_context(|| format!("{} is damaged; remove it", state_file().display()))?;
    let held = state.folder.as_ref().is_some_and(|folder| super::supervisor::is_held(folder));
    Ok(held.then_some(state))
}

fn state_file() -> PathBuf {
    root().join("up.json")
}
