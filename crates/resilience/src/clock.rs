//! The clock of the forms that are not handed the time.

use std::time::Instant;

/// The time by tokio's clock, which tests can pause; it works outside a runtime as well.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
