//! The two parts a caller can have in a load: it leads, or it waits.
//!
//! Both are guards. Dropped before its value landed, because the loader failed or panicked or its future was dropped, a leader hands
//! the flight over to one caller that waits; dropped before its end, a caller that waits is forgotten, and takes the flight with it
//! if it was the last one that could have led it.
//!
//! The shard's lock is held where a part is given or given back, never while a loader runs, and nobody is woken under it.

use std::{hash::Hash, mem, time::Instant};

use event_listener::EventListener;

use crate::{
    Expiry, Sidecar,
    departed::{Departed, Departing},
    inner::Inner,
    shard::{New, Origin, Shard},
    sync::Arc,
};

use super::{
    flight::{Flight, Sight},
    nesting::{self, Dependence, FlightId},
};

/// How a caller stands to the load of its key.
pub(crate) enum Part<'a, K, V, S, X> {
    /// None is needed.
    Present(V),
    Lead(Lead<'a, K, V, S, X>),
    Wait(Waiter<'a, K, V, S, X>),
    /// It would wait for itself.
    Reentered,
}

impl<'a, K, V, S, X> Part<'a, K, V, S, X>
where
    K: Eq,
    V: Clone,
    X: Sidecar<K, V>,
{
    /// Takes a part. The key is taken if that is to lead.
    pub(crate) fn take(inner: &'a Inner<K, V, S, X>, hash: u64, key: &mut Option<K>) -> Self {
        loop {
            let mut departed = Departing::new(inner);
            if let Some(part) = Part::take_once(inner, hash, key, &mut departed) {
                return part;
            }
            // An expired entry was in the way. It is told of before the key has a flight, which its listener may ask for.
            inner.settle(&mut departed);
        }
    }

    fn take_once(
        inner: &'a Inner<K, V, S, X>,
        hash: u64,
        key: &mut Option<K>,
        departed: &mut Departed<K, V>,
    ) -> Option<Self> {
        let now = inner.time.now();
        let mut guard = inner.lock(hash);
        let Shard { store, sidecar } = &mut *guard;
        let wanted = key.as_ref().expect("a key is taken once, by the part that leads");
        if let Some(slot) = store.live(hash, wanted, now, sidecar, departed) {
            return Some(Part::Present(store.entry(slot).value.clone()));
        }
        if departed.len() > 0 {
            return None;
        }
        if store.flights.of(hash, wanted).any(|entry| nesting::is_running(entry.id)) {
            return Some(Part::Reentered);
        }
        let joinable = store.flights.of(hash, wanted).find(|entry| !entry.overtaken);
        if let Some(entry) = joinable {
            let id = entry.id;
            let Some(depends) = Dependence::on(id) else { return Some(Part::Reentered) };
            let flight = Some(entry.join());
            store.counts.load_waits += 1;
            return Some(Part::Wait(Waiter { inner, hash, id, flight, depends: Some(depends) }));
        }
        let id = FlightId::next();
        store.flights.begin(hash, id, key.take()?);
        drop(guard);
        // Nothing depends on a flight as new as this, so it closes no circle.
        Some(Part::Lead(Lead::new(inner, hash, id, Dependence::on(id))))
    }
}

/// The caller whose loader runs.
pub(crate) struct Lead<'a, K, V, S, X> {
    inner: &'a Inner<K, V, S, X>,
    hash: u64,
    pub(crate) id: FlightId,
    began: Instant,
    ended: Ended<V>,
    _depends: Option<Dependence>,
}

/// How far a leader came.
enum Ended<V> {
    /// Its flight is in the table.
    No,
    /// It is not, and those who wait were not told.
    Untold(Option<Arc<Flight<V>>>),
}

impl<'a, K, V, S, X> Lead<'a, K, V, S, X> {
    fn new(inner: &'a Inner<K, V, S, X>, hash: u64, id: FlightId, depends: Option<Dependence>) -> Self {
        Lead { inner, hash, id, began: Instant::now(), ended: Ended::No, _depends: depends }
    }

    /// Publishes what was loaded, if nothing overtook it, and returns what the callers are to have: a value that was written
    /// meanwhile, or else what was loaded.
    pub(crate) fn land(mut self, value: V, expiry: Expiry) -> V
    where
        K: Hash + Eq,
        V: Clone,
        X: Sidecar<K, V>,
    {
        let (inner, hash, took) = (self.inner, self.hash, self.began.elapsed());
        let mut answer = value.clone();
        let mut departed = Departing::new(inner);
        // What leaves is dropped after unlocking.
        let (emptied, stale);
        {
            let now = inner.time.now();
            let mut guard = inner.lock(hash);
            let Shard { store, sidecar } = &mut *guard;
            let entry = store.flights.find(hash, self.id).expect("a led flight ends by its leader alone");
            // The weigher may panic; then the flight is still whole.
            let weight = inner.weigh(&entry.key, &value);
            let (entry, rest) = store.flights.end(hash, self.id).expect("it was found just now");
            emptied = rest;
            self.ended = Ended::Untold(entry.flight);
            store.counts.loads += 1;
            store.counts.load_time = store.counts.load_time.saturating_add(took);
            if entry.overtaken {
                store.counts.loads_overtaken += 1;
                if let Some(slot) = store.live(hash, &entry.key, now, sidecar, &mut departed) {
                    answer = store.entry(slot).value.clone();
                }
                stale = Some((entry.key, value));
            } else {
                debug_assert!(store.find(hash, &entry.key).is_none(), "what wrote the key overtook the load");
                let origin = Origin::Local;
                let (key, deadline) = (entry.key, inner.deadline(expiry, now, None, (hash, origin)));
                store.insert(New { hash, key, value, weight, deadline, origin }, now, sidecar, &mut departed);
                stale = None;
            }
        }
        self.tell(&answer);
        drop((emptied, stale));
        inner.settle(&mut departed);
        answer
    }

    fn tell(&mut self, answer: &V)
    where
        V: Clone,
    {
        if let Ended::Untold(Some(flight)) = &self.ended {
            // Nobody can join any more, so a flight that nobody else holds stays so.
            if Arc::strong_count(flight) > 1 {
                flight.land(answer.clone());
            }
        }
        self.ended = Ended::Untold(None);
    }

    /// Leaves the flight to somebody who waits, or ends it.
    fn give_up(&mut self) {
        let (hash, id, took) = (self.hash, self.id, self.began.elapsed());
        let mut guard = self.inner.lock(hash);
        let store = &mut guard.store;
        store.counts.load_failures += 1;
        store.counts.load_time = store.counts.load_time.saturating_add(took);
        let Some(entry) = store.flights.find(hash, id) else { return };
        if entry.has_waiters() && !entry.overtaken {
            let flight = entry.flight.clone();
            flight.iter().for_each(|flight| flight.vacate());
            drop(guard);
            flight.iter().for_each(|flight| flight.wake_one());
            return;
        }
        // Where the key was written meanwhile, those who wait have to look at the cache again.
        let ended = store.flights.end(hash, id);
        drop(guard);
        if let Some((entry, _)) = &ended {
            entry.flight.iter().for_each(|flight| flight.close());
        }
    }
}

impl<K, V, S, X> Drop for Lead<'_, K, V, S, X> {
    fn drop(&mut self) {
        match mem::replace(&mut self.ended, Ended::Untold(None)) {
            Ended::No => self.give_up(),
            // A panic came between, of a sidecar or a clone: the value is in the cache or nowhere.
            Ended::Untold(flight) => flight.iter().for_each(|flight| flight.close()),
        }
    }
}

/// A caller that waits for another's loader.
pub(crate) struct Waiter<'a, K, V, S, X> {
    inner: &'a Inner<K, V, S, X>,
    hash: u64,
    id: FlightId,
    /// `None` once the wait is over.
    flight: Option<Arc<Flight<V>>>,
    depends: Option<Dependence>,
}

/// Where a caller that waits has got to.
pub(crate) enum Turn<'a, K, V, S, X> {
    /// Wait for this, then look again.
    Wait(EventListener),
    Over(Waited<'a, K, V, S, X>),
}

/// What came of waiting.
pub(crate) enum Waited<'a, K, V, S, X> {
    Value(V),
    /// The leader gave up, and this caller leads.
    Lead(Lead<'a, K, V, S, X>),
    /// There is nothing to wait for any more: the cache has to be asked again.
    Again,
}

impl<'a, K, V, S, X> Waiter<'a, K, V, S, X> {
    pub(crate) fn turn(&mut self) -> Turn<'a, K, V, S, X>
    where
        V: Clone,
    {
        let Some(flight) = &self.flight else { return Turn::Over(Waited::Again) };
        let listener = flight.listen();
        match flight.look() {
            Sight::Led => Turn::Wait(listener),
            Sight::Taken => Turn::Over(self.lead().map_or(Waited::Again, Waited::Lead)),
            Sight::Landed(value) => {
                self.flight = None;
                Turn::Over(Waited::Value(value))
            }
            Sight::Closed => {
                self.flight = None;
                Turn::Over(Waited::Again)
            }
        }
    }

    /// From the vacant flight that this caller took to its leader; unless the key was written meanwhile, so that the cache has to be
    /// asked first.
    fn lead(&mut self) -> Option<Lead<'a, K, V, S, X>> {
        let (inner, hash, id) = (self.inner, self.hash, self.id);
        self.flight = None;
        let mut guard = inner.lock(hash);
        let store = &mut guard.store;
        let entry = store.flights.find(hash, id)?;
        entry.leave();
        if !entry.overtaken {
            drop(guard);
            return Some(Lead::new(inner, hash, id, self.depends.take()));
        }
        let ended = store.flights.end(hash, id);
        drop(guard);
        if let Some((entry, _)) = &ended {
            entry.flight.iter().for_each(|flight| flight.close());
        }
        None
    }
}

impl<K, V, S, X> Drop for Waiter<'_, K, V, S, X> {
    fn drop(&mut self) {
        let Some(_flight) = self.flight.take() else { return };
        let mut guard = self.inner.lock(self.hash);
        let flights = &mut guard.store.flights;
        let Some(entry) = flights.find(self.hash, self.id) else { return };
        entry.leave();
        let ended = if entry.is_abandoned() { flights.end(self.hash, self.id) } else { None };
        drop(guard);
        drop(ended);
    }
}
