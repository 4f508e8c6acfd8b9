use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::client::{BreakerState, RouteEvent};

#[tokio::test(start_paused = true)]
async fn three_failures_open_the_breaker_and_calls_pass_the_region_by_at_once() {
    let two = Two::new().await;
    let mut events = two.client.routes().unwrap().watch();
    two.near.be(Mode::Hangs);
    for _ in 0..3 {
        let begun = Instant::now();
        let served = two.client.item(b"k").await.unwrap();
        assert_eq!((served.region.as_str(), served.asked), ("us-east", 2));
        assert_eq!(begun.elapsed(), ms(500 + 90), "the limit of one region, and the answer of the next");
    }
    assert_eq!(two.status("eu-central").breaker, BreakerState::Open);
    let served = two.client.item(b"k").await.unwrap();
    assert_eq!((served.region.as_str(), served.asked), ("us-east", 1));
    assert_eq!(two.near.calls(), 3);
    assert_eq!(two.stats().fallbacks, 3);
    let region = || "eu-central".parse().unwrap();
    let reason = "no answer within 500ms".to_owned();
    assert_eq!(events.next().await, Ok(Some(RouteEvent::Down { region: region(), reason })));
    assert_eq!(events.next().await, Ok(Some(RouteEvent::First { region: "us-east".parse().unwrap() })));
}

#[tokio::test(start_paused = true)]
async fn a_region_that_is_back_is_used_again_after_probes() {
    let two = Two::new().await;
    two.near.be(Mode::Dead);
    for _ in 0..3 {
        assert_eq!(two.served_by().await, "us-east");
    }
    let mut events = two.client.routes().unwrap().watch();
    // However long it is gone, what it is left alone for does not grow by that.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let before = two.near.calls();
    two.near.be(Mode::Well);
    // Two probes a fifth late at most.
    tokio::time::sleep(ms(12_100)).await;
    assert_eq!(two.status("eu-central").breaker, BreakerState::Closed);
    assert_eq!(two.near.calls(), before, "no call was needed");
    // It is the first choice again once it has been ahead for three rounds.
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(two.served_by().await, "eu-central");
    let region = || "eu-central".parse().unwrap();
    assert_eq!(events.next().await, Ok(Some(RouteEvent::Trying { region: region() })));
    assert_eq!(events.next().await, Ok(Some(RouteEvent::Up { region: region() })));
    assert_eq!(events.next().await, Ok(Some(RouteEvent::First { region: region() })));
}

#[tokio::test(start_paused = true)]
async fn a_region_that_dies_is_out_by_its_probes_before_anyone_calls_it() {
    let two = Two::new().await;
    two.far.be(Mode::Hangs);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let status = two.status("us-east");
    assert_eq!(status.breaker, BreakerState::Open);
    assert_eq!(status.last_error.unwrap().0, "no answer to a probe within 1s");
    assert_eq!((two.far.calls(), status.asked), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_whose_probes_are_answered_and_whose_calls_fail_is_left_alone_longer_each_time() {
    let two = Two::new().await;
    two.near.answer_probes();
    two.near.be(Mode::Refuses);
    let mut opened = Vec::new();
    let begun = Instant::now();
    while opened.len() < 4 {
        assert_eq!(two.served_by().await, "us-east");
        if two.breaker("eu-central").opened as usize > opened.len() {
            opened.push(begun.elapsed());
        }
        tokio::time::sleep(ms(100)).await;
    }
    let waits: Vec<_> = opened.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits[0] < waits[1] && waits[1] < waits[2], "{waits:?}");
    assert!(two.breaker("eu-central").failed <= 12, "three calls each time");
}

#[tokio::test(start_paused = true)]
async fn where_all_are_down_the_error_lists_each_and_why_and_when_to_come_again() {
    let two = Two::new().await;
    two.near.be(Mode::Dead);
    two.far.be(Mode::Hangs);
    let (failures, retry_after, may_be_done) = unavailable(two.client.item(b"k").await.unwrap_err());
    let told = |region: &str, reason: &str| (region.to_owned(), reason.to_owned());
    assert_eq!(
        failures,
        [
            told("eu-central", "eu-central was not reached: connection refused"),
            told("us-east", "no answer within 500ms"),
        ]
    );
    assert_eq!((retry_after, may_be_done), (None, false), "a read changes nothing");
    for _ in 0..3 {
        two.client.item(b"k").await.unwrap_err();
    }
    // Both breakers are open now: one call at a time tries all the same, and not at once again.
    tokio::time::sleep(super::super::last_resort::PAUSE).await;
    let calls = two.near.calls() + two.far.calls();
    let (first, second) = tokio::join!(two.client.item(b"k"), two.client.item(b"k"));
    first.unwrap_err();
    let second = second.unwrap_err();
    assert_eq!(two.near.calls() + two.far.calls(), calls + 1);
    assert_eq!(two.stats().last_resorts, 2);
    let text = second.to_string();
    assert!(
        text.contains("eu-central: ") && text.contains("us-east: ") && text.contains("circuit open"),
        "{text}"
    );
    let (failures, retry_after, may_be_done) = unavailable(second);
    assert_eq!((failures.len(), may_be_done), (2, false));
    assert!(retry_after.unwrap() <= Duration::from_secs(5), "{retry_after:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_back_is_found_by_the_last_resort_before_its_wait_is_over() {
    let two = Two::with(|builder| builder.open_wait(Duration::from_secs(60))).await;
    two.near.be(Mode::Dead);
    two.far.be(Mode::Dead);
    for _ in 0..3 {
        two.client.item(b"k").await.unwrap_err();
    }
    two.near.be(Mode::Well);
    two.far.be(Mode::Well);
    tokio::time::sleep(super::super::last_resort::PAUSE).await;
    let served = two.client.item(b"k").await.unwrap();
    let back = region(&two.client, served.region.as_str());
    assert_eq!(back.breaker.state(), BreakerState::Closed);
    assert_eq!(two.stats().last_resorts, 1);
    assert!(two.client.item(b"k").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn two_regions_that_take_turns_in_failing_are_never_both_missed() {
    let two = Two::with(|builder| builder.fallback_share(1.0)).await;
    for turn in 0..200 {
        let (well, dead) = if turn % 2 == 0 { (&two.near, &two.far) } else { (&two.far, &two.near) };
        well.be(Mode::Well);
        dead.be(Mode::Dead);
        for _ in 0..5 {
            let served = two.client.item(b"k").await;
            assert_eq!(served.unwrap().region.as_str(), well.name, "turn {turn}");
        }
        tokio::time::sleep(ms(700)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_may_have_been_done_is_written_again_at_the_next_region() {
    let two = Two::new().await;
    two.near.be(Mode::LosesAnswers);
    let done = two.client.write(b"new", put("x"), Expect::Any).await.unwrap();
    assert_eq!((done.region.as_str(), done.asked), ("us-east", 2));
    assert!(two.near.holds("new").is_some() && two.far.holds("new").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_conditional_write_that_may_have_been_done_is_not_made_again() {
    for mode in [Mode::LosesAnswers, Mode::Hangs] {
        let two = Two::new().await;
        two.near.be(mode);
        let error = two.client.write(b"new", put("x"), Expect::Absent).await.unwrap_err();
        assert!(error.to_string().contains("us-east: not asked: the change has a condition"), "{error}");
        let (failures, _, may_be_done) = unavailable(error);
        assert!(may_be_done);
        assert_eq!(failures.len(), 2);
        assert_eq!((two.near.calls(), two.far.calls()), (1, 0));
        assert_eq!(two.stats().not_repeated, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_conditional_write_that_was_surely_not_done_goes_to_the_next_region() {
    for mode in [Mode::Dead, Mode::Refuses] {
        let two = Two::new().await;
        two.near.be(mode);
        let done = two.client.write(b"new", put("x"), Expect::Absent).await.unwrap();
        assert_eq!((done.region.as_str(), done.value), ("us-east", Outcome::Done { cas: 1 }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_rests_on_one_region_is_made_there_or_not_at_all() {
    let two = Two::new().await;
    let far = "us-east".parse().unwrap();
    let done = two.client.write_at(&far, b"new", put("x"), Expect::Cas(5)).await.unwrap();
    assert_eq!(done.region, far);
    two.far.be(Mode::Dead);
    let (failures, _, may_be_done) =
        unavailable(two.client.write_at(&far, b"new", put("x"), Expect::Cas(5)).await.unwrap_err());
    assert_eq!((failures.len(), may_be_done), (1, false));
    assert_eq!(two.near.calls(), 0);
    let error = two.client.write(b"new", put("x"), Expect::Cas(5)).await.unwrap_err();
    assert!(matches!(error, ClientError::Unplaced), "{error}");
    let mars = "mars".parse().unwrap();
    assert!(is_unknown(&two.client.remove_at(&mars, b"new", Expect::Cas(5)).await.unwrap_err()));
}

#[tokio::test(start_paused = true)]
async fn an_update_goes_on_elsewhere_when_its_region_dies_in_between() {
    let two = Two::new().await;
    let (client, mut runs) = (two.client.clone(), 0);
    let after = client
        .update::<Vec<u8>, _>("fresh", |before| {
            runs += 1;
            if runs == 1 {
                two.near.be(Mode::Dead);
            }
            assert_eq!(before, None);
            Some(vec![1])
        })
        .await
        .unwrap();
    assert_eq!((runs, after.region.as_str(), after.value), (2, "us-east", Some(vec![1])));
    assert!(two.near.holds("fresh").is_none() && two.far.holds("fresh").is_some());
}

#[tokio::test(start_paused = true)]
async fn what_one_region_does_not_take_is_not_brought_to_the_next_and_counts_against_nobody() {
    let two = Two::new().await;
    two.near.be(Mode::Rejects);
    for _ in 0..5 {
        let error = two.client.write(b"new", put("x"), Expect::Any).await.unwrap_err();
        assert_eq!(error.to_string(), "eu-central: eu-central does not take this: too large");
    }
    assert_eq!(two.far.calls(), 0);
    let breaker = two.breaker("eu-central");
    assert_eq!((breaker.state, breaker.ignored, breaker.failed), (BreakerState::Closed, 5, 0));
}

#[tokio::test(start_paused = true)]
async fn fallbacks_end_at_their_budget_and_passing_by_costs_none() {
    let two =
        Two::with(|builder| builder.fallback_share(0.0).fallbacks_per_second(0.2).failures(1_000)).await;
    two.near.be(Mode::Dead);
    assert_eq!(two.served_by().await, "us-east");
    assert_eq!(two.served_by().await, "us-east");
    let error = two.client.item(b"k").await.unwrap_err();
    assert!(error.to_string().contains("us-east: not asked: the client's budget"), "{error}");
    assert_eq!((two.stats().fallbacks_refused, two.stats().fallbacks), (1, 2));
    // Open, the first region is passed by.
    region(&two.client, "eu-central").breaker.force_open();
    assert_eq!(two.served_by().await, "us-east");
    assert_eq!(two.stats().fallbacks_refused, 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_counts_nowhere_and_gives_its_place_back() {
    let two = Two::with(|builder| builder.in_flight_max(1)).await;
    two.near.be(Mode::Hangs);
    for _ in 0..10 {
        let given_up = tokio::time::timeout(ms(50), two.client.item(b"k")).await;
        assert!(given_up.is_err());
    }
    let breaker = two.breaker("eu-central");
    assert_eq!((breaker.failed, breaker.cancelled, breaker.state), (0, 10, BreakerState::Closed));
    assert_eq!((two.status("eu-central").in_flight, two.status("eu-central").failed), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_closed_client_refuses_calls_and_waits_for_those_under_way() {
    let two = Two::new().await;
    two.near.take(ms(300));
    let client = two.client.clone();
    let call = tokio::spawn(async move { client.item(b"k").await });
    tokio::task::yield_now().await;
    let begun = Instant::now();
    two.client.close(Duration::from_secs(5)).await;
    assert_eq!(begun.elapsed(), ms(300));
    assert!(call.await.unwrap().is_ok());
    assert!(matches!(two.client.item(b"k").await, Err(ClientError::Closed)));
    let probes = two.near.probes.load(SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(two.near.probes.load(SeqCst), probes, "nobody is probed any more");
}
