//! One region's cache as a client reaches it: in this process, or a server elsewhere.
//!
//! An [`Endpoint`] moves bytes and judges nothing: which of several is asked, how long is waited, what a failure means for the next
//! call is the client's. So a user's own kind of server (another protocol, a pool of its own) is one small implementation.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use resilience::Life;
use tokio::sync::mpsc;

use crate::{
    error::Error,
    read::Item,
    store::Outcome,
    write::{Expect, TimeToLive, Write},
};

/// How a client reaches one region's cache.
///
/// **Who calls it.** A [`GeoClient`](crate::client::GeoClient), from any task, many calls at once.
///
/// **Cancel safety.** The client drops the future of a call whose time is over, or that another region answered first. What was sent
/// may then be done or not; calls that come later must not get its answer.
///
/// **Waits.** The client bounds each call; an endpoint adds no bound of its own but for what outlives a call, as connecting does.
#[async_trait]
pub trait Endpoint: fmt::Debug + Send + Sync + 'static {
    /// Where it is, as people are told: `in this process`, or an address. No password.
    fn address(&self) -> String;

    /// The value of a key as it is stored.
    ///
    /// # Errors
    /// An [`EndpointError`]. A key that is not there is no error.
    async fn get(&self, key: &[u8]) -> Result<Option<Item>, EndpointError>;

    /// The values of several keys, in their order.
    ///
    /// # Errors
    /// As [`get`](Self::get); one that fails fails all.
    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Item>>, EndpointError> {
        let mut items = Vec::with_capacity(keys.len());
        for key in keys {
            items.push(self.get(key).await?);
        }
        Ok(items)
    }

    /// Stores a value if the expectation holds, judged and done in one step at the endpoint. [`TimeToLive::Default`] is the endpoint's own.
    ///
    /// # Errors
    /// An [`EndpointError`]. Where it [may have been done](EndpointError::may_be_done), the value may be stored.
    async fn write(&self, key: &[u8], write: Write, expect: Expect) -> Result<Outcome, EndpointError>;

    /// Removes a key if the expectation holds.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    async fn remove(&self, key: &[u8], expect: Expect) -> Result<Outcome, EndpointError>;

    /// Gives a value a new life; says whether there was one.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    async fn touch(&self, key: &[u8], ttl: TimeToLive) -> Result<bool, EndpointError>;

    /// Forgets every key.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    async fn clear(&self) -> Result<(), EndpointError>;

    /// Whether it answers, and what it says of itself. Cheap: it is asked every few seconds.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    async fn probe(&self) -> Result<Pulse, EndpointError>;

    /// Lists the keys that it holds, in any order, as far as it can: a key that is written or gone meanwhile may be told or not. The list
    /// has ended well when the receiver ends without an error. Dropping the receiver ends the listing.
    ///
    /// # Errors
    /// [`EndpointError::Unsupported`] where it cannot list; as [`get`](Self::get).
    async fn keys(&self) -> Result<Keys, EndpointError> {
        Err(EndpointError::Unsupported { what: "listing keys" })
    }
}

/// A shared one, whichever kind it is.
#[async_trait]
impl Endpoint for Arc<dyn Endpoint> {
    fn address(&self) -> String {
        (**self).address()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Item>, EndpointError> {
        (**self).get(key).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Item>>, EndpointError> {
        (**self).get_many(keys).await
    }

    async fn write(&self, key: &[u8], write: Write, expect: Expect) -> Result<Outcome, EndpointError> {
        (**self).write(key, write, expect).await
    }

    async fn remove(&self, key: &[u8], expect: Expect) -> Result<Outcome, EndpointError> {
        (**self).remove(key, expect).await
    }

    async fn touch(&self, key: &[u8], ttl: TimeToLive) -> Result<bool, EndpointError> {
        (**self).touch(key, ttl).await
    }

    async fn clear(&self) -> Result<(), EndpointError> {
        (**self).clear().await
    }

    async fn probe(&self) -> Result<Pulse, EndpointError> {
        (**self).probe().await
    }

    async fn keys(&self) -> Result<Keys, EndpointError> {
        (**self).keys().await
    }
}

/// Keys as an endpoint lists them: at most [`KEYS_WAITING_MAX`] wait.
pub type Keys = mpsc::Receiver<Result<Bytes, EndpointError>>;

/// How many listed keys wait for whoever asked.
pub const KEYS_WAITING_MAX: usize = 1_024;

/// What an endpoint says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pulse {
    /// Which life it lives: another after a restart.
    pub life: Life,
    /// Why what it serves may be older than what other regions hold, where it knows.
    pub doubt: Option<Doubt>,
}

impl Pulse {
    /// One that knows of nothing that speaks against it.
    pub const fn new(life: Life) -> Self {
        Self { life, doubt: None }
    }

    /// With a doubt of its own.
    #[must_use]
    pub const fn doubt(self, doubt: Option<Doubt>) -> Self {
        Self { doubt, ..self }
    }
}

/// Why a value may be older than what another region holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Doubt {
    /// The node has not got the state of the others yet.
    Warming,
    /// The node hears none, or not all, of the others.
    CutOff,
    /// The node is known to be so far behind.
    Behind(Duration),
    /// It is a copy that may have missed writes: a backup, or a side that is being brought up to date.
    Copy,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Warming => f.write_str("warming"),
            Self::CutOff => f.write_str("cut off from other regions"),
            Self::Behind(lag) => write!(f, "{lag:?} behind"),
            Self::Copy => f.write_str("a copy that may have missed writes"),
        }
    }
}

/// Why an endpoint did not do what it was asked, by what the client does next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// It was not reached, or the connection broke, or it gave an answer that was none: ask another region.
    #[error("{address} was not reached: {reason}")]
    Unreachable {
        /// Where it is.
        address: String,
        /// What happened.
        reason: String,
        /// Whether what was asked for may have been done all the same.
        may_be_done: bool,
    },
    /// It answered that it cannot now: it is full, busy or shutting down. Ask another region.
    #[error("{address} refused: {reason}")]
    Refused {
        /// Where it is.
        address: String,
        /// What it said.
        reason: String,
    },
    /// What was asked for breaks a limit that other endpoints would have too: change it.
    #[error(transparent)]
    Input(#[from] Error),
    /// What was asked for breaks a limit of this server: change it, or raise the limit there.
    #[error("{address} does not take this: {reason}")]
    Rejected {
        /// Where it is.
        address: String,
        /// What it said.
        reason: String,
    },
    /// It does not offer this: use an endpoint that does.
    #[error("{what} is not offered by this kind of endpoint")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
    },
}

impl EndpointError {
    /// Whether it speaks against the endpoint, so that another should be asked and the breaker should count it.
    pub const fn is_fault(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Refused { .. })
    }

    /// Whether a change that ended so may have been made.
    pub const fn may_be_done(&self) -> bool {
        matches!(self, Self::Unreachable { may_be_done: true, .. })
    }
}
