//! A client that keeps alike what does not replicate, beside a region that does.

use std::time::Duration;

use geocache::{
    GeoCache,
    client::{FailoverState, GeoClient, MirrorEvent},
};
use tests::wait_until;

use super::{BOUND, Regions, reads, text};

const SECOND: Duration = Duration::from_secs(1);

/// Main is a cache on its own, the fallback is a region: so what is copied there is read in the regions that it replicates to.
pub(crate) async fn what_is_copied_to_a_region_is_replicated_from_there(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    let main = GeoCache::builder().build().await.unwrap();
    let client = GeoClient::mirrored()
        .main("eu-central", main.clone())
        .fallback("us-east", here.clone())
        .copies_are_filled(true)
        .probe_every(SECOND / 10)
        .failover(|failover| failover.up_after(2).dwell(SECOND).probation(SECOND))
        .build()
        .await
        .unwrap();
    let mirror = client.mirror().unwrap();
    let until = async |state| {
        let what = format!("it is {state}");
        wait_until(&what, BOUND, async || mirror.status().failover.state == state).await;
    };
    let mut events = mirror.watch();

    client.put("k", "one").await.unwrap();
    assert_eq!([&main, here].map(|node| text(node, "k")), [(); 2].map(|()| Some("one".to_owned())));
    reads(there, "k", Some("one")).await;

    mirror.fail_over("it is rehearsed").unwrap();
    until(FailoverState::OnFallback).await;
    let event = tokio::time::timeout(BOUND, events.next()).await.unwrap().unwrap();
    assert!(
        matches!(&event, Some(MirrorEvent::FailedOver { to, .. }) if to.as_str() == "us-east"),
        "{event:?}"
    );
    let put = client.put("k", "two").await.unwrap();
    assert_eq!(put.region.as_str(), "us-east");
    reads(there, "k", Some("two")).await;

    // While it is held nobody is obeyed; then main is gone back to.
    mirror.hold(true);
    let held = mirror.fail_back().unwrap_err();
    assert!(mirror.status().failover.held, "{held}");
    mirror.hold(false);
    mirror.fail_back().unwrap();
    until(FailoverState::OnMain).await;
    let served = client.get_served::<String>("k").await.unwrap();
    assert_eq!((served.value.as_deref(), served.region.as_str()), (Some("two"), "eu-central"));
    assert_eq!(text(&main, "k").as_deref(), Some("two"), "it was brought what it missed");

    // What is emptied at the region is empty wherever that replicates to.
    mirror.empty("us-east").await.unwrap();
    wait_until("main fills it again", BOUND, async || {
        let status = mirror.status();
        status.places.iter().all(|place| place.up && place.missed == 0 && !place.stale)
            && text(there, "k") == text(here, "k")
    })
    .await;
    assert_eq!(client.get::<String>("k").await.unwrap().as_deref(), Some("two"));
    client.close(BOUND).await;
}
