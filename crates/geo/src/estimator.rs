//! How long a round trip to one region takes: guessed by distance, then measured.
//!
//! The guess is 12 ms + 15 ms per 1,000 km, the line that fits measured tables of two clouds (r = 0.89). It picks
//! the right first region almost always and the right order most of the time; submarine cables decide the rest,
//! so each measurement takes a quarter of the say away from the guess until the fourth leaves none.
//!
//! A measurement is the median of the last three samples (of two, the lower), which drops a lone spike whole,
//! smoothed from then on by an exponentially weighted mean. It is taken at its word for a while and then loses it evenly to the guess: a
//! region that nobody calls may have moved closer again. What it has lost, it does not get back by a new sample: that
//! one begins a new measurement, in which the old mean counts for as many samples as its say was worth.
//!
//! Invariant: with a location there is always an estimate; without one there is one while a measurement counts.

use std::time::{Duration, Instant};

/// The round trip within a city.
const PRIOR_BASE_MS: f64 = 12.0;
/// What each km adds.
const PRIOR_MS_PER_KM: f64 = 15.0 / 1_000.0;
/// So many samples leave the prior no say.
const SAMPLES_TRUSTED: f64 = 4.0;

/// How measurements are smoothed and how they age.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Smoothing {
    /// The weight of the newest median in the mean.
    pub(crate) weight: f64,
    /// How long a measurement keeps its say; in as much time again it loses it.
    pub(crate) fresh: Duration,
}

/// What an estimate rests on.
///
/// ```
/// use std::time::{Duration, Instant};
/// let now = Instant::now();
/// let router = geo::Router::builder().from("us-east").region("eu-central").build()?;
/// router.observe(&"eu-central".parse()?, Duration::from_millis(88), now)?;
/// assert_eq!(router.plan(now).first().basis, geo::Basis::Mixed { measured: 0.25 });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Basis {
    /// Distance alone.
    Distance,
    /// In part distance, in part measured round trips.
    Mixed {
        /// The share of the measured, above 0 and below 1.
        measured: f64,
    },
    /// Measured round trips alone.
    Measured,
    /// Nothing: the location is unknown and no measurement counts.
    Nothing,
}

/// The estimator of one region's round trip.
#[derive(Debug, Clone)]
pub(crate) struct Estimator {
    prior_ms: Option<f64>,
    measured: Option<Measured>,
}

#[derive(Debug, Clone)]
struct Measured {
    /// The last three samples, the newest at `samples - 1` modulo 3; the first one stands in for those to come.
    last_ms: [f64; 3],
    samples: u64,
    mean_ms: f64,
    at: Instant,
    aged: Aged,
}

/// What an earlier measurement, grown old, counts for in a new one.
#[derive(Debug, Clone, Copy)]
struct Aged {
    mean_ms: f64,
    /// So many samples is it worth, less than those that leave the prior no say.
    samples: f64,
}

impl Estimator {
    /// An estimator for a region at this distance, or at an unknown one.
    pub(crate) fn new(distance_km: Option<f64>) -> Self {
        Self { prior_ms: distance_km.map(|km| PRIOR_BASE_MS + PRIOR_MS_PER_KM * km), measured: None }
    }

    /// Takes a successful round trip.
    pub(crate) fn observe(&mut self, rtt: Duration, now: Instant, smoothing: Smoothing) {
        let sample_ms = rtt.as_secs_f64() * 1_000.0;
        match &mut self.measured {
            Some(measured) if measured.left(now, smoothing) == 1.0 => measured.add(sample_ms, now, smoothing),
            old => {
                let aged = old.as_ref().map_or(Aged { mean_ms: 0.0, samples: 0.0 }, |measured| Aged {
                    mean_ms: measured.mean_ms,
                    samples: SAMPLES_TRUSTED * measured.say(now, smoothing),
                });
                *old = Some(Measured::begin(sample_ms, now, aged));
            }
        }
    }

    /// Forgets what was measured, as when the region went down: it may come back elsewhere.
    pub(crate) fn clear(&mut self) {
        self.measured = None;
    }

    /// The estimated round trip in ms, if there is anything to tell it by, and what it rests on.
    pub(crate) fn assess(&self, now: Instant, smoothing: Smoothing) -> (Option<f64>, Basis) {
        let mean = self.measured.as_ref().map(|measured| (measured.mean_ms, measured.say(now, smoothing)));
        match (self.prior_ms, mean) {
            (None, None | Some((_, 0.0))) => (None, Basis::Nothing),
            (Some(prior), None | Some((_, 0.0))) => (Some(prior), Basis::Distance),
            (Some(prior), Some((mean, say))) if say < 1.0 => {
                (Some(prior + say * (mean - prior)), Basis::Mixed { measured: say })
            }
            (_, Some((mean, _))) => (Some(mean), Basis::Measured),
        }
    }

    pub(crate) fn prior_ms(&self) -> Option<f64> {
        self.prior_ms
    }

    pub(crate) fn mean_ms(&self) -> Option<f64> {
        self.measured.as_ref().map(|measured| measured.mean_ms)
    }

    /// How many samples it rests on; those of before a silence count for what is left of them.
    pub(crate) fn samples(&self) -> u64 {
        self.measured.as_ref().map_or(0, |measured| measured.samples + measured.aged.samples.round() as u64)
    }

    pub(crate) fn age(&self, now: Instant) -> Option<Duration> {
        self.measured.as_ref().map(|measured| now.saturating_duration_since(measured.at))
    }
}

impl Measured {
    fn begin(sample_ms: f64, now: Instant, aged: Aged) -> Self {
        let mean_ms = aged.mix(sample_ms, 1.0);
        Self { last_ms: [sample_ms; 3], samples: 1, mean_ms, at: now, aged }
    }

    fn add(&mut self, sample_ms: f64, now: Instant, smoothing: Smoothing) {
        self.last_ms[(self.samples % 3) as usize] = sample_ms;
        self.samples += 1;
        let [first, second, _] = self.last_ms;
        match self.samples {
            // The first call often pays for a connection too; nothing is smoothed until a spike shows as one.
            2 => self.mean_ms = self.aged.mix(first.min(second), 2.0),
            3 => self.mean_ms = self.aged.mix(median(self.last_ms), 3.0),
            _ => self.mean_ms += smoothing.weight * (median(self.last_ms) - self.mean_ms),
        }
        self.at = self.at.max(now);
    }

    /// The share of the measured in the estimate, 0 to 1: it grows with samples and shrinks with age.
    fn say(&self, now: Instant, smoothing: Smoothing) -> f64 {
        let samples = self.samples as f64 + self.aged.samples;
        samples.min(SAMPLES_TRUSTED) / SAMPLES_TRUSTED * self.left(now, smoothing)
    }

    /// What age has left of the say, 0 to 1.
    fn left(&self, now: Instant, smoothing: Smoothing) -> f64 {
        let age = now.saturating_duration_since(self.at);
        // Most are fresh, and all of them are looked at in each round.
        if age <= smoothing.fresh {
            return 1.0;
        }
        let over = age - smoothing.fresh;
        (1.0 - over.as_secs_f64() / smoothing.fresh.as_secs_f64()).max(0.0)
    }
}

impl Aged {
    /// The mean of it and of new samples, each for what it counts.
    fn mix(self, new_ms: f64, new_samples: f64) -> f64 {
        (self.samples * self.mean_ms + new_samples * new_ms) / (self.samples + new_samples)
    }
}

fn median([a, b, c]: [f64; 3]) -> f64 {
    a.min(b).max(a.max(b).min(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMOOTHING: Smoothing = Smoothing { weight: 0.2, fresh: Duration::from_secs(100) };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn fed(distance_km: Option<f64>, samples: &[u64], now: Instant) -> Estimator {
        let mut estimator = Estimator::new(distance_km);
        samples.iter().for_each(|&sample| estimator.observe(ms(sample), now, SMOOTHING));
        estimator
    }

    fn assert_ms(estimator: &Estimator, now: Instant, expected: f64) {
        let estimate = estimator.assess(now, SMOOTHING).0.unwrap();
        assert!((estimate - expected).abs() < 1e-9, "{estimate} ms, not {expected}");
    }

    #[test]
    fn distance_alone_gives_twelve_ms_and_fifteen_per_thousand_km() {
        let now = Instant::now();
        assert_ms(&fed(Some(0.0), &[], now), now, 12.0);
        assert_ms(&fed(Some(10_000.0), &[], now), now, 162.0);
        assert_eq!(fed(Some(0.0), &[], now).assess(now, SMOOTHING).1, Basis::Distance);
    }

    #[test]
    fn each_sample_takes_a_quarter_of_the_say_from_the_distance() {
        let now = Instant::now();
        for (samples, expected) in [(1, 137.0), (2, 112.0), (3, 87.0), (4, 62.0), (9, 62.0)] {
            let estimator = fed(Some(10_000.0), &vec![62; samples], now);
            assert_ms(&estimator, now, expected);
        }
        let three = fed(Some(10_000.0), &[62; 3], now);
        assert_eq!(three.assess(now, SMOOTHING).1, Basis::Mixed { measured: 0.75 });
        assert_eq!(fed(Some(1.0), &[62; 4], now).assess(now, SMOOTHING).1, Basis::Measured);
    }

    #[test]
    fn a_lone_spike_changes_nothing() {
        let now = Instant::now();
        assert_ms(&fed(None, &[50, 50, 50, 50, 9_000, 50, 50], now), now, 50.0);
    }

    #[test]
    fn a_slow_first_call_is_forgotten() {
        let now = Instant::now();
        assert_ms(&fed(None, &[900, 50], now), now, 50.0);
        assert_ms(&fed(None, &[900, 50, 52], now), now, 52.0);
    }

    #[test]
    fn a_lasting_change_is_followed_by_a_fifth_a_sample() {
        let now = Instant::now();
        // The median turns with the second new sample, so only one step has been taken after two.
        assert_ms(&fed(None, &[50, 50, 50, 100, 100], now), now, 60.0);
        assert_ms(&fed(None, &[50, 50, 50, 100, 100, 100], now), now, 68.0);
    }

    #[test]
    fn without_a_location_the_first_sample_is_taken_at_its_word() {
        let now = Instant::now();
        let silent = Estimator::new(None);
        assert_eq!(silent.assess(now, SMOOTHING), (None, Basis::Nothing));
        assert_ms(&fed(None, &[33], now), now, 33.0);
    }

    #[test]
    fn an_old_measurement_gives_way_to_the_distance() {
        let now = Instant::now();
        let estimator = fed(Some(10_000.0), &[62; 4], now);
        for (age_s, expected) in [(0, 62.0), (100, 62.0), (150, 112.0), (200, 162.0), (9_999, 162.0)] {
            assert_ms(&estimator, now + Duration::from_secs(age_s), expected);
        }
        let unlocated = fed(None, &[62; 4], now);
        assert_ms(&unlocated, now + Duration::from_secs(199), 62.0);
        assert_eq!(unlocated.assess(now + Duration::from_secs(200), SMOOTHING).0, None);
    }

    #[test]
    fn a_sample_after_a_long_silence_starts_afresh() {
        let now = Instant::now();
        let mut estimator = fed(None, &[500; 9], now);
        estimator.observe(ms(20), now + Duration::from_secs(200), SMOOTHING);
        assert_ms(&estimator, now + Duration::from_secs(200), 20.0);
        assert_eq!(estimator.samples(), 1);
    }

    /// A region that nobody had called for long stood again where it had stood, by one sample that said otherwise.
    #[test]
    fn one_sample_does_not_give_an_old_measurement_its_say_again() {
        let now = Instant::now();
        let nearly_forgotten = now + Duration::from_secs(199);
        let mut estimator = fed(Some(10_000.0), &[900; 6], now);
        assert_ms(&estimator, nearly_forgotten, 162.0 + 0.01 * (900.0 - 162.0));
        estimator.observe(ms(90), nearly_forgotten, SMOOTHING);
        // A quarter of the say is the new sample's, a hundredth is still the old mean's, the rest the distance's.
        assert_ms(&estimator, nearly_forgotten, 0.25 * 90.0 + 0.01 * 900.0 + 0.74 * 162.0);
        assert_eq!(estimator.samples(), 1);
        assert_eq!(estimator.assess(nearly_forgotten, SMOOTHING).1, Basis::Mixed { measured: 0.26 });
    }

    #[test]
    fn a_sample_takes_its_quarter_from_the_distance_whatever_age_has_left_of_the_old() {
        let now = Instant::now();
        for age_s in [0, 50, 100, 101, 125, 150, 175, 199, 200, 1_000] {
            let then = now + Duration::from_secs(age_s);
            let mut estimator = fed(Some(10_000.0), &[62; 2], now);
            let before = estimator.assess(then, SMOOTHING).0.unwrap();
            estimator.observe(ms(62), then, SMOOTHING);
            assert_ms(&estimator, then, before - 0.25 * (162.0 - 62.0));
        }
    }

    #[test]
    fn samples_after_a_silence_replace_what_is_left_of_the_old() {
        let now = Instant::now();
        let then = now + Duration::from_secs(150);
        let mut estimator = fed(None, &[500; 9], now);
        // Half of its say is left, that of two samples. The second new one shows the first to be a spike.
        for (sample, expected) in
            [(8_000, 9_000.0 / 3.0), (20, 1_040.0 / 4.0), (20, 1_060.0 / 5.0), (20, 212.0 - 0.2 * 192.0)]
        {
            estimator.observe(ms(sample), then, SMOOTHING);
            assert_ms(&estimator, then, expected);
        }
    }
}
