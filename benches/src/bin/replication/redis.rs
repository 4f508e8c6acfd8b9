//! Redis on this machine: a primary with two replicas, which this process starts and ends, without persistence.
//!
//! The same records as ours (a key of 16 bytes, a value of 112, the same number of keys), sent with `SET` in pipelines
//! over several connections of one thread, so that the primary always has work. How long pipelines are and how many
//! connections there are is searched before anything is compared: the fastest pair is what the rounds use. As ours, a flood
//! ends when both replicas have the last record, for which the primary is asked (`WAIT 2`). That they have them is checked
//! by their sizes.
//!
//! The client comes over TCP of the loopback, as Redis' clients do, while geocache's writer is in its node's process.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use benches::record;
use tempfile::TempDir;

use crate::{
    nodes::{KEYS, Keys, Speed},
    usage::Meter,
};

/// How many commands of a connection may be sent before its answers are read.
pub(crate) const PIPELINES: [usize; 3] = [64, 256, 1_024];

/// Over how many connections.
pub(crate) const CONNECTIONS: [usize; 4] = [2, 4, 8, 16];

/// How long each pair of them is tried, and how often: the better try counts.
const TRY: Duration = Duration::from_millis(400);
const TRIES: usize = 2;

const REPLICAS: usize = 2;
const READY_BOUND: Duration = Duration::from_secs(20);
const ANSWER_BOUND: Duration = Duration::from_secs(60);

pub(crate) struct Redis {
    /// The primary first.
    servers: Vec<Server>,
    /// The most that are tried; those of `load` are used.
    connections: Vec<Connection>,
    load: Load,
    meter: Meter,
    keys: Keys,
    _folder: TempDir,
}

/// How the primary is given work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) pipeline: usize,
    pub(crate) connections: usize,
}

struct Server {
    process: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Redis {
    /// Starts the three and finds out what load they serve fastest; `None` where Redis is not installed.
    pub(crate) fn start() -> Result<Option<Self>> {
        let mut redis = Self::launch()?;
        if let Some(redis) = &mut redis {
            redis.search()?;
        }
        Ok(redis)
    }

    fn launch() -> Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let mut servers: Vec<Server> = Vec::new();
        for _ in 0..=REPLICAS {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let mut command = Command::new("redis-server");
            command.args([
                "--bind",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--save",
                "",
                "--appendonly",
                "no",
            ]);
            command.arg("--dir").arg(folder.path());
            if let Some(primary) = servers.first() {
                command.args(["--replicaof", &format!("127.0.0.1 {}", primary.port)]);
            }
            let process = match command.stdin(Stdio::null()).stdout(Stdio::null()).spawn() {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                started => started.context("redis-server")?,
            };
            servers.push(Server { process, port });
        }
        let meter = Meter::of_processes(servers.iter().map(|server| server.process.id()));
        for server in &servers[1..] {
            let start = Instant::now();
            while !is_linked(server.port) {
                ensure!(
                    start.elapsed() < READY_BOUND,
                    "no replica of Redis was linked within {READY_BOUND:?}"
                );
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let most = CONNECTIONS.into_iter().max().unwrap_or(1);
        let connections = (0..most).map(|_| Connection::open(servers[0].port)).collect::<Result<Vec<_>>>()?;
        let load = Load { pipeline: PIPELINES[0], connections: CONNECTIONS[0] };
        Ok(Some(Self { servers, connections, load, meter, keys: Keys::new(KEYS), _folder: folder }))
    }

    /// Tries every load and keeps to the fastest.
    fn search(&mut self) -> Result<()> {
        // All keys are there before.
        self.flood(TRY)?;
        let mut fastest = (0.0, self.load);
        println!("\nredis: records/s by the length of pipelines and the number of connections");
        for pipeline in PIPELINES {
            print!("  {pipeline:>5}:");
            for connections in CONNECTIONS {
                self.load = Load { pipeline, connections };
                let mut best: f64 = 0.0;
                for _ in 0..TRIES {
                    best = best.max(self.flood(TRY)?.records_per_s);
                }
                print!("  {connections} x {best:.0}");
                if best > fastest.0 {
                    fastest = (best, self.load);
                }
            }
            println!();
        }
        self.load = fastest.1;
        println!(
            "redis: pipelines of {} over {} connections from here on",
            self.load.pipeline, self.load.connections
        );
        Ok(())
    }

    /// What was found to be the fastest.
    pub(crate) fn load(&self) -> Load {
        self.load
    }

    /// Sets records as fast as the primary takes them, until both replicas have all.
    pub(crate) fn flood(&mut self, length: Duration) -> Result<Speed> {
        let Load { pipeline, connections } = self.load;
        let (start, used) = (Instant::now(), self.meter.read());
        let mut records = 0;
        while start.elapsed() < length {
            for connection in &mut self.connections[..connections] {
                connection.out.clear();
                for _ in 0..pipeline {
                    connection.set(&record::key(self.keys.next()));
                }
                connection.flush()?;
            }
            for connection in &mut self.connections[..connections] {
                connection.take_oks(pipeline)?;
            }
            records += (pipeline * connections) as u64;
        }
        // The question is about what its connection wrote.
        for connection in &mut self.connections[..connections] {
            let reached = connection.ask(&[b"WAIT", b"2", b"60000"])?;
            ensure!(
                reached == b":2",
                "a replica of Redis does not have all: {:?}",
                String::from_utf8_lossy(&reached)
            );
        }
        let took = start.elapsed();
        let speed = Speed::of(records, took, self.meter.read().since(used));
        self.check()?;
        Ok(speed)
    }

    /// Holds the figure to its terms: the replicas have as many keys as the primary.
    fn check(&self) -> Result<()> {
        let sizes = self
            .servers
            .iter()
            .map(|server| Connection::open(server.port)?.ask(&[b"DBSIZE"]))
            .collect::<Result<Vec<_>>>()?;
        ensure!(
            sizes.iter().all(|size| *size == sizes[0]),
            "Redis' replicas differ from their primary: {sizes:?}"
        );
        Ok(())
    }
}

/// Whether a replica has its primary's data.
fn is_linked(port: u16) -> bool {
    let info = || {
        let mut connection = Connection::open(port)?;
        connection.ask_bulk(&[b"INFO", b"replication"])
    };
    info().is_ok_and(|info| String::from_utf8_lossy(&info).contains("master_link_status:up"))
}

/// A client of just what is needed here.
struct Connection {
    stream: TcpStream,
    out: Vec<u8>,
    read: Vec<u8>,
    at: usize,
}

impl Connection {
    fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_BOUND))?;
        Ok(Self { stream, out: Vec::new(), read: Vec::new(), at: 0 })
    }

    fn command(&mut self, words: &[&[u8]]) {
        let head = |out: &mut Vec<u8>, mark: u8, number: usize| {
            out.push(mark);
            out.extend_from_slice(number.to_string().as_bytes());
            out.extend_from_slice(b"\r\n");
        };
        head(&mut self.out, b'*', words.len());
        for word in words {
            head(&mut self.out, b'$', word.len());
            self.out.extend_from_slice(word);
            self.out.extend_from_slice(b"\r\n");
        }
    }

    /// As [`command`](Self::command), at no cost that a real client would not have.
    fn set(&mut self, key: &[u8; record::KEY_BYTES]) {
        const _: () = assert!(record::KEY_BYTES == 16 && record::VALUE_BYTES == 112);
        self.out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n$16\r\n");
        self.out.extend_from_slice(key);
        self.out.extend_from_slice(b"\r\n$112\r\n");
        self.out.extend_from_slice(&[b'v'; record::VALUE_BYTES]);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Takes so many answers that say that it went well.
    fn take_oks(&mut self, count: usize) -> Result<()> {
        const OK: &[u8] = b"+OK\r\n";
        while self.read.len() < self.at + count * OK.len() {
            self.fill()?;
        }
        let answers = &self.read[self.at..self.at + count * OK.len()];
        ensure!(
            answers.chunks_exact(OK.len()).all(|answer| answer == OK),
            "Redis answered a SET with {:?}",
            String::from_utf8_lossy(answers)
        );
        self.at += count * OK.len();
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    fn ask(&mut self, words: &[&[u8]]) -> Result<Vec<u8>> {
        self.command(words);
        self.flush()?;
        self.line()
    }

    fn ask_bulk(&mut self, words: &[&[u8]]) -> Result<Vec<u8>> {
        let head = self.ask(words)?;
        let length = head.strip_prefix(b"$").context("Redis answered with no text")?;
        let length: usize = std::str::from_utf8(length)?.parse()?;
        while self.read.len() < self.at + length {
            self.fill()?;
        }
        Ok(self.read[self.at..self.at + length].to_vec())
    }

    /// The next line of what came, without its end.
    fn line(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(end) = self.read[self.at..].iter().position(|byte| *byte == b'\r')
                && self.read.len() >= self.at + end + 2
            {
                let line = self.read[self.at..self.at + end].to_vec();
                self.at += end + 2;
                return Ok(line);
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<()> {
        self.read.drain(..self.at);
        self.at = 0;
        let mut more = [0; 4_096];
        match self.stream.read(&mut more)? {
            0 => bail!("Redis closed the connection"),
            count => self.read.extend_from_slice(&more[..count]),
        }
        Ok(())
    }
}
