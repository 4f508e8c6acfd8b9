//! A client that routes, over regions of this process: the scenarios that servers elsewhere are held to as well.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

mod routed;

use std::sync::Arc;

use geocache::{GeoCluster, client::Endpoint};
use routed::Regions;

const NEAR: &str = "eu-central";
const FAR: &str = "us-east";

/// A cluster in this process; a region of it crashes, and starts empty.
struct InProcess(GeoCluster);

impl InProcess {
    async fn new() -> Self {
        Self(GeoCluster::new([NEAR, FAR]).await.unwrap())
    }
}

impl Regions for InProcess {
    fn near(&self) -> (&'static str, Arc<dyn Endpoint>) {
        (NEAR, self.0.endpoint(NEAR).unwrap())
    }

    fn far(&self) -> (&'static str, Arc<dyn Endpoint>) {
        (FAR, self.0.endpoint(FAR).unwrap())
    }

    async fn take_away(&self) {
        self.0.kill(NEAR).await.unwrap();
    }

    async fn give_back(&self) {
        self.0.start(NEAR).await.unwrap();
    }
}

#[tokio::test]
async fn an_outage_of_the_closest_region_is_survived() {
    routed::an_outage_of_the_closest_region_is_survived(&InProcess::new().await).await;
}

#[tokio::test]
async fn updates_are_judged_where_the_value_was_read() {
    routed::updates_are_judged_where_the_value_was_read(&InProcess::new().await).await;
}
