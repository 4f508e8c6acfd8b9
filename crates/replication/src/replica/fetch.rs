//! A read of the nearest region: for what is not here, or not here yet.
//!
//! A node that is warming answers its readers through this, and a miss may be asked of the closest region before the
//! origin of the data. What comes back is merged like any record, so the next read finds it here.

use bytes::Bytes;

use super::{Now, Outgoing, Replica, Store};
use crate::{
    message::Message,
    node::Origin,
    record::{Op, Record},
    stamp::Hlc,
    wire,
};

/// What a peer answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The question's number, as [`Replica::fetch`] gave it.
    pub id: u64,
    /// Whether the peer was ready; one that is warming may miss keys that others have.
    pub ready: bool,
    /// What it holds of the keys asked for; a put's `ttl.left_ms` is what is left of it here and now.
    pub records: Vec<Record>,
}

impl<S: Store> Replica<S> {
    /// Asks the nearest ready peer for keys; nothing stamped below `at_least` is wanted. Returns the question's number,
    /// by which its answer is known, or `None` where no ready peer is heard. A question or its answer may be lost: give
    /// up after a while. At most [`wire::KEYS_MAX`] keys are asked for; an answer holds what fits a frame, in the order
    /// of the keys, and at least one record where there is one.
    pub fn fetch(&mut self, now: Now, mut keys: Vec<Bytes>, at_least: Hlc) -> Option<u64> {
        let ready = self.peers.iter().filter(|(_, peer)| self.can_give(peer, now));
        let by_rtt = ready.map(|(&origin, peer)| (peer.clock.map_or(u64::MAX, |clock| clock.rtt_ms), origin));
        let (_, peer) = by_rtt.min()?;
        keys.truncate(wire::KEYS_MAX);
        self.fetches += 1;
        self.counters.fetches_sent += 1;
        let id = self.ids + self.fetches;
        self.send(peer, Outgoing::Message(Message::Fetch { id, keys, at_least }));
        Some(id)
    }

    /// The answers that arrived since the last call, oldest first. Past the bounds of messages to single nodes the oldest
    /// answer is dropped.
    pub fn take_fetched(&mut self) -> impl Iterator<Item = Fetched> + '_ {
        std::iter::from_fn(|| self.fetched.pop())
    }

    pub(super) fn on_fetch(&mut self, now: Now, asker: Origin, id: u64, keys: &[Bytes], at_least: Hlc) {
        let found = keys.iter().filter_map(|key| self.store.record(key, now.mono_ms));
        let mut bytes = 0;
        let mut records: Vec<Record> = Vec::new();
        for record in found.filter(|record| record.stamp.hlc >= at_least) {
            bytes += wire::record_bytes_max(&record);
            if bytes > wire::FRAME_BYTES && !records.is_empty() {
                break;
            }
            records.push(record);
        }
        self.counters.fetches_served += 1;
        let ready = self.ready;
        self.send(asker, Outgoing::Message(Message::Fetched { id, ready, records }));
    }

    pub(super) fn on_fetched(
        &mut self,
        now: Now,
        sender: Origin,
        id: u64,
        ready: bool,
        mut records: Vec<Record>,
    ) {
        // An answer to a life before this one, or to nobody.
        if id <= self.ids || id > self.ids + self.fetches {
            return;
        }
        records.retain(|record| self.can_place(sender, record));
        for record in &mut records {
            self.outbox.clock().observe(record.stamp.hlc);
            self.merge(now, sender, record);
            if let (Op::Put(value), Some(peer)) = (&mut record.op, self.peers.get(&sender))
                && let Some(ttl) = &mut value.ttl
            {
                ttl.left_ms = peer.ttl_left_ms(now, *ttl).unwrap_or(0);
                ttl.born_ms = now.mono_ms;
            }
        }
        let bytes = records.iter().map(wire::record_bytes_max).sum();
        let fetched = Fetched { id, ready, records };
        self.counters.control_dropped += self.fetched.push(fetched, bytes, self.config.control_room());
    }
}

#[cfg(test)]
mod tests;
