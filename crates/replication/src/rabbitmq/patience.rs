//! A limit for answers on a slow link, where they come behind the frames that were sent before them.
//!
//! A broker that is silent for a whole limit is stuck. One whose frames go on coming is not: its answer is on the way,
//! behind as many frames as it may deliver ahead. So the limit begins again with each one received, to a bound. Without
//! frames in the way it is the plain limit, so that a stuck queue is noticed as soon as ever.

use std::{future::Future, pin::pin, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::{
    Shared,
    connection::{Blame, Failure, limited},
};

/// Nothing is waited for longer, whatever comes meanwhile.
pub(super) const PATIENCE_MAX: Duration = Duration::from_secs(60);

/// An operation beside a flow of frames.
pub(super) async fn patient<T>(
    shared: &Shared,
    what: &str,
    operation: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Failure> {
    let limit = shared.config.operation_timeout;
    let received = || shared.counters.received.count();
    let operation = limited(PATIENCE_MAX.max(limit), what, operation);
    match while_moving(limit, received, operation).await {
        Some(result) => result,
        None => {
            let reason = format!("no answer and no frame within {limit:?} to: {what}");
            Err(Failure { blame: Blame::Stuck, step: None, reason })
        }
    }
}

/// What the operation ends with, unless `progress` stood still for `limit`.
async fn while_moving<T>(
    limit: Duration,
    progress: impl Fn() -> u64,
    operation: impl Future<Output = T>,
) -> Option<T> {
    let mut operation = pin!(operation);
    loop {
        let seen = progress();
        match timeout_at(Instant::now() + limit, &mut operation).await {
            Ok(result) => return Some(result),
            Err(_) if progress() == seen => return None,
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::pending};

    use tokio::time::sleep;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn silence_ends_the_wait_at_its_limit() {
        let start = Instant::now();
        assert_eq!(while_moving(LIMIT, || 7, pending::<()>()).await, None);
        assert_eq!(start.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_come_prolong_it() {
        let count = Cell::new(0);
        let progress = || {
            count.set(count.get() + 1);
            count.get()
        };
        let answer = sleep(LIMIT * 4);
        assert_eq!(while_moving(LIMIT, progress, answer).await, Some(()));
    }
}
