//! Gaps: asked of the origin while it lives, of anyone who has more when it does not.

use super::{Now, Outgoing, Replica, Store, stream::GapPace};
use crate::{
    message::Message,
    node::{Origin, Stream},
};

/// The random part of a gap's grace, in milliseconds, so that several nodes do not ask in one moment.
const GRACE_JITTER_MS: u64 = 50;

/// What to do about a gap.
enum Repair {
    Pull { from: u64, to: u64 },
    Sync(Origin),
}

impl<S: Store> Replica<S> {
    pub(super) fn repair_gaps(&mut self, now: Now) {
        let streams: Vec<Stream> = self.streams.keys().copied().collect();
        for stream in streams {
            let jitter_ms = self.random.u64(..GRACE_JITTER_MS);
            self.repair_if_due(now, stream, jitter_ms);
        }
    }

    /// Records of a node's own stream came. Where an answer ended with them that did not close the hole, the next question
    /// leaves at once: so a hole that the origin's ring covers closes in as many round trips as it takes answers, however
    /// often a tick comes.
    pub(super) fn hear_answer(&mut self, now: Now, origin: Origin, first: u64, answers: Option<u64>) {
        let Some(epoch) = self.peers.get(&origin).map(|peer| peer.epoch) else { return };
        let stream = Stream { origin, epoch };
        let Some(state) = self.streams.get_mut(&stream) else { return };
        if state.hear(now.mono_ms, first, answers) && self.ready {
            self.repair_if_due(now, stream, 0);
        }
    }

    fn repair_if_due(&mut self, now: Now, stream: Stream, jitter_ms: u64) {
        let config = &self.config;
        let clock = self.peers.get(&stream.origin).and_then(|peer| peer.clock);
        let rtt_ms = clock.map_or(0, |clock| clock.rtt_ms);
        let pace = GapPace {
            grace_ms: config.gap_grace_ms,
            wait_ms_min: (2 * config.gap_grace_ms.max(rtt_ms).max(1)).min(config.gap_wait_ms_max),
            wait_ms_max: config.gap_wait_ms_max,
        };
        let state = self.streams.get_mut(&stream);
        if !state.is_some_and(|state| state.gap_is_due(now.mono_ms, jitter_ms, pace)) {
            return;
        }
        match self.repair_of(now, stream) {
            Some(Repair::Pull { from, to }) => {
                self.counters.pulls_sent += 1;
                self.send(stream.origin, Outgoing::Message(Message::Pull { stream, from, to }));
            }
            Some(Repair::Sync(peer)) => {
                let needed = self.streams.keys().filter(|stream| self.closes(now, peer, **stream));
                let needed = needed.copied().collect();
                self.begin_sync(now, peer, needed);
            }
            None => {}
        }
    }

    fn repair_of(&self, now: Now, stream: Stream) -> Option<Repair> {
        let state = self.streams.get(&stream)?;
        let (from, to) = state.hole()?;
        let origin = self.peers.get(&stream.origin);
        let origin = origin.filter(|peer| {
            peer.epoch == stream.epoch && self.is_alive(peer, now) && self.hears_us(peer, now)
        });
        match origin {
            Some(_) if !state.gone && self.config.rules.pull => Some(Repair::Pull { from, to }),
            Some(origin) if self.can_give(origin, now) && origin.clock.is_some() => {
                Some(Repair::Sync(stream.origin))
            }
            _ if !self.config.rules.dead_stream => None,
            _ => self.anyone_with_more(now, stream).map(Repair::Sync),
        }
    }

    /// Whether a sync with `peer` would close the hole of a stream, if it has one that can't be pulled: one walk over the
    /// peer's state is to close all that it can.
    fn closes(&self, now: Now, peer: Origin, stream: Stream) -> bool {
        match self.repair_of(now, stream) {
            Some(Repair::Sync(nearest)) => nearest == peer || self.rtt_if_more(now, stream, peer).is_some(),
            _ => false,
        }
    }

    /// The live, ready peer of the least round trip that holds more of the stream than this node, and that was not
    /// synced with since it last got more.
    fn anyone_with_more(&self, now: Now, stream: Stream) -> Option<Origin> {
        let with_more = self.peers.keys().filter_map(|&peer| {
            let rtt_ms = self.rtt_if_more(now, stream, peer)?;
            Some((rtt_ms, peer))
        });
        with_more.min().map(|(_, peer)| peer)
    }

    fn rtt_if_more(&self, now: Now, stream: Stream, origin: Origin) -> Option<u64> {
        let state = self.streams.get(&stream)?;
        let peer = self.peers.get(&origin)?;
        let report = peer.reports.get(&stream)?;
        let has_more = report.max > state.watermark || report.watermark > state.watermark;
        let is_new = state.covered.get(&origin) != Some(&report.generation);
        let clock = peer.clock.filter(|_| has_more && is_new && self.can_give(peer, now))?;
        Some(clock.rtt_ms)
    }

    pub(super) fn on_pull(&mut self, asker: Origin, stream: Stream, from: u64, to: u64) {
        if stream != self.stream() || from == 0 || to < from {
            return;
        }
        let (oldest, next) = (self.ring.oldest(), self.ring.next());
        if from >= next {
            // Such a number was never given; the asker believed another.
            return self.send(asker, Outgoing::Message(Message::Gone { stream, oldest: next }));
        }
        if from < oldest {
            self.counters.pulls_gone += 1;
            self.send(asker, Outgoing::Message(Message::Gone { stream, oldest }));
            return;
        }
        self.counters.pulls_served += 1;
        self.answer_pull(asker, from, to);
    }

    /// The origin of a stream cannot send what is missing: it has forgotten it, or never gave such a number.
    pub(super) fn on_gone(&mut self, sender: Origin, stream: Stream, oldest: u64) {
        if sender != stream.origin || self.peers.get(&sender).is_none_or(|peer| peer.epoch != stream.epoch) {
            return;
        }
        if let Some(state) = self.streams.get_mut(&stream) {
            state.gone = state.watermark + 1 < oldest;
            if !state.gone {
                state.end_at(oldest);
            }
        }
    }
}
