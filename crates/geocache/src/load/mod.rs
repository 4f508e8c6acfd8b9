//! Reading through: a value that is not here is loaded, once for all who ask on this node.
//!
//! **One loader per key and node.** The first caller that needs a value begins a *flight*: its loader runs as a task of its own, and
//! whoever asks for the key meanwhile waits for that same landing. A caller that goes away harms nobody: the load goes on for the
//! others. A loader that fails or panics ends its flight with an error for all who waited, and nothing is kept of it: were each of a
//! thousand callers to try after another, an origin that is down would be asked a thousand times. One that hangs is dropped at its
//! time limit. Several regions may load a key at once; each then writes, and the newest write wins everywhere. With
//! [`LoadOptions::lease`] one region loads for all (`lease.rs`).
//!
//! **Nothing stale is published.** What was written, removed or cleared after a load began, here or in another region, wins over what the
//! load brings: the cache stays as it is, and the callers get the value that was written, or, where there is none, what was loaded.
//!
//! **Circles are errors.** A loader may load other keys. One that would wait for itself, directly or through others, gets
//! [`LoadError::Circle`] at once. What cannot be seen is a loader that asks from a task that it spawned: that ends at the time limit.
//!
//! # Why this way
//! `cache-core`'s own single flight was not used: it inserts what was loaded by itself, past stamps and replication, and hands a failed
//! load to the next of its callers, which suits a cheap loader in one process better than an origin behind a network. Rejected too: a
//! loader that runs in its caller's own future, for then every caller that is cancelled (a closed connection) ends the load of all.
//!
//! # Bounds
//! At most [`Builder::loads_max`](crate::Builder::loads_max) flights at a time, each no longer than its loader's time limit, the time for
//! which another region is asked before ([`LoadOptions::region_limit`]), and twice its lease together; counted in
//! [`Stats::loads`](crate::Stats::loads).

mod error;
mod flight;
mod lease;
mod options;
#[cfg(test)]
mod tests;

use std::{any::Any, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use replication::{Hlc, Stamp};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use tracing::Instrument as _;

pub use self::{
    error::LoadError,
    options::{AskRegion, LoadOptions},
};
pub(crate) use flight::Flights;

use self::{
    error::Failure,
    flight::{Boarding, Refused, Seat},
    lease::Turn,
};
use crate::{
    error::Error,
    node::{GeoCache, WeakGeoCache},
    stats::LoadCounters,
    store::{Condition, LIFE_MAX, Life, Outcome},
    trace::{self, TARGET},
    value::Seen,
    write::TimeToLive,
};

/// A value, and where it came from.
#[derive(Debug)]
#[non_exhaustive]
pub struct Loaded<T> {
    /// The value.
    pub value: Arc<T>,
    /// Where it came from.
    pub source: Source,
}

impl<T> Clone for Loaded<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), source: self.source }
    }
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// This node's memory.
    Cache,
    /// This node's memory, although its time was over: the loader failed or was slow.
    Stale,
    /// The memory of the closest ready region.
    Region,
    /// A loader: this caller's, or one that ran already.
    Loader,
    /// A loader of another region, for which this one waited ([`LoadOptions::lease`]); or whoever else wrote it meanwhile.
    Elsewhere,
}

/// What a flight ends with.
type Landed = Result<Landing, Failure>;

/// A value of whatever type its loader gave.
#[derive(Clone)]
struct Landing {
    value: Arc<dyn Any + Send + Sync>,
    source: Source,
}

impl fmt::Debug for Landing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Landing").field("source", &self.source).finish_non_exhaustive()
    }
}

/// What a read found before any load.
struct Found<T> {
    value: Arc<T>,
    left: Option<Duration>,
    stamp: Stamp,
}

impl GeoCache {
    /// The value of a key from this node's memory, or else from the loader, whose value is stored and replicated.
    ///
    /// Of all callers on this node that miss a key at once, one loader runs; the others wait for it. See the options for time to live,
    /// serving old values in need, refreshing ahead, and asking another region first.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use geocache::GeoCache;
    ///
    /// async fn from_database(id: u64) -> Result<String, std::io::Error> {
    ///     Ok(format!("user {id}"))
    /// }
    ///
    /// let cache = GeoCache::builder().build().await?;
    /// let user = cache.get_or_load("user:1", || from_database(1)).await?;
    /// assert_eq!(*user, "user 1");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A [`LoadError`]: what the loader failed with, or why it could not run or the cache not be read. Where the loaded value cannot be
    /// stored (too long, not to be encoded, a closed cache) it is returned all the same, and counted as
    /// [`LoadStats::unpublished`](crate::LoadStats::unpublished).
    ///
    /// # Cancel safety
    /// Safe: dropping the future ends the wait; the load goes on, and its value is stored.
    pub async fn get_or_load<T, E, L, F>(
        &self,
        key: impl AsRef<[u8]>,
        loader: L,
    ) -> Result<Arc<T>, LoadError<E>>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
        E: fmt::Display + Send + Sync + 'static,
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        Ok(self.get_or_load_with(key, LoadOptions::new(), loader).await?.value)
    }

    /// As [`get_or_load`](Self::get_or_load), with options; says where the value came from.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use geocache::{GeoCache, LoadOptions, Source};
    ///
    /// let cache = GeoCache::builder().build().await?;
    /// let options = LoadOptions::new().ttl(Duration::from_secs(60)).stale_for(Duration::from_secs(600));
    /// let price = cache.get_or_load_with("price:7", options, || async { Ok::<_, std::io::Error>(42_u64) }).await?;
    /// assert_eq!((*price.value, price.source), (42, Source::Loader));
    /// let price = cache.get_or_load_with("price:7", options, || async { Ok::<_, std::io::Error>(43_u64) }).await?;
    /// assert_eq!((*price.value, price.source), (42, Source::Cache));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`get_or_load`](Self::get_or_load).
    ///
    /// # Cancel safety
    /// As [`get_or_load`](Self::get_or_load).
    pub async fn get_or_load_with<T, E, L, F>(
        &self,
        key: impl AsRef<[u8]>,
        options: LoadOptions,
        loader: L,
    ) -> Result<Loaded<T>, LoadError<E>>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
        E: fmt::Display + Send + Sync + 'static,
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let key = &*self.full(key.as_ref())?;
        let found = self.find::<T>(key)?;
        let stale = match found {
            Some(Found { value, left, stamp }) if !options.is_stale(left) => {
                if options.is_due(left, self.fresh_for(&options)) {
                    self.refresh(key, options, stamp, loader);
                }
                return Ok(Loaded { value, source: Source::Cache });
            }
            stale => stale,
        };
        let began = Instant::now();
        let old = stale.as_ref().map(|found| found.stamp);
        let span = trace::call!(self, "get_or_load", key);
        let landed = match span.in_scope(|| self.board(key, options, old, flight::loading(), loader)) {
            Ok(flight) => {
                let limit = options.soft_limit.filter(|_| stale.is_some());
                // A limit past what an instant can name is none.
                match limit.and_then(|limit| began.checked_add(limit)) {
                    Some(limit) => timeout_at(limit, flight.landed()).instrument(span.clone()).await.ok(),
                    None => Some(flight.landed().instrument(span.clone()).await),
                }
            }
            Err(error) => return self.in_need(stale, error),
        };
        match &landed {
            Some(Ok(landing)) => {
                tracing::debug!(target: TARGET, parent: &span, source = ?landing.source, "loaded");
            }
            Some(Err(_)) => tracing::debug!(target: TARGET, parent: &span, "not loaded"),
            None => tracing::debug!(target: TARGET, parent: &span, "the load is slow"),
        }
        match landed {
            Some(Ok(landing)) => self.take(key, landing),
            Some(Err(failure)) => self.in_need(stale, failure.told()),
            // Slow, with an older value at hand.
            None => self.in_need(stale, LoadError::TimedOut { limit: began.elapsed() }),
        }
    }

    /// The older value where there is one, the error where not.
    fn in_need<T, E: fmt::Display>(
        &self,
        stale: Option<Found<T>>,
        error: LoadError<E>,
    ) -> Result<Loaded<T>, LoadError<E>> {
        let Some(Found { value, .. }) = stale else { return Err(error) };
        self.load_counters().stale_served.add();
        tracing::debug!(%error, "an older value is served");
        Ok(Loaded { value, source: Source::Stale })
    }

    /// The live value of a key and what is left of its life.
    fn find<T>(&self, key: &[u8]) -> Result<Option<Found<T>>, Error>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        let read = self.store().read(key, |stored, left| (stored.seen::<T>(), left, stored.stamp));
        let Some((seen, left, stamp)) = read else { return Ok(None) };
        let value = match seen {
            Seen::Decoded(value) => value,
            Seen::Encoded(encoded) => {
                let value = encoded.decode::<T>()?;
                self.store().keep_decoded(key, encoded.stamp, Arc::<T>::clone(&value));
                value
            }
        };
        Ok(Some(Found { value, left, stamp }))
    }

    /// A landed value as the caller's type: where another type was loaded, what is stored is read.
    fn take<T, E>(&self, key: &[u8], landing: Landing) -> Result<Loaded<T>, LoadError<E>>
    where
        T: DeserializeOwned + Send + Sync + 'static,
        E: fmt::Display,
    {
        let source = landing.source;
        if let Ok(value) = landing.value.downcast::<T>() {
            return Ok(Loaded { value, source });
        }
        match self.find(key)? {
            Some(Found { value, .. }) => Ok(Loaded { value, source }),
            None => Err(LoadError::FailedElsewhere {
                reason: "it gave a value of another type, which is not stored".to_owned(),
            }),
        }
    }

    /// Joins the flight of a key, or begins one with this loader; `old` is what was found of the key, `waiter` the key whose
    /// loader waits for it.
    fn board<T, E, L, F>(
        &self,
        key: &[u8],
        options: LoadOptions,
        old: Option<Stamp>,
        waiter: Option<Bytes>,
        loader: L,
    ) -> Result<Flown, LoadError<E>>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
        E: fmt::Display + Send + Sync + 'static,
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let runtime = Handle::try_current().map_err(|_| LoadError::NoRuntime)?;
        let (key, max) = (Bytes::copy_from_slice(key), self.loads_max());
        match self.flights().board(&key, waiter, max) {
            Ok(Boarding::Join(landing, waiting)) => {
                self.load_counters().shared.add();
                Ok(Flown { landing, _waiting: waiting })
            }
            Ok(Boarding::Lead(seat, waiting)) => {
                let landing = seat.landing();
                let flight = Flight { cache: self.downgrade(), key, options, old };
                runtime.spawn(flight.fly(seat, self.alive(), loader).in_current_span());
                Ok(Flown { landing, _waiting: waiting })
            }
            Err(Refused::Circle) => Err(LoadError::Circle),
            Err(Refused::Full) => {
                self.load_counters().refused.add();
                Err(LoadError::Busy { max })
            }
        }
    }

    /// Loads a value anew that is about to be over; nobody waits for it.
    fn refresh<T, E, L, F>(&self, key: &[u8], options: LoadOptions, old: Stamp, loader: L)
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
        E: fmt::Display + Send + Sync + 'static,
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        // A refresh asks the origin: another region's copy is as old as this one.
        let options = options.ask_region(AskRegion::Never);
        if !self.flights().is_flying(key) && self.board(key, options, Some(old), None, loader).is_ok() {
            self.load_counters().refreshes.add();
        }
    }

    /// How long what these options load is fresh.
    fn fresh_for(&self, options: &LoadOptions) -> Option<Duration> {
        let ttl = match options.ttl {
            TimeToLive::For(ttl) => Some(ttl),
            TimeToLive::Never => None,
            TimeToLive::Default | TimeToLive::Keep => self.default_ttl(),
        };
        ttl.map(|ttl| ttl.min(LIFE_MAX))
    }

    /// Stores what was loaded, unless something newer happened to the key since; gives what is true then, and its stamp
    /// where that is what the cache holds.
    fn publish<T>(&self, key: &[u8], options: &LoadOptions, value: T, since: Hlc) -> (Arc<T>, Option<Stamp>)
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let value = Arc::new(value);
        let life = options.life(self.fresh_for(options), fastrand::f64());
        let life = life.map_or(Life::Never, Life::For);
        match self.put_typed(key, &*value, life, Condition::Since(since)) {
            Ok((Outcome::Done { .. }, Some(stamp))) => {
                self.store().keep_decoded(key, stamp, Arc::<T>::clone(&value));
                (value, Some(stamp))
            }
            Ok(_) => {
                self.load_counters().overtaken.add();
                let found = self.find::<T>(key).ok().flatten();
                found.map_or((value, None), |found| (found.value, Some(found.stamp)))
            }
            Err(error) => {
                self.load_counters().unpublished.add();
                tracing::warn!(%error, "a loaded value was not stored");
                (value, None)
            }
        }
    }
}

/// A flight as its callers see it.
struct Flown {
    landing: watch::Receiver<Option<Landed>>,
    _waiting: Option<flight::Waiting>,
}

impl Flown {
    async fn landed(mut self) -> Landed {
        let landed = self.landing.wait_for(Option::is_some).await;
        landed.ok().and_then(|landed| landed.clone()).unwrap_or(Err(Failure::Ended))
    }
}

/// One load. It does not keep its node alive: a node whose last handle is gone ends it.
struct Flight {
    cache: WeakGeoCache,
    key: Bytes,
    options: LoadOptions,
    /// What was found of the key, which is not wanted.
    old: Option<Stamp>,
}

impl Flight {
    async fn fly<T, E, L, F>(self, seat: Seat, mut alive: watch::Receiver<()>, loader: L)
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
        E: fmt::Display + Send + Sync + 'static,
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let landed = tokio::select! {
            landed = self.load(loader) => landed,
            // Nothing is ever sent: it resolves when the node is gone.
            _ = alive.changed() => Err(Failure::Ended),
        };
        if let (Err(_), Some(cache)) = (&landed, self.cache.upgrade()) {
            cache.load_counters().failures.add();
        }
        seat.land(landed);
    }

    async fn load<T, E, L, F>(&self, loader: L) -> Landed
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
        E: fmt::Display + Send + Sync + 'static,
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        // The flight before this one may have landed after this one's caller had looked.
        if self.is_here()
            && let Some((landing, _)) = self.arrived::<T>()
        {
            return Ok(Landing { source: Source::Cache, ..landing });
        }
        if let Some(landing) = self.ask_region::<T>().await {
            return Ok(landing);
        }
        // Dropped on the way out of a load that failed, it lets the next one load.
        let lease = match self.take_turn::<T>().await? {
            Turn::Load(lease) => lease,
            Turn::Land(landing) => return Ok(landing),
        };
        let cache = self.cache.upgrade().ok_or(Failure::Ended)?;
        cache.load_counters().loads.add();
        let since = cache.store().tick();
        drop(cache);
        let value = self.run(loader).await?;
        let cache = self.cache.upgrade().ok_or(Failure::Ended)?;
        let (value, stamp) = cache.publish(&self.key, &self.options, value, since);
        if let (Some(lease), Some(stamp)) = (lease, stamp) {
            lease.loaded(stamp);
        }
        Ok(Landing { value, source: Source::Loader })
    }

    /// Runs the loader in a task of its own, which catches its panic, to its time limit.
    async fn run<T, E, L, F>(&self, loader: L) -> Result<T, Failure>
    where
        T: Send + 'static,
        E: fmt::Display + Send + Sync + 'static,
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let limit = self.options.time_limit;
        let loading = async move { loader().await };
        let loading = flight::within(&self.key, loading).in_current_span();
        let mut task = Aborting(tokio::spawn(loading));
        match timeout(limit, &mut task.0).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(error))) => Err(Failure::of(error)),
            Ok(Err(error)) => Err(match error.try_into_panic() {
                Ok(panic) => Failure::panicked(&*panic),
                Err(_) => Failure::Ended,
            }),
            Err(_) => Err(Failure::TimedOut { limit }),
        }
    }

    /// What the closest ready region holds, where it is to be asked. That it gives no answer is no reason not to load.
    async fn ask_region<T>(&self) -> Option<Landing>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        let cache = self.cache.upgrade()?;
        let asks = match self.options.ask {
            AskRegion::WhileWarming => !cache.is_ready(),
            AskRegion::Always => true,
            AskRegion::Never => false,
        };
        if !asks || cache.replication().is_none() {
            return None;
        }
        if let Err(error) = cache.fetch_full(vec![self.key.clone()], self.options.region_limit).await {
            tracing::debug!(%error, "the closest region gave no answer; the loader runs");
        }
        let found = cache.find::<T>(&self.key).ok().flatten();
        let found = found.filter(|found| !self.options.is_stale(found.left))?;
        cache.load_counters().from_regions.add();
        Some(Landing { value: found.value, source: Source::Region })
    }
}

/// Ends its task when dropped.
struct Aborting<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Aborting<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl GeoCache {
    pub(super) fn load_counters(&self) -> &LoadCounters {
        self.flights().counters()
    }
}
