//! Where successes are counted while all is well, without a lock and without one thread slowing another.
//!
//! A success can neither open a closed circuit nor tell one success from another, so the core need not hear of it at
//! once: it is counted in its thread's lane, and the core is told by the lot before it decides or answers anything. No
//! look can tell the difference, so the window stays exact. A lane takes a success only if it is of the generation that
//! it is counting for, in one atomic step with the count, so a late one is never among them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{hub::Hub, state::Admission, window::Uniform};
use crate::sync::{AtomicU64, Ordering, parallelism, thread_number};

/// A further lane does not help a machine that is so wide, and a failure has to look at each.
const LANES_MAX: usize = 16;

/// A lane is emptied at the latest when it holds so many, so that a failure never has much to catch up with.
const BATCH_MAX: u64 = 1_024;

const COUNT_BITS: u32 = 16;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

const _: () = assert!(BATCH_MAX <= COUNT);

/// A generation that is never reached: what a lane counts for while it counts nothing.
const NOBODY: u64 = u64::MAX >> COUNT_BITS;

/// Successes that the core has not heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) successes: u64,
    pub(super) newest: Instant,
}

/// One thread's handle on a breaker, or a few threads'. What it writes is on cache lines of its own: its reference count,
/// beside it, and its successes.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Lane {
    pub(super) hub: Arc<Hub>,
    number: usize,
}

impl Lane {
    /// Counts a success, if this may be done without the core.
    pub(super) fn count_success(&self, admission: Admission, now: Instant) -> bool {
        self.hub.lanes.tallies[self.number].count(&self.hub.lanes, admission, now)
    }
}

/// The lanes of a breaker, for its handles.
pub(super) fn of(hub: &Arc<Hub>) -> Arc<[Arc<Lane>]> {
    (0..hub.lanes.tallies.len()).map(|number| Arc::new(Lane { hub: Arc::clone(hub), number })).collect()
}

/// The lane of this thread.
pub(super) fn mine(lanes: &[Arc<Lane>]) -> &Arc<Lane> {
    &lanes[thread_number() % lanes.len()]
}

/// What the lanes of one breaker count.
#[derive(Debug)]
pub(super) struct Lanes {
    tallies: Box<[Tally]>,
    /// The time that is zero to the numbers below. No decision depends on it.
    origin: Instant,
    /// From when on, in nanoseconds, a success belongs into another tenth of a time window than those that are counted.
    ends_ns: AtomicU64,
    /// From when on a call is slow, which the core has to know.
    slow_call_threshold: Option<Duration>,
}

#[derive(Debug)]
#[repr(align(128))]
struct Tally {
    /// The generation above, how many of its successes below.
    word: AtomicU64,
    /// When the newest of them ended. Of two at the same moment either.
    newest_ns: AtomicU64,
}

impl Lanes {
    /// Lanes that count nothing yet. `origin` is a time of about now: what ends before it is the core's to count.
    pub(super) fn new(origin: Instant, slow_call_threshold: Option<Duration>) -> Self {
        let tally = || Tally { word: AtomicU64::new(NOBODY << COUNT_BITS), newest_ns: AtomicU64::new(0) };
        let tallies = (0..parallelism().clamp(1, LANES_MAX)).map(|_| tally()).collect();
        Self { tallies, origin, ends_ns: AtomicU64::new(0), slow_call_threshold }
    }

    /// Takes what is counted. Under the core's lock, as all below.
    pub(super) fn take(&self) -> Option<Batch> {
        let mut taken: Option<Batch> = None;
        for tally in &self.tallies {
            let word = tally.word.load(Ordering::Acquire);
            if word & COUNT != 0 {
                taken = self.joined(taken, tally, tally.word.swap(word & !COUNT, Ordering::AcqRel));
            }
        }
        taken
    }

    /// Counts for another generation, or for none; returns what came for the one before.
    pub(super) fn turn(&self, generation: Option<u64>) -> Option<Batch> {
        let word = generation.unwrap_or(NOBODY) << COUNT_BITS;
        let turned =
            |taken, tally: &Tally| self.joined(taken, tally, tally.word.swap(word, Ordering::AcqRel));
        self.tallies.iter().fold(None, turned)
    }

    /// Counts no success that ends later than that.
    pub(super) fn count_for(&self, lasts: Uniform) {
        let ends_ns = match lasts {
            Uniform::Ever => u64::MAX,
            Uniform::Until(end) => self.ns(end).unwrap_or(0),
            Uniform::Never => 0,
        };
        if self.ends_ns.load(Ordering::Relaxed) != ends_ns {
            self.ends_ns.store(ends_ns, Ordering::Release);
        }
    }

    fn joined(&self, batch: Option<Batch>, tally: &Tally, word: u64) -> Option<Batch> {
        let successes = word & COUNT;
        if successes == 0 {
            return batch;
        }
        let newest = self.origin + Duration::from_nanos(tally.newest_ns.load(Ordering::Relaxed));
        Some(batch.map_or(Batch { successes, newest }, |batch| Batch {
            successes: batch.successes + successes,
            newest: batch.newest.max(newest),
        }))
    }

    /// The nanoseconds since the origin; `None` before it.
    fn ns(&self, at: Instant) -> Option<u64> {
        let passed = at.checked_duration_since(self.origin)?;
        Some(u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Tally {
    fn count(&self, lanes: &Lanes, admission: Admission, now: Instant) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        if word >> COUNT_BITS != admission.generation {
            return false;
        }
        if lanes.slow_call_threshold.is_some_and(|slow| admission.took(now) >= slow) {
            return false;
        }
        // A time before the origin has no number here; the core knows what to do with it.
        let Some(now_ns) = lanes.ns(now) else { return false };
        if now_ns >= lanes.ends_ns.load(Ordering::Acquire) {
            return false;
        }
        if self.newest_ns.load(Ordering::Relaxed) < now_ns {
            self.newest_ns.store(now_ns, Ordering::Relaxed);
        }
        while word >> COUNT_BITS == admission.generation && word & COUNT < BATCH_MAX {
            match self.word.compare_exchange_weak(word, word + 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => word = other,
            }
        }
        false
    }
}
