//! The questions for leases that a node has asked, or been granted.

use std::collections::{BTreeMap, BTreeSet};

use crate::{node::Origin, stamp::Hlc};

/// A question for a lease.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) position: u64,
    pub(super) hold_ms: u64,
    /// What was loaded up to this clock is known here.
    pub(super) seen: Hlc,
    /// Who gave no answer.
    pub(super) passed: Vec<Origin>,
    pub(super) state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It was put to nobody yet.
    Unasked,
    /// Waits for an answer, which is late then.
    Asked { grantor: Origin, due_ms: u64 },
    /// Another node loads; it is asked again then.
    InLine { grantor: Origin, until_ms: u64 },
    /// This node loads.
    Held { grantor: Origin },
}

impl State {
    fn waits(self) -> bool {
        !matches!(self, Self::Held { .. })
    }
}

/// The questions, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Questions {
    open: BTreeMap<u64, Question>,
    /// Position and number of those that wait.
    waiting: BTreeSet<(u64, u64)>,
}

impl Questions {
    pub(super) fn get(&self, id: u64) -> Option<&Question> {
        self.open.get(&id)
    }

    pub(super) fn ids(&self) -> Vec<u64> {
        self.open.keys().copied().collect()
    }

    pub(super) fn insert(&mut self, id: u64, question: Question) {
        if question.state.waits() {
            self.waiting.insert((question.position, id));
        }
        self.open.insert(id, question);
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Question> {
        let question = self.open.remove(&id)?;
        self.waiting.remove(&(question.position, id));
        Some(question)
    }

    pub(super) fn set(&mut self, id: u64, state: State) {
        if let Some(question) = self.remove(id) {
            self.insert(id, Question { state, ..question });
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert!(self.waiting.len() <= self.open.len());
        self.open.len()
    }

    pub(super) fn are_none_waiting(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes out those that wait for a key.
    pub(super) fn take_waiting(&mut self, position: u64) -> Vec<u64> {
        let ids: Vec<u64> =
            self.waiting.range((position, 0)..=(position, u64::MAX)).map(|(_, id)| *id).collect();
        for id in &ids {
            self.remove(*id);
        }
        ids
    }

    /// Those to be asked anew: whose answer is late, whose grantor `answers` no more, whose lease should have ended.
    pub(super) fn due(&self, now_ms: u64, answers: impl Fn(Origin) -> bool) -> Vec<u64> {
        let is_due = |question: &Question| match question.state {
            State::Unasked | State::Held { .. } => false,
            State::Asked { grantor, due_ms } => due_ms <= now_ms || !answers(grantor),
            State::InLine { grantor, until_ms } => until_ms <= now_ms || !answers(grantor),
        };
        let waiting = self.waiting.iter().filter_map(|(_, id)| Some((*id, self.open.get(id)?)));
        waiting.filter(|(_, question)| is_due(question)).map(|(id, _)| id).collect()
    }
}
