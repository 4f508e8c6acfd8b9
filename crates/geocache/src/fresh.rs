//! Reads of a bounded staleness: all that was written longer ago than a caller allows is in the answer.
//!
//! **What is promised.** Where [`GeoCache::get_fresh`] answers, no write that was made in any region that counts more than
//! `max_lag` before the call is missing from the answer: it is that write's, or a later one's, or says that the key is not
//! held. Writes that are younger may be in it. "Before" is by this node's own monotonic clock alone, so regions whose wall
//! clocks differ change nothing; the error is at most a thousandth of the time for which another node held a heartbeat of
//! this one (a quarter of a millisecond) and a millisecond of rounding, and both are taken as making the answer older. The
//! time for which this machine was suspended is not counted, since its monotonic clock stands still then.
//!
//! **How it is known.** A beat of a node says what it has, and which beat of ours it had heard before; once all of that is
//! here, everything that the node had when it heard ours is. So a node that is idle is known to be idle, which the age of
//! its last write does not tell.
//!
//! **What it cannot know.** A region that was never heard, unless it is named when the node is built
//! ([`Builder::regions`](crate::Builder::regions)). What a node wrote and lost by dying before any other one had it: no
//! region will ever hold that. What a node wrote that died while this one was cut off for more than an hour: nobody tells of it any
//! more, and the comparison in the background brings it. And a value that was evicted here is not missing: the answer says that it is not held.

use std::{sync::Arc, time::Duration};

use replication::driver::{FreshError, FreshTo};
use serde::de::DeserializeOwned;
use tracing::{Instrument as _, Span};

use crate::{
    error::Error,
    node::GeoCache,
    trace::{self, TARGET},
};

/// How long a read waits to be fresh where nothing else is said.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);

/// How a read of bounded staleness goes about it.
///
/// ```
/// use std::time::Duration;
/// use geocache::{FreshOptions, FreshTo};
///
/// let options = FreshOptions::new().to(FreshTo::Heard).timeout(Duration::from_millis(200));
/// # assert_eq!(options.timeout, Duration::from_millis(200));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "options do nothing until a read is given them"]
pub struct FreshOptions {
    /// Which regions count. Default [`FreshTo::Regions`].
    pub to: FreshTo,
    /// How long to wait until it is so. Default 1 s.
    pub timeout: Duration,
}

impl Default for FreshOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl FreshOptions {
    /// The defaults.
    pub const fn new() -> Self {
        Self { to: FreshTo::Regions, timeout: TIMEOUT_DEFAULT }
    }

    /// Which regions count.
    pub const fn to(self, to: FreshTo) -> Self {
        Self { to, ..self }
    }

    /// How long to wait until it is so.
    pub const fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }
}

impl GeoCache {
    /// The value of a key from this node's memory, if no write made elsewhere more than `max_lag` before this call is missing
    /// from it; waits for what is, up to a second ([`get_fresh_with`](Self::get_fresh_with) for another wait).
    ///
    /// It answers at once where `max_lag` is above a heartbeat's distance (250 ms) and the usual lag, and the regions are
    /// heard. With less, down to [`Duration::ZERO`] for all that was written before the call, the others are asked first,
    /// which takes about a round trip and a tenth of a second more. `None` says that the key was removed, or is held here
    /// no more. A node without a transport has nobody to be behind.
    ///
    /// ```
    /// use std::time::Duration;
    /// use geocache::GeoCluster;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cluster = GeoCluster::new(["us-east", "eu-central"]).await?;
    /// cluster.put("price", &12_u64, "us-east")?;
    /// let there = cluster.region("eu-central")?;
    /// let price = there.get_fresh::<u64>("price", Duration::ZERO).await?;
    /// assert_eq!(price.as_deref(), Some(&12));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotFresh`], which says who is behind and by how much: [`get`](Self::get) still reads what is here. As
    /// [`get`](Self::get); [`Error::Stopped`] or [`Error::Closed`] where the node replicates no more.
    ///
    /// # Cancel safety
    /// Safe: dropping the future ends the wait.
    pub async fn get_fresh<T>(
        &self,
        key: impl AsRef<[u8]>,
        max_lag: Duration,
    ) -> Result<Option<Arc<T>>, Error>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        self.get_fresh_with(key, max_lag, FreshOptions::new()).await
    }

    /// As [`get_fresh`](Self::get_fresh), with options.
    ///
    /// # Errors
    /// As [`get_fresh`](Self::get_fresh).
    ///
    /// # Cancel safety
    /// Safe: dropping the future ends the wait.
    pub async fn get_fresh_with<T>(
        &self,
        key: impl AsRef<[u8]>,
        max_lag: Duration,
        options: FreshOptions,
    ) -> Result<Option<Arc<T>>, Error>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        // A key that breaks the limits is not worth a wait.
        self.full(key.as_ref())?;
        self.be_fresh(max_lag, options, trace::call!(self, "get_fresh", key.as_ref())).await?;
        self.get(key)
    }

    /// Waits until any read here is as fresh as [`get_fresh`](Self::get_fresh) would be: for several reads, or raw ones.
    ///
    /// # Errors
    /// As [`get_fresh`](Self::get_fresh), those of the read aside.
    ///
    /// # Cancel safety
    /// Safe: dropping the future ends the wait.
    pub async fn fresh(&self, max_lag: Duration, options: FreshOptions) -> Result<(), Error> {
        self.be_fresh(max_lag, options, trace::call!(self, "fresh")).await
    }

    async fn be_fresh(&self, max_lag: Duration, options: FreshOptions, span: Span) -> Result<(), Error> {
        let Some(replication) = self.replication() else { return Ok(()) };
        let FreshOptions { to, timeout } = options;
        let fresh = replication.client.fresh(max_lag, to, timeout).instrument(span.clone()).await;
        match &fresh {
            Ok(()) => tracing::debug!(target: TARGET, parent: &span, ?max_lag, "fresh"),
            Err(error) => {
                tracing::debug!(target: TARGET, parent: &span, ?max_lag, %error, "not shown to be fresh");
            }
        }
        fresh.map_err(|error| match error {
            FreshError::Behind(behind) => Error::NotFresh { max_lag, waited: timeout, behind },
            _ => self.ended(),
        })
    }
}

#[cfg(test)]
mod tests;
