//! A plain store for tests: one lock, exact LRU, virtual time.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Barriers, Guard, Merged, Outbox, Store, StorePage, judge};
use crate::{
    message::{Bar, Grave},
    record::{Op, Record, Ttl, Value},
    stamp::Stamp,
    wire::KeyHasher,
};

/// Live records and graves behind one lock.
pub(crate) struct MapStore {
    now_ms: AtomicU64,
    positions: KeyHasher,
    barriers: Barriers,
    capacity: usize,
    inner: Mutex<Inner>,
}

struct Inner {
    live: BTreeMap<u64, Entry>,
    guard: Guard,
    uses: u64,
}

struct Entry {
    key: Bytes,
    stamp: Stamp,
    value: Value,
    deadline_ms: Option<u64>,
    used: u64,
}

impl MapStore {
    pub(crate) fn new(capacity: usize, graves_max: usize) -> Self {
        Self {
            now_ms: AtomicU64::new(0),
            positions: KeyHasher::new("geocache"),
            barriers: Barriers::new(),
            capacity,
            inner: Mutex::new(Inner { live: BTreeMap::new(), guard: Guard::new(graves_max), uses: 0 }),
        }
    }

    /// Lets time pass; what expires leaves a strict grave.
    pub(crate) fn set_now(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
        let inner = &mut *self.inner.lock();
        let dead: Vec<u64> = inner
            .live
            .iter()
            .filter(|(_, entry)| entry.deadline_ms.is_some_and(|deadline| deadline <= now_ms))
            .map(|(position, _)| *position)
            .collect();
        for position in dead {
            if let Some(entry) = inner.live.remove(&position) {
                inner.guard.bury(position, Bar::above(entry.stamp));
            }
        }
    }

    pub(crate) fn write(&self, outbox: &Outbox, wall_ms: u64, key: &str, op: Op) -> Stamp {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let position = self.positions.position(&key);
        let mut inner = self.inner.lock();
        let stamp = outbox.issue(wall_ms, key.clone(), op.clone(), None);
        let live = inner.live.get(&position).map(|entry| entry.stamp);
        assert!(inner.guard.bar(position, live).admits(stamp), "a local write is above every bar");
        let left = match &op {
            Op::Put(value) => value.ttl.map(|ttl| Duration::from_millis(ttl.left_ms)),
            _ => None,
        };
        self.apply(&mut inner, position, &Record { stamp, key, op, previous: None }, left);
        stamp
    }

    pub(crate) fn clear_local(&self, outbox: &Outbox, wall_ms: u64) -> bool {
        self.barriers.raise_with(b"", || outbox.issue(wall_ms, Bytes::new(), Op::Clear, None))
    }

    pub(crate) fn get(&self, key: &str) -> Option<(Stamp, Bytes)> {
        let position = self.positions.position(key.as_bytes());
        let inner = &mut *self.inner.lock();
        inner.uses += 1;
        let entry = inner.live.get_mut(&position)?;
        entry.used = inner.uses;
        let hidden = self.barriers.hides(key.as_bytes(), entry.stamp);
        (!hidden).then(|| (entry.stamp, entry.value.bytes.clone()))
    }

    /// All that is visible.
    pub(crate) fn contents(&self) -> BTreeMap<Bytes, Stamp> {
        let inner = self.inner.lock();
        let visible = inner.live.values().filter(|entry| !self.barriers.hides(&entry.key, entry.stamp));
        visible.map(|entry| (entry.key.clone(), entry.stamp)).collect()
    }

    /// The bar of a key, for the invariant that it never goes down.
    pub(crate) fn bar(&self, key: &str) -> Bar {
        let position = self.positions.position(key.as_bytes());
        let inner = self.inner.lock();
        let live = inner.live.get(&position).map(|entry| entry.stamp);
        self.with_barrier(key.as_bytes(), inner.guard.bar(position, live))
    }

    fn with_barrier(&self, key: &[u8], bar: Bar) -> Bar {
        self.barriers.over(key).map_or(bar, |stamp| bar.max(Bar::above(stamp)))
    }

    fn apply(&self, inner: &mut Inner, position: u64, record: &Record, left: Option<Duration>) {
        let now_ms = self.now_ms.load(Ordering::Relaxed);
        inner.uses += 1;
        match &record.op {
            Op::Put(value) if left != Some(Duration::ZERO) => {
                let deadline_ms = left.map(|left| now_ms.saturating_add(left.as_millis() as u64));
                let entry = Entry {
                    key: record.key.clone(),
                    stamp: record.stamp,
                    value: value.clone(),
                    deadline_ms,
                    used: inner.uses,
                };
                inner.live.insert(position, entry);
                inner.guard.lift(position);
            }
            _ => {
                inner.live.remove(&position);
                inner.guard.bury(position, Bar::above(record.stamp));
            }
        }
        while inner.live.len() > self.capacity {
            let coldest =
                inner.live.iter().min_by_key(|(_, entry)| entry.used).map(|(position, _)| *position);
            let Some(position) = coldest else { break };
            if let Some(entry) = inner.live.remove(&position) {
                inner.guard.bury(position, Bar::at(entry.stamp));
            }
        }
    }
}

impl Store for MapStore {
    fn merge(&self, record: &Record, left: Option<Duration>) -> Merged {
        let position = self.positions.position(&record.key);
        let mut inner = self.inner.lock();
        let live = inner.live.get(&position).map(|entry| (entry.stamp, &entry.value.bytes));
        let bar = inner.guard.bar(position, live.map(|(stamp, _)| stamp));
        if !judge(record, live, self.with_barrier(&record.key, bar)) {
            return Merged::Older;
        }
        self.apply(&mut inner, position, record, left);
        Merged::Applied
    }

    fn clear(&self, namespace: &[u8], stamp: Stamp) -> Merged {
        if self.barriers.raise(namespace, stamp) { Merged::Applied } else { Merged::Older }
    }

    fn bury(&self, grave: Grave) {
        let mut inner = self.inner.lock();
        match inner.live.get(&grave.position).map(|entry| entry.stamp) {
            Some(stamp) if grave.bar.admits(stamp) => {}
            Some(_) => {
                inner.live.remove(&grave.position);
                inner.guard.bury(grave.position, grave.bar);
            }
            None => inner.guard.learn(grave.position, grave.bar),
        }
    }

    fn page(&self, position: u64, budget_bytes: usize, wall_ms: u64) -> StorePage {
        let now_ms = self.now_ms.load(Ordering::Relaxed);
        let inner = self.inner.lock();
        let mut page = StorePage { graves: inner.guard.graves_in(position, None), ..StorePage::default() };
        page.floor = inner.guard.floor(position);
        for (&position, entry) in inner.live.range(position..) {
            let ttl =
                entry.deadline_ms.map(|at| Ttl { left_ms: at.saturating_sub(now_ms), born_ms: wall_ms });
            let op = Op::Put(Value { ttl, ..entry.value.clone() });
            page.records.push(Record { stamp: entry.stamp, key: entry.key.clone(), op, previous: None });
            page.positions.push(position);
        }
        page.within(budget_bytes)
    }

    fn cleared(&self) -> Vec<(Bytes, Stamp)> {
        self.barriers.all()
    }

    fn sweep(&self, lo: u64, hi: Option<u64>, below: Bar, keep: &dyn Fn(u64) -> bool) -> usize {
        let inner = &mut *self.inner.lock();
        let range = inner.live.range(lo..).take_while(|(position, _)| hi.is_none_or(|hi| **position < hi));
        let unlisted = range.filter(|(position, entry)| !below.admits(entry.stamp) && !keep(**position));
        let unlisted: Vec<u64> = unlisted.map(|(position, _)| *position).collect();
        for &position in &unlisted {
            if let Some(entry) = inner.live.remove(&position) {
                inner.guard.bury(position, Bar::at(entry.stamp));
            }
        }
        unlisted.len()
    }

    fn cover(&self, end: u64, bar: Bar) {
        self.inner.lock().guard.cover(end, bar);
    }

    fn raise_floor(&self, bar: Bar) {
        self.inner.lock().guard.raise_floor(bar);
    }
}
