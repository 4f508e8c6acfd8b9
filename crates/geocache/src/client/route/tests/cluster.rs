//! Over nodes that replicate, in this process and in real time.

use super::*;
use crate::{GeoCluster, client::RouteEvent};

const LONG: Duration = Duration::from_secs(30);

async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let reached = async {
        while !condition().await {
            tokio::time::sleep(ms(5)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, reached).await.is_ok(), "{what} did not come");
}

/// A region that is some way off: in one process, all are as close.
#[derive(Debug)]
struct Away(Arc<dyn Endpoint>, Duration);

impl Away {
    async fn there(&self) -> &dyn Endpoint {
        tokio::time::sleep(self.1).await;
        &*self.0
    }
}

#[async_trait]
impl Endpoint for Away {
    fn address(&self) -> String {
        self.0.address()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Item>, EndpointError> {
        self.there().await.get(key).await
    }

    async fn write(&self, key: &[u8], write: Write, expect: Expect) -> Result<Outcome, EndpointError> {
        self.there().await.write(key, write, expect).await
    }

    async fn remove(&self, key: &[u8], expect: Expect) -> Result<Outcome, EndpointError> {
        self.there().await.remove(key, expect).await
    }

    async fn touch(&self, key: &[u8], ttl: TimeToLive) -> Result<bool, EndpointError> {
        self.there().await.touch(key, ttl).await
    }

    async fn clear(&self) -> Result<(), EndpointError> {
        self.there().await.clear().await
    }

    async fn probe(&self) -> Result<Pulse, EndpointError> {
        self.there().await.probe().await
    }
}

async fn pair() -> (GeoCluster, GeoClient) {
    let cluster = GeoCluster::new(["eu-central", "us-east"]).await.unwrap();
    let client = GeoClient::builder().from("eu-central").probe_interval(ms(50)).open_wait(ms(50));
    let far = Away(cluster.endpoint("us-east").unwrap(), ms(40));
    let client = client.endpoint("us-east", Arc::new(far));
    let client = client.endpoint("eu-central", cluster.endpoint("eu-central").unwrap());
    (cluster, client.build().unwrap())
}

async fn served_by(client: &GeoClient) -> Option<String> {
    let served = client.get_served::<String>("k").await.ok()?;
    served.value.map(|_| served.region.to_string())
}

#[tokio::test]
async fn the_other_region_answers_while_the_closest_is_stopped_and_until_it_is_back() {
    let (cluster, client) = pair().await;
    let done = client.put("k", "v").await.unwrap();
    assert_eq!(done.region.as_str(), "eu-central");
    cluster.settled(LONG).await.unwrap();
    cluster.stop("eu-central").await.unwrap();
    for _ in 0..20 {
        assert_eq!(served_by(&client).await.as_deref(), Some("us-east"));
    }
    let written = client.put("meanwhile", "w").await.unwrap();
    assert_eq!(written.region.as_str(), "us-east");
    cluster.start("eu-central").await.unwrap();
    let back = async || served_by(&client).await.as_deref() == Some("eu-central");
    until("the return", back).await;
    let seen = client.get_served::<String>("meanwhile").await.unwrap();
    assert_eq!(seen.value.as_deref(), Some("w"), "{seen:?}");
}

#[tokio::test]
async fn a_region_that_is_parted_serves_on_and_what_it_serves_is_flagged() {
    let (cluster, client) = pair().await;
    client.put("k", "v").await.unwrap();
    cluster.settled(LONG).await.unwrap();
    let mut events = client.routes().unwrap().watch();
    cluster.partition("eu-central", "us-east").unwrap();
    let doubted = async || {
        let served = client.get_served::<String>("k").await.unwrap();
        served.region.as_str() == "eu-central" && served.doubt == Some(Doubt::CutOff)
    };
    until("the doubt", doubted).await;
    cluster.heal();
    until("the end of the doubt", async || !client.get_served::<String>("k").await.unwrap().may_be_stale())
        .await;
    assert!(matches!(events.next().await, Ok(Some(RouteEvent::Doubt { doubt: Some(Doubt::CutOff), .. }))));
}

#[tokio::test]
async fn an_update_is_judged_by_the_number_of_the_region_that_gave_the_value() {
    let (cluster, client) = pair().await;
    client.put("n", &0_u64).await.unwrap();
    let raise = |before: Option<u64>| before.map(|n| n + 1);
    let raises = (0..20).map(|_| client.update::<u64, _>("n", raise));
    for raised in join_all(raises.collect::<Vec<_>>()).await {
        raised.unwrap();
    }
    assert_eq!(client.get::<u64>("n").await.unwrap(), Some(20));
    cluster.settled(LONG).await.unwrap();
    cluster.stop("eu-central").await.unwrap();
    let after = client.update::<u64, _>("n", raise).await.unwrap();
    assert_eq!((after.value, after.region.as_str()), (Some(21), "us-east"));
}

#[tokio::test]
async fn a_node_of_this_process_is_the_closest_and_gives_way_when_it_is_closed() {
    let cluster = GeoCluster::new(["eu-central", "us-east"]).await.unwrap();
    let node = cluster.region("us-east").unwrap();
    let client = GeoClient::builder()
        .node(node.clone())
        .endpoint("eu-central", cluster.endpoint("eu-central").unwrap())
        .build()
        .unwrap();
    assert_eq!(client.put("k", "v").await.unwrap().region.as_str(), "us-east");
    cluster.settled(LONG).await.unwrap();
    node.close(LONG).await;
    assert_eq!(served_by(&client).await.as_deref(), Some("eu-central"));
    assert!(matches!(cluster.endpoint("mars"), Err(Error::UnknownRegion { .. })));
}
