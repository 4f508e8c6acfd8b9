//! What other nodes say: records merged, pages given and taken, ranges swept.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cache_core::{ScanPage, Verdict};
use replication::{
    Op, Record, Stamp, Ttl, Value,
    message::{Bar, Grave},
    replica::{Known, Merged, Now, Samples, Store, StorePage, judge},
};

use super::{NodeStore, Shard, expiry, whole_ms};
use crate::value::Stored;

/// Entries looked at under one hold of a shard's lock.
const PAGE_ENTRIES: usize = 1024;

/// What a record and a grave take of a page's budget beside key and value.
const RECORD_BYTES: usize = 64;
const GRAVE_BYTES: usize = 24;

impl Store for NodeStore {
    fn merge(&self, record: &Record, left: Option<Duration>) -> Merged {
        // Copied before the lock is taken, and because a record's bytes are slices of its whole frame, which a kept
        // slice would keep in memory.
        let value = match &record.op {
            Op::Put(value) => Some(Value { bytes: Bytes::copy_from_slice(&value.bytes), ..value.clone() })
                .filter(|_| left != Some(Duration::ZERO)),
            Op::Remove => None,
            Op::Clear => return self.clear(&record.key, record.stamp),
            _ => return Merged::Older,
        };
        self.outbox.clock().observe(record.stamp.hlc);
        self.cache.upsert(&record.key[..], Bytes::copy_from_slice, |slot, shard| {
            let live = slot.value.map(|live| &**live);
            let bar = shard.bar(slot.position, &record.key, live);
            if !judge(record, live.map(|live| (live.stamp, &live.bytes)), bar) {
                return (Verdict::Keep, Merged::Older);
            }
            let Some(value) = value else {
                shard.guard.bury(slot.position, Bar::above(record.stamp));
                return (Verdict::Remove, Merged::Applied);
            };
            shard.guard.lift(slot.position);
            let stored = Stored::new(value, record.stamp, live);
            (Verdict::Replace(Arc::new(stored), expiry(left)), Merged::Applied)
        })
    }

    fn clear(&self, namespace: &[u8], stamp: Stamp) -> Merged {
        self.outbox.clock().observe(stamp.hlc);
        if !self.barriers.raise(namespace, stamp) {
            return Merged::Older;
        }
        self.start_reclaim();
        Merged::Applied
    }

    fn bury(&self, grave: Grave) -> Merged {
        self.outbox.clock().observe(grave.bar.stamp.hlc);
        let dead: Vec<Bytes> = self.cache.scan(grave.position, 1, |page, shard| {
            let here = page.items.iter().take_while(|item| item.position == grave.position);
            let mut live = here.peekable();
            if live.peek().is_none() {
                shard.guard.learn(grave.position, grave.bar);
            }
            live.filter(|item| !grave.bar.admits(item.value.stamp)).map(|item| item.key.clone()).collect()
        });
        let dropped = dead.iter().filter(|key| self.drop_below(key, grave.bar, grave.bar)).count();
        if dropped > 0 { Merged::Applied } else { Merged::Older }
    }

    fn page(&self, position: u64, budget_bytes: usize, mono_ms: u64) -> StorePage {
        let entries = (budget_bytes / RECORD_BYTES).clamp(1, PAGE_ENTRIES);
        self.cache.scan(position, entries, |page, shard| self.lay_page(&page, shard, budget_bytes, mono_ms))
    }

    fn cleared(&self) -> Vec<(Bytes, Stamp)> {
        self.barriers.all()
    }

    fn sweep(&self, lo: u64, hi: Option<u64>, below: Bar, keep: &dyn Fn(u64) -> bool) -> usize {
        let mut swept = 0;
        let within = |position: u64| hi.is_none_or(|hi| position < hi);
        let mut next = Some(lo);
        while let Some(position) = next.filter(|position| within(*position)) {
            let dead: Vec<Bytes>;
            (dead, next) = self.cache.scan(position, PAGE_ENTRIES, |page, _| {
                let below =
                    page.items.iter().filter(|item| within(item.position) && !below.admits(item.value.stamp));
                (below.filter(|item| !keep(item.position)).map(|item| item.key.clone()).collect(), page.next)
            });
            swept += dead.iter().filter(|key| self.sweep_one(key, below)).count();
        }
        swept
    }

    fn cover(&self, end: u64, bar: Bar) {
        self.outbox.clock().observe(bar.stamp.hlc);
        self.cache.with_sidecars(|shard| shard.guard.cover(end, bar));
    }

    fn raise_floor(&self, bar: Bar) {
        self.outbox.clock().observe(bar.stamp.hlc);
        self.cache.with_sidecars(|shard| shard.guard.raise_floor(bar));
    }

    fn samples(&self, position: u64, limit: usize) -> Samples {
        self.cache.scan(position, limit.clamp(1, PAGE_ENTRIES), |page, _| {
            let visible = page.items.iter().filter(|item| self.is_visible(item.key, item.value));
            let live = visible.map(|item| (item.position, item.value.stamp)).collect();
            Samples { hi: page.next, live }
        })
    }

    fn known(&self, position: u64) -> Known {
        self.cache.scan(position, 1, |page, shard| {
            let mut here = page.items.iter().take_while(|item| item.position == position).peekable();
            if here.peek().is_none() {
                let (grave, bar) = (shard.guard.grave(position), shard.guard.bar(position, None));
                return Known { live: None, grave, bar };
            }
            let mut known = Known::default();
            for item in here {
                known.bar = known.bar.max(shard.bar(position, item.key, Some(item.value)));
                if self.is_visible(item.key, item.value) {
                    known.live = known.live.max(Some(item.value.stamp));
                }
            }
            known
        })
    }

    fn at(&self, position: u64, mono_ms: u64) -> Vec<Record> {
        self.cache.scan(position, 1, |page, _| {
            let here = page.items.iter().take_while(|item| item.position == position);
            let visible = here.filter(|item| self.is_visible(item.key, item.value));
            visible.map(|item| record(item.key, item.value, item.left, mono_ms)).collect()
        })
    }

    fn hottest(&self, _budget_bytes: usize, _mono_ms: u64) -> Vec<Record> {
        Vec::new()
    }

    fn record(&self, key: &[u8], mono_ms: u64) -> Option<Record> {
        let (live, left) = self.peek(key)?;
        Some(record(&Bytes::copy_from_slice(key), &live, left, mono_ms))
    }

    fn reissue(&self, key: &[u8], stamp: Stamp, now: Now) -> bool {
        self.restamp(key, stamp, now.wall_ms)
    }
}

impl NodeStore {
    /// Drops a live record that is not admitted by `below`, leaving a grave at `bar`. It is judged anew, since it may
    /// have changed since it was found.
    fn drop_below(&self, key: &[u8], below: Bar, bar: Bar) -> bool {
        self.cache.upsert(key, Bytes::copy_from_slice, |slot, shard| {
            if slot.value.is_some_and(|live| below.admits(live.stamp)) {
                return (Verdict::Keep, false);
            }
            shard.guard.bury(slot.position, bar);
            (Verdict::Remove, slot.value.is_some())
        })
    }

    /// Drops a live record below a bar as if it had been evicted.
    fn sweep_one(&self, key: &[u8], below: Bar) -> bool {
        self.cache.upsert(key, Bytes::copy_from_slice, |slot, shard| match slot.value {
            Some(live) if !below.admits(live.stamp) => {
                shard.guard.evicted(slot.position, live.stamp);
                (Verdict::Remove, true)
            }
            _ => (Verdict::Keep, false),
        })
    }

    /// Walks live records and graves side by side, in position order, until the budget is spent. A position is never
    /// split over two pages.
    fn lay_page(
        &self,
        page: &ScanPage<'_, Bytes, Arc<Stored>>,
        shard: &Shard,
        budget_bytes: usize,
        mono_ms: u64,
    ) -> StorePage {
        let mut buried = shard.guard.graves_in(page.lo, page.next);
        buried.sort_unstable_by_key(|grave| grave.position);
        let mut buried = buried.into_iter().peekable();
        let mut items = page.items.iter().peekable();
        let mut laid = StorePage { hi: page.next, floor: shard.guard.floor(page.lo), ..StorePage::default() };
        let mut bytes = 0;
        loop {
            let nearest = [items.peek().map(|item| item.position), buried.peek().map(|grave| grave.position)];
            let Some(position) = nearest.into_iter().flatten().min() else { return laid };
            let here = items.clone().take_while(|item| item.position == position);
            let size: usize = here.map(|item| RECORD_BYTES + item.key.len() + item.value.bytes.len()).sum();
            // A page always takes one position; with one more beside it, the longest value would fit no frame.
            if bytes > 0 && bytes + size.max(GRAVE_BYTES) > budget_bytes {
                laid.hi = Some(position);
                return laid;
            }
            while let Some(item) = items.next_if(|item| item.position == position) {
                if self.is_visible(item.key, item.value) {
                    bytes += RECORD_BYTES + item.key.len() + item.value.bytes.len();
                    laid.records.push(record(item.key, item.value, item.left, mono_ms));
                    laid.positions.push(position);
                }
            }
            while let Some(grave) = buried.next_if(|grave| grave.position == position) {
                bytes += GRAVE_BYTES;
                laid.graves.push(grave);
            }
        }
    }
}

/// A live value as it travels: with what is left of its life.
fn record(key: &Bytes, stored: &Stored, left: Option<Duration>, mono_ms: u64) -> Record {
    let value = Value {
        bytes: stored.bytes.clone(),
        flags: stored.flags,
        codec: stored.codec.number(),
        cas: Some(stored.cas).filter(|cas| *cas != stored.stamp.hlc.0),
        ttl: left.map(|left| Ttl { left_ms: whole_ms(left), born_ms: mono_ms }),
    };
    Record { stamp: stored.stamp, key: key.clone(), op: Op::Put(value), previous: None }
}
