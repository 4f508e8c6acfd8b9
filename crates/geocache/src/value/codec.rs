//! How typed values become bytes, and which of the ways a stored value took.
//!
//! The codec is a value, not a type or a feature: its number travels beside each record, so that caches with different
//! codecs read each other's values, and a value written as raw bytes (by a memcached client, say) is read back as text
//! or bytes. MessagePack is written with named fields, not as arrays, so that a field added in one region does not
//! shift the others in a region whose program is older; that costs the names' bytes and buys rolling upgrades.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

use super::raw;
use crate::error::{CodecError, Error};

/// The upper three bytes of the client flags that say how a value is encoded: `GCC`. The codec's number is the lowest.
const FLAGS_MARK: u32 = u32::from_be_bytes([b'G', b'C', b'C', 0]);

/// How a value is encoded.
///
/// # Programs of two versions
/// [`MessagePack`](Self::MessagePack) and [`Json`](Self::Json) name fields and variants, so regions whose programs are of
/// different versions read each other's values:
///
/// | the newer type | reads what the older wrote | is read by the older |
/// |---|---|---|
/// | has one field more | with `#[serde(default)]`, or as an `Option` with it | the field is passed over |
/// | has one field less | the field is passed over | an error, unless it has a default there |
/// | has its fields in another order, or a wider number | yes | yes, while the number fits |
/// | names a field otherwise | with `#[serde(alias = "…")]` | an error |
/// | has one variant more | yes | an error for that variant alone |
///
/// An error is an [`Error::Decode`] that names type, codec and reason, and leaves the stored value as it is, here and elsewhere.
/// **What a program does not know it cannot keep**: where the older one writes a value that it has read (an
/// [`update`](crate::GeoCache::update) for example), the fields that it passed over are gone, everywhere. So let all
/// regions read a new field before one relies on it. A [`touch`](crate::GeoCache::touch) keeps the bytes as they are.
/// [`Raw`](Self::Raw) has no schema: bytes and text are what they are, and any other type is refused.
///
/// # Over the memcached protocol
/// A value's flags are the 32 bits that a client stores beside it. There a typed value has a mark in them, which
/// [`to_flags`](Self::to_flags) makes and [`from_flags`](Self::from_flags) reads, so that it can be read as what it is by every program,
/// whichever way it came. Flags of other clients are theirs alone: nothing is read into them, and they come back as they were set.
///
/// ```
/// use geocache::Codec;
/// assert_eq!(Codec::MessagePack.to_flags(), 0x4743_4301);
/// assert_eq!(Codec::from_flags(0x4743_4302), Some(Codec::Json));
/// assert_eq!((Codec::Raw.to_flags(), Codec::from_flags(0), Codec::from_flags(7)), (0, None, None));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Codec {
    /// Bytes and text as they are; nothing else. What memcached clients read and write.
    Raw,
    /// MessagePack with named fields: any `serde` type, compact.
    #[default]
    MessagePack,
    /// JSON: any `serde` type with text keys, readable by people and by every language.
    Json,
    /// A codec of a newer program, by its number; kept and passed on, but not readable here.
    Unknown(u8),
}

impl Codec {
    /// The number by which it is known on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::MessagePack => 1,
            Self::Json => 2,
            Self::Unknown(number) => number,
        }
    }

    /// The codec of a number.
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Raw,
            1 => Self::MessagePack,
            2 => Self::Json,
            other => Self::Unknown(other),
        }
    }

    /// The memcached client flags that a value of this codec has; 0 for raw bytes.
    pub const fn to_flags(self) -> u32 {
        match self {
            Self::Raw => 0,
            // A byte fits in 32 bits.
            codec => FLAGS_MARK | codec.number() as u32,
        }
    }

    /// The codec that memcached client flags say; `None` where they are a client's own.
    pub const fn from_flags(flags: u32) -> Option<Self> {
        let [high, middle, low, number] = flags.to_be_bytes();
        let is_marked = u32::from_be_bytes([high, middle, low, 0]) == FLAGS_MARK;
        if is_marked && number != 0 { Some(Self::from_number(number)) } else { None }
    }

    /// The client flags of a value with this codec and flags of its own.
    pub(crate) const fn marked(self, own: u32) -> u32 {
        if own == 0 { self.to_flags() } else { own }
    }

    /// What client flags say: a value's own flags, and its codec.
    pub(crate) fn unmarked(flags: u32) -> (u32, Self) {
        Self::from_flags(flags).map_or((flags, Self::Raw), |codec| (0, codec))
    }

    pub(crate) fn encode<T: Serialize + ?Sized>(self, value: &T) -> Result<Vec<u8>, Error> {
        let encoded: Result<Vec<u8>, CodecError> = match self {
            Self::Raw => raw::to_vec(value).map_err(Into::into),
            Self::MessagePack => rmp_serde::to_vec_named(value).map_err(Into::into),
            Self::Json => serde_json::to_vec(value).map_err(Into::into),
            Self::Unknown(_) => Err(unknown()),
        };
        encoded.map_err(|source| Error::Encode { type_name: std::any::type_name::<T>(), codec: self, source })
    }

    pub(crate) fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, Error> {
        let decoded: Result<T, CodecError> = match self {
            Self::Raw => raw::from_slice(bytes).map_err(Into::into),
            Self::MessagePack => message_pack(bytes),
            Self::Json => serde_json::from_slice(bytes).map_err(Into::into),
            Self::Unknown(_) => Err(unknown()),
        };
        decoded.map_err(|source| Error::Decode { type_name: std::any::type_name::<T>(), codec: self, source })
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw => f.write_str("raw"),
            Self::MessagePack => f.write_str("MessagePack"),
            Self::Json => f.write_str("JSON"),
            Self::Unknown(number) => write!(f, "codec {number}"),
        }
    }
}

/// `rmp_serde::from_slice` stops after the first value and ignores what follows it; bytes left over mean that this is
/// something else than was asked for.
fn message_pack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let mut rest = bytes;
    let value = T::deserialize(&mut rmp_serde::Deserializer::new(&mut rest))?;
    if rest.is_empty() { Ok(value) } else { Err(format!("{} bytes follow the value", rest.len()).into()) }
}

fn unknown() -> CodecError {
    "this program does not know the codec; a newer one wrote the value".into()
}
