//! What other nodes say: records merged, pages given and taken, ranges swept.

use std::{hint::black_box, time::Duration};

use bytes::Bytes;
use cache_core::Verdict;
use replication::{
    Op, Record, Stamp, Value,
    message::{Bar, Grave},
    replica::{Known, Merged, Now, Samples, Store, StorePage, judge},
    wire,
};

use super::{
    Key, NodeStore, expiry,
    page::{PAGE_ENTRIES, RECORD_BYTES_LEAST, copied},
};
use crate::{
    events::Event,
    explain::What,
    value::{RENEWED_BYTES_MAX, Stored},
};

impl Store for NodeStore {
    fn merge(&self, record: &Record, left: Option<Duration>) -> Merged {
        let value = match &record.op {
            Op::Put(value) => Some(value).filter(|_| left != Some(Duration::ZERO)),
            Op::Remove => None,
            Op::Clear => return self.clear(&record.key, record.stamp),
            _ => return Merged::Older,
        };
        // Copying a long value would take too long under the lock.
        let long = value.filter(|value| value.bytes.len() > RENEWED_BYTES_MAX).map(unshared);
        self.outbox.clock().observe(record.stamp.hlc);
        self.cache.upsert(&record.key[..], Key::new, |mut slot, shard| {
            let live = slot.value.as_deref();
            let bar = shard.bar(slot.position, &record.key, live);
            if !judge(record, live.map(|live| (live.stamp, &live.bytes)), bar) {
                let live = live.map(|live| live.stamp);
                shard.note_ignored(slot.position, &record.key, live, record.stamp);
                return (Verdict::Keep, Merged::Older);
            }
            let what = if value.is_some() { What::Applied } else { What::RemovedElsewhere };
            shard.note(slot.position, what, record.stamp);
            let Some(value) = value else {
                if live.is_some_and(|live| self.is_visible(&record.key, live)) {
                    self.tell_change(&record.key, &Verdict::Remove, true);
                }
                shard.guard.bury(slot.position, Bar::above(record.stamp));
                return (Verdict::Remove, Merged::Applied);
            };
            let verdict = if shard.renew(&mut slot, value, record.stamp).is_some() {
                Verdict::UpdateRemote(expiry(left))
            } else {
                let value = long.unwrap_or_else(|| unshared(value));
                let stored = Stored::new(value, record.stamp, slot.value.as_deref());
                Verdict::ReplaceRemote(stored, expiry(left))
            };
            self.tell_change(&record.key, &verdict, true);
            (verdict, Merged::Applied)
        })
    }

    fn look_ahead(&self, records: &[Record]) {
        let keys = records.iter().map(|record| &record.key[..]);
        let mut met = 0;
        // The values' own bytes too: a value of the same length is written over in place.
        self.cache.look_ahead(keys, |live| {
            if let (Some(first), Some(last)) = (live.bytes.first(), live.bytes.last()) {
                met ^= first ^ last;
            }
        });
        black_box(met);
    }

    fn refused(&self, record: &Record) {
        if self.keeps_history && !matches!(record.op, Op::Clear) {
            self.cache.upsert(&record.key[..], Key::new, |slot, shard| {
                shard.note(slot.position, What::Drift, record.stamp);
                (Verdict::Keep, ())
            });
        }
    }

    fn clear(&self, namespace: &[u8], stamp: Stamp) -> Merged {
        self.outbox.clock().observe(stamp.hlc);
        if !self.barriers.raise(namespace, stamp) {
            return Merged::Older;
        }
        self.tell_clear(namespace, true);
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
                    if self.is_visible(item.key, item.value) {
                        self.tell_change(item.key, &Verdict::Remove, true);
                    }
                    shard.guard.bury(grave.position, grave.bar);
                    shard.note(grave.position, What::RemovedElsewhere, grave.bar.stamp);
                    merged = Merged::Applied;
                }
                stays
            });
            merged
        })
    }

    fn page(&self, position: u64, budget_bytes: usize, mono_ms: u64) -> StorePage {
        self.page_from(position, budget_bytes, mono_ms)
    }

    fn cleared(&self) -> Vec<(Bytes, Stamp)> {
        self.barriers.all()
    }

    fn sweep(&self, lo: u64, hi: Option<u64>, below: Bar, keep: &dyn Fn(u64) -> bool) -> usize {
        if below.admits(Stamp::ZERO) {
            return 0; // The peer has forgotten nothing, so nothing is below its floor.
        }
        let mut swept = 0;
        let within = |position: u64| hi.is_none_or(|hi| position < hi);
        let mut next = Some(lo);
        while let Some(position) = next.filter(|position| within(*position)) {
            next = self.cache.retain_page(position, PAGE_ENTRIES, |item, shard| {
                let stamp = item.value.stamp;
                let stays = !within(item.position) || below.admits(stamp) || keep(item.position);
                if !stays {
                    shard.guard.evicted(item.position, stamp);
                    shard.note(item.position, What::Swept, stamp);
                    if self.is_visible(item.key, item.value) {
                        self.bell().tell(|| Event::Evicted { key: Bytes::copy_from_slice(item.key) });
                    }
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
            visible.map(|item| copied(item.key, item.value, item.left, mono_ms)).collect()
        })
    }

    fn hottest(&self, budget_bytes: usize, mono_ms: u64) -> Vec<Record> {
        let hottest = self.cache.hottest(budget_bytes / RECORD_BYTES_LEAST, |item| {
            let is_visible = self.is_visible(item.key, item.value);
            is_visible.then(|| copied(item.key, item.value, item.left, mono_ms))
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
        self.peek(key, |live, left| copied(key, live, left, mono_ms))
    }

    fn reissue(&self, key: &[u8], stamp: Stamp, now: Now) -> bool {
        self.restamp(key, stamp, now.wall_ms)
    }
}

/// The value with bytes of its own: a record's are slices of its frame, and one that is kept would keep the whole frame.
fn unshared(value: &Value) -> Value {
    let &Value { ref bytes, flags, codec, cas, ttl } = value;
    Value { bytes: Bytes::copy_from_slice(bytes), flags, codec, cas, ttl }
}
