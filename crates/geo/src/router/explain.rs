//! What a router knows of each region, for an operator's eyes.

use std::{fmt, time::Duration};

use super::{Health, Standing};
use crate::{RegionId, estimator::Basis};

/// What a router knows of each region at one moment; as text, one line per region, the plan's first on top.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let now = Instant::now();
/// let router = geo::Router::builder().from("us-east").region("us-east").region("eu-central").build()?;
/// router.drain(&"us-east".parse()?, true, now)?;
/// assert_eq!(
///     router.explain(now).to_string(),
///     " 1. eu-central: healthy, 110 ms (by distance); 6549 km suggest 110 ms\n \
///       2. us-east: healthy, 12 ms (by distance); 0 km suggest 12 ms; drained: after all others\n"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// Those in the plan in its order, then those left out, best first.
    pub regions: Vec<Explained>,
}

/// What a router knows of one region; part of an [`Explanation`].
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let now = Instant::now();
/// let router = geo::Router::builder().from("us-east").region("eu-central").build()?;
/// router.observe(&"eu-central".parse()?, Duration::from_millis(88), now)?;
/// let explained = &router.explain(now + Duration::from_secs(3)).regions[0];
/// assert_eq!((explained.samples, explained.age), (1, Some(Duration::from_secs(3))));
/// assert_eq!(explained.measured, Some(Duration::from_millis(88)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Explained {
    /// The region.
    pub region: RegionId,
    /// Its place in the plan, from 1, and why; `None` if it is not a candidate.
    pub place: Option<(usize, Standing)>,
    /// Why it stands there.
    pub reason: Reason,
    /// Whether it is healthy, by what the caller said and by its own calls.
    pub health: Health,
    /// Whether it is drained.
    pub drained: bool,
    /// How many calls to it are under way.
    pub in_flight: u32,
    /// Whether it is one of several that load is balanced over.
    pub in_band: bool,
    /// The share of its latest calls that failed or were refused, 0 to 1; it fades within a minute.
    pub failed: f64,
    /// Whether that share is clearly above that of the best of those that load is balanced over, so that none is
    /// balanced onto it.
    pub suspect: bool,
    /// How far away it is, if both places are known.
    pub distance_km: Option<f64>,
    /// The round trip that its distance suggests.
    pub prior: Option<Duration>,
    /// The smoothed measurement, however old.
    pub measured: Option<Duration>,
    /// How many samples it rests on.
    pub samples: u64,
    /// How long ago the newest sample was taken.
    pub age: Option<Duration>,
    /// The estimate that the order goes by.
    pub rtt: Option<Duration>,
    /// What the estimate rests on.
    pub basis: Basis,
}

/// Why a region stands where it does.
///
/// ```
/// use std::time::Instant;
///
/// let now = Instant::now();
/// let router = geo::Router::builder().from("us-east").region("us-east").region("eu-central").build()?;
/// router.set_health(&"us-east".parse()?, geo::Health::Unhealthy, now)?;
/// let explanation = router.explain(now);
/// assert_eq!(explanation.regions[0].reason, geo::Reason::RoundTrip);
/// assert_eq!(explanation.regions[1].reason, geo::Reason::SaidUnhealthy);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// By its estimated round trip.
    RoundTrip,
    /// It was the first choice and stays it, though the next one is ahead: not by the margin, or not for long enough.
    Held {
        /// By how much the next one is ahead.
        by: Duration,
        /// For so many rounds another one has been ahead by the margin …
        behind: u32,
        /// … of so many that it takes.
        rounds: u32,
    },
    /// Neither its place nor its round trip is known, so it comes after those that are.
    Unknown,
    /// It is being tried again, so it comes after the healthy ones.
    Probing,
    /// It is drained, so it comes after all others.
    Drained,
    /// All regions look unhealthy, and it is the best of them.
    LastResort,
    /// It is left out, since the caller said that it is unhealthy.
    SaidUnhealthy,
    /// It is left out, since too many calls in a row failed, until as many probes as it takes succeed.
    Failing,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RoundTrip => f.write_str("by its round trip"),
            Self::Held { by, behind, rounds } => {
                write!(
                    f,
                    "held though the next is {} ahead, {behind} of {rounds} rounds by the margin",
                    ms(*by)
                )
            }
            Self::Unknown => f.write_str("after those that are known"),
            Self::Probing => f.write_str("probing: after the healthy ones"),
            Self::Drained => f.write_str("drained: after all others"),
            Self::LastResort => f.write_str("last resort: the best of regions that all look unhealthy"),
            Self::SaidUnhealthy => f.write_str("left out: said to be unhealthy"),
            Self::Failing => f.write_str("left out: its calls failed in a row, waits for probes"),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.regions.iter().try_for_each(|region| writeln!(f, "{region}"))
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((place, _)) => write!(f, "{place:>2}. ")?,
            None => write!(f, " -. ")?,
        }
        write!(f, "{}: {}", self.region, self.health)?;
        match self.rtt {
            Some(rtt) => write!(f, ", {} ({})", ms(rtt), self.basis)?,
            None => write!(f, ", {}", self.basis)?,
        }
        if let (Some(km), Some(prior)) = (self.distance_km, self.prior) {
            write!(f, "; {km:.0} km suggest {}", ms(prior))?;
        }
        if let (Some(measured), Some(age)) = (self.measured, self.age) {
            let plural = if self.samples == 1 { "" } else { "s" };
            write!(
                f,
                "; {} over {} sample{plural}, {:.0} s ago",
                ms(measured),
                self.samples,
                age.as_secs_f64()
            )?;
        }
        if self.in_flight > 0 || self.in_band {
            write!(f, "; {} in flight", self.in_flight)?;
            write!(f, "{}", if self.in_band { ", shares the load" } else { "" })?;
        }
        if self.suspect {
            write!(f, "; {:.0} % failed lately", self.failed * 100.0)?;
        }
        if self.reason != Reason::RoundTrip {
            write!(f, "; {}", self.reason)?;
        }
        Ok(())
    }
}

fn ms(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1_000.0)
}
