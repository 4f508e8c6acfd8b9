//! What other nodes say: records merged, pages given and taken, ranges swept.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cache_core::{ScanPage, Verdict};
use replication::{
    Op, Record, Stamp, Ttl, Value,
    message::{Bar, Grave},
    replica::{Known, Merged, Now, Samples, Store, StorePage, judge},
    wire,
};

use super::{NodeStore, Shard, expiry, whole_ms};
use crate::value::Stored;

/// Entries looked at under one hold of a shard's lock.
pub(super) const PAGE_ENTRIES: usize = 1024;

/// No record takes less of a page's budget than this.
const RECORD_BYTES_LEAST: usize = 64;

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
            if live.is_none() {
                shard.guard.lift(slot.position);
            }
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
        self.cache.at(grave.position, |place, shard| {
            if place.is_vacant() {
                shard.guard.learn(grave.position, grave.bar);
                return Merged::Older;
            }
            let mut merged = Merged::Older;
            place.retain(|item| {
                let stays = grave.bar.admits(item.value.stamp);
                if !stays {
                    shard.guard.bury(grave.position, grave.bar);
                    merged = Merged::Applied;
                }
                stays
            });
            merged
        })
    }

    fn page(&self, position: u64, budget_bytes: usize, mono_ms: u64) -> StorePage {
        let entries = (budget_bytes / RECORD_BYTES_LEAST).clamp(1, PAGE_ENTRIES);
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
            next = self.cache.retain(position, PAGE_ENTRIES, |item, shard| {
                let stamp = item.value.stamp;
                let stays = !within(item.position) || below.admits(stamp) || keep(item.position);
                if !stays {
                    shard.guard.evicted(item.position, stamp);
                    swept += 1;
                }
                stays
            });
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
        self.cache.at(position, |place, shard| {
            if place.is_vacant() {
                let (grave, bar) = (shard.guard.grave(position), shard.guard.bar(position, None));
                return Known { live: None, grave, bar };
            }
            let mut known = Known::default();
            for item in place.iter() {
                known.bar = known.bar.max(shard.bar(position, item.key, Some(item.value)));
                if self.is_visible(item.key, item.value) {
                    known.live = known.live.max(Some(item.value.stamp));
                }
            }
            known
        })
    }

    fn at(&self, position: u64, mono_ms: u64) -> Vec<Record> {
        self.cache.at(position, |place, _| {
            let visible = place.iter().filter(|item| self.is_visible(item.key, item.value));
            visible.map(|item| record(item.key, item.value, item.left, mono_ms)).collect()
        })
    }

    fn hottest(&self, budget_bytes: usize, mono_ms: u64) -> Vec<Record> {
        let hottest = self.cache.hottest(budget_bytes / RECORD_BYTES_LEAST, |item| {
            let is_visible = self.is_visible(item.key, item.value);
            is_visible.then(|| record(item.key, item.value, item.left, mono_ms))
        });
        let mut bytes = 0;
        let fits = |record: &Record| {
            let more = wire::record_bytes_max(record);
            let fits = bytes + more <= budget_bytes;
            bytes += if fits { more } else { 0 };
            fits
        };
        hottest.into_iter().filter(fits).collect()
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
    /// Walks live records and graves side by side, in position order, until the budget is spent. A position is never
    /// split over two pages.
    fn lay_page(
        &self,
        page: &ScanPage<'_, Bytes, Arc<Stored>>,
        shard: &Shard,
        budget_bytes: usize,
        mono_ms: u64,
    ) -> StorePage {
        let is_within = |grave: &Grave| page.next.is_none_or(|next| grave.position < next);
        let mut buried = shard.guard.graves_from(page.lo).take_while(is_within).peekable();
        let mut items = page.items.iter().peekable();
        let mut laid = StorePage { hi: page.next, floor: shard.guard.floor(page.lo), ..StorePage::default() };
        let mut bytes = 0;
        loop {
            let nearest = [items.peek().map(|item| item.position), buried.peek().map(|grave| grave.position)];
            let Some(position) = nearest.into_iter().flatten().min() else { return laid };
            let (records, graves, before) = (laid.records.len(), laid.graves.len(), bytes);
            while let Some(item) = items.next_if(|item| item.position == position) {
                if self.is_visible(item.key, item.value) {
                    let record = record(item.key, item.value, item.left, mono_ms);
                    bytes += wire::record_bytes_max(&record);
                    laid.records.push(record);
                    laid.positions.push(position);
                }
            }
            while let Some(grave) = buried.next_if(|grave| grave.position == position) {
                bytes += StorePage::GRAVE_BYTES;
                laid.graves.push(grave);
            }
            // A page always takes one position; with one more beside it, the longest value would fit no frame.
            if before > 0 && bytes > budget_bytes {
                laid.records.truncate(records);
                laid.positions.truncate(records);
                laid.graves.truncate(graves);
                laid.hi = Some(position);
                return laid;
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
