//! The two-minute start: typed values, times to live, reading through, and a second region.
//!
//! `cargo run --package geocache --example quickstart` takes a few seconds and ends by itself. The regions are joined by the
//! in-memory hub; over RabbitMQ the calls are the same (`three_processes`). Outages are in `rehearse_outage`.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use geocache::{GeoCache, GeoCluster};
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
    one_node().await?;
    two_regions().await
}

/// A cache in this process alone: no transport, no configuration.
async fn one_node() -> Result<(), Box<dyn Error>> {
    let cache = GeoCache::builder().capacity(10_000).build().await?;

    // Values of any serde type lie side by side in one cache.
    cache.put("user:1", &Profile { name: "Ada".to_owned(), visits: 1 })?;
    cache.put("motd", "all is well")?;
    let profile = cache.get::<Profile>("user:1")?.ok_or("it was just put")?;
    println!("one node reads what it stored: {profile:?}");

    // On a miss a loader runs, once for all who ask at the same time.
    let price = cache.get_or_load("price:7", || async { Ok::<_, std::io::Error>(42_u64) }).await?;
    println!("loaded from the origin: {price}");
    let again = cache.get_or_load("price:7", || async { Err(std::io::Error::other("asked twice")) }).await?;
    assert_eq!(price, again);
    Ok(())
}

/// Each region has its own memory; a write in one is replicated to the other behind the caller's back.
async fn two_regions() -> Result<(), Box<dyn Error>> {
    let cache = GeoCluster::new([EAST, CENTRAL]).await?;
    cache.put("user:1", &Profile { name: "Ada".to_owned(), visits: 1 }, EAST)?;
    // Waits for the lag, for the sake of this example; an application goes on.
    cache.settled(BOUND).await?;
    println!("{CENTRAL} reads what {EAST} stored: {:?}", cache.get::<Profile>("user:1", CENTRAL)?);

    let one_more = |profile: Option<Arc<Profile>>| {
        profile.map(|profile| Profile { name: profile.name.clone(), visits: profile.visits + 1 })
    };
    cache.update("user:1", one_more, CENTRAL)?;
    cache.settled(BOUND).await?;
    let profile = cache.get::<Profile>("user:1", EAST)?;
    println!("{EAST} reads what {CENTRAL} made of it: {profile:?}");
    assert_eq!(profile.map(|profile| profile.visits), Some(2));

    // A life ends in every region, and is not begun anew by replication.
    let start = Instant::now();
    cache.put_with_ttl("code", "4711", Duration::from_secs(2), EAST)?;
    cache.settled(BOUND).await?;
    println!("{CENTRAL} reads a code that lives for 2 s: {:?}", cache.get::<String>("code", CENTRAL)?);
    until(|| Ok(cache.get::<String>("code", CENTRAL)?.is_none())).await?;
    println!("{CENTRAL} no longer has it after {:.1} s", start.elapsed().as_secs_f64());

    cache.close(BOUND).await;
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
