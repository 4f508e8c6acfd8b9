//! A store of sessions: bounded by bytes, each session alive for as long as it is used, and somebody who hears of those that end.
//!
//! `cargo run --package cache-core --example sessions` ends at once: the clock is a manual one, as in a test.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cache_core::{Cache, Cause, ConfigError, Expiry, ManualClock};

/// How long a session lives without being used.
const IDLE: Duration = Duration::from_secs(30 * 60);

#[derive(Debug, Clone)]
struct Session {
    user: &'static str,
    basket: Vec<String>,
}

fn weight(token: &String, session: &Session) -> u64 {
    let basket: usize = session.basket.iter().map(|item| item.capacity() + size_of::<String>()).sum();
    (token.capacity() + size_of::<Session>() + basket) as u64
}

fn main() -> Result<(), ConfigError> {
    let (clock, ended) = (ManualClock::new(), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&ended);
    let sessions: Cache<String, Session> = Cache::builder()
        .weight_capacity(1 << 20)
        .weigher(weight)
        .default_ttl(IDLE)
        .clock(clock.clone())
        .listener(move |token, session: &Session, cause| {
            if matches!(cause, Cause::Expired | Cause::Evicted) {
                println!("{token}: the session of {} ended ({cause:?})", session.user);
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
        .build()?;

    for (token, user) in [("t-1", "ada"), ("t-2", "grace"), ("t-3", "ada")] {
        sessions.insert(token.to_owned(), Session { user, basket: Vec::new() });
    }

    // A request: found by a borrowed token, changed in its place, and alive for another half hour.
    clock.advance(IDLE / 2);
    let items = sessions.update_with_expiry("t-2", Expiry::Default, |session| {
        session.basket.push("book".to_owned());
        session.basket.len()
    });
    println!("t-2 has {items:?} item in the basket; the sessions weigh {} bytes", sessions.weight());

    // Nobody used the others; what is over is never shown, whether it was reclaimed by then or not.
    clock.advance(IDLE / 2);
    assert!(sessions.get("t-1").is_none());
    sessions.sweep();
    assert_eq!((sessions.len(), ended.load(Ordering::Relaxed)), (1, 2));

    // Who is here, the most recently used first; the loop may take its time.
    for (token, session) in &sessions {
        println!("{token}: {} with {:?}", session.user, session.basket);
    }

    // One who logs out everywhere.
    assert_eq!(sessions.retain(|_, session| session.user != "grace"), 1);
    println!("{:#?}", sessions.stats());
    Ok(())
}
