//! Carries connections as the link allows: a task each, and in it a reader and a writer for each direction.
//!
//! The reader turns what one end does into pieces, its end included; the writer hands them to the other end when the
//! link lets them through. So whatever holds bytes back holds back the news of an end too.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{Semaphore, mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    CHUNK_BYTES, CHUNKS_QUEUED_MAX, CONNECTIONS_MAX,
    link::{Death, Direction, DyingHandshake, End, Link},
    pacer::{self, Pacer},
};

/// What a link counts, and the lines that its connections share.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) open: AtomicUsize,
    pub(super) ways: [Way; 2],
}

/// One direction, all connections together.
#[derive(Debug, Default)]
pub(super) struct Way {
    pub(super) passed: AtomicU64,
    pub(super) swallowed: AtomicU64,
    pub(super) waiting: AtomicU64,
    pacer: Mutex<Pacer>,
}

pub(super) async fn accept(
    listener: TcpListener,
    upstream: SocketAddr,
    link: watch::Receiver<Link>,
    counters: Arc<Counters>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // An accept fails when the peer was gone already or descriptors run out; neither ends the link.
        let Ok((downstream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let id = counters.accepted.fetch_add(1, Ordering::Relaxed) + 1;
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            counters.refused.fetch_add(1, Ordering::Relaxed);
            reset(&downstream);
            continue;
        };
        let connection = Connection { id, upstream, link: link.clone(), counters: Arc::clone(&counters) };
        tokio::spawn(async move {
            connection.run(downstream).await;
            drop(permit);
        });
    }
}

/// With no time to linger, the close that follows is a reset.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

fn broken() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// A connection and the link that it is on.
struct Connection {
    id: u64,
    upstream: SocketAddr,
    link: watch::Receiver<Link>,
    counters: Arc<Counters>,
}

/// How the carrying of a connection ended.
enum Outcome {
    Closed,
    Broken,
    Stranded(End),
}

/// What an end did.
enum Piece {
    Bytes(Vec<u8>),
    End,
    Reset,
}

impl Connection {
    /// Until both ends closed it or the link reset it.
    async fn run(&self, mut downstream: TcpStream) {
        let _ = downstream.set_nodelay(true);
        let (dying, half_open) = {
            let link = self.link.borrow();
            (link.dying(self.id), link.is_half_open(self.id))
        };
        if let Some(dying) = dying {
            self.die(downstream, dying).await;
            return;
        }
        let connected = tokio::select! {
            biased;
            () = self.until(|link| link.resets(self.id)) => None,
            connected = self.connect(half_open) => connected.ok(),
        };
        let Some(mut up) = connected else {
            reset(&downstream);
            return;
        };
        self.counters.open.fetch_add(1, Ordering::Relaxed);
        let outcome = tokio::select! {
            biased;
            () = self.until(|link| link.resets(self.id)) => Outcome::Broken,
            left = self.stranded() => Outcome::Stranded(left),
            outcome = self.pass_both(&mut downstream, &mut up) => outcome,
        };
        match outcome {
            Outcome::Closed => {}
            Outcome::Broken => {
                reset(&downstream);
                reset(&up);
            }
            Outcome::Stranded(left) => {
                let (left, lost) = match left {
                    End::Client => (downstream, up),
                    End::Upstream => (up, downstream),
                };
                reset(&lost);
                drop(lost);
                self.until(|link| link.resets(self.id) || !link.is_half_open(self.id)).await;
                reset(&left);
            }
        }
        self.counters.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Ends when the link is dropped too, which resets every connection.
    async fn until(&self, condition: impl Fn(&Link) -> bool) {
        let _ = self.link.clone().wait_for(|link| condition(link)).await;
    }

    async fn stranded(&self) -> End {
        let mut link = self.link.clone();
        let left =
            link.wait_for(|link| link.strands(self.id).is_some()).await.map(|link| link.strands(self.id));
        match left {
            Ok(Some(left)) => left,
            _ => std::future::pending().await,
        }
    }

    /// A held link accepts, but who is behind it hears nothing of that; nor ever, when it was half-open.
    async fn connect(&self, half_open: bool) -> io::Result<TcpStream> {
        if half_open {
            self.until(|link| !link.is_half_open(self.id)).await;
            return Err(broken());
        }
        self.until(|link| !link.blocks(self.id, Direction::ToUpstream)).await;
        let up = TcpStream::connect(self.upstream).await?;
        let _ = up.set_nodelay(true);
        Ok(up)
    }

    async fn pass_both(&self, downstream: &mut TcpStream, up: &mut TcpStream) -> Outcome {
        let (down_read, down_write) = downstream.split();
        let (up_read, up_write) = up.split();
        let passed = tokio::try_join!(
            self.pass(down_read, up_write, Direction::ToUpstream),
            self.pass(up_read, down_write, Direction::ToClient),
        );
        if passed.is_ok() { Outcome::Closed } else { Outcome::Broken }
    }

    /// Carries one direction; an error when the connection is to be reset.
    async fn pass(&self, from: ReadHalf<'_>, to: WriteHalf<'_>, direction: Direction) -> io::Result<()> {
        let (queue, queued) = mpsc::channel(CHUNKS_QUEUED_MAX);
        let carrying = Carrying { connection: self, direction, waits: AtomicU64::new(0) };
        tokio::select! {
            // The writer is done after the reader's last piece, or the connection is to be reset.
            result = carrying.write(to, queued) => result,
            () = async {
                carrying.read(from, queue).await;
                std::future::pending::<()>().await;
            } => Ok(()),
        }
    }

    /// Breaks off a handshake.
    async fn die(&self, mut downstream: TcpStream, dying: DyingHandshake) {
        let mut up = None;
        let spoken = async {
            if dying.client_bytes == 0 {
                return;
            }
            let (read, mut write) = downstream.split();
            let mut read = read.take(dying.client_bytes);
            if !dying.passed {
                let _ = tokio::io::copy(&mut read, &mut tokio::io::sink()).await;
                return;
            }
            let Ok(connected) = TcpStream::connect(self.upstream).await else { return };
            let (mut up_read, mut up_write) = up.insert(connected).split();
            tokio::select! {
                _ = tokio::io::copy(&mut read, &mut up_write) => {}
                _ = async {
                    let _ = tokio::io::copy(&mut up_read, &mut write).await;
                    std::future::pending::<()>().await;
                } => {}
            }
        };
        let cut = tokio::select! {
            biased;
            () = self.until(|link| link.resets(self.id)) => true,
            () = spoken => false,
        };
        if !cut && dying.then == Death::Mute {
            self.until(|link| link.resets(self.id) || link.dying(self.id).is_none()).await;
        }
        if cut || dying.then != Death::Close {
            reset(&downstream);
            up.iter().for_each(reset);
        }
    }
}

/// One direction of a connection.
struct Carrying<'a> {
    connection: &'a Connection,
    direction: Direction,
    /// Bytes read and neither passed nor swallowed.
    waits: AtomicU64,
}

impl Drop for Carrying<'_> {
    fn drop(&mut self) {
        self.way().waiting.fetch_sub(self.waits.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Carrying<'_> {
    fn way(&self) -> &Way {
        &self.connection.counters.ways[self.direction.index()]
    }

    fn link(&self) -> watch::Ref<'_, Link> {
        self.connection.link.borrow()
    }

    fn taken(&self, bytes: usize) {
        self.waits.fetch_add(bytes as u64, Ordering::Relaxed);
        self.way().waiting.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn done(&self, bytes: usize, count: &AtomicU64) {
        count.fetch_add(bytes as u64, Ordering::Relaxed);
        self.waits.fetch_sub(bytes as u64, Ordering::Relaxed);
        self.way().waiting.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    async fn read(&self, mut from: ReadHalf<'_>, queue: mpsc::Sender<(Instant, Piece)>) {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            let piece = match (&mut from).take(CHUNK_BYTES as u64).read_buf(&mut chunk).await {
                Ok(0) => Piece::End,
                Ok(count) => {
                    self.taken(count);
                    Piece::Bytes(chunk)
                }
                Err(_) => Piece::Reset,
            };
            let due = Instant::now() + self.link().delay(self.connection.id);
            let last = !matches!(piece, Piece::Bytes(_));
            if queue.send((due, piece)).await.is_err() || last {
                return;
            }
        }
    }

    async fn write(
        &self,
        mut to: WriteHalf<'_>,
        mut queued: mpsc::Receiver<(Instant, Piece)>,
    ) -> io::Result<()> {
        let id = self.connection.id;
        let mut has_hole = false;
        loop {
            let next = tokio::select! {
                biased;
                // A stream with a hole in it is of no use to anyone.
                () = self.unswallowed(), if has_hole => return Err(broken()),
                next = queued.recv() => next,
            };
            let Some((due, piece)) = next else { return Ok(()) };
            sleep_until(due).await;
            if let Piece::Bytes(bytes) = piece {
                has_hole |= !self.hand_over(&bytes, &mut to).await?;
                continue;
            }
            let lost = has_hole || self.link().swallows(id, self.direction);
            self.unswallowed().await;
            let hidden = self.told(self.direction).await;
            if lost || hidden || matches!(piece, Piece::Reset) {
                return Err(broken());
            }
            return to.shutdown().await;
        }
    }

    async fn unswallowed(&self) {
        let id = self.connection.id;
        self.connection.until(|link| !link.swallows(id, self.direction)).await;
    }

    /// Waits until the link lets the news of an end through, and says whether a half-open link hid it. What was hidden is
    /// not closed in good order later, but reset, as by a host that started again.
    async fn told(&self, direction: Direction) -> bool {
        let id = self.connection.id;
        let mut hidden = false;
        let mut link = self.connection.link.clone();
        let tells = |link: &Link| {
            hidden |= link.is_half_open(id);
            !link.blocks(id, direction) && !link.is_half_open(id)
        };
        let _ = link.wait_for(tells).await;
        hidden
    }

    /// Whether they were all handed over, not swallowed.
    async fn hand_over(&self, mut bytes: &[u8], to: &mut WriteHalf<'_>) -> io::Result<bool> {
        let id = self.connection.id;
        while !bytes.is_empty() {
            let rate = self.link().rate(id, self.direction);
            let count = rate.map_or(bytes.len(), |rate| pacer::slice(rate, bytes.len()));
            if let Some(rate) = rate {
                let passed = {
                    let mut pacer = self.way().pacer.lock().unwrap_or_else(PoisonError::into_inner);
                    pacer.reserve(Instant::now(), count, rate)
                };
                tokio::select! {
                    biased;
                    () = self.connection.until(|link| link.rate(id, self.direction) != Some(rate)) => continue,
                    () = sleep_until(passed) => {}
                }
            }
            self.connection.until(|link| !link.blocks(id, self.direction)).await;
            if self.link().swallows(id, self.direction) {
                self.done(bytes.len(), &self.way().swallowed);
                return Ok(false);
            }
            let (now, later) = bytes.split_at(count);
            if let Err(error) = to.write_all(now).await {
                // That this end is gone is news for the other one, and goes the other way.
                self.told(self.direction.reverse()).await;
                return Err(error);
            }
            self.done(count, &self.way().passed);
            bytes = later;
        }
        Ok(true)
    }
}
