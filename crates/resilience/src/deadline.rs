//! The point in time by which a call must have ended, carried through everything it calls.
//!
//! A timeout per hop adds up: three tries of two seconds, through two layers, are twelve seconds for a caller who
//! left after one. A [`Deadline`] is set once, where the request enters, and handed down by value; each layer takes
//! the earlier of it and its own limit ([`min`](Ord::min), [`capped`](Deadline::capped)), leaves itself time to
//! answer ([`less`](Deadline::less)), and begins nothing that is already too late.
//!
//! It is a point and not a duration, because a duration starts anew at each look. Points of different machines
//! cannot be compared, so what travels over a wire is [`remaining`](Deadline::remaining), from which the receiver
//! makes its own point; gRPC does the same with its `grpc-timeout` header.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use resilience::Deadline;
//!
//! let now = Instant::now();
//! let request = Deadline::after_at(now, Duration::from_secs(2));
//! // This layer needs 50 ms for its own answer, and allows the store at most a second.
//! let store = request.less(Duration::from_millis(50)).capped_at(now, Duration::from_secs(1));
//! assert_eq!(store.remaining_at(now), Some(Duration::from_secs(1)));
//! assert!(!store.is_over_at(now));
//! assert!(request.is_over_at(now + Duration::from_secs(2)));
//! ```

use std::{
    borrow::Cow,
    future::Future,
    time::{Duration, Instant},
};

use crate::clock;

/// A point in time by which something must have ended, or none.
///
/// Ordered by time, [`never`](Self::never) last, so that `a.min(b)` is the one that ends first. The default is
/// [`never`](Self::never).
///
/// ```
/// use std::time::{Duration, Instant};
/// use resilience::Deadline;
///
/// let now = Instant::now();
/// let (soon, late) = (Deadline::at(now), Deadline::after_at(now, Duration::from_secs(1)));
/// assert_eq!(late.min(soon).min(Deadline::never()), soon);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Deadline(Until);

/// In the order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
enum Until {
    /// Before the clock's first point.
    Past,
    Point(Instant),
    #[default]
    Never,
}

impl Deadline {
    /// The deadline that is never over.
    ///
    /// ```
    /// use resilience::Deadline;
    /// assert_eq!(Deadline::never().remaining(), None);
    /// ```
    pub const fn never() -> Self {
        Self(Until::Never)
    }

    /// A deadline at a given point.
    ///
    /// ```
    /// use std::time::Instant;
    /// let now = Instant::now();
    /// assert!(resilience::Deadline::at(now).is_over_at(now));
    /// ```
    pub const fn at(point: Instant) -> Self {
        Self(Until::Point(point))
    }

    /// `wait` from now, by tokio's clock; beyond the end of the clock it is never.
    ///
    /// ```
    /// use std::time::Duration;
    /// let deadline = resilience::Deadline::after(Duration::from_secs(60));
    /// assert!(!deadline.is_over() && deadline.remaining() <= Some(Duration::from_secs(60)));
    /// ```
    pub fn after(wait: Duration) -> Self {
        Self::after_at(clock::now(), wait)
    }

    /// [`after`](Self::after) at a given time.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use resilience::Deadline;
    ///
    /// let now = Instant::now();
    /// assert_eq!(Deadline::after_at(now, Duration::ZERO), Deadline::at(now));
    /// assert_eq!(Deadline::after_at(now, Duration::MAX), Deadline::never());
    /// ```
    pub fn after_at(now: Instant, wait: Duration) -> Self {
        now.checked_add(wait).map_or(Self::never(), Self::at)
    }

    /// How long is left; zero once it is over, `None` if it never is.
    ///
    /// ```
    /// use std::time::Duration;
    /// let deadline = resilience::Deadline::after(Duration::ZERO);
    /// assert_eq!(deadline.remaining(), Some(Duration::ZERO));
    /// ```
    pub fn remaining(self) -> Option<Duration> {
        self.remaining_at(clock::now())
    }

    /// [`remaining`](Self::remaining) at a given time.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use resilience::Deadline;
    ///
    /// let (now, wait) = (Instant::now(), Duration::from_secs(3));
    /// assert_eq!(Deadline::after_at(now, wait).remaining_at(now), Some(wait));
    /// ```
    pub fn remaining_at(self, now: Instant) -> Option<Duration> {
        match self.0 {
            Until::Past => Some(Duration::ZERO),
            Until::Point(point) => Some(point.saturating_duration_since(now)),
            Until::Never => None,
        }
    }

    /// Whether it is too late.
    ///
    /// ```
    /// use std::time::Duration;
    /// assert!(resilience::Deadline::after(Duration::ZERO).is_over());
    /// ```
    pub fn is_over(self) -> bool {
        self.is_over_at(clock::now())
    }

    /// [`is_over`](Self::is_over) at a given time; at the point itself it is over.
    ///
    /// ```
    /// let now = std::time::Instant::now();
    /// assert!(!resilience::Deadline::never().is_over_at(now));
    /// ```
    pub fn is_over_at(self, now: Instant) -> bool {
        self <= Self::at(now)
    }

    /// Whether something that takes `needed` can still end in time, by tokio's clock.
    ///
    /// ```
    /// use std::time::Duration;
    /// let deadline = resilience::Deadline::after(Duration::from_secs(5));
    /// assert!(deadline.allows(Duration::from_secs(1)) && !deadline.allows(Duration::from_secs(6)));
    /// ```
    pub fn allows(self, needed: Duration) -> bool {
        self.allows_at(clock::now(), needed)
    }

    /// [`allows`](Self::allows) at a given time: whether more than `needed` is left.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// let (now, second) = (Instant::now(), Duration::from_secs(1));
    /// let deadline = resilience::Deadline::after_at(now, second);
    /// assert!(!deadline.allows_at(now, second), "it would end as the deadline does");
    /// ```
    pub fn allows_at(self, now: Instant, needed: Duration) -> bool {
        self.remaining_at(now).is_none_or(|left| left > needed)
    }

    /// What to hand to the next hop, so that `reserve` is left for this one to use the answer.
    ///
    /// A reserve longer than what is left gives a deadline that is already over.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use resilience::Deadline;
    ///
    /// let now = Instant::now();
    /// let hop = Deadline::after_at(now, Duration::from_millis(300)).less(Duration::from_millis(100));
    /// assert_eq!(hop.remaining_at(now), Some(Duration::from_millis(200)));
    /// assert!(hop.less(Duration::from_secs(9)).is_over_at(now));
    /// ```
    #[must_use]
    pub fn less(self, reserve: Duration) -> Self {
        let Until::Point(point) = self.0 else { return self };
        Self(point.checked_sub(reserve).map_or(Until::Past, Until::Point))
    }

    /// The earlier of this and `limit` from now, by tokio's clock.
    ///
    /// ```
    /// use std::time::Duration;
    /// let capped = resilience::Deadline::never().capped(Duration::from_secs(1));
    /// assert!(capped.remaining() <= Some(Duration::from_secs(1)));
    /// ```
    #[must_use]
    pub fn capped(self, limit: Duration) -> Self {
        self.capped_at(clock::now(), limit)
    }

    /// [`capped`](Self::capped) at a given time.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use resilience::Deadline;
    ///
    /// let now = Instant::now();
    /// let call = Deadline::after_at(now, Duration::from_secs(1));
    /// assert_eq!(call.capped_at(now, Duration::from_secs(5)), call);
    /// ```
    #[must_use]
    pub fn capped_at(self, now: Instant, limit: Duration) -> Self {
        self.min(Self::after_at(now, limit))
    }

    /// An equal share of what is left for the next of `parts` attempts, so that a first one that hangs leaves time
    /// for the others. No parts count as one.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use resilience::Deadline;
    ///
    /// let now = Instant::now();
    /// let call = Deadline::after_at(now, Duration::from_secs(3));
    /// assert_eq!(call.shared_at(now, 3), Deadline::after_at(now, Duration::from_secs(1)));
    /// ```
    #[must_use]
    pub fn shared_at(self, now: Instant, parts: u32) -> Self {
        self.remaining_at(now).map_or(self, |left| Self::after_at(now, left / parts.max(1)))
    }

    /// Waits for `future` until the deadline; `what` names it in the error.
    ///
    /// If the deadline is already over, `future` is dropped without having been polled: work that nobody waits
    /// for is not begun. It needs tokio's timer, unless the deadline is never.
    ///
    /// # Errors
    /// [`DeadlineOver`], which says what was waited for, and how long.
    ///
    /// # Panics
    /// Outside a tokio runtime with its timer enabled, as tokio's own timers do.
    ///
    /// # Cancel safety
    /// Dropping this call drops `future`, as does the deadline.
    ///
    /// ```
    /// use std::{future::pending, time::Duration};
    /// use resilience::Deadline;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let deadline = Deadline::after(Duration::from_secs(2));
    /// assert_eq!(deadline.wait_for("an answer", async { 7 }).await, Ok(7));
    /// let over = deadline.wait_for("the main cache", pending::<()>()).await.unwrap_err();
    /// assert_eq!(over.to_string(), "deadline over after waiting 2s for the main cache");
    /// # }
    /// ```
    pub async fn wait_for<F: Future>(
        self,
        what: impl Into<Cow<'static, str>>,
        future: F,
    ) -> Result<F::Output, DeadlineOver> {
        if self == Self::never() {
            return Ok(future.await);
        }
        let begun = clock::now();
        let at = match self.0 {
            Until::Point(at) if begun < at => at,
            _ => return Err(DeadlineOver { what: what.into(), waited: Duration::ZERO }),
        };
        tokio::time::timeout_at(at.into(), future).await.map_err(|_elapsed| DeadlineOver {
            what: what.into(),
            waited: clock::now().saturating_duration_since(begun),
        })
    }
}

/// The time for something was up before it ended.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::{future::pending, time::Duration};
/// let late = resilience::Deadline::after(Duration::ZERO);
/// let over = late.wait_for("a reply", pending::<()>()).await.unwrap_err();
/// assert_eq!(over.to_string(), "deadline over before asking for a reply");
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("deadline over {}", self.words())]
#[non_exhaustive]
pub struct DeadlineOver {
    /// What was waited for, in the caller's words.
    pub what: Cow<'static, str>,
    /// How long it was waited for; zero if it was not begun, the deadline being over already.
    pub waited: Duration,
}

impl DeadlineOver {
    fn words(&self) -> String {
        let Self { what, waited } = self;
        if waited.is_zero() {
            return format!("before asking for {what}");
        }
        format!("after waiting {waited:?} for {what}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_default_is_never_and_never_ends_last() {
        let now = Instant::now();
        assert_eq!(Deadline::default(), Deadline::never());
        assert_eq!(Deadline::never().max(Deadline::at(now)), Deadline::never());
        assert_eq!(Deadline::never().less(SECOND), Deadline::never());
        assert_eq!(Deadline::never().shared_at(now, 3), Deadline::never());
        assert!(Deadline::never().allows_at(now, Duration::MAX));
    }

    #[test]
    fn a_reserve_longer_than_the_clock_leaves_a_deadline_that_is_over() {
        let now = Instant::now();
        assert!(Deadline::at(now).less(Duration::MAX).is_over_at(now));
        assert!(Deadline::after_at(now, SECOND).less(Duration::MAX).is_over_at(now));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_late_is_not_begun() {
        let mut begun = false;
        let over = Deadline::after(Duration::ZERO).wait_for("it", async { begun = true }).await;
        assert_eq!(over.expect_err("it is too late").waited, Duration::ZERO);
        assert!(!begun);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_just_in_time_counts_and_one_too_late_does_not() {
        let deadline = Deadline::after(2 * SECOND);
        assert_eq!(deadline.wait_for("it", tokio::time::sleep(SECOND)).await, Ok(()));
        let over = deadline.wait_for("it", tokio::time::sleep(2 * SECOND)).await;
        assert_eq!(over.expect_err("it ends after the deadline").waited, SECOND);
        assert!(deadline.is_over());
    }

    #[tokio::test]
    async fn a_wait_without_an_end_needs_no_timer() {
        assert_eq!(Deadline::never().wait_for("it", async { 1 }).await, Ok(1));
    }

    proptest! {
        #[test]
        fn no_derivation_ever_gives_more_time(
            left_ms in 0u64..100_000, reserve_ms in 0u64..200_000, limit_ms in 0u64..200_000, parts in 0u32..20,
        ) {
            let now = Instant::now();
            let whole = Deadline::after_at(now, Duration::from_millis(left_ms));
            let derived = [
                whole.less(Duration::from_millis(reserve_ms)),
                whole.capped_at(now, Duration::from_millis(limit_ms)),
                whole.shared_at(now, parts),
                whole.min(Deadline::never()),
            ];
            for part in derived {
                prop_assert!(part <= whole);
                prop_assert!(part.remaining_at(now) <= whole.remaining_at(now));
            }
            let millis = |deadline: Deadline| deadline.remaining_at(now).unwrap().as_millis() as u64;
            prop_assert_eq!(millis(derived[0]), left_ms.saturating_sub(reserve_ms));
            prop_assert_eq!(millis(derived[1]), left_ms.min(limit_ms));
        }
    }
}
