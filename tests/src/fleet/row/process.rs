//! A node is stopped for longer than the broker keeps its queue: frozen, or killed and started anew.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{HARMED, Row};
use crate::fleet::Scene;

/// The shortest time that a queue may be kept.
const EXPIRES: Duration = Duration::from_secs(10);
/// A broker notices a frozen node by its heartbeats, and needs a while to look.
const GONE_BOUND: Duration = Duration::from_secs(90);

pub(super) fn rows() -> Vec<Row> {
    let rows = [
        Row::new(
            "node-frozen",
            "a node is frozen until its queue has expired, and this long after",
            5,
            |scene, length| Box::pin(frozen(scene, length)),
        ),
        Row::new(
            "node-killed",
            "a node is killed, and started anew this long after its queue has expired",
            5,
            |scene, length| Box::pin(killed(scene, length)),
        ),
    ];
    rows.into_iter().map(|row| Row { queue_expires: EXPIRES, ..row }).collect()
}

async fn frozen(scene: &mut Scene, length: Duration) -> Result<()> {
    let queue = scene.fleet.node(HARMED)?.report().await?.queue;
    scene.fleet.node(HARMED)?.freeze()?;
    expired(scene, &queue).await?;
    scene.fleet.pass(length).await?;
    scene.fleet.node(HARMED)?.thaw()
}

async fn killed(scene: &mut Scene, length: Duration) -> Result<()> {
    let queue = scene.fleet.node(HARMED)?.report().await?.queue;
    scene.fleet.kill_9(HARMED).await?;
    expired(scene, &queue).await?;
    scene.fleet.pass(length).await?;
    scene.fleet.revive(HARMED, Duration::ZERO).await
}

async fn expired(scene: &Scene, queue: &str) -> Result<()> {
    let gone = async |_: &crate::fleet::Fleet| {
        Ok(!scene.broker.ctl(&["list_queues", "name"]).await?.lines().any(|line| line.trim() == queue))
    };
    scene
        .fleet
        .until("the node's queue has expired", GONE_BOUND, gone)
        .await
        .context(queue.to_owned())
        .map(drop)
}
