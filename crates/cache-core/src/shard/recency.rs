//! The order of use: slot numbers from the coldest to the hottest, kept by the `lru` crate.

use std::hash::{BuildHasherDefault, Hasher};

use lru::LruCache;

/// Slots in order of recency. It knows nothing of entries.
pub(crate) struct Recency {
    order: LruCache<u32, (), BuildHasherDefault<SlotHasher>>,
}

impl Recency {
    pub(crate) fn new() -> Self {
        Recency { order: LruCache::unbounded_with_hasher(BuildHasherDefault::default()) }
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// Adds a slot that is not in the order, at the hot end.
    pub(crate) fn push(&mut self, slot: u32) {
        self.order.push(slot, ());
    }

    #[inline]
    pub(crate) fn coldest(&self) -> Option<u32> {
        self.order.peek_lru().map(|(slot, ())| *slot)
    }

    /// All slots, from the hottest to the coldest.
    pub(crate) fn hottest(&self) -> impl Iterator<Item = u32> + '_ {
        self.order.iter().map(|(slot, ())| *slot)
    }

    /// Moves a slot to the hot end.
    #[inline]
    pub(crate) fn promote(&mut self, slot: u32) {
        self.order.promote(&slot);
    }

    /// Moves a slot to the cold end.
    pub(crate) fn demote(&mut self, slot: u32) {
        self.order.demote(&slot);
    }

    pub(crate) fn remove(&mut self, slot: u32) {
        self.order.pop(&slot);
    }
}

/// Slot numbers are dense and ours: each is its own bucket, so no two ever collide and nobody can aim at it. What comes into use
/// together has neighbouring numbers, and then lies together here too.
#[derive(Default)]
pub(crate) struct SlotHasher(u64);

impl Hasher for SlotHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte) ^ (self.0 as u32));
        }
    }

    #[inline]
    fn write_u32(&mut self, slot: u32) {
        /// The table tells neighbours apart by a hash's top seven bits before it looks at the keys.
        const TAG: u64 = 0x7F << 57;
        // 2^64 divided by the golden ratio, the customary odd constant: neighbours get different tags.
        self.0 = u64::from(slot) | (u64::from(slot).wrapping_mul(0x9E37_79B9_7F4A_7C15) & TAG);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}
