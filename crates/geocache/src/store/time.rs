//! Where a store takes the time of its writes from.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use cache_core::ManualClock;
use replication::WallClock;

/// The wall clock that stamps are issued by, and the clock of lives that `born_ms` is of. Expiry is the map's own.
#[derive(Debug, Clone)]
pub(crate) enum Time {
    /// What the process shares.
    Process,
    /// What a simulation sets.
    #[cfg_attr(not(any(test, feature = "sim")), expect(dead_code, reason = "simulations alone make it"))]
    Set(Arc<SetTime>),
}

/// A time that is set, together with the map's.
#[derive(Debug)]
pub(crate) struct SetTime {
    pub(super) wall_ms: AtomicU64,
    /// What the clock of lives showed when the map's began at zero.
    pub(super) began_ms: u64,
    pub(super) map: ManualClock,
    /// How often it was set.
    #[cfg_attr(not(any(test, feature = "sim")), expect(dead_code, reason = "simulations alone set it"))]
    pub(super) ticks: AtomicU64,
}

impl Time {
    /// Milliseconds since the Unix epoch.
    pub(crate) fn wall_ms(&self) -> u64 {
        match self {
            Self::Process => WallClock::shared().now_ms(),
            Self::Set(time) => time.wall_ms.load(Ordering::Relaxed),
        }
    }

    /// Milliseconds of the clock by which lives are measured.
    pub(crate) fn mono_ms(&self) -> u64 {
        match self {
            Self::Process => WallClock::shared().mono_ms(),
            Self::Set(time) => time.mono_ms(),
        }
    }
}

impl SetTime {
    pub(super) fn mono_ms(&self) -> u64 {
        let since_ms = u64::try_from(self.map.now().as_millis()).unwrap_or(u64::MAX);
        self.began_ms.saturating_add(since_ms)
    }
}
