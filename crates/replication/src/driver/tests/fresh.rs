//! Bounded staleness, over the hub.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Two regions that know how fresh they are.
async fn two(hub: &Hub, beat_ms: u64) -> [Running; 2] {
    let mut nodes = Vec::new();
    for region in ["us-east", "eu-central"] {
        nodes.push(run(region, hub.join(node(region)), |config| config.replica.beat_ms = beat_ms).await);
    }
    for running in &nodes {
        let is_known =
            |_: &Running, status: &Status| status.peers.len() == 1 && status.peers[0].fresh_ago_ms.is_some();
        running.until("they met", is_known).await;
    }
    nodes.try_into().unwrap_or_else(|_| unreachable!("two regions"))
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_no_lag_at_all_gets_all_that_was_written_before_he_asked() {
    let hub = Hub::new();
    // Nobody beats by itself, so that only the question brings an answer.
    let [here, there] = two(&hub, 3_600_000).await;
    tokio::time::sleep(SECOND / 2).await;
    for number in 0..10 {
        there.put(&format!("k{number}"));
        let begun = Instant::now();
        here.handle.client().fresh(Duration::ZERO, FreshTo::Regions, SECOND).await.unwrap();
        assert!(begun.elapsed() <= SECOND / 5, "{:?}", begun.elapsed());
        let newest = here.store.get(format!("k{number}").as_bytes());
        assert!(newest.is_some(), "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_fresh_enough_already_waits_for_nothing() {
    let hub = Hub::new();
    let [here, _there] = two(&hub, 250).await;
    let begun = Instant::now();
    here.handle.client().fresh(SECOND, FreshTo::Regions, Duration::ZERO).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn frames_that_are_held_end_it_at_the_deadline_and_their_release_brings_it() {
    let hub = Hub::new();
    let [here, there] = two(&hub, 250).await;
    hub.hold(node("eu-central"), node("us-east"));
    there.put("k");
    let client = here.handle.client();
    client.fresh(SECOND / 2, FreshTo::Regions, Duration::ZERO).await.expect("the write is younger than that");
    tokio::time::sleep(SECOND).await;
    let begun = Instant::now();
    let error = client.fresh(SECOND / 2, FreshTo::Regions, 2 * SECOND).await.unwrap_err();
    assert_eq!(begun.elapsed(), 2 * SECOND);
    let FreshError::Behind(Behind::Older { node: of, fresh_ago: Some(ago), .. }) = &error else {
        panic!("{error:?}")
    };
    assert!(*of == node("eu-central") && *ago > SECOND, "{error}");
    let waiting =
        tokio::spawn(async move { client.fresh(Duration::ZERO, FreshTo::Regions, 60 * SECOND).await });
    tokio::time::sleep(SECOND).await;
    assert!(!waiting.is_finished());
    hub.release(node("eu-central"), node("us-east"));
    waiting.await.unwrap().unwrap();
    assert!(here.store.get(b"k").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_region_that_is_gone_is_named_and_left_out_only_on_demand() {
    let hub = Hub::new();
    let [here, there] = two(&hub, 250).await;
    drop(there.handle);
    here.until("it is not heard", |_, status| !status.peers[0].alive).await;
    let client = here.handle.client();
    let error = client.fresh(SECOND, FreshTo::Regions, SECOND).await.unwrap_err();
    assert!(
        matches!(&error, FreshError::Behind(Behind::Unheard { region, .. }) if region.as_str() == "eu-central")
    );
    client.fresh(Duration::ZERO, FreshTo::Heard, Duration::ZERO).await.unwrap();
    here.handle.close(SECOND).await;
    let ended = client.fresh(SECOND, FreshTo::Heard, SECOND).await;
    assert_eq!(ended, Err(FreshError::Ended));
}
