//! The loads under way in one shard. Pure: it sits under the shard's lock.
//!
//! At most one flight of a key can be joined. A write of the key *overtakes* it: from then on nobody can join it, and its value is
//! not published. Each flight has a caller that leads it or callers that wait to, so there are never more flights than callers.
//!
//! Where a flight can still be joined, its key has no live entry: it had none when the flight began, and whatever puts one in
//! overtakes the flight. So a change of a live entry needs no note here; an insert does, and so do the removals that find nothing.

use hashbrown::HashTable;

use crate::sync::Arc;

use super::{flight::Flight, nesting::FlightId};

/// A table that got larger than this is given back when the last flight ends.
const CAPACITY_IDLE_MAX: usize = 64;

/// One word where nothing was ever loaded, and one look at it for each write.
pub(crate) struct Flights<K, V>(Option<Box<HashTable<Entry<K, V>>>>);

pub(crate) struct Entry<K, V> {
    hash: u64,
    pub(crate) id: FlightId,
    /// The key to insert under; waiting callers keep their own.
    pub(crate) key: K,
    /// The key was written or invalidated since the flight began.
    pub(crate) overtaken: bool,
    /// The callers that wait. It is not read off the `Arc`'s count, which whoever wakes them without the lock disturbs.
    waiters: usize,
    /// What is shared with those who wait, if anybody ever did.
    pub(crate) flight: Option<Arc<Flight<V>>>,
}

impl<K, V> Flights<K, V> {
    pub(crate) const fn new() -> Self {
        Flights(None)
    }

    /// Takes note that a key of this hash was written or invalidated: what is being loaded for it may be older.
    ///
    /// Another key of the same hash is overtaken with it, which costs that load its publication and nothing else.
    #[inline]
    pub(crate) fn overtake(&mut self, hash: u64) {
        if let Some(table) = &mut self.0 {
            table.iter_hash_mut(spread(hash)).filter(|entry| entry.hash == hash).for_each(Entry::overtake);
        }
    }

    /// [`overtake`](Self::overtake) for the hashes of a range that has no end if that is `None`.
    pub(crate) fn overtake_range(&mut self, from: u64, to: Option<u64>) {
        if let Some(table) = &mut self.0 {
            let within = |entry: &&mut Entry<K, V>| entry.hash >= from && to.is_none_or(|to| entry.hash < to);
            table.iter_mut().filter(within).for_each(Entry::overtake);
        }
    }

    /// [`overtake`](Self::overtake) for whatever is under way.
    pub(crate) fn overtake_all(&mut self) {
        if let Some(table) = &mut self.0 {
            table.iter_mut().for_each(Entry::overtake);
        }
    }

    /// The flights of a key, overtaken ones too.
    pub(crate) fn of<'a>(&'a mut self, hash: u64, key: &'a K) -> impl Iterator<Item = &'a mut Entry<K, V>>
    where
        K: Eq,
    {
        let table = self.0.as_deref_mut().into_iter();
        table
            .flat_map(move |table| table.iter_hash_mut(spread(hash)))
            .filter(move |entry| entry.hash == hash && entry.key == *key)
    }

    /// Begins a flight that nobody else waits for yet.
    pub(crate) fn begin(&mut self, hash: u64, id: FlightId, key: K) {
        let entry = Entry { hash, id, key, overtaken: false, waiters: 0, flight: None };
        self.0.get_or_insert_default().insert_unique(spread(hash), entry, |entry| spread(entry.hash));
    }

    pub(crate) fn find(&mut self, hash: u64, id: FlightId) -> Option<&mut Entry<K, V>> {
        self.0.as_deref_mut()?.find_mut(spread(hash), |entry| entry.id == id)
    }

    /// Ends a flight, if it has not ended. What is returned is to be dropped after unlocking.
    pub(crate) fn end(&mut self, hash: u64, id: FlightId) -> Option<(Entry<K, V>, Emptied<K, V>)> {
        let table = self.0.as_deref_mut()?;
        let (entry, _) = table.find_entry(spread(hash), |entry| entry.id == id).ok()?.remove();
        let is_idle = table.is_empty() && table.capacity() > CAPACITY_IDLE_MAX;
        Some((entry, Emptied { _table: if is_idle { self.0.take() } else { None } }))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |table| table.len())
    }

    /// Whether it holds no table.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn is_bare(&self) -> bool {
        self.0.is_none()
    }
}

/// An allocation on its way out.
pub(crate) struct Emptied<K, V> {
    _table: Option<Box<HashTable<Entry<K, V>>>>,
}

impl<K, V> Entry<K, V> {
    fn overtake(&mut self) {
        self.overtaken = true;
    }

    /// One more caller waits.
    pub(crate) fn join(&mut self) -> Arc<Flight<V>> {
        self.waiters += 1;
        Arc::clone(self.flight.get_or_insert_with(|| Arc::new(Flight::new())))
    }

    /// One caller waits no more: it leads, or was cancelled.
    pub(crate) fn leave(&mut self) {
        self.waiters -= 1;
    }

    pub(crate) fn has_waiters(&self) -> bool {
        self.waiters > 0
    }

    /// Whether nobody is left to lead this, so that it has to end.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.waiters == 0 && self.flight.as_ref().is_some_and(|flight| flight.is_vacant())
    }
}

/// The hash as the table takes it: within a shard the top bits are equal.
#[inline]
fn spread(hash: u64) -> u64 {
    hash.rotate_left(32)
}
