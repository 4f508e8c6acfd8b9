//! The in-memory transport: a hub that joins nodes of one process.
//!
//! For clusters in one process, demos and tests. Frames are opaque bytes, encoded and decoded as on a real network, and
//! faults can be switched on while it runs:
//!
//! | fault | as where | begins, ends |
//! |---|---|---|
//! | loss, delay, duplicates, reordering, flipped bits, a bounded rate | a poor link; each direction by itself | [`Hub::set_faults`], [`Hub::set_link_faults`] with [`Faults`] |
//! | frames lost one way or both | a partition | [`Hub::cut`], [`Hub::mend`] |
//! | frames kept and delivered later | a broker's link that is down | [`Hub::hold`], [`Hub::release`] |
//! | a node or a region cut off | a region without its uplink | [`Hub::isolate`], [`Hub::readmit`] |
//! | no connection | a broker that is gone | [`Hub::disconnect`], [`Hub::reconnect`] |
//! | publishes that fail, fail though carried, or are answered late | a broker short of memory | [`Hub::set_publish_faults`] with [`PublishFaults`] |
//! | publishes neither carried nor answered | a broker that is frozen | [`Hub::freeze`], [`Hub::thaw`] |
//! | frames taken slowly | a node that cannot keep up | [`Hub::slow`], [`Hub::hasten`] |
//!
//! [`Hub::heal`] ends them all, and [`Stats`] counts what each did.
//!
//! **Why a seed.** One seed decides the fate of each frame from its link and its number on that link alone. So a run
//! can be repeated, and a change on one link does not reshuffle the others, which a shared stream of random numbers
//! would do.
//!
//! **Why no task.** A frame in flight waits in its receiver's queue with the time at which it is due, and the receiver
//! sleeps until then. Nothing is spawned, so nothing outlives the hub, and a paused tokio clock drives it all.
//!
//! # Behaviour
//! - A node's queue begins with its first subscription and lasts until its transport is closed, dropped or replaced, as
//!   a broker's queue does. It is bounded by [`Limits`]; beyond the bound the *oldest* frame goes, and is counted.
//! - A frame that was not acknowledged is delivered again after the next subscription. At most
//!   [`Limits::unacked_frames`] are unacknowledged at a time; the next one waits for an acknowledgement.
//! - Frames from one node to another keep their order unless a fault reorders them. A broadcast does not come back.
//! - A node that joins under an id that is there already takes its place: the older transport is closed. The queue of
//!   the older life goes with it.
//! - Frames on a cut link are lost silently, as between brokers; frames in flight when it is cut still arrive.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! use bytes::Bytes;
//! use replication::{Destination, NodeId, Transport, memory::Hub};
//!
//! let hub = Hub::new();
//! let here = hub.join(NodeId::new("us-east".parse()?, "node-1")?);
//! let there = hub.join(NodeId::new("ap-south".parse()?, "node-1")?);
//! let mut frames = there.subscribe().await?;
//! here.publish(Destination::Everyone, Bytes::from_static(b"frame")).await?;
//! let delivery = frames.next().await.expect("the subscription lasts");
//! assert_eq!(delivery.frame, "frame");
//! delivery.ack.done();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod fault;
mod inbox;
mod publish;
mod state;
mod transport;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;

use self::{fault::Rule, state::State};
pub use self::{
    fault::{Faults, Place},
    publish::PublishFaults,
    transport::HubTransport,
};
use crate::node::NodeId;

/// What a hub keeps in memory at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Frames queued for one node. Default 10,000; beyond it the oldest goes.
    pub inbox_frames: usize,
    /// Bytes of frames queued for one node and not acknowledged by it. Default 64 MiB; beyond it the oldest queued goes.
    pub inbox_bytes: usize,
    /// Frames delivered to one node and not acknowledged by it. Default 256; beyond it the next waits.
    pub unacked_frames: usize,
    /// Frames held on one link, and publishes of one frozen node. Default 10,000; beyond it the oldest goes.
    pub held_frames: usize,
    /// Bytes of frames held on one link, and of one frozen node. Default 64 MiB; beyond it the oldest goes.
    pub held_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inbox_frames: 10_000,
            inbox_bytes: 64 << 20,
            unacked_frames: 256,
            held_frames: 10_000,
            held_bytes: 64 << 20,
        }
    }
}

/// What a hub did with the frames given to it. Counts rise for ever, but for `queued`, `held` and `frozen`, which are of
/// now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Frames that were accepted from publishers.
    pub published: u64,
    /// Frames that were handed to subscriptions, repeated deliveries included.
    pub delivered: u64,
    /// Of these, those handed out again because they had not been acknowledged.
    pub redelivered: u64,
    /// Frames that their receivers rejected ([`Ack::reject`](crate::Ack::reject)).
    pub rejected: u64,
    /// Frames, per receiver, lost by chance.
    pub dropped: u64,
    /// Frames, per receiver, lost on a cut link or to an isolated node.
    pub cut: u64,
    /// Frames, per receiver, that were doubled.
    pub duplicated: u64,
    /// Frames, per receiver, that later ones may overtake.
    pub reordered: u64,
    /// Frames, per receiver, of which a bit was flipped.
    pub corrupted: u64,
    /// Frames, per receiver, that waited until a link of a bounded rate had carried those before.
    pub throttled: u64,
    /// Frames that were handed over later than they were there, because their receiver is slow.
    pub slowed: u64,
    /// Publishes that failed by chance, their frames not carried.
    pub failed: u64,
    /// Publishes that failed by chance, their frames carried all the same.
    pub denied: u64,
    /// Publishes that were answered late by chance.
    pub stalled: u64,
    /// Frames that went from a full queue or a full hold.
    pub overflowed: u64,
    /// Frames that were held for a node that was gone when they were released.
    pub orphaned: u64,
    /// Addressed frames that nobody was there to take.
    pub unroutable: u64,
    /// Frames queued for nodes now, those in flight included.
    pub queued: usize,
    /// Frames held on links now.
    pub held: usize,
    /// Publishes of frozen nodes now.
    pub frozen: usize,
}

/// Joins the nodes of one cache within one process. Cheap to clone; all clones are one hub.
#[derive(Debug, Clone)]
pub struct Hub {
    state: Arc<Mutex<State>>,
}

impl Default for Hub {
    fn default() -> Self {
        Self::new()
    }
}

impl Hub {
    /// A hub without faults, with seed 0.
    pub fn new() -> Self {
        Self::seeded(0)
    }

    /// A hub without faults, whose chance faults, once switched on, follow this seed.
    pub fn seeded(seed: u64) -> Self {
        Self::with_limits(seed, Limits::default())
    }

    /// A hub with other limits than the default ones.
    pub fn with_limits(seed: u64, limits: Limits) -> Self {
        Self { state: Arc::new(Mutex::new(State::new(seed, limits))) }
    }

    /// Joins a node and gives its end of the transport. A node of the same id that is there already is closed and
    /// replaced.
    pub fn join(&self, node: NodeId) -> Arc<HubTransport> {
        let (life, health) = self.state.lock().join(&node);
        Arc::new(HubTransport::new(Arc::clone(&self.state), node, life, health))
    }

    /// Sets the chance faults of every link that has none of its own.
    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// Sets the chance faults from one place to another, one way. Of several settings that match a link, the last one
    /// made counts.
    pub fn set_link_faults(&self, from: impl Into<Place>, to: impl Into<Place>, faults: Faults) {
        self.state.lock().set_link_faults(Rule::new(from, to), faults);
    }

    /// Loses what is published from one place to the other, until [`mend`](Self::mend) or [`heal`](Self::heal).
    pub fn cut(&self, from: impl Into<Place>, to: impl Into<Place>) {
        self.state.lock().cut(Rule::new(from, to));
    }

    /// Cuts both ways.
    pub fn cut_both(&self, one: impl Into<Place>, other: impl Into<Place>) {
        let rule = Rule::new(one, other);
        let mut state = self.state.lock();
        state.cut(rule.reversed());
        state.cut(rule);
    }

    /// Takes back a [`cut`](Self::cut) between the same two places.
    pub fn mend(&self, from: impl Into<Place>, to: impl Into<Place>) {
        self.state.lock().mend(&Rule::new(from, to));
    }

    /// Takes back a [`cut_both`](Self::cut_both) between the same two places.
    pub fn mend_both(&self, one: impl Into<Place>, other: impl Into<Place>) {
        let rule = Rule::new(one, other);
        let mut state = self.state.lock();
        state.mend(&rule.reversed());
        state.mend(&rule);
    }

    /// Keeps what is published from one place to the other, within [`Limits`], until [`release`](Self::release) or
    /// [`heal`](Self::heal).
    pub fn hold(&self, from: impl Into<Place>, to: impl Into<Place>) {
        self.state.lock().hold(Rule::new(from, to));
    }

    /// Ends a [`hold`](Self::hold) between the same two places and delivers what was kept, in order.
    pub fn release(&self, from: impl Into<Place>, to: impl Into<Place>) {
        self.state.lock().release(&Rule::new(from, to));
    }

    /// Cuts a node, or a region as a whole, from all others, both ways. Nodes within the region still hear each other.
    pub fn isolate(&self, place: impl Into<Place>) {
        self.state.lock().isolate(place.into());
    }

    /// Takes back an [`isolate`](Self::isolate) of the same place.
    pub fn readmit(&self, place: impl Into<Place>) {
        self.state.lock().readmit(&place.into());
    }

    /// Sets what happens by chance to the publishes of a node, of a region's nodes, or of all. Of several settings that
    /// match a node, the last one made counts.
    pub fn set_publish_faults(&self, place: impl Into<Place>, faults: PublishFaults) {
        self.state.lock().set_publish_faults(place.into(), faults);
    }

    /// Lets publishes from a place wait: none is carried or answered, within [`Limits`], until [`thaw`](Self::thaw) or
    /// [`heal`](Self::heal). A publish that was given up meanwhile is carried all the same, as from a broker's socket.
    pub fn freeze(&self, place: impl Into<Place>) {
        self.state.lock().freeze(place.into());
    }

    /// Ends a [`freeze`](Self::freeze) of the same place: carries what was published, in order, and answers.
    pub fn thaw(&self, place: impl Into<Place>) {
        self.state.lock().thaw(&place.into());
    }

    /// Hands frames to a place's nodes no faster than one in this time each, until [`hasten`](Self::hasten) or
    /// [`heal`](Self::heal). Of several settings that match a node, the last one made counts.
    pub fn slow(&self, place: impl Into<Place>, each: Duration) {
        self.state.lock().slow(place.into(), each);
    }

    /// Takes back a [`slow`](Self::slow) of the same place.
    pub fn hasten(&self, place: impl Into<Place>) {
        self.state.lock().hasten(&place.into());
    }

    /// Takes a node's connection down: its health is `Connecting`, its subscription ends, what it publishes is refused as
    /// unavailable. Its queue goes on filling.
    pub fn disconnect(&self, node: &NodeId) {
        self.state.lock().disconnect(node);
    }

    /// Takes back a [`disconnect`](Self::disconnect).
    pub fn reconnect(&self, node: &NodeId) {
        self.state.lock().reconnect(node);
    }

    /// Ends every fault: chance faults, cuts, isolations, disconnections, slowness, holds and frosts (what they kept is
    /// delivered). Frames that are delayed already arrive when they are due, and answers too.
    pub fn heal(&self) {
        self.state.lock().heal();
    }

    /// What it did until now.
    pub fn stats(&self) -> Stats {
        self.state.lock().stats()
    }
}

#[cfg(test)]
mod tests;
