//! A simulated cluster: rehearse an outage of your own in a unit test.
//!
//! A [`World`] runs the real [`Replica`](crate::replica::Replica)s, stores and frames in virtual time. Links have
//! round-trip times, lose, repeat, delay and corrupt frames, and are cut; processes crash, start again with nothing in
//! memory, stop and go on, fall behind, lose their transport; clocks are skewed, step and drift. A minute of three
//! regions takes some milliseconds, and the same seed always gives the same minute.
//!
//! ```
//! use replication::sim::{Action, World};
//!
//! let mut world = World::of_regions(7, ["us-east", "eu-central", "ap-south"]);
//! let [us, eu, ap] = [0, 1, 2];
//! world.rtt(us, eu, 90);
//! world.rtt(us, ap, 220);
//! world.rtt(eu, ap, 120);
//! world.at(1_000, Action::put(us, "price", "10"));
//! world.at(10_000, Action::partition([ap], [us, eu]));
//! world.at(20_000, Action::put(us, "price", "12"));
//! world.at(25_000, Action::Crash { node: eu });
//! world.at(26_000, Action::Step { node: eu, by_ms: -60_000 }); // its clock goes back a minute
//! world.at(27_000, Action::Start { node: eu });
//! world.at(40_000, Action::Heal);
//!
//! world.run_until(39_000);
//! assert_eq!(world.text(ap, "price").as_deref(), Some("10"), "cut off, it serves what it has");
//! assert_eq!(world.text(eu, "price").as_deref(), Some("12"), "it caught up before it served again");
//! world.run_until(40_000);
//! assert!(world.until(10_000, |world| world.converged()).is_some(), "{:?}", world.differences());
//! for node in [us, eu, ap] {
//!     assert_eq!(world.text(node, "price").as_deref(), Some("12"));
//! }
//! ```
//!
//! # How it works
//! **The state machine is driven directly.** The replica is told the time and what arrived and says what to send, so
//! the world needs no sockets, tasks or threads and simulates none: what could differ from production is the driver's
//! loop alone, and the world does what that does. It ticks every node each [`TICK_MS`], lets it send after whatever
//! happened to it while its transport has room ([`NodeSetup::window`]), and lets records gather meanwhile. Simulating a
//! network stack below the transports was rejected: lapin would need a simulated broker, and most of the time would go
//! into code that is not ours.
//!
//! **Time is a heap of what is due.** Nothing happens between two things that are due, so nothing is spent on it. At
//! one moment scripted actions come first, then frames, then nodes that have something to send, then ticks; of a kind,
//! what was planned first.
//!
//! **Chance is a hash, not a sequence.** What befalls a frame depends on the seed, the link and the moment alone.
//! Taking one line out of a schedule therefore leaves the fate of the frames of all other moments as it was, which is
//! what makes a failing schedule shrink. (A count per link in the place of the moment would shift all that follow.)
//!
//! **A schedule is a value.** An [`Action`] can be printed, kept by serde, left out and played again
//! ([`World::play`]); one that does not apply does nothing.
//!
//! **Invariants hang on events.** [`World::observe`] calls a closure after every [`Event`], with the world as it is
//! then: after a frame was handled, a node ticked, a value was written, a frame was sent. While nobody observes, that
//! costs a branch.
//!
//! # What to rely on
//! - One seed with one schedule gives one [`World::trace_hash`], on any machine, in any build.
//! - A frame that is on its way when its link is cut, its sender crashes or its receiver starts again arrives all the
//!   same: transports queue, and the protocol has to bear it.
//! - A node serves while it is warming or cut off, as a real one does; ask [`World::is_ready`].
//! - What waits is bounded: frames for a node that does not take them ([`NodeSetup::inbox_frames_max`], counted in
//!   [`Traffic`]), frames for a narrow link ([`LINK_WAIT_MS_MAX`], lost), the lines of a trace.
//!
//! # Stores
//! Nodes keep their records in a [`MapStore`] unless another [`SimStore`] is named ([`World::with_stores`]): a store of
//! your own is tested under the same outages by the same invariants.

mod action;
mod event;
mod link;
mod map_store;
mod setup;
mod store;
mod trace;
mod world;

pub use self::{
    action::Action,
    event::{Event, FrameKind, Traffic},
    link::{Fate, LINK_WAIT_MS_MAX, Link},
    map_store::MapStore,
    setup::{INBOX_FRAMES_MAX, NodeSetup},
    store::{Held, SimStore, StoreSettings},
    world::{Difference, START_WALL_MS, TICK_MS, World},
};
pub use crate::replica::Rules;

#[cfg(test)]
mod tests;
