//! Every setting that a configuration may make, each of which may be left out, and what is laid over what.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

use super::{
    error::ConfigError,
    value::{ByteSize, List, Secret, Time, Value},
};

/// What every variable's name begins with.
const PREFIX: &str = "GEOCACHE_";

/// What the name of a variable for the RabbitMQ transport begins with; nobody else's does.
const PREFIX_RABBITMQ: &str = "GEOCACHE_RABBITMQ_";

/// Variables of the environment, by their names. Those that are empty count as not set.
pub(super) type Variables = BTreeMap<String, String>;

macro_rules! settings {
    ($(#[$doc:meta])* $table:ident of $prefix:literal { $($name:ident: $kind:ty,)* } $(with $inner:ident: $inner_type:ty)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $table {
            $(pub(super) $name: Option<$kind>,)*
            $(pub(super) $inner: Option<$inner_type>,)?
        }

        impl $table {
            /// The names of the settings, with that of their table.
            pub(super) const NAMES: &[&str] = &[$(concat!($prefix, stringify!($name)),)*];

            /// What the variables set; those that were used are taken out.
            fn take(variables: &mut Variables) -> Result<Self, ConfigError> {
                Ok(Self {
                    $($name: one(variables, concat!($prefix, stringify!($name)))?,)*
                    $($inner: {
                        let inner = <$inner_type>::take(variables)?;
                        (inner != <$inner_type>::default()).then_some(inner)
                    },)?
                })
            }

            /// Whether a setting was made.
            pub(super) fn has(&self, setting: &str) -> bool {
                match setting {
                    $(concat!($prefix, stringify!($name)) => self.$name.is_some(),)*
                    _ => false $(|| self.$inner.as_ref().is_some_and(|inner| inner.has(setting)))?,
                }
            }

            /// These settings, and where one is left out, that of `under`.
            pub(super) fn over(self, under: Self) -> Self {
                Self {
                    $($name: self.$name.or(under.$name),)*
                    $($inner: match (self.$inner, under.$inner) {
                        (Some(over), Some(under)) => Some(over.over(under)),
                        (over, under) => over.or(under),
                    },)?
                }
            }
        }
    };
}

settings! {
    /// Those of a node.
    Settings of "" {
        cache: String,
        region: String,
        node: String,
        regions: List<String>,
        capacity: usize,
        capacity_bytes: ByteSize,
        default_ttl: Time,
        remote_depth: f64,
        value_bytes_max: ByteSize,
        key_bytes_max: ByteSize,
        outbox_bytes_max: ByteSize,
        graves_max: usize,
        explain_history: usize,
        codec: String,
        bootstrap: bool,
        compress_above: ByteSize,
        loads_max: usize,
    } with rabbitmq: RabbitMqSettings
}

settings! {
    /// Those of the RabbitMQ transport.
    RabbitMqSettings of "rabbitmq." {
        uris: List<Secret>,
        profile: String,
        user: String,
        password: Secret,
        credentials_file: PathBuf,
        tls_ca_file: PathBuf,
        tls_certificate_file: PathBuf,
        tls_key_file: PathBuf,
        start_alone: bool,
        heartbeat: Time,
        prefetch: u16,
        waiting_bytes_max: ByteSize,
        queue_expires: Time,
        queue_frames_max: u32,
        queue_bytes_max: ByteSize,
        stream_bytes_max: ByteSize,
        stream_age_max: Time,
        frame_bytes_max: ByteSize,
        dead_letters_per_minute: u32,
        dead_letters_queue_frames_max: u32,
        dead_letters_queue_bytes_max: ByteSize,
        dead_letters_keep: Time,
        dead_letters_body_bytes_max: ByteSize,
        connect_timeout: Time,
        connect_wait: Time,
        operation_timeout: Time,
        confirm_timeout: Time,
        close_timeout: Time,
        retry_base: Time,
        retry_max: Time,
        breaker_failure_threshold: u32,
        breaker_recovery_wait: Time,
    }
}

impl Settings {
    /// What these variables set.
    pub(super) fn of_variables(mut variables: Variables) -> Result<Self, ConfigError> {
        variables.retain(|_, value| !value.is_empty());
        let settings = Self::take(&mut variables)?;
        for name in variables.keys() {
            if let Some(meant) = meant(name) {
                tracing::warn!(variable = name, "this variable sets nothing; was {meant} meant?");
            }
        }
        match variables.into_keys().find(|name| name.starts_with(PREFIX_RABBITMQ)) {
            Some(variable) => {
                let problem = "there is no such setting; those there are stand in the documentation of geocache::config";
                Err(ConfigError::Variable { variable, problem: problem.to_owned() })
            }
            None => Ok(settings),
        }
    }
}

/// The variable for a setting.
pub(super) fn variable(setting: &str) -> String {
    format!("{PREFIX}{}", setting.replace('.', "_").to_ascii_uppercase())
}

/// The variable that one of another name may have been meant for: of a name that differs by a slip or two.
pub(super) fn meant(name: &str) -> Option<String> {
    let slip = name.strip_prefix(PREFIX)?;
    let settings = Settings::NAMES.iter().chain(RabbitMqSettings::NAMES);
    let variables = settings.map(|setting| variable(setting));
    let near = variables.map(|known| (slips(slip, &known[PREFIX.len()..]), known));
    let (slips, known) = near.min()?;
    // Of a short name two slips make another word.
    let allowed = if known.len() - PREFIX.len() > 6 { 2 } else { 1 };
    (1..=allowed).contains(&slips).then_some(known)
}

/// By how many slips of the hand (a letter left out, added, taken for another, or two of them swapped) two names differ.
fn slips(one: &str, other: &str) -> usize {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len().abs_diff(other.len()) > 2 {
        return usize::MAX;
    }
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for row in 1..=one.len() {
        let mut costs = vec![row];
        for column in 1..=other.len() {
            let differs = usize::from(one[row - 1] != other[column - 1]);
            let least = (rows[row - 1][column - 1] + differs).min(rows[row - 1][column] + 1);
            let mut least = least.min(costs[column - 1] + 1);
            let is_swap = row > 1
                && column > 1
                && one[row - 1] == other[column - 2]
                && one[row - 2] == other[column - 1];
            if is_swap {
                least = least.min(rows[row - 2][column - 2] + 1);
            }
            costs.push(least);
        }
        rows.push(costs);
    }
    rows[one.len()][other.len()]
}

fn one<T: Value>(variables: &mut Variables, setting: &str) -> Result<Option<T>, ConfigError> {
    let variable = variable(setting);
    let Some(text) = variables.remove(&variable) else { return Ok(None) };
    match T::of_variable(&text) {
        Ok(value) => Ok(Some(value)),
        Err(problem) => {
            let problem = super::without_passwords(&problem);
            Err(ConfigError::Variable { variable, problem })
        }
    }
}
