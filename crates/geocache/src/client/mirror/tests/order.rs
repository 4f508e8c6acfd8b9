//! One thing at a time per key: what is written meets what is being replayed, copied or cleared.

use std::time::Duration;

use resilience::{FailoverState, Scope};
use tokio::time::sleep;

use super::{
    SECOND, Trio, all, builder,
    fake::{Fake, Fault},
};
use crate::{Expect, Write, client::MirrorEvent, store::Outcome};

const TENTH: Duration = Duration::from_millis(100);

fn fakes() -> [Fake; 3] {
    ["main", "fallback", "backup"].map(Fake::new)
}

/// Waits until a region begins to be brought up to date, and says by how much.
async fn resync_of(trio: &Trio, region: &str, begin: impl FnOnce()) -> Scope {
    let mut events = trio.mirror.watch();
    begin();
    loop {
        let event = events.next().await.unwrap().expect("the client is there");
        if let MirrorEvent::Resyncing { region: told, scope } = event
            && told.as_str() == region
        {
            return scope;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_newer_copy_that_was_taken_ends_what_was_owed_before() {
    // One key a second, so that the second one is still owed when it is written again.
    let trio = Trio::of(builder().resync(1, 1), fakes()).await;
    trio.until_alike().await;
    trio.backup.fault(Fault::Dead);
    trio.put("first", "1").await;
    trio.put("k", "1").await;
    trio.backup.fault(Fault::None);
    trio.until("at the second key", |status| status.places[2].missed == 1).await;
    assert_eq!(trio.backup.held("k"), None);
    trio.put("k", "2").await;
    assert_eq!((trio.mirror.status().places[2].missed, trio.held("k")), (0, all("2")));
    sleep(5 * SECOND).await;
    assert_eq!(trio.held("k"), all("2"));
}

#[tokio::test(start_paused = true)]
async fn a_write_waits_for_a_replay_of_its_key_that_is_under_way() {
    let trio = Trio::new().await;
    trio.until_alike().await;
    trio.backup.fault(Fault::Dead);
    trio.put("k", "1").await;
    let fault_ends = || {
        trio.backup.fault(Fault::None);
        trio.backup.slow(4 * TENTH);
    };
    assert_eq!(resync_of(&trio, "ap-south", fault_ends).await, Scope::Missed);
    sleep(TENTH).await;
    // The replay is on its way there, and what is sent now would overtake it.
    trio.backup.slow(Duration::ZERO);
    trio.put("k", "2").await;
    // Longer than the replay could be on its way.
    sleep(SECOND).await;
    trio.until_alike().await;
    assert_eq!(trio.held("k"), all("2"));
}

#[tokio::test(start_paused = true)]
async fn a_write_waits_for_a_copy_of_its_key_that_is_under_way() {
    let trio = Trio::new().await;
    trio.put("k", "1").await;
    trio.put("gone", "1").await;
    trio.until_alike().await;
    let restarts = || {
        trio.backup.restart();
        trio.backup.slow(4 * TENTH);
    };
    assert_eq!(resync_of(&trio, "ap-south", restarts).await, Scope::Lacking);
    sleep(TENTH).await;
    trio.backup.slow(Duration::ZERO);
    trio.put("k", "2").await;
    trio.client.remove("gone").await.unwrap();
    trio.until_alike().await;
    assert_eq!((trio.held("k"), trio.held("gone")), (all("2"), [None, None, None]));
}

#[tokio::test(start_paused = true)]
async fn a_write_waits_for_a_key_that_is_being_removed_since_the_source_lacks_it() {
    let fakes = fakes();
    fakes[0].plant("other", "of main");
    fakes[2].plant("k", "nobody knows how old");
    let trio = Trio::of(builder(), fakes).await;
    // What the source does not hold is removed a while after the copy has begun.
    trio.until("copied", |_| trio.backup.held("other").is_some()).await;
    trio.backup.slow(4 * TENTH);
    let mut number = 0;
    while trio.mirror.status().places[2].stale {
        sleep(3 * TENTH).await;
        number += 1;
        trio.backup.slow(if number % 2 == 0 { 4 * TENTH } else { Duration::ZERO });
        trio.put("k", &number.to_string()).await;
    }
    trio.backup.slow(Duration::ZERO);
    trio.until_alike().await;
    assert!(number > 0);
    assert_eq!(trio.held("k"), all(&number.to_string()));
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_began_with_nothing_may_lead_though_it_was_written_to_before_that_was_seen() {
    // Too slow for it to be filled before it has to lead.
    let trio = Trio::of(builder().resync(1, 1), fakes()).await;
    for key in 0..30 {
        trio.put(&format!("k{key}"), "v").await;
    }
    trio.until_alike().await;
    trio.fallback.restart();
    trio.put("k", "v").await;
    assert_eq!(trio.fallback.keys_held(), 1, "it was written to before its next probe");
    assert_eq!(resync_of(&trio, "eu-central", || ()).await, Scope::Lacking, "nothing in it can be old");
    trio.main.fault(Fault::Dead);
    trio.put("k", "w").await;
    let served = trio.client.get_served::<String>("k").await.unwrap();
    assert_eq!((served.value.as_deref(), served.region.as_str()), (Some("w"), "eu-central"));
    assert_eq!(trio.get("k29").await.as_deref(), Some("v"), "read through to the backup");
}

#[tokio::test(start_paused = true)]
async fn a_condition_is_judged_by_what_the_leader_has_missed_and_by_what_it_lacks() {
    let trio = Trio::of(builder().resync(1, 1), fakes()).await;
    for key in 0..30 {
        trio.put(&format!("k{key:02}"), "v").await;
    }
    trio.until_alike().await;
    assert_eq!(resync_of(&trio, "eu-central", || trio.fallback.restart()).await, Scope::Lacking);
    trio.fallback.fault(Fault::Dead);
    for key in 0..10 {
        trio.put(&format!("told before {key}"), "v").await;
    }
    trio.put("missed", "v").await;
    trio.client.remove("k28").await.unwrap();
    trio.fallback.fault(Fault::None);
    trio.main.fault(Fault::Dead);
    trio.until_state(FailoverState::OnFallback).await;
    let places = trio.mirror.status().places;
    assert!(
        places[1].lacking && trio.fallback.held("missed").is_none() && trio.fallback.held("k29").is_none()
    );
    let absent = async |key: &str| {
        let write = Write { bytes: "w".into(), ..Write::default() };
        trio.client.write(key.as_bytes(), write, Expect::Absent).await.unwrap().value
    };
    assert_eq!(absent("missed").await, Outcome::Present);
    assert_eq!(absent("k29").await, Outcome::Present);
    assert!(matches!(absent("k28").await, Outcome::Done { .. }), "it was removed");
}

#[tokio::test(start_paused = true)]
async fn a_clear_under_which_the_lead_changed_is_made_at_the_new_leader_before_it_is_answered() {
    let trio = Trio::new().await;
    trio.put("k", "1").await;
    trio.fallback.slow(4 * TENTH);
    let client = trio.client.clone();
    let clear = tokio::spawn(async move { client.clear().await.unwrap() });
    sleep(TENTH).await;
    assert_eq!(trio.main.keys_held(), 0);
    trio.mirror.fail_over("for a test").unwrap();
    trio.fallback.fault(Fault::Dead);
    sleep(4 * TENTH).await;
    trio.fallback.fault(Fault::None);
    clear.await.unwrap();
    assert_eq!((trio.fallback.keys_held(), trio.get("k").await), (0, None));
    trio.fallback.slow(Duration::ZERO);
    trio.put("k", "2").await;
    trio.until_alike().await;
    assert_eq!(trio.held("k"), all("2"));
}

#[tokio::test(start_paused = true)]
async fn a_clear_in_the_midst_of_a_copy_is_not_undone_by_it() {
    let trio = Trio::of(builder().resync(2, 10), fakes()).await;
    for key in 0..60 {
        trio.put(&format!("k{key:02}"), "v").await;
    }
    trio.until_alike().await;
    for (region, fake) in [("eu-central", &trio.fallback), ("ap-south", &trio.backup)] {
        for key in 0..60 {
            trio.put(&format!("k{key:02}"), "v").await;
        }
        let _: Scope = resync_of(&trio, region, || fake.restart()).await;
        // It takes six seconds, and a call up to a fifth of one.
        sleep(3 * SECOND).await;
        fake.slow(TENTH);
        assert!((1..60).contains(&fake.keys_held()), "{}", fake.keys_held());
        trio.client.clear().await.unwrap();
        assert_eq!([&trio.main, &trio.fallback, &trio.backup].map(Fake::keys_held), [0; 3]);
        trio.put("later", "v").await;
        trio.until_alike().await;
        assert_eq!([&trio.main, &trio.fallback, &trio.backup].map(Fake::keys_held), [1; 3], "{region}");
        fake.slow(Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn a_life_that_is_kept_is_kept_through_the_way_to_the_fallback_and_back() {
    let trio = Trio::new().await;
    trio.client.put_with_ttl("k", "1", 100 * SECOND).await.unwrap();
    trio.mirror.fail_over("for a test").unwrap();
    trio.client.update("k", |k: Option<String>| k.map(|k| k + "2")).await.unwrap();
    trio.until_state(FailoverState::OnMain).await;
    trio.client.update("k", |k: Option<String>| k.map(|k| k + "3")).await.unwrap();
    assert_eq!(trio.held("k"), all("123"));
    let left = [&trio.main, &trio.fallback, &trio.backup].map(|fake| fake.left("k").unwrap());
    assert!(left.iter().all(|left| *left < 95 * SECOND && *left > 60 * SECOND), "{left:?}");
    sleep(100 * SECOND).await;
    assert_eq!((trio.get("k").await, trio.held("k")), (None, [None, None, None]));
}

#[tokio::test(start_paused = true)]
async fn a_backup_is_filled_from_the_one_that_leads_and_from_no_other() {
    let trio = Trio::of(builder().resync(1, 10), fakes()).await;
    for key in 0..30 {
        trio.put(&format!("k{key:02}"), "old").await;
    }
    trio.until_alike().await;
    assert_eq!(resync_of(&trio, "ap-south", || trio.backup.restart()).await, Scope::Lacking);
    sleep(SECOND).await;
    trio.mirror.fail_over("for a test").unwrap();
    // Main does not hear of this one, and is alive and full of old values.
    trio.put("k29", "new").await;
    assert_eq!(trio.held("k29"), [Some("old".into()), Some("new".into()), Some("new".into())]);
    trio.until("filled", |status| !status.places[2].lacking).await;
    assert_eq!((trio.backup.held("k29").as_deref(), trio.backup.keys_held()), (Some("new"), 30));
}

#[tokio::test(start_paused = true)]
async fn a_number_of_one_life_never_matches_in_the_next() {
    let trio = Trio::new().await;
    trio.put("k", "1").await;
    let seen = trio.client.item(b"k").await.unwrap();
    let number = seen.value.unwrap().cas;
    sleep(2 * SECOND).await;
    trio.main.restart();
    trio.until_state(FailoverState::OnFallback).await;
    trio.until_state(FailoverState::OnMain).await;
    // It counts anew, and was brought this key first.
    let write = Write { bytes: "2".into(), ..Write::default() };
    let outcome = trio.client.write_at(&seen.region, b"k", write, Expect::Cas(number)).await.unwrap();
    assert_eq!((outcome.value, trio.held("k")), (Outcome::Exists, all("1")));
}
