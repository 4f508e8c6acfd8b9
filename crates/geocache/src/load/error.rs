//! What a load ends with when it gives no value.

use std::{any::Any, fmt, sync::Arc, time::Duration};

use crate::error::Error;

/// Why a read gave no value although it had a loader. `E` is the loader's own error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError<E: fmt::Display> {
    /// The loader failed. All who waited for this load get the same error; none is kept, so the next call loads again.
    #[error("the loader failed: {0}")]
    Failed(Arc<E>),
    /// The loader of another caller, with another type of error, failed: call again to run this one's.
    #[error("the loader of another caller failed: {reason}")]
    FailedElsewhere {
        /// Its error, in words.
        reason: String,
    },
    /// The loader panicked: mend it. The panic was printed.
    #[error("the loader panicked: {message}")]
    Panicked {
        /// What it said.
        message: String,
    },
    /// The loader took longer than [`LoadOptions::time_limit`](super::LoadOptions::time_limit) and was dropped: raise the limit,
    /// or look why the origin is slow.
    #[error("the loader gave nothing within {limit:?} and was dropped")]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// The load ended with its runtime or its node.
    #[error("the load ended with its runtime or its cache before it gave a value")]
    Ended,
    /// The loader asks, directly or through other loaders, for the key that it loads: load that part without the cache.
    #[error("a loader asks for a key whose load waits for that loader; it would wait for itself")]
    Circle,
    /// Too many loads are under way: call again later, or raise [`Builder::loads_max`](crate::Builder::loads_max).
    #[error("{max} loads are under way, as many as there may be; call again later")]
    Busy {
        /// The bound.
        max: usize,
    },
    /// Loads run as tasks: call from within a tokio runtime.
    #[error("a load needs a tokio runtime; call this from within one")]
    NoRuntime,
    /// The cache could not be read.
    #[error(transparent)]
    Cache(#[from] Error),
}

/// What all who wait for a load hear when it fails, whatever the types of each.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    Failed { error: Arc<dyn Any + Send + Sync>, reason: Arc<str> },
    Panicked { message: Arc<str> },
    TimedOut { limit: Duration },
    Ended,
}

impl Failure {
    pub(super) fn of<E: fmt::Display + Send + Sync + 'static>(error: E) -> Self {
        let reason = error.to_string().into();
        Self::Failed { error: Arc::new(error), reason }
    }

    /// A panic's payload, in words.
    pub(super) fn panicked(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self::Panicked { message: text.unwrap_or("(no message)").into() }
    }

    pub(super) fn told<E: fmt::Display + Send + Sync + 'static>(self) -> LoadError<E> {
        match self {
            Self::Failed { error, reason } => match error.downcast::<E>() {
                Ok(error) => LoadError::Failed(error),
                Err(_) => LoadError::FailedElsewhere { reason: reason.to_string() },
            },
            Self::Panicked { message } => LoadError::Panicked { message: message.to_string() },
            Self::TimedOut { limit } => LoadError::TimedOut { limit },
            Self::Ended => LoadError::Ended,
        }
    }
}
