//! An installed RabbitMQ, run privately: own ports, own folder, own port mapper, loopback only.
//!
//! RabbitMQ's own script is called, never the wrapper on `PATH`, which switches to the service's user.
//!
//! The members of a cluster share a cookie and a port mapper, and nothing else: each has its folder, so that one can be
//! killed without the others. A lone broker spawns its mapper itself and takes it along when it is killed; that of a
//! cluster is started before the members, by [`start_mapper`], and belongs to the cluster's folder.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    Options, footprint,
    ports::Ports,
    run::{self, Ending},
};

const STOP_BOUND: Duration = Duration::from_secs(30);
const CTL_BOUND: Duration = Duration::from_secs(60);
const MAPPER_BOUND: Duration = Duration::from_secs(10);
const LOG_BYTES_SHOWN: u64 = 4_000;

/// What a broker is called, and whom it joins.
#[derive(Debug, Clone)]
pub(super) struct Membership {
    node: String,
    /// All members' names, this one's included; none where it stays alone.
    peers: Vec<String>,
    epmd: u16,
    cookie: String,
}

impl Membership {
    /// Of a broker that joins nobody, on ports of its own.
    pub(super) fn alone(ports: &Ports) -> Self {
        Self {
            node: "geocache@localhost".to_owned(),
            peers: Vec::new(),
            epmd: ports.epmd(),
            cookie: cookie(),
        }
    }

    /// Of the members of a cluster whose port mapper listens on `epmd`.
    pub(super) fn of_cluster(size: usize, epmd: u16) -> Vec<Self> {
        let peers: Vec<String> = (1..=size).map(|number| format!("c{number}@localhost")).collect();
        let cookie = cookie();
        let member =
            |node: &String| Self { node: node.clone(), peers: peers.clone(), epmd, cookie: cookie.clone() };
        peers.iter().map(member).collect()
    }

    /// The lines of `rabbitmq.conf` by which it finds the others, and stops while it sees only a minority of them.
    fn config(&self) -> String {
        if self.peers.is_empty() {
            return String::new();
        }
        let mut config = String::from(
            "cluster_formation.peer_discovery_backend = classic_config\n\
             cluster_partition_handling = pause_minority\n",
        );
        for (number, peer) in (1..).zip(&self.peers) {
            config.push_str(&format!("cluster_formation.classic_config.nodes.{number} = {peer}\n"));
        }
        config
    }
}

fn cookie() -> String {
    format!("GEOCACHE{:016X}", fastrand::u64(..))
}

/// Starts the port mapper that the members of a cluster share. It ends with everything else of `folder`.
///
/// # Errors
/// When it cannot be started or does not detach.
pub(super) fn start_mapper(folder: &Path, port: u16) -> Result<()> {
    let port = port.to_string();
    let mut child = Command::new("epmd")
        .args(["-daemon", "-address", "127.0.0.1", "-port", &port])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env(footprint::MARK, folder)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("could not start epmd, the port mapper that comes with Erlang")?;
    let start = Instant::now();
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("epmd did not start ({status})"),
            None if start.elapsed() > MAPPER_BOUND => {
                child.kill()?;
                child.wait()?;
                bail!("epmd did not detach within {MAPPER_BOUND:?}");
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// One private broker; its folder is its identity.
#[derive(Debug)]
pub(super) struct Native {
    scripts: PathBuf,
    folder: PathBuf,
    ports: Ports,
    membership: Membership,
    child: Option<Child>,
}

impl Native {
    /// Lays the folder out; nothing runs yet.
    pub(super) fn new(
        scripts: PathBuf,
        folder: &Path,
        ports: Ports,
        membership: Membership,
        options: &Options,
    ) -> Result<Self> {
        for part in ["mnesia", "log", "home"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let cookie = folder.join("home/.erlang.cookie");
        fs::write(&cookie, &membership.cookie)?;
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400))?;
        let mut config = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\n\
             loopback_users = none\n\
             log.console = false\n\
             disk_free_limit.absolute = 50MB\n\
             vm_memory_high_watermark.absolute = 2GB\n\
             vm_memory_calculation_strategy = allocated\n",
            ports.amqp()
        );
        config.push_str(&membership.config());
        for line in &options.config {
            config.push_str(line);
            config.push('\n');
        }
        fs::write(folder.join("rabbitmq.conf"), config)?;
        fs::write(folder.join("enabled_plugins"), format!("[{}].", options.plugins.join(",")))?;
        Ok(Self { scripts, folder: folder.to_owned(), ports, membership, child: None })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn port(&self) -> u16 {
        self.ports.amqp()
    }

    pub(super) fn start(&mut self) -> Result<()> {
        let mut command = self.command("rabbitmq-server");
        command
            .stdin(Stdio::null())
            .stdout(File::options().create(true).append(true).open(self.folder.join("out"))?)
            .stderr(File::options().create(true).append(true).open(self.folder.join("err"))?)
            .process_group(0);
        self.child =
            Some(command.spawn().with_context(|| format!("could not start {}", self.scripts.display()))?);
        Ok(())
    }

    /// The end of the broker's output, if it ended by itself.
    pub(super) fn ended(&mut self) -> Result<Option<String>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        Ok(child.try_wait()?.map(|status| format!("{status}\n{}", self.log())))
    }

    /// What it printed and logged last, for the error that shows it.
    pub(super) fn log(&self) -> String {
        let log = format!("log/{}.log", self.membership.node);
        ["err", "out", &log].iter().map(|name| tail(&self.folder.join(name))).collect::<Vec<_>>().join("\n")
    }

    /// SIGKILL to everything of this folder: the port mapper too, unless it is a cluster's.
    pub(super) fn kill(&mut self) -> Result<()> {
        footprint::kill_all(&self.folder)?;
        self.reap()
    }

    /// SIGTERM to the broker; what it leaves behind is killed.
    pub(super) fn stop(&mut self) -> Result<()> {
        if let Some(pid) = self.pid()
            && footprint::processes(&self.folder).contains(&pid)
        {
            kill_process(pid, Signal::TERM)?;
            // A frozen one hears of it only when it goes on.
            self.signal(Signal::CONT);
            let start = Instant::now();
            while footprint::processes(&self.folder).contains(&pid) {
                if start.elapsed() > STOP_BOUND {
                    bail!("the broker did not end within {STOP_BOUND:?} of SIGTERM");
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.kill()
    }

    pub(super) fn signal(&self, signal: Signal) {
        footprint::signal(&self.folder, signal);
    }

    pub(super) fn ctl(&self, arguments: &[String], ending: &Ending) -> Result<String> {
        let mut command = self.command("rabbitmqctl");
        command.args(["--quiet", "--node", &self.membership.node]).args(arguments);
        command.env("ERL_FLAGS", "-kernel inet_dist_use_interface {127,0,0,1}");
        run::captured(command, CTL_BOUND, ending)
    }

    fn reap(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        let _ = fs::remove_file(self.folder.join("pid"));
        Ok(())
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(fs::read_to_string(self.folder.join("pid")).ok()?.trim().parse().ok()?)
    }

    fn command(&self, script: &str) -> Command {
        let at = |name: &str| self.folder.join(name);
        let (tools_min, tools_max) = self.ports.tools();
        let mut command = Command::new(self.scripts.join(script));
        command
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", at("home"))
            .env("LANG", "C.UTF-8")
            .env("ERL_CRASH_DUMP", at("erl_crash.dump"))
            .env(footprint::MARK, &self.folder)
            .env("ERL_EPMD_PORT", self.membership.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", &self.membership.node)
            .env("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", at("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", at("mnesia"))
            .env("RABBITMQ_LOG_BASE", at("log"))
            .env("RABBITMQ_PID_FILE", at("pid"))
            .env("RABBITMQ_DIST_PORT", self.ports.distribution().to_string())
            .env("RABBITMQ_CTL_DIST_PORT_MIN", tools_min.to_string())
            .env("RABBITMQ_CTL_DIST_PORT_MAX", tools_max.to_string())
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}");
        command
    }
}

fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let from = file.metadata()?.len().saturating_sub(LOG_BYTES_SHOWN);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}
