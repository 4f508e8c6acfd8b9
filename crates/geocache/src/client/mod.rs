//! Calls to several regions' caches, the closest healthy one first.
//!
//! A [`GeoClient`] is for programs that hold no node of their own, and for those that want another region's answer when their own is
//! gone. An [`Endpoint`] is one region's cache as it reaches it: a [`GeoCache`](crate::GeoCache) of this process is one, so is a region of
//! a [`GeoCluster`](crate::GeoCluster), and with the feature `memcached` a server elsewhere, `geocached` or memcached (`Memcached`). One
//! of your own can be held to the suite in the module `contract` (feature `contract`).
//!
//! For regions whose nodes replicate by themselves, [`GeoClient::builder`] makes a client that sends each call to the closest healthy
//! region: by distance until round trips are measured, past those that are out or have too many calls in flight, with the next one as
//! the fallback. A write goes to one place, and replication carries it on. A region that is back is found by probes. Every answer can
//! say who gave it, and whether it may be old ([`Served`]); [`GeoClient::routes`] tells how the regions stand, and why.
//!
//! For servers that do *not* replicate, such as plain memcached, [`GeoClient::mirrored`] makes a client that keeps them alike by itself:
//! a main server, a fallback and backups that take each write in real time; [`mirror`] says how, and what holds.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use geocache::{GeoCluster, client::GeoClient};
//!
//! // Two regions in this process; elsewhere each would be a server: `.endpoint("us-east", …)`.
//! let cluster = GeoCluster::new(["eu-central", "us-east"]).await?;
//! let client = GeoClient::builder()
//!     .from("eu-central")
//!     .cluster(&cluster)
//!     .call_limit(Duration::from_millis(800))
//!     .build()?;
//!
//! let put = client.put("user:1", "Ada").await?;
//! assert_eq!(put.region.as_str(), "eu-central");
//! cluster.settled(Duration::from_secs(5)).await?;
//!
//! // An outage of the closest region is the next one's work.
//! cluster.stop("eu-central").await?;
//! let served = client.get_served::<String>("user:1").await?;
//! assert_eq!((served.value.as_deref(), served.region.as_str()), (Some("Ada"), "us-east"));
//! # Ok(())
//! # }
//! ```

mod builder;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod endpoint;
mod engine;
mod local;
#[cfg(feature = "memcached")]
mod memcached;
pub mod mirror;
mod route;
mod typed;

use std::{fmt, sync::Arc};

pub use builder::ClientBuilder;
pub use endpoint::{Doubt, Endpoint, EndpointError, KEYS_WAITING_MAX, Keys, Pulse};
pub use engine::{ClientError, Served};
#[cfg(feature = "memcached")]
pub use memcached::{Memcached, MemcachedBuilder, MemcachedStats};
pub use mirror::{Mirror, MirrorBuilder, MirrorEvent, MirrorEvents, MirrorPlace, MirrorRole, MirrorStatus};
pub use resilience::{
    Builder as BreakerBuilder, FailoverBuilder, FailoverState, Life, Refused, Scope, Side,
    State as BreakerState, Status as FailoverStatus, Waiting, Why,
};
pub use route::{Hedge, RegionRoute, RouteEvent, RouteEvents, RouteStats, RouteStatus, Routes};

use self::engine::Engine;
use crate::{bulk::new_key, value::Codec, write::TimeToLive};

/// Calls to several regions' caches. A cheap handle: clones share it, and dropping the last one ends its tasks.
#[derive(Clone)]
pub struct GeoClient {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Arc<dyn Engine>,
    codec: Codec,
    default_ttl: TimeToLive,
    key_bytes_max: usize,
}

impl GeoClient {
    /// Begins to configure a client of regions whose nodes replicate by themselves: each call goes to the closest healthy one.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    pub(crate) fn of(
        engine: Arc<dyn Engine>,
        codec: Codec,
        default_ttl: TimeToLive,
        key_bytes_max: usize,
    ) -> Self {
        Self { shared: Arc::new(Shared { engine, codec, default_ttl, key_bytes_max }) }
    }

    /// How typed values are encoded that this client writes. It reads every codec.
    pub fn codec(&self) -> Codec {
        self.shared.codec
    }

    /// A key that no other value has: a UUID of version 7 (RFC 9562), as [`GeoCache::generate_key`](crate::GeoCache::generate_key) makes them.
    #[must_use]
    pub fn generate_key(&self) -> String {
        new_key()
    }

    /// How the regions stand, what changes, and who is drained; `None` for a client that sends no call to the closest region, since it
    /// writes each copy itself.
    pub fn routes(&self) -> Option<&Routes> {
        self.engine().routes()
    }

    fn engine(&self) -> &dyn Engine {
        &*self.shared.engine
    }

    fn default_ttl(&self) -> TimeToLive {
        self.shared.default_ttl
    }

    fn key_bytes_max(&self) -> usize {
        self.shared.key_bytes_max
    }
}

impl fmt::Debug for GeoClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeoClient").field("engine", &self.shared.engine).finish_non_exhaustive()
    }
}
