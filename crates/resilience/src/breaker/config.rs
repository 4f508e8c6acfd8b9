//! The settings of a breaker, checked once when it is built.

use std::time::Duration;

use super::{CircuitBreaker, ConfigError, state::Core};

/// The largest count window, in calls (8 KiB of bits).
const WINDOW_CALLS_MAX: u32 = 65_536;
/// The most probes that may be out at once.
const PROBES_MAX: u32 = 1_024;
/// The longest wait or lease; longer is almost surely a wrong unit.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Checked settings.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) consecutive_failures: u32,
    pub(super) failure_rate: f64,
    pub(super) window_calls: u32,
    pub(super) minimum_calls: u32,
    pub(super) open_wait: Duration,
    pub(super) open_wait_max: Duration,
    pub(super) open_wait_factor: f64,
    pub(super) open_wait_jitter: f64,
    pub(super) probes: u32,
    pub(super) probe_lease: Duration,
}

/// Settings of a [`CircuitBreaker`] to be; begin with [`CircuitBreaker::builder`].
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
                window_calls: 100,
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

    /// How many failures in a row open the circuit. Default 3, at least 1.
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.settings.consecutive_failures = failures;
        self
    }

    /// Which share of failures in the window opens the circuit. Default 0.5; above 0, at most 1.
    pub fn failure_rate(mut self, rate: f64) -> Self {
        self.settings.failure_rate = rate;
        self
    }

    /// How many of the newest calls the failure rate is taken over. Default 100, from 1 to 65,536.
    pub fn window_calls(mut self, calls: u32) -> Self {
        self.settings.window_calls = calls;
        self
    }

    /// How many calls the window must hold before its rate means anything. Default 20, from 1 to the window.
    pub fn minimum_calls(mut self, calls: u32) -> Self {
        self.settings.minimum_calls = calls;
        self
    }

    /// How long the circuit stays open the first time. Default 60 s, above zero.
    pub fn open_wait(mut self, wait: Duration) -> Self {
        self.settings.open_wait = wait;
        self
    }

    /// The cap of the growing open wait. Default ten times the first wait; not below it.
    pub fn open_wait_max(mut self, wait: Duration) -> Self {
        self.open_wait_max = Some(wait);
        self
    }

    /// How much longer each further opening waits. Default 2, from 1 to 100.
    pub fn open_wait_factor(mut self, factor: f64) -> Self {
        self.settings.open_wait_factor = factor;
        self
    }

    /// Which share of the open wait is left to chance, so that many callers do not return at once. Default
    /// 0.1: a wait of 60 s is drawn from 54 s to 60 s. From 0 to 1.
    pub fn open_wait_jitter(mut self, jitter: f64) -> Self {
        self.settings.open_wait_jitter = jitter;
        self
    }

    /// How many calls are let through after the open wait; the circuit closes when all have succeeded and opens
    /// again when one fails. Default 1, from 1 to 1,024.
    pub fn probes(mut self, probes: u32) -> Self {
        self.settings.probes = probes;
        self
    }

    /// How long such a call may hold its slot without an answer. Default 30 s, above zero.
    pub fn probe_lease(mut self, lease: Duration) -> Self {
        self.settings.probe_lease = lease;
        self
    }

    /// Makes the jitter repeatable. Default: a different seed each time.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// A closed breaker with these settings.
    ///
    /// # Errors
    /// A [`ConfigError`] that names the first setting that is out of its range.
    pub fn build(self) -> Result<CircuitBreaker, ConfigError> {
        let Self { mut settings, open_wait_max, seed } = self;
        settings.open_wait_max =
            open_wait_max.unwrap_or_else(|| settings.open_wait.saturating_mul(10).min(DURATION_MAX));
        settings.check()?;
        let random = seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Ok(CircuitBreaker::from_core(Core::new(settings, random)))
    }
}

impl Settings {
    fn check(&self) -> Result<(), ConfigError> {
        whole("consecutive_failures", self.consecutive_failures, u32::MAX)?;
        if !(self.failure_rate > 0.0 && self.failure_rate <= 1.0) {
            return wrong(
                "failure_rate",
                format!("is {}; use a share above 0, at most 1", self.failure_rate),
            );
        }
        whole("window_calls", self.window_calls, WINDOW_CALLS_MAX)?;
        whole("minimum_calls", self.minimum_calls, self.window_calls)?;
        duration("open_wait", self.open_wait)?;
        duration("open_wait_max", self.open_wait_max)?;
        if self.open_wait_max < self.open_wait {
            let problem =
                format!("is {:?}, less than `open_wait` of {:?}", self.open_wait_max, self.open_wait);
            return wrong("open_wait_max", problem);
        }
        if !(1.0..=100.0).contains(&self.open_wait_factor) {
            return wrong("open_wait_factor", format!("is {}; use 1 to 100", self.open_wait_factor));
        }
        if !(0.0..=1.0).contains(&self.open_wait_jitter) {
            return wrong("open_wait_jitter", format!("is {}; use 0 to 1", self.open_wait_jitter));
        }
        whole("probes", self.probes, PROBES_MAX)?;
        duration("probe_lease", self.probe_lease)
    }
}

fn whole(field: &'static str, value: u32, max: u32) -> Result<(), ConfigError> {
    if (1..=max).contains(&value) { Ok(()) } else { wrong(field, format!("is {value}; use 1 to {max}")) }
}

fn duration(field: &'static str, value: Duration) -> Result<(), ConfigError> {
    if value.is_zero() || value > DURATION_MAX {
        return wrong(field, format!("is {value:?}; use more than zero and at most 366 days"));
    }
    Ok(())
}

fn wrong(field: &'static str, problem: String) -> Result<(), ConfigError> {
    Err(ConfigError { part: "circuit breaker", field, problem })
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
        }
        assert_eq!(field(new().window_calls(0)), "window_calls");
        assert_eq!(field(new().window_calls(65_537)), "window_calls");
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
    fn the_message_says_what_is_wrong_and_what_is_right() {
        let error = CircuitBreaker::builder().failure_rate(1.5).build().expect_err("the rate is too high");
        assert_eq!(
            error.to_string(),
            "circuit breaker setting `failure_rate` is 1.5; use a share above 0, at most 1"
        );
    }
}
