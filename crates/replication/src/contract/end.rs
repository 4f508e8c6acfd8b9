//! One node's end of the transport under a clause, with the waits and the panics that name the clause.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, timeout, timeout_at};

use super::{PATIENCE, QUIET};
use crate::{
    node::NodeId,
    transport::{Delivery, Destination, Health, Subscription, Transport, TransportError},
};

/// A node's transport under a clause.
pub(super) struct End {
    pub(super) clause: &'static str,
    pub(super) node: NodeId,
    pub(super) transport: Arc<dyn Transport>,
}

/// A subscription of an end.
pub(super) struct Listener {
    clause: &'static str,
    node: NodeId,
    subscription: Box<dyn Subscription>,
}

/// The node `name` of `region`.
pub(super) fn node(region: &str, name: &str) -> NodeId {
    let region = region.parse().expect("the suite's regions have valid names");
    NodeId::new(region, name).expect("the suite's nodes have valid names")
}

/// Connected ends of a fresh cache.
pub(super) async fn ends<F, const N: usize>(fresh: &F, clause: &'static str, nodes: [NodeId; N]) -> [End; N]
where
    F: AsyncFn(&[NodeId]) -> Vec<Arc<dyn Transport>>,
{
    let transports = fresh(&nodes).await;
    let given: Vec<_> = transports.iter().map(|transport| transport.node().clone()).collect();
    check(clause, given == nodes, || format!("asked for transports of {nodes:?}, was given {given:?}"));
    let mut ends = Vec::with_capacity(N);
    for (node, transport) in nodes.into_iter().zip(transports) {
        let end = End { clause, node, transport };
        end.connected().await;
        ends.push(end);
    }
    ends.try_into().unwrap_or_else(|_| fail(clause, "as many transports as nodes were checked before"))
}

/// Panics with the clause's name.
pub(super) fn fail(clause: &str, what: &str) -> ! {
    panic!("transport contract, {clause}: {what}")
}

pub(super) fn check(clause: &str, holds: bool, what: impl FnOnce() -> String) {
    if !holds {
        fail(clause, &what());
    }
}

/// Frames of the suite, told apart by their bytes.
pub(super) fn frames(prefix: &str, count: usize) -> Vec<Bytes> {
    (0..count).map(|i| Bytes::from(format!("{prefix} {i}"))).collect()
}

/// What of a frame fits into a message.
fn shown(frame: &Bytes) -> String {
    let head = &frame[..frame.len().min(40)];
    format!("{:?} ({} bytes)", String::from_utf8_lossy(head), frame.len())
}

impl End {
    async fn connected(&self) {
        self.health(|health| *health == Health::Connected, "connected").await;
    }

    /// Waits until the health is as wanted.
    pub(super) async fn health(&self, wanted: impl Fn(&Health) -> bool, name: &str) {
        let mut health = self.transport.health();
        let reached = timeout(PATIENCE, health.wait_for(|health| wanted(health))).await;
        let reached = matches!(reached, Ok(Ok(_)));
        check(self.clause, reached, || {
            let now = self.transport.health().borrow().clone();
            format!("{} was not {name} within {PATIENCE:?}, but {now:?}", self.node)
        });
    }

    /// Waits for a call of the transport, to a bound.
    pub(super) async fn bounded<T>(&self, what: &str, call: impl Future<Output = T>) -> T {
        match timeout(PATIENCE, call).await {
            Ok(outcome) => outcome,
            Err(_) => {
                fail(self.clause, &format!("{what} of {} did not return within {PATIENCE:?}", self.node))
            }
        }
    }

    pub(super) async fn try_publish(&self, to: Destination, frame: &Bytes) -> Result<(), TransportError> {
        self.bounded("a publish", self.transport.publish(to, frame.clone())).await
    }

    pub(super) async fn publish(&self, to: Destination, frame: &Bytes) {
        let outcome = self.try_publish(to.clone(), frame).await;
        self.succeeded(&format!("publishing {} to {to:?}", shown(frame)), &outcome);
    }

    pub(super) async fn broadcast(&self, frames: &[Bytes]) {
        for frame in frames {
            self.publish(Destination::Everyone, frame).await;
        }
    }

    pub(super) async fn subscribe(&self) -> Listener {
        match self.bounded("a subscribe", self.transport.subscribe()).await {
            Ok(subscription) => Listener { clause: self.clause, node: self.node.clone(), subscription },
            Err(error) => fail(self.clause, &format!("subscribing {}: {error}", self.node)),
        }
    }

    pub(super) async fn close(&self) {
        let outcome = self.bounded("a close", self.transport.close()).await;
        self.succeeded("closing", &outcome);
    }

    fn succeeded<T, E: Debug>(&self, what: &str, outcome: &Result<T, E>) {
        if let Err(error) = outcome {
            fail(self.clause, &format!("{what} from {} failed: {error:?}", self.node));
        }
    }
}

/// Closes the ends of a clause that went well.
pub(super) async fn close(ends: &[End]) {
    for end in ends {
        end.close().await;
    }
}

impl Listener {
    /// The next delivery, or `None` at the end of the subscription.
    pub(super) async fn next(&mut self, until: Instant, wanted: &str) -> Option<Delivery> {
        match timeout_at(until, self.subscription.next()).await {
            Ok(delivery) => delivery,
            Err(_) => fail(self.clause, &format!("{} did not get {wanted} within {PATIENCE:?}", self.node)),
        }
    }

    /// Receives and acknowledges until each of these frames came at least once; gives the others that came.
    pub(super) async fn expect(&mut self, frames: &[Bytes]) -> BTreeSet<Bytes> {
        self.expect_by(frames, |delivery| delivery.ack.done()).await
    }

    /// Receives until each of these frames came at least once, doing with each delivery what `handle` does.
    pub(super) async fn expect_by(
        &mut self,
        frames: &[Bytes],
        mut handle: impl FnMut(Delivery),
    ) -> BTreeSet<Bytes> {
        let until = Instant::now() + PATIENCE;
        let wanted: BTreeSet<&Bytes> = frames.iter().collect();
        let mut missing = wanted.clone();
        let mut others = BTreeSet::new();
        while let Some(first) = missing.first() {
            let first = format!("{} of {} frames, the first {}", missing.len(), wanted.len(), shown(first));
            let Some(delivery) = self.next(until, &first).await else {
                fail(self.clause, &format!("the subscription of {} ended before {first} came", self.node))
            };
            missing.remove(&delivery.frame);
            if !wanted.contains(&delivery.frame) {
                others.insert(delivery.frame.clone());
            }
            handle(delivery);
        }
        others
    }

    /// Receives for [`QUIET`]; none of these frames may come.
    pub(super) async fn expect_none_of(&mut self, frames: &[Bytes]) {
        let until = Instant::now() + QUIET;
        while let Ok(Some(delivery)) = timeout_at(until, self.subscription.next()).await {
            self.refuse(frames, &delivery.frame);
            delivery.ack.done();
        }
    }

    /// Panics if the frame is one of those that must not come.
    pub(super) fn refuse(&self, frames: &[Bytes], frame: &Bytes) {
        check(self.clause, !frames.contains(frame), || {
            format!("{} got {}, which was not for it", self.node, shown(frame))
        });
    }

    /// Receives until the subscription ends.
    pub(super) async fn expect_end(&mut self) {
        let until = Instant::now() + PATIENCE;
        while let Some(delivery) = self.next(until, "the end of its subscription").await {
            delivery.ack.done();
        }
    }

    /// Polls for the next delivery for `patience`, then drops the future.
    pub(super) async fn glance(&mut self, patience: Duration) -> Option<Delivery> {
        match timeout(patience, self.subscription.next()).await {
            Ok(None) => fail(self.clause, &format!("the subscription of {} ended", self.node)),
            Ok(delivery) => delivery,
            Err(_) => None,
        }
    }
}
