//! The hub's one lock: who is there, what is wrong, what is on its way.

mod carry;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use self::carry::Link;
use super::{
    Faults, Limits, Stats,
    fault::{Place, Rule},
    inbox::{Inbox, Next},
    publish::{Ice, PublishFaults, disconnected, give_up},
};
use crate::{
    node::NodeId,
    transport::{Handled, Health, TransportError},
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
    publish_faults: Vec<(Place, PublishFaults)>,
    frozen: Vec<Place>,
    /// How long a node takes over each frame that it receives.
    slow: Vec<(Place, Duration)>,
    members: BTreeMap<NodeId, Member>,
    /// One per pair of nodes that ever spoke. Kept when a node leaves, so that its next life's frames have new fates.
    links: BTreeMap<(NodeId, NodeId), Link>,
    /// How often each node published with publish faults set. Kept when a node leaves, as the links are.
    publishes: BTreeMap<NodeId, u64>,
    ice: BTreeMap<NodeId, Ice>,
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
    /// When the last frame was handed over.
    handed: Option<Instant>,
    /// Whether the next one waits because the node is slow.
    slowed: bool,
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
            publish_faults: Vec::new(),
            frozen: Vec::new(),
            slow: Vec::new(),
            members: BTreeMap::new(),
            links: BTreeMap::new(),
            publishes: BTreeMap::new(),
            ice: BTreeMap::new(),
            numbers: 0,
            counts: Stats::default(),
        }
    }

    pub(super) fn join(&mut self, node: &NodeId) -> (u64, watch::Receiver<Health>) {
        let life = self.number();
        let (health, watched) = watch::channel(Health::Connected);
        let news = Arc::new(Notify::new());
        let member = Member {
            life,
            health,
            subscription: None,
            listening: false,
            inbox: Inbox::default(),
            news,
            handed: None,
            slowed: false,
        };
        if let Some(replaced) = self.members.insert(node.clone(), member) {
            replaced.end();
            give_up(self.ice.remove(node), &TransportError::Closed);
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
        give_up(self.ice.remove(node), &TransportError::Closed);
        true
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
        let slow =
            self.slow.iter().rev().find(|(place, _)| place.contains(&seat.node)).map(|(_, each)| *each);
        let Ok(member) = self.member(&seat.node, seat.life) else { return Step::End };
        if member.subscription != Some(seat.subscription) {
            return Step::End;
        }
        let free = member.handed.zip(slow).map(|(handed, each)| handed + each).filter(|free| *free > now);
        if let Some(free) = free {
            let due = member.inbox.due(&limits);
            member.slowed |= due.is_some_and(|due| due <= now);
            return Step::Wait(due.map(|due| due.max(free)));
        }
        match member.inbox.next(now, &limits) {
            Next::Frame { frame, tag, again } => {
                member.handed = Some(now);
                let slowed = std::mem::take(&mut member.slowed);
                self.counts.delivered += 1;
                self.counts.redelivered += u64::from(again);
                self.counts.slowed += u64::from(slowed);
                Step::Frame { frame, tag }
            }
            Next::Wait(due) => Step::Wait(due),
        }
    }

    pub(super) fn ack(&mut self, seat: &Seat, tag: u64, handled: &Handled) {
        self.counts.rejected += u64::from(*handled != Handled::Done);
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

    pub(super) fn set_publish_faults(&mut self, place: Place, faults: PublishFaults) {
        self.publish_faults.retain(|(known, _)| *known != place);
        self.publish_faults.push((place, faults));
    }

    pub(super) fn freeze(&mut self, place: Place) {
        self.frozen.retain(|known| *known != place);
        self.frozen.push(place);
    }

    pub(super) fn thaw(&mut self, place: &Place) {
        self.frozen.retain(|known| known != place);
        self.take_thawed();
    }

    pub(super) fn slow(&mut self, place: Place, each: Duration) {
        self.hasten(&place);
        self.slow.push((place, each));
    }

    pub(super) fn hasten(&mut self, place: &Place) {
        self.slow.retain(|(known, _)| known != place);
        // Those that wait for a slow node look again.
        self.members.values().for_each(|member| member.news.notify_waiters());
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
        give_up(self.ice.remove(node), &disconnected(node));
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
        self.publish_faults.clear();
        self.frozen.clear();
        self.slow.clear();
        for member in self.members.values() {
            member.reconnect();
            member.news.notify_waiters();
        }
        self.deliver_released();
        self.take_thawed();
    }

    pub(super) fn stats(&self) -> Stats {
        let queued = self.members.values().map(|member| member.inbox.len()).sum();
        let held = self.links.values().map(|link| link.held.len()).sum();
        let frozen = self.ice.values().map(Ice::len).sum();
        Stats { queued, held, frozen, ..self.counts }
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
            _ => Err(disconnected(node)),
        }
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
