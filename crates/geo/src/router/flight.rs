//! One call on its way to a region.

use std::{fmt, time::Instant};

use super::Router;
use crate::RegionId;

/// How a call to a region ended.
///
/// ```
/// use std::time::Instant;
/// use geo::Outcome;
///
/// let (now, mut said) = (Instant::now(), None);
/// let router = geo::Router::builder().region("eu-central").build()?;
/// router.begin_with(&"eu-central".parse()?, now, |outcome| said = Some(outcome))?.failure(now);
/// assert_eq!(said, Some(Outcome::Failure));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The region answered: its round trip is taken.
    Success,
    /// It did not answer, or with a fault of its own. However soon that was, it says nothing of the round trip.
    Failure,
    /// It refused since it has too much to do: no fault, but it counts like a failure where load is balanced.
    Overloaded,
    /// It says nothing of the region, such as an answer to a call that was wrong.
    Ignored,
    /// The call was given up: its [`InFlight`] was dropped.
    Cancelled,
}

/// A call that is on its way to a region, from [`Router::begin`] until it ends.
///
/// While it lives, it counts as one of the region's calls in flight. Its end feeds the round trip and the region's
/// health, and then tells the closure that was given to [`Router::begin_with`], exactly once and under no lock. Dropped, it
/// is [cancelled](Outcome::Cancelled): nothing is counted. A result that comes after the region went down is late:
/// it neither brings it back nor tells of the way there.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let now = Instant::now();
/// let router = geo::Router::builder().from("us-east").region("eu-central").build()?;
/// let region = router.plan(now).first().region.clone();
/// let call = router.begin(&region, now)?;
/// assert_eq!(router.in_flight(&region)?, 1);
/// call.success(now + Duration::from_millis(88));
/// assert_eq!(router.in_flight(&region)?, 0);
/// assert_eq!(router.explain(now).regions[0].measured, Some(Duration::from_millis(88)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a call that is not held counts as cancelled at once"]
pub struct InFlight<F: FnOnce(Outcome) = fn(Outcome)> {
    router: Router,
    region: RegionId,
    ticket: Ticket,
    /// Taken when the call ends.
    end: Option<F>,
}

/// What the router needs to know to end a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    pub(super) slot: usize,
    /// Which of the region's lives it began in; one ends when the region goes down.
    pub(super) life: u32,
    pub(super) began: Instant,
}

impl<F: FnOnce(Outcome)> InFlight<F> {
    pub(super) fn new(router: Router, region: RegionId, ticket: Ticket, end: F) -> Self {
        Self { router, region, ticket, end: Some(end) }
    }

    /// The region that it goes to.
    pub fn region(&self) -> &RegionId {
        &self.region
    }

    /// Ends it as a success: the time since it began is a round trip.
    pub fn success(self, now: Instant) {
        self.end(Outcome::Success, now);
    }

    /// Ends it as a failure.
    pub fn failure(self, now: Instant) {
        self.end(Outcome::Failure, now);
    }

    /// Ends it.
    pub fn end(mut self, outcome: Outcome, now: Instant) {
        self.settle(outcome, now);
    }

    fn settle(&mut self, outcome: Outcome, now: Instant) {
        if let Some(end) = self.end.take() {
            self.router.end(self.ticket, outcome, now);
            end(outcome);
        }
    }
}

impl<F: FnOnce(Outcome)> Drop for InFlight<F> {
    fn drop(&mut self) {
        // Nothing that a cancelled call changes goes by the time.
        self.settle(Outcome::Cancelled, self.ticket.began);
    }
}

impl<F: FnOnce(Outcome)> fmt::Debug for InFlight<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight").field("region", &self.region).finish_non_exhaustive()
    }
}
