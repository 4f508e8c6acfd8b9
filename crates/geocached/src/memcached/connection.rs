//! One connection: reads, executes every complete command at hand, answers with one write.
//!
//! **Bounds.** The read buffer holds one request: it starts at [`READ_BYTES_MIN`], grows as bytes arrive (never because
//! a length was merely announced) up to the line and value limits, and is given back after a large request. What it has
//! beyond [`FREE_BYTES`] is claimed from the server's budget for all connections; where that is spent, the request is
//! refused with `out of memory`, its value swallowed, and counted as `read_buf_oom`. A client that holds a claim and
//! sends nothing for the stall timeout is closed, so that half a value is not held for ever. The write
//! buffer holds at most [`OUT_BYTES_SOFT`] plus one value; while the client does not take it, nothing more is read, and
//! after the write timeout the connection is closed and counted as `write_kicks`. After [`STEPS_PER_TURN`] commands
//! and keys the task lets others run, counted as `conn_yields`.

use std::{
    io,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
    time::timeout,
};

use super::{
    buffers::{Claim, FREE_BYTES},
    counter::Counter,
    parser::{Parser, Step},
    read_through,
    session::{Flow, OUT_BYTES_SOFT, Session},
};

/// The read buffer of a quiet connection.
const READ_BYTES_MIN: usize = 2 * 1024;
/// The read buffer of a busy one, and the step in which it grows for a large request.
const READ_BYTES: usize = 16 * 1024;
/// Write buffers above this are given back once they are empty.
const KEEP_BYTES_MAX: usize = 2 * OUT_BYTES_SOFT;
/// How many commands and keys a connection may execute before it lets others run.
const STEPS_PER_TURN: usize = 256;
/// What is still read, and for how long, so that a last answer reaches a client that is sending.
const LINGER_BYTES_MAX: usize = 256 * 1024;
const LINGER: Duration = Duration::from_millis(500);

/// What the bytes at hand came to.
enum Turn {
    /// All complete commands were executed; this is the size of the next one, if known.
    Read { total: Option<usize> },
    /// There may be more commands, but it is the others' turn.
    Yield,
    /// The conversation is over.
    Close { linger: bool },
}

/// Serves one client until either side ends it or `stop` turns true.
pub(super) async fn serve<S>(stream: S, session: Session, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stopped = pin!(async move {
        // An error means that the server itself is gone.
        let _ = stop.wait_for(|&stop| stop).await;
    });
    let parser = Parser::new(session.shared.options.value_bytes_max);
    let claim = Claim::new(Arc::clone(&session.shared));
    let (input, out) = (Vec::new(), Vec::new());
    let mut connection = Connection { stream, session, parser, input, claim, out, filled: false };
    // Whatever ended it, the client is gone or will see the close: there is nobody to tell.
    if let Err(error) = connection.run(stopped.as_mut()).await {
        tracing::debug!(%error, "connection ended");
    }
    let Connection { session: Session { shared, mut tally, .. }, .. } = connection;
    shared.counters.take(&mut tally);
}

struct Connection<S> {
    stream: S,
    session: Session,
    parser: Parser,
    input: Vec<u8>,
    /// Covers what the input has beyond the free bytes.
    claim: Claim,
    out: Vec<u8>,
    /// Whether the last read filled its buffer, so that a larger one would have held more.
    filled: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn run(&mut self, mut stopped: Pin<&mut impl Future<Output = ()>>) -> io::Result<()> {
        self.input.reserve_exact(READ_BYTES_MIN);
        loop {
            let turn = self.turn().await?;
            self.write().await?;
            self.session.shared.counters.take(&mut self.session.tally);
            let total = match turn {
                Turn::Read { total } => total,
                Turn::Yield => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Turn::Close { linger } => return self.close(linger).await,
            };
            if !self.make_room(total) {
                self.parser.give_up();
                continue;
            }
            let patience = self.patience();
            let read = tokio::select! {
                read = read(&mut self.stream, &mut self.input, patience) => read?,
                () = &mut stopped => return self.close(false).await,
            };
            match read {
                Some(0) => return Ok(()),
                Some(bytes) => {
                    self.filled = self.input.len() == self.input.capacity();
                    self.session.tally.add(Counter::BytesRead, bytes as u64);
                }
                None => {
                    self.session.tally.count(Counter::IdleKicks);
                    return self.close(false).await;
                }
            }
        }
    }

    /// Executes what is at hand, and drops it from the input.
    async fn turn(&mut self) -> io::Result<Turn> {
        let mut at = 0;
        let mut commands = 0;
        let mut keys_before = self.session.keys;
        let turn = loop {
            if commands + self.session.keys - keys_before >= STEPS_PER_TURN {
                self.session.tally.count(Counter::ConnYields);
                break Turn::Yield;
            }
            let (mut command, used) = match self.parser.next(&self.input[at..]) {
                Step::Command { command, used } => (command, used),
                Step::Skip { used } => {
                    at += used;
                    continue;
                }
                Step::More { total } => break Turn::Read { total },
            };
            commands += 1;
            let flow = loop {
                let lacking = self.session.read_through.lacking(&self.session.shared, &command);
                if !lacking.is_empty() {
                    // What was answered already need not wait for another region.
                    write(&mut self.stream, &mut self.session, &mut self.out).await?;
                    read_through::fetch(&self.session.shared, &mut self.session.tally, &lacking).await;
                }
                let flow = self.session.execute(&mut command, &mut self.out);
                if self.out.len() >= OUT_BYTES_SOFT {
                    write(&mut self.stream, &mut self.session, &mut self.out).await?;
                }
                if flow != Flow::More {
                    break flow;
                }
                // One request with very many keys is no reason to keep others waiting.
                self.session.tally.count(Counter::ConnYields);
                tokio::task::yield_now().await;
                (commands, keys_before) = (0, self.session.keys);
            };
            at += used;
            if flow == Flow::Close {
                let linger = !self.out.is_empty();
                break Turn::Close { linger };
            }
        };
        self.input.drain(..at);
        Ok(turn)
    }

    async fn write(&mut self) -> io::Result<()> {
        write(&mut self.stream, &mut self.session, &mut self.out).await
    }

    /// Room for the next read; false if there is no memory for it.
    fn make_room(&mut self, total: Option<usize>) -> bool {
        let length = self.input.len();
        let is_small = length <= READ_BYTES && total.is_none_or(|total| total <= FREE_BYTES);
        if is_small && self.input.capacity() > FREE_BYTES {
            let mut input = Vec::with_capacity(2 * READ_BYTES);
            input.extend_from_slice(&self.input);
            self.input = input;
        }
        let capacity = match total {
            // Doubling what has arrived, up to what is awaited: the buffer ends with the right size, and a client
            // that announces a length without sending it has taken no memory.
            Some(total) => total.min(length + length.max(READ_BYTES)),
            None if length + READ_BYTES <= self.input.capacity() => 0,
            None if length > 0 => (length + length.max(READ_BYTES)).next_multiple_of(READ_BYTES),
            None if self.filled => READ_BYTES,
            None => 0,
        };
        let capacity = self.input.capacity().max(capacity);
        if !self.claim.cover(capacity) {
            return false;
        }
        self.input.reserve_exact(capacity - length);
        true
    }

    /// How long to wait for the client's next bytes.
    fn patience(&self) -> Option<Duration> {
        let options = &self.session.shared.options;
        let stall = self.claim.is_held().then_some(options.stall_timeout);
        [options.idle_timeout, stall].into_iter().flatten().min()
    }

    /// Ends the conversation. A client in the middle of sending would lose the last answer to the reset that unread
    /// bytes cause, so a bounded part of them is read and dropped.
    async fn close(&mut self, linger: bool) -> io::Result<()> {
        self.stream.shutdown().await?;
        if !linger {
            return Ok(());
        }
        self.input = Vec::with_capacity(READ_BYTES);
        self.claim.cover(READ_BYTES);
        let drain = async {
            let mut left = LINGER_BYTES_MAX;
            while left > 0 {
                self.input.clear();
                match self.stream.read_buf(&mut self.input).await {
                    Ok(0) | Err(_) => break,
                    Ok(bytes) => left = left.saturating_sub(bytes),
                }
            }
        };
        // The time being over is as good an end as any.
        let _ = timeout(LINGER, drain).await;
        Ok(())
    }
}

/// Reads once; `None` if nothing came for the idle timeout.
async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    input: &mut Vec<u8>,
    idle: Option<Duration>,
) -> io::Result<Option<usize>> {
    match idle {
        None => stream.read_buf(input).await.map(Some),
        Some(idle) => timeout(idle, stream.read_buf(input)).await.ok().transpose(),
    }
}

/// Sends the whole output; each part must be taken within the write timeout.
async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    session: &mut Session,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let mut sent = 0;
    while sent < out.len() {
        match timeout(session.shared.options.write_timeout, stream.write(&out[sent..])).await {
            Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(Ok(bytes)) => sent += bytes,
            Ok(Err(error)) => return Err(error),
            Err(elapsed) => {
                session.tally.count(Counter::WriteKicks);
                return Err(io::Error::new(io::ErrorKind::TimedOut, elapsed));
            }
        }
    }
    session.tally.add(Counter::BytesWritten, sent as u64);
    out.clear();
    if out.capacity() > KEEP_BYTES_MAX {
        *out = Vec::new();
    }
    Ok(())
}
