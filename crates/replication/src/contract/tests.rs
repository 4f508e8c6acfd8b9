//! The hub under the contract, as it is and with the faults that a transport may have; and transports that break it,
//! each caught by the clause that it breaks.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::*;
use crate::{
    memory::{Faults, Hub},
    transport::{Ack, Delivery, Destination, Handled, Health, Subscription, TransportError},
};

fn join_all(hub: &Hub, nodes: &[NodeId]) -> Vec<Arc<dyn Transport>> {
    let join = |node: &NodeId| -> Arc<dyn Transport> { hub.join(node.clone()) };
    nodes.iter().map(join).collect()
}

#[tokio::test(start_paused = true)]
async fn the_hub_holds_the_contract() {
    holds(async |nodes: &[NodeId]| join_all(&Hub::new(), nodes)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_hub_holds_the_contract_over_threads() {
    holds(async |nodes: &[NodeId]| join_all(&Hub::new(), nodes)).await;
}

#[tokio::test(start_paused = true)]
async fn the_hub_holds_the_contract_with_delays_duplicates_and_reordering() {
    for seed in 0..10 {
        holds(async |nodes: &[NodeId]| {
            let hub = Hub::seeded(seed);
            let delay = Duration::from_millis(1)..=Duration::from_millis(80);
            hub.set_faults(Faults::none().delay(delay).duplicate(0.2).reorder(0.3));
            join_all(&hub, nodes)
        })
        .await;
    }
}

/// What a transport does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    AddressesIgnored,
    LongFramesCut,
    FifthFrameLost,
    UnroutableUnsaid,
    AckedOnDelivery,
    RejectedAgain,
    EndUnsaid,
    NextUnsafe,
    CloseForgotten,
}

/// The hub, with a defect.
struct Defective {
    inner: Arc<dyn Transport>,
    defect: Defect,
    published: std::sync::atomic::AtomicU64,
}

struct DefectiveSubscription {
    inner: Box<dyn Subscription>,
    defect: Defect,
    /// What was rejected, to come again.
    again: Arc<Mutex<Vec<Bytes>>>,
}

#[async_trait]
impl Transport for Defective {
    fn node(&self) -> &NodeId {
        self.inner.node()
    }

    async fn publish(&self, to: Destination, mut frame: Bytes) -> Result<(), TransportError> {
        let count = self.published.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let to = if self.defect == Defect::AddressesIgnored { Destination::Everyone } else { to };
        if self.defect == Defect::LongFramesCut {
            frame.truncate(131_072);
        }
        if self.defect == Defect::FifthFrameLost && count % 5 == 4 {
            return Ok(());
        }
        match self.inner.publish(to, frame).await {
            Err(TransportError::Unroutable { .. }) if self.defect == Defect::UnroutableUnsaid => Ok(()),
            outcome => outcome,
        }
    }

    async fn subscribe(&self) -> Result<Box<dyn Subscription>, TransportError> {
        let inner = self.inner.subscribe().await?;
        Ok(Box::new(DefectiveSubscription { inner, defect: self.defect, again: Arc::default() }))
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.inner.health()
    }

    async fn close(&self) -> Result<(), TransportError> {
        if self.defect == Defect::CloseForgotten { Ok(()) } else { self.inner.close().await }
    }
}

#[async_trait]
impl Subscription for DefectiveSubscription {
    async fn next(&mut self) -> Option<Delivery> {
        let again = Arc::clone(&self.again);
        let rejected = async {
            // While nothing else comes.
            tokio::time::sleep(Duration::from_millis(10)).await;
            let frame = again.lock().pop();
            match frame {
                Some(frame) => frame,
                None => std::future::pending().await,
            }
        };
        let delivery = tokio::select! {
            biased;
            delivery = self.inner.next() => delivery,
            frame = rejected => Some(Delivery { frame, ack: Ack::none() }),
        };
        match (self.defect, delivery) {
            (Defect::RejectedAgain, Some(Delivery { frame, ack })) => {
                let ack = self.judged(&frame, ack);
                Some(Delivery { frame, ack })
            }
            (Defect::AckedOnDelivery, Some(Delivery { frame, ack })) => {
                ack.done();
                Some(Delivery { frame, ack: Ack::none() })
            }
            (Defect::EndUnsaid, None) => std::future::pending().await,
            (Defect::NextUnsafe, delivery) => {
                tokio::task::yield_now().await;
                delivery
            }
            (_, delivery) => delivery,
        }
    }
}

impl DefectiveSubscription {
    fn judged(&self, frame: &Bytes, ack: Ack) -> Ack {
        let (again, frame) = (Arc::clone(&self.again), frame.clone());
        Ack::judged(move |handled| {
            if handled != Handled::Done {
                again.lock().push(frame);
            }
            ack.done();
        })
    }
}

/// What the suite says when it fails on a paused clock.
fn verdict<F>(fresh: F) -> String
where
    F: AsyncFn(&[NodeId]) -> Vec<Arc<dyn Transport>>,
{
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| runtime.block_on(holds(fresh))))
        .expect_err("the contract holds for a transport that breaks it");
    *panic.downcast::<String>().expect("the suite panics with a message")
}

#[test]
fn each_defect_is_caught_by_the_clause_that_it_breaks() {
    let clauses = [
        (Defect::AddressesIgnored, "a frame to a node reaches it alone"),
        (Defect::LongFramesCut, "frames of every size arrive whole"),
        (Defect::FifthFrameLost, "a broadcast reaches every other node"),
        (Defect::UnroutableUnsaid, "frames to nobody are unroutable"),
        (Defect::AckedOnDelivery, "unacknowledged frames come again"),
        (Defect::RejectedAgain, "rejected frames stop nothing"),
        (Defect::EndUnsaid, "a second subscription ends the first"),
        (Defect::NextUnsafe, "dropping a `next` future loses nothing"),
        (Defect::CloseForgotten, "closing ends everything, once and for all"),
    ];
    for (defect, clause) in clauses {
        let said = verdict(async |nodes: &[NodeId]| {
            let defective =
                |inner| -> Arc<dyn Transport> { Arc::new(Defective { inner, defect, published: 0.into() }) };
            join_all(&Hub::new(), nodes).into_iter().map(defective).collect()
        });
        assert!(said.starts_with(&format!("transport contract, {clause}: ")), "{defect:?}: {said}");
    }
}

#[test]
fn a_hub_that_loses_frames_is_caught() {
    let said = verdict(async |nodes: &[NodeId]| {
        let hub = Hub::seeded(3);
        hub.set_faults(Faults::none().drop(0.05));
        join_all(&hub, nodes)
    });
    assert!(said.starts_with("transport contract, "), "{said}");
}

#[test]
fn caches_that_share_a_hub_are_caught() {
    // Nodes that join again replace each other, so the second cache's close the first's.
    let hub = Hub::new();
    let said = verdict(async |nodes: &[NodeId]| join_all(&hub, nodes));
    assert!(said.starts_with("transport contract, caches do not hear each other: "), "{said}");
}
