//! What one side has missed, until it is told.
//!
//! A journal holds, per key, the last write or the remove that a side did not take: an outage costs what changed, not
//! what happened. It is bounded in entries and in bytes; past either it *overflows*: it drops what it holds, since a
//! part of the changes is worth nothing, and says so, and only a resync of everything mends that. A queue that drops
//! its oldest entry was rejected for that reason.
//!
//! Draining leaves an entry in place until it was applied: the key stays known as missed while its replay is under
//! way, and a drain that is cancelled loses nothing. An entry that was replaced meanwhile is not taken out by the
//! answer to the older one.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use crate::{breaker::ConfigError, setting::Check};

/// What a side missed of one key.
///
/// ```
/// use resilience::Missed;
/// assert_ne!(Missed::Write(1), Missed::Remove);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed<V> {
    /// The key was written; this is its newest value.
    Write(V),
    /// The key was removed.
    Remove,
}

/// The journal could not keep all that was missed; only a resync of everything mends that.
///
/// ```
/// use resilience::{Journal, Missed};
/// let mut journal = Journal::bounded(1, 100)?;
/// assert!(journal.record("a", Missed::Write(1), 10).is_ok());
/// let overflow = journal.record("b", Missed::Write(2), 10).unwrap_err();
/// assert_eq!(overflow.to_string(), "the journal overflowed; resync everything");
/// # Ok::<(), resilience::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal overflowed; resync everything")]
#[non_exhaustive]
pub struct Overflowed;

/// One entry to be applied, as [`Journal::first`] gives it.
///
/// ```
/// use resilience::{Journal, Missed};
/// let mut journal = Journal::bounded(10, 1_000)?;
/// journal.record("k", Missed::<u32>::Remove, 1).unwrap();
/// let entry = &journal.first(1)[0];
/// assert_eq!((entry.key, entry.missed), ("k", Missed::Remove));
/// # Ok::<(), resilience::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry<K, V> {
    /// The key.
    pub key: K,
    /// What was missed of it.
    pub missed: Missed<V>,
    /// Hand it to [`Journal::applied`] when the side has taken the entry.
    pub mark: Mark,
}

/// Which recording an [`Entry`] is of.
///
/// ```
/// use resilience::{Journal, Missed};
/// let mut journal = Journal::bounded(10, 1_000)?;
/// journal.record("k", Missed::Write(1), 1).unwrap();
/// let old = journal.first(1)[0].mark;
/// journal.record("k", Missed::Write(2), 1).unwrap();
/// assert!(!journal.applied(old), "a newer write is still missing");
/// # Ok::<(), resilience::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(u64);

#[derive(Debug, Clone)]
struct Slot<K, V> {
    key: K,
    missed: Missed<V>,
    bytes: usize,
}

/// The last write or remove per key that a side has missed, within bounds, oldest first.
///
/// ```
/// use resilience::{Journal, Missed};
///
/// let mut journal = Journal::bounded(1_000, 1 << 20)?;
/// journal.record("a", Missed::Write(1), 9).unwrap();
/// journal.record("b", Missed::Write(2), 9).unwrap();
/// journal.record("a", Missed::Remove, 1).unwrap();
/// let entries = journal.first(10);
/// assert_eq!((entries[0].key, entries[1].key, entries[1].missed), ("b", "a", Missed::Remove));
/// for entry in entries {
///     journal.applied(entry.mark);
/// }
/// assert!(journal.is_empty());
/// # Ok::<(), resilience::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Journal<K, V> {
    /// By number of recording, so in the order of the newest recording of each key.
    slots: BTreeMap<u64, Slot<K, V>>,
    marks: HashMap<K, u64>,
    next: u64,
    bytes: usize,
    entries_max: usize,
    bytes_max: usize,
    overflowed: bool,
    coalesced: u64,
    lost: u64,
}

impl<K: Clone + Eq + Hash, V: Clone> Journal<K, V> {
    /// An empty journal that holds at most so many entries and bytes.
    ///
    /// # Errors
    /// A [`ConfigError`] that names the bound that is zero.
    ///
    /// ```
    /// use resilience::Journal;
    /// assert_eq!(Journal::<u64, u64>::bounded(0, 1).unwrap_err().field, "entries_max");
    /// ```
    pub fn bounded(entries_max: usize, bytes_max: usize) -> Result<Self, ConfigError> {
        let check = Check("journal");
        for (field, value) in [("entries_max", entries_max), ("bytes_max", bytes_max)] {
            if value == 0 {
                check.wrong(field, "is 0; use at least 1")?;
            }
        }
        Ok(Self {
            slots: BTreeMap::new(),
            marks: HashMap::new(),
            next: 0,
            bytes: 0,
            entries_max,
            bytes_max,
            overflowed: false,
            coalesced: 0,
            lost: 0,
        })
    }

    /// Notes what was missed of `key`, in place of what was noted before; `bytes` is what key and value take, by the
    /// caller's own measure.
    ///
    /// # Errors
    /// [`Overflowed`] if it does not fit: nothing is kept from then on until [`restart`](Self::restart).
    ///
    /// ```
    /// # use resilience::{Journal, Missed};
    /// let mut journal = Journal::bounded(10, 100)?;
    /// assert!(journal.record("k", Missed::Write("v"), 2).is_ok());
    /// assert!(journal.record("large", Missed::Write("…"), 101).is_err());
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn record(&mut self, key: K, missed: Missed<V>, bytes: usize) -> Result<(), Overflowed> {
        if self.overflowed {
            self.lost += 1;
            return Err(Overflowed);
        }
        if self.forget(&key) {
            self.coalesced += 1;
        }
        if self.slots.len() >= self.entries_max || bytes > self.bytes_max - self.bytes {
            self.lost += 1;
            self.overflow();
            return Err(Overflowed);
        }
        self.bytes += bytes;
        self.marks.insert(key.clone(), self.next);
        self.slots.insert(self.next, Slot { key, missed, bytes });
        self.next += 1;
        Ok(())
    }

    /// Gives up on keeping what is missed, as when a side missed something that concerns all keys; drops all.
    ///
    /// ```
    /// # use resilience::Journal;
    /// let mut journal = Journal::<String, u32>::bounded(10, 100)?;
    /// journal.overflow();
    /// assert!(journal.overflowed());
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn overflow(&mut self) {
        self.lost += self.slots.len() as u64;
        self.overflowed = true;
        // Not `clear`: the memory is wanted back.
        (self.slots, self.marks, self.bytes) = (BTreeMap::new(), HashMap::new(), 0);
    }

    /// Begins anew and empty: what is missed from here on is kept. To be called before everything is copied, so that
    /// no write falls between.
    ///
    /// ```
    /// # use resilience::{Journal, Missed};
    /// let mut journal = Journal::bounded(1, 100)?;
    /// journal.overflow();
    /// journal.restart();
    /// assert!(journal.record("k", Missed::Write(1), 1).is_ok());
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn restart(&mut self) {
        self.overflow();
        self.overflowed = false;
    }

    /// Whether something was missed of `key`. Of a journal that overflowed nobody can know: it says yes.
    ///
    /// ```
    /// # use resilience::{Journal, Missed};
    /// let mut journal = Journal::bounded(10, 100)?;
    /// journal.record("k", Missed::<u32>::Remove, 1).unwrap();
    /// assert!(journal.contains(&"k") && !journal.contains(&"other"));
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn contains(&self, key: &K) -> bool {
        self.overflowed || self.marks.contains_key(key)
    }

    /// What was missed of `key`, as [`first`](Self::first) gives it; `None` if nothing was, or nobody can know any more.
    ///
    /// ```
    /// # use resilience::{Journal, Missed};
    /// let mut journal = Journal::bounded(10, 100)?;
    /// journal.record("k", Missed::Write(1), 1).unwrap();
    /// assert_eq!(journal.entry(&"k").map(|entry| entry.missed), Some(Missed::Write(1)));
    /// assert_eq!(journal.entry(&"other"), None);
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn entry(&self, key: &K) -> Option<Entry<K, V>> {
        let mark = *self.marks.get(key)?;
        let slot = self.slots.get(&mark)?;
        Some(Entry { key: slot.key.clone(), missed: slot.missed.clone(), mark: Mark(mark) })
    }

    /// Takes `key` out, as when the side was told something newer of it; says whether it was in.
    ///
    /// ```
    /// # use resilience::{Journal, Missed};
    /// let mut journal = Journal::bounded(10, 100)?;
    /// journal.record("k", Missed::Write(1), 1).unwrap();
    /// assert!(journal.forget(&"k") && !journal.forget(&"k"));
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn forget(&mut self, key: &K) -> bool {
        let Some(mark) = self.marks.remove(key) else { return false };
        if let Some(slot) = self.slots.remove(&mark) {
            self.bytes -= slot.bytes;
        }
        true
    }

    /// The oldest entries, at most so many. They stay in the journal until [`applied`](Self::applied).
    ///
    /// ```
    /// # use resilience::{Journal, Missed};
    /// let mut journal = Journal::bounded(10, 100)?;
    /// journal.record("k", Missed::Write(1), 1).unwrap();
    /// assert_eq!(journal.first(5), journal.first(5));
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn first(&self, entries: usize) -> Vec<Entry<K, V>> {
        let slots = self.slots.iter().take(entries);
        slots
            .map(|(mark, slot)| Entry {
                key: slot.key.clone(),
                missed: slot.missed.clone(),
                mark: Mark(*mark),
            })
            .collect()
    }

    /// Takes an entry out that the side has taken; says whether it was still in, and not replaced by a newer one.
    ///
    /// ```
    /// # use resilience::{Journal, Missed};
    /// let mut journal = Journal::bounded(10, 100)?;
    /// journal.record("k", Missed::Write(1), 1).unwrap();
    /// let mark = journal.first(1)[0].mark;
    /// assert!(journal.applied(mark) && journal.is_empty());
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn applied(&mut self, mark: Mark) -> bool {
        let Some(slot) = self.slots.remove(&mark.0) else { return false };
        self.marks.remove(&slot.key);
        self.bytes -= slot.bytes;
        true
    }
}

impl<K, V> Journal<K, V> {
    /// Whether nothing is missed. A journal that overflowed is not empty, though it holds nothing.
    ///
    /// ```
    /// assert!(resilience::Journal::<u64, u64>::bounded(1, 1)?.is_empty());
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && !self.overflowed
    }

    /// How many entries it holds.
    ///
    /// ```
    /// assert_eq!(resilience::Journal::<u64, u64>::bounded(1, 1)?.len(), 0);
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many bytes they take, by the caller's measure.
    ///
    /// ```
    /// assert_eq!(resilience::Journal::<u64, u64>::bounded(1, 1)?.bytes(), 0);
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it overflowed since it was built or restarted.
    ///
    /// ```
    /// assert!(!resilience::Journal::<u64, u64>::bounded(1, 1)?.overflowed());
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// How many records took the place of an older one of their key, since it was built.
    ///
    /// ```
    /// assert_eq!(resilience::Journal::<u64, u64>::bounded(1, 1)?.coalesced(), 0);
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn coalesced(&self) -> u64 {
        self.coalesced
    }

    /// How many records were not kept: those of an overflow and after it, and those that a restart dropped.
    ///
    /// ```
    /// assert_eq!(resilience::Journal::<u64, u64>::bounded(1, 1)?.lost(), 0);
    /// # Ok::<(), resilience::ConfigError>(())
    /// ```
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_replay_under_way_does_not_take_out_a_newer_write() {
        let mut journal = Journal::bounded(10, 100).unwrap();
        journal.record("k", Missed::Write(1), 10).unwrap();
        let old = journal.first(1)[0].mark;
        journal.record("k", Missed::Write(2), 20).unwrap();
        assert!(!journal.applied(old));
        assert!(journal.contains(&"k"));
        assert_eq!((journal.len(), journal.bytes(), journal.coalesced()), (1, 20, 1));
        assert!(journal.applied(journal.first(1)[0].mark) && journal.is_empty());
        assert_eq!(journal.bytes(), 0);
    }

    #[test]
    fn past_a_bound_it_keeps_nothing_until_it_is_restarted() {
        for (entries, bytes) in [(2, 1_000), (100, 20)] {
            let mut journal = Journal::bounded(entries, bytes).unwrap();
            journal.record(1, Missed::Write(1), 10).unwrap();
            journal.record(2, Missed::Write(2), 10).unwrap();
            journal.record(2, Missed::Write(3), 10).expect("a key that is in takes no more room");
            assert_eq!(journal.record(3, Missed::Remove, 1), Err(Overflowed));
            assert_eq!((journal.len(), journal.bytes(), journal.lost()), (0, 0, 3));
            assert!(journal.overflowed() && !journal.is_empty() && journal.first(9).is_empty());
            assert!(journal.contains(&77), "nobody can know");
            assert_eq!(journal.record(4, Missed::Write(4), 1), Err(Overflowed));
            journal.restart();
            assert!(journal.is_empty() && !journal.contains(&77));
            assert!(journal.record(4, Missed::Write(4), 1).is_ok());
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Record(u8, Option<u16>, usize),
        Forget(u8),
        Apply(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u8..12, any::<Option<u16>>(), 0usize..30).prop_map(|(key, value, bytes)| Step::Record(key, value, bytes)),
            1 => (0u8..12).prop_map(Step::Forget),
            2 => (0usize..5).prop_map(Step::Apply),
        ]
    }

    proptest! {
        #[test]
        fn it_is_the_last_change_per_key_in_order_and_never_past_its_bounds(
            entries_max in 1usize..10, bytes_max in 1usize..150, steps in prop::collection::vec(step(), 0..200),
        ) {
            let mut journal = Journal::bounded(entries_max, bytes_max).unwrap();
            let mut naive: Vec<(u8, Missed<u16>, usize)> = Vec::new();
            for step in steps {
                match step {
                    Step::Record(key, value, bytes) => {
                        let missed = value.map_or(Missed::Remove, Missed::Write);
                        naive.retain(|(other, ..)| *other != key);
                        naive.push((key, missed, bytes));
                        let total: usize = naive.iter().map(|(.., bytes)| bytes).sum();
                        let fits = naive.len() <= entries_max && total <= bytes_max;
                        prop_assert_eq!(journal.record(key, missed, bytes).is_ok(), fits);
                        if !fits {
                            prop_assert!(journal.overflowed());
                            naive.clear();
                            journal.restart();
                        }
                    }
                    Step::Forget(key) => {
                        let known = naive.iter().any(|(other, ..)| *other == key);
                        naive.retain(|(other, ..)| *other != key);
                        prop_assert_eq!(journal.forget(&key), known);
                    }
                    Step::Apply(entries) => {
                        for entry in journal.first(entries) {
                            prop_assert!(journal.applied(entry.mark));
                            prop_assert_eq!((entry.key, entry.missed), (naive[0].0, naive[0].1));
                            naive.remove(0);
                        }
                    }
                }
                let held: Vec<_> = journal.first(usize::MAX).into_iter().map(|entry| (entry.key, entry.missed)).collect();
                prop_assert_eq!(held, naive.iter().map(|(key, missed, _)| (*key, *missed)).collect::<Vec<_>>());
                prop_assert_eq!(journal.bytes(), naive.iter().map(|(.., bytes)| bytes).sum::<usize>());
                prop_assert!(journal.len() <= entries_max && journal.bytes() <= bytes_max);
            }
        }
    }
}
