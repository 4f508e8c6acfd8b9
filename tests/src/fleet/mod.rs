//! Three regions in processes of their own, a steady load, faults, and a checker of what they leave behind.
//!
//! Each region is a whole node over RabbitMQ, a process (`fleet-node`) whose two connections go through a [`Proxy`] of
//! its own. Every node writes 2,000 times a second and reads all along (`plan.rs`, `latency.rs`); a fault is made and
//! mended meanwhile; then the writers rest, and the regions have to become equal and to hold every acknowledged write
//! (`checker.rs`). The faults are the rows of [`row`]; `cargo xtask test-integration --faults` prints their table.
//!
//! **Why processes.** Only a process can be killed, frozen, or have a wrong clock by itself; and a broken node must not
//! take the judge with it.
//!
//! **Bounds.** Each order to a node, each wait and each row has one; at the bound the row is red with what was waited
//! for and the end of the log of the node in question. A node that ends by itself is noticed at once.

mod checker;
mod contents;
mod latency;
mod node;
mod order;
mod plan;
pub mod program;
pub mod row;
mod scene;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

pub use checker::{Evidence, Finding, P99_RATIO_MAX, Pace, Reads, STEADY_MIN, judge, judge_contents, shown};
pub use contents::{Contents, Digest, Held, RangeDigest, lasting};
pub use latency::Latency;
pub use node::Node;
pub use order::{Event, Report, Told};
pub use plan::{BRIEF_MAX, Change, Last, Ledger, Plan, Step};
pub use scene::{Outcome, Scene, Times};

use crate::{proxy::Proxy, unique_name};
use order::{Answer, Order};

/// The regions of a fleet.
pub const REGIONS: [&str; 3] = ["us-east", "eu-central", "ap-south"];
/// What each region writes.
pub const WRITES_PER_SECOND: u32 = 2_000;
/// How long a node may take to become ready.
pub const READY_BOUND: Duration = Duration::from_secs(60);

/// Between two looks at whether the regions are equal.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// How a fleet is started.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The broker's URL; each region gets it with its proxy's address.
    pub url: String,
    /// Where the proxies lead.
    pub upstream: SocketAddr,
    /// The delivery profile, by name.
    pub profile: String,
    /// How long the broker keeps the queue of a node that is away.
    pub queue_expires: Duration,
    /// The file of user and password; `None` for those of the URL.
    pub credentials: Option<PathBuf>,
    /// Whose keys a process writes.
    pub keys: Keys,
    /// What decides what is written and read: each process draws from this, its region and its life.
    pub seed: u64,
    /// The folder for dumps.
    pub folder: PathBuf,
}

/// Whose keys a process writes, beside those that all write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keys {
    /// Keys of its own life: what an earlier process of its region wrote stays as it was, and is demanded as it was.
    #[default]
    OfLife,
    /// Those of its region, as the processes before it, so that the number of keys is bounded however many there were.
    OfRegion,
}

/// Three regions.
#[derive(Debug)]
pub struct Fleet {
    settings: Settings,
    cache: String,
    members: Vec<Member>,
    /// The ledgers of processes that ended in good order.
    ledgers: Vec<Ledger>,
    /// The writers without ledger, and what is demanded of them.
    gone: BTreeSet<String>,
    told: Vec<Told>,
    writing: Option<u32>,
    /// How the writers kept pace whose processes ended in good order.
    paces: BTreeMap<String, Pace>,
}

/// A region, and its process if one runs.
#[derive(Debug)]
pub struct Member {
    /// The region.
    pub region: &'static str,
    /// Its link to the broker.
    pub proxy: Proxy,
    life: u32,
    node: Option<Node>,
    /// Before the fault, of the process that runs.
    seen: BTreeMap<String, Latency>,
    /// How the writer of the process that runs had kept pace when it was last asked.
    paced: Pace,
    /// The last rate that it was told, in writes a second.
    rate: u32,
}

/// What is demanded of the writes of a process that is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// All that it acknowledged: it handed over everything before it ended.
    Everything,
    /// Nothing: its frames were refused in every other region, so its writes end with it. Then no receipt may have said
    /// that another region has one, and none may be held anywhere.
    Refused,
}

impl Fleet {
    /// Starts three nodes, and returns when all are ready.
    ///
    /// # Errors
    /// When one cannot be started or does not become ready, with the end of its log.
    pub async fn start(settings: Settings) -> Result<Self> {
        let mut fleet = Self::idle(settings).await?;
        fleet.launch_all().await?;
        Ok(fleet)
    }

    /// Three regions in which no node runs yet.
    async fn idle(settings: Settings) -> Result<Self> {
        std::fs::create_dir_all(&settings.folder)?;
        let mut members = Vec::new();
        for region in REGIONS {
            let proxy = Proxy::start(settings.upstream).await?;
            members.push(Member {
                region,
                proxy,
                life: 0,
                node: None,
                seen: BTreeMap::new(),
                paced: Pace::default(),
                rate: 0,
            });
        }
        let cache = unique_name("fleet");
        let (ledgers, gone, told, paces) = Default::default();
        Ok(Self { settings, cache, members, ledgers, gone, told, writing: None, paces })
    }

    async fn launch_all(&mut self) -> Result<()> {
        for index in 0..self.members.len() {
            self.launch(index, Duration::ZERO)?;
        }
        self.ready().await
    }

    /// The cache's name, part of the names of its exchange and queues.
    pub fn cache(&self) -> &str {
        &self.cache
    }

    /// The regions, in the order of [`REGIONS`].
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The node of a region.
    ///
    /// # Errors
    /// When none runs there.
    pub fn node(&self, index: usize) -> Result<&Node> {
        let member = self.members.get(index).with_context(|| format!("there is no region {index}"))?;
        member.node.as_ref().with_context(|| format!("no node runs in {}", member.region))
    }

    /// The nodes that run.
    pub fn nodes(&self) -> impl Iterator<Item = (&'static str, &Node)> {
        self.members.iter().filter_map(|member| Some((member.region, member.node.as_ref()?)))
    }

    /// Waits until all that run are ready.
    ///
    /// # Errors
    /// When one does not become so.
    pub async fn ready(&self) -> Result<()> {
        for (_, node) in self.nodes() {
            node.ready(READY_BOUND).await?;
        }
        Ok(())
    }

    /// Starts a new process in a region where none runs, with a clock that is ahead; it writes as the others do.
    ///
    /// # Errors
    /// When one runs there, or it does not become ready.
    pub async fn revive(&mut self, index: usize, clock_ahead: Duration) -> Result<()> {
        self.launch(index, clock_ahead)?;
        self.node(index)?.ready(READY_BOUND).await?;
        match self.writing {
            Some(per_second) => self.tell(index, per_second).await,
            None => Ok(()),
        }
    }

    /// One writes from now on.
    async fn tell(&mut self, index: usize, per_second: u32) -> Result<()> {
        self.members[index].rate = per_second;
        self.node(index)?.order(Order::Write { per_second }).await.map(drop)
    }

    /// Starts a process and does not wait for it.
    fn launch(&mut self, index: usize, clock_ahead: Duration) -> Result<()> {
        let program = program()?;
        let member = &mut self.members[index];
        if member.node.is_some() {
            bail!("a node runs in {} already", member.region);
        }
        member.life += 1;
        member.paced = Pace::default();
        let settings = &self.settings;
        let keys_of = match settings.keys {
            Keys::OfLife => member.writer(),
            Keys::OfRegion => member.region.to_owned(),
        };
        let arguments = [
            ("--region", member.region.to_owned()),
            ("--life", member.life.to_string()),
            ("--cache", self.cache.clone()),
            ("--keys-of", keys_of),
            ("--url", member.proxy.url(&settings.url)),
            ("--profile", settings.profile.clone()),
            ("--queue-expires-s", settings.queue_expires.as_secs().to_string()),
            ("--seed", seed_of(settings.seed, index, member.life).to_string()),
            ("--clock-ahead-s", clock_ahead.as_secs().to_string()),
        ];
        let mut words: Vec<String> =
            arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        if let Some(path) = &settings.credentials {
            words.extend(["--credentials".to_owned(), path.display().to_string()]);
        }
        member.node = Some(Node::spawn(&program, &member.writer(), &words)?);
        Ok(())
    }

    /// Kills the node of a region: what its receipts said had left it is demanded, and nothing else of it.
    ///
    /// # Errors
    /// When none runs there.
    pub async fn kill_9(&mut self, index: usize) -> Result<()> {
        self.node(index)?.kill_9().await?;
        let member = &mut self.members[index];
        if let Some(node) = member.node.take() {
            self.told.extend(node.told());
            self.gone.insert(member.writer());
        }
        Ok(())
    }

    /// Ends the node of a region in good order: its writer rests, and everything that waits is handed over.
    ///
    /// # Errors
    /// When it could not hand over everything within 20 s, or a receipt said of a refused write that another region has it.
    pub async fn close(&mut self, index: usize, demand: Demand) -> Result<()> {
        let node = self.node(index)?;
        node.order(Order::Rest).await?;
        let ledger = self.ledger(index).await?;
        let pace = self.pace(index).await?.since(self.members[index].paced);
        let closed = node.order(Order::Close { wait: Duration::from_secs(20) }).await?;
        if demand == Demand::Everything
            && closed != (Answer::Closed { unsent_records: 0, unconfirmed_frames: 0 })
        {
            bail!("{} could not hand over everything: {closed:?}", ledger.writer);
        }
        let untrue = node.told_elsewhere();
        if demand == Demand::Refused && untrue > 0 {
            bail!("{untrue} receipts of {} said that another region has what all refuse", ledger.writer);
        }
        self.paces.insert(ledger.writer.clone(), pace);
        let member = &mut self.members[index];
        member.node = None;
        if demand == Demand::Everything {
            self.ledgers.push(ledger);
        }
        Ok(())
    }

    /// All write from now on.
    ///
    /// # Errors
    /// When a node does not answer.
    pub async fn write(&mut self, per_second: u32) -> Result<()> {
        self.writing = Some(per_second);
        self.members.iter_mut().for_each(|member| member.rate = per_second);
        self.tell_all(&Order::Write { per_second }).await
    }

    /// All rest.
    ///
    /// # Errors
    /// When a node does not answer.
    pub async fn rest(&mut self) -> Result<()> {
        self.writing = None;
        self.tell_all(&Order::Rest).await
    }

    /// Reads are measured under this name from now on, where a node answers; a frozen one goes on with the last name.
    ///
    /// # Errors
    /// When a node does not answer.
    pub async fn phase(&self, name: &str) -> Result<()> {
        self.tell_all(&Order::Phase { name: name.to_owned() }).await
    }

    async fn tell_all(&self, order: &Order) -> Result<()> {
        for (_, node) in self.nodes() {
            node.order(order.clone()).await?;
        }
        Ok(())
    }

    /// Fails when a node has ended or stopped replicating.
    ///
    /// # Errors
    /// Which, and the end of its log.
    pub fn check(&self) -> Result<()> {
        self.nodes().try_for_each(|(_, node)| node.check())
    }

    /// Lets time pass, as a fault or a load does, and notices a node that ends.
    ///
    /// # Errors
    /// As [`check`](Self::check), at once.
    pub async fn pass(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.check()?;
            tokio::time::sleep(LOOK_PAUSE.min(until.saturating_duration_since(Instant::now()))).await;
        }
        self.check()
    }

    /// Waits until `condition` holds of the fleet, looked at ten times a second.
    ///
    /// # Errors
    /// After `bound`, or when a node ends.
    pub async fn until(
        &self,
        what: &str,
        bound: Duration,
        mut condition: impl AsyncFnMut(&Self) -> Result<bool>,
    ) -> Result<Duration> {
        let start = Instant::now();
        while !condition(self).await? {
            self.check()?;
            if start.elapsed() > bound {
                bail!("waited {bound:?} in vain until {what}");
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        Ok(start.elapsed())
    }

    /// Waits until each node has everything that every other node wrote before this call; how long that took.
    ///
    /// # Errors
    /// When one has not within `bound`.
    pub async fn caught_up(&self, bound: Duration) -> Result<Duration> {
        let start = Instant::now();
        let mut tokens = Vec::new();
        for (region, node) in self.nodes() {
            match node.order(Order::Token).await? {
                Answer::Token(token) => tokens.push((region, token)),
                other => bail!("{region} gave no token but {other:?}"),
            }
        }
        for (region, node) in self.nodes() {
            for (writer, token) in tokens.iter().filter(|(writer, _)| *writer != region) {
                let wait = bound.saturating_sub(start.elapsed()).max(Duration::from_millis(100));
                let order = Order::AtLeast { token: token.clone(), wait };
                node.order(order).await.with_context(|| format!("{region} waits for what {writer} wrote"))?;
            }
        }
        Ok(start.elapsed())
    }

    /// Waits until all regions hold the same, what expires left out; then until that is gone, too. How long the first took.
    ///
    /// # Errors
    /// After `bound`, with what each holds in short.
    pub async fn equal(&self, bound: Duration) -> Result<Duration> {
        let start = Instant::now();
        let mut equal_after = None;
        loop {
            self.check()?;
            let digests = self.digests().await?;
            let mut lasting = digests.values().map(lasting);
            let first = lasting.next().context("no node runs")?;
            if lasting.all(|other| other == first) {
                let after = *equal_after.get_or_insert(start.elapsed());
                if digests.values().all(|digest| !digest.contains_key(contents::BRIEF)) {
                    return Ok(after);
                }
            } else {
                equal_after = None;
            }
            if start.elapsed() > bound {
                bail!("the regions are not equal after {bound:?}: {digests:#?}");
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    async fn digests(&self) -> Result<BTreeMap<&'static str, Digest>> {
        let mut digests = BTreeMap::new();
        for (region, node) in self.nodes() {
            match node.order(Order::Digest).await? {
                Answer::Digest(digest) => digests.insert(region, digest),
                other => bail!("{region} gave no digest but {other:?}"),
            };
        }
        Ok(digests)
    }

    /// How all are.
    ///
    /// # Errors
    /// When a node does not answer.
    pub async fn reports(&self) -> Result<BTreeMap<&'static str, Report>> {
        let mut reports = BTreeMap::new();
        for (region, node) in self.nodes() {
            reports.insert(region, node.report().await?);
        }
        Ok(reports)
    }

    /// Keeps what was measured so far, for a node that may not live until the end.
    ///
    /// # Errors
    /// When a node does not answer.
    pub async fn keep_latencies(&mut self) -> Result<()> {
        for member in &mut self.members {
            let Some(node) = &member.node else { continue };
            if let Answer::Latencies(phases) = node.order(Order::Latencies).await? {
                member.seen = phases.into_iter().collect();
            }
        }
        Ok(())
    }

    /// What the checker judges by: contents, ledgers, receipts, reads. The writers should rest.
    ///
    /// # Errors
    /// When a node does not answer, or gave a value up for room, after which nothing can be demanded.
    pub async fn evidence(&mut self) -> Result<Evidence> {
        self.keep_latencies().await?;
        let mut evidence = Evidence {
            ledgers: self.ledgers.clone(),
            gone: self.gone.clone(),
            told: self.told.clone(),
            paces: self.paces.clone(),
            ..Evidence::default()
        };
        for index in 0..self.members.len() {
            let node = self.node(index)?;
            let region = self.members[index].region;
            let report = node.report().await?;
            if report.evictions > 0 {
                bail!("{region} gave up {} values for room", report.evictions);
            }
            let path = self.path(&format!("{region}.contents"));
            node.order(Order::Dump { path: path.clone() }).await?;
            evidence.contents.insert(region.to_owned(), contents::read(&path)?);
            evidence.ledgers.push(self.ledger(index).await?);
            let of = |phase: &str| self.members[index].seen.get(phase).copied().unwrap_or_default();
            let reads = Reads { before: of("before"), during: of("during") };
            evidence.reads.insert(region.to_owned(), reads);
            let pace = self.pace(index).await?;
            let member = &mut self.members[index];
            evidence.paces.insert(member.writer(), pace.since(member.paced));
            member.paced = pace;
            if member.life > 1 {
                evidence.replaced.insert(region.to_owned());
            }
        }
        Ok(evidence)
    }

    /// How a writer has kept pace since its process began. What it could not make while it was frozen was not due.
    async fn pace(&self, index: usize) -> Result<Pace> {
        let (node, rate) = (self.node(index)?, self.members[index].rate);
        let Report { written: made, refused, skipped, .. } = node.report().await?;
        let spared = (node.frozen().as_secs_f64() * f64::from(rate)) as u64;
        Ok(Pace { made, refused, due: made + refused + skipped.saturating_sub(spared) })
    }

    /// When a node was last thawed, if one ever was.
    fn thawed(&self) -> Option<Instant> {
        self.nodes().filter_map(|(_, node)| node.thawed()).max()
    }

    /// Writes the logs of those that run beside the dumps.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save_logs(&self) -> Result<()> {
        self.nodes().try_for_each(|(region, node)| {
            Ok(std::fs::write(self.path(&format!("{region}.log")), node.log())?)
        })
    }

    async fn ledger(&self, index: usize) -> Result<Ledger> {
        let path = self.path(&format!("{}.ledger", self.members[index].writer()));
        self.node(index)?.order(Order::Ledger { path: path.clone() }).await?;
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.settings.folder.join(name)
    }
}

impl Member {
    /// The name by which its process writes.
    pub fn writer(&self) -> String {
        format!("{}.{}", self.region, self.life)
    }
}

/// The seed of one process: no two of a fleet have the same.
fn seed_of(seed: u64, region: usize, life: u32) -> u64 {
    fastrand::Rng::with_seed(seed ^ (u64::from(life) << 8 | region as u64)).u64(..)
}

/// The `fleet-node` binary, which cargo puts beside the others, one folder above the test binaries.
fn program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folders = own.ancestors().skip(1).take(2);
    folders.map(|folder| folder.join("fleet-node")).find(|path| path.is_file()).with_context(|| {
        format!(
            "no `fleet-node` binary beside {}; build it with `cargo build --package tests --features fleet --bins`",
            own.display()
        )
    })
}
