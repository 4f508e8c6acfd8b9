//! A plain store: one lock, exact LRU, simulated time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Held, SimStore, StoreSettings};
use crate::{
    message::{Bar, Grave},
    record::{Change, Op, Record, Ttl, Value},
    replica::{Barriers, Guard, Known, Merged, Now, Outbox, Samples, Store, StorePage, judge},
    stamp::Stamp,
    wire::{self, KeyHasher},
};

/// The store of a simulated node unless another is named: live records and graves behind one lock.
#[derive(Debug)]
pub struct MapStore {
    positions: KeyHasher,
    barriers: Barriers,
    capacity: usize,
    outbox: Arc<Outbox>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    now: Now,
    live: BTreeMap<u64, Entry>,
    /// When lives end, with the position of each.
    deadlines: BTreeSet<(u64, u64)>,
    /// The positions by the number of their last use, the coldest first.
    recency: BTreeMap<u64, u64>,
    guard: Guard,
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    key: Bytes,
    stamp: Stamp,
    value: Value,
    deadline_ms: Option<u64>,
    used: u64,
}

impl Inner {
    fn insert(&mut self, position: u64, record: &Record, value: &Value, deadline_ms: Option<u64>) {
        self.take(position);
        self.uses += 1;
        self.recency.insert(self.uses, position);
        self.deadlines.extend(deadline_ms.map(|deadline_ms| (deadline_ms, position)));
        let (key, stamp) = (record.key.clone(), record.stamp);
        let entry = Entry { key, stamp, value: value.clone(), deadline_ms, used: self.uses };
        self.live.insert(position, entry);
        self.guard.lift(position);
    }

    fn take(&mut self, position: u64) -> Option<Entry> {
        let entry = self.live.remove(&position)?;
        self.recency.remove(&entry.used);
        if let Some(deadline_ms) = entry.deadline_ms {
            self.deadlines.remove(&(deadline_ms, position));
        }
        Some(entry)
    }

    fn evict(&mut self, position: u64) {
        if let Some(entry) = self.take(position) {
            self.guard.evicted(position, entry.stamp);
        }
    }
}

impl SimStore for MapStore {
    fn open(settings: &StoreSettings, outbox: Arc<Outbox>, now: Now) -> Arc<Self> {
        let guard = Guard::new(settings.graves_max).with_rules(settings.rules);
        let (live, deadlines, recency, uses) = Default::default();
        Arc::new(Self {
            positions: KeyHasher::new("geocache"),
            barriers: Barriers::new(),
            capacity: settings.capacity,
            outbox,
            inner: Mutex::new(Inner { now, live, deadlines, recency, guard, uses }),
        })
    }

    fn set_now(&self, now: Now) {
        let inner = &mut *self.inner.lock();
        inner.now = now;
        while let Some(&(_, position)) = inner.deadlines.first().filter(|(at_ms, _)| *at_ms <= now.mono_ms) {
            if let Some(entry) = inner.take(position) {
                inner.guard.expired(position, entry.stamp);
            }
        }
    }

    fn write(&self, key: &[u8], op: Op) -> Stamp {
        let mut inner = self.inner.lock();
        self.write_locked(&mut inner, key, op)
    }

    fn clear_local(&self, namespace: &[u8]) -> Option<Stamp> {
        let wall_ms = self.inner.lock().now.wall_ms;
        let mut issued = None;
        let issue = || {
            let stamp = self.outbox.issue(wall_ms, namespace, Change::Clear, None);
            *issued.insert(stamp)
        };
        let is_news = self.barriers.raise_with(namespace, issue);
        issued.filter(|_| is_news)
    }

    fn get(&self, key: &[u8]) -> Option<Held> {
        let position = self.positions.position(key);
        let inner = &mut *self.inner.lock();
        inner.uses += 1;
        let now_ms = inner.now.mono_ms;
        let entry = inner.live.get_mut(&position)?;
        inner.recency.remove(&entry.used);
        inner.recency.insert(inner.uses, position);
        entry.used = inner.uses;
        let left_ms = entry.deadline_ms.map(|at| at.saturating_sub(now_ms));
        let is_hidden = self.barriers.hides(key, entry.stamp);
        (!is_hidden).then(|| Held { stamp: entry.stamp, bytes: entry.value.bytes.clone(), left_ms })
    }

    fn contents(&self) -> BTreeMap<Bytes, Stamp> {
        let inner = self.inner.lock();
        let visible = inner.live.values().filter(|entry| self.is_visible(entry));
        visible.map(|entry| (entry.key.clone(), entry.stamp)).collect()
    }

    fn bar(&self, key: &[u8]) -> Bar {
        let position = self.positions.position(key);
        let inner = self.inner.lock();
        let live = inner.live.get(&position).map(|entry| entry.stamp);
        self.with_barrier(key, inner.guard.bar(position, live))
    }

    fn sizes(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.live.len(), inner.guard.len())
    }
}

impl MapStore {
    fn write_locked(&self, inner: &mut Inner, key: &[u8], op: Op) -> Stamp {
        let key = Bytes::copy_from_slice(key);
        let position = self.positions.position(&key);
        let (left, op) = match op {
            Op::Put(value) => {
                let ttl = value.ttl.map(|ttl| Ttl { born_ms: inner.now.mono_ms, ..ttl });
                (ttl.map(|ttl| Duration::from_millis(ttl.left_ms)), Op::Put(Value { ttl, ..value }))
            }
            other => (None, other),
        };
        let stamp = self.outbox.issue(inner.now.wall_ms, &key, op.change(), None);
        let live = inner.live.get(&position).map(|entry| entry.stamp);
        let bar = self.with_barrier(&key, inner.guard.bar(position, live));
        assert!(bar.admits(stamp), "a local write is above every bar: {stamp} of {key:?} is below {bar:?}");
        self.apply(inner, position, &Record { stamp, key, op, previous: None }, left);
        stamp
    }

    fn is_visible(&self, entry: &Entry) -> bool {
        !self.barriers.hides(&entry.key, entry.stamp)
    }

    fn with_barrier(&self, key: &[u8], bar: Bar) -> Bar {
        self.barriers.over(key).map_or(bar, |stamp| bar.max(Bar::above(stamp)))
    }

    fn apply(&self, inner: &mut Inner, position: u64, record: &Record, left: Option<Duration>) {
        match &record.op {
            Op::Put(value) if left != Some(Duration::ZERO) => {
                let deadline_ms = left.map(|left| inner.now.mono_ms.saturating_add(left.as_millis() as u64));
                inner.insert(position, record, value, deadline_ms);
            }
            _ => {
                inner.take(position);
                inner.guard.bury(position, Bar::above(record.stamp));
            }
        }
        while inner.live.len() > self.capacity {
            let Some((_, &coldest)) = inner.recency.first_key_value() else { break };
            inner.evict(coldest);
        }
    }

    fn record_of(&self, inner: &Inner, entry: &Entry, mono_ms: u64) -> Record {
        let ttl = entry
            .deadline_ms
            .map(|at| Ttl { left_ms: at.saturating_sub(inner.now.mono_ms), born_ms: mono_ms });
        let op = Op::Put(Value { ttl, ..entry.value.clone() });
        Record { stamp: entry.stamp, key: entry.key.clone(), op, previous: None }
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

    fn bury(&self, grave: Grave) -> Merged {
        let mut inner = self.inner.lock();
        match inner.live.get(&grave.position).map(|entry| entry.stamp) {
            Some(stamp) if grave.bar.admits(stamp) => Merged::Older,
            Some(_) => {
                inner.take(grave.position);
                inner.guard.bury(grave.position, grave.bar);
                Merged::Applied
            }
            None => {
                inner.guard.learn(grave.position, grave.bar);
                Merged::Older
            }
        }
    }

    fn page(&self, position: u64, budget_bytes: usize, mono_ms: u64) -> StorePage {
        let inner = self.inner.lock();
        let mut page = StorePage { graves: inner.guard.graves_in(position, None), ..StorePage::default() };
        page.floor = inner.guard.floor(position);
        let mut bytes = 0;
        for (&position, entry) in inner.live.range(position..) {
            // Past the budget one more would be cut away again.
            if bytes > budget_bytes && page.records.len() > 1 {
                page.graves.retain(|grave| grave.position < position);
                page.hi = Some(position);
                break;
            }
            let record = self.record_of(&inner, entry, mono_ms);
            bytes += wire::record_bytes_max(&record);
            page.records.push(record);
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
            inner.evict(position);
        }
        unlisted.len()
    }

    fn cover(&self, end: u64, bar: Bar) {
        self.inner.lock().guard.cover(end, bar);
    }

    fn raise_floor(&self, bar: Bar) {
        self.inner.lock().guard.raise_floor(bar);
    }

    fn samples(&self, position: u64, limit: usize) -> Samples {
        let inner = self.inner.lock();
        let mut range = inner.live.range(position..);
        let taken = range.by_ref().take(limit.max(1));
        let live = taken.filter(|(_, entry)| self.is_visible(entry)).map(|(at, entry)| (*at, entry.stamp));
        let live = live.collect();
        Samples { hi: range.next().map(|(position, _)| *position), live }
    }

    fn known(&self, position: u64) -> Known {
        let inner = self.inner.lock();
        let entry = inner.live.get(&position);
        let live = entry.filter(|entry| self.is_visible(entry)).map(|entry| entry.stamp);
        let bar = inner.guard.bar(position, entry.map(|entry| entry.stamp));
        let bar = entry.map_or(bar, |entry| self.with_barrier(&entry.key, bar));
        Known { live, grave: inner.guard.grave(position).filter(|_| entry.is_none()), bar }
    }

    fn at(&self, position: u64, mono_ms: u64) -> Vec<Record> {
        let inner = self.inner.lock();
        let entry = inner.live.get(&position).filter(|entry| self.is_visible(entry));
        entry.map(|entry| self.record_of(&inner, entry, mono_ms)).into_iter().collect()
    }

    fn hottest(&self, budget_bytes: usize, mono_ms: u64) -> Vec<Record> {
        let inner = self.inner.lock();
        let live = inner.recency.values().rev().filter_map(|position| inner.live.get(position));
        let visible = live.filter(|entry| self.is_visible(entry));
        let mut bytes = 0;
        let records = visible.map(|entry| self.record_of(&inner, entry, mono_ms));
        let within = records.take_while(|record| {
            bytes += wire::record_bytes_max(record);
            bytes <= budget_bytes
        });
        within.collect()
    }

    fn record(&self, key: &[u8], mono_ms: u64) -> Option<Record> {
        let inner = self.inner.lock();
        let entry = inner.live.get(&self.positions.position(key)).filter(|entry| self.is_visible(entry))?;
        Some(self.record_of(&inner, entry, mono_ms))
    }

    fn reissue(&self, key: &[u8], stamp: Stamp, now: Now) -> bool {
        let position = self.positions.position(key);
        let mut inner = self.inner.lock();
        let entry = inner.live.get(&position).filter(|entry| entry.stamp == stamp && self.is_visible(entry));
        let Some(record) = entry.map(|entry| self.record_of(&inner, entry, now.mono_ms)) else {
            return false;
        };
        self.write_locked(&mut inner, key, record.op);
        true
    }
}
