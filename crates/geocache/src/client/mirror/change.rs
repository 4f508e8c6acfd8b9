//! Changes: judged and made by the side that leads, then copied to all others, in the order of each key.
//!
//! A change runs in a task of its own, so that a caller who goes away leaves nothing half done, and holds its key's lock from its route
//! to its answer. What may have been done by a side that failed is made undone elsewhere: no other place keeps the older value.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use resilience::{Missed, OtherSide, WriteRoute};

use super::{
    books::{Known, Owed, index},
    parcel::Parcel,
    shared::{Shared, now},
};
use crate::{
    client::{ClientError, EndpointError, Served},
    store::Outcome,
    write::{Expect, TimeToLive, Write},
};

/// How often a change is tried at a side that fails and leads on.
const TRIES_MAX: u32 = 4;
/// How often a change is made anew since the lead had changed meanwhile.
const MOVES_MAX: u32 = 6;

/// What is to be done to a key.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// With a place it is made there or not at all: what is expected was seen there.
    Put {
        write: Write,
        expect: Expect,
        at: Option<usize>,
    },
    Remove {
        expect: Expect,
        at: Option<usize>,
    },
    Touch {
        ttl: TimeToLive,
    },
    /// Takes the value of another place where the leader has none.
    Fill {
        from: usize,
    },
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Outcome(Outcome),
    Touched(bool),
}

impl Change {
    /// Whether it depends on what the leader holds.
    fn judges(&self) -> bool {
        match self {
            Self::Put { write, expect, .. } => *expect != Expect::Any || write.ttl == TimeToLive::Keep,
            Self::Remove { expect, .. } => *expect != Expect::Any,
            Self::Touch { .. } => true,
            Self::Fill { .. } => false,
        }
    }

    /// Whether it may be made at another place alone.
    fn is_elsewhere(&self, leader: usize) -> bool {
        matches!(self, Self::Put { at: Some(at), .. } | Self::Remove { at: Some(at), .. } if *at != leader)
    }

    /// Whether a second try would be judged by what the first one may have done.
    fn is_conditional(&self) -> bool {
        matches!(self, Self::Put { expect, .. } | Self::Remove { expect, .. } if *expect != Expect::Any)
    }

    /// Whether the key may hold another value than before if it may have been made.
    fn alters(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Remove { .. })
    }
}

/// What has failed so far.
#[derive(Debug, Default)]
struct Failures {
    list: Vec<(geo::RegionId, String)>,
    may_be_done: bool,
    /// Whether a side that does not lead any more may hold what nobody else was told of.
    unsettled: bool,
    tries: u32,
    moves: u32,
}

impl Failures {
    fn error(self) -> ClientError {
        ClientError::Unavailable { failures: self.list, retry_after: None, may_be_done: self.may_be_done }
    }

    /// Whether another try is too many.
    fn are_enough(&self) -> bool {
        self.tries >= TRIES_MAX || self.moves >= MOVES_MAX
    }

    /// Counts a change of the lead; says whether it was one too many.
    fn moved(&mut self) -> bool {
        self.moves += 1;
        self.are_enough()
    }
}

impl Shared {
    /// Makes a change, to its end whether the caller waits for it or not.
    pub(super) async fn change(
        self: &Arc<Self>,
        key: Bytes,
        change: Change,
    ) -> Result<Served<Answer>, ClientError> {
        let permit = Arc::clone(&self.changes).acquire_owned().await.map_err(|_| ClientError::Closed)?;
        let shared = Arc::clone(self);
        let done = tokio::spawn(async move {
            let _permit = permit;
            shared.make(&key, change).await
        });
        // It ends otherwise only if the runtime does, or an endpoint panics.
        done.await.unwrap_or_else(|error| Err(self.panicked(&error)))
    }

    fn panicked(&self, error: &tokio::task::JoinError) -> ClientError {
        ClientError::Unavailable {
            failures: vec![(self.places[0].region.clone(), error.to_string())],
            retry_after: None,
            may_be_done: true,
        }
    }

    async fn make(&self, key: &Bytes, change: Change) -> Result<Served<Answer>, ClientError> {
        let _lock = self.keys.lock(key).await;
        self.open()?;
        let hash = self.keys.hash(key);
        let mut failures = Failures::default();
        let mut asked = 0;
        // What a leader has taken already: another one takes it without judging it again.
        let mut accepted: Option<(Answer, Owed)> = None;
        loop {
            let route = self.act(|books, now| books.failover.route_write(now));
            let leader = index(route.side);
            asked += 1;
            let done = match &accepted {
                Some((answer, owed)) => {
                    self.bring(leader, key, owed).await.map(|()| (*answer, Some(owed.clone())))
                }
                None => self.at_leader(leader, key, &change).await,
            };
            match done {
                Ok((answer, owed)) => {
                    let settled = self.act(|books, now| {
                        books.failover.succeeded(route.side, route.fence, now);
                        books.failover.holds(route.fence)
                    });
                    if let Some(owed) = owed {
                        accepted = Some((answer, owed.clone()));
                        if self.copy(key, hash, &owed, &route).await {
                            return Ok(self.served(answer, leader, asked));
                        }
                    } else if settled {
                        return Ok(self.served(answer, leader, asked));
                    }
                    if accepted.is_some() {
                        (failures.may_be_done, failures.unsettled) = (true, true);
                    }
                    if failures.moved() {
                        return Err(self.give_up(key, hash, failures));
                    }
                }
                Err(error) if error.is_fault() => {
                    let doubtful = accepted.is_some() || (error.may_be_done() && change.alters());
                    failures.may_be_done |= doubtful;
                    failures.list.push((self.places[leader].region.clone(), error.to_string()));
                    let holds = self.act(|books, now| {
                        books.failover.failed(route.side, route.fence, now);
                        books.failover.holds(route.fence)
                    });
                    self.stir();
                    if doubtful {
                        failures.unsettled = !(holds && self.doubt(key, hash, &route).await);
                    }
                    (failures.tries, failures.moves) =
                        (failures.tries + u32::from(holds), failures.moves + u32::from(!holds));
                    let judged = doubtful && accepted.is_none() && change.is_conditional();
                    if judged || failures.are_enough() {
                        return Err(self.give_up(key, hash, failures));
                    }
                }
                Err(error) => {
                    let refused = ClientError::of(&self.places[leader].region, error);
                    self.give_up(key, hash, failures);
                    return Err(refused);
                }
            }
        }
    }

    /// The change has failed for good: what may be left of it counts no more.
    fn give_up(&self, key: &Bytes, hash: u64, failures: Failures) -> ClientError {
        if failures.unsettled {
            self.disown(key, hash);
        }
        failures.error()
    }

    fn served<T>(&self, value: T, place: usize, asked: u32) -> Served<T> {
        Served { asked, ..Served::new(value, self.places[place].region.clone()) }
    }

    /// Makes a change at the side that leads; with what the others are owed, if anything was changed.
    async fn at_leader(
        &self,
        leader: usize,
        key: &Bytes,
        change: &Change,
    ) -> Result<(Answer, Option<Owed>), EndpointError> {
        if change.is_elsewhere(leader) {
            return Ok((Answer::Outcome(Outcome::Exists), None));
        }
        if change.judges() {
            self.prepare(leader, key).await.map_err(unsent)?;
        }
        let place = &self.places[leader];
        let mask = self.act(|books, _| books.standings[leader].mask);
        match change {
            Change::Put { write, expect, .. } => {
                let mut life = self.life(write.ttl);
                if write.ttl == TimeToLive::Keep
                    && let Some(item) = place.get(key).await.map_err(unsent)?
                {
                    life = item.left;
                }
                let parcel = Parcel::of_write(write, life, now());
                let write = Write { ttl: life.map_or(TimeToLive::Never, TimeToLive::For), ..write.clone() };
                let outcome = place.write(key, write, unmasked(*expect, mask)).await?;
                let owed = matches!(outcome, Outcome::Done { .. }).then_some(Missed::Write(parcel));
                Ok((Answer::Outcome(masked(outcome, mask)), owed))
            }
            Change::Remove { expect, .. } => {
                let outcome = place.remove(key, unmasked(*expect, mask)).await?;
                // What the leader does not hold another place may.
                let owed = matches!(outcome, Outcome::Done { .. }) || *expect == Expect::Any;
                Ok((Answer::Outcome(masked(outcome, mask)), owed.then_some(Missed::Remove)))
            }
            Change::Touch { ttl } => {
                let ttl = self.life(*ttl).map_or(TimeToLive::Never, TimeToLive::For);
                if !place.touch(key, ttl).await? {
                    return Ok((Answer::Touched(false), None));
                }
                // The others may lack it, or have missed it: they are given the value and all.
                let item = place.get(key).await?;
                let owed = item.map_or(Missed::Remove, |item| Missed::Write(Parcel::of_item(&item, now())));
                Ok((Answer::Touched(true), Some(owed)))
            }
            Change::Fill { from } => {
                let parcel = self.take(*from, key).await?;
                let outcome = match &parcel {
                    Some(parcel) => self.fill_in(leader, key, parcel).await?,
                    None => Outcome::Missing,
                };
                let owed = parcel.filter(|_| matches!(outcome, Outcome::Done { .. })).map(Missed::Write);
                Ok((Answer::Outcome(outcome), owed))
            }
        }
    }

    /// Lets the leader hold of a key what it is to be judged by: what it has missed, nothing where what it holds may be old, and what
    /// another place has that it lacks.
    pub(super) async fn prepare(&self, leader: usize, key: &Bytes) -> Result<(), EndpointError> {
        let (stale, lacking) =
            self.act(|books, now| (books.leader_is_stale(now), books.standings[leader].lacking));
        if stale {
            return self.places[leader].remove(key, Expect::Any).await.map(drop);
        }
        self.replay(leader, key).await?;
        if !lacking || self.places[leader].get(key).await?.is_some() {
            return Ok(());
        }
        for from in self.act(|books, _| books.sources(leader)) {
            // One that fails is left out, as it is by reads.
            if let Ok(Some(parcel)) = self.take(from, key).await {
                self.fill_in(leader, key, &parcel).await?;
                return Ok(());
            }
        }
        Ok(())
    }

    /// What is right of a key by a place that does not lead: what it holds, or what its journal says it has missed. To be called with
    /// the key's lock.
    async fn take(&self, from: usize, key: &Bytes) -> Result<Option<Parcel>, EndpointError> {
        let known = |shared: &Self| {
            shared.act(
                |books, _| {
                    if books.standings[from].stale { Known::Unknown } else { books.known(from, key) }
                },
            )
        };
        match known(self) {
            Known::Missed(Missed::Write(parcel)) => return Ok(Some(parcel)),
            Known::Missed(Missed::Remove) | Known::Unknown => return Ok(None),
            Known::Nothing => {}
        }
        let item = self.places[from].get(key).await?;
        // That it may be old may have been found out meanwhile.
        let item = item.filter(|_| matches!(known(self), Known::Nothing));
        Ok(item.map(|item| Parcel::of_item(&item, now())))
    }

    async fn fill_in(&self, leader: usize, key: &Bytes, parcel: &Parcel) -> Result<Outcome, EndpointError> {
        let Some(write) = parcel.write(now()) else { return Ok(Outcome::Missing) };
        let outcome = self.places[leader].write(key, write, Expect::Absent).await?;
        if matches!(outcome, Outcome::Done { .. }) {
            self.act(|books, _| books.counters.filled += 1);
        }
        Ok(outcome)
    }

    /// Copies a change to all that do not lead, and notes who is owed it; false if the lead has changed meanwhile.
    async fn copy(&self, key: &Bytes, hash: u64, owed: &Owed, route: &WriteRoute) -> bool {
        let taken = self.spread(key, owed, route).await;
        let settled = self.act(|books, now| {
            books.counters.writes += 1;
            books.settle((key, hash), owed, route, &taken, now)
        });
        self.stir_if_owed(&taken, route);
        settled
    }

    /// Nobody knows whether the leader has made a change: the key is removed elsewhere; false if the lead has changed meanwhile.
    async fn doubt(&self, key: &Bytes, hash: u64, route: &WriteRoute) -> bool {
        let taken = self.spread(key, &Missed::Remove, route).await;
        let settled = self.act(|books, now| books.settle_doubt((key, hash), route, &taken, now));
        self.stir_if_owed(&taken, route);
        settled
    }

    /// A change was given up while the lead went from one side to the other: nobody's value of the key counts any more.
    fn disown(&self, key: &Bytes, hash: u64) {
        self.act(|books, now| {
            let route = books.failover.route_write(now);
            let nobody = vec![false; books.standings.len()];
            books.settle_doubt((key, hash), &route, &nobody, now);
        });
        self.stir();
    }

    /// Brings a change to all that do not lead and may take it, at once; says who took it.
    async fn spread(&self, key: &Bytes, owed: &Owed, route: &WriteRoute) -> Vec<bool> {
        let leader = index(route.side);
        let journaled = (route.other == OtherSide::Journal).then(|| index(route.side.other()));
        join_all((0..self.places.len()).map(|place| async move {
            if place == leader || Some(place) == journaled {
                return place == leader;
            }
            let Ok(permit) = self.places[place].breaker.try_acquire() else { return false };
            match self.bring(place, key, owed).await {
                Ok(()) => permit.success(),
                Err(error) => {
                    tracing::debug!(region = %self.places[place].region, %error, "a copy has failed");
                    permit.failure();
                    return false;
                }
            }
            true
        }))
        .await
    }

    fn stir_if_owed(&self, taken: &[bool], route: &WriteRoute) {
        let is_owed = |(place, taken): (usize, &bool)| place != index(route.side) && !taken;
        if taken.iter().enumerate().any(is_owed) {
            self.stir();
        }
    }

    /// Forgets every key, everywhere.
    pub(super) async fn clear_all(self: &Arc<Self>) -> Result<Served<()>, ClientError> {
        let permit = Arc::clone(&self.changes).acquire_owned().await.map_err(|_| ClientError::Closed)?;
        let shared = Arc::clone(self);
        let done = tokio::spawn(async move {
            let _permit = permit;
            shared.make_clear().await
        });
        done.await.unwrap_or_else(|error| Err(self.panicked(&error)))
    }

    async fn make_clear(&self) -> Result<Served<()>, ClientError> {
        let _lock = self.keys.lock_all().await;
        self.open()?;
        let mut failures = Failures::default();
        loop {
            let route = self.act(|books, now| books.failover.route_write(now));
            let leader = index(route.side);
            match self.places[leader].clear().await {
                Ok(()) => {
                    let taken = self.spread_clear(&route).await;
                    let settled = self.act(|books, now| {
                        books.failover.succeeded(route.side, route.fence, now);
                        books.settle_clear(&route, &taken, now)
                    });
                    self.stir();
                    if settled {
                        return Ok(self.served((), leader, failures.tries + failures.moves + 1));
                    }
                    if failures.moved() {
                        return Err(failures.error());
                    }
                }
                Err(error) if error.is_fault() => {
                    failures.may_be_done |= error.may_be_done();
                    failures.list.push((self.places[leader].region.clone(), error.to_string()));
                    let holds = self.act(|books, now| {
                        books.failover.failed(route.side, route.fence, now);
                        books.failover.holds(route.fence)
                    });
                    if holds && error.may_be_done() {
                        let taken = self.spread_clear(&route).await;
                        self.act(|books, now| books.settle_clear(&route, &taken, now));
                    }
                    self.stir();
                    failures.tries += u32::from(holds);
                    failures.moves += u32::from(!holds);
                    if failures.are_enough() {
                        return Err(failures.error());
                    }
                }
                Err(error) => return Err(ClientError::of(&self.places[leader].region, error)),
            }
        }
    }

    /// Forgets every key at one place, as its operator asks; to its end whether the operator waits for it or not.
    pub(super) async fn empty(self: &Arc<Self>, place: usize) -> Result<(), ClientError> {
        let permit = Arc::clone(&self.changes).acquire_owned().await.map_err(|_| ClientError::Closed)?;
        let shared = Arc::clone(self);
        let done = tokio::spawn(async move {
            let _permit = permit;
            shared.make_empty(place).await
        });
        done.await.unwrap_or_else(|error| Err(self.panicked(&error)))
    }

    async fn make_empty(&self, place: usize) -> Result<(), ClientError> {
        let _lock = self.keys.lock_all().await;
        self.open()?;
        let to = &self.places[place];
        match to.clear().await {
            Ok(()) => {
                self.act(|books, now| books.emptied(place, now));
                self.stir();
                Ok(())
            }
            Err(error) if error.is_fault() => {
                let may_be_done = error.may_be_done();
                let failures = vec![(to.region.clone(), error.to_string())];
                Err(ClientError::Unavailable { failures, retry_after: None, may_be_done })
            }
            Err(error) => Err(ClientError::of(&to.region, error)),
        }
    }

    async fn spread_clear(&self, route: &WriteRoute) -> Vec<bool> {
        let leader = index(route.side);
        let journaled = (route.other == OtherSide::Journal).then(|| index(route.side.other()));
        join_all((0..self.places.len()).map(|place| async move {
            if place == leader || Some(place) == journaled {
                return place == leader;
            }
            let Ok(permit) = self.places[place].breaker.try_acquire() else { return false };
            let cleared = self.places[place].clear().await.is_ok();
            if cleared {
                permit.success();
            } else {
                permit.failure();
            }
            cleared
        }))
        .await
    }
}

/// A failure before the change itself was sent, of what it is to be judged by: nothing is in doubt.
fn unsent(error: EndpointError) -> EndpointError {
    match error {
        EndpointError::Unreachable { address, reason, .. } => {
            EndpointError::Unreachable { address, reason, may_be_done: false }
        }
        other => other,
    }
}

/// A server's compare-and-set numbers mean nothing at another, nor in another of its lives: each is told in terms of its own.
pub(super) const fn masked(outcome: Outcome, mask: u64) -> Outcome {
    match outcome {
        Outcome::Done { cas } if cas != 0 => Outcome::Done { cas: cas ^ mask },
        other => other,
    }
}

const fn unmasked(expect: Expect, mask: u64) -> Expect {
    match expect {
        Expect::Cas(cas) => Expect::Cas(cas ^ mask),
        other => other,
    }
}
