//! One story per test.

use std::time::Duration;

use resilience::FailoverState;
use tokio::time::{Instant, sleep};

use super::{
    SECOND, Trio, all, builder,
    fake::{Fake, Fault},
};
use crate::{
    Expect, GeoCache, Write,
    client::{ClientError, Doubt, GeoClient, MirrorEvent},
    store::Outcome,
};

#[tokio::test(start_paused = true)]
async fn a_write_is_at_every_server_before_it_is_answered() {
    let trio = Trio::new().await;
    trio.put("k", "v").await;
    assert_eq!(trio.held("k"), all("v"));
    assert!(trio.client.remove("k").await.unwrap());
    assert_eq!(trio.held("k"), [None, None, None]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_main_is_left_at_once_and_the_write_goes_to_the_fallback() {
    let trio = Trio::new().await;
    trio.put("kept", "old").await;
    trio.main.fault(Fault::Dead);
    trio.put("k", "v").await;
    assert_eq!(trio.state(), FailoverState::OnFallback);
    let served = trio.client.get_served::<String>("kept").await.unwrap();
    assert_eq!(
        (served.value.as_deref(), served.region.as_str(), served.doubt),
        (Some("old"), "eu-central", None)
    );
}

#[tokio::test(start_paused = true)]
async fn main_comes_back_with_old_content_and_the_value_it_missed_is_never_read() {
    for fault in [Fault::Dead, Fault::Stopped] {
        let trio = Trio::new().await;
        trio.put("changed", "1").await;
        trio.put("removed", "1").await;
        trio.main.fault(fault);
        trio.put("changed", "2").await;
        trio.client.remove("removed").await.unwrap();
        trio.put("new", "2").await;
        trio.main.fault(Fault::None);
        let mut states = vec![trio.state()];
        while trio.state() != FailoverState::OnMain {
            assert_eq!(trio.get("changed").await.as_deref(), Some("2"));
            assert_eq!(trio.get("removed").await, None);
            if states.last() != Some(&trio.state()) {
                states.push(trio.state());
            }
            sleep(SECOND / 10).await;
        }
        assert!(states.contains(&FailoverState::Probation), "{states:?}");
        assert_eq!((trio.held("changed"), trio.held("new")), (all("2"), all("2")), "{fault:?}");
        assert_eq!(trio.held("removed"), [None, None, None]);
    }
}

#[tokio::test(start_paused = true)]
async fn main_restarts_empty_and_is_filled_before_it_leads_again() {
    let trio = Trio::new().await;
    for key in 0..100 {
        trio.put(&format!("k{key}"), "v").await;
    }
    // Its probe has seen it before.
    sleep(2 * SECOND).await;
    trio.main.restart();
    trio.until_state(FailoverState::OnFallback).await;
    assert_eq!(trio.get("k7").await.as_deref(), Some("v"));
    trio.until_state(FailoverState::OnMain).await;
    assert_eq!(trio.main.keys_held(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_list_its_keys_is_copied_by_the_record_of_what_was_written() {
    let fakes = ["main", "fallback", "backup"].map(|name| Fake::new(name).not_listing());
    let trio = Trio::of(builder(), fakes).await;
    for key in 0..50 {
        trio.put(&format!("k{key}"), "v").await;
    }
    sleep(2 * SECOND).await;
    trio.main.restart();
    trio.until_state(FailoverState::OnFallback).await;
    trio.until_state(FailoverState::OnMain).await;
    assert_eq!(trio.main.keys_held(), 50);
}

#[tokio::test(start_paused = true)]
async fn a_full_copy_empties_a_server_that_cannot_list_what_it_holds() {
    let fakes = ["main", "fallback", "backup"].map(|name| Fake::new(name).not_listing());
    fakes[0].plant("known", "by main");
    fakes[1].plant("old", "nobody knows how old");
    let trio = Trio::of(builder(), fakes).await;
    trio.put("k", "v").await;
    assert!(trio.mirror.fail_over("for a test").is_err(), "its values may be old");
    trio.until_alike().await;
    assert_eq!((trio.fallback.held("old"), trio.fallback.held("k")), (None, Some("v".into())));
    trio.mirror.fail_over("for a test").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_fallback_of_unknown_age_is_refilled_from_main_before_it_may_lead() {
    let fakes = ["main", "fallback", "backup"].map(Fake::new);
    fakes[0].plant("k", "new");
    fakes[1].plant("k", "old");
    fakes[1].plant("gone", "old");
    fakes[2].plant("gone", "old");
    let trio = Trio::of(builder(), fakes).await;
    assert!(trio.mirror.status().places[1].stale);
    trio.until_alike().await;
    assert_eq!((trio.held("k"), trio.held("gone")), (all("new"), [None, None, None]));
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_was_down_is_told_what_it_missed_and_slows_no_write_meanwhile() {
    let trio = Trio::new().await;
    trio.put("k", "1").await;
    trio.backup.fault(Fault::Stopped);
    for _ in 0..3 {
        trio.put("k", "2").await;
    }
    let begun = Instant::now();
    for value in 0..100 {
        trio.put("k", &value.to_string()).await;
    }
    assert!(begun.elapsed() < SECOND, "its breaker is open, so nobody waits for it");
    assert_eq!(trio.mirror.status().places[2].missed, 1);
    trio.backup.fault(Fault::None);
    trio.until_alike().await;
    assert_eq!(trio.held("k"), all("99"));
}

#[tokio::test(start_paused = true)]
async fn the_backup_answers_when_both_sides_do_not_but_for_what_it_missed() {
    let trio = Trio::new().await;
    trio.put("k", "v").await;
    trio.put("missed", "1").await;
    trio.backup.fault(Fault::Dead);
    trio.put("missed", "2").await;
    trio.main.fault(Fault::Dead);
    trio.fallback.fault(Fault::Dead);
    trio.backup.fault(Fault::None);
    let served = trio.client.get_served::<String>("k").await.unwrap();
    assert_eq!(
        (served.value.as_deref(), served.region.as_str(), served.doubt),
        (Some("v"), "ap-south", Some(Doubt::Copy))
    );
    assert_eq!(trio.get("missed").await.as_deref(), Some("2"), "from what the journal keeps for it");
    let error = trio.client.put("k", "w").await.unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { may_be_done: false, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_restarted_and_has_to_lead_is_filled_from_the_backup_and_reads_go_through_meanwhile()
{
    let fakes = ["main", "fallback", "backup"].map(Fake::new);
    // Slow filling, so that there is a meanwhile.
    let trio = Trio::of(builder().resync(1, 1), fakes).await;
    for key in 0..30 {
        trio.put(&format!("k{key:02}"), "v").await;
    }
    trio.until_alike().await;
    trio.fallback.restart();
    trio.main.fault(Fault::Dead);
    trio.until_state(FailoverState::OnFallback).await;
    let served = trio.client.get_served::<String>("k29").await.unwrap();
    assert_eq!((served.value.as_deref(), served.region.as_str()), (Some("v"), "ap-south"));
    trio.until("filled", |status| !status.places[1].lacking).await;
    assert_eq!(trio.fallback.keys_held(), 30);
    let status = trio.mirror.status();
    assert!(status.read_through >= 1 && status.filled >= 30, "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_overflows_is_made_good_by_a_copy_of_everything() {
    let fakes = ["main", "fallback", "backup"].map(Fake::new);
    let trio = Trio::of(builder().journal(10, 1 << 20), fakes).await;
    for key in 0..40 {
        trio.put(&format!("k{key}"), "1").await;
    }
    let mut events = trio.mirror.watch();
    for fake in [&trio.main, &trio.backup] {
        fake.fault(Fault::Dead);
    }
    for key in 0..20 {
        trio.put(&format!("k{key}"), "2").await;
    }
    trio.client.remove("k30").await.unwrap();
    assert!(trio.mirror.status().places.iter().filter(|place| place.stale).count() == 2);
    for fake in [&trio.main, &trio.backup] {
        fake.fault(Fault::None);
    }
    trio.until_alike().await;
    assert_eq!(
        (trio.held("k3"), trio.held("k25"), trio.held("k30")),
        (all("2"), all("1"), [None, None, None])
    );
    let mut told = Vec::new();
    while let Ok(Ok(Some(event))) = tokio::time::timeout(SECOND, events.next()).await {
        told.push(event);
    }
    let overflows =
        told.iter().filter(|event| matches!(event, MirrorEvent::JournalOverflowed { .. })).count();
    assert!(overflows >= 2, "{told:?}");
    for wanted in ["FailedOver", "Resyncing", "Resynced", "Probation", "FailedBack"] {
        assert!(told.iter().any(|event| format!("{event:?}").starts_with(wanted)), "{wanted}: {told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn copies_end_when_the_original_does() {
    let trio = Trio::new().await;
    trio.client.put_with_ttl("k", "v", 10 * SECOND).await.unwrap();
    trio.backup.fault(Fault::Dead);
    trio.client.put_with_ttl("k", "w", 10 * SECOND).await.unwrap();
    sleep(4 * SECOND).await;
    trio.backup.fault(Fault::None);
    trio.until("told", |status| status.places[2].missed == 0).await;
    let (main, backup) = (trio.main.left("k").unwrap(), trio.backup.left("k").unwrap());
    assert!(backup <= main && main <= 6 * SECOND, "{main:?} {backup:?}");
    assert!(trio.client.touch("k", 100 * SECOND).await.unwrap());
    assert!(trio.backup.left("k").unwrap() > 90 * SECOND && trio.fallback.left("k").unwrap() > 90 * SECOND);
    trio.client.update("k", |value: Option<String>| value.map(|value| value + "!")).await.unwrap();
    assert_eq!(trio.held("k"), all("w!"));
    assert!(trio.backup.left("k").unwrap() > 90 * SECOND, "an update keeps the life");
}

#[tokio::test(start_paused = true)]
async fn updates_lose_nothing_while_the_lead_changes() {
    let fakes = ["main", "fallback", "backup"].map(|name| Fake::new(name).delayed(20, 7));
    let trio = std::sync::Arc::new(Trio::of(builder(), fakes).await);
    trio.put("n", "0").await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let trio = std::sync::Arc::clone(&trio);
            tokio::spawn(async move {
                for _ in 0..10 {
                    let more = |n: Option<String>| n.map(|n| (n.parse::<u32>().unwrap() + 1).to_string());
                    while let Err(error) = trio.client.update("n", more).await {
                        assert!(matches!(error, ClientError::Contended { .. }), "{error}");
                    }
                }
            })
        })
        .collect();
    sleep(SECOND / 2).await;
    trio.mirror.fail_over("for a test").unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(trio.get("n").await.as_deref(), Some("80"));
    trio.until_alike().await;
    assert_eq!(trio.held("n"), all("80"));
}

#[tokio::test(start_paused = true)]
async fn a_number_of_one_server_never_matches_at_another() {
    let trio = Trio::new().await;
    trio.put("k", "1").await;
    let seen = trio.client.item(b"k").await.unwrap();
    let cas = seen.value.unwrap().cas;
    trio.mirror.fail_over("for a test").unwrap();
    // The servers' own numbers are alike: they were asked for the same.
    let write = Write { bytes: "2".into(), ..Write::default() };
    for region in [seen.region, "eu-central".parse().unwrap()] {
        let outcome = trio.client.write_at(&region, b"k", write.clone(), Expect::Cas(cas)).await.unwrap();
        assert_eq!(outcome.value, Outcome::Exists);
    }
    let seen = trio.client.item(b"k").await.unwrap();
    let expect = Expect::Cas(seen.value.unwrap().cas);
    let outcome = trio.client.write_at(&seen.region, b"k", write, expect).await.unwrap();
    assert!(matches!(outcome.value, Outcome::Done { .. }));
}

#[tokio::test(start_paused = true)]
async fn an_update_succeeds_at_any_point_of_the_probation() {
    let trio = Trio::new().await;
    trio.put("n", "0").await;
    trio.mirror.fail_over("for a test").unwrap();
    trio.until_state(FailoverState::Probation).await;
    let mut updates = 0;
    while trio.state() == FailoverState::Probation {
        let more = |n: Option<String>| n.map(|n| (n.parse::<u32>().unwrap() + 1).to_string());
        trio.client.update("n", more).await.unwrap();
        updates += 1;
        sleep(SECOND / 10).await;
    }
    assert!(updates > 10);
    assert_eq!(trio.held("n"), all(&updates.to_string()));
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_goes_away_leaves_nothing_half_done() {
    let fakes = ["main", "fallback", "backup"].map(|name| Fake::new(name).delayed(50, 3));
    let trio = Trio::of(builder(), fakes).await;
    for wait in 0..40 {
        let key = format!("k{wait}");
        let write = trio.client.put(&key, "v");
        let _ = tokio::time::timeout(Duration::from_millis(wait * 5), write).await;
    }
    sleep(SECOND).await;
    for wait in 0..40 {
        let [main, fallback, backup] = trio.held(&format!("k{wait}"));
        assert!(main == fallback && fallback == backup);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_is_lost_leaves_no_older_value_anywhere_else() {
    let trio = Trio::new().await;
    trio.put("k", "1").await;
    trio.mirror.hold(true);
    trio.main.fault(Fault::Mute);
    let error = trio.client.put("k", "2").await.unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { may_be_done: true, .. }), "{error}");
    assert_eq!(trio.held("k"), [Some("2".into()), None, None]);
    trio.mirror.hold(false);
    trio.until_state(FailoverState::OnFallback).await;
    assert_eq!(trio.get("k").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_a_server_does_not_take_leaves_no_older_value_there() {
    let fakes = [Fake::new("main"), Fake::new("fallback"), Fake::new("backup").with_values_up_to(3)];
    let trio = Trio::of(builder(), fakes).await;
    trio.put("k", "old").await;
    trio.put("k", "longer").await;
    assert_eq!(trio.held("k"), [Some("longer".into()), Some("longer".into()), None]);
    assert_eq!((trio.mirror.status().copies_refused, trio.mirror.status().places[2].missed), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_new_process_learns_that_the_fallback_was_leading() {
    let Trio { main, fallback, backup, client, mirror } = Trio::new().await;
    client.put("k", "1").await.unwrap();
    main.fault(Fault::Dead);
    client.put("k", "2").await.unwrap();
    sleep(3 * SECOND).await;
    assert!(fallback.remembers());
    drop((client, mirror));
    main.fault(Fault::None);
    let trio = Trio::of(builder(), [main, fallback, backup]).await;
    assert_eq!(trio.state(), FailoverState::OnFallback, "{}", trio.mirror.status());
    assert!(
        trio.mirror.status().places[0].stale,
        "what main missed was in the journal of the process before"
    );
    while trio.state() != FailoverState::OnMain {
        assert_eq!(trio.get("k").await.as_deref(), Some("2"));
        sleep(SECOND / 4).await;
    }
    assert_eq!(trio.held("k"), all("2"));
    sleep(3 * SECOND).await;
    assert!(trio.main.remembers() && !trio.fallback.remembers());
    let Trio { main, fallback, backup, client, mirror } = trio;
    drop((client, mirror));
    assert_eq!(Trio::of(builder(), [main, fallback, backup]).await.state(), FailoverState::OnMain);
}

#[tokio::test(start_paused = true)]
async fn the_reserved_key_is_nobodys() {
    let trio = Trio::new().await;
    let error = trio.client.put("geocache:mirror:epoch", "9").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the key \"geocache:mirror:epoch\" is kept by the client for itself; use another"
    );
    assert!(trio.client.get::<String>("geocache:mirror:epoch").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_clear_that_a_server_missed_is_made_good() {
    let trio = Trio::new().await;
    trio.put("old", "v").await;
    trio.backup.fault(Fault::Dead);
    trio.client.clear().await.unwrap();
    trio.put("new", "v").await;
    trio.backup.fault(Fault::None);
    trio.until_alike().await;
    assert_eq!((trio.held("old"), trio.held("new")), ([None, None, None], all("v")));
}

#[tokio::test(start_paused = true)]
async fn the_status_says_why_it_has_not_gone_back_yet() {
    let trio = Trio::new().await;
    trio.put("k", "v").await;
    trio.main.fault(Fault::Dead);
    trio.put("k", "w").await;
    let text = trio.mirror.status().to_string();
    let first = text.lines().next().unwrap();
    assert_eq!(
        first,
        "on fallback in epoch 1 for 0ns (3 failures of main), waiting for 2 more successes of main in a row, 5s of dwell"
    );
    trio.mirror.hold(true);
    assert!(trio.mirror.status().to_string().contains("the hold to be released"));
    assert!(trio.mirror.fail_back().is_err() && trio.mirror.fail_over("again").is_err());
}

#[tokio::test(start_paused = true)]
async fn servers_that_begin_with_nothing_lack_nothing() {
    let trio = Trio::new().await;
    trio.put("k", "v").await;
    trio.until_alike().await;
    let status = trio.mirror.status();
    assert!(!status.to_string().contains("to be filled"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn an_emptied_server_is_filled_again_where_nobody_knows_what_is_newer() {
    let trio = Trio::new().await;
    assert!(trio.mirror.empty("nowhere").await.is_err());
    trio.put("k", "v").await;
    for region in ["ap-south", "eu-central"] {
        trio.mirror.empty(region).await.unwrap();
        sleep(2 * SECOND).await;
        trio.until_alike().await;
        assert_eq!(trio.held("k"), all("v"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_main_and_a_fallback_of_unknown_age_wait_for_someone_to_say_which_counts() {
    let fakes = ["main", "fallback", "backup"].map(Fake::new);
    fakes[1].plant("k", "nobody knows how old");
    let trio = Trio::of(builder(), fakes).await;
    sleep(60 * SECOND).await;
    assert!(trio.mirror.status().to_string().contains("or an empty target"), "{}", trio.mirror.status());
    assert_eq!(
        (trio.get("k").await, trio.fallback.held("k").is_some()),
        (None, true),
        "neither read nor lost"
    );
    trio.mirror.empty("eu-central").await.unwrap();
    trio.until_alike().await;
    trio.put("k", "v").await;
    assert_eq!(trio.held("k"), all("v"));
    trio.mirror.fail_over("for a test").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_closed_client_has_brought_what_was_missed_and_refuses_calls() {
    let trio = Trio::new().await;
    trio.backup.fault(Fault::Dead);
    for key in 0..10 {
        trio.put(&format!("k{key}"), "v").await;
    }
    trio.backup.fault(Fault::None);
    // It has to be seen up again first.
    trio.until("up", |status| status.places[2].up).await;
    trio.client.close(5 * SECOND).await;
    assert_eq!(trio.backup.keys_held(), 10);
    assert!(matches!(trio.client.get::<String>("k").await, Err(ClientError::Closed)));
    assert!(matches!(trio.client.put("k", "v").await, Err(ClientError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn dropping_every_handle_ends_every_task() {
    let Trio { main, fallback, backup, client, mirror } = Trio::new().await;
    let metrics = tokio::runtime::Handle::current().metrics();
    assert!(metrics.num_alive_tasks() > 4);
    drop((client, mirror));
    let ended = async {
        while metrics.num_alive_tasks() > 0 {
            sleep(SECOND / 10).await;
        }
    };
    tokio::time::timeout(60 * SECOND, ended).await.expect("the tasks end");
    drop((main, fallback, backup));
}

#[tokio::test(start_paused = true)]
async fn nodes_of_this_process_are_kept_alike_as_well() {
    let node = async || GeoCache::builder().build().await.unwrap();
    let (main, fallback, backup) = (node().await, node().await, node().await);
    let client = GeoClient::mirrored()
        .main("us-east", main.clone())
        .fallback("eu-central", fallback.clone())
        .backup("ap-south", backup.clone())
        .default_ttl(60 * SECOND)
        .build()
        .await
        .unwrap();
    let key = client.put_new("v").await.unwrap();
    for node in [&main, &fallback, &backup] {
        assert_eq!(node.get::<String>(&key).unwrap().as_deref().map(String::as_str), Some("v"));
        assert!(node.item(key.as_bytes()).unwrap().left.is_some());
    }
    main.close(SECOND).await;
    client.put(&key, "w").await.unwrap();
    let served = client.get_served::<String>(&key).await.unwrap();
    assert_eq!((served.value.as_deref(), served.region.as_str()), (Some("w"), "eu-central"));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_setting_is_named() {
    let new = || GeoClient::mirrored().main("us-east", Fake::new("a")).fallback("eu-central", Fake::new("b"));
    let refused =
        async |builder: crate::client::MirrorBuilder| builder.build().await.unwrap_err().to_string();
    assert_eq!(refused(GeoClient::mirrored()).await, "main: missing; name the server that leads");
    let one = GeoClient::mirrored().main("us-east", Fake::new("a"));
    assert_eq!(refused(one).await, "fallback: missing; name a second server");
    let twice = new().backup("us-east", Fake::new("c"));
    assert_eq!(refused(twice).await, "backup: the region us-east is named twice; each has one server");
    assert!(refused(new().call_timeout(Duration::ZERO)).await.starts_with("call_timeout"));
    assert!(refused(new().journal(0, 1)).await.starts_with("entries_max"));
    assert!(refused(new().failover(|failover| failover.down_after(0))).await.starts_with("down_after"));
    assert!(new().main("Übersee", Fake::new("c")).build().await.is_err());
}
