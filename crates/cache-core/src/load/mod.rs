//! Reading through: a value that is not there is loaded, once for all who ask.
//!
//! **One flight per key.** The first caller that misses leads: its loader runs, with no lock held, on its own thread or in its
//! own task. Whoever asks for the key meanwhile waits, threads and tasks alike, and gets a clone of what was loaded. There are
//! never more flights than callers inside these operations, and nothing is spawned.
//!
//! **Nobody is wedged.** When a loader fails, panics or is cancelled (its future dropped), its own caller alone hears of it. One
//! of those that wait becomes the leader and runs *its own* loader, and so on: they try one at a time, each at most once, and no
//! error is kept. A caller that is cancelled while it waits leaves no trace.
//!
//! **Nothing stale is published.** A write or an invalidation of the key *overtakes* the load under way: `insert`, `remove` (also
//! of a key that is not there), `clear`, an upsert that replaces or removes, and both kinds of `retain`, which overtake the loads
//! of all keys in their range, since they cannot be shown what is not there yet. An overtaken load leaves the cache as it is. Its
//! callers, who asked before that write ended, get the value that was written if one is live when the loader ends, and what was
//! loaded otherwise. Whoever asks *after* the write has nothing to do with that load: such a caller finds the written value, or
//! begins a load of its own. So a key can have several loaders running, but only one that began after the key's last write.
//!
//! **Circles are errors.** A loader may load other keys. One that asks for its own, directly or through loaders that wait for each
//! other (in whatever threads, tasks and caches), gets [`LoadError::Reentered`] instead of a deadlock. What cannot be seen is a
//! loader that waits by other means, as for a task that it spawned and that asks for the key.
//!
//! # Why this way
//!
//! Flights are kept in their shard, under its lock, so that joining, publishing and overtaking are atomic with the reads and
//! writes that they compete with; where nothing is being loaded, that costs a write one look at a word, and a hit nothing.
//! Rejected: a placeholder entry in the cache (it counts against the capacity, can be evicted, and makes each read tell it from a
//! value); holding a lock of the key while it loads (a loader that re-enters deadlocks, and tasks would hold it over `.await`); a
//! version per key to compare when the load ends (it has to outlive the entry); handing a loader's error to all who waited (one
//! caller's dropped future or timeout would fail the others).
//!
//! # Cost
//!
//! A hit is a [`get`](Cache::get). A miss takes the shard's lock twice more and reads the operating system's clock twice, for
//! [`Stats::load_time`](crate::Stats::load_time): some 0.3 µs over a `get` and an `insert`. Only a load that somebody waits for
//! allocates.

mod error;
mod flight;
mod flights;
mod lead;
#[cfg(all(test, loom))]
mod model;
mod nesting;
#[cfg(all(test, not(loom)))]
mod tests;

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    hash::{BuildHasher, Hash},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::pin,
    task::Poll,
    thread,
};

use event_listener::Listener;

use crate::{Cache, Expiry, Sidecar};

pub use error::LoadError;
pub(crate) use flights::Flights;

use lead::{Lead, Part, Turn, Waited, Waiter};
use nesting::Running;

/// Reading through.
///
/// Each of these returns the live value under the key, as [`get`](Self::get) does and counting as it does, or else runs the
/// loader and inserts what it gave. While a loader runs, other callers of any of these six for the same key wait for it and get a
/// clone. A loader that fails, panics or is cancelled is no concern of theirs: one of them then runs its own.
///
/// A load never publishes its value over a newer write or invalidation of the key, which is: an insert, a removal (of an absent key
/// too), `clear`, an [`upsert`](Self::upsert) that replaces or removes, and a `retain` whose range has the key in it. The cache then
/// keeps to that, whoever asks after it sees nothing of the load, and those who asked before get the value written, or what was
/// loaded if there is none.
///
/// Loaders run without a lock, so they may take their time and use the cache. They may load other keys too, but not in a circle: a
/// loader that would wait for itself, directly or through loaders of other threads and tasks, is told so. (This cannot see a loader
/// that waits by other means, as for a thread that it started.)
///
/// The key is taken by value; where making one is dear and hits are many, ask [`get`](Self::get) first.
impl<K, V, S, X> Cache<K, V, S, X>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
    X: Sidecar<K, V>,
{
    /// The value under a key, loaded by the closure if it is not there, for the default lifetime.
    ///
    /// Blocks the thread while another caller loads the key: in a task, use [`get_or_insert_async`](Self::get_or_insert_async).
    ///
    /// # Panics
    ///
    /// If the loader panics, and if it asks for the key that it loads (see [`LoadError::Reentered`]), which would deadlock.
    ///
    /// ```
    /// let cache = cache_core::Cache::builder().capacity(10).build()?;
    /// assert_eq!(cache.get_or_insert_with("answer", || 6 * 7), 42);
    /// assert_eq!(cache.get_or_insert_with("answer", || unreachable!("it is there")), 42);
    /// assert_eq!((cache.stats().loads, cache.stats().hits), (1, 1));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    #[inline]
    #[track_caller]
    pub fn get_or_insert_with(&self, key: K, loader: impl FnOnce() -> V) -> V {
        infallible(self.try_get_or_insert_with(key, || Ok(loader())))
    }

    /// [`get_or_insert_with`](Self::get_or_insert_with) for a loader that can fail. Its error is not kept: the next caller tries
    /// again.
    ///
    /// # Errors
    ///
    /// What this caller's own loader failed with, or that it asked for the key that it loads.
    ///
    /// ```
    /// use cache_core::LoadError;
    ///
    /// let cache = cache_core::Cache::<_, u16>::builder().capacity(10).build()?;
    /// let parse = |text: &str| cache.try_get_or_insert_with("port", || text.parse());
    /// assert!(matches!(parse("eighty"), Err(LoadError::Failed(_))));
    /// assert_eq!(parse("80"), Ok(80));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    #[inline]
    pub fn try_get_or_insert_with<E>(
        &self,
        key: K,
        loader: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, LoadError<E>> {
        self.try_get_or_insert_with_expiry(key, || loader().map(|value| (value, Expiry::Default)))
    }

    /// [`try_get_or_insert_with`](Self::try_get_or_insert_with), the loader saying how long its value lives.
    ///
    /// The lifetime begins when the value is inserted. There is no older deadline, so [`Expiry::Keep`] is the default lifetime
    /// here.
    ///
    /// # Errors
    ///
    /// What this caller's own loader failed with, or that it asked for the key that it loads.
    ///
    /// ```
    /// use std::{convert::Infallible, time::Duration};
    /// use cache_core::{Cache, Expiry, ManualClock};
    ///
    /// let clock = ManualClock::new();
    /// let cache = Cache::builder().capacity(10).clock(clock.clone()).build()?;
    /// let minute = Expiry::After(Duration::from_secs(60));
    /// assert_eq!(cache.try_get_or_insert_with_expiry("token", || Ok::<_, Infallible>((1, minute))), Ok(1));
    /// clock.advance(Duration::from_secs(60));
    /// assert_eq!(cache.try_get_or_insert_with_expiry("token", || Ok::<_, Infallible>((2, minute))), Ok(2));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// ```
    #[inline]
    pub fn try_get_or_insert_with_expiry<E>(
        &self,
        key: K,
        loader: impl FnOnce() -> Result<(V, Expiry), E>,
    ) -> Result<V, LoadError<E>> {
        match self.get(&key) {
            Some(value) => Ok(value),
            None => self.load(key, loader),
        }
    }

    /// The value under a key, loaded by the future if it is not there, for the default lifetime. Needs no runtime in particular.
    ///
    /// The future is not polled if the value is there, nor while another caller loads it.
    ///
    /// # Cancel safety
    ///
    /// Dropping this future drops the loader; one of the callers that wait then runs its own. But a future that is kept without
    /// being polled holds the others up, as a loader that takes long does.
    ///
    /// # Panics
    ///
    /// If the loader panics, and if it asks for the key that it loads (see [`LoadError::Reentered`]), which would never end.
    ///
    /// ```
    /// # futures_lite::future::block_on(async {
    /// let cache = cache_core::Cache::builder().capacity(10).build()?;
    /// assert_eq!(cache.get_or_insert_async("answer", async { 6 * 7 }).await, 42);
    /// assert_eq!(cache.get("answer"), Some(42));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// # }).unwrap();
    /// ```
    pub async fn get_or_insert_async(&self, key: K, loader: impl Future<Output = V>) -> V {
        infallible(self.try_get_or_insert_async(key, async { Ok(loader.await) }).await)
    }

    /// [`get_or_insert_async`](Self::get_or_insert_async) for a loader that can fail. Its error is not kept: the next caller
    /// tries again.
    ///
    /// # Errors
    ///
    /// What this caller's own loader failed with, or that it asked for the key that it loads.
    ///
    /// # Cancel safety
    ///
    /// As [`get_or_insert_async`](Self::get_or_insert_async).
    ///
    /// ```
    /// # futures_lite::future::block_on(async {
    /// use cache_core::LoadError;
    ///
    /// let cache = cache_core::Cache::builder().capacity(10).build()?;
    /// let failed = cache.try_get_or_insert_async("k", async { Err("no route") }).await;
    /// assert_eq!(failed, Err(LoadError::Failed("no route")));
    /// assert_eq!(cache.try_get_or_insert_async("k", async { Ok::<_, &str>(1) }).await, Ok(1));
    /// # Ok::<(), cache_core::ConfigError>(())
    /// # }).unwrap();
    /// ```
    pub async fn try_get_or_insert_async<E>(
        &self,
        key: K,
        loader: impl Future<Output = Result<V, E>>,
    ) -> Result<V, LoadError<E>> {
        let loader = async { loader.await.map(|value| (value, Expiry::Default)) };
        self.try_get_or_insert_async_with_expiry(key, loader).await
    }

    /// [`try_get_or_insert_async`](Self::try_get_or_insert_async), the loader saying how long its value lives.
    ///
    /// The lifetime begins when the value is inserted. There is no older deadline, so [`Expiry::Keep`] is the default lifetime
    /// here.
    ///
    /// # Errors
    ///
    /// What this caller's own loader failed with, or that it asked for the key that it loads.
    ///
    /// # Cancel safety
    ///
    /// As [`get_or_insert_async`](Self::get_or_insert_async).
    ///
    /// ```
    /// # futures_lite::future::block_on(async {
    /// use std::{convert::Infallible, time::Duration};
    /// use cache_core::{Cache, Expiry};
    ///
    /// let cache = Cache::builder().capacity(10).build()?;
    /// let minute = Expiry::After(Duration::from_secs(60));
    /// let loader = async { Ok::<_, Infallible>(("token", minute)) };
    /// assert_eq!(cache.try_get_or_insert_async_with_expiry(7, loader).await, Ok("token"));
    /// assert!(cache.read(&7, |_, left| left.is_some()).unwrap());
    /// # Ok::<(), cache_core::ConfigError>(())
    /// # }).unwrap();
    /// ```
    pub async fn try_get_or_insert_async_with_expiry<E>(
        &self,
        key: K,
        loader: impl Future<Output = Result<(V, Expiry), E>>,
    ) -> Result<V, LoadError<E>> {
        if let Some(value) = self.get(&key) {
            return Ok(value);
        }
        let mut key = Some(key);
        #[expect(
            clippy::needless_late_init,
            reason = "declared before the loader, it is dropped after it: the next leader begins when this loader is gone"
        )]
        let lead;
        let mut loader = pin!(loader);
        lead = loop {
            match self.part(&mut key) {
                Part::Present(value) => return Ok(value),
                Part::Reentered => return Err(LoadError::Reentered),
                Part::Lead(lead) => break lead,
                Part::Wait(waiter) => match wait_async(waiter).await {
                    Waited::Value(value) => return Ok(value),
                    Waited::Lead(lead) => break lead,
                    Waited::Again => {}
                },
            }
        };
        let poll = poll_fn(|context| {
            let _running = Running::enter(lead.id);
            match catch_unwind(AssertUnwindSafe(|| loader.as_mut().poll(context))) {
                Ok(polled) => polled.map(Ok),
                Err(panic) => Poll::Ready(Err(panic)),
            }
        });
        let loaded = poll.await;
        finish(lead, loaded)
    }

    #[cold]
    fn load<E>(&self, key: K, loader: impl FnOnce() -> Result<(V, Expiry), E>) -> Result<V, LoadError<E>> {
        let mut key = Some(key);
        let lead = loop {
            match self.part(&mut key) {
                Part::Present(value) => return Ok(value),
                Part::Reentered => return Err(LoadError::Reentered),
                Part::Lead(lead) => break lead,
                Part::Wait(waiter) => match wait(waiter) {
                    Waited::Value(value) => return Ok(value),
                    Waited::Lead(lead) => break lead,
                    Waited::Again => {}
                },
            }
        };
        let loaded = {
            let _running = Running::enter(lead.id);
            catch_unwind(AssertUnwindSafe(loader))
        };
        finish(lead, loaded)
    }

    fn part(&self, key: &mut Option<K>) -> Part<'_, K, V, S, X> {
        let hash = key.as_ref().map_or(0, |key| self.position(key));
        Part::take(self.inner(), hash, key)
    }
}

/// The end of a loader that ran to its end, or to a panic.
///
/// A panic goes on when the flight is handed over, not the other way round: handing over wakes others, and if one of *their* wakers
/// panicked while this one unwinds, that would end the process.
fn finish<K, V, S, X, E>(
    lead: Lead<'_, K, V, S, X>,
    loaded: thread::Result<Result<(V, Expiry), E>>,
) -> Result<V, LoadError<E>>
where
    K: Hash + Eq,
    V: Clone,
    X: Sidecar<K, V>,
{
    match loaded {
        Ok(Ok((value, expiry))) => Ok(lead.land(value, expiry)),
        Ok(Err(error)) => Err(LoadError::Failed(error)),
        Err(panic) => {
            drop(lead);
            resume_unwind(panic)
        }
    }
}

fn wait<K, V: Clone, S, X>(mut waiter: Waiter<'_, K, V, S, X>) -> Waited<'_, K, V, S, X> {
    loop {
        match waiter.turn() {
            Turn::Wait(listener) => listener.wait(),
            Turn::Over(waited) => return waited,
        }
    }
}

async fn wait_async<K, V: Clone, S, X>(mut waiter: Waiter<'_, K, V, S, X>) -> Waited<'_, K, V, S, X> {
    loop {
        match waiter.turn() {
            Turn::Wait(listener) => listener.await,
            Turn::Over(waited) => return waited,
        }
    }
}

#[track_caller]
fn infallible<V>(loaded: Result<V, LoadError<Infallible>>) -> V {
    match loaded {
        Ok(value) => value,
        Err(LoadError::Failed(never)) => match never {},
        Err(error @ LoadError::Reentered) => panic!("{error}"),
    }
}
