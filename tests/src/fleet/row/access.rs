//! The user of the nodes loses its rights and gets them back.

use std::time::Duration;

use anyhow::Result;

use super::{Row, until_more};
use crate::fleet::{Scene, scene::USER};

pub(super) fn rows() -> Vec<Row> {
    let row = Row::new("permissions-revoked", "the nodes' user may do nothing", 12, |scene, length| {
        Box::pin(revoked(scene, length))
    });
    vec![Row { user: true, ..row }]
}

async fn revoked(scene: &mut Scene, length: Duration) -> Result<()> {
    scene.broker.ctl(&["clear_permissions", USER]).await?;
    // A broker remembers for each channel what it may do.
    scene.broker.ctl(&["close_all_user_connections", USER, "revoked"]).await?;
    for index in 0..scene.fleet.members().len() {
        until_more(scene, index, "the node was refused", 0, |report| report.connect_failures).await?;
    }
    scene.fleet.pass(length).await?;
    scene.permit().await
}
