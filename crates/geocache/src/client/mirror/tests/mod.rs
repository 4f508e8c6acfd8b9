//! Mirrored clients over servers that fail as they are told to, under a paused clock.

mod doubt;
mod fake;
mod order;
mod scenario;
mod schedule;

use std::time::Duration;

use resilience::FailoverState;
use tokio::time::{sleep, timeout};

use self::fake::Fake;
use crate::{
    Codec,
    client::{GeoClient, Mirror, MirrorBuilder, MirrorStatus},
};

const SECOND: Duration = Duration::from_secs(1);

struct Trio {
    main: Fake,
    fallback: Fake,
    backup: Fake,
    client: GeoClient,
    mirror: Mirror,
}

/// With waits that suit an example; text is stored as it is.
fn builder() -> MirrorBuilder {
    GeoClient::mirrored()
        .codec(Codec::Raw)
        .failover(|failover| failover.dwell(5 * SECOND).probation(5 * SECOND).down_after(3).up_after(2))
}

impl Trio {
    async fn new() -> Self {
        Self::of(builder(), [Fake::new("main"), Fake::new("fallback"), Fake::new("backup")]).await
    }

    async fn of(builder: MirrorBuilder, [main, fallback, backup]: [Fake; 3]) -> Self {
        let builder = builder.main("us-east", main.clone()).fallback("eu-central", fallback.clone());
        let client = builder.backup("ap-south", backup.clone()).build().await.unwrap();
        let mirror = client.mirror().unwrap();
        Self { main, fallback, backup, client, mirror }
    }

    async fn get(&self, key: &str) -> Option<String> {
        self.client.get(key).await.unwrap()
    }

    async fn put(&self, key: &str, value: &str) {
        self.client.put(key, value).await.unwrap();
    }

    fn state(&self) -> FailoverState {
        self.mirror.status().failover.state
    }

    /// Waits until the status is as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&MirrorStatus) -> bool) {
        let reached = async {
            while !wanted(&self.mirror.status()) {
                sleep(SECOND / 10).await;
            }
        };
        let reached = timeout(300 * SECOND, reached).await;
        assert!(reached.is_ok(), "never {what}: {}", self.mirror.status());
    }

    async fn until_state(&self, state: FailoverState) {
        self.until(&format!("{state}"), |status| status.failover.state == state).await;
    }

    async fn until_alike(&self) {
        self.until("alike", |status| {
            status.failover.state == FailoverState::OnMain
                && status.failover.waiting.is_empty()
                && status.places.iter().all(|place| place.up && place.missed == 0 && !place.stale)
                && status.places.iter().all(|place| !place.lacking)
        })
        .await;
    }

    fn held(&self, key: &str) -> [Option<String>; 3] {
        [&self.main, &self.fallback, &self.backup].map(|fake| fake.held(key))
    }
}

fn all(value: &str) -> [Option<String>; 3] {
    [(); 3].map(|()| Some(value.to_owned()))
}
