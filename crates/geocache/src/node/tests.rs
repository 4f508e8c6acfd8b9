mod end;
mod weight;

use std::{thread, time::Duration};

use cache_core::ManualClock;
use serde::{Deserialize, Serialize};

use super::*;
use crate::{BuildError, Expect, Item, Outcome, TimeToLive, Write};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    age: u8,
}

async fn cache() -> GeoCache {
    GeoCache::builder().build().await.expect("the defaults are valid")
}

async fn timed() -> (GeoCache, ManualClock) {
    let clock = ManualClock::new();
    let cache = GeoCache::builder()
        .default_ttl(Duration::from_secs(60))
        .clock(clock.clone().into())
        .build()
        .await
        .expect("a valid configuration");
    (cache, clock)
}

fn raw(bytes: &'static [u8]) -> Write {
    Write { bytes: bytes.into(), ..Write::default() }
}

fn cas(cache: &GeoCache, key: &[u8]) -> u64 {
    cache.peek_item(key).expect("held").cas
}

fn text(cache: &GeoCache, key: &[u8]) -> Option<String> {
    cache.peek_item(key).map(|item| String::from_utf8_lossy(&item.bytes).into_owned())
}

#[tokio::test]
async fn one_cache_holds_values_of_many_types() {
    let cache = cache().await;
    let ada = User { name: "Ada".to_owned(), age: 36 };
    cache.put("user", &ada).unwrap();
    cache.put("number", &u64::MAX).unwrap();
    cache.put("text", "plain").unwrap();
    cache.put(b"\x00\xff", &vec![1_u8, 2]).unwrap();
    assert_eq!(*cache.get::<User>("user").unwrap().unwrap(), ada);
    assert_eq!(*cache.get::<u64>("number").unwrap().unwrap(), u64::MAX);
    assert_eq!(*cache.get::<String>("text").unwrap().unwrap(), "plain");
    assert_eq!(*cache.get::<Vec<u8>>(b"\x00\xff").unwrap().unwrap(), [1, 2]);
    assert!(cache.get::<User>("nobody").unwrap().is_none());
}

#[tokio::test]
async fn a_hot_typed_read_is_a_clone_of_the_same_value() {
    let cache = cache().await;
    cache.put("k", &vec![1_u64; 100]).unwrap();
    let first = cache.get::<Vec<u64>>("k").unwrap().unwrap();
    let second = cache.get::<Vec<u64>>("k").unwrap().unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    cache.put("k", &vec![2_u64]).unwrap();
    assert_eq!(
        *cache.get::<Vec<u64>>("k").unwrap().unwrap(),
        [2],
        "a new value is not shadowed by the old one"
    );
}

#[tokio::test]
async fn a_value_of_another_type_is_an_error_and_stays_stored() {
    let cache = cache().await;
    cache.put("k", &User { name: "Ada".to_owned(), age: 36 }).unwrap();
    assert!(matches!(cache.get::<u64>("k"), Err(Error::Decode { .. })));
    assert!(matches!(cache.update("k", |n: Option<Arc<u64>>| n.map(|n| *n + 1)), Err(Error::Decode { .. })));
    assert_eq!(cache.get::<User>("k").unwrap().unwrap().age, 36);
}

#[tokio::test]
async fn a_value_that_cannot_be_encoded_changes_nothing() {
    let cache = GeoCache::builder().codec(Codec::Json).build().await.unwrap();
    cache.put("k", "kept").unwrap();
    let no_json = std::collections::HashMap::from([(vec![1_u8], 1_u8)]);
    assert!(matches!(cache.put("k", &no_json), Err(Error::Encode { codec: Codec::Json, .. })));
    assert_eq!(*cache.get::<String>("k").unwrap().unwrap(), "kept");
}

#[tokio::test]
async fn what_a_memcached_client_wrote_is_read_as_text_or_bytes() {
    let cache = cache().await;
    cache.write(b"k", raw(b"hello"), Expect::Any).unwrap();
    assert_eq!(*cache.get::<String>("k").unwrap().unwrap(), "hello");
    assert_eq!(*cache.get::<Vec<u8>>("k").unwrap().unwrap(), b"hello");
}

#[tokio::test]
async fn keys_and_values_beyond_the_limits_are_refused() {
    let cache = GeoCache::builder().value_bytes_max(10).build().await.unwrap();
    for key in ["", &"k".repeat(251)] {
        let refused = |error: Error| matches!(error, Error::Key { bytes, max: 250 } if bytes == key.len());
        assert!(refused(cache.put(key, "v").unwrap_err()));
        assert!(refused(cache.get::<String>(key).unwrap_err()));
        assert!(refused(cache.remove(key).unwrap_err()));
        assert!(refused(cache.touch(key, Duration::from_secs(1)).unwrap_err()));
        assert!(refused(cache.write(key.as_bytes(), raw(b"v"), Expect::Any).unwrap_err()));
        assert!(refused(cache.update(key, |_: Option<Arc<u8>>| Some(1)).unwrap_err()));
        assert_eq!(cache.item(key.as_bytes()), None);
    }
    cache.put("k".repeat(250), "v").unwrap();
    cache.write(b"k", raw(b"0123456789"), Expect::Any).unwrap();
    let error = cache.write(b"k", raw(b"0123456789a"), Expect::Any).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the encoded value has 11 bytes, at most 10 are allowed; nothing was changed"
    );
    assert_eq!(text(&cache, b"k").as_deref(), Some("0123456789"));
}

#[tokio::test]
async fn values_live_as_long_as_they_are_told() {
    let (cache, clock) = timed().await;
    cache.put("default", "v").unwrap();
    cache.put_with_ttl("short", "v", Duration::from_secs(1)).unwrap();
    cache.write(b"never", Write { ttl: TimeToLive::Never, ..raw(b"v") }, Expect::Any).unwrap();
    assert_eq!(cache.item(b"default").unwrap().left, Some(Duration::from_secs(60)));
    assert_eq!(cache.item(b"never").unwrap().left, None);
    clock.advance(Duration::from_secs(1));
    assert_eq!(cache.item(b"short"), None);
    clock.advance(Duration::from_secs(59));
    assert_eq!(cache.item(b"default"), None);
    assert!(cache.contains("never").unwrap());
    assert_eq!(cache.stats().expirations, 2);
}

#[tokio::test]
async fn a_kept_life_ends_when_it_would_have() {
    let (cache, clock) = timed().await;
    cache.put_with_ttl("k", &1_u64, Duration::from_secs(10)).unwrap();
    clock.advance(Duration::from_secs(4));
    cache.update("k", |n: Option<Arc<u64>>| n.map(|n| *n + 1)).unwrap();
    assert_eq!(cache.item(b"k").unwrap().left, Some(Duration::from_secs(6)));
    cache.write(b"new", Write { ttl: TimeToLive::Keep, ..raw(b"v") }, Expect::Any).unwrap();
    assert_eq!(
        cache.item(b"new").unwrap().left,
        Some(Duration::from_secs(60)),
        "nothing to keep: the default"
    );
    clock.advance(Duration::from_secs(6));
    assert_eq!(cache.item(b"k"), None);
}

#[tokio::test]
async fn a_touch_gives_a_new_life_and_keeps_the_value() {
    let (cache, clock) = timed().await;
    cache.put_with_ttl("k", "v", Duration::from_secs(1)).unwrap();
    let before = cas(&cache, b"k");
    assert!(cache.touch("k", Duration::from_secs(100)).unwrap());
    clock.advance(Duration::from_secs(99));
    let item = cache.touch_item(b"k", TimeToLive::Never).unwrap().unwrap();
    assert_eq!((item.left, item.flags), (None, 0));
    assert!(item.cas > before, "a touch is a change");
    assert_eq!(*cache.get::<String>("k").unwrap().unwrap(), "v");
    assert!(!cache.touch("nobody", Duration::from_secs(1)).unwrap());
}

#[tokio::test]
async fn no_life_is_a_remove() {
    let cache = cache().await;
    cache.put("a", "v").unwrap();
    cache.put_with_ttl("a", "w", Duration::ZERO).unwrap();
    cache.put("b", "v").unwrap();
    assert!(cache.touch("b", Duration::from_micros(999)).unwrap());
    assert!(!cache.contains("a").unwrap() && !cache.contains("b").unwrap());
    assert_eq!(cache.stats().entries, 0);
}

#[tokio::test]
async fn expectations_are_judged_and_met_in_one_step() {
    let cache = cache().await;
    assert_eq!(cache.write(b"k", raw(b"1"), Expect::Present).unwrap(), Outcome::Missing);
    assert_eq!(cache.write(b"k", raw(b"1"), Expect::Cas(1)).unwrap(), Outcome::Missing);
    let Outcome::Done { cas: first } = cache.write(b"k", raw(b"1"), Expect::Absent).unwrap() else {
        panic!("the key was absent");
    };
    assert_eq!(first, cas(&cache, b"k"));
    assert_eq!(cache.write(b"k", raw(b"2"), Expect::Absent).unwrap(), Outcome::Present);
    assert_eq!(cache.write(b"k", raw(b"2"), Expect::Cas(first + 1)).unwrap(), Outcome::Exists);
    assert_eq!(text(&cache, b"k").as_deref(), Some("1"));
    let Outcome::Done { cas: second } = cache.write(b"k", raw(b"2"), Expect::Cas(first)).unwrap() else {
        panic!("the number was right");
    };
    assert_ne!(first, second);
    assert_eq!(cache.remove_if(b"k", Expect::Cas(first)).unwrap(), Outcome::Exists);
    assert_eq!(cache.remove_if(b"k", Expect::Absent).unwrap(), Outcome::Present);
    assert_eq!(cache.remove_if(b"k", Expect::Cas(second)).unwrap(), Outcome::Done { cas: 0 });
    assert_eq!(cache.remove_if(b"k", Expect::Any).unwrap(), Outcome::Missing);
    assert!(!cache.remove("k").unwrap());
}

#[tokio::test]
async fn an_item_shows_bytes_flags_number_and_life() {
    let cache = cache().await;
    let write = Write {
        bytes: "v".into(),
        flags: 0xdead_beef,
        ttl: TimeToLive::For(Duration::from_secs(5)),
        ..Write::default()
    };
    cache.write(b"k", write, Expect::Any).unwrap();
    let Item { bytes, flags, codec, left, .. } = cache.item(b"k").unwrap();
    assert_eq!((&bytes[..], flags, codec), (&b"v"[..], 0xdead_beef, Codec::Raw));
    assert!(
        left.is_some_and(|left| left <= Duration::from_secs(5) && left > Duration::from_secs(3)),
        "{left:?}"
    );
}

#[tokio::test]
async fn an_update_sees_what_is_there_and_may_leave_it_empty() {
    let cache = cache().await;
    let increment = |n: Option<Arc<u64>>| Some(n.map_or(1, |n| *n + 1));
    assert_eq!(cache.update("n", increment).unwrap().as_deref(), Some(&1));
    assert_eq!(cache.update("n", increment).unwrap().as_deref(), Some(&2));
    assert_eq!(*cache.get::<u64>("n").unwrap().unwrap(), 2);
    assert_eq!(cache.update("n", |_: Option<Arc<u64>>| None).unwrap(), None);
    assert!(!cache.contains("n").unwrap());
    assert_eq!(cache.update("n", |_: Option<Arc<u64>>| None).unwrap(), None);
}

#[tokio::test]
async fn an_update_that_meets_another_writer_is_made_again() {
    let cache = cache().await;
    cache.put("n", &1_u64).unwrap();
    let mut tries = 0;
    let after = cache.update("n", |n: Option<Arc<u64>>| {
        tries += 1;
        if tries == 1 {
            cache.put("n", &100_u64).unwrap();
        }
        n.map(|n| *n + 1)
    });
    assert_eq!((after.unwrap().as_deref(), tries), (Some(&101), 2));
}

#[tokio::test]
async fn an_update_that_is_always_beaten_gives_up_and_changes_nothing() {
    let cache = cache().await;
    let mut rival = 0_u64;
    let result = cache.update("n", |_: Option<Arc<u64>>| {
        rival += 1;
        cache.put("n", &rival).unwrap();
        Some(0)
    });
    assert!(matches!(result, Err(Error::Contended { tries: 256 })), "{result:?}");
    assert_eq!(*cache.get::<u64>("n").unwrap().unwrap(), 256);
}

#[tokio::test]
async fn no_increment_of_two_threads_is_lost() {
    let cache = cache().await;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..500 {
                    cache.update("n", |n: Option<Arc<u64>>| Some(n.map_or(1, |n| *n + 1))).unwrap();
                }
            });
        }
    });
    assert_eq!(*cache.get::<u64>("n").unwrap().unwrap(), 1_000);
}

#[tokio::test]
async fn a_clear_forgets_every_key_and_later_writes_stay() {
    let cache = cache().await;
    for n in 0..100 {
        cache.put(format!("k{n}"), &n).unwrap();
    }
    cache.clear().unwrap();
    assert!((0..100).all(|n| cache.get::<i32>(format!("k{n}")).unwrap().is_none()));
    cache.write(b"k1", raw(b"new"), Expect::Absent).unwrap();
    assert_eq!(text(&cache, b"k1").as_deref(), Some("new"));
}

#[tokio::test]
async fn capacity_holds_in_entries_and_in_bytes() {
    let by_entries = GeoCache::builder().capacity(10).build().await.unwrap();
    let by_bytes = GeoCache::builder().capacity_bytes(100_000).build().await.unwrap();
    for n in 0..1_000 {
        by_entries.put(format!("k{n}"), &n).unwrap();
        by_bytes.put(format!("k{n}"), &vec![7_u8; 1_000]).unwrap();
        assert!(by_bytes.stats().bytes <= 100_000);
    }
    assert_eq!((by_entries.stats().entries, by_entries.stats().evictions), (10, 990));
    let entries = by_bytes.stats().entries;
    assert!((60..=79).contains(&entries), "{entries}");
    assert!(by_bytes.contains("k999").unwrap() && !by_bytes.contains("k0").unwrap());
}

#[tokio::test]
async fn a_value_that_the_capacity_cannot_hold_is_refused_not_evicted() {
    let cache = GeoCache::builder().capacity_bytes(10_000).build().await.unwrap();
    let error = cache.put("k", &vec![7_u8; 10_000]).unwrap_err();
    assert!(matches!(error, Error::ValueTooLarge { .. }), "{error}");

    // However long the values, there are so few shards that each value within the limit fits into its own.
    for value_bytes in [1 << 20, 4_100_000, 4 << 20, 16 << 20, 60 << 20] {
        let builder = GeoCache::builder().capacity_bytes(64 << 20).value_bytes_max(value_bytes);
        let cache = builder.build().await.unwrap();
        let write = Write { bytes: vec![7; value_bytes].into(), ..Write::default() };
        cache.write(b"k", write, Expect::Any).unwrap();
        assert!(cache.contains("k").unwrap(), "{value_bytes}");
    }

    let refused = GeoCache::builder().capacity_bytes(1 << 20).value_bytes_max(1 << 20).build().await;
    let error = refused.unwrap_err().to_string();
    assert!(error.starts_with("capacity_bytes: 1048576 bytes hold no value of value_bytes_max"), "{error}");
}

#[tokio::test]
async fn what_no_frame_carries_is_refused_where_there_is_a_transport() {
    let node = replication::NodeId::new("us-east".parse().unwrap(), "n").unwrap();
    let most = replication::wire::VALUE_BYTES_MAX;
    let hub = crate::memory::Hub::new();
    let replicated = || GeoCache::builder().transport(hub.join(node.clone()));
    for (builder, field) in [
        (replicated().value_bytes_max(most + 1), "value_bytes_max"),
        (replicated().key_bytes_max(1 << 20), "key_bytes_max"),
    ] {
        let error = builder.build().await.unwrap_err();
        assert!(matches!(error, BuildError::Setting { field: named, .. } if named == field), "{error}");
    }
    replicated().value_bytes_max(most).build().await.unwrap();
    GeoCache::builder().value_bytes_max(most + 1).build().await.unwrap();
}

#[tokio::test]
async fn a_wrong_setting_is_named() {
    let refusal = async |builder: Builder| builder.build().await.expect_err("refused").to_string();
    assert_eq!(
        refusal(GeoCache::builder().region("EU Central")).await,
        "region: the name \"EU Central\" holds 'E'; only a-z, 0-9 and '-' are allowed"
    );
    assert!(refusal(GeoCache::builder().node("")).await.starts_with("node: "));
    assert!(refusal(GeoCache::builder().cache("a/b")).await.starts_with("cache: "));
    assert!(refusal(GeoCache::builder().capacity(0)).await.starts_with("capacity: "));
    assert!(refusal(GeoCache::builder().key_bytes_max(0)).await.starts_with("key_bytes_max: "));
    assert!(refusal(GeoCache::builder().codec(Codec::Unknown(9))).await.starts_with("codec: "));
    let ttl = Duration::from_millis(1);
    assert!(refusal(GeoCache::builder().default_ttl(ttl)).await.starts_with("default_ttl: "));
    assert!(matches!(
        GeoCache::builder().capacity_bytes(100).value_bytes_max(1).build().await,
        Err(BuildError::Setting { field: "capacity_bytes", .. })
    ));
}

#[tokio::test]
async fn a_node_alone_is_ready_at_once_and_never_fails() {
    let cache = cache().await;
    assert!(cache.is_ready());
    cache.ready().await.unwrap();
    assert_eq!(cache.node().to_string(), "local/node-1");
    tokio::select! {
        biased;
        error = cache.failed() => panic!("{error}"),
        () = std::future::ready(()) => {}
    }
}

#[tokio::test]
async fn a_closed_cache_reads_and_refuses_to_write() {
    let cache = cache().await;
    cache.put("k", "v").unwrap();
    let other = cache.clone();
    assert_eq!(cache.close(Duration::from_secs(1)).await, Closed::default());
    assert!(matches!(other.put("k", "w"), Err(Error::Closed)));
    assert!(matches!(other.remove("k"), Err(Error::Closed)));
    assert!(matches!(other.clear(), Err(Error::Closed)));
    assert!(matches!(other.update("k", |_: Option<Arc<u8>>| None), Err(Error::Closed)));
    assert_eq!(*other.get::<String>("k").unwrap().unwrap(), "v");
}

#[tokio::test]
async fn hits_misses_writes_and_removes_are_counted() {
    let cache = cache().await;
    cache.put("k", "v").unwrap();
    cache.get::<String>("k").unwrap();
    cache.item(b"k");
    cache.get::<String>("nobody").unwrap();
    cache.peek_item(b"k");
    cache.contains("nobody").unwrap();
    cache.touch("k", Duration::from_secs(9)).unwrap();
    cache.remove("k").unwrap();
    cache.remove("k").unwrap();
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.writes, stats.removes), (2, 1, 2, 1));
    assert_eq!((stats.entries, stats.bytes, stats.ready), (0, 0, true));
}

#[test]
fn handles_go_to_other_threads() {
    fn is_sent_and_shared<T: Clone + Send + Sync + 'static>() {}
    is_sent_and_shared::<GeoCache>();
    is_sent_and_shared::<crate::GeoCluster>();
}

#[test]
fn a_node_alone_works_outside_a_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let cache = runtime.block_on(cache());
    drop(runtime);
    cache.put("k", "v").unwrap();
    cache.clear().unwrap();
    assert!(!cache.contains("k").unwrap());
}
