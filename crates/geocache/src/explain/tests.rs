use std::time::Duration;

use cache_core::ManualClock;
use replication::{
    Hlc, NodeId, Op, Origin, Record, Value,
    message::{Bar, Grave},
    replica::Store,
};

use super::*;
use crate::{Expect, GeoCluster, Write};

const LONG: Duration = Duration::from_secs(20);

async fn kept(capacity: usize) -> GeoCache {
    GeoCache::builder().capacity(capacity).graves_max(1).explain_history(100).build().await.unwrap()
}

fn past(cache: &GeoCache, key: &str) -> Vec<What> {
    cache.explain(key).unwrap().past.expect("a history").into_iter().map(|past| past.what).collect()
}

/// A record of another node, that many milliseconds from now.
fn record(cache: &GeoCache, key: &str, ms: i64, op: Op) -> Record {
    let hlc = Hlc::from_ms(cache.store().wall_ms().saturating_add_signed(ms));
    let key = Bytes::copy_from_slice(key.as_bytes());
    Record { stamp: Stamp { hlc, origin: Origin(7) }, key, op, previous: None }
}

fn put(bytes: &'static str) -> Op {
    Op::Put(Value { bytes: Bytes::from_static(bytes.as_bytes()), ..Value::default() })
}

#[tokio::test]
async fn what_is_done_here_is_told_in_its_order() {
    let cache = kept(100).await;
    let raw = |bytes: &'static str| Write { bytes: bytes.into(), ..Write::default() };
    cache.put("k", "v").unwrap();
    cache.touch("k", LONG).unwrap();
    cache.write(b"k", raw("w"), Expect::Absent).unwrap();
    cache.write(b"k", raw("w"), Expect::Cas(7)).unwrap();
    cache.remove("k").unwrap();
    cache.remove_if(b"k", Expect::Present).unwrap();
    cache.get_or_load("k", || async { Ok::<_, fmt::Error>(1_u64) }).await.unwrap();
    cache.put_with_ttl("k", &1_u64, Duration::ZERO).unwrap();
    let refused = |outcome| What::Refused(outcome);
    let expected = [
        What::Put,
        What::Touched,
        refused(Outcome::Present),
        refused(Outcome::Exists),
        What::Removed,
        refused(Outcome::Missing),
        What::Loaded,
        What::Removed,
    ];
    assert_eq!(past(&cache, "k"), expected);
    assert_eq!(past(&cache, "other"), []);
    let told = cache.explain("k").unwrap();
    let Some([first, ..]) = told.past.as_deref() else { panic!("a history") };
    assert_eq!(first.writer.as_ref(), Some(cache.node()));
    assert!(first.ago < LONG && first.at <= SystemTime::now() + LONG);
}

#[tokio::test]
async fn what_others_write_is_told_with_why_it_was_not_taken() {
    let cache = kept(100).await;
    let store = cache.store();
    let newer = record(&cache, "k", -1_000, put("v"));
    let older = record(&cache, "k", -2_000, put("u"));
    store.merge(&newer, None);
    store.merge(&newer, None);
    store.merge(&older, None);
    store.merge(&record(&cache, "k", -500, Op::Remove), None);
    store.merge(&newer, None);
    let expected = [What::Applied, What::Duplicate, What::Older, What::RemovedElsewhere, What::Buried];
    assert_eq!(past(&cache, "k"), expected);

    store.clear(b"", record(&cache, "", -100, Op::Clear).stamp);
    store.merge(&record(&cache, "cleared", -200, put("v")), None);
    assert_eq!(past(&cache, "cleared"), [What::BeneathClear]);

    let ahead = record(&cache, "ahead", 600_000, put("v"));
    store.refused(&ahead);
    assert_eq!(past(&cache, "ahead"), [What::Drift]);

    let swept = record(&cache, "swept", -50, put("v"));
    store.merge(&swept, None);
    store.sweep(0, None, Bar::above(swept.stamp), &|_| false);
    assert_eq!(past(&cache, "swept"), [What::Applied, What::Swept]);

    let buried = record(&cache, "buried", -40, put("v"));
    store.merge(&buried, None);
    let position = store.page(0, 1 << 20, 0).positions[0];
    store.bury(Grave { position, bar: Bar::above(record(&cache, "", -30, Op::Remove).stamp) });
    assert_eq!(past(&cache, "buried"), [What::Applied, What::RemovedElsewhere]);
}

#[tokio::test]
async fn below_the_floor_a_key_that_nothing_is_known_of_is_refused() {
    let cache = GeoCache::builder().capacity(1).graves_max(1).explain_history(100).build().await.unwrap();
    for key in ["a", "b", "c", "d"] {
        cache.put(key, "v").unwrap();
    }
    let Present::Unknown { floor: Some(floor) } = cache.explain("none").unwrap().present else {
        panic!("graves were given up")
    };
    cache.store().merge(&record(&cache, "none", -1_000, put("v")), None);
    assert_eq!(past(&cache, "none"), [What::BelowFloor]);
    assert!(cache.explain("none").unwrap().to_string().contains(&format!("nothing below the floor {floor}")));
    assert_eq!(past(&cache, "c"), [What::Put, What::Evicted]);
    assert!(matches!(cache.explain("c").unwrap().present, Present::Evicted { .. }));
}

#[tokio::test]
async fn the_end_of_a_life_is_told() {
    let clock = ManualClock::new();
    let cache = GeoCache::builder().explain_history(1_000).clock(clock.clone().into()).build().await.unwrap();
    cache.put_with_ttl("k", "v", Duration::from_secs(1)).unwrap();
    clock.advance(Duration::from_secs(2));
    assert!(cache.get::<String>("k").unwrap().is_none());
    assert_eq!(past(&cache, "k"), [What::Put, What::Expired]);
    assert!(matches!(cache.explain("k").unwrap().present, Present::Gone { .. }));
}

#[tokio::test]
async fn without_a_history_the_present_state_is_told() {
    let cache = GeoCache::builder().build().await.unwrap();
    assert_eq!(cache.explain("k").unwrap().present, Present::Unknown { floor: None });
    cache.put_with_ttl("k", "hello", LONG).unwrap();
    cache.get::<String>("k").unwrap();
    let hits = cache.stats().hits;
    let told = cache.explain("k").unwrap();
    assert_eq!((told.past.as_ref(), cache.stats().hits), (None, hits));
    let Present::Held { writer, left: Some(left), codec, bytes, weight, is_decoded, .. } = &told.present
    else {
        panic!("{told}")
    };
    assert_eq!((writer.as_ref(), *codec, *bytes, *weight), (Some(cache.node()), Codec::MessagePack, 6, 6));
    assert!(*is_decoded && *left <= LONG);
    let text = told.to_string();
    assert!(text.starts_with("k\n  held: 6 bytes of MessagePack, decoded, "), "{text}");
    assert!(text.contains("of its life left, written by local/node-1 at "), "{text}");
    assert!(text.ends_with("no history is kept (explain_history)"), "{text}");
    assert!(matches!(cache.explain(""), Err(Error::Key { .. })));
}

/// A clear hides at once what is reclaimed later; in one thread, later is after this test's next wait.
#[tokio::test]
async fn what_is_behind_a_clear_is_told_as_cleared_in_a_namespace_too() {
    let cache = kept(100).await;
    let users = cache.namespace("user").unwrap();
    users.put("1", "Ada").unwrap();
    users.clear().unwrap();
    let told = users.explain("1").unwrap();
    assert_eq!(&told.key[..], b"user:1");
    assert!(matches!(told.present, Present::Cleared { stamp } if Some(stamp) < told.cleared), "{told}");
    assert!(told.to_string().contains("\n  cleared at "), "{told}");
}

#[tokio::test]
async fn the_history_is_bounded_and_the_oldest_goes() {
    let cache = GeoCache::builder().capacity(100).explain_history(10).build().await.unwrap();
    for number in 0..1_000_u32 {
        cache.put("k", &number).unwrap();
        cache.touch("k", LONG).unwrap();
    }
    let past = past(&cache, "k");
    assert!((1..=10).contains(&past.len()), "{}", past.len());
    assert_eq!(past.last(), Some(&What::Touched));
    let mut sum = 0;
    (0..1_000).for_each(|number| cache.put(format!("k{number}"), &1_u8).unwrap());
    for number in 0..1_000 {
        sum += cache.explain(format!("k{number}")).unwrap().past.map_or(0, |past| past.len());
    }
    assert!(sum <= 10, "{sum}");
}

#[tokio::test]
async fn a_node_names_the_region_that_wrote_and_reads_it_out() {
    let cluster = GeoCluster::builder()
        .regions(["us-east", "eu-central"])
        .configure(|node| node.explain_history(100))
        .build()
        .await
        .unwrap();
    cluster.put("k", "v", "us-east").unwrap();
    cluster.settled(LONG).await.unwrap();
    let there = cluster.region("eu-central").unwrap();
    let told = there.explain("k").unwrap();
    let writer = NodeId::new("us-east".parse().unwrap(), "node-1").unwrap();
    let Present::Held { writer: Some(by), .. } = &told.present else { panic!("{told}") };
    assert_eq!(*by, writer);
    let text = told.to_string();
    assert!(text.contains("written by us-east/node-1 at ") && text.contains(" ago: applied, "), "{text}");
}
