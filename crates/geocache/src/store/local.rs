//! Changes made on this node: checked, stamped and stored under one lock.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use cache_core::{Expiry, Slot, Verdict};
use replication::{Change, Stamp, Ttl, Value, message::Bar};

use super::{NodeStore, Outcome, Shard, expiry, whole_ms};
use crate::value::{Codec, Stored};

/// What must hold for a change to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Any,
    Absent,
    Present,
    /// The value has this compare-and-set number.
    Cas(u64),
    /// The value is the one seen: this stamp, or absent.
    Seen(Option<Stamp>),
}

/// How long a value lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Default,
    Never,
    For(Duration),
    /// As long as the value that it replaces; the default where there is none.
    Keep,
}

/// A value to be stored.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    pub(crate) bytes: Bytes,
    pub(crate) flags: u32,
    pub(crate) codec: Codec,
}

impl Condition {
    fn refuses(self, live: Option<&Stored>) -> Option<Outcome> {
        match (self, live) {
            (Self::Absent, Some(_)) => Some(Outcome::Present),
            (Self::Present | Self::Cas(_), None) => Some(Outcome::Missing),
            (Self::Cas(expected), Some(live)) if live.cas != expected => Some(Outcome::Exists),
            (Self::Seen(seen), live) if seen != live.map(|live| live.stamp) => Some(Outcome::Exists),
            _ => None,
        }
    }

    /// The stamp that a receiver compares to notice a lost concurrent update; only compare-and-sets carry it.
    fn previous(self, live: Option<&Stored>) -> Option<Stamp> {
        matches!(self, Self::Cas(_) | Self::Seen(_)).then(|| live.map(|live| live.stamp))?
    }
}

impl NodeStore {
    #[cfg(test)]
    pub(crate) fn put(&self, key: &[u8], payload: Payload, life: Life, condition: Condition) -> Outcome {
        self.put_stamped(key, payload, life, condition).0
    }

    /// Stores a value if the condition holds; with the stamp of the change, where one was made.
    pub(crate) fn put_stamped(
        &self,
        key: &[u8],
        payload: Payload,
        life: Life,
        condition: Condition,
    ) -> (Outcome, Option<Stamp>) {
        let wall_ms = self.time.wall_ms();
        let mut stamp = None;
        let outcome = self.change(key, |store, slot, shard| {
            let live = slot.value.filter(|live| store.is_visible(key, live));
            if let Some(refusal) = condition.refuses(live.map(|live| &**live)) {
                return (Verdict::Keep, refusal);
            }
            let life = store.resolve(life, slot.left, live.is_some());
            let previous = condition.previous(live.map(|live| &**live));
            let (verdict, issued) = store.store(key, &slot, shard, payload, life, previous, wall_ms);
            stamp = Some(issued);
            let cas = match &verdict {
                Verdict::Replace(stored, _) => stored.cas,
                _ => issued.hlc.0,
            };
            (verdict, Outcome::Done { cas })
        });
        if matches!(outcome, Outcome::Done { .. }) {
            self.writes.fetch_add(1, Ordering::Relaxed);
        }
        (outcome, stamp)
    }

    /// Gives the value a new life: the same value under a new stamp. Returns what it is now.
    pub(crate) fn touch(&self, key: &[u8], life: Life) -> Option<(Arc<Stored>, Option<Duration>)> {
        let wall_ms = self.time.wall_ms();
        let touched = self.change(key, |store, slot, shard| {
            let Some(live) = slot.value.filter(|live| store.is_visible(key, live)) else {
                return (Verdict::Keep, None);
            };
            let life = store.resolve(life, slot.left, true);
            let payload = Payload { bytes: live.bytes.clone(), flags: live.flags, codec: live.codec };
            let before = Arc::clone(live);
            match store.store(key, &slot, shard, payload, life, None, wall_ms) {
                (Verdict::Replace(after, expiry), _) => {
                    (Verdict::Replace(Arc::clone(&after), expiry), Some((after, life.0)))
                }
                (verdict, _) => (verdict, Some((before, Some(Duration::ZERO)))),
            }
        });
        if touched.is_some() {
            self.writes.fetch_add(1, Ordering::Relaxed);
        }
        touched
    }

    /// Removes a key if the condition holds. The remove is replicated even where this node holds nothing, since another
    /// one may; what comes back then is [`Outcome::Missing`].
    pub(crate) fn remove(&self, key: &[u8], condition: Condition) -> Outcome {
        let wall_ms = self.time.wall_ms();
        let outcome = self.change(key, |store, slot, shard| {
            let live = slot.value.filter(|live| store.is_visible(key, live)).map(|live| &**live);
            if let Some(refusal) = condition.refuses(live) {
                return (Verdict::Keep, refusal);
            }
            let previous = condition.previous(live);
            store.remove_stamped(key, &slot, shard, previous, wall_ms);
            (Verdict::Remove, if live.is_some() { Outcome::Done { cas: 0 } } else { Outcome::Missing })
        });
        if outcome == (Outcome::Done { cas: 0 }) {
            self.removes.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    /// Forgets everything in a namespace, here and, one record later, everywhere.
    /// Nothing, where an equal or newer one is known.
    pub(crate) fn clear_stamped(&self, namespace: &[u8]) -> Option<Stamp> {
        let wall_ms = self.time.wall_ms();
        let mut issued = None;
        let is_news = self.barriers.raise_with(namespace, || {
            let stamp = self.outbox.issue(wall_ms, namespace, Change::Clear, None);
            *issued.insert(stamp)
        });
        if is_news {
            self.start_reclaim();
        }
        issued.filter(|_| is_news)
    }

    /// Gives a live value a new stamp, with what is left of its life, if it is still the one stamped `stamp`.
    pub(super) fn restamp(&self, key: &[u8], stamp: Stamp, wall_ms: u64) -> bool {
        self.change(key, |store, slot, shard| {
            let live = slot.value.filter(|live| live.stamp == stamp && store.is_visible(key, live));
            let Some(live) = live else { return (Verdict::Keep, false) };
            let payload = Payload { bytes: live.bytes.clone(), flags: live.flags, codec: live.codec };
            let life = store.resolve(Life::Keep, slot.left, true);
            (store.store(key, &slot, shard, payload, life, None, wall_ms).0, true)
        })
    }

    pub(super) fn change<R>(
        &self,
        key: &[u8],
        change: impl FnOnce(&Self, Slot<'_, Arc<Stored>>, &mut Shard) -> (Verdict<Arc<Stored>>, R),
    ) -> R {
        self.cache.upsert(key, Bytes::copy_from_slice, |slot, shard| change(self, slot, shard))
    }

    /// How long the value lives, as it travels and as the map takes it. A kept life keeps its deadline rather than
    /// starting anew with what is left, which would cut it by a tick each time.
    pub(super) fn resolve(
        &self,
        life: Life,
        left: Option<Duration>,
        is_live: bool,
    ) -> (Option<Duration>, Expiry) {
        let life = match life {
            Life::Keep if is_live => return (left, Expiry::Keep),
            Life::Default | Life::Keep => self.default_ttl,
            Life::Never => None,
            Life::For(life) => Some(life.min(super::LIFE_MAX)),
        };
        (life, expiry(life))
    }

    /// Stamps a value and lays it down. Where no whole millisecond of life is left it is a remove, here as elsewhere.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call deep; a struct for it would be built once and taken apart once"
    )]
    pub(super) fn store(
        &self,
        key: &[u8],
        slot: &Slot<'_, Arc<Stored>>,
        shard: &mut Shard,
        payload: Payload,
        (left, expiry): (Option<Duration>, Expiry),
        previous: Option<Stamp>,
        wall_ms: u64,
    ) -> (Verdict<Arc<Stored>>, Stamp) {
        let left_ms = left.map(whole_ms);
        if left_ms == Some(0) {
            let stamp = self.remove_stamped(key, slot, shard, previous, wall_ms);
            return (Verdict::Remove, stamp);
        }
        let value = Value {
            bytes: payload.bytes,
            flags: payload.flags,
            codec: payload.codec.number(),
            cas: None,
            ttl: left_ms.map(|left_ms| Ttl { left_ms, born_ms: self.time.mono_ms() }),
        };
        let live = slot.value.map(|live| &**live);
        let bar = shard.bar(slot.position, key, live);
        let stamp = self.outbox.issue(wall_ms, key, Change::Put(&value), previous);
        debug_assert!(bar.admits(stamp), "a bar that the clock was not shown: {bar:?} refuses {stamp}");
        if live.is_none() {
            shard.guard.lift(slot.position);
        }
        let stored = match live {
            Some(live) if live.shares_bytes(&value) => Stored::restamped(live, value, stamp),
            live => Stored::new(value, stamp, live),
        };
        (Verdict::Replace(Arc::new(stored), expiry), stamp)
    }

    pub(super) fn remove_stamped(
        &self,
        key: &[u8],
        slot: &Slot<'_, Arc<Stored>>,
        shard: &mut Shard,
        previous: Option<Stamp>,
        wall_ms: u64,
    ) -> Stamp {
        let stamp = self.outbox.issue(wall_ms, key, Change::Remove, previous);
        shard.guard.bury(slot.position, Bar::above(stamp));
        stamp
    }
}
