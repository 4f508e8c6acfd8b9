//! The command line.
//!
//! The options of a node are one struct, [`Settings`], that the command line, the environment and the configuration
//! file fill alike, so that no setting exists in one and not in another.

use std::{ffi::OsString, path::PathBuf, str::FromStr};

use clap::{
    Arg, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum, error::ErrorKind,
};
use geo::RegionId;
use geocache::config::without_passwords;
use serde::{Deserialize, Deserializer, de};

use crate::config::{AmqpUri, ByteSize, ListenAddress, amqp_uris};

const EXAMPLES: &str = "\
Examples:
  geocached demo
      three regions in one process, nothing else needed
  geocached
      a standalone cache on 127.0.0.1:11211
  GEOCACHE_AMQP=amqp://user:password@broker:5672 geocached --region eu-central
      one region's node; start one in each region, with the same broker and --cache

Each option may also be a line of the configuration file, with '_' for '-' (region = \"eu-central\"). The command line
wins over the environment, the environment over the file, the file over the defaults. Give URIs with passwords by the
environment or the file: other users of this machine can read a command line. Passwords apart from the URI: in the file of
--amqp-credentials-file, or in GEOCACHE_AMQP_PASSWORD with GEOCACHE_AMQP_USER.

Without auth, clients of the port can read and change everything: it is loopback unless --listen says otherwise.";

/// The geo-distributed cache daemon: memcached's protocol in every region, each write in all of them
#[derive(Debug, Parser)]
#[command(name = "geocached", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do, if not to run a node.
    #[command(subcommand)]
    pub subject: Option<Subject>,
    /// The settings of the node to run.
    #[command(flatten)]
    pub node: NodeOptions,
}

impl Cli {
    /// Understands `arguments` (the program's name first) and the environment. An empty variable counts as unset, and a
    /// node's variables are not looked at where something else is to be run.
    ///
    /// # Errors
    /// What is wrong, or the help or version that was asked for; [`mistake`] has its text.
    pub fn read(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let command = Self::command().mut_subcommands(|command| command.mut_args(unless_empty));
        // The node's own variables would be checked for a subcommand as well.
        let bare = command.clone().mut_args(|argument| argument.env(None::<&str>));
        let matches = match bare.try_get_matches_from(arguments) {
            Ok(matches) if matches.subcommand_name().is_some() => matches,
            _ => command.mut_args(unless_empty).try_get_matches_from(arguments)?,
        };
        Self::from_arg_matches(&matches)
    }
}

/// The argument, deaf to its variable if that is empty.
fn unless_empty(argument: Arg) -> Arg {
    let is_empty = |name| std::env::var_os(name).is_some_and(|value| value.is_empty());
    if argument.get_env().is_some_and(is_empty) { argument.env(None::<&str>) } else { argument }
}

/// What to print of a mistake in the command line: clap's text repeats the arguments, among which passwords may be.
/// `None` if there is nothing to hide, or what was asked for is the help.
pub fn mistake(error: &clap::Error) -> Option<String> {
    let text = error.render().to_string();
    if !error.use_stderr() || !text.contains("://") {
        return None;
    }
    let mut shown = without_passwords(&text);
    if matches!(
        error.kind(),
        ErrorKind::InvalidSubcommand | ErrorKind::ArgumentConflict | ErrorKind::UnknownArgument
    ) {
        shown.push_str("\n\n  tip: put --amqp before each broker's URI");
    }
    Some(shown)
}

/// What else than a node can be run.
#[derive(Debug, Subcommand)]
pub enum Subject {
    /// Run three regions in one process, each on its own memcached port, with no broker
    Demo(DemoOptions),
    /// Print the version
    Version,
}

/// Options of the demo.
#[derive(Debug, Clone, Args)]
pub struct DemoOptions {
    /// The port of the first region; the others take the next two. 0 lets the system choose all three
    #[arg(long, value_name = "PORT", default_value_t = 11211, value_parser = clap::value_parser!(u16).range(..=65533))]
    pub base_port: u16,
    /// What to log: a level, or target=level pairs [default: warn]
    #[arg(long, value_name = "FILTER", env = "GEOCACHE_LOG")]
    pub log: Option<String>,
}

/// Options of a node: its settings, and where more of them are.
#[derive(Debug, Clone, Default, Args)]
pub struct NodeOptions {
    /// A configuration file (TOML) with any of the options
    #[arg(long, value_name = "FILE", env = "GEOCACHE_CONFIG")]
    pub config: Option<PathBuf>,
    /// The settings themselves.
    #[command(flatten)]
    pub settings: Settings,
}

/// Every setting of a node, each of which may be left out.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Settings {
    /// The region that this node belongs to, such as us-east; needs --amqp
    #[arg(long, value_name = "NAME", env = "GEOCACHE_REGION")]
    pub region: Option<RegionId>,
    /// A RabbitMQ broker: amqp://user:password@host:5672/vhost, or amqps://… for TLS. Repeat it to name every node of
    /// a broker cluster (in the environment: separated by commas)
    #[arg(long, value_name = "URI", env = "GEOCACHE_AMQP", hide_env_values = true, value_delimiter = ',')]
    #[serde(deserialize_with = "amqp_uris")]
    pub amqp: Vec<AmqpUri>,
    /// A file with the broker's password, for the user in --amqp; or with two lines, the user and the password. It is read
    /// at each connection, so a changed password needs no restart. Without it, the variables GEOCACHE_AMQP_PASSWORD and
    /// GEOCACHE_AMQP_USER, or what --amqp holds
    #[arg(long, value_name = "FILE", env = "GEOCACHE_AMQP_CREDENTIALS_FILE")]
    pub amqp_credentials_file: Option<PathBuf>,
    /// A file with certificates (PEM) of the authorities to trust for amqps, besides the public ones. This file and the next
    /// two are read at each connection, so renewed ones need no restart
    #[arg(long, value_name = "FILE", env = "GEOCACHE_AMQP_CA")]
    pub amqp_ca: Option<PathBuf>,
    /// A file with this node's own certificate (PEM) for amqps, with those between it and its authority; needs --amqp-key
    #[arg(long, value_name = "FILE", env = "GEOCACHE_AMQP_CERT")]
    pub amqp_cert: Option<PathBuf>,
    /// A file with the key (PEM) of --amqp-cert
    #[arg(long, value_name = "FILE", env = "GEOCACHE_AMQP_KEY")]
    pub amqp_key: Option<PathBuf>,
    /// This node's name within its region; two live nodes must not share one [default: made from the host's name]
    #[arg(long, value_name = "NAME", env = "GEOCACHE_NODE")]
    pub node: Option<Name>,
    /// The cache's name: only nodes of the same cache replicate to each other [default: geocache]
    #[arg(long, value_name = "NAME", env = "GEOCACHE_CACHE")]
    pub cache: Option<Name>,
    /// How the broker keeps what is in transit: fast (in memory, lowest lag), durable (quorum queues, on disk) or stream
    /// (a log per region, on disk, for nodes that catch up after a long absence). Every node of a cache with stream, or
    /// none [default: fast]
    #[arg(long, value_name = "PROFILE", env = "GEOCACHE_PROFILE")]
    pub profile: Option<Profile>,
    /// How much of a region's stream the broker keeps on its disk, read or not, in bytes or with k, m or g; the oldest go
    /// first. 1m to 1024g, with --profile stream. A stream keeps what it was declared with first [default: 1g]
    #[arg(long, value_name = "BYTES", env = "GEOCACHE_STREAM_MAX_BYTES")]
    pub stream_max_bytes: Option<ByteSize>,
    /// For how long it keeps a frame there, if the bytes suffice. 60 to 2592000 (30 days) [default: 86400]
    #[arg(long, value_name = "SECONDS", env = "GEOCACHE_STREAM_MAX_AGE_SECS")]
    pub stream_max_age_secs: Option<u64>,
    /// Have what is sent to the other regions travel compressed (lz4) in frames of so many bytes and more, in bytes or with
    /// k, where that saves an eighth: for links that are narrow or billed. 0 never does [default: 0]
    #[arg(long, value_name = "BYTES", env = "GEOCACHE_COMPRESS_ABOVE")]
    pub compress_above: Option<ByteSize>,
    /// Where memcached clients connect: an address with a port, or a port alone for loopback
    /// [default: 127.0.0.1:11211]
    #[arg(long, value_name = "ADDR", env = "GEOCACHE_LISTEN")]
    pub listen: Option<ListenAddress>,
    /// How much the cache may hold, in bytes or with k, m or g. Requests of over 64k that are still arriving take up to
    /// a quarter of it, or 64m if that is more, on top [default: 256m]
    #[arg(long, value_name = "BYTES", env = "GEOCACHE_MEMORY")]
    pub memory: Option<ByteSize>,
    /// How many entries the cache may hold, in place of --memory
    #[arg(long, value_name = "ENTRIES", env = "GEOCACHE_CAPACITY")]
    pub capacity: Option<usize>,
    /// How many clients may be connected at once; fewer where the system does not allow 64 open files more than that
    /// [default: 1024]
    #[arg(long, value_name = "COUNT", env = "GEOCACHE_MAX_CONNECTIONS")]
    pub max_connections: Option<usize>,
    /// The longest value, in bytes or with k or m, at most 7m; the same on every node [default: 1m]
    #[arg(long, value_name = "BYTES", env = "GEOCACHE_MAX_VALUE_BYTES")]
    pub max_value_bytes: Option<ByteSize>,
    /// How many threads serve [default: one per processor]
    #[arg(long, value_name = "COUNT", env = "GEOCACHE_THREADS")]
    pub threads: Option<usize>,
    /// Close clients that send nothing for this long; 0 never does [default: 0]
    #[arg(long, value_name = "SECONDS", env = "GEOCACHE_IDLE_TIMEOUT_SECS")]
    pub idle_timeout_secs: Option<u64>,
    /// Close clients that do not take their answers for this long [default: 30]
    #[arg(long, value_name = "SECONDS", env = "GEOCACHE_WRITE_TIMEOUT_SECS")]
    pub write_timeout_secs: Option<u64>,
    /// How long a get waits for another region, while this node has just started and does not have everything yet; 0
    /// never waits [default: 250]
    #[arg(long, value_name = "MILLISECONDS", env = "GEOCACHE_FETCH_TIMEOUT_MS")]
    pub fetch_timeout_ms: Option<u64>,
    /// What to log: a level, or target=level pairs. The AMQP library (lapin) is off unless named [default: info]
    #[arg(long, value_name = "FILTER", env = "GEOCACHE_LOG")]
    pub log: Option<String>,
}

/// How the broker keeps frames for a node that does not take them at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// In memory: the lowest lag.
    #[default]
    Fast,
    /// In quorum queues, on disk.
    Durable,
    /// In a stream for each region, on disk for a day or up to 1 GiB unless told otherwise; not together with the other two.
    Stream,
}

/// The name of a node or of a cache: 1 to 63 bytes of `[a-z0-9-]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = geo::NameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        geo::check_name(name)?;
        Ok(Self(name.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_subcommand_takes_no_options_of_a_node() {
        assert!(Cli::try_parse_from(["geocached", "--region", "us-east", "demo"]).is_err());
        let demo = Cli::try_parse_from(["geocached", "demo", "--base-port", "0"]).unwrap();
        assert!(matches!(demo.subject, Some(Subject::Demo(DemoOptions { base_port: 0, .. }))));
    }

    #[test]
    fn a_port_without_room_for_three_regions_is_refused() {
        assert!(Cli::try_parse_from(["geocached", "demo", "--base-port", "65534"]).is_err());
    }

    fn read(arguments: &[&str]) -> Result<Cli, clap::Error> {
        let arguments: Vec<OsString> =
            [&["geocached"], arguments].concat().into_iter().map(Into::into).collect();
        Cli::read(&arguments)
    }

    #[test]
    fn no_mistake_prints_a_password() {
        for arguments in [
            &["--region", "a", "--amqp", "amqp://u:hunter2@a", "amqp://u:hunter2@b"][..],
            &["amqp://u:hunter2@h"],
            &["--region", "amqp://u:hunter2@h"],
            &["--region=amqp://u:hunter2@h'x @y"],
            &["--amqp=amqp://u:hunter2@h", "--threads", "amqp://u:hunter2"],
            &["--amqp://u:hunter2@h"],
            &["demo", "amqp://u:hunter2@h"],
        ] {
            let error = read(arguments).unwrap_err();
            let text = mistake(&error).unwrap();
            assert!(text.contains("://***") && !text.contains("hunter2"), "{arguments:?}: {text}");
        }
        let text = mistake(&read(&["amqp://u:hunter2@h"]).unwrap_err()).unwrap();
        assert!(text.contains("put --amqp before"), "{text}");
        assert_eq!(mistake(&read(&["--help"]).unwrap_err()), None, "the help is clap's to print");
        assert_eq!(mistake(&read(&["--nonsense"]).unwrap_err()), None);
    }

    #[test]
    fn a_malformed_broker_is_not_repeated_by_the_command_line() {
        let cli = Cli::try_parse_from(["geocached", "--region", "us-east", "--amqp", "nonsense:hunter2@x"])
            .unwrap();
        assert!(!format!("{cli:?}").contains("hunter2"));
    }
}
