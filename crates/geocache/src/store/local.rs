//! Changes made on this node: checked, stamped and stored under one lock.

use std::time::Duration;

use bytes::Bytes;
use cache_core::{Expiry, Slot, Verdict};
use replication::{Change, Hlc, Stamp, Ttl, Value, message::Bar};

use super::{Key, NodeStore, Outcome, Shard, expiry, whole_ms};
use crate::{
    events::Event,
    explain::What,
    value::{Codec, Stored},
};

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
    /// Nothing happened to the key since this clock: no write, remove or clear of it, of whatever node, is later.
    Since(Hlc),
}

/// How long a value lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Default,
    Never,
    For(Duration),
    /// As long as the value that it replaces; where there is none this long, or for ever.
    KeepOr(Option<Duration>),
    /// As long as the value that it replaces; the default where there is none.
    Keep,
}

/// A value to be stored.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    pub(crate) bytes: Bytes,
    pub(crate) flags: u32,
    pub(crate) codec: Codec,
    /// What it counts against a capacity in bytes on this node; its length where nothing is said.
    pub(crate) weight: Option<u64>,
}

/// A change that was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub(super) stamp: Stamp,
    /// The value's compare-and-set number.
    cas: u64,
}

impl Payload {
    /// A value that is stored already.
    fn of(stored: &Stored) -> Self {
        let &Stored { ref bytes, flags, codec, weight, .. } = stored;
        Self { bytes: bytes.clone(), flags, codec, weight: Some(weight) }
    }
}

impl Condition {
    /// What speaks against the change; `bar` is the key's, and is asked only where it matters.
    fn refuses(self, live: Option<&Stored>, bar: impl FnOnce() -> Bar) -> Option<Outcome> {
        match (self, live) {
            (Self::Absent, Some(_)) => Some(Outcome::Present),
            (Self::Present | Self::Cas(_), None) => Some(Outcome::Missing),
            (Self::Cas(expected), Some(live)) if live.cas != expected => Some(Outcome::Exists),
            (Self::Seen(seen), live) if seen != live.map(|live| live.stamp) => Some(Outcome::Exists),
            (Self::Since(since), _) if bar().stamp.hlc > since => Some(Outcome::Exists),
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
        let outcome = self.change(key, |store, mut slot, shard| {
            let live = slot.value.as_deref().filter(|live| store.is_visible(key, live));
            let bar = || shard.bar(slot.position, key, slot.value.as_deref());
            if let Some(refusal) = condition.refuses(live, bar) {
                let held = live.map_or(Stamp::ZERO, |live| live.stamp);
                shard.note(slot.position, What::Refused(refusal), held);
                return (Verdict::Keep, Err(refusal));
            }
            let is_live = live.is_some();
            let life = store.resolve(life, slot.left, is_live);
            let previous = condition.previous(live);
            let (verdict, made) = store.store(key, &mut slot, shard, payload, life, previous, wall_ms);
            // A life of nothing is a remove, of something or of nothing.
            if is_live || !matches!(verdict, Verdict::Remove) {
                store.tell_change(key, &verdict, false);
            }
            shard.note_local(slot.position, condition, &verdict, made.stamp);
            shard.writes += 1;
            (verdict, Ok(made))
        });
        match outcome {
            Ok(Made { stamp, cas }) => (Outcome::Done { cas }, Some(stamp)),
            Err(refusal) => (refusal, None),
        }
    }

    /// Gives the value a new life: the same value under a new stamp. Returns what `show` makes of it as it is then.
    pub(crate) fn touch<R>(
        &self,
        key: &[u8],
        life: Life,
        show: impl FnOnce(&Stored, Option<Duration>) -> R,
    ) -> Option<R> {
        let wall_ms = self.time.wall_ms();
        self.change(key, |store, mut slot, shard| {
            let Some(live) = slot.value.as_deref().filter(|live| store.is_visible(key, live)) else {
                return (Verdict::Keep, None);
            };
            let payload = Payload::of(live);
            let life = store.resolve(life, slot.left, true);
            let (verdict, made) = store.store(key, &mut slot, shard, payload, life, None, wall_ms);
            store.tell_change(key, &verdict, false);
            let what = if matches!(verdict, Verdict::Remove) { What::Removed } else { What::Touched };
            shard.note(slot.position, what, made.stamp);
            let left = if matches!(verdict, Verdict::Remove) { Some(Duration::ZERO) } else { life.0 };
            shard.writes += 1;
            (verdict, slot.value.map(|live| show(live, left)))
        })
    }

    /// Removes a key if the condition holds. The remove is replicated even where this node holds nothing, since another
    /// one may; what comes back then is [`Outcome::Missing`].
    pub(crate) fn remove(&self, key: &[u8], condition: Condition) -> Outcome {
        let wall_ms = self.time.wall_ms();
        self.change(key, |store, slot, shard| {
            let live = slot.value.as_deref().filter(|live| store.is_visible(key, live));
            let bar = || shard.bar(slot.position, key, slot.value.as_deref());
            if let Some(refusal) = condition.refuses(live, bar) {
                let held = live.map_or(Stamp::ZERO, |live| live.stamp);
                shard.note(slot.position, What::Refused(refusal), held);
                return (Verdict::Keep, refusal);
            }
            let previous = condition.previous(live);
            let stamp = store.remove_stamped(key, &slot, shard, previous, wall_ms);
            shard.note(slot.position, What::Removed, stamp);
            if live.is_some() {
                store.tell_change(key, &Verdict::Remove, false);
            }
            shard.removes += u64::from(live.is_some());
            (Verdict::Remove, if live.is_some() { Outcome::Done { cas: 0 } } else { Outcome::Missing })
        })
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
            self.tell_clear(namespace, false);
            self.start_reclaim();
        }
        issued.filter(|_| is_news)
    }

    /// Gives a live value a new stamp, with what is left of its life, if it is still the one stamped `stamp`.
    pub(super) fn restamp(&self, key: &[u8], stamp: Stamp, wall_ms: u64) -> bool {
        self.change(key, |store, mut slot, shard| {
            let live = slot.value.as_deref();
            let live = live.filter(|live| live.stamp == stamp && store.is_visible(key, live));
            let Some(payload) = live.map(Payload::of) else { return (Verdict::Keep, false) };
            let life = store.resolve(Life::Keep, slot.left, true);
            let (verdict, made) = store.store(key, &mut slot, shard, payload, life, None, wall_ms);
            shard.note(slot.position, What::Reissued, made.stamp);
            (verdict, true)
        })
    }

    /// Tells the watchers of a change that is about to be made.
    pub(super) fn tell_change(&self, key: &[u8], verdict: &Verdict<Stored>, remote: bool) {
        let key = || Bytes::copy_from_slice(key);
        match verdict {
            Verdict::Keep => {}
            Verdict::Remove => self.bell.tell(|| Event::Removed { key: key(), remote }),
            _ => self.bell.tell(|| Event::Put { key: key(), remote }),
        }
    }

    pub(super) fn tell_clear(&self, prefix: &[u8], remote: bool) {
        self.bell.tell(|| Event::Cleared { prefix: Bytes::copy_from_slice(prefix), remote });
    }

    pub(super) fn change<R>(
        &self,
        key: &[u8],
        change: impl FnOnce(&Self, Slot<'_, Stored>, &mut Shard) -> (Verdict<Stored>, R),
    ) -> R {
        self.cache.upsert(key, Key::new, |slot, shard| change(self, slot, shard))
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
            Life::Keep | Life::KeepOr(_) if is_live => return (left, Expiry::Keep),
            Life::KeepOr(life) => life.map(|life| life.min(super::LIFE_MAX)),
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
        slot: &mut Slot<'_, Stored>,
        shard: &mut Shard,
        payload: Payload,
        (left, expiry): (Option<Duration>, Expiry),
        previous: Option<Stamp>,
        wall_ms: u64,
    ) -> (Verdict<Stored>, Made) {
        let left_ms = left.map(whole_ms);
        if left_ms == Some(0) {
            let stamp = self.remove_stamped(key, slot, shard, previous, wall_ms);
            return (Verdict::Remove, Made { stamp, cas: stamp.hlc.0 });
        }
        let value = Value {
            bytes: payload.bytes,
            flags: payload.flags,
            codec: payload.codec.number(),
            cas: None,
            ttl: left_ms.map(|left_ms| Ttl { left_ms, born_ms: self.time.mono_ms() }),
        };
        let bar = shard.bar(slot.position, key, slot.value.as_deref());
        let stamp = self.outbox.issue(wall_ms, key, Change::Put(&value), previous);
        debug_assert!(bar.admits(stamp), "a bar that the clock was not shown: {bar:?} refuses {stamp}");
        if let Some(cas) = shard.renew(slot, &value, stamp) {
            if let (Some(weight), Some(live)) = (payload.weight, &mut slot.value) {
                live.weight = weight;
            }
            return (Verdict::Update(expiry), Made { stamp, cas });
        }
        let mut stored = Stored::new(value, stamp, slot.value.as_deref());
        stored.weight = payload.weight.unwrap_or(stored.weight);
        let cas = stored.cas;
        (Verdict::Replace(stored, expiry), Made { stamp, cas })
    }

    pub(super) fn remove_stamped(
        &self,
        key: &[u8],
        slot: &Slot<'_, Stored>,
        shard: &mut Shard,
        previous: Option<Stamp>,
        wall_ms: u64,
    ) -> Stamp {
        let stamp = self.outbox.issue(wall_ms, key, Change::Remove, previous);
        shard.guard.bury(slot.position, Bar::above(stamp));
        stamp
    }
}
