//! Following the state of a circuit.

use std::sync::Arc;

use super::{signal::Signal, snapshot::State};

/// Follows the state of a circuit; made by [`CircuitBreaker::watch`](super::CircuitBreaker::watch).
///
/// It holds no queue: between two looks only the newest state is told, so a watcher that is slow costs nothing and
/// never holds the circuit up. It does not keep the breaker alive either, and ends with it.
///
/// ```
/// use resilience::{CircuitBreaker, State};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let breaker = CircuitBreaker::default();
/// let mut watch = breaker.watch();
/// let follower = tokio::spawn(async move {
///     let mut seen = Vec::new();
///     while let Some(state) = watch.changed().await {
///         seen.push(state);
///     }
///     seen
/// });
/// tokio::task::yield_now().await;
/// breaker.force_open();
/// tokio::task::yield_now().await;
/// breaker.reset();
/// tokio::task::yield_now().await;
/// drop(breaker);
/// assert_eq!(follower.await.unwrap(), [State::ForcedOpen, State::Closed]);
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Watch {
    signal: Arc<Signal>,
    /// The generation that was told last.
    generation: u64,
}

impl Watch {
    /// A watch to which everything up to now is known.
    pub(super) fn new(signal: Arc<Signal>) -> Self {
        let generation = signal.news().generation;
        Self { signal, generation }
    }

    /// The state as of now; of a breaker that is gone, its last.
    ///
    /// ```
    /// use resilience::{CircuitBreaker, State};
    ///
    /// let breaker = CircuitBreaker::default();
    /// let watch = breaker.watch();
    /// breaker.disable();
    /// assert_eq!(watch.state(), State::Disabled);
    /// ```
    pub fn state(&self) -> State {
        self.signal.news().state
    }

    /// Waits until the state has changed since the last look, or since the watch was made, and tells the present one.
    /// `None` once every handle and every permit of the breaker is gone.
    ///
    /// The state may be the one of the look before: there and back again is a change, and so is a
    /// [`reset`](super::CircuitBreaker::reset).
    ///
    /// # Cancel safety
    /// A change that a dropped future did not tell is told by the next.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let breaker = resilience::CircuitBreaker::default();
    /// let mut watch = breaker.watch();
    /// breaker.disable();
    /// assert_eq!(watch.changed().await, Some(resilience::State::Disabled));
    /// drop(breaker);
    /// assert_eq!(watch.changed().await, None);
    /// # }
    /// ```
    pub async fn changed(&mut self) -> Option<State> {
        loop {
            let news = self.signal.news();
            if news.generation != self.generation {
                self.generation = news.generation;
                return Some(news.state);
            }
            if news.over {
                return None;
            }
            self.signal.past(news.stirs).await;
        }
    }
}
