//! What a client of two regions lives through, whatever its endpoints are: nodes of this process, or servers that speak memcached.
//!
//! The other region is put [`DISTANCE`] away, since on one machine all are as close, and a client stays where it is among those.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use geocache::{
    Expect, Item, Outcome, TimeToLive, Write,
    client::{ClientBuilder, ClientError, Endpoint, EndpointError, GeoClient, Pulse},
};
use tests::wait_until;

const BOUND: Duration = Duration::from_secs(60);
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// How long what is asked of the other region is on its way.
const DISTANCE: Duration = Duration::from_millis(40);

/// Two regions that replicate to each other, and how the one that is asked first is taken away and given back.
pub(crate) trait Regions {
    /// The region that is closest.
    fn near(&self) -> (&'static str, Arc<dyn Endpoint>);

    /// The other region.
    fn far(&self) -> (&'static str, Arc<dyn Endpoint>);

    /// Takes the closest region away: nothing there answers.
    async fn take_away(&self);

    /// Gives it back. It may be empty, if it is brought up to date by itself.
    async fn give_back(&self);

    /// Whether what it was asked while it was away is done once it is back, and so is the newest that was written.
    fn does_later(&self) -> bool {
        false
    }
}

fn client(regions: &impl Regions) -> GeoClient {
    builder(regions).build().unwrap()
}

pub(crate) fn builder(regions: &impl Regions) -> ClientBuilder {
    let ((near, here), (far, there)) = (regions.near(), regions.far());
    let client = GeoClient::builder().from(near).endpoint(far, Arc::new(Away(there))).endpoint(near, here);
    let client = client.probe_interval(Duration::from_millis(100)).open_wait(Duration::from_millis(100));
    client.call_limit(CALL_LIMIT).attempt_limit(Duration::from_secs(1))
}

pub(crate) async fn served(client: &GeoClient, key: &str) -> Option<(String, String)> {
    let served = client.get_served::<String>(key).await.ok()?;
    Some((served.region.to_string(), served.value?))
}

/// Every call is answered during the outage; what was written before and meanwhile is read all along, first at one region,
/// then at the other, then at the first again.
pub(crate) async fn an_outage_of_the_closest_region_is_survived(regions: &impl Regions) {
    let (client, near, far) = (client(regions), regions.near().0, regions.far().0);
    let put = client.put("before", "1").await.unwrap();
    assert_eq!(put.region.as_str(), near);
    assert_eq!(served(&client, "before").await, Some((near.to_owned(), "1".to_owned())));
    let reader = far_reader(regions);
    wait_until("the other region has it", BOUND, async || {
        reader.get::<String>("before").await.ok().flatten().as_deref() == Some("1")
    })
    .await;

    regions.take_away().await;
    // What is done later is no other value of its key.
    let key =
        |turn: u32| if regions.does_later() { format!("meanwhile-{turn}") } else { "meanwhile".to_owned() };
    for turn in 0..20 {
        let put = client.put(key(turn), &turn.to_string()).await.unwrap();
        assert_eq!(put.region.as_str(), far);
        assert_eq!(served(&client, "before").await, Some((far.to_owned(), "1".to_owned())));
        assert_eq!(served(&client, &key(turn)).await, Some((far.to_owned(), turn.to_string())));
    }

    regions.give_back().await;
    wait_until("the closest region is used again, with what it missed", BOUND, async || {
        served(&client, &key(19)).await == Some((near.to_owned(), "19".to_owned()))
    })
    .await;
    client.close(BOUND).await;
    assert!(matches!(client.get::<String>("before").await, Err(ClientError::Closed)));
}

/// A condition is judged by the region that gave the value, and a number of one region is not taken at the other unseen.
pub(crate) async fn updates_are_judged_where_the_value_was_read(regions: &impl Regions) {
    let client = client(regions);
    client.put("n", &0_u64).await.unwrap();
    for _ in 0..10 {
        client.update::<u64, _>("n", |n| n.map(|n| n + 1)).await.unwrap();
    }
    assert_eq!(client.get::<u64>("n").await.unwrap(), Some(10));
    let seen = client.item(b"n").await.unwrap();
    let number = Expect::Cas(seen.value.unwrap().cas);
    assert!(matches!(client.remove_if(b"n", number).await, Err(ClientError::Unplaced)));
    client.remove_at(&seen.region, b"n", number).await.unwrap();
    assert_eq!(client.get::<u64>("n").await.unwrap(), None);
}

/// A client of the other region alone.
fn far_reader(regions: &impl Regions) -> GeoClient {
    let (far, there) = regions.far();
    GeoClient::builder().endpoint(far, there).build().unwrap()
}

/// An endpoint some way off.
#[derive(Debug)]
struct Away(Arc<dyn Endpoint>);

impl Away {
    async fn there(&self) -> &dyn Endpoint {
        tokio::time::sleep(DISTANCE).await;
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
