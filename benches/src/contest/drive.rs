//! The loops around a cache.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

use super::{Key, Subject};

/// What a thread does over and over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Gets of keys that are all there.
    Hits,
    /// Gets, each miss followed by an insert.
    ReadThrough,
    /// Gets of keys that are all there, and this share of inserts over them.
    Mixed(f64),
    /// Inserts of new keys.
    Churn,
}

/// Keys in the order in which they are used, again and again. Threads begin at different places of it.
#[derive(Debug, Clone)]
pub struct Load<K> {
    /// What is done with the keys.
    pub kind: Kind,
    /// The keys: a power of two of them.
    pub keys: Vec<K>,
}

/// How a load is run.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// On so many threads.
    pub threads: usize,
    /// For so long.
    pub length: Duration,
    /// From this key on, so that a later run goes on where an earlier one ended.
    pub from: usize,
}

/// What one measurement counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Run {
    /// Operations: a read-through's insert is part of its get.
    pub operations: u64,
    /// How many of them were gets.
    pub gets: u64,
    /// How many of the gets hit.
    pub hits: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Run {
    /// Both together, one after the other.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            operations: self.operations + other.operations,
            gets: self.gets + other.gets,
            hits: self.hits + other.hits,
            seconds: self.seconds + other.seconds,
        }
    }

    /// Millions of operations a second, of all threads together.
    pub fn mops(self) -> f64 {
        self.operations as f64 / self.seconds / 1e6
    }

    /// The share of the gets that hit, 0 without gets.
    pub fn hit_ratio(self) -> f64 {
        self.hits as f64 / self.gets.max(1) as f64
    }
}

/// Nanoseconds of single operations, each with the time that reading the clock takes.
pub type Latencies = Histogram<u64>;

/// What can be done to a cache whose type is forgotten. Every [`Subject`] has it.
pub trait Drive<K>: Send + Sync {
    /// Inserts all of the keys.
    fn fill(&self, keys: &mut dyn Iterator<Item = K>);

    /// Fails unless every one of these keys is there.
    ///
    /// # Errors
    /// Says how many are not.
    fn holds_all(&self, keys: &mut dyn Iterator<Item = K>) -> Result<()>;

    /// Runs a load as the effort says.
    fn run(&self, load: &Load<K>, effort: Effort) -> Run;

    /// The same, with each operation timed.
    fn timed(&self, load: &Load<K>, effort: Effort) -> Latencies;

    /// Reads these keys through on this thread, and counts the hits.
    fn replay(&self, keys: &mut dyn Iterator<Item = K>) -> Run;

    /// How many entries it holds, after all that it had put off is done.
    fn settled(&self) -> usize;
}

impl<K: Key, C: Subject<K>> Drive<K> for C {
    fn fill(&self, keys: &mut dyn Iterator<Item = K>) {
        keys.for_each(|key| self.insert(key, 1));
        self.settle();
    }

    fn holds_all(&self, keys: &mut dyn Iterator<Item = K>) -> Result<()> {
        let (mut count, mut missing) = (0_u64, 0_u64);
        for key in keys {
            count += 1;
            missing += u64::from(self.get(&key) != Some(1));
        }
        ensure!(missing == 0, "{missing} of {count} keys are missing, so what is measured would not be hits");
        Ok(())
    }

    fn run(&self, load: &Load<K>, effort: Effort) -> Run {
        match load.kind {
            Kind::Hits => spin(load, effort, |_, key| got(self.get(key))),
            Kind::ReadThrough => spin(load, effort, |_, key| read_through(self, key)),
            Kind::Mixed(writes) => {
                let is_write = writer(writes);
                spin(load, effort, move |at, key| mixed(self, is_write(at), key))
            }
            Kind::Churn => spin(load, effort, |_, key| {
                self.insert(key.clone(), 1);
                (0, 0)
            }),
        }
    }

    fn timed(&self, load: &Load<K>, effort: Effort) -> Latencies {
        let is_write = writer(match load.kind {
            Kind::Hits | Kind::ReadThrough => 0.0,
            Kind::Mixed(writes) => writes,
            Kind::Churn => 1.0,
        });
        let (all, _) = together(load, effort, |gate, mut at, mask| {
            let mut latencies = latencies();
            while gate.is_open() {
                for _ in 0..BATCH {
                    let begin = Instant::now();
                    std::hint::black_box(mixed(self, is_write(at), &load.keys[at & mask]));
                    latencies.saturating_record(begin.elapsed().as_nanos() as u64);
                    at += 1;
                }
            }
            latencies
        });
        let mut sum = latencies();
        for latencies in all {
            sum.add(latencies).expect("both were made with the same bounds");
        }
        sum
    }

    fn replay(&self, keys: &mut dyn Iterator<Item = K>) -> Run {
        let start = Instant::now();
        let mut run = Run::default();
        for key in keys {
            let (gets, hits) = read_through(self, &key);
            run.operations += 1;
            run.gets += gets;
            run.hits += hits;
        }
        run.seconds = start.elapsed().as_secs_f64();
        run
    }

    fn settled(&self) -> usize {
        self.settle();
        self.entries()
    }
}

/// Operations between two looks at whether time is up.
const BATCH: usize = 64;

fn got(value: Option<u64>) -> (u64, u64) {
    (1, value.unwrap_or(0))
}

#[inline]
fn read_through<K: Key, C: Subject<K> + ?Sized>(cache: &C, key: &K) -> (u64, u64) {
    let value = cache.get(key);
    if value.is_none() {
        cache.insert(key.clone(), 1);
    }
    got(value)
}

#[inline]
fn mixed<K: Key, C: Subject<K> + ?Sized>(cache: &C, is_write: bool, key: &K) -> (u64, u64) {
    if is_write {
        cache.insert(key.clone(), 1);
        (0, 0)
    } else {
        got(cache.get(key))
    }
}

/// Whether the n-th operation is a write: multiples of the golden ratio spread the writes evenly, whatever their share.
fn writer(share: f64) -> impl Fn(usize) -> bool + Copy + Sync {
    let below = (share * 2_f64.powi(32)) as u64;
    move |at| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 < below
}

/// A worker works from the moment when all are there until time is up.
struct Gate {
    ready: AtomicUsize,
    goes: AtomicBool,
    stops: AtomicBool,
}

impl Gate {
    fn wait(&self) {
        self.ready.fetch_add(1, Ordering::AcqRel);
        while !self.goes.load(Ordering::Acquire) {
            thread::yield_now();
        }
    }

    #[inline]
    fn is_open(&self) -> bool {
        !self.stops.load(Ordering::Relaxed)
    }
}

fn spin<K: Key>(load: &Load<K>, effort: Effort, operation: impl Fn(usize, &K) -> (u64, u64) + Sync) -> Run {
    let (runs, seconds) = together(load, effort, |gate, mut at, mask| {
        let mut run = Run::default();
        while gate.is_open() {
            for _ in 0..BATCH {
                let (gets, hits) = operation(at, &load.keys[at & mask]);
                run.gets += gets;
                run.hits += hits;
                at += 1;
            }
            run.operations += BATCH as u64;
        }
        run
    });
    runs.into_iter().fold(Run { seconds, ..Run::default() }, Run::and)
}

/// Runs a worker on each of so many threads, each given where it begins in the keys, and the mask of their positions.
/// Time is counted from when all may begin until all are told to end; a thread that is alone has its own processor time
/// counted instead, which leaves out what else the machine was doing.
fn together<K: Key, T: Send>(
    load: &Load<K>,
    effort: Effort,
    work: impl Fn(&Gate, usize, usize) -> T + Sync,
) -> (Vec<T>, f64) {
    let count = load.keys.len();
    assert!(count.is_power_of_two(), "positions are masked");
    let gate =
        Gate { ready: AtomicUsize::new(0), goes: AtomicBool::new(false), stops: AtomicBool::new(false) };
    thread::scope(|scope| {
        let (gate, work) = (&gate, &work);
        let workers: Vec<_> = (0..effort.threads)
            .map(|thread| {
                scope.spawn(move || {
                    gate.wait();
                    let start = processor_seconds();
                    let done = work(gate, effort.from + thread * count / effort.threads, count - 1);
                    (done, processor_seconds() - start)
                })
            })
            .collect();
        while gate.ready.load(Ordering::Acquire) < effort.threads {
            thread::yield_now();
        }
        let start = Instant::now();
        gate.goes.store(true, Ordering::Release);
        thread::sleep(effort.length);
        gate.stops.store(true, Ordering::Relaxed);
        let seconds = start.elapsed().as_secs_f64();
        let (done, own): (Vec<T>, Vec<f64>) =
            workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).unzip();
        (done, if effort.threads == 1 { own.iter().sum() } else { seconds })
    })
}

/// The processor time of this thread.
fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn latencies() -> Latencies {
    Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("the bounds are right")
}
