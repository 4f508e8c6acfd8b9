//! Finding what expired without anybody asking for it.
//!
//! A cursor walks the slab. That costs no memory per entry and its work per step is bounded, where a timer wheel would add eight
//! bytes of links to each entry. A lower bound of all deadlines lets the walk be skipped while nothing can have expired.

use super::{Cleared, Store, run::Run};
use crate::{Cause, Sidecar, clock::NEVER, departed::Departed};

/// The most entries that one step takes out, which with [`STEP_VISITS`] bounds how long it holds the lock: some tens of microseconds.
pub(super) const STEP_RECLAIMS: usize = 256;
/// The most slots that one step looks at.
pub(super) const STEP_VISITS: usize = 4096;
/// A slab at least this long is given back when the sweep finds that nothing is left in it.
const RETIRE_SLOTS: usize = 64;

/// When something may be due, and how far the walk has come.
pub(crate) struct Due {
    /// No entry's deadline is below this.
    earliest: u64,
    /// The same for what the present walk has seen so far, and for whatever was set since it began.
    earliest_next: u64,
    /// The slot to look at next; 0 means that no walk is under way.
    cursor: usize,
}

impl Due {
    pub(crate) fn new() -> Self {
        Due { earliest: NEVER, earliest_next: NEVER, cursor: 0 }
    }

    /// A deadline was set on some entry.
    #[inline]
    pub(crate) fn note(&mut self, deadline: u64) {
        self.earliest = self.earliest.min(deadline);
        self.earliest_next = self.earliest_next.min(deadline);
    }
}

/// What a sweep may still do before it must pause. It is checked between steps, so a step may overdraw it by one step's bounds.
pub(crate) struct Budget {
    pub(crate) visits: usize,
    pub(crate) reclaims: usize,
}

impl Budget {
    pub(crate) fn unlimited() -> Self {
        Budget { visits: usize::MAX, reclaims: usize::MAX }
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.visits == 0 || self.reclaims == 0
    }
}

/// What a step of the sweep came to.
pub(crate) struct Step<K, V> {
    /// The walk is over, or there was nothing to walk for.
    pub(crate) finished: bool,
    /// How many slots the slab has.
    pub(crate) slots: usize,
    /// Allocations that an emptied shard no longer needs, to be dropped after unlocking.
    pub(crate) _retired: Option<Cleared<K, V>>,
    /// A run of a scan that nobody goes on with, likewise.
    pub(crate) _idle: Option<Box<Run>>,
}

impl<K, V> Store<K, V> {
    /// Walks on from where the last step stopped, at most [`STEP_VISITS`] slots and [`STEP_RECLAIMS`] expired entries far.
    pub(crate) fn sweep_step(
        &mut self,
        now: u64,
        budget: &mut Budget,
        sidecar: &mut impl Sidecar<K, V>,
        out: &mut Departed<K, V>,
    ) -> Step<K, V> {
        let slots = self.slab.len();
        let _idle = self.run.take_if(|run| run.is_idle(now));
        if self.due.cursor == 0 {
            if self.due.earliest > now {
                return Step { finished: true, slots, _retired: None, _idle };
            }
            self.due.earliest_next = NEVER;
        }
        let from = self.due.cursor;
        let end = slots.min(from + STEP_VISITS);
        let mut reclaims = 0;
        while self.due.cursor < end && reclaims < STEP_RECLAIMS {
            let slot = self.due.cursor;
            // Moved on before the sidecar is called: if that panics, the walk does not meet the same entry for ever.
            self.due.cursor += 1;
            let Some(entry) = &self.slab[slot] else { continue };
            let deadline = entry.word.deadline();
            if deadline <= now {
                self.give_up(slot as u32, Cause::Expired, sidecar, out);
                reclaims += 1;
            } else {
                self.due.earliest_next = self.due.earliest_next.min(deadline);
            }
        }
        budget.visits = budget.visits.saturating_sub(self.due.cursor - from);
        budget.reclaims = budget.reclaims.saturating_sub(reclaims);
        if self.due.cursor < slots {
            return Step { finished: false, slots, _retired: None, _idle };
        }
        self.due.cursor = 0;
        self.due.earliest = self.due.earliest_next;
        let empty = self.len() == 0 && slots >= RETIRE_SLOTS;
        Step { finished: true, slots, _retired: empty.then(|| self.allocations()), _idle }
    }

    /// Whether there may be something to take out by then.
    pub(crate) fn is_due(&self, now: u64) -> bool {
        let is_idle = self.run.as_ref().is_some_and(|run| run.is_idle(now));
        self.due.cursor != 0 || self.due.earliest <= now || is_idle
    }
}
