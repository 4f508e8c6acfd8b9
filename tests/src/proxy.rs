//! A TCP link that is slow, narrow, one-way, silent, half-open or broken, and heals.
//!
//! Put between a transport and its broker, or a client and its daemon, it makes the faults that a network makes, without
//! root and on any system; traffic shaping in the kernel was rejected because it needs both.
//!
//! One of these at a time ([`Fault`]), until [`Proxy::heal`]:
//!
//! - **hold**: a silent partition. Connections stay open, new ones are accepted, and nothing passes, not even a close or
//!   a reset; everything held goes on afterwards;
//! - **one way**: the same for one direction, its bytes held or swallowed. A connection that lost bytes is reset
//!   afterwards: there is no stream with a hole in it;
//! - **half-open**: bytes pass, but neither end hears that the other was closed or reset; new connections lead nowhere.
//!   [`Proxy::strand`] also loses one end of every connection, as when a host loses its power. What is left alone is
//!   reset afterwards;
//! - **cut**: every connection is reset (RST), and new ones as they come. A cut healed at once still resets whoever was
//!   there: `proxy.cut(); proxy.heal();` is one reset.
//!
//! Beside any of them:
//!
//! - **delay**: each chunk arrives that much later, in both directions; order is kept;
//! - **bandwidth**: so many bytes a second in a direction, shared fairly by the connections that want it;
//! - **a handshake that dies** ([`Proxy::kill_handshakes`]): TCP is accepted, then what is spoken breaks off.
//!
//! [`Proxy::only`] confines all of it to some connections, by the order of their acceptance.
//!
//! Bounds: a direction of a connection buffers at most 64 chunks of 16 KiB; beyond that the sender's own socket fills. At
//! most 1,024 connections are kept at a time, those that lead nowhere included; more are reset as they come, and
//! counted ([`Proxy::refused`]).
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
//! use tests::proxy::{Direction, Fault};
//!
//! let proxy = tests::proxy::Proxy::start(upstream.local_addr().unwrap()).await.unwrap();
//! let url = proxy.url("amqp://guest:guest@127.0.0.1:5672/%2f");
//! assert_eq!(url, format!("amqp://guest:guest@{}/%2f", proxy.addr()));
//! proxy.fault(Fault::HoldOneWay(Direction::ToClient));
//! proxy.heal();
//! # });
//! ```

use std::{
    io,
    net::SocketAddr,
    num::NonZeroU64,
    ops::RangeBounds,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

mod carry;
mod link;
mod pacer;

pub use link::{Death, Direction, DyingHandshake, End, Fault};

use carry::Counters;
use link::{Link, Selection};

const CHUNK_BYTES: usize = 16 * 1024;
const CHUNKS_QUEUED_MAX: usize = 64;
const CONNECTIONS_MAX: usize = 1_024;

/// A link to one upstream address; closed, with a reset of what still flows, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    link: watch::Sender<Link>,
    counters: Arc<Counters>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A link to `upstream` that passes everything at once.
    ///
    /// # Errors
    /// When no loopback port can be had.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let (link, seen) = watch::channel(Link::PASSING);
        let counters = Arc::new(Counters::default());
        let accepting = tokio::spawn(carry::accept(listener, upstream, seen, Arc::clone(&counters)));
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

    /// From now on does this to the bytes and ends of its connections, in place of the fault before.
    pub fn fault(&self, fault: Fault) {
        match fault {
            Fault::Cut => self.cut(),
            _ => self.link.send_modify(|link| link.fault = fault),
        }
    }

    /// Falls silent: nothing passes in either direction, nothing is closed.
    pub fn hold(&self) {
        self.fault(Fault::Hold);
    }

    /// Resets every connection, and each new one, until [`Proxy::heal`].
    pub fn cut(&self) {
        let accepted = self.accepted();
        self.link.send_modify(|link| link.cut(accepted));
    }

    /// Becomes half-open, and of every connection there is, only the end `left` stays: the other one is reset, and `left`
    /// hears nothing of that, nor anything else.
    pub fn strand(&self, left: End) {
        let accepted = self.accepted();
        self.link.send_modify(|link| link.strand(left, accepted));
    }

    /// From now on each chunk read from either side arrives this much later.
    pub fn delay(&self, delay: Duration) {
        self.link.send_modify(|link| link.delay = delay);
    }

    /// From now on so many bytes a second pass in this direction, all connections together; `None`: as many as come.
    pub fn bandwidth(&self, direction: Direction, bytes_per_s: Option<NonZeroU64>) {
        self.link.send_modify(|link| link.rates[direction.index()] = bytes_per_s);
    }

    /// From now on the handshake of each new connection dies so; delay, bandwidth and all faults but a cut spare those.
    pub fn kill_handshakes(&self, how: DyingHandshake) {
        self.link.send_modify(|link| link.dying = Some(how));
    }

    /// Confines what is set, and what will be, to these connections: the first that it accepted is 1. To choose who comes
    /// next, call this before setting a fault: `proxy.only(proxy.accepted() + 1..)`. All again after [`Proxy::heal`].
    pub fn only(&self, connections: impl RangeBounds<u64>) {
        self.link.send_modify(|link| link.on = Selection::of(&connections));
    }

    /// Passes again, at once, without delay and at any rate; what was held goes on. Connections that lost bytes, or an
    /// end, or whose handshake died without a word, are reset.
    pub fn heal(&self) {
        self.link.send_modify(Link::heal);
    }

    /// How many connections it accepted so far, those it reset at once included.
    pub fn accepted(&self) -> u64 {
        self.counters.accepted.load(Ordering::Relaxed)
    }

    /// How many connections it reset because it carried 1,024 already.
    pub fn refused(&self) -> u64 {
        self.counters.refused.load(Ordering::Relaxed)
    }

    /// How many connections it carries now.
    pub fn open(&self) -> usize {
        self.counters.open.load(Ordering::Relaxed)
    }

    /// How many bytes it passed on so far, both directions together.
    pub fn bytes(&self) -> u64 {
        Direction::BOTH.into_iter().map(|direction| self.passed(direction)).sum()
    }

    /// How many bytes it passed on so far in this direction; of a handshake that dies, none.
    pub fn passed(&self, direction: Direction) -> u64 {
        self.counters.ways[direction.index()].passed.load(Ordering::Relaxed)
    }

    /// How many bytes of this direction it swallowed so far.
    pub fn swallowed(&self, direction: Direction) -> u64 {
        self.counters.ways[direction.index()].swallowed.load(Ordering::Relaxed)
    }

    /// How many bytes of this direction it has read and not passed on yet.
    pub fn waiting(&self, direction: Direction) -> u64 {
        self.counters.ways[direction.index()].waiting.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.heal();
        self.cut();
        self.accepting.abort();
    }
}

#[cfg(test)]
mod tests;
