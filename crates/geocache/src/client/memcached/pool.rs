//! The connections to one server: a bounded number, each used by one call at a time.
//!
//! **Bounds.** At most [`Options::connections_max`] calls are under way; one more waits for a connection, first come first served, for
//! as long as its caller lets it, which [`MemcachedStats::waited`] counts. At most [`Options::connections_idle_max`] connections are
//! kept that nobody uses; one that was idle for [`Options::idle_timeout`] is closed by the next call. A listing has a connection besides, so that a slow one holds
//! up no call; another listing waits for it.
//!
//! **Connecting outlives the call.** A connection is made by a task of its own, for at most [`Options::connect_timeout`], and kept for the
//! next call where the one that wanted it gave up meanwhile: otherwise a server too far off to be reached within the time of one call
//! would never be reached at all. It takes a place among the calls until then, and ends with the last handle.
//!
//! **What a call leaves behind.** A [`Lease`] that is dropped closes its connection; [`Lease::keep`] alone brings it back. So the
//! connection of a call that was dropped halfway, or that failed, carries no other call. Where one connection broke, the idle ones are
//! closed too: they lead to the same server, which is most likely gone.

use std::{
    io,
    net::SocketAddr,
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
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
    time::{Instant as Moment, timeout, timeout_at},
};

use super::{connection::Connection, fault::Fault};
use crate::error::Error;

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
    permits: Arc<Semaphore>,
    /// Ends what connects when the pool is gone; nothing is ever sent.
    alive: watch::Sender<()>,
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
            permits: Arc::new(Semaphore::new(options.connections_max)),
            alive: watch::Sender::new(()),
            listings: Arc::new(Semaphore::new(LISTINGS_MAX)),
            opened: AtomicU64::new(0),
            discarded: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            options,
        }
    }

    /// A connection for one call.
    pub(super) async fn lease(self: &Arc<Self>) -> Result<Lease, Fault> {
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.waited.fetch_add(1, Ordering::Relaxed);
                let permit = Arc::clone(&self.permits).acquire_owned().await;
                permit.expect("nobody closes the semaphore")
            }
        };
        let idle = self.take_idle();
        if let Some(connection) = idle {
            return Ok(self.leased(connection, permit));
        }
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let (connected, connecting) = oneshot::channel();
        let (pool, options, mut alive) = (Arc::downgrade(self), self.options.clone(), self.alive.subscribe());
        runtime.spawn(async move {
            let connection = tokio::select! {
                connection = connect(&options) => connection,
                _ = alive.changed() => return,
            };
            let Some(pool) = pool.upgrade() else { return };
            let lease = connection.map(|connection| {
                pool.opened.fetch_add(1, Ordering::Relaxed);
                pool.leased(connection, permit)
            });
            // The next call finds it where this one was dropped.
            if let Err(Ok(lease)) = connected.send(lease) {
                lease.keep();
            }
        });
        let ended = |_| Fault::Broken { reason: "the runtime ended while it connected".to_owned() };
        connecting.await.map_err(ended)?
    }

    fn leased(self: &Arc<Self>, connection: Connection, permit: OwnedSemaphorePermit) -> Lease {
        Lease { pool: Arc::clone(self), connection: Some(connection), _permit: permit }
    }

    /// A connection for a listing, which ends with it.
    pub(super) async fn listing(&self) -> Result<(Connection, OwnedSemaphorePermit), Fault> {
        let permit = Arc::clone(&self.listings).acquire_owned().await.expect("nobody closes the semaphore");
        let connection = connect(&self.options).await?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok((connection, permit))
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

async fn connect(options: &Options) -> Result<Connection, Fault> {
    let (bound, end) = (options.connect_timeout, Moment::now() + options.connect_timeout);
    let too_late = || Fault::Broken { reason: format!("no connection within {bound:?}") };
    let found = timeout_at(end, lookup_host(&options.address)).await.map_err(|_| too_late())?;
    let addresses: Vec<_> = found.map_err(|error| Fault::broken(&error))?.collect();
    first_of(&addresses, end, options.value_bytes_max).await?.ok_or_else(too_late)
}

/// Tries addresses in their order, and asks the first that is reached what it is; `None` where the time was over before. Each gets
/// its share of what is left, so that one that swallows what is sent leaves time for those behind it.
pub(super) async fn first_of(
    addresses: &[SocketAddr],
    end: Moment,
    value_bytes_max: usize,
) -> Result<Option<Connection>, Fault> {
    let nowhere = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut outcome = Err(Fault::broken(&nowhere));
    for (address, left) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let share = end.saturating_duration_since(Moment::now()) / u32::try_from(left).unwrap_or(u32::MAX);
        let dial = async {
            let stream = TcpStream::connect(address).await.map_err(|error| Fault::broken(&error))?;
            Connection::begin(stream, value_bytes_max).await
        };
        match timeout(share, dial).await {
            Ok(Ok(connection)) => return Ok(Some(connection)),
            Ok(Err(fault)) => outcome = Err(fault),
            Err(_) => outcome = Ok(None),
        }
    }
    outcome
}

/// A connection in use by one call.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Arc<Pool>,
    connection: Option<Connection>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
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

impl Drop for Lease {
    fn drop(&mut self) {
        if self.connection.is_some() {
            self.pool.discarded.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Deref for Lease {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("it is taken by `keep`, which ends the lease")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("it is taken by `keep`, which ends the lease")
    }
}
