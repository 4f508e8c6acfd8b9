//! The thread that advances a cache's coarse clock and reclaims what expired.
//!
//! It holds the cache weakly: each round it borrows the cache for one short step at a time, and when the last handle is gone it
//! ends, within one tick. (If that handle is dropped in the middle of a step, the cache's memory is freed on this thread.)
//!
//! Work per tick is bounded. A round over all slots is spread over about [`ROUND_TICKS`] ticks, at most [`VISITS_MAX`] slots and
//! [`RECLAIMS_MAX`] expired entries each; so with up to 2 million slots everything expired is met within about 0.3 s plus the
//! time that the removals themselves take, and larger caches take proportionally longer. A shard in which nothing can have expired
//! costs one look.

use std::{
    hash::{BuildHasher, Hash},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak, atomic::Ordering},
    thread,
    time::Instant,
};

use crate::{
    Clock, Sidecar,
    clock::Time,
    departed::Departed,
    inner::{Inner, Swept},
    shard::Budget,
};

/// In how many ticks a round over all slots is meant to be done.
const ROUND_TICKS: usize = 32;
/// The most slots looked at in a tick, and the least that a tick may look at.
const VISITS_MAX: usize = 65_536;
const VISITS_MIN: usize = 4_096;
/// The most expired entries taken out in a tick.
const RECLAIMS_MAX: usize = 32_768;

/// Starts the thread of a cache.
pub(crate) fn spawn<K, V, S, X>(cache: &Arc<Inner<K, V, S, X>>) -> io::Result<()>
where
    K: Hash + Eq + Send + 'static,
    V: Send + 'static,
    S: BuildHasher + Send + Sync + 'static,
    X: Sidecar<K, V>,
{
    let (weak, time) = (Arc::downgrade(cache), cache.time.clone());
    let began = Instant::now();
    thread::Builder::new().name("cache-core-tick".into()).spawn(move || {
        let mut round = Round { index: 0, slots_seen: 0, slots: 0 };
        while weak.strong_count() > 0 {
            thread::sleep(Clock::TICK);
            round.tick(&weak, &time, began);
        }
    })?;
    Ok(())
}

/// How far the sweep has come with its round over the shards.
struct Round {
    index: usize,
    /// The slots of the shards finished in this round, and of all shards in the last.
    slots_seen: usize,
    slots: usize,
}

impl Round {
    fn tick<K, V, S, X>(&mut self, weak: &Weak<Inner<K, V, S, X>>, time: &Time, began: Instant)
    where
        K: Hash + Eq,
        S: BuildHasher,
        X: Sidecar<K, V>,
    {
        let visits = (self.slots / ROUND_TICKS).clamp(VISITS_MIN, VISITS_MAX);
        let mut budget = Budget { visits, reclaims: RECLAIMS_MAX };
        let mut finished = 0;
        let mut departed = Departed::new();
        loop {
            // Between steps too, so that a long sweep does not hold the time up.
            time.publish(began.elapsed());
            let Some(cache) = weak.upgrade() else { return };
            let step = || cache.sweep_step(self.index, &mut budget, &mut departed);
            // A panic of the user's code must not stop the clock of everyone else.
            let swept = catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|_| {
                cache.sweep_panics.fetch_add(1, Ordering::Relaxed);
                Swept { finished: true, slots: 0, reclaimed: 0 }
            });
            if swept.finished {
                finished += 1;
                self.slots_seen += swept.slots;
                self.index += 1;
                if self.index == cache.shards.len() {
                    self.index = 0;
                    self.slots = std::mem::take(&mut self.slots_seen);
                }
            }
            if budget.is_spent() || finished == cache.shards.len() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Cache, ManualClock};

    /// No step takes out more. A number of its own, so that a change of the documented bound is noticed here.
    const STEP_RECLAIMS: usize = 256;

    #[test]
    fn the_thread_ends_with_the_last_handle() {
        let cache: Cache<u32, u32> = Cache::builder().capacity(10).build().expect("a right configuration");
        let time = cache.inner().time.clone();
        assert_eq!(time.holders(), 3, "the cache, the thread, and this test");
        wait("the thread is at work", || time.now() > 0);
        drop(cache);
        wait("the thread has let go of the clock", || time.holders() == 1);
    }

    /// A quarter of a million entries whose time ends at once, by a clock that stood still until then because no tick came.
    #[test]
    #[cfg_attr(miri, ignore = "so many entries take Miri many minutes")]
    fn what_expires_all_at_once_is_reclaimed_in_ticks_of_bounded_work_however_late_they_come() {
        const ENTRIES: usize = 250_000;
        let cache = Cache::builder()
            .capacity(2 * ENTRIES)
            .default_ttl(Duration::from_millis(5))
            .clock(ManualClock::new())
            .build()
            .expect("a right configuration");
        // As the thread does it, but here each tick can be looked at.
        let (weak, time) = (Arc::downgrade(cache.inner()), cache.inner().time.clone());
        let mut round = Round { index: 0, slots_seen: 0, slots: 0 };
        let began = Instant::now();
        for key in 0..ENTRIES {
            cache.insert(key, ());
        }
        assert_eq!((cache.len(), time.now()), (ENTRIES, 0), "nothing is over while the clock stands");
        wait("the lifetime has passed", || began.elapsed() > Duration::from_millis(20));
        let (mut ticks, mut left) = (0, ENTRIES);
        while left > 0 {
            round.tick(&weak, &time, began);
            assert!(time.now() >= 20 && cache.get(&0).is_none(), "from the first tick on none is returned");
            let reclaimed = left - cache.len();
            // Everything that is met is over here, so the bound of what is looked at is one of what is reclaimed, too. The
            // budget is asked between steps, and one entry is the read's.
            let visits = (round.slots / ROUND_TICKS).clamp(VISITS_MIN, VISITS_MAX);
            assert!(reclaimed <= visits.min(RECLAIMS_MAX) + STEP_RECLAIMS + 1, "{reclaimed} in a tick");
            (ticks, left) = (ticks + 1, cache.len());
            assert!(ticks <= 4 * ROUND_TICKS, "{left} are left after {ticks} ticks");
        }
        assert_eq!(cache.stats().expirations, ENTRIES as u64);
        assert_eq!(cache.weight(), 0);
    }

    fn wait(what: &str, condition: impl Fn() -> bool) {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
            thread::yield_now();
        }
    }
}
