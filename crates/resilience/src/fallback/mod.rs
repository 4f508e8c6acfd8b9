//! Asks the first of several that can answer, and says who it was.
//!
//! A [`Fallback`] is an ordered chain of links: the main cache, a copy, the origin. Each stands behind its own
//! [`CircuitBreaker`], so a link that is down costs nothing but the look at its breaker. The [`Answer`] says which
//! link gave it and whether it may be stale; when none does, the error lists each link's own reason.
//!
//! - A link that hangs must not eat the time of those behind it: each gets an equal share of what the deadline
//!   leaves, at most its *patience*.
//! - Not each error speaks against a link ([`Blame`]): a request that is wrong is wrong everywhere, and a miss is no
//!   fault at all but a sign of life, yet worth asking the next.
//! - What runs out of its time counts as a failure of the link: a link that hangs for callers in a hurry must open
//!   its breaker too. A link that would get less than the *least time* is not asked, and so not blamed.
//! - The links are asked one after the other, never at once: the chain adds no load where nothing is wrong.
//!
//! It only reads down a chain. Who may *write* where, and when to go back, is [`Failover`](crate::Failover)'s.
//!
//! ```
//! use std::{collections::HashMap, sync::Arc, time::Duration};
//! use resilience::{Deadline, Fallback, Link};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let copy = Arc::new(HashMap::from([("k", 7)]));
//! let chain = Fallback::builder()
//!     .link(Link::new("main", None))
//!     .link(Link::new("copy", Some(copy)).stale(true))
//!     .build()?;
//! let answer = chain
//!     .ask(Deadline::after(Duration::from_millis(200)), |turn| async move {
//!         turn.link.ok_or(std::io::Error::other("connection refused")).map(|map| map["k"])
//!     })
//!     .await?;
//! assert_eq!((answer.value, &*answer.served_by, answer.rank, answer.stale), (7, "copy", 1, true));
//! # Ok(())
//! # }
//! ```

mod error;

#[cfg(test)]
mod tests;

use std::{future::Future, sync::Arc, time::Duration};

use crate::{CircuitBreaker, Deadline, DeadlineOver, breaker::ConfigError, clock, setting::Check};

pub use error::{FallbackError, LinkFailure, Reason};

/// The longest chain; more than a few links are never asked within one deadline.
const LINKS_MAX: usize = 64;
/// The longest name of a link, in bytes.
const NAME_MAX: usize = 128;

/// An ordered chain of links, each behind its breaker. A clone shares the breakers.
///
/// `L` is what the operation needs to ask a link, most often a client; it is cloned for each question, so make it a
/// cheap handle.
///
/// ```
/// use resilience::{Fallback, Link};
/// let chain = Fallback::builder().link(Link::new("main", "10.0.0.1:11211")).build()?;
/// assert_eq!(chain.breaker("main").unwrap().snapshot().opened, 0);
/// # Ok::<(), resilience::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Fallback<L> {
    links: Arc<[Link<L>]>,
    patience: Duration,
    least: Duration,
}

/// One link of a [`Fallback`]: a name, what to ask, and its breaker.
///
/// ```
/// use std::time::Duration;
/// use resilience::{CircuitBreaker, Link};
///
/// let breaker = CircuitBreaker::builder().consecutive_failures(5).build()?;
/// let origin = Link::new("origin", "https://origin.example").breaker(breaker).patience(Duration::from_secs(3));
/// # let _ = origin;
/// # Ok::<(), resilience::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a link does nothing until it is part of a chain"]
pub struct Link<L> {
    name: Arc<str>,
    link: L,
    breaker: CircuitBreaker,
    patience: Option<Duration>,
    stale: bool,
}

impl<L> Link<L> {
    /// A link with a breaker of its own, whose settings are the defaults: 3 failures, 60 s.
    pub fn new(name: impl Into<Arc<str>>, link: L) -> Self {
        Self { name: name.into(), link, breaker: CircuitBreaker::default(), patience: None, stale: false }
    }

    /// Puts the link behind this breaker, which others may share.
    pub fn breaker(mut self, breaker: CircuitBreaker) -> Self {
        self.breaker = breaker;
        self
    }

    /// How long this link may take at most. Default: the chain's [`patience`](FallbackBuilder::patience).
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Whether all that this link says may be stale, as from a copy that lags. Default: no.
    pub fn stale(mut self, stale: bool) -> Self {
        self.stale = stale;
        self
    }
}

/// A link's turn to be asked.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use resilience::{Deadline, Fallback, Link};
/// let chain = Fallback::builder().link(Link::new("main", 3)).build()?;
/// let answer = chain.ask(Deadline::never(), |turn| async move {
///     assert!(!turn.deadline.is_over());
///     Ok::<_, std::io::Error>((turn.link, turn.rank))
/// });
/// assert_eq!(answer.await?.value, (3, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Turn<L> {
    /// What to ask.
    pub link: L,
    /// Its name.
    pub name: Arc<str>,
    /// Its place in the chain, 0 for the first.
    pub rank: usize,
    /// When this link's time is over; the chain drops the question then.
    pub deadline: Deadline,
}

/// What a link said, and whether that may be stale; see [`Fallback::ask_with`].
///
/// ```
/// use resilience::Reply;
/// assert_ne!(Reply::fresh(1), Reply::stale(1));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<T> {
    /// The value.
    pub value: T,
    /// Whether a newer one may exist.
    pub stale: bool,
}

impl<T> Reply<T> {
    /// A value that is as new as the link knows.
    pub fn fresh(value: T) -> Self {
        Self { value, stale: false }
    }

    /// A value that a newer one may exist of.
    pub fn stale(value: T) -> Self {
        Self { value, stale: true }
    }
}

/// A chain's answer.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use resilience::{Deadline, Fallback, Link};
/// let chain = Fallback::builder().link(Link::new("main", ())).build()?;
/// let answer = chain.ask(Deadline::never(), |_| async { Ok::<_, std::io::Error>("value") }).await?;
/// assert!(answer.rank == 0 && !answer.stale, "the first link gave it");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer<T> {
    /// The value.
    pub value: T,
    /// The name of the link that gave it.
    pub served_by: Arc<str>,
    /// That link's place in the chain, 0 for the first.
    pub rank: usize,
    /// Whether a newer value may exist: the link is marked so, or the reply was.
    pub stale: bool,
}

/// Whom an error speaks against.
///
/// ```
/// use std::io::{Error, ErrorKind};
/// use resilience::Blame;
///
/// let blame = |error: &Error| match error.kind() {
///     ErrorKind::NotFound => Blame::Nobody,
///     ErrorKind::InvalidInput => Blame::Caller,
///     _ => Blame::Link,
/// };
/// assert_eq!(blame(&ErrorKind::TimedOut.into()), Blame::Link);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The link: its breaker counts a failure, and the next is asked.
    Link,
    /// Nobody, as for a miss: the link is alive, so its breaker counts a success, and the next is asked.
    Nobody,
    /// The caller, as for a key that is too long: nothing is counted and no other is asked.
    Caller,
}

impl<L: Clone> Fallback<L> {
    /// Links and settings to choose before building.
    ///
    /// ```
    /// let error = resilience::Fallback::<()>::builder().build().unwrap_err();
    /// assert_eq!(error.to_string(), "fallback setting `link` was never given; a chain has 1 to 64");
    /// ```
    pub fn builder() -> FallbackBuilder<L> {
        FallbackBuilder {
            links: Vec::new(),
            patience: Duration::from_secs(1),
            least: Duration::from_millis(1),
        }
    }

    /// Asks the links in order until one answers. Each error speaks against its link.
    ///
    /// # Errors
    /// [`FallbackError::NoneAnswered`], with each link's reason.
    ///
    /// # Panics
    /// Outside a tokio runtime with its timer enabled.
    ///
    /// # Cancel safety
    /// Dropping this drops the question under way; its link's breaker counts nothing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use resilience::{Deadline, Fallback, Link};
    /// let chain = Fallback::builder().link(Link::new("main", false)).link(Link::new("backup", true)).build()?;
    /// let ask = |up: bool| async move { if up { Ok(1) } else { Err("refused") } };
    /// assert_eq!(chain.ask(Deadline::never(), |turn| ask(turn.link)).await.unwrap().rank, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ask<T, E, F: Future<Output = Result<T, E>>>(
        &self,
        deadline: Deadline,
        mut operation: impl FnMut(Turn<L>) -> F,
    ) -> Result<Answer<T>, FallbackError<E>> {
        let fresh = |turn| {
            let asked = operation(turn);
            async move { asked.await.map(Reply::fresh) }
        };
        self.ask_with(deadline, |_| Blame::Link, fresh).await
    }

    /// [`ask`](Self::ask), with a closure that says whom an error speaks against, and an operation that says of each
    /// reply whether it may be stale.
    ///
    /// # Errors
    /// [`FallbackError::NoneAnswered`], with each link's reason; [`FallbackError::Refused`] if an error was the
    /// caller's.
    ///
    /// # Panics
    /// Outside a tokio runtime with its timer enabled.
    ///
    /// # Cancel safety
    /// As [`ask`](Self::ask).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use resilience::{Blame, Deadline, Fallback, Link, Reply};
    /// let chain = Fallback::builder().link(Link::new("main", None)).link(Link::new("disk", Some(1))).build()?;
    /// let ask = |found: Option<u32>| async move { found.map(Reply::stale).ok_or("miss") };
    /// let answer = chain.ask_with(Deadline::never(), |_| Blame::Nobody, |turn| ask(turn.link)).await.unwrap();
    /// assert!(answer.stale && &*answer.served_by == "disk");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ask_with<T, E, F: Future<Output = Result<Reply<T>, E>>>(
        &self,
        deadline: Deadline,
        mut blame: impl FnMut(&E) -> Blame,
        mut operation: impl FnMut(Turn<L>) -> F,
    ) -> Result<Answer<T>, FallbackError<E>> {
        let mut failures = Vec::with_capacity(self.links.len());
        for (rank, link) in self.links.iter().enumerate() {
            let reason = match self.ask_one(rank, deadline, &mut blame, &mut operation).await {
                Ok(Reply { value, stale }) => {
                    let stale = stale || link.stale;
                    return Ok(Answer { value, served_by: link.name.clone(), rank, stale });
                }
                Err(Ending::Refused(error)) => {
                    return Err(FallbackError::Refused { link: link.name.clone(), error });
                }
                Err(Ending::Next(reason)) => reason,
            };
            failures.push(LinkFailure { link: link.name.clone(), reason });
        }
        Err(FallbackError::NoneAnswered(failures))
    }

    async fn ask_one<T, E, F: Future<Output = Result<Reply<T>, E>>>(
        &self,
        rank: usize,
        deadline: Deadline,
        blame: &mut impl FnMut(&E) -> Blame,
        operation: &mut impl FnMut(Turn<L>) -> F,
    ) -> Result<Reply<T>, Ending<E>> {
        let (link, now) = (&self.links[rank], clock::now());
        // Before the breaker is asked: a probe's slot is for a question that can be answered.
        let part = deadline
            .shared_at(now, (self.links.len() - rank) as u32)
            .capped_at(now, link.patience.unwrap_or(self.patience));
        if !part.allows_at(now, self.least) {
            let over = DeadlineOver { what: link.name.to_string().into(), waited: Duration::ZERO };
            return Err(Ending::Next(Reason::TimedOut(over)));
        }
        let permit = link.breaker.try_acquire_at(now).map_err(|open| Ending::Next(Reason::Open(open)))?;
        let turn = Turn { link: link.link.clone(), name: link.name.clone(), rank, deadline: part };
        match part.wait_for(link.name.to_string(), operation(turn)).await {
            Ok(Ok(reply)) => {
                permit.success();
                Ok(reply)
            }
            Ok(Err(error)) => match blame(&error) {
                Blame::Link => {
                    permit.failure();
                    Err(Ending::Next(Reason::Failed(error)))
                }
                Blame::Nobody => {
                    // It answered, only not with what was wanted: a sign of life as good as any.
                    permit.success();
                    Err(Ending::Next(Reason::Failed(error)))
                }
                Blame::Caller => {
                    permit.ignore();
                    Err(Ending::Refused(error))
                }
            },
            Err(over) => {
                permit.failure();
                Err(Ending::Next(Reason::TimedOut(over)))
            }
        }
    }

    /// The breaker of a link, by its name.
    ///
    /// ```
    /// # use resilience::{Fallback, Link};
    /// let chain = Fallback::builder().link(Link::new("main", ())).build()?;
    /// assert!(chain.breaker("main").is_some() && chain.breaker("other").is_none());
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn breaker(&self, name: &str) -> Option<&CircuitBreaker> {
        self.links.iter().find(|link| &*link.name == name).map(|link| &link.breaker)
    }

    /// The names of the links, in the order in which they are asked.
    ///
    /// ```
    /// # use resilience::{Fallback, Link};
    /// let chain = Fallback::builder().link(Link::new("main", 1)).link(Link::new("backup", 2)).build()?;
    /// assert!(chain.names().eq(["main", "backup"]));
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.links.iter().map(|link| &*link.name)
    }
}

/// How a link's turn ended without a value.
enum Ending<E> {
    Next(Reason<E>),
    Refused(E),
}

/// The links and settings of a [`Fallback`] to be; begin with [`Fallback::builder`].
///
/// ```
/// use std::time::Duration;
/// use resilience::{Fallback, Link};
///
/// let chain = Fallback::builder()
///     .patience(Duration::from_millis(250))
///     .link(Link::new("main", 1))
///     .link(Link::new("backup", 2))
///     .build()?;
/// # let _ = chain;
/// # Ok::<(), resilience::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct FallbackBuilder<L> {
    links: Vec<Link<L>>,
    patience: Duration,
    least: Duration,
}

impl<L: Clone> FallbackBuilder<L> {
    /// Adds a link behind those given before. From 1 to 64 links, with different names of 1 to 128 bytes.
    pub fn link(mut self, link: Link<L>) -> Self {
        self.links.push(link);
        self
    }

    /// How long a link may take that says nothing else. Default 1 s, above zero.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The time below which a link is not asked, since it could not answer. Default 1 ms, above zero.
    pub fn least_time(mut self, least: Duration) -> Self {
        self.least = least;
        self
    }

    /// The chain.
    ///
    /// # Errors
    /// A [`ConfigError`] that names the first setting that is wrong.
    pub fn build(self) -> Result<Fallback<L>, ConfigError> {
        let check = Check("fallback");
        check.duration("patience", self.patience)?;
        check.duration("least_time", self.least)?;
        if self.links.is_empty() {
            check.wrong("link", format!("was never given; a chain has 1 to {LINKS_MAX}"))?;
        }
        if self.links.len() > LINKS_MAX {
            check.wrong(
                "link",
                format!("was given {} times; a chain has 1 to {LINKS_MAX}", self.links.len()),
            )?;
        }
        for (rank, link) in self.links.iter().enumerate() {
            if link.name.is_empty() || link.name.len() > NAME_MAX {
                let bytes = link.name.len();
                check.wrong("link", format!("{rank} has a name of {bytes} bytes; use 1 to {NAME_MAX}"))?;
            }
            if self.links[..rank].iter().any(|other| other.name == link.name) {
                check.wrong(
                    "link",
                    format!("{rank} is named {:?}, as another; use different names", link.name),
                )?;
            }
            let patience = link.patience.unwrap_or(self.patience);
            check.duration("patience", patience)?;
            if patience <= self.least {
                let problem = format!("of {:?} is {patience:?}, not above `least_time`", link.name);
                check.wrong("patience", problem)?;
            }
        }
        Ok(Fallback { links: self.links.into(), patience: self.patience, least: self.least })
    }
}
