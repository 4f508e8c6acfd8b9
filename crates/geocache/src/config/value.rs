//! The values that a setting may have, as people write them: in the file, and as text in the environment.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de};

/// A value of a setting.
pub(super) trait Value: Sized {
    /// The value that a variable of the environment has; what is wrong with it, where it is none.
    fn of_variable(text: &str) -> Result<Self, String>;
}

/// A number of bytes, written as such or with a unit of the powers of 1024: `65536`, `"64k"`, `"64KiB"`, `"7m"`, `"2GiB"`.
///
/// The decimal units (`MB`) are refused: whether a million is meant by them or 1024 × 1024 cannot be known.
///
/// ```
/// use geocache::config::ByteSize;
///
/// assert_eq!("64MiB".parse(), Ok(ByteSize(64 << 20)));
/// assert_eq!("64m".parse(), Ok(ByteSize(64 << 20)));
/// assert!("64MB".parse::<ByteSize>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let problem = || {
            format!(
                "{text:?} is no number of bytes; use digits, followed by k, m or g (or KiB, MiB, GiB) if you like"
            )
        };
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
        let shift = match text[digits.len()..].trim_start().to_ascii_lowercase().as_str() {
            "" => 0,
            "k" | "kib" => 10,
            "m" | "mib" => 20,
            "g" | "gib" => 30,
            _ => return Err(problem()),
        };
        let number: u64 = digits.parse().map_err(|_| problem())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(problem)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;

        impl de::Visitor<'_> for NumberOrText {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, or a text such as \"64m\" or \"64MiB\"")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<ByteSize, E> {
                u64::try_from(number)
                    .map(ByteSize)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(NumberOrText)
    }
}

impl ByteSize {
    /// As many as this machine can address.
    pub(super) fn to_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Value for ByteSize {
    fn of_variable(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

/// A time with its unit: `"30s"`, `"250ms"`, `"1h 30m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time(pub(super) Duration);

impl Value for Time {
    fn of_variable(text: &str) -> Result<Self, String> {
        // The parser's own messages may speak of the inner of its grammar; what is right is said here.
        let time = humantime::parse_duration(text).map(Self);
        time.map_err(|_| {
            format!("{text:?} is no time; write a number and its unit, as \"30s\", \"250ms\" or \"1h 30m\"")
        })
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl de::Visitor<'_> for Text {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time with its unit, as \"30s\", \"250ms\" or \"1h 30m\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
                Time::of_variable(text).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Text)
    }
}

/// A text that is shown by nothing: a password, or a URI that may hold one.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    #[cfg(feature = "rabbitmq")]
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Value for Secret {
    fn of_variable(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Secret {
    /// What is no text is refused without being shown: a password of digits that was written without quotes is one.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(Self(text)),
            other => {
                Err(de::Error::custom(format!("is of the type {}; write it in quotes", other.type_str())))
            }
        }
    }
}

/// One value, or a list of them; in the environment separated by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct List<T>(pub(super) Vec<T>);

impl<T: Value> Value for List<T> {
    fn of_variable(text: &str) -> Result<Self, String> {
        text.split(',').map(|one| T::of_variable(one.trim())).collect::<Result<_, _>>().map(Self)
    }
}

impl<'de, T: FromText> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = match toml::Value::deserialize(deserializer)? {
            toml::Value::Array(values) => values,
            one => vec![one],
        };
        let text = |value| match value {
            toml::Value::String(text) => Ok(T::from_text(text)),
            other => Err(de::Error::custom(format!(
                "holds a value of the type {}; write each in quotes",
                other.type_str()
            ))),
        };
        texts.into_iter().map(text).collect::<Result<_, _>>().map(Self)
    }
}

/// What any text is.
pub(super) trait FromText {
    fn from_text(text: String) -> Self;
}

impl FromText for String {
    fn from_text(text: String) -> Self {
        text
    }
}

impl FromText for Secret {
    fn from_text(text: String) -> Self {
        Self(text)
    }
}

impl Value for String {
    fn of_variable(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Value for PathBuf {
    fn of_variable(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }
}

impl Value for bool {
    fn of_variable(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is neither true nor false"))
    }
}

impl Value for f64 {
    fn of_variable(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is no number"))
    }
}

macro_rules! whole_numbers {
    ($($number:ty),*) => {$(
        impl Value for $number {
            fn of_variable(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("{text:?} is no whole number from 0 to {}", <$number>::MAX))
            }
        }
    )*};
}

whole_numbers!(u16, u32, usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_may_be_written_with_a_unit_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("10", 10),
            ("2k", 2048),
            ("3M", 3 << 20),
            ("1g", 1 << 30),
            ("64KiB", 64 << 10),
            ("5 MiB", 5 << 20),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)));
        }
        for text in ["", "m", "-1", "1.5m", "99999999999999g", "1mb", "1kB", "é", "1 1", " 1"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_needs_its_unit() {
        let ms = |text| Time::of_variable(text).map(|time| time.0.as_millis());
        assert_eq!((ms("30s"), ms("250ms"), ms("1h 30m")), (Ok(30_000), Ok(250), Ok(5_400_000)));
        for text in ["", "30", "s", "-1s", "a while"] {
            let problem = ms(text).unwrap_err();
            assert!(problem.contains("write a number and its unit"), "{problem}");
        }
    }
}
