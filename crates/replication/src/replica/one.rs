//! One replica among peers that a test plays itself: it hands over their frames and reads what is sent.

use std::sync::Arc;

use bytes::Bytes;

use super::{Now, Outbox, Replica, ReplicaConfig, Store};
use crate::{
    message::{Bar, Beat, Echo, Frame, Grave, Message, StreamReport},
    node::{NodeId, Origin, Stream},
    record::{Op, Record, Ttl, Value},
    sim::{MapStore, Rules, SimStore, StoreSettings},
    stamp::{Hlc, Stamp},
    transport::Destination,
    wire,
};

/// The wall clock of everybody at the beginning.
pub(super) const START_MS: u64 = 1_700_000_000_000;

/// The epoch of the peers.
pub(super) const EPOCH: u64 = START_MS << 16;

pub(super) struct One {
    pub(super) now: Now,
    pub(super) store: Arc<MapStore>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) replica: Replica<MapStore>,
}

/// A node that a test plays.
pub(super) fn peer(region: &str) -> NodeId {
    NodeId::new(region.parse().unwrap(), "played").unwrap()
}

pub(super) fn stream_of(node: &NodeId) -> Stream {
    Stream { origin: node.origin(), epoch: EPOCH }
}

/// The stamp that a node gives `ms` milliseconds after the start.
pub(super) fn stamp(node: &NodeId, ms: u64) -> Stamp {
    Stamp { hlc: Hlc::from_ms(START_MS + ms), origin: node.origin() }
}

pub(super) fn put(key: &'static str, value: &'static str, stamp: Stamp) -> Record {
    let value = Value { bytes: Bytes::from_static(value.as_bytes()), ..Value::default() };
    Record { stamp, key: Bytes::from_static(key.as_bytes()), op: Op::Put(value), previous: None }
}

/// With a life of which `left_ms` was left when the sender's monotonic clock showed `born_ms`.
pub(super) fn living(record: Record, left_ms: u64, born_ms: u64) -> Record {
    let Op::Put(value) = record.op else { panic!("a put") };
    let ttl = Some(Ttl { left_ms, born_ms });
    Record { op: Op::Put(Value { ttl, ..value }), ..record }
}

pub(super) fn report(stream: Stream, watermark: u64, hlc: Hlc) -> StreamReport {
    StreamReport {
        stream,
        watermark,
        watermark_hlc: hlc,
        last_hlc: hlc,
        max: watermark,
        generation: watermark,
        age_ms: 0,
    }
}

impl One {
    /// A node of `us-east` that is ready from the start, or warming.
    pub(super) fn new(is_ready: bool) -> Self {
        let node = NodeId::new("us-east".parse().unwrap(), "one").unwrap();
        let config = ReplicaConfig { bootstrap: is_ready, ..ReplicaConfig::new(node.clone()) };
        let now = Now { mono_ms: 1_000, wall_ms: START_MS };
        let outbox = Arc::new(Outbox::new(node.origin(), 1 << 20));
        let settings = StoreSettings { capacity: 1_000, graves_max: 1_000, rules: Rules::ALL };
        let store = MapStore::open(&settings, Arc::clone(&outbox), now);
        let replica = Replica::new(config, Arc::clone(&store), Arc::clone(&outbox), now, 1);
        Self { now, store, outbox, replica }
    }

    /// Time passes, and the replica ticks.
    pub(super) fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall_ms += ms;
        self.store.set_now(self.now);
        self.replica.tick(self.now);
    }

    /// A local write.
    pub(super) fn write(&self, key: &str, value: &'static str) -> Stamp {
        let value = Value { bytes: Bytes::from_static(value.as_bytes()), ..Value::default() };
        self.store.write(key.as_bytes(), Op::Put(value))
    }

    /// A local remove.
    pub(super) fn store_remove(&self, key: &str) -> Stamp {
        self.store.write(key.as_bytes(), Op::Remove)
    }

    /// Lets a key go as if there were no room for it.
    pub(super) fn evict(&self, key: &str) {
        let position = self.position(key);
        let above_all = Bar::above(Stamp { hlc: Hlc(u64::MAX), origin: Origin(u64::MAX) });
        assert_eq!(self.store.sweep(position, Some(position + 1), above_all, &|_| false), 1);
    }

    /// Changes the timers and bounds.
    pub(super) fn configure(&mut self, change: impl FnOnce(&mut ReplicaConfig)) {
        change(&mut self.replica.config);
    }

    pub(super) fn value(&self, key: &str) -> Option<String> {
        let held = self.store.get(key.as_bytes())?;
        Some(String::from_utf8_lossy(&held.bytes).into_owned())
    }

    pub(super) fn position(&self, key: &str) -> u64 {
        wire::KeyHasher::new("geocache").position(key.as_bytes())
    }

    /// The peer says something.
    pub(super) fn hear(&mut self, from: &NodeId, message: Message) {
        self.hear_in(from, EPOCH, message);
    }

    /// The peer answers a probe of this life.
    pub(super) fn hear_state(&mut self, from: &NodeId, records: Vec<Record>, graves: Vec<Grave>) {
        let answers = self.replica.stream().epoch;
        self.hear(from, Message::State { answers, records, graves });
    }

    /// The peer says something in a life of its own.
    pub(super) fn hear_in(&mut self, from: &NodeId, epoch: u64, message: Message) {
        let cache = wire::cache_id("geocache");
        let frame = Frame { from: from.clone(), epoch, cache, wants_receipt: false, message };
        self.replica.handle(self.now, wire::encode(&frame));
    }

    /// The peer beats: it is ready, its clock is this node's, and the way there and back took `rtt_ms`.
    pub(super) fn hear_beat(&mut self, from: &NodeId, rtt_ms: u64, streams: Vec<StreamReport>) {
        self.hear_able_beat(from, rtt_ms, streams, 0);
    }

    /// The same of a peer with abilities.
    pub(super) fn hear_able_beat(
        &mut self,
        from: &NodeId,
        rtt_ms: u64,
        streams: Vec<StreamReport>,
        capabilities: u32,
    ) {
        let me = self.replica.stream();
        let mono_ms = self.now.mono_ms - rtt_ms;
        let beat = Beat {
            ready: true,
            capabilities,
            hlc: Hlc::from_ms(self.now.wall_ms),
            wall_ms: self.now.wall_ms - rtt_ms / 2,
            mono_ms: self.now.mono_ms,
            streams,
            echoes: vec![Echo { peer: me.origin, epoch: me.epoch, mono_ms, held_ms: 0 }],
            ..Beat::default()
        };
        self.hear(from, Message::Beat(beat));
    }

    /// What is sent now, beats left out.
    pub(super) fn sent(&mut self) -> Vec<(Destination, Message)> {
        let frames = std::iter::from_fn(|| self.replica.poll(self.now));
        let messages = frames.map(|(to, frame)| (to, wire::decode(frame).unwrap().message));
        messages.filter(|(_, message)| !matches!(message, Message::Beat(_))).collect()
    }
}
