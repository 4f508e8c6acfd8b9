//! How a simulated node is laid out.

use super::StoreSettings;
use crate::{
    node::NodeId,
    replica::{OUTBOX_BYTES_MAX, ReplicaConfig, Rules},
};

/// Frames that wait for a node that is paused, slow or not connected, unless its setup says otherwise.
pub const INBOX_FRAMES_MAX: usize = 10_000;

/// How a node is laid out: read whenever its process starts.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeSetup {
    /// The replica's timers and bounds. Its rules are replaced by [`Self::rules`], and whether it is ready at once
    /// (`bootstrap`) counts for the life that begins next only.
    pub config: ReplicaConfig,
    /// The most entries its store holds. Default 100,000.
    pub capacity: usize,
    /// The most graves its store keeps. Default 100,000.
    pub graves_max: usize,
    /// The bound of its outbox. Default [`OUTBOX_BYTES_MAX`].
    pub outbox_bytes_max: usize,
    /// Frames that wait while it is paused, slow or not connected; past it the oldest is dropped and counted. Default
    /// [`INBOX_FRAMES_MAX`].
    pub inbox_frames_max: usize,
    /// Publishes that its transport takes unconfirmed. Default 4.
    pub window: usize,
    /// How long its transport takes to confirm a publish, in milliseconds. Default 1.
    pub confirm_ms: u64,
    /// How far its wall clock is ahead of the world's from the start, in milliseconds. Default 0. To move the clock
    /// later, see [`World::step_clock`](super::World::step_clock).
    pub skew_ms: i64,
    /// The rules that it follows. Default all.
    pub rules: Rules,
}

impl NodeSetup {
    /// A node that starts warming, with every default.
    ///
    /// # Panics
    /// If a name is not 1 to 63 bytes of `[a-z0-9-]`.
    pub fn new(region: &str, name: &str) -> Self {
        let node = region.parse().and_then(|region| NodeId::new(region, name));
        match node {
            Ok(node) => Self::of(node),
            Err(error) => panic!("cannot set up the node {region:?}/{name:?}: {error}"),
        }
    }

    /// A node that starts warming, with every default.
    pub fn of(node: NodeId) -> Self {
        Self {
            config: ReplicaConfig::new(node),
            capacity: 100_000,
            graves_max: 100_000,
            outbox_bytes_max: OUTBOX_BYTES_MAX,
            inbox_frames_max: INBOX_FRAMES_MAX,
            window: 4,
            confirm_ms: 1,
            skew_ms: 0,
            rules: Rules::ALL,
        }
    }

    /// Ready at once instead of warming, in the life that it begins next; those after it warm all the same.
    #[must_use]
    pub fn bootstrapped(mut self) -> Self {
        self.config.bootstrap = true;
        self
    }

    /// Changes the replica's timers and bounds.
    #[must_use]
    pub fn config(mut self, change: impl FnOnce(&mut ReplicaConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Bounds the store.
    #[must_use]
    pub fn store(self, capacity: usize, graves_max: usize) -> Self {
        Self { capacity, graves_max, ..self }
    }

    /// Bounds the outbox.
    #[must_use]
    pub fn outbox_bytes_max(self, outbox_bytes_max: usize) -> Self {
        Self { outbox_bytes_max, ..self }
    }

    /// Sets how far the wall clock is ahead of the world's.
    #[must_use]
    pub fn skew_ms(self, skew_ms: i64) -> Self {
        Self { skew_ms, ..self }
    }

    /// Follows only these rules.
    #[must_use]
    pub fn rules(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    pub(super) fn store_settings(&self) -> StoreSettings {
        StoreSettings { capacity: self.capacity, graves_max: self.graves_max, rules: self.rules }
    }
}
