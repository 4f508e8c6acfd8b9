//! What a node counts: its own work, and what it knows of the other regions.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use geo::RegionId;
use replication::{
    Health,
    replica::{Counters, OutboxStats, PeerStatus},
    report::Count,
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
    /// What they weigh: keys, encoded values or what those were said to weigh, and 256 bytes each. Decoded forms are not counted.
    pub bytes: u64,
    /// Reading through.
    pub loads: LoadStats,
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

macro_rules! load_stats {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// What came of reads that may load ([`GeoCache::get_or_load`](crate::GeoCache::get_or_load)). Counts are since the node
        /// was built.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct LoadStats {
            /// Loads under way.
            pub flying: usize,
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl LoadStats {
            /// All counts, by name.
            pub fn counts(&self) -> Vec<Count> {
                vec![$(Count::new(stringify!($name), concat!($($doc),*).trim_ascii(), self.$name)),*]
            }
        }

        #[derive(Debug, Default)]
        pub(crate) struct LoadCounters {
            $(pub(crate) $name: Counter,)*
        }

        impl LoadCounters {
            pub(crate) fn snapshot(&self, flying: usize) -> LoadStats {
                LoadStats { flying, $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

load_stats! {
    /// Loaders that ran.
    loads,
    /// Loads that ended without a value: the loader failed, panicked or was dropped at its time limit.
    failures,
    /// Reads that waited for a load of another caller.
    shared,
    /// Values that came from the closest region instead of a loader.
    from_regions,
    /// Old values served since the loader failed or was slow.
    stale_served,
    /// Loads begun ahead of a value's end; they are in `loads` too.
    refreshes,
    /// Loaded values not stored, since the key was written, removed or cleared meanwhile.
    overtaken,
    /// Loaded values not stored, since they are too long or cannot be encoded, or the cache was closed.
    unpublished,
    /// Reads refused at the bound of loads under way.
    refused,
    /// Loaders that ran with a lease ([`LoadOptions::lease`](crate::LoadOptions::lease)), for which other regions wait.
    leases_granted,
    /// Loads for which this node waited for another region's loader, until that one's value, or another, was here.
    leases_waited,
    /// Loaders that ran without the lease that was asked for: nobody granted one, or others held it too long.
    leases_given_up,
}

/// One count.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
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
