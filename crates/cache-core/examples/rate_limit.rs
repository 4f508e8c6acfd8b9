//! A limit of calls per client and minute, decided and counted under one lock, from many threads.
//!
//! `cargo run --package cache-core --example rate_limit` ends at once.

use std::{thread, time::Duration};

use cache_core::{Cache, ConfigError, Expiry, Verdict};

const CALLS_MAX: u32 = 100;
const WINDOW: Duration = Duration::from_secs(60);

/// Whether a client may make one more call in its present window.
fn admits(calls: &Cache<String, u32>, client: &str) -> bool {
    calls.upsert(client, str::to_owned, |slot, ()| match slot.value {
        // The window began with the first call: it keeps its deadline.
        Some(count) if *count < CALLS_MAX => {
            *count += 1;
            (Verdict::Update(Expiry::Keep), true)
        }
        Some(_) => (Verdict::Keep, false),
        None => (Verdict::Replace(1, Expiry::After(WINDOW)), true),
    })
}

fn main() -> Result<(), ConfigError> {
    // However many clients there are, the limit takes no more memory than this. A client that was forgotten begins anew.
    let calls = Cache::builder().capacity(10_000).build()?;
    let admitted: usize = thread::scope(|scope| {
        let clients: Vec<_> =
            (0..8).map(|_| scope.spawn(|| (0..50).filter(|_| admits(&calls, "192.0.2.7")).count())).collect();
        clients.into_iter().map(|client| client.join().expect("no client panics")).sum()
    });
    println!("{admitted} of 400 calls were admitted");
    assert_eq!(admitted, CALLS_MAX as usize);
    let left = calls.read("192.0.2.7", |_, left| left).flatten();
    println!("the next window begins in {left:?}");
    assert!(left.is_some_and(|left| left <= WINDOW));
    Ok(())
}
