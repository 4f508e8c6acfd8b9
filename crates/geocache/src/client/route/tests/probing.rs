use std::{sync::Weak, time::Duration};

use super::*;

#[tokio::test(start_paused = true)]
async fn every_region_is_probed_and_measured() {
    let two = Two::new().await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    for fake in [&two.near, &two.far] {
        let probes = fake.probes.load(SeqCst);
        assert!((16..=26).contains(&probes), "{}: {probes}", fake.name);
    }
    let near = two.status("eu-central").route;
    assert!(near.rtt.is_some_and(|rtt| rtt < ms(5)), "{near:?}");
    let far = two.status("us-east").route;
    assert!(far.rtt.is_some_and(|rtt| (ms(85)..ms(95)).contains(&rtt)), "{far:?}");
}

#[tokio::test(start_paused = true)]
async fn probing_ends_with_the_last_handle() {
    let Two { near, far, client } = Two::new().await;
    let weak: Weak<Fake> = Arc::downgrade(&far);
    drop(far);
    let (other, mut events) = (client.clone(), client.routes().unwrap().watch());
    drop(client);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let probes = near.probes.load(SeqCst);
    assert!(probes > 8, "a handle is left");
    drop(other);
    let over = tokio::time::timeout(Duration::from_secs(60), events.next()).await;
    assert_eq!(over, Ok(Ok(None)), "the task is over, and what it held is gone");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(near.probes.load(SeqCst) <= probes + 1);
    assert!(weak.upgrade().is_none(), "nothing holds the endpoint");
}

#[tokio::test(start_paused = true)]
async fn routes_do_not_keep_the_probes_going() {
    let Two { near, client, .. } = Two::new().await;
    let routes = client.routes().unwrap().clone();
    drop(client);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let probes = near.probes.load(SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(near.probes.load(SeqCst), probes);
    assert_eq!(routes.status().regions.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_not_held_up_by_the_bound_of_calls_in_flight() {
    let two = Two::with(|builder| builder.in_flight_max(1).call_limit(Duration::from_secs(60))).await;
    two.near.take(ms(450));
    let client = two.client.clone();
    let busy = tokio::spawn(async move {
        loop {
            let _ = client.item(b"k").await;
        }
    });
    let probes = two.near.probes.load(SeqCst);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(two.near.probes.load(SeqCst) > probes + 3);
    busy.abort();
}
