//! A node of the fleet as a process: a whole [`GeoCache`] over RabbitMQ that takes orders as lines of JSON.
//!
//! Its standard input is its life: the end of it ends the process, however the fleet ended. The writer and the reader
//! are threads, as an application's are, so that nothing of the node's own tasks slows them down but the processor.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Parser;
use geocache::{
    Expect, GeoCache, NodeId, TimeToLive, Token, Transport, Write, WriteConcern,
    rabbitmq::{Config, Credentials, Profile, RabbitMq},
};
use parking_lot::Mutex;
use replication::WallClock;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    runtime::Handle,
};

use super::{
    REGIONS, contents,
    latency::Reader,
    order::{Answer, Event, Line, Numbered, Order, Report, Told},
    plan::{Change, Ledger, Plan, Step, value},
};

/// Between two looks of the writer at what is due.
const TICK: Duration = Duration::from_millis(10);
/// What a writer that was held up makes good, in ticks; what was due before that is counted as skipped.
const CATCH_UP_TICKS: u32 = 10;
/// Receipts waited for at a time; the writes beyond are made without.
const RECEIPTS_MAX: usize = 512;
/// How long a receipt is waited for.
const RECEIPT_WAIT: Duration = Duration::from_secs(60);
/// Far more than the plan's keys, so that nothing is given up for room.
const CAPACITY: usize = 200_000;

/// What a node is started with.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "fleet-node",
    about = "A node of the fleet that goes through faults; takes orders on its input"
)]
pub struct Arguments {
    /// The region
    #[arg(long)]
    region: String,
    /// Which process of the region this is, from 1
    #[arg(long)]
    life: u32,
    /// The cache's name
    #[arg(long)]
    cache: String,
    /// Whose keys it writes; its own life's unless told otherwise
    #[arg(long)]
    keys_of: Option<String>,
    /// The broker's URL
    #[arg(long)]
    url: String,
    /// fast, durable or stream
    #[arg(long)]
    profile: String,
    /// How long the broker keeps its queue, in seconds
    #[arg(long)]
    queue_expires_s: u64,
    /// The file of user and password, in place of the URL's own
    #[arg(long)]
    credentials: Option<PathBuf>,
    /// What decides its writes and reads, and those of no other life
    #[arg(long)]
    seed: u64,
    /// How far its machine's clock is ahead, in seconds
    #[arg(long, default_value_t = 0)]
    clock_ahead_s: u64,
}

/// Runs a node until its input ends.
///
/// # Errors
/// When it could not be started.
pub fn run(arguments: &Arguments) -> Result<()> {
    tracing_subscriber::fmt()
        .with_max_level(tracing_level())
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    WallClock::system_ahead(Duration::from_secs(arguments.clock_ahead_s));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(serve(arguments));
    runtime.shutdown_timeout(Duration::from_secs(5));
    done
}

fn tracing_level() -> tracing_subscriber::filter::LevelFilter {
    tracing_subscriber::filter::LevelFilter::INFO
}

/// The profile of a name.
///
/// # Errors
/// When there is none of that name.
pub fn profile(name: &str) -> Result<Profile> {
    match name {
        "fast" => Ok(Profile::Fast),
        "durable" => Ok(Profile::Durable),
        "stream" => Ok(Profile::Stream),
        _ => bail!("there is no profile {name:?}; there are fast, durable and stream"),
    }
}

async fn serve(arguments: &Arguments) -> Result<()> {
    let id = NodeId::new(arguments.region.parse()?, "n")?;
    let mut config = Config::new(id, vec![arguments.url.clone()])
        .cache(&arguments.cache)
        .profile(profile(&arguments.profile)?)
        .queue_expires(Duration::from_secs(arguments.queue_expires_s));
    if let Some(path) = &arguments.credentials {
        config = config.credentials(Credentials::file(path));
    }
    let transport = RabbitMq::connect(config).await?;
    let cache = GeoCache::builder()
        .cache(&arguments.cache)
        .transport(transport.clone())
        .capacity(CAPACITY)
        .regions(REGIONS)
        .build()
        .await?;
    let writer = format!("{}.{}", arguments.region, arguments.life);
    let owner = arguments.keys_of.as_ref().unwrap_or(&writer);
    let node = Arc::new(Node {
        reader: Reader::start(cache.clone(), owner, arguments.seed)?,
        ledger: Mutex::new(Ledger::new(&writer)),
        plan: Mutex::new(Plan::new(&writer, arguments.seed).on_keys_of(owner)),
        rate: AtomicU32::new(0),
        written: AtomicU64::new(0),
        skipped: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        receipts: AtomicUsize::new(0),
        writer,
        cache,
        transport,
    });
    let (writing, runtime) = (Arc::clone(&node), Handle::current());
    thread::Builder::new().name("writer".to_owned()).spawn(move || write(&writing, &runtime))?;
    let watched = node.cache.clone();
    tokio::spawn(async move {
        let event = match watched.ready().await {
            Ok(()) => Event::Ready,
            Err(error) => Event::Failed { reason: error.to_string() },
        };
        say(&Line::Event(event));
        let error = watched.failed().await;
        say(&Line::Event(Event::Failed { reason: error.to_string() }));
    });

    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = orders.next_line().await? {
        let Numbered { id, order } =
            serde_json::from_str(&line).with_context(|| format!("no order: {line:?}"))?;
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            let result = node.carry_out(order).await.map_err(|error| format!("{error:#}"));
            say(&Line::Answer { id, result });
        });
    }
    Ok(())
}

/// A fleet that is gone hears nothing, and the end of the input ends the process.
fn say(line: &Line) {
    if let Ok(mut text) = serde_json::to_string(line) {
        text.push('\n');
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
    }
}

struct Node {
    writer: String,
    cache: GeoCache,
    transport: Arc<RabbitMq>,
    reader: Reader,
    /// Locked for each tick as a whole, so that a ledger is of one moment between two ticks.
    ledger: Mutex<Ledger>,
    plan: Mutex<Plan>,
    /// Writes a second.
    rate: AtomicU32,
    written: AtomicU64,
    skipped: AtomicU64,
    refused: AtomicU64,
    /// Receipts that are waited for.
    receipts: AtomicUsize,
}

impl Node {
    async fn carry_out(&self, order: Order) -> Result<Answer> {
        match order {
            Order::Write { per_second } => self.rate.store(per_second, Ordering::Relaxed),
            Order::Rest => {
                self.rate.store(0, Ordering::Relaxed);
                // A tick that has begun holds the ledger.
                drop(self.ledger.lock());
            }
            Order::Phase { name } => self.reader.phase(name),
            Order::Latencies => return Ok(Answer::Latencies(self.reader.latencies())),
            Order::Digest => return Ok(Answer::Digest(contents::digest(&self.cache))),
            Order::Dump { path } => contents::dump(&self.cache, &path)?,
            Order::Ledger { path } => save(&path, &self.ledger.lock().clone())?,
            Order::Token => return Ok(Answer::Token(self.cache.token().to_string())),
            Order::AtLeast { token, wait } => {
                let token: Token = token.parse()?;
                self.cache.at_least(&token, wait).await?;
            }
            Order::Report => return Ok(Answer::Report(Box::new(self.report()))),
            Order::Close { wait } => {
                let closed = self.cache.close(wait).await;
                self.transport.close().await?;
                let (unsent_records, unconfirmed_frames) = (closed.unsent_records, closed.unconfirmed_frames);
                return Ok(Answer::Closed { unsent_records, unconfirmed_frames });
            }
        }
        Ok(Answer::Done)
    }

    fn report(&self) -> Report {
        let (stats, link) = (self.cache.stats(), self.transport.stats());
        let drifting = stats.regions.iter().filter(|region| region.nodes.iter().any(|node| node.drifts));
        Report {
            ready: stats.ready,
            health: format!("{:?}", *self.transport.health().borrow()),
            queue: self.transport.queue(),
            written: self.written.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            entries: stats.entries,
            graves: stats.graves,
            outbox_bytes: stats.outbox.bytes,
            evictions: stats.evictions,
            divergence: stats.replication.divergence,
            frames_drifting: stats.replication.frames_drifting,
            syncs_finished: stats.replication.syncs_finished,
            pulls_sent: stats.replication.pulls_sent,
            reconnects: link.reconnects,
            connect_failures: link.connect_failures,
            consumer_cancels: link.consumer_cancels,
            blocked: link.blocked,
            drifting: drifting.map(|region| region.region.to_string()).collect(),
        }
    }

    /// Makes one write, and takes it down once it was acknowledged.
    fn make(self: &Arc<Self>, step: &Step, ledger: &mut Ledger, runtime: &Handle) {
        let key = step.key.as_bytes();
        let put = |ttl| {
            let bytes = Bytes::from(value(&self.writer, step.counter));
            self.cache.write(key, Write { bytes, ttl, ..Write::default() }, Expect::Any)
        };
        let taken = match step.change {
            Change::Put => put(TimeToLive::Never),
            Change::PutFor(life) => put(TimeToLive::For(life)),
            Change::Remove => self.cache.remove_if(key, Expect::Any),
        };
        if taken.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.written.fetch_add(1, Ordering::Relaxed);
        ledger.note(step);
        if let Some(concern) = step.asks {
            self.ask(step, concern, runtime);
        }
    }

    /// Waits in the background for the receipt of what was just written, and tells what it says.
    fn ask(self: &Arc<Self>, step: &Step, concern: WriteConcern, runtime: &Handle) {
        if self.receipts.fetch_add(1, Ordering::Relaxed) >= RECEIPTS_MAX {
            self.receipts.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let (node, token) = (Arc::clone(self), self.cache.token());
        let (key, counter) = (step.key.clone(), step.counter);
        runtime.spawn(async move {
            let receipt = node.cache.receipt(&token, concern, RECEIPT_WAIT).await;
            node.receipts.fetch_sub(1, Ordering::Relaxed);
            let elsewhere: Vec<String> = receipt
                .have
                .iter()
                .filter(|region| *region != node.cache.region())
                .map(ToString::to_string)
                .collect();
            let published = receipt.published;
            if published || !elsewhere.is_empty() {
                say(&Line::Event(Event::Told(Told { key, counter, published, elsewhere })));
            }
        });
    }
}

/// The writer: what is due, tick by tick.
fn write(node: &Arc<Node>, runtime: &Handle) {
    let mut rate = 0;
    let mut since = Instant::now();
    let mut made = 0;
    loop {
        thread::sleep(TICK);
        let mut ledger = node.ledger.lock();
        // Read under the lock: who has set it to nothing waits for the lock, and then nothing is written any more.
        let wanted = node.rate.load(Ordering::Relaxed);
        if wanted != rate {
            (rate, since, made) = (wanted, Instant::now(), 0);
        }
        let due = (since.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        let most = u64::from(rate * CATCH_UP_TICKS) * TICK.as_millis() as u64 / 1_000;
        let late = (due - made).saturating_sub(most);
        node.skipped.fetch_add(late, Ordering::Relaxed);
        let mut plan = node.plan.lock();
        for _ in made + late..due {
            let step = plan.step();
            node.make(&step, &mut ledger, runtime);
        }
        made = due;
    }
}

fn save(path: &Path, ledger: &Ledger) -> Result<()> {
    Ok(fs::write(path, serde_json::to_vec(ledger)?)?)
}
