//! Which region loads: the others wait for its value.
//!
//! With [`LoadOptions::lease`] a flight that needs the origin asks for its turn first. The cache has one node that grants
//! the leases of a key (`replication`'s `replica/lease/` chooses it, and says what becomes of each fault); whoever is not
//! granted one waits for the value that the holder's region replicates. A lease is advice: what is written is ordered by
//! stamps as ever, and where no lease is to be had, the loader runs without one. So the worst that any fault does is one
//! more load, or a wait to a bound.
//!
//! **The order at the end.** The holder stores its value, which hands it to replication in the same critical section, and
//! releases the lease then, with the value's stamp. Whoever waits is told that stamp, waits until that write is here, as
//! a session does, and reads its own node. A load that fails, panics, hangs past its limit or is dropped with its node
//! releases the lease without a stamp: the next in the line is granted it at once.
//!
//! **A grant is no order to load.** The value may have come while the question was under way, so whoever is granted the
//! lease looks once more.
//!
//! **Refreshing ahead** asks as well, for the same reason: without it each region would load what is about to end. Nobody
//! waits for a refresh; it counts as done once another write than the one it found is here.
//!
//! **Old values** are served as without a lease: a caller that has one waits for the flight to its soft limit, whoever
//! loads.
//!
//! # Bounds
//! A flight waits for others for twice the lease's time, then loads. Twice, so that a holder that hangs is waited for, and
//! the next one after it still loads for all. What is counted: `leases_*` in [`LoadStats`](crate::LoadStats).

use std::time::Duration;

use replication::{
    Stamp,
    driver::{Lease, Leased},
    replica::HOLD_MS_MAX,
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{Failure, Flight, Landing, Source};

/// What a flight is to do.
pub(super) enum Turn {
    /// Load, with a lease where there is one.
    Load(Option<Lease>),
    /// Nothing: another region's value is here.
    Land(Landing),
}

impl Flight {
    /// Waits for this node's turn to load, or for the value of whoever had it.
    pub(super) async fn take_turn<T>(&self) -> Result<Turn, Failure>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        let cache = self.cache.upgrade().ok_or(Failure::Ended)?;
        let client = cache.replication().map(|replication| replication.client.clone());
        drop(cache);
        let (Some(hold), Some(client)) = (self.options.lease, client) else { return Ok(Turn::Load(None)) };
        let hold = hold.min(Duration::from_millis(HOLD_MS_MAX));
        let deadline = Instant::now() + 2 * hold;
        let left = || deadline.saturating_duration_since(Instant::now());
        let mut seen = None;
        loop {
            let granted = match client.lease(self.key.clone(), hold, seen, left()).await {
                Ok(Leased::Granted(lease)) => Some(lease),
                Ok(Leased::Loaded(token)) => {
                    // Whether it came is seen below; where it is lost, the next question says so.
                    let _ = client.at_least(token, left()).await;
                    seen = Some(token);
                    None
                }
                Ok(_) => None,
                Err(error) => {
                    tracing::debug!(%error, "the loader runs without a lease");
                    self.cache.upgrade().ok_or(Failure::Ended)?.load_counters().leases_given_up.add();
                    return Ok(Turn::Load(None));
                }
            };
            let cache = self.cache.upgrade().ok_or(Failure::Ended)?;
            match (self.arrived::<T>(), granted) {
                (Some((landing, stamp)), granted) => {
                    if let Some(lease) = granted {
                        lease.loaded(stamp);
                    }
                    cache.load_counters().leases_waited.add();
                    return Ok(Turn::Land(landing));
                }
                (None, Some(lease)) => {
                    cache.load_counters().leases_granted.add();
                    return Ok(Turn::Load(Some(lease)));
                }
                (None, None) => {}
            }
        }
    }

    /// A fresh value that was not here when the flight began.
    fn arrived<T>(&self) -> Option<(Landing, Stamp)>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        let found = self.cache.upgrade()?.find::<T>(&self.key).ok().flatten()?;
        let is_news = Some(found.stamp) != self.old && !self.options.is_stale(found.left);
        is_news.then_some((Landing { value: found.value, source: Source::Elsewhere }, found.stamp))
    }
}
