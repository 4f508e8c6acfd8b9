//! Writes fields into a frame.

use bytes::{BufMut, BytesMut};

/// Bytes of the longest varint.
pub(super) const VARINT_BYTES_MAX: usize = 10;

#[inline]
pub(super) fn varint(buf: &mut impl BufMut, mut value: u64) {
    if value < 0x80 {
        buf.put_u8(value as u8);
        return;
    }
    let mut bytes = [0; VARINT_BYTES_MAX];
    let mut len = 0;
    while value >= 0x80 {
        bytes[len] = value as u8 | 0x80;
        value >>= 7;
        len += 1;
    }
    bytes[len] = value as u8;
    buf.put_slice(&bytes[..=len]);
}

#[inline]
pub(super) fn zigzag(buf: &mut impl BufMut, value: i64) {
    varint(buf, ((value << 1) ^ (value >> 63)) as u64);
}

#[inline]
pub(super) fn string(buf: &mut BytesMut, bytes: &[u8]) {
    varint(buf, bytes.len() as u64);
    buf.put_slice(bytes);
}

pub(super) fn list<T>(buf: &mut BytesMut, items: &[T], mut item: impl FnMut(&mut BytesMut, &T)) {
    varint(buf, items.len() as u64);
    for one in items {
        item(buf, one);
    }
}
