//! The pace of a narrow line, pure: when may these bytes have passed?
//!
//! A direction of a link is one line that all its connections share. Each asks for one slice at a time and asks again
//! when that passed, so slices are served in the order of asking: connections that wait all get the same share.

use std::{num::NonZeroU64, time::Duration};

use tokio::time::Instant;

/// A slice takes at most this part of a second, so that a connection waits shortly for its turn.
const SLICES_PER_S: u64 = 20;

/// When the line is free again.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    free_at: Option<Instant>,
    rate: Option<NonZeroU64>,
}

/// How many of `bytes` to ask for at once, at `rate` bytes per second: a twentieth of a second's worth, at least one.
pub(super) fn slice(rate: NonZeroU64, bytes: usize) -> usize {
    let most = (rate.get() / SLICES_PER_S).max(1);
    usize::try_from(most).map_or(bytes, |most| most.min(bytes))
}

impl Pacer {
    /// Takes the line for `bytes` and says when they have passed. What was asked for at another rate is forgotten.
    pub(super) fn reserve(&mut self, now: Instant, bytes: usize, rate: NonZeroU64) -> Instant {
        if self.rate != Some(rate) {
            *self = Self { free_at: None, rate: Some(rate) };
        }
        let start = self.free_at.map_or(now, |free| free.max(now));
        let ns = bytes as u128 * 1_000_000_000 / u128::from(rate.get());
        let passed = start + Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX));
        self.free_at = Some(passed);
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(bytes_per_s: u64) -> NonZeroU64 {
        NonZeroU64::new(bytes_per_s).unwrap()
    }

    #[test]
    fn bytes_take_the_time_that_the_rate_says() {
        let (mut pacer, start) = (Pacer::default(), Instant::now());
        assert_eq!(pacer.reserve(start, 500, rate(1_000)), start + Duration::from_millis(500));
        assert_eq!(pacer.reserve(start, 500, rate(1_000)), start + Duration::from_secs(1));
    }

    #[test]
    fn an_idle_line_saves_nothing_up() {
        let (mut pacer, start) = (Pacer::default(), Instant::now());
        pacer.reserve(start, 1, rate(1_000));
        let later = start + Duration::from_secs(60);
        assert_eq!(pacer.reserve(later, 1_000, rate(1_000)), later + Duration::from_secs(1));
    }

    #[test]
    fn two_that_wait_get_the_same_share() {
        let (mut pacer, start) = (Pacer::default(), Instant::now());
        let mut due = [start; 2];
        let mut passed = [0_usize; 2];
        // Whoever's slice has passed first asks again.
        for _ in 0..1_000 {
            let turn = usize::from(due[1] < due[0]);
            let bytes = slice(rate(20_000), 1 << 20);
            due[turn] = pacer.reserve(due[turn], bytes, rate(20_000));
            passed[turn] += bytes;
        }
        assert_eq!(passed, [500_000, 500_000]);
    }

    #[test]
    fn a_new_rate_forgets_the_queue_of_the_old() {
        let (mut pacer, start) = (Pacer::default(), Instant::now());
        pacer.reserve(start, 1_000, rate(1));
        assert_eq!(pacer.reserve(start, 1_000, rate(1_000)), start + Duration::from_secs(1));
    }

    #[test]
    fn a_slice_is_a_twentieth_of_a_second_and_never_nothing() {
        assert_eq!(slice(rate(20_000), 16_384), 1_000);
        assert_eq!(slice(rate(20_000), 10), 10);
        assert_eq!(slice(rate(1), 10), 1);
        assert_eq!(slice(rate(u64::MAX), 16_384), 16_384);
    }
}
