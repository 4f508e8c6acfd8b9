//! Requests of the meta protocol: `mn`, `mg`, `ms` and `md`, with memcached's own flag letters.
//!
//! What a client of several regions needs is here: values with their flags, compare-and-set number and what is left of their life,
//! conditional stores and deletes, keys of any bytes (base64). `ma` and `me`, the modes that append and prepend, and what memcached has
//! against stampedes are refused. One letter is our own: `K` of `ms` keeps what is left of the life of the value that is replaced, which
//! memcached can do in two steps only.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    command::{Command, Keys, Refusal},
    number,
    parser::{KEY_BYTES_MAX, LENGTH_MAX},
};

/// A key of [`KEY_BYTES_MAX`] bytes in base64.
const ENCODED_KEY_BYTES_MAX: usize = KEY_BYTES_MAX.div_ceil(3) * 4;

/// The longest flag `O`, its letter counted, as in memcached: it is sent back with each answer.
const OPAQUE_BYTES_MAX: usize = 32;

/// A request of the meta protocol with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta<'a> {
    /// What is asked for.
    pub verb: MetaVerb<'a>,
    /// The key.
    pub key: Cow<'a, [u8]>,
    /// The key as it was given.
    pub(super) given: &'a [u8],
    /// The flags as they were given, for the answer has what is returned in their order.
    pub(super) words: Keys<'a>,
    pub(super) flags: Flags,
}

/// Which request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaVerb<'a> {
    /// `mg`.
    Get,
    /// `ms`.
    Set {
        /// The value.
        data: &'a [u8],
    },
    /// `md`.
    Delete,
}

/// The flags that change what is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Flags {
    /// `b`: the key is in base64.
    pub(super) encoded: bool,
    /// `q`: says nothing where it went as most do.
    pub(super) quiet: bool,
    /// `v`: with the value.
    pub(super) value: bool,
    /// `T`.
    pub(super) exptime: Option<i64>,
    /// `F`.
    pub(super) client: u32,
    /// `C`.
    pub(super) cas: Option<u64>,
    /// `M`.
    pub(super) mode: Mode,
    /// `K`.
    pub(super) keep: bool,
}

/// When `ms` stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mode {
    #[default]
    Set,
    Add,
    Replace,
}

/// A line of the meta protocol, understood as far as it goes.
pub(super) enum Line<'a> {
    Whole(Command<'a>),
    /// `ms`, which awaits so many bytes.
    NeedsData {
        meta: Meta<'a>,
        length: usize,
    },
    /// A refused `ms`, whose bytes are on their way.
    Swallow {
        refusal: Refusal,
        length: usize,
    },
}

impl<'a> Meta<'a> {
    /// The request with its value.
    pub(super) fn with(self, data: &'a [u8]) -> Self {
        Self { verb: MetaVerb::Set { data }, ..self }
    }

    fn of(verb: MetaVerb<'a>, given: &'a [u8], words: Keys<'a>) -> Result<Self, Refusal> {
        // memcached says one and the same of all that is wrong with the flags of `md`.
        let is_delete = verb == MetaVerb::Delete;
        let told = |refusal| if is_delete { Refusal::DeleteFlag } else { refusal };
        let mut flags = Flags::default();
        let mut seen = 0_u128;
        for word in words {
            let (&letter, token) = word.split_first().ok_or(Refusal::Format)?;
            let bit = 1_u128.checked_shl(u32::from(letter)).ok_or_else(|| told(Refusal::Flag))?;
            if seen & bit != 0 {
                return Err(told(Refusal::DuplicateFlag));
            }
            seen |= bit;
            match (verb, letter) {
                (_, b'b') => flags.encoded = true,
                (_, b'q') => flags.quiet = true,
                (MetaVerb::Get, b'v') => flags.value = true,
                (MetaVerb::Get, b'f' | b's' | b't')
                | (MetaVerb::Get | MetaVerb::Set { .. }, b'c')
                | (_, b'k') => {}
                (_, b'O') if word.len() > OPAQUE_BYTES_MAX => return Err(Refusal::OpaqueTooLong),
                (_, b'O') => {}
                (MetaVerb::Get | MetaVerb::Set { .. }, b'T') => {
                    flags.exptime = Some(number::signed(token).ok_or(Refusal::Token)?);
                }
                (MetaVerb::Set { .. } | MetaVerb::Delete, b'C') => {
                    flags.cas = Some(number::unsigned(token).ok_or_else(|| told(Refusal::Token))?);
                }
                (MetaVerb::Set { .. }, b'F') => {
                    let client = number::unsigned(token).and_then(|client| u32::try_from(client).ok());
                    flags.client = client.ok_or(Refusal::Format)?;
                }
                (MetaVerb::Set { .. }, b'K') => flags.keep = true,
                (MetaVerb::Set { .. }, b'M') => {
                    flags.mode = match token {
                        b"S" | b"s" => Mode::Set,
                        b"E" | b"e" => Mode::Add,
                        b"R" | b"r" => Mode::Replace,
                        [_] => return Err(Refusal::Mode),
                        _ => return Err(Refusal::ModeLength),
                    }
                }
                _ => return Err(told(Refusal::Flag)),
            }
        }
        let key = if flags.encoded {
            let fits = given.len() <= ENCODED_KEY_BYTES_MAX;
            let decoded = fits.then(|| STANDARD.decode(given).ok()).flatten();
            Cow::Owned(decoded.ok_or(Refusal::KeyEncoding)?)
        } else {
            Cow::Borrowed(given)
        };
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(Refusal::Format);
        }
        Ok(Self { verb, key, given, words, flags })
    }
}

/// `mg <key> <flags>*`
pub(super) fn get(words: Keys<'_>) -> Line<'_> {
    without_data(MetaVerb::Get, words)
}

/// `md <key> <flags>*`
pub(super) fn delete(words: Keys<'_>) -> Line<'_> {
    without_data(MetaVerb::Delete, words)
}

/// `ms <key> <bytes> <flags>*`
pub(super) fn set(mut words: Keys<'_>) -> Line<'_> {
    let Some(key) = words.next() else { return refused(Refusal::Unknown) };
    let Some(length) = words.next() else { return refused(Refusal::Format) };
    let length = number::signed(length).filter(|length| (0..=LENGTH_MAX).contains(length));
    // Where the next request begins is unknown: what was sent for a value is taken for requests, as in memcached.
    let Some(length) = length.and_then(|length| usize::try_from(length).ok()) else {
        return refused(Refusal::Format);
    };
    match Meta::of(MetaVerb::Set { data: b"" }, key, words) {
        Ok(meta) => Line::NeedsData { meta, length },
        Err(refusal) => Line::Swallow { refusal, length },
    }
}

fn without_data<'a>(verb: MetaVerb<'a>, mut words: Keys<'a>) -> Line<'a> {
    let Some(key) = words.next() else { return refused(Refusal::Unknown) };
    match Meta::of(verb, key, words) {
        Ok(meta) => Line::Whole(Command::Meta(meta)),
        Err(refusal) => refused(refusal),
    }
}

fn refused<'a>(refusal: Refusal) -> Line<'a> {
    Line::Whole(Command::Refused { refusal, quiet: false })
}
