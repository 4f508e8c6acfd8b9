//! What a node holds for a key: the encoded value, its stamp, and the value decoded once.

mod codec;
mod raw;
#[cfg(test)]
mod tests;

use std::{
    any::Any,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use replication::{Stamp, Value};
use serde::de::DeserializeOwned;

pub use codec::Codec;

use crate::error::Error;

/// One key's value. Shared by reference count between the map and its readers, and never changed.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) bytes: Bytes,
    pub(crate) flags: u32,
    pub(crate) codec: Codec,
    /// The compare-and-set number on this node.
    pub(crate) cas: u64,
    pub(crate) stamp: Stamp,
    /// The value in the type that it was first read as.
    decoded: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Stored {
    /// A value as it was stamped. Its number is the record's own, else the stamp's clock; one more where the value that
    /// it replaces has that same number, since two origins can share a clock reading and a client that holds the
    /// replaced value's number must not pass for one that holds this one's.
    pub(crate) fn new(value: Value, stamp: Stamp, replaced: Option<&Stored>) -> Self {
        let number = value.cas.unwrap_or(stamp.hlc.0);
        let tied = replaced.is_some_and(|old| old.cas == number && old.stamp != stamp);
        Self {
            bytes: value.bytes,
            flags: value.flags,
            codec: Codec::from_number(value.codec),
            cas: if tied { number.wrapping_add(1) } else { number },
            stamp,
            decoded: OnceLock::new(),
        }
    }

    /// The same value under the stamp of a touch, which keeps what was decoded.
    pub(crate) fn restamped(old: &Stored, value: Value, stamp: Stamp) -> Self {
        let stored = Self::new(value, stamp, Some(old));
        if let Some(decoded) = old.decoded.get() {
            let _ = stored.decoded.set(Arc::clone(decoded));
        }
        stored
    }

    /// Whether `value` is this very value under another stamp: the same bytes in memory, not merely equal ones.
    pub(crate) fn shares_bytes(&self, value: &Value) -> bool {
        let is_same = std::ptr::eq::<[u8]>(&*self.bytes, &*value.bytes);
        is_same && self.codec.number() == value.codec
    }

    /// The value, if it was decoded as a `T` before.
    pub(crate) fn decoded<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let decoded = self.decoded.get()?;
        // The type is compared before the count is touched: a hot read is one clone.
        decoded.is::<T>().then(|| Arc::clone(decoded).downcast::<T>().ok())?
    }

    /// The value as a `T`: decoded now, and kept for the next read where it is the first type asked for.
    pub(crate) fn decode<T: DeserializeOwned + Send + Sync + 'static>(&self) -> Result<Arc<T>, Error> {
        if let Some(value) = self.decoded() {
            return Ok(value);
        }
        let value = Arc::new(self.codec.decode::<T>(&self.bytes)?);
        let _ = self.decoded.set(Arc::<T>::clone(&value));
        Ok(value)
    }
}
