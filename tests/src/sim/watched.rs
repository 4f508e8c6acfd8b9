//! The store of a simulated node, with a note of what was done to it.
//!
//! The invariants look at a node after every event. Looking at every key each time would cost more than the simulation
//! itself, so the store says which keys may have changed; and it keeps, outside of the protocol's own bounded memory,
//! what the node has ever been told of a key, which is what the node is held to after the faults end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use replication::{
    Op, Record, Stamp,
    message::{Bar, Grave},
    replica::{Known, Merged, Now, Outbox, Samples, Store, StorePage},
    sim::{Held, MapStore, SimStore, StoreSettings},
};

use super::key;

/// What a node shows of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The key's number.
    pub key: usize,
    /// Its bar.
    pub bar: Bar,
    /// What a read returns.
    pub held: Option<Held>,
}

/// What was done to a store since it was last asked.
#[derive(Debug, Default)]
pub struct Touched {
    /// The keys of which something may have changed, one bit each.
    keys: u32,
    /// What the node was told of a key: its bar is never below that again.
    pub told: Vec<(usize, Bar)>,
    /// Values that were stamped anew: the key, the stamp before and the one after.
    pub reissued: Vec<(usize, Stamp, Stamp)>,
}

impl Touched {
    /// The numbers of the keys of which something may have changed.
    pub fn keys(&self) -> impl Iterator<Item = usize> + use<> {
        let keys = self.keys;
        (0..key::KEYS_MAX).filter(move |key| keys & (1 << key) != 0)
    }

    fn tell(&mut self, key: Option<usize>, bar: Bar) {
        let Some(key) = key else { return };
        self.keys |= 1 << key;
        self.told.push((key, bar));
    }
}

/// A [`MapStore`] that notes what is done to it.
#[derive(Debug)]
pub struct Watched {
    inner: Arc<MapStore>,
    settings: StoreSettings,
    touched: Mutex<Touched>,
}

impl Watched {
    /// What was done since the last call; `None` for nothing.
    pub fn take_touched(&self) -> Option<Touched> {
        let touched = &mut *self.touched.lock();
        (touched.keys != 0).then(|| std::mem::take(touched))
    }

    /// What a node shows of a key. No use of it is counted.
    pub fn shown(&self, key: usize) -> Shown {
        let text = key::text(key).as_bytes();
        let record = self.inner.record(text, 0);
        let held = record.and_then(|Record { stamp, op, .. }| match op {
            Op::Put(value) => {
                Some(Held { stamp, bytes: value.bytes, left_ms: value.ttl.map(|ttl| ttl.left_ms) })
            }
            _ => None,
        });
        Shown { key, bar: self.inner.bar(text), held }
    }

    /// A change after which any key may be different.
    fn touch_all(&self) {
        self.touched.lock().keys = u32::MAX;
    }

    /// A key may be different; any, where the store is at a bound and had to forget another.
    fn tell(&self, key: Option<usize>, bar: Bar) {
        let (entries, graves) = self.inner.sizes();
        self.touched.lock().tell(key, bar);
        if entries >= self.settings.capacity || graves >= self.settings.graves_max {
            self.touch_all();
        }
    }

    fn tell_clear(&self, namespace: &[u8], stamp: Stamp) {
        let mut touched = self.touched.lock();
        key::within(namespace).for_each(|key| touched.tell(Some(key), Bar::above(stamp)));
    }
}

/// What a change tells of its key.
fn told_by(op: &Op, stamp: Stamp) -> Bar {
    match op {
        Op::Put(_) => Bar::at(stamp),
        _ => Bar::above(stamp),
    }
}

impl SimStore for Watched {
    fn open(settings: &StoreSettings, outbox: Arc<Outbox>, now: Now) -> Arc<Self> {
        let inner = MapStore::open(settings, outbox, now);
        Arc::new(Self { inner, settings: *settings, touched: Mutex::default() })
    }

    fn set_now(&self, now: Now) {
        let before = self.inner.sizes();
        self.inner.set_now(now);
        if self.inner.sizes() != before {
            self.touch_all();
        }
    }

    fn write(&self, key: &[u8], op: Op) -> Stamp {
        let is_put = matches!(op, Op::Put(_));
        let stamp = self.inner.write(key, op);
        self.tell(key::number(key), if is_put { Bar::at(stamp) } else { Bar::above(stamp) });
        stamp
    }

    fn clear_local(&self, namespace: &[u8]) -> Option<Stamp> {
        let stamp = self.inner.clear_local(namespace)?;
        self.tell_clear(namespace, stamp);
        Some(stamp)
    }

    fn get(&self, key: &[u8]) -> Option<Held> {
        self.inner.get(key)
    }

    fn contents(&self) -> BTreeMap<Bytes, Stamp> {
        self.inner.contents()
    }

    fn bar(&self, key: &[u8]) -> Bar {
        self.inner.bar(key)
    }

    fn sizes(&self) -> (usize, usize) {
        self.inner.sizes()
    }
}

impl Store for Watched {
    fn merge(&self, record: &Record, left: Option<Duration>) -> Merged {
        let merged = self.inner.merge(record, left);
        self.tell(key::number(&record.key), told_by(&record.op, record.stamp));
        merged
    }

    fn clear(&self, namespace: &[u8], stamp: Stamp) -> Merged {
        let merged = self.inner.clear(namespace, stamp);
        self.tell_clear(namespace, stamp);
        merged
    }

    fn bury(&self, grave: Grave) -> Merged {
        let merged = self.inner.bury(grave);
        self.tell(key::at(grave.position), grave.bar);
        merged
    }

    fn page(&self, position: u64, budget_bytes: usize, mono_ms: u64) -> StorePage {
        self.inner.page(position, budget_bytes, mono_ms)
    }

    fn cleared(&self) -> Vec<(Bytes, Stamp)> {
        self.inner.cleared()
    }

    fn sweep(&self, lo: u64, hi: Option<u64>, below: Bar, keep: &dyn Fn(u64) -> bool) -> usize {
        self.touch_all();
        self.inner.sweep(lo, hi, below, keep)
    }

    fn cover(&self, end: u64, bar: Bar) {
        self.touch_all();
        self.inner.cover(end, bar);
    }

    fn raise_floor(&self, bar: Bar) {
        self.touch_all();
        self.inner.raise_floor(bar);
    }

    fn samples(&self, position: u64, limit: usize) -> Samples {
        self.inner.samples(position, limit)
    }

    fn known(&self, position: u64) -> Known {
        self.inner.known(position)
    }

    fn at(&self, position: u64, mono_ms: u64) -> Vec<Record> {
        self.inner.at(position, mono_ms)
    }

    fn hottest(&self, budget_bytes: usize, mono_ms: u64) -> Vec<Record> {
        self.inner.hottest(budget_bytes, mono_ms)
    }

    fn record(&self, key: &[u8], mono_ms: u64) -> Option<Record> {
        self.inner.record(key, mono_ms)
    }

    fn reissue(&self, key: &[u8], stamp: Stamp, now: Now) -> bool {
        let is_current = self.inner.reissue(key, stamp, now);
        if let (true, Some(number)) = (is_current, key::number(key)) {
            let after = self.inner.record(key, now.mono_ms).map_or(stamp, |record| record.stamp);
            self.tell(Some(number), Bar::at(after));
            self.touched.lock().reissued.push((number, stamp, after));
        }
        is_current
    }
}
