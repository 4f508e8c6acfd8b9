//! The table `[rabbitmq]` as the transport's own settings.

use std::sync::Arc;

use replication::{
    NodeId,
    rabbitmq::{
        Config as Transport, ConnectError as BrokerError, Credentials, DeadLetters, Pem, Profile, RabbitMq,
    },
};

use super::{
    Config,
    error::ConfigError,
    settings::RabbitMqSettings,
    value::{ByteSize, Time},
    without_passwords,
};
use crate::{BuildError, GeoCache, builder::NODE_DEFAULT};

/// Why a configured node could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The configuration lacks what this needs: add it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No broker can be used: see what it says.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The node could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl Config {
    /// The transport's settings, for a node of this name; `None` where the configuration has no table `[rabbitmq]`.
    pub fn rabbitmq(&self, node: NodeId) -> Option<Transport> {
        let settings = self.settings.rabbitmq.as_ref()?;
        // It was checked when the configuration was made.
        transport(settings, node, self.settings.cache.as_deref()).ok()
    }

    /// Starts the node: over RabbitMQ where there is a table `[rabbitmq]`, alone where not.
    ///
    /// With `rabbitmq.start_alone` it starts without a broker too, and goes on dialling.
    ///
    /// # Errors
    /// A [`ConnectError`]: a setting that is missing for one node, the broker's refusal, or the node's own.
    pub async fn connect(&self) -> Result<GeoCache, ConnectError> {
        let builder = self.builder();
        if self.settings.rabbitmq.is_none() {
            return Ok(builder.build().await?);
        }
        let node = self.node()?;
        let transport = self.transport(node).await?;
        Ok(builder.transport(transport).build().await?)
    }

    /// The node that this configuration is of.
    fn node(&self) -> Result<NodeId, ConfigError> {
        let problem =
            |setting: &str, problem: String| ConfigError::Setting { setting: setting.to_owned(), problem };
        let Some(region) = &self.settings.region else {
            let reason = "is needed for a node over RabbitMQ; say which region it belongs to";
            return Err(problem("region", reason.to_owned()));
        };
        let region = region.parse().map_err(|error: geo::NameError| problem("region", error.to_string()))?;
        let name = self.settings.node.as_deref().unwrap_or(NODE_DEFAULT);
        NodeId::new(region, name).map_err(|error| problem("node", error.to_string()))
    }

    /// The transport of a node.
    pub(super) async fn transport(&self, node: NodeId) -> Result<Arc<RabbitMq>, ConnectError> {
        let Some(settings) = self.rabbitmq(node) else {
            let problem = "is missing; add the table with the brokers' uris".to_owned();
            return Err(ConfigError::Setting { setting: "rabbitmq".to_owned(), problem }.into());
        };
        if self.starts_alone() {
            return Ok(RabbitMq::dial(settings).map_err(BrokerError::from)?);
        }
        Ok(RabbitMq::connect(settings).await?)
    }

    fn starts_alone(&self) -> bool {
        self.settings.rabbitmq.as_ref().and_then(|settings| settings.start_alone).unwrap_or_default()
    }
}

/// What is wrong with a setting of the table, by its names of which the first that was set is to blame.
type Wrong = (&'static [&'static str], String);

/// Checks the table, as for a node of this name.
pub(super) fn check(settings: &RabbitMqSettings, node: NodeId, cache: Option<&str>) -> Result<(), Wrong> {
    let transport = transport(settings, node, cache)?;
    transport.check().map_err(|error| (names(settings, error.field), error.problem))
}

/// The settings of the table that a setting of the transport was made from.
fn names(settings: &RabbitMqSettings, field: &'static str) -> &'static [&'static str] {
    match field {
        "uris" => &["rabbitmq.uris", "rabbitmq"],
        "cache" => &["cache"],
        "credentials" => &["rabbitmq.password", "rabbitmq.credentials_file"],
        "tls_ca" => &["rabbitmq.tls_ca_file"],
        "tls_identity" => &["rabbitmq.tls_certificate_file", "rabbitmq.tls_key_file"],
        "retry" if settings.retry_max.is_none() => &["rabbitmq.retry_base"],
        "retry" => &["rabbitmq.retry_max"],
        field => own_name(field),
    }
}

/// The name in the table of a setting that has the same name there.
pub(super) fn own_name(field: &str) -> &'static [&'static str] {
    macro_rules! same {
        ($($name:literal)*) => {
            match field {
                $($name => &[concat!("rabbitmq.", $name)],)*
                _ => &["rabbitmq"],
            }
        };
    }
    same!(
        "uris" "heartbeat" "prefetch" "waiting_bytes_max" "queue_expires" "queue_frames_max" "queue_bytes_max"
        "stream_bytes_max" "stream_age_max" "frame_bytes_max" "dead_letters_queue_frames_max"
        "dead_letters_queue_bytes_max" "dead_letters_keep" "dead_letters_body_bytes_max" "connect_timeout"
        "connect_wait" "operation_timeout" "confirm_timeout" "close_timeout" "breaker_failure_threshold"
        "breaker_recovery_wait"
    )
}

/// The transport's settings, but for what it checks itself.
fn transport(settings: &RabbitMqSettings, node: NodeId, cache: Option<&str>) -> Result<Transport, Wrong> {
    let uris = settings.uris.iter().flat_map(|uris| &uris.0).map(|uri| uri.expose().to_owned()).collect();
    let mut config = Transport::new(node, uris);
    if let Some(cache) = cache {
        config = config.cache(cache);
    }
    macro_rules! set {
        ($($name:ident $(as $form:expr)?;)*) => {
            $(if let Some(value) = settings.$name {
                $(let value = $form(value);)?
                config = config.$name(value);
            })*
        };
    }
    let (time, size, long) = (|time: Time| time.0, ByteSize::to_usize, |size: ByteSize| size.0);
    set! {
        heartbeat as time;
        prefetch;
        waiting_bytes_max as size;
        queue_expires as time;
        queue_frames_max;
        queue_bytes_max as long;
        stream_bytes_max as long;
        stream_age_max as time;
        frame_bytes_max as size;
        connect_timeout as time;
        connect_wait as time;
        operation_timeout as time;
        confirm_timeout as time;
        close_timeout as time;
        breaker_failure_threshold;
        breaker_recovery_wait as time;
    }
    config = config.dead_letters(dead_letters(settings)).profile(profile(settings)?);
    if settings.retry_base.is_some() || settings.retry_max.is_some() {
        let base = settings.retry_base.map_or(Transport::RETRY_DEFAULT.0, time);
        config = config.retry(base, settings.retry_max.map_or(Transport::RETRY_DEFAULT.1, time));
    }
    if let Some(credentials) = credentials(settings)? {
        config = config.credentials(credentials);
    }
    if let Some(file) = &settings.tls_ca_file {
        config = config.tls_ca(Pem::file(file));
    }
    match (&settings.tls_certificate_file, &settings.tls_key_file) {
        (Some(certificate), Some(key)) => {
            config = config.tls_identity(Pem::file(certificate), Pem::file(key));
        }
        (None, None) => {}
        (Some(_), None) => {
            let problem = "is set without tls_key_file; name the file with its key";
            return Err((&["rabbitmq.tls_certificate_file"], problem.to_owned()));
        }
        (None, Some(_)) => {
            let problem = "is set without tls_certificate_file; name the file with its certificate";
            return Err((&["rabbitmq.tls_key_file"], problem.to_owned()));
        }
    }
    Ok(config)
}

fn profile(settings: &RabbitMqSettings) -> Result<Profile, Wrong> {
    match settings.profile.as_deref() {
        None | Some("fast") => Ok(Profile::Fast),
        Some("durable") => Ok(Profile::Durable),
        Some("stream") => Ok(Profile::Stream),
        Some(other) => Err((
            &["rabbitmq.profile"],
            format!("is {:?}; use \"fast\", \"durable\" or \"stream\"", without_passwords(other)),
        )),
    }
}

fn dead_letters(settings: &RabbitMqSettings) -> DeadLetters {
    let mut letters = DeadLetters::default();
    if let Some(per_minute) = settings.dead_letters_per_minute {
        letters = letters.per_minute(per_minute);
    }
    if let Some(frames) = settings.dead_letters_queue_frames_max {
        letters = letters.queue_frames_max(frames);
    }
    if let Some(bytes) = settings.dead_letters_queue_bytes_max {
        letters = letters.queue_bytes_max(bytes.0);
    }
    if let Some(time) = settings.dead_letters_keep {
        letters = letters.keep(time.0);
    }
    if let Some(bytes) = settings.dead_letters_body_bytes_max {
        letters = letters.body_bytes_max(bytes.to_usize());
    }
    letters
}

fn credentials(settings: &RabbitMqSettings) -> Result<Option<Credentials>, Wrong> {
    match (&settings.user, &settings.password, &settings.credentials_file) {
        (None, None, None) => Ok(None),
        (None, None, Some(file)) => Ok(Some(Credentials::file(file))),
        (Some(user), Some(password), None) => Ok(Some(Credentials::new(user, password.expose()))),
        (_, _, Some(_)) => {
            let problem = "is set together with user or password; keep one of the two".to_owned();
            Err((&["rabbitmq.credentials_file"], problem))
        }
        (Some(_), None, None) => {
            Err((&["rabbitmq.user"], "is set without password; set both, or neither".to_owned()))
        }
        (None, Some(_), None) => {
            Err((&["rabbitmq.password"], "is set without user; set both, or neither".to_owned()))
        }
    }
}
