//! Expiry on the real clock: reclaimed without access, in bounded steps, by a thread that ends with its cache.

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use cache_core::{Cache, Clock, Expiry};

/// Waits for a condition, at most a minute.
fn until(what: &str, condition: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        thread::yield_now();
    }
    began.elapsed()
}

#[test]
fn what_expired_is_reclaimed_without_access() {
    let cache: Cache<u32, u32> = Cache::builder().capacity(100_000).build().expect("a right configuration");
    let ttl = Expiry::After(Duration::from_millis(50));
    (0..20_000).for_each(|key| {
        cache.insert_with_expiry(key, key, ttl);
    });
    cache.insert(1_000_000, 1);
    until("only the entry without a lifetime is left", || cache.len() == 1);
    let stats = cache.stats();
    assert_eq!((stats.expirations, stats.hits + stats.misses), (20_000, 0));
    assert!(cache.contains(&1_000_000));
}

#[test]
fn an_entry_lives_no_longer_than_given_and_at_most_two_ticks_less() {
    let cache: Cache<u32, ()> = Cache::builder().capacity(10).build().expect("a right configuration");
    let ttl = Duration::from_millis(200);
    let began = Instant::now();
    cache.insert_with_expiry(1, (), Expiry::After(ttl));
    until("it is over", || !cache.contains(&1));
    // The lower bound is exact; the upper one is the scheduler's, so it is not asserted.
    assert!(began.elapsed() >= ttl - 2 * Clock::TICK, "{:?}", began.elapsed());
}

#[test]
fn a_listener_that_blocks_the_ticker_does_not_hold_the_time_up() {
    let (entered, has_entered) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let cache: Cache<u32, ()> = Cache::builder()
        .capacity(10)
        .listener(move |key: &u32, (), _| {
            if *key == 0 {
                entered.send(thread::current().id()).expect("the test waits");
                let _ = released.lock().expect("nobody panics").recv();
            }
        })
        .build()
        .expect("a right configuration");
    cache.insert_with_expiry(0, (), Expiry::After(Clock::TICK));
    let blocked = has_entered.recv_timeout(Duration::from_secs(60)).expect("nobody but the ticker meets it");
    assert_ne!(blocked, thread::current().id());
    // Two lifetimes, one after the other, end while the ticker's thread is in the listener.
    for key in [1, 2] {
        let began = Instant::now();
        cache.insert_with_expiry(key, (), Expiry::After(5 * Clock::TICK));
        until("it is over for a reader", || cache.get(&key).is_none());
        assert!(began.elapsed() >= 3 * Clock::TICK);
    }
    drop(release);
    until("the ticker goes on", || cache.is_empty());
}

#[test]
fn the_last_handle_ends_the_threads_and_drops_the_values() {
    let value = Arc::new(());
    let cache: Cache<u32, Arc<()>> = Cache::builder().capacity(10).build().expect("a right configuration");
    let other = cache.clone();
    cache.insert(1, Arc::clone(&value));
    cache.insert_with_expiry(2, Arc::clone(&value), Expiry::After(Clock::TICK));
    until("the thread has swept", || cache.len() == 1);
    drop(cache);
    assert!(other.get(&1).is_some());
    drop(other);
    until("the values are dropped", || Arc::strong_count(&value) == 1);
}
