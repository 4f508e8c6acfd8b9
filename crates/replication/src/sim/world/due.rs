//! What is due, and when.

use std::cmp::Reverse;

use bytes::Bytes;

use super::{SimStore, TICK_MS, World};
use crate::sim::Action;

/// Something that is due. Ticks are not among these: each node knows its next.
#[derive(Debug)]
pub(super) enum Due {
    Action(Action),
    Arrival {
        from: usize,
        to: usize,
        frame: Bytes,
    },
    /// A node goes on: it has something to send, or frames to handle.
    Wake {
        node: usize,
    },
}

impl Due {
    /// Of what is due at one moment, actions come first, and nodes go on when all else is done.
    fn rank(&self) -> u8 {
        match self {
            Self::Action(_) => 0,
            Self::Arrival { .. } => 1,
            Self::Wake { .. } => 2,
        }
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Tick(usize),
    Planned,
}

#[derive(Debug)]
pub(super) struct Entry {
    order: Reverse<(u64, u8, u64)>,
    due: Due,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order.cmp(&other.order)
    }
}

impl<S: SimStore> World<S> {
    pub(super) fn plan(&mut self, at_ms: u64, due: Due) {
        self.planned += 1;
        self.due.push(Entry { order: Reverse((at_ms, due.rank(), self.planned)), due });
    }

    /// Has a node go on at a moment, unless it does so before.
    pub(super) fn wake(&mut self, node: usize, at_ms: u64) {
        let wake_ms = &mut self.nodes[node].wake_ms;
        if wake_ms.is_none_or(|planned_ms| at_ms < planned_ms) {
            *wake_ms = Some(at_ms);
            self.plan(at_ms, Due::Wake { node });
        }
    }

    /// What is due next, and when: the tick of a node, or what was planned. At one moment, ticks come last.
    pub(super) fn next(&self) -> Option<(u64, Next)> {
        let running = self.nodes.iter().enumerate().filter(|(_, node)| node.is_running());
        let tick = running.map(|(index, node)| (node.tick_ms, Next::Tick(index))).min_by_key(|tick| tick.0);
        match (tick, self.due.peek().map(|entry| entry.order.0.0)) {
            (Some(tick), Some(planned_ms)) if tick.0 < planned_ms => Some(tick),
            (_, Some(planned_ms)) => Some((planned_ms, Next::Planned)),
            (tick, None) => tick,
        }
    }

    /// Does what is due next.
    pub(super) fn take(&mut self, (at_ms, next): (u64, Next)) {
        self.now_ms = at_ms;
        match next {
            Next::Tick(node) => {
                self.nodes[node].tick_ms += TICK_MS;
                self.tick(node);
            }
            Next::Planned => match self.due.pop().map(|entry| entry.due) {
                Some(Due::Action(action)) => {
                    self.apply(&action);
                }
                Some(Due::Arrival { from, to, frame }) => self.arrive(from, to, frame),
                Some(Due::Wake { node }) if self.nodes[node].wake_ms == Some(at_ms) => {
                    self.nodes[node].wake_ms = None;
                    self.go_on(node);
                }
                // It went on before.
                Some(Due::Wake { .. }) | None => {}
            },
        }
    }
}
