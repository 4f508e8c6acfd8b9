//! Children, each in a process group of its own, all ended when xtask is told to end.
//!
//! A terminal's Ctrl-C reaches only the foreground group, which is xtask's alone; its handler then asks every group to
//! end (SIGTERM), so that xtask decides what ends in which order, and the same holds for a SIGTERM sent to xtask only.
//! A second signal kills them. The children read no standard input.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

static SIGNALS: AtomicU32 = AtomicU32::new(0);
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// From now on SIGINT, SIGTERM and SIGHUP end every child, and with them what xtask does.
///
/// # Errors
/// When the handler cannot be set.
pub(crate) fn end_all_on_signals() -> Result<()> {
    ctrlc::set_handler(|| {
        let first = SIGNALS.fetch_add(1, Ordering::SeqCst) == 0;
        signal_all(if first { Signal::TERM } else { Signal::KILL });
    })
    .context("could not listen for signals")
}

/// Whether a signal told xtask to end.
pub(crate) fn interrupted() -> bool {
    SIGNALS.load(Ordering::SeqCst) > 0
}

fn signal_all(signal: Signal) {
    for &group in GROUPS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        // A group that is gone needs no signal.
        let _ = kill_process_group(group, signal);
    }
}

/// A running child, asked to end and reaped when it is dropped before its end was seen.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    group: Pid,
}

impl Running {
    /// Starts `command` in a group of its own, with the streams that it was given.
    ///
    /// # Errors
    /// When it cannot be started, or xtask is ending.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let mut groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: a child is either listed before the handler looks, or not started.
        if interrupted() {
            bail!("interrupted");
        }
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("could not start `{}`", shown(command)))?;
        let group = Pid::from_child(&child);
        groups.push(group);
        Ok(Self { child, group })
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it did not succeed.
    pub(crate) fn succeed(mut self, what: &str) -> Result<()> {
        let status = self.child.wait()?;
        judge(what, status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process_group(self.group, Signal::TERM);
            let _ = self.child.wait();
        }
        GROUPS.lock().unwrap_or_else(PoisonError::into_inner).retain(|&group| group != self.group);
    }
}

fn judge(what: &str, status: ExitStatus) -> Result<()> {
    if interrupted() {
        bail!("interrupted");
    }
    if !status.success() {
        bail!("`{what}` failed ({status})");
    }
    Ok(())
}

/// Runs a command whose output people read.
///
/// # Errors
/// When it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let what = shown(command);
    Running::start(command.stdin(Stdio::null()))?.succeed(&what)
}

/// Runs a command that says little; what it said on its standard output.
///
/// # Errors
/// When it fails, with what it said on its standard error.
pub(crate) fn captured(command: &mut Command) -> Result<String> {
    let what = shown(command);
    let mut running =
        Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let mut stderr = running.child().stderr.take().context("the child has no standard error")?;
    // Both are read at once: a full pipe stops the child.
    let told = thread::spawn(move || {
        let mut told = Vec::new();
        let _ = stderr.read_to_end(&mut told);
        String::from_utf8_lossy(&told).trim().trim_start_matches("error: ").to_owned()
    });
    let mut said = Vec::new();
    running.child().stdout.take().context("the child has no standard output")?.read_to_end(&mut said)?;
    let told = told.join().unwrap_or_default();
    running.succeed(&what).with_context(|| told)?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// Runs a command, shows its standard output and gives it to `each`, line by line; killed at `bound`.
///
/// # Errors
/// When it fails or takes longer than `bound`.
pub(crate) fn run_reading(command: &mut Command, bound: Duration, mut each: impl FnMut(&str)) -> Result<()> {
    let what = shown(command);
    let mut running = Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let stdout = running.child().stdout.take().context("the child has no standard output")?;
    let group = running.group;
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let overtime = thread::spawn(move || {
        let over = ended.recv_timeout(bound) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if over {
            let _ = kill_process_group(group, Signal::KILL);
        }
        over
    });
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        each(&line);
    }
    drop(end);
    let over = overtime.join().unwrap_or(false);
    let result = running.succeed(&what);
    if over {
        bail!("`{what}` took longer than {bound:?} and was killed");
    }
    result
}

/// Waits until `condition` holds.
///
/// # Errors
/// After `bound`, or when xtask is ending.
pub(crate) fn wait_until(
    what: &str,
    bound: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let start = Instant::now();
    while !condition()? {
        if interrupted() {
            bail!("interrupted");
        }
        if start.elapsed() > bound {
            bail!("waited {bound:?} in vain until {what}");
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A cargo command, at the root of the workspace. The arguments are split at blanks. On a build machine Cargo.lock must
/// fit the manifests as it is, or what is tested is not what was committed.
pub(crate) fn cargo(arguments: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(locked(arguments, on_build_machine())).current_dir(crate::workspace::root());
    command
}

/// Whether `CI` says so, as build machines do.
pub(crate) fn on_build_machine() -> bool {
    std::env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1")
}

/// `--locked` goes right after the subcommand, before the arguments of the program that it runs; `fmt` has no such option.
fn locked(arguments: &str, locked: bool) -> Vec<&str> {
    let mut words: Vec<&str> = arguments.split_whitespace().collect();
    if locked && words.first().is_some_and(|&subcommand| subcommand != "fmt") {
        words.insert(1, "--locked");
    }
    words
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    let variables = command.get_envs().filter_map(|(name, value)| {
        let (name, value) = (name.to_string_lossy(), value?.to_string_lossy());
        // A URL may hold a password.
        Some(if name.ends_with("_URL") { format!("{name}=…") } else { format!("{name}='{value}'") })
    });
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    variables.chain([program]).chain(words).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn lines_are_read_and_a_failure_is_told() {
        let mut lines = Vec::new();
        let keep = |line: &str| lines.push(line.to_owned());
        run_reading(&mut sh("echo one; echo two"), Duration::from_secs(20), keep).unwrap();
        assert_eq!(lines, ["one", "two"]);
        let error = run(&mut sh("exit 3")).unwrap_err().to_string();
        assert!(error.contains("sh -c exit 3") && error.contains("status: 3"), "{error}");
    }

    #[test]
    fn a_command_past_its_bound_is_killed() {
        let error = run_reading(&mut sh("sleep 600"), Duration::from_millis(50), |_| {}).unwrap_err();
        assert!(error.to_string().contains("took longer"), "{error}");
    }

    #[test]
    fn on_a_build_machine_cargo_may_not_change_the_lock_file() {
        let words = locked("run --quiet --bin broker -- run", true);
        assert_eq!(words, ["run", "--locked", "--quiet", "--bin", "broker", "--", "run"]);
        assert_eq!(locked("fmt --all -- --check", true), ["fmt", "--all", "--", "--check"]);
        assert_eq!(locked("check", false), ["check"]);
    }

    #[test]
    fn a_url_variable_is_not_shown() {
        let mut command = sh("x");
        command.env("GEOCACHE_AMQP_URL", "amqp://user:secret@host").env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(shown(&command), "GEOCACHE_AMQP_URL=… RUSTDOCFLAGS='-D warnings' sh -c x");
    }
}
