//! The header and the checksum around a body.

use bytes::{BufMut, Bytes, BytesMut};
use geo::RegionId;

use super::{FRAME_BYTES, MAJOR, error::DecodeError, reader::Reader};
use crate::node::NodeId;

const MAGIC: [u8; 2] = *b"GC";

/// Magic, major, kind, flags, header length.
const PREFIX_BYTES: usize = 6;

/// Epoch, cache id, body length.
const FIXED_TAIL_BYTES: usize = 8 + 4 + 4;

/// The longest header that this version writes: two names of 63 bytes.
pub const HEADER_BYTES_MAX: usize = PREFIX_BYTES + 2 * (1 + geo::NAME_BYTES_MAX) + FIXED_TAIL_BYTES;

/// Bytes of the checksum at the end.
pub(super) const CHECKSUM_BYTES: usize = 4;

/// Flags that change how the body is read; an unknown one is refused.
pub(super) const BODY_FLAGS: u8 = 0x0f;

/// The body is compressed.
pub(super) const COMPRESSED: u8 = 0x01;

/// A flag that older readers ignore: the sender waits for a receipt.
const WANTS_RECEIPT: u8 = 0x10;

/// A flag that older readers ignore: behind the records stands the clock that is held back.
const HOLDS_BACK: u8 = 0x20;

/// A flag that older readers ignore: behind the records, and the clock that is held back, stands which pull was answered.
const ANSWERS: u8 = 0x40;

/// Where the flags are.
pub(super) const FLAGS_AT: usize = 4;

/// A header that was read, and where its body is.
pub(super) struct Header {
    pub(super) kind: u8,
    pub(super) from: NodeId,
    pub(super) epoch: u64,
    pub(super) cache: u32,
    pub(super) wants_receipt: bool,
    pub(super) holds_back: bool,
    pub(super) answers: bool,
    pub(super) is_compressed: bool,
    /// The body's length, before compression where it is compressed.
    pub(super) body_bytes: usize,
    /// The first byte of the body.
    pub(super) body: usize,
    /// The first byte after the body.
    pub(super) end: usize,
}

/// A frame whose body is being written.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) buf: BytesMut,
    body: usize,
}

impl Open {
    /// Writes the header; `body_bytes` is room for the body.
    pub(super) fn new(kind: u8, from: &NodeId, epoch: u64, cache: u32, body_bytes: usize) -> Self {
        let (region, name) = (from.region().as_str(), from.name());
        let body = PREFIX_BYTES + 1 + region.len() + 1 + name.len() + FIXED_TAIL_BYTES;
        let mut buf = BytesMut::with_capacity(body + body_bytes + CHECKSUM_BYTES);
        buf.put_slice(&MAGIC);
        // A name has at most 63 bytes, so both lengths and the header's fit a byte.
        buf.put_slice(&[MAJOR, kind, 0, body as u8]);
        for name in [region, name] {
            buf.put_u8(name.len() as u8);
            buf.put_slice(name.as_bytes());
        }
        buf.put_u64_le(epoch);
        buf.put_u32_le(cache);
        buf.put_u32_le(0);
        Self { buf, body }
    }

    /// The frame's length if it were closed now.
    pub(super) fn len(&self) -> usize {
        self.buf.len() + CHECKSUM_BYTES
    }

    pub(super) fn ask_receipt(&mut self) {
        self.buf[FLAGS_AT] |= WANTS_RECEIPT;
    }

    /// Writes the clock that is held back, behind the records.
    pub(super) fn hold_back(&mut self, clock: u64) {
        self.buf[FLAGS_AT] |= HOLDS_BACK;
        self.buf.put_u64_le(clock);
    }

    /// Writes the first number of the pull that was answered, behind the clock that is held back.
    pub(super) fn answer(&mut self, from: u64) {
        self.buf[FLAGS_AT] |= ANSWERS;
        self.buf.put_u64_le(from);
    }

    /// Overwrites bytes of the body.
    pub(super) fn set(&mut self, offset: usize, bytes: &[u8]) {
        self.buf[self.body + offset..][..bytes.len()].copy_from_slice(bytes);
    }

    /// The frame.
    pub(super) fn close(mut self) -> Bytes {
        self.seal();
        self.buf.freeze()
    }

    /// The frame, at its length; a frame with the same header and an empty body is open then.
    pub(super) fn copy_out(&mut self) -> Bytes {
        self.seal();
        let frame = Bytes::copy_from_slice(&self.buf);
        self.buf.truncate(self.body);
        self.buf[FLAGS_AT] = 0;
        if self.buf.capacity() > 2 * FRAME_BYTES {
            // A long value had come by: its room is not kept.
            self.buf = BytesMut::from(&self.buf[..]);
        }
        frame
    }

    /// Writes the body's length and the checksum.
    fn seal(&mut self) {
        // A body of 4 GiB is far over the limit of any reader; its length saturates and the frame is refused.
        let body_bytes = u32::try_from(self.buf.len() - self.body).unwrap_or(u32::MAX);
        self.buf[self.body - 4..self.body].copy_from_slice(&body_bytes.to_le_bytes());
        let checksum = crc32fast::hash(&self.buf);
        self.buf.put_u32_le(checksum);
    }
}

/// Who sent a frame, as its header says it: tells the frames of one life of a node without decoding them.
///
/// A broadcast comes back to its sender where the broker cannot leave it out, as AMQP's cannot; decoding it there would
/// cost as much as a frame of somebody else.
///
/// ```
/// # use replication::{NodeId, message::{Beat, Frame, Message}, wire};
/// let node = |name| NodeId::new("eu-central".parse()?, name);
/// let frame = |from| wire::encode(&Frame { from, epoch: 7, cache: 1, wants_receipt: false, message: Message::Beat(Beat::default()) });
/// let mark = wire::SenderMark::new(&node("a")?, 7, 1);
/// assert!(mark.is_on(&frame(node("a")?)));
/// assert!(!mark.is_on(&frame(node("b")?)));
/// # Ok::<(), geo::NameError>(())
/// ```
#[derive(Debug, Clone)]
pub struct SenderMark(Bytes);

impl SenderMark {
    /// The mark of the frames that `from` sends in this epoch and cache.
    pub fn new(from: &NodeId, epoch: u64, cache: u32) -> Self {
        let header = Open::new(0, from, epoch, cache, 0);
        Self(Bytes::copy_from_slice(&header.buf[PREFIX_BYTES..header.body - 4]))
    }

    /// Whether the frame carries it. The checksum is not looked at.
    pub fn is_on(&self, frame: &[u8]) -> bool {
        frame.starts_with(&MAGIC) && frame.get(PREFIX_BYTES..PREFIX_BYTES + self.0.len()) == Some(&self.0[..])
    }
}

/// Reads the header and checks the frame as a whole.
pub(super) fn read(frame: &Bytes) -> Result<Header, DecodeError> {
    let prefix = Reader::new(frame, 0, frame.len()).array::<PREFIX_BYTES>("the header")?;
    let [m0, m1, major, kind, flags, header_bytes] = prefix;
    if [m0, m1] != MAGIC {
        return Err(DecodeError::Magic { found: [m0, m1] });
    }
    if major != MAJOR {
        return Err(DecodeError::Version { major });
    }
    let end = check_sum(frame)?;
    let header_end = usize::from(header_bytes);
    if header_end > end {
        return Err(DecodeError::Truncated {
            offset: PREFIX_BYTES - 1,
            what: "the header",
            needed: u64::from(header_bytes),
            left: end,
        });
    }
    if header_end < PREFIX_BYTES {
        return Err(DecodeError::Malformed {
            offset: PREFIX_BYTES - 1,
            what: "the header is shorter than its prefix",
        });
    }
    let mut reader = Reader::new(frame, PREFIX_BYTES, header_end);
    let from = read_node(&mut reader)?;
    let epoch = reader.u64("the epoch")?;
    let cache = reader.u32("the cache id")?;
    let offset = reader.offset();
    let body_bytes = reader.u32("the body's length")?;
    if flags & BODY_FLAGS & !COMPRESSED != 0 {
        return Err(DecodeError::Flags { flags });
    }
    let (is_compressed, body_bytes) = (flags & COMPRESSED != 0, body_bytes as usize);
    if !is_compressed && body_bytes != end - header_end {
        return Err(DecodeError::Malformed {
            offset,
            what: "the body has another length than the header says",
        });
    }
    let wants_receipt = flags & WANTS_RECEIPT != 0;
    let holds_back = flags & HOLDS_BACK != 0;
    let answers = flags & ANSWERS != 0;
    let body = header_end;
    Ok(Header {
        kind,
        from,
        epoch,
        cache,
        wants_receipt,
        holds_back,
        answers,
        is_compressed,
        body_bytes,
        body,
        end,
    })
}

/// Compares the checksum; gives where it begins.
fn check_sum(frame: &Bytes) -> Result<usize, DecodeError> {
    // The prefix, which is longer than the checksum, was read from the frame.
    let end = frame.len() - CHECKSUM_BYTES;
    let found = Reader::new(frame, end, frame.len()).u32("the checksum")?;
    let computed = crc32fast::hash(&frame[..end]);
    if found == computed { Ok(end) } else { Err(DecodeError::Checksum { found, computed }) }
}

fn read_node(reader: &mut Reader<'_>) -> Result<NodeId, DecodeError> {
    let (offset, region) = read_name(reader, "the region's name")?;
    let region = RegionId::new(region).map_err(|source| DecodeError::Name {
        offset,
        what: "the region's name",
        source,
    })?;
    let (offset, name) = read_name(reader, "the node's name")?;
    NodeId::new(region, name).map_err(|source| DecodeError::Name { offset, what: "the node's name", source })
}

fn read_name<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<(usize, &'a str), DecodeError> {
    let offset = reader.offset();
    let len = reader.u8(what)?;
    let bytes = reader.take(usize::from(len), what)?;
    match std::str::from_utf8(bytes) {
        Ok(name) => Ok((offset, name)),
        Err(_) => Err(DecodeError::Malformed { offset, what: "a name is not UTF-8" }),
    }
}
