//! Settings from the command line, the environment and a file, checked once.
//!
//! [`Config::resolve`] overlays them and refuses, naming the setting, what cannot work; a mistake in the file is named
//! with its line, as [`geocache::config`] has it. Passwords in broker URIs appear in no message: [`AmqpUri`] does not show what it
//! holds, and the text of the file is never quoted.

#[cfg(test)]
mod tests;
mod value;

use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use geo::{NAME_BYTES_MAX, RegionId};
pub use geocache::config::ByteSize;
use geocache::config::Document;

use self::value::PORT;
use crate::{
    cli::{NodeOptions, Profile, Settings},
    log,
    memcached::{KEY_BYTES_MAX, Options},
};

pub(crate) use self::value::amqp_uris;
pub use self::value::{AmqpUri, ListenAddress};

const MEMORY_DEFAULT: u64 = 256 << 20;
const MEMORY_MIN: u64 = 1 << 20;
/// What one replicated frame carries, rounded down; the same for a standalone cache, so that a value fits both.
const VALUE_BYTES_MAX: u64 = 7 << 20;
const _: () = assert!(VALUE_BYTES_MAX as usize <= replication::wire::VALUE_BYTES_MAX);
const THREADS_MAX: usize = 256;
/// What a stream may be told to keep: [`replication::rabbitmq::Config`] takes no more.
const STREAM_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 40;
const STREAM_AGE_SECS: RangeInclusive<u64> = 60..=30 * 86_400;
/// A client gives up sooner, and the end of a node would wait for it.
const FETCH_TIMEOUT_MS_MAX: u64 = 10_000;
/// What the cache keeps beside a value: the longest key and its own bookkeeping, rounded up.
const ENTRY_BYTES: u64 = 1024;
const _: () = assert!(ENTRY_BYTES >= 2 * KEY_BYTES_MAX as u64);

/// What a node is to do, complete and consistent.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The cache's name.
    pub cache: String,
    /// With whom to replicate; `None` for a standalone cache.
    pub region: Option<Region>,
    /// Where to listen.
    pub listen: SocketAddr,
    /// How much to hold.
    pub bound: Bound,
    /// The server's limits.
    pub options: Options,
    /// What to log.
    pub log: String,
}

/// The part of a configuration that makes a node one of a region.
#[derive(Debug, Clone)]
pub struct Region {
    /// The region.
    pub name: RegionId,
    /// The node's name within it.
    pub node: String,
    /// The brokers.
    pub amqp: Vec<AmqpUri>,
    /// How the brokers keep frames.
    pub profile: Profile,
    /// How many bytes of a region's stream they keep; `None`: the transport's default.
    pub stream_bytes_max: Option<u64>,
    /// And for how long.
    pub stream_age_max: Option<Duration>,
    /// The length from which on frames travel compressed; `None`: none does.
    pub compress_above: Option<usize>,
    /// Where the brokers' user and password are, in place of the URIs.
    pub credentials_file: Option<PathBuf>,
    /// The authorities to trust for `amqps`.
    pub ca: Option<PathBuf>,
    /// The node's certificate and key for `amqps`.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What bounds the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Bytes.
    Memory(u64),
    /// Entries.
    Entries(usize),
}

/// Why a configuration cannot be used: mend what it names.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read, or holds something that is not understood.
    #[error(transparent)]
    File(#[from] geocache::config::ConfigError),
    /// A setting does not go with itself or the others, wherever it was set.
    #[error("{setting}: {problem}")]
    Setting {
        /// The setting, as an option of the command line.
        setting: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
}

fn setting(setting: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Setting { setting, problem: problem.into() }
}

impl Config {
    /// Overlays the options over the file that they name, and checks the whole. The node's name defaults to one made
    /// from `host`.
    ///
    /// # Errors
    /// A [`ConfigError`] that names the setting, and the line if it is the file's.
    pub fn resolve(options: NodeOptions, host: Option<&str>) -> Result<Self, ConfigError> {
        let Some(path) = &options.config else { return Self::check(options.settings, host) };
        let document = Document::read(path)?;
        let settings = document.parse()?;
        let nearer = options.settings.clone();
        Self::check(options.settings.over(settings), host).map_err(|error| match error {
            // What the file alone has set is mended there.
            ConfigError::Setting { setting, problem } if !nearer.has(setting) => {
                let name = setting.trim_start_matches('-').replace('-', "_");
                let placed = document.error_at(&name, problem.as_str());
                placed.map_or(ConfigError::Setting { setting, problem }, ConfigError::File)
            }
            error => error,
        })
    }

    fn check(settings: Settings, host: Option<&str>) -> Result<Self, ConfigError> {
        let bound = match (settings.memory, settings.capacity) {
            (Some(_), Some(_)) => {
                return Err(setting("--memory", "is set together with --capacity; keep one of the two"));
            }
            (_, Some(0)) => return Err(setting("--capacity", "is 0; give the number of entries to hold")),
            (_, Some(entries)) => Bound::Entries(entries),
            (memory, None) => Bound::Memory(memory.map_or(MEMORY_DEFAULT, |memory| memory.0)),
        };
        if matches!(bound, Bound::Memory(memory) if memory < MEMORY_MIN) {
            return Err(setting("--memory", "is under 1m; give at least that"));
        }
        let mut limits = Options::default();
        if let Some(connections) = settings.max_connections {
            if connections == 0 {
                return Err(setting("--max-connections", "is 0; allow at least 1"));
            }
            limits.connections_max = connections;
        }
        if let Some(ByteSize(bytes)) = settings.max_value_bytes {
            if !(1..=VALUE_BYTES_MAX).contains(&bytes) {
                return Err(setting("--max-value-bytes", format!("is {bytes}; use 1 to 7m")));
            }
            limits.value_bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        if let Bound::Memory(memory) = bound {
            let least = limits.value_bytes_max as u64 + ENTRY_BYTES;
            if memory < least {
                return Err(setting(
                    "--memory",
                    format!(
                        "is {memory} bytes, which hold no value of --max-value-bytes ({}) with its key; give at least \
                         {least}, or lower --max-value-bytes",
                        limits.value_bytes_max
                    ),
                ));
            }
            limits.memory_bytes = memory;
            limits.request_bytes_max = limits.request_bytes_max.max(memory / 4);
        }
        if let Some(threads) = settings.threads {
            if !(1..=THREADS_MAX).contains(&threads) {
                return Err(setting("--threads", format!("is {threads}; use 1 to {THREADS_MAX}")));
            }
            limits.threads = threads;
        }
        limits.idle_timeout = settings.idle_timeout_secs.filter(|&secs| secs > 0).map(Duration::from_secs);
        if let Some(secs) = settings.write_timeout_secs {
            if secs == 0 {
                return Err(setting("--write-timeout-secs", "is 0; give at least 1"));
            }
            limits.write_timeout = Duration::from_secs(secs);
        }
        if let Some(ms) = settings.fetch_timeout_ms {
            if ms > FETCH_TIMEOUT_MS_MAX {
                let problem = format!("is {ms}; use 0 to {FETCH_TIMEOUT_MS_MAX}");
                return Err(setting("--fetch-timeout-ms", problem));
            }
            limits.fetch_timeout = Some(Duration::from_millis(ms)).filter(|wait| !wait.is_zero());
        }
        if let Some(filter) = &settings.log {
            log::check(filter).map_err(|problem| setting("--log", problem))?;
        }
        Ok(Self {
            cache: settings.cache.as_ref().map_or("geocache", |name| name.as_str()).to_owned(),
            listen: settings.listen.map_or(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)), |listen| listen.0),
            log: settings.log.clone().unwrap_or_else(|| log::NODE_DEFAULT.to_owned()),
            region: region(settings, host)?,
            bound,
            options: limits,
        })
    }
}

fn region(settings: Settings, host: Option<&str>) -> Result<Option<Region>, ConfigError> {
    let Some(name) = settings.region.clone() else {
        if !settings.amqp.is_empty() {
            let problem = "is set without --region; say which region this node belongs to, or leave both out for a \
                           standalone cache";
            return Err(setting("--amqp", problem));
        }
        if settings.node.is_some() {
            return Err(setting("--node", "is set without --region; a standalone cache has no name"));
        }
        if settings.profile.is_some() {
            return Err(setting("--profile", "is set without --region; a standalone cache has no broker"));
        }
        let of_brokers = [
            "--amqp-credentials-file",
            "--amqp-ca",
            "--amqp-cert",
            "--amqp-key",
            "--stream-max-bytes",
            "--stream-max-age-secs",
            "--compress-above",
        ];
        if let Some(option) = of_brokers.into_iter().find(|option| settings.has(option)) {
            return Err(setting(option, "is set without --region; a standalone cache has no broker"));
        }
        return Ok(None);
    };
    if settings.amqp.is_empty() {
        let problem = format!(
            "is {name} but no broker is named; add --amqp amqp://user:password@host:5672, or leave both out for a \
             standalone cache"
        );
        return Err(setting("--region", problem));
    }
    let profile = settings.profile.unwrap_or_default();
    let of_streams = ["--stream-max-bytes", "--stream-max-age-secs"];
    if profile != Profile::Stream
        && let Some(option) = of_streams.into_iter().find(|option| settings.has(option))
    {
        return Err(setting(option, "is set without --profile stream; the other profiles have no streams"));
    }
    let stream_bytes_max = settings.stream_max_bytes.map(|bytes| bytes.0);
    if let Some(bytes) = stream_bytes_max.filter(|bytes| !STREAM_BYTES.contains(bytes)) {
        return Err(setting("--stream-max-bytes", format!("is {bytes}; use 1m to 1024g")));
    }
    if let Some(secs) = settings.stream_max_age_secs.filter(|secs| !STREAM_AGE_SECS.contains(secs)) {
        let (least, most) = (STREAM_AGE_SECS.start(), STREAM_AGE_SECS.end());
        return Err(setting("--stream-max-age-secs", format!("is {secs}; use {least} to {most}")));
    }
    let compress_above = settings.compress_above.filter(|bytes| bytes.0 > 0);
    let node = match settings.node {
        Some(node) => node.as_str().to_owned(),
        None => host.and_then(node_name).ok_or_else(|| {
            setting("--node", "is not set and this host has no name to make it from; name this node")
        })?,
    };
    let identity = match (settings.amqp_cert, settings.amqp_key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => {
            return Err(setting("--amqp-cert", "is set without --amqp-key; name the file with its key"));
        }
        (None, Some(_)) => {
            return Err(setting(
                "--amqp-key",
                "is set without --amqp-cert; name the file with its certificate",
            ));
        }
    };
    Ok(Some(Region {
        name,
        node,
        amqp: settings.amqp,
        profile,
        stream_bytes_max,
        stream_age_max: settings.stream_max_age_secs.map(Duration::from_secs),
        compress_above: compress_above.map(|bytes| usize::try_from(bytes.0).unwrap_or(usize::MAX)),
        credentials_file: settings.amqp_credentials_file,
        ca: settings.amqp_ca,
        identity,
    }))
}

/// A node's name made from its host's: stable per host, and per region since names are a region's own.
pub fn node_name(host: &str) -> Option<String> {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = host.trim().chars().map(plain).take(NAME_BYTES_MAX).collect();
    let name = name.trim_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}

impl Settings {
    /// Whether the option of this name is set.
    fn has(&self, option: &str) -> bool {
        match option {
            "--region" => self.region.is_some(),
            "--amqp" => !self.amqp.is_empty(),
            "--amqp-credentials-file" => self.amqp_credentials_file.is_some(),
            "--amqp-ca" => self.amqp_ca.is_some(),
            "--amqp-cert" => self.amqp_cert.is_some(),
            "--amqp-key" => self.amqp_key.is_some(),
            "--node" => self.node.is_some(),
            "--cache" => self.cache.is_some(),
            "--profile" => self.profile.is_some(),
            "--stream-max-bytes" => self.stream_max_bytes.is_some(),
            "--stream-max-age-secs" => self.stream_max_age_secs.is_some(),
            "--compress-above" => self.compress_above.is_some(),
            "--listen" => self.listen.is_some(),
            "--memory" => self.memory.is_some(),
            "--capacity" => self.capacity.is_some(),
            "--max-connections" => self.max_connections.is_some(),
            "--max-value-bytes" => self.max_value_bytes.is_some(),
            "--threads" => self.threads.is_some(),
            "--idle-timeout-secs" => self.idle_timeout_secs.is_some(),
            "--write-timeout-secs" => self.write_timeout_secs.is_some(),
            "--fetch-timeout-ms" => self.fetch_timeout_ms.is_some(),
            "--log" => self.log.is_some(),
            _ => false,
        }
    }

    /// These settings, and where one is left out, those of `under`.
    fn over(self, under: Self) -> Self {
        // Either bound replaces the other.
        let bounded = self.memory.is_some() || self.capacity.is_some();
        let (memory, capacity) =
            if bounded { (self.memory, self.capacity) } else { (under.memory, under.capacity) };
        Self {
            region: self.region.or(under.region),
            amqp: if self.amqp.is_empty() { under.amqp } else { self.amqp },
            amqp_credentials_file: self.amqp_credentials_file.or(under.amqp_credentials_file),
            amqp_ca: self.amqp_ca.or(under.amqp_ca),
            amqp_cert: self.amqp_cert.or(under.amqp_cert),
            amqp_key: self.amqp_key.or(under.amqp_key),
            node: self.node.or(under.node),
            cache: self.cache.or(under.cache),
            profile: self.profile.or(under.profile),
            stream_max_bytes: self.stream_max_bytes.or(under.stream_max_bytes),
            stream_max_age_secs: self.stream_max_age_secs.or(under.stream_max_age_secs),
            compress_above: self.compress_above.or(under.compress_above),
            listen: self.listen.or(under.listen),
            memory,
            capacity,
            max_connections: self.max_connections.or(under.max_connections),
            max_value_bytes: self.max_value_bytes.or(under.max_value_bytes),
            threads: self.threads.or(under.threads),
            idle_timeout_secs: self.idle_timeout_secs.or(under.idle_timeout_secs),
            write_timeout_secs: self.write_timeout_secs.or(under.write_timeout_secs),
            fetch_timeout_ms: self.fetch_timeout_ms.or(under.fetch_timeout_ms),
            log: self.log.or(under.log),
        }
    }
}
