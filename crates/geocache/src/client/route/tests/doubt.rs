use super::*;
use crate::{client::RouteEvent, value::Codec};

#[tokio::test(start_paused = true)]
async fn what_a_doubtful_region_serves_is_flagged() {
    let two = Two::new().await;
    let mut events = two.client.routes().unwrap().watch();
    two.near.doubt(Some(Doubt::CutOff));
    tokio::time::sleep(ROUND).await;
    let served = two.client.item(b"k").await.unwrap();
    assert_eq!((served.region.as_str(), served.doubt), ("eu-central", Some(Doubt::CutOff)));
    assert!(served.may_be_stale());
    let region = || "eu-central".parse().unwrap();
    let told = RouteEvent::Doubt { region: region(), doubt: Some(Doubt::CutOff) };
    assert_eq!(events.next().await, Ok(Some(told)));
    two.near.doubt(None);
    tokio::time::sleep(ROUND).await;
    assert_eq!(two.client.item(b"k").await.unwrap().doubt, None);
    assert_eq!(events.next().await, Ok(Some(RouteEvent::Doubt { region: region(), doubt: None })));
}

#[tokio::test(start_paused = true)]
async fn a_miss_at_a_warming_region_is_asked_for_at_the_next() {
    let two = Two::new().await;
    two.near.doubt(Some(Doubt::Warming));
    two.near.restart();
    tokio::time::sleep(ROUND).await;
    let served = two.client.item(b"k").await.unwrap();
    assert_eq!((served.region.as_str(), served.doubt, served.asked), ("us-east", None, 2));
    assert!(served.value.is_some());
    assert_eq!(two.stats().misses_asked_on, 1);
    // What is there is served from there.
    two.near.hold("k", "early");
    let served = two.client.item(b"k").await.unwrap();
    assert_eq!((served.region.as_str(), served.doubt), ("eu-central", Some(Doubt::Warming)));
    // If nobody else answers, the miss is the answer, flagged.
    two.near.restart();
    two.far.be(Mode::Dead);
    let served = two.client.item(b"k").await.unwrap();
    assert_eq!((served.value, served.doubt), (None, Some(Doubt::Warming)));
    assert_eq!(two.stats().unavailable, 0, "it was answered");
}

#[tokio::test(start_paused = true)]
async fn of_several_keys_those_that_a_warming_region_misses_are_asked_for_at_the_next() {
    let two = Two::new().await;
    two.near.doubt(Some(Doubt::Warming));
    two.near.restart();
    two.near.hold("early", "x");
    tokio::time::sleep(ROUND).await;
    let keys = [Bytes::from("k"), Bytes::from("early"), Bytes::from("nobody")];
    let served = two.client.engine().get_many(&keys).await.unwrap();
    let by: Vec<_> = served.iter().map(|one| (one.region.as_str(), one.value.is_some())).collect();
    assert_eq!(by, [("us-east", true), ("eu-central", true), ("us-east", false)]);
    assert_eq!((two.near.calls(), two.far.calls()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn where_it_is_told_so_a_miss_is_a_miss() {
    let two = Two::with(|builder| builder.miss_asks_next(false)).await;
    two.near.doubt(Some(Doubt::Warming));
    two.near.restart();
    tokio::time::sleep(ROUND).await;
    let served = two.client.item(b"k").await.unwrap();
    assert_eq!((served.value, served.doubt, served.asked), (None, Some(Doubt::Warming), 1));
    // A miss at a region that is ready is one anyway.
    two.near.doubt(None);
    tokio::time::sleep(ROUND).await;
    assert_eq!(two.client.item(b"k").await.unwrap().asked, 1);
    assert_eq!(two.far.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn misses_are_asked_on_within_the_budget_alone() {
    let two = Two::with(|builder| builder.fallback_share(0.0).fallbacks_per_second(0.1)).await;
    two.near.doubt(Some(Doubt::Warming));
    two.near.restart();
    tokio::time::sleep(ROUND).await;
    assert!(two.client.item(b"k").await.unwrap().value.is_some());
    assert!(two.client.item(b"k").await.unwrap().value.is_none());
    assert_eq!(two.stats().fallbacks_refused, 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_requires_it_is_served_by_a_region_that_is_not_in_doubt() {
    let two = Two::with(|builder| builder.require_fresh(true)).await;
    assert_eq!(two.served_by().await, "eu-central");
    two.near.doubt(Some(Doubt::Behind(ms(3_000))));
    tokio::time::sleep(ROUND).await;
    let served = two.client.item(b"k").await.unwrap();
    assert_eq!((served.region.as_str(), served.doubt, served.asked), ("us-east", None, 1));
    // If all are in doubt, the closest answers, flagged; so does the only one that is there.
    two.far.doubt(Some(Doubt::CutOff));
    tokio::time::sleep(ROUND).await;
    assert_eq!(two.client.item(b"k").await.unwrap().doubt, Some(Doubt::Behind(ms(3_000))));
    two.far.doubt(None);
    tokio::time::sleep(ROUND).await;
    two.far.be(Mode::Dead);
    assert_eq!(two.client.item(b"k").await.unwrap().doubt, Some(Doubt::Behind(ms(3_000))));
}

#[tokio::test(start_paused = true)]
async fn conditions_are_judged_where_nothing_is_in_doubt() {
    let two = Two::new().await;
    two.near.doubt(Some(Doubt::Warming));
    two.near.restart();
    tokio::time::sleep(ROUND).await;
    let outcome = two.client.write(b"k", put("x"), Expect::Absent).await.unwrap();
    assert_eq!((outcome.region.as_str(), outcome.value), ("us-east", Outcome::Exists));
    assert_eq!(two.client.write(b"k", put("x"), Expect::Any).await.unwrap().region.as_str(), "eu-central");
}

#[tokio::test(start_paused = true)]
async fn an_update_rests_on_what_is_not_in_doubt() {
    let two = Two::with(|builder| builder.codec(Codec::Raw)).await;
    two.near.doubt(Some(Doubt::CutOff));
    tokio::time::sleep(ROUND).await;
    assert_eq!(two.served_by().await, "eu-central", "a read is the closest region's");
    let updated = two.client.update::<String, _>("k", |k| k.map(|k| k + "!")).await.unwrap();
    assert_eq!((updated.region.as_str(), updated.value.as_deref()), ("us-east", Some("us-east!")));
}

#[tokio::test(start_paused = true)]
async fn a_new_life_is_told() {
    let two = Two::new().await;
    let mut events = two.client.routes().unwrap().watch();
    two.near.restart();
    let told = RouteEvent::Restarted { region: "eu-central".parse().unwrap() };
    assert_eq!(events.next().await, Ok(Some(told)));
}
