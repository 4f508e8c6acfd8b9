//! About how often each hash was used lately, in eight bytes per entry.
//!
//! A count-min sketch of four-bit counters, as W-TinyLFU uses it: each hash has four counters in one block, which is one cache line, and
//! its frequency is the least of them. Whenever ten uses per entry were counted, all counters are halved, so that what was
//! popular once is forgotten. The halving is spread over the uses that follow, some blocks each, so none of them waits for all.

/// The most that a counter can count.
pub(crate) const FREQUENCY_MAX: u8 = 15;
/// After so many uses per entry the counters are halved.
const USES_PER_ENTRY: usize = 10;
/// How many blocks one use halves while a halving is under way.
const HALVED_TOGETHER: usize = 16;
const BLOCKS_MIN: usize = 4;
const ENTRIES_PER_BLOCK: usize = 8;

/// 128 counters of four bits.
#[derive(Clone, Default)]
#[repr(align(64))]
struct Block([u64; 8]);

/// The frequencies of hashes.
pub(crate) struct Sketch {
    /// A power of two.
    blocks: Vec<Block>,
    entries: usize,
    uses: usize,
    /// How many blocks are still to be halved, from the last down.
    halving: usize,
}

impl Sketch {
    pub(crate) fn new() -> Self {
        Sketch { blocks: vec![Block::default(); BLOCKS_MIN], entries: 0, uses: 0, halving: 0 }
    }

    /// Makes the sketch large enough for so many entries. When it grows, it begins anew, which it does a bounded number of times.
    pub(crate) fn fit(&mut self, entries: usize) {
        self.entries = entries;
        let blocks = entries.div_ceil(ENTRIES_PER_BLOCK).next_power_of_two().max(BLOCKS_MIN);
        if blocks > self.blocks.len() {
            *self = Sketch { blocks: vec![Block::default(); blocks], entries, uses: 0, halving: 0 };
        }
    }

    /// Counts a use.
    pub(crate) fn note(&mut self, hash: u64) {
        let (at, bits) = self.place(hash);
        let block = &mut self.blocks[at].0;
        let mut is_new = false;
        for row in 0..4 {
            let (word, shift) = counter(bits, row);
            if (block[word] >> shift) & 0xF != u64::from(FREQUENCY_MAX) {
                block[word] += 1 << shift;
                is_new = true;
            }
        }
        if self.halving > 0 {
            self.halve_some();
        } else if is_new {
            self.uses += 1;
            if self.uses >= USES_PER_ENTRY * self.entries.max(ENTRIES_PER_BLOCK * BLOCKS_MIN) {
                self.uses /= 2;
                self.halving = self.blocks.len();
            }
        }
    }

    /// How often a hash was used, at most [`FREQUENCY_MAX`]; rather too many than too few.
    pub(crate) fn frequency(&self, hash: u64) -> u8 {
        let (at, bits) = self.place(hash);
        let block = &self.blocks[at].0;
        let counts = (0..4).map(|row| {
            let (word, shift) = counter(bits, row);
            ((block[word] >> shift) & 0xF) as u8
        });
        counts.min().unwrap_or(0)
    }

    /// The hash's block, and the bits that choose its counters in there.
    #[inline]
    fn place(&self, hash: u64) -> (usize, u32) {
        // Hashes of one shard share their top bits, so they are spread again.
        let spread = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((spread >> 32) as usize & (self.blocks.len() - 1), (spread ^ hash) as u32)
    }

    fn halve_some(&mut self) {
        let from = self.halving.saturating_sub(HALVED_TOGETHER);
        for block in &mut self.blocks[from..self.halving] {
            for word in &mut block.0 {
                *word = (*word >> 1) & 0x7777_7777_7777_7777;
            }
        }
        self.halving = from;
    }
}

/// Word and shift of a row's counter: each row has two words of the block to itself.
#[inline]
fn counter(bits: u32, row: usize) -> (usize, u32) {
    let bits = bits >> (8 * row);
    (2 * row + (bits & 1) as usize, ((bits >> 1) & 0xF) * 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        (n + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93).rotate_left(29).wrapping_mul(0xCA5A_8263_9512_1157)
    }

    #[test]
    fn frequencies_are_counted_up_to_the_most_and_kept_apart() {
        let mut sketch = Sketch::new();
        sketch.fit(1_000);
        for n in 0..40 {
            (0..n).for_each(|_| sketch.note(hash(n)));
        }
        for n in 0..40 {
            assert!(sketch.frequency(hash(n)) >= (n as u8).min(FREQUENCY_MAX), "never too few");
        }
        let exact = (0..15).filter(|n| sketch.frequency(hash(*n)) == *n as u8).count();
        assert!(exact >= 14, "{exact} of 15 small ones are exact");
        assert!((1_000..1_100).filter(|n| sketch.frequency(hash(*n)) == 0).count() > 90);
    }

    #[test]
    #[cfg_attr(miri, ignore = "so many uses take Miri many minutes")]
    fn what_was_popular_once_is_forgotten_in_bounded_steps() {
        let mut sketch = Sketch::new();
        sketch.fit(10_000);
        (0..15).for_each(|_| sketch.note(hash(0)));
        assert_eq!(sketch.frequency(hash(0)), 15);
        let mut n = 1;
        while sketch.halving == 0 {
            sketch.note(hash(n));
            n += 1;
        }
        assert!((99_000..110_000).contains(&n), "about ten uses per entry: {n}");
        let steps = sketch.blocks.len() / HALVED_TOGETHER;
        (0..steps).for_each(|step| sketch.note(hash(n + step as u64)));
        assert_eq!(sketch.halving, 0);
        assert_eq!(sketch.frequency(hash(0)), 7);
    }
}
