//! Calls to several regions' caches, the closest healthy one first.
//!
//! A [`GeoClient`] is for programs that hold no node of their own, and for those that want another region's answer when their own is
//! gone. An [`Endpoint`] is one region's cache as it reaches it: a [`GeoCache`](crate::GeoCache) of this process is one.

mod endpoint;
mod engine;
mod local;
mod typed;

use std::{fmt, sync::Arc};

pub use endpoint::{Doubt, Endpoint, EndpointError, KEYS_WAITING_MAX, Keys, Pulse};
pub use engine::{ClientError, Served};

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
