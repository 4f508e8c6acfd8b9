//! One request, as the parser understood it.
//!
//! A [`Command`] borrows from the read buffer: keys and data are never copied to be looked at. What the parser could
//! not accept is a command too, [`Command::Refused`], so that a refusal takes its place among the answers in the
//! order of the requests.

use super::meta::Meta;

/// A request, complete with its data block where it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command<'a> {
    /// `get` and, with `cas`, `gets`.
    Get {
        /// The keys asked for.
        keys: Keys<'a>,
        /// Whether the answer carries CAS numbers.
        cas: bool,
    },
    /// `gat` and, with `cas`, `gats`.
    GetAndTouch {
        /// The new expiry of each key found.
        exptime: i64,
        /// The keys asked for.
        keys: Keys<'a>,
        /// Whether the answer carries CAS numbers.
        cas: bool,
    },
    /// `set`, `add`, `replace`, `append`, `prepend` and `cas`.
    Store(Store<'a>),
    /// A storage command whose value is over the limit; its data block is being swallowed.
    TooLarge {
        /// Whether to answer.
        quiet: bool,
    },
    /// A storage command for whose value there is no memory now; its data block is being swallowed.
    NoMemory {
        /// Whether to answer.
        quiet: bool,
    },
    /// `incr` and `decr`.
    Arithmetic {
        /// The key of the number.
        key: &'a [u8],
        /// Whether to add or to subtract.
        direction: Direction,
        /// By how much.
        delta: u64,
        /// Whether to answer.
        quiet: bool,
    },
    /// `delete`.
    Delete {
        /// The key to remove.
        key: &'a [u8],
        /// Whether to answer.
        quiet: bool,
    },
    /// `touch`.
    Touch {
        /// The key to touch.
        key: &'a [u8],
        /// Its new expiry.
        exptime: i64,
        /// Whether to answer.
        quiet: bool,
    },
    /// `flush_all`.
    FlushAll {
        /// When: 0 or less is now, otherwise as an expiry time.
        delay: i64,
        /// Whether to answer.
        quiet: bool,
    },
    /// `mg`, `ms` and `md`.
    Meta(Meta<'a>),
    /// `mn`: an answer that marks where those before it end.
    MetaNoop,
    /// `lru_crawler metadump all`: the keys that are held.
    Metadump {
        /// Where the next part begins; `None` at the end.
        position: Option<u64>,
    },
    /// `stats`, with the rest of its line.
    Stats {
        /// The subject; empty for the general statistics.
        topic: &'a [u8],
    },
    /// `version`.
    Version,
    /// `verbosity`.
    Verbosity {
        /// The level asked for.
        level: u32,
        /// Whether to answer.
        quiet: bool,
    },
    /// `quit`.
    Quit,
    /// A request that was not understood or is not allowed.
    Refused {
        /// Why.
        refusal: Refusal,
        /// Whether to answer. `noreply` silences refusals as well, as in memcached.
        quiet: bool,
    },
}

/// A storage command with its data block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Store<'a> {
    /// Which one.
    pub verb: Verb,
    /// The key.
    pub key: &'a [u8],
    /// The client's flags, kept beside the value.
    pub flags: u32,
    /// Expiry in memcached's terms.
    pub exptime: i64,
    /// The value.
    pub data: &'a [u8],
    /// Whether to answer.
    pub quiet: bool,
}

/// Which storage command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Store always.
    Set,
    /// Store if absent.
    Add,
    /// Store if present.
    Replace,
    /// Put after the present value.
    Append,
    /// Put before the present value.
    Prepend,
    /// Store if the CAS number is still this one.
    Cas(u64),
}

/// Up or down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// `incr`: wraps at 64 bits.
    Up,
    /// `decr`: stops at 0.
    Down,
}

/// Why a request was refused, each with memcached's own answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// No such command, or the wrong number of words.
    Unknown,
    /// A key over 250 bytes, or a number that is none.
    Format,
    /// `delete` with something after the key that is not `0` or `noreply`.
    DeleteUsage,
    /// The data block does not end where its length said.
    DataChunk,
    /// `incr` or `decr` by something that is no number.
    Delta,
    /// An expiry that is no number.
    Exptime,
    /// A flag of the meta protocol that is not offered.
    Flag,
    /// A flag of the meta protocol with something after it that is no number.
    Token,
    /// A flag of `md` that is not offered, or twice there, or with something after it that is no number.
    DeleteFlag,
    /// The same flag of the meta protocol twice.
    DuplicateFlag,
    /// A flag `O` of the meta protocol of more than 32 bytes.
    OpaqueTooLong,
    /// A key that should be base64, and is none.
    KeyEncoding,
    /// A mode of `ms` that is not offered.
    Mode,
    /// A mode of `ms` that is not one letter.
    ModeLength,
    /// A line without an end; the connection is closed.
    LineTooLong,
    /// A line for which there is no memory now; the connection is closed.
    NoMemory,
    /// The binary protocol, whose requests begin with [`BINARY_MAGIC`](super::BINARY_MAGIC); the connection is
    /// closed without an answer, since none would be understood.
    Binary,
    /// An HTTP request; the connection is closed without an answer.
    Http,
}

impl Refusal {
    /// The line to answer with; empty for none.
    pub fn answer(self) -> &'static str {
        match self {
            Self::Unknown => "ERROR\r\n",
            Self::Format => "CLIENT_ERROR bad command line format\r\n",
            Self::DeleteUsage => "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n",
            Self::DataChunk => "CLIENT_ERROR bad data chunk\r\n",
            Self::Delta => "CLIENT_ERROR invalid numeric delta argument\r\n",
            Self::Exptime => "CLIENT_ERROR invalid exptime argument\r\n",
            Self::Flag => "CLIENT_ERROR invalid flag\r\n",
            Self::Token => "CLIENT_ERROR bad token in command line format\r\n",
            Self::DeleteFlag => "CLIENT_ERROR invalid or duplicate flag\r\n",
            Self::DuplicateFlag => "CLIENT_ERROR duplicate flag\r\n",
            Self::OpaqueTooLong => "CLIENT_ERROR opaque token too long\r\n",
            Self::KeyEncoding => "CLIENT_ERROR error decoding key\r\n",
            Self::Mode => "CLIENT_ERROR invalid mode for ms M token\r\n",
            Self::ModeLength => "CLIENT_ERROR incorrect length for M token\r\n",
            Self::LineTooLong => "CLIENT_ERROR line too long\r\n",
            Self::NoMemory => "SERVER_ERROR out of memory reading request\r\n",
            Self::Http | Self::Binary => "",
        }
    }

    /// Whether the connection ends with it, because what follows cannot be told apart.
    pub fn closes(self) -> bool {
        matches!(self, Self::LineTooLong | Self::NoMemory | Self::Binary | Self::Http)
    }
}

/// The words of a line, separated by one or more spaces: the keys of a multi-key request.
///
/// An iterator that remembers where it is, so that an answer can be produced in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys<'a> {
    rest: &'a [u8],
}

impl<'a> Keys<'a> {
    /// The words of `line`.
    pub fn new(line: &'a [u8]) -> Self {
        Self { rest: line }
    }

    /// What was not iterated yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Keys<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.rest.iter().position(|&byte| byte != b' ')?;
        let from_start = &self.rest[start..];
        let end = from_start.iter().position(|&byte| byte == b' ').unwrap_or(from_start.len());
        let (word, rest) = from_start.split_at(end);
        self.rest = rest;
        Some(word)
    }
}
