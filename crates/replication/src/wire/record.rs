//! Records on the wire, and the frame of records that is built one by one.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    FRAME_BYTES, FRAME_RECORDS, RECORDS_MAX,
    body::{KIND_RECORDS, Origins},
    error::DecodeError,
    header::Open,
    reader::Reader,
    writer::{self, VARINT_BYTES_MAX},
};
use crate::{
    node::{NodeId, Origin},
    record::{Change, Op, Record, Ttl, Value},
    stamp::{Hlc, Stamp},
};

const OP: u8 = 0x03;
const PUT: u8 = 0;
const REMOVE: u8 = 1;
const CLEAR: u8 = 2;
const TTL: u8 = 0x04;
const PREVIOUS: u8 = 0x08;
const FLAGS: u8 = 0x10;
const CODEC: u8 = 0x20;
const CAS: u8 = 0x40;
const EXTENSION: u8 = 0x80;

/// The shortest record: kind, clock, key length.
const RECORD_BYTES_MIN: usize = 3;

/// Every fixed and optional field at its longest, with both lengths, the key and the value left out: kind, origin
/// index, clock, time to live, previous stamp, client flags, codec, compare-and-set number.
const RECORD_OVERHEAD_MAX: usize = 1 + 5 + VARINT_BYTES_MAX * 3 + 16 + 5 + 1 + 8;

/// At most this many bytes does the record take in a frame; the clock's difference to the record before decides.
pub fn record_bytes_max(record: &Record) -> usize {
    let value = match &record.op {
        Op::Put(value) => value.bytes.len() + VARINT_BYTES_MAX,
        Op::Remove | Op::Clear => 0,
    };
    RECORD_OVERHEAD_MAX + VARINT_BYTES_MAX + record.key.len() + value
}

/// Builds [`Records`](crate::message::Message::Records) frames, one after the other, record by record.
///
/// Its owner asks [`takes`](Self::takes) before each [`push`](Self::push) and closes the frame with
/// [`finish`](Self::finish) when the answer is no. Frames are built in one buffer and copied out at their length, so that
/// a small one that is kept does not keep the room of a large one.
///
/// ```
/// # use bytes::Bytes;
/// # use replication::{Hlc, NodeId, Op, Record, Stamp, wire};
/// let from = NodeId::new("eu-central".parse()?, "node-1")?;
/// let mut frame = wire::RecordsEncoder::new(&from, 7, wire::cache_id("geocache"));
/// let stamp = Stamp { hlc: Hlc::from_ms(1_700_000_000_000), origin: from.origin() };
/// let removed = Record { stamp, key: Bytes::from_static(b"greeting"), op: Op::Remove, previous: None };
/// assert!(frame.takes(&removed));
/// frame.push(&removed);
/// assert_eq!(frame.len(), frame.finish(1).len());
/// assert!(frame.is_empty());
/// # Ok::<(), geo::NameError>(())
/// ```
#[derive(Debug)]
pub struct RecordsEncoder {
    open: Open,
    count: u32,
    last: Hlc,
}

impl RecordsEncoder {
    /// For the sender's own stream.
    pub fn new(from: &NodeId, epoch: u64, cache: u32) -> Self {
        Self::with_room(from, epoch, cache, 4 * 1024)
    }

    pub(super) fn with_room(from: &NodeId, epoch: u64, cache: u32, records_bytes: usize) -> Self {
        let open = Open::new(KIND_RECORDS, from, epoch, cache, HEAD_BYTES + records_bytes);
        let mut encoder = Self { open, count: 0, last: Hlc(0) };
        encoder.begin();
        encoder
    }

    /// Leaves room for the first number and the count.
    fn begin(&mut self) {
        self.open.buf.put_bytes(0, HEAD_BYTES);
        self.count = 0;
        self.last = Hlc(0);
    }

    /// Whether the record still fits: into [`FRAME_BYTES`] and [`FRAME_RECORDS`], or as the frame's only one.
    pub fn takes(&self, record: &Record) -> bool {
        self.takes_bytes(record_bytes_max(record))
    }

    /// Whether a record still fits that takes so many bytes as [`lay`] lays it, its value included.
    pub(crate) fn takes_laid(&self, bytes: usize) -> bool {
        self.takes_bytes(bytes + VARINT_BYTES_MAX)
    }

    fn takes_bytes(&self, bytes: usize) -> bool {
        self.count == 0 || (self.count() < FRAME_RECORDS && self.len() + bytes <= FRAME_BYTES)
    }

    /// Appends the next record of the stream. Of its stamp the clock alone is written: the origin is the sender.
    pub fn push(&mut self, record: &Record) {
        write(&mut self.open.buf, record, &mut self.last, None);
        self.count += 1;
    }

    /// Appends the next record of the stream, as [`lay`] laid it; `value` is what was left out there.
    pub(crate) fn push_laid(&mut self, hlc: Hlc, laid: &[u8], value: &[u8]) {
        let buf = &mut self.open.buf;
        buf.put_u8(laid[0]);
        writer::zigzag(buf, hlc.0.wrapping_sub(self.last.0) as i64);
        buf.put_slice(&laid[1..]);
        buf.put_slice(value);
        self.last = hlc;
        self.count += 1;
    }

    /// The number of records so far.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The frame's length in bytes if it were finished now.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Asks the receivers to say at once that they have the records.
    pub fn ask_receipt(&mut self) {
        self.open.ask_receipt();
    }

    /// Says that the successor of a change with this clock is still to come; call it after the last record.
    pub fn hold_back(&mut self, hlc: Hlc) {
        self.open.hold_back(hlc.0);
    }

    /// Says that an answer to the pull from this number on ends here; call it after [`Self::hold_back`].
    pub fn answer(&mut self, from: u64) {
        self.open.answer(from);
    }

    /// The frame; its first record has the number `first`. The next one begins.
    pub fn finish(&mut self, first: u64) -> Bytes {
        self.write_head(first);
        let frame = self.open.copy_out();
        self.begin();
        frame
    }

    /// The frame, where it is the only one.
    pub(super) fn into_frame(mut self, first: u64) -> Bytes {
        self.write_head(first);
        self.open.close()
    }

    fn write_head(&mut self, first: u64) {
        self.open.set(0, &first.to_le_bytes());
        self.open.set(COUNT_OFFSET, &self.count.to_le_bytes());
    }
}

/// Where the count stands in a body of records: behind the first number.
const COUNT_OFFSET: usize = 8;

/// The first number and the count.
const HEAD_BYTES: usize = COUNT_OFFSET + 4;

/// Lays a record down as it will stand in a frame, for [`RecordsEncoder::push_laid`]: without its clock's difference to
/// the record before it, which is not known yet, and without the value's own bytes, which the caller appends or keeps.
/// Returns where in it the key begins.
pub(crate) fn lay(
    buf: &mut Vec<u8>,
    hlc: Hlc,
    key: &[u8],
    change: Change<'_>,
    previous: Option<Stamp>,
) -> usize {
    let start = buf.len();
    buf.put_u8(kind_byte(change, previous));
    write_fields(buf, hlc, change, previous);
    writer::varint(buf, key.len() as u64);
    let key_at = buf.len() - start;
    buf.put_slice(key);
    if let Change::Put(value) = change {
        writer::varint(buf, value.bytes.len() as u64);
    }
    key_at
}

/// Writes a count and the records, with origins by index.
pub(super) fn write_all(buf: &mut BytesMut, records: &[Record], origins: &Origins) {
    // More than fits 32 bits is far over the limit of any reader, which refuses the frame.
    buf.put_u32_le(u32::try_from(records.len()).unwrap_or(u32::MAX));
    let mut last = Hlc(0);
    for record in records {
        write(buf, record, &mut last, Some(origins));
    }
}

/// Reads a count and the records.
pub(super) fn read_all(reader: &mut Reader<'_>, origins: Source<'_>) -> Result<Vec<Record>, DecodeError> {
    let offset = reader.offset();
    let count = u64::from(reader.u32("the number of records")?);
    let count = reader.count(offset, count, "the records", RECORD_BYTES_MIN, RECORDS_MAX)?;
    let mut records = Vec::with_capacity(count);
    let mut last = Hlc(0);
    for _ in 0..count {
        records.push(read(reader, &mut last, origins)?);
    }
    Ok(records)
}

/// Where the origins of the records that are read come from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// All are the sender's.
    Sender(Origin),
    /// Each names an entry of this table.
    Table(&'a [Origin]),
}

#[inline]
fn write(buf: &mut BytesMut, record: &Record, last: &mut Hlc, origins: Option<&Origins>) {
    let change = record.op.change();
    buf.put_u8(kind_byte(change, record.previous));
    if let Some(origins) = origins {
        writer::varint(buf, origins.index(record.stamp.origin));
    }
    let hlc = record.stamp.hlc;
    writer::zigzag(buf, hlc.0.wrapping_sub(last.0) as i64);
    *last = hlc;
    write_fields(buf, hlc, change, record.previous);
    writer::string(buf, &record.key);
    if let Change::Put(value) = change {
        writer::string(buf, &value.bytes);
    }
}

/// Writes what stands between the clock and the key.
#[inline]
fn write_fields(buf: &mut impl BufMut, hlc: Hlc, change: Change<'_>, previous: Option<Stamp>) {
    let value = match change {
        Change::Put(value) => Some(value),
        Change::Remove | Change::Clear => None,
    };
    if let Some(Ttl { left_ms, born_ms }) = value.and_then(|value| value.ttl) {
        writer::varint(buf, left_ms);
        writer::zigzag(buf, born_ms.wrapping_sub(hlc.ms()) as i64);
    }
    if let Some(previous) = previous {
        buf.put_u64_le(previous.hlc.0);
        buf.put_u64_le(previous.origin.0);
    }
    if let Some(value) = value {
        if value.flags != 0 {
            writer::varint(buf, u64::from(value.flags));
        }
        if value.codec != 0 {
            buf.put_u8(value.codec);
        }
        if let Some(cas) = value.cas {
            buf.put_u64_le(cas);
        }
    }
}

#[inline]
fn kind_byte(change: Change<'_>, previous: Option<Stamp>) -> u8 {
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    let op = match change {
        Change::Put(value) => {
            PUT | bit(value.ttl.is_some(), TTL)
                | bit(value.flags != 0, FLAGS)
                | bit(value.codec != 0, CODEC)
                | bit(value.cas.is_some(), CAS)
        }
        Change::Remove => REMOVE,
        Change::Clear => CLEAR,
    };
    op | bit(previous.is_some(), PREVIOUS)
}

#[inline]
fn read(reader: &mut Reader<'_>, last: &mut Hlc, origins: Source<'_>) -> Result<Record, DecodeError> {
    let offset = reader.offset();
    let kind = reader.u8("a record")?;
    let op = kind & OP;
    if op > CLEAR {
        return Err(DecodeError::Malformed { offset, what: "a record is neither put, remove nor clear" });
    }
    if op != PUT && kind & (TTL | FLAGS | CODEC | CAS) != 0 {
        return Err(DecodeError::Malformed { offset, what: "a record without a value has a value's fields" });
    }
    let origin = match origins {
        Source::Sender(origin) => origin,
        Source::Table(table) => read_origin(reader, table)?,
    };
    let delta = reader.zigzag("a record's clock")?;
    let hlc = Hlc(last.0.wrapping_add(delta as u64));
    *last = hlc;
    let has = |bit: u8| kind & bit != 0;
    let ttl = if has(TTL) {
        let left_ms = reader.varint("a time to live")?;
        let born_ms = hlc.ms().wrapping_add(reader.zigzag("a time of birth")? as u64);
        Some(Ttl { left_ms, born_ms })
    } else {
        None
    };
    let previous = if has(PREVIOUS) {
        let hlc = Hlc(reader.u64("a previous stamp")?);
        Some(Stamp { hlc, origin: Origin(reader.u64("a previous stamp")?) })
    } else {
        None
    };
    let flags = if has(FLAGS) { reader.varint_u32("the client flags")? } else { 0 };
    let codec = if has(CODEC) { reader.u8("the codec")? } else { 0 };
    let cas = if has(CAS) { Some(reader.u64("the compare-and-set number")?) } else { None };
    let key = reader.string("a key")?;
    let op = match op {
        PUT => Op::Put(Value { bytes: reader.string("a value")?, flags, codec, cas, ttl }),
        REMOVE => Op::Remove,
        _ => Op::Clear,
    };
    if has(EXTENSION) {
        reader.skip_string("a record's extension")?;
    }
    Ok(Record { stamp: Stamp { hlc, origin }, key, op, previous })
}

/// Reads an index into the table of origins.
pub(super) fn read_origin(reader: &mut Reader<'_>, table: &[Origin]) -> Result<Origin, DecodeError> {
    let offset = reader.offset();
    let index = reader.varint("an origin's index")?;
    origin_at(table, index, offset)
}

/// The origin of this index, which was read at `offset`.
pub(super) fn origin_at(table: &[Origin], index: u64, offset: usize) -> Result<Origin, DecodeError> {
    let origin = usize::try_from(index).ok().and_then(|index| table.get(index));
    origin.copied().ok_or(DecodeError::Malformed { offset, what: "an origin's index is outside the table" })
}
