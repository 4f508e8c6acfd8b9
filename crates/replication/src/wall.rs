//! The process's wall clock: anchored once, carried on by the monotonic clock, slewed.
//!
//! Stamps follow it, so it must not jump with every correction of the system's clock: it reads that at the start and
//! goes on with the monotonic one, nearing the system's by at most one millisecond a second. It never goes back. Forward
//! it steps only when the system's clock has been ahead by more than a second for ten seconds on end, as after a machine
//! was suspended; one bad reading passes. Lives are measured by [`WallClock::mono_ms`], which never steps at all.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;

/// How often the system's clock is looked at, in milliseconds.
const LOOK_MS: u64 = 1_000;
/// How far ahead the system's clock has to be for a step, in milliseconds…
const STEP_MS: i64 = 1_000;
/// …and for how long.
const STEP_AFTER_MS: u64 = 10_000;

/// Milliseconds since the Unix epoch that do not jump.
#[derive(Debug)]
pub struct WallClock {
    started: Instant,
    mono_started: tokio::time::Instant,
    mono_began_ms: u64,
    /// What is added to the monotonic clock.
    anchor_ms: AtomicU64,
    looked_ms: AtomicU64,
    steps: AtomicU64,
    slew: Mutex<Slew>,
}

impl WallClock {
    /// The clock that everything in this process shares.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<WallClock> = OnceLock::new();
        SHARED.get_or_init(|| {
            let mono_began_ms = system_ms();
            let (looked_ms, steps, slew) = Default::default();
            Self {
                started: Instant::now(),
                mono_started: tokio::time::Instant::now(),
                mono_began_ms,
                anchor_ms: AtomicU64::new(mono_began_ms),
                looked_ms,
                steps,
                slew,
            }
        })
    }

    /// The time, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        let mono_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let looked_ms = self.looked_ms.load(Ordering::Relaxed);
        if mono_ms - looked_ms.min(mono_ms) >= LOOK_MS {
            self.look(mono_ms);
        }
        self.anchor_ms.load(Ordering::Relaxed) + mono_ms
    }

    /// A monotonic clock that showed the wall clock's time when the process first asked: the clock of lives
    /// ([`Ttl::born_ms`](crate::Ttl::born_ms), [`Now::mono_ms`](crate::replica::Now::mono_ms)), in milliseconds. It is
    /// tokio's, which a test can pause.
    pub fn mono_ms(&self) -> u64 {
        let since = tokio::time::Instant::now().saturating_duration_since(self.mono_started);
        self.mono_began_ms + u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// How often it stepped forward.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    fn look(&self, mono_ms: u64) {
        // Whoever is late finds it done.
        let Some(mut slew) = self.slew.try_lock() else { return };
        let anchor_ms = self.anchor_ms.load(Ordering::Relaxed);
        let change = slew.look(mono_ms, anchor_ms, system_ms());
        self.looked_ms.store(mono_ms, Ordering::Relaxed);
        self.anchor_ms.store(anchor_ms.saturating_add_signed(change.by_ms), Ordering::Relaxed);
        if change.is_step {
            self.steps.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                by_ms = change.by_ms,
                "the system's clock went forward, and this process's with it"
            );
        }
    }
}

#[cfg(feature = "sim")]
impl WallClock {
    /// From now on the system's clock seems this much further ahead than it is, to this process alone (feature `sim`):
    /// how a test has a machine with a wrong clock. Said before the first use, the process begins with that time; said
    /// later, it is followed as any step of the system's clock, after ten seconds.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime, UNIX_EPOCH};
    /// use replication::WallClock;
    ///
    /// WallClock::system_ahead(Duration::from_secs(240));
    /// let system = SystemTime::now().duration_since(UNIX_EPOCH)?;
    /// let ahead_ms = u128::from(WallClock::shared().now_ms()) - system.as_millis();
    /// assert!((239_000..300_000).contains(&ahead_ms));
    /// # Ok::<(), std::time::SystemTimeError>(())
    /// ```
    pub fn system_ahead(by: std::time::Duration) {
        AHEAD_MS.store(u64::try_from(by.as_millis()).unwrap_or(0), Ordering::Relaxed);
    }
}

/// How wrong a test wants the system's clock to be.
#[cfg(feature = "sim")]
static AHEAD_MS: AtomicU64 = AtomicU64::new(0);

fn system_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let system_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    #[cfg(feature = "sim")]
    let system_ms = system_ms.saturating_add(AHEAD_MS.load(Ordering::Relaxed));
    system_ms
}

/// Decides how the anchor changes; pure.
#[derive(Debug, Default)]
struct Slew {
    looked_ms: u64,
    ahead_since_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    by_ms: i64,
    is_step: bool,
}

impl Slew {
    fn look(&mut self, mono_ms: u64, anchor_ms: u64, system_ms: u64) -> Change {
        let allowed_ms = i64::try_from(mono_ms.saturating_sub(self.looked_ms) / 1_000).unwrap_or(i64::MAX);
        self.looked_ms = mono_ms;
        let ahead_ms = system_ms as i64 - anchor_ms.saturating_add(mono_ms) as i64;
        if ahead_ms <= STEP_MS {
            self.ahead_since_ms = None;
            return Change { by_ms: ahead_ms.clamp(-allowed_ms, allowed_ms), is_step: false };
        }
        let since_ms = *self.ahead_since_ms.get_or_insert(mono_ms);
        if mono_ms - since_ms < STEP_AFTER_MS {
            return Change { by_ms: allowed_ms.min(ahead_ms), is_step: false };
        }
        self.ahead_since_ms = None;
        Change { by_ms: ahead_ms, is_step: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: u64 = 1_700_000_000_000;

    /// The clock's readings, one a second, while the system's clock shows `system` more than time that passed.
    fn readings(seconds: u64, system: impl Fn(u64) -> i64) -> (Vec<u64>, u64) {
        let (mut slew, mut anchor_ms, mut steps) = (Slew::default(), START_MS, 0);
        let readings = (1..=seconds).map(|second| {
            let mono_ms = second * 1_000;
            let shown = (START_MS + mono_ms).saturating_add_signed(system(second));
            let change = slew.look(mono_ms, anchor_ms, shown);
            anchor_ms = anchor_ms.saturating_add_signed(change.by_ms);
            steps += u64::from(change.is_step);
            anchor_ms + mono_ms - START_MS
        });
        (readings.collect(), steps)
    }

    #[test]
    fn a_clock_that_goes_back_is_neared_by_a_millisecond_a_second() {
        let (readings, steps) = readings(100, |_| -60_000);
        assert_eq!((readings[99], steps), (100_000 - 100, 0));
        assert!(readings.is_sorted());
    }

    #[test]
    fn one_bad_reading_passes() {
        let (readings, steps) = readings(100, |second| if second == 50 { 3_600_000 } else { 0 });
        assert_eq!((readings[99], steps), (100_000, 0));
    }

    #[test]
    fn a_clock_that_stays_ahead_is_followed_after_ten_seconds() {
        let (readings, steps) = readings(100, |second| if second >= 50 { 60_000 } else { 0 });
        assert_eq!((readings[99], steps), (160_000, 1));
        assert!(readings[57] < 60_000, "not before");
    }

    #[test]
    fn small_differences_are_slewed_away() {
        let (readings, steps) = readings(100, |_| 20);
        assert_eq!((readings[99], steps), (100_020, 0));
    }

    #[test]
    fn the_shared_clock_shows_the_systems_time_and_does_not_go_back() {
        let clock = WallClock::shared();
        let first = clock.now_ms();
        assert!(first.abs_diff(system_ms()) < 60_000);
        assert!(clock.now_ms() >= first);
    }
}
