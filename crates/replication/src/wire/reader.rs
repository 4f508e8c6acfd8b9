//! Reads fields out of a frame; every read is checked against what remains.

use bytes::Bytes;

use super::error::DecodeError;

/// A place in a frame. Never reads past `end`, which leaves the checksum out.
pub(super) struct Reader<'a> {
    frame: &'a Bytes,
    bytes: &'a [u8],
    at: usize,
}

type Result<T> = std::result::Result<T, DecodeError>;

impl<'a> Reader<'a> {
    /// Reads `frame[at..end]`.
    pub(super) fn new(frame: &'a Bytes, at: usize, end: usize) -> Self {
        Self { frame, bytes: &frame[..end], at }
    }

    pub(super) fn offset(&self) -> usize {
        self.at
    }

    /// Whether nothing is left: fields that a later version added begin here.
    pub(super) fn is_at_end(&self) -> bool {
        self.left() == 0
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    #[cold]
    fn truncated(&self, what: &'static str, needed: u64) -> DecodeError {
        DecodeError::Truncated { offset: self.at, what, needed, left: self.left() }
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8]> {
        if len > self.left() {
            return Err(self.truncated(what, len as u64));
        }
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(taken)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    #[inline]
    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8> {
        Ok(self.array::<1>(what)?[0])
    }

    #[inline]
    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    #[inline]
    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    #[inline]
    pub(super) fn varint(&mut self, what: &'static str) -> Result<u64> {
        let offset = self.at;
        let first = self.u8(what)?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        for shift in (7..70).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed { offset, what: "a varint has more than 64 bits" })
    }

    #[inline]
    pub(super) fn zigzag(&mut self, what: &'static str) -> Result<i64> {
        let raw = self.varint(what)?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// A varint that fits 32 bits.
    pub(super) fn varint_u32(&mut self, what: &'static str) -> Result<u32> {
        let offset = self.at;
        let value = self.varint(what)?;
        u32::try_from(value)
            .map_err(|_| DecodeError::Malformed { offset, what: "a number has more than 32 bits" })
    }

    /// A length-prefixed string, sliced out of the frame.
    #[inline]
    pub(super) fn string(&mut self, what: &'static str) -> Result<Bytes> {
        let len = self.varint(what)?;
        if len > self.left() as u64 {
            return Err(self.truncated(what, len));
        }
        // `len` is at most a `usize`, as it was just compared with one.
        let start = self.at;
        self.at += len as usize;
        Ok(self.frame.slice(start..self.at))
    }

    /// Skips a length-prefixed string.
    pub(super) fn skip_string(&mut self, what: &'static str) -> Result<()> {
        self.string(what).map(drop)
    }

    /// A list that the frame's length alone bounds: twice the bytes of its items, of which each has at least
    /// `ITEM_BYTES_MIN`, pay for what they take in memory, or this does not compile.
    pub(super) fn list_in_frame<T, const ITEM_BYTES_MIN: usize>(
        &mut self,
        what: &'static str,
        item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        const { assert!(size_of::<T>() <= 2 * ITEM_BYTES_MIN, "a list of these needs a bound of its own") };
        self.list(what, ITEM_BYTES_MIN, usize::MAX, item)
    }

    /// A varint count and that many items, each of at least `item_bytes_min` bytes, and at most `count_max` of them.
    pub(super) fn list<T>(
        &mut self,
        what: &'static str,
        item_bytes_min: usize,
        count_max: usize,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let offset = self.at;
        let count = self.varint(what)?;
        let count = self.count(offset, count, what, item_bytes_min, count_max)?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// Checks a count read at `offset` against what remains, before anything is allocated for it.
    pub(super) fn count(
        &self,
        offset: usize,
        count: u64,
        what: &'static str,
        item_bytes_min: usize,
        count_max: usize,
    ) -> Result<usize> {
        let needed = count.saturating_mul(item_bytes_min as u64);
        if needed > self.left() as u64 {
            return Err(self.truncated(what, needed));
        }
        if count > count_max as u64 {
            return Err(DecodeError::Malformed {
                offset,
                what: "a list has more items than one frame may hold",
            });
        }
        Ok(count as usize)
    }
}
