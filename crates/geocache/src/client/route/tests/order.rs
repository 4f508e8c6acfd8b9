use std::time::Duration;

use super::*;
use crate::client::{BreakerState, RouteEvent};

#[tokio::test(start_paused = true)]
async fn the_closest_region_is_asked_first_and_alone() {
    let two = Two::new().await;
    let served = two.client.item(b"k").await.unwrap();
    assert_eq!((served.region.as_str(), served.asked, served.doubt), ("eu-central", 1, None));
    assert_eq!((two.near.calls(), two.far.calls()), (1, 0));
    assert_eq!(two.stats(), RouteStats { calls: 1, ..RouteStats::default() });
}

#[tokio::test(start_paused = true)]
async fn what_is_measured_beats_the_distance() {
    let two = Two::new().await;
    two.near.take(ms(300));
    // Three rounds of being behind by the margin, and enough probes to believe it.
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(two.served_by().await, "us-east");
}

#[tokio::test(start_paused = true)]
async fn writes_go_to_one_place_and_the_writer_reads_them_there() {
    let two = Two::new().await;
    let done = two.client.write(b"new", put("x"), Expect::Any).await.unwrap();
    assert_eq!((done.region.as_str(), done.asked), ("eu-central", 1));
    assert!(two.near.holds("new").is_some() && two.far.holds("new").is_none());
    assert!(two.client.item(b"new").await.unwrap().value.is_some());
    assert!(two.client.touch("new", ms(500)).await.unwrap());
    assert!(two.client.remove("new").await.unwrap());
    two.client.clear().await.unwrap();
    assert_eq!(two.near.holds("k"), None);
    assert_eq!(two.far.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn several_keys_are_read_at_one_region() {
    let two = Two::new().await;
    let keys = [Bytes::from("k"), Bytes::from("nobody")];
    let served = two.client.engine().get_many(&keys).await.unwrap();
    assert!(served[0].value.is_some() && served[1].value.is_none());
    assert!(served.iter().all(|one| one.region.as_str() == "eu-central"));
    assert_eq!(two.near.calls(), 1);
    assert!(two.client.engine().get_many(&[]).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_drained_region_is_asked_only_if_no_other_answers() {
    let two = Two::new().await;
    let routes = two.client.routes().unwrap();
    let mut events = routes.watch();
    routes.drain("eu-central", true).unwrap();
    let region = || "eu-central".parse().unwrap();
    assert_eq!(events.next().await, Ok(Some(RouteEvent::Drained { region: region(), drained: true })));
    assert_eq!(two.served_by().await, "us-east");
    two.far.be(Mode::Dead);
    assert_eq!(two.served_by().await, "eu-central");
    two.far.be(Mode::Well);
    routes.drain("eu-central", false).unwrap();
    assert_eq!(two.served_by().await, "eu-central");
    assert!(is_unknown(&routes.drain("mars", true).unwrap_err()));
}

#[tokio::test(start_paused = true)]
async fn at_the_bound_of_calls_in_flight_the_next_region_is_asked_and_past_all_the_call_is_refused() {
    let two = Two::with(|builder| builder.in_flight_max(2)).await;
    two.near.take(ms(400));
    two.far.take(ms(400));
    let calls = (0..5).map(|_| two.client.item(b"k"));
    let answers = join_all(calls).await;
    let by = |name: &str| answers.iter().flatten().filter(|served| served.region.as_str() == name).count();
    assert_eq!((by("eu-central"), by("us-east")), (2, 2));
    let refused = answers.into_iter().find_map(Result::err).unwrap();
    assert_eq!(
        refused.to_string(),
        "no region answered (eu-central: not asked: 2 calls are in flight, as many as may be; us-east: not asked: 2 \
         calls are in flight, as many as may be)"
    );
    let (_, retry_after, may_be_done) = unavailable(refused);
    assert_eq!((retry_after, may_be_done), (None, false));
    let stats = two.stats();
    assert_eq!((stats.full, stats.fallbacks, stats.unavailable), (4, 2, 1));
    assert_eq!(two.status("eu-central").full, 3);
    assert_eq!((two.status("eu-central").in_flight, two.status("eu-central").in_flight_max), (0, 2));
    assert!(two.client.item(b"k").await.is_ok(), "the places are free again");
}

#[tokio::test(start_paused = true)]
async fn calls_are_shared_among_regions_as_close_if_told_so_and_else_not() {
    for balance in [false, true] {
        let two = Two::with(|builder| builder.balance(balance)).await;
        two.far.take(ms(2));
        // Until the measurements say that both are as close.
        tokio::time::sleep(Duration::from_secs(120)).await;
        for answer in join_all((0..100).map(|_| two.client.item(b"k"))).await {
            answer.unwrap();
        }
        let (near, far) = (two.near.calls(), two.far.calls());
        assert_eq!(near + far, 100);
        assert_eq!(far > 0, balance, "balance {balance}: {near} and {far}");
        assert!(near >= 40, "balance {balance}: {near} and {far}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_status_says_how_each_region_stands_and_why() {
    let two = Two::new().await;
    two.near.be(Mode::Refuses);
    for _ in 0..3 {
        assert_eq!(two.served_by().await, "us-east");
    }
    let status = two.client.routes().unwrap().status();
    let names: Vec<_> = status.regions.iter().map(|region| region.region.as_str()).collect();
    assert_eq!(names, ["us-east", "eu-central"]);
    let out = two.status("eu-central");
    assert_eq!(out.breaker, BreakerState::Open);
    assert!(out.retry_after > Duration::from_secs(4), "{:?}", out.retry_after);
    assert_eq!(out.last_error.unwrap().0, "eu-central refused: too busy");
    assert_eq!((out.asked, out.failed, out.served), (3, 3, 0));
    assert_eq!(two.status("us-east").served, 3);
    let text = status.to_string();
    assert!(text.contains("eu-central: unhealthy") && text.contains("too busy"), "{text}");
    assert!(text.contains("[us-east; 0 of 1024]"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn two_clients_of_one_process_share_nothing() {
    let (one, other) = (Two::new().await, Two::new().await);
    one.near.be(Mode::Dead);
    for _ in 0..3 {
        assert_eq!(one.served_by().await, "us-east");
    }
    assert_eq!(other.served_by().await, "eu-central");
    assert_eq!(other.breaker("eu-central").opened, 0);
}
