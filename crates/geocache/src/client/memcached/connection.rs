//! One connection: a request goes out, its whole answer comes in.
//!
//! It is good for another request only after a whole answer, with nothing behind it. Whoever holds it throws it away otherwise, so
//! that the rest of an answer is never taken for another's.

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

use super::{
    fault::Fault,
    wire::{self, KEY_BYTES_MAX, Line, Returned},
};

/// The longest line of an answer: a key in base64 or escaped, and what is told of it.
const LINE_BYTES_MAX: usize = 4 * 1024;
/// By how much the input grows, as bytes arrive.
const READ_BYTES: usize = 16 * 1024;
/// An input larger than this is given back once it is empty.
const KEEP_BYTES_MAX: usize = 64 * 1024;
/// How many figures `stats` may have.
const STATS_MAX: usize = 4_096;

/// What kind of server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Memcached,
    GeoCached,
}

impl Kind {
    /// The longest key in base64 that it takes.
    pub(super) const fn encoded_key_bytes_max(self) -> usize {
        match self {
            // memcached counts the key as it is written.
            Self::Memcached => KEY_BYTES_MAX,
            Self::GeoCached => KEY_BYTES_MAX.div_ceil(3) * 4,
        }
    }
}

/// A whole answer of the meta protocol.
#[derive(Debug)]
pub(super) enum Answer {
    Value { bytes: Bytes, returned: Returned },
    Line(Line),
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    input: BytesMut,
    pub(super) kind: Kind,
    value_bytes_max: usize,
}

impl Connection {
    /// Asks a server that was reached what it is.
    pub(super) async fn begin(stream: TcpStream, value_bytes_max: usize) -> Result<Self, Fault> {
        stream.set_nodelay(true).map_err(|error| Fault::broken(&error))?;
        let mut connection = Self { stream, input: BytesMut::new(), kind: Kind::Memcached, value_bytes_max };
        connection.send(b"version\r\nmn\r\n").await?;
        let version = connection.line().await?;
        let version = String::from_utf8_lossy(&version).into_owned();
        if !version.starts_with("VERSION ") {
            return Err(wire::refusal(&version).unwrap_or_else(|| Fault::garbled(version.as_bytes())));
        }
        if Line::parse(&connection.line().await?).ok() != Some(Line::Noop) {
            let reason = format!(
                "it says {version:?} and does not speak the meta protocol; memcached 1.6 or newer, or geocached, is needed"
            );
            return Err(Fault::Refused { reason });
        }
        if version.contains("geocached") {
            connection.kind = Kind::GeoCached;
        }
        Ok(connection)
    }

    /// Sends requests and takes their answers until `take` has heard enough. Both at once, for a server that answers the first of many
    /// requests waits until its answers are taken.
    pub(super) async fn exchange(
        &mut self,
        requests: &[u8],
        mut take: impl FnMut(Answer) -> Result<Progress, Fault> + Send,
    ) -> Result<(), Fault> {
        let (from, to) = self.stream.split();
        let mut answers = Answers { from, input: &mut self.input, value_bytes_max: self.value_bytes_max };
        let read = async {
            loop {
                let answer = answers.answer().await?;
                if take(answer)? == Progress::Whole {
                    return Ok(());
                }
            }
        };
        tokio::try_join!(write(to, requests), read)?;
        Ok(())
    }

    /// Sends one request of the meta protocol and takes its answer.
    pub(super) async fn ask(&mut self, request: &[u8]) -> Result<Answer, Fault> {
        let mut answered = None;
        self.exchange(request, |answer| {
            answered = Some(answer);
            Ok(Progress::Whole)
        })
        .await?;
        answered.ok_or_else(|| Fault::garbled(b""))
    }

    /// The figures of `stats`.
    pub(super) async fn stats(&mut self) -> Result<Vec<(String, String)>, Fault> {
        self.send(b"stats\r\n").await?;
        let mut stats = Vec::new();
        loop {
            let line = self.line().await?;
            let text = String::from_utf8_lossy(&line);
            if text == "END" {
                return Ok(stats);
            }
            let stat = text.strip_prefix("STAT ").map(|stat| stat.split_once(' ').unwrap_or((stat, "")));
            let Some((name, value)) = stat.filter(|_| stats.len() < STATS_MAX) else {
                return Err(wire::refusal(&text).unwrap_or_else(|| Fault::garbled(&line)));
            };
            stats.push((name.to_owned(), value.to_owned()));
        }
    }

    pub(super) async fn send(&mut self, request: &[u8]) -> Result<(), Fault> {
        write(self.stream.split().1, request).await
    }

    /// The next line of an answer, without its end.
    pub(super) async fn line(&mut self) -> Result<Bytes, Fault> {
        let (from, _) = self.stream.split();
        let mut answers = Answers { from, input: &mut self.input, value_bytes_max: self.value_bytes_max };
        answers.line().await
    }

    /// Whether the next request may go over it: nobody has closed it, and nothing is there that nobody asked for.
    pub(super) fn is_clean(&self) -> bool {
        let is_silent = || {
            let read = self.stream.try_read(&mut [0]);
            matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        };
        self.input.is_empty() && is_silent()
    }

    /// Gives back what a large answer took.
    pub(super) fn rest(&mut self) {
        if self.input.capacity() > KEEP_BYTES_MAX {
            self.input = BytesMut::new();
        }
    }
}

/// Whether an answer ends with what was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Whole,
}

/// The side that answers come from.
struct Answers<'c> {
    from: ReadHalf<'c>,
    input: &'c mut BytesMut,
    value_bytes_max: usize,
}

impl Answers<'_> {
    async fn answer(&mut self) -> Result<Answer, Fault> {
        let line = self.line().await?;
        match Line::parse(&line)? {
            Line::Value { bytes, returned } => {
                let bytes = self.block(bytes).await?;
                Ok(Answer::Value { bytes, returned })
            }
            line => Ok(Answer::Line(line)),
        }
    }

    async fn line(&mut self) -> Result<Bytes, Fault> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.input[searched..].iter().position(|&byte| byte == b'\n') {
                let line = self.input.split_to(searched + at + 1).freeze();
                let line = line.slice(..line.len() - 1);
                let end = line.len() - usize::from(line.ends_with(b"\r"));
                return Ok(line.slice(..end));
            }
            searched = self.input.len();
            if searched > LINE_BYTES_MAX {
                return Err(Fault::garbled(self.input));
            }
            self.read().await?;
        }
    }

    /// A value and its line end. What is announced takes no memory before it comes.
    async fn block(&mut self, bytes: usize) -> Result<Bytes, Fault> {
        let max = self.value_bytes_max;
        if bytes > max {
            let reason =
                format!("the value has {bytes} bytes, over this endpoint's value_bytes_max of {max}");
            return Err(Fault::Rejected { reason });
        }
        while self.input.len() < bytes + 2 {
            self.read().await?;
        }
        // A copy of its own length: a part of the input would keep the whole of it in memory.
        let value = Bytes::copy_from_slice(&self.input[..bytes]);
        if &self.input[bytes..bytes + 2] != b"\r\n" {
            // What follows may be the rest of somebody's value, and is not told.
            return Err(Fault::Garbled { reason: format!("a value of {bytes} bytes does not end there") });
        }
        self.input.advance(bytes + 2);
        Ok(value)
    }

    async fn read(&mut self) -> Result<(), Fault> {
        self.input.reserve(READ_BYTES);
        match self.from.read_buf(self.input).await {
            Ok(0) => {
                Err(Fault::Broken { reason: "it closed the connection before it had answered".to_owned() })
            }
            Ok(_) => Ok(()),
            Err(error) => Err(Fault::broken(&error)),
        }
    }
}

async fn write(mut to: WriteHalf<'_>, requests: &[u8]) -> Result<(), Fault> {
    to.write_all(requests).await.map_err(|error| Fault::broken(&error))
}
