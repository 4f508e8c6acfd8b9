//! The settings of a breaker, checked once when it is built.

use std::time::{Duration, Instant};

use super::{CircuitBreaker, ConfigError, state::Core, window::Span};
use crate::{
    clock,
    setting::{Check, DURATION_MAX},
};

/// The largest count window, in calls, of a byte each.
const WINDOW_CALLS_MAX: u32 = 65_536;
/// The shortest time window: each of its tenths is a millisecond.
const WINDOW_TIME_MIN: Duration = Duration::from_millis(10);
/// The most probes that may be out at once.
const PROBES_MAX: u32 = 1_024;

/// Checked settings.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) consecutive_failures: u32,
    pub(super) failure_rate: f64,
    pub(super) overload_rate: f64,
    pub(super) slow_call_threshold: Option<Duration>,
    pub(super) slow_call_rate: f64,
    pub(super) window: Span,
    pub(super) minimum_calls: u32,
    pub(super) open_wait: Duration,
    pub(super) open_wait_max: Duration,
    pub(super) open_wait_factor: f64,
    pub(super) open_wait_jitter: f64,
    pub(super) probes: u32,
    pub(super) probe_lease: Duration,
}

/// Settings of a [`CircuitBreaker`] to be; begin with [`CircuitBreaker::builder`].
///
/// Each setting that is left alone keeps the default that its method states. They are checked once, by
/// [`build`](Self::build).
///
/// ```
/// use std::time::Duration;
/// use resilience::CircuitBreaker;
///
/// let breaker = CircuitBreaker::builder()
///     .window_time(Duration::from_secs(30))
///     .minimum_calls(50)
///     .failure_rate(0.25)
///     .slow_call_threshold(Duration::from_millis(800))
///     .slow_call_rate(0.5)
///     .open_wait(Duration::from_secs(5))
///     .probes(3)
///     .build()?;
/// assert!(breaker.try_acquire().is_ok());
/// # Ok::<(), resilience::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    settings: Settings,
    open_wait_max: Option<Duration>,
    seed: Option<u64>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            settings: Settings {
                consecutive_failures: 3,
                failure_rate: 0.5,
                overload_rate: 0.5,
                slow_call_threshold: None,
                slow_call_rate: 1.0,
                window: Span::Calls(100),
                minimum_calls: 20,
                open_wait: Duration::from_secs(60),
                open_wait_max: Duration::ZERO,
                open_wait_factor: 2.0,
                open_wait_jitter: 0.1,
                probes: 1,
                probe_lease: Duration::from_secs(30),
            },
            open_wait_max: None,
            seed: None,
        }
    }

    /// How many failures in a row open the circuit. Default 3, at least 1; `u32::MAX` leaves it to the rates.
    ///
    /// ```
    /// assert!(resilience::CircuitBreaker::builder().consecutive_failures(5).build().is_ok());
    /// ```
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.settings.consecutive_failures = failures;
        self
    }

    /// Which share of failures in the window opens the circuit. Default 0.5; above 0, at most 1.
    ///
    /// ```
    /// use resilience::CircuitBreaker;
    ///
    /// assert!(CircuitBreaker::builder().failure_rate(0.2).build().is_ok());
    /// let error = CircuitBreaker::builder().failure_rate(20.0).build().unwrap_err();
    /// assert_eq!(error.field, "failure_rate");
    /// ```
    pub fn failure_rate(mut self, rate: f64) -> Self {
        self.settings.failure_rate = rate;
        self
    }

    /// Which share of overloaded calls in the window opens the circuit, see [`Outcome::Overloaded`](super::Outcome::Overloaded). Default 0.5; above 0,
    /// at most 1.
    ///
    /// ```
    /// assert!(resilience::CircuitBreaker::builder().overload_rate(0.8).build().is_ok());
    /// ```
    pub fn overload_rate(mut self, rate: f64) -> Self {
        self.settings.overload_rate = rate;
        self
    }

    /// From which duration on, between permit and outcome, a call is slow, whatever its outcome. Default: none is.
    ///
    /// ```
    /// use std::time::Duration;
    /// assert!(resilience::CircuitBreaker::builder().slow_call_threshold(Duration::from_secs(2)).build().is_ok());
    /// ```
    pub fn slow_call_threshold(mut self, threshold: Duration) -> Self {
        self.settings.slow_call_threshold = Some(threshold);
        self
    }

    /// Which share of slow calls in the window opens the circuit. Default 1, so that all have to be slow; above 0, at most 1.
    /// Without a [`slow_call_threshold`](Self::slow_call_threshold) it means nothing.
    ///
    /// The same share among the probes keeps a circuit from closing even if all have succeeded.
    ///
    /// ```
    /// use std::time::Duration;
    /// assert!(resilience::CircuitBreaker::builder().slow_call_threshold(Duration::from_secs(2)).slow_call_rate(0.6).build().is_ok());
    /// ```
    pub fn slow_call_rate(mut self, rate: f64) -> Self {
        self.settings.slow_call_rate = rate;
        self
    }

    /// How many of the newest calls the rates are taken over. Default 100, from 1 to 65,536. Replaces
    /// [`window_time`](Self::window_time), as that replaces this.
    ///
    /// ```
    /// assert!(resilience::CircuitBreaker::builder().window_calls(50).build().is_ok());
    /// ```
    pub fn window_calls(mut self, calls: u32) -> Self {
        self.settings.window = Span::Calls(calls);
        self
    }

    /// Takes the rates over the calls that ended within the newest `length`, instead of over a number of calls. At least
    /// 10 ms.
    ///
    /// It is ten buckets: the running tenth and the nine whole ones before it, each counted exactly.
    ///
    /// ```
    /// use std::time::Duration;
    /// assert!(resilience::CircuitBreaker::builder().window_time(Duration::from_secs(10)).build().is_ok());
    /// ```
    pub fn window_time(mut self, length: Duration) -> Self {
        self.settings.window = Span::Time(length);
        self
    }

    /// How many calls the window must hold before its rates mean anything. Default 20; at least 1, and no more than a window
    /// of calls holds.
    ///
    /// ```
    /// assert!(resilience::CircuitBreaker::builder().minimum_calls(10).build().is_ok());
    /// ```
    pub fn minimum_calls(mut self, calls: u32) -> Self {
        self.settings.minimum_calls = calls;
        self
    }

    /// How long the circuit stays open the first time. Default 60 s, above zero.
    ///
    /// ```
    /// use std::time::Duration;
    /// assert!(resilience::CircuitBreaker::builder().open_wait(Duration::from_secs(5)).build().is_ok());
    /// ```
    pub fn open_wait(mut self, wait: Duration) -> Self {
        self.settings.open_wait = wait;
        self
    }

    /// The cap of the open wait, whether it grew or the callee asked for it. Default ten times the first wait; not below it.
    ///
    /// ```
    /// use std::time::Duration;
    /// assert!(resilience::CircuitBreaker::builder().open_wait_max(Duration::from_secs(120)).build().is_ok());
    /// ```
    pub fn open_wait_max(mut self, wait: Duration) -> Self {
        self.open_wait_max = Some(wait);
        self
    }

    /// How much longer each further opening waits. Default 2, from 1 to 100. Good time undoes it: a stretch of successes as
    /// long as the wait that a step had caused takes that step back.
    ///
    /// ```
    /// assert!(resilience::CircuitBreaker::builder().open_wait_factor(1.5).build().is_ok());
    /// ```
    pub fn open_wait_factor(mut self, factor: f64) -> Self {
        self.settings.open_wait_factor = factor;
        self
    }

    /// Which share of the open wait is left to chance, so that many callers do not return at once. Default
    /// 0.1: a wait of 60 s is drawn from 54 s to 60 s. From 0 to 1.
    ///
    /// ```
    /// assert!(resilience::CircuitBreaker::builder().open_wait_jitter(0.0).build().is_ok());
    /// ```
    pub fn open_wait_jitter(mut self, jitter: f64) -> Self {
        self.settings.open_wait_jitter = jitter;
        self
    }

    /// How many calls are let through after the open wait; the circuit closes when all have succeeded and opens
    /// again when one fails. Default 1, from 1 to 1,024.
    ///
    /// ```
    /// assert!(resilience::CircuitBreaker::builder().probes(3).build().is_ok());
    /// ```
    pub fn probes(mut self, probes: u32) -> Self {
        self.settings.probes = probes;
        self
    }

    /// How long such a call may hold its slot without an answer. Default 30 s, above zero.
    ///
    /// ```
    /// use std::time::Duration;
    /// assert!(resilience::CircuitBreaker::builder().probe_lease(Duration::from_secs(5)).build().is_ok());
    /// ```
    pub fn probe_lease(mut self, lease: Duration) -> Self {
        self.settings.probe_lease = lease;
        self
    }

    /// Makes the jitter repeatable. Default: a different seed each time.
    ///
    /// ```
    /// assert!(resilience::CircuitBreaker::builder().seed(7).build().is_ok());
    /// ```
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// A closed breaker with these settings.
    ///
    /// # Errors
    /// A [`ConfigError`] that names the first setting that is out of its range.
    ///
    /// ```
    /// let error = resilience::CircuitBreaker::builder().probes(0).build().unwrap_err();
    /// assert_eq!(error.to_string(), "circuit breaker setting `probes` is 0; use 1 to 1024");
    /// ```
    pub fn build(self) -> Result<CircuitBreaker, ConfigError> {
        self.build_at(clock::now())
    }

    /// [`build`](Self::build) at a given time, on which nothing depends.
    pub(super) fn build_at(self, now: Instant) -> Result<CircuitBreaker, ConfigError> {
        let Self { mut settings, open_wait_max, seed } = self;
        settings.open_wait_max =
            open_wait_max.unwrap_or_else(|| settings.open_wait.saturating_mul(10).min(DURATION_MAX));
        settings.check()?;
        let random = seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let slow_call_threshold = settings.slow_call_threshold;
        Ok(CircuitBreaker::from_core(Core::new(settings, random), now, slow_call_threshold))
    }
}

impl Settings {
    fn check(&self) -> Result<(), ConfigError> {
        let check = Check("circuit breaker");
        check.whole("consecutive_failures", self.consecutive_failures.into(), 1..=u32::MAX.into())?;
        check.share("failure_rate", self.failure_rate)?;
        check.share("overload_rate", self.overload_rate)?;
        if let Some(threshold) = self.slow_call_threshold {
            check.duration("slow_call_threshold", threshold)?;
        }
        check.share("slow_call_rate", self.slow_call_rate)?;
        let holds = match self.window {
            Span::Calls(calls) => {
                check.whole("window_calls", calls.into(), 1..=WINDOW_CALLS_MAX.into())?;
                calls
            }
            Span::Time(length) => {
                if !(WINDOW_TIME_MIN..=DURATION_MAX).contains(&length) {
                    let problem = format!("is {length:?}; use at least 10ms and at most 366 days");
                    return check.wrong("window_time", problem);
                }
                u32::MAX
            }
        };
        check.whole("minimum_calls", self.minimum_calls.into(), 1..=holds.into())?;
        check.duration("open_wait", self.open_wait)?;
        check.cap("open_wait_max", self.open_wait_max, "open_wait", self.open_wait)?;
        check.number("open_wait_factor", self.open_wait_factor, 1.0..=100.0)?;
        check.number("open_wait_jitter", self.open_wait_jitter, 0.0..=1.0)?;
        check.whole("probes", self.probes.into(), 1..=PROBES_MAX.into())?;
        check.duration("probe_lease", self.probe_lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(builder: Builder) -> &'static str {
        builder.build().expect_err("the settings are wrong").field
    }

    #[test]
    fn the_defaults_are_right() {
        assert!(CircuitBreaker::builder().build().is_ok());
    }

    #[test]
    fn each_setting_out_of_range_is_refused_by_name() {
        let new = CircuitBreaker::builder;
        assert_eq!(field(new().consecutive_failures(0)), "consecutive_failures");
        for rate in [0.0, -0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(field(new().failure_rate(rate)), "failure_rate");
            assert_eq!(field(new().overload_rate(rate)), "overload_rate");
            assert_eq!(field(new().slow_call_rate(rate)), "slow_call_rate");
        }
        assert_eq!(field(new().window_calls(0)), "window_calls");
        assert_eq!(field(new().window_calls(65_537)), "window_calls");
        assert_eq!(field(new().window_time(Duration::ZERO)), "window_time");
        assert_eq!(field(new().window_time(Duration::from_millis(9))), "window_time");
        assert_eq!(field(new().window_time(Duration::MAX)), "window_time");
        assert_eq!(field(new().slow_call_threshold(Duration::ZERO)), "slow_call_threshold");
        assert_eq!(field(new().minimum_calls(0)), "minimum_calls");
        assert_eq!(field(new().window_calls(10).minimum_calls(11)), "minimum_calls");
        assert_eq!(field(new().open_wait(Duration::ZERO)), "open_wait");
        assert_eq!(field(new().open_wait(Duration::MAX)), "open_wait");
        assert_eq!(field(new().open_wait_max(Duration::from_secs(59))), "open_wait_max");
        for factor in [0.9, 101.0, f64::NAN] {
            assert_eq!(field(new().open_wait_factor(factor)), "open_wait_factor");
        }
        for jitter in [-0.1, 1.1, f64::NAN] {
            assert_eq!(field(new().open_wait_jitter(jitter)), "open_wait_jitter");
        }
        assert_eq!(field(new().probes(0)), "probes");
        assert_eq!(field(new().probes(1_025)), "probes");
        assert_eq!(field(new().probe_lease(Duration::ZERO)), "probe_lease");
    }

    #[test]
    fn the_window_that_is_named_last_counts() {
        let new = || CircuitBreaker::builder().minimum_calls(1_000);
        assert!(new().window_calls(10).window_time(Duration::from_secs(1)).build().is_ok());
        assert_eq!(field(new().window_time(Duration::from_secs(1)).window_calls(10)), "minimum_calls");
    }

    #[test]
    fn the_message_says_what_is_wrong_and_what_is_right() {
        let error = CircuitBreaker::builder().failure_rate(1.5).build().expect_err("the rate is too high");
        assert_eq!(
            error.to_string(),
            "circuit breaker setting `failure_rate` is 1.5; use a share above 0, at most 1"
        );
    }
}
