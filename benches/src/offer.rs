//! Writers: at a steady pace, or as fast as the receivers keep up. Each runs on a thread of its own, as callers do.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// How many records a writer is ahead of the slower receiver at most. Enough to fill every frame, and far below what
/// makes an outbox or a broker's queue drop.
pub const LEAD: u64 = 8_192;

/// A steady writer sleeps at least so long, or it would take a core for itself.
const NAP: Duration = Duration::from_micros(100);

/// The processor time that a process has used, where the system tells (Linux). Its threads are counted, other processes
/// that it started are not.
pub fn processor_seconds(process: u32) -> Option<f64> {
    /// The unit of these fields on every Linux of today.
    const TICKS_PER_S: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may hold spaces; user and system time are the 12th and 13th field after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_S)
}

/// Calls `write` at `rate` a second for so long; returns the rate that was reached.
pub fn steadily(rate: u64, length: Duration, write: impl FnMut()) -> f64 {
    let total = (rate as f64 * length.as_secs_f64()) as u64;
    paced(rate, |written| written < total, write).per_s()
}

/// What a steady writer came to.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How often it wrote.
    pub written: u64,
    /// How long it took.
    pub took: Duration,
}

impl Pace {
    /// The rate that it reached.
    pub fn per_s(&self) -> f64 {
        self.written as f64 / self.took.as_secs_f64()
    }
}

/// Calls `write` at `rate` a second while `goes_on` of the count so far.
pub fn paced(rate: u64, goes_on: impl Fn(u64) -> bool, mut write: impl FnMut()) -> Pace {
    let start = Instant::now();
    let due = |count: u64| Duration::from_secs_f64(count as f64 / rate as f64);
    let mut written = 0;
    while goes_on(written) {
        let elapsed = start.elapsed();
        while goes_on(written) && due(written) <= elapsed {
            write();
            written += 1;
        }
        sleep(due(written).saturating_sub(start.elapsed()).max(NAP));
    }
    Pace { written, took: start.elapsed() }
}

/// Calls `write` while `goes_on` of the count so far, at most [`LEAD`] ahead of what `arrived` says; returns how often, which is a
/// multiple of 256.
pub fn flat_out(goes_on: impl Fn(u64) -> bool, mut write: impl FnMut(), arrived: impl Fn() -> u64) -> u64 {
    const BATCH: u64 = 256;
    let before = arrived();
    let mut written = 0;
    while goes_on(written) {
        if written + BATCH > arrived() - before + LEAD {
            sleep(NAP);
            continue;
        }
        for _ in 0..BATCH {
            write();
        }
        written += BATCH;
    }
    written
}
