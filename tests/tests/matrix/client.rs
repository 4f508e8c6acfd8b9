//! A client of several regions, and which region's answer it gives.

use std::{collections::BTreeSet, time::Duration};

use geocache::{
    Codec, Expect, GeoCache, Outcome, TimeToLive, Write,
    client::{ClientError, GeoClient, Served},
};
use tests::wait_until;

use super::{BOUND, Regions, reads, text};

const LIFE: Duration = Duration::from_secs(600);

/// A client in the region `here`, which is the closest to it.
pub(super) fn closest_is_here(regions: &Regions) -> GeoClient {
    let Regions { here, there, .. } = regions;
    let client = GeoClient::builder().from("us-east").node(there.clone()).node(here.clone());
    client.probe_interval(Duration::from_millis(100)).call_limit(BOUND).build().unwrap()
}

fn answer<T>(served: Served<T>) -> (T, String) {
    (served.value, served.region.to_string())
}

pub(crate) async fn what_a_client_writes_is_read_in_every_region(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    let client = closest_is_here(&regions);
    assert_eq!(answer(client.put("k", "v").await.unwrap()), ((), "us-east".to_owned()));
    assert_eq!(client.get::<String>("k").await.unwrap().as_deref(), Some("v"));
    assert_eq!(text(here, "k").as_deref(), Some("v"), "one place has it at once");
    reads(there, "k", Some("v")).await;

    there.put("theirs", "w").unwrap();
    reads(here, "theirs", Some("w")).await;
    let served = client.get_served::<String>("theirs").await.unwrap();
    assert!(!served.may_be_stale(), "{served:?}");
    assert_eq!(answer(served), (Some("w".to_owned()), "us-east".to_owned()));
    let many = client.get_many::<String, _>(["k", "nobody", "theirs"]).await.unwrap();
    assert_eq!(many, [Some("v".to_owned()), None, Some("w".to_owned())]);

    client.put_with_ttl("lives", "v", LIFE).await.unwrap();
    reads(there, "lives", Some("v")).await;
    assert!(there.peek_item(b"lives").unwrap().left.is_some_and(|left| left <= LIFE));
    assert!(client.touch("lives", TimeToLive::Never).await.unwrap());
    wait_until("the life without end is known there", BOUND, async || {
        there.peek_item(b"lives").is_some_and(|item| item.left.is_none())
    })
    .await;

    // A client elsewhere has its own region's answer, which is the same.
    let elsewhere = GeoClient::builder().node(there.clone()).build().unwrap();
    assert_eq!(
        answer(elsewhere.get_served("k").await.unwrap()),
        (Some("v".to_owned()), "ap-south".to_owned())
    );

    assert!(client.remove("k").await.unwrap() && !client.remove("k").await.unwrap());
    reads(there, "k", None).await;
    client.clear().await.unwrap();
    reads(there, "theirs", None).await;
}

pub(crate) async fn an_update_builds_on_what_another_region_wrote(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    let client = closest_is_here(&regions);
    let one_more = |n: Option<u64>| Some(n.map_or(1, |n| n + 1));
    there.put("n", &40_u64).unwrap();
    wait_until("it is here", BOUND, async || here.contains("n").unwrap()).await;
    assert_eq!(client.update("n", one_more).await.unwrap().value, Some(41));
    wait_until("it is there", BOUND, async || there.get::<u64>("n").unwrap().as_deref() == Some(&41)).await;
    // Many at once: each is judged where the value was read, so none is lost.
    let updates: Vec<_> = (0..50)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.update("n", one_more).await.unwrap() })
        })
        .collect();
    for update in updates {
        update.await.unwrap();
    }
    wait_until("all are there", BOUND, async || there.get::<u64>("n").unwrap().as_deref() == Some(&91)).await;
    assert_eq!(client.update("n", |_: Option<u64>| None).await.unwrap().value, None);
    wait_until("it is left empty there", BOUND, async || !there.contains("n").unwrap()).await;
}

pub(crate) async fn a_key_is_made_for_a_value_that_has_none(regions: Regions) {
    let client = closest_is_here(&regions);
    let mut keys: BTreeSet<String> = (0..500).map(|_| client.generate_key()).collect();
    let key = client.put_new("a value without a name").await.unwrap();
    reads(&regions.there, &key, Some("a value without a name")).await;
    keys.insert(key);
    assert_eq!(keys.len(), 501);
}

pub(crate) async fn conditions_are_judged_where_the_value_was_seen(regions: Regions) {
    let Regions { there, .. } = &regions;
    let client = closest_is_here(&regions);
    assert_eq!(client.codec(), Codec::MessagePack);
    let raw = |text: &'static str| Write { bytes: text.into(), flags: 7, ..Write::default() };
    let done = |outcome: &Outcome| matches!(outcome, Outcome::Done { .. });
    assert!(done(&client.write(b"k", raw("one"), Expect::Absent).await.unwrap().value));
    assert_eq!(client.write(b"k", raw("two"), Expect::Absent).await.unwrap().value, Outcome::Present);

    let seen = client.item(b"k").await.unwrap();
    let item = seen.value.unwrap();
    assert_eq!((&*item.bytes, item.flags), (&b"one"[..], 7));
    let number = Expect::Cas(item.cas);
    let unplaced = client.write(b"k", raw("two"), number).await.unwrap_err();
    assert!(matches!(unplaced, ClientError::Unplaced), "{unplaced}");
    assert!(done(&client.write_at(&seen.region, b"k", raw("two"), number).await.unwrap().value));
    let late = client.write_at(&seen.region, b"k", raw("three"), number).await.unwrap();
    assert_eq!(late.value, Outcome::Exists, "another writer was faster");
    wait_until("it is there", BOUND, async || {
        there.peek_item(b"k").is_some_and(|item| &*item.bytes == b"two" && item.flags == 7)
    })
    .await;

    let late = client.remove_at(&seen.region, b"k", number).await.unwrap();
    assert_eq!(late.value, Outcome::Exists);
    assert!(done(&client.remove_if(b"k", Expect::Present).await.unwrap().value));
    wait_until("it is gone there", BOUND, async || there.peek_item(b"k").is_none()).await;
}

pub(crate) async fn an_outage_of_the_closest_region_is_the_next_ones_work(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    let client = closest_is_here(&regions);
    client.put("k", "before").await.unwrap();
    reads(there, "k", Some("before")).await;
    here.close(BOUND).await;
    let served = client.get_served::<String>("k").await.unwrap();
    assert_eq!(answer(served), (Some("before".to_owned()), "ap-south".to_owned()));
    assert_eq!(answer(client.put("k", "during").await.unwrap()), ((), "ap-south".to_owned()));
    assert_eq!(text(there, "k").as_deref(), Some("during"));
    // A region that joins now has it, although who wrote it first is gone.
    let third = regions.start("eu-central", |builder| builder).await;
    assert_eq!(text(&third, "k").as_deref(), Some("during"));

    client.close(BOUND).await;
    let refused = client.put("k", "after").await.unwrap_err();
    assert!(matches!(refused, ClientError::Closed), "{refused}");
    there.put("k", "by the node").unwrap();
    reads(&third, "k", Some("by the node")).await;
}

/// One that goes to the closest region has routes, one that keeps servers alike has a mirror.
pub(crate) async fn a_client_is_of_one_kind_and_says_which(regions: Regions) {
    let routed = closest_is_here(&regions);
    assert!(routed.routes().is_some() && routed.mirror().is_none());
    let beside = GeoCache::builder().build().await.unwrap();
    let mirrored = GeoClient::mirrored().main("us-east", regions.here.clone()).fallback("eu-central", beside);
    let mirrored = mirrored.build().await.unwrap();
    assert!(mirrored.routes().is_none() && mirrored.mirror().is_some());
    mirrored.close(BOUND).await;
}
