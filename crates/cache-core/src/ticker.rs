//! The two threads of a cache: one advances its coarse clock, the other reclaims what expired.
//!
//! They are two because reclaiming runs others' code (listeners, sidecars, `Drop`s), which may block for as long as it likes. The clock
//! runs none, so however long that takes, time passes and what expired is not returned. Meanwhile the ticker reclaims nothing more
//! by itself; reads and writes still do where they meet something.
//!
//! Both hold the cache weakly: the clock's thread never borrows it, and the ticker's borrows it for one short step at a time. When the
//! last handle is gone both end, within one tick. (If that handle is dropped in the middle of a step, the cache's memory is freed on
//! the ticker's thread.)
//!
//! Work per tick is bounded. A round over all slots is spread over about [`ROUND_TICKS`] ticks, at most [`VISITS_MAX`] slots and
//! [`RECLAIMS_MAX`] expired entries each, and one step more; so with up to 2 million slots everything expired is met within about 0.3 s
//! plus the time that the removals themselves take, and larger caches take proportionally longer. A shard in which nothing can have
//! expired costs one look.

use std::{
    hash::{BuildHasher, Hash},
    io,
    sync::{Arc, Weak, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    Clock, Sidecar,
    departed::{Departed, Panics},
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

/// Starts the threads of a cache. Whoever waits for them has to let go of the cache first.
pub(crate) fn spawn<K, V, S, X>(cache: &Arc<Inner<K, V, S, X>>) -> io::Result<[JoinHandle<()>; 2]>
where
    K: Hash + Eq + Send + 'static,
    V: Send + 'static,
    S: BuildHasher + Send + Sync + 'static,
    X: Sidecar<K, V>,
{
    let (weak, time) = (Arc::downgrade(cache), cache.time.clone());
    let clock = thread::Builder::new().name("cache-core-time".into()).spawn(move || {
        let began = Instant::now();
        while weak.strong_count() > 0 {
            // To the next tick and not for one: what a sleep overshoots by must not add up, or the clock would lag behind by it.
            thread::sleep(until_tick(began.elapsed()));
            time.publish(began.elapsed());
        }
    })?;
    let weak = Arc::downgrade(cache);
    let ticker = thread::Builder::new().name("cache-core-tick".into()).spawn(move || {
        let mut round = Round { index: 0, slots_seen: 0, slots: 0 };
        while weak.strong_count() > 0 {
            thread::sleep(Clock::TICK);
            round.tick(&weak);
        }
    })?;
    Ok([clock, ticker])
}

/// How long it is from then to the next multiple of a tick.
fn until_tick(elapsed: Duration) -> Duration {
    let into_tick = elapsed.as_nanos() % Clock::TICK.as_nanos();
    Clock::TICK - Duration::from_nanos(into_tick as u64)
}

/// How far the sweep has come with its round over the shards.
struct Round {
    index: usize,
    /// The slots of the shards finished in this round, and of all shards in the last.
    slots_seen: usize,
    slots: usize,
}

impl Round {
    fn tick<K, V, S, X>(&mut self, weak: &Weak<Inner<K, V, S, X>>)
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
            let Some(cache) = weak.upgrade() else { return };
            let mut step = || cache.sweep_step(self.index, &mut budget, &mut departed);
            // A panic of the user's code must not end the thread.
            let mut panics = Panics::default();
            let mut swept = Swept { finished: true, slots: 0, reclaimed: 0 };
            panics.catch(|| swept = step());
            // Also of what a step took out before a sidecar's panic ended it.
            cache.tell(&mut departed, &mut panics);
            cache.sweep_panics.fetch_add(panics.count(), Ordering::Relaxed);
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
    use super::*;
    use crate::{Cache, ManualClock};

    /// No step takes out more. A number of its own, so that a change of the documented bound is noticed here.
    const STEP_RECLAIMS: usize = 256;

    #[test]
    fn the_threads_end_with_the_last_handle() {
        let cache: Cache<u32, u32> =
            Cache::builder().capacity(10).clock(ManualClock::new()).build().expect("a right configuration");
        let threads = spawn(cache.inner()).expect("two threads more");
        let time = cache.inner().time.clone();
        wait("the clock goes", || time.now() > 0);
        assert!(threads.iter().all(|thread| !thread.is_finished()));
        drop(cache);
        threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
    }

    #[test]
    fn a_late_tick_is_followed_by_one_in_time() {
        let left = |us| until_tick(Duration::from_micros(us)).as_micros();
        assert_eq!([0, 1, 9_999, 10_000, 13_000].map(left), [10_000, 9_999, 1, 10_000, 7_000]);
        assert_eq!(left(u64::MAX), 10_000 - u128::from(u64::MAX) % 10_000);
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
            time.publish(began.elapsed());
            round.tick(&weak);
            assert!(cache.get(&0).is_none(), "from the first tick on none is returned");
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
