//! Why a chain gave no value, link by link.

use std::{fmt, sync::Arc, time::Duration};

use crate::{CircuitOpen, DeadlineOver};

/// Why a chain gave no value.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use resilience::{Deadline, Fallback, Link};
/// let chain = Fallback::builder().link(Link::new("main", "refused")).link(Link::new("backup", "reset")).build()?;
/// let error = chain.ask(Deadline::never(), |turn| async move { Err::<(), _>(turn.link) }).await.unwrap_err();
/// assert_eq!(error.to_string(), "no link answered: main: refused; backup: reset");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FallbackError<E> {
    /// Each link was asked or skipped: back off.
    NoneAnswered(Vec<LinkFailure<E>>),
    /// The request itself was wrong, and no further link was asked: mend it.
    Refused {
        /// The link that said so.
        link: Arc<str>,
        /// What it said.
        error: E,
    },
}

/// Why one link gave no value.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use resilience::{Deadline, Fallback, FallbackError, Link, Reason};
/// let chain = Fallback::builder().link(Link::new("main", ())).build()?;
/// match chain.ask(Deadline::never(), |_| async { Err::<(), _>("down") }).await {
///     Err(FallbackError::NoneAnswered(failures)) => assert_eq!(failures[0].reason, Reason::Failed("down")),
///     other => panic!("{other:?}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkFailure<E> {
    /// The link's name.
    pub link: Arc<str>,
    /// Its reason.
    pub reason: Reason<E>,
}

/// What kept a link from answering.
///
/// ```
/// assert_eq!(resilience::Reason::Failed("connection reset").to_string(), "connection reset");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason<E> {
    /// It was asked and failed.
    Failed(E),
    /// It was not asked, its circuit being open.
    Open(CircuitOpen),
    /// It did not answer within its time, or there was none left to ask it.
    TimedOut(DeadlineOver),
}

impl<E> FallbackError<E> {
    /// When to ask again at the earliest: the shortest wait of the open circuits, if nothing but open circuits kept
    /// the chain from answering.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use resilience::{CircuitBreaker, Deadline, Fallback, Link};
    /// let breaker = CircuitBreaker::builder().consecutive_failures(1).build()?;
    /// let chain = Fallback::builder().link(Link::new("main", ()).breaker(breaker)).build()?;
    /// let ask = || chain.ask(Deadline::never(), |_| async { Err::<(), _>("down") });
    /// assert_eq!(ask().await.unwrap_err().retry_after(), None, "it was asked");
    /// assert!(ask().await.unwrap_err().retry_after().is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn retry_after(&self) -> Option<Duration> {
        let Self::NoneAnswered(failures) = self else { return None };
        let waits = failures.iter().map(|failure| match &failure.reason {
            Reason::Open(open) => Some(open.retry_after),
            Reason::Failed(_) | Reason::TimedOut(_) => None,
        });
        waits.collect::<Option<Vec<_>>>()?.into_iter().min()
    }
}

impl<E: fmt::Display> fmt::Display for Reason<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::Open(open) => open.fmt(f),
            Self::TimedOut(over) => over.fmt(f),
        }
    }
}

impl<E: fmt::Display> fmt::Display for FallbackError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { link, error } => write!(f, "{link} refused the request: {error}"),
            Self::NoneAnswered(failures) => {
                f.write_str("no link answered")?;
                for (at, LinkFailure { link, reason }) in failures.iter().enumerate() {
                    write!(f, "{} {link}: {reason}", if at == 0 { ":" } else { ";" })?;
                }
                Ok(())
            }
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for FallbackError<E> {
    /// The error of the last link that was asked, or of the one that refused.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused { error, .. } => Some(error),
            Self::NoneAnswered(failures) => failures.iter().rev().find_map(|failure| match &failure.reason {
                Reason::Failed(error) => Some(error as &(dyn std::error::Error + 'static)),
                Reason::Open(_) | Reason::TimedOut(_) => None,
            }),
        }
    }
}
