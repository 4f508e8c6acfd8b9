//! What `build()` answers when a cache cannot be made as asked.

use std::{borrow::Cow, io};

/// A cache could not be built: one field of the configuration is wrong.
///
/// The next move is the same for every field: change it. The one exception is `clock`, when the operating system
/// refused one of the clock's threads; that cause is the error's source.
///
/// ```
/// let error = cache_core::Cache::<u32, u32>::builder().capacity(0).build().unwrap_err();
/// assert_eq!(error.field, "capacity");
/// assert_eq!(error.to_string(), "capacity: 0 would keep nothing; it must be at least 1");
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{field}: {reason}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The builder's setter that the error is about, for example `capacity`.
    pub field: &'static str,
    /// What is wrong with it and what would be right.
    pub reason: Cow<'static, str>,
    #[source]
    cause: Option<io::Error>,
}

impl ConfigError {
    pub(crate) fn new(field: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        ConfigError { field, reason: reason.into(), cause: None }
    }

    pub(crate) fn no_thread(cause: io::Error) -> Self {
        ConfigError {
            field: "clock",
            reason: "a thread of its clock could not be started; free threads or use a manual clock".into(),
            cause: Some(cause),
        }
    }
}
