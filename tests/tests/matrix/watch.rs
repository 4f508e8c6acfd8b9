//! What a node tells.

use geocache::{Event, Events};

use super::{BOUND, Regions, reads};

/// Waits for one event among whatever else is told, the readiness of nodes for example.
async fn is_told(events: &mut Events, wanted: &Event) {
    let told = async {
        loop {
            let event = events.next().await.expect("none is missed").expect("the node is there");
            if event == *wanted {
                return;
            }
        }
    };
    assert!(tokio::time::timeout(BOUND, told).await.is_ok(), "{wanted:?} was not told within {BOUND:?}");
}

pub(crate) async fn what_the_other_region_does_is_told(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    let mut events = there.watch().unwrap();
    let key = || "k".into();
    here.put("k", "v").unwrap();
    is_told(&mut events, &Event::Put { key: key(), remote: true }).await;
    there.put("k", "w").unwrap();
    is_told(&mut events, &Event::Put { key: key(), remote: false }).await;
    reads(here, "k", Some("w")).await;
    here.remove("k").unwrap();
    is_told(&mut events, &Event::Removed { key: key(), remote: true }).await;
    here.clear().unwrap();
    is_told(&mut events, &Event::Cleared { prefix: "".into(), remote: true }).await;
    let late = regions.start("eu-central", |builder| builder).await;
    is_told(&mut events, &Event::PeerReady { node: late.node().clone() }).await;
    late.close(BOUND).await;
    is_told(&mut events, &Event::PeerDown { node: late.node().clone() }).await;
}
