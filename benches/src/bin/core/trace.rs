//! Traces: keys in the order in which they are asked for, made from a seed.
//!
//! | trace | keys |
//! |---|---|
//! | Zipf 0.99, Zipf 0.8 | Zipf's law over 10 × the capacity; 0.99 is the popularity in YCSB (B. Cooper et al., "Benchmarking cloud serving systems with YCSB", SoCC 2010) |
//! | Zipf 0.99 and scans | 60 % as above; 40 % are keys that are asked for once and never again, which no cache can hit |
//! | loop | the same keys over and over, 1.2 × the capacity of them: exact LRU never hits |
//! | drifting Zipf | Zipf 0.99 whose ranks move on by one key each 20 accesses, so that what is popular changes |
//! | recency | 10 % new keys; else what was asked for n accesses ago, n geometric with a mean of 0.7 × the capacity: the nearer the past, the likelier |

use benches::contest::{Key, Zipf};
use fastrand::Rng;

use crate::{ALL_KEYS, CAPACITY, SEED};

/// What a trace looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    Zipf99,
    Zipf80,
    Scans,
    Loop,
    Drift,
    Recency,
}

impl Trace {
    pub(crate) const ALL: [Self; 6] =
        [Self::Zipf99, Self::Zipf80, Self::Scans, Self::Loop, Self::Drift, Self::Recency];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zipf99 => "Zipf 0.99",
            Self::Zipf80 => "Zipf 0.8",
            Self::Scans => "Zipf 0.99 and 40 % scans",
            Self::Loop => "loop",
            Self::Drift => "drifting Zipf",
            Self::Recency => "recency",
        }
    }

    /// So many accesses.
    pub(crate) fn keys(self, accesses: usize) -> Vec<u64> {
        /// Accesses in which the popular keys move on by one.
        const DRIFT: u64 = 20;
        /// Far from the keys of the rest.
        const FRESH: u64 = 1 << 40;
        let mut rng = Rng::with_seed(SEED);
        let zipf = Zipf::new(ALL_KEYS, if self == Self::Zipf80 { 0.8 } else { 0.99 });
        let mut keys: Vec<u64> = Vec::with_capacity(accesses);
        for at in 0..accesses as u64 {
            let number = match self {
                Self::Zipf99 | Self::Zipf80 => zipf.draw(&mut rng),
                Self::Scans if rng.f64() < 0.4 => FRESH + at,
                Self::Scans => zipf.draw(&mut rng),
                Self::Loop => at % (CAPACITY as u64 * 12 / 10),
                Self::Drift => at / DRIFT + zipf.draw(&mut rng),
                Self::Recency if rng.f64() < 0.1 => FRESH + at,
                Self::Recency => {
                    let ago = -(1.0 - rng.f64()).ln() * 0.7 * CAPACITY as f64;
                    // Before the trace began there are other keys.
                    match at.checked_sub(1 + ago as u64) {
                        Some(then) => {
                            keys.push(keys[then as usize]);
                            continue;
                        }
                        None => FRESH + at,
                    }
                }
            };
            keys.push(u64::of(number));
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn traces_are_what_their_names_say() {
        const ACCESSES: usize = 50_000;
        let distinct = |trace: Trace| trace.keys(ACCESSES).into_iter().collect::<HashSet<_>>().len();
        assert_eq!(distinct(Trace::Loop), ACCESSES, "shorter than its loop");
        assert!(distinct(Trace::Zipf80) > distinct(Trace::Zipf99));
        assert!(distinct(Trace::Scans) > distinct(Trace::Zipf99));
        for trace in Trace::ALL {
            assert_eq!(trace.keys(1_000), trace.keys(1_000), "{trace:?} is made from a seed");
            assert_eq!(trace.keys(ACCESSES).len(), ACCESSES);
        }
    }
}
