//! The calls of the last while, in ten buckets.
//!
//! The window is the running tenth and the nine whole ones before it, so it reaches back over nine to ten tenths of its
//! length. Ten exact buckets forget in steps of a tenth; a mean that fades would hide a full outage behind the
//! successes of long ago.

use std::time::{Duration, Instant};

use super::{Call, Totals};
use crate::breaker::later;

const BUCKETS: usize = 10;

/// Ten buckets in a ring; `totals` is always their sum.
#[derive(Debug)]
pub(in crate::breaker) struct Tenths {
    width: Duration,
    buckets: Box<[Totals; BUCKETS]>,
    /// The bucket of the running tenth.
    running: usize,
    /// When the running tenth began and when it ends; `None` until the first call, with which the first tenth begins.
    tenth: Option<(Instant, Instant)>,
    totals: Totals,
}

impl Tenths {
    /// An empty window of `length`, which is at least ten nanoseconds.
    pub(super) fn new(length: Duration) -> Self {
        Self {
            width: length / BUCKETS as u32,
            buckets: Box::default(),
            running: 0,
            tenth: None,
            totals: Totals::default(),
        }
    }

    /// A call that ended before the running tenth began, by a clock that stepped back or a thread that was late,
    /// counts in the running one.
    pub(super) fn push(&mut self, call: Call, now: Instant) {
        match self.tenth {
            None => self.begin(now),
            Some((_, ends)) if now < ends => {}
            Some((began, _)) => self.advance(began, now),
        }
        self.buckets[self.running].add(call);
        self.totals.add(call);
    }

    pub(super) fn tenth_ends(&self) -> Option<Instant> {
        self.tenth.map(|(_, ends)| ends)
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    pub(super) fn totals_at(&self, now: Instant) -> Totals {
        let Some((began, _)) = self.tenth else { return self.totals };
        let mut totals = self.totals;
        for step in 1..=self.steps(began, now).min(BUCKETS as u64) {
            totals.subtract(self.buckets[(self.running + step as usize) % BUCKETS]);
        }
        totals
    }

    pub(super) fn clear(&mut self) {
        *self.buckets = Default::default();
        (self.running, self.tenth, self.totals) = (0, None, Totals::default());
    }

    fn begin(&mut self, at: Instant) {
        self.tenth = Some((at, later(at, self.width)));
    }

    /// Empties the buckets of the tenths that began since, up to the one in which `now` is.
    fn advance(&mut self, began: Instant, now: Instant) {
        let steps = self.steps(began, now);
        for _ in 0..steps.min(BUCKETS as u64) {
            self.running = (self.running + 1) % BUCKETS;
            self.totals.subtract(std::mem::take(&mut self.buckets[self.running]));
        }
        // `steps` widths fit between two instants, so the product is no longer than any duration between such.
        let passed = u64::try_from(self.width.as_nanos()).unwrap_or(u64::MAX).saturating_mul(steps);
        self.begin(later(began, Duration::from_nanos(passed)));
    }

    /// How many tenths have begun since the running one did.
    fn steps(&self, began: Instant, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(began).as_nanos() / self.width.as_nanos();
        u64::try_from(passed).unwrap_or(u64::MAX)
    }
}
