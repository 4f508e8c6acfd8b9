//! What a node counts: its own work, and what it knows of the other regions.

use std::collections::BTreeMap;

use geo::RegionId;
use replication::{
    Health,
    replica::{Counters, OutboxStats, PeerStatus},
};

/// What a node holds, did, and knows of the other regions. Counts are since it was built.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Reads that found a value.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// Values stored and touched through this node.
    pub writes: u64,
    /// Values removed through this node.
    pub removes: u64,
    /// Values given up for room.
    pub evictions: u64,
    /// Values whose life ended.
    pub expirations: u64,
    /// Values held, with those whose memory is yet to be given back: expired, or behind a clear.
    pub entries: usize,
    /// What they weigh: keys, encoded values, and 256 bytes each. Decoded forms are not counted.
    pub bytes: u64,
    /// Keys remembered as gone.
    pub graves: usize,
    /// Such memories dropped at their bound. A write to a key that nothing is known of, stamped before the newest of
    /// them, is refused as if the key had been removed since.
    pub graves_dropped: u64,
    /// Whether the node is ready.
    pub ready: bool,
    /// Whether the transport to the others can carry anything, and if not, since when and why; `None` without one.
    pub transport: Option<Health>,
    /// Changes waiting to leave, and what became of others.
    pub outbox: OutboxStats,
    /// What replication did: records and repairs, what the scrub compared and found missing (`divergence` is what was lost
    /// in spite of all rules), and how often the node began again because its machine's clock had gone back.
    pub replication: Counters,
    /// The other regions, in the order of their names.
    pub regions: Vec<RegionStats>,
}

/// What a node knows of another region, or of the other nodes of its own.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RegionStats {
    /// The region.
    pub region: RegionId,
    /// Its nodes, in the order of their names.
    pub nodes: Vec<PeerStatus>,
}

impl RegionStats {
    pub(crate) fn of(peers: &[PeerStatus]) -> Vec<Self> {
        let mut regions: BTreeMap<&RegionId, Vec<PeerStatus>> = BTreeMap::new();
        for peer in peers {
            regions.entry(peer.region()).or_default().push(peer.clone());
        }
        let stats = regions.into_iter().map(|(region, mut nodes)| {
            nodes.sort_by(|a, b| a.node.cmp(&b.node));
            Self { region: region.clone(), nodes }
        });
        stats.collect()
    }

    /// Whether one of its nodes was heard lately and is ready.
    pub fn is_ready(&self) -> bool {
        self.nodes.iter().any(|node| node.alive && node.ready)
    }

    /// The time from the newest write of the region to its application here, in milliseconds: the worst of its live
    /// nodes. `None` before the first write; it stays until the next one. The difference of the two machines' clocks,
    /// as measured by heartbeats, is taken out of it, so half a round trip of error is in it.
    pub fn lag_ms(&self) -> Option<u64> {
        self.nodes.iter().filter(|node| node.alive).filter_map(|node| node.lag_last_ms).max()
    }

    /// The shortest round trip to one of its live nodes, in milliseconds, once one was made.
    pub fn rtt_ms(&self) -> Option<u64> {
        self.nodes.iter().filter(|node| node.alive).filter_map(|node| node.rtt_ms).min()
    }

    /// How many records of the region are known to exist and are not applied here yet.
    pub fn behind_records(&self) -> u64 {
        self.nodes.iter().map(|node| node.behind_records).sum()
    }
}
