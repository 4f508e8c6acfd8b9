//! Which regions' streams a node reads: its own, and those it heard of, to a bound.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use geo::RegionId;

use super::hello;

/// How many regions' streams a node reads at most.
pub(super) const REGIONS_MAX: usize = 64;

/// A region that was not heard of for this long may have been given up: its stream is read as long as it is there, not
/// declared again, and gives way to another where there are too many.
const SILENT: Duration = Duration::from_secs(3 * hello::EVERY.as_secs());

/// When each region was last heard of. The own one always counts as heard.
#[derive(Debug)]
pub(super) struct Regions {
    own: RegionId,
    heard: BTreeMap<RegionId, Instant>,
}

/// What hearing of a region means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Its stream is read already.
    Known,
    /// Its stream is to be read from now on, and that of the other one, silent for long, no more.
    New { gives_way: Option<RegionId> },
    /// There are too many.
    TooMany,
}

impl Regions {
    pub(super) fn new(own: RegionId, now: Instant) -> Self {
        let heard = BTreeMap::from([(own.clone(), now)]);
        Self { own, heard }
    }

    pub(super) fn hear(&mut self, region: &RegionId, now: Instant) -> News {
        if let Some(heard) = self.heard.get_mut(region) {
            *heard = now;
            return News::Known;
        }
        let mut gives_way = None;
        if self.heard.len() >= REGIONS_MAX {
            let others = self.heard.iter().filter(|(region, _)| **region != self.own);
            let Some(oldest) = others.min_by_key(|(_, heard)| **heard).map(|(region, _)| region.clone())
            else {
                return News::TooMany;
            };
            if !self.is_silent(&oldest, now) {
                return News::TooMany;
            }
            self.heard.remove(&oldest);
            gives_way = Some(oldest);
        }
        self.heard.insert(region.clone(), now);
        News::New { gives_way }
    }

    /// Whether nothing was heard of the region for long.
    pub(super) fn is_silent(&self, region: &RegionId, now: Instant) -> bool {
        *region != self.own
            && self.heard.get(region).is_none_or(|heard| now.saturating_duration_since(*heard) >= SILENT)
    }

    /// The region was given up, unless it is the own one.
    pub(super) fn forget(&mut self, region: &RegionId) {
        if *region != self.own {
            self.heard.remove(region);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(n: usize) -> RegionId {
        format!("region-{n:03}").parse().unwrap()
    }

    #[test]
    fn a_region_is_new_once() {
        let now = Instant::now();
        let mut regions = Regions::new(region(0), now);
        assert_eq!(regions.hear(&region(0), now), News::Known);
        assert_eq!(regions.hear(&region(1), now), News::New { gives_way: None });
        assert_eq!(regions.hear(&region(1), now), News::Known);
        regions.forget(&region(1));
        regions.forget(&region(0));
        assert_eq!(regions.heard.keys().collect::<Vec<_>>(), [&region(0)]);
    }

    #[test]
    fn beyond_the_bound_only_the_silent_give_way_and_never_the_own() {
        let start = Instant::now();
        let mut regions = Regions::new(region(0), start);
        for n in 1..REGIONS_MAX {
            assert!(matches!(regions.hear(&region(n), start), News::New { .. }));
        }
        let soon = start + SILENT / 2;
        assert_eq!(regions.hear(&region(500), soon), News::TooMany);
        regions.hear(&region(1), soon);
        let later = start + SILENT;
        assert!(!regions.is_silent(&region(0), later) && regions.is_silent(&region(2), later));
        assert_eq!(regions.hear(&region(500), later), News::New { gives_way: Some(region(2)) });
        assert_eq!(regions.heard.len(), REGIONS_MAX);
    }
}
