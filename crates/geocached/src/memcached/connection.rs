//! One connection: reads, executes every complete command at hand, answers with one write.
//!
//! **Bounds.** The read buffer holds one request: it starts at [`READ_BYTES_MIN`], grows as bytes arrive (never because
//! a length was merely claimed) up to the line and value limits, and is given back after a large request. The write
//! buffer holds at most [`OUT_BYTES_SOFT`] plus one value; while the client does not take it, nothing more is read, and
//! after the write timeout the connection is closed and counted as `write_kicks`. After [`COMMANDS_PER_TURN`] commands
//! the task lets others run, counted as `conn_yields`.

use std::{
    io,
    pin::{Pin, pin},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
    time::timeout,
};

use super::{
    counter::Counter,
    parser::{Parser, Step},
    session::{Flow, OUT_BYTES_SOFT, Session},
};

/// The read buffer of a quiet connection.
const READ_BYTES_MIN: usize = 2 * 1024;
/// The read buffer of a busy one, and the step in which it grows for a large request.
const READ_BYTES: usize = 16 * 1024;
/// Buffers above this are given back once they are empty.
const KEEP_BYTES_MAX: usize = 2 * OUT_BYTES_SOFT;
/// How many commands a connection may execute before it lets others run.
const COMMANDS_PER_TURN: usize = 256;
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
    let mut connection =
        Connection { stream, session, parser, input: Vec::new(), out: Vec::new(), filled: false };
    // Whatever ended it, the client is gone or will see the close: there is nobody to tell.
    if let Err(error) = connection.run(stopped.as_mut()).await {
        tracing::debug!(%error, "connection ended");
    }
    let Connection { session: Session { shared, mut tally }, .. } = connection;
    shared.counters.take(&mut tally);
}

struct Connection<S> {
    stream: S,
    session: Session,
    parser: Parser,
    input: Vec<u8>,
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
            self.make_room(total);
            let read = tokio::select! {
                read = read(&mut self.stream, &mut self.input, self.session.shared.options.idle_timeout) => read?,
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
        let turn = loop {
            if commands == COMMANDS_PER_TURN {
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
                let flow = self.session.execute(&mut command, &mut self.out);
                if self.out.len() >= OUT_BYTES_SOFT {
                    write(&mut self.stream, &mut self.session, &mut self.out).await?;
                }
                if flow != Flow::More {
                    break flow;
                }
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

    /// Room for the next read.
    fn make_room(&mut self, total: Option<usize>) {
        let length = self.input.len();
        if length == 0 && self.input.capacity() > KEEP_BYTES_MAX {
            self.input = Vec::with_capacity(READ_BYTES);
        }
        match total {
            // Doubling what has arrived, up to what is awaited: the buffer ends with the right size, and a client
            // that claims a length without sending it has claimed no memory.
            Some(total) => self.input.reserve_exact((total - length).min(length.max(READ_BYTES))),
            None if self.filled || length > 0 => self.input.reserve(READ_BYTES),
            None => {}
        }
    }

    /// Ends the conversation. A client in the middle of sending would lose the last answer to the reset that unread
    /// bytes cause, so a bounded part of them is read and dropped.
    async fn close(&mut self, linger: bool) -> io::Result<()> {
        self.stream.shutdown().await?;
        if !linger {
            return Ok(());
        }
        self.input = Vec::with_capacity(READ_BYTES);
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
