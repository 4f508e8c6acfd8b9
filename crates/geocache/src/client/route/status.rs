//! How the regions of a client stand, for an operator's eyes.

use std::{fmt, time::Duration};

use geo::{Explained, RegionId};
use resilience::State;

use super::{Routes, now, region::Region};
use crate::{client::Doubt, stats::Counter};

/// How the regions of a client stand at one moment; as text, one line per region, the first choice on top.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RouteStatus {
    /// The regions in the order in which they would be asked.
    pub regions: Vec<RegionRoute>,
    /// What the client counted.
    pub stats: RouteStats,
}

/// How one region stands.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RegionRoute {
    /// The region.
    pub region: RegionId,
    /// Where its endpoint is.
    pub address: String,
    /// What its breaker is doing.
    pub breaker: State,
    /// How long until the breaker lets a call pass; zero if it does now.
    pub retry_after: Duration,
    /// Why what it serves may be old, as of its latest probe.
    pub doubt: Option<Doubt>,
    /// The latest error of a call or a probe, and how long ago it was.
    pub last_error: Option<(String, Duration)>,
    /// How many calls to it are under way, probes not among them.
    pub in_flight: u32,
    /// How many there may be.
    pub in_flight_max: u32,
    /// How many calls were sent to it.
    pub asked: u64,
    /// How many it answered, of those whose answer was used.
    pub served: u64,
    /// How many failed or were not answered in time.
    pub failed: u64,
    /// How many passed it by, since it had as many in flight as may be.
    pub full: u64,
    /// Its place in the order, its round trip, and why it stands there.
    pub route: Explained,
}

macro_rules! route_stats {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a client that sends calls to the closest region counted since it was built.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct RouteStats {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(super) struct Counts {
            $(pub(super) $name: Counter,)*
        }

        impl Counts {
            fn stats(&self) -> RouteStats {
                RouteStats { $($name: self.$name.count(),)* }
            }
        }
    };
}

route_stats! {
    /// Calls made.
    calls,
    /// Calls that another region answered than the first in their order.
    fallbacks,
    /// Calls not sent to a further region, since the budget for that was used up.
    fallbacks_refused,
    /// Times a region was passed by, since it had as many calls in flight as may be.
    full,
    /// Calls that no region answered.
    unavailable,
    /// Conditional changes that may have been made, and so were not made again elsewhere.
    not_repeated,
    /// Calls sent to a region against its breaker's word, since no other answered.
    last_resorts,
    /// Reads that missed at a region that was warming, and were sent on.
    misses_asked_on,
    /// Reads for which a second region was asked as well.
    hedges,
    /// Those of them that the second region answered first.
    hedge_wins,
    /// Reads that would have been hedged, but a tenth of the reads was by then.
    hedges_refused,
}

impl Routes {
    /// How the regions stand.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use geocache::{GeoCluster, client::GeoClient};
    ///
    /// let cluster = GeoCluster::new(["eu-central", "us-east"]).await?;
    /// let client = GeoClient::builder().from("us-east").cluster(&cluster).build()?;
    /// let status = client.routes().ok_or("it routes")?.status();
    /// assert_eq!(status.regions[0].region.as_str(), "us-east");
    /// println!("{status}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn status(&self) -> RouteStatus {
        let explanation = self.table.router.explain(now());
        let regions = explanation.regions.into_iter().filter_map(|route| {
            let region = self.table.region(&route.region)?;
            Some(RegionRoute::of(region, route))
        });
        RouteStatus { regions: regions.collect(), stats: self.table.counts.stats() }
    }
}

impl RegionRoute {
    fn of(region: &Region, route: Explained) -> Self {
        let now = now();
        let last_error = region.last_error();
        Self {
            region: region.id.clone(),
            address: region.endpoint.address(),
            breaker: region.breaker.state(),
            retry_after: region.breaker.retry_after_at(now),
            doubt: region.doubt(),
            last_error: last_error.map(|(error, at)| (error, now.saturating_duration_since(at))),
            in_flight: region.in_flight(),
            in_flight_max: region.in_flight_max(),
            asked: region.counts.asked.count(),
            served: region.counts.served.count(),
            failed: region.counts.failed.count(),
            full: region.counts.full.count(),
            route,
        }
    }
}

impl fmt::Display for RouteStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.regions.iter().try_for_each(|region| writeln!(f, "{region}"))
    }
}

impl fmt::Display for RegionRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}; {} of {}]", self.route, self.address, self.in_flight, self.in_flight_max)?;
        if let Some(doubt) = self.doubt {
            write!(f, "; {doubt}")?;
        }
        if !self.retry_after.is_zero() {
            write!(f, "; asked again in {:?}", self.retry_after)?;
        }
        if let Some((error, ago)) = &self.last_error {
            write!(f, "; {:.0} s ago: {error}", ago.as_secs_f64())?;
        }
        Ok(())
    }
}
