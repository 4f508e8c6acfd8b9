//! The classic text protocol, parsed from a buffer that fills as it may.
//!
//! Pure: the caller keeps the buffer, hands over what is in it and drops what was used. Nothing is copied, nothing is
//! allocated, and the requests found do not depend on how the bytes were cut into reads (a property test cuts at every
//! point). A parser that consumes byte by byte was rejected: a request line is at most two kilobytes, so waiting for
//! its end is cheaper than keeping the state of its middle.
//!
//! **Bounds.** A line has at most [`LINE_BYTES_MAX`] bytes, one of `get`, `gets`, `gat` and `gats` at most
//! [`KEYS_LINE_BYTES_MAX`]; past that the connection is closed, since where the next request begins is unknown. A key
//! has at most [`KEY_BYTES_MAX`] bytes. A value over its limit is refused when its length is read, and swallowed as it
//! comes, without being kept.
//!
//! ```
//! use geocached::memcached::{Command, Parser, Step};
//!
//! let mut parser = Parser::new(1024);
//! assert_eq!(parser.next(b"version"), Step::More { total: None });
//! assert_eq!(parser.next(b"version\r\n"), Step::Command { command: Command::Version, used: 9 });
//! ```

#[cfg(test)]
mod tests;

use super::{
    command::{Command, Direction, Keys, Refusal, Store, Verb},
    meta::{self, Meta},
    number,
};

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 250;
/// The longest line of a request, its end left out; multi-key requests may be longer.
pub const LINE_BYTES_MAX: usize = 2048;
/// The longest line of a multi-key request: room for 4,000 keys of the longest kind.
pub const KEYS_LINE_BYTES_MAX: usize = 1024 * 1024;
/// What each request of the binary protocol begins with, and none of the text protocol.
pub const BINARY_MAGIC: u8 = 0x80;
/// memcached refuses lengths above this as malformed, without swallowing.
pub(super) const LENGTH_MAX: i64 = i32::MAX as i64 - 2;
/// More words than any request but the multi-key ones has.
const WORDS_MAX: usize = 8;

/// What the parser made of the bytes at hand.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step<'a> {
    /// A whole request; drop `used` bytes before the next call.
    Command {
        /// The request.
        command: Command<'a>,
        /// How many bytes it took.
        used: usize,
    },
    /// Bytes that nobody needs (a value that was refused); drop them before the next call.
    Skip {
        /// How many.
        used: usize,
    },
    /// The request is not complete: call again with the same bytes and more.
    More {
        /// The bytes that the whole request will have, once that is known.
        total: Option<usize>,
    },
}

/// Where in the stream of requests the parser is.
#[derive(Debug, Clone)]
pub struct Parser {
    value_bytes_max: usize,
    state: State,
    /// How far the line was searched for its end, so that a line that trickles in is searched once.
    searched: usize,
    /// Whether the request that is incomplete is to be refused, for want of memory for the rest.
    no_memory: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Request,
    /// The data block of a refused request is passing by.
    Swallow {
        left: u64,
    },
    /// The connection must be closed.
    Lost,
}

/// A storage request without its data.
#[derive(Clone, Copy)]
struct Header<'a> {
    verb: Verb,
    key: &'a [u8],
    flags: u32,
    exptime: i64,
    length: usize,
    quiet: bool,
}

/// What a line turned out to be.
enum Line<'a> {
    Whole(Command<'a>),
    NeedsData(Awaiting<'a>),
    /// A refused request whose data block is on its way.
    Swallow {
        refusal: Refusal,
        length: usize,
    },
}

/// A request without its data block.
enum Awaiting<'a> {
    Store(Header<'a>),
    Meta { meta: Meta<'a>, length: usize },
}

impl<'a> Awaiting<'a> {
    fn length(&self) -> usize {
        match self {
            Self::Store(header) => header.length,
            Self::Meta { length, .. } => *length,
        }
    }

    /// Whether a refusal is not to be answered; the meta protocol always answers those.
    fn quiet(&self) -> bool {
        matches!(self, Self::Store(Header { quiet: true, .. }))
    }

    fn with(self, data: &'a [u8]) -> Command<'a> {
        match self {
            Self::Store(Header { verb, key, flags, exptime, quiet, .. }) => {
                Command::Store(Store { verb, key, flags, exptime, data, quiet })
            }
            Self::Meta { meta, .. } => Command::Meta(meta.with(data)),
        }
    }
}

impl<'a> From<meta::Line<'a>> for Line<'a> {
    fn from(line: meta::Line<'a>) -> Self {
        match line {
            meta::Line::Whole(command) => Self::Whole(command),
            meta::Line::NeedsData { meta, length } => Self::NeedsData(Awaiting::Meta { meta, length }),
            meta::Line::Swallow { refusal, length } => Self::Swallow { refusal, length },
        }
    }
}

impl Parser {
    /// A parser at the beginning of a connection, for values of at most this many bytes.
    pub fn new(value_bytes_max: usize) -> Self {
        Self { value_bytes_max, state: State::Request, searched: 0, no_memory: false }
    }

    /// The next request in `input`, which begins where the last one ended.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Step<'a> {
        match self.state {
            State::Request => self.request(input),
            State::Swallow { .. } | State::Lost if input.is_empty() => Step::More { total: None },
            State::Swallow { left } => {
                let used = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let left = left - used as u64;
                self.state = if left == 0 { State::Request } else { State::Swallow { left } };
                Step::Skip { used }
            }
            State::Lost => Step::Skip { used: input.len() },
        }
    }

    /// There is no memory for the request that [`Step::More`] was said of: the next call, with the same bytes, refuses
    /// it, and the rest of its value is swallowed as it comes.
    pub fn give_up(&mut self) {
        self.no_memory = true;
    }

    fn request<'a>(&mut self, input: &'a [u8]) -> Step<'a> {
        if input.first() == Some(&BINARY_MAGIC) {
            return self.lost(Refusal::Binary, input.len());
        }
        let searched = self.searched.min(input.len());
        let Some(end) = input[searched..].iter().position(|&byte| byte == b'\n').map(|at| searched + at)
        else {
            self.searched = input.len();
            return if input.len() > line_bytes_max(input) {
                self.lost(Refusal::LineTooLong, input.len())
            } else if self.no_memory {
                self.lost(Refusal::NoMemory, input.len())
            } else {
                Step::More { total: None }
            };
        };
        if end > line_bytes_max(input) {
            return self.lost(Refusal::LineTooLong, end + 1);
        }
        // Where a data block is awaited, the line is found again at once.
        self.searched = end;
        let line = &input[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match parse_line(line) {
            Line::Whole(command) => {
                if let Command::Refused { refusal, .. } = command
                    && refusal.closes()
                {
                    self.state = State::Lost;
                }
                self.found(command, end + 1)
            }
            Line::NeedsData(request) => self.with_data(request, input, end + 1),
            Line::Swallow { refusal, length } => {
                self.state = State::Swallow { left: length as u64 + 2 };
                self.found(Command::Refused { refusal, quiet: false }, end + 1)
            }
        }
    }

    fn with_data<'a>(&mut self, request: Awaiting<'a>, input: &'a [u8], start: usize) -> Step<'a> {
        let (length, quiet) = (request.length(), request.quiet());
        if length > self.value_bytes_max {
            self.state = State::Swallow { left: length as u64 + 2 };
            return self.found(Command::TooLarge { quiet }, start);
        }
        let total = start + length + 2;
        let Some(block) = input.get(start..total) else {
            if !self.no_memory {
                return Step::More { total: Some(total) };
            }
            self.state = State::Swallow { left: length as u64 + 2 };
            return self.found(Command::NoMemory { quiet }, start);
        };
        let command = match block.strip_suffix(b"\r\n") {
            Some(data) => request.with(data),
            None => Command::Refused { refusal: Refusal::DataChunk, quiet },
        };
        self.found(command, total)
    }

    fn found<'a>(&mut self, command: Command<'a>, used: usize) -> Step<'a> {
        self.searched = 0;
        self.no_memory = false;
        Step::Command { command, used }
    }

    fn lost<'a>(&mut self, refusal: Refusal, used: usize) -> Step<'a> {
        self.state = State::Lost;
        self.found(Command::Refused { refusal, quiet: false }, used)
    }
}

/// How long the line at the start of `input` may become.
fn line_bytes_max(input: &[u8]) -> usize {
    // Only asked of long lines, so the first word is there.
    match Keys::new(&input[..input.len().min(LINE_BYTES_MAX)]).next() {
        Some(b"get" | b"gets" | b"gat" | b"gats") => KEYS_LINE_BYTES_MAX,
        _ => LINE_BYTES_MAX,
    }
}

fn parse_line(line: &[u8]) -> Line<'_> {
    let mut rest = Keys::new(line);
    let Some(verb) = rest.next() else { return refused(Refusal::Unknown) };
    match verb {
        b"get" => return keys(rest, |keys| Command::Get { keys, cas: false }),
        b"gets" => return keys(rest, |keys| Command::Get { keys, cas: true }),
        b"gat" => return get_and_touch(rest, false),
        b"gats" => return get_and_touch(rest, true),
        b"mg" => return meta::get(rest).into(),
        b"ms" => return meta::set(rest).into(),
        b"md" => return meta::delete(rest).into(),
        b"mn" => return Line::Whole(Command::MetaNoop),
        b"version" => return Line::Whole(Command::Version),
        b"quit" => return Line::Whole(Command::Quit),
        b"stats" => return Line::Whole(Command::Stats { topic: trim_spaces(rest.rest()) }),
        _ => {}
    }
    let mut storage = [&b""[..]; WORDS_MAX];
    let mut count = 0;
    for word in rest {
        // One word more than fits makes the count too large for every request.
        if count < WORDS_MAX {
            storage[count] = word;
        }
        count += 1;
    }
    let words = Words { words: &storage[..count.min(WORDS_MAX)], count };
    match verb {
        b"set" => words.store(Verb::Set),
        b"add" => words.store(Verb::Add),
        b"replace" => words.store(Verb::Replace),
        b"append" => words.store(Verb::Append),
        b"prepend" => words.store(Verb::Prepend),
        b"cas" => words.compare_and_store(),
        b"incr" => words.arithmetic(Direction::Up),
        b"decr" => words.arithmetic(Direction::Down),
        b"delete" => words.delete(),
        b"touch" => words.touch(),
        b"flush_all" => words.flush_all(),
        b"verbosity" => words.verbosity(),
        b"lru_crawler" if words.words == [&b"metadump"[..], b"all"] => {
            Line::Whole(Command::Metadump { position: Some(0) })
        }
        _ if words.words.last().is_some_and(|word| word.starts_with(b"HTTP/")) => refused(Refusal::Http),
        _ => refused(Refusal::Unknown),
    }
}

fn refused<'a>(refusal: Refusal) -> Line<'a> {
    Line::Whole(Command::Refused { refusal, quiet: false })
}

fn keys<'a>(keys: Keys<'a>, command: impl FnOnce(Keys<'a>) -> Command<'a>) -> Line<'a> {
    let mut count = 0_usize;
    for key in keys {
        if key.len() > KEY_BYTES_MAX {
            return refused(Refusal::Format);
        }
        count += 1;
    }
    if count == 0 { refused(Refusal::Unknown) } else { Line::Whole(command(keys)) }
}

fn get_and_touch(mut rest: Keys<'_>, cas: bool) -> Line<'_> {
    let Some(exptime) = rest.next() else { return refused(Refusal::Unknown) };
    let Some(exptime) = number::signed(exptime) else { return refused(Refusal::Exptime) };
    let command = |keys| Command::GetAndTouch { exptime, keys, cas };
    // memcached answers END to no keys here, and ERROR to a `get` of none.
    if rest.clone().next().is_none() { Line::Whole(command(rest)) } else { keys(rest, command) }
}

fn trim_spaces(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|&byte| byte != b' ').unwrap_or(text.len());
    let end = text.iter().rposition(|&byte| byte != b' ').map_or(start, |at| at + 1);
    &text[start..end]
}

/// The words after the verb.
struct Words<'a, 'w> {
    words: &'w [&'a [u8]],
    /// How many there were, also beyond those kept.
    count: usize,
}

impl<'a> Words<'a, '_> {
    /// Whether the last word asks for silence.
    fn quiet(&self) -> bool {
        self.words.last() == Some(&&b"noreply"[..])
    }

    fn whole(&self, command: Result<Command<'a>, Refusal>) -> Line<'a> {
        Line::Whole(command.unwrap_or_else(|refusal| Command::Refused { refusal, quiet: self.quiet() }))
    }

    fn key(&self) -> Result<&'a [u8], Refusal> {
        let key = self.words[0];
        if key.len() > KEY_BYTES_MAX { Err(Refusal::Format) } else { Ok(key) }
    }

    /// `<key> <flags> <exptime> <bytes> [noreply]`
    fn store(&self, verb: Verb) -> Line<'a> {
        if !(4..=5).contains(&self.count) {
            return refused(Refusal::Unknown);
        }
        self.header(verb)
    }

    /// `<key> <flags> <exptime> <bytes> <cas> [noreply]`
    fn compare_and_store(&self) -> Line<'a> {
        if !(5..=6).contains(&self.count) {
            return refused(Refusal::Unknown);
        }
        match number::unsigned(self.words[4]) {
            Some(cas) => self.header(Verb::Cas(cas)),
            None => self.whole(Err(Refusal::Format)),
        }
    }

    fn header(&self, verb: Verb) -> Line<'a> {
        let parsed = || {
            let key = self.key()?;
            let flags = number::unsigned(self.words[1]).and_then(|flags| u32::try_from(flags).ok());
            let exptime = number::signed(self.words[2]);
            let length = number::signed(self.words[3]).filter(|length| (0..=LENGTH_MAX).contains(length));
            let (Some(flags), Some(exptime), Some(length)) = (flags, exptime, length) else {
                return Err(Refusal::Format);
            };
            let length = usize::try_from(length).map_err(|_| Refusal::Format)?;
            Ok(Header { verb, key, flags, exptime, length, quiet: self.quiet() })
        };
        match parsed() {
            Ok(header) => Line::NeedsData(Awaiting::Store(header)),
            Err(refusal) => self.whole(Err(refusal)),
        }
    }

    /// `<key> <delta> [noreply]`
    fn arithmetic(&self, direction: Direction) -> Line<'a> {
        if !(2..=3).contains(&self.count) {
            return refused(Refusal::Unknown);
        }
        self.whole(self.key().and_then(|key| {
            let delta = number::unsigned(self.words[1]).ok_or(Refusal::Delta)?;
            Ok(Command::Arithmetic { key, direction, delta, quiet: self.quiet() })
        }))
    }

    /// `<key> [0] [noreply]`
    fn delete(&self) -> Line<'a> {
        if !(1..=3).contains(&self.count) {
            return refused(Refusal::Unknown);
        }
        // Once it took a time, of which 0 is what is left.
        let quiet = self.count > 1 && self.quiet();
        let allowed = match self.count {
            1 => true,
            2 => quiet || self.words[1] == b"0",
            _ => quiet && self.words[1] == b"0",
        };
        let refusal = |refusal| Command::Refused { refusal, quiet };
        Line::Whole(match self.key() {
            _ if !allowed => refusal(Refusal::DeleteUsage),
            Ok(key) => Command::Delete { key, quiet },
            Err(format) => refusal(format),
        })
    }

    /// `<key> <exptime> [noreply]`
    fn touch(&self) -> Line<'a> {
        if !(2..=3).contains(&self.count) {
            return refused(Refusal::Unknown);
        }
        self.whole(self.key().and_then(|key| {
            let exptime = number::signed(self.words[1]).ok_or(Refusal::Exptime)?;
            Ok(Command::Touch { key, exptime, quiet: self.quiet() })
        }))
    }

    /// `[delay] [noreply]`
    fn flush_all(&self) -> Line<'a> {
        if self.count > 2 {
            return refused(Refusal::Unknown);
        }
        let quiet = self.quiet();
        self.whole(match self.words.first() {
            Some(delay) if !(quiet && self.count == 1) => {
                number::signed(delay).map(|delay| Command::FlushAll { delay, quiet }).ok_or(Refusal::Exptime)
            }
            _ => Ok(Command::FlushAll { delay: 0, quiet }),
        })
    }

    /// `<level> [noreply]`
    fn verbosity(&self) -> Line<'a> {
        if !(1..=2).contains(&self.count) {
            return refused(Refusal::Unknown);
        }
        self.whole(
            number::unsigned(self.words[0])
                .and_then(|level| u32::try_from(level).ok())
                .map(|level| Command::Verbosity { level, quiet: self.quiet() })
                .ok_or(Refusal::Format),
        )
    }
}
