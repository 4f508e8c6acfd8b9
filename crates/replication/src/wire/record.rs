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
    record::{Op, Record, Ttl, Value},
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

/// Builds a [`Records`](crate::message::Message::Records) frame record by record.
///
/// Its owner asks [`takes`](Self::takes) before each [`push`](Self::push) and closes the frame with
/// [`finish`](Self::finish) when the answer is no.
///
/// ```
/// # use bytes::Bytes;
/// # use replication::{Hlc, NodeId, Op, Record, Stamp, wire};
/// let from = NodeId::new("eu-central".parse()?, "node-1")?;
/// let mut frame = wire::RecordsEncoder::new(&from, 7, wire::cache_id("geocache"), 1);
/// let stamp = Stamp { hlc: Hlc::from_ms(1_700_000_000_000), origin: from.origin() };
/// let removed = Record { stamp, key: Bytes::from_static(b"greeting"), op: Op::Remove, previous: None };
/// assert!(frame.takes(&removed));
/// frame.push(&removed);
/// assert_eq!(frame.len(), frame.finish().len());
/// # Ok::<(), geo::NameError>(())
/// ```
#[derive(Debug)]
pub struct RecordsEncoder {
    open: Open,
    count: u32,
    last: Hlc,
}

impl RecordsEncoder {
    /// A frame of the sender's own stream, whose first record will have the number `first`.
    pub fn new(from: &NodeId, epoch: u64, cache: u32, first: u64) -> Self {
        Self::with_room(from, epoch, cache, first, 4 * 1024)
    }

    pub(super) fn with_room(from: &NodeId, epoch: u64, cache: u32, first: u64, records_bytes: usize) -> Self {
        let mut open = Open::new(KIND_RECORDS, from, epoch, cache, COUNT_OFFSET + 4 + records_bytes);
        open.buf.put_u64_le(first);
        open.buf.put_u32_le(0);
        Self { open, count: 0, last: Hlc(0) }
    }

    /// Whether the record still fits: into [`FRAME_BYTES`] and [`FRAME_RECORDS`], or as the frame's only one.
    pub fn takes(&self, record: &Record) -> bool {
        self.count == 0
            || (self.count() < FRAME_RECORDS && self.len() + record_bytes_max(record) <= FRAME_BYTES)
    }

    /// Appends the next record of the stream. Of its stamp the clock alone is written: the origin is the sender.
    pub fn push(&mut self, record: &Record) {
        write(&mut self.open.buf, record, &mut self.last, None);
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

    /// The frame.
    pub fn finish(mut self) -> Bytes {
        self.open.set_u32(COUNT_OFFSET, self.count);
        self.open.close()
    }
}

/// Where the count stands in a body of records: behind the first number.
const COUNT_OFFSET: usize = 8;

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
    buf.put_u8(kind_byte(record));
    if let Some(origins) = origins {
        writer::varint(buf, origins.index(record.stamp.origin));
    }
    let hlc = record.stamp.hlc;
    writer::zigzag(buf, hlc.0.wrapping_sub(last.0) as i64);
    *last = hlc;
    let value = match &record.op {
        Op::Put(value) => Some(value),
        Op::Remove | Op::Clear => None,
    };
    if let Some(Ttl { left_ms, born_ms }) = value.and_then(|value| value.ttl) {
        writer::varint(buf, left_ms);
        writer::zigzag(buf, born_ms.wrapping_sub(hlc.ms()) as i64);
    }
    if let Some(previous) = record.previous {
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
    writer::string(buf, &record.key);
    if let Some(value) = value {
        writer::string(buf, &value.bytes);
    }
}

#[inline]
fn kind_byte(record: &Record) -> u8 {
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    let op = match &record.op {
        Op::Put(value) => {
            PUT | bit(value.ttl.is_some(), TTL)
                | bit(value.flags != 0, FLAGS)
                | bit(value.codec != 0, CODEC)
                | bit(value.cas.is_some(), CAS)
        }
        Op::Remove => REMOVE,
        Op::Clear => CLEAR,
    };
    op | bit(record.previous.is_some(), PREVIOUS)
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
