//! A value on its way to another place: what it is, and when its life ends.
//!
//! The end is a point of this process's own clock, so that a value that waited in a journal is not given a longer life than it had.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{
    read::Item,
    value::Codec,
    write::{TimeToLive, Write},
};

/// What a journal counts for an entry beside its key and value: two tables' slots.
const ENTRY_OVERHEAD_BYTES: usize = 200;

/// Less is no life.
const LIFE_MIN: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parcel {
    bytes: Bytes,
    flags: u32,
    codec: Codec,
    /// `None` where it does not expire.
    ends: Option<Instant>,
}

impl Parcel {
    pub(super) fn of_write(write: &Write, life: Option<Duration>, now: Instant) -> Self {
        let Write { bytes, flags, codec, .. } = write;
        Self { bytes: bytes.clone(), flags: *flags, codec: *codec, ends: end(life, now) }
    }

    pub(super) fn of_item(item: &Item, now: Instant) -> Self {
        let Item { bytes, flags, codec, left, .. } = item;
        Self { bytes: bytes.clone(), flags: *flags, codec: *codec, ends: end(*left, now) }
    }

    /// As it is written now; `None` where its life is over.
    pub(super) fn write(&self, now: Instant) -> Option<Write> {
        let ttl = match self.ends {
            None => TimeToLive::Never,
            Some(ends) => {
                let left = ends.saturating_duration_since(now);
                TimeToLive::For((left >= LIFE_MIN).then_some(left)?)
            }
        };
        Some(Write { bytes: self.bytes.clone(), flags: self.flags, ttl, codec: self.codec })
    }

    /// As it is read now, without a number; `None` where its life is over.
    pub(super) fn item(&self, now: Instant) -> Option<Item> {
        let left = match self.write(now)?.ttl {
            TimeToLive::For(left) => Some(left),
            _ => None,
        };
        Some(Item { bytes: self.bytes.clone(), flags: self.flags, codec: self.codec, cas: 0, left })
    }

    pub(super) fn weight(&self, key: &[u8]) -> usize {
        weight_of_key(key) + self.bytes.len()
    }
}

/// What a remove takes in a journal.
pub(super) fn weight_of_key(key: &[u8]) -> usize {
    2 * key.len() + ENTRY_OVERHEAD_BYTES
}

/// An end that is beyond the clock is none.
fn end(life: Option<Duration>, now: Instant) -> Option<Instant> {
    life.and_then(|life| now.checked_add(life))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_waited_has_less_of_its_life_left() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let item = Item { left: Some(3 * second), ..Item::new("v".into()) };
        let parcel = Parcel::of_item(&item, now);
        assert_eq!(parcel.write(now + second).map(|write| write.ttl), Some(TimeToLive::For(2 * second)));
        assert_eq!(parcel.item(now + second).and_then(|item| item.left), Some(2 * second));
        assert_eq!(parcel.write(now + 3 * second), None, "its life is over");
        let lasting = Parcel::of_item(&Item::new("v".into()), now);
        assert_eq!(lasting.write(now + 1_000 * second).map(|write| write.ttl), Some(TimeToLive::Never));
    }
}
