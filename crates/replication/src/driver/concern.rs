//! What is asked about a write, and the honest answers.

use std::{collections::BTreeSet, time::Duration};

use geo::RegionId;

use crate::replica::Token;

/// How far a write should have come before its writer is answered.
///
/// It says how long to wait, never whether the write is kept: that it was made on its own node stands whatever the
/// others say, and a wait that ends early takes nothing back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum WriteConcern {
    /// It is on the writer's own node. Waits for nothing.
    #[default]
    Local,
    /// The transport took responsibility for it. Over a broker that is weak: the broker has it, perhaps no other node.
    Published,
    /// A node each of this many regions has it, **the writer's own region included**: 0 and 1 wait for nothing, 2 is one
    /// other region.
    Regions(usize),
    /// A node of every configured region has it ([`NodeConfig::regions`](super::NodeConfig::regions)). Where none is
    /// configured: of every region that was heard within the time after which a node is retired. A node that has just
    /// started may not have heard of all, so configure the regions where this matters.
    All,
}

/// Who is known to have a write: true at the moment of the answer, whatever was asked for.
///
/// What a node has it says in its beats, so the answer may be behind the truth, never ahead of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The write. Give it to a read elsewhere that must see the write, or ask about it again.
    pub token: Token,
    /// What was asked for.
    pub concern: WriteConcern,
    /// Whether that is so.
    pub reached: bool,
    /// Whether the write is known to have left its node: the transport confirmed it, or another region has it.
    ///
    /// `false` of a write that did leave is possible: while its answer is on its way; of a key that was written again
    /// before the first write left; and for old writes where very many frames were refused. `true` of one that did not
    /// leave is not.
    pub published: bool,
    /// The regions of which a node has it, the writer's own included.
    pub have: BTreeSet<RegionId>,
    /// Of the configured regions, or else of those heard, the ones of which no node is known to have it.
    pub missing: BTreeSet<RegionId>,
}

impl Receipt {
    /// What is so of a write that is known to be in the regions `have`, of all those that count.
    pub(super) fn new(
        token: Token,
        concern: WriteConcern,
        published: bool,
        have: BTreeSet<RegionId>,
        regions: &BTreeSet<RegionId>,
    ) -> Self {
        let missing: BTreeSet<RegionId> = regions.difference(&have).cloned().collect();
        let reached = match concern {
            WriteConcern::Local => true,
            WriteConcern::Published => published,
            WriteConcern::Regions(count) => have.len() >= count,
            WriteConcern::All => missing.is_empty(),
        };
        Self { token, concern, reached, published, have, missing }
    }

    /// The receipt of a write that stays on its node, which has no others: `Local`, `Regions(1)` and `All` are reached.
    pub fn alone(token: Token, concern: WriteConcern, region: RegionId) -> Self {
        let regions = BTreeSet::from([region]);
        Self::new(token, concern, false, regions.clone(), &regions)
    }
}

/// Why a session's writes could not be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The write is not here yet: wait again, or read what is here and know that it is older.
    #[error("the write is not here yet{}", behind(*lag))]
    Stale {
        /// How much newer the write is than the newest that is here of the node that took it; `None` where nothing is.
        lag: Option<Duration>,
    },
    /// The write will not come: the process that took it is gone, and no live node has it.
    #[error("the write is lost: its node ended before any live node got it")]
    Lost,
    /// This node's replication has ended: nothing comes any more.
    #[error("the node replicates no more")]
    Ended,
}

/// Why a question to the nearest region has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No other node that is ready is heard, or this one has just started and says nothing yet: nobody can be asked.
    #[error("no ready node can be asked")]
    NobodyReady,
    /// The question or its answer was lost, or is late: ask again, or go to the origin of the data.
    #[error("no answer within {waited:?}")]
    NoAnswer {
        /// How long was waited.
        waited: Duration,
    },
    /// Too much is being waited for already: ask later.
    #[error("too many reads and receipts are waited for at once")]
    Busy,
    /// This node's replication has ended.
    #[error("the node replicates no more")]
    Ended,
}

/// Why a caller who wants to load has no lease, and is to load without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// No node that grants leases can be asked, or none answered.
    #[error("no node grants the lease")]
    NoGrantor,
    /// The node that grants it holds as many leases as it may ([`ReplicaConfig::leases_max`]).
    ///
    /// [`ReplicaConfig::leases_max`]: crate::replica::ReplicaConfig::leases_max
    #[error("too many leases are granted at once")]
    Refused,
    /// Others held the lease for all of the time, and no value came.
    #[error("others held the lease for {waited:?}, and no value came")]
    Late {
        /// How long was waited.
        waited: Duration,
    },
    /// Too much is being waited for already.
    #[error("too many reads, receipts and leases are waited for at once")]
    Busy,
    /// This node's replication has ended.
    #[error("the node replicates no more")]
    Ended,
}

fn behind(lag: Option<Duration>) -> String {
    lag.map_or_else(String::new, |lag| format!("; what is here is {lag:?} older"))
}
