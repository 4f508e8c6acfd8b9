//! Clear barriers: a whole namespace is gone up to a stamp, in one record.
//!
//! A clear costs one record whatever the cache holds. It is checked on read and on merge; the entries behind it are
//! reclaimed lazily by the store. A namespace is a key prefix; the empty one is the whole cache.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;

use crate::stamp::Stamp;

/// How many namespaces may have a barrier of their own.
pub const NAMESPACES_MAX: usize = 16;

/// The newest clear of each namespace. Shared between threads; costs one atomic load while it hides nothing.
#[derive(Debug, Default)]
pub struct Barriers {
    /// The highest clock of any barrier: an entry above it needs no look at the list.
    newest_hlc: AtomicU64,
    list: RwLock<Vec<(Bytes, Stamp)>>,
    folded: AtomicU64,
}

impl Barriers {
    /// No barrier.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything in `namespace` stamped at or below `stamp` is gone. Returns whether that is news.
    ///
    /// At [`NAMESPACES_MAX`] namespaces the lowest barrier becomes one of the whole cache: more is forgotten than was
    /// asked, which is a miss, never a stale value.
    pub fn raise(&self, namespace: &[u8], stamp: Stamp) -> bool {
        self.raise_with(namespace, || stamp)
    }

    /// As [`raise`](Self::raise), with a stamp that is taken while no one can read the barriers: whoever has seen a
    /// record of the clear finds its barrier there.
    pub fn raise_with(&self, namespace: &[u8], stamp: impl FnOnce() -> Stamp) -> bool {
        let mut list = self.list.write();
        let stamp = stamp();
        let raised = match list.iter_mut().find(|(held, _)| held == namespace) {
            Some((_, held)) if *held >= stamp => false,
            Some((_, held)) => {
                *held = stamp;
                true
            }
            None => {
                list.push((Bytes::copy_from_slice(namespace), stamp));
                self.folded.fetch_add(u64::from(fold_over_bound(&mut list)), Ordering::Relaxed);
                true
            }
        };
        self.newest_hlc.fetch_max(stamp.hlc.0, Ordering::AcqRel);
        raised
    }

    /// The highest barrier over a key.
    pub fn over(&self, key: &[u8]) -> Option<Stamp> {
        if self.newest_hlc.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.list
            .read()
            .iter()
            // Empty first: a comparison of no bytes at the place of none is slow, a masked load from a bad address.
            .filter(|(namespace, _)| namespace.is_empty() || key.starts_with(namespace))
            .map(|(_, stamp)| *stamp)
            .max()
    }

    /// Whether an entry of this stamp is behind a barrier.
    pub fn hides(&self, key: &[u8], stamp: Stamp) -> bool {
        stamp.hlc.0 <= self.newest_hlc.load(Ordering::Acquire)
            && self.over(key).is_some_and(|bar| stamp <= bar)
    }

    /// How often a barrier became one of the whole cache, at the bound.
    pub fn folded(&self) -> u64 {
        self.folded.load(Ordering::Relaxed)
    }

    /// All barriers.
    pub fn all(&self) -> Vec<(Bytes, Stamp)> {
        self.list.read().clone()
    }
}

fn fold_over_bound(list: &mut Vec<(Bytes, Stamp)>) -> bool {
    // One place more than the bound is for the whole cache itself.
    let named = list.iter().filter(|(namespace, _)| !namespace.is_empty()).count();
    if named <= NAMESPACES_MAX {
        return false;
    }
    let lowest = list.iter().enumerate().filter(|(_, (namespace, _))| !namespace.is_empty());
    let Some((index, _)) = lowest.min_by_key(|(_, (_, stamp))| *stamp) else { return false };
    let (_, stamp) = list.swap_remove(index);
    match list.iter_mut().find(|(namespace, _)| namespace.is_empty()) {
        Some((_, held)) => *held = stamp.max(*held),
        None => list.push((Bytes::new(), stamp)),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{node::Origin, stamp::Hlc};

    fn stamp(ms: u64) -> Stamp {
        Stamp { hlc: Hlc::from_ms(ms), origin: Origin(1) }
    }

    #[test]
    fn a_barrier_hides_its_namespace_up_to_its_stamp() {
        let barriers = Barriers::new();
        assert!(barriers.raise(b"user:", stamp(5)));
        assert!(barriers.hides(b"user:1", stamp(5)));
        assert!(!barriers.hides(b"user:1", stamp(6)));
        assert!(!barriers.hides(b"order:1", stamp(1)));
        assert!(!barriers.raise(b"user:", stamp(4)), "an older clear is no news");
    }

    #[test]
    fn over_the_bound_the_lowest_barrier_covers_everything() {
        let barriers = Barriers::new();
        for n in 0..=NAMESPACES_MAX as u64 {
            barriers.raise(format!("n{n:02}:").as_bytes(), stamp(10 + n));
        }
        assert_eq!(barriers.all().len(), NAMESPACES_MAX + 1);
        assert!(barriers.hides(b"n00:x", stamp(10)), "the folded barrier still hides what it hid");
        assert!(barriers.hides(b"other", stamp(10)));
        assert!(!barriers.hides(b"other", stamp(11)));
    }
}
