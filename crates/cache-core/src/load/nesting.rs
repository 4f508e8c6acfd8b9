//! Which loaders run on this thread, and which flights those of all threads wait for.
//!
//! A loader may load other keys. If one of those waits, however indirectly, for the first, nobody would ever go on; so whoever is
//! about to wait asks here first. Each thread keeps the stack of the flights whose loaders it is running (an asynchronous loader is
//! on it during each of its polls), and the flight on top is the one that a wait belongs to. The waits of loaders, and the flights
//! that they lead themselves, are edges of one graph in the process; a wait that would close a circle is refused. It is the process's
//! and not the cache's, because loaders of two caches can wait for each other as well.
//!
//! Callers that are not inside a loader never come to the graph: they cannot be part of a circle.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;

use crate::sync::thread_local;

/// The number of a flight, never used twice in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FlightId(u64);

impl FlightId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        FlightId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

thread_local! {
    #[expect(clippy::missing_const_for_thread_local, reason = "loom's macro takes no const block")]
    static RUNNING: RefCell<Vec<FlightId>> = RefCell::new(Vec::new());
}

/// How many times each flight's loader depends on which other. As many edges as there are loads and waits inside loaders just now.
///
/// No lock is taken and no code of users runs under this one.
static DEPENDS: Mutex<BTreeMap<(FlightId, FlightId), usize>> = Mutex::new(BTreeMap::new());

/// Marks a flight's loader as running on this thread, until it is dropped.
pub(crate) struct Running(());

impl Running {
    pub(crate) fn enter(flight: FlightId) -> Self {
        RUNNING.with(|running| running.borrow_mut().push(flight));
        Running(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Guards are locals of one function each, so they are dropped in the reverse of the order in which they were made.
        RUNNING.with(|running| running.borrow_mut().pop());
    }
}

/// Whether this thread is inside the loader of a flight.
pub(crate) fn is_running(flight: FlightId) -> bool {
    RUNNING.with(|running| running.borrow().contains(&flight))
}

/// The loader that this thread is in depends on another flight, until this is dropped. Nothing outside of loaders.
#[derive(Debug)]
pub(crate) struct Dependence(Option<(FlightId, FlightId)>);

impl Dependence {
    /// `None` when the other flight already depends on the loader that this thread is in.
    pub(crate) fn on(flight: FlightId) -> Option<Self> {
        let Some(inner) = RUNNING.with(|running| running.borrow().last().copied()) else {
            return Some(Dependence(None));
        };
        let mut depends = DEPENDS.lock();
        if reaches(&depends, flight, inner) {
            return None;
        }
        *depends.entry((inner, flight)).or_insert(0) += 1;
        Some(Dependence(Some((inner, flight))))
    }
}

impl Drop for Dependence {
    fn drop(&mut self) {
        let Some(edge) = self.0 else { return };
        let mut depends = DEPENDS.lock();
        if let Some(times) = depends.get_mut(&edge) {
            *times -= 1;
            if *times == 0 {
                depends.remove(&edge);
            }
        }
    }
}

fn reaches(depends: &BTreeMap<(FlightId, FlightId), usize>, from: FlightId, to: FlightId) -> bool {
    let (mut seen, mut open) = (BTreeSet::from([from]), vec![from]);
    while let Some(at) = open.pop() {
        if at == to {
            return true;
        }
        let next = depends.range((at, FlightId(0))..=(at, FlightId(u64::MAX))).map(|((_, next), _)| *next);
        open.extend(next.filter(|next| seen.insert(*next)));
    }
    false
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn outside_of_loaders_nothing_is_written_down() {
        assert!(Dependence::on(FlightId::next()).is_some_and(|dependence| dependence.0.is_none()));
    }

    #[test]
    fn a_loader_cannot_wait_for_itself() {
        let flight = FlightId::next();
        let _running = Running::enter(flight);
        assert!(is_running(flight));
        assert!(Dependence::on(flight).is_none());
    }

    #[test]
    fn a_circle_of_three_is_refused_where_it_would_close() {
        let [a, b, c] = [(); 3].map(|()| FlightId::next());
        let wait = |inner, on| {
            let _running = Running::enter(inner);
            Dependence::on(on)
        };
        let (ab, bc) = (wait(a, b), wait(b, c));
        assert!(ab.is_some() && bc.is_some());
        assert!(wait(c, a).is_none());
        drop(ab);
        assert!(wait(c, a).is_some(), "a does not wait for b any more");
    }

    #[test]
    fn two_waits_for_the_same_flight_are_two() {
        let [a, b] = [(); 2].map(|()| FlightId::next());
        let (first, second) = {
            let _running = Running::enter(a);
            (Dependence::on(b), Dependence::on(b))
        };
        drop(first);
        {
            let _running = Running::enter(b);
            assert!(Dependence::on(a).is_none(), "one of them is still there");
            drop(second);
            assert!(Dependence::on(a).is_some());
        }
        let left = DEPENDS.lock().keys().filter(|(from, _)| [a, b].contains(from)).count();
        assert_eq!(left, 0);
    }
}
