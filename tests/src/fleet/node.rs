//! The handle of one process of the fleet.
//!
//! Orders run side by side, each to a bound. A process that ends by itself fails every order that waits, at once, with
//! the end of what it printed. Dropped, the process is killed; where the fleet itself is killed, the end of its input
//! ends it, and where it is frozen at that moment the system wakes it with a signal that ends it, since its process
//! group has lost its parent.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::{Mutex as AsyncMutex, oneshot, watch},
    time::timeout,
};

use super::order::{Answer, Event, Line, Numbered, Order, Report, Told};

/// What an order takes at most, beside what it waits for itself.
const ORDER_BOUND: Duration = Duration::from_secs(20);
/// How many of the last lines on its standard error are kept…
const LOG_LINES_MAX: usize = 2_000;
/// …and how many of them an error shows.
const LOG_LINES_SHOWN: usize = 15;

/// A running node; dropping it kills it.
#[derive(Debug)]
pub struct Node {
    /// Its name in errors: region and life.
    name: String,
    pid: Pid,
    child: Mutex<Child>,
    input: AsyncMutex<ChildStdin>,
    next: AtomicU64,
    heard: Arc<Heard>,
    frozen: Mutex<Frozen>,
}

/// When it did nothing, since it was told so.
#[derive(Debug, Clone, Copy, Default)]
struct Frozen {
    since: Option<Instant>,
    before: Duration,
    thawed: Option<Instant>,
}

/// What came out of the process.
#[derive(Debug)]
struct Heard {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Result<Answer, String>>>>,
    state: watch::Sender<State>,
    /// By key, what receipts proved: the highest number.
    told: Mutex<BTreeMap<String, Told>>,
    /// How many receipts said that another region has the write.
    elsewhere: AtomicU64,
    log: Mutex<VecDeque<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Starting,
    Ready,
    Failed(String),
    Ended,
}

impl Node {
    /// Starts a process.
    ///
    /// # Errors
    /// When there is no such program.
    pub(super) fn spawn(program: &Path, name: &str, arguments: &[String]) -> Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("could not start {}", program.display()))?;
        let heard = Arc::new(Heard {
            waiting: Mutex::default(),
            state: watch::Sender::new(State::Starting),
            told: Mutex::default(),
            elsewhere: AtomicU64::new(0),
            log: Mutex::default(),
        });
        let input = child.stdin.take().context("the node has no standard input")?;
        let output = child.stdout.take().context("the node has no standard output")?;
        let errors = child.stderr.take().context("the node has no standard error")?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("the node has no id")?;
        let logged = tokio::spawn(keep(errors, Arc::clone(&heard)));
        tokio::spawn(listen(output, Arc::clone(&heard), logged));
        Ok(Self {
            name: name.to_owned(),
            pid,
            child: Mutex::new(child),
            input: AsyncMutex::new(input),
            next: AtomicU64::new(0),
            heard,
            frozen: Mutex::default(),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// When it is not within `bound`, or ended, with the end of its log.
    pub async fn ready(&self, bound: Duration) -> Result<()> {
        let mut state = self.heard.state.subscribe();
        let reached = timeout(bound, state.wait_for(|state| *state != State::Starting)).await;
        let state = match reached {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) => State::Ended,
            Err(_) => bail!("{} was not ready within {bound:?}; {}", self.name, self.log_end()),
        };
        match state {
            State::Ready => Ok(()),
            State::Failed(reason) => bail!("{} stopped: {reason}; {}", self.name, self.log_end()),
            State::Starting | State::Ended => bail!("{} ended; {}", self.name, self.log_end()),
        }
    }

    /// Whether it runs and replicates, as far as it has said.
    ///
    /// # Errors
    /// Why not, with the end of its log.
    pub fn check(&self) -> Result<()> {
        match &*self.heard.state.borrow() {
            State::Starting | State::Ready => Ok(()),
            State::Failed(reason) => bail!("{} stopped: {reason}; {}", self.name, self.log_end()),
            State::Ended => bail!("{} ended by itself; {}", self.name, self.log_end()),
        }
    }

    /// Has it do something.
    pub(super) async fn order(&self, order: Order) -> Result<Answer> {
        let own = match &order {
            Order::AtLeast { wait, .. } | Order::Close { wait } => *wait,
            _ => Duration::ZERO,
        };
        let shown = format!("{order:?}");
        let done = timeout(own + ORDER_BOUND, self.ask(order)).await;
        done.map_err(|_| anyhow!("no answer within {:?}", own + ORDER_BOUND))
            .and_then(|done| done)
            .with_context(|| format!("{} could not do {shown}; {}", self.name, self.log_end()))
    }

    async fn ask(&self, order: Order) -> Result<Answer> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.heard.waiting.lock().insert(id, reply);
        // Whoever listens sets this before it lets everybody go: an order is either let go, or sees it here.
        if *self.heard.state.borrow() == State::Ended {
            bail!("it ended");
        }
        let mut line = serde_json::to_vec(&Numbered { id, order })?;
        line.push(b'\n');
        self.input.lock().await.write_all(&line).await.context("it takes no orders")?;
        answer.await.map_err(|_| anyhow!("it ended"))?.map_err(|error| anyhow!(error))
    }

    /// How it is.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn report(&self) -> Result<Report> {
        match self.order(Order::Report).await? {
            Answer::Report(report) => Ok(*report),
            other => bail!("{} gave no report but {other:?}", self.name),
        }
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it is gone already.
    pub async fn kill_9(&self) -> Result<()> {
        self.signal(Signal::KILL)?;
        let mut state = self.heard.state.subscribe();
        let ended = timeout(ORDER_BOUND, state.wait_for(|state| *state == State::Ended)).await;
        ended.with_context(|| format!("{} does not end", self.name)).map(drop)
    }

    /// SIGSTOP: it keeps its connections and does nothing.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn freeze(&self) -> Result<()> {
        self.frozen.lock().since.get_or_insert_with(Instant::now);
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)?;
        let mut frozen = self.frozen.lock();
        if let Some(since) = frozen.since.take() {
            frozen.before += since.elapsed();
            frozen.thawed = Some(Instant::now());
        }
        Ok(())
    }

    /// For how long it was frozen in all.
    pub fn frozen(&self) -> Duration {
        let frozen = self.frozen.lock();
        frozen.before + frozen.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// When it was thawed, if it ever was.
    pub fn thawed(&self) -> Option<Instant> {
        self.frozen.lock().thawed
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        // Its id may be another's once its end was seen.
        if let Some(status) = self.child.lock().try_wait()? {
            bail!("{} ended before ({status}); {}", self.name, self.log_end());
        }
        kill_process(self.pid, signal).with_context(|| format!("could not signal {}", self.name))
    }

    /// What receipts proved of its writes, by key the newest one.
    pub fn told(&self) -> Vec<Told> {
        self.heard.told.lock().values().cloned().collect()
    }

    /// How many receipts of its writes said that another region has them.
    pub fn told_elsewhere(&self) -> u64 {
        self.heard.elsewhere.load(Ordering::Relaxed)
    }

    /// Whether one of the last 2,000 lines of its log contains this.
    pub fn logged(&self, part: &str) -> bool {
        self.heard.log.lock().iter().any(|line| line.contains(part))
    }

    /// The last 2,000 lines of its log.
    pub fn log(&self) -> String {
        self.heard.log.lock().iter().map(|line| format!("{line}\n")).collect()
    }

    /// The end of its log, to be shown.
    pub fn log_end(&self) -> String {
        let log = self.heard.log.lock();
        let last = log.iter().skip(log.len().saturating_sub(LOG_LINES_SHOWN));
        format!("the end of its log:\n{}", last.map(|line| format!("  {line}\n")).collect::<String>())
    }
}

async fn listen(output: impl AsyncRead + Unpin, heard: Arc<Heard>, logged: tokio::task::JoinHandle<()>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Line::Answer { id, result }) => {
                if let Some(reply) = heard.waiting.lock().remove(&id) {
                    // Who asked may wait no more.
                    let _ = reply.send(result);
                }
            }
            Ok(Line::Event(Event::Ready)) => {
                heard.state.send_replace(State::Ready);
            }
            Ok(Line::Event(Event::Failed { reason })) => {
                heard.state.send_replace(State::Failed(reason));
            }
            Ok(Line::Event(Event::Told(told))) => heard.prove(told),
            Err(error) => heard.keep(format!("(no line of the fleet: {line:?}: {error})")),
        }
    }
    // Its last words come first.
    let _ = logged.await;
    heard.state.send_replace(State::Ended);
    heard.waiting.lock().clear();
}

async fn keep(errors: impl AsyncRead + Unpin, heard: Arc<Heard>) {
    let mut lines = BufReader::new(errors).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        heard.keep(line);
    }
}

impl Heard {
    fn keep(&self, line: String) {
        let mut log = self.log.lock();
        if log.len() == LOG_LINES_MAX {
            log.pop_front();
        }
        log.push_back(line);
    }

    fn prove(&self, told: Told) {
        if !told.elsewhere.is_empty() {
            self.elsewhere.fetch_add(1, Ordering::Relaxed);
        }
        let mut all = self.told.lock();
        if all.get(&told.key).is_none_or(|known| known.counter < told.counter) {
            all.insert(told.key.clone(), told);
        }
    }
}
