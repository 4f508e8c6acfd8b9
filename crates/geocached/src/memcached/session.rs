//! Executes a command on a cache and appends the answer.
//!
//! Synchronous and free of I/O: a local cache answers in well under a microsecond, so there is nothing to wait for (what
//! a node lacks while it is warming, its connection fetches beforehand). An
//! answer with many values comes in parts ([`Flow::More`]), so that the output buffer stays within
//! [`OUT_BYTES_SOFT`] plus one value however many keys a request has, and nobody waits for more than
//! [`KEYS_PER_PART`] of them.
//!
//! What counts, appends or compares reads the value first and then writes it on condition that it did not change
//! since, at most [`TRIES_MAX`] times.

mod meta;
#[cfg(test)]
mod meta_tests;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use geocache::{Error, Expect, GeoCache, Item, Outcome, TimeToLive, Write};
use tokio::sync::watch;

use super::{
    buffers::Claimed,
    command::{Command, Direction, Keys, Refusal, Store, Verb},
    counter::{Counter, Counters, Tally},
    number::{self, Expiry},
    read_through::{ReadThrough, Silence},
    server::Options,
    stats,
};

/// An answer in the making is handed over to be sent once it has this many bytes.
pub(super) const OUT_BYTES_SOFT: usize = 64 * 1024;
/// How many keys are looked up before others get their turn.
pub(super) const KEYS_PER_PART: usize = 256;
/// How often a read-and-write-back is tried before the client is told to try again.
const TRIES_MAX: u32 = 64;

const TOO_LARGE: &[u8] = b"SERVER_ERROR object too large for cache\r\n";
const NO_MEMORY: &[u8] = b"SERVER_ERROR out of memory storing object\r\n";

/// What all connections of a server share.
#[derive(Debug)]
pub struct Shared {
    pub(super) cache: GeoCache,
    pub(super) options: Options,
    pub(super) address: Option<SocketAddr>,
    pub(super) counters: Counters,
    pub(super) connections: AtomicUsize,
    /// The memory that requests in the making take.
    pub(super) claimed: Claimed,
    pub(super) verbosity: AtomicU32,
    pub(super) started: Instant,
    /// What the cache had evicted and expired when `stats reset` was last said; it counts from its own start.
    pub(super) evictions_before: AtomicU64,
    pub(super) expirations_before: AtomicU64,
    /// When a delayed `flush_all` falls due. One at a time: a later one replaces it, as in memcached.
    pub(super) flush_at: watch::Sender<Option<Instant>>,
    /// While it lasts, no other region is asked for what is not here.
    pub(super) silence: Silence,
}

impl Shared {
    /// A server's state before its first connection; `address` is where it listens, if it does.
    pub fn new(cache: GeoCache, options: Options, address: Option<SocketAddr>) -> Self {
        Self {
            cache,
            options,
            address,
            counters: Counters::default(),
            connections: AtomicUsize::new(0),
            claimed: Claimed::default(),
            verbosity: AtomicU32::new(0),
            started: Instant::now(),
            evictions_before: AtomicU64::new(0),
            expirations_before: AtomicU64::new(0),
            flush_at: watch::Sender::new(None),
            silence: Silence::default(),
        }
    }

    /// The cache that is served.
    pub fn cache(&self) -> &GeoCache {
        &self.cache
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// What to do after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on with the next command.
    Continue,
    /// Send what there is, then execute the same command again for the rest of its answer.
    More,
    /// Send what there is and close the connection.
    Close,
}

/// One connection's side of the conversation.
#[derive(Debug)]
pub struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) tally: Tally,
    /// How many keys were looked up for retrieval commands so far.
    pub(super) keys: usize,
    pub(super) read_through: ReadThrough,
}

impl Session {
    /// A session at its beginning.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, tally: Tally::default(), keys: 0, read_through: ReadThrough::default() }
    }

    /// Executes `command` and appends its answer to `out`.
    pub fn execute(&mut self, command: &mut Command<'_>, out: &mut Vec<u8>) -> Flow {
        match command {
            Command::Get { keys, cas } => return self.retrieve(keys, *cas, None, out),
            Command::GetAndTouch { exptime, keys, cas } => {
                return self.retrieve(keys, *cas, Some(*exptime), out);
            }
            Command::Store(store) => {
                self.tally.count(Counter::CmdSet);
                let answer = self.store(store);
                say(out, store.quiet, answer);
            }
            Command::TooLarge { quiet } => {
                self.tally.count(Counter::StoreTooLarge);
                say(out, *quiet, Ok(TOO_LARGE));
            }
            Command::NoMemory { quiet } => {
                self.tally.count(Counter::StoreNoMemory);
                self.tally.count(Counter::ReadBufOom);
                say(out, *quiet, Ok(NO_MEMORY));
            }
            Command::Arithmetic { key, direction, delta, quiet } => {
                let start = out.len();
                self.arithmetic(key, *direction, *delta, out);
                if *quiet {
                    out.truncate(start);
                }
            }
            Command::Delete { key, quiet } => {
                let answer = self.delete(key);
                say(out, *quiet, answer);
            }
            Command::Touch { key, exptime, quiet } => {
                let answer = self.touch(key, *exptime);
                say(out, *quiet, answer);
            }
            Command::FlushAll { delay, quiet } => {
                let answer = self.flush_all(*delay);
                say(out, *quiet, answer);
            }
            Command::Meta(meta) => self.meta(meta, out),
            Command::MetaNoop => out.extend_from_slice(b"MN\r\n"),
            Command::Metadump { position } => return self.metadump(position, out),
            Command::Stats { topic } => stats::answer(&self.shared, &mut self.tally, topic, out),
            Command::Version => out.extend_from_slice(format!("VERSION {}\r\n", stats::VERSION).as_bytes()),
            Command::Verbosity { level, quiet } => {
                self.shared.verbosity.store(*level, Ordering::Relaxed);
                say(out, *quiet, Ok(b"OK\r\n"));
            }
            Command::Quit => return Flow::Close,
            Command::Refused { refusal, quiet } => {
                match refusal {
                    Refusal::NoMemory => self.tally.count(Counter::ReadBufOom),
                    Refusal::Binary => {
                        self.tally.count(Counter::BinaryKicks);
                        tracing::debug!("closing a connection that speaks memcached's binary protocol");
                    }
                    _ => {}
                }
                say(out, *quiet, Ok(refusal.answer().as_bytes()));
                if refusal.closes() {
                    return Flow::Close;
                }
            }
        }
        Flow::Continue
    }

    /// Answers as many of `keys` as fit one part; with `exptime` each one found is touched.
    fn retrieve(&mut self, keys: &mut Keys<'_>, cas: bool, exptime: Option<i64>, out: &mut Vec<u8>) -> Flow {
        for _ in 0..KEYS_PER_PART {
            if out.len() >= OUT_BYTES_SOFT {
                break;
            }
            let Some(key) = keys.next() else {
                out.extend_from_slice(b"END\r\n");
                return Flow::Continue;
            };
            self.keys += 1;
            self.tally.count(Counter::CmdGet);
            let item = match exptime {
                None => self.shared.cache.item(key),
                Some(exptime) => {
                    self.tally.count(Counter::CmdTouch);
                    match self.touched(key, exptime) {
                        Ok(item) => item,
                        Err(error) => {
                            // What was answered for other keys may be on its way: this line ends the answer.
                            server_error(out, &error);
                            return Flow::Continue;
                        }
                    }
                }
            };
            match item {
                Some(item) => {
                    self.tally.count(if exptime.is_some() { Counter::TouchHits } else { Counter::GetHits });
                    push_value(out, key, &item, cas);
                }
                None => {
                    self.tally.count(Counter::GetMisses);
                    if exptime.is_some() {
                        self.tally.count(Counter::TouchMisses);
                    }
                }
            }
        }
        Flow::More
    }

    fn store(&mut self, store: &Store<'_>) -> Answer {
        let expect = match store.verb {
            Verb::Set => Expect::Any,
            Verb::Add => Expect::Absent,
            Verb::Replace => Expect::Present,
            Verb::Cas(cas) => Expect::Cas(cas),
            Verb::Append | Verb::Prepend => return self.extend(store),
        };
        let done = match time_to_live(store.exptime) {
            Some(ttl) => {
                let write = Write { bytes: Bytes::copy_from_slice(store.data), ttl, ..Write::default() };
                self.shared.cache.write(store.key, write.with_memcached_flags(store.flags), expect)
            }
            None => self.store_dead(store.key, expect),
        };
        let outcome = match done {
            Ok(outcome) => outcome,
            Err(Error::ValueTooLarge { .. }) => {
                self.tally.count(Counter::StoreTooLarge);
                return Ok(TOO_LARGE);
            }
            Err(error) => return Err(error),
        };
        let is_cas = matches!(store.verb, Verb::Cas(_));
        Ok(match outcome {
            Outcome::Done { .. } => {
                self.tally.count(Counter::TotalItems);
                if is_cas {
                    self.tally.count(Counter::CasHits);
                }
                b"STORED\r\n"
            }
            Outcome::Exists => {
                self.tally.count(Counter::CasBadval);
                b"EXISTS\r\n"
            }
            Outcome::Missing if is_cas => {
                self.tally.count(Counter::CasMisses);
                b"NOT_FOUND\r\n"
            }
            _ => b"NOT_STORED\r\n",
        })
    }

    /// Stores a value that has expired already: what was there is gone afterwards, and that is all.
    fn store_dead(&self, key: &[u8], expect: Expect) -> Result<Outcome, Error> {
        let cache = &self.shared.cache;
        if matches!(expect, Expect::Absent) {
            return Ok(match cache.peek_item(key) {
                Some(_) => Outcome::Present,
                None => Outcome::Done { cas: 0 },
            });
        }
        let any = matches!(expect, Expect::Any);
        match cache.remove_if(key, expect)? {
            Outcome::Missing if any => Ok(Outcome::Done { cas: 0 }),
            outcome => Ok(outcome),
        }
    }

    /// `append` and `prepend`: the flags and the expiry stay as they are.
    fn extend(&mut self, store: &Store<'_>) -> Answer {
        for _ in 0..TRIES_MAX {
            let Some(item) = self.shared.cache.peek_item(store.key) else { return Ok(b"NOT_STORED\r\n") };
            let (first, second) = match store.verb {
                Verb::Prepend => (store.data, &item.bytes[..]),
                _ => (&item.bytes[..], store.data),
            };
            if first.len() + second.len() > self.shared.options.value_bytes_max {
                self.tally.count(Counter::StoreTooLarge);
                return Ok(TOO_LARGE);
            }
            let bytes = Bytes::from([first, second].concat());
            let write = Write { bytes, flags: item.flags, ttl: TimeToLive::Keep, codec: item.codec };
            match self.shared.cache.write(store.key, write, Expect::Cas(item.cas)) {
                Ok(Outcome::Done { .. }) => {
                    self.tally.count(Counter::TotalItems);
                    return Ok(b"STORED\r\n");
                }
                Ok(Outcome::Exists) => {}
                Ok(_) => return Ok(b"NOT_STORED\r\n"),
                Err(Error::ValueTooLarge { .. }) => return Ok(TOO_LARGE),
                Err(error) => return Err(error),
            }
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }

    fn arithmetic(&mut self, key: &[u8], direction: Direction, delta: u64, out: &mut Vec<u8>) {
        let (hits, misses) = match direction {
            Direction::Up => (Counter::IncrHits, Counter::IncrMisses),
            Direction::Down => (Counter::DecrHits, Counter::DecrMisses),
        };
        for _ in 0..TRIES_MAX {
            let Some(item) = self.shared.cache.peek_item(key) else { break };
            let Some(old) = number::unsigned(&item.bytes) else {
                out.extend_from_slice(b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n");
                return;
            };
            let new = match direction {
                Direction::Up => old.wrapping_add(delta),
                Direction::Down => old.saturating_sub(delta),
            };
            let start = out.len();
            number::push(out, new);
            let mut bytes = out[start..].to_vec();
            // memcached counts in place: a shorter number is followed by spaces.
            bytes.resize(bytes.len().max(item.bytes.len()), b' ');
            let write =
                Write { bytes: bytes.into(), flags: item.flags, ttl: TimeToLive::Keep, codec: item.codec };
            match self.shared.cache.write(key, write, Expect::Cas(item.cas)) {
                Ok(Outcome::Done { .. }) => {
                    self.tally.count(hits);
                    out.extend_from_slice(b"\r\n");
                    return;
                }
                Ok(Outcome::Exists) => out.truncate(start),
                Ok(_) => {
                    out.truncate(start);
                    break;
                }
                Err(error) => {
                    out.truncate(start);
                    server_error(out, &error);
                    return;
                }
            }
        }
        // Either the key is gone, or it changed under each try.
        if self.shared.cache.peek_item(key).is_some() {
            server_error(out, &Error::Contended { tries: TRIES_MAX });
            return;
        }
        self.tally.count(misses);
        out.extend_from_slice(b"NOT_FOUND\r\n");
    }

    fn delete(&mut self, key: &[u8]) -> Answer {
        Ok(match self.shared.cache.remove_if(key, Expect::Any)? {
            Outcome::Done { .. } => {
                self.tally.count(Counter::DeleteHits);
                b"DELETED\r\n"
            }
            _ => {
                self.tally.count(Counter::DeleteMisses);
                b"NOT_FOUND\r\n"
            }
        })
    }

    fn touch(&mut self, key: &[u8], exptime: i64) -> Answer {
        self.tally.count(Counter::CmdTouch);
        Ok(match self.touched(key, exptime)? {
            Some(_) => {
                self.tally.count(Counter::TouchHits);
                b"TOUCHED\r\n"
            }
            None => {
                self.tally.count(Counter::TouchMisses);
                b"NOT_FOUND\r\n"
            }
        })
    }

    /// Gives the key its new expiry, and its item as it is then.
    fn touched(&self, key: &[u8], exptime: i64) -> Result<Option<Item>, Error> {
        let cache = &self.shared.cache;
        let Some(ttl) = time_to_live(exptime) else {
            // Expired at once; the value goes out a last time.
            let Some(item) = cache.peek_item(key) else { return Ok(None) };
            return Ok(match cache.remove_if(key, Expect::Any)? {
                Outcome::Done { .. } => Some(item),
                _ => None,
            });
        };
        cache.touch_item(key, ttl)
    }

    /// The keys that are held, a page a part: in the order of their hashes, each with what is known of it. What is written meanwhile
    /// may be told or not.
    fn metadump(&mut self, position: &mut Option<u64>, out: &mut Vec<u8>) -> Flow {
        let Some(from) = *position else {
            out.extend_from_slice(b"END\r\n");
            return Flow::Continue;
        };
        let (keys, next) = self.shared.cache.keys_from(from);
        *position = next;
        self.keys += keys.len();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for key in keys {
            // Gone since.
            let Some(item) = self.shared.cache.peek_item(&key) else { continue };
            out.extend_from_slice(b"key=");
            push_escaped(out, &key);
            match item.left {
                Some(left) => {
                    out.extend_from_slice(b" exp=");
                    number::push(out, now.saturating_add(left).as_secs());
                }
                None => out.extend_from_slice(b" exp=-1"),
            }
            out.extend_from_slice(b" cas=");
            number::push(out, item.cas);
            out.extend_from_slice(b" cls=1 size=");
            number::push(out, item.bytes.len() as u64);
            out.extend_from_slice(b"\n");
        }
        Flow::More
    }

    fn flush_all(&mut self, delay: i64) -> Answer {
        self.tally.count(Counter::CmdFlush);
        match number::expiry(delay, SystemTime::now) {
            // A time too far to be represented does not come.
            Expiry::After(delay) => {
                self.shared.flush_at.send_replace(Instant::now().checked_add(delay));
            }
            Expiry::Never | Expiry::Already => {
                self.shared.flush_at.send_replace(None);
                self.shared.cache.clear()?;
            }
        }
        Ok(b"OK\r\n")
    }
}

type Answer = Result<&'static [u8], Error>;

/// How long a value lives; `None` if its time is over already.
fn time_to_live(exptime: i64) -> Option<TimeToLive> {
    match number::expiry(exptime, SystemTime::now) {
        Expiry::Never => Some(TimeToLive::Never),
        Expiry::After(left) => Some(TimeToLive::For(left)),
        Expiry::Already => None,
    }
}

fn say(out: &mut Vec<u8>, quiet: bool, answer: Answer) {
    match answer {
        _ if quiet => {}
        Ok(line) => out.extend_from_slice(line),
        Err(error) => server_error(out, &error),
    }
}

fn server_error(out: &mut Vec<u8>, error: &Error) {
    match error {
        Error::Key { .. } => out.extend_from_slice(b"CLIENT_ERROR bad command line format\r\n"),
        Error::ValueTooLarge { .. } => out.extend_from_slice(TOO_LARGE),
        error => {
            // An answer is one line, whatever the cause had to say.
            let text = error.to_string().replace(['\r', '\n'], " ");
            out.extend_from_slice(format!("SERVER_ERROR {text}\r\n").as_bytes());
        }
    }
}

/// A key as `lru_crawler metadump` shows it: what is no letter, digit or one of `-._~` as `%` and two hexadecimal digits.
fn push_escaped(out: &mut Vec<u8>, key: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in key {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}

fn push_value(out: &mut Vec<u8>, key: &[u8], item: &Item, cas: bool) {
    out.reserve(key.len() + item.bytes.len() + 64);
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key);
    out.push(b' ');
    number::push(out, u64::from(item.memcached_flags()));
    out.push(b' ');
    number::push(out, item.bytes.len() as u64);
    if cas {
        out.push(b' ');
        number::push(out, item.cas);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&item.bytes);
    out.extend_from_slice(b"\r\n");
}
