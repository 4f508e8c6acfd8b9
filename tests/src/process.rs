//! A program as a black box, ended with the test however the test ends.
//!
//! Like a broker, a program is not a direct child of the test but of the `broker` binary (`broker mind -- program …`),
//! which kills it when the pipe to the test closes: a `Drop` alone would leave it behind when the test is killed.
//! The last 5,000 lines that it printed are kept, and shown when a wait for it fails.
//!
//! A program is deaf to the settings of whoever runs the tests: of the variables `GEOCACHE_…` it gets those that the test
//! passes and no other. A developer's `GEOCACHE_REGION` and `GEOCACHE_AMQP` would make a daemon under test join, and
//! flush, the cluster that they name.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use std::time::Duration;
//! use tests::{memcached::Memcached, process::{Process, free_ports, geocached}};
//!
//! let addr = ([127, 0, 0, 1], free_ports(1)).into();
//! let daemon = Process::spawn(&geocached()?, &["--listen", &format!("{addr}")])?;
//! daemon.wait_for_port(addr, Duration::from_secs(30)).await;
//! Memcached::connect(addr).await?.set("greeting", b"hello", 60).await?;
//! # Ok(())
//! # }
//! ```

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        mpsc::{RecvTimeoutError, channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;

use crate::{broker::program, wait_until};

/// The variable that names a built daemon, in place of the one that cargo builds.
pub const GEOCACHED_VARIABLE: &str = "GEOCACHE_TEST_GEOCACHED";

/// What the names of the daemon's settings in the environment begin with.
const SETTING_PREFIX: &str = "GEOCACHE_";
const LOG_LINES_MAX: usize = 5_000;
/// How long a process may take to stop.
const FREEZE_BOUND: Duration = Duration::from_secs(20);
/// Prints its own process id, then becomes the program.
const ANNOUNCE: &str = r#"echo "$$"; exec "$0" "$@""#;

/// A running program; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    minder: Mutex<Child>,
    orders: Option<ChildStdin>,
    log: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    /// Starts `program`, with no standard input.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(program: &Path, arguments: &[&str]) -> Result<Self> {
        Self::spawn_with(program, arguments, &[])
    }

    /// Starts `program` with additional environment variables; of those named `GEOCACHE_…`, with these alone.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_with(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        if !program.is_file() {
            bail!("there is no program {}", program.display());
        }
        let mut minder = Command::new(self::program()?)
            .arg("mind")
            .args(environment.iter().flat_map(|(name, _)| ["--keep", name]))
            .arg("--")
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let orders = minder.stdin.take();
        let mut stdout = BufReader::new(minder.stdout.take().context("the minder has no standard output")?);
        let mut first = String::new();
        stdout.read_line(&mut first)?;
        let pid = first.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("{} was not started: {first:?}", program.display()))?;
        let log = Arc::default();
        keep(stdout, &log);
        keep(minder.stderr.take().context("the minder has no standard error")?, &log);
        Ok(Self { pid, minder: Mutex::new(minder), orders, log })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// The last 5,000 lines that it printed, both streams together.
    pub fn log(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Waits for a line that contains `part`, printed before or from now on, and returns it.
    ///
    /// # Panics
    /// When there is none within `bound`, with what it printed.
    pub async fn wait_for_line(&self, part: &str, bound: Duration) -> String {
        let find = || self.log().lines().find(|line| line.contains(part)).map(str::to_owned);
        let found = tokio::time::timeout(
            bound,
            wait_until("the line is there", Duration::MAX, async || find().is_some()),
        );
        let _ = found.await;
        find()
            .unwrap_or_else(|| panic!("no line with {part:?} within {bound:?}; it printed:\n{}", self.log()))
    }

    /// Waits until it accepts connections at `addr`.
    ///
    /// # Panics
    /// When it does not within `bound`, or ends instead, with what it printed.
    pub async fn wait_for_port(&self, addr: SocketAddr, bound: Duration) {
        let listening = wait_until("it listens or ends", Duration::MAX, async || {
            TcpStream::connect(addr).await.is_ok() || self.ended().is_some()
        });
        let in_time = tokio::time::timeout(bound, listening).await.is_ok();
        if let Some(status) = self.ended() {
            panic!("it ended ({status}) before it listened on {addr}; it printed:\n{}", self.log());
        }
        assert!(in_time, "it did not listen on {addr} within {bound:?}; it printed:\n{}", self.log());
    }

    /// Waits for its end and returns its exit code, or 128 and the signal that ended it.
    ///
    /// # Panics
    /// When it still runs after `bound`, with what it printed.
    pub async fn exit_code(&self, bound: Duration) -> i32 {
        let ends = wait_until("it ends", Duration::MAX, async || self.ended().is_some());
        let in_time = tokio::time::timeout(bound, ends).await.is_ok();
        assert!(in_time, "it did not end within {bound:?}; it printed:\n{}", self.log());
        self.ended().and_then(|status| status.code()).unwrap_or(-1)
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.ended().is_some()
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn kill_9(&self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// SIGTERM: the order to end in good order.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// SIGSTOP: it keeps its connections and does nothing. Returns when each of its threads has stopped, which on a busy machine
    /// takes a moment; where the system has no `/proc`, at once.
    ///
    /// # Errors
    /// When it is gone already, or does not stop.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let start = Instant::now();
        while has_running_thread(self.pid()) {
            if start.elapsed() > FREEZE_BOUND {
                bail!("process {} was told to stop and still runs after {FREEZE_BOUND:?}", self.pid());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// SIGCONT: a frozen one goes on.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Its pid may be another's once the minder saw it end.
    fn signal(&self, signal: Signal) -> Result<()> {
        if let Some(status) = self.ended() {
            bail!("process {} ended before ({status})", self.pid());
        }
        kill_process(self.pid, signal).with_context(|| format!("could not signal process {}", self.pid()))
    }

    fn ended(&self) -> Option<ExitStatus> {
        self.minder.lock().unwrap_or_else(PoisonError::into_inner).try_wait().ok().flatten()
    }
}

/// Whether a thread of a process is not stopped, as far as `/proc` tells.
fn has_running_thread(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut states = threads.filter_map(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
        // The state follows the name, which is in brackets.
        stat.rsplit_once(") ")?.1.chars().next()
    });
    states.any(|state| !matches!(state, 'T' | 'Z' | 'X'))
}

impl Drop for Process {
    fn drop(&mut self) {
        self.orders = None;
        // The minder kills and ends within a few milliseconds.
        let _ = self.minder.get_mut().unwrap_or_else(PoisonError::into_inner).wait();
    }
}

fn keep(stream: impl Read + Send + 'static, log: &Arc<Mutex<VecDeque<String>>>) {
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            if log.len() == LOG_LINES_MAX {
                log.pop_front();
            }
            log.push_back(String::from_utf8_lossy(&line).into_owned());
        }
    });
}

/// Runs a program that ends with this process's standard input, or at a signal; the body of `broker mind`. The program
/// gets this process's environment without the variables `GEOCACHE_…`, save those that are `kept` by name.
///
/// # Errors
/// When it cannot be started.
pub fn mind(program: &[String], kept: &[String]) -> Result<ExitCode> {
    let (end, ended) = channel();
    let at_signal = end.clone();
    ctrlc::set_handler(move || at_signal.send(()).unwrap_or_default())
        .context("could not listen for signals")?;
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = end.send(());
    });
    let mut command = Command::new("sh");
    command.args(["-c", ANNOUNCE]).args(program).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let shown = name.to_string_lossy();
        if shown.starts_with(SETTING_PREFIX) && !kept.iter().any(|kept| *kept == shown) {
            command.env_remove(&name);
        }
    }
    let mut child = command.spawn()?;
    loop {
        if let Some(status) = child.try_wait()? {
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)));
        }
        match ended.recv_timeout(Duration::from_millis(5)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                child.kill()?;
                child.wait()?;
                return Ok(ExitCode::FAILURE);
            }
        }
    }
}

/// The path of the daemon: the one that `GEOCACHE_TEST_GEOCACHED` names, else built by cargo, once a process.
///
/// # Errors
/// When it does not build.
pub fn geocached() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    if let Some(path) = std::env::var_os(GEOCACHED_VARIABLE) {
        return Ok(path.into());
    }
    BUILT
        .get_or_init(|| build("geocached", &["--bin", "geocached"]).map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!(error))
}

/// The path of an example, built by cargo with these features of its package.
///
/// # Errors
/// When it does not build.
pub fn example(package: &str, name: &str, features: &str) -> Result<PathBuf> {
    build(package, &["--example", name, "--features", features])
}

/// As xtask sees it: there Cargo.lock may not change.
fn on_build_machine() -> bool {
    std::env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1")
}

/// Builds one target of a package, named by two arguments first, and asks cargo where it put it.
fn build(package: &str, target: &[&str]) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--message-format=json-render-diagnostics", "--package", package])
        .args(target)
        .args(on_build_machine().then_some("--locked"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !built.status.success() {
        bail!("cargo build --package {package} failed ({})", built.status);
    }
    String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| {
            let name = message.get("target")?.get("name")?.as_str()?;
            let executable = message.get("executable")?.as_str()?;
            target.contains(&name).then(|| executable.into())
        })
        .with_context(|| format!("cargo named no executable of {package} for {}", target.join(" ")))
}

/// The first of `count` neighbouring loopback ports that are free now, outside the range that systems give to outgoing
/// connections. Nothing keeps them free: bind them soon.
///
/// # Panics
/// When none are found in 1,000 tries.
pub fn free_ports(count: u16) -> u16 {
    (0..1_000)
        .map(|_| fastrand::u16(12_000..19_900))
        .find(|&base| (base..base + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()))
        .expect("some ports between 12000 and 19900 are free")
}
