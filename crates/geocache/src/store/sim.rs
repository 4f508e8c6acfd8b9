//! The store in simulated time: the one that nodes run on, under the simulation's outages.
//!
//! The map's clock and the store's are set by hand, and whatever the process does in the background (taking out what
//! is over or was cleared) is done before a call returns. So the same steps end in the same state, on any machine.
//!
//! As in a process, what is over is invisible at once and taken out later: on each [`SWEEP_TICKS`]th tick, or by whoever
//! meets it before. Swept at once, it would hide from simulations whatever goes wrong in between.

use std::{
    collections::BTreeMap,
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cache_core::{ManualClock, Verdict};
use replication::{
    Op, Stamp,
    message::Bar,
    replica::{Guard, Now, Outbox},
    sim::{Held, SimStore, StoreSettings},
};

use super::{Key, Layout, Life, NodeStore, Payload, Time, page::PAGE_ENTRIES, time::SetTime, whole_ms};
use crate::value::{Codec, Stored};

/// Every how manieth time that is set comes with a sweep.
const SWEEP_TICKS: u64 = 5;

impl SimStore for NodeStore {
    fn open(settings: &StoreSettings, outbox: Arc<Outbox>, now: Now) -> Arc<Self> {
        let map = ManualClock::new();
        let (wall_ms, began_ms) = (AtomicU64::new(now.wall_ms), now.mono_ms);
        let layout = Layout {
            cache: "geocache".to_owned(),
            capacity: Some(settings.capacity),
            capacity_bytes: None,
            default_ttl: None,
            remote_depth: 0.0,
            shards: None,
            graves_max: settings.graves_max,
            history: 0,
            clock: Some(map.clone().into()),
            time: Time::Set(Arc::new(SetTime { wall_ms, began_ms, map, ticks: AtomicU64::new(0) })),
        };
        let store =
            Self::new(&layout, outbox).expect("a capacity of at least one entry is all that is asked");
        store.cache.with_sidecars(|shard| {
            shard.guard = mem::replace(&mut shard.guard, Guard::new(0)).with_rules(settings.rules);
        });
        store
    }

    fn set_now(&self, now: Now) {
        let Time::Set(time) = &self.time else { return };
        time.wall_ms.store(now.wall_ms, Ordering::Relaxed);
        time.map.advance(Duration::from_millis(now.mono_ms.saturating_sub(time.mono_ms())));
        if (time.ticks.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(SWEEP_TICKS) {
            self.cache.sweep();
        }
    }

    fn write(&self, key: &[u8], op: Op) -> Stamp {
        let wall_ms = self.time.wall_ms();
        self.change(key, |store, mut slot, shard| match op {
            Op::Put(value) => {
                let life = value.ttl.map_or(Life::Never, |ttl| Life::For(Duration::from_millis(ttl.left_ms)));
                let life = store.resolve(life, None, false);
                let codec = Codec::from_number(value.codec);
                let payload = Payload { bytes: value.bytes, flags: value.flags, codec, weight: None };
                let (verdict, made) = store.store(key, &mut slot, shard, payload, life, None, wall_ms);
                (verdict, made.stamp)
            }
            Op::Remove => (Verdict::Remove, store.remove_stamped(key, &slot, shard, None, wall_ms)),
            other => panic!("a local write is a put or a remove, not {other:?}"),
        })
    }

    fn clear_local(&self, namespace: &[u8]) -> Option<Stamp> {
        self.clear_stamped(namespace)
    }

    fn get(&self, key: &[u8]) -> Option<Held> {
        let held = |stored: &Stored, left: Option<Duration>| Held {
            stamp: stored.stamp,
            bytes: stored.bytes.clone(),
            left_ms: left.map(whole_ms),
        };
        self.read(key, |stored, left| held(stored, left))
    }

    fn contents(&self) -> BTreeMap<Bytes, Stamp> {
        let mut contents = BTreeMap::new();
        let mut next = Some(0);
        while let Some(position) = next {
            next = self.cache.scan(position, PAGE_ENTRIES, |page, _| {
                let visible = page.items.iter().filter(|item| self.is_visible(item.key, item.value));
                contents.extend(visible.map(|item| (Bytes::copy_from_slice(item.key), item.value.stamp)));
                page.next
            });
        }
        contents
    }

    fn bar(&self, key: &[u8]) -> Bar {
        self.cache.upsert(key, Key::new, |slot, shard| {
            (Verdict::Keep, shard.bar(slot.position, key, slot.value.as_deref()))
        })
    }

    fn sizes(&self) -> (usize, usize) {
        // What is over is no longer held, whether it was taken out yet or not.
        self.cache.sweep();
        let mut graves = 0;
        self.cache.with_sidecars(|shard| graves += shard.guard.len());
        (self.cache.len(), graves)
    }
}

#[cfg(test)]
mod tests;
