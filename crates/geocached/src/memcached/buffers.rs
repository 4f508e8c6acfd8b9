//! The memory that requests in the making may take, over all connections of a server.
//!
//! A value is in a connection's read buffer until its last byte is there, and a client may never send it. What a buffer
//! has beyond [`FREE_BYTES`] is therefore claimed from a budget that all connections share, as the buffer grows: a
//! length that was merely announced claims nothing. Claiming the whole announced length at once was rejected: clients
//! could then spend the budget without sending a byte.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::session::Shared;

/// What each connection's read buffer may take without a claim.
pub(super) const FREE_BYTES: usize = 64 * 1024;

/// How much of the budget is claimed.
#[derive(Debug, Default)]
pub(super) struct Claimed(AtomicU64);

impl Claimed {
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One connection's part of the budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Claim {
    /// A claim on nothing yet.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, bytes: 0 }
    }

    /// Whether more than the free bytes are held.
    pub(super) fn is_held(&self) -> bool {
        self.bytes > 0
    }

    /// Claims for a buffer of `capacity`, more or less than before; false, and nothing changed, if the budget does not
    /// allow it.
    pub(super) fn cover(&mut self, capacity: usize) -> bool {
        let wanted = capacity.saturating_sub(FREE_BYTES) as u64;
        let claimed = &self.shared.claimed.0;
        if wanted <= self.bytes {
            claimed.fetch_sub(self.bytes - wanted, Ordering::Relaxed);
        } else {
            let most = self.shared.options.request_bytes_max;
            let more = |now: u64| now.checked_add(wanted - self.bytes).filter(|&then| then <= most);
            if claimed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
                return false;
            }
        }
        self.bytes = wanted;
        true
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.claimed.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
