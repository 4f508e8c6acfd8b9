//! One connection to a broker: made within a limit, and gone for good when dropped.
//!
//! lapin's own recovery is left off: it hangs when a reconnect dies in the AMQP handshake, gives up after some attempts,
//! and does not mend channel errors. Here every loss, of whatever kind, ends in a fresh connection, a fresh channel and
//! the topology declared again.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt};
use lapin::{
    Channel, Connection, ConnectionProperties, ErrorKind, Event,
    options::ConfirmSelectOptions,
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::{
    Shared,
    config::Profile,
    error::{ConnectError, Fault, FaultKind},
    marker::{self, Claim},
    rotation::Rotation,
    socket::Fuse,
    status::Role,
    streams,
};

/// The least wait before another attempt where nodes of another profile are in the way: an operator has to act.
const CONFLICT_WAIT: Duration = Duration::from_secs(30);

/// A working connection with one channel for declaring, and for publishing where that is its role.
pub(super) struct Line {
    pub(super) channel: Channel,
    pub(super) connection: Connection,
    /// The broker, redacted.
    pub(super) broker: String,
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    _fuse: Fuse,
}

impl Line {
    /// The next event of the connection. Cancel-safe.
    ///
    /// A refusal is none: it ends one channel, which whoever asked was told, and [`broken`](Self::broken) sees it where it was
    /// the line's own.
    pub(super) async fn event(&mut self) -> Option<Event> {
        loop {
            match self.events.next().await {
                Some(Event::Error(error)) if matches!(blame(&error), Blame::Refused(_)) => {
                    debug!(%error, broker = self.broker, "the broker refused something");
                }
                event => return event,
            }
        }
    }

    /// Why the connection is of no use any more, if so. A close by the broker's operator makes no event.
    pub(super) fn broken(&self) -> Option<String> {
        let broken = !self.connection.status().connected() || !self.channel.status().connected();
        broken.then(|| "the broker closed the connection".to_owned())
    }

    /// Says goodbye within a limit; the socket is shut down in any case.
    pub(super) async fn close(self, limit: Duration) {
        let goodbye = self.connection.close(200, "OK".into());
        if let Ok(Err(error)) = timeout(limit, goodbye).await {
            debug!(%error, broker = self.broker, "closing the connection");
        }
    }
}

/// Makes the connections of one role, one after the other.
pub(super) struct Dialer {
    shared: Arc<Shared>,
    role: Role,
    rotation: Rotation,
}

impl Dialer {
    pub(super) fn new(shared: Arc<Shared>, role: Role) -> Self {
        let rotation = Rotation::new(shared.endpoints.len(), shared.backoff());
        Self { shared, role, rotation }
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// The first connection, by `deadline` if waiting may help.
    pub(super) async fn first(&mut self, deadline: Instant) -> Result<Line, ConnectError> {
        let start = Instant::now();
        let mut tried = 0;
        loop {
            let fault = match self.attempt().await {
                Ok(line) => return Ok(line),
                Err(fault) => fault,
            };
            if let Some(error) = fault.lasting() {
                return Err(error);
            }
            tried += 1;
            let left = deadline.saturating_duration_since(Instant::now());
            if tried >= self.shared.endpoints.len() && left.is_zero() {
                let brokers: Vec<String> = self.shared.endpoints.iter().map(ToString::to_string).collect();
                let reason = if brokers.len() == 1 { fault.reason } else { fault.to_string() };
                let (brokers, waited) = (brokers.join(", "), start.elapsed());
                return Err(ConnectError::Unreachable { brokers, waited, reason });
            }
            // One last try at the deadline itself.
            let wait = self.rotation.wait().min(left);
            sleep(wait).await;
        }
    }

    /// The next connection after one was lost: tries until there is one.
    ///
    /// # Cancel safety
    /// An attempt that is under way is given up.
    pub(super) async fn again(&mut self, reason: &str) -> Line {
        let role = self.role.name();
        warn!(role, reason, "lost the connection to the broker");
        self.rotation.lost(Instant::now().into_std());
        let mut told = String::new();
        let mut least_wait = Duration::ZERO;
        loop {
            sleep(self.rotation.wait().max(least_wait)).await;
            match self.attempt().await {
                Ok(line) => {
                    self.shared.counters.reconnects.add(1);
                    info!(role, broker = line.broker, "connected to the broker again");
                    return line;
                }
                Err(fault) => {
                    let reason = fault.to_string();
                    let conflict = matches!(fault.kind, FaultKind::Profile { .. });
                    least_wait = if conflict { CONFLICT_WAIT } else { Duration::ZERO };
                    // Each new reason is told once an outage; the rest is in health and counters.
                    if reason == told {
                        debug!(role, reason, "no connection yet");
                    } else {
                        warn!(role, reason, "no connection yet");
                        told.clone_from(&reason);
                    }
                    self.shared.status.down(self.role, Instant::now().into_std(), reason);
                }
            }
        }
    }

    async fn attempt(&mut self) -> Result<Line, Fault> {
        let turn = self.rotation.turn(Instant::now().into_std());
        let result = open(&self.shared, self.role, turn.index).await;
        let now = Instant::now().into_std();
        match &result {
            Ok(_) => self.rotation.connected(turn, now),
            Err(_) => {
                self.shared.counters.connect_failures.add(1);
                self.rotation.failed(turn, now);
            }
        }
        result
    }
}

/// One attempt at one broker: connection, channel, exchange, and confirms for the publishing role.
async fn open(shared: &Shared, role: Role, index: usize) -> Result<Line, Fault> {
    let line = open_as(shared, role.name(), role == Role::Publishing, index).await?;
    let placed = take_place(shared, role, &line.connection).await;
    placed.map_err(|(kind, reason)| Fault { kind, broker: line.broker.clone(), reason })?;
    Ok(line)
}

/// Declares what the profile needs: its marker, and the stream of the node's own region before anything is published to it.
async fn take_place(shared: &Shared, role: Role, connection: &Connection) -> Result<(), (FaultKind, String)> {
    let forbidden = |object: String| {
        |failure: Failure| {
            let kind = failure.kind(|soft| match soft {
                AMQPSoftError::ACCESSREFUSED => FaultKind::Forbidden(object),
                _ => FaultKind::Transient,
            });
            (kind, failure.reason)
        }
    };
    let marker = shared.topology.marker().0;
    let claim = marker::claim(shared, connection).await;
    if let Claim::Taken(failure) = claim.map_err(forbidden(format!("the exchange {marker:?}")))? {
        let (profile, other) = match shared.topology.profile() {
            Profile::Fast => ("the profile Fast", "the profile Stream"),
            Profile::Durable => ("the profile Durable", "the profile Stream"),
            Profile::Stream => ("the profile Stream", "the profile Fast or Durable"),
        };
        return Err((FaultKind::Profile { profile, other, exchange: marker.to_owned() }, failure.reason));
    }
    if shared.topology.profile() == Profile::Stream && role == Role::Publishing {
        let region = shared.config.node.region();
        let declared = streams::declare(shared, connection, region, false).await;
        declared.map_err(forbidden(format!("the stream {:?}", shared.topology.stream(region))))?;
    }
    Ok(())
}

/// The same for a line of any use, which the connection's name tells.
pub(super) async fn open_as(
    shared: &Shared,
    role: &str,
    confirms: bool,
    index: usize,
) -> Result<Line, Fault> {
    let endpoint = &shared.endpoints[index];
    let broker = endpoint.to_string();
    let limit = shared.config.connect_timeout;
    let fault = |kind, reason| Fault { kind, broker: broker.clone(), reason };
    let name = format!("geocache {} {} {}", shared.config.cache, shared.config.node, role);
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let fuse = Fuse::default();
    let dial = fuse.dial(endpoint.uri(shared.config.heartbeat), shared.config.tls(), properties, limit);
    let connection = match timeout(limit, dial).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            return Err(fault(refusal(&error, endpoint.virtual_host(), endpoint.is_tls()), text(&error)));
        }
        Err(_) => return Err(fault(FaultKind::Transient, format!("no AMQP handshake within {limit:?}"))),
    };
    let events = Box::pin(connection.events_listener());
    let limit = shared.config.operation_timeout;
    let exchange = &shared.topology.exchange;
    let prepared = async {
        let channel = connection.create_channel().await?;
        shared.topology.declare_exchange(&channel).await?;
        if confirms {
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
        }
        Ok(channel)
    };
    let channel = limited(limit, "declare the exchange", prepared).await.map_err(|failure| {
        let kind = failure.kind(|soft| match soft {
            AMQPSoftError::ACCESSREFUSED => FaultKind::Forbidden(format!("the exchange {exchange:?}")),
            AMQPSoftError::PRECONDITIONFAILED => FaultKind::Conflict(exchange.clone()),
            _ => FaultKind::Transient,
        });
        fault(kind, failure.reason)
    })?;
    debug!(role, broker, "connected to the broker");
    Ok(Line { channel, connection, broker, events, _fuse: fuse })
}

/// What an operation on a connection ended with.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) blame: Blame,
    pub(super) reason: String,
}

/// What a failed operation speaks against.
#[derive(Debug)]
pub(super) enum Blame {
    /// The broker said no.
    Refused(AMQPSoftError),
    /// The broker did not answer in time, or failed in itself.
    Stuck,
    /// The connection broke.
    Link,
}

impl Failure {
    /// The connection, or what was made on it, ended.
    pub(super) fn link(reason: String) -> Self {
        Self { blame: Blame::Link, reason }
    }

    /// What `judge` makes of a refusal by the broker; anything else may be gone at the next attempt.
    pub(super) fn kind(&self, judge: impl FnOnce(&AMQPSoftError) -> FaultKind) -> FaultKind {
        match &self.blame {
            Blame::Refused(soft) => judge(soft),
            Blame::Stuck | Blame::Link => FaultKind::Transient,
        }
    }
}

/// An operation on a connection, with a limit.
pub(super) async fn limited<T>(
    limit: Duration,
    what: &str,
    operation: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Failure> {
    match timeout(limit, operation).await {
        Ok(result) => result.map_err(|error| Failure { blame: blame(&error), reason: text(&error) }),
        Err(_) => {
            let reason = format!("no answer within {limit:?} to: {what}");
            Err(Failure { blame: Blame::Stuck, reason })
        }
    }
}

fn blame(error: &lapin::Error) -> Blame {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(soft) => Blame::Refused(soft.clone()),
            AMQPErrorKind::Hard(AMQPHardError::INTERNALERROR) => Blame::Stuck,
            AMQPErrorKind::Hard(_) => Blame::Link,
        },
        _ => Blame::Link,
    }
}

/// What a refused connection means.
fn refusal(error: &lapin::Error, virtual_host: &str, is_tls: bool) -> FaultKind {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => FaultKind::Credentials,
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => FaultKind::VirtualHost(virtual_host.to_owned()),
            _ => FaultKind::Transient,
        },
        // rustls reports what it does not trust as invalid data.
        ErrorKind::IOError(error) if is_tls && error.kind() == std::io::ErrorKind::InvalidData => {
            FaultKind::Tls
        }
        _ => FaultKind::Transient,
    }
}

/// The error in the broker's or the operating system's words.
pub(super) fn text(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        ErrorKind::IOError(error) => error.to_string(),
        _ => error.to_string(),
    }
}
