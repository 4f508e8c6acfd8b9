//! What the callers that wait for one load share with the one that leads it.

use event_listener::{Event, EventListener};

use crate::sync::Mutex;

/// Made by the first caller that waits; a load that nobody waits for has none.
pub(crate) struct Flight<V> {
    state: Mutex<State<V>>,
    changed: Event,
}

enum State<V> {
    /// A loader is running.
    Led,
    /// The leader gave up. Whoever looks next leads.
    Vacant,
    /// The value is there, for all who waited.
    Landed(V),
    /// No value will come: whoever waited has to ask the cache again.
    Closed,
}

/// What somebody who waits sees in passing.
pub(crate) enum Sight<V> {
    /// Wait.
    Led,
    /// The flight was vacant and is now led by the one who looked.
    Taken,
    Landed(V),
    Closed,
}

impl<V> Flight<V> {
    pub(crate) fn new() -> Self {
        Flight { state: Mutex::new(State::Led), changed: Event::new() }
    }

    /// To be asked for *before* [`look`](Self::look): what changes after the look then wakes the listener.
    pub(crate) fn listen(&self) -> EventListener {
        self.changed.listen()
    }

    /// How things stand. A vacant flight is taken by whoever looks.
    pub(crate) fn look(&self) -> Sight<V>
    where
        V: Clone,
    {
        let mut state = self.state.lock();
        match &*state {
            State::Led => Sight::Led,
            State::Vacant => {
                *state = State::Led;
                Sight::Taken
            }
            State::Landed(value) => Sight::Landed(value.clone()),
            State::Closed => Sight::Closed,
        }
    }

    pub(crate) fn is_vacant(&self) -> bool {
        matches!(*self.state.lock(), State::Vacant)
    }

    /// The leader gives up, and leaves the flight to whoever looks next. [`wake_one`](Self::wake_one) is to follow, after unlocking.
    pub(crate) fn vacate(&self) {
        *self.state.lock() = State::Vacant;
    }

    /// Wakes somebody who waits. One that is dropped in between hands the call on to the next.
    pub(crate) fn wake_one(&self) {
        self.changed.notify(1);
    }

    pub(crate) fn land(&self, value: V) {
        self.end(State::Landed(value));
    }

    pub(crate) fn close(&self) {
        self.end(State::Closed);
    }

    fn end(&self, state: State<V>) {
        *self.state.lock() = state;
        self.changed.notify(usize::MAX);
    }
}
