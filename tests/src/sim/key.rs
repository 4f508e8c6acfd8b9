//! The keys of all scenarios: few, numbered, in two namespaces and outside of both.

use std::{collections::HashMap, sync::LazyLock};

use replication::wire::KeyHasher;

/// The most keys that a scenario uses.
pub const KEYS_MAX: usize = 32;

/// What a clear may name; the empty one is the whole cache.
pub const NAMESPACES: [&str; 3] = ["", "a/", "b/"];

/// The keys by their numbers.
static KEYS: LazyLock<Vec<String>> =
    LazyLock::new(|| (0..KEYS_MAX).map(|key| format!("{}{key:02}", ["", "a/", "b/"][key % 3])).collect());

/// The numbers by the keys' positions on the ring of hashes.
static POSITIONS: LazyLock<HashMap<u64, usize>> = LazyLock::new(|| {
    let hasher = KeyHasher::new("geocache");
    KEYS.iter().enumerate().map(|(key, text)| (hasher.position(text.as_bytes()), key)).collect()
});

/// The text of a key.
///
/// # Panics
/// If there is no key of this number.
pub fn text(key: usize) -> &'static str {
    &KEYS[key]
}

/// The number of a key; `None` for one that no scenario uses.
pub fn number(text: &[u8]) -> Option<usize> {
    let digits = text.get(text.len().checked_sub(2)?..)?;
    let key: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    KEYS.get(key).filter(|known| known.as_bytes() == text).map(|_| key)
}

/// The position of a key.
pub fn position(key: usize) -> u64 {
    KeyHasher::new("geocache").position(text(key).as_bytes())
}

/// The number of the key at a position.
pub fn at(position: u64) -> Option<usize> {
    POSITIONS.get(&position).copied()
}

/// The keys in a namespace.
pub fn within(namespace: &[u8]) -> impl Iterator<Item = usize> {
    (0..KEYS_MAX).filter(move |key| text(*key).as_bytes().starts_with(namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_text_and_by_its_position() {
        let hasher = KeyHasher::new("geocache");
        for key in 0..KEYS_MAX {
            assert_eq!(number(text(key).as_bytes()), Some(key));
            assert_eq!(at(hasher.position(text(key).as_bytes())), Some(key));
        }
        for other in ["", "1", "a/00", "99", "é1"] {
            assert_eq!(number(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_namespace_holds_the_keys_that_begin_with_it() {
        assert_eq!(within(b"").count(), KEYS_MAX);
        assert!(within(b"b/").all(|key| key % 3 == 2) && within(b"b/").count() == 10);
    }
}
