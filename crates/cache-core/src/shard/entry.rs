//! An entry in the slab, and the word that holds all the shard must know of it.

use std::num::NonZeroU64;

use super::policy::Segment;

/// The heaviest entry that any share can hold: weights are stored in 32 bits.
pub(crate) const WEIGHT_MAX: u64 = u32::MAX as u64;

/// 16 bytes beside the key and the value; the word is never zero, which makes a vacant slot free of charge.
pub(crate) struct Entry<K, V> {
    pub(crate) key: K,
    pub(crate) value: V,
    pub(crate) hash: u64,
    pub(crate) word: Word,
}

/// An entry to be put in, its weight not yet judged.
pub(crate) struct New<K, V> {
    pub(crate) hash: u64,
    pub(crate) key: K,
    pub(crate) value: V,
    pub(crate) weight: u64,
    pub(crate) deadline: u64,
    pub(crate) origin: Origin,
}

/// Where a write came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A caller here: a use.
    Local,
    /// Another region: no sign that anybody here wants the entry.
    Remote,
}

/// A deadline of 56 bits above eight bits of flags.
///
/// The entry is live while the time is before the deadline; [`NEVER`](crate::clock::NEVER) is never reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(NonZeroU64);

impl Word {
    const FLAG_BITS: u32 = 8;
    const FLAGS: u64 = (1 << Self::FLAG_BITS) - 1;
    /// Always set, so the word is not zero.
    const OCCUPIED: NonZeroU64 = NonZeroU64::MIN;
    const MARKED: u64 = 1 << 1;
    const SEGMENT_SHIFT: u32 = 2;
    const SEGMENT: u64 = 0b11 << Self::SEGMENT_SHIFT;

    #[inline]
    pub(crate) fn new(deadline: u64, segment: Segment) -> Self {
        Word(Self::OCCUPIED | (deadline << Self::FLAG_BITS) | ((segment as u64) << Self::SEGMENT_SHIFT))
    }

    #[inline]
    pub(crate) fn deadline(self) -> u64 {
        self.0.get() >> Self::FLAG_BITS
    }

    #[inline]
    pub(crate) fn set_deadline(&mut self, deadline: u64) {
        self.0 = Self::OCCUPIED | (self.0.get() & Self::FLAGS) | (deadline << Self::FLAG_BITS);
    }

    /// Whether the entry was used since it last stood at the cold end of the order.
    #[inline]
    pub(crate) fn is_marked(self) -> bool {
        self.0.get() & Self::MARKED != 0
    }

    #[inline]
    pub(crate) fn mark(&mut self) {
        self.0 |= Self::MARKED;
    }

    #[inline]
    pub(crate) fn unmark(&mut self) {
        self.0 = Self::OCCUPIED | (self.0.get() & !Self::MARKED);
    }

    #[inline]
    pub(crate) fn segment(self) -> Segment {
        Segment::from_bits(((self.0.get() & Self::SEGMENT) >> Self::SEGMENT_SHIFT) as u8)
    }

    #[inline]
    pub(crate) fn set_segment(&mut self, segment: Segment) {
        let others = self.0.get() & !Self::SEGMENT;
        self.0 = Self::OCCUPIED | others | ((segment as u64) << Self::SEGMENT_SHIFT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::NEVER;

    #[test]
    fn a_slot_costs_16_bytes_over_key_and_value() {
        assert_eq!(size_of::<Option<Entry<u64, u64>>>(), 16 + 16);
    }

    #[test]
    fn the_parts_of_a_word_do_not_touch_each_other() {
        for deadline in [0, 1, 0xA5A5_A5A5_A5A5, NEVER - 1, NEVER] {
            for segment in [Segment::First, Segment::Second, Segment::Third] {
                let mut word = Word::new(NEVER, Segment::Third);
                word.mark();
                word.set_deadline(deadline);
                word.set_segment(segment);
                assert_eq!((word.deadline(), word.segment(), word.is_marked()), (deadline, segment, true));
                word.unmark();
                assert_eq!(word, Word::new(deadline, segment));
            }
        }
    }
}
