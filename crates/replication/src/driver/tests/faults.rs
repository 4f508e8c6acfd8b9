//! Transports that stall, answer late, refuse in turn, flap, or end.

use super::*;
use crate::memory::{Faults, Place, PublishFaults};

const SECOND: Duration = Duration::from_secs(1);

/// The keys `k0`, `k1`, …, each put so that it leaves in a frame of its own.
async fn put_singly(here: &Running, transport: &Scripted, count: usize) -> Vec<String> {
    let keys: Vec<String> = (0..count).map(|n| format!("k{n}")).collect();
    for key in &keys {
        here.put(key);
        here.until("the key left", |_, _| transport.given().contains(key)).await;
    }
    keys
}

fn is_records(frame: &Bytes) -> bool {
    !keys(frame).is_empty()
}

#[tokio::test(start_paused = true)]
async fn a_publish_without_an_answer_is_given_up_and_its_frame_goes_again_in_order() {
    let transport = Arc::new(Scripted::new(|number, _| match number {
        1..=3 => Fate::Never,
        _ => Fate::Now(Ok(())),
    }));
    let here = run_scripted(&transport).await;
    let keys = put_singly(&here, &transport, 3).await;
    let begun = Instant::now();
    here.until("all were accepted", |_, _| transport.accepted().len() == 3).await;
    assert!(begun.elapsed() > 29 * SECOND && begun.elapsed() < 31 * SECOND, "{:?}", begun.elapsed());
    assert_eq!(transport.given(), [keys.clone(), keys.clone()].concat());
    assert_eq!(transport.accepted(), keys);
    here.until("counted", |_, status| status.counters.publishes_retried == 3).await;
}

/// A late confirmation of a frame that had been published again would have confirmed it twice.
#[tokio::test(start_paused = true)]
async fn an_answer_after_the_frame_went_again_is_not_heard() {
    let transport = Arc::new(Scripted::new(|number, _| match number {
        1..=2 => Fate::After(31 * SECOND, refused()),
        _ => Fate::Now(Ok(())),
    }));
    let here = run_scripted(&transport).await;
    let keys = put_singly(&here, &transport, 2).await;
    here.until("all were accepted", |_, _| transport.accepted().len() == 2).await;
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(transport.accepted(), keys);
    let counters = here.handle.status().borrow().counters;
    assert_eq!((counters.publishes_retried, counters.publishes_refused), (2, 0));
    assert_eq!(here.handle.close(SECOND).await, Closed::default());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_slow_but_in_time_counts_once() {
    let transport = Arc::new(Scripted::new(|_, _| Fate::After(29 * SECOND, Ok(()))));
    let here = run_scripted(&transport).await;
    here.put("a");
    here.until("accepted", |_, _| transport.accepted() == ["a"]).await;
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(transport.given(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn errors_in_turn_lose_nothing_and_send_nothing_twice() {
    let transport = Arc::new(Scripted::new(|number, _| match number % 2 {
        0 => Fate::Now(Ok(())),
        _ => Fate::Now(unavailable()),
    }));
    let here = run_scripted(&transport).await;
    let mut keys = Vec::new();
    for n in 0..50 {
        keys.push(format!("k{n:02}"));
        here.put(&keys[n]);
        if n % 3 == 0 {
            tokio::time::sleep(SECOND / 30).await;
        }
    }
    here.until("all were accepted", |_, _| transport.accepted().len() >= keys.len()).await;
    let mut accepted = transport.accepted();
    accepted.sort_unstable();
    assert_eq!(accepted, keys);
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_never_takes_a_frame_is_asked_at_a_steady_pace_and_the_rest_waits_in_the_outbox() {
    let transport =
        Arc::new(Scripted::new(
            |_, frame| {
                if is_records(frame) { Fate::Now(unavailable()) } else { Fate::Now(Ok(())) }
            },
        ));
    let here = run_scripted(&transport).await;
    for n in 0..1_000 {
        here.put(&format!("k{}", n % 10));
        tokio::time::sleep(SECOND / 100).await;
    }
    let publishes = transport.publishes.load(Ordering::Relaxed);
    // Ten seconds of pauses of 50 ms, at most the window after each.
    assert!((100..=4 * 200 + 10).contains(&publishes), "{publishes}");
    assert!(here.outbox.stats().records <= 10);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_was_not_taken_is_not_published_again() {
    let transport =
        Arc::new(Scripted::new(
            |_, frame| {
                if is_records(frame) { Fate::Now(Ok(())) } else { Fate::Now(unavailable()) }
            },
        ));
    let here = run("us-east", Arc::clone(&transport) as Arc<dyn Transport>, |_| ()).await;
    here.until("some beats were dropped", |_, status| status.counters.beats_dropped == 10).await;
    assert_eq!(here.handle.status().borrow().counters.publishes_retried, 0);
    here.put("a");
    here.until("a record passes", |_, _| transport.accepted() == ["a"]).await;
    assert_eq!(here.handle.close(SECOND).await, Closed::default());
}

#[tokio::test(start_paused = true)]
async fn health_that_flaps_loses_no_write() {
    let up = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_up = Arc::clone(&up);
    let transport = Arc::new(Scripted::new(move |_, _| {
        // The connection may go down while a frame is on its way.
        Fate::After(
            Duration::from_millis(3),
            if is_up.load(Ordering::Relaxed) { Ok(()) } else { unavailable() },
        )
    }));
    let here = run("us-east", Arc::clone(&transport) as Arc<dyn Transport>, |_| ()).await;
    let mut keys = Vec::new();
    for n in 0..200 {
        let is_up = n % 2 == 1;
        up.store(is_up, Ordering::Relaxed);
        transport.connect(is_up);
        keys.push(format!("k{n:03}"));
        here.put(&keys[n]);
        tokio::time::sleep(Duration::from_millis(5 + n as u64 % 7)).await;
    }
    here.until("all were accepted", |_, _| transport.accepted().len() >= keys.len()).await;
    let mut accepted = transport.accepted();
    accepted.sort_unstable();
    assert_eq!(accepted, keys);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_ends_again_and_again_is_opened_ever_more_slowly_and_holds_up_nothing() {
    let transport = Arc::new(Scripted { ends: true, ..Scripted::new(|_, _| Fate::Now(Ok(()))) });
    let here = run("us-east", Arc::clone(&transport) as Arc<dyn Transport>, |_| ()).await;
    tokio::time::sleep(600 * SECOND).await;
    let opened = transport.opened.load(Ordering::Relaxed);
    // Waits of half of five seconds in the mean.
    assert!((120..480).contains(&opened), "{opened}");
    here.put("a");
    here.until("accepted", |_, _| transport.accepted() == ["a"]).await;
}

/// A node whose transport somebody else had closed went on without a word to anybody.
#[tokio::test(start_paused = true)]
async fn a_transport_that_somebody_else_closes_stops_the_node_with_the_reason() {
    let hub = Hub::new();
    let here = run("us-east", hub.join(node("us-east")), |_| ()).await;
    here.put("a");
    let _usurper = hub.join(node("us-east"));
    let is_closed = |failure: &Failure| failure.to_string().contains("transport was closed");
    here.until("failed", |_, status| status.failure.as_ref().is_some_and(is_closed)).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_to_stop_publishes_nothing_again() {
    let transport = Arc::new(Scripted::new(|number, _| match number {
        0 => Fate::Now(Ok(())),
        1 => Fate::Now(unavailable()),
        _ => Fate::Now(Err(TransportError::Fatal { reason: "no permission".into() })),
    }));
    let here = run_scripted(&transport).await;
    let first = here.put("a");
    here.until("failed", |_, status| status.failure.is_some()).await;
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(transport.given(), ["a", "a"]);
    let receipt = here.handle.client().receipt(first, WriteConcern::Published, 3_600 * SECOND).await;
    assert!(!receipt.published && !receipt.reached);
}

/// Writes `keys` here and waits until they are there; what the other node counted then.
async fn carried(here: &Running, there: &Running, keys: &[String]) -> crate::replica::Counters {
    for key in keys {
        here.put(key);
        tokio::time::sleep(SECOND / 20).await;
    }
    there
        .until("all arrived", |there, _| keys.iter().all(|key| there.store.get(key.as_bytes()).is_some()))
        .await;
    tokio::time::sleep(2 * SECOND).await;
    there.handle.status().borrow().counters
}

async fn two(hub: &Hub) -> (Running, Running) {
    let here = run("us-east", hub.join(node("us-east")), |_| ()).await;
    let there = run("ap-south", hub.join(node("ap-south")), |_| ()).await;
    here.until("they met", |_, status| !status.peers.is_empty()).await;
    (here, there)
}

/// The transport was frozen for longer than a publish is waited for: what was given up came late beside what went again.
#[tokio::test(start_paused = true)]
async fn what_thaws_after_it_went_again_is_applied_once() {
    let hub = Hub::new();
    let (here, there) = two(&hub).await;
    hub.freeze(node("us-east"));
    let thaws = async {
        tokio::time::sleep(45 * SECOND).await;
        hub.thaw(node("us-east"));
    };
    let token = here.put("first");
    let client = here.handle.client();
    let (receipt, ()) = tokio::join!(client.receipt(token, WriteConcern::All, 60 * SECOND), thaws);
    assert!(receipt.reached && receipt.published, "{receipt:?}");
    let counters = carried(&here, &there, &["second".to_owned()]).await;
    assert!(here.handle.status().borrow().counters.publishes_retried > 0);
    assert_eq!(counters.records_applied, 2);
    assert!(counters.records_older > 0, "the same again: {counters:?}");
}

#[tokio::test(start_paused = true)]
async fn publishes_that_fail_though_carried_are_applied_once() {
    let hub = Hub::seeded(5);
    let (here, there) = two(&hub).await;
    let denied = unavailable().unwrap_err();
    hub.set_publish_faults(node("us-east"), PublishFaults::none().deny(0.5, denied));
    let keys: Vec<String> = (0..50).map(|n| format!("k{n}")).collect();
    let counters = carried(&here, &there, &keys).await;
    assert_eq!(counters.records_applied, 50);
    assert!(hub.stats().denied > 10);
}

#[tokio::test(start_paused = true)]
async fn refused_frames_are_gaps_that_the_others_close() {
    let hub = Hub::seeded(6);
    let (here, there) = two(&hub).await;
    hub.set_publish_faults(node("us-east"), PublishFaults::none().fail(0.5, refused().unwrap_err()));
    let keys: Vec<String> = (0..50).map(|n| format!("k{n}")).collect();
    let counters = carried(&here, &there, &keys).await;
    assert_eq!(counters.records_applied, 50);
    assert!(counters.pulls_sent > 0 && hub.stats().failed > 10);
}

#[tokio::test(start_paused = true)]
async fn frames_with_a_flipped_bit_are_refused_and_their_records_pulled() {
    let hub = Hub::seeded(7);
    let (here, there) = two(&hub).await;
    hub.set_faults(Faults::none().corrupt(0.3));
    let keys: Vec<String> = (0..50).map(|n| format!("k{n}")).collect();
    let counters = carried(&here, &there, &keys).await;
    assert_eq!(counters.records_applied, 50);
    assert!(counters.frames_undecodable > 5, "{counters:?}");
    // The transport is told of each of them, at both nodes.
    assert!(hub.stats().rejected >= counters.frames_undecodable, "{:?}", hub.stats());
}

#[tokio::test(start_paused = true)]
async fn a_narrow_link_and_a_slow_node_delay_what_they_carry_and_lose_nothing() {
    let hub = Hub::seeded(8);
    let (here, there) = two(&hub).await;
    hub.set_link_faults(node("us-east"), Place::Everywhere, Faults::none().bytes_per_s(2_000));
    hub.slow(node("ap-south"), SECOND / 10);
    let keys: Vec<String> = (0..50).map(|n| format!("k{n}")).collect();
    let counters = carried(&here, &there, &keys).await;
    assert_eq!(counters.records_applied, 50);
    assert!(hub.stats().throttled > 0 && hub.stats().slowed > 0, "{:?}", hub.stats());
}
