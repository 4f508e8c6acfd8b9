//! A scenario: how the nodes are laid out, what the links do, and what happens when.
//!
//! A seed makes one ([`Scenario::of_seed`]); from there on it is plain data, which the shrinker takes apart and which is
//! kept as a file when it found something.

mod generate;

use std::fmt;

use replication::sim::{Action, Link, NodeSetup, Rules};
use serde::{Deserialize, Serialize};

use super::key::KEYS_MAX;

/// How long the faults last, in virtual milliseconds.
pub const FAULTS_MS: u64 = 40_000;

/// How long the nodes then have to settle.
pub const SETTLE_MS: u64 = 45_000;

/// The last part of that, in which nothing but beats and scrub may be sent.
pub const QUIET_MS: u64 = 5_000;

/// A wall clock this far from the world's is mended when the faults end, and its node started again.
pub const SANE_MS: i64 = 130_000;

/// The names of the regions; where there are fewer regions than nodes, the last nodes share the first ones.
const REGIONS: [&str; 5] = ["us-east", "eu-central", "ap-south", "eu-west", "sa-east"];

/// Everything that decides a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// The world's seed: the fates of frames, the nonces of epochs.
    pub seed: u64,
    /// The nodes.
    pub nodes: Vec<NodePlan>,
    /// In how many regions they are.
    pub regions: usize,
    /// The links until the faults end.
    pub link: Link,
    /// What happens when, in virtual milliseconds. What names a node that is not there does nothing.
    pub schedule: Vec<(u64, Action)>,
}

/// How a node is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodePlan {
    /// Ready from the start rather than warming.
    pub bootstrap: bool,
    /// How far its wall clock is ahead of the world's, in milliseconds.
    pub skew_ms: i64,
    /// Entries of its store.
    pub capacity: usize,
    /// Graves of its store.
    pub graves_max: usize,
    /// Bytes of its outbox.
    pub outbox_bytes_max: usize,
    /// Bytes of its ring.
    pub ring_bytes_max: usize,
    /// Bytes of a page of a sync.
    pub page_bytes: usize,
    /// Bytes of the preview ahead of a sync.
    pub preview_bytes: usize,
    /// The rate of a sync in bytes a second; 0 for as fast as it comes.
    pub sync_bytes_per_s: u64,
    /// Stamps that a probe of the scrub compares; 0 switches the scrub off.
    pub scrub_samples: usize,
    /// Messages to single nodes that may wait.
    pub control_max: usize,
    /// Their bytes.
    pub control_bytes_max: usize,
    /// Frames that answer one pull.
    pub pull_frames_max: usize,
    /// Frames that may wait for the node.
    pub inbox_frames_max: usize,
    /// After how long unheard a peer is retired, in milliseconds.
    pub retire_ms: u64,
    /// Publishes that its transport takes unconfirmed.
    pub window: usize,
    /// How long its transport takes to confirm one, in milliseconds.
    pub confirm_ms: u64,
}

impl Default for NodePlan {
    fn default() -> Self {
        let setup = NodeSetup::new("eu-west", "n");
        let config = &setup.config;
        Self {
            bootstrap: true,
            skew_ms: setup.skew_ms,
            capacity: setup.capacity,
            graves_max: setup.graves_max,
            outbox_bytes_max: setup.outbox_bytes_max,
            ring_bytes_max: config.ring_bytes_max,
            page_bytes: config.page_bytes,
            preview_bytes: config.preview_bytes,
            sync_bytes_per_s: config.sync_bytes_per_s,
            scrub_samples: config.scrub_samples,
            control_max: config.control_max,
            control_bytes_max: config.control_bytes_max,
            pull_frames_max: config.pull_frames_max,
            inbox_frames_max: setup.inbox_frames_max,
            retire_ms: config.retire_ms,
            window: setup.window,
            confirm_ms: setup.confirm_ms,
        }
    }
}

impl NodePlan {
    /// Whether it has room for every key and for a grave of every key.
    pub fn is_plenty(&self) -> bool {
        self.capacity >= KEYS_MAX && self.graves_max >= 4 * KEYS_MAX
    }

    fn setup(&self, number: usize, regions: usize, rules: Rules) -> NodeSetup {
        let region = REGIONS[number % regions.clamp(1, REGIONS.len())];
        let mut setup = NodeSetup::new(region, &format!("n{number}"))
            .store(self.capacity, self.graves_max)
            .outbox_bytes_max(self.outbox_bytes_max)
            .skew_ms(self.skew_ms)
            .rules(rules)
            .config(|config| {
                config.bootstrap = self.bootstrap;
                config.ring_bytes_max = self.ring_bytes_max;
                config.page_bytes = self.page_bytes;
                config.preview_bytes = self.preview_bytes;
                config.sync_bytes_per_s = self.sync_bytes_per_s;
                config.scrub_samples = self.scrub_samples;
                config.control_max = self.control_max;
                config.control_bytes_max = self.control_bytes_max;
                config.pull_frames_max = self.pull_frames_max;
                config.retire_ms = self.retire_ms;
            });
        setup.inbox_frames_max = self.inbox_frames_max;
        setup.window = self.window;
        setup.confirm_ms = self.confirm_ms;
        setup
    }
}

impl Scenario {
    /// How each node is laid out, following only these rules.
    pub fn setups(&self, rules: Rules) -> impl Iterator<Item = NodeSetup> {
        let nodes = self.nodes.iter().enumerate();
        nodes.map(move |(number, node)| node.setup(number, self.regions, rules))
    }

    /// Whether every node has room for everything, so that nothing is ever forgotten for want of it.
    pub fn is_plenty(&self) -> bool {
        self.nodes.iter().all(NodePlan::is_plenty)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} nodes in {} regions; links: {}", self.nodes.len(), self.regions, self.link)?;
        let usual = NodePlan::default();
        for (number, node) in self.nodes.iter().enumerate() {
            let mut unusual = Vec::new();
            if !node.bootstrap {
                unusual.push("warming".to_owned());
            }
            if node.skew_ms != 0 {
                unusual.push(format!("clock {:+} ms", node.skew_ms));
            }
            let bounds = [
                ("capacity", node.capacity, usual.capacity),
                ("graves", node.graves_max, usual.graves_max),
                ("outbox", node.outbox_bytes_max, usual.outbox_bytes_max),
                ("ring", node.ring_bytes_max, usual.ring_bytes_max),
                ("page", node.page_bytes, usual.page_bytes),
                ("preview", node.preview_bytes, usual.preview_bytes),
                ("sync_rate", node.sync_bytes_per_s as usize, usual.sync_bytes_per_s as usize),
                ("scrub", node.scrub_samples, usual.scrub_samples),
                ("control", node.control_max, usual.control_max),
                ("control_bytes", node.control_bytes_max, usual.control_bytes_max),
                ("pull", node.pull_frames_max, usual.pull_frames_max),
                ("inbox", node.inbox_frames_max, usual.inbox_frames_max),
                ("retire_ms", node.retire_ms as usize, usual.retire_ms as usize),
                ("window", node.window, usual.window),
                ("confirm_ms", node.confirm_ms as usize, usual.confirm_ms as usize),
            ];
            let bounds = bounds.into_iter().filter(|(_, is, was)| is != was);
            unusual.extend(bounds.map(|(name, is, _)| format!("{name} {is}")));
            writeln!(f, "node {number}: {}", unusual.join(", "))?;
        }
        for (at_ms, action) in &self.schedule {
            writeln!(f, "{at_ms:>8}  {}", shortened(action))?;
        }
        Ok(())
    }
}

/// An action in words, without the padding of a large value.
fn shortened(action: &Action) -> String {
    match action {
        Action::Put { node, key, value, ttl_ms } if value.len() > 16 => {
            let value = format!("{}, padded to {} bytes", value.trim_end_matches('.'), value.len());
            Action::Put { node: *node, key: key.clone(), value, ttl_ms: *ttl_ms }.to_string()
        }
        other => other.to_string(),
    }
}
