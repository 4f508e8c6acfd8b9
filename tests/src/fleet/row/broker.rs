//! The broker dies, is restarted, or takes nothing any more.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{Row, of_each, until_more};
use crate::fleet::Scene;

/// How often the broker is killed.
const KILLS: u32 = 5;

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::new(
            "broker-kill-9",
            "the broker is killed five times, with this long between",
            4,
            |scene, pause| Box::pin(killed(scene, pause)),
        ),
        Row::new("broker-restart", "the broker is ended in good order and started again", 0, |scene, _| {
            Box::pin(restarted(scene))
        }),
        Row::new("memory-alarm", "the broker is short of memory", 15, |scene, length| {
            let what = "set_vm_memory_high_watermark";
            Box::pin(alarmed(scene, length, what, &["absolute", "1MB"], &["absolute", "2GB"]))
        }),
        Row::new("disk-alarm", "the broker is short of disk", 15, |scene, length| {
            Box::pin(alarmed(scene, length, "set_disk_free_limit", &["100000GB"], &["50MB"]))
        }),
    ]
}

async fn killed(scene: &mut Scene, pause: Duration) -> Result<()> {
    for kill in 0..KILLS {
        if kill > 0 {
            scene.fleet.pass(pause).await?;
        }
        let before = of_each(scene, |report| report.reconnects).await?;
        scene.broker.kill_9().await?;
        scene.broker.restart().await?;
        scene.mended();
        connected_again(scene, before).await?;
    }
    Ok(())
}

async fn restarted(scene: &mut Scene) -> Result<()> {
    let before = of_each(scene, |report| report.reconnects).await?;
    scene.broker.restart().await?;
    scene.mended();
    connected_again(scene, before).await
}

async fn connected_again(scene: &Scene, before: Vec<u64>) -> Result<()> {
    for (index, before) in before.into_iter().enumerate() {
        until_more(scene, index, "it has connected again", before, |report| report.reconnects).await?;
    }
    Ok(())
}

async fn alarmed(
    scene: &mut Scene,
    length: Duration,
    what: &str,
    alarm: &[&str],
    well: &[&str],
) -> Result<()> {
    scene.broker.ctl(&[&[what], alarm].concat()).await?;
    for index in 0..scene.fleet.members().len() {
        until_more(scene, index, "the broker has blocked the node", 0, |report| report.blocked).await?;
    }
    scene.fleet.pass(length).await?;
    for (region, report) in scene.fleet.reports().await? {
        if !["Blocked", "accepts no publishes"].iter().any(|words| report.health.contains(words)) {
            bail!("{region} does not say that it is blocked: {}", report.health);
        }
    }
    scene.broker.ctl(&[&[what], well].concat()).await.map(drop)
}
