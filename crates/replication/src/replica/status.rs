//! What a replica says of itself: readiness, peers, lag, and a count of all that happened at its bounds.

use geo::RegionId;

use crate::{
    message::StreamReport,
    node::{NodeId, Origin},
    report::Count,
};

/// A replica's state at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// When this was so, by the node's monotonic clock ([`Now::mono_ms`](super::Now::mono_ms)).
    pub mono_ms: u64,
    /// Whether the node is ready; otherwise it is warming: it waits for, or receives, the state of a ready peer.
    pub ready: bool,
    /// Why the node had to stop, where it had to.
    pub failure: Option<Failure>,
    /// The other nodes that it knows.
    pub peers: Vec<PeerStatus>,
    /// What it has of each stream, its own first.
    pub streams: Vec<StreamReport>,
    /// Messages to single nodes that wait to leave.
    pub messages: usize,
    /// About how many bytes they take.
    pub message_bytes: usize,
    /// What happened so far.
    pub counters: Counters,
}

/// Why a node had to stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// Another live process uses this node's name.
    #[error(
        "another live process is already the node {node}; give each process of a region a name of its own"
    )]
    Duplicate {
        /// The node.
        node: NodeId,
    },
    /// The transport cannot work as it is configured.
    #[error("{reason}")]
    Transport {
        /// What is wrong and what to do.
        reason: String,
    },
}

/// What is known of another node.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// The node.
    pub node: NodeId,
    /// Its compact form.
    pub origin: Origin,
    /// Its epoch.
    pub epoch: u64,
    /// Whether it was heard lately.
    pub alive: bool,
    /// Whether it said that it is ready.
    pub ready: bool,
    /// How long ago it was heard, in milliseconds.
    pub heard_ago_ms: u64,
    /// The round trip to it, in milliseconds, once one was made.
    pub rtt_ms: Option<u64>,
    /// Whether its clock is too far ahead, so that its writes are refused.
    pub drifts: bool,
    /// The time from its newest write's stamp to its application here, in milliseconds; `None` before the first.
    pub lag_last_ms: Option<u64>,
    /// The mean of that time, newest weighing a fifth.
    pub lag_mean_ms: Option<f64>,
    /// The longest such time of the peer's present life.
    pub lag_max_ms: Option<u64>,
    /// How many of its records are known to exist and are not applied here yet.
    pub behind_records: u64,
    /// All that the node had written, or had of others, so many milliseconds ago is known to be here; `None` while that
    /// is known of no moment. By this node's clock alone, and never too low: it is behind the truth by the way here and
    /// by the time since the node's last beat.
    pub fresh_ago_ms: Option<u64>,
}

impl PeerStatus {
    /// The region it belongs to.
    pub fn region(&self) -> &RegionId {
        self.node.region()
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])* pub $name:ident: u64,)*) => {
        /// What happened so far, each a count.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl Counters {
            /// All of them, by name.
            pub fn counts(&self) -> Vec<Count> {
                vec![$(Count::new(stringify!($name), concat!($($doc),*).trim_ascii(), self.$name)),*]
            }
        }
    };
}

counters! {
    /// Remote records that became what the node holds.
    pub records_applied: u64,
    /// Remote records that were older than, or the same as, what was known.
    pub records_older: u64,
    /// Own records that were numbered and handed to the transport.
    pub records_sent: u64,
    /// Own frames that left compressed.
    pub frames_compressed: u64,
    /// How many bytes shorter they were for that.
    pub compressed_bytes_saved: u64,
    /// Own records that left the ring, and can no longer be pulled.
    pub ring_dropped: u64,
    /// Frames of another cache, ignored.
    pub frames_foreign: u64,
    /// Frames that could not be decoded, refused.
    pub frames_undecodable: u64,
    /// Frames of a kind that this version does not know, skipped.
    pub frames_unknown: u64,
    /// Frames of an earlier life of a peer, ignored.
    pub frames_zombie: u64,
    /// Frames of records left to be pulled or synced later: the node was warming, or the sender's clock not yet known.
    pub frames_gated: u64,
    /// Frames refused because they were stamped too far ahead.
    pub frames_drifting: u64,
    /// Frames of nodes or streams beyond the bound of those known, ignored.
    pub frames_over_bound: u64,
    /// Streams of old lives dropped at the bound of those remembered of one node.
    pub streams_dropped: u64,
    /// Ranges of numbers dropped at the bound, to be asked for again.
    pub ranges_dropped: u64,
    /// Gaps asked for.
    pub pulls_sent: u64,
    /// Gaps of others answered with records.
    pub pulls_served: u64,
    /// Gaps of others that began before the ring.
    pub pulls_gone: u64,
    /// State transfers begun.
    pub syncs_started: u64,
    /// State transfers completed.
    pub syncs_finished: u64,
    /// State transfers given up, to be begun again.
    pub syncs_aborted: u64,
    /// Pages of state sent to others.
    pub pages_sent: u64,
    /// Pages of state taken from others.
    pub pages_taken: u64,
    /// Live records dropped by a full sync because the peer no longer confirmed them.
    pub records_swept: u64,
    /// Records taken ahead of a full sync, the most recently used first.
    pub previewed: u64,
    /// Records sent ahead of the full syncs of others.
    pub previews_sent: u64,
    /// Whole passes of the scrub over what this node holds.
    pub scrub_passes: u64,
    /// Stamps that this node sent to a peer to be compared.
    pub scrub_compared: u64,
    /// Records and removes that a comparison brought here.
    pub scrub_repaired: u64,
    /// Stamps that were not compared, and records that were not sent, because a probe or its answer was full; the next
    /// pass finds them again.
    pub scrub_cut: u64,
    /// The divergence meter: those of `scrub_repaired` that this node's watermarks claimed it had. Not zero means that a
    /// write was lost on its way in spite of all rules.
    pub divergence: u64,
    /// Times that this node began again above a later life of its own, its machine's clock having gone back.
    pub re_epochs: u64,
    /// Own records that were stamped anew for that.
    pub records_reissued: u64,
    /// Reads asked of the nearest region.
    pub fetches_sent: u64,
    /// Reads of others answered.
    pub fetches_served: u64,
    /// Leases that this node granted to loaders, its own included.
    pub leases_granted: u64,
    /// Of those, the ones granted since the holder before failed, died or took too long.
    pub leases_passed_on: u64,
    /// Leases that this node refused at the bound, so that their askers loaded without one.
    pub leases_refused: u64,
    /// Messages to single nodes dropped at the bound.
    pub control_dropped: u64,
    /// Publishes that the transport refused, or that nobody was there to take.
    pub publishes_refused: u64,
    /// Publishes sent again after the transport was not connected or did not answer in time.
    pub publishes_retried: u64,
    /// Heartbeats given up because the transport was not connected or did not answer in time; the next one says more.
    pub beats_dropped: u64,
    /// Receipts and sessions that were answered before their time, and fetches refused, because too many waited.
    pub waits_refused: u64,
}
