//! What goes wrong between two steps: the lead changes under a change, an answer is lost, a source is itself behind, a caller goes away.

use std::{collections::HashSet, time::Duration};

use resilience::FailoverState;
use tokio::time::{sleep, timeout};

use super::{
    SECOND, Trio, all, builder,
    fake::{Fake, Fault},
};
use crate::{
    Expect, Write,
    client::{ClientError, GeoClient},
    store::Outcome,
};

const TENTH: Duration = Duration::from_millis(100);

fn text(bytes: &'static str) -> Write {
    Write { bytes: bytes.into(), ..Write::default() }
}

#[tokio::test(start_paused = true)]
async fn a_write_under_which_the_lead_changed_is_at_the_new_leader_before_it_is_answered() {
    let trio = Trio::new().await;
    trio.put("k", "1").await;
    trio.fallback.slow(4 * TENTH);
    let client = trio.client.clone();
    let write = tokio::spawn(async move { client.put("k", "2").await.unwrap() });
    sleep(TENTH).await;
    // Main has taken it, and the copy is on its way, where it is lost.
    assert_eq!(trio.main.held("k").as_deref(), Some("2"));
    trio.mirror.fail_over("for a test").unwrap();
    sleep(TENTH).await;
    trio.fallback.fault(Fault::Dead);
    sleep(3 * TENTH).await;
    trio.fallback.fault(Fault::None);
    let served = write.await.unwrap();
    assert_eq!(
        (served.region.as_str(), trio.fallback.held("k").as_deref()),
        ("eu-central", Some("2")),
        "it was answered by the one that leads, which has it"
    );
    assert_eq!(trio.mirror.status().rewritten, 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_under_way_when_main_began_its_probation_is_at_main_before_it_leads() {
    let trio = Trio::new().await;
    // The backup's copies take long, so that each change lives through a change of the state.
    trio.backup.slow(4 * TENTH);
    trio.mirror.fail_over("for a test").unwrap();
    let mut writes = Vec::new();
    let mut number = 0;
    while trio.state() != FailoverState::Probation {
        let (client, key) = (trio.client.clone(), format!("k{number}"));
        writes.push(tokio::spawn(async move { client.put(key, "v").await.unwrap() }));
        number += 1;
        sleep(TENTH).await;
    }
    for write in writes {
        write.await.unwrap();
    }
    assert_eq!(trio.mirror.status().places[0].missed, 0, "{}", trio.mirror.status());
    assert!(number > 10 && trio.mirror.status().rewritten > 0, "{}", trio.mirror.status().rewritten);
    trio.until_alike().await;
    for key in 0..number {
        assert_eq!(trio.held(&format!("k{key}")), all("v"), "k{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_whose_answer_is_lost_is_made_once_at_most() {
    let trio = Trio::new().await;
    trio.put("n", "1").await;
    trio.main.mute_once();
    let error = trio.client.update("n", |n: Option<String>| n.map(|n| n + "+1")).await.unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { may_be_done: true, .. }), "{error}");
    assert_eq!(trio.held("n"), [Some("1+1".into()), None, None], "no other place keeps the older value");
}

#[tokio::test(start_paused = true)]
async fn a_conditional_change_whose_answer_is_lost_is_not_judged_by_its_own_outcome() {
    let trio = Trio::new().await;
    trio.main.mute_once();
    let error = trio.client.write(b"new", text("v"), Expect::Absent).await.unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { may_be_done: true, .. }), "{error}");
    // One without a condition may be made as often as it takes.
    trio.main.mute_once();
    let outcome = trio.client.write(b"any", text("v"), Expect::Any).await.unwrap();
    assert!(matches!(outcome.value, Outcome::Done { .. }));
    assert_eq!(trio.held("any"), all("v"));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_was_never_sent_is_not_in_doubt() {
    let trio = Trio::new().await;
    trio.put("n", "1").await;
    let before = trio.client.item(b"n").await.unwrap();
    // What it is to be judged by is not answered, so it is not made.
    trio.main.fault(Fault::Stopped);
    let expect = Expect::Cas(before.value.unwrap().cas);
    let write = Write { ttl: crate::TimeToLive::Keep, ..text("2") };
    let outcome = trio.client.write_at(&before.region, b"n", write, expect).await;
    assert!(matches!(outcome.as_ref().unwrap().value, Outcome::Exists), "{outcome:?}");
    assert_eq!(trio.state(), FailoverState::OnFallback);
    assert_eq!(trio.get("n").await.as_deref(), Some("1"), "nothing was changed");
}

#[tokio::test(start_paused = true)]
async fn a_change_given_up_after_the_lead_changed_leaves_no_two_values() {
    let builder = builder().probe_every(10 * SECOND).failover(|failover| failover.down_after(1));
    let trio = Trio::of(builder, ["main", "fallback", "backup"].map(Fake::new)).await;
    trio.put("k", "1").await;
    trio.main.fault(Fault::Stopped);
    trio.fallback.fault(Fault::Dead);
    // Main may do it when it goes on; the fallback, which leads by then, surely did not.
    let error = trio.client.put("k", "2").await.unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { may_be_done: true, .. }), "{error}");
    assert_eq!(trio.state(), FailoverState::OnFallback);
    for fake in [&trio.main, &trio.fallback] {
        fake.fault(Fault::None);
    }
    trio.until_alike().await;
    let values: HashSet<_> = trio.held("k").into_iter().flatten().collect();
    assert!(values.len() <= 1, "{values:?}");
}

#[tokio::test(start_paused = true)]
async fn a_backup_is_not_filled_with_what_the_leader_has_not_been_told_yet() {
    let trio = Trio::of(builder().resync(1, 2), ["main", "fallback", "backup"].map(Fake::new)).await;
    trio.put("a", "old").await;
    trio.until_alike().await;
    trio.fallback.fault(Fault::Dead);
    for key in 0..20 {
        trio.put(&format!("z{key}"), "v").await;
    }
    trio.put("new", "v").await;
    trio.put("a", "new").await;
    // Whoever leads now is still being told; whoever is filled now would list what it holds by then.
    trio.fallback.fault(Fault::None);
    trio.main.fault(Fault::Dead);
    trio.backup.restart();
    trio.until_state(FailoverState::OnFallback).await;
    assert!(trio.mirror.status().places[1].missed > 5, "{}", trio.mirror.status());
    trio.until("filled", |status| {
        status.places[1..].iter().all(|place| place.missed == 0 && !place.stale && !place.lacking)
    })
    .await;
    trio.fallback.fault(Fault::Dead);
    assert_eq!(trio.get("a").await.as_deref(), Some("new"), "the backup is the last link");
    assert_eq!(trio.get("new").await.as_deref(), Some("v"));
}

#[tokio::test(start_paused = true)]
async fn a_server_is_filled_again_though_nobody_waited_until_it_was_empty() {
    let trio = Trio::new().await;
    trio.put("k", "v").await;
    trio.fallback.slow(TENTH);
    // It is emptied after a tenth of a second, and says so after two.
    let emptied = timeout(TENTH + TENTH / 2, trio.mirror.empty("eu-central")).await;
    assert!(emptied.is_err() && trio.fallback.keys_held() == 0);
    trio.until("filled", |_| trio.fallback.held("k").is_some()).await;
    trio.until_alike().await;
    assert_eq!(trio.held("k"), all("v"));
}

#[tokio::test(start_paused = true)]
async fn a_second_client_follows_the_first_ones_lead_and_reads_nothing_old() {
    let trio = Trio::new().await;
    trio.put("k", "1").await;
    let follower = GeoClient::mirrored()
        .main("us-east", trio.main.clone())
        .fallback("eu-central", trio.fallback.clone())
        .backup("ap-south", trio.backup.clone())
        .codec(crate::Codec::Raw)
        .copies_are_filled(true)
        .failover(|failover| failover.dwell(5 * SECOND).probation(5 * SECOND).up_after(2))
        .build()
        .await
        .unwrap();
    let state = || follower.mirror().unwrap().status().failover.state;
    assert_eq!(state(), FailoverState::OnMain);
    trio.mirror.fail_over("for a test").unwrap();
    let follows = async {
        while state() != FailoverState::OnFallback {
            sleep(TENTH).await;
        }
    };
    timeout(5 * SECOND, follows).await.expect("it is written down, and read with the next probe");
    trio.put("k", "2").await;
    let both_back = async {
        while state() != FailoverState::OnMain || trio.state() != FailoverState::OnMain {
            assert_eq!(follower.get::<String>("k").await.unwrap().as_deref(), Some("2"));
            assert_eq!(trio.get("k").await.as_deref(), Some("2"));
            sleep(TENTH).await;
        }
    };
    timeout(120 * SECOND, both_back).await.expect("both go back");
    assert_eq!(trio.held("k"), all("2"));
}

#[tokio::test(start_paused = true)]
async fn a_close_that_was_cancelled_can_be_made_again() {
    let trio = Trio::of(builder().resync(1, 1), ["main", "fallback", "backup"].map(Fake::new)).await;
    trio.until_alike().await;
    trio.backup.fault(Fault::Dead);
    for key in 0..10 {
        trio.put(&format!("k{key}"), "v").await;
    }
    trio.backup.fault(Fault::None);
    trio.until("up", |status| status.places[2].up).await;
    assert!(timeout(TENTH, trio.client.close(60 * SECOND)).await.is_err());
    assert!(trio.backup.keys_held() < 10);
    trio.client.close(60 * SECOND).await;
    assert_eq!(trio.backup.keys_held(), 10);
    assert!(matches!(trio.client.clear().await, Err(ClientError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_does_not_say_what_it_holds_costs_no_value_elsewhere() {
    let trio = Trio::of(builder().resync(1, 1), ["main", "fallback", "backup"].map(Fake::new)).await;
    for key in 0..30 {
        trio.put(&format!("k{key:02}"), "v").await;
    }
    trio.until_alike().await;
    trio.fallback.restart();
    trio.until("seen to be empty", |status| status.places[1].lacking).await;
    trio.main.fault(Fault::Dead);
    trio.until_state(FailoverState::OnFallback).await;
    // The leader lacks most keys: a condition is judged after it was asked, and told what others hold.
    trio.fallback.fault(Fault::Stopped);
    let error = trio.client.write(b"k29", text("w"), Expect::Absent).await.unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { may_be_done: false, .. }), "{error}");
    assert_eq!(trio.backup.held("k29").as_deref(), Some("v"));
}
