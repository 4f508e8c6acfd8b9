//! The record that replication is measured with: 128 bytes, a key of 16 and a value of 112.

use bytes::Bytes;
use geocache::{Error, Expect, GeoCache, Write};

/// Bytes of a key.
pub const KEY_BYTES: usize = 16;

/// Bytes of a value.
pub const VALUE_BYTES: usize = 112;

const _: () = assert!(KEY_BYTES + VALUE_BYTES == 128 && b"bench:0000000000".len() == KEY_BYTES);

/// The key of a number.
pub fn key(number: u32) -> [u8; KEY_BYTES] {
    let mut key = *b"bench:0000000000";
    let mut rest = number;
    for digit in key[6..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// Stores a value that begins with a number.
///
/// # Errors
/// As [`GeoCache::write`].
pub fn write(cache: &GeoCache, key: &[u8; KEY_BYTES], number: u64) -> Result<(), Error> {
    write_sized(cache, key, number, VALUE_BYTES)
}

/// As [`write`](write()), but the value has `value_bytes`: at least 8, at most [`VALUE_BYTES`].
///
/// # Errors
/// As [`GeoCache::write`].
///
/// # Panics
/// If `value_bytes` is neither.
pub fn write_sized(
    cache: &GeoCache,
    key: &[u8; KEY_BYTES],
    number: u64,
    value_bytes: usize,
) -> Result<(), Error> {
    let mut value = [b'v'; VALUE_BYTES];
    value[..8].copy_from_slice(&number.to_le_bytes());
    let write = Write { bytes: Bytes::copy_from_slice(&value[..value_bytes]), ..Write::default() };
    cache.write(key, write, Expect::Any).map(drop)
}

/// The number with which a value begins.
pub fn number(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|number| u64::from_le_bytes(*number))
}

/// How many records a frame holds, if it is a frame of records, without decoding it: see the layout in
/// [`replication::wire`].
pub fn records_in(frame: &[u8]) -> Option<u64> {
    const KIND: usize = 3;
    const HEADER_LENGTH: usize = 5;
    const COUNT_IN_BODY: usize = 8;
    if *frame.get(KIND)? != 1 {
        return None;
    }
    let count = frame.get(usize::from(*frame.get(HEADER_LENGTH)?) + COUNT_IN_BODY..)?;
    count.first_chunk().map(|count| u64::from(u32::from_le_bytes(*count)))
}

#[cfg(test)]
mod tests {
    use replication::{
        Hlc, NodeId, Op, Record, Stamp,
        message::{Beat, Frame, Message},
        wire,
    };

    use super::*;

    #[test]
    fn the_records_of_a_frame_are_counted_without_decoding_it() {
        let from = NodeId::new("eu-central".parse().unwrap(), "node-1").unwrap();
        let stamp = Stamp { hlc: Hlc(7), origin: from.origin() };
        let record = Record { stamp, key: Bytes::from_static(b"k"), op: Op::Remove, previous: None };
        let frame = |message| {
            wire::encode(&Frame { from: from.clone(), epoch: 1, cache: 2, wants_receipt: false, message })
        };
        let records =
            frame(Message::Records { first: 1, records: vec![record; 3], held_back: None, answers: None });
        assert_eq!(records_in(&records), Some(3));
        assert_eq!(records_in(&frame(Message::Beat(Beat::default()))), None);
        assert_eq!(records_in(b"GC"), None);
    }

    #[test]
    fn a_key_is_its_number_in_digits() {
        assert_eq!(&key(1_234_567), b"bench:0001234567");
    }
}
