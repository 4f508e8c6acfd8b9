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
//! a session does, and reads its own node; for no longer than a lease, since the holder may have died before it sent that
//! write. Then it asks again, so that the next one loads for all. A load that fails, panics, hangs past its limit or is dropped with its node
//! releases the lease without a stamp: the next in the line is granted it at once.
//!
//! **Any value ends the wait**: one that was written here meanwhile, or that came by another way than its stream, of which
//! neither the grantor nor the session tells. So whoever waits also looks, ten times a second.
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
use tokio::time::{Instant, MissedTickBehavior};

use super::{Failure, Flight, Landing, Source};

/// How often whoever waits looks whether a value came that nobody tells it of.
const LOOK: Duration = Duration::from_millis(100);

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
            let asking = client.lease(self.key.clone(), hold, seen, left());
            let granted = match self.unless_here(asking).await {
                Some(Ok(Leased::Granted(lease))) => Some(lease),
                Some(Ok(Leased::Loaded(token))) => {
                    // Whether it came is seen below; where it is lost, the next question says so.
                    self.unless_here(client.at_least(token, left().min(hold))).await;
                    seen = Some(token);
                    None
                }
                Some(Ok(_)) | None => None,
                Some(Err(error)) => {
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

    /// Waits, until a value is here that will do.
    async fn unless_here<F: Future>(&self, waiting: F) -> Option<F::Output> {
        tokio::pin!(waiting);
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                end = &mut waiting => return Some(end),
                _ = looks.tick() => if self.is_here() {
                    return None;
                }
            }
        }
    }

    /// Whether a fresh value is here that was not when the flight began; one of another type counts until it is read.
    pub(super) fn is_here(&self) -> bool {
        let Some(cache) = self.cache.upgrade() else { return false };
        let found = cache.store().peek(&self.key, |stored, left| self.is_news(stored.stamp, left));
        found.unwrap_or(false)
    }

    fn is_news(&self, stamp: Stamp, left: Option<Duration>) -> bool {
        Some(stamp) != self.old && !self.options.is_stale(left)
    }

    /// A fresh value that was not here when the flight began.
    pub(super) fn arrived<T>(&self) -> Option<(Landing, Stamp)>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        let found = self.cache.upgrade()?.find::<T>(&self.key).ok().flatten()?;
        self.is_news(found.stamp, found.left)
            .then_some((Landing { value: found.value, source: Source::Elsewhere }, found.stamp))
    }
}
