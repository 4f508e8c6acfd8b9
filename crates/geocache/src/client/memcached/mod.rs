//! A server that speaks the memcached protocol as an endpoint: `geocached`, or memcached 1.6 and newer.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use geocache::{Expect, Write, client::{Endpoint, Memcached}};
//!
//! let cache = Memcached::builder("cache.eu.example:11211")
//!     .connections_max(32)
//!     .default_ttl(Duration::from_secs(3600))
//!     .build()?;
//! cache.write(b"greeting", Write { bytes: "hello".into(), ..Write::default() }, Expect::Any).await?;
//! assert_eq!(cache.get(b"greeting").await?.expect("just stored").bytes, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! **Why a client of our own.** `async-memcached` 0.9 (Shopify's, MIT, maintained) was weighed, and is good at what a pool must rely on:
//! an operation that is dropped halfway closes its connection, and it knows meta flags, `metadump` and `stats`. What spoke against it:
//! its answers are read without a bound, so that a server gone wrong takes all memory; it reaches IPv4 addresses only and takes no
//! limit for connecting; it writes all requests of a pipeline before it reads an answer, which can block for ever against a server that
//! answers meanwhile; `fxhash`, which it needs, is not maintained any more, and `url`, `nom` and `futures` would come along for a host
//! name and a dozen kinds of lines. What is needed here of the protocol is four verbs, pure and tested in `wire`.
//!
//! **The protocol.** Meta (`mg`, `ms`, `md`, `mn`), with `flush_all`, `stats` and `lru_crawler metadump`. Neither TLS nor passwords: run
//! it on a network of your own, or through a tunnel. A key of blanks, control characters or bytes beyond ASCII goes as base64, of which
//! memcached takes 186 bytes and `geocached` 250. Names are looked up at each connect, so that a server may move.
//!
//! **How it differs from a node in this process.**
//! - Lives are whole seconds, rounded up. One over 30 days is an absolute time by this machine's clock, as the protocol has it, and one
//!   beyond January 2038 is for ever.
//! - [`TimeToLive::Default`] is [`MemcachedBuilder::default_ttl`], for ever where that is not set.
//! - [`TimeToLive::Keep`] is one step at `geocached`. At memcached what is left is read first and the value stored if it is still the one
//!   seen, tried 16 times; a *touch* in between is lost.
//! - A value that is too large is refused; memcached removes what the key held before, `geocached` does not.
//! - Typed values carry their codec as a mark in the flags ([`Codec::to_flags`](crate::Codec::to_flags)); a value with flags of its own
//!   and a codec besides keeps the flags, and is raw to whoever reads it.
//! - [`probe`](Endpoint::probe) tells a life by `pid` and start time, and takes it to have begun empty: memcached's warm restart (`-e`)
//!   is not told apart. `geocached` says its life, and whether it is warming or cut off.
//!
//! **Invariant.** An answer reaches the call that asked, or nobody: see `pool` for what ends a connection.

mod call;
mod connection;
mod fault;
mod pool;
#[cfg(test)]
mod tests;
mod wire;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    runtime::Handle,
    sync::mpsc,
    time::{sleep, timeout},
};

use self::{
    connection::Connection,
    fault::Fault,
    pool::{Lease, Options, Pool},
};
use super::{Endpoint, EndpointError, KEYS_WAITING_MAX, Keys, Pulse};
use crate::{
    error::{BuildError, Error},
    read::Item,
    store::Outcome,
    write::{Expect, TimeToLive, Write},
};

pub use pool::MemcachedStats;

const PORT: u16 = 11_211;
/// The most connections that may be asked for.
const CONNECTIONS_MAX: usize = 65_536;
/// The largest value that may be asked for: memcached takes none over 1 GiB.
const VALUE_BYTES_MAX: usize = 1 << 30;
/// The longest time that connecting may be given.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3_600);
/// How often a listing is asked for, and how long after the one before, where the server lists for another client.
const LISTING_TRIES_MAX: u32 = 50;
const LISTING_PAUSE: Duration = Duration::from_millis(100);
/// A listing that brings nothing for so long has ended.
const LISTING_SILENCE: Duration = Duration::from_secs(10);

/// A memcached server, or `geocached`, as an endpoint. A cheap handle: clones share the connections.
///
/// Nothing is dialled before the first call. See the [builder](Self::builder) for the limits.
#[derive(Clone)]
pub struct Memcached {
    pool: Arc<Pool>,
}

/// Configures a [`Memcached`]; every setting has a default.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct MemcachedBuilder {
    options: Options,
}

impl Memcached {
    /// One with the defaults.
    ///
    /// # Errors
    /// [`BuildError::Setting`] where the address is none.
    pub fn new(address: impl Into<String>) -> Result<Self, BuildError> {
        Self::builder(address).build()
    }

    /// Begins to configure one. The address is `host:port` or a host, whose port is 11211 then; an IPv6 address is in brackets.
    pub fn builder(address: impl Into<String>) -> MemcachedBuilder {
        MemcachedBuilder {
            options: Options {
                address: address.into(),
                connections_max: 16,
                connections_idle_max: 16,
                connect_timeout: Duration::from_secs(1),
                idle_timeout: Duration::from_secs(60),
                value_bytes_max: 8 << 20,
                default_ttl: None,
            },
        }
    }

    /// What was counted of its connections.
    pub fn stats(&self) -> MemcachedStats {
        self.pool.stats()
    }

    fn options(&self) -> &Options {
        &self.pool.options
    }

    async fn lease(&self) -> Result<Lease, EndpointError> {
        self.pool.lease().await.map_err(|fault| self.told(fault, false))
    }

    fn told(&self, fault: Fault, may_be_done: bool) -> EndpointError {
        fault.told(&self.options().address, may_be_done)
    }

    /// Ends a call: its connection is kept where it went well, and closed where anything went wrong.
    fn finish<T>(&self, lease: Lease, done: Result<T, Fault>, is_change: bool) -> Result<T, EndpointError> {
        match done {
            Ok(value) => {
                lease.keep();
                Ok(value)
            }
            Err(fault) => {
                match &fault {
                    // The server was not asked, or has answered all that it was.
                    Fault::Input(_) => lease.keep(),
                    Fault::Broken { .. } => lease.broke(),
                    _ => drop(lease),
                }
                Err(self.told(fault, is_change))
            }
        }
    }
}

impl MemcachedBuilder {
    /// How many calls may be under way at once, each over a connection of its own; those on top wait. Default 16; 1 to 65,536.
    pub fn connections_max(mut self, connections: usize) -> Self {
        self.options.connections_max = connections;
        self.options.connections_idle_max = self.options.connections_idle_max.min(connections);
        self
    }

    /// How many connections are kept that nobody uses, at most `connections_max`. Default 16.
    pub fn connections_idle_max(mut self, connections: usize) -> Self {
        self.options.connections_idle_max = connections;
        self
    }

    /// How long connecting may take, the look-up of the name and the server's first answer included; addresses of one name share it. It
    /// goes on where the call that wanted the connection gave up, and the next call has it. Default 1 s, at most a day.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.options.connect_timeout = limit;
        self
    }

    /// A connection that nobody used for so long is not used again. Default 60 s.
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.options.idle_timeout = limit;
        self
    }

    /// The largest value that is read; an answer that announces more is an error. Default 8 MiB; 1 byte to 1 GiB.
    pub fn value_bytes_max(mut self, bytes: usize) -> Self {
        self.options.value_bytes_max = bytes;
        self
    }

    /// How long a value lives that is written with [`TimeToLive::Default`]. Default: for ever.
    pub fn default_ttl(mut self, ttl: Duration) -> Self {
        self.options.default_ttl = Some(ttl);
        self
    }

    /// The endpoint; nothing is dialled yet.
    ///
    /// # Errors
    /// [`BuildError::Setting`], which names the setting.
    pub fn build(self) -> Result<Memcached, BuildError> {
        let mut options = self.options;
        options.address = with_port(&options.address).ok_or_else(|| {
            let given = &options.address;
            let reason =
                format!("{given:?} is no `host`, `host:port` or `[IPv6]:port` with a port of 1 to 65535");
            BuildError::Setting { field: "address", reason }
        })?;
        let refused = |field, reason: String| Err(BuildError::Setting { field, reason });
        let sizes = [
            ("connections_max", options.connections_max, CONNECTIONS_MAX),
            ("value_bytes_max", options.value_bytes_max, VALUE_BYTES_MAX),
        ];
        for (field, given, max) in sizes {
            if !(1..=max).contains(&given) {
                return refused(field, format!("{given} cannot be used; give 1 to {max}"));
            }
        }
        let limit = options.connect_timeout;
        if limit.is_zero() || limit > CONNECT_TIMEOUT_MAX {
            let reason =
                format!("{limit:?} cannot be used; give more than zero, up to {CONNECT_TIMEOUT_MAX:?}");
            return refused("connect_timeout", reason);
        }
        if options.connections_idle_max > options.connections_max {
            let reason = format!(
                "{} is over connections_max, which is {}",
                options.connections_idle_max, options.connections_max
            );
            return refused("connections_idle_max", reason);
        }
        Ok(Memcached { pool: Arc::new(Pool::new(options)) })
    }
}

/// Host and port of an address that may lack the port.
fn with_port(address: &str) -> Option<String> {
    let is_host = |host: &str| {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_name = |name: &str| !name.is_empty() && !name.contains([':', '[', ']', '/', '@', ' ']);
        bare.map_or_else(|| is_name(host), |bare| bare.parse::<std::net::Ipv6Addr>().is_ok())
    };
    if is_host(address) {
        return Some(format!("{address}:{PORT}"));
    }
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse::<u16>().ok().filter(|&port| port > 0)?;
    is_host(host).then(|| format!("{host}:{port}"))
}

#[async_trait]
impl Endpoint for Memcached {
    fn address(&self) -> String {
        self.options().address.clone()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Item>, EndpointError> {
        let mut lease = self.lease().await?;
        let item = call::get(&mut lease, key).await;
        self.finish(lease, item, false)
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Item>>, EndpointError> {
        let mut lease = self.lease().await?;
        let items = call::get_many(&mut lease, keys).await;
        self.finish(lease, items, false)
    }

    async fn write(&self, key: &[u8], write: Write, expect: Expect) -> Result<Outcome, EndpointError> {
        let mut lease = self.lease().await?;
        let outcome = call::write(&mut lease, key, &write, expect, self.options().default_ttl).await;
        self.finish(lease, outcome, true)
    }

    async fn remove(&self, key: &[u8], expect: Expect) -> Result<Outcome, EndpointError> {
        let mut lease = self.lease().await?;
        let outcome = call::remove(&mut lease, key, expect).await;
        self.finish(lease, outcome, true)
    }

    async fn touch(&self, key: &[u8], ttl: TimeToLive) -> Result<bool, EndpointError> {
        let mut lease = self.lease().await?;
        let was_there = call::touch(&mut lease, key, ttl, self.options().default_ttl).await;
        self.finish(lease, was_there, true)
    }

    async fn clear(&self) -> Result<(), EndpointError> {
        let mut lease = self.lease().await?;
        let done = call::clear(&mut lease).await;
        self.finish(lease, done, true)
    }

    async fn probe(&self) -> Result<Pulse, EndpointError> {
        let mut lease = self.lease().await?;
        let pulse = call::probe(&mut lease).await;
        self.finish(lease, pulse, false)
    }

    async fn keys(&self) -> Result<Keys, EndpointError> {
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let (mut connection, permit) = self.pool.listing().await.map_err(|fault| self.told(fault, false))?;
        let first = begin_listing(&mut connection).await.map_err(|fault| self.told(fault, false))?;
        let Some(first) = first else { return Err(EndpointError::Unsupported { what: "listing keys" }) };
        let (sender, keys) = mpsc::channel(KEYS_WAITING_MAX);
        let endpoint = self.clone();
        runtime.spawn(async move {
            let _permit = permit;
            if let Err(fault) = forward(&mut connection, first, &sender).await {
                // Nobody may be there to hear it.
                let _ = sender.send(Err(endpoint.told(fault, false))).await;
            }
        });
        Ok(keys)
    }
}

/// The first line of a listing; `None` where the server offers none. memcached lists for one client at a time, and takes a moment to
/// notice that one went away.
async fn begin_listing(connection: &mut Connection) -> Result<Option<Bytes>, Fault> {
    let mut tries = 0;
    loop {
        connection.send(b"lru_crawler metadump all\r\n").await?;
        let first = connection.line().await?;
        tries += 1;
        if first.starts_with(b"BUSY") && tries < LISTING_TRIES_MAX {
            sleep(LISTING_PAUSE).await;
            continue;
        }
        if first.starts_with(b"ERROR") {
            return Ok(None);
        }
        // What else is said against it is known at once.
        next(&first)?;
        return Ok(Some(first));
    }
}

/// Brings the listed keys to whoever asked, until the end, or until nobody listens.
async fn forward(
    connection: &mut Connection,
    first: Bytes,
    sender: &mpsc::Sender<Result<Bytes, EndpointError>>,
) -> Result<(), Fault> {
    let mut line = first;
    while let Some(key) = next(&line)? {
        if sender.send(Ok(key)).await.is_err() {
            return Ok(());
        }
        line = tokio::select! {
            line = timeout(LISTING_SILENCE, connection.line()) => line.unwrap_or_else(|_| {
                Err(Fault::Broken { reason: format!("the listing stopped for {LISTING_SILENCE:?}") })
            })?,
            () = sender.closed() => return Ok(()),
        };
    }
    Ok(())
}

/// The key of a listing's line; `None` at its end.
fn next(line: &[u8]) -> Result<Option<Bytes>, Fault> {
    if line == b"END" {
        return Ok(None);
    }
    match wire::listed_key(line) {
        Some(key) => Ok(Some(key)),
        None => Err(wire::refusal(&String::from_utf8_lossy(line)).unwrap_or_else(|| Fault::garbled(line))),
    }
}

impl fmt::Debug for Memcached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memcached").field("address", &self.options().address).finish_non_exhaustive()
    }
}
