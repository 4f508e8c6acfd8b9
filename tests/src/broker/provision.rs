//! Where a private broker comes from: an installed RabbitMQ, apt-get, or a container engine, in this order.

use std::{
    fmt,
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{FlockOperation, flock};

use super::{
    URL_VARIABLE,
    run::{self, Ending},
};

const INSTALL_BOUND: Duration = Duration::from_secs(600);
const ENGINE_ANSWER_BOUND: Duration = Duration::from_secs(10);
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Folders where packages put RabbitMQ's own scripts, looked at before `PATH`.
const SCRIPT_FOLDERS: &[&str] = &[
    "/usr/lib/rabbitmq/bin",
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
    "/opt/rabbitmq/sbin",
];
const ENGINES: &[&str] = &["docker", "podman"];

/// What a private broker is started from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// The folder of RabbitMQ's own scripts.
    Scripts(PathBuf),
    /// A container engine that answers.
    Engine(&'static str),
}

/// For people.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scripts(folder) => write!(f, "{}/rabbitmq-server", folder.display()),
            Self::Engine(engine) => write!(f, "a container of {engine}"),
        }
    }
}

/// Finds a source, installing RabbitMQ where that is possible and nothing else was found installed.
///
/// # Errors
/// One that names all four ways to a broker, and why each is closed here.
pub(super) fn find(ending: &Ending) -> Result<Source> {
    if let Some(folder) = installed() {
        return Ok(Source::Scripts(folder));
    }
    match install() {
        Ok(folder) => Ok(Source::Scripts(folder)),
        Err(no_apt) => engine(&no_apt, ending),
    }
}

/// Where a private broker would come from, for people; nothing is installed or started.
///
/// # Errors
/// As [`find`]. That apt-get has the package is found out only when it is called.
pub(super) fn foresee(ending: &Ending) -> Result<String> {
    if let Some(folder) = installed() {
        return Ok(Source::Scripts(folder).to_string());
    }
    match may_install() {
        Ok(()) => Ok("apt-get, which will install rabbitmq-server".to_owned()),
        Err(no_apt) => engine(&no_apt, ending).map(|source| source.to_string()),
    }
}

fn engine(no_apt: &anyhow::Error, ending: &Ending) -> Result<Source> {
    let mut no_engine = Vec::new();
    for engine in ENGINES {
        let mut ask = Command::new(engine);
        ask.args(["version", "--format", "{{.Server.Version}}"]);
        match run::captured(ask, ENGINE_ANSWER_BOUND, ending) {
            Ok(_) => return Ok(Source::Engine(engine)),
            Err(error) => no_engine.push(format!("{engine}: {}", one_line(&error))),
        }
    }
    Err(none_found(no_apt, &no_engine.join("; ")))
}

fn none_found(no_apt: &anyhow::Error, no_engine: &str) -> anyhow::Error {
    anyhow!(
        "there is no RabbitMQ for the tests. Any one of these would do:\n  \
         1. a broker that runs: set {URL_VARIABLE}=amqp://user:password@host:port/vhost \
         (tests that harm a broker need one of the others, or are left out with --url-only)\n  \
         2. rabbitmq-server installed: it is neither in {} nor on PATH\n  \
         3. apt-get on a Debian-like system as root: {}\n  \
         4. a container engine that answers: {no_engine}",
        SCRIPT_FOLDERS.join(", "),
        one_line(no_apt),
    )
}

fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The folder of RabbitMQ's own scripts. The one on `PATH` may be a wrapper that switches to another user; the real
/// ones are where `rabbitmq-env` is, to which its link leads.
fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .filter_map(|folder| Some(folder.join("rabbitmq-server").canonicalize().ok()?.parent()?.to_owned()));
    SCRIPT_FOLDERS.iter().map(PathBuf::from).chain(on_path).find(|folder| is_scripts(folder))
}

fn is_scripts(folder: &Path) -> bool {
    ["rabbitmq-server", "rabbitmq-env", "rabbitmqctl"].iter().all(|script| folder.join(script).is_file())
}

fn may_install() -> Result<()> {
    if !Path::new("/etc/debian_version").exists() {
        bail!("this system is not Debian-like");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("this user is not root");
    }
    Ok(())
}

fn install() -> Result<PathBuf> {
    may_install()?;
    // One installation at a time: the others find it done.
    let lock = File::create(std::env::temp_dir().join("geocache-test-install.lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    if let Some(folder) = installed() {
        return Ok(folder);
    }
    eprintln!(
        "no RabbitMQ found: installing rabbitmq-server with apt-get (58 MB); it is not started as a service"
    );
    let _policy = Policy::forbid_services()?;
    if apt(&["install", "--no-install-recommends", "rabbitmq-server"]).is_err() {
        eprintln!("trying again after `apt-get update`");
        apt(&["update"])?;
        apt(&["install", "--no-install-recommends", "rabbitmq-server"])?;
    }
    installed().context("apt-get succeeded, yet rabbitmq-server is not where its package puts it")
}

/// Not given up when everything ends: a half-installed package would be everybody's problem.
fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command
        .args(["-y", "-q", "-o", "DPkg::Lock::Timeout=120"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    run::shown_to_people(command, INSTALL_BOUND, &Ending::new(false))
}

/// Keeps a package's service from being started while it is installed; removed again, if it was not there before.
struct Policy {
    ours: bool,
}

impl Policy {
    fn forbid_services() -> Result<Self> {
        match File::create_new(POLICY) {
            Ok(_) => {
                let policy = Self { ours: true };
                fs::write(POLICY, "#!/bin/sh\nexit 101\n")?;
                fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
                Ok(policy)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Self { ours: false }),
            Err(error) => Err(error).context(format!("could not create {POLICY}")),
        }
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(POLICY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_all_four_ways() {
        let error = none_found(&anyhow!("this user is not root"), "docker: gone; podman: gone").to_string();
        for way in
            [URL_VARIABLE, "rabbitmq-server installed", "apt-get", "container engine", "not root", "podman"]
        {
            assert!(error.contains(way), "{error}");
        }
    }

    #[test]
    fn a_wrapper_without_the_real_scripts_beside_it_is_not_taken() {
        let folder = std::env::temp_dir().join(crate::unique_name("scripts"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("rabbitmq-server"), "").unwrap();
        assert!(!is_scripts(&folder));
        fs::write(folder.join("rabbitmq-env"), "").unwrap();
        fs::write(folder.join("rabbitmqctl"), "").unwrap();
        assert!(is_scripts(&folder));
        fs::remove_dir_all(&folder).unwrap();
    }
}
