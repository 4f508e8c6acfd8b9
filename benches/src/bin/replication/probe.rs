//! A transport around a transport, which counts the frames of records that pass.
//!
//! On the way out it counts at publishing, on the way in when the driver acknowledges a frame, which is when its last
//! record was applied. It costs one box a frame.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use benches::record::records_in;
use bytes::Bytes;
use replication::{Ack, Delivery, Destination, Health, NodeId, Subscription, Transport, TransportError};
use tokio::sync::watch;

use crate::arrivals::Arrivals;

pub(crate) struct Probe {
    inner: Arc<dyn Transport>,
    pub(crate) arrivals: Arc<Arrivals>,
    frames: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
}

/// What was published: frames of records, the records in them, and their bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Published {
    pub(crate) frames: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

impl Probe {
    pub(crate) fn new(inner: Arc<dyn Transport>) -> Arc<Self> {
        let [frames, records, bytes] = [const { AtomicU64::new(0) }; 3];
        Arc::new(Self { inner, arrivals: Arc::default(), frames, records, bytes })
    }

    pub(crate) fn published(&self) -> Published {
        let [frames, records, bytes] =
            [&self.frames, &self.records, &self.bytes].map(|count| count.load(Ordering::Relaxed));
        Published { frames, records, bytes }
    }
}

#[async_trait]
impl Transport for Probe {
    fn node(&self) -> &NodeId {
        self.inner.node()
    }

    async fn publish(&self, to: Destination, frame: Bytes) -> Result<(), TransportError> {
        if let Some(records) = records_in(&frame) {
            self.frames.fetch_add(1, Ordering::Relaxed);
            self.records.fetch_add(records, Ordering::Relaxed);
            self.bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        }
        self.inner.publish(to, frame).await
    }

    async fn subscribe(&self) -> Result<Box<dyn Subscription>, TransportError> {
        let inner = self.inner.subscribe().await?;
        Ok(Box::new(ProbeSubscription { inner, arrivals: Arc::clone(&self.arrivals) }))
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.inner.health()
    }

    fn window(&self) -> usize {
        self.inner.window()
    }

    async fn close(&self) -> Result<(), TransportError> {
        self.inner.close().await
    }
}

struct ProbeSubscription {
    inner: Box<dyn Subscription>,
    arrivals: Arc<Arrivals>,
}

#[async_trait]
impl Subscription for ProbeSubscription {
    async fn next(&mut self) -> Option<Delivery> {
        let Delivery { frame, ack } = self.inner.next().await?;
        let Some(records) = records_in(&frame) else { return Some(Delivery { frame, ack }) };
        let (arrivals, handled) = (Arc::clone(&self.arrivals), frame.clone());
        let ack = Ack::new(move || {
            arrivals.note(records, handled);
            ack.done();
        });
        Some(Delivery { frame, ack })
    }
}
