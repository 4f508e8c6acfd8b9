//! Bodies of frames, compressed: lz4 in its block format, behind the flag 0x01.
//!
//! The header stays as it is, so that a sender is told from its frames without expanding them, and says how long the
//! body is *before* compression; the checksum is of the bytes that travel. A body is compressed only where that saves an
//! eighth of it.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    FRAME_BYTES_MAX,
    error::DecodeError,
    header::{self, CHECKSUM_BYTES, COMPRESSED, FLAGS_AT, Header},
};

/// What this node says in its beats of the frames that it reads: bits of [`Beat::capabilities`].
///
/// [`Beat::capabilities`]: crate::message::Beat::capabilities
pub const READS_COMPRESSED: u32 = 0x01;

/// An lz4 block makes at most so many bytes out of one.
const EXPANSION_MAX: usize = 255;

/// The same frame with its body compressed, where that has at least `body_bytes_min` bytes and gets shorter by an eighth;
/// else the frame as it is. What is no frame of [`encode`](super::encode)'s stays as it is.
///
/// ```
/// # use replication::{NodeId, message::{Frame, Message}, wire};
/// # let from = NodeId::new("eu-central".parse()?, "node-1")?;
/// let keys = (0..100).map(|n| format!("customer:{n:08}").into()).collect();
/// let message = Message::Fetch { id: 1, keys, at_least: Default::default() };
/// let frame = wire::encode(&Frame { from, epoch: 7, cache: 1, wants_receipt: false, message });
/// let compressed = wire::compress(frame.clone(), 1_024);
/// assert!(compressed.len() < frame.len() / 2);
/// assert_eq!(wire::decode(compressed)?, wire::decode(frame)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn compress(frame: Bytes, body_bytes_min: usize) -> Bytes {
    let Some(&header_bytes) = frame.get(5) else { return frame };
    let (start, end) = (usize::from(header_bytes), frame.len().saturating_sub(CHECKSUM_BYTES));
    let is_plain = start > FLAGS_AT && frame[FLAGS_AT] & header::BODY_FLAGS == 0;
    if !is_plain || frame.len() > FRAME_BYTES_MAX || end.saturating_sub(start) < body_bytes_min.max(1) {
        return frame;
    }
    let body = &frame[start..end];
    let mut buf = vec![0; start + lz4_flex::block::get_maximum_output_size(body.len())];
    let Ok(bytes) = lz4_flex::block::compress_into(body, &mut buf[start..]) else { return frame };
    if bytes > body.len() - body.len() / 8 {
        return frame;
    }
    buf[..start].copy_from_slice(&frame[..start]);
    buf[FLAGS_AT] |= COMPRESSED;
    sealed(&buf[..start + bytes])
}

/// The same frame with its body as it was before [`compress`]; a plain one as it is.
///
/// # Errors
/// See [`DecodeError`].
pub fn decompress(frame: Bytes) -> Result<Bytes, DecodeError> {
    let header = header::read(&frame)?;
    if !header.is_compressed {
        return Ok(frame);
    }
    let mut plain = expand(&frame, &header, FRAME_BYTES_MAX)?;
    plain[FLAGS_AT] &= !COMPRESSED;
    Ok(sealed(&plain))
}

/// Header and body of a compressed frame, the body expanded; without a checksum. The whole would have at most `bytes_max`
/// bytes if it were plain, which is looked at before anything is allocated.
pub(super) fn expand(frame: &Bytes, header: &Header, bytes_max: usize) -> Result<Vec<u8>, DecodeError> {
    let body = &frame[header.body..header.end];
    let bytes = header.body_bytes.saturating_add(header.body + CHECKSUM_BYTES);
    if bytes > bytes_max {
        return Err(DecodeError::TooLong { bytes, max: bytes_max });
    }
    let malformed = |what| DecodeError::Malformed { offset: header.body, what };
    if header.body_bytes / EXPANSION_MAX > body.len() {
        return Err(malformed("the compressed body is too short for the length that the header says"));
    }
    let mut plain = vec![0; header.body + header.body_bytes];
    plain[..header.body].copy_from_slice(&frame[..header.body]);
    match lz4_flex::block::decompress_into(body, &mut plain[header.body..]) {
        Ok(bytes) if bytes == header.body_bytes => Ok(plain),
        Ok(_) => Err(malformed("the body expands to another length than the header says")),
        Err(_) => Err(malformed("the compressed body cannot be expanded")),
    }
}

/// The bytes with their checksum behind them.
fn sealed(bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(bytes.len() + CHECKSUM_BYTES);
    frame.put_slice(bytes);
    frame.put_u32_le(crc32fast::hash(bytes));
    frame.freeze()
}
