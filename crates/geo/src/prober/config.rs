//! The settings of a prober, checked once when it is built.

use std::{sync::Arc, time::Duration};

use super::{Counts, Prober};
use crate::{ConfigError, Router};

/// Settings of a [`Prober`] to be; begin with [`Prober::builder`].
///
/// ```
/// use std::time::Duration;
///
/// let router = geo::Router::builder().region("eu-central").build()?;
/// let error = geo::Prober::builder(router).interval(Duration::ZERO).build().unwrap_err();
/// assert_eq!(error.to_string(), "`interval` is zero; use more");
/// # Ok::<(), geo::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct ProberBuilder {
    router: Router,
    interval: Duration,
    jitter: f64,
    timeout: Duration,
    concurrency: usize,
    seed: Option<u64>,
}

/// Beyond this, a sum with the clock's time could overflow.
const TIME_MAX: Duration = Duration::from_secs(24 * 3_600);

impl ProberBuilder {
    pub(super) fn new(router: Router) -> Self {
        Self {
            router,
            interval: Duration::from_secs(10),
            jitter: 0.2,
            timeout: Duration::from_secs(2),
            concurrency: 4,
            seed: None,
        }
    }

    /// The time from one probe of a region to its next. Default 10 s; above zero, at most a day.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// By which share of it an interval may be shorter or longer. Default 0.2; from 0, below 1.
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }

    /// How long a probe may take. Default 2 s; above zero, at most a day.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many probes may be under way at once. Default 4, at least 1.
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// What the jitter is made of, so that a run can be repeated. Default: another one for each prober.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// A prober that does nothing until it [runs](Prober::run).
    ///
    /// # Errors
    /// A [`ConfigError`] that names the setting that is out of its range.
    pub fn build(self) -> Result<Prober, ConfigError> {
        let Self { router, interval, jitter, timeout, concurrency, seed } = self;
        for (field, time) in [("interval", interval), ("timeout", timeout)] {
            if time.is_zero() {
                return Err(ConfigError::value(field, "is zero; use more"));
            }
            if time > TIME_MAX {
                return Err(ConfigError::value(field, format!("is {time:?}; use at most a day")));
            }
        }
        if !(0.0..1.0).contains(&jitter) {
            return Err(ConfigError::value("jitter", format!("is {jitter}; use a share from 0, below 1")));
        }
        if concurrency == 0 {
            return Err(ConfigError::value("concurrency", "is zero; use more"));
        }
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        Ok(Prober {
            router,
            interval,
            jitter,
            timeout,
            concurrency,
            random: fastrand::Rng::with_seed(seed),
            counts: Arc::new(Counts::default()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_setting_is_refused_by_name() {
        let router = Router::builder().region("us-east").build().unwrap();
        let new = || Prober::builder(router.clone());
        for (builder, message) in [
            (new().interval(Duration::ZERO), "`interval` is zero; use more"),
            (new().interval(Duration::from_secs(100_000)), "`interval` is 100000s; use at most a day"),
            (new().timeout(Duration::ZERO), "`timeout` is zero; use more"),
            (new().timeout(Duration::MAX), "`timeout` is 18446744073709551615.999999999s; use at most a day"),
            (new().jitter(-0.1), "`jitter` is -0.1; use a share from 0, below 1"),
            (new().jitter(1.0), "`jitter` is 1; use a share from 0, below 1"),
            (new().jitter(f64::NAN), "`jitter` is NaN; use a share from 0, below 1"),
            (new().concurrency(0), "`concurrency` is zero; use more"),
        ] {
            assert_eq!(builder.build().expect_err("the settings are wrong").to_string(), message);
        }
    }
}
