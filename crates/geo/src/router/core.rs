//! The router's decisions, pure: regions, time and a seed in, an order out.
//!
//! Regions are ranked once a round, and at once when something other than a round trip changed. In between, a plan
//! costs a clone of the ranking and, where several regions are as close as the first, one random number.
//!
//! - **Order**: by standing, then the estimated round trip, then the name.
//! - **First choice**: it stays until another is ahead by the margin for some rounds, so that two regions that are
//!   as good do not take turns. A first choice by distance alone is a guess and gives way at once.
//! - **Band**: the candidates as close as the first, within the margin. A plan begins with the first choice or
//!   with one other of them drawn at random, whichever has fewer calls in flight. The first choice is always
//!   one of the two: drawing both would send calls past it with nothing in flight at all.
//! - **Suspicion**: fast errors free their place in flight soonest, so by load alone a broken region would attract calls. A
//!   region of whose latest calls clearly more failed than of the band's best is therefore chosen for balance by
//!   nobody, and passed over if it is the first. Below that, a region's calls in flight count for more the more of
//!   its calls fail, by just as much as errors at once make room.
//!
//! Invariants: `ranking` and `spare` are never edited while a plan holds them; a region's life grows with each time
//! that it goes down; `version` grows with each change that a watcher wants to hear of.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Health, Outcome, REGIONS_MAX, Standing,
    explain::{Explained, Explanation, Reason},
    flight::Ticket,
    from_ms,
    health::{Counted, Rules},
    plan::{Plan, Ranking},
    tally::{TOLERANCE, Tally},
};
use crate::{
    Basis, ConfigError, Location, RegionId, UnknownRegion,
    estimator::{Estimator, Smoothing},
};

/// How a router decides; checked by the builder.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) smoothing: Smoothing,
    /// Another region is ahead if it is closer by more than this many ms …
    pub(super) margin_ms: f64,
    /// … and by more than this share of the first choice's round trip.
    pub(super) margin_share: f64,
    pub(super) round: Duration,
    /// So many rounds must another region be ahead.
    pub(super) rounds: u32,
    pub(super) balance: bool,
    /// `None` if health is the caller's word alone.
    pub(super) counting: Option<Rules>,
}

#[derive(Debug)]
pub(super) struct Region {
    pub(super) id: RegionId,
    /// Its place among all names, which breaks ties.
    alphabetic: u16,
    distance_km: Option<f64>,
    estimator: Estimator,
    said: Health,
    counted: Counted,
    drained: bool,
    life: u32,
    in_flight: u32,
    tally: Tally,
    // As of the last ranking:
    pub(super) rtt_ms: Option<f64>,
    pub(super) basis: Basis,
}

#[derive(Debug)]
pub(super) struct Core {
    settings: Settings,
    from: Option<Location>,
    regions: Vec<Region>,
    by_name: HashMap<RegionId, usize>,
    random: fastrand::Rng,
    ranking: Arc<Ranking>,
    spare: Arc<Ranking>,
    /// What is sorted, one for each region; in the order of the last ranking, with the first choice in front.
    keys: Vec<u128>,
    ranked_at: Option<Instant>,
    first: Option<First>,
    /// The least share of failed calls in the band, as of the last ranking.
    least_failed: f64,
    /// Whether something changed that does not wait for a round.
    stale: bool,
    version: u64,
}

/// What speaks against a candidate where load is balanced.
#[derive(Debug, Clone, Copy)]
struct Burden {
    /// Whether clearly more of its calls fail than of the best in the band.
    suspect: bool,
    /// Its calls in flight, and those that would be if errors took as long as answers do.
    load: f64,
}

/// The first choice.
#[derive(Debug, Clone, Copy)]
struct First {
    slot: usize,
    /// Whether it has been measured since it is the first; a guess is not held on to.
    measured: bool,
    /// For so many rounds another region has been ahead by the margin.
    behind: u32,
}

impl Region {
    fn health(&self) -> Health {
        self.said.max(self.counted.health())
    }

    /// Where it stands; `None` if it is left out.
    fn standing(&self) -> Option<Standing> {
        match (self.health(), self.drained) {
            (Health::Unhealthy, _) => None,
            (_, true) => Some(Standing::Drained),
            (Health::Healthy, false) => Some(Standing::Healthy),
            (Health::Probing, false) => Some(Standing::Probing),
        }
    }

    /// What it is sorted by: standing, round trip, name; and at the end its slot.
    fn key(&self, slot: usize) -> u128 {
        let class: u128 = match (self.standing(), self.drained) {
            (Some(Standing::Healthy), _) => 0,
            (Some(Standing::Probing), _) => 1,
            (Some(_), _) => 2,
            // The best of these is the last resort: a drained one only if all are.
            (None, false) => 3,
            (None, true) => 4,
        };
        // The bits of floats that are not negative are in the order of the floats.
        let rtt = self.rtt_ms.unwrap_or(f64::INFINITY).max(0.0).to_bits();
        class << 96 | u128::from(rtt) << 32 | u128::from(self.alphabetic) << 16 | slot as u128
    }
}

/// Sorts keys of which few are out of place, in steps in proportion to how far; and others as well as can be.
pub(super) fn sort_nearly_sorted(keys: &mut [u128]) {
    let mut steps_left = 4 * keys.len();
    for end in 1..keys.len() {
        let mut at = end;
        while at > 0 && keys[at - 1] > keys[at] {
            keys.swap(at - 1, at);
            at -= 1;
        }
        let steps = end - at;
        if steps > steps_left {
            return keys.sort_unstable();
        }
        steps_left -= steps;
    }
}

/// The slot at the end of a key.
fn slot(key: u128) -> usize {
    usize::from(key as u16)
}

impl Core {
    pub(super) fn new(settings: Settings, from: Option<Location>, seed: u64) -> Self {
        Self {
            settings,
            from,
            regions: Vec::new(),
            by_name: HashMap::new(),
            random: fastrand::Rng::with_seed(seed),
            ranking: Arc::default(),
            spare: Arc::default(),
            keys: Vec::new(),
            ranked_at: None,
            first: None,
            least_failed: 0.0,
            stale: true,
            version: 0,
        }
    }

    pub(super) fn add(&mut self, region: RegionId, location: Option<Location>) -> Result<(), ConfigError> {
        if self.by_name.contains_key(&region) {
            return Err(ConfigError::DuplicateRegion { region });
        }
        if self.regions.len() == REGIONS_MAX {
            return Err(ConfigError::TooManyRegions { regions: REGIONS_MAX + 1, max: REGIONS_MAX });
        }
        let distance_km = self.from.zip(location).map(|(from, to)| from.distance_km(to));
        let mut alphabetic = 0;
        for other in &mut self.regions {
            if other.id < region {
                alphabetic += 1;
            } else {
                other.alphabetic += 1;
            }
        }
        self.by_name.insert(region.clone(), self.regions.len());
        self.regions.push(Region {
            id: region,
            alphabetic,
            distance_km,
            estimator: Estimator::new(distance_km),
            said: Health::Healthy,
            counted: Counted::START,
            drained: false,
            life: 0,
            in_flight: 0,
            tally: Tally::default(),
            rtt_ms: None,
            basis: Basis::Nothing,
        });
        self.changed();
        Ok(())
    }

    pub(super) fn regions(&self) -> impl Iterator<Item = &RegionId> {
        self.regions.iter().map(|region| &region.id)
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    fn changed(&mut self) {
        self.stale = true;
        self.version += 1;
    }

    fn slot(&self, region: &RegionId) -> Result<usize, UnknownRegion> {
        self.by_name
            .get(region)
            .copied()
            .ok_or_else(|| UnknownRegion { region: region.clone(), known: self.regions().cloned().collect() })
    }

    pub(super) fn observe(
        &mut self,
        region: &RegionId,
        rtt: Duration,
        now: Instant,
    ) -> Result<(), UnknownRegion> {
        let slot = self.slot(region)?;
        self.regions[slot].estimator.observe(rtt, now, self.settings.smoothing);
        Ok(())
    }

    pub(super) fn set_health(
        &mut self,
        region: &RegionId,
        health: Health,
        now: Instant,
    ) -> Result<(), UnknownRegion> {
        let slot = self.slot(region)?;
        self.heal(slot, now, |region| {
            region.said = health;
            region.counted.told(health);
        });
        Ok(())
    }

    pub(super) fn drain(
        &mut self,
        region: &RegionId,
        drained: bool,
        now: Instant,
    ) -> Result<(), UnknownRegion> {
        let slot = self.slot(region)?;
        if std::mem::replace(&mut self.regions[slot].drained, drained) != drained {
            self.changed();
            self.refresh(now);
        }
        Ok(())
    }

    /// Changes what a region's health rests on, and does what follows if that changes its health.
    fn heal(&mut self, slot: usize, now: Instant, change: impl FnOnce(&mut Region)) {
        let region = &mut self.regions[slot];
        let before = region.health();
        change(region);
        let after = region.health();
        if before == after {
            return;
        }
        if after == Health::Unhealthy {
            // By the time it is back, the way there may be another; and what is under way now is late.
            region.estimator.clear();
            region.life = region.life.wrapping_add(1);
        }
        self.changed();
        self.refresh(now);
    }

    pub(super) fn begin(&mut self, region: &RegionId, now: Instant) -> Result<Ticket, UnknownRegion> {
        let slot = self.slot(region)?;
        let region = &mut self.regions[slot];
        region.in_flight = region.in_flight.saturating_add(1);
        Ok(Ticket { slot, life: region.life, began: now })
    }

    pub(super) fn end(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) {
        let (smoothing, counting) = (self.settings.smoothing, self.settings.counting);
        let region = &mut self.regions[ticket.slot];
        region.in_flight = region.in_flight.saturating_sub(1);
        if region.life != ticket.life {
            return;
        }
        match outcome {
            Outcome::Success => region.tally.count(false, now),
            Outcome::Failure | Outcome::Overloaded => region.tally.count(true, now),
            Outcome::Ignored | Outcome::Cancelled => {}
        }
        match (outcome, counting) {
            (Outcome::Success, counting) => {
                region.estimator.observe(now.saturating_duration_since(ticket.began), now, smoothing);
                if let Some(rules) = counting {
                    self.heal(ticket.slot, now, |region| region.counted.success(rules));
                }
            }
            (Outcome::Failure, Some(rules)) => {
                self.heal(ticket.slot, now, |region| region.counted.failure(rules, now));
            }
            _ => {}
        }
    }

    pub(super) fn in_flight(&self, region: &RegionId) -> Result<u32, UnknownRegion> {
        Ok(self.regions[self.slot(region)?].in_flight)
    }

    /// The region that has been due for a probe longest, put off by the wait.
    pub(super) fn probe_due(&mut self, now: Instant) -> Option<RegionId> {
        let rules = self.settings.counting?;
        let due = |region: &Region| region.counted.due().filter(|due| *due <= now);
        let overdue = self.regions.iter_mut().filter_map(|region| Some((due(region)?, region)));
        let (_, region) = overdue.min_by_key(|(due, _)| *due)?;
        region.counted.claim(rules, now);
        Some(region.id.clone())
    }

    pub(super) fn plan(&mut self, now: Instant) -> Plan {
        self.refresh(now);
        let lead = self.lead(now);
        Plan::new(Arc::clone(&self.ranking), lead)
    }

    pub(super) fn ranking(&mut self, now: Instant) -> &Ranking {
        self.refresh(now);
        &self.ranking
    }

    /// Which of the band a plan begins with: power of two choices, the first choice being one of the two.
    fn lead(&mut self, now: Instant) -> usize {
        let band = self.ranking.band;
        if band < 2 || !self.settings.balance {
            return 0;
        }
        let drawn = 1 + self.random.usize(..band - 1);
        let first = self.burden(0, now);
        if !first.suspect {
            let other = self.burden(drawn, now);
            return if !other.suspect && other.load < first.load { drawn } else { 0 };
        }
        // Mostly the one drawn is sound, and none is looked at but that.
        let mut others = (drawn..band).chain(1..drawn);
        others.find(|&other| !self.burden(other, now).suspect).unwrap_or_else(|| {
            let other = self.burden(drawn, now);
            if other.load < first.load { drawn } else { 0 }
        })
    }

    /// What speaks against beginning with the candidate at a place of the band.
    fn burden(&mut self, at: usize, now: Instant) -> Burden {
        let region = &mut self.regions[usize::from(self.ranking.slots[at])];
        let failed = region.tally.share(now);
        Burden {
            suspect: failed > self.least_failed + TOLERANCE,
            load: f64::from(region.in_flight) / (1.0 - failed),
        }
    }

    /// Ranks anew if a round passed or something changed.
    fn refresh(&mut self, now: Instant) {
        let passed = self.ranked_at.map(|at| now.saturating_duration_since(at));
        let is_round = passed.is_none_or(|passed| passed >= self.settings.round);
        if is_round {
            self.ranked_at = Some(now);
        }
        if is_round || std::mem::take(&mut self.stale) {
            self.rank(now, is_round);
        }
    }

    #[cold]
    fn rank(&mut self, now: Instant, is_round: bool) {
        self.stale = false;
        // In the order of the last ranking, which mostly is the order of this one.
        for slot in self.keys.len()..self.regions.len() {
            self.keys.push(slot as u128);
        }
        for key in &mut self.keys {
            let slot = slot(*key);
            let region = &mut self.regions[slot];
            (region.rtt_ms, region.basis) = region.estimator.assess(now, self.settings.smoothing);
            *key = region.key(slot);
        }
        sort_nearly_sorted(&mut self.keys);
        self.choose_first(is_round);
        let band = self.band();
        self.least_failed = self.least_failed(band, now);
        // A plan that still holds the spare keeps it, and new memory is taken.
        if Arc::get_mut(&mut self.spare).is_none() {
            self.spare = Arc::default();
        }
        if let Some(spare) = Arc::get_mut(&mut self.spare) {
            spare.begin();
            for &key in &self.keys {
                let slot = slot(key);
                let region = &self.regions[slot];
                match region.standing() {
                    Some(standing) => spare.push(slot, region, standing),
                    // The keys of those that are out come last: it is the first if all are.
                    None if spare.is_empty() => spare.push(slot, region, Standing::LastResort),
                    None => spare.leave_out(&region.id),
                }
            }
            spare.finish(band);
        }
        std::mem::swap(&mut self.ranking, &mut self.spare);
    }

    /// Holds on to the first choice, or takes the best one; it is moved to the front of the keys.
    fn choose_first(&mut self, is_round: bool) {
        let best = slot(self.keys[0]);
        let before = self.first;
        let kept =
            before.filter(|first| first.slot != best && self.is_held(first.slot, best, first.measured));
        let next = match kept {
            Some(mut first) if self.is_behind(first.slot, best) => {
                first.behind += u32::from(is_round);
                (first.behind < self.settings.rounds).then_some(first)
            }
            Some(first) => Some(First { behind: 0, ..first }),
            None => None,
        };
        let mut next = next.unwrap_or(First { slot: best, measured: false, behind: 0 });
        next.measured = self.regions[next.slot].basis == Basis::Measured
            || before.is_some_and(|before| before.slot == next.slot && before.measured);
        if next.slot != best
            && let Some(at) = self.keys.iter().position(|key| slot(*key) == next.slot)
        {
            self.keys[..=at].rotate_right(1);
        }
        if before.is_none_or(|before| before.slot != next.slot) {
            self.version += 1;
        }
        self.first = Some(next);
    }

    /// Whether a first choice is one to hold on to: measured, and of the standing of the best.
    fn is_held(&self, first: usize, best: usize, measured: bool) -> bool {
        let (first, best) = (&self.regions[first], &self.regions[best]);
        measured
            && first.rtt_ms.is_some()
            && first.standing().is_some()
            && first.standing() == best.standing()
    }

    fn is_behind(&self, first: usize, best: usize) -> bool {
        self.ahead_ms(first, best).is_some_and(|(ahead, margin)| ahead > margin)
    }

    /// By how many ms the best is ahead of the first choice, and by how many it would have to be.
    fn ahead_ms(&self, first: usize, best: usize) -> Option<(f64, f64)> {
        let (first, best) = (self.regions[first].rtt_ms?, self.regions[best].rtt_ms?);
        Some((first - best, self.margin_ms(first)))
    }

    fn margin_ms(&self, rtt_ms: f64) -> f64 {
        self.settings.margin_ms.max(self.settings.margin_share * rtt_ms)
    }

    /// How many candidates, from the first on, are as close as the first.
    fn band(&self) -> usize {
        let first = &self.regions[slot(self.keys[0])];
        let (Some(rtt_ms), Some(standing @ (Standing::Healthy | Standing::Drained))) =
            (first.rtt_ms, first.standing())
        else {
            // What is not known is not as close as anything, and a region on probation is not to be flooded.
            return 1;
        };
        let limit_ms = rtt_ms + self.margin_ms(rtt_ms);
        let within = |region: &Region| {
            region.standing() == Some(standing) && region.rtt_ms.is_some_and(|rtt_ms| rtt_ms <= limit_ms)
        };
        self.keys.iter().take_while(|key| within(&self.regions[slot(**key)])).count()
    }

    /// The least share of failed calls among the first so many.
    fn least_failed(&mut self, band: usize, now: Instant) -> f64 {
        let regions = &mut self.regions;
        let failed = self.keys[..band].iter().map(|key| regions[slot(*key)].tally.share(now));
        failed.fold(1.0, f64::min)
    }

    pub(super) fn explain(&mut self, now: Instant) -> Explanation {
        self.refresh(now);
        let regions = self.keys.iter().enumerate().map(|(at, &key)| self.explained(at, slot(key), now));
        Explanation { regions: regions.collect() }
    }

    fn explained(&self, at: usize, slot: usize, now: Instant) -> Explained {
        let region = &self.regions[slot];
        let standing = self.ranking.candidates.get(at).map(|candidate| candidate.standing);
        let estimator = &region.estimator;
        let failed = { region.tally }.share(now);
        Explained {
            region: region.id.clone(),
            place: standing.map(|standing| (at + 1, standing)),
            reason: self.reason(at, region, standing),
            health: region.health(),
            drained: region.drained,
            in_flight: region.in_flight,
            in_band: at < self.ranking.band && self.ranking.band > 1,
            failed,
            suspect: failed > self.least_failed + TOLERANCE,
            distance_km: region.distance_km,
            prior: estimator.prior_ms().map(from_ms),
            measured: estimator.mean_ms().map(from_ms),
            samples: estimator.samples(),
            age: estimator.age(now),
            rtt: region.rtt_ms.map(from_ms),
            basis: region.basis,
        }
    }

    fn reason(&self, at: usize, region: &Region, standing: Option<Standing>) -> Reason {
        let next = self.keys.get(1).map(|key| slot(*key));
        let held = self.first.filter(|_| at == 0).zip(next).and_then(|(first, next)| {
            let (ahead, _) = self.ahead_ms(first.slot, next)?;
            let same = region.standing() == self.regions[next].standing();
            (ahead > 0.0 && same).then(|| Reason::Held {
                by: from_ms(ahead),
                behind: first.behind,
                rounds: self.settings.rounds,
            })
        });
        match standing {
            _ if held.is_some() => held.unwrap_or(Reason::RoundTrip),
            Some(Standing::LastResort) => Reason::LastResort,
            Some(Standing::Drained) => Reason::Drained,
            Some(Standing::Probing) => Reason::Probing,
            Some(Standing::Healthy) if region.rtt_ms.is_none() => Reason::Unknown,
            Some(Standing::Healthy) => Reason::RoundTrip,
            None if region.said == Health::Unhealthy => Reason::SaidUnhealthy,
            None => Reason::Failing,
        }
    }

    #[cfg(feature = "watch")]
    pub(super) fn status(&self) -> super::watch::Status {
        let first = self.keys.first().map_or(0, |key| slot(*key));
        super::watch::Status {
            first: self.regions[first].id.clone(),
            last_resort: self.regions.iter().all(|region| region.standing().is_none()),
            regions: self
                .regions
                .iter()
                .map(|region| super::watch::RegionStatus {
                    region: region.id.clone(),
                    health: region.health(),
                    drained: region.drained,
                })
                .collect(),
            version: self.version,
        }
    }
}
