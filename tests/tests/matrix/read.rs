//! Reads of what another region holds.

use std::time::Duration;

use geocache::{Builder, GeoCache};
use tests::wait_until;

use super::{BOUND, Regions};

/// A node with room for ten values, the hottest ten, which remembers what it evicted: of what it does not, it cannot know that
/// it was not removed, and refuses it.
pub(crate) fn small(builder: Builder) -> Builder {
    builder.capacity(10).graves_max(1_000)
}

/// The first of some keys that a node does not hold.
pub(crate) fn absent(node: &GeoCache, count: u32) -> String {
    (0..count).map(|n| format!("k{n}")).find(|key| !node.contains(key).unwrap()).unwrap()
}

pub(crate) async fn what_a_node_does_not_hold_is_fetched_from_another_region(regions: Regions) {
    for n in 0..50_u32 {
        regions.here.put_with_ttl(format!("k{n}"), &n, Duration::from_secs(600)).unwrap();
    }
    wait_until("all are there", BOUND, async || regions.there.stats().entries == 50).await;
    let node = regions.start("eu-central", small).await;
    wait_until("both are heard", BOUND, async || {
        node.stats().regions.iter().filter(|other| other.is_ready()).count() == 2
    })
    .await;

    let key = absent(&node, 50);
    let mut value = None;
    // A node says nothing in its first second, so nobody can be asked until then.
    wait_until("it is fetched", BOUND, async || {
        value = node.get_or_fetch::<u32>(&key, BOUND).await.unwrap();
        value.is_some()
    })
    .await;
    assert_eq!(value.map(|value| format!("k{value}")), Some(key));

    let key = absent(&node, 50);
    let item = node.fetch_item(key.as_bytes(), BOUND).await.unwrap().unwrap();
    assert!(item.left.is_some(), "its life comes with it");

    let key = absent(&node, 50);
    node.fetch([&key], BOUND).await.unwrap();
    assert!(node.contains(&key).unwrap());

    assert!(node.get_or_fetch::<u32>("nobody has it", BOUND).await.unwrap().is_none());
}
