//! W-TinyLFU: a window, then admission by frequency into a segmented LRU.
//!
//! A new entry enters the window. What falls out of the window is weighed against the next victim of the main part by how often
//! each was used lately, and the lesser of the two goes. In the main part an entry is on *probation* first, and *protected* once it was
//! used there. Remote writes, with a remote depth set, enter at the window's cold end unless somebody here has asked for them lately: so
//! they are the next to be weighed, and too light, and push out neither what is new here nor what is in the main part.
//!
//! Segments are divided by entries, also where the bound is one of weight.
//!
//! How large the window should be depends on the work: 1 % keeps what is popular, a large one what is recent. So it is changed in
//! steps, onwards while the hit ratio rises and back when it falls (Einziger, Eytan, Friedman and Manes, *Adaptive Software Cache
//! Management*, 2018).

use super::{Rule, Segment, Store, sketch::Sketch};
use crate::shard::Origin;

/// The share of all entries that the window has at first, and the least and the most it may have.
const WINDOW: f64 = 0.01;
const WINDOW_MIN: f64 = 0.005;
const WINDOW_MAX: f64 = 0.8;
/// The share of the main part that is protected.
const PROTECTED: f64 = 0.8;
/// After so many reads per entry the window is changed.
const READS_PER_ENTRY: u64 = 10;
const STEP: f64 = 0.0625;
/// Each step is a little smaller than the last, until the hit ratio changes by so much: then the work has changed.
const STEP_DECAY: f64 = 0.95;
const RESTART: f64 = 0.05;

pub(crate) struct TinyLfu {
    pub(crate) sketch: Sketch,
    window: f64,
    step: f64,
    /// The hit ratio when the window was changed last, and the hits and misses that had been counted then.
    hit_ratio: f64,
    hits: u64,
    misses: u64,
}

impl TinyLfu {
    pub(crate) fn new() -> Self {
        TinyLfu { sketch: Sketch::new(), window: WINDOW, step: STEP, hit_ratio: 0.0, hits: 0, misses: 0 }
    }

    pub(super) fn target(&self, segment: Segment, len: usize) -> usize {
        let window = ((len as f64 * self.window) as usize).max(1);
        match segment {
            Segment::First => window,
            Segment::Second => usize::MAX,
            Segment::Third => (len.saturating_sub(window) as f64 * PROTECTED) as usize,
        }
    }

    /// Changes the window once enough was read since it was changed last.
    fn climb(&mut self, hits: u64, misses: u64, entries: usize) {
        let (new_hits, new_misses) = (hits - self.hits, misses - self.misses);
        let reads = new_hits + new_misses;
        if reads < READS_PER_ENTRY * entries as u64 {
            return;
        }
        let hit_ratio = new_hits as f64 / reads as f64;
        let change = hit_ratio - self.hit_ratio;
        if change < 0.0 {
            self.step = -self.step;
        }
        self.window = (self.window + self.step).clamp(WINDOW_MIN, WINDOW_MAX);
        self.step = if change.abs() >= RESTART { STEP.copysign(self.step) } else { self.step * STEP_DECAY };
        (self.hit_ratio, self.hits, self.misses) = (hit_ratio, hits, misses);
    }
}

impl<K, V> Store<K, V> {
    /// What has to fall out of the window for a new entry to enter there.
    pub(super) fn candidate(&self, entering: Option<Origin>, keep: Option<u32>) -> Option<u32> {
        let order = &self.order;
        let Rule::TinyLfu(_) = order.rule else { return None };
        let is_over = entering.is_some() && order.is_full(Segment::First, self.share);
        order.recency.coldest(Segment::First).filter(|slot| is_over && keep != Some(*slot))
    }

    /// Whether an entry of another region belongs at the cold end: nobody here has asked for it lately.
    pub(super) fn is_unwanted(&self, hash: u64) -> bool {
        let Rule::TinyLfu(tiny_lfu) = &self.order.rule else { return false };
        tiny_lfu.sketch.frequency(hash) == 0
    }

    /// Whether a candidate was used more often than the one that would go for it.
    pub(super) fn is_worth_more(&self, candidate: u32, victim: u32) -> bool {
        let Rule::TinyLfu(tiny_lfu) = &self.order.rule else { return true };
        let frequency = |slot| tiny_lfu.sketch.frequency(self.entry(slot).hash);
        frequency(candidate) > frequency(victim)
    }

    /// Lets the window follow the hit ratio.
    pub(super) fn adapt(&mut self) {
        let len = self.len();
        if let Rule::TinyLfu(tiny_lfu) = &mut self.order.rule {
            tiny_lfu.climb(self.counts.hits, self.counts.misses, len);
        }
    }

    /// Counts a use, if this store counts them.
    #[inline]
    pub(crate) fn count_use(&mut self, hash: u64) {
        if let Rule::TinyLfu(tiny_lfu) = &mut self.order.rule {
            tiny_lfu.sketch.note(hash);
        }
    }
}
