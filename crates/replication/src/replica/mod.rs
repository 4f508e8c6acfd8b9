//! The replica protocol: a pure core that owns no socket, task or clock.

mod barrier;
mod grave;
mod outbox;
mod store;

pub use barrier::{Barriers, NAMESPACES_MAX};
pub use grave::Guard;
pub use outbox::{OUTBOX_BYTES_MAX, Outbox, OutboxStats};
pub use store::{Merged, Store, StorePage, judge};
