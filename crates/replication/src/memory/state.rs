//! The hub's one lock: who is there, what is wrong, what is on its way.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    Faults, Limits, Stats,
    fault::{Place, Rule},
    inbox::{Inbox, Next},
};
use crate::{
    node::NodeId,
    transport::{Destination, Health, TransportError},
    wire::FRAME_BYTES_MAX,
};

#[derive(Debug)]
pub(super) struct State {
    seed: u64,
    limits: Limits,
    pub(super) faults: Faults,
    link_faults: Vec<(Rule, Faults)>,
    cuts: Vec<Rule>,
    holds: Vec<Rule>,
    isolated: Vec<Place>,
    members: BTreeMap<NodeId, Member>,
    /// One per pair of nodes that ever spoke. Kept when a node leaves, so that its next life's frames have new fates.
    links: BTreeMap<(NodeId, NodeId), Link>,
    /// Counts lives, subscriptions and frames.
    numbers: u64,
    counts: Stats,
}

/// One life of a node.
#[derive(Debug)]
struct Member {
    life: u64,
    health: watch::Sender<Health>,
    /// The subscription that counts.
    subscription: Option<u64>,
    /// Whether it ever subscribed; its queue begins then.
    listening: bool,
    inbox: Inbox,
    news: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Link {
    count: u64,
    /// When the last frame that kept its order is due.
    last_due: Option<Instant>,
    held: VecDeque<Bytes>,
    held_bytes: usize,
}

/// Who asks: a node in one of its lives, and there one of its subscriptions.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) node: NodeId,
    pub(super) life: u64,
    pub(super) subscription: u64,
}

/// What a subscription does next.
pub(super) enum Step {
    Frame { frame: Bytes, tag: u64 },
    Wait(Option<Instant>),
    End,
}

impl State {
    pub(super) fn new(seed: u64, limits: Limits) -> Self {
        Self {
            seed,
            limits,
            faults: Faults::none(),
            link_faults: Vec::new(),
            cuts: Vec::new(),
            holds: Vec::new(),
            isolated: Vec::new(),
            members: BTreeMap::new(),
            links: BTreeMap::new(),
            numbers: 0,
            counts: Stats::default(),
        }
    }

    pub(super) fn join(&mut self, node: &NodeId) -> (u64, watch::Receiver<Health>) {
        let life = self.number();
        let (health, watched) = watch::channel(Health::Connected);
        let news = Arc::new(Notify::new());
        let member =
            Member { life, health, subscription: None, listening: false, inbox: Inbox::default(), news };
        if let Some(replaced) = self.members.insert(node.clone(), member) {
            replaced.end();
        }
        (life, watched)
    }

    /// Ends a life; whether it was still there.
    pub(super) fn leave(&mut self, node: &NodeId, life: u64) -> bool {
        if self.member(node, life).is_err() {
            return false;
        }
        if let Some(member) = self.members.remove(node) {
            member.end();
        }
        true
    }

    pub(super) fn publish(
        &mut self,
        node: &NodeId,
        life: u64,
        to: &Destination,
        frame: &Bytes,
    ) -> Result<(), TransportError> {
        self.connected(node, life)?;
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

    pub(super) fn subscribe(
        &mut self,
        node: &NodeId,
        life: u64,
    ) -> Result<(u64, Arc<Notify>), TransportError> {
        let id = self.number();
        self.connected(node, life)?;
        let limits = self.limits;
        let member = self.member(node, life)?;
        member.subscription = Some(id);
        member.listening = true;
        let gone = member.inbox.requeue(&limits);
        // The subscription before this one is waiting there, and is to end.
        member.news.notify_waiters();
        let news = Arc::clone(&member.news);
        self.counts.overflowed += gone;
        Ok((id, news))
    }

    pub(super) fn next(&mut self, seat: &Seat, now: Instant) -> Step {
        let limits = self.limits;
        let Ok(member) = self.member(&seat.node, seat.life) else { return Step::End };
        if member.subscription != Some(seat.subscription) {
            return Step::End;
        }
        match member.inbox.next(now, &limits) {
            Next::Frame { frame, tag, again } => {
                self.counts.delivered += 1;
                self.counts.redelivered += u64::from(again);
                Step::Frame { frame, tag }
            }
            Next::Wait(due) => Step::Wait(due),
        }
    }

    pub(super) fn ack(&mut self, seat: &Seat, tag: u64) {
        if let Ok(member) = self.member(&seat.node, seat.life) {
            member.inbox.ack(tag);
            member.news.notify_waiters();
        }
    }

    pub(super) fn set_link_faults(&mut self, rule: Rule, faults: Faults) {
        self.link_faults.retain(|(known, _)| *known != rule);
        self.link_faults.push((rule, faults));
    }

    pub(super) fn cut(&mut self, rule: Rule) {
        self.mend(&rule);
        self.cuts.push(rule);
    }

    pub(super) fn mend(&mut self, rule: &Rule) {
        self.cuts.retain(|known| known != rule);
    }

    pub(super) fn hold(&mut self, rule: Rule) {
        self.holds.retain(|known| *known != rule);
        self.holds.push(rule);
    }

    pub(super) fn release(&mut self, rule: &Rule) {
        self.holds.retain(|known| known != rule);
        self.deliver_released();
    }

    pub(super) fn isolate(&mut self, place: Place) {
        self.readmit(&place);
        self.isolated.push(place);
    }

    pub(super) fn readmit(&mut self, place: &Place) {
        self.isolated.retain(|known| known != place);
    }

    pub(super) fn disconnect(&mut self, node: &NodeId) {
        let Some(member) = self.members.get_mut(node) else { return };
        member.subscription = None;
        member.health.send_if_modified(|health| {
            let up = *health == Health::Connected;
            if up {
                let last_error = Some("the hub disconnected the node".to_owned());
                *health = Health::Connecting { since: Instant::now().into_std(), last_error };
            }
            up
        });
        member.news.notify_waiters();
    }

    pub(super) fn reconnect(&mut self, node: &NodeId) {
        if let Some(member) = self.members.get(node) {
            member.reconnect();
        }
    }

    pub(super) fn heal(&mut self) {
        self.faults = Faults::none();
        self.link_faults.clear();
        self.cuts.clear();
        self.holds.clear();
        self.isolated.clear();
        self.members.values().for_each(Member::reconnect);
        self.deliver_released();
    }

    pub(super) fn stats(&self) -> Stats {
        let queued = self.members.values().map(|member| member.inbox.len()).sum();
        let held = self.links.values().map(|link| link.held.len()).sum();
        Stats { queued, held, ..self.counts }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn member(&mut self, node: &NodeId, life: u64) -> Result<&mut Member, TransportError> {
        self.members.get_mut(node).filter(|member| member.life == life).ok_or(TransportError::Closed)
    }

    /// Refuses what only a connected node may do.
    fn connected(&mut self, node: &NodeId, life: u64) -> Result<(), TransportError> {
        match &*self.member(node, life)?.health.borrow() {
            Health::Connected => Ok(()),
            _ => Err(TransportError::Unavailable { reason: format!("the hub disconnected {node}") }),
        }
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
        let due = match fate.late {
            Some(late) => {
                self.counts.reordered += 1;
                now + fate.delay + late
            }
            None => link.in_order(now + fate.delay),
        };
        self.enqueue(to, due, number, frame.clone());
        if let Some(delay) = fate.copy_delay {
            self.counts.duplicated += 1;
            let number = self.number();
            self.enqueue(to, now + delay, number, frame.clone());
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

    /// Delivers what was held on the links that no hold matches any more.
    fn deliver_released(&mut self) {
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

impl Member {
    fn end(self) {
        self.health.send_replace(Health::Closed);
        self.news.notify_waiters();
    }

    fn reconnect(&self) {
        self.health.send_if_modified(|health| {
            let down = *health != Health::Connected;
            *health = Health::Connected;
            down
        });
    }
}

impl Link {
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
