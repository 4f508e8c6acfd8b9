//! Reading through.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use geocache::{AskRegion, GeoCache, LoadError, LoadOptions, Source};
use tests::wait_until;

use super::{
    BOUND, Regions,
    read::{absent, small},
    reads,
};

type Loaded<T> = Result<T, std::io::Error>;

pub(crate) async fn one_loader_runs_and_its_value_is_read_elsewhere(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    let calls = Arc::new(AtomicU32::new(0));
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let (here, calls) = (here.clone(), Arc::clone(&calls));
            tokio::spawn(async move {
                let load = move || async move {
                    calls.fetch_add(1, Ordering::SeqCst);
                    Loaded::Ok("loaded".to_owned())
                };
                here.get_or_load::<String, _, _, _>("k", load).await.unwrap()
            })
        })
        .collect();
    for asked in asking {
        assert_eq!(*asked.await.unwrap(), "loaded");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    reads(there, "k", Some("loaded")).await;
    let again = || async { Loaded::Err(std::io::Error::other("the origin is not needed")) };
    assert_eq!(*there.get_or_load::<String, _, _, _>("k", again).await.unwrap(), "loaded");
    let fails = || async { Loaded::<String>::Err(std::io::Error::other("no such thing")) };
    let error = here.get_or_load("absent", fails).await.unwrap_err();
    assert!(matches!(error, LoadError::Failed(_)), "{error}");
    assert!(!here.contains("absent").unwrap(), "nothing is kept of a failure");
}

pub(crate) async fn another_region_is_asked_before_the_origin(regions: Regions) {
    for n in 0..50_u32 {
        regions.here.put(format!("k{n}"), &n).unwrap();
    }
    wait_until("all are there", BOUND, async || regions.there.stats().entries == 50).await;
    let node = regions.start("eu-central", small).await;
    let options = LoadOptions::new().ask_region(AskRegion::Always).region_limit(BOUND);
    // A node says nothing in its first second: until then the origin is asked, which has another answer.
    wait_until("another region answers", BOUND, async || {
        let key = absent(&node, 50);
        let loaded =
            node.get_or_load_with(&key, options, || async { Loaded::Err(std::io::Error::other("")) }).await;
        let Ok(loaded) = loaded else { return false };
        let value: u32 = *loaded.value;
        assert_eq!((format!("k{value}"), loaded.source), (key, Source::Region));
        true
    })
    .await;
    let nowhere = || async { Loaded::Ok(7_u32) };
    let loaded = node.get_or_load_with("nowhere", options, nowhere).await.unwrap();
    assert_eq!((*loaded.value, loaded.source), (7, Source::Loader));
}

pub(crate) async fn with_a_lease_one_region_loads_for_all(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    let options = LoadOptions::new().lease(BOUND);
    let mut round = 0;
    // A lease is advice: where an answer of the other node is late, on a loaded machine, both load. So not each round counts.
    wait_until("one region loads and the other waits for it", BOUND, async || {
        round += 1;
        let calls = Arc::new(AtomicU32::new(0));
        let waited = || here.stats().loads.leases_waited + there.stats().loads.leases_waited;
        let waited_before = waited();
        let ask = |node: &GeoCache| {
            let (node, calls, key) = (node.clone(), Arc::clone(&calls), format!("k{round}"));
            tokio::spawn(async move {
                let load = move || async move {
                    // The length of a load is an input: the other region asks meanwhile.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Loaded::Ok(calls.fetch_add(1, Ordering::SeqCst))
                };
                *node.get_or_load_with(key, options, load).await.unwrap().value
            })
        };
        let asking: Vec<_> = (0..20).flat_map(|_| [ask(here), ask(there)]).collect();
        let mut values = BTreeSet::new();
        for asked in asking {
            values.insert(asked.await.unwrap());
        }
        waited() > waited_before && calls.load(Ordering::SeqCst) == 1 && values == BTreeSet::from([0])
    })
    .await;
    let stats = [here, there].map(|node| node.stats().loads.leases_granted);
    assert!(stats.iter().any(|granted| *granted > 0), "{stats:?}");
}

pub(crate) async fn the_last_known_value_is_served_while_the_origin_is_down(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    let options = LoadOptions::new().ttl(Duration::from_secs(1)).stale_for(Duration::from_secs(600));
    here.get_or_load_with("k", options, || async { Loaded::Ok(7_u32) }).await.unwrap();
    wait_until("it is there", BOUND, async || there.contains("k").unwrap()).await;
    // In the other region too, whose loader fails.
    wait_until("the value is over, and served", BOUND, async || {
        let down = || async { Loaded::<u32>::Err(std::io::Error::other("the origin is down")) };
        let loaded = there.get_or_load_with("k", options, down).await.unwrap();
        assert_eq!(*loaded.value, 7);
        loaded.source == Source::Stale
    })
    .await;
    assert!(there.stats().loads.stale_served > 0);
}
