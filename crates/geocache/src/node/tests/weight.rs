//! What values are said to weigh.

use super::*;
use crate::{GeoCluster, PutOptions};

const KEY_AND_TABLES: u64 = 1 + 256;

async fn of_bytes(bytes: u64) -> GeoCache {
    GeoCache::builder().capacity_bytes(bytes).value_bytes_max(100).build().await.unwrap()
}

async fn put(cache: &GeoCache, key: &str, weight: u64) -> Result<(), Error> {
    cache.put_with(key, &1_u8, PutOptions::new().weight(weight)).await.map(drop)
}

#[tokio::test]
async fn the_eviction_goes_by_the_weight_that_was_said() {
    let cache = of_bytes(10_000).await;
    for key in ["a", "b", "c"] {
        put(&cache, key, 2_900).await.unwrap();
    }
    assert_eq!(cache.stats().bytes, 3 * (2_900 + KEY_AND_TABLES));
    put(&cache, "d", 2_900).await.unwrap();
    let held = ["a", "b", "c", "d"].map(|key| cache.contains(key).unwrap());
    assert_eq!((held, cache.stats().evictions), ([false, true, true, true], 1));
    cache.put("e", &1_u8).unwrap();
    assert!(cache.stats().evictions == 1 && cache.contains("b").unwrap(), "one byte more has room");
}

#[tokio::test]
async fn a_weight_stays_until_the_value_is_written_again() {
    let cache = of_bytes(10_000).await;
    put(&cache, "k", 500).await.unwrap();
    let weight = || cache.stats().bytes - KEY_AND_TABLES;
    cache.touch("k", Duration::from_secs(9)).unwrap();
    cache.get::<u8>("k").unwrap();
    assert_eq!(weight(), 500, "touched and read");
    put(&cache, "k", 700).await.unwrap();
    assert_eq!(weight(), 700);
    cache.put("k", &2_u8).unwrap();
    assert_eq!(weight(), 1, "the encoded length of a small number");
    put(&cache, "k", 0).await.unwrap();
    assert_eq!(weight(), 0);
    cache.update("k", |old: Option<Arc<u8>>| old.map(|old| *old)).unwrap();
    assert_eq!(weight(), 1);
}

#[tokio::test]
async fn a_weight_that_no_part_of_the_cache_holds_is_refused_before_anything_is_stored() {
    let cache = of_bytes(10_000).await;
    cache.put("k", &9_u8).unwrap();
    let most = 10_000 - KEY_AND_TABLES;
    let error = put(&cache, "k", most + 1).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "a value was given a weight of {} bytes, and at most {most} fit one part of the cache; nothing was changed",
            most + 1
        )
    );
    assert_eq!(cache.get::<u8>("k").unwrap().as_deref(), Some(&9));
    put(&cache, "k", most).await.unwrap();
    assert!(cache.contains("k").unwrap() && cache.stats().entries == 1);
    let by_entries = GeoCache::builder().capacity(10).build().await.unwrap();
    assert!(matches!(put(&by_entries, "k", u64::MAX).await, Err(Error::TooHeavy { .. })));
    put(&by_entries, "k", u64::from(u32::MAX) - KEY_AND_TABLES).await.unwrap();
    assert!(by_entries.contains("k").unwrap());
}

#[tokio::test]
async fn a_weight_holds_on_its_own_node_alone() {
    let cluster = GeoCluster::new(["us-east", "eu-central"]).await.unwrap();
    let (here, there) = (cluster.region("us-east").unwrap(), cluster.region("eu-central").unwrap());
    put(&here, "k", 5_000).await.unwrap();
    cluster.settled(Duration::from_secs(20)).await.unwrap();
    assert_eq!([&here, &there].map(|node| node.stats().bytes - KEY_AND_TABLES), [5_000, 1]);
    there.touch("k", Duration::from_secs(9)).unwrap();
    cluster.settled(Duration::from_secs(20)).await.unwrap();
    assert_eq!(here.stats().bytes - KEY_AND_TABLES, 1, "a touch elsewhere is a write here");
}
