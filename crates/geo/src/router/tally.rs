//! Which share of a region's latest calls failed.
//!
//! A share and not the last failure alone: at many calls a second even a good region fails now and then, and if
//! that were enough, all would be the same. A fading count and not a window: two numbers, whatever the rate. Each
//! region has credit for one good call, so that a lone failure is less than all there is, and what a region did
//! fades once it is not called: a lone failure stays above [`TOLERANCE`] for 12.7 s, and if all of a thousand calls a
//! second failed, their share does for 49 s.
//!
//! Invariant: `failures` is at most `ends`, so a share is at least 0 and less than 1.

use std::time::{Duration, Instant};

/// In so much time, what was counted loses half its weight.
const HALF_LIFE: Duration = Duration::from_secs(3);
/// Not more often than this is the weight taken off, since that costs more than a call's end otherwise.
const STEP: Duration = Duration::from_millis(50);
/// What weighs less than this many calls is nothing.
const FORGOTTEN: f64 = 1e-6;
/// By so much may a region's share be above that of the best and be due to chance.
pub(super) const TOLERANCE: f64 = 0.05;

/// Calls that ended lately, the later ones with more weight.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    ends: f64,
    failures: f64,
    /// As of when the weights are; `None` until something was counted.
    as_of: Option<Instant>,
}

impl Tally {
    /// Counts the end of a call.
    pub(super) fn count(&mut self, failed: bool, now: Instant) {
        self.fade(now);
        self.ends += 1.0;
        self.failures += f64::from(u8::from(failed));
    }

    /// Which share of the latest calls failed.
    pub(super) fn share(&mut self, now: Instant) -> f64 {
        if self.failures == 0.0 {
            return 0.0;
        }
        self.fade(now);
        self.failures / (self.ends + 1.0)
    }

    fn fade(&mut self, now: Instant) {
        let as_of = *self.as_of.get_or_insert(now);
        // Times out of order count as the latest.
        let passed = now.saturating_duration_since(as_of);
        if passed < STEP {
            return;
        }
        let left = (-passed.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2();
        (self.ends, self.failures, self.as_of) = (self.ends * left, self.failures * left, Some(now));
        // What weighs nothing need not be looked at again, and numbers near the least there is are slow.
        if self.failures < FORGOTTEN {
            self.failures = 0.0;
        }
        if self.ends < FORGOTTEN {
            self.ends = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(ends: &[bool], now: Instant) -> Tally {
        let mut tally = Tally::default();
        ends.iter().for_each(|&failed| tally.count(failed, now));
        tally
    }

    #[test]
    fn the_share_is_of_the_calls_and_one_good_one() {
        let now = Instant::now();
        assert_eq!(tally(&[], now).share(now), 0.0);
        assert_eq!(tally(&[false; 9], now).share(now), 0.0);
        assert_eq!(tally(&[true], now).share(now), 0.5);
        assert_eq!(tally(&[true, false, false], now).share(now), 0.25);
    }

    #[test]
    fn a_lone_failure_is_held_against_a_region_for_some_twelve_seconds() {
        let now = Instant::now();
        assert!(tally(&[true], now).share(now + Duration::from_millis(12_700)) > TOLERANCE);
        assert!(tally(&[true], now).share(now + Duration::from_millis(12_800)) < TOLERANCE);
    }

    #[test]
    fn however_many_calls_failed_it_is_over_within_a_minute() {
        let mut now = Instant::now();
        let mut tally = Tally::default();
        for _ in 0..60_000 {
            now += Duration::from_millis(1);
            tally.count(true, now);
        }
        assert!(tally.share(now) > 0.99 && tally.share(now) < 1.0);
        assert!(tally.share(now + Duration::from_secs(60)) < TOLERANCE);
    }

    #[test]
    fn what_has_faded_is_forgotten() {
        let now = Instant::now();
        let mut tally = tally(&[true; 9], now);
        assert!(tally.share(now + Duration::from_secs(60)) > 0.0);
        assert_eq!(tally.share(now + Duration::from_secs(90)), 0.0);
        assert_eq!((tally.ends, tally.failures), (0.0, 0.0));
    }

    #[test]
    fn times_out_of_order_change_no_weight() {
        let now = Instant::now();
        let mut tally = tally(&[true], now + Duration::from_secs(60));
        tally.count(false, now);
        assert!((tally.share(now) - 1.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn asking_often_fades_as_much_as_asking_once() {
        let now = Instant::now();
        let (mut often, mut once) = (tally(&[true], now), tally(&[true], now));
        for ms in 0..=6_000 {
            often.share(now + Duration::from_millis(ms));
        }
        let end = now + Duration::from_millis(6_000);
        assert!((often.share(end) - once.share(end)).abs() < 1e-9);
        assert!((once.share(end) - 0.2).abs() < 1e-9);
    }
}
