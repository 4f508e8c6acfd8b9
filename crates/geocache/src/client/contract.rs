//! What every [`Endpoint`] must do, as a suite that any implementation can run.
//!
//! [`holds`] runs every clause on one endpoint, which it empties, and panics with the clause's name where one is broken. The clauses ask
//! for what the trait promises and no more: a life may be rounded by a second, a compare-and-set number may be any, listing keys may
//! not be offered, keys are of 180 bytes at most. How an endpoint behaves whose server is gone, slow or mad is for its own tests to say.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use geocache::{GeoCache, client::contract};
//!
//! contract::holds(Arc::new(GeoCache::builder().build().await?)).await;
//! # Ok(())
//! # }
//! ```

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;

use super::{Endpoint, EndpointError};
use crate::{
    read::Item,
    store::Outcome,
    value::Codec,
    write::{Expect, TimeToLive, Write},
};

const MINUTE: Duration = Duration::from_secs(60);
/// More than a month: memcached's protocol turns such lives into absolute times.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// By how much a life may be off: whole seconds, and a slow machine.
const SLACK: Duration = Duration::from_secs(30);
/// Until then a listing has to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs every clause. The endpoint is this call's alone meanwhile, and is emptied.
///
/// # Panics
/// Where a clause does not hold; the message begins with `endpoint contract` and the clause's name.
pub async fn holds(endpoint: Arc<dyn Endpoint>) {
    let endpoint = &endpoint;
    done("clear", endpoint.clear().await);
    what_is_written_is_read(&**endpoint).await;
    several_keys_are_answered_in_their_order(&**endpoint).await;
    a_write_is_judged_and_made_in_one_step(&**endpoint).await;
    a_remove_is_judged(&**endpoint).await;
    a_value_lives_as_long_as_it_was_given(&**endpoint).await;
    a_life_can_be_kept(&**endpoint).await;
    a_touch_gives_a_new_life(&**endpoint).await;
    codecs_and_flags_come_back_as_they_went(&**endpoint).await;
    keys_may_have_any_bytes(&**endpoint).await;
    a_key_out_of_bounds_is_refused_and_harms_nobody(&**endpoint).await;
    compare_and_set_loses_no_update(endpoint).await;
    a_dropped_calls_answer_reaches_nobody(endpoint).await;
    its_life_is_one_while_it_lives(&**endpoint).await;
    keys_are_listed_where_they_can_be(&**endpoint).await;
    a_clear_forgets_what_was_there_and_nothing_later(&**endpoint).await;
}

#[track_caller]
fn done<T>(clause: &str, outcome: Result<T, EndpointError>) -> T {
    outcome.unwrap_or_else(|error| panic!("endpoint contract: {clause}: {error}"))
}

#[track_caller]
fn same<T: PartialEq + std::fmt::Debug>(clause: &str, got: &T, wanted: &T) {
    assert!(got == wanted, "endpoint contract: {clause}: got {got:?}, not {wanted:?}");
}

fn of(bytes: &[u8]) -> Write {
    Write { bytes: Bytes::copy_from_slice(bytes), ttl: TimeToLive::Never, ..Write::default() }
}

fn living(bytes: &[u8], ttl: impl Into<TimeToLive>) -> Write {
    Write { ttl: ttl.into(), ..of(bytes) }
}

/// Stores a value, whatever is there, and gives its number.
async fn put(clause: &str, endpoint: &dyn Endpoint, key: &[u8], write: Write) -> u64 {
    match done(clause, endpoint.write(key, write, Expect::Any).await) {
        Outcome::Done { cas } => cas,
        other => panic!("endpoint contract: {clause}: a write without a condition came to {other:?}"),
    }
}

async fn item(clause: &str, endpoint: &dyn Endpoint, key: &[u8]) -> Item {
    let item = done(clause, endpoint.get(key).await);
    item.unwrap_or_else(|| panic!("endpoint contract: {clause}: the value is not there"))
}

async fn what_is_written_is_read(endpoint: &dyn Endpoint) {
    let clause = "what_is_written_is_read";
    same(clause, &done(clause, endpoint.get(b"read:none").await), &None);
    let large = vec![b'x'; 512 * 1024];
    for bytes in [&b"plain"[..], b"", b"\r\nEN\r\n\x00\xff", &large] {
        put(clause, endpoint, b"read", of(bytes)).await;
        let item = item(clause, endpoint, b"read").await;
        assert!(
            item.bytes == bytes,
            "endpoint contract: {clause}: {} bytes came back otherwise",
            bytes.len()
        );
        same(clause, &(item.flags, item.codec, item.left), &(0, Codec::Raw, None));
    }
}

async fn several_keys_are_answered_in_their_order(endpoint: &dyn Endpoint) {
    let clause = "several_keys_are_answered_in_their_order";
    same(clause, &done(clause, endpoint.get_many(&[]).await).len(), &0);
    // More than an endpoint is likely to ask for at once; each third is not there, and one comes twice.
    let mut keys: Vec<_> = (0..1_200).map(|number| Bytes::from(format!("many:{number}"))).collect();
    for (number, key) in keys.iter().enumerate().filter(|(number, _)| number % 3 != 0) {
        put(clause, endpoint, key, of(number.to_string().as_bytes())).await;
    }
    keys.push(keys[1].clone());
    let items = done(clause, endpoint.get_many(&keys).await);
    same(clause, &items.len(), &keys.len());
    for (number, item) in items.iter().enumerate() {
        let number = if number == 1_200 { 1 } else { number };
        let wanted = (number % 3 != 0).then(|| Bytes::from(number.to_string()));
        same(clause, &item.as_ref().map(|item| item.bytes.clone()), &wanted);
    }
}

async fn a_write_is_judged_and_made_in_one_step(endpoint: &dyn Endpoint) {
    let clause = "a_write_is_judged_and_made_in_one_step";
    let key = b"judged";
    let judged = async |write, expect| done(clause, endpoint.write(key, write, expect).await);
    same(clause, &judged(of(b"a"), Expect::Present).await, &Outcome::Missing);
    same(clause, &judged(of(b"a"), Expect::Cas(1)).await, &Outcome::Missing);
    let Outcome::Done { cas } = judged(of(b"a"), Expect::Absent).await else {
        panic!("endpoint contract: {clause}: an absent key was expected to be absent, and is not")
    };
    same(clause, &item(clause, endpoint, key).await.cas, &cas);
    same(clause, &judged(of(b"b"), Expect::Absent).await, &Outcome::Present);
    same(clause, &judged(of(b"b"), Expect::Cas(cas + 1)).await, &Outcome::Exists);
    same(clause, &item(clause, endpoint, key).await.bytes, &Bytes::from("a"));
    assert!(matches!(judged(of(b"c"), Expect::Cas(cas)).await, Outcome::Done { .. }), "{clause}");
    same(clause, &judged(of(b"d"), Expect::Cas(cas)).await, &Outcome::Exists);
    assert!(matches!(judged(of(b"e"), Expect::Present).await, Outcome::Done { .. }), "{clause}");
    same(clause, &item(clause, endpoint, key).await.bytes, &Bytes::from("e"));
}

async fn a_remove_is_judged(endpoint: &dyn Endpoint) {
    let clause = "a_remove_is_judged";
    let key = b"removed";
    let removed = async |expect| done(clause, endpoint.remove(key, expect).await);
    for expect in [Expect::Any, Expect::Present, Expect::Cas(1), Expect::Absent] {
        same(clause, &removed(expect).await, &Outcome::Missing);
    }
    let cas = put(clause, endpoint, key, of(b"a")).await;
    same(clause, &removed(Expect::Absent).await, &Outcome::Present);
    same(clause, &removed(Expect::Cas(cas + 1)).await, &Outcome::Exists);
    same(clause, &item(clause, endpoint, key).await.bytes, &Bytes::from("a"));
    for expect in [Expect::Cas(cas), Expect::Present, Expect::Any] {
        assert!(
            matches!(removed(expect).await, Outcome::Done { .. }),
            "endpoint contract: {clause}: {expect:?}"
        );
        same(clause, &done(clause, endpoint.get(key).await), &None);
        put(clause, endpoint, key, of(b"a")).await;
    }
}

#[track_caller]
fn lives(clause: &str, item: &Item, wanted: Duration) {
    let left = item.left.unwrap_or_else(|| panic!("endpoint contract: {clause}: it does not expire"));
    let is_near = left <= wanted + Duration::from_secs(2) && left + SLACK >= wanted;
    assert!(is_near, "endpoint contract: {clause}: {left:?} are left of {wanted:?}");
}

async fn a_value_lives_as_long_as_it_was_given(endpoint: &dyn Endpoint) {
    let clause = "a_value_lives_as_long_as_it_was_given";
    for life in [MINUTE, YEAR] {
        put(clause, endpoint, b"lives", living(b"a", life)).await;
        lives(clause, &item(clause, endpoint, b"lives").await, life);
    }
    put(clause, endpoint, b"lives", of(b"a")).await;
    same(clause, &item(clause, endpoint, b"lives").await.left, &None);
    put(clause, endpoint, b"lives", living(b"a", Duration::ZERO)).await;
    same(clause, &done(clause, endpoint.get(b"lives").await), &None);
    // Less than an endpoint may be able to measure is a life all the same, and not one without end.
    put(clause, endpoint, b"short", living(b"a", Duration::from_millis(20))).await;
    let item = done(clause, endpoint.get(b"short").await);
    assert!(item.is_none_or(|item| item.left.is_some()), "endpoint contract: {clause}: it lives for ever");
}

async fn a_life_can_be_kept(endpoint: &dyn Endpoint) {
    let clause = "a_life_can_be_kept";
    let keep = |bytes| living(bytes, TimeToLive::Keep);
    put(clause, endpoint, b"kept", living(b"a", MINUTE)).await;
    put(clause, endpoint, b"kept", keep(b"b")).await;
    let kept = item(clause, endpoint, b"kept").await;
    same(clause, &kept.bytes, &Bytes::from("b"));
    lives(clause, &kept, MINUTE);
    for (expect, wanted) in [(Expect::Absent, Outcome::Present), (Expect::Cas(kept.cas + 1), Outcome::Exists)]
    {
        same(clause, &done(clause, endpoint.write(b"kept", keep(b"c"), expect).await), &wanted);
    }
    for expect in [Expect::Cas(kept.cas), Expect::Present] {
        let outcome = done(clause, endpoint.write(b"kept", keep(b"d"), expect).await);
        assert!(matches!(outcome, Outcome::Done { .. }), "endpoint contract: {clause}: {outcome:?}");
        lives(clause, &item(clause, endpoint, b"kept").await, MINUTE);
    }
    put(clause, endpoint, b"kept:ever", of(b"a")).await;
    put(clause, endpoint, b"kept:ever", keep(b"b")).await;
    same(clause, &item(clause, endpoint, b"kept:ever").await.left, &None);
    for expect in [Expect::Present, Expect::Cas(1)] {
        same(
            clause,
            &done(clause, endpoint.write(b"kept:none", keep(b"a"), expect).await),
            &Outcome::Missing,
        );
    }
    put(clause, endpoint, b"kept:none", keep(b"a")).await;
    same(clause, &item(clause, endpoint, b"kept:none").await.bytes, &Bytes::from("a"));
}

async fn a_touch_gives_a_new_life(endpoint: &dyn Endpoint) {
    let clause = "a_touch_gives_a_new_life";
    let touch = async |ttl| done(clause, endpoint.touch(b"touched", ttl).await);
    same(clause, &touch(MINUTE.into()).await, &false);
    put(clause, endpoint, b"touched", of(b"a")).await;
    same(clause, &touch(MINUTE.into()).await, &true);
    lives(clause, &item(clause, endpoint, b"touched").await, MINUTE);
    same(clause, &touch(TimeToLive::Keep).await, &true);
    lives(clause, &item(clause, endpoint, b"touched").await, MINUTE);
    same(clause, &touch(TimeToLive::Never).await, &true);
    same(clause, &item(clause, endpoint, b"touched").await.left, &None);
    touch(Duration::ZERO.into()).await;
    same(clause, &done(clause, endpoint.get(b"touched").await), &None);
}

async fn codecs_and_flags_come_back_as_they_went(endpoint: &dyn Endpoint) {
    let clause = "codecs_and_flags_come_back_as_they_went";
    for codec in [Codec::Raw, Codec::MessagePack, Codec::Json, Codec::from_number(200)] {
        put(clause, endpoint, b"typed", Write { codec, ..of(b"1") }).await;
        let item = item(clause, endpoint, b"typed").await;
        same(clause, &(item.codec, item.flags), &(codec, 0));
    }
    for flags in [1, 0x4743_4300, u32::MAX] {
        put(clause, endpoint, b"flagged", Write { flags, ..of(b"1") }).await;
        let item = item(clause, endpoint, b"flagged").await;
        same(clause, &(item.codec, item.flags), &(Codec::Raw, flags));
    }
}

async fn keys_may_have_any_bytes(endpoint: &dyn Endpoint) {
    let clause = "keys_may_have_any_bytes";
    let any: Vec<u8> = (0..=u8::MAX).collect();
    let keys =
        [b" ".to_vec(), b"k\r\nflush_all".to_vec(), "Schlüssel".into(), any[..150].into(), any[150..].into()];
    for key in &keys {
        put(clause, endpoint, key, of(key)).await;
    }
    for key in &keys {
        same(clause, &item(clause, endpoint, key).await.bytes, &Bytes::copy_from_slice(key));
    }
    let many: Vec<_> = keys.iter().map(|key| Bytes::copy_from_slice(key)).collect();
    let items = done(clause, endpoint.get_many(&many).await);
    for (key, item) in many.iter().zip(items) {
        same(clause, &item.map(|item| item.bytes), &Some(key.clone()));
    }
    same(clause, &done(clause, endpoint.remove(&keys[0], Expect::Any).await), &Outcome::Done { cas: 0 });
    let long = [b'k'; 180];
    put(clause, endpoint, &long, of(b"a")).await;
    same(clause, &item(clause, endpoint, &long).await.bytes, &Bytes::from("a"));
}

async fn a_key_out_of_bounds_is_refused_and_harms_nobody(endpoint: &dyn Endpoint) {
    let clause = "a_key_out_of_bounds_is_refused_and_harms_nobody";
    put(clause, endpoint, b"bounds", of(b"a")).await;
    for key in [&b""[..], &[b'k'; 100_000]] {
        let refusals = [
            endpoint.get(key).await.map(drop),
            endpoint.get_many(&[Bytes::from("bounds"), Bytes::copy_from_slice(key)]).await.map(drop),
            endpoint.write(key, of(b"a"), Expect::Any).await.map(drop),
            endpoint.remove(key, Expect::Any).await.map(drop),
            endpoint.touch(key, MINUTE.into()).await.map(drop),
        ];
        for refusal in refusals {
            let is_inputs = refusal.as_ref().is_err_and(|error| !error.is_fault() && !error.may_be_done());
            assert!(is_inputs, "endpoint contract: {clause}: {} bytes: {refusal:?}", key.len());
        }
    }
    same(clause, &item(clause, endpoint, b"bounds").await.bytes, &Bytes::from("a"));
}

async fn compare_and_set_loses_no_update(endpoint: &Arc<dyn Endpoint>) {
    const WRITERS: u64 = 6;
    const UPDATES: u64 = 15;
    let clause = "compare_and_set_loses_no_update";
    put(clause, &**endpoint, b"counter", of(b"0")).await;
    let count = |item: &Item| std::str::from_utf8(&item.bytes).ok().and_then(|text| text.parse::<u64>().ok());
    let writers = (0..WRITERS).map(|_| {
        let endpoint = Arc::clone(endpoint);
        tokio::spawn(async move {
            for _ in 0..UPDATES {
                loop {
                    let seen = item(clause, &*endpoint, b"counter").await;
                    let next = count(&seen).unwrap_or_default() + 1;
                    let write = of(next.to_string().as_bytes());
                    let outcome =
                        done(clause, endpoint.write(b"counter", write, Expect::Cas(seen.cas)).await);
                    if matches!(outcome, Outcome::Done { .. }) {
                        break;
                    }
                    same(clause, &outcome, &Outcome::Exists);
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap_or_else(|error| panic!("endpoint contract: {clause}: {error}"));
    }
    same(clause, &count(&item(clause, &**endpoint, b"counter").await), &Some(WRITERS * UPDATES));
}

/// Calls are dropped after they were polled a few times: before they are sent, while their answer is awaited, while it comes.
async fn a_dropped_calls_answer_reaches_nobody(endpoint: &Arc<dyn Endpoint>) {
    let clause = "a_dropped_calls_answer_reaches_nobody";
    let large = vec![b'l'; 200_000];
    put(clause, &**endpoint, b"drop:large", of(&large)).await;
    for number in 0..50_u32 {
        put(clause, &**endpoint, format!("drop:{number}").as_bytes(), of(&number.to_be_bytes())).await;
    }
    for number in 0..50_u32 {
        let key = format!("drop:{number}");
        for dropped in [&b"drop:large"[..], b"drop:none", key.as_bytes()] {
            polled(endpoint.get(dropped), number % 7 + 1).await;
        }
        polled(endpoint.touch(b"drop:large", MINUTE.into()), number % 5 + 1).await;
        polled(endpoint.get_many(&[Bytes::from("drop:1"), Bytes::from("drop:large")]), number % 6 + 1).await;
        let item = item(clause, &**endpoint, key.as_bytes()).await;
        same(clause, &item.bytes, &Bytes::copy_from_slice(&number.to_be_bytes()));
        same(clause, &done(clause, endpoint.get(b"drop:none").await), &None);
    }
}

/// Drops a future once it was polled so often, or ends with it.
async fn polled<T>(future: impl Future<Output = T>, mut polls: u32) {
    let mut future = Box::pin(future);
    poll_fn(|context| {
        polls -= 1;
        if future.as_mut().poll(context).is_ready() || polls == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn its_life_is_one_while_it_lives(endpoint: &dyn Endpoint) {
    let clause = "its_life_is_one_while_it_lives";
    put(clause, endpoint, b"life", of(b"a")).await;
    let first = done(clause, endpoint.probe().await);
    let second = done(clause, endpoint.probe().await);
    same(clause, &first.life.incarnation, &second.life.incarnation);
    assert!(first.life.entries > 0, "endpoint contract: {clause}: it holds something, and says it does not");
    same(clause, &first.doubt, &None);
}

async fn keys_are_listed_where_they_can_be(endpoint: &dyn Endpoint) {
    let clause = "keys_are_listed_where_they_can_be";
    let mut written: Vec<Bytes> = (0..2_000).map(|number| format!("listed:{number}").into()).collect();
    written.push(Bytes::from_static(b"listed: \r\n\x00%41\xff"));
    for key in &written {
        put(clause, endpoint, key, of(b"a")).await;
    }
    put(clause, endpoint, b"listed:gone", of(b"a")).await;
    done(clause, endpoint.remove(b"listed:gone", Expect::Any).await);
    let mut keys = match endpoint.keys().await {
        Err(EndpointError::Unsupported { .. }) => return,
        keys => done(clause, keys),
    };
    let mut listed = std::collections::HashSet::new();
    let listing = async {
        while let Some(key) = keys.recv().await {
            listed.insert(done(clause, key));
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, listing).await.is_ok();
    assert!(in_time, "endpoint contract: {clause}: the listing did not end within {PATIENCE:?}");
    for key in &written {
        assert!(listed.contains(key), "endpoint contract: {clause}: {key:?} is not listed");
    }
    assert!(!listed.contains(&b"listed:gone"[..]), "endpoint contract: {clause}: a removed key is listed");
    // A listing that nobody reads to its end ends all the same, and is in nobody's way.
    for _ in 0..8 {
        drop(done(clause, endpoint.keys().await));
    }
    item(clause, endpoint, b"listed:1").await;
}

async fn a_clear_forgets_what_was_there_and_nothing_later(endpoint: &dyn Endpoint) {
    let clause = "a_clear_forgets_what_was_there_and_nothing_later";
    put(clause, endpoint, b"cleared", of(b"a")).await;
    done(clause, endpoint.clear().await);
    same(clause, &done(clause, endpoint.get(b"cleared").await), &None);
    put(clause, endpoint, b"cleared", of(b"b")).await;
    same(clause, &item(clause, endpoint, b"cleared").await.bytes, &Bytes::from("b"));
}
