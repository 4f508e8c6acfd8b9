//! Asking a second region when the first is slow to answer.
//!
//! Most of a slow tail is bad luck of one request, not the state of a server: asking another place once the first has taken longer than
//! nearly all do cuts the tail for a few percent more load (J. Dean and L. A. Barroso, *The Tail at Scale*, CACM 56(2), 2013). It is
//! for reads alone, which may be made twice. When to ask again is fixed, or goes by the 95th percentile of the region's own latest
//! reads, exact over a window of them: a mean that fades would not know the tail. A budget keeps hedges to a tenth of the reads,
//! so that a region slow for all does not double the load of the next.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use resilience::RetryBudget;

/// The share of reads that may be hedged.
const SHARE: f64 = 0.1;

/// So many latest answers are kept for each region.
const WINDOW: usize = 128;

/// Fewer tell nothing of a 95th percentile.
const SAMPLES_MIN: usize = 20;

/// The percentile is taken anew with each so many answers.
const STRIDE: usize = 16;

/// No region is asked again sooner than this, whatever its percentile is: the runtime's timers tick so.
const DELAY_MIN: Duration = Duration::from_millis(1);

/// When a read asks a second region as well; see [`ClientBuilder::hedge`](crate::client::ClientBuilder::hedge).
///
/// ```
/// use std::time::Duration;
/// use geocache::client::Hedge;
/// let fixed = Hedge::after(Duration::from_millis(50));
/// let measured = Hedge::at_p95(1.5);
/// assert_ne!(fixed, measured);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hedge {
    pub(in crate::client) delay: Delay,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::client) enum Delay {
    Fixed(Duration),
    P95 { factor: f64 },
}

impl Hedge {
    /// When the first region has not answered for so long; at least 1 ms.
    pub const fn after(delay: Duration) -> Self {
        Self { delay: Delay::Fixed(delay) }
    }

    /// When the first region has not answered for as long as 95 % of its latest 128 reads took, times a factor from 1 to 100. None is
    /// hedged before 20 reads.
    pub const fn at_p95(factor: f64) -> Self {
        Self { delay: Delay::P95 { factor } }
    }

    /// What is wrong with it.
    pub(in crate::client) fn problem(self) -> Option<String> {
        match self.delay {
            Delay::Fixed(delay) if delay < DELAY_MIN => {
                Some(format!("{delay:?} is less than timers can tell; give at least {DELAY_MIN:?}"))
            }
            Delay::P95 { factor } if !(1.0..=100.0).contains(&factor) => {
                Some(format!("a factor of {factor} cannot be used; give 1 to 100"))
            }
            _ => None,
        }
    }
}

/// The hedging of one client.
#[derive(Debug)]
pub(in crate::client) struct Hedging {
    delay: Delay,
    budget: RetryBudget,
}

impl Hedging {
    pub(in crate::client) fn new(hedge: Hedge) -> Result<Self, resilience::ConfigError> {
        let budget = RetryBudget::builder().share(SHARE).per_second(0.0).build()?;
        Ok(Self { delay: hedge.delay, budget })
    }

    /// Counts a read, and says how long to wait for its first region.
    pub(super) fn begin(&self, latencies: &Latencies, now: Instant) -> Option<Duration> {
        self.budget.first_attempt_at(now);
        match self.delay {
            Delay::Fixed(delay) => Some(delay),
            Delay::P95 { factor } => Some(latencies.p95()?.mul_f64(factor).max(DELAY_MIN)),
        }
    }

    /// Whether one more read may be hedged.
    pub(super) fn allows(&self, now: Instant) -> bool {
        self.budget.try_retry_at(now)
    }
}

/// How long a region's latest reads took.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    /// At most [`WINDOW`].
    samples: Vec<Duration>,
    oldest: usize,
    fresh: usize,
    p95: Option<Duration>,
}

impl Latencies {
    pub(super) fn took(&self, time: Duration) {
        self.ring.lock().push(time);
    }

    pub(super) fn p95(&self) -> Option<Duration> {
        self.ring.lock().p95
    }
}

impl Ring {
    fn push(&mut self, time: Duration) {
        if self.samples.len() < WINDOW {
            self.samples.push(time);
        } else {
            self.samples[self.oldest] = time;
            self.oldest = (self.oldest + 1) % WINDOW;
        }
        self.fresh += 1;
        let first = self.p95.is_none() && self.samples.len() >= SAMPLES_MIN;
        if first || (self.p95.is_some() && self.fresh >= STRIDE) {
            self.fresh = 0;
            let mut sorted = self.samples.clone();
            sorted.sort_unstable();
            // The nearest rank: the least that 95 % do not exceed.
            let rank = (sorted.len() * 95).div_ceil(100);
            self.p95 = sorted.get(rank - 1).copied();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_is_that_of_the_latest_reads_once_there_are_enough() {
        let latencies = Latencies::default();
        for ms in 1..20 {
            latencies.took(Duration::from_millis(ms));
            assert_eq!(latencies.p95(), None);
        }
        latencies.took(Duration::from_millis(20));
        assert_eq!(latencies.p95(), Some(Duration::from_millis(19)));
        for _ in 0..WINDOW + STRIDE {
            latencies.took(Duration::from_millis(7));
        }
        assert_eq!(latencies.p95(), Some(Duration::from_millis(7)), "what left the window counts no more");
    }

    #[test]
    fn a_tenth_may_be_hedged() {
        let hedging = Hedging::new(Hedge::after(Duration::from_millis(5))).unwrap();
        let (latencies, now) = (Latencies::default(), Instant::now());
        let hedged =
            (0..1_000).filter(|_| hedging.begin(&latencies, now).is_some() && hedging.allows(now)).count();
        assert_eq!(hedged, 100);
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        assert!(Hedge::after(Duration::ZERO).problem().is_some());
        assert!(Hedge::at_p95(0.5).problem().is_some());
        assert!(Hedge::at_p95(f64::NAN).problem().is_some());
        assert_eq!(Hedge::at_p95(1.0).problem(), None);
    }
}
