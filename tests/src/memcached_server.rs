//! A real memcached that ends with the test, however the test ends.
//!
//! **Where it comes from**, in this order: the program that `GEOCACHE_TEST_MEMCACHED` names, `memcached` on `PATH` or in
//! `/usr/bin`, Debian's package fetched with `apt-get download` and unpacked under `target/memcached/` (which needs no root and starts
//! no service); else an error that names all three.
//!
//! It listens on loopback alone, on a port that stays its own: one that was killed comes back there, empty, as memcached does. Like
//! every [`Process`] it is a child of the minder, so that a test that is killed leaves none behind.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use tests::memcached_server::MemcachedServer;
//!
//! let mut server = MemcachedServer::start().await?;
//! // … connect a client to server.addr() …
//! server.kill_9().await?;
//! // … another server answers …
//! server.restart().await?; // the same port, empty
//! server.freeze()?; // its connections stay, nothing is answered
//! server.thaw()?;
//! # Ok(())
//! # }
//! ```

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{FlockOperation, flock};

use crate::{
    memcached::Memcached,
    process::{Process, free_ports},
    wait_until,
};

/// The variable that names a memcached, in place of the one that is found.
pub const MEMCACHED_VARIABLE: &str = "GEOCACHE_TEST_MEMCACHED";

const PACKAGE: &str = "memcached";
/// Where programs are that `PATH` may lack.
const FOLDERS: &[&str] = &["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"];
/// Ports may be taken between the look and the bind: another is tried.
const START_TRIES_MAX: usize = 8;
/// Of a start, an end and an answer.
const BOUND: Duration = Duration::from_secs(20);

/// A running memcached; dropping it ends it.
#[derive(Debug)]
pub struct MemcachedServer {
    program: Program,
    arguments: Vec<String>,
    addr: SocketAddr,
    process: Process,
}

impl MemcachedServer {
    /// Starts one with 64 MiB and returns when it answers.
    ///
    /// # Errors
    /// When none can be had (the error names every way to get one), or it does not answer.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// As [`start`](Self::start), with arguments of memcached's own besides, such as `-m 16` or `-I 2m`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(arguments: &[&str]) -> Result<Self> {
        let program = tokio::task::spawn_blocking(Program::provide).await??;
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut failure = anyhow!("never tried");
        for _ in 0..START_TRIES_MAX {
            let addr = SocketAddr::from(([127, 0, 0, 1], free_ports(1)));
            match program.run(addr, &arguments).await {
                Ok(process) => return Ok(Self { program, arguments, addr, process }),
                Err(error) => failure = error,
            }
        }
        Err(failure.context(format!("memcached did not start in {START_TRIES_MAX} tries")))
    }

    /// Where it listens: what a client connects to, or the upstream of a [`Proxy`](crate::proxy::Proxy) in front of it.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process id, which `stats` tells as well.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// SIGKILL; returns when it is gone, with all that it held.
    ///
    /// # Errors
    /// When it is gone already.
    pub async fn kill_9(&self) -> Result<()> {
        self.process.kill_9()?;
        self.process.exit_code(BOUND).await;
        Ok(())
    }

    /// Starts it again on the same port, empty; ends it first where it still runs. Returns when it answers.
    ///
    /// # Errors
    /// When another program has taken the port, or it does not answer.
    pub async fn restart(&mut self) -> Result<()> {
        // An error means that it was killed before.
        let _ = self.kill_9().await;
        self.process = self.program.run(self.addr, &self.arguments).await?;
        Ok(())
    }

    /// SIGSTOP: its connections stay, and the system still accepts new ones for it; nothing is answered.
    ///
    /// # Errors
    /// As [`Process::freeze`].
    pub fn freeze(&self) -> Result<()> {
        self.process.freeze()
    }

    /// SIGCONT: goes on, with what was sent to it meanwhile.
    ///
    /// # Errors
    /// When it is gone.
    pub fn thaw(&self) -> Result<()> {
        self.process.thaw()
    }

    /// A connection to it.
    ///
    /// # Errors
    /// What the connection attempt ended with.
    pub async fn client(&self) -> Result<Memcached> {
        Ok(Memcached::connect(self.addr).await?)
    }
}

/// A memcached to run.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Program {
    path: PathBuf,
    /// Where the libraries of an unpacked one are.
    libraries: Option<PathBuf>,
}

impl Program {
    /// Finds one, fetching it where none is installed; once a process.
    fn provide() -> Result<Self> {
        static PROVIDED: OnceLock<Result<Program, String>> = OnceLock::new();
        let provide = || match Self::installed()? {
            Some(program) => Ok(program),
            None => Self::fetched().map_err(|error| none_found(&error)),
        };
        PROVIDED
            .get_or_init(|| provide().map_err(|error| format!("{error:#}")))
            .clone()
            .map_err(|error| anyhow!(error))
    }

    fn installed() -> Result<Option<Self>> {
        if let Some(path) = std::env::var_os(MEMCACHED_VARIABLE).map(PathBuf::from) {
            if !path.is_file() {
                bail!("{MEMCACHED_VARIABLE} names {}, which is no program", path.display());
            }
            return Ok(Some(Self { path, libraries: None }));
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(FOLDERS.iter().map(PathBuf::from));
        let mut programs = folders.map(|folder| folder.join(PACKAGE));
        Ok(programs.find(|program| program.is_file()).map(|path| Self { path, libraries: None }))
    }

    /// Debian's package, unpacked where the builds are; fetched where it is not there yet.
    fn fetched() -> Result<Self> {
        may_fetch()?;
        let folder = folder();
        fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
        // One at a time: the others find it done.
        let lock = File::create(folder.join("lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let unpacked = folder.join("unpacked");
        if !unpacked.exists() {
            fetch(&folder, &unpacked)?;
        }
        let libraries = library_folder(&unpacked).context("the packages hold no libraries")?;
        Ok(Self { path: unpacked.join("usr/bin").join(PACKAGE), libraries: Some(libraries) })
    }

    /// Runs it and returns when it answers.
    async fn run(&self, addr: SocketAddr, arguments: &[String]) -> Result<Process> {
        let port = addr.port().to_string();
        let mut all = vec!["-l", "127.0.0.1", "-p", &port, "-U", "0", "-t", "1", "-m", "64"];
        if rustix::process::geteuid().is_root() {
            // It refuses to run as root unless it is told to stay so.
            all.extend(["-u", "root"]);
        }
        all.extend(arguments.iter().map(String::as_str));
        let libraries = self.libraries.as_ref().map(|folder| folder.display().to_string());
        let environment: Vec<_> =
            libraries.iter().map(|folder| ("LD_LIBRARY_PATH", folder.as_str())).collect();
        let process = Process::spawn_with(&self.path, &all, &environment)?;
        let mut answered = None;
        let ready = wait_until("it answers or ends", Duration::MAX, async || {
            answered = pid_at(addr).await;
            answered.is_some() || process.has_ended()
        });
        let _ = tokio::time::timeout(BOUND, ready).await;
        match answered {
            Some(pid) if pid == process.pid() => Ok(process),
            Some(pid) => bail!("process {pid} answers on {addr}, not the memcached that was started"),
            None => bail!("memcached does not answer on {addr}; it printed:\n{}", process.log()),
        }
    }
}

/// Where the tests' memcached would come from, for people; nothing is fetched or started.
///
/// # Errors
/// One that names every way to get one. That apt-get has the package is found out only when it is called.
pub fn foresee() -> Result<String> {
    if let Some(program) = Program::installed()? {
        return Ok(program.path.display().to_string());
    }
    may_fetch().map_err(|error| none_found(&error))?;
    Ok(format!("apt-get, which will fetch {PACKAGE} into {}", folder().display()))
}

fn none_found(no_apt: &anyhow::Error) -> anyhow::Error {
    anyhow!(
        "there is no memcached for the tests. Any one of these would do:\n  \
         1. set {MEMCACHED_VARIABLE} to a memcached 1.6 or newer\n  \
         2. install one (Debian and Ubuntu: apt-get install memcached; macOS: brew install memcached): it is neither on \
         PATH nor in {}\n  \
         3. apt-get on a Debian-like system, root or not: {no_apt:#}",
        FOLDERS.join(", "),
    )
}

fn may_fetch() -> Result<()> {
    if !Path::new("/etc/debian_version").exists() {
        bail!("this system is not Debian-like");
    }
    Ok(())
}

/// The package and the libraries that it names, unpacked in one step: a folder that is there is whole.
fn fetch(folder: &Path, unpacked: &Path) -> Result<()> {
    eprintln!("no memcached found: fetching Debian's package; nothing is installed");
    let packages = folder.join("packages");
    let making = folder.join("making");
    for scratch in [&packages, &making] {
        let _ = fs::remove_dir_all(scratch);
        fs::create_dir_all(scratch)?;
    }
    if download(&packages).is_err() {
        eprintln!("trying again after `apt-get update`, which needs root");
        captured(Command::new("apt-get").args(["-q", "-o", "DPkg::Lock::Timeout=120", "update"]))?;
        download(&packages)?;
    }
    for package in fs::read_dir(&packages)? {
        captured(Command::new("dpkg-deb").arg("--extract").arg(package?.path()).arg(&making))?;
    }
    if !making.join("usr/bin").join(PACKAGE).is_file() {
        bail!("the package {PACKAGE} holds no usr/bin/{PACKAGE}");
    }
    fs::rename(&making, unpacked)?;
    Ok(())
}

fn download(packages: &Path) -> Result<()> {
    let depends = captured(Command::new("apt-cache").args(["depends", "--important", PACKAGE]))?;
    let libraries = libraries(&depends);
    captured(
        Command::new("apt-get").args(["-q", "download", PACKAGE]).args(&libraries).current_dir(packages),
    )?;
    Ok(())
}

/// The libraries among what `apt-cache depends` lists, but for the C library, which is the system's.
fn libraries(depends: &str) -> Vec<String> {
    let named = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let libraries = named.filter(|name| name.starts_with("lib") && !name.starts_with("libc6"));
    libraries.map(str::to_owned).collect()
}

/// `usr/lib/<architecture>` of what was unpacked.
fn library_folder(unpacked: &Path) -> Option<PathBuf> {
    let folders = fs::read_dir(unpacked.join("usr/lib")).ok()?;
    folders.flatten().map(|entry| entry.path()).find(|folder| {
        let mut files = fs::read_dir(folder).into_iter().flatten().flatten();
        files.any(|file| file.file_name().to_string_lossy().contains(".so"))
    })
}

fn captured(command: &mut Command) -> Result<String> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("could not start {shown}"))?;
    if !output.status.success() {
        bail!("{shown} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The process that answers at an address, if one does.
async fn pid_at(addr: SocketAddr) -> Option<u32> {
    let mut client = Memcached::connect(addr).await.ok()?;
    let lines = client.lines("stats").await.ok()?;
    lines.iter().find_map(|line| line.strip_prefix("STAT pid ")?.parse().ok())
}

/// `target/memcached` of this workspace.
fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).join("target"),
        PathBuf::from,
    );
    std::path::absolute(target.join("memcached")).unwrap_or(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_all_three_ways() {
        let error = none_found(&anyhow!("this system is not Debian-like")).to_string();
        for way in [MEMCACHED_VARIABLE, "apt-get install memcached", "PATH", "not Debian-like"] {
            assert!(error.contains(way), "{error}");
        }
    }

    #[test]
    fn the_libraries_of_the_package_are_fetched_with_it() {
        let depends = "memcached\n  PreDepends: init-system-helpers\n  Depends: adduser\n  Depends: <perl:any>\n  \
                       Depends: libc6\n  Depends: libevent-2.1-7\n    libother\n  Depends: libsasl2-2\n";
        assert_eq!(libraries(depends), ["libevent-2.1-7", "libsasl2-2"]);
    }
}
