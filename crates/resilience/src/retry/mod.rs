//! Tries again what may succeed the next time, and only as much as the callee can bear.
//!
//! Five things end a run of tries, and each is a reason of its own ([`Stop`]): the error is one that a retry cannot
//! mend, the tries are used up, the [`RetryBudget`] that all callers of a callee share is spent, the [`Deadline`]
//! leaves no time for another try, or the callee asks for a longer wait than anyone here has patience for. Time that is not there is seen *before* the wait: a caller with a second left is
//! not held for that second only to hear that it is over.
//!
//! The decision is pure ([`Tries`] takes `now` and says how long to wait); [`Retry::run`] is the few lines around it
//! that wait by tokio's clock. Nothing here knows about circuit breakers: put one inside the operation, and give up
//! (or wait as long as it says) on its refusal. A first attempt earns its share of the budget even if that breaker
//! refuses it; what it earns are retries, most of which the breaker refuses too.
//!
//! ```
//! use std::time::Duration;
//! use resilience::{Backoff, Deadline, Retry, Verdict};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let retry = Retry::builder().tries(3).backoff(Backoff::new(Duration::from_millis(20), Duration::from_secs(1))).build()?;
//! let classify = |error: &&str| if *error == "busy" { Verdict::Retry } else { Verdict::GiveUp };
//! let answer = retry
//!     .run(Deadline::after(Duration::from_secs(2)), classify, |attempt| async move {
//!         if attempt.number < 3 { Err("busy") } else { Ok(attempt.number) }
//!     })
//!     .await;
//! assert_eq!(answer, Ok(3));
//! assert_eq!(retry.budget().snapshot().retries, 2);
//! # Ok(())
//! # }
//! ```

mod budget;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

pub use budget::{BudgetSnapshot, RetryBudget, RetryBudgetBuilder};

use crate::{Backoff, Deadline, DeadlineOver, breaker::ConfigError, clock, setting::Check};

/// The most tries of one call.
const TRIES_MAX: u32 = 100;

/// How to try again: how often, after which waits, within which budget. A clone shares the budget.
///
/// ```
/// let retry = resilience::Retry::default();
/// assert_eq!(retry.budget().snapshot().available, 100);
/// ```
#[derive(Debug, Clone)]
pub struct Retry {
    tries: u32,
    least: Duration,
    retry_after_max: Duration,
    budget: RetryBudget,
    /// Each run forks its own waits from it, so that runs do not wait in step.
    waits: Arc<Mutex<Backoff>>,
}

/// What an error means for the next try.
///
/// ```
/// use std::time::Duration;
/// use resilience::{CircuitOpen, Verdict};
///
/// let classify = |open: &CircuitOpen| Verdict::RetryAfter(open.retry_after);
/// # let _ = classify;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass: try again after the next wait of the backoff.
    Retry,
    /// It may pass, and the callee said when: wait so long, and the next wait of the backoff on top. A callee names the
    /// same time to all whom it turns away, and they should not come back together, nor sooner than it said. A time
    /// above [`retry_after_max`](RetryBuilder::retry_after_max) ends the run.
    RetryAfter(Duration),
    /// The same call would fail again.
    GiveUp,
}

/// One try, as the operation sees it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use resilience::{Deadline, Retry, Verdict};
/// let (retry, classify) = (Retry::default(), |_: &()| Verdict::GiveUp);
/// let first = retry.run(Deadline::never(), classify, |attempt| async move { Ok(attempt.number) });
/// assert_eq!(first.await, Ok(1));
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// When the whole run must have ended; hand it, or less, to what the operation calls.
    pub deadline: Deadline,
}

/// Why no further try was made.
///
/// ```
/// assert_eq!(resilience::Stop::Budget.to_string(), "the retry budget is spent");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// The error is not one that a retry mends.
    GaveUp,
    /// All tries were made.
    Tries,
    /// The budget that the callers share is spent: the callee is failing for many.
    Budget,
    /// The next try could not end in time.
    Deadline,
    /// The callee asked for a longer wait than [`retry_after_max`](RetryBuilder::retry_after_max).
    RetryAfter,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GaveUp => "a retry would not help",
            Self::Tries => "all tries were made",
            Self::Budget => "the retry budget is spent",
            Self::Deadline => "no time is left for another try",
            Self::RetryAfter => "the callee asked for too long a wait",
        })
    }
}

/// Why a run gave no value.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use resilience::{Deadline, Retry, RetryError, Stop, Verdict};
///
/// let retry = Retry::default();
/// let run = retry.run(Deadline::never(), |_| Verdict::GiveUp, |_| async { Err::<(), _>("no such key") });
/// let error = run.await.unwrap_err();
/// assert_eq!(error, RetryError::Failed { error: "no such key", attempts: 1, stop: Stop::GaveUp });
/// assert_eq!(error.to_string(), "failed after 1 attempts (a retry would not help): no such key");
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetryError<E> {
    /// The last try failed and no other was made.
    #[error("failed after {attempts} attempts ({stop}): {error}")]
    Failed {
        /// The last try's error.
        #[source]
        error: E,
        /// How many tries were made.
        attempts: u32,
        /// Why there was no other.
        stop: Stop,
    },
    /// The deadline ended a try, or none was begun since it was over already.
    #[error("{over} (attempt {attempts})")]
    DeadlineOver {
        /// What was waited for, and how long.
        #[source]
        over: DeadlineOver,
        /// How many tries were begun.
        attempts: u32,
        /// The error of the try before, if there was one.
        last: Option<E>,
    },
}

impl Retry {
    /// Settings to change before building.
    ///
    /// ```
    /// assert_eq!(resilience::Retry::builder().tries(0).build().unwrap_err().field, "tries");
    /// ```
    pub fn builder() -> RetryBuilder {
        RetryBuilder::default()
    }

    /// The budget that this shares with its clones, and with whom it was given to.
    ///
    /// ```
    /// assert_eq!(resilience::Retry::default().budget().snapshot().retries, 0);
    /// ```
    pub fn budget(&self) -> &RetryBudget {
        &self.budget
    }

    /// The decisions of one run, for a caller that waits by itself; counts a first attempt.
    ///
    /// ```
    /// use std::time::Instant;
    /// use resilience::{Deadline, Retry, Stop, Verdict};
    ///
    /// let (retry, now) = (Retry::builder().tries(2).build()?, Instant::now());
    /// let mut tries = retry.begin_at(Deadline::never(), now);
    /// assert!(tries.failed_at(now, Verdict::Retry).is_ok(), "wait so long, then try again");
    /// assert_eq!(tries.failed_at(now, Verdict::Retry), Err(Stop::Tries));
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn begin_at(&self, deadline: Deadline, now: Instant) -> Tries {
        self.budget.first_attempt_at(now);
        let waits = self.waits.lock().fork();
        Tries {
            made: 1,
            tries: self.tries,
            least: self.least,
            retry_after_max: self.retry_after_max,
            deadline,
            waits,
            budget: self.budget.clone(),
        }
    }

    /// Tries `operation` until it succeeds or a [`Stop`] says otherwise; a try that runs into `deadline` is dropped.
    ///
    /// `classify` says of each error whether a retry may mend it. Each run counts one first attempt in the budget.
    ///
    /// # Errors
    /// [`RetryError`], with the last try's error, the number of tries, and why there was no other.
    ///
    /// # Panics
    /// Outside a tokio runtime with its timer enabled, once it has to wait.
    ///
    /// # Cancel safety
    /// Dropping the run drops the try under way; what was taken from the budget stays taken.
    ///
    /// ```
    /// use resilience::{Deadline, Retry, Verdict};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let (retry, mut failures) = (Retry::default(), vec!["timed out"]);
    /// let answer = retry.run(Deadline::never(), |_| Verdict::Retry, |_| {
    ///     let failure = failures.pop();
    ///     async move { failure.map_or(Ok("value"), Err) }
    /// });
    /// assert_eq!(answer.await, Ok("value"));
    /// # }
    /// ```
    pub async fn run<T, E, F: Future<Output = Result<T, E>>>(
        &self,
        deadline: Deadline,
        mut classify: impl FnMut(&E) -> Verdict,
        mut operation: impl FnMut(Attempt) -> F,
    ) -> Result<T, RetryError<E>> {
        let begun = clock::now();
        if deadline.is_over_at(begun) {
            let over = DeadlineOver { what: "the first try".into(), waited: Duration::ZERO };
            return Err(RetryError::DeadlineOver { over, attempts: 0, last: None });
        }
        let mut tries = self.begin_at(deadline, begun);
        let mut last = None;
        loop {
            let attempt = Attempt { number: tries.made, deadline };
            let error = match deadline.wait_for("a try to end", operation(attempt)).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(over) => return Err(RetryError::DeadlineOver { over, attempts: tries.made, last }),
            };
            match tries.failed_at(clock::now(), classify(&error)) {
                Ok(wait) => tokio::time::sleep(wait).await,
                Err(stop) => return Err(RetryError::Failed { error, attempts: tries.made, stop }),
            }
            last = Some(error);
        }
    }
}

impl Default for Retry {
    /// Three tries, full jitter from 100 ms to 10 s, and a budget of its own with the default settings.
    fn default() -> Self {
        RetryBuilder::default().build().expect("the default settings are in their ranges")
    }
}

/// Settings of a [`Retry`] to be; begin with [`Retry::builder`].
///
/// ```
/// use resilience::{Retry, RetryBudget};
/// let budget = RetryBudget::default();
/// let reads = Retry::builder().tries(3).budget(budget.clone()).build()?;
/// let writes = Retry::builder().tries(2).budget(budget).build()?;
/// # Ok::<(), resilience::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct RetryBuilder {
    tries: u32,
    least: Duration,
    retry_after_max: Duration,
    backoff: Option<Backoff>,
    budget: Option<RetryBudget>,
}

impl Default for RetryBuilder {
    /// Three tries.
    fn default() -> Self {
        Self {
            tries: 3,
            least: Duration::from_millis(1),
            retry_after_max: Duration::from_secs(60),
            backoff: None,
            budget: None,
        }
    }
}

impl RetryBuilder {
    /// How many tries a call gets, the first among them. Default 3, from 1 to 100.
    pub fn tries(mut self, tries: u32) -> Self {
        self.tries = tries;
        self
    }

    /// How long a try takes at least: with less left after the wait, no retry is made. Default 1 ms, from zero to 366
    /// days.
    pub fn least_time(mut self, least: Duration) -> Self {
        self.least = least;
        self
    }

    /// The longest wait that a callee may ask for by [`Verdict::RetryAfter`]; a longer one ends the run at once with
    /// [`Stop::RetryAfter`], since coming sooner than told is no better than not asking. Default 60 s, from zero to 366
    /// days. With the backoff's own wait on top, no wait is longer than this and the backoff's cap together.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use resilience::{Deadline, Retry, Stop, Verdict};
    ///
    /// let retry = Retry::builder().retry_after_max(Duration::from_secs(5)).build()?;
    /// let now = Instant::now();
    /// let an_hour = Verdict::RetryAfter(Duration::from_secs(3600));
    /// let stop = retry.begin_at(Deadline::never(), now).failed_at(now, an_hour);
    /// assert_eq!(stop, Err(Stop::RetryAfter));
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn retry_after_max(mut self, wait: Duration) -> Self {
        self.retry_after_max = wait;
        self
    }

    /// The waits between tries. Default: full jitter, from 100 ms to 10 s.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }

    /// The budget to take retries from; give the same one to all callers of a callee. Default: a new one.
    pub fn budget(mut self, budget: RetryBudget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// The policy with these settings.
    ///
    /// # Errors
    /// A [`ConfigError`] that names the first setting that is out of its range.
    pub fn build(self) -> Result<Retry, ConfigError> {
        let check = Check("retry");
        check.whole("tries", self.tries.into(), 1..=TRIES_MAX.into())?;
        if !self.least.is_zero() {
            check.duration("least_time", self.least)?;
        }
        if !self.retry_after_max.is_zero() {
            check.duration("retry_after_max", self.retry_after_max)?;
        }
        let waits = match self.backoff {
            Some(backoff) => backoff,
            None => Backoff::builder().build()?,
        };
        Ok(Retry {
            tries: self.tries,
            least: self.least,
            retry_after_max: self.retry_after_max,
            budget: self.budget.unwrap_or_default(),
            waits: Arc::new(Mutex::new(waits)),
        })
    }
}

/// The decisions of one run of tries: pure, and handed the time. Made by [`Retry::begin_at`].
///
/// ```
/// use std::time::{Duration, Instant};
/// use resilience::{Deadline, Retry, Stop, Verdict};
///
/// let now = Instant::now();
/// let mut tries = Retry::default().begin_at(Deadline::after_at(now, Duration::from_secs(1)), now);
/// let stop = tries.failed_at(now, Verdict::RetryAfter(Duration::from_secs(5)));
/// assert_eq!(stop, Err(Stop::Deadline), "known at once, not after a second");
/// ```
#[derive(Debug)]
pub struct Tries {
    made: u32,
    tries: u32,
    least: Duration,
    retry_after_max: Duration,
    deadline: Deadline,
    waits: Backoff,
    budget: RetryBudget,
}

impl Tries {
    /// Takes the failure of a try: wait so long and try again, or stop. A granted retry is taken from the budget.
    ///
    /// # Errors
    /// The [`Stop`] that ends the run.
    ///
    /// ```
    /// # use resilience::{Deadline, Retry, Stop, Verdict};
    /// # let now = std::time::Instant::now();
    /// let mut tries = Retry::default().begin_at(Deadline::never(), now);
    /// assert_eq!(tries.failed_at(now, Verdict::GiveUp), Err(Stop::GaveUp));
    /// ```
    pub fn failed_at(&mut self, now: Instant, verdict: Verdict) -> Result<Duration, Stop> {
        let told = match verdict {
            Verdict::GiveUp => return Err(Stop::GaveUp),
            Verdict::Retry => Duration::ZERO,
            Verdict::RetryAfter(wait) => wait,
        };
        if self.made >= self.tries {
            return Err(Stop::Tries);
        }
        if told > self.retry_after_max {
            return Err(Stop::RetryAfter);
        }
        let wait = told.saturating_add(self.waits.next().unwrap_or_default());
        if !self.deadline.allows_at(now, wait.saturating_add(self.least)) {
            return Err(Stop::Deadline);
        }
        if !self.budget.try_retry_at(now) {
            return Err(Stop::Budget);
        }
        self.made += 1;
        Ok(wait)
    }

    /// How many tries were begun or granted.
    ///
    /// ```
    /// # use resilience::{Deadline, Retry};
    /// let tries = Retry::default().begin_at(Deadline::never(), std::time::Instant::now());
    /// assert_eq!(tries.made(), 1);
    /// ```
    pub fn made(&self) -> u32 {
        self.made
    }
}
