//! What is written in one region, and what the other makes of it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use geocache::{Codec, Expect, Outcome, PutOptions, TimeToLive, Write, WriteConcern};
use serde::{Deserialize, Serialize};
use tests::wait_until;

use super::{BOUND, Regions, reads, text};

pub(crate) async fn a_put_is_read_here_at_once_and_elsewhere_after_the_lag(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    here.put("k", "one").unwrap();
    assert_eq!(text(here, "k").as_deref(), Some("one"));
    assert!(here.contains("k").unwrap());
    reads(there, "k", Some("one")).await;
    there.put("k", "two").unwrap();
    reads(here, "k", Some("two")).await;
    assert!(here.get::<u64>("k").is_err(), "a value of another type is an error");
    assert_eq!(text(here, "k").as_deref(), Some("two"), "which leaves it stored");
}

pub(crate) async fn a_value_with_a_time_to_live_ends_in_every_region(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    here.put_with_ttl("short", "v", Duration::from_secs(4)).unwrap();
    here.put_with_ttl("long", "v", Duration::from_secs(600)).unwrap();
    reads(there, "short", Some("v")).await;
    reads(there, "long", Some("v")).await;
    reads(there, "short", None).await;
    reads(here, "short", None).await;
    assert!(here.contains("long").unwrap() && there.contains("long").unwrap());
}

pub(crate) async fn a_remove_is_a_remove_everywhere(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    here.put("k", "v").unwrap();
    reads(there, "k", Some("v")).await;
    assert!(there.remove("k").unwrap());
    reads(here, "k", None).await;
    assert!(!here.remove("k").unwrap(), "there was nothing left");
}

pub(crate) async fn a_touch_lengthens_the_life_everywhere(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    for key in ["touched", "kept"] {
        here.put_with_ttl(key, "v", Duration::from_secs(60)).unwrap();
        reads(there, key, Some("v")).await;
    }
    assert!(there.touch("touched", Duration::from_secs(3_600)).unwrap());
    let item = there.touch_item(b"kept", TimeToLive::Never).unwrap().unwrap();
    assert_eq!(item.left, None);
    wait_until("the longer life is known here", BOUND, async || {
        let left = here.peek_item(b"touched").and_then(|item| item.left);
        left.is_some_and(|left| left > Duration::from_secs(1_800))
    })
    .await;
    wait_until("the life without end is known here", BOUND, async || {
        here.peek_item(b"kept").is_some_and(|item| item.left.is_none())
    })
    .await;
    assert!(!here.touch("nobody", Duration::from_secs(60)).unwrap());
}

pub(crate) async fn an_update_builds_on_what_the_other_region_wrote(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    let one_more = |n: Option<Arc<u64>>| Some(n.map_or(1, |n| *n + 1));
    assert_eq!(here.update("n", one_more).unwrap().as_deref(), Some(&1));
    wait_until("it is there", BOUND, async || there.contains("n").unwrap()).await;
    assert_eq!(there.update("n", one_more).unwrap().as_deref(), Some(&2));
    wait_until("the second is here", BOUND, async || here.get::<u64>("n").unwrap().as_deref() == Some(&2))
        .await;
    assert_eq!(here.update("n", |_: Option<Arc<u64>>| None).unwrap(), None);
    wait_until("the key is left empty there", BOUND, async || !there.contains("n").unwrap()).await;
}

pub(crate) async fn a_clear_forgets_every_key_everywhere(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    for n in 0..100_u32 {
        here.put(format!("k{n}"), &n).unwrap();
    }
    wait_until("all are there", BOUND, async || there.stats().entries == 100).await;
    there.clear().unwrap();
    assert!((0..100).all(|n| !there.contains(format!("k{n}")).unwrap()));
    wait_until("none is here", BOUND, async || (0..100).all(|n| !here.contains(format!("k{n}")).unwrap()))
        .await;
    here.put("k1", "new").unwrap();
    reads(there, "k1", Some("new")).await;
}

pub(crate) async fn many_values_put_at_once_all_arrive(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    let values: Vec<(String, u32)> = (0..1_000).map(|n| (format!("k{n}"), n)).collect();
    here.put_many(values.iter().map(|(key, n)| (key, n))).unwrap();
    wait_until("all are there", BOUND, async || there.contains("k999").unwrap()).await;
    // They left in the order in which they were put, so whoever has the last one has all.
    let read = there.get_many::<u32>(values.iter().map(|(key, _)| key)).unwrap();
    let read: Vec<Option<u32>> = read.iter().map(|value| value.as_deref().copied()).collect();
    assert_eq!(read, (0..1_000).map(Some).collect::<Vec<_>>());
}

pub(crate) async fn a_generated_key_is_nobody_elses(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    let keys = [here, there].map(|node| (0..500).map(|_| node.generate_key()).collect::<Vec<_>>());
    assert_eq!(keys.iter().flatten().collect::<BTreeSet<_>>().len(), 1_000);
    here.put(&keys[0][0], "a value without a name of its own").unwrap();
    reads(there, &keys[0][0], Some("a value without a name of its own")).await;
}

pub(crate) async fn a_value_keeps_its_bytes_flags_and_life_on_its_way(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    let life = Duration::from_secs(600);
    let bytes: Vec<u8> = (0..=255).collect();
    let written = Write {
        bytes: bytes.clone().into(),
        flags: 0xdead_beef,
        ttl: TimeToLive::For(life),
        ..Write::default()
    };
    here.write(b"k", written, Expect::Any).unwrap();
    wait_until("it is there", BOUND, async || there.peek_item(b"k").is_some()).await;
    let item = there.item(b"k").unwrap();
    assert_eq!((&item.bytes[..], item.flags, item.codec), (&bytes[..], 0xdead_beef, Codec::Raw));
    assert!(item.left.is_some_and(|left| left <= life && left > life / 2), "{:?}", item.left);
}

pub(crate) async fn a_conditional_change_is_judged_here_and_its_outcome_spreads(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    let raw = |text: &'static str| Write { bytes: text.into(), ..Write::default() };
    assert!(matches!(here.write(b"k", raw("1"), Expect::Absent).unwrap(), Outcome::Done { .. }));
    assert_eq!(here.write(b"k", raw("no"), Expect::Absent).unwrap(), Outcome::Present);
    reads(there, "k", Some("1")).await;
    // The number is the other region's own: what was read there is compared there.
    let seen = there.item(b"k").unwrap().cas;
    let Outcome::Done { cas } = there.write(b"k", raw("2"), Expect::Cas(seen)).unwrap() else {
        panic!("the number was right");
    };
    assert_eq!(there.write(b"k", raw("no"), Expect::Cas(seen)).unwrap(), Outcome::Exists);
    reads(here, "k", Some("2")).await;
    assert_eq!(there.remove_if(b"k", Expect::Cas(seen)).unwrap(), Outcome::Exists);
    assert!(matches!(there.remove_if(b"k", Expect::Cas(cas)).unwrap(), Outcome::Done { .. }));
    reads(here, "k", None).await;
}

pub(crate) async fn a_value_weighs_what_its_writer_says_here_alone(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    let options = PutOptions::new().weight(8_000).concern(WriteConcern::All).timeout(BOUND);
    assert!(here.put_with("k", "v", options).await.unwrap().reached);
    assert!(here.stats().bytes >= 8_000, "{}", here.stats().bytes);
    assert!(there.contains("k").unwrap() && there.stats().bytes < 1_000, "{}", there.stats().bytes);
}

/// A value, and the same a year later: a field more.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct NewerUser {
    name: String,
    #[serde(default)]
    visits: u32,
}

pub(crate) async fn a_value_is_read_whatever_codec_it_was_written_in(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    for codec in [Codec::MessagePack, Codec::Json] {
        let here = here.with_codec(codec);
        assert_eq!(here.codec(), codec);
        let (old, new) = (format!("{codec}:old"), format!("{codec}:new"));
        here.put(&old, &User { name: "Ada".to_owned() }).unwrap();
        here.put(&new, &NewerUser { name: "Bob".to_owned(), visits: 7 }).unwrap();
        wait_until("both are there", BOUND, async || {
            there.contains(&old).unwrap() && there.contains(&new).unwrap()
        })
        .await;
        let ada = there.get::<NewerUser>(&old).unwrap().unwrap();
        assert_eq!((ada.name.as_str(), ada.visits), ("Ada", 0), "a new reader takes an old value");
        let bob = there.get::<User>(&new).unwrap().unwrap();
        assert_eq!(bob.name, "Bob", "an old reader takes a new value");
    }
    let raw = here.with_codec(Codec::Raw);
    raw.put("raw", "text as it is").unwrap();
    reads(there, "raw", Some("text as it is")).await;
}
