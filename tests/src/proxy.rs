//! A TCP link that delays, falls silent, breaks and heals.
//!
//! Put between a transport and its broker, or a client and its daemon, it makes the faults that a network makes, without
//! root and on any system; traffic shaping in the kernel was rejected because it needs both.
//!
//! - **delay**: each chunk arrives that much later, in both directions; order is kept;
//! - **hold**: a silent partition. Connections stay open, new ones are accepted, and nothing passes, not even a close;
//!   at [`Proxy::heal`] everything held goes on;
//! - **cut**: every connection is reset (RST), and new ones are reset as they come, until [`Proxy::heal`].
//!
//! Bounds: a direction of a connection buffers at most 64 chunks of 16 KiB; beyond that the sender's own socket fills.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
//! let proxy = tests::proxy::Proxy::start(upstream.local_addr().unwrap()).await.unwrap();
//! let url = proxy.url("amqp://guest:guest@127.0.0.1:5672/%2f");
//! assert_eq!(url, format!("amqp://guest:guest@{}/%2f", proxy.addr()));
//! proxy.hold();
//! proxy.heal();
//! # });
//! ```

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

const CHUNK_BYTES: usize = 16 * 1024;
const CHUNKS_QUEUED_MAX: usize = 64;

/// A link to one upstream address; closed, with a reset of what still flows, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    link: watch::Sender<Link>,
    counters: Arc<Counters>,
    accepting: JoinHandle<()>,
}

/// What the link does at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    state: State,
    delay: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Passing,
    Held,
    Cut,
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    open: AtomicUsize,
    bytes: AtomicU64,
}

impl Proxy {
    /// A link to `upstream` that passes everything at once.
    ///
    /// # Errors
    /// When no loopback port can be had.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let (link, seen) = watch::channel(Link { state: State::Passing, delay: Duration::ZERO });
        let counters = Arc::new(Counters::default());
        let accepting = tokio::spawn(accept(listener, upstream, seen, Arc::clone(&counters)));
        Ok(Self { addr, link, counters, accepting })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The same URL, through this link: the host and port of `url` replaced by the link's.
    ///
    /// # Panics
    /// When `url` has no `scheme://`.
    pub fn url(&self, url: &str) -> String {
        let (scheme, rest) = url.split_once("://").expect("a url has a scheme");
        let authority_len = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(authority_len);
        match authority.rsplit_once('@') {
            Some((user, _)) => format!("{scheme}://{user}@{}{path}", self.addr),
            None => format!("{scheme}://{}{path}", self.addr),
        }
    }

    /// From now on each chunk read from either side arrives this much later.
    pub fn delay(&self, delay: Duration) {
        self.link.send_modify(|link| link.delay = delay);
    }

    /// Falls silent: nothing passes in either direction, nothing is closed.
    pub fn hold(&self) {
        self.link.send_modify(|link| link.state = State::Held);
    }

    /// Resets every connection, and each new one, until [`Proxy::heal`].
    pub fn cut(&self) {
        self.link.send_modify(|link| link.state = State::Cut);
    }

    /// Passes again, at once and without delay; what was held goes on.
    pub fn heal(&self) {
        self.link.send_modify(|link| *link = Link { state: State::Passing, delay: Duration::ZERO });
    }

    /// How many connections it accepted so far, those it reset at once included.
    pub fn accepted(&self) -> u64 {
        self.counters.accepted.load(Ordering::Relaxed)
    }

    /// How many connections it carries now.
    pub fn open(&self) -> usize {
        self.counters.open.load(Ordering::Relaxed)
    }

    /// How many bytes it passed on so far, both directions together.
    pub fn bytes(&self) -> u64 {
        self.counters.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    upstream: SocketAddr,
    link: watch::Receiver<Link>,
    counters: Arc<Counters>,
) {
    loop {
        // An accept fails when the peer was gone already or descriptors run out; neither ends the link.
        let Ok((downstream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        counters.accepted.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(carry(downstream, upstream, link.clone(), Arc::clone(&counters)));
    }
}

/// Carries one connection until both sides closed it or the link is cut.
async fn carry(
    mut downstream: TcpStream,
    upstream: SocketAddr,
    link: watch::Receiver<Link>,
    counters: Arc<Counters>,
) {
    let mut cut = link.clone();
    let connected = tokio::select! {
        biased;
        _ = cut.wait_for(|link| link.state == State::Cut) => None,
        connected = connect(upstream, link.clone()) => connected.ok(),
    };
    let Some(mut up) = connected else {
        reset(&downstream);
        return;
    };
    let _ = downstream.set_nodelay(true);
    let _ = up.set_nodelay(true);
    counters.open.fetch_add(1, Ordering::Relaxed);
    let broken = {
        let (down_read, down_write) = downstream.split();
        let (up_read, up_write) = up.split();
        tokio::select! {
            biased;
            _ = cut.wait_for(|link| link.state == State::Cut) => true,
            done = async {
                tokio::try_join!(
                    pump(down_read, up_write, link.clone(), &counters),
                    pump(up_read, down_write, link.clone(), &counters),
                )
            } => done.is_err(),
        }
    };
    if broken {
        reset(&downstream);
        reset(&up);
    }
    counters.open.fetch_sub(1, Ordering::Relaxed);
}

/// A held link accepts, but what is behind it hears nothing of that.
async fn connect(upstream: SocketAddr, mut link: watch::Receiver<Link>) -> io::Result<TcpStream> {
    let _ = link.wait_for(|link| link.state == State::Passing).await;
    TcpStream::connect(upstream).await
}

/// With no time to linger, the close that follows is a reset.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

/// Carries one direction. An empty chunk stands for the sender's close, which is delayed and held like the rest.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    link: watch::Receiver<Link>,
    counters: &Counters,
) -> io::Result<()> {
    let (queue, mut queued) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_QUEUED_MAX);
    let mut at_write = link.clone();
    let read = async move {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            let count = (&mut from).take(CHUNK_BYTES as u64).read_buf(&mut chunk).await?;
            let due = Instant::now() + link.borrow().delay;
            if queue.send((due, chunk)).await.is_err() || count == 0 {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((due, chunk)) = queued.recv().await {
            tokio::time::sleep_until(due).await;
            let _ = at_write.wait_for(|link| link.state == State::Passing).await;
            if chunk.is_empty() {
                return to.shutdown().await;
            }
            to.write_all(&chunk).await?;
            counters.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    };
    tokio::try_join!(read, write).map(|_| ())
}

#[cfg(test)]
mod tests;
