//! The engine for regions whose nodes replicate by themselves: each call goes to the closest healthy region.
//!
//! **Order.** A [`geo::Router`] plans each call: the closest healthy region first, by distance until round trips are measured; drained
//! ones last. Behind the plan come the regions that look unhealthy, for one whose breaker lets a call pass again. Unless
//! [told otherwise](super::ClientBuilder::balance), every call begins with the same region as long as it is the closest: so a client
//! reads what it wrote, although a write takes a while to arrive elsewhere.
//!
//! **Who is asked.** Each region stands behind a breaker of its own (three failures in a row, or half of the latest hundred) and a
//! bound of calls in flight. One that is refused by either costs no time: the next is asked. Falling back after a failure is paid
//! for by a budget, a share of the calls of the last ten seconds and a reserve, so that many regions that fail under load do
//! not get each other's load on top. If none answers, one call at a time tries the best of those whose breakers are open all the same, since the
//! fault may be on this side, or over; the others are refused at once, with when to come again.
//!
//! **Time.** A call has a limit, each region in it a share of what is left and a limit of its own, so one that hangs leaves time
//! for those behind it. A call never takes longer than its limit.
//!
//! **Writes** go to one place, and replication carries them on. One that failed, or was not answered in time, may have been done; it is
//! written again at the next region, where it is the newer one: last writer wins. (Unless the first does it later still: a server that
//! stands still finds what it was sent when it goes on, and its stamp is of then. Nobody can take a request back.) A *conditional* write that may have been done is not
//! made again, since its condition would be judged of a value that may be its own: the error says so. Conditions are judged at a region
//! that is not in doubt, if there is one.
//!
//! **Probes.** A task asks every region how it is, now and then, until the last handle is gone. So round trips are known of regions
//! that nobody calls, one that dies is out before a call finds it, and one that is back is used again without a call having been
//! the guinea pig. A probe also says whether what the region serves is in [doubt](super::Doubt), as of the latest probe.
//!
//! [`resilience::Fallback`] was not used: its chain is fixed when it is built, its breakers are its own, and it asks one link at
//! a time; here the order is another for each call, the router has to hear of each call's end, and a second region may be asked while the
//! first is slow. What it does right is done likewise: shares of the time, no blame without time, errors that are the caller's.
//!
//! Invariants: at most one breaker's permit and one place in flight for each question under way, given back when its future ends or is
//! dropped; no lock is held over an await; every wait ends by the call's deadline.

mod event;
pub(super) mod hedge;
mod last_resort;
pub(super) mod region;
mod status;
mod trip;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use geo::{Prober, RegionId, Router};
use resilience::{Deadline, RetryBudget};
use tokio::task::AbortHandle;

pub use event::{RouteEvent, RouteEvents};
pub use hedge::Hedge;
pub use status::{RegionRoute, RouteStats, RouteStatus};

use self::{
    event::Bell,
    hedge::Hedging,
    last_resort::Gate,
    region::Region,
    status::Counts,
    trip::{Terms, Trip},
};
use super::{ClientError, Doubt, Served, engine::Engine};
use crate::{
    error::Error,
    read::Item,
    store::Outcome,
    write::{Expect, TimeToLive, Write},
};

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) call: Duration,
    pub(super) attempt: Duration,
    pub(super) probe: Duration,
}

/// How reads treat doubt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doubts {
    pub(super) miss_asks_next: bool,
    pub(super) require_fresh: bool,
}

/// The regions, and all that calls to them share.
#[derive(Debug)]
pub(super) struct Table {
    router: Router,
    regions: Vec<Region>,
    by_name: HashMap<RegionId, usize>,
    limits: Limits,
    doubts: Doubts,
    budget: RetryBudget,
    hedging: Option<Hedging>,
    last_resort: Gate,
    counts: Counts,
    bell: Bell,
    closed: AtomicBool,
}

impl Table {
    pub(super) fn new(
        router: Router,
        regions: Vec<Region>,
        limits: Limits,
        doubts: Doubts,
        budget: RetryBudget,
        hedging: Option<Hedging>,
    ) -> Self {
        let by_name = regions.iter().enumerate().map(|(at, region)| (region.id.clone(), at)).collect();
        Self {
            router,
            regions,
            by_name,
            limits,
            doubts,
            budget,
            hedging,
            last_resort: Gate::default(),
            counts: Counts::default(),
            bell: Bell::default(),
            closed: AtomicBool::new(false),
        }
    }

    fn region(&self, id: &RegionId) -> Option<&Region> {
        self.by_name.get(id).map(|at| &self.regions[*at])
    }

    fn known(&self, id: &RegionId) -> Result<&Region, ClientError> {
        self.region(id).ok_or_else(|| {
            let known = self.regions.iter().map(|region| region.id.clone()).collect();
            Error::UnknownRegion { region: id.to_string(), known }.into()
        })
    }

    /// Counts a call, and says by when it must have ended.
    fn begin(&self) -> Result<Deadline, ClientError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(ClientError::Closed);
        }
        let now = now();
        self.counts.calls.add();
        self.budget.first_attempt_at(now);
        Ok(Deadline::after_at(now, self.limits.call))
    }

    /// Whether a miss of this region says too little.
    fn doubts_miss(&self, doubt: Option<Doubt>) -> bool {
        self.doubts.miss_asks_next && doubt == Some(Doubt::Warming) && self.regions.len() > 1
    }

    fn reads(&self) -> Terms<'static> {
        Terms {
            changes: false,
            repeatable: true,
            fresh_first: self.doubts.require_fresh,
            hedged: true,
            only: None,
            without: None,
            asked: 0,
        }
    }

    /// What was missed at one region is asked for at another, one that is not in doubt if there is any.
    fn reads_again<'a, T>(&self, first: &'a Served<T>) -> Terms<'a> {
        Terms { fresh_first: true, without: Some(&first.region), asked: first.asked, ..self.reads() }
    }
}

/// The terms of a change.
fn changes(expect: Expect, only: Option<&RegionId>) -> Terms<'_> {
    let repeatable = expect == Expect::Any;
    Terms {
        changes: true,
        repeatable,
        fresh_first: !repeatable,
        hedged: false,
        only,
        without: None,
        asked: 0,
    }
}

/// How the regions of a client stand that sends calls to the closest one; from [`GeoClient::routes`](super::GeoClient::routes). A cheap
/// handle, which does not keep the client's task alive.
#[derive(Debug, Clone)]
pub struct Routes {
    table: Arc<Table>,
}

impl Routes {
    /// What happens from now on: regions that go and come, another first choice, doubt.
    pub fn watch(&self) -> RouteEvents {
        self.table.bell.watch()
    }

    /// Says whether a region is drained: asked only if no other answers, as before its maintenance.
    ///
    /// # Errors
    /// [`Error::UnknownRegion`] within [`ClientError::Input`].
    pub fn drain(&self, region: impl AsRef<str>, drained: bool) -> Result<(), ClientError> {
        let name = region.as_ref();
        let known = || self.table.regions.iter().map(|region| region.id.clone()).collect();
        let region = self.table.regions.iter().find(|region| region.id.as_str() == name);
        let region =
            region.ok_or_else(|| Error::UnknownRegion { region: name.to_owned(), known: known() })?;
        // The router knows each region.
        let _ = self.table.router.drain(&region.id, drained, now());
        self.table.bell.tell(RouteEvent::Drained { region: region.id.clone(), drained });
        Ok(())
    }
}

/// The engine: the table, and the task that probes.
pub(super) struct Routed {
    routes: Routes,
    task: AbortHandle,
}

impl Routed {
    /// Begins to probe; to be called within a tokio runtime.
    pub(super) fn start(table: Table, prober: Prober) -> Self {
        let routes = Routes { table: Arc::new(table) };
        let task = tokio::spawn(tend(Arc::clone(&routes.table), prober)).abort_handle();
        Self { routes, task }
    }

    fn table(&self) -> &Table {
        &self.routes.table
    }

    /// The value of a key; one that a warming region misses is asked for at another.
    async fn read(&self, key: &[u8], terms: Terms<'_>) -> Result<Served<Option<Item>>, ClientError> {
        let table = self.table();
        let deadline = table.begin()?;
        let first = Trip::new(table, terms, deadline)?.run(|endpoint| endpoint.get(key)).await?;
        if first.value.is_some() || !table.doubts_miss(first.doubt) {
            return Ok(first);
        }
        table.counts.misses_asked_on.add();
        let second = Trip::new(table, table.reads_again(&first), deadline)?;
        Ok(second.run(|endpoint| endpoint.get(key)).await.unwrap_or(first))
    }
}

impl Drop for Routed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Routed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routed").field("regions", &self.table().regions).finish_non_exhaustive()
    }
}

/// Probes the regions, and tells of another first choice, until it is dropped.
async fn tend(table: Arc<Table>, prober: Prober) {
    let mut watch = table.router.watch(now());
    let mut first = watch.status().first.clone();
    let tell = async {
        while let Some(status) = watch.changed().await {
            if status.first != first {
                first = status.first.clone();
                table.bell.tell(RouteEvent::First { region: first.clone() });
            }
        }
    };
    let probe = prober.run(|region: RegionId| {
        let table = Arc::clone(&table);
        async move {
            let Some(region) = table.region(&region) else { return Ok(()) };
            let outcome = region.probe(table.limits.probe, &table.router, &table.bell).await;
            // The order is looked at even while nobody calls.
            drop(table.router.plan(now()));
            outcome
        }
    });
    tokio::join!(tell, probe);
}

#[async_trait]
impl Engine for Routed {
    async fn get(&self, key: &[u8]) -> Result<Served<Option<Item>>, ClientError> {
        self.read(key, self.table().reads()).await
    }

    /// A change that rests on what is read here is a conditional one.
    async fn get_leading(&self, key: &[u8]) -> Result<Served<Option<Item>>, ClientError> {
        self.read(key, Terms { fresh_first: true, ..self.table().reads() }).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Served<Option<Item>>>, ClientError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let table = self.table();
        let deadline = table.begin()?;
        let mut first =
            Trip::new(table, table.reads(), deadline)?.run(|endpoint| endpoint.get_many(keys)).await?;
        let items = std::mem::take(&mut first.value);
        let each =
            |value| Served { value, region: first.region.clone(), doubt: first.doubt, asked: first.asked };
        let mut served: Vec<_> = items.into_iter().map(each).collect();
        let missing: Vec<usize> =
            served.iter().enumerate().filter(|(_, one)| one.value.is_none()).map(|(at, _)| at).collect();
        if missing.is_empty() || !table.doubts_miss(first.doubt) {
            return Ok(served);
        }
        table.counts.misses_asked_on.add();
        let rest: Vec<Bytes> = missing.iter().filter_map(|at| keys.get(*at).cloned()).collect();
        let second = Trip::new(table, table.reads_again(&first), deadline)?;
        if let Ok(second) = second.run(|endpoint| endpoint.get_many(&rest)).await {
            for (at, value) in missing.into_iter().zip(second.value) {
                let (region, doubt, asked) = (second.region.clone(), second.doubt, second.asked);
                served[at] = Served { value, region, doubt, asked };
            }
        }
        Ok(served)
    }

    async fn write(
        &self,
        key: &[u8],
        write: Write,
        expect: Expect,
        at: Option<&RegionId>,
    ) -> Result<Served<Outcome>, ClientError> {
        let deadline = self.table().begin()?;
        let trip = Trip::new(self.table(), changes(expect, at), deadline)?;
        trip.run(|endpoint| endpoint.write(key, write.clone(), expect)).await
    }

    async fn remove(
        &self,
        key: &[u8],
        expect: Expect,
        at: Option<&RegionId>,
    ) -> Result<Served<Outcome>, ClientError> {
        let deadline = self.table().begin()?;
        let trip = Trip::new(self.table(), changes(expect, at), deadline)?;
        trip.run(|endpoint| endpoint.remove(key, expect)).await
    }

    async fn touch(&self, key: &[u8], ttl: TimeToLive) -> Result<Served<bool>, ClientError> {
        let deadline = self.table().begin()?;
        let trip = Trip::new(self.table(), changes(Expect::Any, None), deadline)?;
        trip.run(|endpoint| endpoint.touch(key, ttl)).await
    }

    async fn clear(&self) -> Result<Served<()>, ClientError> {
        let deadline = self.table().begin()?;
        let trip = Trip::new(self.table(), changes(Expect::Any, None), deadline)?;
        trip.run(|endpoint| endpoint.clear()).await
    }

    fn routes(&self) -> Option<&Routes> {
        Some(&self.routes)
    }

    /// Waits for the calls that are under way; it owes nobody anything else.
    async fn close(&self, deadline: Duration) {
        self.table().closed.store(true, Ordering::Release);
        self.task.abort();
        let idle = async {
            for region in &self.table().regions {
                region.idle().await;
            }
        };
        // Calls that are not done by the deadline end by their own.
        let _ = tokio::time::timeout(deadline, idle).await;
    }
}

/// The time by tokio's clock, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
