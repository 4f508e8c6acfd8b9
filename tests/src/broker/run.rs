//! Runs a command to a bound, its output captured, and gives up at once when the supervisor is to end.

use std::{
    io::Read,
    process::{Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Set when everything is to end: waits give up.
pub(super) type Ending = AtomicBool;

/// Runs `command`; its output, both streams together, if it succeeds.
///
/// # Errors
/// When it cannot be started, fails (with its output), or is killed at the bound or because everything ends.
pub(super) fn captured(mut command: Command, bound: Duration, ending: &Ending) -> Result<String> {
    let shown = shown(&command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start `{shown}`"))?;
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let status = wait(&mut child, bound, ending).with_context(|| format!("`{shown}`"))?;
    let mut output = String::new();
    for part in [stdout, stderr].into_iter().flatten() {
        output.push_str(&part.join().unwrap_or_default());
    }
    if !status.success() {
        bail!("`{shown}` failed ({status}): {}", output.trim());
    }
    Ok(output)
}

/// Runs `command` with its output on standard error, which people read.
///
/// # Errors
/// As [`captured`].
pub(super) fn shown_to_people(mut command: Command, bound: Duration, ending: &Ending) -> Result<()> {
    let shown = shown(&command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .spawn()
        .with_context(|| format!("could not start `{shown}`"))?;
    let status = wait(&mut child, bound, ending).with_context(|| format!("`{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

fn wait(child: &mut std::process::Child, bound: Duration, ending: &Ending) -> Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let ended = ending.load(Ordering::Relaxed);
        if ended || start.elapsed() > bound {
            child.kill()?;
            child.wait()?;
            bail!(
                "{}",
                if ended { "given up, for everything ends".into() } else { format!("took over {bound:?}") }
            );
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn collect(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
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
    fn output_comes_back_and_a_failure_shows_it() {
        let going = Ending::new(false);
        assert_eq!(captured(sh("echo yes"), Duration::from_secs(10), &going).unwrap(), "yes\n");
        let error = captured(sh("echo why >&2; exit 3"), Duration::from_secs(10), &going).unwrap_err();
        assert!(format!("{error:#}").contains("3): why"), "{error:#}");
    }

    #[test]
    fn a_command_is_killed_at_its_bound_and_when_everything_ends() {
        let error =
            captured(sh("exec sleep 60"), Duration::from_millis(30), &Ending::new(false)).unwrap_err();
        assert!(format!("{error:#}").contains("took over 30ms"), "{error:#}");
        let error = captured(sh("exec sleep 60"), Duration::from_secs(60), &Ending::new(true)).unwrap_err();
        assert!(format!("{error:#}").contains("everything ends"), "{error:#}");
    }
}
