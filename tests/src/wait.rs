//! Waiting for a condition, to a bound, and names that no other test uses.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// Polls `condition` until it holds, every 2 to 50 ms.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let start = std::time::Instant::now();
/// tests::wait_until("ten milliseconds pass", std::time::Duration::from_secs(5), async || {
///     start.elapsed().as_millis() >= 10
/// })
/// .await;
/// # });
/// ```
///
/// # Panics
/// When the condition still does not hold after `bound`, saying what was waited for. A condition that does not return
/// is cut off at the bound too.
#[track_caller]
pub fn wait_until<C>(what: &str, bound: Duration, condition: C) -> impl Future<Output = ()> + use<'_, C>
where
    C: AsyncFnMut() -> bool,
{
    let caller = std::panic::Location::caller();
    async move {
        let held = tokio::time::timeout(bound, poll(condition)).await.is_ok();
        assert!(held, "waited {bound:?} in vain until {what} ({caller})");
    }
}

async fn poll(mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        let pause = (start.elapsed() / 10).clamp(Duration::from_millis(2), Duration::from_millis(50));
        tokio::time::sleep(pause).await;
    }
}

/// A cache, region or node name that no other test uses, in this process or in another: `prefix-…` of `[a-z0-9-]`.
pub fn unique_name(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{:x}-{count:x}-{:06x}", std::process::id(), fastrand::u32(..0x100_0000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_that_comes_true_ends_the_wait() {
        let mut asked = 0;
        wait_until("it was asked three times", Duration::from_secs(5), async || {
            asked += 1;
            asked == 3
        })
        .await;
        assert_eq!(asked, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "in vain until pigs fly")]
    async fn a_condition_that_stays_false_panics_with_its_name() {
        wait_until("pigs fly", Duration::from_millis(20), async || false).await;
    }

    #[tokio::test]
    #[should_panic(expected = "in vain until an answer")]
    async fn a_condition_that_hangs_is_cut_off_at_the_bound() {
        wait_until("an answer", Duration::from_millis(20), async || std::future::pending().await).await;
    }

    #[test]
    fn unique_names_differ_and_keep_to_the_name_rule() {
        let (a, b) = (unique_name("cache"), unique_name("cache"));
        assert_ne!(a, b);
        assert!(
            a.len() <= 63 && a.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        );
    }
}
