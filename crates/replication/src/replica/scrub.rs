//! The scrub: a continuous comparison of what two nodes hold, at a bounded rate.
//!
//! Streams and syncs bring every record that is known to be missing. What is missing although a watermark says that it
//! is there (a fault that no rule foresaw, or that ate a number) is found here: a node sends the stamps of a range of
//! positions to a peer, which answers with what it knows to be newer, records and graves, and asks for what it lacks by
//! a probe of its own. A record that the peer evicted is no difference: two LRUs differ by design. No Merkle trees,
//! since they would differ for that reason alone, and lists also say which difference is a loss.
//!
//! A clear may be lost like any write, and what it hides tells no stamp: a pass begins with the clear barriers.
//!
//! A pass goes over everything with one peer before it turns to the next, so that no pair of nodes goes uncompared for
//! long. What a scrub repaired although this node's watermark claimed to have it is the divergence meter
//! ([`Counters::divergence`](super::Counters::divergence)); a write whose life ended elsewhere first is none of it.
//!
//! # Bounds
//! One probe of [`ReplicaConfig::scrub_samples`](super::ReplicaConfig::scrub_samples) stamps each
//! [`ReplicaConfig::scrub_wait_ms`](super::ReplicaConfig::scrub_wait_ms); one answer of at most a frame of records to a
//! probe. What does not fit is found again by the next pass, and counted.

use bytes::Bytes;

use super::{Merged, Now, Outgoing, Replica, Store};
use crate::{
    message::{Bar, Grave, Message},
    node::Origin,
    record::{Op, Record},
    stamp::{Hlc, Stamp},
    wire,
};

/// The most stamps of one probe that are compared.
const SAMPLES_MAX: usize = 4_096;

/// Probe waits between two passes, so that a small cache is not compared all the time.
const PASS_WAITS: u64 = 4;

/// The pass under way.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    /// The peer that is compared with.
    peer: Option<Origin>,
    /// The peer of the pass before.
    last: Option<Origin>,
    position: u64,
    due_ms: u64,
}

impl<S: Store> Replica<S> {
    /// Sends the next probe of the pass, if it is due.
    pub(super) fn scrub(&mut self, now: Now) {
        let is_on = self.config.rules.scrub && self.config.scrub_samples > 0;
        if !is_on || now.mono_ms < self.scrub.due_ms {
            return;
        }
        self.scrub.due_ms = now.mono_ms + self.config.scrub_wait_ms;
        let Some(peer) = self.scrub_peer(now) else { return };
        let limit = self.config.scrub_samples.min(SAMPLES_MAX);
        let page = self.store.samples(self.scrub.position, limit);
        let cleared = if self.scrub.position == 0 { self.store.cleared() } else { Vec::new() };
        match page.hi {
            Some(hi) => self.scrub.position = hi,
            None => {
                self.scrub.position = 0;
                self.scrub.last = self.scrub.peer.take();
                self.scrub.due_ms = now.mono_ms + PASS_WAITS * self.config.scrub_wait_ms;
                self.counters.scrub_passes += 1;
            }
        }
        if !page.live.is_empty() || !cleared.is_empty() {
            self.counters.scrub_compared += page.live.len() as u64;
            self.send(peer, Outgoing::Message(Message::Probe { samples: page.live, cleared }));
        }
    }

    /// The peer of this pass; a pass whose peer is gone begins anew with the next one, in the order of origins.
    fn scrub_peer(&mut self, now: Now) -> Option<Origin> {
        let can_compare = |origin: &Origin| {
            self.peers.get(origin).is_some_and(|peer| peer.clock.is_some() && self.can_give(peer, now))
        };
        if let Some(peer) = self.scrub.peer.filter(can_compare) {
            return Some(peer);
        }
        let after = |origin: &&Origin| self.scrub.last.is_none_or(|last| **origin > last);
        let others = || self.peers.keys().filter(|origin| can_compare(origin));
        let next = others().find(after).or_else(|| others().next()).copied();
        self.scrub.peer = next;
        self.scrub.position = 0;
        next
    }

    /// Answers a probe with what is newer here, and asks for what is newer there.
    pub(super) fn on_probe(
        &mut self,
        now: Now,
        asker: Origin,
        samples: &[(u64, Stamp)],
        cleared: &[(Bytes, Stamp)],
    ) {
        if !self.ready {
            return;
        }
        for (namespace, stamp) in cleared {
            self.outbox.clock().observe(stamp.hlc);
            if self.store.clear(namespace, *stamp) == Merged::Applied {
                self.note_repair(*stamp);
            }
        }
        let over = samples.len().saturating_sub(SAMPLES_MAX);
        self.counters.scrub_cut += over as u64;
        let mut answer = Answer::default();
        let mut lacking = Vec::new();
        for &(position, theirs) in &samples[..samples.len() - over] {
            let known = self.store.known(position);
            match (known.live, known.grave) {
                (Some(mine), _) if mine > theirs => answer.give(self.store.at(position, now.mono_ms)),
                (Some(mine), _) if mine < theirs => lacking.push((position, mine)),
                (None, _) if theirs == Stamp::ZERO => {}
                (None, Some(bar)) if !bar.admits(theirs) => answer.graves.push(Grave { position, bar }),
                // That very record was evicted here, and has its grave or set the floor.
                (None, _) if known.bar == Bar::at(theirs) => {}
                (None, _) if known.bar.admits(theirs) => lacking.push((position, Stamp::ZERO)),
                _ => {}
            }
        }
        self.counters.scrub_cut += answer.cut;
        if !answer.records.is_empty() || !answer.graves.is_empty() {
            self.send_state(asker, answer);
        }
        if !lacking.is_empty() {
            self.send(asker, Outgoing::Message(Message::Probe { samples: lacking, cleared: Vec::new() }));
        }
    }

    /// Merges records and graves that claim no place in a stream: the answer to a probe, or a preview.
    pub(super) fn on_state(&mut self, now: Now, sender: Origin, records: &[Record], graves: &[Grave]) {
        let stamps = records.iter().map(|record| record.stamp.hlc);
        let newest = stamps.chain(graves.iter().map(|grave| grave.bar.stamp.hlc)).max().unwrap_or_default();
        self.outbox.clock().observe(newest);
        for record in records {
            if self.can_place(sender, record) && self.merge(now, sender, record) == Merged::Applied {
                self.note_repair(record.stamp);
            }
        }
        for &grave in graves {
            let held = self.store.known(grave.position).live;
            if self.store.bury(grave) != Merged::Applied {
                continue;
            }
            if held == Some(grave.bar.stamp) {
                // The life of that very write ended there a moment before it would have ended here: nothing was lost.
                self.counters.scrub_repaired += u64::from(self.ready);
            } else {
                self.note_repair(grave.bar.stamp);
            }
        }
    }

    /// Whether a record may be merged: what it does is a key's, and its life, if it has one, can be told.
    pub(super) fn can_place(&self, sender: Origin, record: &Record) -> bool {
        match &record.op {
            Op::Clear => false,
            Op::Put(value) if value.ttl.is_some() && self.config.rules.gate_unknown_clock => {
                self.peers.get(&sender).is_some_and(|peer| peer.clock.is_some())
            }
            Op::Put(_) | Op::Remove => true,
        }
    }

    fn note_repair(&mut self, stamp: Stamp) {
        if !self.ready {
            self.counters.previewed += 1;
            return;
        }
        self.counters.scrub_repaired += 1;
        self.counters.divergence += u64::from(self.claims(stamp));
    }

    /// Whether this node's watermarks say that it has what bears this stamp.
    fn claims(&self, stamp: Stamp) -> bool {
        if stamp.origin == self.origin && stamp.hlc.0 >= self.epoch {
            return true;
        }
        let lives = self.streams.iter().rev().filter(|(stream, _)| stream.origin == stamp.origin);
        let life = lives.into_iter().find(|(stream, _)| stream.epoch <= stamp.hlc.0);
        life.is_some_and(|(_, state)| state.hlc >= stamp.hlc)
    }

    /// The most recently used records, ahead of a full sync, in frames of their own.
    pub(super) fn send_preview(&mut self, now: Now, asker: Origin, bytes: usize) {
        let bytes = bytes.min(4 * self.config.preview_bytes);
        let mut answer = Answer::default();
        let mut frames = Vec::new();
        for record in self.store.hottest(bytes, now.mono_ms) {
            if !answer.has_room_for(&record) {
                frames.push(std::mem::take(&mut answer));
            }
            answer.give(vec![record]);
        }
        frames.push(answer);
        for answer in frames.into_iter().filter(|answer| !answer.records.is_empty()) {
            self.counters.previews_sent += answer.records.len() as u64;
            self.send_state(asker, answer);
        }
    }

    fn send_state(&mut self, asker: Origin, answer: Answer) {
        let Some(peer) = self.peers.get(&asker) else { return };
        let (answers, Answer { records, graves, .. }) = (peer.epoch, answer);
        self.send(asker, Outgoing::Message(Message::State { answers, records, graves }));
    }
}

/// A frame of records in the making.
#[derive(Debug, Default)]
struct Answer {
    records: Vec<Record>,
    graves: Vec<Grave>,
    bytes: usize,
    cut: u64,
}

impl Answer {
    fn has_room_for(&self, record: &Record) -> bool {
        let bytes = self.bytes + wire::record_bytes_max(record);
        self.records.is_empty() || (bytes <= wire::FRAME_BYTES && self.records.len() < wire::FRAME_RECORDS)
    }

    /// Takes records while there is room; counts the others.
    fn give(&mut self, records: Vec<Record>) {
        for record in records {
            if self.has_room_for(&record) {
                self.bytes += wire::record_bytes_max(&record);
                self.records.push(record);
            } else {
                self.cut += 1;
            }
        }
    }
}

/// The newest clock in a message of records and graves, for the judgement of drift.
pub(super) fn newest_of(records: &[Record], graves: &[Grave]) -> Option<Hlc> {
    let records = records.iter().map(|record| record.stamp.hlc);
    records.chain(graves.iter().map(|grave| grave.bar.stamp.hlc)).max()
}

#[cfg(test)]
mod tests;
