//! The way of a frame: from a publish over the links to the queues of its receivers.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::State;
use crate::{
    memory::{
        Limits,
        fault::flip_bit,
        publish::{Answer, Ice},
    },
    node::NodeId,
    transport::{Destination, TransportError},
    wire::FRAME_BYTES_MAX,
};

#[derive(Debug, Default)]
pub(super) struct Link {
    count: u64,
    /// Until then it carries the frames before.
    busy_until: Option<Instant>,
    /// When the last frame that kept its order is due.
    last_due: Option<Instant>,
    pub(super) held: VecDeque<Bytes>,
    held_bytes: usize,
}

impl State {
    pub(in crate::memory) fn publish(
        &mut self,
        node: &NodeId,
        life: u64,
        to: &Destination,
        frame: &Bytes,
    ) -> Answer {
        if let Err(error) = self.connected(node, life) {
            return Answer::Now(Err(error));
        }
        if self.is_frozen(node) {
            let ice = self.ice.entry(node.clone()).or_default();
            let (answer, gone) = ice.freeze(life, to.clone(), frame.clone(), &self.limits);
            self.counts.overflowed += gone;
            return answer;
        }
        let own = self.publish_faults.iter().rev().find(|(place, _)| place.contains(node));
        let Some((_, faults)) = own else { return Answer::Now(self.take(node, to, frame)) };
        let count = self.publishes.entry(node.clone()).or_default();
        *count += 1;
        let fate = faults.fate(self.seed, node.origin(), *count);
        let result = match (fate.fails, fate.denied) {
            (Some(error), _) => {
                self.counts.failed += 1;
                Err(error)
            }
            (None, denied) => self.take(node, to, frame).and_then(|()| match denied {
                Some(error) => {
                    self.counts.denied += 1;
                    Err(error)
                }
                None => Ok(()),
            }),
        };
        match fate.stalls {
            Some(wait) => {
                self.counts.stalled += 1;
                Answer::After(wait, result)
            }
            None => Answer::Now(result),
        }
    }

    /// Takes a frame from a connected node and carries it to all it is for.
    fn take(&mut self, node: &NodeId, to: &Destination, frame: &Bytes) -> Result<(), TransportError> {
        if frame.len() > FRAME_BYTES_MAX {
            let reason = format!("it has {} bytes, at most {FRAME_BYTES_MAX} are carried", frame.len());
            return Err(TransportError::Refused { reason });
        }
        let receivers = self.receivers(node, to);
        if receivers.is_empty() && *to != Destination::Everyone {
            self.counts.unroutable += 1;
            return Err(TransportError::Unroutable { to: to.clone() });
        }
        self.counts.published += 1;
        let now = Instant::now();
        for receiver in receivers {
            self.carry(node, &receiver, frame, now);
        }
        Ok(())
    }

    fn receivers(&self, from: &NodeId, to: &Destination) -> Vec<NodeId> {
        let wanted = |node: &NodeId| match to {
            Destination::Everyone => node != from,
            Destination::Region(region) => node != from && node.region() == region,
            Destination::Node(one) => node == one,
        };
        let listening = self.members.iter().filter(|(_, member)| member.listening);
        listening.map(|(node, _)| node).filter(|node| wanted(node)).cloned().collect()
    }

    /// Takes a frame over one link, to whatever end the faults give it.
    fn carry(&mut self, from: &NodeId, to: &NodeId, frame: &Bytes, now: Instant) {
        let number = self.number();
        let is_cut = self.is_cut(from, to);
        let is_held = self.is_held(from, to);
        let own = self.link_faults.iter().rev().find(|(rule, _)| rule.matches(from, to));
        let faults = own.map_or(&self.faults, |(_, faults)| faults);
        let link = self.links.entry((from.clone(), to.clone())).or_default();
        link.count += 1;
        let fate = faults.fate(self.seed, from.origin(), to.origin(), link.count);
        if is_cut {
            self.counts.cut += 1;
            return;
        }
        if fate.dropped {
            self.counts.dropped += 1;
            return;
        }
        if is_held {
            self.counts.overflowed += link.hold(frame.clone(), &self.limits);
            return;
        }
        let busy = faults.busy(frame.len());
        let through = link.occupy(now, busy);
        self.counts.throttled += u64::from(through > now + busy);
        let due = match fate.late {
            Some(late) => {
                self.counts.reordered += 1;
                through + fate.delay + late
            }
            None => link.in_order(through + fate.delay),
        };
        let copy_due = fate.copy_delay.map(|delay| link.occupy(now, busy) + delay);
        let arriving = match fate.flipped {
            Some(at) => {
                self.counts.corrupted += 1;
                flip_bit(frame, at)
            }
            None => frame.clone(),
        };
        self.enqueue(to, due, number, arriving);
        if let Some(due) = copy_due {
            self.counts.duplicated += 1;
            let number = self.number();
            self.enqueue(to, due, number, frame.clone());
        }
    }

    fn enqueue(&mut self, to: &NodeId, due: Instant, number: u64, frame: Bytes) {
        match self.members.get_mut(to).filter(|member| member.listening) {
            Some(member) => {
                self.counts.overflowed += member.inbox.push(due, number, frame, &self.limits);
                member.news.notify_waiters();
            }
            None => self.counts.orphaned += 1,
        }
    }

    fn is_cut(&self, from: &NodeId, to: &NodeId) -> bool {
        self.cuts.iter().any(|rule| rule.matches(from, to))
            || self.isolated.iter().any(|place| place.contains(from) != place.contains(to))
    }

    fn is_held(&self, from: &NodeId, to: &NodeId) -> bool {
        self.holds.iter().any(|rule| rule.matches(from, to))
    }

    fn is_frozen(&self, node: &NodeId) -> bool {
        self.frozen.iter().any(|place| place.contains(node))
    }

    /// Carries what the nodes that are frozen no more had published, in order, and answers.
    pub(super) fn take_thawed(&mut self) {
        let nodes: Vec<NodeId> = self.ice.keys().filter(|node| !self.is_frozen(node)).cloned().collect();
        for node in nodes {
            for frozen in self.ice.remove(&node).into_iter().flat_map(Ice::into_publishes) {
                let taken = self.connected(&node, frozen.life);
                let taken = taken.and_then(|()| self.take(&node, &frozen.to, &frozen.frame));
                frozen.answer(taken);
            }
        }
    }

    /// Delivers what was held on the links that no hold matches any more.
    pub(super) fn deliver_released(&mut self) {
        let mut links = std::mem::take(&mut self.links);
        let now = Instant::now();
        for ((from, to), link) in &mut links {
            if link.held.is_empty() || self.is_held(from, to) {
                continue;
            }
            link.held_bytes = 0;
            for frame in std::mem::take(&mut link.held) {
                let (due, number) = (link.in_order(now), self.number());
                self.enqueue(to, due, number, frame);
            }
        }
        self.links = links;
    }
}

impl Link {
    /// Keeps the link busy with a frame, after those before it; the moment at which it is through.
    fn occupy(&mut self, now: Instant, busy: Duration) -> Instant {
        let through = self.busy_until.map_or(now, |until| until.max(now)) + busy;
        self.busy_until = Some(through);
        through
    }

    /// The moment at which a frame is due that passes none before it.
    fn in_order(&mut self, due: Instant) -> Instant {
        let due = self.last_due.map_or(due, |last| last.max(due));
        self.last_due = Some(due);
        due
    }

    /// Keeps a frame; gives how many older ones had to go for it.
    fn hold(&mut self, frame: Bytes, limits: &Limits) -> u64 {
        self.held_bytes += frame.len();
        self.held.push_back(frame);
        let mut gone = 0;
        while self.held.len() > limits.held_frames || self.held_bytes > limits.held_bytes {
            let Some(oldest) = self.held.pop_front() else { break };
            self.held_bytes -= oldest.len();
            gone += 1;
        }
        gone
    }
}
