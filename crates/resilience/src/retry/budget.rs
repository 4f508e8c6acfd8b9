//! How many retries a caller may add to its own load.
//!
//! Retries are bounded as a share of the first attempts, not per call: three tries each look modest, and yet they
//! treble the load of a callee that is failing because of its load. The rule is that of Finagle's `RetryBudget`,
//! which Linkerd took over: within a sliding window of ten seconds, retries may reach a share (20 %) of the first
//! attempts, plus a reserve (10 per second of window) so that callers with little traffic may retry at all.
//!
//! The window is ten slots, counted exactly: a slot leaves as a whole, so the window spans nine to ten tenths of its
//! length. A bucket that leaks was rejected, since it cannot say over which calls its level was taken.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{breaker::ConfigError, clock, setting::Check};

/// The slots that the window slides by.
const SLOTS: usize = 10;
const CHECK: Check = Check("retry budget");

/// A budget of retries; a clone is another handle on the same budget.
///
/// Callers of the same callee share one. Asking it takes one short lock.
///
/// ```
/// use std::time::Instant;
/// use resilience::RetryBudget;
///
/// let (budget, now) = (RetryBudget::builder().share(0.2).per_second(0.0).build()?, Instant::now());
/// for _ in 0..10 {
///     budget.first_attempt_at(now);
/// }
/// assert!(budget.try_retry_at(now) && budget.try_retry_at(now));
/// assert!(!budget.try_retry_at(now), "two retries are a fifth of ten calls");
/// # Ok::<(), resilience::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct RetryBudget {
    core: Arc<Mutex<Core>>,
}

/// What a budget has counted.
///
/// ```
/// let budget = resilience::RetryBudget::default();
/// budget.first_attempt();
/// assert!(budget.try_retry());
/// let snapshot = budget.snapshot();
/// assert_eq!((snapshot.first_attempts, snapshot.retries, snapshot.attempts()), (1, 1, 2));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BudgetSnapshot {
    /// First attempts in the window.
    pub window_first_attempts: u64,
    /// Retries in the window.
    pub window_retries: u64,
    /// Retries that would be granted now.
    pub available: u64,
    /// First attempts since the budget was built.
    pub first_attempts: u64,
    /// Retries granted since then.
    pub retries: u64,
    /// Retries refused since then.
    pub refused: u64,
}

impl BudgetSnapshot {
    /// First attempts and retries together, since the budget was built.
    pub fn attempts(&self) -> u64 {
        self.first_attempts + self.retries
    }
}

impl RetryBudget {
    /// Settings to change before building.
    ///
    /// ```
    /// let error = resilience::RetryBudget::builder().share(-0.2).build().unwrap_err();
    /// assert_eq!(error.to_string(), "retry budget setting `share` is -0.2; use 0 to 1");
    /// ```
    pub fn builder() -> RetryBudgetBuilder {
        RetryBudgetBuilder::default()
    }

    /// Counts a first attempt, which earns a share of a retry.
    ///
    /// ```
    /// let budget = resilience::RetryBudget::default();
    /// budget.first_attempt();
    /// assert_eq!(budget.snapshot().first_attempts, 1);
    /// ```
    pub fn first_attempt(&self) {
        self.first_attempt_at(clock::now());
    }

    /// [`first_attempt`](Self::first_attempt) at a given time.
    ///
    /// ```
    /// let budget = resilience::RetryBudget::default();
    /// budget.first_attempt_at(std::time::Instant::now());
    /// ```
    pub fn first_attempt_at(&self, now: Instant) {
        self.core.lock().first_attempt(now);
    }

    /// Takes one retry from the budget; if it says `false`, the retry must not be made.
    ///
    /// ```
    /// assert!(resilience::RetryBudget::default().try_retry(), "there is a reserve");
    /// ```
    #[must_use = "a retry that was refused must not be made"]
    pub fn try_retry(&self) -> bool {
        self.try_retry_at(clock::now())
    }

    /// [`try_retry`](Self::try_retry) at a given time.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use resilience::RetryBudget;
    ///
    /// let (budget, now) = (RetryBudget::builder().per_second(0.1).build()?, Instant::now());
    /// assert!(budget.try_retry_at(now), "0.1 per second are 1 in the window");
    /// assert!(!budget.try_retry_at(now + Duration::from_secs(8)));
    /// assert!(budget.try_retry_at(now + Duration::from_secs(11)), "the first has left the window");
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    #[must_use = "a retry that was refused must not be made"]
    pub fn try_retry_at(&self, now: Instant) -> bool {
        self.core.lock().try_retry(now)
    }

    /// What was counted.
    ///
    /// ```
    /// assert_eq!(resilience::RetryBudget::default().snapshot().available, 100);
    /// ```
    pub fn snapshot(&self) -> BudgetSnapshot {
        self.snapshot_at(clock::now())
    }

    /// [`snapshot`](Self::snapshot) at a given time.
    ///
    /// ```
    /// let budget = resilience::RetryBudget::default();
    /// assert_eq!(budget.snapshot_at(std::time::Instant::now()).refused, 0);
    /// ```
    pub fn snapshot_at(&self, now: Instant) -> BudgetSnapshot {
        self.core.lock().snapshot(now)
    }
}

impl Default for RetryBudget {
    /// 20 % of the first attempts of the last 10 s, and 10 per second.
    fn default() -> Self {
        RetryBudgetBuilder::default().build().expect("the default settings are in their ranges")
    }
}

/// Settings of a [`RetryBudget`] to be; begin with [`RetryBudget::builder`].
///
/// ```
/// assert!(resilience::RetryBudget::builder().share(0.1).per_second(1.0).build().is_ok());
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct RetryBudgetBuilder {
    window: Duration,
    share: f64,
    per_second: f64,
}

impl Default for RetryBudgetBuilder {
    /// A window of 10 s, a share of 0.2, a reserve of 10 per second.
    fn default() -> Self {
        Self { window: Duration::from_secs(10), share: 0.2, per_second: 10.0 }
    }
}

impl RetryBudgetBuilder {
    /// How far back calls are counted. Default 10 s; from 10 ms to 1 h.
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Retries per first attempt in the window. Default 0.2; from 0 to 1.
    pub fn share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// Retries per second of window that need no first attempt. Default 10; from 0 to 1,000,000. They may come
    /// at once: it is the window that bounds them.
    pub fn per_second(mut self, retries: f64) -> Self {
        self.per_second = retries;
        self
    }

    /// A budget with these settings.
    ///
    /// # Errors
    /// A [`ConfigError`] that names the first setting that is out of its range.
    pub fn build(self) -> Result<RetryBudget, ConfigError> {
        if self.window < Duration::from_millis(10) || self.window > Duration::from_secs(3600) {
            CHECK.wrong("window", format!("is {:?}; use 10 ms to 1 h", self.window))?;
        }
        CHECK.number("share", self.share, 0.0..=1.0)?;
        CHECK.number("per_second", self.per_second, 0.0..=1_000_000.0)?;
        let reserve = self.per_second * self.window.as_secs_f64();
        Ok(RetryBudget { core: Arc::new(Mutex::new(Core::new(self.window, self.share, reserve))) })
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    first_attempts: u64,
    retries: u64,
}

#[derive(Debug)]
struct Core {
    slot: Duration,
    share: f64,
    reserve: f64,
    /// A ring; `head` is the newest slot.
    slots: [Slot; SLOTS],
    head: usize,
    /// When the newest slot began. `None` before the first call.
    head_begun: Option<Instant>,
    /// The sums over the ring.
    window: Slot,
    total: Slot,
    refused: u64,
}

impl Core {
    fn new(window: Duration, share: f64, reserve: f64) -> Self {
        Self {
            slot: window / SLOTS as u32,
            share,
            reserve,
            slots: [Slot::default(); SLOTS],
            head: 0,
            head_begun: None,
            window: Slot::default(),
            total: Slot::default(),
            refused: 0,
        }
    }

    fn first_attempt(&mut self, now: Instant) {
        self.slide(now);
        self.slots[self.head].first_attempts += 1;
        self.window.first_attempts += 1;
        self.total.first_attempts += 1;
    }

    fn try_retry(&mut self, now: Instant) -> bool {
        self.slide(now);
        if self.available() == 0 {
            self.refused += 1;
            return false;
        }
        self.slots[self.head].retries += 1;
        self.window.retries += 1;
        self.total.retries += 1;
        true
    }

    /// Retries that the window still has room for.
    fn available(&self) -> u64 {
        let allowed = self.reserve + self.share * self.window.first_attempts as f64;
        // A hair above, so that 0.2 × 10 is 2 however the product was rounded.
        ((allowed + 1e-9) as u64).saturating_sub(self.window.retries)
    }

    /// Drops the slots that have left the window. A `now` before the newest slot counts into the newest.
    fn slide(&mut self, now: Instant) {
        let begun = *self.head_begun.get_or_insert(now);
        let passed = now.saturating_duration_since(begun).as_nanos() / self.slot.as_nanos().max(1);
        if passed >= SLOTS as u128 {
            (self.slots, self.window, self.head_begun) =
                ([Slot::default(); SLOTS], Slot::default(), Some(now));
            return;
        }
        for _ in 0..passed {
            self.head = (self.head + 1) % SLOTS;
            let leaving = std::mem::take(&mut self.slots[self.head]);
            self.window.first_attempts -= leaving.first_attempts;
            self.window.retries -= leaving.retries;
        }
        self.head_begun = Some(begun + self.slot * passed as u32);
    }

    fn snapshot(&mut self, now: Instant) -> BudgetSnapshot {
        self.slide(now);
        BudgetSnapshot {
            window_first_attempts: self.window.first_attempts,
            window_retries: self.window.retries,
            available: self.available(),
            first_attempts: self.total.first_attempts,
            retries: self.total.retries,
            refused: self.refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_caller_with_no_traffic_has_the_reserve_and_no_more() {
        let (budget, now) = (RetryBudget::default(), Instant::now());
        assert_eq!((0..500).filter(|_| budget.try_retry_at(now)).count(), 100);
        let snapshot = budget.snapshot_at(now);
        assert_eq!((snapshot.available, snapshot.retries, snapshot.refused), (0, 100, 400));
    }

    #[test]
    fn a_full_outage_adds_a_fifth_to_the_load_of_a_busy_caller() {
        let (budget, start) = (RetryBudget::default(), Instant::now());
        // 1,000 calls a second for a minute, each of which fails and would retry twice.
        let mut retries = 0;
        for millis in 0..60_000 {
            let now = start + Duration::from_millis(millis);
            budget.first_attempt_at(now);
            retries += (0..2).filter(|_| budget.try_retry_at(now)).count();
        }
        let share = retries as f64 / 60_000.0;
        // The reserve of 10 per second is another 1 % of 1,000 calls.
        assert!((0.20..=0.215).contains(&share), "retries were {share} of the calls");
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let new = RetryBudget::builder;
        let field = |builder: RetryBudgetBuilder| builder.build().expect_err("the settings are wrong").field;
        assert_eq!(field(new().window(Duration::ZERO)), "window");
        assert_eq!(field(new().window(Duration::from_secs(3601))), "window");
        for share in [-0.1, 1.1, 20.0, f64::NAN] {
            assert_eq!(field(new().share(share)), "share");
        }
        assert!(new().share(1.0).build().is_ok());
        for retries in [-1.0, f64::INFINITY, f64::NAN] {
            assert_eq!(field(new().per_second(retries)), "per_second");
        }
    }

    /// The budget's rule, kept naively: every event with its time.
    struct Naive {
        /// Where the current run of slots is counted from.
        origin: Option<Instant>,
        newest: u128,
        events: Vec<(u128, bool)>,
    }

    impl Naive {
        fn slot(&mut self, now: Instant, slot: Duration) -> u128 {
            let origin = *self.origin.get_or_insert(now);
            let at = now.saturating_duration_since(origin).as_nanos() / slot.as_nanos();
            if at >= self.newest + SLOTS as u128 {
                // After a pause of a whole window the slots begin anew with the next call.
                (self.origin, self.newest) = (Some(now), 0);
                self.events.clear();
            }
            self.newest = self.newest.max(if self.origin == Some(origin) { at } else { 0 });
            self.newest
        }

        fn count(&self, retry: bool) -> usize {
            let newest = self.newest;
            self.events.iter().filter(|(slot, kind)| *kind == retry && slot + SLOTS as u128 > newest).count()
        }
    }

    proptest! {
        #[test]
        fn it_grants_exactly_what_the_window_allows(
            share in 0.0f64..1.0, per_second in 0.0f64..1.0,
            steps in prop::collection::vec((0u64..4_000, any::<bool>()), 1..300),
        ) {
            let budget = RetryBudget::builder().share(share).per_second(per_second).build().unwrap();
            let mut naive = Naive { origin: None, newest: 0, events: Vec::new() };
            let mut now = Instant::now();
            for (millis, retry) in steps {
                // Half of the steps come at once, so that bursts are seen too.
                now += Duration::from_millis(if millis > 2_000 { 0 } else { millis });
                let slot = naive.slot(now, Duration::from_secs(1));
                if retry {
                    let allowed = per_second * 10.0 + share * naive.count(false) as f64 + 1e-9;
                    let granted = naive.count(true) < allowed as usize;
                    prop_assert_eq!(budget.try_retry_at(now), granted);
                    if granted {
                        naive.events.push((slot, true));
                    }
                } else {
                    budget.first_attempt_at(now);
                    naive.events.push((slot, false));
                }
                let snapshot = budget.snapshot_at(now);
                prop_assert_eq!(snapshot.window_retries as usize, naive.count(true));
                prop_assert_eq!(snapshot.window_first_attempts as usize, naive.count(false));
            }
        }
    }
}
