//! How settings are checked, and what is said of one that is out of its range.
//!
//! Each part of this crate checks its settings once, when it is built, and never corrects one silently: a zero
//! that was meant as "off" or a wrong unit shows at start and by name, not as a strange behaviour in an outage.

use std::{ops::RangeInclusive, time::Duration};

use crate::breaker::ConfigError;

/// The longest time that a setting may say; longer is almost surely a wrong unit.
pub(crate) const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// The checks of one part's settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Check(pub(crate) &'static str);

impl Check {
    /// A whole number within a range.
    pub(crate) fn whole(
        self,
        field: &'static str,
        value: u64,
        range: RangeInclusive<u64>,
    ) -> Result<(), ConfigError> {
        if range.contains(&value) {
            return Ok(());
        }
        self.wrong(field, format!("is {value}; use {} to {}", range.start(), range.end()))
    }

    /// A number within a range; never "not a number".
    pub(crate) fn number(
        self,
        field: &'static str,
        value: f64,
        range: RangeInclusive<f64>,
    ) -> Result<(), ConfigError> {
        if range.contains(&value) {
            return Ok(());
        }
        self.wrong(field, format!("is {value}; use {} to {}", range.start(), range.end()))
    }

    /// A share of something, and of more than nothing.
    pub(crate) fn share(self, field: &'static str, value: f64) -> Result<(), ConfigError> {
        if value > 0.0 && value <= 1.0 {
            return Ok(());
        }
        self.wrong(field, format!("is {value}; use a share above 0, at most 1"))
    }

    /// A time above zero and not beyond a year.
    pub(crate) fn duration(self, field: &'static str, value: Duration) -> Result<(), ConfigError> {
        if value.is_zero() || value > DURATION_MAX {
            return self.wrong(field, format!("is {value:?}; use more than zero and at most 366 days"));
        }
        Ok(())
    }

    /// A cap that must not lie below what it caps.
    pub(crate) fn cap(
        self,
        field: &'static str,
        value: Duration,
        under: &'static str,
        least: Duration,
    ) -> Result<(), ConfigError> {
        self.duration(field, value)?;
        if value < least {
            return self.wrong(field, format!("is {value:?}, less than `{under}` of {least:?}"));
        }
        Ok(())
    }

    /// Refuses a setting.
    pub(crate) fn wrong(self, field: &'static str, problem: impl Into<String>) -> Result<(), ConfigError> {
        Err(ConfigError { part: self.0, field, problem: problem.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECK: Check = Check("thing");

    #[test]
    fn the_ends_of_a_range_are_right_and_what_lies_beyond_is_refused() {
        for right in [1, 5] {
            assert_eq!(CHECK.whole("n", right, 1..=5), Ok(()));
        }
        for wrong in [0, 6] {
            assert_eq!(CHECK.whole("n", wrong, 1..=5).expect_err("out of range").field, "n");
        }
        for right in [0.0, 1.0] {
            assert_eq!(CHECK.number("x", right, 0.0..=1.0), Ok(()));
        }
        for wrong in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(CHECK.number("x", wrong, 0.0..=1.0).expect_err("out of range").field, "x");
        }
    }

    #[test]
    fn a_cap_below_what_it_caps_names_both() {
        let (cap, least) = (Duration::from_secs(1), Duration::from_secs(2));
        let error = CHECK.cap("wait_max", cap, "wait", least).expect_err("the cap is too low");
        assert_eq!(error.to_string(), "thing setting `wait_max` is 1s, less than `wait` of 2s");
    }
}
