//! Which entry goes when room is needed: a value, chosen at build time.

/// How a cache chooses what to evict; given to [`Builder::policy`](crate::Builder::policy).
///
/// ```
/// use cache_core::{Cache, Policy};
///
/// let cache = Cache::builder().capacity(1_000).policy(Policy::TinyLfu).build()?;
/// cache.insert("k", 1);
/// # Ok::<(), cache_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Policy {
    /// The least recently used entry goes, with a second chance for those used since they were last looked at: the default.
    ///
    /// The cheapest per operation, and the better one where what was used last is what is used next.
    #[default]
    Lru,
    /// New entries pass through a small window, and stay only if they are asked for more often than what they would push out
    /// (W-TinyLFU: Einziger, Friedman and Manes, *TinyLFU: A Highly Efficient Cache Admission Policy*, 2017).
    ///
    /// Keeps what is popular through scans and one-time keys. How often a key was used is remembered in 8 to 16 bytes per
    /// entry, and how large the window is follows the hit ratio. Costs more per operation than [`Lru`](Policy::Lru).
    TinyLfu,
}
