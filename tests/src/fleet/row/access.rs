//! The user of the nodes loses its rights and gets them back, or gets another password.

use std::time::Duration;

use anyhow::Result;

use super::{Row, until_more};
use crate::fleet::{Scene, scene::USER};

pub(super) fn rows() -> Vec<Row> {
    let rows = [
        Row::new("permissions-revoked", "the nodes' user may do nothing", 12, |scene, length| {
            Box::pin(revoked(scene, length))
        }),
        Row::new(
            "credentials-rotated",
            "their password is changed, and told to them this much later",
            12,
            |scene, length| Box::pin(rotated(scene, length)),
        ),
    ];
    rows.into_iter().map(|row| Row { user: true, ..row }).collect()
}

async fn revoked(scene: &mut Scene, length: Duration) -> Result<()> {
    scene.broker.ctl(&["clear_permissions", USER]).await?;
    refused(scene).await?;
    scene.fleet.pass(length).await?;
    scene.permit().await
}

async fn rotated(scene: &mut Scene, length: Duration) -> Result<()> {
    scene.broker.ctl(&["change_password", USER, "second-password"]).await?;
    refused(scene).await?;
    scene.fleet.pass(length).await?;
    scene.give_password("second-password")
}

/// Closes the connections of the nodes' user, and waits until the nodes were refused new ones.
async fn refused(scene: &Scene) -> Result<()> {
    // A broker asks for neither a password nor, for a while, a permission again on a connection that it has.
    scene.broker.ctl(&["close_all_user_connections", USER, "its rights have changed"]).await?;
    for index in 0..scene.fleet.members().len() {
        until_more(scene, index, "it was refused", 0, |report| report.connect_failures).await?;
    }
    Ok(())
}
