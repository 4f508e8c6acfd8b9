use tokio::time::Instant;

use super::*;
use crate::client::{BreakerState, Hedge};

#[tokio::test(start_paused = true)]
async fn a_slow_read_is_answered_by_the_second_region_and_the_first_is_cancelled() {
    let two = Two::with(|builder| builder.hedge(Hedge::after(ms(20)))).await;
    for _ in 0..10 {
        assert_eq!(two.served_by().await, "eu-central");
    }
    assert_eq!(two.far.calls(), 0, "none was slow");
    two.near.take(ms(400));
    let (succeeded, begun) = (two.breaker("eu-central").succeeded, Instant::now());
    let served = two.client.item(b"k").await.unwrap();
    assert_eq!((served.region.as_str(), served.asked), ("us-east", 2));
    assert_eq!(begun.elapsed(), ms(20 + 90));
    let breaker = two.breaker("eu-central");
    assert_eq!((breaker.cancelled, breaker.failed, breaker.succeeded), (1, 0, succeeded));
    assert_eq!(breaker.state, BreakerState::Closed);
    assert_eq!((two.status("eu-central").in_flight, two.status("us-east").in_flight), (0, 0));
    assert_eq!((two.stats().hedges, two.stats().hedge_wins), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn where_the_first_answers_first_the_second_is_cancelled() {
    let two = Two::with(|builder| builder.hedge(Hedge::after(ms(20)))).await;
    for _ in 0..10 {
        assert_eq!(two.served_by().await, "eu-central");
    }
    two.near.take(ms(50));
    assert_eq!(two.served_by().await, "eu-central");
    assert_eq!((two.stats().hedges, two.stats().hedge_wins), (1, 0));
    assert_eq!(two.breaker("us-east").cancelled, 1);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_a_tenth_of_the_reads_is_hedged() {
    let two = Two::with(|builder| builder.hedge(Hedge::after(ms(5)))).await;
    two.near.take(ms(10));
    for _ in 0..200 {
        assert_eq!(two.served_by().await, "eu-central");
    }
    let stats = two.stats();
    assert_eq!(two.far.calls(), stats.hedges);
    assert!((15..=20).contains(&stats.hedges), "{stats:?}");
    assert_eq!(stats.hedges + stats.hedges_refused, 200);
}

#[tokio::test(start_paused = true)]
async fn the_delay_follows_the_regions_own_percentile() {
    let two = Two::with(|builder| builder.hedge(Hedge::at_p95(2.0))).await;
    for _ in 0..40 {
        assert_eq!(two.served_by().await, "eu-central");
    }
    assert_eq!(region(&two.client, "eu-central").latencies.p95(), Some(ms(2)));
    two.near.take(ms(450));
    let begun = Instant::now();
    assert_eq!(two.served_by().await, "us-east");
    assert_eq!(begun.elapsed(), ms(4 + 90));
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_fails_leaves_the_first_its_time_and_one_that_outlives_the_first_counts() {
    let two = Two::with(|builder| builder.hedge(Hedge::after(ms(20))).failures(1_000)).await;
    for _ in 0..20 {
        assert_eq!(two.served_by().await, "eu-central");
    }
    two.near.take(ms(200));
    two.far.be(Mode::Dead);
    let served = two.client.item(b"k").await.unwrap();
    assert_eq!((served.region.as_str(), served.asked), ("eu-central", 2));
    assert_eq!(two.breaker("us-east").failed, 1);
    two.far.be(Mode::Well);
    two.near.be(Mode::Refuses);
    two.near.take(ms(60));
    let served = two.client.item(b"k").await.unwrap();
    assert_eq!((served.region.as_str(), served.asked), ("us-east", 2));
    two.far.be(Mode::Dead);
    two.near.take(ms(30));
    let calls = two.far.calls();
    unavailable(two.client.item(b"k").await.unwrap_err());
    assert!(two.far.calls() <= calls + 1, "each region is asked once");
}

#[tokio::test(start_paused = true)]
async fn what_the_second_region_does_not_take_the_first_may() {
    let two = Two::with(|builder| builder.hedge(Hedge::after(ms(20)))).await;
    for _ in 0..20 {
        assert_eq!(two.served_by().await, "eu-central");
    }
    two.near.take(ms(200));
    two.far.be(Mode::Rejects);
    let served = two.client.item(b"k").await.unwrap();
    assert_eq!((served.region.as_str(), served.asked), ("eu-central", 2));
    two.near.be(Mode::Refuses);
    let (failures, ..) = unavailable(two.client.item(b"k").await.unwrap_err());
    assert_eq!(failures.len(), 2, "{failures:?}");
    assert!(failures[0].1.contains("too large"), "{failures:?}");
}

/// A region that hangs puts the others in doubt, which do not hear it: its reads hung with it.
#[tokio::test(start_paused = true)]
async fn a_region_in_doubt_is_asked_where_no_other_is_left_but_not_a_warming_one() {
    for (doubt, fresh, by) in [
        (Doubt::CutOff, false, "us-east"),
        (Doubt::CutOff, true, "eu-central"),
        (Doubt::Warming, false, "eu-central"),
    ] {
        let two = Two::with(|builder| builder.hedge(Hedge::after(ms(20))).require_fresh(fresh)).await;
        two.far.doubt(Some(doubt));
        tokio::time::sleep(ROUND).await;
        for _ in 0..10 {
            assert_eq!(two.served_by().await, "eu-central");
        }
        two.near.take(ms(400));
        let served = two.client.item(b"k").await.unwrap();
        assert_eq!(served.region.as_str(), by, "{doubt}, fresh: {fresh}");
        assert_eq!(served.may_be_stale(), by == "us-east", "{doubt}, fresh: {fresh}");
    }
}

#[tokio::test(start_paused = true)]
async fn writes_are_never_hedged() {
    let two = Two::with(|builder| builder.hedge(Hedge::after(ms(5)))).await;
    two.near.take(ms(50));
    for _ in 0..20 {
        two.client.write(b"new", put("x"), Expect::Any).await.unwrap();
    }
    assert_eq!((two.far.calls(), two.stats().hedges), (0, 0));
}
