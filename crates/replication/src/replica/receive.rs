//! What arrives: frames, records and beats.

use bytes::Bytes;

use super::{
    EPOCHS_MAX, Failure, Merged, Now, Replica, Store, complete_to, peer::Peer, scrub::newest_of,
    stream::StreamState,
};
use crate::{
    message::{Beat, Echo, Frame, Message, StreamReport},
    node::{NodeId, Origin, Stream},
    record::{Op, Record, Ttl, Value},
    stamp::Hlc,
    wire::{self, DecodeError},
};

/// Beats in a row by which another process of this node's name is known to live, rather than to have just ended.
pub(super) const TWIN_BEATS: u32 = 2;

/// Between two log lines about frames that are none.
const FAULTS_TOLD_MS: u64 = 10_000;

/// Why bytes that arrived are no frame of this cache.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameFault {
    /// They cannot be read as a frame.
    #[error(transparent)]
    Undecodable(DecodeError),
    /// A frame of another cache came by this cache's way.
    #[error(
        "the frame of {from} is of another cache (id {cache:#010x}); give each cache an exchange of its own"
    )]
    OtherCache {
        /// Who sent it.
        from: NodeId,
        /// The other cache's id.
        cache: u32,
    },
    /// It can be read, and says what no node can say.
    #[error("the frame of {from} holds an impossible number or time")]
    Implausible {
        /// Who sent it.
        from: NodeId,
    },
}

impl<S: Store> Replica<S> {
    /// Takes a frame. It is handled when this returns, whatever it was: applied, refused and counted, or left to be
    /// pulled; acknowledge it to the transport then. Gives what is wrong with bytes that are no frame of this cache: the
    /// transport rejects those. A kind of a later version, or a clock that is too far ahead, is no such fault.
    pub fn handle(&mut self, now: Now, frame: Bytes) -> Option<FrameFault> {
        if self.own.is_on(&frame) {
            return None;
        }
        let bytes = frame.len();
        let fault = match wire::decode(frame) {
            Ok(frame) if frame.cache != self.cache => {
                self.counters.frames_foreign += 1;
                FrameFault::OtherCache { from: frame.from, cache: frame.cache }
            }
            Ok(frame) if !is_plausible(&frame) => {
                self.counters.frames_undecodable += 1;
                FrameFault::Implausible { from: frame.from }
            }
            Ok(frame) => {
                self.handle_frame(now, frame, bytes);
                return None;
            }
            Err(DecodeError::UnknownKind { .. }) => {
                self.counters.frames_unknown += 1;
                return None;
            }
            Err(error) => {
                self.counters.frames_undecodable += 1;
                FrameFault::Undecodable(error)
            }
        };
        self.tell_fault(now, &fault);
        Some(fault)
    }

    /// One line for many: whoever floods the exchange does not flood the log.
    fn tell_fault(&mut self, now: Now, fault: &FrameFault) {
        self.faults_untold += 1;
        if now.mono_ms < self.fault_told_ms.saturating_add(FAULTS_TOLD_MS) && self.fault_told_ms > 0 {
            return;
        }
        tracing::warn!(%fault, frames = self.faults_untold, "frames were refused, this one the last of them");
        (self.fault_told_ms, self.faults_untold) = (now.mono_ms.max(1), 0);
    }

    fn handle_frame(&mut self, now: Now, frame: Frame, bytes: usize) {
        let origin = frame.from.origin();
        if origin == self.origin {
            return self.notice_twin(now, frame.epoch, &frame.message);
        }
        if self.is_drifting(now, &frame) {
            self.counters.frames_drifting += 1;
            frame.message.records().iter().for_each(|record| self.store.refused(record));
            self.flag_drift(now, &frame);
            return;
        }
        if !self.meet(now, &frame.from, frame.epoch) {
            return;
        }
        if frame.wants_receipt {
            self.beat_soon(now);
        }
        match frame.message {
            Message::Records { first, records, held_back, answers } => {
                self.on_records(now, origin, first, &records, held_back);
                self.hear_answer(now, origin, first, answers);
            }
            Message::Beat(beat) => self.on_beat(now, origin, &beat),
            Message::Pull { stream, from, to } => self.on_pull(origin, stream, from, to),
            Message::Gone { stream, oldest } => self.on_gone(origin, stream, oldest),
            Message::SyncReq(request) => self.on_sync_request(now, origin, &request),
            Message::SyncPage(page) => self.on_sync_page(now, origin, page, bytes),
            Message::Probe { samples, cleared } => self.on_probe(now, origin, &samples, &cleared),
            Message::State { answers, records, graves } if answers == self.epoch => {
                self.on_state(now, origin, &records, &graves);
            }
            Message::State { .. } => self.counters.frames_zombie += 1,
            Message::Fetch { id, keys, at_least } => self.on_fetch(now, origin, id, &keys, at_least),
            Message::Fetched { id, ready, records } => self.on_fetched(now, origin, id, ready, records),
            Message::Lease { calls } => self.on_lease(now, origin, &calls),
            Message::Granted { answers } => self.on_granted(now, origin, &answers),
        }
    }

    /// Notes who sent a frame. Returns whether to go on: not for an earlier life of a peer, nor past the bound.
    fn meet(&mut self, now: Now, node: &NodeId, epoch: u64) -> bool {
        let origin = node.origin();
        let is_full = self.peers.len() >= self.config.peers_max;
        match self.peers.get_mut(&origin) {
            Some(peer) if peer.epoch > epoch => {
                let later = Stream { origin, epoch: peer.epoch };
                peer.zombie_ms = Some(now.mono_ms);
                self.counters.frames_zombie += 1;
                // If that life goes on, its node's clock went back: our beats must name the life that we take for later.
                let _ = self.stream_mut(now, later);
                return false;
            }
            Some(peer) if peer.epoch == epoch => {
                peer.heard_ms = now.mono_ms;
                return true;
            }
            None if is_full => {
                self.counters.frames_over_bound += 1;
                return false;
            }
            _ => {}
        }
        tracing::info!(%node, epoch, "heard a node");
        self.peers.insert(origin, Peer::new(node.clone(), epoch, now));
        self.beat_soon(now);
        true
    }

    /// The state of a stream whose node is heard; made if it is one of the newest of its node.
    pub(super) fn stream_mut(&mut self, now: Now, stream: Stream) -> Option<&mut StreamState> {
        self.stream_of_age(now, stream, 0)
    }

    /// The state of a stream that a peer reports; none of one that is over for so long that nobody is to learn of it.
    pub(super) fn reported_stream_mut(
        &mut self,
        now: Now,
        report: &StreamReport,
    ) -> Option<&mut StreamState> {
        if !self.streams.contains_key(&report.stream) && report.age_ms >= self.config.retire_ms {
            return None;
        }
        // A relay whose own clock is ahead lets in what is refused here.
        if self.is_beyond_drift(now, Hlc(report.stream.epoch).max(report.last_hlc)) {
            return None;
        }
        self.stream_of_age(now, report.stream, report.age_ms)
    }

    fn stream_of_age(&mut self, now: Now, stream: Stream, age_ms: u64) -> Option<&mut StreamState> {
        if stream == self.stream() {
            return None;
        }
        if !self.streams.contains_key(&stream) && !self.admit_stream(now, stream, age_ms) {
            self.counters.frames_over_bound += 1;
            return None;
        }
        let state = self.streams.get_mut(&stream)?;
        state.was_seen(now, age_ms);
        Some(state)
    }

    fn admit_stream(&mut self, now: Now, stream: Stream, age_ms: u64) -> bool {
        let of_origin = Stream { epoch: 0, ..stream }..=Stream { epoch: u64::MAX, ..stream };
        let known: Vec<Stream> = self.streams.range(of_origin).map(|(known, _)| *known).collect();
        if known.len() >= EPOCHS_MAX {
            if stream.epoch < known[0].epoch {
                return false;
            }
            self.streams.remove(&known[0]);
            self.counters.streams_dropped += 1;
        } else if self.streams.len() >= EPOCHS_MAX * (self.config.peers_max + 1) {
            let is_over = |stream: &Stream| {
                self.peers.get(&stream.origin).is_none_or(|peer| peer.epoch != stream.epoch)
            };
            let over = self.streams.iter().filter(|(stream, _)| is_over(stream));
            let oldest = over.max_by_key(|(_, state)| state.age_ms(now)).map(|(stream, _)| *stream);
            let Some(oldest) = oldest else { return false };
            self.streams.remove(&oldest);
            self.counters.streams_dropped += 1;
        }
        self.streams.insert(stream, StreamState::seen(now, age_ms));
        true
    }

    fn on_records(
        &mut self,
        now: Now,
        origin: Origin,
        first: u64,
        records: &[Record],
        held_back: Option<Hlc>,
    ) {
        let Some(newest) = records.last().map(|record| record.stamp.hlc) else { return };
        let last = first + records.len() as u64 - 1;
        let Some(peer) = self.peers.get(&origin) else { return };
        let stream = Stream { origin, epoch: peer.epoch };
        let expires = |record: &Record| matches!(&record.op, Op::Put(value) if value.ttl.is_some());
        let rules = self.config.rules;
        let is_clock_unknown = rules.gate_unknown_clock && peer.clock.is_none();
        let gated =
            (rules.gate_while_warming && !self.ready) || (is_clock_unknown && records.iter().any(expires));
        if gated {
            self.counters.frames_gated += 1;
            if let Some(state) = self.stream_mut(now, stream) {
                state.see(last);
                if !rules.note_only_applied {
                    state.last = state.last.max(newest);
                    state.note(first, last, complete_to(newest, held_back));
                }
            }
            return;
        }
        if self.stream_mut(now, stream).is_none() {
            return;
        }
        self.outbox.clock().observe(newest);
        self.store.look_ahead(records);
        for record in records {
            self.merge(now, origin, record);
        }
        if let Some(peer) = self.peers.get_mut(&origin) {
            peer.sample_lag(now, newest);
        }
        if let Some(state) = self.streams.get_mut(&stream) {
            state.last = state.last.max(newest);
            if state.note(first, last, complete_to(newest, held_back)) {
                self.counters.ranges_dropped += 1;
            }
        }
    }

    /// Merges one record that `sender` sent; its clock is known if the record expires.
    pub(super) fn merge(&mut self, now: Now, sender: Origin, record: &Record) -> Merged {
        let merged = match &record.op {
            Op::Clear => self.store.clear(&record.key, record.stamp),
            Op::Remove => self.store.merge(record, None),
            Op::Put(value) => {
                let left_ms = value.ttl.map(|ttl| self.left_ms(now, sender, ttl));
                self.store.merge(record, left_ms.map(std::time::Duration::from_millis))
            }
        };
        match merged {
            Merged::Applied => {
                self.counters.records_applied += 1;
                if matches!(record.op, Op::Put(_)) {
                    self.notice_arrival(&record.key);
                }
            }
            Merged::Older => self.counters.records_older += 1,
        }
        merged
    }

    /// What is left here of a life that `sender` sent.
    fn left_ms(&self, now: Now, sender: Origin, ttl: Ttl) -> u64 {
        let rules = self.config.rules;
        if !rules.ttl_by_transit {
            return ttl.left_ms;
        }
        let peer = self.peers.get(&sender).filter(|_| rules.ttl_by_offset);
        match peer.and_then(|peer| peer.ttl_left_ms(now, ttl)) {
            Some(left_ms) => left_ms,
            None if rules.ttl_by_offset && rules.gate_unknown_clock => 0,
            None => ttl.left_ms.saturating_sub(now.mono_ms.saturating_sub(ttl.born_ms)),
        }
    }

    fn on_beat(&mut self, now: Now, origin: Origin, beat: &Beat) {
        self.outbox.clock().observe(beat.hlc);
        let (me, epoch) = (self.origin, self.epoch);
        let Some(peer) = self.peers.get_mut(&origin) else { return };
        peer.ready = beat.ready;
        peer.capabilities = beat.capabilities;
        peer.drifts = false;
        let is_news = peer.beat.is_none_or(|(mono_ms, _)| beat.mono_ms >= mono_ms);
        if is_news {
            peer.beat = Some((beat.mono_ms, now.mono_ms));
        }
        let echo = beat.echoes.iter().find(|echo| echo.peer == me && echo.epoch == epoch);
        if let Some(echo) = echo {
            peer.heard_us_ms = Some(now.mono_ms as i64 - echo.held_ms as i64);
            peer.sample_clock(now, beat, echo.mono_ms, echo.held_ms);
        }
        // Until the peer's clock is known its expiring records wait, so ask for the echo at once.
        let ask_echo = peer.clock.is_none();
        if is_news {
            let bound = EPOCHS_MAX * (self.config.peers_max + 1);
            peer.reports = beat.streams.iter().take(bound).map(|report| (report.stream, *report)).collect();
        }
        let own = Stream { origin, epoch: peer.epoch };
        if ask_echo {
            self.beat_soon(now);
        }
        for report in &beat.streams {
            if report.stream.origin == me {
                // An earlier life may have stamped beyond this one's epoch, lifted by what others wrote.
                let is_earlier = report.stream.epoch < epoch;
                let reaches = if is_earlier { report.last_hlc.0 } else { report.stream.epoch };
                // Beginning above a life that was itself too far ahead would shut this node out, though its clock is right.
                if reaches > epoch && !self.is_beyond_drift(now, Hlc(reaches)) {
                    self.notice_later_life(now, reaches);
                    return;
                } else if report.stream.epoch == epoch || !self.config.rules.own_old_epochs {
                    continue;
                }
            }
            let Some(state) = self.reported_stream_mut(now, report) else { continue };
            state.see(report.max.max(report.watermark));
            if report.stream == own && state.watermark == report.watermark {
                state.hlc = state.hlc.max(report.watermark_hlc);
            }
        }
        if let Some(echo) = echo.filter(|_| is_news) {
            self.note_moment(now, origin, beat, echo);
        }
    }

    /// Whether a clock is further ahead of ours than is allowed.
    pub(super) fn is_beyond_drift(&self, now: Now, clock: Hlc) -> bool {
        self.config.rules.drift_refused && clock.ms() > now.wall_ms + self.config.drift_ms_max
    }

    /// Whether a frame is stamped, or its sender's life began, further ahead of our clock than is allowed.
    fn is_drifting(&self, now: Now, frame: &Frame) -> bool {
        let newest = match &frame.message {
            Message::Records { records, .. } => newest_of(records, &[]),
            Message::Beat(beat) => Some(beat.hlc.max(Hlc::from_ms(beat.wall_ms))),
            Message::State { records, graves, .. } => newest_of(records, graves),
            Message::Fetched { records, .. } => newest_of(records, &[]),
            Message::Probe { cleared, .. } => cleared.iter().map(|(_, stamp)| stamp.hlc).max(),
            _ => None,
        };
        self.is_beyond_drift(now, Hlc(frame.epoch).max(newest.unwrap_or_default()))
    }

    /// Marks a drifting peer, without taking its epoch: a poisoned epoch must not shut out the mended node.
    fn flag_drift(&mut self, now: Now, frame: &Frame) {
        if let Some(peer) = self.peers.get_mut(&frame.from.origin()) {
            if !peer.drifts {
                tracing::warn!(node = %frame.from, "the clock of a node is too far ahead; its writes are refused");
            }
            peer.drifts = true;
            peer.heard_ms = now.mono_ms;
        } else if self.peers.len() < self.config.peers_max {
            let mut peer = Peer::new(frame.from.clone(), 0, now);
            peer.drifts = true;
            tracing::warn!(node = %frame.from, "the clock of a node is too far ahead; it is not let in");
            self.peers.insert(frame.from.origin(), peer);
        }
        if let (Message::Beat(beat), Some(peer)) = (&frame.message, self.peers.get_mut(&frame.from.origin()))
        {
            peer.ready = beat.ready;
        }
    }

    /// Warns of peers whose clocks are ahead, each time one crosses the line.
    pub(super) fn note_drift(&mut self) {
        for peer in self.peers.values_mut() {
            let Some(clock) = peer.clock else { continue };
            let ahead_ms = -clock.wall_offset_ms;
            let is_ahead = ahead_ms > self.config.drift_warn_ms as i64;
            if is_ahead && !peer.warned {
                tracing::warn!(node = %peer.node, ahead_ms, "the clock of a node is ahead of this one's");
            }
            peer.warned = is_ahead;
        }
    }

    /// Another process with this node's name was heard. An earlier life may still have frames under way; one that goes
    /// on beating lives. The node that listens before its first word gives way to it; of two that have spoken, the one
    /// that started later.
    fn notice_twin(&mut self, now: Now, epoch: u64, message: &Message) {
        // A broker may bring back what an overtaken life of this very process said.
        let Message::Beat(beat) = message else { return };
        if self.lives.contains(&epoch) {
            return;
        }
        self.twin = match self.twin {
            Some((mono_ms, beats)) if beat.mono_ms > mono_ms => Some((beat.mono_ms, beats + 1)),
            Some(held) => Some(held),
            None => Some((beat.mono_ms, 1)),
        };
        let gives_way = now.mono_ms < self.quiet_until_ms || epoch < self.epoch;
        if gives_way && self.twin.is_some_and(|(_, beats)| beats >= TWIN_BEATS) {
            self.fail(Failure::Duplicate { node: self.config.node.clone() });
        }
    }

    /// Lets go of peers that were not heard for long, and later of their streams, which no node reports any more.
    pub(super) fn retire_peers(&mut self, now: Now) {
        let retire_ms = self.config.retire_ms;
        let age_ms = |then_ms: u64| now.mono_ms.saturating_sub(then_ms);
        self.peers.retain(|_, peer| {
            let keep = age_ms(peer.heard_ms) < retire_ms;
            if !keep {
                tracing::info!(node = %peer.node, "a node was retired: not heard for long");
            }
            keep
        });
        self.streams.retain(|_, state| state.age_ms(now) < 2 * retire_ms);
        for state in self.streams.values_mut() {
            state.covered.retain(|peer, _| self.peers.contains_key(peer));
        }
    }
}

/// Numbers and times beyond these were never given: numbers of records, and milliseconds, of which 48 bits are a stamp's.
const NUMBER_MAX: u64 = 1 << 62;
const MS_MAX: u64 = 1 << 47;

/// Whether all numbers and times of a frame are within what a node can give, so that sums of them do not overflow.
fn is_plausible(frame: &Frame) -> bool {
    let lives = |record: &Record| match &record.op {
        Op::Put(Value { ttl: Some(ttl), .. }) => ttl.born_ms <= MS_MAX,
        _ => true,
    };
    let reports = |streams: &[StreamReport]| {
        streams.iter().all(|report| {
            report.watermark <= NUMBER_MAX && report.max <= NUMBER_MAX && report.age_ms <= MS_MAX
        })
    };
    match &frame.message {
        Message::Records { first, records, .. } => {
            (1..NUMBER_MAX).contains(first) && records.iter().all(lives)
        }
        Message::Beat(beat) => {
            let echoes = |echo: &Echo| echo.mono_ms <= MS_MAX && echo.held_ms <= MS_MAX;
            beat.wall_ms.max(beat.mono_ms) <= MS_MAX
                && beat.echoes.iter().all(echoes)
                && reports(&beat.streams)
        }
        Message::Pull { from, to, .. } => (*from).max(*to) <= NUMBER_MAX,
        Message::Gone { oldest, .. } => *oldest <= NUMBER_MAX,
        Message::SyncPage(page) => page.records.iter().all(lives) && reports(&page.streams),
        Message::State { records, .. } | Message::Fetched { records, .. } => records.iter().all(lives),
        Message::SyncReq(_) | Message::Probe { .. } | Message::Fetch { .. } => true,
        // Their times are cut to a bound where they are used.
        Message::Lease { .. } | Message::Granted { .. } => true,
    }
}
