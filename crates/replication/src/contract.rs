//! What every [`Transport`] must do, as a suite that any implementation can run.
//!
//! [`holds`] runs every clause, each on transports of a cache of its own, and panics with the clause's name where one is
//! broken. A transport is finished when it returns. The clauses ask for what the trait promises and no more: frames may
//! come twice and out of order, an own broadcast may come back. What must *not* come is awaited for a stated while,
//! [`QUIET`], behind a frame that must; everything else is awaited until it is there, for at most [`PATIENCE`].
//!
//! **Why a function and not a macro of tests.** An implementation starts its broker once, and gives each clause a fresh
//! cache on it. A paused tokio clock works too: the waits then take no time.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?.block_on(async {
//! use std::sync::Arc;
//! use replication::{NodeId, Transport, contract, memory::Hub};
//!
//! contract::holds(async |nodes: &[NodeId]| {
//!     let hub = Hub::new();
//!     let join = |node: &NodeId| -> Arc<dyn Transport> { hub.join(node.clone()) };
//!     nodes.iter().map(join).collect()
//! })
//! .await;
//! # });
//! # Ok::<(), std::io::Error>(())
//! ```

mod delivery;
mod end;
mod lifetime;

use std::{sync::Arc, time::Duration};

use crate::{node::NodeId, transport::Transport};

/// How long a clause waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long a clause listens for what must not come, behind a frame that did come.
pub const QUIET: Duration = Duration::from_millis(300);

/// Runs every clause.
///
/// `fresh` gives one transport for each of the nodes it is shown, in that order, all of one cache that no other call of
/// it shares. They need not be connected yet. Each clause closes its transports.
///
/// # Panics
/// Where a clause does not hold; the message begins with `transport contract` and the clause's name.
pub async fn holds<F>(fresh: F)
where
    F: AsyncFn(&[NodeId]) -> Vec<Arc<dyn Transport>>,
{
    delivery::a_broadcast_reaches_every_other_node(&fresh).await;
    delivery::a_frame_to_a_node_reaches_it_alone(&fresh).await;
    delivery::a_frame_to_a_region_reaches_its_nodes_alone(&fresh).await;
    delivery::frames_of_every_size_arrive_whole(&fresh).await;
    delivery::concurrent_publishes_within_the_window_all_arrive(&fresh).await;
    delivery::what_is_published_after_subscribing_arrives(&fresh).await;
    delivery::frames_to_nobody_are_unroutable(&fresh).await;
    delivery::caches_do_not_hear_each_other(&fresh).await;
    lifetime::unacknowledged_frames_come_again(&fresh).await;
    lifetime::rejected_frames_stop_nothing(&fresh).await;
    lifetime::a_second_subscription_ends_the_first(&fresh).await;
    lifetime::dropping_next_loses_nothing(&fresh).await;
    lifetime::closing_ends_everything_once_and_for_all(&fresh).await;
}

#[cfg(test)]
mod tests;
