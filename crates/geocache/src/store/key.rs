//! A key as the map holds it: a short one lies in the entry itself.
//!
//! A look-up compares keys, and a key elsewhere in memory is one more wait for it; for a short one its allocation would
//! also be larger than the key.

use std::{
    borrow::Borrow,
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
};

/// What lies in place. With it a key takes 32 bytes, as a handle on bytes elsewhere would.
const INLINE_BYTES: usize = 30;

/// The bytes of a key.
pub(super) enum Key {
    Inline { length: u8, bytes: [u8; INLINE_BYTES] },
    Boxed(Box<[u8]>),
}

impl Key {
    pub(super) fn new(key: &[u8]) -> Self {
        if key.len() > INLINE_BYTES {
            return Self::Boxed(key.into());
        }
        let mut bytes = [0; INLINE_BYTES];
        bytes[..key.len()].copy_from_slice(key);
        Self::Inline { length: key.len() as u8, bytes }
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Self::Boxed(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self[..].hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.escape_ascii().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use replication::wire::KeyHasher;

    use super::*;

    #[test]
    fn a_key_of_any_length_is_its_bytes_and_has_their_position() {
        let hasher = KeyHasher::new("geocache");
        for length in [0, 1, INLINE_BYTES, INLINE_BYTES + 1, 250] {
            let bytes: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            let key = Key::new(&bytes);
            assert_eq!(&key[..], bytes);
            assert_eq!(key, Key::new(&bytes));
            assert_eq!(hasher.hash_one(&key), hasher.position(&bytes));
            assert_eq!(matches!(key, Key::Boxed(_)), length > INLINE_BYTES);
        }
        assert_ne!(Key::new(b"a"), Key::new(b"a\0"));
        assert_eq!(size_of::<Key>(), 32);
    }
}
