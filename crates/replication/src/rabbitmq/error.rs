//! Why a connection to RabbitMQ could not be had, and what to do about it.

use std::time::Duration;

use super::{
    permission::{Permission, permission_pattern},
    tls::TlsProblem,
};

/// A setting that the RabbitMQ transport cannot work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rabbitmq setting `{field}` {problem}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The setting, by the name of the method of [`Config`](super::Config) that sets it; of
    /// [`dead_letters`](super::Config::dead_letters) with the name of the bound, as `dead_letters_keep`.
    pub field: &'static str,
    /// What is wrong with the value, and which values are right. Never holds a password.
    pub problem: String,
}

/// Why [`RabbitMq::connect`](super::RabbitMq::connect) gave up; each variant is what the operator has to look at.
///
/// Brokers are named without their password. All but [`ConnectError::Unreachable`] are returned at the first
/// occurrence, since waiting does not mend them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The configuration is wrong: mend the field.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No broker answered as a broker within [`Config::connect_wait`](super::Config::connect_wait): check that one
    /// runs and that the addresses are right, or try again later.
    #[error(
        "no broker could be reached within {waited:?} ({brokers}): {reason}; check that one runs and listens there"
    )]
    Unreachable {
        /// The brokers that were tried.
        brokers: String,
        /// How long.
        waited: Duration,
        /// What the last attempt ended with.
        reason: String,
    },
    /// The broker refused the user or the password.
    #[error(
        "the broker {broker} refused the credentials: {reason}; check the user and the password, in the URI or where the \
         setting `credentials` names them"
    )]
    Credentials {
        /// The broker.
        broker: String,
        /// Its own words.
        reason: String,
    },
    /// The virtual host does not exist, or the user may not enter it.
    #[error(
        "the broker {broker} refused the virtual host {virtual_host:?}: {reason}; create it and give the user permissions on it, \
         or name another at the end of the URI (nothing, or /%2f, for the default)"
    )]
    VirtualHost {
        /// The broker.
        broker: String,
        /// The virtual host, from the URI's path.
        virtual_host: String,
        /// Its own words.
        reason: String,
    },
    /// The user lacks a permission that the transport needs.
    #[error(
        "the user has no {permission} permission for the {object} at {broker}: {reason}; give it with \
         `rabbitmqctl set_permissions -p VHOST USER CONFIGURE WRITE READ`, each of the three patterns being '{pattern}'"
    )]
    Forbidden {
        /// The broker.
        broker: String,
        /// Which of the three.
        permission: Permission,
        /// The exchange or the queue.
        object: String,
        /// The pattern of all names that the transport needs.
        pattern: String,
        /// The broker's own words.
        reason: String,
    },
    /// The exchange exists with another type or other properties.
    #[error(
        "the exchange {exchange:?} exists at {broker} with another type or other properties than the durable topic exchange \
         needed: {reason}; delete it there, or choose another cache name"
    )]
    ExchangeConflict {
        /// The broker.
        broker: String,
        /// The exchange.
        exchange: String,
        /// Its own words.
        reason: String,
    },
    /// Nodes of this cache run there with a profile of the other kind, and would not hear this one: see
    /// [the module's notes](super#changing-the-profile-of-a-deployment) on changing it.
    #[error(
        "nodes of this cache run at {broker} with {other}, and this one is to run with {profile}; they would not hear each other: \
         close every node with {other}, then start them all with {profile}. The queue of a node that crashed counts until it \
         expires; to not wait for that, delete the exchange {exchange:?} there ({reason})"
    )]
    ProfileConflict {
        /// The broker.
        broker: String,
        /// The profile of this node.
        profile: &'static str,
        /// The profiles of the other kind, of which there is a node.
        other: &'static str,
        /// The exchange that says so.
        exchange: String,
        /// The broker's own words.
        reason: String,
    },
    /// The broker does not make the node's queue, as when a limit of the virtual host is reached.
    #[error(
        "the broker {broker} refused the queue {queue:?}: {reason}; see its policies and the limits of the virtual host"
    )]
    QueueRefused {
        /// The broker.
        broker: String,
        /// The queue.
        queue: String,
        /// Its own words.
        reason: String,
    },
    /// TLS with the broker failed for a reason that waiting does not mend.
    #[error("no TLS with {broker}: {problem} ({reason})")]
    Tls {
        /// The broker.
        broker: String,
        /// What is wrong, and what to mend.
        problem: TlsProblem,
        /// The TLS library's words.
        reason: String,
    },
}

/// What one attempt at a connection, or one operation on it, ended with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    /// The broker, redacted.
    pub(super) broker: String,
    /// What happened, in the broker's or the operating system's words.
    pub(super) reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// May be gone at the next attempt.
    Transient,
    Credentials,
    VirtualHost(String),
    Forbidden {
        permission: Permission,
        object: String,
        cache: String,
    },
    Conflict(String),
    Profile {
        profile: &'static str,
        other: &'static str,
        exchange: String,
    },
    Queue(String),
    Tls(TlsProblem),
    /// A file or variable of the configuration, which is read at each attempt.
    Config(ConfigError),
}

impl Fault {
    /// The error to give up with, unless waiting may mend the fault.
    pub(super) fn lasting(&self) -> Option<ConnectError> {
        let (broker, reason) = (self.broker.clone(), self.reason.clone());
        Some(match &self.kind {
            FaultKind::Transient => return None,
            FaultKind::Credentials => ConnectError::Credentials { broker, reason },
            FaultKind::VirtualHost(name) => {
                ConnectError::VirtualHost { broker, virtual_host: name.clone(), reason }
            }
            FaultKind::Forbidden { permission, object, cache } => ConnectError::Forbidden {
                broker,
                permission: *permission,
                object: object.clone(),
                pattern: permission_pattern(cache),
                reason,
            },
            FaultKind::Conflict(exchange) => {
                ConnectError::ExchangeConflict { broker, exchange: exchange.clone(), reason }
            }
            FaultKind::Profile { profile, other, exchange } => {
                ConnectError::ProfileConflict { broker, profile, other, exchange: exchange.clone(), reason }
            }
            FaultKind::Queue(queue) => ConnectError::QueueRefused { broker, queue: queue.clone(), reason },
            FaultKind::Tls(problem) => ConnectError::Tls { broker, problem: *problem, reason },
            FaultKind::Config(error) => ConnectError::Config(error.clone()),
        })
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.lasting() {
            Some(error) => error.fmt(f),
            None => write!(f, "{} at {}", self.reason, self.broker),
        }
    }
}
