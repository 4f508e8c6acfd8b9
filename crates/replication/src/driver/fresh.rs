//! Bounded staleness: whether all that was written longer ago than some time is here.
//!
//! Whether it is so is read off the node's [`Status`], which costs a look at each peer and no word to anybody. Where it
//! is not so yet, all nodes are asked for a beat, once, and whoever waits looks at each new status: waiting costs the
//! node's task nothing and has no table that could be full. Questions that come together share a beat.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use geo::RegionId;
use tokio::time::{Instant, timeout_at};

use super::{
    client::{Client, Request, after},
    now,
};
use crate::{
    node::NodeId,
    replica::{PeerStatus, Status},
};

/// Against whom a node has to be fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum FreshTo {
    /// Every configured region, or else every region that was heard within the time after which a node is retired: all
    /// nodes of it that are heard, and at least one. What a node wrote that is heard no more, and that none of the others
    /// has, is not counted where its region has another node.
    #[default]
    Regions,
    /// The nodes that are heard. A region that is not heard is left out, whatever it writes meanwhile.
    Heard,
    /// As [`Regions`](Self::Regions), and also every node that was heard within the time after which one is retired,
    /// though it is heard no more.
    Nodes,
}

/// Who keeps a node from being as fresh as was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Behind {
    /// The node itself is warming: it does not have the state of the others yet.
    Warming,
    /// No node of the region is heard, so nobody says what was written there.
    Unheard {
        /// The region.
        region: RegionId,
        /// How long ago one of its nodes was heard; `None` where none was.
        heard_ago: Option<Duration>,
    },
    /// A node is known to have had nothing that is not here only so long ago.
    Older {
        /// The node.
        node: NodeId,
        /// How long ago; `None` where it is known of no moment.
        fresh_ago: Option<Duration>,
        /// How many of its own records are known to exist and are not here yet.
        records: u64,
    },
}

impl Behind {
    /// The region that it is about; `None` where it is this node.
    pub fn region(&self) -> Option<&RegionId> {
        match self {
            Self::Warming => None,
            Self::Unheard { region, .. } => Some(region),
            Self::Older { node, .. } => Some(node.region()),
        }
    }

    /// How old what is here may be for it, by what is known; `None` where nothing is.
    pub fn age(&self) -> Option<Duration> {
        match self {
            Self::Warming => None,
            Self::Unheard { heard_ago, .. } => *heard_ago,
            Self::Older { fresh_ago, .. } => *fresh_ago,
        }
    }
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Warming => f.write_str("this node is warming and has not got the state of the others yet"),
            Self::Unheard { region, heard_ago: Some(ago) } => {
                write!(f, "no node of the region {region} is heard, the last one {ago:?} ago")
            }
            Self::Unheard { region, heard_ago: None } => {
                write!(f, "no node of the region {region} was heard yet")
            }
            Self::Older { node, fresh_ago: Some(ago), records } => {
                write!(f, "what is here of {node} is as of {ago:?} ago")?;
                missing(f, *records)
            }
            Self::Older { node, fresh_ago: None, records } => {
                write!(f, "how old what is here of {node} is was not measured yet")?;
                missing(f, *records)
            }
        }
    }
}

fn missing(f: &mut fmt::Formatter<'_>, records: u64) -> fmt::Result {
    if records == 0 { Ok(()) } else { write!(f, ", with {records} of its records missing") }
}

/// Why a node could not be shown to be fresh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FreshError {
    /// It was not, by the end of the time: wait longer, be content with an older answer, or ask elsewhere.
    #[error("{0}")]
    Behind(Behind),
    /// This node's replication has ended.
    #[error("the node replicates no more")]
    Ended,
}

impl Client {
    /// Waits until everything that the others had written longer than `max_lag` before this call is here. It returns at
    /// once where that is so, and it is so at once for any `max_lag` above a beat's distance, the way here and the usual
    /// lag; with less, even with none at all, the others are asked for a beat, which takes about a round trip and a tenth
    /// of a second more.
    ///
    /// # Errors
    /// [`FreshError::Behind`] at the end of the time, [`FreshError::Ended`].
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait and nothing else.
    pub async fn fresh(&self, max_lag: Duration, to: FreshTo, timeout: Duration) -> Result<(), FreshError> {
        let deadline = after(Instant::now(), timeout);
        let max_lag_ms = i64::try_from(max_lag.as_millis()).unwrap_or(i64::MAX);
        // The reading is a whole millisecond that has begun: what was written in it was written before this call.
        let cutoff_ms = (now().mono_ms as i64 + 1).saturating_sub(max_lag_ms);
        let verdict =
            |status: &Status| behind(status, (now().mono_ms, cutoff_ms), (&self.regions, &self.region), to);
        let mut status = self.status.clone();
        let Some(mut last) = verdict(&status.borrow()) else {
            return status.has_changed().map(drop).map_err(|_| FreshError::Ended);
        };
        // Where so much is asked that this is not taken, the beats that come by themselves do as well, a little later.
        let _ = self.requests.try_send(Request::Beats);
        let fresh = status.wait_for(|status| match verdict(status) {
            Some(behind) => {
                last = behind;
                false
            }
            None => true,
        });
        match timeout_at(deadline, fresh).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(FreshError::Ended),
            Err(_) => Err(FreshError::Behind(last)),
        }
    }
}

/// Who keeps a node of this status from having all that was written by `cutoff_ms`, the furthest behind first; nobody
/// where nobody does. Times are of the node's monotonic clock.
fn behind(
    status: &Status,
    (now_ms, cutoff_ms): (u64, i64),
    (configured, own): (&BTreeSet<RegionId>, &RegionId),
    to: FreshTo,
) -> Option<Behind> {
    if !status.ready {
        return Some(Behind::Warming);
    }
    let ago = |then_ms: i64| Duration::from_millis(u64::try_from(now_ms as i64 - then_ms).unwrap_or(0));
    let moment_ms = |ago_ms: u64| status.mono_ms as i64 - ago_ms as i64;
    let older =
        |peer: &&PeerStatus| peer.fresh_ago_ms.map(moment_ms).is_none_or(|shown_ms| shown_ms < cutoff_ms);
    let counts = |peer: &&PeerStatus| peer.alive || to == FreshTo::Nodes;
    let older = status.peers.iter().filter(counts).filter(older).map(|peer| Behind::Older {
        node: peer.node.clone(),
        fresh_ago: peer.fresh_ago_ms.map(|ago_ms| ago(moment_ms(ago_ms))),
        records: peer.behind_records,
    });
    let mut heard: BTreeMap<&RegionId, &PeerStatus> = BTreeMap::new();
    for peer in &status.peers {
        let last = heard.entry(peer.region()).or_insert(peer);
        *last = if peer.heard_ago_ms < last.heard_ago_ms { peer } else { last };
    }
    let known =
        if configured.is_empty() { heard.keys().copied().collect() } else { Vec::from_iter(configured) };
    let wanted = known.into_iter().filter(|region| to != FreshTo::Heard && *region != own);
    let unheard = wanted.filter_map(|region| {
        let last = heard.get(region);
        let is_heard = last.is_some_and(|peer| peer.alive);
        let heard_ago = last.map(|peer| ago(moment_ms(peer.heard_ago_ms)));
        (!is_heard).then(|| Behind::Unheard { region: region.clone(), heard_ago })
    });
    // Nothing known is worse than any age; of two, a silent region says more than one of its nodes.
    unheard.chain(older).min_by_key(|behind| std::cmp::Reverse(behind.age().unwrap_or(Duration::MAX)))
}

#[cfg(test)]
mod tests;
