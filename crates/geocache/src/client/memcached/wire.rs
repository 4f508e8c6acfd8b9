//! The meta protocol's bytes: requests made, answers understood. Pure.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;

use super::fault::Fault;
use crate::{
    error::Error,
    write::{Expect, TimeToLive},
};

/// The longest key that a request may have, as it is written.
pub(super) const KEY_BYTES_MAX: usize = 250;
/// Up to this many seconds an expiry time is relative; a larger one is an absolute Unix time.
const RELATIVE_SECONDS_MAX: u64 = 60 * 60 * 24 * 30;
/// memcached reads an expiry time as 32 bits.
const ABSOLUTE_SECONDS_MAX: u64 = i32::MAX as u64;

/// A key as requests have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    written: String,
    is_encoded: bool,
}

impl Key {
    /// Text of no blanks and control characters goes as it is, all else as base64, of which a server takes `encoded_bytes_max`.
    pub(super) fn of(key: &[u8], encoded_bytes_max: usize) -> Result<Self, Fault> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(Error::Key { bytes: key.len(), max: KEY_BYTES_MAX }.into());
        }
        let is_plain = key.iter().all(u8::is_ascii_graphic);
        if let (true, Ok(text)) = (is_plain, std::str::from_utf8(key)) {
            return Ok(Self { written: text.to_owned(), is_encoded: false });
        }
        let written = STANDARD.encode(key);
        if written.len() > encoded_bytes_max {
            let max = encoded_bytes_max / 4 * 3;
            let reason = format!(
                "a key of {} bytes with blanks, control characters or bytes beyond ASCII; it takes up to {max} of such",
                key.len()
            );
            return Err(Fault::Rejected { reason });
        }
        Ok(Self { written, is_encoded: true })
    }
}

/// A request in the making: the verb, the key and what `words` adds.
pub(super) fn request(out: &mut Vec<u8>, verb: &str, key: &Key, words: &str) {
    for part in [verb, " ", &key.written, words, if key.is_encoded { " b\r\n" } else { "\r\n" }] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// `ms` with its value.
pub(super) fn store(key: &Key, bytes: &[u8], flags: u32, life: Life, expect: Expect) -> Vec<u8> {
    let mut words = format!(" {} c F{flags}", bytes.len());
    // Writing to a string does not fail.
    let _ = match life {
        Life::Seconds(seconds) => write!(words, " T{seconds}"),
        Life::Keep => write!(words, " K"),
    };
    let _ = match expect {
        Expect::Any => Ok(()),
        Expect::Absent => write!(words, " ME"),
        Expect::Present => write!(words, " MR"),
        Expect::Cas(cas) => write!(words, " C{cas}"),
    };
    let mut out = Vec::with_capacity(words.len() + bytes.len() + 2 * KEY_BYTES_MAX);
    request(&mut out, "ms", key, &words);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    out
}

/// How long a value lives, in the protocol's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// 0 is for ever, less is over already, up to 30 days are from now on, more is a Unix time.
    Seconds(i64),
    /// What is left of the life of what is replaced.
    Keep,
}

impl Life {
    /// Rounded up to whole seconds: a rounded-down second would be none, which is for ever.
    pub(super) fn of(ttl: TimeToLive, default: Option<Duration>, now: SystemTime) -> Self {
        let life = match ttl {
            TimeToLive::Keep => return Self::Keep,
            TimeToLive::Never => None,
            TimeToLive::Default => default,
            TimeToLive::For(life) => Some(life),
        };
        Self::Seconds(life.map_or(0, |life| seconds(life, now)))
    }
}

fn seconds(life: Duration, now: SystemTime) -> i64 {
    if life < Duration::from_millis(1) {
        return -1;
    }
    let seconds = life.as_secs().saturating_add(u64::from(life.subsec_nanos() > 0));
    let seconds = if seconds <= RELATIVE_SECONDS_MAX {
        seconds
    } else {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let until = now.saturating_add(seconds);
        // Later than the protocol can say.
        if until > ABSOLUTE_SECONDS_MAX { 0 } else { until }
    };
    seconds.cast_signed()
}

/// A line of an answer, understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// `VA`: so many bytes follow.
    Value { bytes: usize, returned: Returned },
    /// `HD`.
    Done { returned: Returned },
    /// `EN`.
    Miss,
    /// `NS`.
    NotStored,
    /// `EX`.
    Exists,
    /// `NF`.
    NotFound,
    /// `MN`.
    Noop,
    /// `OK`.
    Okay,
}

/// What a line gives back of what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Returned {
    pub(super) flags: u32,
    pub(super) cas: Option<u64>,
    pub(super) left: Option<Duration>,
    /// Which of several requests is answered.
    pub(super) opaque: Option<usize>,
}

impl Line {
    pub(super) fn parse(line: &[u8]) -> Result<Self, Fault> {
        let text = std::str::from_utf8(line).map_err(|_| Fault::garbled(line))?;
        let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
        Ok(match code {
            "VA" => {
                let (bytes, words) = rest.split_once(' ').unwrap_or((rest, ""));
                let bytes = bytes.parse().map_err(|_| Fault::garbled(line))?;
                Self::Value { bytes, returned: Returned::parse(words).ok_or_else(|| Fault::garbled(line))? }
            }
            "HD" => Self::Done { returned: Returned::parse(rest).ok_or_else(|| Fault::garbled(line))? },
            "EN" => Self::Miss,
            "NS" => Self::NotStored,
            "EX" => Self::Exists,
            "NF" => Self::NotFound,
            "MN" => Self::Noop,
            "OK" => Self::Okay,
            _ => return Err(refusal(text).unwrap_or_else(|| Fault::garbled(line))),
        })
    }
}

impl Returned {
    fn parse(words: &str) -> Option<Self> {
        let mut returned = Self::default();
        for word in words.split_ascii_whitespace() {
            let (letter, token) = word.split_at_checked(1)?;
            match letter {
                "f" => returned.flags = token.parse().ok()?,
                "c" => returned.cas = Some(token.parse().ok()?),
                "O" => returned.opaque = Some(token.parse().ok()?),
                "t" if token == "-1" => returned.left = None,
                "t" => returned.left = Some(Duration::from_secs(token.parse().ok()?)),
                _ => {}
            }
        }
        Some(returned)
    }
}

/// What a line says that is an error, if it is one.
pub(super) fn refusal(text: &str) -> Option<Fault> {
    let reason = || text.to_owned();
    if text.starts_with("CLIENT_ERROR ") || text.contains("object too large") {
        return Some(Fault::Rejected { reason: reason() });
    }
    let is_refusal = ["SERVER_ERROR ", "ERROR", "BUSY"].iter().any(|begin| text.starts_with(begin));
    is_refusal.then(|| Fault::Refused { reason: reason() })
}

/// The key that a line of `lru_crawler metadump` tells.
pub(super) fn listed_key(line: &[u8]) -> Option<Bytes> {
    let rest = line.strip_prefix(b"key=")?;
    let escaped = rest.split(|&byte| byte == b' ').next()?;
    let mut key = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'%' {
            key.push(byte);
            continue;
        }
        let digits = [*bytes.next()?, *bytes.next()?];
        key.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    (!key.is_empty()).then(|| key.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(key: &[u8]) -> String {
        let mut out = Vec::new();
        request(&mut out, "mg", &Key::of(key, KEY_BYTES_MAX).unwrap(), " v");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_key_that_could_be_mistaken_for_something_else_goes_as_base64() {
        assert_eq!(written(b"user:1"), "mg user:1 v\r\n");
        assert_eq!(written(b"a b\x00\xff"), "mg YSBiAP8= v b\r\n");
        assert_eq!(written(b"k\r\nflush_all"), "mg aw0KZmx1c2hfYWxs v b\r\n");
        assert!(matches!(Key::of(b"", 250), Err(Fault::Input(Error::Key { bytes: 0, .. }))));
        assert!(matches!(Key::of(&[b'k'; 251], 250), Err(Fault::Input(Error::Key { bytes: 251, max: 250 }))));
        assert!(Key::of(&[b' '; 186], 250).is_ok());
        assert!(
            matches!(Key::of(&[b' '; 187], 250), Err(Fault::Rejected { reason }) if reason.contains("186"))
        );
        assert!(Key::of(&[b' '; 250], 336).is_ok());
    }

    #[test]
    fn what_is_expected_is_said_in_the_protocols_letters() {
        let key = Key::of(b"k", 250).unwrap();
        let said = |life, expect| String::from_utf8(store(&key, b"ab", 7, life, expect)).unwrap();
        assert_eq!(said(Life::Seconds(9), Expect::Any), "ms k 2 c F7 T9\r\nab\r\n");
        assert_eq!(said(Life::Keep, Expect::Absent), "ms k 2 c F7 K ME\r\nab\r\n");
        assert_eq!(said(Life::Seconds(0), Expect::Present), "ms k 2 c F7 T0 MR\r\nab\r\n");
        assert_eq!(said(Life::Seconds(-1), Expect::Cas(5)), "ms k 2 c F7 T-1 C5\r\nab\r\n");
    }

    #[test]
    fn lives_are_whole_seconds_and_long_ones_absolute() {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let of = |ttl| Life::of(ttl, Some(Duration::from_secs(60)), now);
        let days = |days: u64| TimeToLive::For(Duration::from_secs(days * 24 * 3600));
        assert_eq!(of(TimeToLive::Default), Life::Seconds(60));
        assert_eq!(of(TimeToLive::Never), Life::Seconds(0));
        assert_eq!(of(TimeToLive::Keep), Life::Keep);
        assert_eq!(of(Duration::from_micros(999).into()), Life::Seconds(-1));
        assert_eq!(of(Duration::from_millis(1).into()), Life::Seconds(1));
        assert_eq!(of(Duration::from_millis(1_001).into()), Life::Seconds(2));
        assert_eq!(of(days(30)), Life::Seconds(2_592_000));
        assert_eq!(of(days(31)), Life::Seconds(1_700_000_000 + 31 * 24 * 3600));
        assert_eq!(of(days(36_500)), Life::Seconds(0), "beyond 2038");
        assert_eq!(of(Duration::MAX.into()), Life::Seconds(0));
        assert_eq!(Life::of(TimeToLive::Default, None, now), Life::Seconds(0));
    }

    #[test]
    fn answers_are_understood_and_what_is_none_is_garbled() {
        let value = Line::parse(b"VA 2 f7 c1 t-1 kfoo s2 O3").unwrap();
        let returned = Returned { flags: 7, cas: Some(1), left: None, opaque: Some(3) };
        assert_eq!(value, Line::Value { bytes: 2, returned });
        let Line::Done { returned } = Line::parse(b"HD c9 t30").unwrap() else { panic!("HD") };
        assert_eq!((returned.cas, returned.left), (Some(9), Some(Duration::from_secs(30))));
        for (line, understood) in [
            (&b"EN knope"[..], Line::Miss),
            (b"NS c0", Line::NotStored),
            (b"EX c0", Line::Exists),
            (b"NF", Line::NotFound),
            (b"MN", Line::Noop),
            (b"OK", Line::Okay),
        ] {
            assert_eq!(Line::parse(line).unwrap(), understood);
        }
        for garbled in
            [&b"VA x"[..], b"VA", b"HD cx", b"HD t-2", b"", b"VALUE k 0 1", b"\xff", b"VA 1 \xc3\xa9"]
        {
            let parsed = Line::parse(garbled);
            assert!(
                matches!(parsed, Err(Fault::Garbled { .. })) || matches!(parsed, Ok(Line::Value { .. })),
                "{parsed:?}"
            );
        }
        assert!(matches!(Line::parse(b"CLIENT_ERROR bad"), Err(Fault::Rejected { .. })));
        assert!(matches!(
            Line::parse(b"SERVER_ERROR object too large for cache"),
            Err(Fault::Rejected { .. })
        ));
        assert!(matches!(
            Line::parse(b"SERVER_ERROR out of memory storing object"),
            Err(Fault::Refused { .. })
        ));
        assert!(matches!(Line::parse(b"ERROR"), Err(Fault::Refused { .. })));
    }

    #[test]
    fn a_listed_key_is_unescaped() {
        let listed = |line: &[u8]| listed_key(line).map(|key| key.to_vec());
        assert_eq!(listed(b"key=a%20b%00%FF exp=-1 la=1").unwrap(), b"a b\x00\xff");
        assert_eq!(listed(b"key=plain").unwrap(), b"plain");
        for none in [&b"key="[..], b"key=%2", b"key=%zz", b"END", b""] {
            assert_eq!(listed(none), None);
        }
    }
}
