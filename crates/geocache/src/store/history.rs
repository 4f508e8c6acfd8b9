//! What happened to the keys of a shard lately, for whoever asks why a key is as it is.

use std::collections::VecDeque;

use cache_core::Verdict;
use replication::{Stamp, message::Bar};

use super::{Key, NodeStore, Shard, Time, local::Condition};
use crate::{explain::What, value::Stored};

/// A ring of outcomes, under its shard's lock; the oldest goes at the bound.
#[derive(Debug)]
pub(super) struct History {
    past: VecDeque<Happened>,
    max: usize,
    time: Time,
}

/// An outcome of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Happened {
    position: u64,
    pub(crate) at_ms: u64,
    pub(crate) stamp: Stamp,
    pub(crate) what: What,
}

/// What is known of a key.
#[derive(Clone, Copy)]
pub(crate) enum Trace<'a> {
    Held(&'a Stored, Option<std::time::Duration>),
    /// Behind a clear.
    Hidden(&'a Stored),
    Grave(Bar),
    /// Nothing but the bar of all of which nothing is known.
    Nothing(Bar),
}

impl History {
    /// A ring of so many outcomes; none where that is 0.
    pub(super) fn new(max: usize, time: &Time) -> Option<Box<Self>> {
        (max > 0).then(|| Box::new(Self { past: VecDeque::new(), max, time: time.clone() }))
    }

    fn note(&mut self, position: u64, what: What, stamp: Stamp) {
        if self.past.len() >= self.max {
            self.past.pop_front();
        }
        self.past.push_back(Happened { position, at_ms: self.time.wall_ms(), stamp, what });
    }
}

impl Shard {
    /// Remembers an outcome, where a history is kept.
    pub(super) fn note(&mut self, position: u64, what: What, stamp: Stamp) {
        if let Some(history) = &mut self.history {
            history.note(position, what, stamp);
        }
    }

    /// Remembers what came of a change that was made through this node.
    pub(super) fn note_local(
        &mut self,
        position: u64,
        condition: Condition,
        verdict: &Verdict<Stored>,
        stamp: Stamp,
    ) {
        let what = match (verdict, condition) {
            (Verdict::Remove, _) => What::Removed,
            // Only loads look whether something happened meanwhile.
            (_, Condition::Since(_)) => What::Loaded,
            _ => What::Put,
        };
        self.note(position, what, stamp);
    }

    /// Remembers why a record of another node was not taken, where a history is kept.
    pub(super) fn note_ignored(&mut self, position: u64, key: &[u8], live: Option<Stamp>, stamp: Stamp) {
        if self.history.is_none() {
            return;
        }
        let grave = self.guard.grave(position).filter(|_| live.is_none()).map(|bar| bar.stamp);
        let is_cleared = self.barriers.over(key).is_some_and(|cleared| stamp <= cleared);
        let what = match (live, grave) {
            (Some(known), _) | (None, Some(known)) if known == stamp => What::Duplicate,
            (Some(live), _) if live > stamp => What::Older,
            _ if is_cleared => What::BeneathClear,
            (_, Some(_)) => What::Buried,
            _ => What::BelowFloor,
        };
        self.note(position, what, stamp);
    }
}

impl NodeStore {
    pub(crate) fn wall_ms(&self) -> u64 {
        self.time.wall_ms()
    }

    /// What is known of a key, as `show` tells it; the newest clear over it; and what happened to it lately, oldest first.
    pub(crate) fn explain<R>(
        &self,
        key: &[u8],
        show: impl FnOnce(Trace<'_>) -> R,
    ) -> (R, Option<Stamp>, Option<Vec<Happened>>) {
        self.cache.upsert(key, Key::new, |slot, shard| {
            let position = slot.position;
            let trace = match (slot.value.as_deref(), shard.guard.grave(position)) {
                (Some(live), _) if self.is_visible(key, live) => Trace::Held(live, slot.left),
                (Some(live), _) => Trace::Hidden(live),
                (None, Some(grave)) => Trace::Grave(grave),
                (None, None) => Trace::Nothing(shard.guard.bar(position, None)),
            };
            let of_key = |past: &&Happened| past.position == position;
            let past =
                shard.history.as_ref().map(|history| history.past.iter().filter(of_key).copied().collect());
            (Verdict::Keep, (show(trace), self.barriers.over(key), past))
        })
    }
}
