//! The end of a node, whatever its transport does.

use super::{super::task::CLOSE_WAIT, *};

const SECOND: Duration = Duration::from_secs(1);

/// Writes on a node whose transport does this, then closes it with two seconds to go; what is said, and after how long.
async fn closed_on(transport: Scripted, writes: &[&str]) -> (Closed, Duration) {
    let transport = Arc::new(transport);
    let here = run("us-east", Arc::clone(&transport) as Arc<dyn Transport>, |_| ()).await;
    let is_up = here.handle.status().borrow().ready;
    assert!(is_up);
    for key in writes {
        here.put(key);
    }
    let asked = Instant::now();
    let closed = here.handle.close(2 * SECOND).await;
    (closed, asked.elapsed())
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_well_node_waits_for_its_confirmations_only() {
    let slow = Scripted::new(|_, _| Fate::After(SECOND / 2, Ok(())));
    let (closed, took) = closed_on(slow, &["a", "b"]).await;
    assert_eq!(closed, Closed::default());
    assert!(took < SECOND, "{took:?}");
}

/// With confirmations slower than the heartbeats, one of these was always on its way, and each end took its whole time.
#[tokio::test(start_paused = true)]
async fn heartbeats_do_not_hold_up_the_end() {
    let transport = Arc::new(Scripted::new(|_, frame| match keys(frame).is_empty() {
        true => Fate::Never,
        false => Fate::Now(Ok(())),
    }));
    let here = run("us-east", Arc::clone(&transport) as Arc<dyn Transport>, |_| ()).await;
    here.put("a");
    here.until("accepted", |_, _| transport.accepted() == ["a"]).await;
    let asked = Instant::now();
    assert_eq!(here.handle.close(3_600 * SECOND).await, Closed::default());
    assert!(asked.elapsed() < SECOND, "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_stalled_transport_ends_at_the_deadline_with_what_stayed() {
    let transport = Arc::new(Scripted::new(|number, _| match number {
        0 => Fate::Now(Ok(())),
        _ => Fate::Never,
    }));
    let here = run_scripted(&transport).await;
    for n in 0..6 {
        here.put(&n.to_string());
        tokio::time::sleep(SECOND / 10).await;
    }
    assert_eq!(transport.given(), ["0", "1", "2", "3"], "no more than the window");
    let asked = Instant::now();
    let closed = here.handle.close(2 * SECOND).await;
    assert_eq!(closed, Closed { unsent_records: 2, unconfirmed_frames: 4 });
    assert!(asked.elapsed() < 2 * SECOND + SECOND / 10, "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn frames_that_wait_to_go_again_are_told_of_at_the_end() {
    let fails = Scripted::new(|_, frame| match keys(frame).is_empty() {
        true => Fate::Now(Ok(())),
        false => Fate::Now(unavailable()),
    });
    let (closed, took) = closed_on(fails, &["a"]).await;
    assert_eq!(closed, Closed { unsent_records: 0, unconfirmed_frames: 1 });
    assert!(took < 2 * SECOND + SECOND / 10, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn errors_in_turn_are_outlasted_before_the_end() {
    let turns = Scripted::new(|number, _| Fate::Now(if number % 2 == 0 { unavailable() } else { Ok(()) }));
    let (closed, _) = closed_on(turns, &["a", "b", "c"]).await;
    assert_eq!(closed, Closed::default());
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_connection_ends_at_the_deadline_with_what_it_holds() {
    let transport = Scripted::new(|_, _| Fate::Now(Ok(())));
    transport.connect(false);
    let (closed, took) = closed_on(transport, &["a", "b"]).await;
    assert_eq!(closed, Closed { unsent_records: 2, unconfirmed_frames: 0 });
    assert!(took < 2 * SECOND + SECOND / 10, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_comes_back_while_ending_is_used() {
    let transport = Arc::new(Scripted::new(|_, _| Fate::Now(Ok(()))));
    transport.connect(false);
    let here = run("us-east", Arc::clone(&transport) as Arc<dyn Transport>, |_| ()).await;
    here.put("a");
    let (closed, ()) = tokio::join!(here.handle.close(10 * SECOND), async {
        tokio::time::sleep(SECOND).await;
        transport.connect(true);
    });
    assert_eq!(closed, Closed::default());
    assert_eq!(transport.accepted(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_keeps_ending_does_not_hold_up_the_end() {
    let transport = Scripted { ends: true, ..Scripted::new(|_, _| Fate::Now(Ok(()))) };
    let (closed, took) = closed_on(transport, &["a"]).await;
    assert_eq!(closed, Closed::default());
    assert!(took < SECOND / 10, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_does_not_close_is_left_after_a_while() {
    let stuck = Scripted { closes: Fate::Never, ..Scripted::new(|_, _| Fate::Now(Ok(()))) };
    let (closed, took) = closed_on(stuck, &["a"]).await;
    assert_eq!(closed, Closed::default());
    assert!((CLOSE_WAIT..CLOSE_WAIT + SECOND / 10).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_closes_with_an_error_does_not_hold_up_the_end() {
    let fails = Scripted { closes: Fate::Now(unavailable()), ..Scripted::new(|_, _| Fate::Now(Ok(()))) };
    let (closed, took) = closed_on(fails, &["a"]).await;
    assert_eq!(closed, Closed::default());
    assert!(took < SECOND / 10, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_at_the_end_is_told_what_is_true_then() {
    let transport = Arc::new(Scripted::new(|number, _| match number {
        0 | 1 => Fate::Now(Ok(())),
        _ => Fate::Never,
    }));
    let here = run_scripted(&transport).await;
    let client = here.handle.client();
    let left = here.put("a");
    here.until("accepted", |_, _| transport.accepted() == ["a"]).await;
    let stays = here.put("b");
    let long = 3_600 * SECOND;
    let foreign = unheard();
    let (asks, asker) = (client.clone(), client.clone());
    let waiting = tokio::spawn(async move {
        tokio::join!(
            asks.receipt(left, WriteConcern::Regions(2), long),
            asks.receipt(stays, WriteConcern::Published, long),
            asks.at_least(foreign, long),
        )
    });
    here.until("they wait", |_, _| transport.given().len() == 2).await;
    here.handle.close(SECOND).await;
    let (published, unpublished, session) = waiting.await.unwrap();
    assert_eq!((published.reached, published.published), (false, true));
    assert_eq!((unpublished.reached, unpublished.published), (false, false));
    assert_eq!(published.have, [node("us-east").region().clone()].into());
    assert_eq!(session, Err(SessionError::Stale { lag: None }));

    let after = asker.receipt(left, WriteConcern::All, long).await;
    assert!(after.reached && !after.published, "alone, and nobody is left who knows more: {after:?}");
    assert_eq!(asker.at_least(left, long).await, Err(SessionError::Ended));
    assert_eq!(asker.fetch(vec!["k".into()], Hlc(0), long).await, Err(FetchError::Ended));
}
