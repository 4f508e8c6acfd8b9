//! Looks at a world after each event, and asks the invariants.

use std::collections::{BTreeSet, HashMap};

use replication::{
    Op, Origin,
    message::{Bar, Message},
    replica::{Progress, Token},
    sim::{Event, FrameKind, SimStore as _, World},
};

use super::{
    invariant::{self, At, Claims, End, Invariant, Others, Receipt, Session, Settled, Sizes, Verdict},
    key::{self, KEYS_MAX},
    ledger::{Clear, Ledger, Write},
    watched::Watched,
};

/// How many of a life's newest writes are asked about, each time somebody is asked about them.
const ASKED_WRITES: usize = 3;

/// An invariant that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// When, in virtual milliseconds.
    pub at_ms: u64,
    /// How.
    pub text: String,
}

/// What is known of the nodes, and the invariants with what they remember.
pub struct Watch {
    ledger: Ledger,
    told: Vec<[Bar; KEYS_MAX]>,
    of_origin: HashMap<Origin, usize>,
    invariants: Vec<Box<dyn Invariant>>,
    quiet: Vec<[u64; FrameKind::ALL.len()]>,
    violation: Option<Violation>,
    /// Whether a node is known to be ready.
    is_ready: HashMap<usize, bool>,
    /// How many pages each life of a node has taken.
    pages_taken: HashMap<(usize, u64), u64>,
}

impl Default for Watch {
    fn default() -> Self {
        Self::of(invariant::all())
    }
}

impl Watch {
    /// A watch for these invariants alone.
    pub fn of(invariants: Vec<Box<dyn Invariant>>) -> Self {
        Self {
            ledger: Ledger::default(),
            told: Vec::new(),
            of_origin: HashMap::new(),
            invariants,
            quiet: Vec::new(),
            violation: None,
            is_ready: HashMap::new(),
            pages_taken: HashMap::new(),
        }
    }

    /// The first invariant that was broken.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// What was written so far.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Takes note of an event; stops the world when an invariant is broken.
    pub fn see(&mut self, world: &World<Watched>, event: &Event<'_>) {
        match *event {
            Event::Sent { .. } | Event::Acted { .. } => {}
            Event::Started { node, .. } => self.see_start(world, node),
            Event::Crashed { node, .. } => self.see_end(world, node),
            Event::Wrote { node, key, op, stamp } => {
                if let Some(key) = key::number(key) {
                    self.see_write(world, node, key, op, stamp);
                }
                self.see_touched(world, node);
                self.see_sizes(world, node);
            }
            Event::Cleared { node, namespace, stamp } => {
                if let (Some(stamp), Some(replica)) = (stamp, world.replica(node)) {
                    let namespace = bytes::Bytes::copy_from_slice(namespace);
                    self.ledger.add_clear(Clear { namespace, stamp, stream: replica.stream() });
                }
                self.see_touched(world, node);
            }
            Event::Handled { node, from, .. } => {
                self.see_touched(world, node);
                self.see_readiness(world, node);
                if event.kind() == Some(FrameKind::SyncPage) {
                    self.see_page(world, node, event);
                }
                match event.kind() {
                    Some(FrameKind::Records | FrameKind::SyncPage) => {
                        self.see_claims(world, node);
                        self.see_sessions(world, node, from);
                        self.see_sizes(world, node);
                    }
                    Some(FrameKind::Beat) => {
                        self.see_claims(world, node);
                        self.see_receipts(world, node);
                        self.see_sessions(world, node, from);
                    }
                    _ => {}
                }
            }
            Event::Read { node, .. } | Event::Ticked { node } => {
                self.see_touched(world, node);
                self.see_readiness(world, node);
            }
            _ => {}
        }
        if self.violation.is_some() {
            world.stop();
        }
    }

    /// From here on nothing but beats and scrub is expected to be sent.
    pub fn begin_quiet(&mut self, world: &World<Watched>) {
        let sent = |node| FrameKind::ALL.map(|kind| world.traffic(node).frames(kind));
        self.quiet = (0..world.len()).map(sent).collect();
    }

    /// Asks what must hold when all is settled.
    pub fn see_settled(&mut self, world: &World<Watched>, is_plenty: bool) {
        let nodes: Vec<Settled> = (0..world.len()).map(|node| self.settled(world, node)).collect();
        let sent = |kind: FrameKind| {
            let before = |node: usize| self.quiet.get(node).map_or(0, |sent| sent[kind as usize]);
            (0..world.len()).map(|node| world.traffic(node).frames(kind) - before(node)).sum()
        };
        let progress = |node: usize, token: Token| {
            let replica = world.replica(node);
            replica.map_or(Progress::Lost, |replica| replica.progress(world.now(node), token))
        };
        let streams = (0..world.len()).filter_map(|node| Some(world.replica(node)?.stream()));
        let epochs = streams.map(|stream| (stream.origin, stream.epoch)).collect();
        let end = End {
            epochs: &epochs,
            now_ms: world.time_ms(),
            ledger: &self.ledger,
            nodes: &nodes,
            is_plenty,
            progress: &progress,
            sent: &sent,
        };
        let mut broken = None;
        for invariant in &mut self.invariants {
            if let Err(text) = invariant.settled(&end) {
                broken = Some((invariant.name(), text));
                break;
            }
        }
        self.note(world.time_ms(), broken);
    }

    fn settled(&self, world: &World<Watched>, node: usize) -> Settled {
        let status = world.status(node).unwrap_or_default();
        Settled {
            is_up: world.is_up(node),
            is_ready: status.ready,
            failure: status.failure.map(|failure| failure.to_string()),
            told: self.told[node],
            shown: (0..KEYS_MAX).map(|key| world.store(node).shown(key)).collect(),
            counters: status.counters,
        }
    }

    fn see_start(&mut self, world: &World<Watched>, node: usize) {
        if self.told.len() <= node {
            self.told.resize(node + 1, [Bar::NONE; KEYS_MAX]);
        }
        self.told[node] = [Bar::NONE; KEYS_MAX];
        self.of_origin.insert(world.id(node).origin(), node);
        let at = at(world, node);
        let ready: Vec<usize> =
            (0..world.len()).filter(|other| *other != node && world.is_ready(*other)).collect();
        let bars = |node: usize, key: usize| world.store(node).bar(key::text(key).as_bytes());
        let others = Others { ready: &ready, bars: &bars };
        self.invariants.iter_mut().for_each(|invariant| invariant.started(at, &others));
        self.is_ready.insert(node, false);
        self.see_readiness(world, node);
    }

    fn see_readiness(&mut self, world: &World<Watched>, node: usize) {
        if self.is_ready.get(&node) == Some(&false) && world.is_ready(node) {
            self.is_ready.insert(node, true);
            let at = at(world, node);
            let bars = |key: usize| world.store(node).bar(key::text(key).as_bytes());
            self.invariants.iter_mut().for_each(|invariant| invariant.readied(at, &bars));
        }
    }

    /// A page counts if the node took it, rather than ignored it as one that it did not ask for.
    fn see_page(&mut self, world: &World<Watched>, node: usize, event: &Event<'_>) {
        let at = at(world, node);
        let Some(status) = world.status(node) else { return };
        let before = self.pages_taken.insert((node, world.life(node)), status.counters.pages_taken);
        let Some(Message::SyncPage(page)) = event.message().map(|frame| frame.message) else { return };
        if status.counters.pages_taken == before.unwrap_or(0) {
            return;
        }
        let bars = |key: usize| world.store(node).bar(key::text(key).as_bytes());
        let broken = ask(&mut self.invariants, |invariant| invariant.took_page(at, &page, &bars));
        self.note(world.time_ms(), broken);
    }

    fn see_end(&mut self, world: &World<Watched>, node: usize) {
        let at = at(world, node);
        let bars = |key: usize| world.store(node).bar(key::text(key).as_bytes());
        self.invariants.iter_mut().for_each(|invariant| invariant.ended(at, &bars));
    }

    fn see_write(
        &mut self,
        world: &World<Watched>,
        node: usize,
        key: usize,
        op: &Op,
        stamp: replication::Stamp,
    ) {
        let Some(replica) = world.replica(node) else { return };
        let (value, ttl) = match op {
            Op::Put(value) => (Some(value.bytes.clone()), value.ttl),
            _ => (None, None),
        };
        let deadline_ms = ttl.map(|ttl| world.time_ms() + ttl.left_ms);
        let write = Write { key, stamp, node, stream: replica.stream(), value, deadline_ms };
        let shown = world.store(node).shown(key);
        let at = at(world, node);
        let write = self.ledger.add(write);
        let broken = ask(&mut self.invariants, |invariant| invariant.wrote(at, write, &shown));
        self.note(world.time_ms(), broken);
    }

    fn see_touched(&mut self, world: &World<Watched>, node: usize) {
        let store = world.store(node);
        let Some(touched) = store.take_touched() else { return };
        for &(key, bar) in &touched.told {
            let told = &mut self.told[node][key];
            *told = bar.max(*told);
        }
        for &(key, before, after) in &touched.reissued {
            if let Some(replica) = world.replica(node) {
                self.ledger.reissue(key, before, after, replica.stream());
            }
        }
        let at = at(world, node);
        for key in touched.keys() {
            let shown = store.shown(key);
            let ledger = &self.ledger;
            let broken = ask(&mut self.invariants, |invariant| invariant.shows(at, ledger, &shown));
            self.note(world.time_ms(), broken);
        }
    }

    fn see_claims(&mut self, world: &World<Watched>, node: usize) {
        let Some(status) = world.status(node) else { return };
        let at = at(world, node);
        let bars = |key: usize| world.store(node).bar(key::text(key).as_bytes());
        let claims = Claims { streams: &status.streams };
        let ledger = &self.ledger;
        let broken = ask(&mut self.invariants, |invariant| invariant.claims(at, ledger, &claims, &bars));
        self.note(world.time_ms(), broken);
    }

    /// The writer is asked who has its newest writes.
    fn see_receipts(&mut self, world: &World<Watched>, node: usize) {
        let Some(replica) = world.replica(node) else { return };
        let at = at(world, node);
        let bars = |node: usize, key: usize| world.store(node).bar(key::text(key).as_bytes());
        let mut broken = None;
        for write in self.ledger.of_stream(replica.stream()).rev().take(ASKED_WRITES) {
            let token = Token { stream: write.stream, hlc: write.stamp.hlc };
            for region in replica.regions_with(token) {
                let nodes = (0..world.len()).filter(|node| *world.id(*node).region() == region);
                let nodes: BTreeSet<usize> = nodes.collect();
                let receipt = Receipt { write, nodes: &nodes };
                broken = broken.or_else(|| {
                    ask(&mut self.invariants, |invariant| invariant.receipt(at, &receipt, &bars))
                });
            }
        }
        self.note(world.time_ms(), broken);
    }

    /// Sessions that wrote on `writer` come to `node`.
    fn see_sessions(&mut self, world: &World<Watched>, node: usize, writer: usize) {
        let (Some(replica), Some(of)) = (world.replica(node), world.replica(writer)) else { return };
        let at = at(world, node);
        let bars = |key: usize| world.store(node).bar(key::text(key).as_bytes());
        let mut broken = None;
        for write in self.ledger.of_stream(of.stream()).rev().take(ASKED_WRITES) {
            let token = Token { stream: write.stream, hlc: write.stamp.hlc };
            let session = Session { write, progress: replica.progress(world.now(node), token) };
            broken = broken
                .or_else(|| ask(&mut self.invariants, |invariant| invariant.session(at, &session, &bars)));
        }
        self.note(world.time_ms(), broken);
    }

    fn see_sizes(&mut self, world: &World<Watched>, node: usize) {
        let Some(replica) = world.replica(node) else { return };
        let status = replica.status(world.now(node));
        let (entries, graves) = world.store(node).sizes();
        let outbox = world.outbox(node).stats();
        let sizes = Sizes {
            entries,
            graves,
            outbox_records: outbox.records,
            outbox_bytes: outbox.bytes,
            messages: status.messages,
            message_bytes: status.message_bytes,
            streams: status.streams.len(),
            peers: status.peers.len(),
            setup: world.setup_of(node),
        };
        let at = at(world, node);
        let broken = ask(&mut self.invariants, |invariant| invariant.grew(at, &sizes));
        self.note(world.time_ms(), broken);
    }

    fn note(&mut self, at_ms: u64, broken: Option<(&'static str, String)>) {
        if let (Some((invariant, text)), None) = (broken, &self.violation) {
            self.violation = Some(Violation { invariant, at_ms, text });
        }
    }
}

fn at(world: &World<Watched>, node: usize) -> At {
    At { now_ms: world.time_ms(), node, origin: world.id(node).origin(), wall_ms: world.now(node).wall_ms }
}

/// The first invariant that says it is broken.
fn ask(
    invariants: &mut [Box<dyn Invariant>],
    mut question: impl FnMut(&mut dyn Invariant) -> Verdict,
) -> Option<(&'static str, String)> {
    for invariant in invariants {
        if let Err(text) = question(invariant.as_mut()) {
            return Some((invariant.name(), text));
        }
    }
    None
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "broken at {} ms: {}: {}", self.at_ms, self.invariant, self.text)
    }
}
