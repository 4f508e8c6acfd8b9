//! How a value is loaded: how long it lives, whom to ask first, and what to serve when the origin is slow or gone.

use std::time::Duration;

use crate::{store::LIFE_MAX, write::TimeToLive};

/// How long a loader may take where nothing else is said.
const TIME_LIMIT_DEFAULT: Duration = Duration::from_secs(30);
/// How long another region may take to answer where nothing else is said.
const REGION_LIMIT_DEFAULT: Duration = Duration::from_millis(250);

/// Whether the closest ready region is asked for a missing value before the loader runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AskRegion {
    /// While this node is warming, when its misses say nothing.
    #[default]
    WhileWarming,
    /// On every miss: for origins that are dearer than a round trip to the closest region, and capacities that differ. A key that
    /// was evicted here so long ago that this node has forgotten it ([`Builder::graves_max`](crate::Builder::graves_max)) is not
    /// brought back, and is loaded from the origin: set that higher where the capacities differ by much.
    Always,
    /// Never.
    Never,
}

/// How [`GeoCache::get_or_load_with`](crate::GeoCache::get_or_load_with) loads. Each setter states its default.
///
/// ```
/// use std::time::Duration;
/// use geocache::{AskRegion, LoadOptions};
///
/// let options = LoadOptions::new()
///     .ttl(Duration::from_secs(60))
///     .ttl_jitter(0.1)
///     .stale_for(Duration::from_secs(600))
///     .soft_limit(Duration::from_millis(50))
///     .refresh_ahead(0.2)
///     .ask_region(AskRegion::Always);
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use = "options do nothing until a load is given them"]
pub struct LoadOptions {
    pub(super) ttl: TimeToLive,
    pub(super) ttl_jitter: f64,
    pub(super) stale_for: Duration,
    pub(super) soft_limit: Option<Duration>,
    pub(super) time_limit: Duration,
    pub(super) refresh_ahead: f64,
    pub(super) ask: AskRegion,
    pub(super) region_limit: Duration,
    pub(super) lease: Option<Duration>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl LoadOptions {
    /// The defaults.
    pub const fn new() -> Self {
        Self {
            ttl: TimeToLive::Default,
            ttl_jitter: 0.0,
            stale_for: Duration::ZERO,
            soft_limit: None,
            time_limit: TIME_LIMIT_DEFAULT,
            refresh_ahead: 0.0,
            ask: AskRegion::WhileWarming,
            region_limit: REGION_LIMIT_DEFAULT,
            lease: None,
        }
    }

    /// How long a loaded value is fresh. Default: the cache's default time to live.
    pub fn ttl(self, ttl: impl Into<TimeToLive>) -> Self {
        Self { ttl: ttl.into(), ..self }
    }

    /// Makes each loaded value fresh for a random time between `1 - share` and 1 of its time to live, so that values loaded
    /// together do not expire together. From 0 to 1; what is outside is taken as the nearer end. Default 0.
    pub fn ttl_jitter(self, share: f64) -> Self {
        Self { ttl_jitter: share_of(share), ..self }
    }

    /// How long beyond its time to live a value is kept, to be served when the loader fails or is slow. The value stays in the
    /// cache for both times together, so a plain [`get`](crate::GeoCache::get) still finds it, and every region keeps it as long. Reads
    /// of one key should all give the same. Default zero: an expired value is gone. At most half of the longest life, fifty years;
    /// a longer time is cut to that.
    pub fn stale_for(self, stale_for: Duration) -> Self {
        // Else a life that is cut to the longest one would have no fresh part.
        Self { stale_for: stale_for.min(LIFE_MAX / 2), ..self }
    }

    /// How long a caller waits for the loader while there is an older value to serve ([`stale_for`](Self::stale_for)); then it is
    /// served that, and the load goes on behind it. Default: until the load ends.
    pub fn soft_limit(self, limit: Duration) -> Self {
        Self { soft_limit: Some(limit), ..self }
    }

    /// How long a loader may take in all; then it is dropped and counts as failed. Default 30 s.
    pub fn time_limit(self, limit: Duration) -> Self {
        Self { time_limit: limit, ..self }
    }

    /// Loads a value anew, behind the callers' backs, once it is read with less than this share of its time to live left. From 0
    /// to 1; what is outside is taken as the nearer end. Default 0: only when it is over.
    pub fn refresh_ahead(self, share: f64) -> Self {
        Self { refresh_ahead: share_of(share), ..self }
    }

    /// Whether the closest ready region is asked before the loader runs. Default [`AskRegion::WhileWarming`].
    pub fn ask_region(self, ask: AskRegion) -> Self {
        Self { ask, ..self }
    }

    /// How long that region may take to answer. Default 250 ms.
    pub fn region_limit(self, limit: Duration) -> Self {
        Self { region_limit: limit, ..self }
    }

    /// Has one region load for all: whoever misses the key asks for its *lease* first, and where another node has it, waits
    /// for the value that comes from there. Of three regions with a hundred callers each on one key that has just ended, one
    /// asks the origin. Refreshing ahead asks as well. Default none: each node loads what it misses.
    ///
    /// The lease is for this long: choose more than a load usually takes, and no more than callers may wait for the others
    /// when the node that loads is lost; some seconds are right for most. At most ten minutes; a longer one is cut to that.
    /// All reads of one key should give the same.
    ///
    /// **A lease is advice, not a lock.** It costs a round trip to the node that grants the key's leases, which may be any
    /// region's, before the loader runs. Where that cannot be asked, as between the sides of a partition, gives no answer,
    /// or the wait lasted twice this time, the loader runs without one ([`LoadStats::leases_given_up`]). A loader that takes
    /// longer than the lease may run twice, and the newest value wins as ever. One that fails, panics or hangs past its
    /// [`time_limit`](Self::time_limit) gives its lease to the next region. A node without a transport has nobody to ask.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use geocache::{GeoCluster, LoadOptions};
    ///
    /// let cluster = GeoCluster::new(["us-east", "eu-central"]).await?;
    /// let options = LoadOptions::new().lease(Duration::from_secs(5));
    /// let load = async |region| {
    ///     let cache = cluster.region(region)?;
    ///     let price = cache.get_or_load_with("price", options, || async { Ok::<_, std::io::Error>(42_u64) });
    ///     Ok::<_, Box<dyn std::error::Error>>(*price.await?.value)
    /// };
    /// let (us, eu) = tokio::join!(load("us-east"), load("eu-central"));
    /// assert_eq!((us?, eu?), (42, 42));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [`LoadStats::leases_given_up`]: crate::LoadStats::leases_given_up
    pub fn lease(self, hold: Duration) -> Self {
        Self { lease: Some(hold), ..self }
    }

    /// How long a value loaded now lives, where its time to live is `ttl`; `chance` is a random number from 0 to 1.
    pub(super) fn life(&self, ttl: Option<Duration>, chance: f64) -> Option<Duration> {
        let fresh = ttl?.min(LIFE_MAX).mul_f64(1.0 - self.ttl_jitter * chance);
        Some(fresh.saturating_add(self.stale_for))
    }

    /// Whether a value with so much of its life left is over, but for being served in need.
    pub(super) fn is_stale(&self, left: Option<Duration>) -> bool {
        !self.stale_for.is_zero() && left.is_some_and(|left| left <= self.stale_for)
    }

    /// Whether a fresh value is to be loaded anew.
    pub(super) fn is_due(&self, left: Option<Duration>, ttl: Option<Duration>) -> bool {
        let (Some(left), Some(ttl)) = (left, ttl) else { return false };
        self.refresh_ahead > 0.0
            && left.saturating_sub(self.stale_for) <= ttl.min(LIFE_MAX).mul_f64(self.refresh_ahead)
    }
}

fn share_of(share: f64) -> f64 {
    // Not a number is taken as nothing.
    if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_life_is_the_jittered_time_to_live_and_the_time_it_may_be_stale() {
        let options = LoadOptions::new().ttl_jitter(0.5).stale_for(10 * SECOND);
        assert_eq!(options.life(Some(100 * SECOND), 0.0), Some(110 * SECOND));
        assert_eq!(options.life(Some(100 * SECOND), 1.0), Some(60 * SECOND));
        assert_eq!(options.life(None, 0.5), None, "what does not expire is never stale");
        let longest = LoadOptions::new().stale_for(Duration::MAX);
        let left = longest.life(Some(SECOND), 0.0);
        assert!(left < Some(LIFE_MAX) && !longest.is_stale(left), "{left:?}");
    }

    #[test]
    fn a_value_is_stale_in_the_last_part_of_its_life() {
        let options = LoadOptions::new().stale_for(10 * SECOND);
        assert!(!options.is_stale(Some(11 * SECOND)) && options.is_stale(Some(10 * SECOND)));
        assert!(!options.is_stale(None));
        assert!(
            !LoadOptions::new().is_stale(Some(Duration::ZERO)),
            "without a stale time the cache itself expires"
        );
    }

    #[test]
    fn a_value_is_due_in_the_last_share_of_its_time_to_live() {
        let options = LoadOptions::new().stale_for(10 * SECOND).refresh_ahead(0.2);
        assert!(!options.is_due(Some(31 * SECOND), Some(100 * SECOND)));
        assert!(options.is_due(Some(30 * SECOND), Some(100 * SECOND)));
        assert!(!LoadOptions::new().is_due(Some(Duration::ZERO), Some(SECOND)));
    }

    #[test]
    fn shares_outside_their_range_become_its_ends() {
        let shares = [-1.0, f64::NAN, 7.0].map(|share| LoadOptions::new().ttl_jitter(share).ttl_jitter);
        assert_eq!(shares, [0.0, 0.0, 1.0]);
    }
}
