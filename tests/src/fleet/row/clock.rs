//! The clock of one node is wrong: tolerated up to five minutes, and refused beyond.
//!
//! Either way the node is started anew with the wrong clock and, to mend it, with the right one.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{HARMED, Row};
use crate::fleet::{Demand, READY_BOUND, REGIONS, Scene, WRITES_PER_SECOND};

const TOLERATED: Duration = Duration::from_secs(4 * 60);
const REFUSED: Duration = Duration::from_secs(6 * 60);

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::new(
            "clock-4-min",
            "the clock of one node is 4 minutes ahead: merged, and warned of",
            12,
            |scene, length| Box::pin(tolerated(scene, length)),
        ),
        Row::new(
            "clock-6-min",
            "the clock of one node is 6 minutes ahead: refused and reported, and its writes end with it",
            12,
            |scene, length| Box::pin(refused(scene, length)),
        ),
    ]
}

async fn tolerated(scene: &mut Scene, length: Duration) -> Result<()> {
    scene.fleet.close(HARMED, Demand::Everything).await?;
    scene.fleet.revive(HARMED, TOLERATED).await?;
    scene.fleet.pass(length).await?;
    // Its writes are merged while its clock is wrong.
    scene.fleet.caught_up(READY_BOUND).await?;
    for (region, node) in scene.fleet.nodes().filter(|(region, _)| *region != REGIONS[HARMED]) {
        if !node.logged("the clock of a node is ahead of this one's") {
            bail!("{region} did not warn of the clock; {}", node.log_end());
        }
    }
    scene.fleet.close(HARMED, Demand::Everything).await?;
    scene.fleet.revive(HARMED, Duration::ZERO).await
}

async fn refused(scene: &mut Scene, length: Duration) -> Result<()> {
    scene.fleet.close(HARMED, Demand::Everything).await?;
    scene.fleet.launch(HARMED, REFUSED)?;
    scene.fleet.tell(HARMED, WRITES_PER_SECOND).await?;
    for index in (0..REGIONS.len()).filter(|index| *index != HARMED) {
        let told = async |fleet: &crate::fleet::Fleet| {
            Ok(fleet.node(index)?.report().await?.drifting.iter().any(|region| region == REGIONS[HARMED]))
        };
        scene.fleet.until("the node's clock is reported", READY_BOUND, told).await?;
    }
    scene.fleet.pass(length).await?;
    for (region, report) in scene.fleet.reports().await? {
        if region != REGIONS[HARMED] && report.frames_drifting == 0 {
            bail!("{region} counted no frame that it refused: {report:?}");
        }
    }
    scene.fleet.close(HARMED, Demand::Refused).await?;
    scene.fleet.revive(HARMED, Duration::ZERO).await
}
