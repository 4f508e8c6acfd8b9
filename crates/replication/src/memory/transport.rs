//! A node's end of the hub.

use std::{pin::pin, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    publish::Answer,
    state::{Seat, State, Step},
};
use crate::{
    node::NodeId,
    transport::{Ack, Delivery, Destination, Health, Subscription, Transport, TransportError},
};

/// A node's end of a [`Hub`](super::Hub). Dropping it leaves the hub, as [`Transport::close`] does.
///
/// Publishing and subscribing take effect on the first poll, and wait only where a fault says so. A frame over
/// [`FRAME_BYTES_MAX`](crate::wire::FRAME_BYTES_MAX) is refused.
#[derive(Debug)]
pub struct HubTransport {
    state: Arc<Mutex<State>>,
    node: NodeId,
    life: u64,
    health: watch::Receiver<Health>,
}

impl HubTransport {
    pub(super) fn new(
        state: Arc<Mutex<State>>,
        node: NodeId,
        life: u64,
        health: watch::Receiver<Health>,
    ) -> Self {
        Self { state, node, life, health }
    }
}

#[async_trait]
impl Transport for HubTransport {
    fn node(&self) -> &NodeId {
        &self.node
    }

    async fn publish(&self, to: Destination, frame: Bytes) -> Result<(), TransportError> {
        let answer = self.state.lock().publish(&self.node, self.life, &to, &frame);
        // A publisher in a loop gives way to the other tasks, as it would when it waited for a broker.
        tokio::task::coop::consume_budget().await;
        match answer {
            Answer::Now(result) => result,
            Answer::After(wait, result) => {
                tokio::time::sleep(wait).await;
                result
            }
            // The hub answers all it holds, or is gone.
            Answer::Thawed(answer) => answer.await.unwrap_or(Err(TransportError::Closed)),
        }
    }

    async fn subscribe(&self) -> Result<Box<dyn Subscription>, TransportError> {
        let (subscription, news) = self.state.lock().subscribe(&self.node, self.life)?;
        let seat = Seat { node: self.node.clone(), life: self.life, subscription };
        Ok(Box::new(HubSubscription { state: Arc::clone(&self.state), seat, news }))
    }

    fn health(&self) -> watch::Receiver<Health> {
        let mut health = self.health.clone();
        health.mark_unchanged();
        health
    }

    async fn close(&self) -> Result<(), TransportError> {
        self.state.lock().leave(&self.node, self.life);
        Ok(())
    }
}

impl Drop for HubTransport {
    fn drop(&mut self) {
        self.state.lock().leave(&self.node, self.life);
    }
}

struct HubSubscription {
    state: Arc<Mutex<State>>,
    seat: Seat,
    news: Arc<Notify>,
}

#[async_trait]
impl Subscription for HubSubscription {
    async fn next(&mut self) -> Option<Delivery> {
        // Before a frame is taken, since nothing may be awaited after.
        tokio::task::coop::consume_budget().await;
        loop {
            let mut news = pin!(self.news.notified());
            news.as_mut().enable();
            let step = self.state.lock().next(&self.seat, Instant::now());
            match step {
                Step::Frame { frame, tag } => return Some(Delivery { frame, ack: self.ack(tag) }),
                Step::End => return None,
                Step::Wait(None) => news.await,
                Step::Wait(Some(due)) => tokio::select! {
                    () = news => {}
                    () = tokio::time::sleep_until(due) => {}
                },
            }
        }
    }
}

impl HubSubscription {
    fn ack(&self, tag: u64) -> Ack {
        let (state, seat) = (Arc::downgrade(&self.state), self.seat.clone());
        Ack::judged(move |handled| {
            if let Some(state) = state.upgrade() {
                state.lock().ack(&seat, tag, &handled);
            }
        })
    }
}
