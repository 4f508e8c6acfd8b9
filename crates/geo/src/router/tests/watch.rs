//! Who watches hears of what changed, once, and of the latest.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use super::*;

/// What is heard without waiting; `None` if nothing changed.
fn heard(watch: &mut Watch) -> Option<std::sync::Arc<Status>> {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(watch.changed()).poll(&mut context) {
        Poll::Ready(status) => Some(status.expect("the router lives")),
        Poll::Pending => None,
    }
}

#[test]
fn a_new_watch_knows_how_things_stand_and_hears_only_of_what_comes() {
    let now = Instant::now();
    let router = three();
    let mut watch = router.watch(now);
    let status = watch.status();
    assert_eq!((status.first.as_str(), status.last_resort, status.regions.len()), ("us-east", false, 3));
    assert_eq!(heard(&mut watch), None);
}

#[test]
fn changes_of_health_drain_first_choice_and_regions_are_heard() {
    let now = Instant::now();
    let router = three();
    let mut watch = router.watch(now);
    router.set_health(&id("ap-south"), Health::Unhealthy, now).unwrap();
    assert_eq!(heard(&mut watch).unwrap().regions[2].health, Health::Unhealthy);
    router.drain(&id("us-east"), true, now).unwrap();
    let status = heard(&mut watch).unwrap();
    assert!(status.regions[0].drained);
    assert_eq!(status.first.as_str(), "eu-central");
    router.drain(&id("us-east"), false, now).unwrap();
    assert_eq!(heard(&mut watch).unwrap().first.as_str(), "us-east");

    measure(&router, "eu-central", ms(1), 4, now);
    assert_eq!(heard(&mut watch), None, "round trips are looked at with the next plan");
    router.plan(now + ROUND);
    assert_eq!(heard(&mut watch).unwrap().first.as_str(), "eu-central");

    router.add(id("basement"), None).unwrap();
    assert_eq!(heard(&mut watch).unwrap().regions.len(), 4);
    for region in ["us-east", "eu-central", "basement"] {
        router.set_health(&id(region), Health::Unhealthy, now).unwrap();
    }
    assert!(heard(&mut watch).unwrap().last_resort);
    assert_eq!(heard(&mut watch), None, "of several changes the latest is heard");
}

#[test]
fn what_changes_nothing_is_not_heard() {
    let now = Instant::now();
    let router = three();
    let mut watch = router.watch(now);
    router.set_health(&id("us-east"), Health::Healthy, now).unwrap();
    router.drain(&id("us-east"), false, now).unwrap();
    router.begin(&id("us-east"), now).unwrap().failure(now);
    for round in 0..10 {
        measure(&router, "us-east", ms(3), 1, now);
        router.plan(now + round * ROUND);
    }
    assert_eq!(heard(&mut watch), None);
}

#[test]
fn a_region_put_out_by_its_calls_is_heard_of() {
    let now = Instant::now();
    let router = three();
    let mut watch = router.watch(now);
    for _ in 0..3 {
        assert_eq!(heard(&mut watch), None);
        router.begin(&id("us-east"), now).unwrap().failure(now);
    }
    assert_eq!(heard(&mut watch).unwrap().first.as_str(), "eu-central");
}

#[test]
fn a_watch_ends_with_its_router() {
    let router = three();
    let mut watch = router.watch(Instant::now());
    drop(router);
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(pin!(watch.changed()).poll(&mut context), Poll::Ready(None));
    assert_eq!(watch.status().regions.len(), 3);
}

/// Another thread may change something while a watch is made; it went unheard until the next change.
#[test]
fn what_changes_while_a_watch_is_made_is_in_its_status() {
    let now = Instant::now();
    let router = three();
    let (watch, status) = router.subscribe(now);
    router.drain(&id("us-east"), true, now).unwrap();
    router.shared.bell.ring(status);
    let mut watch = watch.seen();
    assert!(watch.status().regions[0].drained);
    assert_eq!(heard(&mut watch), None, "it is part of what the watch begins with");
    router.drain(&id("us-east"), false, now).unwrap();
    assert!(!heard(&mut watch).unwrap().regions[0].drained);
}

/// Two threads may tell of what they changed in the other order.
#[test]
fn an_older_status_does_not_replace_a_newer_one() {
    let now = Instant::now();
    let router = three();
    let older = Status::clone(&router.watch(now).status());
    router.drain(&id("us-east"), true, now).unwrap();
    let mut watch = router.watch(now);
    router.shared.bell.ring(older);
    assert_eq!(heard(&mut watch), None);
    assert!(watch.status().regions[0].drained);
}

#[test]
fn watches_on_many_threads_end_up_with_the_latest() {
    let now = Instant::now();
    let router = three();
    let watch = router.watch(now);
    std::thread::scope(|scope| {
        for region in ["us-east", "eu-central", "ap-south"] {
            let router = &router;
            scope.spawn(move || {
                for turn in 0..500 {
                    let health = if turn % 2 == 0 { Health::Unhealthy } else { Health::Healthy };
                    router.set_health(&id(region), health, now).unwrap();
                }
                router.set_health(&id(region), Health::Probing, now).unwrap();
            });
        }
    });
    let status = watch.status();
    assert!(status.regions.iter().all(|region| region.health == Health::Probing), "{status:?}");
    assert_eq!(status.first, router.order(now)[0]);
}
