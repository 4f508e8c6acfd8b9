//! Growing, capped and jittered waits between attempts.
//!
//! A [`Backoff`] only computes waits: it owns no clock and sleeps for nobody, so the same value serves a
//! task, a thread and a simulation. Full jitter is the default, because many peers that lost the same broker
//! at the same moment would otherwise return at the same moment too; the ceiling grows, the wait is drawn
//! evenly from nothing up to it. The rule and its reason are Marc Brooker's, "Exponential Backoff And Jitter"
//! (AWS Architecture Blog, 2015): of the schemes compared there, full jitter makes the callers do the least work,
//! and "decorrelated" jitter comes close but ends a little later. "Equal" jitter is `jitter(0.5)` here.
//!
//! The iterator never ends. Whoever wants a bound on attempts says so: `backoff.take(5)`, or a look at
//! [`Backoff::attempts`]. [`Backoff::new`] is for waits that are written in code, and holds senseless ones to their
//! range; waits that come from a configuration go through [`Backoff::builder`], which refuses them by name.
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

use crate::{
    breaker::ConfigError,
    setting::{Check, DURATION_MAX},
};

/// The shortest base: a smaller one would make a retry loop spin.
const BASE_MIN: Duration = Duration::from_millis(1);

/// An endless iterator of waits that grow to a cap.
///
/// The `n`th wait (from 0) is drawn below a ceiling of `min(max, base × factor^n)`; [`jitter`](Self::jitter)
/// says how far below. A clone continues with the same waits as the original; for many callers that must not wait
/// in step, [`fork`](Self::fork) it.
///
/// ```
/// use std::time::Duration;
/// use resilience::Backoff;
///
/// let waits = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
/// assert!(waits.take(100).all(|wait| wait <= Duration::from_secs(2)));
/// ```
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
    /// Settings that are checked, for waits that come from a configuration.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience::Backoff;
    ///
    /// let backoff = Backoff::builder().base(Duration::from_millis(50)).max(Duration::from_secs(2)).build()?;
    /// let error = Backoff::builder().jitter(1.5).build().unwrap_err();
    /// assert_eq!(error.to_string(), "backoff setting `jitter` is 1.5; use 0 to 1");
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn builder() -> BackoffBuilder {
        BackoffBuilder::default()
    }

    /// Waits that start below `base`, double each time and never exceed `max`, with full jitter.
    ///
    /// A `base` under 1 ms counts as 1 ms, so that no retry loop can spin; a `max` under the base counts as
    /// the base.
    ///
    /// ```
    /// use std::time::Duration;
    /// let mut backoff = resilience::Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    /// assert!(backoff.next() <= Some(Duration::from_millis(50)));
    /// ```
    pub fn new(base: Duration, max: Duration) -> Self {
        let base = base.max(BASE_MIN);
        Self { base, max: max.max(base), factor: 2.0, jitter: 1.0, attempts: 0, random: fastrand::Rng::new() }
    }

    /// How much the ceiling grows with each attempt. Default 2. Less than 1, or not a number, counts as 1.
    ///
    /// ```
    /// use std::time::Duration;
    /// let second = Duration::from_secs(1);
    /// let mut tens = resilience::Backoff::new(second, 60 * second).factor(10.0).jitter(0.0);
    /// assert_eq!(tens.nth(1), Some(10 * second));
    /// ```
    #[must_use]
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = if factor >= 1.0 { factor } else { 1.0 };
        self
    }

    /// Which share of the ceiling is left to chance: 0 waits exactly the ceiling, 1 (the default) anything
    /// from nothing to the ceiling. Held to 0 to 1; not a number counts as 1.
    ///
    /// ```
    /// use std::time::Duration;
    /// let second = Duration::from_secs(1);
    /// let mut equal = resilience::Backoff::new(second, 60 * second).jitter(0.5);
    /// assert!(equal.next() >= Some(second / 2));
    /// ```
    #[must_use]
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.jitter = if jitter.is_nan() { 1.0 } else { jitter.clamp(0.0, 1.0) };
        self
    }

    /// Makes the jitter repeatable. Default: a different seed each time.
    ///
    /// ```
    /// use std::time::Duration;
    /// let waits = || resilience::Backoff::new(Duration::from_secs(1), Duration::from_secs(9)).seed(7).take(5);
    /// assert!(waits().eq(waits()));
    /// ```
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.random = fastrand::Rng::with_seed(seed);
        self
    }

    /// The same waits from the beginning, with a jitter of its own: what the next of many callers takes.
    ///
    /// ```
    /// use std::time::Duration;
    /// let mut first = resilience::Backoff::new(Duration::from_secs(1), Duration::from_secs(9)).seed(7);
    /// let second = first.fork();
    /// assert!(!first.take(5).eq(second.take(5)), "they wait apart");
    /// ```
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self { attempts: 0, random: self.random.fork(), ..self.clone() }
    }

    /// Begins again at the base, as after a success.
    ///
    /// ```
    /// use std::time::Duration;
    /// let mut backoff = resilience::Backoff::new(Duration::from_secs(1), Duration::from_secs(9)).jitter(0.0);
    /// backoff.nth(4);
    /// backoff.reset();
    /// assert_eq!(backoff.next(), Some(Duration::from_secs(1)));
    /// ```
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// How many waits were given since the start or the last [`reset`](Self::reset).
    ///
    /// ```
    /// use std::time::Duration;
    /// let mut backoff = resilience::Backoff::new(Duration::from_secs(1), Duration::from_secs(9));
    /// backoff.nth(2);
    /// assert_eq!(backoff.attempts(), 3);
    /// ```
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// Settings of a [`Backoff`] to be; begin with [`Backoff::builder`].
///
/// ```
/// assert!(resilience::Backoff::builder().factor(3.0).build().is_ok());
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct BackoffBuilder {
    base: Duration,
    max: Duration,
    factor: f64,
    jitter: f64,
    seed: Option<u64>,
}

impl Default for BackoffBuilder {
    /// 100 ms, doubling to 10 s, with full jitter.
    fn default() -> Self {
        Self {
            base: Duration::from_millis(100),
            max: Duration::from_secs(10),
            factor: 2.0,
            jitter: 1.0,
            seed: None,
        }
    }
}

impl BackoffBuilder {
    /// The first ceiling. Default 100 ms; at least 1 ms.
    pub fn base(mut self, base: Duration) -> Self {
        self.base = base;
        self
    }

    /// The ceiling that growth stops at. Default 10 s; not below the base, at most 366 days.
    pub fn max(mut self, max: Duration) -> Self {
        self.max = max;
        self
    }

    /// How much the ceiling grows with each attempt. Default 2, from 1 to 100.
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// Which share of the ceiling is left to chance. Default 1, full jitter; from 0 to 1.
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }

    /// Makes the jitter repeatable. Default: a different seed each time.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The backoff with these settings.
    ///
    /// # Errors
    /// A [`ConfigError`] that names the first setting that is out of its range.
    pub fn build(self) -> Result<Backoff, ConfigError> {
        let check = Check("backoff");
        if self.base < BASE_MIN || self.base > DURATION_MAX {
            check.wrong("base", format!("is {:?}; use 1 ms to 366 days", self.base))?;
        }
        check.cap("max", self.max, "base", self.base)?;
        check.number("factor", self.factor, 1.0..=100.0)?;
        check.number("jitter", self.jitter, 0.0..=1.0)?;
        let backoff = Backoff::new(self.base, self.max).factor(self.factor).jitter(self.jitter);
        Ok(match self.seed {
            Some(seed) => backoff.seed(seed),
            None => backoff,
        })
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
    fn settings_out_of_range_are_refused_by_name() {
        let new = Backoff::builder;
        let field = |builder: BackoffBuilder| builder.build().expect_err("the settings are wrong").field;
        assert!(new().build().is_ok());
        assert_eq!(field(new().base(Duration::ZERO)), "base");
        assert_eq!(field(new().base(Duration::MAX).max(Duration::MAX)), "base");
        assert_eq!(field(new().base(MAX).max(BASE)), "max");
        for factor in [0.9, 101.0, f64::NAN] {
            assert_eq!(field(new().factor(factor)), "factor");
        }
        for jitter in [-0.1, 1.1, f64::NAN] {
            assert_eq!(field(new().jitter(jitter)), "jitter");
        }
    }

    #[test]
    fn forks_wait_apart_and_yet_repeatably() {
        let mut origin = Backoff::new(BASE, MAX).seed(7);
        origin.nth(3);
        let forks: Vec<Vec<Duration>> = (0..3).map(|_| origin.fork().take(8).collect()).collect();
        assert!(forks[0] != forks[1] && forks[1] != forks[2]);
        assert!(forks.iter().all(|waits| waits[0] <= BASE), "a fork begins at the base");
        let mut again = Backoff::new(BASE, MAX).seed(7);
        again.nth(3);
        assert_eq!(again.fork().take(8).collect::<Vec<_>>(), forks[0]);
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
