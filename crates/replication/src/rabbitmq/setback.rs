//! When a stream that could not be read is tried again, and when another broker is.
//!
//! A stream can be sick alone: its member of the cluster has no replica that runs, which the broker says with
//! `PRECONDITION_FAILED`, or it has no leader and nothing is answered. The others go on. It is tried again after growing
//! waits, and when that did not help for a while, the connection is given up once, in case another member has a replica.
//! Only once, since what another member refuses as well would otherwise take the healthy streams along for ever.

use std::time::{Duration, Instant};

use resilience::Backoff;

/// After so long another broker is tried.
const ELSEWHERE: Duration = Duration::from_secs(15);

/// A consumer that lasted this long ends what went wrong before it.
pub(super) const LASTED: Duration = Duration::from_secs(5);

/// The failures of one stream since it was read last.
#[derive(Debug)]
pub(super) struct Setbacks {
    backoff: Backoff,
    since: Option<Instant>,
    next: Option<Instant>,
    reason: String,
    went_elsewhere: bool,
}

impl Setbacks {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self { backoff, since: None, next: None, reason: String::new(), went_elsewhere: false }
    }

    /// It failed; `true` if for another reason than the time before.
    pub(super) fn failed(&mut self, reason: &str, now: Instant) -> bool {
        self.since.get_or_insert(now);
        self.next = Some(now + self.backoff.next().unwrap_or_default());
        let is_new = self.reason != reason;
        reason.clone_into(&mut self.reason);
        is_new
    }

    /// Whether it is to be tried.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| now >= next)
    }

    /// Why it has failed for so long that another broker is to be tried. Once, until it lasts again.
    pub(super) fn goes_elsewhere(&mut self, now: Instant) -> Option<&str> {
        let lasted = now.saturating_duration_since(self.since?);
        if self.went_elsewhere || lasted < ELSEWHERE {
            return None;
        }
        self.went_elsewhere = true;
        Some(&self.reason)
    }

    /// There is another connection, on which it is tried at once.
    pub(super) fn renewed(&mut self) {
        self.next = None;
    }

    /// It has been read for a while.
    pub(super) fn lasted(&mut self) {
        if self.since.take().is_some() {
            self.backoff.reset();
            (self.next, self.went_elsewhere) = (None, false);
            self.reason.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setbacks() -> Setbacks {
        Setbacks::new(Backoff::new(Duration::from_millis(100), Duration::from_secs(5)).jitter(0.0))
    }

    #[test]
    fn the_waits_grow_and_each_reason_is_told_once() {
        let (mut setbacks, mut now) = (setbacks(), Instant::now());
        assert!(setbacks.is_due(now));
        assert!(setbacks.failed("no replica", now));
        for wait in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000].map(Duration::from_millis) {
            assert!(!setbacks.is_due(now + wait / 2));
            now += wait;
            assert!(setbacks.is_due(now), "after {wait:?}");
            assert!(!setbacks.failed("no replica", now));
        }
        assert!(setbacks.failed("no leader", now));
    }

    #[test]
    fn another_broker_is_tried_once_until_the_stream_lasts() {
        let (mut setbacks, start) = (setbacks(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for outage in [0, 1_000] {
            setbacks.failed("no replica", at(outage));
            assert_eq!(setbacks.goes_elsewhere(at(outage + 14)), None);
            assert_eq!(setbacks.goes_elsewhere(at(outage + 15)), Some("no replica"));
            setbacks.renewed();
            assert!(setbacks.is_due(at(outage + 15)), "another connection is another chance");
            setbacks.failed("no replica", at(outage + 16));
            assert_eq!(setbacks.goes_elsewhere(at(outage + 900)), None);
            setbacks.lasted();
        }
    }
}
