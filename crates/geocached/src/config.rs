//! Settings from the command line, the environment and a file, checked once.
//!
//! [`Config::resolve`] overlays them and refuses, naming the setting, what cannot work; a mistake in the file is named
//! with its line. Passwords in broker URIs appear in no message: [`AmqpUri`] does not show what it holds, and the text
//! of the file is never quoted.

#[cfg(test)]
mod tests;

use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use geo::{NAME_BYTES_MAX, RegionId};
use serde::{Deserialize, Deserializer, de};

use crate::{
    cli::{NodeOptions, Profile, Settings},
    memcached::Options,
};

const MEMORY_DEFAULT: u64 = 256 << 20;
const MEMORY_MIN: u64 = 1 << 20;
/// What one replicated frame carries, rounded down; the same for a standalone cache, so that a value fits both.
const VALUE_BYTES_MAX: u64 = 7 << 20;
const _: () = assert!(VALUE_BYTES_MAX as usize <= replication::wire::VALUE_BYTES_MAX);
const THREADS_MAX: usize = 256;
const PORT: u16 = 11211;
/// The AMQP library logs as errors what the transport expects, handles and reports itself.
const LOG_DEFAULT: &str = "info,lapin=off";

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
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds something that is not understood.
    #[error("{}, line {line}, column {column}{}: {message}", path.display(), of(field))]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The column, counted from 1.
        column: usize,
        /// The setting, if the line names one.
        field: Option<String>,
        /// What is wrong.
        message: String,
    },
    /// A setting does not go with itself or the others, wherever it was set.
    #[error("{setting}: {problem}")]
    Setting {
        /// The setting, as an option of the command line.
        setting: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
}

fn of(field: &Option<String>) -> String {
    field.as_ref().map(|field| format!(", setting {field:?}")).unwrap_or_default()
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
        let settings = match &options.config {
            Some(path) => options.settings.over(read(path)?),
            None => options.settings,
        };
        Self::check(settings, host)
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
        if let Bound::Memory(memory) = bound {
            limits.memory_bytes = memory;
        }
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
        Ok(Self {
            cache: settings.cache.as_ref().map_or("geocache", |name| name.as_str()).to_owned(),
            listen: settings.listen.map_or(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)), |listen| listen.0),
            log: settings.log.clone().unwrap_or_else(|| LOG_DEFAULT.to_owned()),
            region: region(settings, host)?,
            bound,
            options: limits,
        })
    }
}

fn region(settings: Settings, host: Option<&str>) -> Result<Option<Region>, ConfigError> {
    let Some(name) = settings.region else {
        if !settings.amqp.is_empty() {
            let problem = "is set without --region; say which region this node belongs to, or leave both out for a \
                           standalone cache";
            return Err(setting("--amqp", problem));
        }
        if settings.node.is_some() {
            return Err(setting("--node", "is set without --region; a standalone cache has no name"));
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
    let node = match settings.node {
        Some(node) => node.as_str().to_owned(),
        None => host.and_then(node_name).ok_or_else(|| {
            setting("--node", "is not set and this host has no name to make it from; name this node")
        })?,
    };
    Ok(Some(Region { name, node, amqp: settings.amqp, profile: settings.profile.unwrap_or_default() }))
}

/// A node's name made from its host's: stable per host, and per region since names are a region's own.
pub fn node_name(host: &str) -> Option<String> {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = host.trim().chars().map(plain).take(NAME_BYTES_MAX).collect();
    let name = name.trim_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}

impl Settings {
    /// These settings, and where one is left out, those of `under`.
    fn over(self, under: Self) -> Self {
        // Either bound replaces the other.
        let bounded = self.memory.is_some() || self.capacity.is_some();
        let (memory, capacity) =
            if bounded { (self.memory, self.capacity) } else { (under.memory, under.capacity) };
        Self {
            region: self.region.or(under.region),
            amqp: if self.amqp.is_empty() { under.amqp } else { self.amqp },
            node: self.node.or(under.node),
            cache: self.cache.or(under.cache),
            profile: self.profile.or(under.profile),
            listen: self.listen.or(under.listen),
            memory,
            capacity,
            max_connections: self.max_connections.or(under.max_connections),
            max_value_bytes: self.max_value_bytes.or(under.max_value_bytes),
            threads: self.threads.or(under.threads),
            idle_timeout_secs: self.idle_timeout_secs.or(under.idle_timeout_secs),
            write_timeout_secs: self.write_timeout_secs.or(under.write_timeout_secs),
            log: self.log.or(under.log),
        }
    }
}

fn read(path: &Path) -> Result<Settings, ConfigError> {
    let text =
        fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let before = text.get(..at).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let whole = text[start..].lines().next().unwrap_or_default();
        let field = whole.split_once('=').map(|(field, _)| field.trim().to_owned());
        ConfigError::Line {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
            field,
            message: without_passwords(error.message()),
        }
    })
}

/// What a TOML error says may quote the value it is about.
fn without_passwords(message: &str) -> String {
    match (message.find("://"), message.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}://***{}", &message[..scheme], &message[at..])
        }
        _ => message.trim_end().to_owned(),
    }
}

/// A broker's URI, which may hold a password: shown by nothing.
///
/// It is checked by the transport that uses it, whose messages do not repeat it either.
#[derive(Clone, PartialEq, Eq)]
pub struct AmqpUri(String);

impl AmqpUri {
    /// The URI with its password, to connect with.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AmqpUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AmqpUri(***)")
    }
}

impl FromStr for AmqpUri {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// One URI or a list of them.
pub(crate) fn amqp_uris<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<AmqpUri>, D::Error> {
    struct OneOrMany;

    impl<'de> de::Visitor<'de> for OneOrMany {
        type Value = Vec<AmqpUri>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a URI or a list of them")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(vec![AmqpUri(text.to_owned())])
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut uris = Vec::new();
            while let Some(uri) = seq.next_element()? {
                uris.push(AmqpUri(uri));
            }
            Ok(uris)
        }
    }

    deserializer.deserialize_any(OneOrMany)
}

/// A number of bytes, written as such or with `k`, `m` or `g` for the powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let problem =
            || format!("{text:?} is no number of bytes; use digits, followed by k, m or g if you like");
        let shift = match text.as_bytes().last() {
            Some(b'k' | b'K') => 10,
            Some(b'm' | b'M') => 20,
            Some(b'g' | b'G') => 30,
            _ => 0,
        };
        let digits = if shift == 0 { text } else { &text[..text.len() - 1] };
        let number: u64 = digits.parse().map_err(|_| problem())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(problem)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;

        impl de::Visitor<'_> for NumberOrText {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, or a text such as \"64m\"")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<ByteSize, E> {
                u64::try_from(number)
                    .map(ByteSize)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(NumberOrText)
    }
}

/// Where to listen: an address with a port, or a port alone for loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress(pub SocketAddr);

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(port) = text.parse() {
            return Ok(Self(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self(SocketAddr::from((ip, PORT))));
        }
        text.parse().map(Self).map_err(|_| {
            format!("{text:?} is no address to listen on; use one such as 127.0.0.1:11211, [::1]:11211 or 0.0.0.0:11211")
        })
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
