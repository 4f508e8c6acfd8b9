//! What a router knows of each region, for an operator's eyes.

use std::{fmt, time::Duration};

use super::{Health, Standing};
use crate::{RegionId, estimator::Basis};

/// What a router knows of each region at one moment; as text, one line per region, the plan's first on top.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// Those in the plan in its order, then the others in the order in which they were given.
    pub regions: Vec<Explained>,
}

/// What a router knows of one region.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Explained {
    /// The region.
    pub region: RegionId,
    /// Its place in the plan, from 1, and why; `None` if it is not a candidate.
    pub place: Option<(usize, Standing)>,
    /// Whether it was last said to be healthy.
    pub health: Health,
    /// Whether it is drained.
    pub drained: bool,
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

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.regions.iter().try_for_each(|region| writeln!(f, "{region}"))
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let health = match self.health {
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
        };
        match self.place {
            Some((place, _)) => write!(f, "{place:>2}. ")?,
            None => write!(f, " -. ")?,
        }
        write!(f, "{}: {health}", self.region)?;
        if self.drained {
            write!(f, ", drained")?;
        }
        if let Some((_, Standing::LastResort)) = self.place {
            write!(f, ", last resort")?;
        }
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
        Ok(())
    }
}

fn ms(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1_000.0)
}
