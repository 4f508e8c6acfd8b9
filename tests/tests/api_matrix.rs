//! Every operation of `GeoCache`, `GeoCluster` and the clients of several regions over the in-memory hub, and the check that none is left out; `rabbitmq_matrix.rs` has the same
//! claims over RabbitMQ.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

#[macro_use]
mod matrix;
#[path = "matrix/coverage.rs"]
mod coverage;

use std::sync::Arc;

use geocache::{NodeId, Transport, memory::Hub};
use matrix::Means;

fn means() -> Means {
    let hub = Hub::new();
    let join = move |node: NodeId, _| {
        let transport: Arc<dyn Transport> = hub.join(node);
        Box::pin(std::future::ready(transport)) as matrix::Joining
    };
    // A cluster makes a hub of its own where it is told nothing.
    Means { join: Box::new(join), joined: Box::new(|builder, _| builder), is_hub: true }
}

macro_rules! over_the_hub {
    ($($area:ident :: $claim:ident [$($operation:ident),+];)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                matrix::hold(matrix::$area::$claim, means()).await;
            }
        )+
    };
}

matrix!(over_the_hub);
