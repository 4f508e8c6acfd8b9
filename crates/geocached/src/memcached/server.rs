//! Listens, and gives each client a task of its own.
//!
//! **Bounds.** At most [`Options::connections_max`] clients; one more is told `ERROR Too many open connections`, closed
//! and counted as `rejected_connections`. Where the system refuses another connection (too many open files), accepting
//! pauses for [`ACCEPT_PAUSE`] and is tried again, counted as `listen_disabled_num` and logged at most once per
//! [`ACCEPT_LOG`]. At the end the connections get [`DRAIN`] to send what they were
//! sending, then they are cut.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    num::NonZeroUsize,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use geocache::GeoCache;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};

use super::{
    connection,
    counter::Counter,
    session::{Session, Shared},
};

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const ACCEPT_LOG: Duration = Duration::from_secs(60);
const DRAIN: Duration = Duration::from_secs(2);
const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";

/// The limits of a server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// How many clients may be connected at once. Default 1024, as memcached's.
    pub connections_max: usize,
    /// The longest value, in bytes. Default 1 MiB; must not be over the cache's own limit.
    pub value_bytes_max: usize,
    /// The memory that the cache may take, shown as `limit_maxbytes`; 0 where it is bounded by entries. Default 0.
    pub memory_bytes: u64,
    /// The memory that requests in the making may take over all connections, in bytes, beyond 64 KiB for each of them;
    /// what comes on top is refused as `out of memory`. Must be over the longest value. Default 64 MiB.
    pub request_bytes_max: u64,
    /// How many threads serve, shown as `threads`. Default: one per processor.
    pub threads: usize,
    /// A client that sends nothing for this long is closed. Default none, as memcached's.
    pub idle_timeout: Option<Duration>,
    /// A client that has sent over 64 KiB of a request, and nothing more for this long, is closed. Default 60 s.
    pub stall_timeout: Duration,
    /// A client that takes none of its answer for this long is closed. Default 30 s.
    pub write_timeout: Duration,
    /// How long a retrieval command waits for another region while the node is warming; `None` waits for none. Default
    /// 250 ms.
    pub fetch_timeout: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            value_bytes_max: 1024 * 1024,
            memory_bytes: 0,
            request_bytes_max: 64 << 20,
            threads: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            idle_timeout: None,
            stall_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            fetch_timeout: Some(Duration::from_millis(250)),
        }
    }
}

/// Why a server cannot listen: choose another address, or end what holds it.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", reason(source))]
#[non_exhaustive]
pub struct BindError {
    /// Where it was to listen.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

fn reason(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => "the port is in use by another process".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied; ports below 1024 are for privileged users".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        _ => source.to_string(),
    }
}

/// Begins to listen. Port 0 lets the system choose.
///
/// Apart from [`Server::new`], so that a port in use is known before a broker is dialled.
///
/// # Errors
/// A [`BindError`] that names the address.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError { address, source })
}

/// A memcached server in front of one cache.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
}

impl Server {
    /// A server that answers from `cache`. Clients are accepted from [`Server::run`] on.
    pub fn new(listener: TcpListener, cache: GeoCache, options: Options) -> Self {
        let address = listener.local_addr().ok();
        Self { listener, shared: Arc::new(Shared::new(cache, options, address)) }
    }

    /// Its counters and connections.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Serves until `stop` turns true (or its sender is dropped), then ends the connections and returns.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let Self { listener, shared } = self;
        let mut connections = JoinSet::new();
        let mut flush_at = shared.flush_at.subscribe();
        let mut logged: Option<Instant> = None;
        let stopping = stop.clone();
        let stopped = async move {
            // An error means that the sender is gone, which ends the server as well.
            let _ = stop.wait_for(|&stop| stop).await;
        };
        tokio::pin!(stopped);
        loop {
            let due = *flush_at.borrow_and_update();
            tokio::select! {
                () = &mut stopped => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => admit(stream, &shared, &stopping, &mut connections),
                    Err(error) => {
                        shared.counters.count(Counter::ListenDisabledNum);
                        let now = Instant::now();
                        if logged.is_none_or(|logged| now - logged >= ACCEPT_LOG) {
                            logged = Some(now);
                            tracing::warn!(%error, "cannot accept connections for now; clients wait");
                        }
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                // Reaps connections that ended; a panic in one of them ended it alone.
                Some(_) = connections.join_next() => {}
                Ok(()) = flush_at.changed() => {}
                () = until(due), if due.is_some() => flush(&shared),
            }
        }
        drop(listener);
        // Each connection heard of the end as well; one that is still sending gets a little time.
        let ended = timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            tracing::info!(connections = connections.len(), "cutting connections that did not end in time");
        }
        connections.shutdown().await;
    }
}

async fn until(due: Option<Instant>) {
    if let Some(due) = due {
        sleep_until(due.into()).await;
    }
}

/// A delayed `flush_all` falls due.
fn flush(shared: &Shared) {
    shared.flush_at.send_if_modified(|due| {
        // It may have been replaced by a later one meanwhile.
        let is_due = due.is_some_and(|due| due <= Instant::now());
        if is_due {
            *due = None;
        }
        is_due
    });
    if let Err(error) = shared.cache.clear() {
        tracing::warn!(%error, "a delayed flush_all could not be done");
    }
}

fn admit(
    stream: TcpStream,
    shared: &Arc<Shared>,
    stopping: &watch::Receiver<bool>,
    connections: &mut JoinSet<()>,
) {
    if shared.connections.load(Ordering::Relaxed) >= shared.options.connections_max {
        shared.counters.count(Counter::RejectedConnections);
        // A new connection has room for one line; if not, the close says enough.
        let _ = stream.into_std().and_then(|mut stream| stream.write_all(TOO_MANY));
        return;
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection ended before it began");
        return;
    }
    shared.counters.count(Counter::TotalConnections);
    shared.connections.fetch_add(1, Ordering::Relaxed);
    let open = Open(Arc::clone(shared));
    let session = Session::new(Arc::clone(shared));
    let stopping = stopping.clone();
    connections.spawn(async move {
        let _open = open;
        connection::serve(stream, session, stopping).await;
    });
}

/// Counts a connection as open for as long as it lives, however it ends.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
