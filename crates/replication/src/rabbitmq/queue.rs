//! The node's own queue, and when to leave it for another.
//!
//! A queue can outlive its use. A classic queue is gone for as long as the broker node that hosts it is down, and the
//! other nodes of the cluster refuse to declare it. A quorum queue that was declared within seconds of a `kill -9` of its
//! broker may come back without ever electing a leader (seen with RabbitMQ 3.10): nobody can consume from it, and, worse,
//! no publish to it is ever confirmed, so that one such queue stops every publisher. Its owner is the one to notice. It
//! unbinds the queue, which frees the publishers, asks the broker to delete it, and takes a queue of another name; the
//! replica protocol repairs what was in the old one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use lapin::{Channel, options::QueueDeleteOptions, protocol::AMQPSoftError, types::FieldTable};
use tracing::warn;

use super::{
    Shared,
    connection::{Blame, Failure, Line, limited},
    marker,
    permission::Step,
    topology::short,
};

/// A queue that failed this often, over at least this time, is left.
const FAILURES: u32 = 3;
const FAILING: Duration = Duration::from_secs(8);

/// The queue of this node's life.
pub(super) struct Queue {
    shared: Arc<Shared>,
    name: String,
    trouble: Trouble,
    /// The queue is to be left at the next chance.
    leave: bool,
}

impl Queue {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let name = shared.queue.lock().clone();
        Self { shared, name, trouble: Trouble::default(), leave: false }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Declares exchange, queue and bindings, after leaving a queue that is of no use.
    pub(super) async fn declare(&mut self, line: &mut Line) -> Result<(), Failure> {
        if std::mem::take(&mut self.leave) {
            self.leave(line).await;
        }
        let topology = &self.shared.topology;
        let limit = self.shared.config.operation_timeout;
        let declare = async {
            topology.declare_exchange(&line.channel).await?;
            marker::declare(&line.channel, topology).await?;
            topology.declare_queue(&line.channel, &self.name).await
        };
        let declared = limited(limit, "declare the queue", declare).await;
        declared.map_err(|failure| failure.at(Step::Declare))?;
        match self.bind(&line.channel).await {
            Err(failure) if self.is_without_marker(&failure) => {
                // The last queue that was bound to it went, and it with that, since it was declared. The refusal closed the
                // channel.
                let again = async {
                    line.channel = line.connection.create_channel().await?;
                    marker::declare(&line.channel, topology).await
                };
                let declared = limited(limit, "declare the profile's marker again", again).await;
                declared.map_err(|failure| failure.at(Step::Declare))?;
                self.bind(&line.channel).await
            }
            bound => bound,
        }
    }

    async fn bind(&self, channel: &Channel) -> Result<(), Failure> {
        let topology = &self.shared.topology;
        let bind = async {
            marker::bind(channel, topology, &self.name).await?;
            topology.bind_queue(channel, &self.name).await
        };
        let bound = limited(self.shared.config.operation_timeout, "bind the queue", bind).await;
        bound.map_err(|failure| failure.at(Step::Bind))
    }

    fn is_without_marker(&self, failure: &Failure) -> bool {
        matches!(failure.blame, Blame::Refused(AMQPSoftError::NOTFOUND))
            && marker::is_blamed(failure, &self.shared.topology)
    }

    /// It was declared and is consumed from.
    pub(super) fn worked(&mut self) {
        self.trouble = Trouble::default();
    }

    /// Declaring or consuming failed.
    pub(super) fn failed(&mut self, failure: &Failure, now: Instant) {
        if !self.is_without_marker(failure) {
            self.leave |= self.trouble.failed(&failure.blame, now);
        }
    }

    pub(super) async fn delete(&self, line: &mut Line, limit: Duration) -> Result<(), String> {
        let delete = line.channel.queue_delete(short(&self.name), QueueDeleteOptions::default());
        let deleted = limited(limit, "delete the queue", delete).await;
        deleted.map(|_| ()).map_err(|failure| self.left(&failure.reason))
    }

    /// What is left behind when the queue was not deleted.
    pub(super) fn left(&self, reason: &str) -> String {
        let after = self.shared.config.queue_expires;
        format!("the queue {:?} was not deleted, the broker removes it after {after:?}: {reason}", self.name)
    }

    async fn leave(&mut self, line: &mut Line) {
        let next = self.shared.topology.queue(fastrand::u64(..));
        let old = std::mem::replace(&mut self.name, next);
        self.shared.queue.lock().clone_from(&self.name);
        self.shared.counters.queues_replaced.add(1);
        self.trouble = Trouble::default();
        warn!(
            old,
            new = self.name,
            "the queue is of no use, taking another; should it stay at the broker, delete it there"
        );
        let limit = self.shared.config.operation_timeout;
        let unbind = async {
            // A channel of its own: a refusal closes it.
            let channel = line.connection.create_channel().await?;
            let exchange = short(&self.shared.topology.exchange);
            for key in self.shared.topology.bindings() {
                channel
                    .queue_unbind(short(&old), exchange.clone(), short(key), FieldTable::default())
                    .await?;
            }
            marker::release(&channel, &self.shared.topology, &old).await?;
            // Without waiting: where the queue has no leader, the broker takes long to say so.
            channel.queue_delete(short(&old), QueueDeleteOptions { nowait: true, ..Default::default() }).await
        };
        if let Err(failure) = limited(limit, "leave the old queue", unbind).await {
            warn!(old, reason = failure.reason, "the old queue may still be bound");
        }
    }
}

/// The failures of a queue since it last worked.
#[derive(Debug, Default)]
struct Trouble {
    first: Option<Instant>,
    failures: u32,
}

impl Trouble {
    /// Whether the queue is to be left after this failure.
    fn failed(&mut self, blame: &Blame, now: Instant) -> bool {
        match blame {
            // The broker node that hosts the queue is down.
            Blame::Refused(AMQPSoftError::NOTFOUND) => true,
            Blame::Refused(_) | Blame::Link => false,
            Blame::Stuck => {
                let first = *self.first.get_or_insert(now);
                self.failures += 1;
                self.failures >= FAILURES && now.saturating_duration_since(first) >= FAILING
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_whose_host_is_down_is_left_at_once() {
        assert!(Trouble::default().failed(&Blame::Refused(AMQPSoftError::NOTFOUND), Instant::now()));
    }

    #[test]
    fn a_queue_that_stays_stuck_is_left_after_a_while() {
        let (mut trouble, now) = (Trouble::default(), Instant::now());
        let stuck = |trouble: &mut Trouble, seconds| {
            trouble.failed(&Blame::Stuck, now + Duration::from_secs(seconds))
        };
        assert!(!stuck(&mut trouble, 0));
        assert!(!stuck(&mut trouble, 1));
        assert!(!stuck(&mut trouble, 2), "three failures in two seconds may be an election");
        assert!(stuck(&mut trouble, 8));
    }

    #[test]
    fn neither_a_broken_link_nor_a_missing_permission_speaks_against_the_queue() {
        let (mut trouble, now) = (Trouble::default(), Instant::now());
        for seconds in 0..60 {
            let now = now + Duration::from_secs(seconds);
            assert!(!trouble.failed(&Blame::Link, now));
            assert!(!trouble.failed(&Blame::Refused(AMQPSoftError::ACCESSREFUSED), now));
        }
    }
}
