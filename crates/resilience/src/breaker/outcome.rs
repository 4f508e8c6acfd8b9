//! How an admitted call ended.

use std::time::Duration;

/// How an admitted call ended, as the circuit sees it.
///
/// | | in the window | failures in a row | as a probe |
/// |---|---|---|---|
/// | `Success` | a call | ends them | one of those that close the circuit |
/// | `Failure` | a failed call | one more | opens the circuit again |
/// | `Overloaded` | an overloaded call | neither | opens the circuit again |
/// | `Ignored` | – | neither | frees its slot |
///
/// A permit that is dropped without an outcome counts as `Ignored` does, under a name of its own: *cancelled*.
///
/// ```
/// use std::time::Duration;
/// use resilience::Outcome;
///
/// /// An HTTP status: 4xx is the caller's fault, 429 and 503 ask for less.
/// fn classified(status: u16, retry_after: Option<Duration>) -> Outcome {
///     match status {
///         429 | 503 => Outcome::Overloaded { retry_after },
///         400..=499 => Outcome::Ignored,
///         500.. => Outcome::Failure,
///         _ => Outcome::Success,
///     }
/// }
/// assert_eq!(classified(404, None), Outcome::Ignored);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The callee did its work.
    Success,
    /// The call failed in a way that speaks against the callee: an error of its own, a connection lost, a timeout.
    Failure,
    /// The call ended in a way that says nothing about the callee's health, as when the request was wrong.
    Ignored,
    /// The callee is alive and asks for less.
    ///
    /// It opens the circuit by a rule of its own, [`overload_rate`](super::Builder::overload_rate), and never by the
    /// failures in a row: one refused call of many is how a callee defends itself, not an outage.
    Overloaded {
        /// When the callee wants to be asked again, from the call's end, if it said so. Should the circuit open, it
        /// stays open until then, or for [`open_wait_max`](super::Builder::open_wait_max) if that is shorter.
        retry_after: Option<Duration>,
    },
}

impl Outcome {
    /// `Ok` is a success, `Err` a failure: how [`CircuitBreaker::call`](super::CircuitBreaker::call) judges.
    ///
    /// ```
    /// use resilience::Outcome;
    ///
    /// assert_eq!(Outcome::of(&Ok::<_, &str>(7)), Outcome::Success);
    /// assert_eq!(Outcome::of(&Err::<u8, _>("down")), Outcome::Failure);
    /// ```
    pub fn of<T, E>(result: &Result<T, E>) -> Self {
        if result.is_ok() { Self::Success } else { Self::Failure }
    }
}
