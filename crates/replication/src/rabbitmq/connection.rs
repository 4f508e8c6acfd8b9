//! One connection to a broker: made within a limit, and gone for good when dropped.
//!
//! lapin's own recovery is left off: it hangs when a reconnect dies in the AMQP handshake, gives up after some attempts,
//! and does not mend channel errors. Here every loss, of whatever kind, ends in a fresh connection, a fresh channel and
//! the topology declared again.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ErrorKind, Event,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
};
use resilience::Backoff;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::{
    Shared,
    config::Profile,
    error::{ConnectError, Fault, FaultKind},
    marker::{self, Claim},
    permission::{self, Step},
    rotation::Rotation,
    socket::Fuse,
    status::Role,
    streams, tls,
    topology::short,
};

/// The least wait before another attempt where nodes of another profile are in the way: an operator has to act.
const CONFLICT_WAIT: Duration = Duration::from_secs(30);

/// The routing key of the message that proves the permission to publish: no queue is bound to it.
const PROBE: &str = "all.probe";

/// A working connection with one channel for declaring, and for publishing where that is its role.
pub(super) struct Line {
    pub(super) channel: Channel,
    pub(super) connection: Arc<Connection>,
    /// The broker, redacted.
    pub(super) broker: String,
    /// Why the broker takes no publishes now, where it said so while the line was made.
    pub(super) blocked: Option<String>,
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
        let rotation = Rotation::new(shared.breakers.of(role.into()), shared.backoff());
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

    /// The next connection: tries until there is one. `lost` says why there is none any more; `None`, that there was none
    /// yet.
    ///
    /// What waiting does not mend is tried again as well, for an operator may mend it; less often.
    ///
    /// # Cancel safety
    /// An attempt that is under way is given up.
    pub(super) async fn again(&mut self, lost: Option<&str>) -> Line {
        let role = self.role.name();
        if let Some(reason) = lost {
            warn!(role, reason, "lost the connection to the broker");
            self.rotation.lost(Instant::now().into_std());
            sleep(self.rotation.wait()).await;
        }
        let mut told = String::new();
        loop {
            match self.attempt().await {
                Ok(line) => {
                    if lost.is_some() {
                        self.shared.counters.reconnects.add(1);
                    }
                    info!(role, broker = line.broker, "connected to the broker");
                    return line;
                }
                Err(fault) => {
                    let reason = fault.to_string();
                    // Each new reason is told once an outage; the rest is in health and counters.
                    if reason == told {
                        debug!(role, reason, "no connection yet");
                    } else {
                        warn!(role, reason, "no connection yet");
                        told.clone_from(&reason);
                    }
                    self.shared.status.down(self.role, Instant::now().into_std(), reason);
                    let mut wait = self.rotation.wait();
                    if fault.lasting().is_some() && !wait.is_zero() {
                        let max = self.shared.config.retry_max;
                        let mut seldom = Backoff::new(max, max).jitter(0.5);
                        wait = wait.max(seldom.next().unwrap_or(max));
                    }
                    if matches!(fault.kind, FaultKind::Profile { .. }) {
                        wait = wait.max(CONFLICT_WAIT);
                    }
                    sleep(wait).await;
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

/// One attempt at one broker: connection, channel, exchange; for the publishing role confirms, and the proof that the
/// broker takes what is published.
async fn open(shared: &Arc<Shared>, role: Role, index: usize) -> Result<Line, Fault> {
    let mut line = open_as(shared, role.name(), role == Role::Publishing, index).await?;
    let fault = |line: &Line, kind, reason| Fault { kind, broker: line.broker.clone(), reason };
    let placed = take_place(shared, role, &line.connection).await;
    placed.map_err(|(kind, reason)| fault(&line, kind, reason))?;
    if role == Role::Publishing {
        let (exchange, limit) = (&shared.topology.exchange, shared.config.operation_timeout);
        line.blocked = probe(&mut line, exchange, limit).await.map_err(|failure| {
            let kind = shared.refused(Step::Publish, &failure);
            fault(&line, kind, failure.reason)
        })?;
    }
    Ok(line)
}

/// Declares what the profile needs: its marker, and the stream of the node's own region before anything is published to it.
async fn take_place(shared: &Shared, role: Role, connection: &Connection) -> Result<(), (FaultKind, String)> {
    let forbidden = |object: String| {
        move |failure: Failure| {
            let step = failure.step.unwrap_or(Step::Declare);
            let kind = failure.kind(|soft| match soft {
                AMQPSoftError::ACCESSREFUSED => shared.forbidden(step, &failure.reason, &object),
                _ => FaultKind::Transient,
            });
            (kind, failure.reason)
        }
    };
    let marker = shared.topology.marker().0;
    let claim = marker::claim(shared, connection).await;
    if let Claim::Taken(failure) = claim.map_err(forbidden(format!("exchange '{marker}'")))? {
        return Err((shared.profile_conflict(), failure.reason));
    }
    if shared.topology.profile() == Profile::Stream && role == Role::Publishing {
        let region = shared.config.node.region();
        let declared = streams::declare(shared, connection, region, false).await;
        declared.map_err(forbidden(format!("queue '{}'", shared.topology.stream(region))))?;
    }
    Ok(())
}

/// The connection for any use, which its name tells.
pub(super) async fn open_as(
    shared: &Arc<Shared>,
    role: &str,
    confirms: bool,
    index: usize,
) -> Result<Line, Fault> {
    let endpoint = &shared.endpoints[index];
    let broker = endpoint.to_string();
    let limit = shared.config.connect_timeout;
    let fault = |kind, reason| Fault { kind, broker: broker.clone(), reason };
    let (uri, tls) = parameters(shared, index, limit).await.map_err(|(kind, reason)| fault(kind, reason))?;
    let name = format!("geocache {} {} {}", shared.config.cache, shared.config.node, role);
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let fuse = Fuse::default();
    let dial = fuse.dial(uri, tls, properties, limit);
    let connection = match timeout(limit, dial).await {
        Ok(Ok(connection)) => Arc::new(connection),
        Ok(Err(error)) => {
            let has_identity = endpoint.is_tls().then_some(shared.config.has_identity());
            return Err(fault(refusal(&error, endpoint.virtual_host(), has_identity), text(&error)));
        }
        Err(_) => return Err(fault(FaultKind::Transient, format!("no AMQP handshake within {limit:?}"))),
    };
    let events = Box::pin(connection.events_listener());
    let limit = shared.config.operation_timeout;
    let prepared = async {
        let channel = connection.create_channel().await?;
        shared.topology.declare_exchange(&channel).await?;
        if confirms {
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
        }
        Ok(channel)
    };
    let channel = limited(limit, "declare the exchange", prepared).await.map_err(|failure| {
        let kind = shared.refused(Step::Declare, &failure);
        fault(kind, failure.reason)
    })?;
    debug!(role, broker, "connected to the broker");
    Ok(Line { channel, connection, broker, blocked: None, events, _fuse: fuse })
}

/// What the attempt is made with; reading it may block, so it has a thread and a limit.
async fn parameters(
    shared: &Arc<Shared>,
    index: usize,
    limit: Duration,
) -> Result<(lapin::uri::AMQPUri, lapin::tcp::OwnedTLSConfig), (FaultKind, String)> {
    let reader = Arc::clone(shared);
    let reading = async {
        // A file that hangs keeps its thread: no more than these are ever kept.
        let place = Arc::clone(&shared.readers).acquire_owned().await;
        tokio::task::spawn_blocking(move || {
            let _place = place;
            reader.config.parameters(&reader.endpoints[index])
        })
        .await
    };
    match timeout(limit, reading).await {
        Ok(Ok(parameters)) => {
            parameters.map_err(|error| (FaultKind::Config(error.clone()), error.to_string()))
        }
        Ok(Err(error)) => Err((FaultKind::Transient, format!("reading the credentials failed: {error}"))),
        Err(_) => Err((FaultKind::Transient, format!("the credentials were not read within {limit:?}"))),
    }
}

/// Publishes a message that no queue takes, and waits until the broker accepted it: the permission to publish shows at no
/// other time. `Some` with the reason where the broker says that it takes nothing for now.
async fn probe(line: &mut Line, exchange: &str, limit: Duration) -> Result<Option<String>, Failure> {
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    let channel = line.channel.clone();
    let publish = async move {
        channel.basic_publish(short(exchange), short(PROBE), options, &[], properties).await?.await.map(drop)
    };
    let answered = limited(limit, "take a message", publish);
    tokio::pin!(answered);
    loop {
        tokio::select! {
            biased;
            event = line.event() => match event {
                Some(Event::ConnectionBlocked(reason)) => return Ok(Some(reason)),
                Some(Event::Error(error)) => {
                    return Err(Failure { blame: blame(&error), step: None, reason: text(&error) });
                }
                Some(_) => {}
                None => return answered.await.map(|()| None),
            },
            result = &mut answered => return result.map(|()| None),
        }
    }
}

/// What an operation on a connection ended with.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) blame: Blame,
    /// What was asked, where a refusal of it says that a permission is missing.
    pub(super) step: Option<Step>,
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

impl Shared {
    /// What a refused declaration of the exchange, or publish to it, means.
    fn refused(&self, step: Step, failure: &Failure) -> FaultKind {
        let exchange = &self.topology.exchange;
        failure.kind(|soft| match soft {
            AMQPSoftError::ACCESSREFUSED => {
                self.forbidden(step, &failure.reason, &format!("exchange '{exchange}'"))
            }
            AMQPSoftError::PRECONDITIONFAILED => FaultKind::Conflict(exchange.clone()),
            _ => FaultKind::Transient,
        })
    }

    /// The fault of a node that finds the marker of the other kind of profile.
    pub(super) fn profile_conflict(&self) -> FaultKind {
        let (profile, other) = match self.topology.profile() {
            Profile::Fast => ("the profile Fast", "the profile Stream"),
            Profile::Durable => ("the profile Durable", "the profile Stream"),
            Profile::Stream => ("the profile Stream", "the profile Fast or Durable"),
        };
        FaultKind::Profile { profile, other, exchange: self.topology.marker().0.to_owned() }
    }

    /// The fault of an operation that was refused for lack of a permission on `what`.
    pub(super) fn forbidden(&self, step: Step, refusal: &str, what: &str) -> FaultKind {
        FaultKind::Forbidden {
            permission: step.needs(refusal),
            object: permission::object(refusal).unwrap_or_else(|| what.to_owned()),
            cache: self.config.cache.clone(),
        }
    }
}

impl Failure {
    /// The connection, or what was made on it, ended.
    pub(super) fn link(reason: String) -> Self {
        Self { blame: Blame::Link, step: None, reason }
    }

    /// The failure, of this step.
    pub(super) fn at(self, step: Step) -> Self {
        Self { step: Some(step), ..self }
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
        Ok(result) => {
            result.map_err(|error| Failure { blame: blame(&error), step: None, reason: text(&error) })
        }
        Err(_) => {
            let reason = format!("no answer within {limit:?} to: {what}");
            Err(Failure { blame: Blame::Stuck, step: None, reason })
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

/// What a refused connection means. `has_identity` is `None` where it has no TLS.
fn refusal(error: &lapin::Error, virtual_host: &str, has_identity: Option<bool>) -> FaultKind {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => FaultKind::Credentials,
            // A limit of connections is refused in the same way, and may be gone at the next attempt.
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)
                if !error.get_message().as_str().contains("is reached") =>
            {
                FaultKind::VirtualHost(virtual_host.to_owned())
            }
            // The mechanism of the URI is not one of the broker's.
            AMQPErrorKind::Hard(_) if error.get_message().as_str().contains("authentication mechanism") => {
                FaultKind::Credentials
            }
            _ => FaultKind::Transient,
        },
        ErrorKind::IOError(error) => has_identity
            .and_then(|has_identity| tls::problem(error, has_identity))
            .map_or(FaultKind::Transient, FaultKind::Tls),
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
