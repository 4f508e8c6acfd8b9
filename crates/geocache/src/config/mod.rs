//! Configuration from a file and the environment, checked at once.
//!
//! A [`Config`] is read from a TOML file ([`Config::from_file`]), over which variables of the environment are laid, or from a text. It is
//! checked whole before anything is built or dialled: every error says where the setting was made (file, line and column, or the
//! variable), which it is, and what to do. No message shows a password, and neither does `Debug`.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use geocache::config::Config;
//!
//! let config = Config::from_toml(r#"
//!     region = "eu-central"
//!     capacity = 10_000
//!     default_ttl = "10m"
//! "#)?;
//! let cache = config.builder().build().await?;
//! assert_eq!(cache.region().as_str(), "eu-central");
//!
//! let error = Config::from_toml("capacity = 10_000\ndefault_ttl = \"5ms\"").expect_err("it is over at once");
//! assert_eq!(
//!     error.to_string(),
//!     "line 2, column 15, setting \"default_ttl\": less than 10 ms is over at once; leave it out for values that stay"
//! );
//! # Ok(())
//! # }
//! ```
//!
//! # What may be set
//! All that [`Builder`] has, and in the table `[rabbitmq]` all that `rabbitmq::Config` has (feature `rabbitmq`). Every setting may
//! be left out. This file has all of them; what a `#` stands before states the default:
//!
//! ```toml
#![doc = include_str!("../../docs/geocache.toml")]
//! ```
//!
//! # The environment
//! The variable of a setting is its name in capitals after `GEOCACHE_`, a table's name included: `GEOCACHE_REGION`,
//! `GEOCACHE_CAPACITY_BYTES`, `GEOCACHE_RABBITMQ_URIS`, `GEOCACHE_RABBITMQ_PASSWORD`. It wins over the file. An empty one counts as not set. Lists
//! are separated by commas (one in a URI's password is written as `%2C`). A variable that begins with `GEOCACHE_RABBITMQ_` and names no setting is refused, as a slip in a
//! file is; other names that begin with `GEOCACHE_` may be another program's (the daemon `geocached` has some) and are left alone, but a
//! warning is logged of one that differs from a setting's by a slip or two (`GEOCACHE_CAPACTIY`).
//!
//! # Why this way
//! A reader of its own in place of a configuration framework: those merge sources into one tree first, after which no error knows the
//! line any more. Bytes are read by a few lines of our own, since `"64m"` means 64 MiB to whoever knows memcached and 64,000,000 to the
//! usual crates; times are read by `humantime`.

mod document;
mod error;
mod mask;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
mod settings;
mod value;

#[cfg(test)]
mod tests;

use std::path::Path;

use geo::RegionId;
use replication::NodeId;

#[cfg(feature = "rabbitmq")]
pub use self::rabbitmq::ConnectError;
pub use self::{document::Document, error::ConfigError, mask::without_passwords, value::ByteSize};

use self::settings::{Settings, Variables, variable};
use crate::{
    builder::{Builder, NODE_DEFAULT, REGION_DEFAULT},
    cluster::GeoCluster,
    error::BuildError,
    value::Codec,
};

/// A configuration, complete and checked.
#[derive(Debug, Clone)]
pub struct Config {
    settings: Settings,
}

impl Config {
    /// The settings of a file, and over them those of this process's environment.
    ///
    /// # Errors
    /// A [`ConfigError`] that names file, line and column, or the variable, and the setting.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Self::overlaid(&Document::read(path.as_ref())?, environment())
    }

    /// The settings of a text in TOML, and no others.
    ///
    /// # Errors
    /// As [`from_file`](Self::from_file).
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Self::overlaid(&Document::of_text(text), Variables::new())
    }

    /// The settings of this process's environment, and no others.
    ///
    /// # Errors
    /// As [`from_file`](Self::from_file).
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::overlaid(&Document::of_text(""), environment())
    }

    /// The settings of a text, and over them those of variables that are given by name and value.
    ///
    /// ```
    /// use geocache::config::Config;
    ///
    /// let config = Config::from_toml_and("capacity = 5", [("GEOCACHE_REGION", "us-east")])?;
    /// let error = Config::from_toml_and("capacity = 5", [("GEOCACHE_CAPACITY", "many")]).expect_err("no number");
    /// assert!(error.to_string().starts_with("the environment variable GEOCACHE_CAPACITY: \"many\" is no whole number"));
    /// # let _ = config;
    /// # Ok::<(), geocache::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// As [`from_file`](Self::from_file).
    pub fn from_toml_and<N: Into<String>, V: Into<String>>(
        text: &str,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, ConfigError> {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self::overlaid(&Document::of_text(text), variables)
    }

    fn overlaid(document: &Document, variables: Variables) -> Result<Self, ConfigError> {
        let nearer = Settings::of_variables(variables)?;
        let config = Self { settings: nearer.clone().over(document.parse()?) };
        config.check().map_err(|(names, problem)| {
            // The first of them that was set is where it is mended.
            let of_variables = names.iter().find(|name| nearer.has(name));
            let of_variables = of_variables
                .map(|name| ConfigError::Variable { variable: variable(name), problem: problem.clone() });
            let of_file = || names.iter().find_map(|name| document.error_at(name, problem.as_str()));
            let setting = || ConfigError::Setting {
                setting: names.first().copied().unwrap_or_default().to_owned(),
                problem: problem.clone(),
            };
            of_variables.or_else(of_file).unwrap_or_else(setting)
        })?;
        Ok(config)
    }

    /// A builder of the configured node, without its transport.
    pub fn builder(&self) -> Builder {
        let (settings, mut builder) = (&self.settings, self.shared_builder());
        if let Some(region) = &settings.region {
            builder = builder.region(region);
        }
        if let Some(node) = &settings.node {
            builder = builder.node(node);
        }
        if let Some(regions) = &settings.regions {
            builder = builder.regions(&regions.0);
        }
        builder
    }

    /// Starts a node for each of the configured `regions` in this process: over RabbitMQ where there is a table `[rabbitmq]` (feature
    /// `rabbitmq`), over memory where not. `region` and `node` mean nothing here. With `rabbitmq.start_alone` and no broker it waits
    /// until there is one.
    ///
    /// # Errors
    /// A [`BuildError`]: there are no regions, or what a node's transport could not be had for.
    pub async fn cluster(&self) -> Result<GeoCluster, BuildError> {
        let regions = self.settings.regions.iter().flat_map(|regions| &regions.0);
        let cluster = GeoCluster::builder().regions(regions).configure(|_| self.shared_builder());
        #[cfg(feature = "rabbitmq")]
        if self.settings.rabbitmq.is_some() {
            let config = self.clone();
            let connect = move |node| {
                let config = config.clone();
                async move { config.transport(node).await }
            };
            return cluster.transport(connect).build().await;
        }
        cluster.build().await
    }

    /// What all nodes have alike.
    fn shared_builder(&self) -> Builder {
        let (settings, mut builder) = (&self.settings, Builder::new());
        macro_rules! set {
            ($($name:ident $(as $form:expr)?;)*) => {
                $(if let Some(value) = &settings.$name {
                    let value = value.clone();
                    $(let value = $form(value);)?
                    builder = builder.$name(value);
                })*
            };
        }
        let (size, long) = (ByteSize::to_usize, |size: ByteSize| size.0);
        set! {
            cache;
            capacity;
            capacity_bytes as long;
            default_ttl as |ttl: value::Time| ttl.0;
            remote_depth;
            value_bytes_max as size;
            key_bytes_max as size;
            outbox_bytes_max as size;
            graves_max;
            explain_history;
            bootstrap;
            compress_above as size;
            loads_max;
        }
        match settings.codec.as_deref().and_then(codec) {
            Some(codec) => builder.codec(codec),
            None => builder,
        }
    }

    /// Everything that can be checked without dialling; what is wrong, by the settings of which the first that was made is to blame.
    fn check(&self) -> Result<(), (Vec<&'static str>, String)> {
        let settings = &self.settings;
        if let Some(name) = settings.codec.as_deref().filter(|name| codec(name).is_none()) {
            let problem =
                format!("is {:?}; use \"messagepack\", \"json\" or \"raw\"", without_passwords(name));
            return Err((vec!["codec"], problem));
        }
        // Where only the regions of a cluster are named, one of them stands for all.
        let regions = settings.regions.iter().flat_map(|regions| &regions.0);
        let region = settings.region.as_ref().or_else(|| regions.clone().next());
        let region = region.map_or(REGION_DEFAULT, String::as_str);
        let builder = self.builder().region(region);
        builder.verify(settings.rabbitmq.is_some()).map_err(|error| match error {
            // A broker's URI may have been written where a name belongs.
            BuildError::Name { field, source } => (vec![field], without_passwords(&source.to_string())),
            BuildError::Setting { field, reason } => (vec![field], reason),
            other => (Vec::new(), other.to_string()),
        })?;
        let Some(rabbitmq) = &settings.rabbitmq else { return Ok(()) };
        let region = RegionId::new(region).map_err(|error| (vec!["region"], error.to_string()))?;
        let node = NodeId::new(region, settings.node.as_deref().unwrap_or(NODE_DEFAULT));
        let node = node.map_err(|error| (vec!["node"], error.to_string()))?;
        #[cfg(feature = "rabbitmq")]
        {
            let checked = self::rabbitmq::check(rabbitmq, node, settings.cache.as_deref());
            checked.map_err(|(names, problem)| (names.to_vec(), problem))
        }
        #[cfg(not(feature = "rabbitmq"))]
        {
            let _ = (rabbitmq, node);
            let problem =
                "this program was built without RabbitMQ; enable the feature \"rabbitmq\" of geocache";
            Err((vec!["rabbitmq", "rabbitmq.uris"], problem.to_owned()))
        }
    }
}

fn codec(name: &str) -> Option<Codec> {
    match name {
        "messagepack" => Some(Codec::MessagePack),
        "json" => Some(Codec::Json),
        "raw" => Some(Codec::Raw),
        _ => None,
    }
}

/// This process's variables. One that is not UTF-8 sets nothing that could be read.
fn environment() -> Variables {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    };
    std::env::vars_os().filter_map(text).collect()
}
