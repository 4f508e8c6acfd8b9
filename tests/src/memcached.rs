//! Just enough of a memcached client to talk to a daemon in tests.
//!
//! It speaks the classic text protocol over one connection and checks nothing beyond what it needs to find the end of
//! an answer; each answer is waited for to a bound of 10 s. It is written here, apart from the daemon's own parser, so
//! that a mistake in one does not hide in both.

use std::{
    io::{Error, ErrorKind, Result},
    net::SocketAddr,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
};

const ANSWER_BOUND: Duration = Duration::from_secs(10);

/// One connection to a memcached server.
#[derive(Debug)]
pub struct Memcached {
    stream: BufStream<TcpStream>,
}

impl Memcached {
    /// Connects.
    ///
    /// # Errors
    /// What the connection attempt ended with.
    pub async fn connect(addr: SocketAddr) -> Result<Self> {
        let stream = bounded(TcpStream::connect(addr)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufStream::new(stream) })
    }

    /// `set` with no flags; the time to live is in whole seconds, 0 = for ever.
    ///
    /// # Errors
    /// Any answer but `STORED`, and a broken connection.
    pub async fn set(&mut self, key: &str, value: &[u8], ttl_s: u32) -> Result<()> {
        let mut line = format!("set {key} 0 {ttl_s} {}\r\n", value.len()).into_bytes();
        line.extend_from_slice(value);
        line.extend_from_slice(b"\r\n");
        self.send(&line).await?;
        match self.line().await?.as_str() {
            "STORED" => Ok(()),
            other => Err(Error::other(format!("set {key} was answered with {other:?}"))),
        }
    }

    /// `get` of one key.
    ///
    /// # Errors
    /// An answer that is no answer to `get`, and a broken connection.
    pub async fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>> {
        self.send(format!("get {key}\r\n").as_bytes()).await?;
        let head = self.line().await?;
        if head == "END" {
            return Ok(None);
        }
        let bytes: usize = head
            .strip_prefix("VALUE ")
            .and_then(|rest| rest.split(' ').nth(2))
            .and_then(|count| count.parse().ok())
            .ok_or_else(|| Error::other(format!("get {key} was answered with {head:?}")))?;
        let mut value = vec![0; bytes + 2];
        bounded(self.stream.read_exact(&mut value)).await?;
        value.truncate(bytes);
        match self.line().await?.as_str() {
            "END" => Ok(Some(value)),
            other => Err(Error::other(format!("get {key} ended with {other:?}"))),
        }
    }

    /// Sends `line` (its line end is added) and returns the first line of the answer.
    ///
    /// # Errors
    /// A broken connection.
    pub async fn command(&mut self, line: &str) -> Result<String> {
        self.send(format!("{line}\r\n").as_bytes()).await?;
        self.line().await
    }

    /// Sends `line` and returns the answer's lines up to the one that is `END`, which is left out (`stats`).
    ///
    /// # Errors
    /// A broken connection.
    pub async fn lines(&mut self, line: &str) -> Result<Vec<String>> {
        let mut lines = vec![self.command(line).await?];
        while lines.last().is_some_and(|line| line != "END") {
            lines.push(self.line().await?);
        }
        lines.pop();
        Ok(lines)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// A broken connection.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await?;
        bounded(self.stream.flush()).await
    }

    /// The next line of an answer, without its line end.
    ///
    /// # Errors
    /// A broken or closed connection, and [`ErrorKind::TimedOut`] after 10 s.
    pub async fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        bounded(self.stream.read_until(b'\n', &mut line)).await?;
        if line.pop() != Some(b'\n') {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        String::from_utf8(line).map_err(|error| Error::new(ErrorKind::InvalidData, error))
    }
}

async fn bounded<T>(io: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(ANSWER_BOUND, io).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers one connection's commands, in order, with fixed bytes.
    async fn scripted(answers: &'static [(&'static str, &'static str)]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for (expected, answer) in answers {
                let mut got = vec![0; expected.len()];
                stream.read_exact(&mut got).await.unwrap();
                assert_eq!(String::from_utf8_lossy(&got), *expected);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        addr
    }

    #[tokio::test]
    async fn values_are_framed_by_their_length() {
        let addr = scripted(&[
            ("set k 0 60 4\r\na\r\nb\r\n", "STORED\r\n"),
            ("get k\r\n", "VALUE k 0 4\r\na\r\nb\r\nEND\r\n"),
            ("get x\r\n", "END\r\n"),
            ("stats\r\n", "STAT pid 1\r\nSTAT uptime 2\r\nEND\r\n"),
            ("version\r\n", "VERSION 1\r\n"),
        ])
        .await;
        let mut client = Memcached::connect(addr).await.unwrap();
        client.set("k", b"a\r\nb", 60).await.unwrap();
        assert_eq!(client.get("k").await.unwrap().as_deref(), Some(&b"a\r\nb"[..]));
        assert_eq!(client.get("x").await.unwrap(), None);
        assert_eq!(client.lines("stats").await.unwrap(), ["STAT pid 1", "STAT uptime 2"]);
        assert_eq!(client.command("version").await.unwrap(), "VERSION 1");
        assert_eq!(client.line().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn an_answer_that_does_not_fit_is_an_error() {
        let addr =
            scripted(&[("set k 0 0 1\r\nv\r\n", "SERVER_ERROR full\r\n"), ("get k\r\n", "ERROR\r\n")]).await;
        let mut client = Memcached::connect(addr).await.unwrap();
        assert!(client.set("k", b"v", 0).await.unwrap_err().to_string().contains("SERVER_ERROR full"));
        assert!(client.get("k").await.unwrap_err().to_string().contains("ERROR"));
    }
}
