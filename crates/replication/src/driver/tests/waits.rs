//! Receipts, sessions and fetches, over the hub and over a scripted transport.

use std::collections::BTreeSet;

use super::*;
use crate::memory::Place;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(3_600);
const REGIONS: [&str; 3] = ["us-east", "eu-central", "ap-south"];

fn regions(names: &[&str]) -> BTreeSet<RegionId> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// Three regions that know each other.
async fn three(hub: &Hub, change: impl Fn(&mut NodeConfig)) -> [Running; 3] {
    let mut nodes = Vec::new();
    for region in REGIONS {
        nodes.push(run(region, hub.join(node(region)), &change).await);
    }
    for running in &nodes {
        running.until("they met", |_, status| status.peers.len() == 2).await;
    }
    nodes.try_into().unwrap_or_else(|_| unreachable!("three regions"))
}

#[tokio::test(start_paused = true)]
async fn each_concern_is_reached_in_a_well_cache_and_says_who_has_the_write() {
    let hub = Hub::new();
    let [here, _eu, _ap] = three(&hub, |_| ()).await;
    let client = here.handle.client();
    let token = here.put("k");
    let local = client.receipt(token, WriteConcern::Local, LONG).await;
    assert!(local.reached);
    assert_eq!((local.have, local.missing), (regions(&["us-east"]), regions(&["eu-central", "ap-south"])));
    let published = client.receipt(token, WriteConcern::Published, LONG).await;
    assert!(published.reached && published.published);
    let begun = Instant::now();
    let all = client.receipt(token, WriteConcern::All, LONG).await;
    assert!(all.reached && all.published);
    assert_eq!((all.have, all.missing), (regions(&REGIONS), regions(&[])));
    assert!(begun.elapsed() < SECOND);
    let two = client.receipt(token, WriteConcern::Regions(2), LONG).await;
    assert!(two.reached && two.have.len() >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_receipt_makes_the_others_answer_at_once() {
    let hub = Hub::new();
    let [here, _eu, _ap] = three(&hub, |config| config.replica.beat_ms = 60_000).await;
    let client = here.handle.client();
    let wanted = here.outbox.want_receipts();
    let begun = Instant::now();
    let receipt = client.receipt(here.put("k"), WriteConcern::All, LONG).await;
    drop(wanted);
    assert!(receipt.reached);
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn under_a_cut_the_receipt_is_partial_and_the_next_one_after_the_mend_is_whole() {
    let hub = Hub::new();
    let [here, _eu, _ap] = three(&hub, |_| ()).await;
    let client = here.handle.client();
    hub.isolate(node("ap-south"));
    let token = here.put("k");
    let begun = Instant::now();
    let partial = client.receipt(token, WriteConcern::All, 2 * SECOND).await;
    assert_eq!(begun.elapsed(), 2 * SECOND, "at its deadline, not at a tick");
    assert!(!partial.reached && partial.published);
    assert_eq!((partial.have, partial.missing), (regions(&REGIONS[..2]), regions(&["ap-south"])));
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.receipt(token, WriteConcern::Regions(3), LONG).await }
    });
    tokio::time::sleep(SECOND).await;
    hub.heal();
    assert!(waiting.await.unwrap().reached);
    assert!(client.receipt(token, WriteConcern::All, Duration::ZERO).await.reached);
}

#[tokio::test(start_paused = true)]
async fn configured_regions_are_waited_for_though_never_heard() {
    let hub = Hub::new();
    let all = |config: &mut NodeConfig| config.regions = regions(&["us-east", "eu-central", "sa-east"]);
    let [here, _eu, _ap] = three(&hub, all).await;
    let token = here.put("k");
    let receipt = here.handle.client().receipt(token, WriteConcern::All, SECOND).await;
    assert!(!receipt.reached);
    assert_eq!((receipt.have, receipt.missing), (regions(&REGIONS), regions(&["sa-east"])));
}

#[tokio::test(start_paused = true)]
async fn a_node_alone_reaches_what_needs_nobody_else() {
    let here = run("us-east", Hub::new().join(node("us-east")), |_| ()).await;
    let client = here.handle.client();
    let token = here.put("k");
    for concern in [WriteConcern::Local, WriteConcern::Regions(1), WriteConcern::All, WriteConcern::Published]
    {
        assert!(client.receipt(token, concern, LONG).await.reached, "{concern:?}");
    }
    let two = client.receipt(token, WriteConcern::Regions(2), SECOND).await;
    assert!(!two.reached && two.published);
}

#[tokio::test(start_paused = true)]
async fn a_refused_frame_is_not_published_and_the_next_one_is() {
    let refuses = |_, frame: &Bytes| Fate::Now(if keys(frame) == ["a"] { refused() } else { Ok(()) });
    let transport = Arc::new(Scripted::new(refuses));
    let here = run_scripted(&transport).await;
    let client = here.handle.client();
    let first = here.put("a");
    let receipt = client.receipt(first, WriteConcern::Published, LONG).await;
    assert!(!receipt.reached && !receipt.published, "told at once: {receipt:?}");
    let second = here.put("b");
    assert!(client.receipt(second, WriteConcern::Published, LONG).await.published);
    assert!(!client.receipt(first, WriteConcern::Published, LONG).await.published);
}

#[tokio::test(start_paused = true)]
async fn a_write_is_published_when_every_frame_up_to_it_was_confirmed() {
    let transport = Arc::new(Scripted::new(|number, _| match number {
        1 => Fate::After(10 * SECOND, Ok(())),
        _ => Fate::Now(Ok(())),
    }));
    let here = run_scripted(&transport).await;
    let client = here.handle.client();
    let first = here.put("a");
    here.until("the first left", |_, _| transport.given() == ["a"]).await;
    let second = here.put("b");
    let begun = Instant::now();
    assert!(client.receipt(second, WriteConcern::Published, LONG).await.published);
    assert!(begun.elapsed() > 9 * SECOND, "{:?}", begun.elapsed());
    assert!(client.receipt(first, WriteConcern::Published, Duration::ZERO).await.published);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_superseded_before_it_left_is_published_with_its_successor() {
    let transport = Arc::new(Scripted::new(|_, _| Fate::Now(Ok(()))));
    transport.connect(false);
    let here = run("us-east", Arc::clone(&transport) as Arc<dyn Transport>, |_| ()).await;
    let first = here.put("a");
    here.put("b");
    here.put("a");
    let client = here.handle.client();
    assert!(!client.receipt(first, WriteConcern::Published, SECOND).await.published);
    transport.connect(true);
    assert!(client.receipt(first, WriteConcern::Published, LONG).await.published);
    assert_eq!(transport.accepted(), ["b", "a"]);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_the_full_outbox_skipped_is_not_published() {
    let transport = Arc::new(Scripted::new(|_, _| Fate::Now(Ok(()))));
    transport.connect(false);
    let here = run("us-east", Arc::clone(&transport) as Arc<dyn Transport>, |_| ()).await;
    let first = here.put("first");
    while here.outbox.stats().skipped == 0 {
        here.put(&format!("k{}", here.outbox.stats().records));
    }
    let last = here.put("last");
    transport.connect(true);
    let client = here.handle.client();
    assert!(client.receipt(last, WriteConcern::Published, LONG).await.published);
    let receipt = client.receipt(first, WriteConcern::Published, LONG).await;
    assert!(!receipt.published && !receipt.reached);
}

#[tokio::test(start_paused = true)]
async fn a_session_reads_its_write_elsewhere_or_hears_how_far_behind_it_is() {
    let hub = Hub::new();
    let [here, there, _ap] = three(&hub, |_| ()).await;
    let there_client = there.handle.client();
    let first = here.put("first");
    assert_eq!(there_client.at_least(first, LONG).await, Ok(()));
    assert!(there.store.get(b"first").is_some());
    hub.isolate(node("eu-central"));
    tokio::time::sleep(SECOND).await;
    let second = here.put("second");
    let begun = Instant::now();
    let stale = there_client.at_least(second, SECOND).await;
    assert!(matches!(stale, Err(SessionError::Stale { lag: Some(_) })), "{stale:?}");
    assert_eq!(begun.elapsed(), SECOND);
    let waiting = tokio::spawn(async move { there_client.at_least(second, LONG).await });
    hub.heal();
    assert_eq!(waiting.await.unwrap(), Ok(()));
    assert!(there.store.get(b"second").is_some());
    assert_eq!(here.handle.client().at_least(second, Duration::ZERO).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_died_with_its_node_is_lost_once_the_node_is_back() {
    let hub = Hub::new();
    let [here, there, _ap] = three(&hub, |_| ()).await;
    hub.isolate(node("us-east"));
    let token = here.put("k");
    let client = there.handle.client();
    assert!(matches!(client.at_least(token, SECOND).await, Err(SessionError::Stale { .. })));
    drop(here);
    let waiting = tokio::spawn(async move { client.at_least(token, LONG).await });
    hub.heal();
    let back = run("us-east", hub.join(node("us-east")), |config| config.replica.bootstrap = false).await;
    back.until("ready", |_, status| status.ready).await;
    assert_eq!(waiting.await.unwrap(), Err(SessionError::Lost));
    assert_eq!(back.handle.client().at_least(token, LONG).await, Err(SessionError::Lost));
}

/// The first heartbeat of a node that had listened was taken for a frame of records, and confirmed all that was written
/// before.
#[tokio::test(start_paused = true)]
async fn a_write_before_the_node_s_first_word_is_not_called_published_for_a_heartbeat() {
    let hub = Hub::new();
    let [_us, _eu, _ap] = three(&hub, |_| ()).await;
    let late = run("eu-west", hub.join(node("eu-west")), |config| config.replica.bootstrap = false).await;
    let client = late.handle.client();
    let early = late.put("early");
    late.until("it has spoken", |_, status| status.peers.iter().any(|peer| peer.rtt_ms.is_some())).await;
    let receipt = client.receipt(early, WriteConcern::Published, Duration::ZERO).await;
    assert_eq!(receipt.published, receipt.have.len() > 1, "{receipt:?}");
    late.until("ready", |_, status| status.ready).await;
    assert!(client.receipt(early, WriteConcern::All, LONG).await.reached);
    let later = late.put("later");
    assert_eq!(later.stream, early.stream, "a start alone begins no other life");
    assert!(client.receipt(later, WriteConcern::Published, LONG).await.published);
}

#[tokio::test(start_paused = true)]
async fn past_the_bound_a_caller_is_answered_at_once_and_counted() {
    let hub = Hub::new();
    let [here, _eu, _ap] = three(&hub, |config| config.waits_max = 2).await;
    hub.isolate(node("us-east"));
    let client = here.handle.client();
    let token = here.put("k");
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let client = client.clone();
        waiting.push(tokio::spawn(async move { client.receipt(token, WriteConcern::All, LONG).await }));
    }
    tokio::time::sleep(SECOND).await;
    let begun = Instant::now();
    let receipt = client.receipt(token, WriteConcern::All, LONG).await;
    assert!(!receipt.reached && receipt.published);
    assert!(matches!(client.at_least(unheard(), LONG).await, Err(SessionError::Stale { .. })));
    assert_eq!(client.fetch(vec!["k".into()], Hlc(0), LONG).await, Err(FetchError::Busy));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    here.until("counted", |_, status| status.counters.waits_refused == 3).await;

    // Whoever goes makes room.
    waiting.pop().unwrap().abort();
    let begun = Instant::now();
    let receipt = client.receipt(token, WriteConcern::All, SECOND).await;
    assert!(!receipt.reached);
    assert_eq!(begun.elapsed(), SECOND);
    hub.heal();
    assert!(waiting.pop().unwrap().await.unwrap().reached);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_frees_its_place() {
    let hub = Hub::new();
    let [here, _eu, _ap] = three(&hub, |config| config.waits_max = 1).await;
    hub.isolate(node("us-east"));
    let client = here.handle.client();
    let token = here.put("k");
    for _ in 0..10 {
        let begun = Instant::now();
        let wait = client.receipt(token, WriteConcern::All, LONG);
        assert!(tokio::time::timeout(SECOND, wait).await.is_err(), "it waits");
        let fetch = client.fetch(vec!["k".into(), "l".into()], Hlc(0), LONG).await;
        assert_eq!(fetch, Err(FetchError::Busy), "two keys are two places");
        assert_eq!(begun.elapsed(), SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_brings_what_the_nearest_ready_node_holds() {
    let hub = Hub::new();
    let [here, _eu, _ap] = three(&hub, |_| ()).await;
    here.put("k");
    let gate = |config: &mut NodeConfig| {
        config.replica.bootstrap = false;
        config.replica.sync_bytes_per_s = 1;
    };
    let late = run("eu-west", hub.join(node("eu-west")), gate).await;
    let client = late.handle.client();
    let alone = client.fetch(vec!["k".into()], Hlc(0), LONG).await;
    assert_eq!(alone, Err(FetchError::NobodyReady), "nobody was heard yet");
    let fetch = || client.fetch(vec!["k".into(), "absent".into()], Hlc(0), LONG);
    let mut fetched = fetch().await;
    while fetched == Err(FetchError::NobodyReady) {
        tokio::time::sleep(SECOND / 10).await;
        fetched = fetch().await;
    }
    let records = fetched.unwrap();
    let keys: Vec<&Bytes> = records.iter().map(|record| &record.key).collect();
    assert_eq!(keys, ["k"]);
    assert!(late.store.get(b"k").is_some(), "it is merged");
    let newer = records[0].stamp.hlc.0 + 1;
    assert_eq!(client.fetch(vec!["k".into()], Hlc(newer), LONG).await, Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_whose_answer_is_lost_ends_at_its_deadline() {
    let hub = Hub::new();
    let [here, _eu, _ap] = three(&hub, |_| ()).await;
    hub.cut(node("us-east"), Place::Everywhere);
    let begun = Instant::now();
    let fetched = here.handle.client().fetch(vec!["k".into()], Hlc(0), SECOND).await;
    assert_eq!(fetched, Err(FetchError::NoAnswer { waited: SECOND }));
    assert_eq!(begun.elapsed(), SECOND);
    here.until("asked twice", |_, status| status.counters.fetches_sent == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_fetch_whose_question_was_lost_is_answered_by_the_second() {
    let hub = Hub::new();
    let [here, there, _ap] = three(&hub, |_| ()).await;
    hub.cut(node("us-east"), Place::Everywhere);
    there.put("k");
    let client = here.handle.client();
    let fetching = tokio::spawn(async move { client.fetch(vec!["x".into()], Hlc(0), 2 * SECOND).await });
    tokio::time::sleep(SECOND / 2).await;
    hub.heal();
    assert_eq!(fetching.await.unwrap(), Ok(vec![]));
}
