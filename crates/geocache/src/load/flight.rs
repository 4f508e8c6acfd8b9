//! Which keys are being loaded, and who waits for whom.
//!
//! One flight a key: the first caller that needs a load begins it, later ones get its landing. Flights live in one small table
//! of their own, touched on misses and refreshes alone, so that hits never meet it. No lock is held while a loader runs.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Failure, Landed};
use crate::stats::LoadCounters;

tokio::task_local! {
    /// The key whose loader the current task runs.
    static LOADING: Bytes;
}

/// The key whose loader the caller is; none outside of every loader.
pub(super) fn loading() -> Option<Bytes> {
    LOADING.try_with(Bytes::clone).ok()
}

/// Runs the loader of `key`.
pub(super) fn within<F: Future>(key: &Bytes, loader: F) -> impl Future<Output = F::Output> + use<F> {
    LOADING.scope(key.clone(), loader)
}

/// The loads under way on one node.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    flights: Mutex<HashMap<Bytes, Flight>>,
    counters: LoadCounters,
}

#[derive(Debug)]
struct Flight {
    landing: watch::Receiver<Option<Landed>>,
    /// The keys whose landing this one's loader waits for, one entry a wait, whoever began their flights.
    waits: Vec<Bytes>,
}

/// What a caller found.
pub(super) enum Boarding {
    /// Nobody loads the key: the caller is to, and holds the seat.
    Lead(Seat, Option<Waiting>),
    /// Somebody does.
    Join(watch::Receiver<Option<Landed>>, Option<Waiting>),
}

/// Why a caller may neither lead nor join.
pub(super) enum Refused {
    /// The loader would wait for itself.
    Circle,
    /// As many loads are under way as there may be.
    Full,
}

impl Flights {
    /// Joins the flight of a key, or begins it. `waiter` is the key whose loader waits for the landing, where one does.
    pub(super) fn board(
        self: &Arc<Self>,
        key: &Bytes,
        waiter: Option<Bytes>,
        max: usize,
    ) -> Result<Boarding, Refused> {
        let mut flights = self.flights.lock();
        if waiter.as_ref().is_some_and(|waiter| waits_for(&flights, key, waiter)) {
            return Err(Refused::Circle);
        }
        if flights.len() >= max && !flights.contains_key(key) {
            return Err(Refused::Full);
        }
        let waiting = waiter.map(|waiter| {
            if let Some(flight) = flights.get_mut(&waiter) {
                flight.waits.push(key.clone());
            }
            Waiting { flights: Arc::clone(self), waiter, key: key.clone() }
        });
        Ok(match flights.entry(key.clone()) {
            Entry::Occupied(flight) => Boarding::Join(flight.get().landing.clone(), waiting),
            Entry::Vacant(place) => {
                let (sender, landing) = watch::channel(None);
                place.insert(Flight { landing, waits: Vec::new() });
                Boarding::Lead(Seat { flights: Arc::clone(self), key: key.clone(), sender }, waiting)
            }
        })
    }

    /// Whether a key is being loaded.
    pub(super) fn is_flying(&self, key: &[u8]) -> bool {
        self.flights.lock().contains_key(key)
    }

    /// How many loads are under way.
    pub(crate) fn len(&self) -> usize {
        self.flights.lock().len()
    }

    pub(crate) fn counters(&self) -> &LoadCounters {
        &self.counters
    }
}

/// Whether the flight of `key` is that of `waiter`, or waits for it, directly or not.
fn waits_for(flights: &HashMap<Bytes, Flight>, key: &Bytes, waiter: &Bytes) -> bool {
    let (mut next, mut seen) = (vec![key], HashSet::new());
    while let Some(key) = next.pop() {
        if key == waiter {
            return true;
        }
        if seen.insert(key) {
            next.extend(flights.get(key).into_iter().flat_map(|flight| &flight.waits));
        }
    }
    false
}

/// The leader's place: its end is the flight's, whatever ends it.
#[derive(Debug)]
pub(super) struct Seat {
    flights: Arc<Flights>,
    key: Bytes,
    sender: watch::Sender<Option<Landed>>,
}

impl Seat {
    /// The landing, for whoever waits.
    pub(super) fn landing(&self) -> watch::Receiver<Option<Landed>> {
        self.sender.subscribe()
    }

    /// Tells all who wait.
    pub(super) fn land(self, landed: Landed) {
        // Gone from the table first: whoever asks from now on begins anew.
        self.leave();
        self.sender.send_replace(Some(landed));
    }

    fn leave(&self) {
        self.flights.flights.lock().remove(&self.key);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.sender.borrow().is_none() {
            self.leave();
            self.sender.send_replace(Some(Err(Failure::Ended)));
        }
    }
}

/// Notes that one loader waits for another's landing.
#[derive(Debug)]
pub(super) struct Waiting {
    flights: Arc<Flights>,
    waiter: Bytes,
    key: Bytes,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut flights = self.flights.flights.lock();
        let Some(flight) = flights.get_mut(&self.waiter) else { return };
        if let Some(index) = flight.waits.iter().position(|key| *key == self.key) {
            flight.waits.swap_remove(index);
        }
    }
}
