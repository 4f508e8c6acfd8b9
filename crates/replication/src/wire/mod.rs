//! The bytes of a frame: a versioned, checksummed, hand-laid format.
//!
//! A frame is what one transport message carries. [`encode`] and [`decode`] convert a whole [`Frame`];
//! [`RecordsEncoder`] builds the one frame of the hot path record by record, so that its owner sees when it is full.
//!
//! **Why by hand.** The layout fits this page and any language can read it. Beside key and value a put costs four to
//! seven bytes at 64 and more records a frame, the header's share included. A prototype of it was measured against
//! postcard (22 bytes a record), prost (23) and MessagePack (30), which took three to ten times as long to decode.
//!
//! # Layout
//! Fixed integers are little-endian; a *varint* is LEB128 of at most ten bytes; *zigzag* is a varint of a signed
//! number. A *string* is a varint length and the bytes; a *list* is a varint count and the items; what stands in
//! brackets is there only where its flag is set.
//! ```text
//! frame      = header | body | crc32 (IEEE, u32, of all bytes before it)
//! header     = magic "GC" | major u8 = 1 | kind u8 | flags u8 | header length u8, from the magic to the body
//!              | region: u8 length, bytes | node name: u8 length, bytes | epoch u64 | cache id u32
//!              | body length u32, before compression | anything more is skipped
//! flags      = 0x0f: bits that change how the body is read, refused unless known
//!              0x01: the body is compressed, an lz4 block
//!              0xf0: hints, ignored unless known
//!              0x10: the sender waits for a receipt, so the receiver's next beat is due at once
//!              0x20: behind the records of a body of kind 1 stands the clock that is held back
//!              0x40: behind that stands the first number of the pull whose answer ends with this frame
//!
//! 1 Records  = first u64 | count u32 | record… | [0x20: held back: hlc u64] | [0x40: pulled from u64]
//!              each record's origin is the sender
//! 2 Beat     = u8 (1 ready, 2 all numbered) | capabilities u32 | minor min u8 | minor max u8 | hlc u64 | wall ms u64 | mono ms u64
//!              | list of report | list of (origin u64 | epoch u64 | mono ms varint | held ms varint)
//! 3 Pull     = stream | from varint | to varint
//! 4 Gone     = stream | oldest varint
//! 5 SyncReq  = id u64 | position u64 | list of stream | list of (stream | hlc u64) | budget bytes u32
//!              | preview bytes u32, 0 where the body ends before it
//! 6 SyncPage = origins | id u64 | lo u64 | u8 (1 full, 2 hi follows) | [hi u64] | list of report | floor: bar
//!              | count u32 | record… | list of (position u64 | bar) | list of kept position u64
//!              | list of (namespace string | stamp)
//! 7 Probe    = origins | list of (position u64 | stamp) | list of (namespace string | stamp)
//! 8 State    = the receiver's epoch that it answers u64 | origins | count u32 | record… | list of (position u64 | bar)
//! 9 Fetch    = id u64 | at least: hlc u64 | list of key string
//! 10 Fetched = origins | id u64 | u8 (1 ready) | count u32 | record…
//! 11 Lease   = list of (id u64 | position u64 | u8 (0 ask, 1 loaded, 2 failed) | [ask: hold ms varint | seen: hlc u64]
//!              | [loaded: stream | hlc u64])
//! 12 Granted = list of (id u64 | position u64 | u8 (0 granted, 1 held, 2 loaded, 3 refused)
//!              | [granted, held: ms varint] | [loaded: stream | hlc u64])
//!
//! origins    = list of origin u64; the stamps behind it name them by index
//! stream     = origin u64 | epoch u64
//! report     = stream | watermark varint | hlc at the watermark u64 | last hlc − hlc at the watermark varint
//!              | max varint | generation varint | age ms varint
//! stamp      = hlc u64 | origin index varint
//! bar        = hlc u64 | (2 × origin index + strict) varint
//! record     = u8 (0x03: 0 put, 1 remove, 2 clear; 0x04 ttl; 0x08 previous; 0x10 client flags; 0x20 codec; 0x40 cas;
//!              0x80 extension; a remove or clear has none of 0x04, 0x10, 0x20, 0x40)
//!              | [origin index varint, after an origin table]
//!              | zigzag hlc − hlc of the record before, 0 before the first
//!              | [ttl: left ms varint, zigzag born ms − hlc's ms] | [previous: hlc u64, origin u64]
//!              | [client flags varint] | [codec u8] | [cas u64] | key string | [put: value string]
//!              | [extension string, skipped]
//!
//! hlc        = ms since the Unix epoch × 2¹⁶ + counter; differences wrap around at 2⁶⁴
//! epoch      = the hlc at which a life of a node began, with random low bits
//! origin     = xxh3-64 of "region/node name"
//! cache id   = the low half of the xxh3-64 of the cache's name
//! position   = xxh3-64 of the key, seeded with the cache id
//! grantor    = of the nodes that can grant a key's lease, the one of the highest xxh3-64 of its origin, seeded with the
//!              position
//! mono ms    = the sender's monotonic clock, from a moment of its own on; an echo returns the peer's
//! born ms    = what the sender's monotonic clock showed when `left ms` were left
//! ```
//! A header length of one byte is wide enough: two names of 63 bytes make a header of [`HEADER_BYTES_MAX`] = 150. What
//! the fields mean is said where [`crate::message`] names them.
//!
//! # Compression
//! A body may travel compressed ([`compress`]); a frame is the same message either way, and no longer than
//! [`FRAME_BYTES_MAX`] when it is expanded. Off unless a node is told otherwise ([`ReplicaConfig::compress_above`]). A node
//! from before it refuses such a frame as [`DecodeError::Flags`]; so a sender compresses only while every peer that it
//! knows says in its beats that it reads that ([`READS_COMPRESSED`]).
//!
//! [`ReplicaConfig::compress_above`]: crate::replica::ReplicaConfig::compress_above
//!
//! # Growth
//! New fields go at the end of the header, of a body, or into a record's extension; older readers skip them. A kind
//! that is not known is [`DecodeError::UnknownKind`]: the caller skips the frame. Leases came so: a node from before them
//! skips what is said of them, and is not asked, since its beats do not have [`GRANTS_LEASES`]. What an older reader would misread
//! takes a new major version, which it refuses as [`DecodeError::Version`]. The golden files beside this module pin
//! the bytes of every kind; after a wanted change, `GOLDEN=write cargo test -p replication golden` writes them anew.
//!
//! # Invariants
//! - Decoding is total: any bytes give a frame or a [`DecodeError`], never a panic.
//! - It checks each length and count against the bytes that remain before it allocates. It allocates at most twice the
//!   frame's length plus [`DECODE_BYTES_CONSTANT`]; the constant pays for lists whose items are small on the wire and
//!   large in memory, which is why these are bounded by [`RECORDS_MAX`], [`KEYS_MAX`] and [`STREAMS_MAX`]. A list that
//!   the frame's length alone bounds compiles only where twice an item's bytes pay for it. Of a compressed frame the
//!   length is the one before compression, checked against the bound before anything is expanded, and the expanded frame
//!   is allocated besides: three times its length and the constant.
//! - Keys and values of a decoded frame are slices of it, or of what a compressed one expanded to: nothing is copied, and
//!   **whoever keeps one keeps the whole frame in memory**. A store copies what it keeps where that is small beside the
//!   frame.
//!
//! ```
//! use bytes::Bytes;
//! use replication::{Hlc, NodeId, Op, Record, Stamp, message::{Frame, Message}, wire};
//!
//! let from = NodeId::new("eu-central".parse()?, "node-1")?;
//! let stamp = Stamp { hlc: Hlc::from_ms(1_700_000_000_000), origin: from.origin() };
//! let removed = Record { stamp, key: Bytes::from_static(b"greeting"), op: Op::Remove, previous: None };
//! let message = Message::Records { first: 1, records: vec![removed], held_back: None, answers: None };
//! let frame = Frame { from, epoch: 7, cache: wire::cache_id("geocache"), wants_receipt: false, message };
//! assert_eq!(wire::decode(wire::encode(&frame))?, frame);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod body;
mod compress;
mod error;
mod hash;
mod header;
mod lease;
mod reader;
mod record;
mod writer;

use bytes::Bytes;

pub(crate) use self::record::lay;
pub use self::{
    compress::{READS_COMPRESSED, compress, decompress},
    error::DecodeError,
    hash::{KeyHasher, KeyHasherState, cache_id, lease_weight},
    header::{HEADER_BYTES_MAX, SenderMark},
    lease::GRANTS_LEASES,
    record::{RecordsEncoder, record_bytes_max},
};
use crate::{
    message::{Echo, Frame, LeaseAnswer, LeaseCall, StreamReport},
    node::Stream,
    record::Record,
    stamp::{Hlc, Stamp},
};

/// The version whose changes older readers cannot read.
pub const MAJOR: u8 = 1;

/// The version whose changes older readers skip; travels in beats.
pub const MINOR: u8 = 0;

/// Bytes at which a frame of records is closed. It always takes at least one record, so it may be longer.
pub const FRAME_BYTES: usize = 128 * 1024;

/// Records at which a frame of records is closed.
pub const FRAME_RECORDS: usize = 1_024;

/// The longest frame that [`decode`] reads: half of what the smallest default of a RabbitMQ broker lets through.
pub const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The longest value that fits a frame beside a key of up to 60 KiB.
pub const VALUE_BYTES_MAX: usize = FRAME_BYTES_MAX - 64 * 1024;

/// The most records that one frame may hold. More than [`FRAME_RECORDS`], to leave senders room.
pub const RECORDS_MAX: usize = 4_096;

/// The most keys of a fetch, the most namespaces with a clear barrier, and the most leases, that one frame may hold.
pub const KEYS_MAX: usize = 1_024;

/// The most items of each list that has one for every stream or peer: reports, echoes, the streams that a sync needs,
/// its clocks since. About four times what a node remembers with the default bound on its peers, and a bound on what
/// one frame can have its receiver work through.
pub const STREAMS_MAX: usize = 4_096;

/// Beyond twice the frame's length, the most bytes that decoding allocates.
pub const DECODE_BYTES_CONSTANT: usize = 2 * 1024 * 1024;

const _: () = assert!(
    RECORDS_MAX * size_of::<Record>()
        + KEYS_MAX * size_of::<(Bytes, Stamp)>()
        + STREAMS_MAX * (size_of::<StreamReport>() + size_of::<Echo>())
        + STREAMS_MAX * (size_of::<Stream>() + size_of::<(Stream, Hlc)>())
        + KEYS_MAX * (size_of::<LeaseCall>() + size_of::<LeaseAnswer>())
        + 4 * HEADER_BYTES_MAX
        <= DECODE_BYTES_CONSTANT
);

/// The bytes of a frame.
///
/// What breaks a bound of this module ([`FRAME_BYTES_MAX`], [`RECORDS_MAX`], [`KEYS_MAX`], [`STREAMS_MAX`]) is encoded
/// all the same and then refused by [`decode`]; keeping within them is the sender's part.
pub fn encode(frame: &Frame) -> Bytes {
    body::encode(frame)
}

/// The frame that these bytes say, if they are no longer than [`FRAME_BYTES_MAX`].
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(frame: Bytes) -> Result<Frame, DecodeError> {
    decode_within(frame, FRAME_BYTES_MAX)
}

/// The frame that these bytes say, if they are no longer than `bytes_max`, expanded where they are compressed.
///
/// # Errors
/// See [`DecodeError`].
#[expect(clippy::needless_pass_by_value, reason = "the decoded keys and values share the buffer")]
pub fn decode_within(frame: Bytes, bytes_max: usize) -> Result<Frame, DecodeError> {
    if frame.len() > bytes_max {
        return Err(DecodeError::TooLong { bytes: frame.len(), max: bytes_max });
    }
    body::decode(&frame, bytes_max)
}

#[cfg(test)]
mod tests;
