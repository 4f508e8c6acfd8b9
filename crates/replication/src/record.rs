//! What is replicated: one stamped change of one key.

use bytes::Bytes;

use crate::stamp::Stamp;

/// A stamped change of one key, or of a whole namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When and where it was written; the total order of last writer wins.
    pub stamp: Stamp,
    /// The key; for [`Op::Clear`] the namespace, where the empty one is the whole cache.
    pub key: Bytes,
    /// What was done to the key.
    pub op: Op,
    /// For a compare-and-set, the stamp that it replaced, by which a receiver notices a lost concurrent update.
    pub previous: Option<Stamp>,
}

/// What a record does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// The key holds this value.
    Put(Value),
    /// The key is gone.
    Remove,
    /// Everything in the namespace that was stamped at or before this record is gone.
    Clear,
}

/// A value with what travels beside it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Value {
    /// The encoded value.
    pub bytes: Bytes,
    /// A client's own 32 bits, as memcached clients keep them.
    pub flags: u32,
    /// How `bytes` are encoded, in the facade's numbering; 0 is raw.
    pub codec: u8,
    /// A compare-and-set number given by the caller; where absent it is the stamp's clock.
    pub cas: Option<u64>,
    /// The time to live, where the value expires.
    pub ttl: Option<Ttl>,
}

/// A time to live as it travels: what was left at a moment of the sender's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl {
    /// What was left, in milliseconds, when the sender's monotonic clock showed `born_ms`.
    pub left_ms: u64,
    /// The sender's monotonic clock, that of its beats, in milliseconds. A relay sets its own here and what is left now.
    pub born_ms: u64,
}

/// What a change does, borrowed from whoever makes it; see [`Op`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Change<'a> {
    /// The key holds this value.
    Put(&'a Value),
    /// The key is gone.
    Remove,
    /// Everything in the namespace is gone.
    Clear,
}

impl Op {
    /// The same, borrowed.
    pub fn change(&self) -> Change<'_> {
        match self {
            Self::Put(value) => Change::Put(value),
            Self::Remove => Change::Remove,
            Self::Clear => Change::Clear,
        }
    }
}
