//! Joining, leaving, connections, queues and their bounds.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_broadcast_does_not_come_back_and_a_frame_to_oneself_does() {
    let hub = Hub::new();
    let one = hub.join(us());
    let mut at_one = one.subscribe().await.unwrap();
    broadcast(&one, 0..1).await;
    one.publish(Destination::Node(us()), frame(1)).await.unwrap();
    assert_eq!(drain(&mut at_one).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_not_subscribed_takes_no_frames() {
    let hub = Hub::new();
    let (one, other) = (hub.join(us()), hub.join(eu()));
    let to = Destination::Node(eu());
    let refused = one.publish(to.clone(), frame(0)).await;
    assert_eq!(refused, Err(TransportError::Unroutable { to: to.clone() }));
    let own_region = Destination::Region(us().region().clone());
    assert!(matches!(one.publish(own_region, frame(0)).await, Err(TransportError::Unroutable { .. })));
    broadcast(&one, 1..2).await;
    let mut at_other = other.subscribe().await.unwrap();
    one.publish(to, frame(2)).await.unwrap();
    assert_eq!(drain(&mut at_other).await, [2]);
    assert_eq!(hub.stats().unroutable, 2);
}

#[tokio::test(start_paused = true)]
async fn a_disconnected_node_is_unavailable_and_its_queue_waits() {
    let hub = Hub::new();
    let (one, other) = (hub.join(us()), hub.join(eu()));
    let mut at_other = other.subscribe().await.unwrap();
    let mut health = other.health();
    hub.disconnect(&eu());
    assert!(health.has_changed().unwrap());
    assert!(matches!(*health.borrow_and_update(), Health::Connecting { last_error: Some(_), .. }));
    assert!(at_other.next().await.is_none(), "the subscription ends");
    let published = other.publish(Destination::Everyone, frame(9)).await;
    assert!(matches!(published, Err(TransportError::Unavailable { .. })), "{published:?}");
    assert!(matches!(other.subscribe().await.err(), Some(TransportError::Unavailable { .. })));
    broadcast(&one, 0..3).await;
    hub.reconnect(&eu());
    assert_eq!(*health.borrow_and_update(), Health::Connected);
    assert!(at_other.next().await.is_none(), "an ended subscription stays ended");
    let mut at_other = other.subscribe().await.unwrap();
    assert_eq!(drain(&mut at_other).await, range(0..3));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_joins_again_replaces_its_older_life() {
    let hub = Hub::new();
    let (one, old) = (hub.join(us()), hub.join(eu()));
    let mut at_old = old.subscribe().await.unwrap();
    broadcast(&one, 0..3).await;
    let new = hub.join(eu());
    assert!(at_old.next().await.is_none());
    assert_eq!(*old.health().borrow(), Health::Closed);
    assert_eq!(old.publish(Destination::Everyone, frame(9)).await, Err(TransportError::Closed));
    // Neither closing nor dropping the older end touches the new one.
    old.close().await.unwrap();
    drop(old);
    let mut at_new = new.subscribe().await.unwrap();
    broadcast(&one, 3..6).await;
    assert_eq!(drain(&mut at_new).await, range(3..6));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_transport_leaves_the_hub() {
    let hub = Hub::new();
    let (one, other) = (hub.join(us()), hub.join(eu()));
    let mut at_other = other.subscribe().await.unwrap();
    drop(other);
    assert!(at_other.next().await.is_none());
    assert!(matches!(
        one.publish(Destination::Node(eu()), frame(0)).await,
        Err(TransportError::Unroutable { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_loses_its_oldest_frames_and_counts_them() {
    let limits = Limits { inbox_frames: 10, ..Limits::default() };
    let hub = Hub::with_limits(0, limits);
    let (one, other) = (hub.join(us()), hub.join(eu()));
    let mut at_other = other.subscribe().await.unwrap();
    broadcast(&one, 0..25).await;
    assert_eq!(hub.stats().queued, 10);
    assert_eq!(drain(&mut at_other).await, range(15..25));
    assert_eq!(hub.stats().overflowed, 15);

    let hub = Hub::with_limits(0, Limits { inbox_bytes: 1_000, ..Limits::default() });
    let (one, other) = (hub.join(us()), hub.join(eu()));
    let mut at_other = other.subscribe().await.unwrap();
    for byte in 0..5 {
        one.publish(Destination::Everyone, Bytes::from(vec![byte; 300])).await.unwrap();
    }
    assert_eq!(hub.stats().overflowed, 2);
    assert_eq!(at_other.next().await.unwrap().frame[0], 2);
}

#[tokio::test(start_paused = true)]
async fn a_full_hold_loses_its_oldest_frames_and_counts_them() {
    let limits = Limits { held_frames: 10, held_bytes: 1_000, ..Limits::default() };
    let hub = Hub::with_limits(0, limits);
    let (one, other) = (hub.join(us()), hub.join(eu()));
    let mut at_other = other.subscribe().await.unwrap();
    hub.hold(us(), eu());
    broadcast(&one, 0..25).await;
    assert_eq!(hub.stats().overflowed, 15);
    one.publish(Destination::Everyone, Bytes::from(vec![b'1'; 995])).await.unwrap();
    assert_eq!((hub.stats().held, hub.stats().overflowed), (3, 15 + 8));
    hub.heal();
    assert_eq!(number(at_other.next().await.unwrap()), 23);
}

#[tokio::test(start_paused = true)]
async fn held_frames_for_a_node_that_left_are_counted() {
    let hub = Hub::new();
    let (one, other) = (hub.join(us()), hub.join(eu()));
    let _at_other = other.subscribe().await.unwrap();
    hub.hold(us(), eu());
    broadcast(&one, 0..4).await;
    other.close().await.unwrap();
    hub.heal();
    assert_eq!((hub.stats().orphaned, hub.stats().held), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn unacknowledged_frames_are_bounded_and_come_again_in_order() {
    let hub = Hub::with_limits(0, Limits { unacked_frames: 4, ..Limits::default() });
    let (one, other) = (hub.join(us()), hub.join(eu()));
    let mut at_other = other.subscribe().await.unwrap();
    broadcast(&one, 0..10).await;
    let mut acks = Vec::new();
    for _ in 0..4 {
        acks.push(at_other.next().await.unwrap().ack);
    }
    assert!(timeout(60_000 * MS, at_other.next()).await.is_err(), "the fifth waits");
    acks.remove(1).done();
    assert_eq!(number(at_other.next().await.unwrap()), 4);
    // A late acknowledgement of an older subscription does not count.
    let mut again = other.subscribe().await.unwrap();
    acks.into_iter().for_each(Ack::done);
    let numbers = drain(&mut again).await;
    assert_eq!(numbers, [0, 2, 3, 5, 6, 7, 8, 9]);
    assert_eq!(hub.stats().redelivered, 3);
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_wakes_a_waiting_subscription() {
    let hub = Hub::with_limits(0, Limits { unacked_frames: 1, ..Limits::default() });
    let (one, other) = (hub.join(us()), hub.join(eu()));
    let mut at_other = other.subscribe().await.unwrap();
    broadcast(&one, 0..2).await;
    let first = at_other.next().await.unwrap();
    let (second, ()) = tokio::join!(timeout(1_000 * MS, at_other.next()), async {
        tokio::time::sleep(5 * MS).await;
        first.ack.done();
    });
    assert_eq!(number(second.expect("the acknowledgement wakes it").unwrap()), 1);
}

#[tokio::test(start_paused = true)]
async fn an_over_long_frame_is_refused() {
    let hub = Hub::new();
    let one = hub.join(us());
    let refused = one.publish(Destination::Everyone, vec![0; crate::wire::FRAME_BYTES_MAX + 1].into()).await;
    assert!(matches!(refused, Err(TransportError::Refused { .. })), "{refused:?}");
}
