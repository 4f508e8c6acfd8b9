//! What a node holds for a key: the encoded value, its stamp, and the value decoded once.

mod codec;
mod raw;
#[cfg(test)]
mod tests;

use std::{any::Any, mem, sync::Arc};

use bytes::Bytes;
use replication::{Stamp, Value};
use serde::de::DeserializeOwned;

pub use codec::Codec;

use crate::error::Error;

/// Up to this length a value's buffer is used again for the next value: copying it must not take long, as the lock of a
/// shard is held.
pub(crate) const RENEWED_BYTES_MAX: usize = 4 << 10;

/// A value in some type of a caller's.
pub(crate) type Decoded = Arc<dyn Any + Send + Sync>;

/// One key's value. It lies in the map's entry: one of its own would be one more wait for memory in each operation. What a
/// read of a decoded value looks at comes first, right behind the key.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Stored {
    pub(crate) stamp: Stamp,
    /// The value in the type that it was first read as. It is a caller's, so it is never dropped under a lock.
    decoded: Option<Decoded>,
    pub(crate) bytes: Bytes,
    /// The compare-and-set number on this node.
    pub(crate) cas: u64,
    /// What it counts against a capacity in bytes, key and tables aside.
    pub(crate) weight: u64,
    pub(crate) flags: u32,
    pub(crate) codec: Codec,
}

impl Stored {
    /// A value as it was stamped, which weighs what it is long; `replaced` is the one in whose place it comes.
    pub(crate) fn new(value: Value, stamp: Stamp, replaced: Option<&Stored>) -> Self {
        Self {
            cas: number(&value, stamp, replaced),
            weight: value.bytes.len() as u64,
            bytes: value.bytes,
            flags: value.flags,
            codec: Codec::from_number(value.codec),
            stamp,
            decoded: None,
        }
    }

    /// Becomes another value in place, where that spares an allocation: the value that was touched, which keeps what was
    /// decoded, and one of the same length as this, whose buffer nobody else holds. It weighs what it is long then. Returns
    /// whether it did.
    pub(crate) fn renew(&mut self, value: &Value, stamp: Stamp) -> bool {
        if !self.shares_bytes(value) && !self.take_over(&value.bytes) {
            return false;
        }
        self.cas = number(value, stamp, Some(self));
        self.flags = value.flags;
        self.codec = Codec::from_number(value.codec);
        self.stamp = stamp;
        self.weight = value.bytes.len() as u64;
        true
    }

    /// Whether `value` is this very value under another stamp: the same bytes in memory, not merely equal ones.
    fn shares_bytes(&self, value: &Value) -> bool {
        let is_same = std::ptr::eq::<[u8]>(&*self.bytes, &*value.bytes);
        is_same && self.codec.number() == value.codec
    }

    /// Copies the bytes into the buffer that is here.
    fn take_over(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() == self.bytes.len() && bytes.len() <= RENEWED_BYTES_MAX;
        if !fits || self.decoded.is_some() {
            return false;
        }
        match mem::take(&mut self.bytes).try_into_mut() {
            Ok(mut buffer) => {
                buffer.copy_from_slice(bytes);
                self.bytes = buffer.freeze();
                true
            }
            Err(shared) => {
                self.bytes = shared;
                false
            }
        }
    }

    /// The value decoded as a `T`, if it was.
    #[inline]
    pub(crate) fn decoded<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        // The type is compared once, by a call through the value's table: a hot read is that and one clone. Of another type
        // the clone is for nothing, and never the last one, so nothing of a caller's is dropped here.
        Arc::clone(self.decoded.as_ref()?).downcast::<T>().ok()
    }

    /// The value as it is read as a `T`: decoded, or what it takes to decode it without the lock.
    pub(crate) fn seen<T: Send + Sync + 'static>(&self) -> Seen<T> {
        self.decoded().map_or_else(|| Seen::Encoded(self.encoded()), Seen::Decoded)
    }

    fn encoded(&self) -> Encoded {
        Encoded { bytes: self.bytes.clone(), codec: self.codec, stamp: self.stamp }
    }

    /// Whether a decoded form is kept.
    pub(crate) fn is_decoded(&self) -> bool {
        self.decoded.is_some()
    }

    /// Keeps the value as it was decoded, if it is still the one stamped `stamp` and was not decoded as anything yet;
    /// gives it back where it is not.
    pub(crate) fn keep_decoded(&mut self, stamp: Stamp, decoded: Decoded) -> Option<Decoded> {
        if self.stamp != stamp || self.decoded.is_some() {
            return Some(decoded);
        }
        self.decoded = Some(decoded);
        None
    }
}

/// The compare-and-set number of a value: the record's own, else the stamp's clock; one more where the value that it
/// replaces has that same number, since two origins can share a clock reading and a client that holds the replaced
/// value's number must not pass for one that holds this one's.
fn number(value: &Value, stamp: Stamp, replaced: Option<&Stored>) -> u64 {
    let number = value.cas.unwrap_or(stamp.hlc.0);
    let tied = replaced.is_some_and(|old| old.cas == number && old.stamp != stamp);
    if tied { number.wrapping_add(1) } else { number }
}

/// A value as a typed read finds it.
#[derive(Debug)]
pub(crate) enum Seen<T> {
    Decoded(Arc<T>),
    Encoded(Encoded),
}

impl<T: DeserializeOwned> Seen<T> {
    pub(crate) fn decode(self) -> Result<Arc<T>, Error> {
        match self {
            Self::Decoded(value) => Ok(value),
            Self::Encoded(encoded) => encoded.decode(),
        }
    }
}

/// A value that is yet to be decoded.
#[derive(Debug)]
pub(crate) struct Encoded {
    bytes: Bytes,
    codec: Codec,
    pub(crate) stamp: Stamp,
}

impl Encoded {
    pub(crate) fn decode<T: DeserializeOwned>(&self) -> Result<Arc<T>, Error> {
        self.codec.decode::<T>(&self.bytes).map(Arc::new)
    }
}
