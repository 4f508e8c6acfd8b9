//! The leases that a node has granted, who waits for each, and what was loaded lately.

use std::collections::{BTreeMap, VecDeque, btree_map::Entry};

use crate::{
    message::{LeaseAnswer, Verdict},
    node::Origin,
    replica::Token,
};

/// Who asked for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) origin: Origin,
    pub(super) epoch: u64,
    /// Its number of the question.
    pub(super) id: u64,
    pub(super) hold_ms: u64,
}

/// What is to be told, and how often what happened.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) answers: Vec<(Origin, LeaseAnswer)>,
    pub(super) granted: u64,
    /// Of those, the ones granted since their holders before ended without a value.
    pub(super) passed_on: u64,
    pub(super) refused: u64,
}

impl Told {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn tell(&mut self, asker: Asker, position: u64, verdict: Verdict) {
        self.answers.push((asker.origin, LeaseAnswer { id: asker.id, position, verdict }));
    }
}

/// The leases by the positions of their keys.
#[derive(Debug, Default)]
pub(super) struct Grants {
    held: BTreeMap<u64, Held>,
    done: BTreeMap<u64, Done>,
    /// The positions of `done` in the order in which they were loaded.
    order: BTreeMap<u64, u64>,
    loads: u64,
}

/// A lease that is granted.
#[derive(Debug)]
struct Held {
    holder: Asker,
    until_ms: u64,
    /// Who waits, a node once, in the order of asking.
    line: VecDeque<Asker>,
}

/// What was loaded.
#[derive(Debug)]
struct Done {
    token: Token,
    /// Its place in the order of loads.
    load: u64,
    until_ms: u64,
}

impl Held {
    fn is_over(&self, now_ms: u64, is_there: impl Fn(&Asker) -> bool) -> bool {
        now_ms >= self.until_ms || !is_there(&self.holder)
    }

    fn is_of(&self, (origin, id): (Origin, u64)) -> bool {
        self.holder.origin == origin && self.holder.id == id
    }

    fn grant(&mut self, now_ms: u64, position: u64, asker: Asker, told: &mut Told) {
        (self.holder, self.until_ms) = (asker, now_ms + asker.hold_ms);
        told.granted += 1;
        told.tell(asker, position, Verdict::Granted { hold_ms: asker.hold_ms });
    }

    /// Grants the lease to the first in the line who is still there; whether somebody is.
    fn pass_on(
        &mut self,
        now_ms: u64,
        position: u64,
        is_there: impl Fn(&Asker) -> bool,
        told: &mut Told,
    ) -> bool {
        let next = std::iter::from_fn(|| self.line.pop_front()).find(is_there);
        if let Some(next) = next {
            told.passed_on += 1;
            self.grant(now_ms, position, next, told);
        }
        next.is_some()
    }

    fn line_up(&mut self, asker: Asker) {
        match self.line.iter_mut().find(|waiting| waiting.origin == asker.origin) {
            Some(waiting) => *waiting = asker,
            None => self.line.push_back(asker),
        }
    }
}

impl Grants {
    /// Somebody asks. `knows` says whether it has seen a write, and misses the key again.
    #[expect(clippy::too_many_arguments, reason = "the pure table is told all that it may judge by")]
    pub(super) fn ask(
        &mut self,
        now_ms: u64,
        position: u64,
        asker: Asker,
        max: usize,
        knows: impl Fn(Token) -> bool,
        is_there: impl Fn(&Asker) -> bool,
        told: &mut Told,
    ) {
        if let Some(done) = self.done.get(&position) {
            if now_ms < done.until_ms && !knows(done.token) {
                return told.tell(asker, position, Verdict::Loaded(done.token));
            }
            self.forget(position);
        }
        let count = self.held.len();
        let held = match self.held.entry(position) {
            Entry::Vacant(_) if count >= max => {
                told.refused += 1;
                return told.tell(asker, position, Verdict::Refused);
            }
            Entry::Vacant(place) => {
                let held = place.insert(Held { holder: asker, until_ms: 0, line: VecDeque::new() });
                return held.grant(now_ms, position, asker, told);
            }
            Entry::Occupied(held) => held.into_mut(),
        };
        if held.is_over(now_ms, &is_there) {
            held.line_up(asker);
            if !held.pass_on(now_ms, position, &is_there, told) {
                held.grant(now_ms, position, asker, told);
            }
            if held.is_of((asker.origin, asker.id)) {
                return;
            }
        }
        let left_ms = held.until_ms.saturating_sub(now_ms);
        if held.is_of((asker.origin, asker.id)) {
            // The answer was lost.
            told.tell(asker, position, Verdict::Granted { hold_ms: left_ms });
        } else if held.holder.origin == asker.origin {
            // One load a node: the holder's earlier question is over, and what it said of that was lost.
            held.grant(now_ms, position, asker, told);
        } else {
            held.line_up(asker);
            told.tell(asker, position, Verdict::Held { left_ms });
        }
    }

    /// A holder loaded: its line is told, and whoever asks for a while.
    pub(super) fn loaded(
        &mut self,
        now_ms: u64,
        position: u64,
        holder: (Origin, u64),
        token: Token,
        max: usize,
        told: &mut Told,
    ) {
        let Entry::Occupied(held) = self.held.entry(position) else { return };
        if !held.get().is_of(holder) {
            return;
        }
        let held = held.remove();
        for waiting in held.line {
            told.tell(waiting, position, Verdict::Loaded(token));
        }
        self.forget(position);
        while self.done.len() >= max.max(1) {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.done.remove(&oldest);
        }
        self.loads += 1;
        self.order.insert(self.loads, position);
        let until_ms = now_ms + held.holder.hold_ms;
        self.done.insert(position, Done { token, load: self.loads, until_ms });
    }

    /// A holder ended without a value to share, or gave the lease back: the next one is granted it.
    pub(super) fn failed(
        &mut self,
        now_ms: u64,
        position: u64,
        asker: (Origin, u64),
        is_there: impl Fn(&Asker) -> bool,
        told: &mut Told,
    ) {
        let Entry::Occupied(mut held) = self.held.entry(position) else { return };
        if held.get().is_of(asker) && !held.get_mut().pass_on(now_ms, position, is_there, told) {
            held.remove();
        }
    }

    /// Passes on the leases whose time is over or whose holder is gone, and forgets old loads.
    pub(super) fn pass_time(&mut self, now_ms: u64, is_there: impl Fn(&Asker) -> bool, told: &mut Told) {
        self.held.retain(|&position, held| {
            !held.is_over(now_ms, &is_there) || held.pass_on(now_ms, position, &is_there, told)
        });
        while let Some((_, &position)) = self.order.first_key_value() {
            if self.done.get(&position).is_some_and(|done| now_ms < done.until_ms) {
                // Those after it may be over before it; they are found when they are asked for, or at the bound.
                break;
            }
            self.forget(position);
        }
    }

    /// How many are granted, and how many loads are remembered.
    #[cfg(test)]
    pub(super) fn lens(&self) -> (usize, usize) {
        assert_eq!(self.done.len(), self.order.len());
        (self.held.len(), self.done.len())
    }

    fn forget(&mut self, position: u64) {
        if let Some(done) = self.done.remove(&position) {
            self.order.remove(&done.load);
        }
    }
}
