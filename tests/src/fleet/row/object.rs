//! Somebody deletes what the nodes declared at the broker; nobody but they can mend it.

use anyhow::{Result, bail};

use super::{Row, of_each, until_more};
use crate::fleet::Scene;

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::new("queue-deleted", "every node's queue is deleted, one after the other", 0, |scene, _| {
            Box::pin(queues_deleted(scene))
        }),
        Row::new(
            "exchange-deleted",
            "the cache's exchange is deleted, and with it all bindings",
            0,
            |scene, _| Box::pin(exchange_deleted(scene)),
        ),
    ]
}

async fn queues_deleted(scene: &mut Scene) -> Result<()> {
    for index in 0..scene.fleet.members().len() {
        let report = scene.fleet.node(index)?.report().await?;
        scene.broker.ctl(&["delete_queue", &report.queue]).await?;
        scene.mended();
        let before = report.consumer_cancels;
        until_more(scene, index, "the node has noticed", before, |report| report.consumer_cancels).await?;
    }
    Ok(())
}

async fn exchange_deleted(scene: &mut Scene) -> Result<()> {
    let exchange = format!("rabbit_misc:r(<<\"/\">>, exchange, <<\"geocache.{}\">>)", scene.fleet.cache());
    let order = format!("rabbit_exchange:delete({exchange}, false, <<\"faults\">>).");
    let before = of_each(scene, |report| report.reconnects).await?;
    let said = scene.broker.ctl(&["eval", &order]).await?;
    scene.mended();
    if !said.contains("ok") {
        bail!("the exchange was not deleted: {said}");
    }
    // The broker ends the channel of whoever publishes to what is not there. That all is bound again is seen when
    // everything that is written from now on arrives.
    for (index, before) in before.into_iter().enumerate() {
        until_more(scene, index, "the node has noticed", before, |report| report.reconnects).await?;
    }
    Ok(())
}
