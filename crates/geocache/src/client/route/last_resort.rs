//! Who may ask a region against its breaker's word.
//!
//! Where no region answers, the fault may well be on the client's side, and one that was put out may be back: to refuse every call until
//! the first breaker's wait ends would make an outage of a second one of a minute. So one call at a time may try, and not sooner
//! than [`PAUSE`] after the one before it ended: what a region that is truly gone gets is a few calls a second, however many ask.

use std::{
    fmt,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::now;

/// How long after one try the next may begin.
pub(super) const PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    busy: bool,
    ended: Option<Instant>,
}

impl Gate {
    /// A turn, if nobody has it and none ended just before.
    pub(super) fn enter(&self, now: Instant) -> Option<LastResort<'_>> {
        let mut state = self.state.lock();
        let rested = state.ended.is_none_or(|ended| now.saturating_duration_since(ended) >= PAUSE);
        if state.busy || !rested {
            return None;
        }
        state.busy = true;
        Some(LastResort { gate: self })
    }
}

/// The turn of one call; it ends when this is dropped.
pub(super) struct LastResort<'a> {
    gate: &'a Gate,
}

impl Drop for LastResort<'_> {
    fn drop(&mut self) {
        *self.gate.state.lock() = State { busy: false, ended: Some(now()) };
    }
}

impl fmt::Debug for LastResort<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LastResort")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_tries_at_a_time_and_the_next_after_a_pause() {
        let gate = Gate::default();
        let turn = gate.enter(now()).expect("nobody has it");
        assert!(gate.enter(now()).is_none());
        drop(turn);
        assert!(gate.enter(now()).is_none());
        tokio::time::advance(PAUSE).await;
        assert!(gate.enter(now()).is_some());
    }
}
