//! The settings of a failover, checked once when it is built.

use std::time::Duration;

use super::Failover;
use crate::{breaker::ConfigError, setting::Check};

/// More failures or probes than that are almost surely a wrong unit.
const COUNT_MAX: u64 = 10_000;

/// Checked settings.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) down_after: u32,
    pub(super) up_after: u32,
    pub(super) dwell: Duration,
    pub(super) dwell_max: Duration,
    pub(super) dwell_factor: f64,
    pub(super) probation: Duration,
    pub(super) first_share: f64,
    pub(super) resync_patience: Duration,
    pub(super) resync_wait: Duration,
    pub(super) resync_wait_max: Duration,
    pub(super) epoch: u64,
    pub(super) fallback_filled: bool,
}

/// Settings of a [`Failover`] to be; begin with [`Failover::builder`].
///
/// ```
/// use std::time::Duration;
/// use resilience::Failover;
///
/// let failover = Failover::builder().down_after(3).up_after(3).dwell(Duration::from_secs(30)).build()?;
/// # let _ = failover;
/// # Ok::<(), resilience::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct FailoverBuilder {
    settings: Settings,
    dwell_max: Option<Duration>,
}

impl Default for FailoverBuilder {
    fn default() -> Self {
        let settings = Settings {
            down_after: 3,
            up_after: 3,
            dwell: Duration::from_secs(30),
            dwell_max: Duration::ZERO,
            dwell_factor: 2.0,
            probation: Duration::from_secs(30),
            first_share: 0.1,
            resync_patience: Duration::from_secs(600),
            resync_wait: Duration::from_secs(1),
            resync_wait_max: Duration::from_secs(60),
            epoch: 0,
            fallback_filled: true,
        };
        Self { settings, dwell_max: None }
    }
}

impl FailoverBuilder {
    /// How many failures of main, without `up_after` successes in a row between, take it down. Default 3, from 1 to
    /// 10,000.
    pub fn down_after(mut self, failures: u32) -> Self {
        self.settings.down_after = failures;
        self
    }

    /// How many successes in a row show that main is up: to clear a suspicion, to begin the way back, and to end
    /// the probation. Default 3, from 1 to 10,000.
    pub fn up_after(mut self, successes: u32) -> Self {
        self.settings.up_after = successes;
        self
    }

    /// How long it stays on the fallback at least. Default 30 s, above zero.
    pub fn dwell(mut self, dwell: Duration) -> Self {
        self.settings.dwell = dwell;
        self
    }

    /// The cap of the growing dwell. Default twenty times the first; not below it.
    pub fn dwell_max(mut self, dwell: Duration) -> Self {
        self.dwell_max = Some(dwell);
        self
    }

    /// How much longer the dwell is after each flap. Default 2, from 1 to 100.
    pub fn dwell_factor(mut self, factor: f64) -> Self {
        self.settings.dwell_factor = factor;
        self
    }

    /// How long main's share of the reads grows before it leads again. Default 30 s, above zero.
    pub fn probation(mut self, probation: Duration) -> Self {
        self.settings.probation = probation;
        self
    }

    /// The share of reads that main begins its probation with; it grows evenly to 1. Default 0.1, from 0 to 1.
    pub fn first_share(mut self, share: f64) -> Self {
        self.settings.first_share = share;
        self
    }

    /// How long a resync may run before it counts as failed. Default 10 min, above zero.
    pub fn resync_patience(mut self, patience: Duration) -> Self {
        self.settings.resync_patience = patience;
        self
    }

    /// The wait after a failed resync, which doubles with each further failure up to `max`. Default 1 s to 60 s;
    /// above zero, the cap not below the first.
    pub fn resync_wait(mut self, wait: Duration, max: Duration) -> Self {
        (self.settings.resync_wait, self.settings.resync_wait_max) = (wait, max);
        self
    }

    /// The epoch to begin with, such as the newest that was written down. Default 0; at most `u64::MAX / 2`.
    pub fn epoch(mut self, epoch: u64) -> Self {
        self.settings.epoch = epoch;
        self
    }

    /// Whether the fallback holds no older value of any key than main when this begins. Default yes, as when all
    /// writes were always copied to it. If not, the fallback is not used until it was refilled from main, or answered
    /// that it is empty.
    pub fn fallback_filled(mut self, filled: bool) -> Self {
        self.settings.fallback_filled = filled;
        self
    }

    /// A failover on main, with these settings.
    ///
    /// # Errors
    /// A [`ConfigError`] that names the first setting that is out of its range.
    pub fn build(self) -> Result<Failover, ConfigError> {
        let Self { mut settings, dwell_max } = self;
        settings.dwell_max =
            dwell_max.unwrap_or_else(|| settings.dwell.saturating_mul(20).min(crate::setting::DURATION_MAX));
        settings.check()?;
        Ok(Failover::new(settings))
    }
}

impl Settings {
    fn check(&self) -> Result<(), ConfigError> {
        let check = Check("failover");
        check.whole("down_after", self.down_after.into(), 1..=COUNT_MAX)?;
        check.whole("up_after", self.up_after.into(), 1..=COUNT_MAX)?;
        check.duration("dwell", self.dwell)?;
        check.cap("dwell_max", self.dwell_max, "dwell", self.dwell)?;
        check.number("dwell_factor", self.dwell_factor, 1.0..=100.0)?;
        check.duration("probation", self.probation)?;
        check.number("first_share", self.first_share, 0.0..=1.0)?;
        check.duration("resync_patience", self.resync_patience)?;
        check.duration("resync_wait", self.resync_wait)?;
        check.cap("resync_wait", self.resync_wait_max, "resync_wait", self.resync_wait)?;
        check.whole("epoch", self.epoch, 0..=u64::MAX / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_out_of_range_is_refused_by_name() {
        let new = Failover::builder;
        let field = |builder: FailoverBuilder| builder.build().expect_err("the settings are wrong").field;
        let second = Duration::from_secs(1);
        assert!(new().build().is_ok());
        assert_eq!(field(new().down_after(0)), "down_after");
        assert_eq!(field(new().up_after(0)), "up_after");
        assert_eq!(field(new().up_after(10_001)), "up_after");
        assert_eq!(field(new().dwell(Duration::ZERO)), "dwell");
        assert_eq!(field(new().dwell(Duration::MAX)), "dwell");
        assert_eq!(field(new().dwell_max(second)), "dwell_max");
        for factor in [0.9, 101.0, f64::NAN] {
            assert_eq!(field(new().dwell_factor(factor)), "dwell_factor");
        }
        assert_eq!(field(new().probation(Duration::ZERO)), "probation");
        for share in [-0.1, 1.1, f64::NAN] {
            assert_eq!(field(new().first_share(share)), "first_share");
        }
        assert_eq!(field(new().resync_patience(Duration::ZERO)), "resync_patience");
        assert_eq!(field(new().resync_wait(Duration::ZERO, second)), "resync_wait");
        assert_eq!(field(new().resync_wait(2 * second, second)), "resync_wait");
        assert_eq!(field(new().epoch(u64::MAX)), "epoch");
    }
}
