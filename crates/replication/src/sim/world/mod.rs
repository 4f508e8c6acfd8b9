//! The world: nodes, links, one virtual clock, and what is due.

mod due;
mod local;
mod look;
mod network;
mod node;
mod script;

use std::{cell::Cell, collections::BinaryHeap};

pub use self::look::Difference;
use self::{
    due::{Due, Entry},
    node::Node,
};
use super::{Action, Event, Link, MapStore, NodeSetup, SimStore, link::Way, trace::Trace};

/// Between two ticks of a node, in milliseconds, as in the driver.
pub const TICK_MS: u64 = 25;

/// What the wall clocks show at virtual time 0, in milliseconds since the Unix epoch: in November 2023.
pub const START_WALL_MS: u64 = 1_700_000_000_000;

/// Told of each event, with the world after it.
type Observer<S> = Box<dyn FnMut(&World<S>, &Event<'_>)>;

/// A simulated cluster in virtual time. See the [module](super) for what it is and an example.
pub struct World<S: SimStore = MapStore> {
    seed: u64,
    now_ms: u64,
    nodes: Vec<Node<S>>,
    /// The way from one node to another, at `from * nodes + to`.
    ways: Vec<Way>,
    /// How a link is that was not set.
    link: Link,
    due: BinaryHeap<Entry>,
    /// Numbers what is due, so that of two things due at once the one that was planned first happens first.
    planned: u64,
    observers: Vec<Observer<S>>,
    trace: Trace,
    stopped: Cell<bool>,
}

impl World {
    /// A world without nodes, whose stores will be [`MapStore`]s.
    pub fn new(seed: u64) -> Self {
        Self::with_stores(seed)
    }

    /// A world with one node, named `n1`, in each of these regions, numbered in this order from 0. All are ready from
    /// the start.
    ///
    /// # Panics
    /// If a region's name is not 1 to 63 bytes of `[a-z0-9-]`.
    pub fn of_regions<'a>(seed: u64, regions: impl IntoIterator<Item = &'a str>) -> Self {
        let mut world = Self::new(seed);
        for region in regions {
            world.add(NodeSetup::new(region, "n1").bootstrapped());
        }
        world
    }
}

impl<S: SimStore> World<S> {
    /// A world without nodes, whose stores will be of type `S`.
    pub fn with_stores(seed: u64) -> Self {
        Self {
            seed,
            now_ms: 0,
            nodes: Vec::new(),
            ways: Vec::new(),
            link: Link::default(),
            due: BinaryHeap::new(),
            planned: 0,
            observers: Vec::new(),
            trace: Trace::default(),
            stopped: Cell::new(false),
        }
    }

    /// Adds a node and starts it; returns its number. Nodes are numbered from 0. Two of one name are two processes that
    /// claim to be the same node.
    pub fn add(&mut self, setup: NodeSetup) -> usize {
        let index = self.nodes.len();
        self.nodes.push(Node::new(setup, self.now_ms, index));
        self.ways = self.ways_for(index + 1);
        self.begin_life(index);
        index
    }

    /// The virtual time, in milliseconds since the world began.
    pub fn time_ms(&self) -> u64 {
        self.now_ms
    }

    /// The seed that decides all chance in this world.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How many nodes there are, down ones included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The setup of a node, to be changed; a change of anything but its wall clock takes effect when it starts next.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn setup(&mut self, node: usize) -> &mut NodeSetup {
        &mut self.nodes[node].setup
    }

    /// Calls `observer` after every event from now on, with the world as it is then. To end a run from it, see
    /// [`Self::stop`].
    pub fn observe(&mut self, observer: impl FnMut(&World<S>, &Event<'_>) + 'static) {
        self.observers.push(Box::new(observer));
    }

    /// Ends the run that is going on after the event at hand, and every later one at once: for an observer that has
    /// seen enough.
    pub fn stop(&self) {
        self.stopped.set(true);
    }

    /// Whether [`Self::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// A running hash of all that happened so far: equal for two runs of the same seed and schedule.
    pub fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    /// Keeps the last `lines_max` events as text from now on. Default none.
    pub fn keep_trace(&mut self, lines_max: usize) {
        self.trace.keep(lines_max);
    }

    /// The last events as text, oldest first.
    pub fn trace(&self) -> impl Iterator<Item = &str> {
        self.trace.lines()
    }

    /// Lets so much time pass, with everything that is due in it.
    pub fn run_ms(&mut self, ms: u64) {
        self.run_until(self.now_ms + ms);
    }

    /// Lets time pass up to this moment, with everything that is due until then. A moment that is past is now.
    pub fn run_until(&mut self, at_ms: u64) {
        while !self.stopped.get() {
            let Some(next) = self.next().filter(|(due_ms, _)| *due_ms <= at_ms) else { break };
            self.take(next);
        }
        if !self.stopped.get() {
            self.now_ms = self.now_ms.max(at_ms);
            self.tell_time_to_all();
        }
    }

    /// Runs until `wanted` holds, for at most `ms_max`; returns after how many milliseconds it did. It is looked at
    /// now and then once after each millisecond in which something happened.
    #[must_use = "None says that it did not come about in time"]
    pub fn until(&mut self, ms_max: u64, mut wanted: impl FnMut(&Self) -> bool) -> Option<u64> {
        let began_ms = self.now_ms;
        loop {
            if wanted(self) {
                return Some(self.now_ms - began_ms);
            }
            let next = self.next().filter(|(due_ms, _)| *due_ms <= began_ms + ms_max);
            let Some((due_ms, _)) = next.filter(|_| !self.stopped.get()) else { break };
            self.run_until(due_ms);
        }
        self.run_until(began_ms + ms_max);
        (!self.stopped.get() && wanted(self)).then_some(ms_max)
    }

    /// Has this happen at a moment of the virtual time; at one that is past it happens first thing when time goes on.
    /// Of two at one moment, the one that was given first happens first.
    pub fn at(&mut self, at_ms: u64, action: Action) {
        self.plan(at_ms.max(self.now_ms), Due::Action(action));
    }

    /// Has all of these happen, each at its moment.
    pub fn play<'a>(&mut self, schedule: impl IntoIterator<Item = &'a (u64, Action)>) {
        for (at_ms, action) in schedule {
            self.at(*at_ms, action.clone());
        }
    }

    fn emit(&mut self, event: &Event<'_>) {
        self.trace.note(self.now_ms, event);
        if self.observers.is_empty() {
            return;
        }
        let mut observers = std::mem::take(&mut self.observers);
        for observer in &mut observers {
            observer(self, event);
        }
        self.observers = observers;
    }
}

impl<S: SimStore> std::fmt::Debug for World<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("seed", &self.seed)
            .field("now_ms", &self.now_ms)
            .field("nodes", &self.nodes.len())
            .field("due", &self.due.len())
            .finish_non_exhaustive()
    }
}
