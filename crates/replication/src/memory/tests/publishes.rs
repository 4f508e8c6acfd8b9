//! What goes wrong when a frame is handed over.

use super::*;

fn unavailable() -> TransportError {
    TransportError::Unavailable { reason: "a fault".into() }
}

/// Which of 200 publishes failed under these faults, and what arrived.
async fn outcomes(seed: u64, faults: PublishFaults) -> (Vec<bool>, Vec<u32>, Stats) {
    let hub = Hub::seeded(seed);
    hub.set_publish_faults(us(), faults);
    let (from, to) = (hub.join(us()), hub.join(eu()));
    let mut subscription = to.subscribe().await.unwrap();
    let mut failed = Vec::new();
    for number in 0..200 {
        failed.push(from.publish(Destination::Everyone, frame(number)).await.is_err());
    }
    (failed, drain(&mut subscription).await, hub.stats())
}

#[tokio::test(start_paused = true)]
async fn a_publish_fails_with_each_error_and_its_frame_is_not_carried() {
    let hub = Hub::new();
    let (from, to) = (hub.join(us()), hub.join(eu()));
    let mut subscription = to.subscribe().await.unwrap();
    let errors = [
        unavailable(),
        TransportError::Unroutable { to: Destination::Everyone },
        TransportError::Refused { reason: "a nack".into() },
        TransportError::Fatal { reason: "no permission".into() },
        TransportError::Closed,
    ];
    for error in errors {
        hub.set_publish_faults(us().region(), PublishFaults::none().fail(1.0, error.clone()));
        assert_eq!(from.publish(Destination::Everyone, frame(1)).await, Err(error));
    }
    assert_eq!((hub.stats().failed, hub.stats().published), (5, 0));
    assert_eq!(to.publish(Destination::Everyone, frame(2)).await, Ok(()), "another region's are taken");
    hub.heal();
    broadcast(&from, 3..4).await;
    assert_eq!(drain(&mut subscription).await, [3]);
}

#[tokio::test(start_paused = true)]
async fn a_seed_decides_which_publishes_fail_and_other_faults_do_not_change_it() {
    let (first, arrived, stats) = outcomes(7, PublishFaults::none().fail(0.3, unavailable())).await;
    let (second, ..) = outcomes(7, PublishFaults::none().fail(0.3, unavailable())).await;
    let (other, ..) = outcomes(8, PublishFaults::none().fail(0.3, unavailable())).await;
    let stalls = PublishFaults::none().stall(0.5, MS..=9 * MS).fail(0.3, unavailable());
    let (with_stalls, _, stalled) = outcomes(7, stalls).await;
    assert_eq!(first, second);
    assert_ne!(first, other);
    assert_eq!(first, with_stalls);
    assert!((30..90).contains(&stats.failed), "{stats:?}");
    assert!((70..130).contains(&stalled.stalled), "{stalled:?}");
    let taken = first.iter().zip(0..).filter(|(failed, _)| !**failed).map(|(_, number)| number);
    assert_eq!(arrived, taken.collect::<Vec<u32>>());
}

#[tokio::test(start_paused = true)]
async fn a_denied_publish_was_carried_all_the_same() {
    let (failed, arrived, stats) = outcomes(7, PublishFaults::none().deny(0.5, unavailable())).await;
    assert_eq!(arrived, range(0..200));
    assert_eq!(failed.iter().filter(|failed| **failed).count() as u64, stats.denied);
    assert!((70..130).contains(&stats.denied), "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stalled_publish_is_carried_at_once_and_answered_late() {
    let hub = Hub::new();
    hub.set_publish_faults(Place::Everywhere, PublishFaults::none().stall(1.0, 40 * MS..=90 * MS));
    let (from, to) = (hub.join(us()), hub.join(eu()));
    let mut subscription = to.subscribe().await.unwrap();
    let begun = Instant::now();
    let publishing = from.publish(Destination::Everyone, frame(1));
    let (published, delivered) = tokio::join!(publishing, async {
        let delivered = number(subscription.next().await.unwrap());
        (delivered, begun.elapsed())
    });
    assert_eq!((published, delivered), (Ok(()), (1, Duration::ZERO)));
    assert!((40 * MS..=91 * MS).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(hub.stats().stalled, 1);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_node_s_publishes_are_neither_carried_nor_answered_until_it_is_thawed() {
    let hub = Hub::new();
    let (from, to) = (hub.join(us()), hub.join(eu()));
    let mut subscription = to.subscribe().await.unwrap();
    hub.freeze(us().region());
    hub.freeze(us());
    let given_up = timeout(5_000 * MS, from.publish(Destination::Everyone, frame(1))).await;
    assert!(given_up.is_err(), "no answer");
    let waiting = tokio::spawn({
        let from = Arc::clone(&from);
        async move { from.publish(Destination::Everyone, frame(2)).await }
    });
    tokio::time::sleep(1_000 * MS).await;
    assert_eq!((hub.stats().frozen, hub.stats().published), (2, 0));
    hub.thaw(us());
    assert_eq!(hub.stats().frozen, 2, "another frost holds the node");
    hub.thaw(us().region());
    assert_eq!(waiting.await.unwrap(), Ok(()));
    broadcast(&from, 3..4).await;
    assert_eq!(drain(&mut subscription).await, [1, 2, 3], "one that was given up is carried too");
    assert_eq!(hub.stats().frozen, 0);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_node_that_loses_its_connection_or_leaves_is_told() {
    let hub = Hub::new();
    let one = hub.join(us());
    hub.freeze(us());
    let publish = |transport: &Arc<HubTransport>| {
        let transport = Arc::clone(transport);
        tokio::spawn(async move { transport.publish(Destination::Everyone, frame(1)).await })
    };
    let waiting = publish(&one);
    tokio::time::sleep(MS).await;
    hub.disconnect(&us());
    assert!(matches!(waiting.await.unwrap(), Err(TransportError::Unavailable { .. })));
    hub.reconnect(&us());
    let waiting = publish(&one);
    tokio::time::sleep(MS).await;
    one.close().await.unwrap();
    assert_eq!(waiting.await.unwrap(), Err(TransportError::Closed));
    let waiting = publish(&hub.join(us()));
    tokio::time::sleep(MS).await;
    let _later_life = hub.join(us());
    assert_eq!(waiting.await.unwrap(), Err(TransportError::Closed));
    assert_eq!(hub.stats().frozen, 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_frost_loses_its_oldest_publishes_and_counts_them() {
    let hub = Hub::with_limits(0, Limits { held_frames: 3, ..Limits::default() });
    let (from, to) = (hub.join(us()), hub.join(eu()));
    let mut subscription = to.subscribe().await.unwrap();
    hub.freeze(Place::Everywhere);
    for number in 0..5 {
        let publishing = from.publish(Destination::Everyone, frame(number));
        assert!(timeout(MS, publishing).await.is_err());
    }
    assert_eq!((hub.stats().frozen, hub.stats().overflowed), (3, 2));
    hub.heal();
    assert_eq!(drain(&mut subscription).await, range(2..5));
}
