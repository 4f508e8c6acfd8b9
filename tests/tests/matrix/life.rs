//! A node's beginning, its state, and its end.

use std::{collections::BTreeSet, time::Duration};

use geocache::{Error, GeoCache, Present, RegionState, TransportHealth};
use tests::wait_until;

use super::{BOUND, Regions, text};

pub(crate) async fn two_nodes_that_hear_each_other_are_well(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    assert_eq!((here.region().as_str(), here.node().to_string().as_str()), ("us-east", "us-east/n"));
    for n in 0..100_u32 {
        here.put(format!("k{n}"), &n).unwrap();
    }
    wait_until("all are applied", BOUND, async || there.stats().entries == 100).await;
    wait_until("the lag is known, and none is left", BOUND, async || {
        there.lag()[0].1.is_some() && there.health().regions[0].behind_records == 0
    })
    .await;

    let mut health = there.health();
    // A beat may be late on a loaded machine.
    wait_until("it is well", BOUND, async || {
        health = there.health();
        health.is_well()
    })
    .await;
    assert!(there.is_ready());
    assert_eq!(health.transport, Some(TransportHealth::Connected));
    assert_eq!(health.regions.len(), 1);
    assert_eq!((health.regions[0].region.as_str(), health.regions[0].state), ("us-east", RegionState::Ready));
    assert_eq!(there.divergence(), 0, "no write was lost in spite of all rules");

    let stats = there.stats();
    assert_eq!((stats.ready, stats.writes, stats.replication.records_applied), (true, 0, 100));
    assert_eq!(here.stats().writes, 100);
    // A builder without a transport makes a node that neither of them hears.
    let alone = GeoCache::builder().build().await.unwrap();
    alone.put("alone", "v").unwrap();
    assert!(!here.contains("alone").unwrap());
    for node in [here, there, &alone] {
        tokio::select! {
            biased;
            error = node.failed() => panic!("{error}"),
            () = std::future::ready(()) => {}
        }
    }
}

pub(crate) async fn a_node_names_its_cache_and_reports_its_transport(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    assert!(here.cache_name().starts_with("matrix-"));
    assert_eq!(here.cache_name(), there.cache_name());
    assert!(here.transport_report().is_some());
    here.close(BOUND).await;
    wait_until("its transport is gone", BOUND, async || here.transport_report().is_none()).await;
    assert!(there.transport_report().is_some(), "the other one's is its own");
}

pub(crate) async fn a_node_tells_clients_of_itself_and_lists_its_keys(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    let written: BTreeSet<String> = (0..2_000).map(|n| format!("k{n}")).collect();
    for key in &written {
        here.put(key, "v").unwrap();
    }
    wait_until("all are there", BOUND, async || there.stats().entries == 2_000).await;
    let (mut listed, mut position) = (BTreeSet::new(), Some(0));
    while let Some(from) = position {
        let (keys, next) = there.keys_from(from);
        listed.extend(keys.iter().map(|key| String::from_utf8(key.to_vec()).unwrap()));
        position = next;
    }
    assert_eq!(listed, written);

    let [one, other] = [here, there].map(|node| node.pulse().unwrap());
    assert_ne!(one.life, other.life, "each life of a node has a number of its own");
    wait_until("neither is in doubt", BOUND, async || {
        [here, there].iter().all(|node| node.pulse().unwrap().doubt.is_none())
    })
    .await;
    there.close(BOUND).await;
    assert!(there.pulse().is_err(), "one that is closed sends clients elsewhere");
    wait_until("who hears nobody is in doubt", BOUND, async || here.pulse().unwrap().doubt.is_some()).await;
}

pub(crate) async fn a_node_explains_what_became_of_a_key(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    here.put("k", "v").unwrap();
    super::reads(there, "k", Some("v")).await;
    let held = there.explain("k").unwrap();
    let Present::Held { writer: Some(writer), .. } = &held.present else { panic!("{held:?}") };
    assert_eq!(writer, here.node());
    here.remove("k").unwrap();
    super::reads(there, "k", None).await;
    let gone = there.explain("k").unwrap();
    assert!(matches!(gone.present, Present::Gone { .. }), "{gone:?}");
    assert!(matches!(there.explain("never written").unwrap().present, Present::Unknown { .. }));
}

pub(crate) async fn a_late_node_has_the_state_of_the_others_when_it_is_ready(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    for n in 0..2_000_u32 {
        here.put(format!("k{n}"), &n).unwrap();
    }
    here.put("gone", "v").unwrap();
    here.remove("gone").unwrap();
    wait_until("all are applied there", BOUND, async || there.stats().entries == 2_000).await;
    let late = regions.start("eu-central", |builder| builder).await;
    late.ready().await.unwrap();
    for n in 0..2_000_u32 {
        assert_eq!(late.get::<u32>(format!("k{n}")).unwrap().as_deref(), Some(&n), "k{n}");
    }
    assert_eq!(text(&late, "gone"), None);
    // And it is one of them: what it writes is heard.
    late.put("from late", "v").unwrap();
    for node in [here, there] {
        super::reads(node, "from late", Some("v")).await;
    }
}

pub(crate) async fn a_close_hands_over_what_was_written_and_refuses_more(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    for n in 0..2_000_u32 {
        here.put(format!("k{n}"), &n).unwrap();
    }
    let closed = here.close(BOUND).await;
    assert_eq!((closed.unsent_records, closed.unconfirmed_frames), (0, 0));
    wait_until("all are there", BOUND, async || there.stats().entries == 2_000).await;
    assert!(matches!(here.put("k", "v"), Err(Error::Closed)));
    assert!(matches!(here.ready().await, Err(Error::Closed)) && here.health().closed);
    assert_eq!(here.get::<u32>("k7").unwrap().as_deref(), Some(&7), "its reads still answer");
    wait_until("the other region is missed", BOUND, async || {
        there.health().regions[0].state == RegionState::Down
    })
    .await;
    there.put("k", "v").unwrap();
    assert_eq!(there.close(Duration::from_secs(1)).await.unsent_records, 0);
}
