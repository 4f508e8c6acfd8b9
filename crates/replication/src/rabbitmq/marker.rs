//! The exchange by which nodes of unlike profiles notice each other.
//!
//! A node of `Stream` and one of `Fast` or `Durable` would not hear each other's frames, and nothing would say so. So
//! each node declares the exchange `geocache-profile.<cache>`, whose *type* says the kind of profile, and binds its queue
//! to it: the broker itself then refuses the other type. The exchange goes with the last queue bound to it, so that the
//! other kind may start as soon as all nodes of this one were closed; the queue of a node that crashed keeps it until
//! the queue expires. Its name is outside the prefix that federation policies match, so each broker has its own.
//!
//! `Fast` and `Durable` have the same kind: their queues differ, but each node has its own, and the frames go to all.
//!
//! A name for the queue's arguments to conflict on was rejected: no queue outlives its node there. A message that says
//! the profile was rejected too: who does not hear the frames does not hear that either.

use lapin::{
    Channel, Connection,
    options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions},
    protocol::AMQPSoftError,
    types::FieldTable,
};

use super::{
    Shared,
    connection::{Blame, Failure, limited},
    topology::{Topology, short},
};

/// What became of the marker.
#[derive(Debug)]
pub(super) enum Claim {
    /// It says this node's kind of profile.
    Held,
    /// It says the other kind, and a queue is bound to it.
    Taken(Failure),
}

/// Declares the marker, on channels of its own since a refusal closes them.
pub(super) async fn claim(shared: &Shared, connection: &Connection) -> Result<Claim, Failure> {
    let refused = match try_claim(shared, connection).await {
        Err(failure) if is_refused(&failure) => failure,
        other => return other.map(|()| Claim::Held),
    };
    // Nobody's, where no queue is bound: its node went before it had one.
    let limit = shared.config.operation_timeout;
    let freed = async {
        let channel = connection.create_channel().await?;
        delete_unused(&channel, &shared.topology).await
    };
    match limited(limit, "free the profile's marker", freed).await {
        Ok(()) => {}
        Err(failure) if is_refused(&failure) => return Ok(Claim::Taken(refused)),
        Err(failure) => return Err(failure),
    }
    match try_claim(shared, connection).await {
        Err(failure) if is_refused(&failure) => Ok(Claim::Taken(failure)),
        other => other.map(|()| Claim::Held),
    }
}

async fn try_claim(shared: &Shared, connection: &Connection) -> Result<(), Failure> {
    let claim = async {
        let channel = connection.create_channel().await?;
        declare(&channel, &shared.topology).await?;
        channel.close(200, short("OK")).await
    };
    limited(shared.config.operation_timeout, "declare the profile's marker", claim).await
}

/// Binds a queue to the marker, which keeps it; changes nothing where it is bound.
pub(super) async fn bind(channel: &Channel, topology: &Topology, queue: &str) -> lapin::Result<()> {
    let (options, marker) = (QueueBindOptions::default(), short(topology.marker().0));
    channel.queue_bind(short(queue), marker, short(""), options, FieldTable::default()).await
}

/// Lets go of the marker for a queue that is left.
pub(super) async fn release(channel: &Channel, topology: &Topology, queue: &str) -> lapin::Result<()> {
    channel.queue_unbind(short(queue), short(topology.marker().0), short(""), FieldTable::default()).await
}

/// Deletes the marker of a node that closes, where no queue is bound to it.
pub(super) async fn leave(shared: &Shared, connection: &Connection) -> Result<(), Failure> {
    let leave = async {
        let channel = connection.create_channel().await?;
        delete_unused(&channel, &shared.topology).await
    };
    match limited(shared.config.close_timeout, "leave the profile's marker", leave).await {
        Err(failure) if !is_refused(&failure) => Err(failure),
        _ => Ok(()),
    }
}

/// Declares the marker; changes nothing where it says this node's kind of profile.
pub(super) async fn declare(channel: &Channel, topology: &Topology) -> lapin::Result<()> {
    let (marker, kind) = topology.marker();
    let options = ExchangeDeclareOptions { durable: true, auto_delete: true, ..Default::default() };
    channel.exchange_declare(short(marker), kind, options, FieldTable::default()).await
}

async fn delete_unused(channel: &Channel, topology: &Topology) -> lapin::Result<()> {
    let options = ExchangeDeleteOptions { if_unused: true, ..Default::default() };
    channel.exchange_delete(short(topology.marker().0), options).await
}

/// Whether a refusal is about the marker rather than about the queue or exchange that was asked for beside it.
pub(super) fn is_blamed(failure: &Failure, topology: &Topology) -> bool {
    matches!(failure.blame, Blame::Refused(_))
        && failure.reason.contains(&format!("'{}'", topology.marker().0))
}

fn is_refused(failure: &Failure) -> bool {
    matches!(failure.blame, Blame::Refused(AMQPSoftError::PRECONDITIONFAILED))
}
