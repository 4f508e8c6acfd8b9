//! What decides where a client's calls go.
//!
//! A client is typed on the outside and has one engine inside, which moves bytes: one that sends each call to the closest healthy
//! region, for nodes that replicate by themselves, or one that writes each copy itself, for servers that do not.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use geo::RegionId;

use super::{Doubt, EndpointError, Mirror, Routes};
use crate::{
    error::Error,
    read::Item,
    store::Outcome,
    write::{Expect, TimeToLive, Write},
};

/// Decides where calls go, and makes them. Every call is bounded in time by the engine.
#[async_trait]
pub(crate) trait Engine: fmt::Debug + Send + Sync + 'static {
    async fn get(&self, key: &[u8]) -> Result<Served<Option<Item>>, ClientError>;

    /// As the region holds it that changes of it are judged at.
    async fn get_leading(&self, key: &[u8]) -> Result<Served<Option<Item>>, ClientError> {
        self.get(key).await
    }

    /// In the order of the keys.
    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Served<Option<Item>>>, ClientError>;

    /// With a region it is made there or not at all: what is expected was seen there, and may mean something else elsewhere, as a
    /// compare-and-set number does. Where that region does not take changes now, the outcome is [`Outcome::Exists`], as if another
    /// writer had been faster, or an error that says that nothing was done.
    async fn write(
        &self,
        key: &[u8],
        write: Write,
        expect: Expect,
        at: Option<&RegionId>,
    ) -> Result<Served<Outcome>, ClientError>;

    /// As [`write`](Self::write).
    async fn remove(
        &self,
        key: &[u8],
        expect: Expect,
        at: Option<&RegionId>,
    ) -> Result<Served<Outcome>, ClientError>;

    async fn touch(&self, key: &[u8], ttl: TimeToLive) -> Result<Served<bool>, ClientError>;

    async fn clear(&self) -> Result<Served<()>, ClientError>;

    /// How the regions stand, of an engine that sends calls to the closest one.
    fn routes(&self) -> Option<&Routes> {
        None
    }

    /// The operator's side, of an engine that keeps servers alike.
    fn mirror(&self) -> Option<Mirror> {
        None
    }

    /// Ends the engine's tasks; what it owes other regions is brought there, until the deadline.
    async fn close(&self, deadline: Duration);
}

/// An answer, and who gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Served<T> {
    /// The answer.
    pub value: T,
    /// The region that gave it.
    pub region: RegionId,
    /// Why it may be older than what another region holds, where that is known. `None` promises no more than that nothing is
    /// known to speak against it: a write elsewhere takes the lag to arrive.
    pub doubt: Option<Doubt>,
    /// How many regions were asked, this one included.
    pub asked: u32,
}

impl<T> Served<T> {
    pub(crate) const fn new(value: T, region: RegionId) -> Self {
        Self { value, region, doubt: None, asked: 1 }
    }

    /// Whether it may be older than what another region holds, as far as is known.
    pub const fn may_be_stale(&self) -> bool {
        self.doubt.is_some()
    }

    pub(crate) fn map<U>(self, map: impl FnOnce(T) -> U) -> Served<U> {
        Served { value: map(self.value), region: self.region, doubt: self.doubt, asked: self.asked }
    }
}

/// Why a client's call failed, by what the caller does next. What is stored anywhere stays stored.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The key, the value or its type is wrong: change it.
    #[error(transparent)]
    Input(Arc<Error>),
    /// A server does not take this: change it, or the server's limits.
    #[error("{region}: {reason}")]
    Rejected {
        /// The region.
        region: RegionId,
        /// What its server said.
        reason: String,
    },
    /// No region answered: try again later, no sooner than told.
    #[error("no region answered{}", list(failures))]
    Unavailable {
        /// Those that were asked or left out, in that order, and what came of it.
        failures: Vec<(RegionId, String)>,
        /// When one of them may be asked again, where that is known.
        retry_after: Option<Duration>,
        /// Whether a change may have been made somewhere all the same.
        may_be_done: bool,
    },
    /// Other writers changed the key before each of the tries: try again later.
    #[error("the key changed under each of {tries} tries to update it; try again")]
    Contended {
        /// How often the update was tried.
        tries: u32,
    },
    /// A compare-and-set number counts in the region that gave it: say which, with [`write_at`](super::GeoClient::write_at) or
    /// [`remove_at`](super::GeoClient::remove_at).
    #[error("a compare-and-set number was given without the region that gave it; use write_at or remove_at")]
    Unplaced,
    /// The client was closed: make another.
    #[error("the client is closed")]
    Closed,
}

impl From<Error> for ClientError {
    fn from(error: Error) -> Self {
        Self::Input(Arc::new(error))
    }
}

impl ClientError {
    /// What an endpoint's error is to the caller, where asking another region would not help.
    pub(crate) fn of(region: &RegionId, error: EndpointError) -> Self {
        match error {
            EndpointError::Input(error) => error.into(),
            error => Self::Rejected { region: region.clone(), reason: error.to_string() },
        }
    }
}

fn list(failures: &[(RegionId, String)]) -> String {
    let list: Vec<_> = failures.iter().map(|(region, reason)| format!("{region}: {reason}")).collect();
    if list.is_empty() { String::new() } else { format!(" ({})", list.join("; ")) }
}
