//! The replica protocol: a pure core that owns no socket, task or clock.
//!
//! A [`Replica`] is told what time it is, what arrived and what was written, and says what to send. The
//! [driver](crate::driver) gives it a transport and a clock; a simulation gives it seeds, which is why every fault can
//! be tested in microseconds.
//!
//! Two ideas carry it.
//! 1. **Safety rests on one stamp per key**, the bar (see [`Guard`]), which never goes down. Loss, duplicates,
//!    reordering and the echoes of dead processes are harmless by the bar alone. Last writer wins by the hybrid logical
//!    clock; there are no version vectors per key.
//! 2. **Numbers serve liveness only**: each process life of a node numbers its records 1, 2, 3…; a receiver keeps the
//!    contiguous prefix that it applied (the watermark) and pulls what is missing from the origin's bounded ring. What
//!    the ring no longer has, and what a starting node misses, comes by a state transfer (a sync) page by page in the
//!    order of the keys' positions; the responder keeps no memory of it.
//!
//! # Invariants
//! - The bar of a key never goes down in one life of a node: no resurrection, no regress.
//! - A number at or below a stream's watermark means that the key's bar is at least that record's stamp. So a record is
//!   noted only after it was merged, and a frame that is refused is not noted at all.
//! - The clock at a watermark ([`crate::message::StreamReport::watermark_hlc`]) means that the bar of each key that the
//!   stream's node wrote is at least the stamp of each such write up to that clock, superseded ones included. Receipts
//!   and sessions rest on it.
//! - A life of a node begins above every clock that it has shown; of two lives the later counts.
//! - A received record is never published again.
//! - Every queue, ring and list is bounded; what happens at a bound is counted in [`Counters`] and [`OutboxStats`].
//!
//! # Parts
//! The per-key merge happens in the [`Store`], inside the lock of the key's shard, in parallel with local writes, which
//! take their stamps from the shared [`Outbox`]. Streams, peers, sync and timers are in [`Replica`], owned by one task:
//! what arrives (`receive.rs`), gaps (`repair.rs`), state transfer (`sync.rs`), the comparison in the background
//! (`scrub.rs`), the lives of this node (`epoch.rs`), who has a write (`session.rs`), how fresh this node is shown to be
//! (`fresh.rs`), reads of the nearest region (`fetch.rs`), who loads a key for all (`lease/`).

mod answer;
mod barrier;
mod compress;
mod config;
mod epoch;
mod fetch;
mod fresh;
mod grave;
mod lease;
#[cfg(test)]
mod one;
mod outbox;
mod peer;
mod receive;
mod repair;
mod ring;
#[cfg_attr(
    not(any(test, feature = "sim")),
    expect(dead_code, unreachable_pub, reason = "rules are switched and named by simulations alone")
)]
mod rules;
mod scrub;
mod session;
mod status;
mod store;
mod stream;
mod sync;
mod waiting;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

#[cfg(not(any(test, feature = "sim")))]
use self::rules::Rules;
#[cfg(any(test, feature = "sim"))]
pub use self::rules::Rules;
pub(crate) use self::session::Claim;
pub use self::{
    barrier::{Barriers, NAMESPACES_MAX},
    config::ReplicaConfig,
    fetch::Fetched,
    grave::Guard,
    lease::{HOLD_MS_MAX, LeaseNews, Leased, TRIES_MAX},
    outbox::{OUTBOX_BYTES_MAX, Outbox, OutboxStats, ReceiptsWanted},
    receive::FrameFault,
    session::{Progress, Token, TokenError},
    status::{Counters, Failure, PeerStatus, Status},
    store::{Known, Merged, Samples, Store, StorePage, judge},
};
use self::{
    epoch::Reissue, lease::Leases, peer::Peer, ring::Ring, scrub::Scrub, stream::StreamState, sync::Job,
    waiting::Waiting,
};
use crate::{
    message::{Beat, Echo, Frame, Message, StreamReport},
    node::{Origin, Stream},
    stamp::Hlc,
    transport::Destination,
    wire,
};

/// Epochs of one node that are remembered; the oldest goes.
const EPOCHS_MAX: usize = 4;

/// The most peers, whatever is configured: what is reported of their streams has to fit a beat.
const PEERS_MAX: usize = wire::STREAMS_MAX / EPOCHS_MAX - 2;

/// Heartbeats for which a starting node listens before it sends anything.
const QUIET_BEATS: u64 = 3;

/// What time it is: given to every entry of the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// A monotonic clock, in milliseconds since a moment of the node's own, by which lives are measured: the
    /// [`Ttl::born_ms`](crate::Ttl::born_ms) of local writes is a reading of it. If that moment is near the Unix epoch by
    /// the node's wall clock, as with [`WallClock::mono_ms`](crate::WallClock::mono_ms), lives are short on the wire.
    pub mono_ms: u64,
    /// The wall clock, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
}

/// What waits to go to a single node: said when it goes, or a frame of the ring as it is.
#[derive(Debug)]
enum Outgoing {
    Message(Message),
    Encoded(Bytes),
}

impl Outgoing {
    /// About how many bytes it takes until it has left.
    fn bytes(&self) -> usize {
        match self {
            Self::Message(message) => message.bytes(),
            Self::Encoded(frame) => frame.len(),
        }
    }
}

/// What may leave next.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Beat,
    Control,
    Lease,
    Records,
}

impl Turn {
    const COUNT: usize = 4;

    fn next(self) -> Self {
        match self {
            Self::Beat => Self::Control,
            Self::Control => Self::Lease,
            Self::Lease => Self::Records,
            Self::Records => Self::Beat,
        }
    }
}

/// One life of a node in the protocol.
#[derive(Debug)]
pub struct Replica<S> {
    config: ReplicaConfig,
    origin: Origin,
    epoch: u64,
    cache: u32,
    own: wire::SenderMark,
    /// The frame of records that is built next.
    frame: wire::RecordsEncoder,
    positions: wire::KeyHasher,
    store: Arc<S>,
    outbox: Arc<Outbox>,
    random: fastrand::Rng,
    started_ms: u64,
    ready: bool,
    failure: Option<Failure>,
    ring: Ring,
    /// The clock of the newest record that was numbered.
    numbered: Hlc,
    /// Every own change with a clock up to this one was numbered, or superseded by one that was.
    complete: Hlc,
    /// The clock of the newest own change that was numbered and never sent.
    skipped: Hlc,
    streams: BTreeMap<Stream, StreamState>,
    peers: BTreeMap<Origin, Peer>,
    job: Option<Job>,
    jobs: u64,
    /// Where the numbers of this process's questions begin, so that no answer to another life passes for one to this.
    ids: u64,
    beat_due_ms: u64,
    /// When the last beat was made.
    beaten_ms: u64,
    /// Whether the next beat asks the others for theirs.
    asks_beats: bool,
    control: Waiting<(Destination, Outgoing)>,
    turn: Turn,
    /// The last beat heard from another process of this node's name, and how many in a row moved on.
    twin: Option<(u64, u32)>,
    /// Until then a starting node listens without a word: a live process of its name would be shut out by its first.
    quiet_until_ms: u64,
    is_quiet: bool,
    scrub: Scrub,
    /// Own records of a life that was overtaken, on their way into this one.
    reissue: Option<Reissue>,
    re_epochs: u32,
    /// The epochs of this process, whose frames may come back to it; few.
    lives: Vec<u64>,
    fetches: u64,
    fetched: Waiting<Fetched>,
    leases: Leases,
    /// When the log last told of frames that were none, and how many came since.
    fault_told_ms: u64,
    faults_untold: u64,
    counters: Counters,
}

impl<S: Store> Replica<S> {
    /// A replica that starts now. `seed` gives the random low bits of its epoch and its jitter: two lives under one
    /// backward clock must differ.
    pub fn new(mut config: ReplicaConfig, store: Arc<S>, outbox: Arc<Outbox>, now: Now, seed: u64) -> Self {
        config.peers_max = config.peers_max.min(PEERS_MAX);
        let cache = wire::cache_id(&config.cache);
        let mut replica = Self {
            origin: config.node.origin(),
            epoch: 0,
            cache,
            own: wire::SenderMark::new(&config.node, 0, cache),
            frame: wire::RecordsEncoder::new(&config.node, 0, cache),
            positions: wire::KeyHasher::new(&config.cache),
            store,
            outbox,
            random: fastrand::Rng::with_seed(seed),
            started_ms: now.mono_ms,
            ready: config.bootstrap,
            failure: None,
            ring: Ring::new(config.ring_bytes_max),
            numbered: Hlc(0),
            complete: Hlc(0),
            skipped: Hlc(0),
            streams: BTreeMap::new(),
            peers: BTreeMap::new(),
            job: None,
            jobs: 0,
            ids: 0,
            beat_due_ms: now.mono_ms,
            beaten_ms: 0,
            asks_beats: false,
            control: Waiting::new(),
            turn: Turn::Beat,
            twin: None,
            quiet_until_ms: now.mono_ms + if config.bootstrap { 0 } else { QUIET_BEATS * config.beat_ms },
            is_quiet: !config.bootstrap,
            scrub: Scrub::default(),
            reissue: None,
            re_epochs: 0,
            lives: Vec::new(),
            fetches: 0,
            fetched: Waiting::new(),
            leases: Leases::default(),
            fault_told_ms: 0,
            faults_untold: 0,
            counters: Counters::default(),
            config,
        };
        replica.begin_epoch(now);
        replica.ids = u64::from(replica.random.u32(..)) << 32;
        replica
    }

    /// Whether the node is ready rather than warming.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether the node has just started and sends nothing yet.
    pub(crate) fn is_listening(&self, now: Now) -> bool {
        now.mono_ms < self.quiet_until_ms
    }

    /// Why the node has to stop, where it has to.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// The node has to stop; the first reason stays.
    pub fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    /// Lets time pass: asks for what is missing, gives up what does not answer, becomes ready. Call it about every
    /// 25 ms.
    pub fn tick(&mut self, now: Now) {
        self.end_quiet(now);
        self.retire_peers(now);
        self.drive_sync(now);
        self.drive_reissue(now);
        self.drive_leases(now);
        if self.ready {
            self.repair_gaps(now);
            self.scrub(now);
        } else {
            self.warm(now);
        }
        self.note_drift();
        self.note_fresh();
    }

    /// The next frame to send, if there is one: a beat that is due, a message to a single node, or records. Where
    /// several wait they take turns, so that on a transport slower than the beats neither of them keeps the others from
    /// leaving. Call it while the transport has room, until it returns `None`. A node that has to stop, and one that just
    /// started and listens for a live process of its name, sends nothing.
    pub fn poll(&mut self, now: Now) -> Option<(Destination, Bytes)> {
        if self.is_listening(now) || self.failure.is_some() {
            return None;
        }
        self.end_quiet(now);
        for _ in 0..Turn::COUNT {
            let turn = self.turn;
            self.turn = turn.next();
            let frame = match turn {
                Turn::Beat => self.next_beat(now),
                Turn::Control => self.next_control(),
                Turn::Lease => self.next_lease(),
                Turn::Records => self.next_records().map(|frame| (Destination::Everyone, frame)),
            };
            if frame.is_some() {
                return frame;
            }
        }
        None
    }

    fn next_beat(&mut self, now: Now) -> Option<(Destination, Bytes)> {
        if now.mono_ms < self.beat_due_ms {
            return None;
        }
        self.beat_due_ms = now.mono_ms + self.config.beat_ms;
        self.beaten_ms = now.mono_ms;
        let asks = std::mem::take(&mut self.asks_beats);
        let beat = Message::Beat(self.beat(now));
        Some((Destination::Everyone, self.encode_asking(beat, asks)))
    }

    fn next_control(&mut self) -> Option<(Destination, Bytes)> {
        let (to, outgoing) = self.control.pop()?;
        let frame = match outgoing {
            Outgoing::Message(message) => {
                let frame = self.encode(message);
                self.packed(frame)
            }
            Outgoing::Encoded(frame) => frame,
        };
        Some((to, frame))
    }

    /// Whether [`Self::poll`] would return a frame of records or a message, beats aside.
    pub fn has_unsent(&self) -> bool {
        !self.control.is_empty()
            || !self.leases.are_sent()
            || !self.outbox.is_empty()
            || self.reissue.is_some()
    }

    /// What is known at this moment.
    pub fn status(&self, now: Now) -> Status {
        let peers = self.peers.iter().map(|(&origin, peer)| {
            let stream = Stream { origin, epoch: peer.epoch };
            let behind = self.streams.get(&stream).map_or(0, |stream| stream.max - stream.watermark);
            let lag = (peer.lag.samples > 0).then_some(peer.lag);
            PeerStatus {
                node: peer.node.clone(),
                origin,
                epoch: peer.epoch,
                alive: self.is_alive(peer, now),
                ready: peer.ready,
                heard_ago_ms: now.mono_ms.saturating_sub(peer.heard_ms),
                rtt_ms: peer.clock.map(|clock| clock.rtt_ms),
                drifts: peer.drifts,
                lag_last_ms: lag.map(|lag| lag.last_ms),
                lag_mean_ms: lag.map(|lag| lag.mean_ms),
                lag_max_ms: lag.map(|lag| lag.max_ms),
                behind_records: behind,
                fresh_ago_ms: peer.fresh.ago_ms(now),
            }
        });
        Status {
            mono_ms: now.mono_ms,
            ready: self.ready,
            failure: self.failure.clone(),
            peers: peers.collect(),
            streams: self.reports(now),
            messages: self.control.len(),
            message_bytes: self.control.bytes(),
            counters: self.counters,
        }
    }

    /// Takes records from the outbox, numbers and encodes them, and keeps the frame in the ring.
    fn next_records(&mut self) -> Option<Bytes> {
        let left = self.outbox.fill(&mut self.frame, wire::FRAME_RECORDS);
        if left.skipped > 0 {
            self.ring.skip(left.skipped);
            self.numbered = left.skipped_through;
            self.skipped = self.numbered;
        }
        self.numbered = left.newest?;
        let held_back = left.held_back.filter(|hlc| self.config.rules.hold_back && *hlc <= self.numbered);
        self.complete = complete_to(self.numbered, held_back);
        if let Some(hlc) = held_back {
            self.frame.hold_back(hlc);
        }
        if self.outbox.are_receipts_wanted() {
            self.frame.ask_receipt();
        }
        let frame = self.frame.finish(self.ring.next());
        let (count, frame) = (left.records, self.packed(frame));
        self.counters.records_sent += count;
        self.counters.ring_dropped += self.ring.push(frame.clone(), count);
        Some(frame)
    }

    fn beat(&self, now: Now) -> Beat {
        let echoes = self.peers.iter().filter_map(|(&peer, known)| {
            let (mono_ms, heard_ms) = known.beat?;
            let held_ms = now.mono_ms.saturating_sub(heard_ms);
            Some(Echo { peer, epoch: known.epoch, mono_ms, held_ms })
        });
        Beat {
            ready: self.ready,
            all_numbered: self.outbox.is_empty(),
            capabilities: wire::READS_COMPRESSED | wire::GRANTS_LEASES,
            minor_min: wire::MINOR,
            minor_max: wire::MINOR,
            hlc: self.outbox.clock().last(),
            wall_ms: now.wall_ms,
            mono_ms: now.mono_ms,
            streams: self.reports(now),
            echoes: echoes.collect(),
        }
    }

    /// What this node has of each stream, its own first. A stream that nobody adds to for the time of retirement is left
    /// out, so that every node can let go of it.
    fn reports(&self, now: Now) -> Vec<StreamReport> {
        let sent = self.ring.next() - 1;
        let own = StreamReport {
            stream: self.stream(),
            watermark: sent,
            watermark_hlc: self.complete,
            last_hlc: self.numbered,
            max: sent,
            generation: sent,
            age_ms: 0,
        };
        let fresh = |state: &StreamState| state.age_ms(now) < self.config.retire_ms;
        let others =
            self.streams.iter().filter(|(_, state)| fresh(state)).map(|(&stream, state)| StreamReport {
                stream,
                watermark: state.watermark,
                watermark_hlc: state.hlc,
                last_hlc: state.last.max(state.hlc),
                max: state.max,
                generation: state.generation,
                age_ms: state.age_ms(now),
            });
        std::iter::once(own).chain(others).collect()
    }

    fn encode(&self, message: Message) -> Bytes {
        self.encode_asking(message, false)
    }

    /// With the question for the next beat of whoever hears it, or without.
    fn encode_asking(&self, message: Message, wants_receipt: bool) -> Bytes {
        let from = self.config.node.clone();
        wire::encode(&Frame { from, epoch: self.epoch, cache: self.cache, wants_receipt, message })
    }

    fn send(&mut self, to: Origin, outgoing: Outgoing) {
        let Some(peer) = self.peers.get(&to) else { return };
        let (to, bytes) = (Destination::Node(peer.node.clone()), outgoing.bytes());
        self.counters.control_dropped += self.control.push((to, outgoing), bytes, self.config.control_room());
    }

    fn beat_soon(&mut self, now: Now) {
        self.beat_due_ms = self.beat_due_ms.min(now.mono_ms + self.config.beat_soon_ms);
    }

    /// Whether a peer has a state to give that is not refused here, and hears the questions for it.
    fn can_give(&self, peer: &Peer, now: Now) -> bool {
        self.has_state(peer, now) && self.hears_us(peer, now)
    }

    fn has_state(&self, peer: &Peer, now: Now) -> bool {
        peer.ready && !peer.drifts && self.is_alive(peer, now)
    }

    /// Whether a peer's beats tell that it heard ours lately: one that only sends would be asked in vain.
    fn hears_us(&self, peer: &Peer, now: Now) -> bool {
        peer.heard_us_ms.is_some_and(|then_ms| now.mono_ms as i64 - then_ms <= self.config.alive_ms as i64)
    }

    fn is_alive(&self, peer: &Peer, now: Now) -> bool {
        now.mono_ms.saturating_sub(peer.heard_ms) <= self.config.alive_ms
    }
}

/// The clock up to which all changes are there, for whoever has the records up to `last`.
fn complete_to(last: Hlc, held_back: Option<Hlc>) -> Hlc {
    held_back.map_or(last, |hlc| last.min(Hlc(hlc.0.saturating_sub(1))))
}

#[cfg(test)]
mod tests;
