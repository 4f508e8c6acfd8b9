//! The process of a node: its lives, its clock, what it handles and sends.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use super::{START_WALL_MS, SimStore, TICK_MS, World};
use crate::{
    replica::{Now, Outbox, Replica},
    sim::{Event, NodeSetup, Traffic, link::mix},
};

/// How far a wall clock may be from the world's: 30 years. Farther, its milliseconds would not fit a stamp.
const CLOCK_MS_MAX: i64 = 30 * 365 * 86_400_000;

/// How much too fast or too slow a wall clock may run.
const CLOCK_PPM_MAX: i64 = 100_000;

pub(super) struct Node<S> {
    pub(super) setup: NodeSetup,
    pub(super) life: u64,
    pub(super) store: Arc<S>,
    pub(super) outbox: Arc<Outbox>,
    /// `None` while the process is down.
    pub(super) replica: Option<Replica<S>>,
    started_ms: u64,
    clock: WallClock,
    pub(super) is_paused: bool,
    pub(super) is_connected: bool,
    pub(super) frame_ms: u64,
    busy_until_ms: u64,
    inbox: VecDeque<(usize, Bytes)>,
    /// When the publishes that are under way are confirmed.
    unconfirmed: VecDeque<u64>,
    pub(super) wake_ms: Option<u64>,
    pub(super) tick_ms: u64,
    pub(super) traffic: Traffic,
}

/// How a machine's wall clock differs from the world's. It outlives the process.
#[derive(Debug, Clone, Copy)]
struct WallClock {
    ahead_ms: i64,
    ppm: i64,
    /// Since when it runs at that rate.
    since_ms: u64,
}

impl WallClock {
    fn ahead_ms(&self, now_ms: u64) -> i64 {
        self.ahead_ms + (now_ms - self.since_ms) as i64 * self.ppm / 1_000_000
    }

    fn now_ms(&self, now_ms: u64) -> u64 {
        START_WALL_MS.saturating_add(now_ms).saturating_add_signed(self.ahead_ms(now_ms))
    }
}

impl<S: SimStore> Node<S> {
    pub(super) fn new(setup: NodeSetup, now_ms: u64, index: usize) -> Self {
        let outbox = Arc::new(Outbox::standalone(setup.config.node.origin()));
        let ahead_ms = setup.skew_ms.clamp(-CLOCK_MS_MAX, CLOCK_MS_MAX);
        let clock = WallClock { ahead_ms, ppm: 0, since_ms: now_ms };
        let now = Now { mono_ms: 0, wall_ms: clock.now_ms(now_ms) };
        Self {
            life: 0,
            store: S::open(&setup.store_settings(), Arc::clone(&outbox), now),
            outbox,
            replica: None,
            started_ms: now_ms,
            clock,
            is_paused: false,
            is_connected: true,
            frame_ms: 0,
            busy_until_ms: 0,
            inbox: VecDeque::new(),
            unconfirmed: VecDeque::new(),
            wake_ms: None,
            // Nodes do not tick at one moment.
            tick_ms: now_ms + 1 + index as u64 % TICK_MS,
            traffic: Traffic::default(),
            setup,
        }
    }

    /// Whether the process is up and goes on.
    pub(super) fn is_running(&self) -> bool {
        self.replica.is_some() && !self.is_paused
    }

    pub(super) fn now(&self, now_ms: u64) -> Now {
        Now { mono_ms: now_ms - self.started_ms, wall_ms: self.clock.now_ms(now_ms) }
    }
}

impl<S: SimStore> World<S> {
    /// The process of a node ends without a word. Does nothing if it is down.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn crash(&mut self, node: usize) -> bool {
        let gone = &mut self.nodes[node];
        if gone.replica.take().is_none() {
            return false;
        }
        gone.is_paused = false;
        gone.inbox.clear();
        gone.unconfirmed.clear();
        gone.wake_ms = None;
        let life = gone.life;
        self.emit(&Event::Crashed { node, life });
        true
    }

    /// A process that is down starts with nothing in memory, warming, under its setup of now. Does nothing if it is up.
    /// The wall clock is where the machine has it: to have it moved meanwhile, call [`Self::step_clock`] before.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn start(&mut self, node: usize) -> bool {
        if self.nodes[node].replica.is_some() {
            return false;
        }
        self.begin_life(node);
        true
    }

    pub(super) fn begin_life(&mut self, index: usize) {
        let seed = mix(self.seed, (index as u64) << 32 | self.nodes[index].life);
        let now_ms = self.now_ms;
        let node = &mut self.nodes[index];
        node.life += 1;
        node.started_ms = now_ms;
        node.busy_until_ms = now_ms;
        node.tick_ms = now_ms + 1 + index as u64 % TICK_MS;
        let now = node.now(now_ms);
        let setup = &mut node.setup;
        let config = setup.config.clone().with_rules(setup.rules);
        setup.config.bootstrap = false;
        let outbox = Outbox::new(config.node.origin(), setup.outbox_bytes_max).with_rules(setup.rules);
        node.outbox = Arc::new(outbox);
        node.store = S::open(&setup.store_settings(), Arc::clone(&node.outbox), now);
        let (store, outbox) = (Arc::clone(&node.store), Arc::clone(&node.outbox));
        node.replica = Some(Replica::new(config, store, outbox, now, seed));
        let life = node.life;
        self.emit(&Event::Started { node: index, life });
        self.wake(index, now_ms);
    }

    /// The process stops, as under SIGSTOP: it does nothing, and frames for it queue up to its bound. Does nothing if
    /// it is down or paused.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn pause(&mut self, node: usize) -> bool {
        let is_running = self.nodes[node].is_running();
        self.nodes[node].is_paused |= is_running;
        is_running
    }

    /// A paused process goes on, with what queued. Does nothing unless it is paused.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn resume(&mut self, node: usize) -> bool {
        if !std::mem::take(&mut self.nodes[node].is_paused) {
            return false;
        }
        let tick_ms = &mut self.nodes[node].tick_ms;
        *tick_ms = (*tick_ms).max(self.now_ms);
        self.nodes[node].wake_ms = None;
        self.wake(node, self.now_ms);
        true
    }

    /// The process needs this long for each frame from now on, in this and in later lives; 0 is at once. Frames queue
    /// up to its bound.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn slow(&mut self, node: usize, frame_ms: u64) {
        self.nodes[node].frame_ms = frame_ms;
    }

    /// The node's transport is not connected: what it writes gathers in its outbox, what is sent to it queues up to
    /// its bound. This outlasts the process.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn disconnect(&mut self, node: usize) -> bool {
        std::mem::take(&mut self.nodes[node].is_connected)
    }

    /// The node's transport is connected again.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn connect(&mut self, node: usize) -> bool {
        let was_connected = std::mem::replace(&mut self.nodes[node].is_connected, true);
        if !was_connected && self.nodes[node].is_running() {
            self.wake(node, self.now_ms);
        }
        !was_connected
    }

    /// The node's wall clock moves by `by_ms` at once, as if somebody had set it, to no further than 30 years from the
    /// world's; its monotonic clock does not.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn step_clock(&mut self, node: usize, by_ms: i64) {
        let stepped = &mut self.nodes[node];
        let ahead_ms = stepped.clock.ahead_ms.saturating_add(by_ms);
        stepped.clock.ahead_ms = ahead_ms.clamp(-CLOCK_MS_MAX, CLOCK_MS_MAX);
    }

    /// The node's wall clock runs `ppm` parts in a million too fast from now on, or too slow; at most a tenth. Time it measures by its
    /// monotonic clock, such as a value's life, stays right.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn clock_rate(&mut self, node: usize, ppm: i64) {
        let now_ms = self.now_ms;
        let clock = &mut self.nodes[node].clock;
        let ppm = ppm.clamp(-CLOCK_PPM_MAX, CLOCK_PPM_MAX);
        *clock = WallClock { ahead_ms: clock.ahead_ms(now_ms), ppm, since_ms: now_ms };
    }

    /// The wall and the monotonic clock of a node.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn now(&self, node: usize) -> Now {
        self.nodes[node].now(self.now_ms)
    }

    pub(super) fn tell_time_to_all(&mut self) {
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            node.store.set_now(node.now(self.now_ms));
        }
    }

    pub(super) fn tick(&mut self, index: usize) {
        let now = self.now(index);
        let node = &mut self.nodes[index];
        let Some(replica) = &mut node.replica else { return };
        node.store.set_now(now);
        replica.tick(now);
        self.emit(&Event::Ticked { node: index });
        self.send_all(index);
    }

    /// A frame reached its node.
    pub(super) fn arrive(&mut self, from: usize, index: usize, frame: Bytes) {
        let node = &mut self.nodes[index];
        if node.replica.is_none() {
            node.traffic.missed += 1;
            return;
        }
        if node.inbox.len() >= node.setup.inbox_frames_max.max(1) {
            node.inbox.pop_front();
            node.traffic.inbox_dropped += 1;
        }
        node.inbox.push_back((from, frame));
        self.go_on(index);
    }

    /// A node handles what waits for it and sends what it has, as far as it can now.
    pub(super) fn go_on(&mut self, index: usize) {
        while let Some((from, frame)) = self.take_frame(index) {
            self.handle(index, from, &frame);
        }
        self.send_all(index);
    }

    fn take_frame(&mut self, index: usize) -> Option<(usize, Bytes)> {
        let now_ms = self.now_ms;
        let node = &mut self.nodes[index];
        if !node.is_running() || !node.is_connected || node.inbox.is_empty() {
            return None;
        }
        if now_ms < node.busy_until_ms {
            let busy_until_ms = node.busy_until_ms;
            self.wake(index, busy_until_ms);
            return None;
        }
        node.busy_until_ms = now_ms.saturating_add(node.frame_ms);
        node.inbox.pop_front()
    }

    fn handle(&mut self, index: usize, from: usize, frame: &Bytes) {
        let now = self.now(index);
        let node = &mut self.nodes[index];
        let Some(replica) = &mut node.replica else { return };
        node.store.set_now(now);
        replica.handle(now, frame.clone());
        self.emit(&Event::Handled { node: index, from, frame });
    }

    /// Sends while the transport has room.
    fn send_all(&mut self, index: usize) {
        loop {
            let now_ms = self.now_ms;
            let node = &mut self.nodes[index];
            if !node.is_running() || !node.is_connected {
                return;
            }
            let now = node.now(now_ms);
            while node.unconfirmed.front().is_some_and(|confirmed_ms| *confirmed_ms <= now_ms) {
                node.unconfirmed.pop_front();
            }
            let Some(replica) = &mut node.replica else { return };
            if node.unconfirmed.len() >= node.setup.window.max(1) {
                if let Some(confirmed_ms) = node.unconfirmed.front().copied().filter(|_| replica.has_unsent())
                {
                    self.wake(index, confirmed_ms);
                }
                return;
            }
            let Some((to, frame)) = replica.poll(now) else { return };
            if node.setup.confirm_ms > 0 {
                node.unconfirmed.push_back(now_ms.saturating_add(node.setup.confirm_ms));
            }
            self.send(index, &to, &frame);
        }
    }
}
