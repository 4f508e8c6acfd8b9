//! The RabbitMQ transport keeps the transport contract, in each profile, on a real broker.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use std::sync::Arc;

use replication::{
    NodeId, Transport, contract,
    rabbitmq::{Config, Profile, RabbitMq},
};
use tests::{broker::shared_url, unique_name};

async fn keeps_the_contract(profile: Profile) {
    let url = shared_url().unwrap();
    contract::holds(async |nodes: &[NodeId]| {
        let cache = unique_name("contract");
        let mut ends: Vec<Arc<dyn Transport>> = Vec::new();
        for node in nodes {
            let config = Config::new(node.clone(), vec![url.clone()]).cache(&cache).profile(profile);
            ends.push(RabbitMq::connect(config).await.unwrap());
        }
        ends
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fast_profile_keeps_the_transport_contract() {
    keeps_the_contract(Profile::Fast).await;
}

// On the other kind of runtime, so that both are held to it.
#[tokio::test]
async fn the_durable_profile_keeps_the_transport_contract() {
    keeps_the_contract(Profile::Durable).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_profile_keeps_the_transport_contract() {
    keeps_the_contract(Profile::Stream).await;
}
