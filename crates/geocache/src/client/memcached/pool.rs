//! The connections to one server: a bounded number, each used by one call at a time.
//!
//! **Bounds.** At most [`Options::connections_max`] calls are under way; one more waits for a connection, first come first served, for
//! as long as its caller lets it, which [`MemcachedStats::waited`] counts. At most [`Options::connections_idle_max`] connections are
//! kept that nobody uses; one that was idle for [`Options::idle_timeout`] is closed by the next call. A listing has a connection besides, so that a slow one holds
//! up no call; another listing waits for it.
//!
//! **What a call leaves behind.** A [`Lease`] that is dropped closes its connection; [`Lease::keep`] alone brings it back. So the
//! connection of a call that was dropped halfway, or that failed, carries no other call. Where one connection broke, the idle ones are
//! closed too: they lead to the same server, which is most likely gone.

use std::{
    io,
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    net::{TcpStream, lookup_host},
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{connection::Connection, fault::Fault};

/// How many listings may be under way: memcached lists for one client at a time.
const LISTINGS_MAX: usize = 1;

#[derive(Debug, Clone)]
pub(super) struct Options {
    /// Host and port, looked up at each connect.
    pub(super) address: String,
    pub(super) connections_max: usize,
    pub(super) connections_idle_max: usize,
    pub(super) connect_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) value_bytes_max: usize,
    pub(super) default_ttl: Option<Duration>,
}

/// What was counted of the connections to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MemcachedStats {
    /// Calls under way that have a connection, or make one.
    pub busy: usize,
    /// Connections that nobody uses.
    pub idle: usize,
    /// Connections made so far.
    pub opened: u64,
    /// Connections closed because their call failed or was dropped.
    pub discarded: u64,
    /// Calls that waited for a connection, because all were in use.
    pub waited: u64,
}

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) options: Options,
    idle: Mutex<Vec<Idle>>,
    permits: Semaphore,
    listings: Arc<Semaphore>,
    opened: AtomicU64,
    discarded: AtomicU64,
    waited: AtomicU64,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    pub(super) fn new(options: Options) -> Self {
        Self {
            idle: Mutex::new(Vec::new()),
            permits: Semaphore::new(options.connections_max),
            listings: Arc::new(Semaphore::new(LISTINGS_MAX)),
            opened: AtomicU64::new(0),
            discarded: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            options,
        }
    }

    /// A connection for one call.
    pub(super) async fn lease(&self) -> Result<Lease<'_>, Fault> {
        let permit = match self.permits.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                self.waited.fetch_add(1, Ordering::Relaxed);
                self.permits.acquire().await.expect("nobody closes the semaphore")
            }
        };
        let idle = self.take_idle();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        Ok(Lease { pool: self, connection: Some(connection), _permit: permit })
    }

    /// A connection for a listing, which ends with it.
    pub(super) async fn listing(&self) -> Result<(Connection, OwnedSemaphorePermit), Fault> {
        let permit = Arc::clone(&self.listings).acquire_owned().await.expect("nobody closes the semaphore");
        Ok((self.connect().await?, permit))
    }

    pub(super) fn stats(&self) -> MemcachedStats {
        MemcachedStats {
            busy: self.options.connections_max - self.permits.available_permits(),
            idle: self.idle.lock().len(),
            opened: self.opened.load(Ordering::Relaxed),
            discarded: self.discarded.load(Ordering::Relaxed),
            waited: self.waited.load(Ordering::Relaxed),
        }
    }

    /// The one that was used last, so that those too many grow old.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock();
        idle.retain(|idle| idle.since.elapsed() < self.options.idle_timeout);
        while let Some(Idle { connection, .. }) = idle.pop() {
            if connection.is_clean() {
                return Some(connection);
            }
        }
        None
    }

    async fn connect(&self) -> Result<Connection, Fault> {
        let bound = self.options.connect_timeout;
        match timeout(bound, self.dial()).await {
            Ok(connection) => connection,
            Err(_) => Err(Fault::Broken { reason: format!("no connection within {bound:?}") }),
        }
    }

    /// Looks the name up, tries its addresses in their order, and asks the first that is reached what it is.
    async fn dial(&self) -> Result<Connection, Fault> {
        let addresses = lookup_host(&self.options.address).await.map_err(|error| Fault::broken(&error))?;
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    self.opened.fetch_add(1, Ordering::Relaxed);
                    return Connection::begin(stream, self.options.value_bytes_max).await;
                }
                Err(error) => failure = error,
            }
        }
        Err(Fault::broken(&failure))
    }

    fn put_back(&self, mut connection: Connection) {
        if !connection.is_clean() {
            self.discarded.fetch_add(1, Ordering::Relaxed);
            return;
        }
        connection.rest();
        let mut idle = self.idle.lock();
        idle.push(Idle { connection, since: Instant::now() });
        let over = idle.len().saturating_sub(self.options.connections_idle_max);
        idle.drain(..over);
    }
}

/// A connection in use by one call.
#[derive(Debug)]
pub(super) struct Lease<'p> {
    pool: &'p Pool,
    connection: Option<Connection>,
    _permit: SemaphorePermit<'p>,
}

impl Lease<'_> {
    /// The call's answer is whole: another may have the connection.
    pub(super) fn keep(mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.put_back(connection);
        }
    }

    /// The connection broke: the idle ones are closed with it.
    pub(super) fn broke(self) {
        let idle = std::mem::take(&mut *self.pool.idle.lock());
        self.pool.discarded.fetch_add(idle.len() as u64, Ordering::Relaxed);
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if self.connection.is_some() {
            self.pool.discarded.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Deref for Lease<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("it is taken by `keep`, which ends the lease")
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("it is taken by `keep`, which ends the lease")
    }
}
