//! Keeps one broker, or one cluster, alive for exactly as long as somebody holds the other end of a pipe.
//!
//! `broker run` prints one line when the broker is ready, obeys one order a line on its standard input, and ends the
//! broker, its port mapper and its folder when that input ends or a signal comes. SIGKILL of the supervisor itself is
//! the one end that it cannot answer: it holds a file lock in its folder, and the next supervisor ends what a folder
//! without a holder left behind.

use std::{
    fs::{self, File},
    io::{BufRead, Write},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{FlockOperation, flock},
    process::Signal,
};

use super::{
    Options, container,
    container::Container,
    external_url, footprint, handshake,
    native::{self, Membership, Native},
    ports::Ports,
    protocol::{Order, Place, Reply, Request},
    provision::{self, Source},
    run::Ending,
};

const READY_BOUND: Duration = Duration::from_secs(120);
/// More for each further member that starts at the same time, on the same few cores.
const READY_BOUND_MEMBER: Duration = Duration::from_secs(60);
/// Another process may take a port between the look and the broker's bind.
const STARTS_MAX: usize = 3;
const LOCK_FILE: &str = "supervisor.lock";

/// How `broker run` was called.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Run {
    /// What to start the broker with.
    pub options: Options,
    /// Start one even if `GEOCACHE_AMQP_URL` names one.
    pub private: bool,
    /// Do not end with the standard input; only a signal ends it.
    pub until_signal: bool,
    /// How many brokers, joined into a cluster if there are several.
    pub members: usize,
}

impl Run {
    /// As called; one broker.
    pub fn new(options: Options, private: bool, until_signal: bool) -> Self {
        Self { options, private, until_signal, members: 1 }
    }

    /// A cluster of so many.
    #[must_use]
    pub fn members(mut self, members: usize) -> Self {
        self.members = members;
        self
    }
}

/// Where the brokers of a run would come from, for people: a private one and, where `GEOCACHE_AMQP_URL` names one, that
/// too, asked whether it answers. Nothing is installed or started; the body of `broker check`.
///
/// # Errors
/// When one of them cannot be had, naming every way to one.
pub fn check() -> Result<String> {
    let private = provision::foresee(&Ending::new(false))?;
    let Some(url) = external_url() else { return Ok(private) };
    handshake::check_url(&url)?;
    Ok(format!("{} and, for the tests that harm it, {private}", super::URL_VARIABLE))
}

enum Event {
    Order(String),
    End,
}

/// Runs until the end; the body of `broker run`.
///
/// # Errors
/// When no broker could be had, which was then also replied, or when it could not be ended.
pub fn run(run: &Run) -> Result<()> {
    let ending = Arc::new(Ending::new(false));
    let events = listen(run.until_signal, &ending)?;
    if let Some(url) = external_url()
        && !run.private
    {
        let checked = handshake::check_url(&url);
        let told = checked.map(|addr| Reply {
            url: Some(url),
            addr: Some(addr),
            pid: Some(std::process::id()),
            source: Some(super::URL_VARIABLE.to_owned()),
            ..Reply::default()
        });
        let failed = told.is_err();
        reply(told);
        while !failed && matches!(events.recv(), Ok(Event::Order(_))) {
            reply(Err(anyhow::anyhow!("this broker was given by its url, so nothing may be done to it")));
        }
        return if failed { Err(anyhow::anyhow!("no broker")) } else { Ok(()) };
    }
    let mut supervised = match Supervised::start(&run.options, run.members.max(1), &ending) {
        Ok(supervised) => supervised,
        Err(error) => {
            reply(Err(error));
            bail!("no broker");
        }
    };
    reply(Ok(supervised.ready_reply()));
    while let Ok(Event::Order(line)) = events.recv() {
        let done =
            serde_json::from_str(&line).context("not an order").and_then(|request| supervised.obey(&request));
        reply(done);
    }
    supervised.end()
}

/// Orders, the end of the input, and signals, as one queue; `ending` is set as soon as an end is among them.
fn listen(until_signal: bool, ending: &Arc<Ending>) -> Result<Receiver<Event>> {
    let (events, queue) = channel();
    let end = |events: &Sender<Event>, ending: &Ending| {
        ending.store(true, Ordering::Relaxed);
        // The main thread may have ended already.
        let _ = events.send(Event::End);
    };
    let (at_signal, signalled) = (events.clone(), Arc::clone(ending));
    ctrlc::set_handler(move || end(&at_signal, &signalled)).context("could not listen for signals")?;
    if until_signal {
        return Ok(queue);
    }
    let ended = Arc::clone(ending);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if events.send(Event::Order(line)).is_err() {
                return;
            }
        }
        end(&events, &ended);
    });
    Ok(queue)
}

/// The reader may be gone; that it is shows as the end of the input.
fn reply(reply: Result<Reply>) {
    let reply = reply.unwrap_or_else(|error| Reply { error: Some(format!("{error:#}")), ..Reply::default() });
    let mut out = std::io::stdout().lock();
    if let Ok(line) = serde_json::to_string(&reply) {
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

/// Brokers and everything that has to go with them. Dropped without [`Supervised::end`], it kills and removes too.
struct Supervised {
    brokers: Vec<Kind>,
    folder: Folder,
    source: String,
    ending: Arc<Ending>,
}

enum Kind {
    Native(Native),
    Container(Container),
}

impl Kind {
    fn port(&self) -> u16 {
        match self {
            Self::Native(native) => native.port(),
            Self::Container(container) => container.port(),
        }
    }

    fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port()).into()
    }

    fn url(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.addr())
    }

    fn start(&mut self, ending: &Ending) -> Result<()> {
        match self {
            Self::Native(native) => native.start(),
            Self::Container(container) => container.start(ending),
        }
    }

    fn wait(&mut self, start: Instant, bound: Duration, ending: &Ending) -> Result<()> {
        let addr = self.addr();
        while !handshake::answers(addr) {
            if ending.load(Ordering::Relaxed) {
                bail!("given up, for everything ends");
            }
            let ended = match self {
                Self::Native(native) => native.ended()?,
                Self::Container(container) => container.ended(ending)?,
            };
            if let Some(log) = ended {
                bail!("the broker ended while it started: {log}");
            }
            if start.elapsed() > bound {
                let log = match self {
                    Self::Native(native) => native.log(),
                    Self::Container(container) => container.log(ending),
                };
                bail!("the broker did not answer at {addr} within {bound:?}: {log}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn kill(&mut self, ending: &Ending) -> Result<()> {
        match self {
            Self::Native(native) => native.kill(),
            Self::Container(container) => container.kill(ending),
        }
    }

    fn stop(&mut self, ending: &Ending) -> Result<()> {
        match self {
            Self::Native(native) => native.stop(),
            Self::Container(container) => container.stop(ending),
        }
    }

    fn freeze(&self, ending: &Ending) -> Result<()> {
        match self {
            Self::Native(native) => {
                native.signal(Signal::STOP);
                Ok(())
            }
            Self::Container(container) => container.freeze("pause", ending),
        }
    }

    fn thaw(&self, ending: &Ending) -> Result<()> {
        match self {
            Self::Native(native) => {
                native.signal(Signal::CONT);
                Ok(())
            }
            Self::Container(container) => container.freeze("unpause", ending),
        }
    }

    fn ctl(&self, arguments: &[String], ending: &Ending) -> Result<String> {
        match self {
            Self::Native(native) => native.ctl(arguments, ending),
            Self::Container(container) => container.ctl(arguments, ending),
        }
    }
}

impl Supervised {
    fn start(options: &Options, members: usize, ending: &Arc<Ending>) -> Result<Self> {
        sweep()?;
        let source = provision::find(ending)?;
        let mut tries = 1;
        loop {
            let mut supervised = Self::lay(&source, options, members, ending)?;
            let all: Vec<usize> = (0..members).collect();
            match supervised.start_and_wait(&all) {
                Ok(()) => return Ok(supervised),
                Err(error) if tries < STARTS_MAX && format!("{error:#}").contains("eaddrinuse") => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn lay(source: &Source, options: &Options, members: usize, ending: &Arc<Ending>) -> Result<Self> {
        let folder = Folder::new()?;
        let brokers = match source {
            Source::Scripts(scripts) if members == 1 => {
                let ports = Ports::keep()?;
                let alone = Membership::alone(&ports);
                vec![Kind::Native(Native::new(scripts.clone(), &folder.path, ports, alone, options)?)]
            }
            Source::Scripts(scripts) => lay_cluster(scripts, &folder.path, options, members)?,
            Source::Engine(engine) if members == 1 => {
                let ports = Ports::keep()?;
                vec![Kind::Container(Container::new(engine, &folder.path, ports, options, ending)?)]
            }
            Source::Engine(engine) => bail!(
                "a cluster needs an installed rabbitmq-server, there is only {engine}: members in containers cannot \
                 reach each other on this machine's loopback, and nothing else is opened"
            ),
        };
        Ok(Self { brokers, folder, source: source.to_string(), ending: Arc::clone(ending) })
    }

    fn ready_reply(&self) -> Reply {
        let first = &self.brokers[0];
        let place = |kind: &Kind| {
            let folder = match kind {
                Kind::Native(native) => native.folder().to_owned(),
                Kind::Container(_) => self.folder.path.clone(),
            };
            Place { url: kind.url(), addr: kind.addr(), folder }
        };
        Reply {
            url: Some(first.url()),
            addr: Some(first.addr()),
            pid: Some(std::process::id()),
            folder: Some(self.folder.path.clone()),
            source: Some(self.source.clone()),
            members: if self.brokers.len() > 1 {
                self.brokers.iter().map(place).collect()
            } else {
                Vec::new()
            },
            ..Reply::default()
        }
    }

    /// Starts these together: members of a cluster wait for each other.
    fn start_and_wait(&mut self, members: &[usize]) -> Result<()> {
        let ending = Arc::clone(&self.ending);
        let start = Instant::now();
        let further = u32::try_from(members.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let bound = READY_BOUND + READY_BOUND_MEMBER.saturating_mul(further);
        for &member in members {
            self.member(member)?.start(&ending)?;
        }
        for &member in members {
            let waited = self.member(member)?.wait(start, bound, &ending);
            waited.with_context(|| format!("member {member}"))?;
        }
        Ok(())
    }

    fn member(&mut self, member: usize) -> Result<&mut Kind> {
        let count = self.brokers.len();
        self.brokers.get_mut(member).with_context(|| format!("there is no member {member} of {count}"))
    }

    fn obey(&mut self, request: &Request) -> Result<Reply> {
        let ending = Arc::clone(&self.ending);
        let mut answer = Reply::default();
        for &member in &request.members {
            let broker = self.member(member)?;
            match &request.order {
                Order::Kill => broker.kill(&ending)?,
                Order::Stop | Order::Restart => broker.stop(&ending)?,
                Order::Freeze => broker.freeze(&ending)?,
                Order::Thaw => broker.thaw(&ending)?,
                Order::Ctl { arguments } => answer.output = Some(broker.ctl(arguments, &ending)?),
            }
        }
        if request.order == Order::Restart {
            self.start_and_wait(&request.members)?;
        }
        Ok(answer)
    }

    /// Ends everything now: the data go anyway, so nothing is gained by asking politely.
    fn end(mut self) -> Result<()> {
        footprint::kill_all(&self.folder.path)?;
        for broker in &mut self.brokers {
            if let Kind::Native(native) = broker {
                native.kill()?;
            }
        }
        self.folder.end()
    }
}

/// The folders of a cluster's members, and the port mapper that they share, which runs from here on.
fn lay_cluster(scripts: &Path, folder: &Path, options: &Options, members: usize) -> Result<Vec<Kind>> {
    let ports: Vec<Ports> = (0..members).map(|_| Ports::keep()).collect::<Result<_>>()?;
    let epmd = ports.first().context("a cluster has members")?.epmd();
    native::start_mapper(folder, epmd)?;
    let memberships = Membership::of_cluster(members, epmd);
    let laid = ports.into_iter().zip(memberships).zip(1..).map(|((ports, membership), number)| {
        let folder = folder.join(format!("c{number}"));
        Native::new(scripts.to_owned(), &folder, ports, membership, options).map(Kind::Native)
    });
    laid.collect()
}

/// A broker's folder, held by a lock.
struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    fn new() -> Result<Self> {
        let _laying = Self::laying()?;
        let path = root().join(crate::unique_name("run"));
        fs::create_dir_all(&path).with_context(|| format!("could not create {}", path.display()))?;
        let lock = File::create(path.join(LOCK_FILE))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { path, _lock: lock })
    }

    /// Held while a folder is created and locked, and while folders are swept: no sweep sees one between the two.
    fn laying() -> Result<File> {
        fs::create_dir_all(root()).with_context(|| format!("could not create {}", root().display()))?;
        let path = root().join("laying.lock");
        let lock = File::create(&path).with_context(|| format!("could not create {}", path.display()))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        Ok(lock)
    }

    fn end(&self) -> Result<()> {
        end_folder(&self.path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.path.exists()
            && let Err(error) = self.end()
        {
            eprintln!("could not end the broker of {}: {error:#}", self.path.display());
        }
    }
}

/// Ends whatever runs for a folder, and removes it.
fn end_folder(folder: &Path) -> Result<()> {
    footprint::kill_all(folder)?;
    container::remove(folder)?;
    fs::remove_dir_all(folder).with_context(|| format!("could not remove {}", folder.display()))
}

/// Ends what supervisors that were killed left behind: each folder whose lock nobody holds.
fn sweep() -> Result<()> {
    let _laying = Folder::laying()?;
    let entries = fs::read_dir(root())?;
    for folder in entries.flatten().map(|entry| entry.path()) {
        // The state of `broker up` has its files here too.
        let Ok(lock) = File::open(folder.join(LOCK_FILE)) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        eprintln!("ending the broker that a killed supervisor left in {}", folder.display());
        if let Err(error) = end_folder(&folder) {
            eprintln!("could not end it: {error:#}");
        }
    }
    Ok(())
}

/// Whether a supervisor lives that holds this folder.
pub(super) fn is_held(folder: &Path) -> bool {
    File::open(folder.join(LOCK_FILE))
        .is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err())
}

/// `target/broker` of this workspace.
pub(super) fn root() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).join("target"),
        PathBuf::from,
    );
    std::path::absolute(target.join("broker")).unwrap_or(target)
}
