//! A simulated cluster: rehearse an outage in a unit test.

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
