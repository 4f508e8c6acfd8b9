mod balance;
mod drift;
mod health;
mod order;
mod property;
mod rtt;
mod tables;
#[cfg(feature = "watch")]
mod watch;

use std::time::{Duration, Instant};

use super::*;
use rtt::Table;

/// The default time from one look at the order to the next.
const ROUND: Duration = Duration::from_secs(1);

fn id(name: &str) -> RegionId {
    RegionId::new(name).unwrap()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn three() -> Router {
    Router::builder()
        .from("us-east")
        .region("us-east")
        .region("eu-central")
        .region("ap-south")
        .build()
        .unwrap()
}

/// Regions in no known place, so that they are ranked by what is measured.
fn unplaced(names: &[&str]) -> Builder {
    names.iter().fold(Router::builder().seed(1), |builder, name| builder.region(name))
}

fn measure(router: &Router, region: &str, rtt: Duration, samples: usize, now: Instant) {
    for _ in 0..samples {
        router.observe(&id(region), rtt, now).unwrap();
    }
}

fn order(router: &Router, now: Instant) -> Vec<String> {
    router.order(now).iter().map(ToString::to_string).collect()
}

/// A router in the city at `from`, over the table's other cities.
fn router(table: &Table, from: usize) -> Router {
    let (name, latitude, longitude) = table.cities[from];
    let mut builder = Router::builder().from_at(name, latitude, longitude).seed(from as u64);
    for (to, (name, latitude, longitude)) in table.cities.into_iter().enumerate() {
        if to != from {
            builder = builder.region_at(name, latitude, longitude);
        }
    }
    builder.build().unwrap()
}
