//! Where a key stands: the replica hash that the wire fixes.

use std::hash::{BuildHasher, Hasher};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::node::Origin;

/// A cache's number in frame headers: the low half of the xxh3-64 of its name.
pub fn cache_id(cache: &str) -> u32 {
    // The low half is what is wanted.
    xxh3_64(cache.as_bytes()) as u32
}

/// How much a node weighs for the lease of the key at a position: of the nodes that can grant it, the one that weighs most
/// does. So every node that sees the same nodes asks the same one, keys spread over all, and where one goes only its
/// keys move.
///
/// ```
/// use replication::{Origin, wire::lease_weight};
/// let nodes = [Origin(1), Origin(2), Origin(3)];
/// let grantor = |position| nodes.into_iter().max_by_key(|node| lease_weight(position, *node));
/// assert_ne!(grantor(1), grantor(3));
/// ```
pub fn lease_weight(position: u64, node: Origin) -> u64 {
    xxh3_64_with_seed(&node.0.to_le_bytes(), position)
}

/// Hashes keys to their positions: the xxh3-64 of the key's bytes, seeded with the cache's id.
///
/// Every node of a cache must agree on a key's position, as graves, probes and sync pages name keys by it. As a
/// [`BuildHasher`] it gives the same number for each byte-string type (`[u8]`, `Vec<u8>`, `Bytes`), since its hasher
/// leaves out the length that they put ahead. Text types (`str`) append a byte when hashed and so differ: hash their
/// bytes.
///
/// ```
/// use std::hash::BuildHasher;
/// let hasher = replication::wire::KeyHasher::new("geocache");
/// assert_eq!(hasher.hash_one(&b"greeting"[..]), hasher.position(b"greeting"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHasher {
    seed: u64,
}

impl KeyHasher {
    /// The hasher of the cache of this name.
    pub fn new(cache: &str) -> Self {
        Self { seed: u64::from(cache_id(cache)) }
    }

    /// The key's position.
    pub fn position(&self, key: &[u8]) -> u64 {
        xxh3_64_with_seed(key, self.seed)
    }
}

impl BuildHasher for KeyHasher {
    type Hasher = KeyHasherState;

    #[inline]
    fn build_hasher(&self) -> KeyHasherState {
        KeyHasherState(self.seed)
    }
}

/// The state of hashing one key; see [`KeyHasher`].
#[derive(Debug, Clone)]
pub struct KeyHasherState(u64);

impl Hasher for KeyHasherState {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        // A second write (no byte string makes one) is seeded with the first's outcome.
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// Left out: it is the length that a slice puts ahead of its bytes.
    #[inline]
    fn write_usize(&mut self, _: usize) {}

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}
