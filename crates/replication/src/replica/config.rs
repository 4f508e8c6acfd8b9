//! The replica's timers and bounds, each with its default.

use super::{Rules, waiting::Room};
use crate::{node::NodeId, wire};

/// How a replica paces itself and what it may hold. All times in milliseconds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReplicaConfig {
    /// The node.
    pub node: NodeId,
    /// The cache's name; frames of other caches are ignored. Default `geocache`.
    pub cache: String,
    /// Whether the node is ready at once instead of warming: for the first nodes of a cache made together in one
    /// process. Default no.
    pub bootstrap: bool,
    /// Between heartbeats. Default 250.
    pub beat_ms: u64,
    /// Before a heartbeat that a newly heard peer calls for. Default 10.
    pub beat_soon_ms: u64,
    /// A peer unheard for longer counts as dead. Default 3,000.
    pub alive_ms: u64,
    /// A peer unheard for longer is retired: forgotten with its streams. If it returns, a sync repairs what it missed.
    /// Default one hour.
    pub retire_ms: u64,
    /// A gap is asked for when it is older. Default 150, to which a random part of 50 is added. Without a sign of the answer
    /// it is asked for again after twice as long, or twice the round trip.
    pub gap_grace_ms: u64,
    /// The longest wait between two questions for one gap. Default 5,000.
    pub gap_wait_ms_max: u64,
    /// How long a starting node waits for a ready peer before the lowest epoch among the starting becomes ready by
    /// itself. Default 5,000.
    pub bootstrap_wait_ms: u64,
    /// A frame stamped further ahead of the wall clock is refused. Default five minutes.
    pub drift_ms_max: u64,
    /// A peer whose clock is further ahead is warned of. Default 5,000.
    pub drift_warn_ms: u64,
    /// Without an answer for longer, a page of a sync is asked for again. Default 2,000.
    pub page_wait_ms: u64,
    /// How often a page is asked for before the sync is given up. Default 3.
    pub page_tries_max: u32,
    /// About how many bytes of records a page carries. Default 128 KiB.
    pub page_bytes: usize,
    /// Own frames kept for peers that missed some, in bytes. Default 16 MiB.
    pub ring_bytes_max: usize,
    /// Frames of records that answer one pull, small ones joined up to 128 KiB; what is left is pulled again at once.
    /// Default 8.
    pub pull_frames_max: usize,
    /// Messages to single nodes waiting to leave; past it the oldest is dropped, and asked for again. Default 128.
    pub control_max: usize,
    /// The same in bytes; one alone may be larger. Default 16 MiB.
    pub control_bytes_max: usize,
    /// Leases granted to loaders at a time, and loads remembered; past it a lease is refused, so that its asker loads
    /// without one, and the oldest load is forgotten. Default 4,096.
    pub leases_max: usize,
    /// Other nodes known at a time; further ones are ignored. Default 256; more than 1,022
    /// count as that, since what is reported of them has to fit a beat.
    pub peers_max: usize,
    /// Between two probes of the scrub. Default 250.
    pub scrub_wait_ms: u64,
    /// Stamps compared by one probe. With the wait this is the scrub's rate: by default 2,048 stamps, or about 40 kB, a
    /// second. Default 512; 0 switches the scrub off.
    pub scrub_samples: usize,
    /// Records that a starting node asks for ahead of a full sync, the most recently used first, in bytes; a hundredth
    /// of what a node holds is a good size. Default 1 MiB; a peer sends at most four times that.
    pub preview_bytes: usize,
    /// The rate at which a sync asks for pages, in bytes a second; 0 for as fast as they come. Default 64 MiB.
    pub sync_bytes_per_s: u64,
    /// Bodies of frames of so many bytes and more travel compressed (lz4), where that saves an eighth, while all known
    /// peers read it. It costs the sender's task time for each frame (the example `compression` measures it), and pays
    /// where links between regions are slow or paid for by the byte, and values are text. Default `None`: nothing is
    /// compressed. Compressed frames of others are read in any case.
    pub compress_above: Option<usize>,
    pub(crate) rules: Rules,
}

impl ReplicaConfig {
    /// The defaults for a node.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            cache: "geocache".to_owned(),
            bootstrap: false,
            beat_ms: 250,
            beat_soon_ms: 10,
            alive_ms: 3_000,
            retire_ms: 3_600_000,
            gap_grace_ms: 150,
            gap_wait_ms_max: 5_000,
            bootstrap_wait_ms: 5_000,
            drift_ms_max: 300_000,
            drift_warn_ms: 5_000,
            page_wait_ms: 2_000,
            page_tries_max: 3,
            page_bytes: wire::FRAME_BYTES,
            ring_bytes_max: 16 << 20,
            pull_frames_max: 8,
            control_max: 128,
            control_bytes_max: 16 << 20,
            leases_max: 4_096,
            peers_max: 256,
            scrub_wait_ms: 250,
            scrub_samples: 512,
            preview_bytes: 1 << 20,
            sync_bytes_per_s: 64 << 20,
            compress_above: None,
            rules: Rules::ALL,
        }
    }

    pub(super) fn control_room(&self) -> Room {
        Room { items: self.control_max, bytes: self.control_bytes_max }
    }

    /// Follows only these rules.
    #[cfg(any(test, feature = "sim"))]
    #[must_use]
    pub fn with_rules(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }
}
