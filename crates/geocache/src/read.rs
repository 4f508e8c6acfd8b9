//! Reads: typed ones that keep the decoded value, and raw ones for servers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::{
    error::Error,
    node::GeoCache,
    value::{Codec, Seen, Stored},
};

/// A stored value as it is, for callers that speak bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Item {
    /// The encoded value.
    pub bytes: Bytes,
    /// The client's own 32 bits.
    pub flags: u32,
    /// How `bytes` are encoded.
    pub codec: Codec,
    /// The compare-and-set number on this node; it differs for each value that the key has had here.
    pub cas: u64,
    /// What is left of its life; `None` where it does not expire.
    pub left: Option<Duration>,
}

impl Item {
    /// A raw value that does not expire, with no flags and no number: what implementors of
    /// [`Endpoint`](crate::client::Endpoint) begin with.
    pub const fn new(bytes: Bytes) -> Self {
        Self { bytes, flags: 0, codec: Codec::Raw, cas: 0, left: None }
    }

    /// The value as a `T`, decoded as its codec says.
    ///
    /// ```
    /// use geocache::{Codec, Write};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cache = geocache::GeoCache::builder().build().await?;
    /// cache.write(b"visits", Write::encoded(&41_u64, Codec::Json)?, Default::default())?;
    /// assert_eq!(cache.item(b"visits").expect("just stored").decode::<u64>()?, 41);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Decode`] where it is not a `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.codec.decode(&self.bytes)
    }

    /// The client flags that a memcached client sees: its own where it set some, else the [codec's mark](Codec::to_flags).
    pub const fn memcached_flags(&self) -> u32 {
        self.codec.marked(self.flags)
    }

    /// With the client flags that came over the memcached protocol, as [`Write::with_memcached_flags`](crate::Write::with_memcached_flags)
    /// understands them.
    #[must_use]
    pub fn with_memcached_flags(self, flags: u32) -> Self {
        let (flags, codec) = Codec::unmarked(flags);
        Self { flags, codec, ..self }
    }

    pub(crate) fn of(stored: &Stored, left: Option<Duration>) -> Self {
        Self { bytes: stored.bytes.clone(), flags: stored.flags, codec: stored.codec, cas: stored.cas, left }
    }
}

impl GeoCache {
    /// The value of a key, from this node's memory; `None` where it holds none.
    ///
    /// The first read of a value decodes it and keeps the result beside the bytes; further reads of the same type cost
    /// one lock and one `Arc` clone. The decoded form is not counted in the weight.
    ///
    /// # Errors
    /// [`Error::Key`]; [`Error::Decode`] where the stored value is not a `T`, which leaves it stored.
    pub fn get<T>(&self, key: impl AsRef<[u8]>) -> Result<Option<Arc<T>>, Error>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        self.with_full(key.as_ref(), |key| {
            // What is returned under the lock is a pointer: a value that is yet to be decoded is looked up once more.
            match self.store().read(key, |stored, _| stored.decoded::<T>()) {
                None => Ok(None),
                Some(Some(value)) => Ok(Some(value)),
                Some(None) => self.decode_held(key),
            }
        })?
    }

    /// The value of a key that was held undecoded a moment ago; keeps it as it is decoded.
    #[cold]
    fn decode_held<T>(&self, key: &[u8]) -> Result<Option<Arc<T>>, Error>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        match self.store().peek(key, |stored, _| stored.seen::<T>()) {
            None => Ok(None),
            Some(Seen::Decoded(value)) => Ok(Some(value)),
            Some(Seen::Encoded(encoded)) => {
                let value = encoded.decode::<T>()?;
                self.store().keep_decoded(key, encoded.stamp, Arc::<T>::clone(&value));
                Ok(Some(value))
            }
        }
    }

    /// Whether this node holds a live value of the key. Counts neither as a hit nor as a use.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        Ok(self.store().peek(&self.full(key.as_ref())?, |_, _| ()).is_some())
    }

    /// The value of a key as it is stored. A key that breaks the limits is held by no node, hence a miss.
    pub fn item(&self, key: &[u8]) -> Option<Item> {
        self.with_full(key, |key| self.store().read(key, Item::of)).ok()?
    }

    /// As [`item`](Self::item), but counts neither as a hit, nor as a miss, nor as a use.
    pub fn peek_item(&self, key: &[u8]) -> Option<Item> {
        self.store().peek(&self.full(key).ok()?, Item::of)
    }
}
