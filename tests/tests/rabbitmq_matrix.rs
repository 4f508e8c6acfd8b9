//! Every operation of `GeoCache`, `GeoCluster` and the clients of several regions over RabbitMQ, in each profile: the claims of
//! `matrix/`, which `api_matrix.rs` runs over the in-memory hub.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

#[macro_use]
mod matrix;

use std::sync::Arc;

use geocache::{
    ClusterBuilder, NodeId, Transport,
    rabbitmq::{Config, Profile, RabbitMq},
};
use matrix::Means;
use tests::broker::shared_url;

fn means(profile: Profile) -> Means {
    let url = shared_url().unwrap();
    let config =
        move |node: NodeId, cache: String| Config::new(node, vec![url.clone()]).cache(cache).profile(profile);
    let of_nodes = config.clone();
    let join = move |node: NodeId, cache: String| {
        let config = of_nodes(node, cache);
        let connected = async {
            let transport: Arc<dyn Transport> = RabbitMq::connect(config).await.unwrap();
            transport
        };
        Box::pin(connected) as matrix::Joining
    };
    let joined = move |builder: ClusterBuilder, cache: String| {
        let config = config.clone();
        builder.transport(move |node| RabbitMq::connect(config(node, cache.clone())))
    };
    Means { join: Box::new(join), joined: Box::new(joined), is_hub: false }
}

macro_rules! over_rabbitmq {
    ($($area:ident :: $claim:ident [$($operation:ident),+];)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                crate::matrix::hold(crate::matrix::$area::$claim, super::means(PROFILE)).await;
            }
        )+
    };
}

mod fast {
    const PROFILE: super::Profile = super::Profile::Fast;
    matrix!(over_rabbitmq);
}

mod durable {
    const PROFILE: super::Profile = super::Profile::Durable;
    matrix!(over_rabbitmq);
}

mod stream {
    const PROFILE: super::Profile = super::Profile::Stream;
    matrix!(over_rabbitmq);
}
