//! Two regions in one process: typed values, a time to live, and a rehearsed outage.
//!
//! `cargo run --package geocache --example two_regions` takes a few seconds and ends by itself. The regions are joined by
//! the in-memory hub; over RabbitMQ the calls are the same.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use geocache::{GeoCluster, RegionId};
use serde::{Deserialize, Serialize};

const EAST: &str = "us-east";
const CENTRAL: &str = "eu-central";
/// No wait here is longer.
const BOUND: Duration = Duration::from_secs(30);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Profile {
    name: String,
    visits: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cache = GeoCluster::new([EAST, CENTRAL]).await?;
    typed_values(&cache).await?;
    time_to_live(&cache).await?;
    outage(&cache).await?;
    cache.close(BOUND).await;
    Ok(())
}

/// What one region stores, the other reads and changes; `settled` waits for the lag, which an application would not.
async fn typed_values(cache: &GeoCluster) -> Result<(), Box<dyn Error>> {
    cache.put("user:1", &Profile { name: "Ada".to_owned(), visits: 1 }, EAST)?;
    cache.settled(BOUND).await?;
    println!("{CENTRAL} reads what {EAST} stored: {:?}", cache.get::<Profile>("user:1", CENTRAL)?);

    let one_more = |profile: Option<std::sync::Arc<Profile>>| {
        profile.map(|profile| Profile { name: profile.name.clone(), visits: profile.visits + 1 })
    };
    cache.update("user:1", one_more, CENTRAL)?;
    cache.settled(BOUND).await?;
    let profile = cache.get::<Profile>("user:1", EAST)?;
    println!("{EAST} reads what {CENTRAL} made of it: {profile:?}");
    assert_eq!(profile.map(|profile| profile.visits), Some(2));
    Ok(())
}

/// A value's life ends in every region, and is not begun anew by replication.
async fn time_to_live(cache: &GeoCluster) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    cache.put_with_ttl("code", "4711", Duration::from_secs(2), EAST)?;
    cache.settled(BOUND).await?;
    println!("{CENTRAL} reads a code that lives for 2 s: {:?}", cache.get::<String>("code", CENTRAL)?);
    until(|| Ok(cache.get::<String>("code", CENTRAL)?.is_none())).await?;
    println!("{CENTRAL} no longer has it after {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Both regions serve and accept writes while they are cut off from each other, and agree again afterwards.
async fn outage(cache: &GeoCluster) -> Result<(), Box<dyn Error>> {
    cache.put("motd", "all is well", EAST)?;
    cache.settled(BOUND).await?;
    cache.hub().isolate(CENTRAL.parse::<RegionId>()?);
    cache.put("motd", "we are cut off", EAST)?;
    cache.put("order:7", "taken during the outage", CENTRAL)?;
    let (motd, order) = (cache.get::<String>("motd", CENTRAL)?, cache.get::<String>("order:7", EAST)?);
    println!("cut off, {CENTRAL} still answers, with what it had: {motd:?}");
    println!("cut off, {EAST} does not know of {CENTRAL}'s order: {order:?}");
    assert_eq!(motd.as_deref().map(String::as_str), Some("all is well"));
    assert!(order.is_none());

    let start = Instant::now();
    cache.hub().heal();
    cache.settled(BOUND).await?;
    let (motd, order) = (cache.get::<String>("motd", CENTRAL)?, cache.get::<String>("order:7", EAST)?);
    println!("healed, they agree after {:.1} s: {motd:?}, {order:?}", start.elapsed().as_secs_f64());
    assert_eq!(motd.as_deref().map(String::as_str), Some("we are cut off"));
    assert_eq!(order.as_deref().map(String::as_str), Some("taken during the outage"));
    Ok(())
}

/// Asks until it is so, to the bound.
async fn until(mut condition: impl FnMut() -> Result<bool, geocache::Error>) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    while !condition()? {
        if start.elapsed() > BOUND {
            return Err(format!("waited {BOUND:?} in vain").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
