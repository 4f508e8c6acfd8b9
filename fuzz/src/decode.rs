//! The wire decoder: any bytes are a frame or a typed error, within a stated bound of memory.

use bytes::Bytes;
use replication::{
    NodeId,
    message::{Frame, Message},
    wire,
};

/// Reads bytes as a frame; what was read must survive being written and read again.
///
/// The first byte says how the rest is taken: even, as a whole frame; odd, as a kind, flags and a body, around which a
/// valid header and checksum are laid, since no fuzzer guesses a checksum; 255, as odd, the body then compressed, which no
/// fuzzer guesses either.
///
/// # Panics
/// Where the decoder does, takes too much memory, or reads back something else.
pub fn check(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let frame = match mode {
        255 => wire::compress(sealed(1, rest), 0),
        mode if mode % 2 == 0 => Bytes::copy_from_slice(rest),
        _ => sealed(1, rest),
    };
    // A compressed frame expands at most to the longest there is.
    let expands = frame.get(4).is_some_and(|flags| flags & 0x01 != 0);
    let expanded = if expands { (255 * frame.len()).min(wire::FRAME_BYTES_MAX) } else { 0 };
    let bytes_max = (2 * frame.len() + 3 * expanded + wire::DECODE_BYTES_CONSTANT) as u64;
    let mut read = None;
    let allocated = allocation_counter::measure(|| read = Some(wire::decode(frame)));
    assert!(
        allocated.bytes_total <= bytes_max,
        "{} bytes for a frame, {bytes_max} allowed",
        allocated.bytes_total
    );
    let Some(Ok(frame)) = read else { return };
    let again = wire::encode(&frame);
    assert_eq!(wire::decode(again).as_ref(), Ok(&frame), "read otherwise after it was written");
}

/// A frame of the cache with this id, around a kind, flags and a body.
pub(crate) fn sealed(cache: u32, rest: &[u8]) -> Bytes {
    let (&kind, rest) = rest.split_first().unwrap_or((&0, &[]));
    let (&flags, body) = rest.split_first().unwrap_or((&0, &[]));
    let mut frame = header(cache);
    frame[3] = kind;
    frame[4] = flags;
    let length_at = frame.len() - 4;
    frame[length_at..].copy_from_slice(&(body.len() as u32).to_le_bytes());
    frame.extend_from_slice(body);
    let checksum = crc32fast::hash(&frame);
    frame.extend_from_slice(&checksum.to_le_bytes());
    Bytes::from(frame)
}

/// A header as the encoder writes it.
fn header(cache: u32) -> Vec<u8> {
    let from = NodeId::new("eu-west".parse().expect("a region's name"), "stranger").expect("a node's name");
    let message = Message::Probe { samples: Vec::new(), cleared: Vec::new() };
    let frame = Frame { from, epoch: 1_700_000_000_000 << 16, cache, wants_receipt: false, message };
    let bytes = wire::encode(&frame);
    bytes[..usize::from(bytes[5])].to_vec()
}
