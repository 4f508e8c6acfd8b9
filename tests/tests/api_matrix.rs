//! Every operation of `GeoCache` over the in-memory hub, and the check that none is left out; `rabbitmq_matrix.rs` has the same
//! claims over RabbitMQ.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

#[macro_use]
mod matrix;
#[path = "matrix/coverage.rs"]
mod coverage;

use std::sync::Arc;

use geocache::{NodeId, Transport, memory::Hub};
use matrix::Regions;

async fn regions() -> Regions {
    let hub = Hub::new();
    let join = move |node: NodeId, _| {
        let transport: Arc<dyn Transport> = hub.join(node);
        Box::pin(std::future::ready(transport)) as matrix::Joining
    };
    Regions::joined(Box::new(join)).await
}

macro_rules! over_the_hub {
    ($($area:ident :: $claim:ident [$($operation:ident),+];)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                matrix::$area::$claim(regions().await).await;
            }
        )+
    };
}

matrix!(over_the_hub);
