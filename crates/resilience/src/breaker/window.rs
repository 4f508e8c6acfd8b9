//! The outcomes of the last calls, as an exact sliding count.

/// A ring of the last `size` outcomes, one bit each; a set bit is a failure.
///
/// `failures` always equals the number of set bits among the `len` newest, so that the rate is exact and costs
/// no walk.
#[derive(Debug)]
pub(super) struct Window {
    bits: Box<[u64]>,
    size: u32,
    len: u32,
    next: u32,
    failures: u32,
}

impl Window {
    /// An empty window of `size` calls; `size` is at least 1.
    pub(super) fn new(size: u32) -> Self {
        let words = (size as usize).div_ceil(64);
        Self { bits: vec![0; words].into_boxed_slice(), size, len: 0, next: 0, failures: 0 }
    }

    /// Adds one outcome; the oldest leaves if the window is full.
    pub(super) fn push(&mut self, failed: bool) {
        let (word, mask) = ((self.next / 64) as usize, 1u64 << (self.next % 64));
        if self.len == self.size {
            self.failures -= u32::from(self.bits[word] & mask != 0);
        } else {
            self.len += 1;
        }
        if failed {
            self.bits[word] |= mask;
            self.failures += 1;
        } else {
            self.bits[word] &= !mask;
        }
        self.next = (self.next + 1) % self.size;
    }

    /// Forgets all outcomes.
    pub(super) fn clear(&mut self) {
        (self.len, self.next, self.failures) = (0, 0, 0);
    }

    /// How many outcomes it holds.
    pub(super) fn calls(&self) -> u32 {
        self.len
    }

    /// How many of them are failures.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The share of failures, 0 if there are no calls.
    pub(super) fn failure_rate(&self) -> f64 {
        if self.len == 0 { 0.0 } else { f64::from(self.failures) / f64::from(self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_rate_is_that_of_the_newest_calls_exactly(
            size in 1u32..200, outcomes in proptest::collection::vec(any::<bool>(), 0..600), clear_at in 0usize..600,
        ) {
            let mut window = Window::new(size);
            let mut all: Vec<bool> = Vec::new();
            for (at, failed) in outcomes.into_iter().enumerate() {
                if at == clear_at {
                    window.clear();
                    all.clear();
                }
                window.push(failed);
                all.push(failed);
                let newest = &all[all.len().saturating_sub(size as usize)..];
                let failures = newest.iter().filter(|failed| **failed).count();
                prop_assert_eq!(window.calls() as usize, newest.len());
                prop_assert_eq!(window.failures() as usize, failures);
                prop_assert_eq!(window.failure_rate(), failures as f64 / newest.len() as f64);
            }
        }
    }

    #[test]
    fn an_empty_window_has_no_failures() {
        assert_eq!(Window::new(10).failure_rate(), 0.0);
    }
}
