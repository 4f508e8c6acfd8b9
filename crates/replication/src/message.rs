//! The messages that replicas exchange. Their bytes are laid out in [`crate::wire`].
//!
//! | message | to | when |
//! |---|---|---|
//! | [`Message::Records`] | everyone, or one node | writes in batches; the answer to a pull |
//! | [`Message::Beat`] | everyone | at a steady pace; at once when a new peer is heard or a receipt is waited for |
//! | [`Message::Pull`], [`Message::Gone`] | one node | a gap in a stream; the ring starts later than asked |
//! | [`Message::SyncReq`], [`Message::SyncPage`] | one node | state transfer, asked for some pages at a time |
//! | [`Message::Probe`] | one node | the scrub: stamps to be compared |
//! | [`Message::State`] | one node | what a comparison found newer; the hottest records ahead of a full sync |
//! | [`Message::Fetch`], [`Message::Fetched`] | one node | a read of the nearest region |
//! | [`Message::Lease`], [`Message::Granted`] | one node | who loads a key for all regions |

use bytes::Bytes;

use crate::{
    node::{NodeId, Origin, Stream},
    record::Record,
    replica::Token,
    stamp::{Hlc, Stamp},
};

/// What one transport message carries, and from whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The sender.
    pub from: NodeId,
    /// The sender's epoch.
    pub epoch: u64,
    /// The cache it belongs to: the low half of the xxh3-64 of the cache's name.
    pub cache: u32,
    /// Whether the sender waits for a receipt: the receiver's next beat is due at once.
    pub wants_receipt: bool,
    /// What it says.
    pub message: Message,
}

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// Consecutive records of the sender's own stream; the first has number `first`, the rest follow.
    Records {
        /// The number of the first record.
        first: u64,
        /// The records, in number order; their stamps strictly increase.
        records: Vec<Record>,
        /// Where the sender still holds back the successor of a superseded change: the clock of the lowest such change.
        /// Whoever has these records and all before them has every change below it, rather than up to the last record.
        held_back: Option<Hlc>,
        /// On the last frame that answers a pull: the first number that was asked for. What is still missing can be asked
        /// for at once.
        answers: Option<u64>,
    },
    /// What the sender has, and what time it is there.
    Beat(Beat),
    /// Please send the records `from..=to` of your stream again: as many of them as one answer holds.
    Pull {
        /// The stream; its origin is the node that is asked.
        stream: Stream,
        /// The first number wanted.
        from: u64,
        /// The last number wanted.
        to: u64,
    },
    /// The records below `oldest` are no longer in the ring.
    Gone {
        /// The stream that was asked for.
        stream: Stream,
        /// The lowest number that can still be pulled; one above the highest ever sent where the ring is empty.
        oldest: u64,
    },
    /// Please send a page of your state.
    SyncReq(SyncReq),
    /// A page of state.
    SyncPage(SyncPage),
    /// What the sender holds in a range of positions, to be compared.
    Probe {
        /// The key's position (the replica hash) and the stamp held there; [`Stamp::ZERO`] for none.
        samples: Vec<(u64, Stamp)>,
        /// The clear barriers, namespace and stamp, at the beginning of a pass: a clear may be lost like any write.
        cleared: Vec<(Bytes, Stamp)>,
    },
    /// Records and graves of several origins, merged like any and counted in no stream.
    State {
        /// The epoch of the node that it answers; a later life of that node has no use for it.
        answers: u64,
        /// The live records.
        records: Vec<Record>,
        /// The graves.
        graves: Vec<Grave>,
    },
    /// Please send what you hold for these keys.
    Fetch {
        /// Matches the answer to the question.
        id: u64,
        /// The keys.
        keys: Vec<Bytes>,
        /// Nothing stamped below this is wanted.
        at_least: Hlc,
    },
    /// The answer to a [`Message::Fetch`].
    Fetched {
        /// The question's id.
        id: u64,
        /// Whether the sender is ready; a node that is warming may miss keys.
        ready: bool,
        /// The records found.
        records: Vec<Record>,
    },
    /// Of leases, to the node that grants them: who wants to load, and what came of a load. Nodes that do not say in their
    /// beats that they grant leases ([`crate::wire::GRANTS_LEASES`]) are never sent one.
    Lease {
        /// What the sender says, each of a key of its own.
        calls: Vec<LeaseCall>,
    },
    /// What the granting node says of leases.
    Granted {
        /// Its answers, some of them to questions asked long ago.
        answers: Vec<LeaseAnswer>,
    },
}

impl Message {
    /// The records that it carries.
    pub(crate) fn records(&self) -> &[Record] {
        match self {
            Self::Records { records, .. } | Self::State { records, .. } | Self::Fetched { records, .. } => {
                records
            }
            Self::SyncPage(page) => &page.records,
            _ => &[],
        }
    }

    /// About how many bytes it takes in memory until it has left: its lists, and the keys and values that it keeps alive.
    pub(crate) fn bytes(&self) -> usize {
        let lists = match self {
            Self::Records { records, .. } | Self::Fetched { records, .. } => records_bytes(records),
            Self::Beat(beat) => size_of_val(&*beat.streams) + size_of_val(&*beat.echoes),
            Self::Pull { .. } | Self::Gone { .. } => 0,
            Self::SyncReq(request) => size_of_val(&*request.needed) + size_of_val(&*request.since),
            Self::SyncPage(page) => page.bytes(),
            Self::Probe { samples, cleared } => size_of_val(&**samples) + cleared_bytes(cleared),
            Self::State { records, graves, .. } => records_bytes(records) + size_of_val(&**graves),
            Self::Fetch { keys, .. } => keys.iter().map(Bytes::len).sum(),
            Self::Lease { calls } => size_of_val(&**calls),
            Self::Granted { answers } => size_of_val(&**answers),
        };
        size_of::<Self>() + lists
    }
}

/// A heartbeat: liveness, watermarks, clock samples.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beat {
    /// Whether the sender is ready, that is, not warming.
    pub ready: bool,
    /// Whether every change that the sender had made of its own by then has a number: whoever has its stream up to the
    /// reported watermark has all of them. A sender of before this flag does not say so.
    pub all_numbered: bool,
    /// Optional abilities, one bit each; unknown bits are ignored.
    pub capabilities: u32,
    /// The lowest wire minor version that the sender reads.
    pub minor_min: u8,
    /// The highest wire minor version that the sender reads.
    pub minor_max: u8,
    /// The sender's hybrid logical clock.
    pub hlc: Hlc,
    /// The sender's wall clock, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// The sender's monotonic clock, in milliseconds since a moment of its own: the clock of its lives.
    pub mono_ms: u64,
    /// What the sender knows of each stream, its own included.
    pub streams: Vec<StreamReport>,
    /// The last beat that the sender heard of each peer, echoed for round-trip times.
    pub echoes: Vec<Echo>,
}

/// What a node knows of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamReport {
    /// The stream.
    pub stream: Stream,
    /// The contiguous prefix of records that it applied.
    pub watermark: u64,
    /// Every change of the stream with a clock up to this one was applied: that of the record at the watermark, or less
    /// where the origin held back a successor of a superseded change.
    pub watermark_hlc: Hlc,
    /// No record of the stream that the sender has is above this clock, which is not below `watermark_hlc`.
    pub last_hlc: Hlc,
    /// The highest number that it has seen.
    pub max: u64,
    /// Counts every change of what it holds of the stream.
    pub generation: u64,
    /// How long ago, in milliseconds, the stream's node was heard in that life, or a new number of it was, by anyone: so
    /// all forget a life that is over at about one moment, and none teaches it to the others again.
    pub age_ms: u64,
}

/// A beat of a peer, returned to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Echo {
    /// The peer whose beat it was.
    pub peer: Origin,
    /// That peer's epoch.
    pub epoch: u64,
    /// The monotonic clock that the beat carried.
    pub mono_ms: u64,
    /// How long the sender held it before this beat, in milliseconds.
    pub held_ms: u64,
}

/// Asks for a page of a peer's state. The responder keeps no memory of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncReq {
    /// The requester's job.
    pub id: u64,
    /// The position at which the page begins.
    pub position: u64,
    /// The streams that the requester is missing records of; empty for a starting node, which misses all.
    pub needed: Vec<Stream>,
    /// What it has: per stream, the clock at its watermark. Empty for a full sync.
    pub since: Vec<(Stream, Hlc)>,
    /// About how many bytes of records the page may carry.
    pub budget_bytes: u32,
    /// About how many bytes of the most recently used records to send as [`Message::State`] ahead of the page; 0 for
    /// none.
    pub preview_bytes: u32,
    /// How many pages to send at most, one after the other; 0 counts as 1. So a transfer over a long way need not wait
    /// for a round trip after each page.
    pub pages: u8,
}

/// Everything known for the keys of a range of positions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncPage {
    /// The job it answers.
    pub id: u64,
    /// The first position of the range.
    pub lo: u64,
    /// The first position after the range; `None` at the end of the space.
    pub hi: Option<u64>,
    /// Whether it lists all that is live in the range, rather than what is newer than `since`.
    pub full: bool,
    /// Whether the next page was sent as well, for the same question.
    pub more: bool,
    /// The sender's watermarks when it made the page.
    pub streams: Vec<StreamReport>,
    /// The live records sent.
    pub records: Vec<Record>,
    /// The graves of the range.
    pub graves: Vec<Grave>,
    /// The positions of live keys of the range that were not sent because the requester has them.
    pub keep: Vec<u64>,
    /// The bar of what the sender has forgotten in the range: the highest bar of a grave that it dropped.
    pub floor: Bar,
    /// The clear barriers: namespace and stamp.
    pub cleared: Vec<(Bytes, Stamp)>,
}

impl SyncPage {
    /// About how many bytes it takes in memory until it has left.
    pub(crate) fn bytes(&self) -> usize {
        let listed = size_of_val(&*self.streams) + size_of_val(&*self.keep) + size_of_val(&*self.graves);
        size_of::<Self>() + listed + records_bytes(&self.records) + cleared_bytes(&self.cleared)
    }
}

fn records_bytes(records: &[Record]) -> usize {
    records.iter().map(crate::wire::record_bytes_max).sum()
}

fn cleared_bytes(cleared: &[(Bytes, Stamp)]) -> usize {
    cleared.iter().map(|(namespace, stamp)| namespace.len() + size_of_val(stamp)).sum()
}

/// What an asker or a holder says of the lease of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseCall {
    /// The sender's number of its question.
    pub id: u64,
    /// The key's position. Two keys of one position share a lease, which costs a wait and nothing else.
    pub position: u64,
    /// What it says.
    pub say: LeaseSay,
}

/// What is said of a lease to the node that grants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseSay {
    /// May I load?
    Ask {
        /// For how long, in milliseconds.
        hold_ms: u64,
        /// The sender has seen what was loaded up to this clock, and misses the key again.
        seen: Hlc,
    },
    /// The value was loaded and handed to replication: whoever has this write has it.
    Loaded(Token),
    /// The load ended without a value to share, or the lease is not wanted any more.
    Failed,
}

/// What the granting node says of the lease of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseAnswer {
    /// The question's number.
    pub id: u64,
    /// The key's position.
    pub position: u64,
    /// What it says.
    pub verdict: Verdict,
}

/// What becomes of a question for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The asker is to load, and to say what came of it.
    Granted {
        /// For so long others wait for it, in milliseconds.
        hold_ms: u64,
    },
    /// Another node loads; the asker is in the line behind it, and hears more.
    Held {
        /// For how long at most, in milliseconds.
        left_ms: u64,
    },
    /// It was loaded: whoever has this write has the value, or has seen what became of it.
    Loaded(Token),
    /// Too many leases are held at once: the asker does as it would without any.
    Refused,
}

/// The memory of a key that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grave {
    /// The key's position: its replica hash.
    pub position: u64,
    /// The lowest stamp with which the key may come back.
    pub bar: Bar,
}

/// The smallest acceptable stamp of a key. Ordered; a strict bar is above the non-strict one of the same stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bar {
    /// The stamp it stands at.
    pub stamp: Stamp,
    /// Whether the stamp itself is refused too: so after a remove or an expiry, not after an eviction.
    pub strict: bool,
}

impl Bar {
    /// Refuses nothing.
    pub const NONE: Self = Self { stamp: Stamp::ZERO, strict: false };

    /// Refuses `stamp` and all below it.
    pub const fn above(stamp: Stamp) -> Self {
        Self { stamp, strict: true }
    }

    /// Refuses all below `stamp`.
    pub const fn at(stamp: Stamp) -> Self {
        Self { stamp, strict: false }
    }

    /// Whether a record of this stamp passes.
    pub fn admits(self, stamp: Stamp) -> bool {
        stamp > self.stamp || (!self.strict && stamp == self.stamp)
    }
}
