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

/// The keys being loaded by the caller's own chain of loaders, outermost first.
pub(crate) type Chain = Arc<[Bytes]>;

tokio::task_local! {
    /// The chain of the loader that the current task runs.
    static CHAIN: Chain;
}

/// The chain that the caller runs in; empty outside of every loader.
pub(super) fn chain() -> Chain {
    CHAIN.try_with(Arc::clone).unwrap_or_default()
}

/// Runs a loader of `key` as the innermost of `chain`.
pub(super) fn within<F: Future>(
    chain: &Chain,
    key: &Bytes,
    loader: F,
) -> impl Future<Output = F::Output> + use<F> {
    let inner: Chain = chain.iter().chain([key]).cloned().collect();
    CHAIN.scope(inner, loader)
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
    /// The keys whose landing this one's loader waits for, one entry a waiter.
    waits: Vec<Bytes>,
}

/// What a caller found.
pub(super) enum Boarding {
    /// Nobody loads the key: the caller is to, and holds the seat.
    Lead(Seat),
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
    /// Joins the flight of a key, or begins it.
    pub(super) fn board(
        self: &Arc<Self>,
        key: &Bytes,
        chain: &Chain,
        max: usize,
    ) -> Result<Boarding, Refused> {
        let mut flights = self.flights.lock();
        if !chain.is_empty() && waits_for(&flights, key, chain) {
            return Err(Refused::Circle);
        }
        let count = flights.len();
        let landing = match flights.entry(key.clone()) {
            Entry::Occupied(flight) => flight.get().landing.clone(),
            Entry::Vacant(_) if count >= max => return Err(Refused::Full),
            Entry::Vacant(place) => {
                let (sender, landing) = watch::channel(None);
                place.insert(Flight { landing, waits: Vec::new() });
                return Ok(Boarding::Lead(Seat { flights: Arc::clone(self), key: key.clone(), sender }));
            }
        };
        let waiting = chain.last().map(|waiter| {
            if let Some(flight) = flights.get_mut(waiter) {
                flight.waits.push(key.clone());
            }
            Waiting { flights: Arc::clone(self), waiter: waiter.clone(), key: key.clone() }
        });
        Ok(Boarding::Join(landing, waiting))
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

/// Whether the flight of `key` waits, directly or not, for one of `chain`.
fn waits_for(flights: &HashMap<Bytes, Flight>, key: &Bytes, chain: &[Bytes]) -> bool {
    let (mut next, mut seen) = (vec![key], HashSet::new());
    while let Some(key) = next.pop() {
        if chain.contains(key) {
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
