//! What the RabbitMQ transport is told, checked before anything is dialled.

use std::{fmt, time::Duration};

use geo::check_name;
use lapin::{tcp::OwnedTLSConfig, uri::AMQPUri};

use super::{
    breaker, credentials::Credentials, dead_letter::DeadLetters, endpoint::Endpoint, error::ConfigError,
    source::Pem, tls::Tls,
};
use crate::{node::NodeId, wire::FRAME_BYTES};

/// How the broker keeps frames for a node that does not take them at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Profile {
    /// A durable classic queue with non-persistent messages: the lowest lag. Frames that wait in a broker which
    /// restarts are lost, and the replica protocol fetches them again from their origin.
    #[default]
    Fast,
    /// A quorum queue with persistent messages: frames that the broker confirmed survive its restart and, in a
    /// cluster, the loss of a minority of its nodes. About half the throughput.
    Durable,
    /// One stream per origin region, read by every node from its own place: a node of which nothing was heard for hours
    /// goes on behind the last frame it handled. Frames for everyone are kept on disk for
    /// [`Config::stream_age_max`] or [`Config::stream_bytes_max`], read or not; addressed frames go to a queue as in
    /// `Fast`.
    Stream,
}

/// Settings of the RabbitMQ transport.
///
/// Each setter states its default. [`RabbitMq::connect`](super::RabbitMq::connect) checks all of them and refuses
/// with an error that names the field. `Debug` shows no password, key or certificate.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    pub(super) node: NodeId,
    pub(super) uris: Vec<String>,
    pub(super) cache: String,
    pub(super) profile: Profile,
    pub(super) heartbeat: Duration,
    pub(super) prefetch: u16,
    pub(super) waiting_bytes_max: usize,
    pub(super) queue_expires: Duration,
    pub(super) queue_frames_max: u32,
    pub(super) queue_bytes_max: u64,
    pub(super) stream_bytes_max: u64,
    pub(super) stream_age_max: Duration,
    pub(super) frame_bytes_max: usize,
    pub(super) dead_letters: DeadLetters,
    pub(super) connect_timeout: Duration,
    pub(super) connect_wait: Duration,
    pub(super) operation_timeout: Duration,
    pub(super) confirm_timeout: Duration,
    pub(super) close_timeout: Duration,
    pub(super) retry_base: Duration,
    pub(super) retry_max: Duration,
    pub(super) breaker: breaker::Settings,
    credentials: Option<Credentials>,
    tls: Tls,
}

impl Config {
    /// What [`retry`](Self::retry) is by default.
    pub const RETRY_DEFAULT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

    /// Settings for `node`, at the brokers of `uris`.
    ///
    /// A URI is `amqp://user:password@host:port/virtual-host`, or `amqps://…` for TLS; without a path the virtual
    /// host is the default one (`/`), and a slash in its name is written `%2f`, as are all special characters of user and
    /// password by their percent-encoding. User and password may be left to [`credentials`](Self::credentials). With
    /// `?auth_mechanism=external` the client certificate alone says who this is (SASL EXTERNAL, the broker's plugin
    /// `rabbitmq_auth_mechanism_ssl`). Name every node of a broker cluster: after a failure the next one is tried.
    pub fn new(node: NodeId, uris: Vec<String>) -> Self {
        Self {
            node,
            uris,
            cache: "geocache".to_owned(),
            profile: Profile::Fast,
            heartbeat: Duration::from_secs(5),
            prefetch: 128,
            waiting_bytes_max: 16 << 20,
            queue_expires: Duration::from_secs(600),
            queue_frames_max: 100_000,
            queue_bytes_max: 64 << 20,
            stream_bytes_max: 1 << 30,
            stream_age_max: Duration::from_secs(86_400),
            frame_bytes_max: 16 << 20,
            dead_letters: DeadLetters::default(),
            connect_timeout: Duration::from_secs(5),
            connect_wait: Duration::from_secs(10),
            operation_timeout: Duration::from_secs(5),
            confirm_timeout: Duration::from_secs(15),
            close_timeout: Duration::from_secs(5),
            retry_base: Self::RETRY_DEFAULT.0,
            retry_max: Self::RETRY_DEFAULT.1,
            breaker: breaker::Settings::default(),
            credentials: None,
            tls: Tls::default(),
        }
    }

    /// The cache's name, part of the names of its exchange and queues: nodes of different caches never meet.
    /// Default `geocache`.
    #[must_use]
    pub fn cache(mut self, name: impl Into<String>) -> Self {
        self.cache = name.into();
        self
    }

    /// How the broker keeps frames. Default [`Profile::Fast`].
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// The heartbeat, in whole seconds, 1 to 5. A silent link is given up after twice this time. Default 5 s.
    #[must_use]
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = interval;
        self
    }

    /// How many delivered frames may be unacknowledged at a time, of the queue and of each stream; fewer where
    /// [`waiting_bytes_max`](Self::waiting_bytes_max) says so. At least 1. Default 128.
    #[must_use]
    pub fn prefetch(mut self, frames: u16) -> Self {
        self.prefetch = frames;
        self
    }

    /// How many bytes of delivered frames may wait here unacknowledged, each reckoned at the 128 KiB at which frames
    /// are closed: the broker counts frames and no bytes, so this lowers [`prefetch`](Self::prefetch) to as many as fit.
    /// A frame is longer only for a value of more than that; such frames are counted
    /// ([`Stats::received_long`](super::Stats::received_long)), and where they are the rule, lower this by as much as they
    /// are longer. 128 KiB to 4 GiB. Default 16 MiB.
    ///
    /// With [`Profile::Stream`] the regions' streams and the queue share it, at least one frame each. A share is taken when
    /// reading begins and is taken anew once it is more than twice what there would be by then, so that while regions join one
    /// after the other up to twice as much may wait.
    #[must_use]
    pub fn waiting_bytes_max(mut self, bytes: usize) -> Self {
        self.waiting_bytes_max = bytes;
        self
    }

    /// How long the broker keeps the queue of a node that takes nothing, 10 s to 24 h. Default 10 min.
    ///
    /// Long enough for a broker's restart or a link's outage to lose no frame; short enough that the queue of a
    /// process that will never return soon takes no memory. A node away for longer is brought up to date by the
    /// replica protocol.
    #[must_use]
    pub fn queue_expires(mut self, after: Duration) -> Self {
        self.queue_expires = after;
        self
    }

    /// How many frames wait in the node's queue at most; beyond, the oldest are dropped and the replica protocol
    /// repairs the gap. At least 16. Default 100,000.
    #[must_use]
    pub fn queue_frames_max(mut self, frames: u32) -> Self {
        self.queue_frames_max = frames;
        self
    }

    /// How many bytes wait in the node's queue at most; as
    /// [`queue_frames_max`](Self::queue_frames_max). At least 1 MiB. Default 64 MiB.
    #[must_use]
    pub fn queue_bytes_max(mut self, bytes: u64) -> Self {
        self.queue_bytes_max = bytes;
        self
    }

    /// How many bytes of frames the stream of a region keeps on the broker's disk, read or not; beyond, the oldest
    /// sixteenth is dropped (at most 64 MiB at a time). A node that was away for longer than what is kept notices, and
    /// the replica protocol repairs the gap. 1 MiB to 1 TiB; for [`Profile::Stream`] alone. Default 1 GiB.
    ///
    /// A stream keeps the bounds it was declared with first: others are warned of and not taken over. To change them
    /// in a running deployment, set a policy at the broker (`max-length-bytes`, `max-age`), which takes effect where it
    /// is lower, or delete the stream there.
    #[must_use]
    pub fn stream_bytes_max(mut self, bytes: u64) -> Self {
        self.stream_bytes_max = bytes;
        self
    }

    /// How long the stream of a region keeps a frame, as [`stream_bytes_max`](Self::stream_bytes_max) and whichever
    /// comes first. The broker looks when it begins a new segment, so a stream that few write to keeps frames longer.
    /// In whole seconds, 1 min to 30 days; for [`Profile::Stream`] alone. Default 24 h.
    #[must_use]
    pub fn stream_age_max(mut self, age: Duration) -> Self {
        self.stream_age_max = age;
        self
    }

    /// The longest frame that is published; a longer one is refused before it is sent. 1 KiB to 128 MiB, and no
    /// more than [`queue_bytes_max`](Self::queue_bytes_max). Default 16 MiB, which is also what RabbitMQ 4 takes by
    /// default.
    #[must_use]
    pub fn frame_bytes_max(mut self, bytes: usize) -> Self {
        self.frame_bytes_max = bytes;
        self
    }

    /// Whether, and within which bounds, frames that cannot be read are kept at the broker. Default
    /// [`DeadLetters::default`]: up to 60 a minute of this node, and 1,000 or 16 MiB of all nodes for 7 days.
    #[must_use]
    pub fn dead_letters(mut self, dead_letters: DeadLetters) -> Self {
        self.dead_letters = dead_letters;
        self
    }

    /// The limit of one attempt to connect: address look-up, TCP, TLS and the AMQP handshake. 100 ms to 60 s.
    /// Default 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long [`RabbitMq::connect`](super::RabbitMq::connect) keeps trying while brokers are unreachable; zero
    /// tries each once. At most 1 h. Default 10 s. Once connected, the transport tries for ever.
    #[must_use]
    pub fn connect_wait(mut self, limit: Duration) -> Self {
        self.connect_wait = limit;
        self
    }

    /// The limit of one question to the broker (declare, bind, consume, acknowledge). 100 ms to 60 s. Default 5 s.
    #[must_use]
    pub fn operation_timeout(mut self, limit: Duration) -> Self {
        self.operation_timeout = limit;
        self
    }

    /// How long a published frame may stay unconfirmed before the connection is given up and the frame returned as
    /// [`Unavailable`](crate::TransportError::Unavailable). The time during which the broker says that it blocks
    /// publishers does not count. 1 s to 5 min. Default 15 s: longer than a quorum queue takes to elect a leader.
    #[must_use]
    pub fn confirm_timeout(mut self, limit: Duration) -> Self {
        self.confirm_timeout = limit;
        self
    }

    /// How long [`close`](crate::Transport::close) waits for what was handed over. 100 ms to 60 s. Default 5 s.
    #[must_use]
    pub fn close_timeout(mut self, limit: Duration) -> Self {
        self.close_timeout = limit;
        self
    }

    /// The waits between rounds of attempts: the first at most `base`, doubling up to `max`, with full jitter. From
    /// 10 ms to 60 s. Default 100 ms and 5 s.
    #[must_use]
    pub fn retry(mut self, base: Duration, max: Duration) -> Self {
        self.retry_base = base;
        self.retry_max = max;
        self
    }

    /// How many attempts in a row at a broker fail before its circuit breaker opens: while another can be tried, it is passed
    /// over then, so that a broker which swallows every attempt does not cost its whole
    /// [`connect_timeout`](Self::connect_timeout) in each round. With every breaker open all are tried in turn. 1 to 100.
    /// Default 2.
    #[must_use]
    pub fn breaker_failure_threshold(mut self, failures: u32) -> Self {
        self.breaker.failure_threshold = failures;
        self
    }

    /// How long a broker is passed over the first time that its breaker opens; each further time twice as long, up to ten times
    /// this. Then it is tried again, and the breaker closes if that succeeds. 10 ms to 1 h. Default 10 s.
    #[must_use]
    pub fn breaker_recovery_wait(mut self, wait: Duration) -> Self {
        self.breaker.recovery_wait = wait;
        self
    }

    /// User and password for all brokers, in place of the URIs' own: given, or read from a file or the environment at each
    /// attempt to connect. Default: those of each URI, else `guest` and `guest`.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Certificate authorities to trust for `amqps`, besides the public ones; a file is read at each attempt to connect.
    /// Default none.
    #[must_use]
    pub fn tls_ca(mut self, pem: impl Into<Pem>) -> Self {
        self.tls.ca = Some(pem.into());
        self
    }

    /// The client's certificate chain and its key (PKCS#8, PKCS#1 or SEC1) for `amqps`; files are read at each attempt to
    /// connect. Default none.
    #[must_use]
    pub fn tls_identity(mut self, certificates: impl Into<Pem>, key: impl Into<Pem>) -> Self {
        self.tls.identity = Some((certificates.into(), key.into()));
        self
    }

    /// Checks every setting and reads the files and variables that are named, dialling nobody.
    ///
    /// # Errors
    /// A [`ConfigError`] that names the first field that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (index, endpoint) in self.endpoints()?.iter().enumerate() {
            if self.credentials.is_some() && endpoint.has_password() {
                let both = format!(
                    "are set, and the URI at index {index} holds a password too; keep one of the two"
                );
                return Err(problem("credentials", both));
            }
            let secured = [("tls_ca", self.tls.ca.is_some()), ("tls_identity", self.tls.identity.is_some())];
            if let Some((field, _)) = secured.into_iter().find(|(_, set)| *set && !endpoint.is_tls()) {
                let plain = format!(
                    "is set, and the URI at index {index} is amqp://, over which all would go in plain text; make it amqps://"
                );
                return Err(problem(field, plain));
            }
            self.parameters(endpoint)?;
        }
        check_name(&self.cache).map_err(|error| problem("cache", error.to_string()))?;
        if self.heartbeat.subsec_nanos() != 0 {
            return Err(problem("heartbeat", format!("is {:?}; use whole seconds", self.heartbeat)));
        }
        let (ms_100, minute) = (Duration::from_millis(100), Duration::from_secs(60));
        within("heartbeat", self.heartbeat, Duration::from_secs(1), Duration::from_secs(5))?;
        within("prefetch", self.prefetch, 1, u16::MAX)?;
        within("waiting_bytes_max", self.waiting_bytes_max, FRAME_BYTES, u32::MAX as usize)?;
        within("queue_expires", self.queue_expires, Duration::from_secs(10), Duration::from_secs(86_400))?;
        within("queue_frames_max", self.queue_frames_max, 16, u32::MAX)?;
        within("queue_bytes_max", self.queue_bytes_max, 1 << 20, 1 << 40)?;
        within("stream_bytes_max", self.stream_bytes_max, 1 << 20, 1 << 40)?;
        within("stream_age_max", self.stream_age_max, minute, Duration::from_secs(30 * 86_400))?;
        if self.stream_age_max.subsec_nanos() != 0 {
            return Err(problem(
                "stream_age_max",
                format!("is {:?}; use whole seconds", self.stream_age_max),
            ));
        }
        let frame_ceiling =
            usize::try_from(self.queue_bytes_max).map_or(128 << 20, |bytes| bytes.min(128 << 20));
        within("frame_bytes_max", self.frame_bytes_max, 1 << 10, frame_ceiling)?;
        self.dead_letters.check()?;
        within("connect_timeout", self.connect_timeout, ms_100, minute)?;
        within("connect_wait", self.connect_wait, Duration::ZERO, Duration::from_secs(3_600))?;
        within("operation_timeout", self.operation_timeout, ms_100, minute)?;
        within("confirm_timeout", self.confirm_timeout, Duration::from_secs(1), Duration::from_secs(300))?;
        within("close_timeout", self.close_timeout, ms_100, minute)?;
        within("retry", self.retry_base, Duration::from_millis(10), minute)?;
        within("retry", self.retry_max, self.retry_base, minute)?;
        self.breaker.check()
    }

    /// How many frames the broker may have delivered ahead.
    pub(super) fn frames_ahead(&self) -> u16 {
        self.frames_ahead_each(1)
    }

    /// The same for each of several consumers, which share the bytes and not the frames.
    pub(super) fn frames_ahead_each(&self, consumers: usize) -> u16 {
        let fitting = self.waiting_bytes_max / FRAME_BYTES / consumers.max(1);
        self.prefetch.min(u16::try_from(fitting).unwrap_or(u16::MAX)).max(1)
    }

    pub(super) fn endpoints(&self) -> Result<Vec<Endpoint>, ConfigError> {
        if self.uris.is_empty() {
            return Err(problem("uris", "is empty; name at least one broker".to_owned()));
        }
        let parse = |(index, text): (usize, &String)| {
            Endpoint::parse(text)
                .map_err(|error| problem("uris", format!("holds at index {index} no AMQP URI: {error}")))
        };
        self.uris.iter().enumerate().map(parse).collect()
    }

    /// What one attempt at a broker is made with. Files and variables are read, so it may block for as long as they do.
    pub(super) fn parameters(&self, endpoint: &Endpoint) -> Result<(AMQPUri, OwnedTLSConfig), ConfigError> {
        let login = match &self.credentials {
            Some(credentials) if !endpoint.is_external() => Some(credentials.read()?),
            _ => None,
        };
        let tls = if endpoint.is_tls() { self.tls.read()? } else { OwnedTLSConfig::default() };
        Ok((endpoint.uri(self.heartbeat, login), tls))
    }

    /// Whether a client certificate is configured.
    pub(super) fn has_identity(&self) -> bool {
        self.tls.identity.is_some()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brokers: Vec<String> = self
            .uris
            .iter()
            .map(|text| {
                Endpoint::parse(text).map_or_else(|_| "(not a URI)".to_owned(), |uri| uri.to_string())
            })
            .collect();
        f.debug_struct("Config")
            .field("node", &self.node)
            .field("uris", &brokers)
            .field("cache", &self.cache)
            .field("profile", &self.profile)
            .field("heartbeat", &self.heartbeat)
            .field("prefetch", &self.prefetch)
            .field("waiting_bytes_max", &self.waiting_bytes_max)
            .field("queue_expires", &self.queue_expires)
            .field("queue_frames_max", &self.queue_frames_max)
            .field("queue_bytes_max", &self.queue_bytes_max)
            .field("stream_bytes_max", &self.stream_bytes_max)
            .field("stream_age_max", &self.stream_age_max)
            .field("frame_bytes_max", &self.frame_bytes_max)
            .field("dead_letters", &self.dead_letters)
            .field("connect_timeout", &self.connect_timeout)
            .field("connect_wait", &self.connect_wait)
            .field("operation_timeout", &self.operation_timeout)
            .field("confirm_timeout", &self.confirm_timeout)
            .field("close_timeout", &self.close_timeout)
            .field("retry", &(self.retry_base, self.retry_max))
            .field("breaker", &self.breaker)
            .field("credentials", &self.credentials)
            .field("tls_ca", &self.tls.ca)
            .field("tls_identity", &self.tls.identity)
            .finish()
    }
}

pub(super) fn problem(field: &'static str, problem: String) -> ConfigError {
    ConfigError { field, problem }
}

pub(super) fn within<T: Copy + PartialOrd + fmt::Debug>(
    field: &'static str,
    value: T,
    min: T,
    max: T,
) -> Result<(), ConfigError> {
    if value < min || value > max {
        return Err(problem(field, format!("is {value:?}; use {min:?} to {max:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let node = NodeId::new("eu-central".parse().unwrap(), "node-1").unwrap();
        Config::new(node, vec!["amqp://ann:hunter2@127.0.0.1:5672/%2f".to_owned()])
    }

    fn plain(uri: &str) -> Config {
        Config::new(config().node, vec![uri.to_owned()])
    }

    #[test]
    fn the_defaults_are_right() {
        assert_eq!(config().check(), Ok(()));
    }

    #[test]
    fn each_wrong_setting_is_refused_by_its_name() {
        let ms = Duration::from_millis;
        let cases = [
            ("uris", Config::new(config().node, vec![])),
            ("uris", Config::new(config().node, vec!["amqp://a".into(), "nonsense".into()])),
            ("credentials", config().credentials(Credentials::new("ann", "hunter2"))),
            ("credentials", plain("amqp://h").credentials(Credentials::file("/nowhere"))),
            ("tls_ca", plain("amqps://h").tls_ca("no PEM")),
            ("tls_ca", plain("amqp://h").tls_ca(Pem::file("/nowhere"))),
            ("tls_identity", plain("amqp://h").tls_identity("no PEM", "no PEM")),
            ("tls_identity", plain("amqps://h").tls_identity(Pem::file("/nowhere"), "no PEM")),
            ("cache", config().cache("Not A Name")),
            ("heartbeat", config().heartbeat(ms(1_500))),
            ("heartbeat", config().heartbeat(Duration::from_secs(6))),
            ("heartbeat", config().heartbeat(Duration::ZERO)),
            ("prefetch", config().prefetch(0)),
            ("waiting_bytes_max", config().waiting_bytes_max(1_000)),
            ("queue_expires", config().queue_expires(ms(9_999))),
            ("queue_frames_max", config().queue_frames_max(15)),
            ("queue_bytes_max", config().queue_bytes_max(1)),
            ("stream_bytes_max", config().stream_bytes_max((1 << 20) - 1)),
            ("stream_bytes_max", config().stream_bytes_max((1 << 40) + 1)),
            ("stream_age_max", config().stream_age_max(Duration::from_secs(59))),
            ("stream_age_max", config().stream_age_max(ms(90_500))),
            ("stream_age_max", config().stream_age_max(Duration::MAX)),
            ("frame_bytes_max", config().frame_bytes_max(1)),
            ("frame_bytes_max", config().queue_bytes_max(1 << 20).frame_bytes_max(2 << 20)),
            (
                "dead_letters_queue_frames_max",
                config().dead_letters(DeadLetters::default().queue_frames_max(0)),
            ),
            ("connect_timeout", config().connect_timeout(Duration::ZERO)),
            ("connect_wait", config().connect_wait(Duration::MAX)),
            ("operation_timeout", config().operation_timeout(ms(1))),
            ("confirm_timeout", config().confirm_timeout(ms(1))),
            ("close_timeout", config().close_timeout(Duration::MAX)),
            ("retry", config().retry(Duration::ZERO, ms(100))),
            ("retry", config().retry(ms(200), ms(100))),
            ("breaker_failure_threshold", config().breaker_failure_threshold(0)),
            ("breaker_failure_threshold", config().breaker_failure_threshold(101)),
            ("breaker_recovery_wait", config().breaker_recovery_wait(ms(9))),
        ];
        for (field, config) in cases {
            let error = config.check().unwrap_err();
            assert_eq!(error.field, field, "{error}");
            assert!(error.to_string().contains(field));
        }
    }

    #[test]
    fn frames_are_delivered_ahead_within_the_count_and_the_bytes() {
        assert_eq!(config().frames_ahead(), 128);
        assert_eq!(config().prefetch(10).frames_ahead(), 10);
        assert_eq!(config().waiting_bytes_max(1 << 20).frames_ahead(), 8);
        assert_eq!(config().waiting_bytes_max(128 << 10).frames_ahead(), 1);
        assert_eq!(config().frames_ahead_each(4), 32);
        assert_eq!(config().frames_ahead_each(65), 1);
        assert_eq!(config().frames_ahead_each(1_000), 1);
        assert_eq!(config().prefetch(10).frames_ahead_each(4), 10, "the frames are each one's own");
        assert_eq!(config().prefetch(u16::MAX).waiting_bytes_max(u32::MAX as usize).frames_ahead(), 32_767);
    }

    #[test]
    fn debug_shows_neither_password_nor_key() {
        let secret = config().tls_ca("SECRET-CA").tls_identity("SECRET-CERT", "SECRET-KEY");
        let shown = format!("{:?}", secret.credentials(Credentials::new("bob", "SECRET-WORD")));
        assert!(shown.contains("amqp://ann:***@127.0.0.1:5672"), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("SECRET"), "{shown}");
    }
}
