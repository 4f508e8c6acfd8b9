//! Growing, capped and jittered waits between attempts.
//!
//! A [`Backoff`] only computes waits: it owns no clock and sleeps for nobody, so the same value serves a
//! task, a thread and a simulation. Full jitter is the default, because many peers that lost the same broker
//! at the same moment would otherwise return at the same moment too; the ceiling grows, the wait is drawn
//! below it. "Equal" and "decorrelated" jitter were left out: they spread less for the same mean.
//!
//! The iterator never ends. Whoever wants a bound on attempts says so: `backoff.take(5)`, or a look at
//! [`Backoff::attempts`].
//!
//! ```
//! use std::time::Duration;
//! use resilience::Backoff;
//!
//! let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1)).jitter(0.0);
//! let waits: Vec<u128> = backoff.by_ref().take(5).map(|wait| wait.as_millis()).collect();
//! assert_eq!(waits, [100, 200, 400, 800, 1000]);
//! backoff.reset();
//! assert_eq!(backoff.next(), Some(Duration::from_millis(100)));
//! ```

use std::time::Duration;

/// The shortest base: a smaller one would make a retry loop spin.
const BASE_MIN: Duration = Duration::from_millis(1);

/// An endless iterator of waits that grow to a cap.
///
/// The `n`th wait (from 0) is drawn below a ceiling of `min(max, base × factor^n)`; [`jitter`](Self::jitter)
/// says how far below. A clone continues with the same waits as the original.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    factor: f64,
    jitter: f64,
    attempts: u32,
    random: fastrand::Rng,
}

impl Backoff {
    /// Waits that start below `base`, double each time and never exceed `max`, with full jitter.
    ///
    /// A `base` under 1 ms counts as 1 ms, so that no retry loop can spin; a `max` under the base counts as
    /// the base.
    pub fn new(base: Duration, max: Duration) -> Self {
        let base = base.max(BASE_MIN);
        Self { base, max: max.max(base), factor: 2.0, jitter: 1.0, attempts: 0, random: fastrand::Rng::new() }
    }

    /// How much the ceiling grows with each attempt. Default 2. Less than 1, or not a number, counts as 1.
    #[must_use]
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = if factor >= 1.0 { factor } else { 1.0 };
        self
    }

    /// Which share of the ceiling is left to chance: 0 waits exactly the ceiling, 1 (the default) anything
    /// from nothing to the ceiling. Held to 0 to 1; not a number counts as 1.
    #[must_use]
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.jitter = if jitter.is_nan() { 1.0 } else { jitter.clamp(0.0, 1.0) };
        self
    }

    /// Makes the jitter repeatable. Default: a different seed each time.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.random = fastrand::Rng::with_seed(seed);
        self
    }

    /// Begins again at the base, as after a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// How many waits were given since the start or the last [`reset`](Self::reset).
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    /// The next wait; never `None`.
    fn next(&mut self) -> Option<Duration> {
        let ceiling = grown(self.base, self.factor, self.max, self.attempts);
        self.attempts = self.attempts.saturating_add(1);
        Some(jittered(ceiling, self.jitter, &mut self.random))
    }
}

/// `base × factor^steps`, at most `max`.
pub(crate) fn grown(base: Duration, factor: f64, max: Duration, steps: u32) -> Duration {
    let seconds = base.as_secs_f64() * factor.powf(f64::from(steps));
    Duration::try_from_secs_f64(seconds).map_or(max, |wait| wait.min(max))
}

/// A wait drawn evenly from the last `jitter` share below `ceiling`.
pub(crate) fn jittered(ceiling: Duration, jitter: f64, random: &mut fastrand::Rng) -> Duration {
    if jitter <= 0.0 {
        return ceiling;
    }
    ceiling.mul_f64(1.0 - jitter * random.f64()).min(ceiling)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(30);

    #[test]
    fn equal_seeds_give_equal_waits() {
        let waits = |seed| Backoff::new(BASE, MAX).seed(seed).take(20).collect::<Vec<_>>();
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
    }

    #[test]
    fn full_jitter_fills_the_whole_range_below_the_ceiling() {
        let waits: Vec<f64> =
            (0..2_000).map(|seed| Backoff::new(BASE, MAX).seed(seed).next().unwrap().as_secs_f64()).collect();
        let mean = waits.iter().sum::<f64>() / waits.len() as f64;
        assert!((0.045..0.055).contains(&mean), "mean {mean}");
        assert!(waits.iter().any(|wait| *wait < 0.005) && waits.iter().any(|wait| *wait > 0.095));
    }

    #[test]
    fn a_reset_begins_at_the_base_and_forgets_the_attempts() {
        let mut backoff = Backoff::new(BASE, MAX).jitter(0.0);
        assert_eq!(backoff.nth(9), Some(MAX));
        assert_eq!(backoff.attempts(), 10);
        backoff.reset();
        assert_eq!(backoff.attempts(), 0);
        assert_eq!(backoff.next(), Some(BASE));
    }

    #[test]
    fn the_cap_holds_after_any_number_of_attempts() {
        let mut backoff = Backoff::new(BASE, MAX).jitter(0.0);
        backoff.attempts = u32::MAX - 1;
        assert_eq!(backoff.next(), Some(MAX));
        assert_eq!(backoff.next(), Some(MAX));
        assert_eq!(backoff.attempts(), u32::MAX);
    }

    #[test]
    fn a_zero_base_does_not_spin() {
        let mut backoff = Backoff::new(Duration::ZERO, Duration::ZERO).jitter(0.0);
        assert_eq!(backoff.next(), Some(BASE_MIN));
    }

    #[test]
    fn senseless_factors_and_jitters_are_held_to_their_range() {
        for factor in [f64::NAN, 0.0, -3.0] {
            let mut backoff = Backoff::new(BASE, MAX).factor(factor).jitter(-1.0);
            assert_eq!(backoff.nth(5), Some(BASE), "factor {factor}");
        }
        let mut steep = Backoff::new(BASE, MAX).factor(f64::INFINITY).jitter(0.0);
        assert_eq!(steep.nth(1), Some(MAX));
    }

    proptest! {
        #[test]
        fn no_wait_exceeds_its_ceiling(
            base_ms in 0u64..10_000, max_ms in 0u64..100_000, factor in 0.5f64..5.0, jitter in -0.5f64..1.5, seed: u64,
        ) {
            let (base, max) = (Duration::from_millis(base_ms), Duration::from_millis(max_ms));
            let jittered = Backoff::new(base, max).factor(factor).jitter(jitter).seed(seed);
            let ceilings = Backoff::new(base, max).factor(factor).jitter(0.0);
            let floor = 1.0 - jitter.clamp(0.0, 1.0);
            for (wait, ceiling) in jittered.zip(ceilings).take(40) {
                prop_assert!(wait <= ceiling);
                prop_assert!(wait.as_secs_f64() >= ceiling.as_secs_f64() * floor - 1e-6);
                prop_assert!(ceiling <= max.max(base).max(BASE_MIN));
            }
        }
    }
}
