//! Why a load gave no value.

/// A value could not be loaded.
///
/// ```
/// use cache_core::{Cache, LoadError};
///
/// let cache: Cache<&str, u16> = Cache::builder().capacity(10).build()?;
/// let error = cache.try_get_or_insert_with("port", || "eighty".parse()).unwrap_err();
/// assert!(matches!(&error, LoadError::Failed(parse) if parse.to_string().contains("invalid digit")));
/// assert_eq!(error.to_string(), "the loader failed");
/// # Ok::<(), cache_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError<E> {
    /// This caller's own loader failed, with this. Nothing was kept, so the next call tries again.
    #[error("the loader failed")]
    Failed(#[source] E),
    /// The loader that made this call waits for its own end: it asked for the key that it loads, directly or by way of loaders that
    /// wait for each other. The next move is to the code: a loader may ask for other keys, but not in a circle.
    #[error(
        "a loader asked for the key that it loads, or for one whose loader waits for it; load keys in one order"
    )]
    Reentered,
}
