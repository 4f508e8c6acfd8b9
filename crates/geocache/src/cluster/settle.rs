//! Waiting until all regions have what was written.

use std::time::Duration;

use geo::RegionId;
use replication::{
    Origin, Stamp,
    replica::{Status, Token},
};

use super::GeoCluster;
use crate::{error::Error, node::GeoCache};

/// How long the nodes of a new cluster are given to hear each other.
const ACQUAINT_WAIT: Duration = Duration::from_secs(1);

impl GeoCluster {
    /// Waits until every running region has applied what the others wrote before the call.
    ///
    /// # Errors
    /// [`Error::Timeout`], which names a region that is behind and what it lacks.
    pub async fn settled(&self, timeout: Duration) -> Result<(), Error> {
        let written: Vec<_> = self.nodes().iter().map(Written::by).collect();
        let deadline = tokio::time::Instant::now() + timeout;
        for node in self.nodes() {
            let Some(replication) = node.replication() else { continue };
            let mut status = replication.status.clone();
            let mut behind = None;
            let applied = status.wait_for(|status| {
                behind = written.iter().find(|written| !written.is_applied(node.node().origin(), status));
                behind.is_none()
            });
            match tokio::time::timeout_at(deadline, applied).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(Error::Closed),
                Err(_) => {
                    let whose = behind.map_or("another region", |written| written.region.as_str());
                    let behind = format!("{} has not applied all writes of {whose}", node.region());
                    return Err(Error::Timeout { waited: timeout, behind });
                }
            }
        }
        Ok(())
    }
}

/// Waits until each node knows the clocks of the others, which takes two heartbeats; until then what expires would wait
/// there. A hub that loses frames may take longer: after [`ACQUAINT_WAIT`] the nodes are given out as they are, and
/// what waits is repaired as any gap.
pub(super) async fn acquaint(regions: &[GeoCache]) {
    let others = regions.len() - 1;
    let all = async {
        for replication in regions.iter().filter_map(GeoCache::replication) {
            let knows_all = |status: &Status| {
                status.peers.len() >= others && status.peers.iter().all(|peer| peer.rtt_ms.is_some())
            };
            // A node that ended has nobody to wait for.
            let _ = replication.status.clone().wait_for(knows_all).await;
        }
    };
    let _ = tokio::time::timeout(ACQUAINT_WAIT, all).await;
}

/// The newest change that a node made.
struct Written {
    region: RegionId,
    /// `None` before the first.
    newest: Option<Token>,
}

impl Written {
    fn by(node: &GeoCache) -> Self {
        let last = node.outbox().last_issued();
        let newest = (last != Stamp::ZERO).then(|| node.outbox().token(last));
        Self { region: node.region().clone(), newest }
    }

    /// Whether the node of this status has applied it. Within a stream stamps rise with numbers, so a watermark at or
    /// above the newest stamp covers all before it; one of another life of the node says nothing of this one.
    fn is_applied(&self, by: Origin, status: &Status) -> bool {
        let Some(Token { stream, hlc }) = self.newest.filter(|newest| newest.stream.origin != by) else {
            return true;
        };
        status.streams.iter().any(|report| report.stream == stream && report.watermark_hlc >= hlc)
    }
}

#[cfg(test)]
mod tests {
    use replication::{Hlc, Stream, message::StreamReport};

    use super::*;

    #[test]
    fn a_write_is_applied_once_the_watermark_of_its_own_life_covers_it() {
        let (own, other) = (Origin(1), Origin(2));
        let life = |epoch| Stream { origin: other, epoch };
        let written = |newest| Written { region: "eu-west".parse().unwrap(), newest };
        let second = written(Some(Token { stream: life(20), hlc: Hlc(25) }));
        let status = |epoch, hlc| {
            let watermark_hlc = Hlc(hlc);
            let mut status = Status::default();
            status.streams.push(StreamReport {
                stream: life(epoch),
                watermark_hlc,
                ..StreamReport::default()
            });
            status
        };
        assert!(!second.is_applied(own, &status(20, 24)));
        assert!(second.is_applied(own, &status(20, 25)));
        assert!(!second.is_applied(own, &status(10, 30)), "of another life");
        assert!(!second.is_applied(own, &Status::default()));
        assert!(second.is_applied(other, &Status::default()), "a node has its own");
        assert!(written(None).is_applied(own, &Status::default()));
    }
}
