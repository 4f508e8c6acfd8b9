//! All that the memcached library promised, on real memcached servers: a main client with an expiration time, backups that are written
//! in real time, a fallback that takes over with main's content, and the way back to the old client. What a server holds is read from
//! it directly, past the client.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::time::Duration;

use geocache::{
    Codec,
    client::{FailoverState, GeoClient, Memcached, Mirror, MirrorBuilder, MirrorEvent, MirrorEvents},
};
use tests::{memcached_server::MemcachedServer, wait_until};

const BOUND: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);
const REGIONS: [&str; 3] = ["us-east", "eu-central", "ap-south"];

/// Main, the fallback, a further backup, and the client over them.
struct Walk {
    main: MemcachedServer,
    fallback: MemcachedServer,
    backup: MemcachedServer,
    client: GeoClient,
    mirror: Mirror,
}

impl Walk {
    async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    /// With waits that suit a test; the defaults are ten times as long. Text is stored as any language's client reads it.
    async fn with(change: impl FnOnce(MirrorBuilder) -> MirrorBuilder) -> Self {
        let start = async || MemcachedServer::start().await.unwrap();
        let (main, fallback, backup) = (start().await, start().await, start().await);
        let endpoint = |server: &MemcachedServer| Memcached::new(server.addr().to_string()).unwrap();
        let builder = GeoClient::mirrored()
            .main(REGIONS[0], endpoint(&main))
            .fallback(REGIONS[1], endpoint(&fallback))
            .backup(REGIONS[2], endpoint(&backup))
            .codec(Codec::Raw)
            .default_ttl(Duration::from_secs(600))
            .call_timeout(SECOND / 2)
            .probe_every(SECOND / 10)
            .failover(|failover| failover.up_after(2).dwell(SECOND).probation(2 * SECOND));
        let client = change(builder).build().await.unwrap();
        let mirror = client.mirror().unwrap();
        let walk = Self { main, fallback, backup, client, mirror };
        walk.until_alike().await;
        walk
    }

    fn servers(&self) -> [&MemcachedServer; 3] {
        [&self.main, &self.fallback, &self.backup]
    }

    async fn put(&self, key: &str, value: &str) {
        self.client.put(key, value).await.unwrap();
    }

    async fn get(&self, key: &str) -> Option<String> {
        self.client.get(key).await.unwrap()
    }

    fn state(&self) -> FailoverState {
        self.mirror.status().failover.state
    }

    async fn until_state(&self, state: FailoverState) {
        wait_until(&format!("it is {state}"), BOUND, async || self.state() == state).await;
    }

    /// Waits until main leads and nobody has missed anything.
    async fn until_alike(&self) {
        wait_until("all regions are alike", BOUND, async || {
            let status = self.mirror.status();
            let places = &status.places;
            status.failover.state == FailoverState::OnMain
                && status.failover.waiting.is_empty()
                && places.iter().all(|place| place.up && place.missed == 0 && !place.stale)
                && !places[2].lacking
        })
        .await;
    }
}

/// What a server holds of a key, asked directly.
async fn held(server: &MemcachedServer, key: &str) -> Option<String> {
    let value = server.client().await.unwrap().get(key).await.unwrap()?;
    Some(String::from_utf8(value).unwrap())
}

async fn held_by_all(walk: &Walk, key: &str) -> [Option<String>; 3] {
    let [main, fallback, backup] = walk.servers();
    [held(main, key).await, held(fallback, key).await, held(backup, key).await]
}

fn all(value: &str) -> [Option<String>; 3] {
    [(); 3].map(|()| Some(value.to_owned()))
}

/// What is left of a key's life at a server, in seconds, asked directly; `None` where it is not there.
async fn seconds_left(server: &MemcachedServer, key: &str) -> Option<i64> {
    let answer = server.client().await.unwrap().command(&format!("mg {key} t")).await.unwrap();
    answer.strip_prefix("HD t").map(|left| left.parse().unwrap())
}

async fn next(events: &mut MirrorEvents, wanted: impl Fn(&MirrorEvent) -> bool) -> MirrorEvent {
    let found = async {
        loop {
            let event = events.next().await.unwrap().expect("the client is there");
            if wanted(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(BOUND, found).await.expect("an event that was waited for")
}

#[tokio::test]
async fn a_key_is_made_and_its_value_set_read_and_modified_in_every_region_at_once() {
    let walk = Walk::new().await;
    // generateCacheKey and setCacheData
    let key = walk.client.put_new("first").await.unwrap();
    assert_eq!(key.parse::<uuid_form::Uuid>(), Ok(uuid_form::Uuid), "{key} has the form of a UUID");
    assert_ne!(key, walk.client.generate_key());
    assert_eq!(held_by_all(&walk, &key).await, all("first"), "it is there when the call returns");
    // getCacheData
    assert_eq!(walk.get(&key).await.as_deref(), Some("first"));
    // modifyCacheData
    let modified =
        walk.client.update(&key, |value: Option<String>| value.map(|value| value + ", second")).await;
    assert_eq!(modified.unwrap().value.as_deref(), Some("first, second"));
    assert_eq!(held_by_all(&walk, &key).await, all("first, second"));
    walk.client.remove(&key).await.unwrap();
    assert_eq!(held_by_all(&walk, &key).await, [None, None, None]);
}

#[tokio::test]
async fn updates_of_many_callers_lose_nothing() {
    let walk = std::sync::Arc::new(Walk::new().await);
    walk.put("n", "0").await;
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let walk = std::sync::Arc::clone(&walk);
            tokio::spawn(async move {
                for _ in 0..10 {
                    let more = |n: Option<String>| n.map(|n| (n.parse::<u32>().unwrap() + 1).to_string());
                    walk.client.update("n", more).await.unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(held_by_all(&walk, "n").await, all("80"));
}

#[tokio::test]
async fn values_expire_in_every_region() {
    let walk = Walk::new().await;
    // cacheExpirationTime
    walk.put("default", "v").await;
    walk.client.put_with_ttl("short", "v", SECOND).await.unwrap();
    for server in walk.servers() {
        let left = seconds_left(server, "default").await.unwrap();
        assert!((500..=600).contains(&left), "{left} s");
    }
    wait_until("it has expired everywhere", BOUND, async || {
        let there = held_by_all(&walk, "short").await;
        walk.get("short").await.is_none() && there == [None, None, None]
    })
    .await;
    assert!(walk.client.touch("default", 60 * SECOND).await.unwrap());
    for server in walk.servers() {
        let left = seconds_left(server, "default").await.unwrap();
        assert!((1..=61).contains(&left), "{left} s");
    }
}

#[tokio::test]
async fn the_fallback_takes_over_from_a_killed_main_which_is_filled_when_it_is_back_and_leads_again() {
    let mut walk = Walk::new().await;
    for key in 0..300 {
        walk.put(&format!("k{key}"), "before").await;
    }
    let mut events = walk.mirror.watch();
    walk.main.kill_9().await.unwrap();
    // The call that meets the outage succeeds: it is made at the fallback.
    walk.put("k1", "during").await;
    let over = next(&mut events, |event| matches!(event, MirrorEvent::FailedOver { .. })).await;
    assert!(
        matches!(&over, MirrorEvent::FailedOver { to, epoch: 1, .. } if to.as_str() == "eu-central"),
        "{over:?}"
    );
    let served = walk.client.get_served::<String>("k7").await.unwrap();
    assert_eq!(
        (served.value.as_deref(), served.region.as_str(), served.doubt),
        (Some("before"), "eu-central", None)
    );
    walk.client.remove("k2").await.unwrap();
    let made = walk.client.put_new("made meanwhile").await.unwrap();
    assert_eq!(
        held(&walk.backup, &made).await.as_deref(),
        Some("made meanwhile"),
        "the backup is written on"
    );

    walk.main.restart().await.unwrap();
    assert_eq!(held(&walk.main, "k7").await, None, "it has begun anew");
    next(&mut events, |event| matches!(event, MirrorEvent::Probation)).await;
    next(&mut events, |event| matches!(event, MirrorEvent::FailedBack { .. })).await;
    walk.until_alike().await;
    assert_eq!(held_by_all(&walk, "k1").await, all("during"));
    assert_eq!(held_by_all(&walk, "k2").await, [None, None, None]);
    assert_eq!(held_by_all(&walk, &made).await, all("made meanwhile"));
    for key in 3..300 {
        assert_eq!(held(&walk.main, &format!("k{key}")).await.as_deref(), Some("before"), "k{key}");
    }
    assert!(seconds_left(&walk.main, "k7").await.unwrap() > 0, "a transferred value still expires");
    let served = walk.client.get_served::<String>("k7").await.unwrap();
    assert_eq!(served.region.as_str(), "us-east", "back at the old client");
}

#[tokio::test]
async fn a_main_that_hung_comes_back_with_old_values_and_none_of_them_is_ever_read() {
    let walk = Walk::new().await;
    for key in ["changed", "removed", "kept"] {
        walk.put(key, "old").await;
    }
    walk.main.freeze().unwrap();
    walk.put("changed", "new").await;
    walk.client.remove("removed").await.unwrap();
    assert_eq!(walk.state(), FailoverState::OnFallback);
    walk.main.thaw().unwrap();
    let mut seen = Vec::new();
    wait_until("main leads again", BOUND, async || {
        let changed = walk.client.get_served::<String>("changed").await.unwrap();
        assert_eq!(changed.value.as_deref(), Some("new"), "served by {}", changed.region);
        assert_eq!(walk.get("removed").await, None);
        assert_eq!(walk.get("kept").await.as_deref(), Some("old"));
        let state = walk.state();
        if seen.last() != Some(&state) {
            seen.push(state);
        }
        state == FailoverState::OnMain
    })
    .await;
    assert!(seen.contains(&FailoverState::Probation), "{seen:?}");
    walk.until_alike().await;
    assert_eq!(held_by_all(&walk, "changed").await, all("new"));
    assert_eq!(held_by_all(&walk, "removed").await, [None, None, None]);
}

#[tokio::test]
async fn a_fallback_that_has_to_lead_without_mains_content_gets_it_from_the_freshest_copy_and_reads_go_through_meanwhile()
 {
    // Slow enough that there is a meanwhile: 25 keys a second.
    let mut walk = Walk::with(|builder| builder.resync(1, 25)).await;
    for key in 0..150 {
        walk.put(&format!("k{key}"), "v").await;
    }
    walk.until_alike().await;
    walk.fallback.kill_9().await.unwrap();
    walk.put("k3", "newer").await;
    walk.fallback.restart().await.unwrap();
    wait_until("it is seen to be up and empty", BOUND, async || {
        let fallback = &walk.mirror.status().places[1];
        fallback.up && fallback.lacking
    })
    .await;
    walk.main.kill_9().await.unwrap();
    walk.until_state(FailoverState::OnFallback).await;
    assert!(walk.mirror.status().places[1].lacking, "{}", walk.mirror.status());
    let mut regions = Vec::new();
    for key in 0..150 {
        let served = walk.client.get_served::<String>(format!("k{key}")).await.unwrap();
        assert_eq!(
            served.value.as_deref(),
            Some(if key == 3 { "newer" } else { "v" }),
            "k{key} of {}",
            served.region
        );
        regions.push(served.region.to_string());
    }
    assert!(regions.iter().any(|region| region == "ap-south"), "some were not transferred yet: {regions:?}");
    wait_until("the fallback is filled", BOUND, async || !walk.mirror.status().places[1].lacking).await;
    for key in 0..150 {
        let expected = if key == 3 { "newer" } else { "v" };
        assert_eq!(held(&walk.fallback, &format!("k{key}")).await.as_deref(), Some(expected), "k{key}");
    }
}

#[tokio::test]
async fn a_backup_that_was_away_is_told_what_it_missed_and_a_dead_one_slows_no_write() {
    let mut walk = Walk::new().await;
    walk.put("k", "1").await;
    walk.backup.kill_9().await.unwrap();
    for value in 2..200 {
        walk.put("k", &value.to_string()).await;
    }
    let status = walk.mirror.status();
    assert_eq!((status.places[2].missed, status.failover.state), (1, FailoverState::OnMain), "{status}");
    walk.backup.restart().await.unwrap();
    walk.until_alike().await;
    assert_eq!(held_by_all(&walk, "k").await, all("199"));
}

#[tokio::test]
async fn a_client_that_begins_while_the_fallback_leads_goes_on_there_and_takes_main_for_old() {
    let walk = Walk::new().await;
    walk.put("k", "old").await;
    walk.main.freeze().unwrap();
    walk.put("k", "new").await;
    wait_until("it is written down who leads", BOUND, async || {
        held(&walk.fallback, "geocache:mirror:epoch").await.as_deref() == Some("1")
    })
    .await;
    let Walk { main, fallback, backup, client, mirror } = walk;
    // As a process that is killed: the journal is gone.
    drop((client, mirror));
    main.thaw().unwrap();
    let endpoint = |server: &MemcachedServer| Memcached::new(server.addr().to_string()).unwrap();
    let client = GeoClient::mirrored()
        .main(REGIONS[0], endpoint(&main))
        .fallback(REGIONS[1], endpoint(&fallback))
        .backup(REGIONS[2], endpoint(&backup))
        .codec(Codec::Raw)
        .probe_every(SECOND / 10)
        .failover(|failover| failover.up_after(2).dwell(SECOND).probation(SECOND))
        .build()
        .await
        .unwrap();
    let mirror = client.mirror().unwrap();
    let walk = Walk { main, fallback, backup, client, mirror };
    assert_eq!(walk.state(), FailoverState::OnFallback, "{}", walk.mirror.status());
    wait_until("main leads again", BOUND, async || {
        assert_eq!(walk.get("k").await.as_deref(), Some("new"));
        walk.state() == FailoverState::OnMain
    })
    .await;
    assert_eq!(held(&walk.main, "k").await.as_deref(), Some("new"));
}

mod uuid_form {
    /// Text of the form `8-4-4-4-12` in hexadecimal digits.
    #[derive(Debug, PartialEq)]
    pub(crate) struct Uuid;

    impl std::str::FromStr for Uuid {
        type Err = String;

        fn from_str(text: &str) -> Result<Self, String> {
            let lengths: Vec<_> = text.split('-').map(str::len).collect();
            let digits = text.chars().all(|letter| letter == '-' || letter.is_ascii_hexdigit());
            if digits && lengths == [8, 4, 4, 4, 12] { Ok(Self) } else { Err(text.to_owned()) }
        }
    }
}
