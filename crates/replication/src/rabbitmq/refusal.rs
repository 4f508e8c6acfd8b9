//! When a channel that only refuses is to be given up.
//!
//! A refused frame is no reason to change anything: a queue of somebody else's that is full and refuses answers so for
//! all. But in a cluster of RabbitMQ 3.10 a channel can be stuck in refusing: one whose first frame for a quorum queue
//! came between the death of the queue's leader and the election of the next remembers the dead leader, and refuses every
//! frame from then on, while the queue has long been well. Only another channel helps. So one that refuses everything for
//! a while is left; the while doubles each time that this did not help, and is short again once a frame was confirmed.

use std::time::{Duration, Instant};

const PATIENCE_MIN: Duration = Duration::from_millis(500);
const PATIENCE_MAX: Duration = Duration::from_secs(60);

/// The refusals since a frame was confirmed last.
#[derive(Debug)]
pub(super) struct Refusals {
    /// The first one on the present channel.
    since: Option<Instant>,
    patience: Duration,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { since: None, patience: PATIENCE_MIN }
    }
}

impl Refusals {
    pub(super) fn confirmed(&mut self) {
        *self = Self::default();
    }

    pub(super) fn refused(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// For how long the channel has only refused, once that is too long.
    pub(super) fn too_long(&self, now: Instant) -> Option<Duration> {
        let lasted = now.saturating_duration_since(self.since?);
        (lasted >= self.patience).then_some(lasted)
    }

    /// There is another channel, for whatever reason.
    pub(super) fn renewed(&mut self) {
        if self.since.take().is_some() {
            self.patience = (self.patience * 2).min(PATIENCE_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_channel_that_confirms_now_and_then_is_kept() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        for second in 0..100 {
            let now = start + Duration::from_secs(second);
            refusals.refused(now);
            assert_eq!(refusals.too_long(now + MS(499)), None);
            refusals.confirmed();
            assert_eq!(refusals.too_long(now + MS(999)), None);
        }
    }

    #[test]
    fn a_channel_that_only_refuses_is_left_and_each_next_one_after_twice_the_time() {
        let (mut refusals, mut now) = (Refusals::default(), Instant::now());
        for expected in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000].map(MS) {
            refusals.refused(now);
            refusals.refused(now + MS(100));
            assert_eq!(refusals.too_long(now + expected - MS(1)), None);
            now += expected;
            assert_eq!(refusals.too_long(now), Some(expected));
            refusals.renewed();
            assert_eq!(refusals.too_long(now + PATIENCE_MAX), None, "the next one has refused nothing yet");
        }
        refusals.confirmed();
        refusals.refused(now);
        assert_eq!(refusals.too_long(now + MS(500)), Some(MS(500)));
    }
}
