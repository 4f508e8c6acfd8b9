//! The coarse clock, its manual twin, and deadlines on both.
//!
//! Time is whole milliseconds since the clock began, in one atomic that advances in steps of one tick. A reader pays one load. The
//! price is precision, always paid on the same side: a deadline is the time as last published plus the lifetime *rounded down* to
//! a tick, so an entry lives at most as long as it was given, and at most two ticks less. The one thing that can lengthen a life is
//! the operating system running the clock's thread late, usually by some tenths of a millisecond: by as much later the time advances.
//! That thread runs nobody else's code, so no listener, sidecar or `Drop` holds the time up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The deadline of an entry that never expires.
///
/// Deadlines have 56 bits, for which the time lasts two million years.
pub(crate) const NEVER: u64 = u64::MAX >> 8;

/// How long an entry lives.
///
/// ```
/// use std::time::Duration;
/// use cache_core::{Cache, Expiry};
///
/// let cache = Cache::builder().capacity(10).default_ttl(Duration::from_secs(60)).build()?;
/// cache.insert_with_expiry("a", 1, Expiry::After(Duration::from_secs(1)));
/// cache.insert_with_expiry("a", 2, Expiry::Keep);
/// cache.insert_with_expiry("b", 3, Expiry::Never);
/// assert_eq!(cache.read("b", |_, left| left), Some(None));
/// assert!(cache.read("a", |_, left| left).flatten().is_some_and(|left| left <= Duration::from_secs(1)));
/// # Ok::<(), cache_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expiry {
    /// As long as the cache's default says; forever if it has none.
    #[default]
    Default,
    /// Until it is evicted or removed.
    Never,
    /// For this long, rounded down to one tick of the clock. A lifetime under one tick is over at once: nobody ever sees the entry, and
    /// no other one leaves for it. What it writes over goes all the same, and it counts as written and as
    /// [`Expired`](crate::Cause::Expired).
    After(Duration),
    /// Until the deadline that the entry already has. For a key that was vacant this is [`Default`](Expiry::Default).
    Keep,
}

/// Where a cache takes its time from.
///
/// ```
/// use cache_core::{Cache, Clock, ManualClock};
///
/// let in_service = Cache::<u32, u32>::builder().capacity(10).clock(Clock::coarse()).build()?;
/// let in_a_test = Cache::<u32, u32>::builder().capacity(10).clock(ManualClock::new()).build()?;
/// # Ok::<(), cache_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Clock {
    manual: Option<ManualClock>,
}

impl Clock {
    /// The step in which the coarse clock advances: 10 ms.
    ///
    /// ```
    /// assert_eq!(cache_core::Clock::TICK.as_millis(), 10);
    /// ```
    pub const TICK: Duration = Duration::from_millis(10);

    /// A monotonic clock in steps of [`TICK`](Self::TICK): the default.
    ///
    /// Each cache built with it has two threads of its own, which end with the cache: one advances the clock and runs nobody else's
    /// code, and the *ticker* reclaims expired entries, where listeners are called.
    ///
    /// ```
    /// use cache_core::{Cache, Clock};
    ///
    /// let cache = Cache::<u32, u32>::builder().capacity(10).clock(Clock::coarse()).build()?;
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn coarse() -> Self {
        Clock { manual: None }
    }

    pub(crate) fn manual(&self) -> Option<&ManualClock> {
        self.manual.as_ref()
    }
}

impl From<ManualClock> for Clock {
    fn from(clock: ManualClock) -> Self {
        Clock { manual: Some(clock) }
    }
}

/// A clock that moves when it is told to, for tests. Its tick is one millisecond.
///
/// Clones share one time. A cache on a manual clock has no thread: what expired is reclaimed when somebody meets it, and by
/// [`Cache::sweep`](crate::Cache::sweep).
///
/// ```
/// use std::time::Duration;
/// use cache_core::{Cache, Expiry, ManualClock};
///
/// let clock = ManualClock::new();
/// let cache = Cache::builder().capacity(10).clock(clock.clone()).build()?;
/// cache.insert_with_expiry("k", 1, Expiry::After(Duration::from_secs(1)));
/// clock.advance(Duration::from_secs(1));
/// assert_eq!((cache.len(), cache.get("k")), (1, None));
/// # Ok::<(), cache_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct ManualClock {
    now_ms: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock at zero.
    ///
    /// ```
    /// let clock = cache_core::ManualClock::new();
    /// assert!(clock.now().is_zero());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the time forward, rounding down to a millisecond. It stops short of the end of time rather than wrapping.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let clock = cache_core::ManualClock::new();
    /// clock.clone().advance(Duration::from_micros(2_900));
    /// assert_eq!(clock.now(), Duration::from_millis(2));
    /// ```
    pub fn advance(&self, by: Duration) {
        let by = millis(by);
        let forward = |now: u64| Some(now.saturating_add(by).min(NEVER - 1));
        // The closure never answers `None`, so the update cannot fail.
        let _ = self.now_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, forward);
    }

    /// The time since the clock's beginning.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let clock = cache_core::ManualClock::new();
    /// clock.advance(Duration::from_secs(3));
    /// assert_eq!(clock.now(), Duration::from_secs(3));
    /// ```
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms.load(Ordering::Relaxed))
    }
}

/// The time as a cache reads it: a shared atomic and the size of its steps.
#[derive(Debug, Clone)]
pub(crate) struct Time {
    now_ms: Arc<AtomicU64>,
    tick_ms: u64,
}

impl Time {
    pub(crate) fn coarse() -> Self {
        Time { now_ms: Arc::default(), tick_ms: Clock::TICK.as_millis() as u64 }
    }

    pub(crate) fn manual(clock: &ManualClock) -> Self {
        Time { now_ms: Arc::clone(&clock.now_ms), tick_ms: 1 }
    }

    /// Relaxed is enough: the number orders nothing, and a reader may be a tick behind by design.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// Publishes how much time has passed since the clock began, rounded down to a tick. For one thread alone, or time could go back.
    pub(crate) fn publish(&self, elapsed: Duration) {
        let elapsed = millis(elapsed);
        self.now_ms.store(elapsed - elapsed % self.tick_ms, Ordering::Relaxed);
    }

    pub(crate) fn tick_ms(&self) -> u64 {
        self.tick_ms
    }

    /// The deadline of a lifetime that begins now.
    #[inline]
    pub(crate) fn deadline(&self, now: u64, lifetime_ms: u64) -> u64 {
        now.saturating_add(lifetime_ms - lifetime_ms % self.tick_ms).min(NEVER - 1)
    }
}

/// By how much lifetimes are shortened, so that what was written together does not expire together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Jitter {
    /// The most that is taken off, in parts of 2³²; 0 takes nothing.
    most: u64,
}

impl Jitter {
    /// A fraction from 0 to 1.
    pub(crate) fn new(fraction: f64) -> Self {
        Jitter { most: (fraction * 2_f64.powi(32)) as u64 }
    }

    /// Takes something off a lifetime: another part for each key and time, but never so much that less than a tick is left of it.
    #[inline]
    pub(crate) fn shorten(self, lifetime_ms: u64, position: u64, now: u64, tick_ms: u64) -> u64 {
        if self.most == 0 || lifetime_ms <= tick_ms {
            return lifetime_ms;
        }
        self.shorten_some(lifetime_ms, position, now).max(tick_ms)
    }

    fn shorten_some(self, lifetime_ms: u64, position: u64, now: u64) -> u64 {
        // A keyed hash is random enough for this, and needs no generator's state. The finish is that of splitmix64.
        let mut mixed = position ^ now.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let part = ((mixed >> 32) * self.most) >> 32;
        let off = (u128::from(lifetime_ms) * u128::from(part)) >> 32;
        lifetime_ms - off as u64
    }
}

/// Whole milliseconds, at most `u64::MAX`.
#[inline]
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What is left until a deadline that has not passed.
#[inline]
pub(crate) fn left(deadline: u64, now: u64) -> Option<Duration> {
    (deadline != NEVER).then(|| Duration::from_millis(deadline.saturating_sub(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_rounds_down_to_a_tick() {
        let time = Time::coarse();
        time.publish(Duration::from_millis(1_019));
        assert_eq!(time.now(), 1_010);
        assert_eq!(time.deadline(time.now(), 29), 1_030);
        assert_eq!(time.deadline(time.now(), 9), 1_010, "a lifetime under a tick is over at once");
    }

    #[test]
    #[cfg_attr(miri, ignore = "so many lifetimes take Miri many minutes")]
    fn jitter_shortens_evenly_up_to_its_fraction_and_never_lengthens() {
        let jitter = Jitter::new(0.25);
        let lifetimes: Vec<u64> =
            (0..10_000).map(|n: u64| jitter.shorten(100_000, n << 32, n / 100, 10)).collect();
        assert!(lifetimes.iter().all(|lifetime| (75_000..=100_000).contains(lifetime)));
        let mean = lifetimes.iter().sum::<u64>() / 10_000;
        assert!((87_000..88_000).contains(&mean), "{mean}");
        let distinct = lifetimes.iter().collect::<std::collections::HashSet<_>>().len();
        assert!(distinct > 8_000, "{distinct} of 10,000 differ");
        assert_eq!(Jitter::new(0.0).shorten(u64::MAX, 7, 7, 10), u64::MAX);
        assert!((0..1_000).all(|n| (10..=50).contains(&Jitter::new(1.0).shorten(50, n << 40, 3, 10))));
        assert_eq!(Jitter::new(1.0).shorten(9, 1, 1, 10), 9, "what is under a tick is over at once anyway");
    }

    #[test]
    fn a_huge_lifetime_ends_before_never() {
        let time = Time::coarse();
        assert_eq!(time.deadline(5, millis(Duration::MAX)), NEVER - 1);
        let clock = ManualClock::new();
        clock.advance(Duration::MAX);
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Duration::from_millis(NEVER - 1));
    }
}
