//! A private RabbitMQ that ends with the test, however the test ends.
//!
//! A test asks for one with [`Broker::start`], may kill it with -9 and start it again on the same data and port, and
//! drops it. One that harms nothing shares the run's broker through [`shared_url`]. [`Cluster::start`] starts several
//! brokers joined into one cluster, [`Federation::start`] several that exchange messages over links.
//!
//! **Why a process in between.** The broker is a child of the small `broker` binary of this package, which keeps one
//! end of a pipe to the test. Whatever ends the test (a return, a panic, Ctrl-C, SIGKILL) closes that pipe, and
//! the supervisor then ends the broker, its port mapper and its folder. A `Drop` alone was rejected: it does not run on
//! a signal, and RabbitMQ's `epmd` outlives the broker that spawned it.
//!
//! **Where a broker comes from**, in this order: `GEOCACHE_AMQP_URL` (shared use only), an installed `rabbitmq-server`,
//! `apt-get install` on a Debian-like system as root, a container engine; else an error that names all four.
//!
//! **Invariants.** Loopback only; ports chosen at run time and kept by a lock for the broker's life; all files under
//! `target/broker/`; what a killed supervisor left behind is ended by the next one.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use tests::broker::{Broker, Options};
//!
//! let broker = Broker::start(Options::default()).await?;
//! // … connect a transport to broker.url() …
//! broker.kill_9().await?;
//! // … the local cache still answers …
//! broker.restart().await?; // the same data, the same port
//! # Ok(())
//! # }
//! ```

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

mod census;
mod cluster;
mod container;
pub mod detached;
mod federation;
mod footprint;
mod handshake;
mod native;
mod ports;
mod protocol;
mod provision;
mod run;
pub mod supervisor;

pub use census::{Census, Queue};
pub use cluster::Cluster;
pub use federation::{Federation, Links};
pub use footprint::Footprint;
use protocol::{Order, Reply, Request};

/// The variable that names a broker already there.
pub const URL_VARIABLE: &str = "GEOCACHE_AMQP_URL";
/// Set to 1 by `cargo xtask test-integration --url-only`: no test may start a private broker.
pub const URL_ONLY_VARIABLE: &str = "GEOCACHE_TEST_URL_ONLY";
/// The module in which tests that harm a broker live.
pub const HARMFUL_MODULE: &str = "harms_the_broker";

/// How long the supervisor may take to end everything after its pipe closed, before the handle stops waiting for it.
const END_BOUND: Duration = Duration::from_secs(20);

/// What a private broker is started with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Options {
    /// Plugins to enable, such as `rabbitmq_federation`; none by default.
    pub plugins: Vec<String>,
    /// Lines added to `rabbitmq.conf`, the last of two equal keys winning; none by default.
    pub config: Vec<String>,
}

impl Options {
    /// Enables one plugin more.
    #[must_use]
    pub fn plugin(mut self, name: &str) -> Self {
        self.plugins.push(name.to_owned());
        self
    }

    /// Adds one line to `rabbitmq.conf`.
    #[must_use]
    pub fn config(mut self, line: &str) -> Self {
        self.config.push(line.to_owned());
        self
    }
}

/// A private broker, alone or a member of a [`Cluster`]; dropping it, or the cluster, ends it and removes its data.
#[derive(Debug)]
pub struct Broker {
    url: String,
    addr: SocketAddr,
    folder: PathBuf,
    /// Its number in the cluster, from 0.
    member: usize,
    supervisor: Arc<Mutex<Supervisor>>,
}

/// The pipe to the `broker` process. Orders and replies alternate, so one lock is held over each pair.
#[derive(Debug)]
struct Supervisor {
    child: Child,
    orders: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

impl Broker {
    /// Starts one and returns when it answers AMQP, which takes 5 to 7 s.
    ///
    /// # Errors
    /// When none can be had (the error names every way to get one), or it does not come up within 120 s (the error
    /// holds the end of its log), or the run is `--url-only`.
    pub async fn start(options: Options) -> Result<Self> {
        refuse_if_url_only()?;
        let options = serde_json::to_string(&options)?;
        blocking(move || Self::spawn(&["--private", "--options", &options])).await
    }

    fn spawn(arguments: &[&str]) -> Result<Self> {
        let mut supervisor = Supervisor::spawn(arguments)?;
        let ready = supervisor.reply()?;
        let (Some(url), Some(addr)) = (ready.url, ready.addr) else {
            bail!("the broker's supervisor named no url");
        };
        let folder = ready.folder.unwrap_or_default();
        Ok(Self { url, addr, folder, member: 0, supervisor: Arc::new(Mutex::new(supervisor)) })
    }

    /// The AMQP URL, user and password included.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens: the upstream of a [`Proxy`](crate::proxy::Proxy) in front of it.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The folder of its data and logs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Kills it with SIGKILL and returns when it is gone.
    ///
    /// # Errors
    /// When the supervisor is gone or could not do it.
    pub async fn kill_9(&self) -> Result<()> {
        self.order(Order::Kill).await.map(drop)
    }

    /// Ends it in good order (SIGTERM) and returns when it is gone; its data stay for [`Broker::restart`].
    ///
    /// # Errors
    /// When the supervisor is gone or could not do it.
    pub async fn stop(&self) -> Result<()> {
        self.order(Order::Stop).await.map(drop)
    }

    /// Starts it again on the same data and port, after ending it in good order if it runs.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub async fn restart(&self) -> Result<()> {
        self.order(Order::Restart).await.map(drop)
    }

    /// Freezes it (SIGSTOP): connections stay open, nothing answers.
    ///
    /// # Errors
    /// When the supervisor is gone or could not do it.
    pub async fn freeze(&self) -> Result<()> {
        self.order(Order::Freeze).await.map(drop)
    }

    /// Lets a frozen broker go on.
    ///
    /// # Errors
    /// When the supervisor is gone or could not do it.
    pub async fn thaw(&self) -> Result<()> {
        self.order(Order::Thaw).await.map(drop)
    }

    /// Runs `rabbitmqctl` with these arguments and returns what it printed. Costs 1.5 s: few in a test.
    ///
    /// # Errors
    /// What `rabbitmqctl` printed when it failed.
    pub async fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Ok(self.order(Order::Ctl { arguments }).await?.output.unwrap_or_default())
    }

    async fn order(&self, order: Order) -> Result<Reply> {
        let request = Request { members: vec![self.member], order };
        ask(&self.supervisor, request).await
    }
}

/// Gives an order and waits until it is done.
async fn ask(supervisor: &Arc<Mutex<Supervisor>>, request: Request) -> Result<Reply> {
    let supervisor = Arc::clone(supervisor);
    blocking(move || {
        let mut supervisor =
            supervisor.lock().map_err(|_| anyhow!("an earlier order to the broker panicked"))?;
        supervisor.send(&request)?;
        supervisor.reply().with_context(|| format!("the broker could not do {request:?}"))
    })
    .await
}

fn refuse_if_url_only() -> Result<()> {
    if std::env::var(URL_ONLY_VARIABLE).is_ok_and(|only| only == "1") {
        bail!(
            "a private broker was asked for in a run with only {URL_VARIABLE}; a test that harms a broker \
             belongs in a module named {HARMFUL_MODULE}, which --url-only leaves out"
        );
    }
    Ok(())
}

impl Supervisor {
    fn spawn(arguments: &[&str]) -> Result<Self> {
        let program = program()?;
        let mut command = Command::new(&program);
        command.arg("run").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        // Its own group: a Ctrl-C at the terminal reaches the test, whose end closes the pipe.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().with_context(|| format!("could not start {}", program.display()))?;
        let orders = child.stdin.take();
        let stdout = child.stdout.take().context("the supervisor has no standard output")?;
        Ok(Self { child, orders, replies: BufReader::new(stdout) })
    }

    fn send(&mut self, request: &Request) -> Result<()> {
        let orders = self.orders.as_mut().context("the broker was ended")?;
        writeln!(orders, "{}", serde_json::to_string(request)?).context("the broker's supervisor is gone")
    }

    /// Waits for one reply. The supervisor bounds everything that it does, and its death ends the pipe.
    fn reply(&mut self) -> Result<Reply> {
        let mut line = String::new();
        if self.replies.read_line(&mut line)? == 0 {
            bail!("the broker's supervisor ended without an answer ({})", self.child.wait()?);
        }
        let reply: Reply = serde_json::from_str(&line).with_context(|| format!("not a reply: {line:?}"))?;
        match reply.error {
            None => Ok(reply),
            Some(error) => Err(anyhow!(error)),
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.orders = None;
        let start = Instant::now();
        while start.elapsed() < END_BOUND {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        eprintln!("the broker's supervisor (pid {}) did not end within {END_BOUND:?}", self.child.id());
    }
}

/// The URL of a broker that the tests of a run share and must not harm: that of `GEOCACHE_AMQP_URL`, which
/// `cargo xtask test-integration` sets, else one private to this process, started at the first call and ended with it.
///
/// Each test keeps to names of its own ([`unique_name`](crate::unique_name)), so that none sees another's messages.
/// Blocks for as long as a broker takes to start; in a run of xtask it does not block.
///
/// # Errors
/// When there is none, saying every way to get one. A test that needs a broker fails without, it is never skipped.
pub fn shared_url() -> Result<String> {
    static OWN: OnceLock<Result<Broker, String>> = OnceLock::new();
    if let Some(url) = external_url() {
        return Ok(url);
    }
    let own = OWN.get_or_init(|| Broker::spawn(&[]).map_err(|error| format!("{error:#}")));
    own.as_ref().map(|broker| broker.url.clone()).map_err(|error| anyhow!(error.clone()))
}

fn external_url() -> Option<String> {
    std::env::var(URL_VARIABLE).ok().filter(|url| !url.is_empty())
}

/// The `broker` binary, which cargo puts one folder above the test binaries.
pub(crate) fn program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folders = own.ancestors().skip(1).take(2);
    folders.map(|folder| folder.join("broker")).find(|path| path.is_file()).with_context(|| {
        format!(
            "no `broker` binary beside {}; build it with `cargo build --package tests --bin broker`",
            own.display()
        )
    })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("the call to the broker's supervisor panicked")?
}
