//! A transport without a network: the measurement takes the frames that a node publishes, and gives it frames.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use async_trait::async_trait;
use benches::record::records_in;
use bytes::Bytes;
use parking_lot::Mutex;
use replication::{Ack, Delivery, Destination, Health, NodeId, Subscription, Transport, TransportError};
use tokio::{
    sync::{Notify, watch},
    task::yield_now,
};

/// How long a measurement waits for a node.
const BOUND: Duration = Duration::from_secs(60);

/// A node's end. Frames of records alone are kept; whatever else the node says goes nowhere.
pub(crate) struct Tap {
    node: NodeId,
    health: watch::Sender<Health>,
    flow: Arc<Flow>,
}

#[derive(Default)]
struct Flow {
    published: Mutex<Vec<Bytes>>,
    records_published: AtomicU64,
    inbox: Mutex<VecDeque<Bytes>>,
    given: Notify,
    records_handled: AtomicU64,
}

impl Tap {
    pub(crate) fn new(node: NodeId) -> Self {
        Self { node, health: watch::Sender::new(Health::Connected), flow: Arc::default() }
    }

    /// Lets the node work until it has published so many records since it began.
    pub(crate) async fn has_published(&self, records: u64) -> Result<()> {
        reached(&self.flow.records_published, records, "published").await
    }

    /// Lets the node work until it has handled so many records since it began.
    pub(crate) async fn has_handled(&self, records: u64) -> Result<()> {
        reached(&self.flow.records_handled, records, "handled").await
    }

    /// The frames of records published since this was last asked.
    pub(crate) fn take_published(&self) -> Vec<Bytes> {
        std::mem::take(&mut self.flow.published.lock())
    }

    /// Gives the node frames.
    pub(crate) fn give(&self, frames: impl IntoIterator<Item = Bytes>) {
        self.flow.inbox.lock().extend(frames);
        self.flow.given.notify_one();
    }
}

async fn reached(count: &AtomicU64, wanted: u64, what: &str) -> Result<()> {
    let start = Instant::now();
    while count.load(Ordering::Relaxed) < wanted {
        if start.elapsed() > BOUND {
            bail!("{} of {wanted} records were {what} within {BOUND:?}", count.load(Ordering::Relaxed));
        }
        yield_now().await;
    }
    Ok(())
}

#[async_trait]
impl Transport for Tap {
    fn node(&self) -> &NodeId {
        &self.node
    }

    async fn publish(&self, _: Destination, frame: Bytes) -> Result<(), TransportError> {
        if let Some(records) = records_in(&frame) {
            self.flow.published.lock().push(frame);
            self.flow.records_published.fetch_add(records, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn subscribe(&self) -> Result<Box<dyn Subscription>, TransportError> {
        Ok(Box::new(Given(Arc::clone(&self.flow))))
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    async fn close(&self) -> Result<(), TransportError> {
        Ok(())
    }
}

struct Given(Arc<Flow>);

#[async_trait]
impl Subscription for Given {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            let next = self.0.inbox.lock().pop_front();
            let Some(frame) = next else {
                self.0.given.notified().await;
                continue;
            };
            let (flow, records) = (Arc::clone(&self.0), records_in(&frame).unwrap_or(0));
            let ack = Ack::new(move || {
                flow.records_handled.fetch_add(records, Ordering::Relaxed);
            });
            return Some(Delivery { frame, ack });
        }
    }
}
