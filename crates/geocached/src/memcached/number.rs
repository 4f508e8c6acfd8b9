//! Numbers as memcached reads them, and expiry times in its terms.
//!
//! The C library's `strtoull` decides what memcached takes as a number: leading blanks and a plus sign are fine, and
//! whatever follows the digits is ignored if a blank comes first. The same rule holds for the value that `incr`
//! counts on, which is why padding with spaces works.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Expiry times up to this many seconds are relative; larger ones are absolute Unix times.
pub(super) const RELATIVE_SECONDS_MAX: i64 = 60 * 60 * 24 * 30;

/// The unsigned number at the start of `text`, if all of it is one.
pub(super) fn unsigned(text: &[u8]) -> Option<u64> {
    let text = trim_blanks(text);
    digits(text.strip_prefix(b"+").unwrap_or(text))
}

/// The signed number at the start of `text`, if all of it is one.
pub(super) fn signed(text: &[u8]) -> Option<i64> {
    let text = trim_blanks(text);
    match text.strip_prefix(b"-") {
        Some(rest) => 0_i64.checked_sub_unsigned(digits(rest)?),
        None => digits(text.strip_prefix(b"+").unwrap_or(text))?.try_into().ok(),
    }
}

fn digits(text: &[u8]) -> Option<u64> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (number, after) = text.split_at(end);
    if number.is_empty() || after.first().is_some_and(|&byte| !is_blank(byte)) {
        return None;
    }
    number.iter().try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}

fn trim_blanks(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|&byte| !is_blank(byte)).unwrap_or(text.len());
    &text[start..]
}

/// What C's `isspace` takes as a blank.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Appends a number in decimal, without going through the formatting machinery.
pub(super) fn push(out: &mut Vec<u8>, mut number: u64) {
    let mut buffer = [0_u8; 20];
    let mut start = buffer.len();
    loop {
        start -= 1;
        // A remainder of ten is one digit.
        buffer[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&buffer[start..]);
}

/// An expiry time, understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    /// 0: does not expire.
    Never,
    /// From now on, this long.
    After(Duration),
    /// Negative, or an absolute time that has come.
    Already,
}

/// Understands an expiry time: 0 never, negative already, up to 30 days from now on, beyond as Unix time.
///
/// `now` is asked only for absolute times.
pub(super) fn expiry(exptime: i64, now: impl FnOnce() -> SystemTime) -> Expiry {
    let Ok(seconds) = u64::try_from(exptime) else { return Expiry::Already };
    if seconds == 0 {
        return Expiry::Never;
    }
    if exptime <= RELATIVE_SECONDS_MAX {
        return Expiry::After(Duration::from_secs(seconds));
    }
    // A clock before 1970 makes every absolute time lie in the future.
    let now = now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match Duration::from_secs(seconds).checked_sub(now) {
        Some(left) if !left.is_zero() => Expiry::After(left),
        _ => Expiry::Already,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_the_c_library_reads_them() {
        for (text, number) in [
            (&b"0"[..], Some(0)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"0000000000000000000000001", Some(1)),
            (b" 1", Some(1)),
            (b"+1", Some(1)),
            (b"1 ", Some(1)),
            (b"1 x", Some(1)),
            (b"1x", None),
            (b"-1", None),
            (b"", None),
            (b" ", None),
            (b"+", None),
        ] {
            assert_eq!(unsigned(text), number, "{:?}", String::from_utf8_lossy(text));
        }
        assert_eq!(signed(b"-1"), Some(-1));
        assert_eq!(signed(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(signed(b"9223372036854775808"), None);
        assert_eq!(signed(b"--1"), None);
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 9, 10, 1234, u64::MAX] {
            let mut out = Vec::new();
            push(&mut out, number);
            assert_eq!(out, number.to_string().into_bytes());
        }
    }

    #[test]
    fn thirty_days_part_relative_from_absolute_expiry() {
        let now = || UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(expiry(0, now), Expiry::Never);
        assert_eq!(expiry(-1, now), Expiry::Already);
        assert_eq!(expiry(i64::MIN, now), Expiry::Already);
        assert_eq!(expiry(60, now), Expiry::After(Duration::from_secs(60)));
        assert_eq!(
            expiry(RELATIVE_SECONDS_MAX, now),
            Expiry::After(Duration::from_secs(RELATIVE_SECONDS_MAX as u64))
        );
        assert_eq!(expiry(RELATIVE_SECONDS_MAX + 1, now), Expiry::Already);
        assert_eq!(expiry(1_700_000_000, now), Expiry::Already);
        assert_eq!(expiry(1_700_000_005, now), Expiry::After(Duration::from_secs(5)));
        assert!(matches!(expiry(i64::MAX, now), Expiry::After(_)));
    }
}
