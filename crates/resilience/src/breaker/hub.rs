//! What the handles and permits of one breaker share.

use std::{
    sync::Arc,
    task::Waker,
    time::{Duration, Instant},
};

use super::{
    lane::{Batch, Lanes},
    signal::{News, Signal},
    snapshot::State,
    state::Core,
    window::Uniform,
};
use crate::sync::{AtomicU64, Mutex, Ordering};

const STATE_BITS: u32 = 3;

/// The core under its lock, and what is known of it without.
#[derive(Debug)]
pub(super) struct Hub {
    /// The state's code in the lowest bits, the generation above: what an admission needs while every call passes.
    /// Written under the core's lock. One that is out of date admits a call with a generation that is out of date, as
    /// if it had come a moment earlier.
    word: AtomicU64,
    core: Mutex<Core>,
    pub(super) lanes: Lanes,
    pub(super) signal: Arc<Signal>,
}

impl Hub {
    /// `origin` is a time of about now.
    pub(super) fn new(core: Core, origin: Instant, slow_call_threshold: Option<Duration>) -> Self {
        let lanes = Lanes::new(origin, slow_call_threshold);
        lanes.turn(core.takes_batches());
        lanes.count_for(core.batch_lasts());
        let word = AtomicU64::new(packed(&core));
        let signal = Arc::new(Signal::new(news(&core)));
        Self { word, core: Mutex::new(core), lanes, signal }
    }

    /// The state and the generation.
    pub(super) fn published(&self) -> (State, u64) {
        let word = self.word.load(Ordering::Acquire);
        (State::of_code(word & ((1 << STATE_BITS) - 1)), word >> STATE_BITS)
    }

    /// Acts on a core that has heard of every success, and tells everyone what came of it.
    pub(super) fn act<T>(&self, act: impl FnOnce(&mut Core) -> T) -> T {
        let mut core = self.core.lock();
        if let Some(batch) = self.lanes.take() {
            core.succeeded(batch);
        }
        let (stirs, generation) = (core.stirs(), core.generation());
        let result = act(&mut core);
        let wakers = if core.stirs() == stirs { Vec::new() } else { self.publish(&mut core, generation) };
        self.lanes.count_for(core.batch_lasts());
        drop(core);
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    /// Told under the core's lock, so that news come in the order in which they happened.
    #[cold]
    fn publish(&self, core: &mut Core, generation_before: u64) -> Vec<Waker> {
        if core.generation() != generation_before {
            // Else a success of the next generation might see the end of a tenth of this one's window, and be counted
            // without the core, with which the first tenth of the next window begins.
            self.lanes.count_for(Uniform::Never);
            // What came since the core heard of all came just before it turned.
            if let Some(Batch { successes, .. }) = self.lanes.turn(core.takes_batches()) {
                core.credit(successes);
            }
            self.word.store(packed(core), Ordering::Release);
        }
        self.signal.tell(news(core))
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.signal.end();
    }
}

fn news(core: &Core) -> News {
    News { state: core.state(), generation: core.generation(), stirs: core.stirs(), over: false }
}

/// A generation of more than 48 bits, the least of which there is room for, would take longer than anything runs.
fn packed(core: &Core) -> u64 {
    core.generation() << STATE_BITS | core.state().code()
}
