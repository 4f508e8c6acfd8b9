//! Orders regions by how soon they are likely to answer.
//!
//! A router stands in one place and plans for it: round trips are measured from somewhere, so one router cannot
//! serve two places. Each region's round trip is guessed by distance and then measured. A plan lists healthy regions by
//! that estimate; healthy ones of which nothing is known come after them until they are measured; drained ones
//! come last, for when nobody else answers; unhealthy ones are left out. If all look unhealthy, the fault may well
//! be on our own side, so the plan still names the best of them, flagged as a last resort: a plan is never empty.
//!
//! It decides and measures nothing: the caller says how long successful calls took ([`Router::observe`]) and who is
//! healthy ([`Router::set_health`], say from a circuit breaker). Failures are not observed, so that a region that
//! refuses quickly does not look close. It takes `now` as an argument and owns no clock.
//!
//! Invariants: at least one region; each name once; at most [`REGIONS_MAX`].
//!
//! ```
//! use std::time::{Duration, Instant};
//!
//! let now = Instant::now();
//! let mut router = geo::Router::builder().from("eu-central").region("us-east").region("eu-west").build()?;
//! assert_eq!(router.plan(now).to_string(), "eu-west (28 ms, by distance); us-east (110 ms, by distance)");
//!
//! router.set_health(&"eu-west".parse()?, geo::Health::Unhealthy)?;
//! assert_eq!(router.plan(now).to_string(), "us-east (110 ms, by distance)");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod explain;
mod plan;

#[cfg(test)]
mod tests;

use std::{
    cmp::Ordering,
    collections::HashMap,
    time::{Duration, Instant},
};

pub use config::Builder;
pub use explain::{Explained, Explanation};
pub use plan::{Candidate, Plan, Standing};

use crate::{
    ConfigError, Location, RegionId, UnknownRegion,
    estimator::{Estimator, Smoothing},
};

/// The most regions a router plans over.
pub const REGIONS_MAX: usize = 1_024;

/// Orders regions by how soon they are likely to answer, from one place.
#[derive(Debug, Clone)]
pub struct Router {
    from: Option<Location>,
    smoothing: Smoothing,
    /// In the order in which they were given.
    regions: Vec<Region>,
    by_name: HashMap<RegionId, usize>,
}

/// Whether a region is worth asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    /// It answers, as far as is known.
    Healthy,
    /// It does not answer.
    Unhealthy,
}

#[derive(Debug, Clone)]
struct Region {
    id: RegionId,
    distance_km: Option<f64>,
    estimator: Estimator,
    health: Health,
    drained: bool,
}

impl Router {
    /// Settings to change before building.
    pub fn builder() -> Builder {
        Builder::new()
    }

    fn empty(from: Option<Location>, smoothing: Smoothing) -> Self {
        Self { from, smoothing, regions: Vec::new(), by_name: HashMap::new() }
    }

    /// Adds a region that came to be known later, healthy and not measured. Without a location it is ranked by
    /// measured round trips alone; [`catalog::find`](crate::catalog::find) may know it.
    ///
    /// # Errors
    /// [`ConfigError::DuplicateRegion`] or [`ConfigError::TooManyRegions`]; the router is as it was.
    pub fn add(&mut self, region: RegionId, location: Option<Location>) -> Result<(), ConfigError> {
        if self.by_name.contains_key(&region) {
            return Err(ConfigError::DuplicateRegion { region });
        }
        if self.regions.len() == REGIONS_MAX {
            return Err(ConfigError::TooManyRegions { regions: REGIONS_MAX + 1, max: REGIONS_MAX });
        }
        let distance_km = self.from.zip(location).map(|(from, to)| from.distance_km(to));
        self.by_name.insert(region.clone(), self.regions.len());
        self.regions.push(Region {
            id: region,
            distance_km,
            estimator: Estimator::new(distance_km),
            health: Health::Healthy,
            drained: false,
        });
        Ok(())
    }

    /// The regions, in the order in which they were given.
    pub fn regions(&self) -> impl Iterator<Item = &RegionId> {
        self.regions.iter().map(|region| &region.id)
    }

    /// Takes the round trip of a call that *succeeded*.
    ///
    /// # Errors
    /// [`UnknownRegion`] if the router has no such region.
    pub fn observe(&mut self, region: &RegionId, rtt: Duration, now: Instant) -> Result<(), UnknownRegion> {
        let smoothing = self.smoothing;
        self.find(region)?.estimator.observe(rtt, now, smoothing);
        Ok(())
    }

    /// Says whether a region is healthy. One that goes down loses its measurements: by the time it is back, the
    /// way there may be another.
    ///
    /// # Errors
    /// [`UnknownRegion`] if the router has no such region.
    pub fn set_health(&mut self, region: &RegionId, health: Health) -> Result<(), UnknownRegion> {
        let region = self.find(region)?;
        if region.health == Health::Healthy && health == Health::Unhealthy {
            region.estimator.clear();
        }
        region.health = health;
        Ok(())
    }

    /// Says whether a region is drained: still healthy, but to be used only if no other answers.
    ///
    /// # Errors
    /// [`UnknownRegion`] if the router has no such region.
    pub fn drain(&mut self, region: &RegionId, drained: bool) -> Result<(), UnknownRegion> {
        self.find(region)?.drained = drained;
        Ok(())
    }

    /// The candidates, best first, with a reason each.
    pub fn plan(&self, now: Instant) -> Plan {
        let candidates = self.ranked(now).into_iter().map(|ranked| ranked.candidate(self, now)).collect();
        Plan::new(candidates).expect("a router has at least one region, and the best one is always ranked")
    }

    /// The candidates' names, best first: [`plan`](Self::plan) without the reasons.
    pub fn order(&self, now: Instant) -> Vec<RegionId> {
        self.ranked(now).into_iter().map(|ranked| ranked.region.id.clone()).collect()
    }

    /// What is known of each region, for an operator's eyes.
    pub fn explain(&self, now: Instant) -> Explanation {
        let ranked = self.ranked(now);
        let planned = ranked
            .iter()
            .enumerate()
            .map(|(at, ranked)| self.explained(ranked.region, Some((at + 1, ranked.standing)), now));
        let out = self
            .regions
            .iter()
            .filter(|region| ranked.iter().all(|ranked| ranked.region.id != region.id))
            .map(|region| self.explained(region, None, now));
        Explanation { regions: planned.chain(out).collect() }
    }

    fn explained(&self, region: &Region, place: Option<(usize, Standing)>, now: Instant) -> Explained {
        let estimator = &region.estimator;
        Explained {
            region: region.id.clone(),
            place,
            health: region.health,
            drained: region.drained,
            distance_km: region.distance_km,
            prior: estimator.prior_ms().map(from_ms),
            measured: estimator.mean_ms().map(from_ms),
            samples: estimator.samples(),
            age: estimator.age(now),
            rtt: estimator.estimate_ms(now, self.smoothing).map(from_ms),
            basis: estimator.basis(now, self.smoothing),
        }
    }

    /// The candidates in order; of regions that all look unhealthy, the best one alone.
    fn ranked(&self, now: Instant) -> Vec<Ranked<'_>> {
        let rank = |region, standing| Ranked::new(region, standing, now, self.smoothing);
        let standing = |region: &Region| if region.drained { Standing::Drained } else { Standing::Healthy };
        let mut ranked: Vec<Ranked<'_>> = self
            .regions
            .iter()
            .filter(|region| region.health == Health::Healthy)
            .map(|region| rank(region, standing(region)))
            .collect();
        ranked.sort_by(Ranked::compare);
        if ranked.is_empty() {
            let all = self.regions.iter().map(|region| rank(region, standing(region)));
            ranked.extend(all.min_by(Ranked::compare).map(|best| best.into_last_resort()));
        }
        ranked
    }

    fn find(&mut self, region: &RegionId) -> Result<&mut Region, UnknownRegion> {
        match self.by_name.get(region) {
            Some(&at) => Ok(&mut self.regions[at]),
            None => Err(UnknownRegion { region: region.clone(), known: self.regions().cloned().collect() }),
        }
    }
}

/// A region on its way into a plan.
struct Ranked<'a> {
    region: &'a Region,
    standing: Standing,
    rtt_ms: Option<f64>,
}

impl<'a> Ranked<'a> {
    fn new(region: &'a Region, standing: Standing, now: Instant, smoothing: Smoothing) -> Self {
        Self { region, standing, rtt_ms: region.estimator.estimate_ms(now, smoothing) }
    }

    fn into_last_resort(mut self) -> Self {
        self.standing = Standing::LastResort;
        self
    }

    /// By standing, then known before unknown, then the shorter round trip, then the name, so that equal regions
    /// keep their order from plan to plan.
    fn compare(&self, other: &Self) -> Ordering {
        let rtt = |ranked: &Self| ranked.rtt_ms.unwrap_or(f64::INFINITY);
        self.standing
            .cmp(&other.standing)
            .then_with(|| rtt(self).total_cmp(&rtt(other)))
            .then_with(|| self.region.id.cmp(&other.region.id))
    }

    fn candidate(self, router: &Router, now: Instant) -> Candidate {
        Candidate {
            region: self.region.id.clone(),
            rtt: self.rtt_ms.map(from_ms),
            basis: self.region.estimator.basis(now, router.smoothing),
            standing: self.standing,
        }
    }
}

/// An estimate as a duration; it is finite and not negative, since samples and distances are.
fn from_ms(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1_000.0).unwrap_or(Duration::MAX)
}
