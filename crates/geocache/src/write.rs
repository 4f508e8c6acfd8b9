//! Writes: applied here at once, replicated behind the caller's back; none here waits for the network.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use replication::Stamp;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::Error,
    node::GeoCache,
    read::Item,
    store::{Condition, Life, Outcome, Payload},
    value::Codec,
};

/// How often [`GeoCache::update`] tries before it gives up.
const UPDATE_TRIES_MAX: u32 = 256;

/// How often a thread lets others go first, at most, before it tries again.
const YIELDS_MAX: u32 = 32;

/// How long a value lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TimeToLive {
    /// As the cache was built: its default time to live, or for ever.
    #[default]
    Default,
    /// Until it is evicted or removed.
    Never,
    /// This long. Less than a millisecond is no life: the key is removed.
    For(Duration),
    /// As long as the value that it replaces; the default where there is none.
    Keep,
}

impl From<Duration> for TimeToLive {
    fn from(life: Duration) -> Self {
        Self::For(life)
    }
}

/// A value to store as it is, for callers that speak bytes.
///
/// ```
/// use geocache::{Codec, Write};
/// let write = Write { bytes: "hello".into(), ..Write::default() };
/// assert_eq!((write.flags, write.codec), (0, Codec::Raw));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The value. It is kept as given, or copied over the value that it replaces where that has the same length: a slice
    /// of a larger buffer keeps the whole buffer in memory.
    pub bytes: Bytes,
    /// The client's own 32 bits.
    pub flags: u32,
    /// How long it lives.
    pub ttl: TimeToLive,
    /// How `bytes` are encoded, which typed reads go by.
    pub codec: Codec,
}

impl Default for Write {
    /// No bytes, no flags, the default life, raw.
    fn default() -> Self {
        Self { bytes: Bytes::new(), flags: 0, ttl: TimeToLive::Default, codec: Codec::Raw }
    }
}

impl Write {
    /// A value of any `serde` type, with the default life; [`Item::decode`] reads it.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn encoded<T: Serialize + ?Sized>(value: &T, codec: Codec) -> Result<Self, Error> {
        Ok(Self { bytes: codec.encode(value)?.into(), codec, ..Self::default() })
    }

    /// The client flags that it has over the memcached protocol: its own where it has some, else the [codec's mark](Codec::to_flags).
    pub const fn memcached_flags(&self) -> u32 {
        self.codec.marked(self.flags)
    }

    /// With the client flags that came over the memcached protocol: a [codec's mark](Codec::to_flags) says how the bytes are encoded, all
    /// else is the client's own.
    #[must_use]
    pub fn with_memcached_flags(self, flags: u32) -> Self {
        let (flags, codec) = Codec::unmarked(flags);
        Self { flags, codec, ..self }
    }
}

/// What must hold for a change to be made; judged and made in one step on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Expect {
    /// Nothing.
    #[default]
    Any,
    /// The key holds no value.
    Absent,
    /// The key holds a value.
    Present,
    /// The key holds the value of this compare-and-set number.
    Cas(u64),
}

impl From<Expect> for Condition {
    fn from(expect: Expect) -> Self {
        match expect {
            Expect::Any => Self::Any,
            Expect::Absent => Self::Absent,
            Expect::Present => Self::Present,
            Expect::Cas(number) => Self::Cas(number),
        }
    }
}

impl GeoCache {
    /// Stores a value of any `serde` type, with the default time to live. Visible here at once, elsewhere after the lag.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Encode`], [`Error::ValueTooLarge`], [`Error::Closed`]; nothing is changed then.
    pub fn put<T: Serialize + ?Sized>(&self, key: impl AsRef<[u8]>, value: &T) -> Result<(), Error> {
        self.put_stamped(key.as_ref(), value, TimeToLive::Default).map(drop)
    }

    /// As [`put`](Self::put), with a time to live of its own. Less than a millisecond removes the key.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_with_ttl<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        ttl: Duration,
    ) -> Result<(), Error> {
        self.put_stamped(key.as_ref(), value, TimeToLive::For(ttl)).map(drop)
    }

    /// Changes a value by a function of what it is, and returns what it is then.
    ///
    /// `change` sees `None` where the key holds nothing, and leaves the key empty by returning `None`. It runs outside
    /// every lock, and again where another writer on this node was faster, at most 256 times. The value keeps what is
    /// left of its life. **On this node** no change in between is overwritten; two regions that update one key at once
    /// keep one of the two outcomes, so exact counters across regions are not offered. Fields of the stored value that `T` does not
    /// know are lost (see [`Codec`]).
    ///
    /// # Errors
    /// As [`put`](Self::put); [`Error::Decode`] where the stored value is not a `T`; [`Error::Contended`] where other
    /// writers were faster each time. Nothing is changed then.
    pub fn update<T, F>(&self, key: impl AsRef<[u8]>, mut change: F) -> Result<Option<Arc<T>>, Error>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
        F: FnMut(Option<Arc<T>>) -> Option<T>,
    {
        let key = &*self.writable(key.as_ref())?;
        let life = self.life(TimeToLive::Keep);
        for tried in 1..=UPDATE_TRIES_MAX {
            let seen = self.store().peek(key, |stored, _| (stored.stamp, stored.seen::<T>()));
            let condition = Condition::Seen(seen.as_ref().map(|(stamp, _)| *stamp));
            let before = seen.map(|(_, seen)| seen.decode()).transpose()?;
            let is_absent = before.is_none();
            let after = change(before);
            let outcome = match &after {
                Some(value) => self.put_typed(key, value, life, condition)?.0,
                None if is_absent => return Ok(None),
                None => self.store().remove(key, condition),
            };
            if outcome != Outcome::Exists {
                return Ok(after.map(Arc::new));
            }
            // Two writers in step would go on in step, and the same one lose each time.
            for _ in 0..fastrand::u32(1..=tried.min(YIELDS_MAX)) {
                std::thread::yield_now();
            }
        }
        Err(Error::Contended { tries: UPDATE_TRIES_MAX })
    }

    /// Removes a key here and everywhere; says whether this node held a value.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Closed`].
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        Ok(matches!(self.remove_if(key.as_ref(), Expect::Any)?, Outcome::Done { .. }))
    }

    /// Gives a value a new life from now on, here and everywhere; says whether this node held one.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Closed`].
    pub fn touch(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool, Error> {
        Ok(self.touch_item(key.as_ref(), TimeToLive::For(ttl))?.is_some())
    }

    /// Forgets every key, in a [`namespace`](Self::namespace) those of it alone, here at once and everywhere after the lag. Takes the same time whatever the cache holds; the
    /// memory is given back in the background. A concurrent write elsewhere with an older stamp is forgotten too.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn clear(&self) -> Result<(), Error> {
        self.open()?;
        self.store().clear_stamped(self.prefix());
        Ok(())
    }

    /// Stores raw bytes if the expectation holds.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::ValueTooLarge`], [`Error::Closed`]; nothing is changed then.
    pub fn write(&self, key: &[u8], write: Write, expect: Expect) -> Result<Outcome, Error> {
        let key = self.writable(key)?;
        let payload = Payload { bytes: write.bytes, flags: write.flags, codec: write.codec, weight: None };
        Ok(self.put_payload(&key, payload, self.life(write.ttl), expect.into())?.0)
    }

    /// Removes a key if the expectation holds. With [`Expect::Any`] the remove is replicated even where this node holds
    /// nothing ([`Outcome::Missing`]), since another may.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Closed`].
    pub fn remove_if(&self, key: &[u8], expect: Expect) -> Result<Outcome, Error> {
        let key = self.writable(key)?;
        Ok(self.store().remove(&key, expect.into()))
    }

    /// Gives a value a new life and returns it as it is then; `None` where this node holds none.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Closed`].
    pub fn touch_item(&self, key: &[u8], ttl: TimeToLive) -> Result<Option<Item>, Error> {
        let key = self.writable(key)?;
        Ok(self.store().touch(&key, self.life(ttl), Item::of))
    }

    /// Stores a value whatever is there; gives the stamp of the change.
    pub(crate) fn put_stamped<T: Serialize + ?Sized>(
        &self,
        key: &[u8],
        value: &T,
        ttl: TimeToLive,
    ) -> Result<Stamp, Error> {
        let key = self.writable(key)?;
        let (_, stamp) = self.put_typed(&key, value, self.life(ttl), Condition::Any)?;
        Ok(stamp.expect("nothing refuses a change without a condition"))
    }

    /// As [`put_stamped`](Self::put_stamped), of a value that weighs so much, where something is said.
    pub(crate) fn put_weighted<T: Serialize + ?Sized>(
        &self,
        key: &[u8],
        value: &T,
        ttl: TimeToLive,
        weight: Option<u64>,
    ) -> Result<Stamp, Error> {
        let key = self.writable(key)?;
        let max = self.store().weight_max(key.len());
        if let Some(weight) = weight.filter(|weight| *weight > max) {
            return Err(Error::TooHeavy { weight, max });
        }
        let payload = Payload { weight, ..self.encoded(value)? };
        let (_, stamp) = self.put_payload(&key, payload, self.life(ttl), Condition::Any)?;
        Ok(stamp.expect("nothing refuses a change without a condition"))
    }

    /// As the other writes, of a key as the store has it.
    pub(crate) fn put_typed<T: Serialize + ?Sized>(
        &self,
        key: &[u8],
        value: &T,
        life: Life,
        condition: Condition,
    ) -> Result<(Outcome, Option<Stamp>), Error> {
        self.open()?;
        self.put_payload(key, self.encoded(value)?, life, condition)
    }

    /// A value as it is stored by this handle.
    pub(crate) fn encoded<T: Serialize + ?Sized>(&self, value: &T) -> Result<Payload, Error> {
        let codec = self.codec();
        // A boxed slice holds no spare capacity, which would stay in memory as long as the value.
        let bytes = Bytes::from(codec.encode(value)?.into_boxed_slice());
        Ok(Payload { bytes, flags: 0, codec, weight: None })
    }

    fn put_payload(
        &self,
        key: &[u8],
        payload: Payload,
        life: Life,
        condition: Condition,
    ) -> Result<(Outcome, Option<Stamp>), Error> {
        self.fits(&payload)?;
        Ok(self.store().put_stamped(key, payload, life, condition))
    }

    /// Whether a value is within the limit.
    pub(crate) fn fits(&self, payload: &Payload) -> Result<(), Error> {
        let (bytes, max) = (payload.bytes.len(), self.value_bytes_max());
        if bytes > max { Err(Error::ValueTooLarge { bytes, max }) } else { Ok(()) }
    }
}
