//! Chance faults, cuts, holds and isolation.

use super::*;

/// What of 1,000 broadcasts reaches a second node under these faults.
async fn received(seed: u64, faults: Faults) -> (Vec<u32>, Stats) {
    let hub = Hub::seeded(seed);
    hub.set_faults(faults);
    let (from, to) = (hub.join(us()), hub.join(eu()));
    let mut subscription = to.subscribe().await.unwrap();
    broadcast(&from, 0..1_000).await;
    let numbers = drain(&mut subscription).await;
    (numbers, hub.stats())
}

#[tokio::test(start_paused = true)]
async fn without_faults_everything_arrives_once_in_order_at_once() {
    let start = Instant::now();
    let hub = Hub::new();
    let (from, to) = (hub.join(us()), hub.join(eu()));
    let mut subscription = to.subscribe().await.unwrap();
    broadcast(&from, 0..100).await;
    for expected in 0..100 {
        assert_eq!(number(subscription.next().await.unwrap()), expected);
    }
    assert_eq!(Instant::now(), start);
    let stats = hub.stats();
    assert_eq!(stats, Stats { published: 100, delivered: 100, ..Stats::default() });
}

#[tokio::test(start_paused = true)]
async fn a_seed_decides_every_frame_s_fate() {
    let faults = || Faults::none().drop(0.2).duplicate(0.1).reorder(0.1).delay(MS..=5 * MS);
    let (first, stats) = received(7, faults()).await;
    let (second, _) = received(7, faults()).await;
    let (other, _) = received(8, faults()).await;
    assert_eq!(first, second);
    assert_ne!(first, other);
    assert!((150..250).contains(&stats.dropped), "{stats:?}");
    assert!((50..150).contains(&stats.duplicated), "{stats:?}");
    assert!((50..150).contains(&stats.reordered), "{stats:?}");
    assert_eq!(stats.delivered, 1_000 - stats.dropped + stats.duplicated);
}

#[tokio::test(start_paused = true)]
async fn a_fault_s_setting_does_not_change_another_s_outcome() {
    let (alone, _) = received(7, Faults::none().drop(0.2)).await;
    let (delayed, _) = received(7, Faults::none().drop(0.2).delay(MS..=9 * MS)).await;
    assert_eq!(alone, delayed);
    let (throttled, _) = received(7, Faults::none().drop(0.2).bytes_per_s(1_000)).await;
    assert_eq!(alone, throttled);
    let (doubled, _) = received(7, Faults::none().drop(0.2).duplicate(0.5)).await;
    assert_eq!(alone, doubled.into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn traffic_on_one_link_does_not_change_the_fates_on_another() {
    let lossy = || Faults::none().drop(0.3);
    let (alone, _) = received(5, lossy()).await;
    let hub = Hub::seeded(5);
    hub.set_faults(lossy());
    let (from, to, third) = (hub.join(us()), hub.join(eu()), hub.join(ap()));
    let mut subscription = to.subscribe().await.unwrap();
    for n in 0..1_000 {
        broadcast(&from, [n]).await;
        broadcast(&third, [5_000 + n]).await;
    }
    let from_first: Vec<_> = drain(&mut subscription).await.into_iter().filter(|n| *n < 1_000).collect();
    assert_eq!(alone, from_first);
}

#[tokio::test(start_paused = true)]
async fn delayed_frames_arrive_within_the_range_and_in_order() {
    let hub = Hub::seeded(1);
    hub.set_faults(Faults::none().delay(40 * MS..=90 * MS));
    let (from, to) = (hub.join(us()), hub.join(eu()));
    let mut subscription = to.subscribe().await.unwrap();
    let start = Instant::now();
    broadcast(&from, 0..50).await;
    for expected in 0..50 {
        assert_eq!(number(subscription.next().await.unwrap()), expected);
        assert!((40 * MS..=91 * MS).contains(&start.elapsed()), "{:?}", start.elapsed());
    }
    assert!(start.elapsed() > 60 * MS, "no frame drew a delay in the upper half");
}

#[tokio::test(start_paused = true)]
async fn reordering_changes_the_order_and_nothing_else() {
    let (numbers, stats) = received(2, Faults::none().reorder(0.3)).await;
    assert!(!numbers.is_sorted());
    assert_eq!(sorted(numbers), range(0..1_000));
    assert!(stats.reordered > 200);
}

#[tokio::test(start_paused = true)]
async fn a_link_s_own_faults_go_before_the_default_ones_and_the_last_set_counts() {
    let hub = Hub::new();
    let (from, to, third) = (hub.join(us()), hub.join(eu()), hub.join(ap()));
    let (mut at_to, mut at_third) = (to.subscribe().await.unwrap(), third.subscribe().await.unwrap());
    hub.set_faults(Faults::none().drop(1.0));
    hub.set_link_faults(us().region(), eu().region(), Faults::none());
    broadcast(&from, 0..3).await;
    assert_eq!(drain(&mut at_to).await, range(0..3));
    assert_eq!(drain(&mut at_third).await, NOTHING);
    hub.set_link_faults(us(), Place::Everywhere, Faults::none().drop(1.0));
    broadcast(&from, 3..6).await;
    assert_eq!(drain(&mut at_to).await, NOTHING);
    hub.set_link_faults(us().region(), eu().region(), Faults::none());
    broadcast(&from, 6..9).await;
    assert_eq!(drain(&mut at_to).await, range(6..9));
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_one_way_until_mended() {
    let hub = Hub::new();
    let (one, other) = (hub.join(us()), hub.join(eu()));
    let (mut at_one, mut at_other) = (one.subscribe().await.unwrap(), other.subscribe().await.unwrap());
    hub.cut(us(), eu());
    broadcast(&one, 0..3).await;
    broadcast(&other, 10..13).await;
    assert_eq!(drain(&mut at_other).await, NOTHING);
    assert_eq!(drain(&mut at_one).await, range(10..13));
    assert_eq!(hub.stats().cut, 3);
    hub.mend(us(), eu());
    broadcast(&one, 3..6).await;
    assert_eq!(drain(&mut at_other).await, range(3..6), "what was lost stays lost");
    hub.cut_both(us(), eu());
    broadcast(&one, 6..7).await;
    broadcast(&other, 16..17).await;
    hub.mend_both(us(), eu());
    assert_eq!((drain(&mut at_one).await, drain(&mut at_other).await), (vec![], vec![]));
    broadcast(&one, 7..8).await;
    assert_eq!(drain(&mut at_other).await, [7]);
}

#[tokio::test(start_paused = true)]
async fn held_frames_come_in_order_when_released() {
    let hub = Hub::new();
    let (one, other) = (hub.join(us()), hub.join(eu()));
    let (mut at_one, mut at_other) = (one.subscribe().await.unwrap(), other.subscribe().await.unwrap());
    hub.hold(us().region(), eu().region());
    hub.hold(us(), eu());
    broadcast(&one, 0..20).await;
    broadcast(&other, 100..103).await;
    assert_eq!(drain(&mut at_other).await, NOTHING);
    assert_eq!(drain(&mut at_one).await, range(100..103));
    assert_eq!(hub.stats().held, 20);
    hub.release(us(), eu());
    assert_eq!(drain(&mut at_other).await, NOTHING, "another hold matches the link");
    hub.release(us().region(), eu().region());
    broadcast(&one, 20..25).await;
    assert_eq!(drain(&mut at_other).await, range(0..25));
    assert_eq!(hub.stats().held, 0);
}

#[tokio::test(start_paused = true)]
async fn an_isolated_region_hears_itself_alone() {
    let hub = Hub::new();
    let (one, two) = (hub.join(us()), hub.join(node("us-east", "b")));
    let other = hub.join(eu());
    let mut at_two = two.subscribe().await.unwrap();
    let mut at_other = other.subscribe().await.unwrap();
    hub.isolate(us().region());
    broadcast(&one, 0..3).await;
    broadcast(&other, 10..13).await;
    assert_eq!(drain(&mut at_two).await, range(0..3));
    assert_eq!(drain(&mut at_other).await, NOTHING);
    hub.readmit(us().region());
    broadcast(&one, 3..6).await;
    assert_eq!((drain(&mut at_two).await, drain(&mut at_other).await), (range(3..6), range(3..6)));
    hub.isolate(us());
    broadcast(&one, 6..9).await;
    broadcast(&two, 9..12).await;
    assert_eq!(drain(&mut at_two).await, NOTHING);
    assert_eq!(drain(&mut at_other).await, range(9..12));
}

#[tokio::test(start_paused = true)]
async fn healing_ends_every_fault_and_delivers_what_was_held() {
    let hub = Hub::new();
    let (one, other) = (hub.join(us()), hub.join(eu()));
    let mut at_other = other.subscribe().await.unwrap();
    hub.hold(us(), eu());
    broadcast(&one, 0..3).await;
    hub.set_faults(Faults::none().drop(1.0));
    hub.set_link_faults(us(), eu(), Faults::none().drop(1.0));
    hub.cut_both(us(), eu());
    hub.isolate(us());
    hub.disconnect(&us());
    hub.heal();
    broadcast(&one, 3..6).await;
    assert_eq!(drain(&mut at_other).await, range(0..6));
    assert_eq!(*one.health().borrow(), Health::Connected);
}

#[tokio::test(start_paused = true)]
async fn a_corrupted_frame_differs_in_one_bit_and_its_copy_does_not() {
    let hub = Hub::seeded(3);
    hub.set_faults(Faults::none().corrupt(1.0).duplicate(1.0));
    let (from, to) = (hub.join(us()), hub.join(eu()));
    let mut subscription = to.subscribe().await.unwrap();
    let mut places = BTreeSet::new();
    for _ in 0..100 {
        from.publish(Destination::Everyone, Bytes::from(vec![0; 100])).await.unwrap();
        let ones = |delivery: &Delivery| delivery.frame.iter().map(|byte| byte.count_ones()).sum::<u32>();
        let (first, copy) = (subscription.next().await.unwrap(), subscription.next().await.unwrap());
        assert_eq!((ones(&first), ones(&copy)), (1, 0));
        places.extend(first.frame.iter().position(|byte| *byte != 0));
        first.ack.done();
        copy.ack.done();
    }
    assert!(places.len() > 40 && places.last() > Some(&90), "all over the frame: {places:?}");
    assert_eq!(hub.stats().corrupted, 100);
    from.publish(Destination::Everyone, Bytes::new()).await.unwrap();
    assert!(subscription.next().await.unwrap().frame.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_link_carries_so_many_bytes_a_second_in_each_direction() {
    let hub = Hub::new();
    let (one, other) = (hub.join(us()), hub.join(eu()));
    let (mut at_one, mut at_other) = (one.subscribe().await.unwrap(), other.subscribe().await.unwrap());
    hub.set_link_faults(us(), eu(), Faults::none().bytes_per_s(1_000).delay(500 * MS..=500 * MS));
    let begun = Instant::now();
    for _ in 0..5 {
        one.publish(Destination::Everyone, Bytes::from(vec![0; 2_000])).await.unwrap();
    }
    broadcast(&other, 0..1).await;
    assert_eq!(number(at_one.next().await.unwrap()), 0);
    assert_eq!(begun.elapsed(), Duration::ZERO, "the other way is not bounded");
    for frame in 1..=5 {
        at_other.next().await.unwrap().ack.done();
        let late = begun.elapsed().saturating_sub(frame * 2_000 * MS + 500 * MS);
        assert!(late < 2 * MS, "{frame}: {:?}", begun.elapsed());
    }
    assert!(begun.elapsed() >= 10_500 * MS);
    assert_eq!(hub.stats().throttled, 4, "the first one waited for none");
}

#[tokio::test(start_paused = true)]
async fn the_way_there_may_take_longer_than_the_way_back() {
    let hub = Hub::new();
    let (one, other) = (hub.join(us()), hub.join(ap()));
    let (mut at_one, mut at_other) = (one.subscribe().await.unwrap(), other.subscribe().await.unwrap());
    hub.set_link_faults(us().region(), ap().region(), Faults::none().delay(150 * MS..=150 * MS));
    hub.set_link_faults(ap().region(), us().region(), Faults::none().delay(30 * MS..=30 * MS));
    let begun = Instant::now();
    broadcast(&one, 0..1).await;
    broadcast(&other, 1..2).await;
    assert_eq!(number(at_one.next().await.unwrap()), 1);
    assert!((30 * MS..32 * MS).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(number(at_other.next().await.unwrap()), 0);
    assert!((150 * MS..152 * MS).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_slow_node_is_handed_frames_at_its_pace_and_the_others_at_once() {
    let hub = Hub::with_limits(0, Limits { inbox_frames: 6, ..Limits::default() });
    let (one, slow, other) = (hub.join(us()), hub.join(eu()), hub.join(ap()));
    let (mut at_slow, mut at_other) = (slow.subscribe().await.unwrap(), other.subscribe().await.unwrap());
    hub.slow(eu().region(), 100 * MS);
    let begun = Instant::now();
    broadcast(&one, 0..1).await;
    assert_eq!(number(at_slow.next().await.unwrap()), 0);
    assert_eq!(begun.elapsed(), Duration::ZERO, "it was idle");
    broadcast(&one, 1..6).await;
    for expected in 1..6 {
        assert_eq!(number(at_slow.next().await.unwrap()), expected);
        assert!(begun.elapsed() >= expected * 100 * MS, "{expected}: {:?}", begun.elapsed());
    }
    assert_eq!(hub.stats().slowed, 5);
    let behind = begun.elapsed();
    for expected in 0..6 {
        assert_eq!(number(at_other.next().await.unwrap()), expected);
    }
    assert_eq!(begun.elapsed(), behind);

    // What it does not take in time overflows its queue, as any.
    broadcast(&one, 10..20).await;
    assert_eq!(hub.stats().overflowed, 4 + 4, "its own and the other's");
    let (next, ()) = tokio::join!(at_slow.next(), async {
        tokio::time::sleep(MS).await;
        hub.hasten(eu().region());
    });
    assert_eq!(number(next.unwrap()), 14);
    assert!(begun.elapsed() < behind + 10 * MS, "a waiting one is woken");
    assert_eq!(drain(&mut at_slow).await, range(15..20));
}
