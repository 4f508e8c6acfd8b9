//! How far a write came, and reads that see it: receipts, session tokens, and reads of the nearest region.
//!
//! None of this makes a write slower or less sure: a write is made on its node at once and stays, and what is here only
//! waits, to a time that the caller gives, for what the other regions say of it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use replication::{
    Hlc,
    driver::{FetchError, Receipt, SessionError, WriteConcern},
    replica::{ReceiptsWanted, Token},
};
use serde::{Serialize, de::DeserializeOwned};
use tracing::Instrument as _;

use crate::{
    error::Error,
    node::GeoCache,
    read::Item,
    trace::{self, TARGET},
    write::TimeToLive,
};

/// How long a write waits for other regions where nothing else is said.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// How a value is put: its life, and how far it should have come before the writer is answered.
///
/// ```
/// use std::time::Duration;
/// use geocache::{PutOptions, WriteConcern};
///
/// let options = PutOptions::new().ttl(Duration::from_secs(60)).concern(WriteConcern::All);
/// # assert_eq!(options.timeout, Duration::from_secs(5));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "options do nothing until a write is given them"]
pub struct PutOptions {
    /// How long the value lives. Default: the cache's default.
    pub ttl: TimeToLive,
    /// How far the write should have come. Default [`WriteConcern::Local`], which waits for nothing.
    pub concern: WriteConcern,
    /// How long to wait for that. Default 5 s.
    pub timeout: Duration,
    /// How many bytes the value counts against [`capacity_bytes`](crate::Builder::capacity_bytes) on this node. Default:
    /// the length of its encoded form.
    pub weight: Option<u64>,
}

impl Default for PutOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl PutOptions {
    /// The defaults.
    pub const fn new() -> Self {
        Self {
            ttl: TimeToLive::Default,
            concern: WriteConcern::Local,
            timeout: TIMEOUT_DEFAULT,
            weight: None,
        }
    }

    /// How long the value lives.
    pub fn ttl(self, ttl: impl Into<TimeToLive>) -> Self {
        Self { ttl: ttl.into(), ..self }
    }

    /// How far the write should have come before the writer is answered.
    pub const fn concern(self, concern: WriteConcern) -> Self {
        Self { concern, ..self }
    }

    /// How long to wait for that.
    pub const fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// How many bytes the value counts against [`capacity_bytes`](crate::Builder::capacity_bytes), in the place of its encoded
    /// length; its key and 256 bytes come on top, as with every value.
    ///
    /// For values whose decoded form, which typed reads keep beside the encoded one, is much larger than that; or, with
    /// more than is true, for those that should give way to many smaller ones. It is said on this node and holds on
    /// this node, until the key is written again, here or elsewhere; a touch here keeps it. The other nodes count the
    /// encoded length. Where only entries are bounded it changes nothing but [`Stats::bytes`](crate::Stats::bytes).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use geocache::{GeoCache, PutOptions};
    ///
    /// let cache = GeoCache::builder().capacity_bytes(10 << 20).build().await?;
    /// cache.put_with("sparse", &vec![0_u64; 1_000], PutOptions::new().weight(8_000)).await?;
    /// assert_eq!(cache.stats().bytes, 8_000 + 6 + 256);
    /// # Ok(())
    /// # }
    /// ```
    pub const fn weight(self, bytes: u64) -> Self {
        Self { weight: Some(bytes), ..self }
    }
}

impl GeoCache {
    /// Stores a value, then waits until it came as far as the options say; the receipt says how far that is.
    ///
    /// The value is stored here before anything is waited for. A receipt that was not reached is no error and takes
    /// nothing back: the write stays, and goes on spreading. Ask again with [`receipt`](Self::receipt).
    ///
    /// ```
    /// use std::time::Duration;
    /// use geocache::{GeoCluster, PutOptions, WriteConcern};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cluster = GeoCluster::new(["us-east", "eu-central"]).await?;
    /// let options = PutOptions::new().ttl(Duration::from_secs(60)).concern(WriteConcern::All);
    /// let receipt = cluster.region("us-east")?.put_with("greeting", "hello", options).await?;
    /// assert!(receipt.reached && receipt.missing.is_empty());
    /// assert!(cluster.get::<String>("greeting", "eu-central")?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put), and [`Error::TooHeavy`]; nothing is changed then.
    ///
    /// # Cancel safety
    /// Once polled, the value is stored. Dropping the future ends the wait and nothing else.
    pub async fn put_with<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        options: PutOptions,
    ) -> Result<Receipt, Error> {
        let wanted = self.want_receipts(options.concern);
        let stamp = self.put_weighted(key.as_ref(), value, options.ttl, options.weight)?;
        let token = self.outbox().token(stamp);
        let span = trace::call!(self, "put_with", key.as_ref());
        let receipt = self.receipt(&token, options.concern, options.timeout).instrument(span.clone()).await;
        tracing::debug!(target: TARGET, parent: &span, reached = receipt.reached, "put, and waited for");
        drop(wanted);
        Ok(receipt)
    }

    /// Names all that was written through this node until now, removes and clears included, in its present life. A node
    /// begins its life anew when it has heard the others, within its first second, and where its machine's clock had gone
    /// back; what was written before that is named by the tokens taken before that. The token travels as text
    /// ([`Token`]'s `Display` and `FromStr`).
    pub fn token(&self) -> Token {
        self.outbox().newest()
    }

    /// Waits until the write that a token names came as far as `concern` says, or the time is over; says what is true
    /// then. After any change, a remove for example, the token is [`token`](Self::token).
    ///
    /// ```
    /// use std::time::Duration;
    /// use geocache::{GeoCluster, WriteConcern};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cluster = GeoCluster::new(["us-east", "eu-central"]).await?;
    /// let here = cluster.region("us-east")?;
    /// here.put("greeting", "hello")?;
    /// here.remove("greeting")?;
    /// let receipt = here.receipt(&here.token(), WriteConcern::All, Duration::from_secs(5)).await;
    /// assert!(receipt.reached);
    /// assert!(cluster.get::<String>("greeting", "eu-central")?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait and nothing else.
    pub async fn receipt(&self, token: &Token, concern: WriteConcern, timeout: Duration) -> Receipt {
        match self.replication() {
            Some(replication) => replication.client.receipt(*token, concern, timeout).await,
            None => Receipt::alone(*token, concern, self.region().clone()),
        }
    }

    /// Reads a value no older than the write that a token names: waits until that write is here, or something newer of
    /// its key. `None` then says that the key was removed, or is held here no more.
    ///
    /// ```
    /// use std::time::Duration;
    /// use geocache::{GeoCluster, PutOptions, Token};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cluster = GeoCluster::new(["us-east", "eu-central"]).await?;
    /// let receipt = cluster.region("us-east")?.put_with("cart", "3 items", PutOptions::new()).await?;
    /// let cookie = receipt.token.to_string();
    ///
    /// // In another process, in another region:
    /// let token: Token = cookie.parse()?;
    /// let there = cluster.region("eu-central")?;
    /// let cart = there.get_at_least::<String>("cart", &token, Duration::from_secs(5)).await?;
    /// assert_eq!(cart.as_deref().map(String::as_str), Some("3 items"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Stale`] where the write is not here by then: [`get`](Self::get) still reads what is. [`Error::Lost`]
    /// where it will not come. As [`get`](Self::get); [`Error::Stopped`] or [`Error::Closed`] where the node replicates
    /// no more.
    ///
    /// # Cancel safety
    /// Safe: dropping the future ends the wait.
    pub async fn get_at_least<T>(
        &self,
        key: impl AsRef<[u8]>,
        token: &Token,
        timeout: Duration,
    ) -> Result<Option<Arc<T>>, Error>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        let span = trace::call!(self, "get_at_least", key.as_ref());
        let reached = self.at_least(token, timeout).instrument(span.clone()).await;
        match &reached {
            Ok(()) => tracing::debug!(target: TARGET, parent: &span, "the write is here"),
            Err(error) => tracing::debug!(target: TARGET, parent: &span, %error, "the write is not here"),
        }
        reached?;
        self.get(key)
    }

    /// Waits until the write that a token names is here, so that any read here returns it or something newer.
    ///
    /// # Errors
    /// As [`get_at_least`](Self::get_at_least), those of the read aside.
    pub async fn at_least(&self, token: &Token, timeout: Duration) -> Result<(), Error> {
        let Some(replication) = self.replication() else {
            // What another node, or an earlier process, took will never come to a node that stays alone.
            return if self.has_written(token) { Ok(()) } else { Err(Error::Lost) };
        };
        let reached = replication.client.at_least(*token, timeout).await;
        reached.map_err(|error| match error {
            SessionError::Stale { lag } => Error::Stale { waited: timeout, lag },
            SessionError::Lost => Error::Lost,
            _ => self.ended(),
        })
    }

    /// The value of a key from this node's memory; where it holds none, from that of the nearest ready region.
    ///
    /// For a node that is warming, whose misses say nothing, and for values that are cheaper to get from another region
    /// than to make anew. What another region holds is stored here. `None` says that neither has it, or that this node
    /// knows of its removal, or that nobody can be asked: no ready node is heard, or this one began within the last second.
    ///
    /// A key that was evicted here is brought back while this node remembers of which stamp it was. Once that is forgotten for room
    /// ([`Builder::graves_max`](crate::Builder::graves_max)), values as old as that are refused, since they can't be told from removed
    /// ones: the answer stays `None` until the key is written anew, though another region holds it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use geocache::GeoCluster;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cluster = GeoCluster::new(["us-east", "eu-central"]).await?;
    /// cluster.put("greeting", "hello", "us-east")?;
    /// let there = cluster.region("eu-central")?;
    /// let greeting = there.get_or_fetch::<String>("greeting", Duration::from_millis(500)).await?;
    /// assert_eq!(greeting.as_deref().map(String::as_str), Some("hello"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get). [`Error::Timeout`] where a region was asked and gave no answer: whether it holds the key is
    /// not known. [`Error::Busy`]; [`Error::Stopped`] or [`Error::Closed`] where the node replicates no more.
    ///
    /// # Cancel safety
    /// Safe: dropping the future ends the wait.
    pub async fn get_or_fetch<T>(
        &self,
        key: impl AsRef<[u8]>,
        timeout: Duration,
    ) -> Result<Option<Arc<T>>, Error>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        let key = key.as_ref();
        if let Some(value) = self.get(key)? {
            return Ok(Some(value));
        }
        let span = trace::call!(self, "get_or_fetch", key);
        let fetched = self.fetch([key], timeout).instrument(span.clone()).await;
        match &fetched {
            Ok(()) => tracing::debug!(target: TARGET, parent: &span, "asked the nearest region"),
            Err(error) => {
                tracing::debug!(target: TARGET, parent: &span, %error, "the nearest region was not heard");
            }
        }
        fetched?;
        self.get(key)
    }

    /// As [`get_or_fetch`](Self::get_or_fetch), the value as it is stored, for callers that speak bytes.
    ///
    /// # Errors
    /// As [`get_or_fetch`](Self::get_or_fetch), but for those of a key: one that breaks the limits is held by no node.
    pub async fn fetch_item(&self, key: &[u8], timeout: Duration) -> Result<Option<Item>, Error> {
        if let Some(item) = self.item(key) {
            return Ok(Some(item));
        }
        if self.full(key).is_err() {
            return Ok(None);
        }
        self.fetch([key], timeout).await?;
        Ok(self.item(key))
    }

    /// Asks the nearest ready region for keys and stores here what it holds of them: at most 1,024 keys, in as many
    /// answers as they take. Nothing is asked where nobody can be. Read them here then.
    ///
    /// # Errors
    /// As [`get_or_fetch`](Self::get_or_fetch), those of the read aside.
    pub async fn fetch<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        timeout: Duration,
    ) -> Result<(), Error> {
        // A key that breaks the limits is held by no node.
        let full = |key: K| self.full(key.as_ref()).ok().map(|full| Bytes::copy_from_slice(&full));
        self.fetch_full(keys.into_iter().filter_map(full).collect(), timeout).await
    }

    /// As [`fetch`](Self::fetch), of keys as the store has them.
    pub(crate) async fn fetch_full(&self, keys: Vec<Bytes>, timeout: Duration) -> Result<(), Error> {
        let Some(replication) = self.replication() else { return Ok(()) };
        match replication.client.fetch(keys, Hlc::default(), timeout).await {
            Ok(_) | Err(FetchError::NobodyReady) => Ok(()),
            Err(FetchError::NoAnswer { waited }) => {
                Err(Error::Timeout { waited, behind: "the nearest region gave no answer".to_owned() })
            }
            Err(FetchError::Busy) => Err(Error::Busy),
            Err(_) => Err(self.ended()),
        }
    }

    /// Whether the others should answer at once what is about to be written.
    fn want_receipts(&self, concern: WriteConcern) -> Option<ReceiptsWanted> {
        let asks_others = matches!(concern, WriteConcern::Regions(_) | WriteConcern::All);
        asks_others.then(|| self.outbox().want_receipts())
    }

    /// Whether a token names what this node has written since it was built.
    fn has_written(&self, token: &Token) -> bool {
        let own = self.token();
        token.stream == own.stream && (self.since()..=own.hlc).contains(&token.hlc)
    }
}
