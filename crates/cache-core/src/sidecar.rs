//! What hears of lost entries while their shard is still locked.

/// A companion of one shard, living under that shard's lock.
///
/// It exists for bookkeeping that may not lag behind the map by a single moment: a replicated cache, for instance, must remember
/// the version of an entry it evicts before anybody can see the key as absent. Each shard has its own, made by the closure given to
/// [`Builder::sidecar`](crate::Builder::sidecar); [`Cache::upsert`](crate::Cache::upsert), [`Cache::scan`](crate::Cache::scan) and
/// [`Cache::with_sidecar_at`](crate::Cache::with_sidecar_at) hand it out.
///
/// For everything that may happen a little later, use a listener: it runs after the lock is released.
///
/// ```
/// use cache_core::{Cache, Cause, Sidecar};
///
/// /// Remembers the positions of the entries that the cache gave up.
/// #[derive(Default)]
/// struct Lost(Vec<u64>);
///
/// impl Sidecar<&'static str, u32> for Lost {
///     fn victim(&mut self, position: u64, _: &&'static str, _: &u32, _: Cause) {
///         self.0.push(position);
///     }
/// }
///
/// let cache = Cache::builder().capacity(1).sidecar(Lost::default).build()?;
/// cache.insert("a", 1);
/// cache.insert("b", 2);
/// let a = cache.position("a");
/// assert!(cache.with_sidecar_at(a, |lost| lost.0 == [a]));
/// # Ok::<(), cache_core::ConfigError>(())
/// ```
pub trait Sidecar<K, V>: Send + 'static {
    /// Hears of an entry that the cache itself gives up, [`Evicted`](Cause::Evicted) or [`Expired`](Cause::Expired).
    ///
    /// Called from whichever thread caused it (a writer, a reader that met an expired entry, the ticker), under the shard's lock,
    /// once per entry. It must be short and must not call back into the cache. It is not called for what callers asked for
    /// (`remove`, a replaced value, `clear`).
    ///
    /// If it panics, the operation is abandoned with the cache intact and the entry still in it, until somebody meets it again. The
    /// listener hears of the victims before that one. What the operation was to write is dropped under the lock, so a key or value whose
    /// `Drop` uses the cache must not meet such a panic; and a resize leaves [`capacity`](crate::Cache::capacity) as it was, and some
    /// shards smaller, until the next one. On the ticker the panic is caught and counted ([`Stats::sweep_panics`](crate::Stats::sweep_panics)).
    fn victim(&mut self, position: u64, key: &K, value: &V, cause: Cause);
}

/// No companion: the default.
impl<K, V> Sidecar<K, V> for () {
    #[inline]
    fn victim(&mut self, _: u64, _: &K, _: &V, _: Cause) {}
}

/// Why a value left the cache.
///
/// ```
/// use std::sync::mpsc;
/// use cache_core::{Cache, Cause};
///
/// let (tell, told) = mpsc::channel();
/// let cache = Cache::builder().capacity(10).listener(move |_: &&str, _: &u32, cause| drop(tell.send(cause))).build()?;
/// cache.insert("k", 1);
/// cache.insert("k", 2);
/// cache.clear();
/// assert_eq!(told.try_iter().collect::<Vec<_>>(), [Cause::Replaced, Cause::Removed]);
/// # Ok::<(), cache_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The cache gave it up to make room, or never kept it because it is heavier than its shard's share.
    Evicted,
    /// Its lifetime ended, or was so short that it was never kept.
    Expired,
    /// A write put another value in its place.
    Replaced,
    /// A caller removed it, or cleared the cache.
    Removed,
}
