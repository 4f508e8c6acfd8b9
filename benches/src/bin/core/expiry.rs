//! How memory comes back: 1 M entries of 1 s each, and nobody who asks for them.
//!
//! First the cache is left alone, and what it still holds 2 s after the last insert is counted. Then the same again while
//! one thread times its reads and writes of other keys. An operation around which the operating system took the processor
//! away from that thread is left out, as its `nonvoluntary_ctxt_switches` tell (Linux); one that waits for a lock counts.
//! The same is then measured for as long on the empty cache: what the machine makes of it with nothing to reclaim.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use benches::{
    contest::{Hasher, Key},
    report::{Figure, median, spread},
};
use cache_core::Cache;

use crate::{Arguments, table};

const ENTRIES: u64 = 1_000_000;

const TTL: Duration = Duration::from_secs(1);

const IDLE: Duration = Duration::from_secs(2);

/// Near enough to empty: 1 %.
const LEFT_MAX: f64 = ENTRIES as f64 / 100.0;

const PAUSE_US_MAX: f64 = 1_000.0;

/// Keys of the thread that times its operations.
const PROBED: u64 = 64;

/// Operations between two looks at how often the processor was taken away: some milliseconds.
const LOOK_EACH: u64 = 65_536;

/// What is measured, with what it may be at most.
const NAMES: [(&str, &str, Option<f64>); 3] = [
    ("expiry, entries of 1 M left 2 s after", "entries", Some(LEFT_MAX)),
    ("expiry, longest operation while reclaiming", "us", Some(PAUSE_US_MAX)),
    ("expiry, longest operation with nothing to reclaim", "us", None),
];

pub(crate) fn measure(arguments: &Arguments) -> Result<Vec<Figure>> {
    if !NAMES.iter().any(|(name, ..)| arguments.wants(name)) {
        return Ok(Vec::new());
    }
    let mut rounds = Vec::new();
    for _ in 0..arguments.rounds().min(3) {
        let idle = filled()?;
        sleep(IDLE);
        let left = idle.len() as f64;
        drop(idle);
        let cache = filled()?;
        let reclaiming = longest_us(&cache, IDLE)?;
        ensure!(cache.len() as u64 <= ENTRIES / 2, "nothing was reclaimed while it was looked at");
        rounds.push([left, reclaiming, longest_us(&cache, IDLE)?]);
    }
    let mut figures = Vec::new();
    for (at, (name, unit, most)) in NAMES.into_iter().enumerate() {
        let column: Vec<f64> = rounds.iter().map(|round| round[at]).collect();
        let mut figure = Figure::new(name, median(column.iter().copied()), unit);
        if let Some(most) = most {
            figure = figure.at_most(most);
        }
        table::print(&figure, spread(&column));
        figures.push(figure);
    }
    Ok(figures)
}

fn filled() -> Result<Cache<u64, u64, Hasher>> {
    let cache =
        Cache::builder().capacity(2 * ENTRIES as usize).default_ttl(TTL).hasher(Hasher::default()).build()?;
    let start = Instant::now();
    (0..ENTRIES).for_each(|number| {
        cache.insert(u64::of(number), number);
    });
    let held = cache.len() as u64;
    ensure!(held == ENTRIES || start.elapsed() >= TTL / 2, "it holds {held} of {ENTRIES} entries");
    Ok(cache)
}

fn longest_us(cache: &Cache<u64, u64, Hasher>, length: Duration) -> Result<f64> {
    let (start, mut longest, mut number) = (Instant::now(), Duration::ZERO, 0);
    let mut preempted = 0;
    while start.elapsed() < length {
        if number % LOOK_EACH == 0 {
            preempted = preemptions()?;
        }
        let key = u64::of(ENTRIES + number % PROBED);
        let begin = Instant::now();
        if number % 20 == 0 {
            cache.insert(key, number);
        } else {
            std::hint::black_box(cache.get(&key));
        }
        let took = begin.elapsed();
        number += 1;
        if took > longest {
            let now = preemptions()?;
            if now == preempted {
                longest = took;
            }
            preempted = now;
        }
    }
    Ok(longest.as_secs_f64() * 1e6)
}

/// How often the system took the processor away from this thread.
fn preemptions() -> Result<u64> {
    const FIELD: &str = "nonvoluntary_ctxt_switches:";
    let status =
        fs::read_to_string("/proc/thread-self/status").context("pauses are measured on Linux alone")?;
    let count = status.lines().find_map(|line| line.strip_prefix(FIELD)?.trim().parse().ok());
    count.with_context(|| format!("/proc/thread-self/status says nothing of {FIELD}"))
}
