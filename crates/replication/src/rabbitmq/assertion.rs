//! Declaring again what a node needs at the broker, beside everything else.
//!
//! Bindings vanish without a word when somebody deletes the exchange and another node declares it again. So a node
//! declares and binds again from time to time, which changes nothing where all is there. The operations are sent
//! together and their answers come in order, one round trip for all; nobody waits for it but the assertion itself, so
//! that acknowledgements go on however far away the broker is.
//!
//! **Invariant.** All of one assertion go over one channel: the broker works them off in order, and what it refuses ends
//! the channel, so the first that fails is the one that was refused.

use std::{future::Future, pin::Pin, sync::Arc};

use futures_util::future::try_join_all;
use geo::RegionId;
use lapin::{Channel, options::QueueBindOptions, types::FieldTable};

use super::{
    Shared,
    connection::Failure,
    marker,
    patience::patient,
    permission::Step,
    topology::{Topology, short},
};

/// An assertion that is under way.
pub(super) type Assertion = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

type Operation<'a> = Pin<Box<dyn Future<Output = lapin::Result<()>> + Send + 'a>>;

/// Exchange, marker, the node's queue and its bindings.
pub(super) fn of_queue(shared: &Arc<Shared>, channel: &Channel, queue: &str) -> Assertion {
    let (shared, channel, queue) = (shared.clone(), channel.clone(), queue.to_owned());
    Box::pin(async move {
        let topology = &shared.topology;
        let mut operations: Vec<(Step, Operation<'_>)> = vec![
            (Step::Declare, Box::pin(topology.declare_exchange(&channel))),
            (Step::Declare, Box::pin(marker::declare(&channel, topology))),
            (Step::Declare, Box::pin(topology.declare_queue(&channel, &queue))),
            (Step::Bind, Box::pin(marker::bind(&channel, topology, &queue))),
        ];
        let bindings = topology.bindings().iter();
        operations.extend(bindings.map(|key| (Step::Bind, bind(topology, &channel, &queue, key))));
        together(&shared, "declare the queue again", operations).await
    })
}

/// The stream of a region and its binding. One with other bounds than those configured is only looked for.
pub(super) fn of_stream(
    shared: &Arc<Shared>,
    channel: &Channel,
    region: &RegionId,
    is_other: bool,
) -> Assertion {
    let (shared, channel, region) = (shared.clone(), channel.clone(), region.clone());
    Box::pin(async move {
        let topology = &shared.topology;
        let declare: Operation<'_> = if is_other {
            Box::pin(topology.find_stream(&channel, &region))
        } else {
            Box::pin(topology.declare_stream(&channel, &region))
        };
        let operations = vec![
            (Step::Declare, declare),
            (Step::Bind, Box::pin(topology.bind_stream(&channel, &region)) as _),
        ];
        together(&shared, "declare the stream again", operations).await
    })
}

/// The bindings of one queue.
pub(super) fn of_bindings(
    shared: &Arc<Shared>,
    channel: &Channel,
    queue: &str,
    keys: Vec<String>,
) -> Assertion {
    let (shared, channel, queue) = (shared.clone(), channel.clone(), queue.to_owned());
    Box::pin(async move {
        let keys = keys.iter();
        let operations = keys.map(|key| (Step::Bind, bind(&shared.topology, &channel, &queue, key)));
        let operations = operations.collect();
        together(&shared, "bind the queue again", operations).await
    })
}

fn bind<'a>(topology: &'a Topology, channel: &'a Channel, queue: &'a str, key: &'a str) -> Operation<'a> {
    let (exchange, options) = (short(&topology.exchange), QueueBindOptions::default());
    Box::pin(channel.queue_bind(short(queue), exchange, short(key), options, FieldTable::default()))
}

async fn together(
    shared: &Shared,
    what: &str,
    operations: Vec<(Step, Operation<'_>)>,
) -> Result<(), Failure> {
    let patiently = |(step, operation)| async move {
        patient(shared, what, operation).await.map_err(|failure: Failure| failure.at(step))
    };
    try_join_all(operations.into_iter().map(patiently)).await.map(drop)
}
