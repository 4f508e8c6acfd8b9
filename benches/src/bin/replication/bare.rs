//! A bare hash map of as many entries, written over in the same order by one thread: how much more a write costs where
//! fewer of them fit the processor's caches and its table of pages. Key (16 bytes) and value (8) lie in the map itself, so it
//! misses as rarely as a map can.

use std::{
    collections::HashMap,
    hint::black_box,
    time::{Duration, Instant},
};

use benches::record;

use crate::{
    nodes::{Keys, Speed},
    usage::Meter,
};

pub(crate) const BARE: &str = "bare_map";

/// Fills a map, then writes it over for `length`, so many times; the processor time of each.
pub(crate) fn floods(entries: u32, rounds: u32, length: Duration, meter: &Meter) -> Vec<Speed> {
    const BATCH: u64 = 256;
    let mut map = HashMap::with_hasher(foldhash::fast::RandomState::default());
    let mut keys = Keys::new(entries);
    for number in 0..u64::from(entries) {
        map.insert(record::key(keys.next()), number);
    }
    let mut flood = || {
        let (start, used) = (Instant::now(), meter.read());
        let mut written = 0;
        while start.elapsed() < length {
            for _ in 0..BATCH {
                map.insert(black_box(record::key(keys.next())), written);
                written += 1;
            }
        }
        Speed::of(written, start.elapsed(), meter.read().since(used))
    };
    (0..rounds).map(|_| flood()).collect()
}
