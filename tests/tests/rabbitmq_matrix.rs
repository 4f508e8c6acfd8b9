//! Every operation of `GeoCache` over RabbitMQ, in each profile: the claims of `matrix/`, which `api_matrix.rs` runs over the
//! in-memory hub.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

#[macro_use]
mod matrix;

use std::sync::Arc;

use geocache::{
    NodeId, Transport,
    rabbitmq::{Config, Profile, RabbitMq},
};
use matrix::Regions;
use tests::broker::shared_url;

async fn regions(profile: Profile) -> Regions {
    let url = shared_url().unwrap();
    let join = move |node: NodeId, cache: String| {
        let config = Config::new(node, vec![url.clone()]).cache(cache).profile(profile);
        let connected = async {
            let transport: Arc<dyn Transport> = RabbitMq::connect(config).await.unwrap();
            transport
        };
        Box::pin(connected) as matrix::Joining
    };
    Regions::joined(Box::new(join)).await
}

macro_rules! over_rabbitmq {
    ($($area:ident :: $claim:ident [$($operation:ident),+];)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                crate::matrix::$area::$claim(super::regions(PROFILE).await).await;
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
