//! Noticing that a stream fell silent although its region is there.
//!
//! A broker can stop delivering from a stream without ending the consumer, as when the replica that it reads was deleted.
//! The frames of a region that runs never stop for long, since its nodes' beats travel among them; so where hellos
//! come from a region and no frame does, its consumer begins again at its place. Where the region truly sent nothing,
//! that costs one consumer now and then.

use std::time::{Duration, Instant};

use super::hello;

/// No frame for so long, of a region that says hello, means that the consumer is dead.
pub(super) const SILENCE: Duration = Duration::from_secs(3 * hello::EVERY.as_secs());

/// How far a stream was read, and since when it is so.
#[derive(Debug)]
pub(super) struct Vigil {
    next: Option<u64>,
    since: Instant,
}

impl Vigil {
    pub(super) fn new(now: Instant) -> Self {
        Self { next: None, since: now }
    }

    /// Whether the consumer is to begin again: it stayed at `next` for too long, while its region was heard of.
    pub(super) fn is_dead(&mut self, next: Option<u64>, is_heard: bool, now: Instant) -> bool {
        if next != self.next || !is_heard {
            *self = Self { next, since: now };
        }
        let is_dead = now.saturating_duration_since(self.since) >= SILENCE;
        if is_dead {
            self.since = now;
        }
        is_dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_stands_still_while_its_region_is_heard_is_begun_again_once_a_silence() {
        let start = Instant::now();
        let mut vigil = Vigil::new(start);
        for round in 0..3 {
            let now = start + SILENCE * round;
            assert!(!vigil.is_dead(None, true, now + SILENCE - Duration::from_millis(1)));
            assert!(vigil.is_dead(None, true, now + SILENCE));
        }
    }

    #[test]
    fn neither_a_flow_nor_a_region_that_is_gone_is_a_dead_consumer() {
        let start = Instant::now();
        let (mut flowing, mut gone) = (Vigil::new(start), Vigil::new(start));
        for second in 0..1_000 {
            let now = start + Duration::from_secs(second);
            assert!(!flowing.is_dead(Some(second / 60), true, now));
            assert!(!gone.is_dead(Some(7), false, now));
        }
    }
}
