//! What only the inside shows: that nothing is left behind.

use std::{
    future::{Future, pending},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use super::*;
use crate::{Cause, ManualClock};

fn cache() -> Cache<u32, u32> {
    let built = Cache::builder().capacity(100).clock(ManualClock::new()).build();
    built.expect("a right configuration")
}

fn under_way<X: Sidecar<u32, u32>>(cache: &Cache<u32, u32, std::hash::RandomState, X>) -> usize {
    cache.inner().shards.iter().map(|shard| shard.0.lock().store.flights.len()).sum()
}

fn poll<F: Future + ?Sized>(future: &mut Pin<&mut F>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Is there at the second poll.
async fn later(value: u32) -> u32 {
    futures_lite::future::yield_now().await;
    value
}

#[test]
fn a_load_leaves_no_flight_behind() {
    let cache = cache();
    let inside = cache.get_or_insert_with(1, || under_way(&cache) as u32);
    assert_eq!((inside, under_way(&cache)), (1, 0));
    assert!(
        cache
            .try_get_or_insert_with(2, || Err::<u32, _>(under_way(&cache)))
            .is_err_and(|error| error == LoadError::Failed(1))
    );
    assert_eq!(under_way(&cache), 0);
    assert!(catch_unwind(AssertUnwindSafe(|| cache.get_or_insert_with(2, || panic!("as told")))).is_err());
    assert_eq!(under_way(&cache), 0);
}

#[test]
fn cancelled_callers_leave_no_trace_whoever_goes_first() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let cache = cache();
        let mut callers: Vec<Option<Pin<Box<_>>>> = Vec::new();
        for _ in 0..3 {
            let mut caller = Box::pin(cache.get_or_insert_async(1, pending()));
            assert!(poll(&mut caller.as_mut()).is_pending());
            callers.push(Some(caller));
        }
        assert_eq!((under_way(&cache), cache.stats().load_waits), (1, 2));
        for (left, caller) in order.into_iter().enumerate() {
            assert_eq!(under_way(&cache), 1, "{order:?}, {left} callers are gone");
            callers[caller] = None;
        }
        assert_eq!(under_way(&cache), 0, "{order:?}");
        let stats = cache.stats();
        assert_eq!(
            (stats.loads, stats.load_failures),
            (0, 1),
            "{order:?}: only the leader's loader had begun"
        );
    }
}

#[test]
fn a_vacant_flight_that_was_overtaken_is_led_by_nobody() {
    let cache = cache();
    let mut leader = Box::pin(cache.get_or_insert_async(1, pending()));
    assert!(poll(&mut leader.as_mut()).is_pending());
    let mut waits = pin!(cache.get_or_insert_async(1, async { 2 }));
    let mut waits_too = pin!(cache.get_or_insert_async(1, async { 3 }));
    assert!(poll(&mut waits).is_pending() && poll(&mut waits_too).is_pending());
    drop(leader);
    cache.insert(1, 10);
    assert_eq!(poll(&mut waits), Poll::Ready(10));
    assert_eq!(poll(&mut waits_too), Poll::Ready(10));
    assert_eq!((under_way(&cache), cache.stats().loads), (0, 0));
}

#[test]
fn a_large_table_of_flights_is_given_back() {
    let cache =
        Cache::<u32, u32>::builder().capacity(1_000).shards(1).clock(ManualClock::new()).build().unwrap();
    let mut loads: Vec<_> = (0..500).map(|key| Box::pin(cache.get_or_insert_async(key, pending()))).collect();
    loads.iter_mut().for_each(|load| assert!(poll(&mut load.as_mut()).is_pending()));
    assert_eq!(under_way(&cache), 500);
    drop(loads);
    assert!(cache.inner().shards[0].0.lock().store.flights.is_bare());
}

/// Panics when it hears of a victim, once it was armed.
struct Touchy(bool);

impl Sidecar<u32, u32> for Touchy {
    fn victim(&mut self, _: u64, _: &u32, _: &u32, _: Cause) {
        assert!(!self.0, "as told");
    }
}

#[test]
fn a_sidecar_that_panics_at_the_landing_wedges_nobody() {
    let cache =
        Cache::builder().capacity(1).clock(ManualClock::new()).sidecar(|| Touchy(true)).build().unwrap();
    cache.insert(7, 7);
    let mut leader = Box::pin(cache.get_or_insert_async(1, later(1)));
    assert!(poll(&mut leader.as_mut()).is_pending());
    let mut waits = pin!(cache.get_or_insert_async(1, async { 2 }));
    assert!(poll(&mut waits).is_pending());
    assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut leader.as_mut()))).is_err());
    assert_eq!(under_way(&cache), 0);
    cache.with_sidecars(|sidecar| sidecar.0 = false);
    assert_eq!(poll(&mut waits), Poll::Ready(2));
    assert_eq!((under_way(&cache), cache.peek(&1)), (0, Some(2)));
}
