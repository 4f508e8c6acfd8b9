//! The keys that were written through the client, for servers that cannot list theirs.
//!
//! Bounded; past it the key whose write is the longest ago is forgotten, and counted: a copy from a server that cannot list its keys
//! then leaves that one out.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

#[derive(Debug)]
pub(super) struct Record {
    /// When a key was written last, as a number.
    numbers: HashMap<Bytes, u64>,
    keys: BTreeMap<u64, Bytes>,
    next: u64,
    keys_max: usize,
    dropped: u64,
}

impl Record {
    pub(super) fn bounded(keys_max: usize) -> Self {
        Self { numbers: HashMap::new(), keys: BTreeMap::new(), next: 0, keys_max, dropped: 0 }
    }

    pub(super) fn wrote(&mut self, key: &Bytes) {
        self.forget(key);
        if self.keys_max == 0 {
            self.dropped += 1;
            return;
        }
        if self.keys.len() >= self.keys_max
            && let Some((_, oldest)) = self.keys.pop_first()
        {
            self.numbers.remove(&oldest);
            self.dropped += 1;
        }
        self.numbers.insert(key.clone(), self.next);
        self.keys.insert(self.next, key.clone());
        self.next += 1;
    }

    pub(super) fn forget(&mut self, key: &Bytes) {
        if let Some(number) = self.numbers.remove(key) {
            self.keys.remove(&number);
        }
    }

    pub(super) fn clear(&mut self) {
        (self.numbers, self.keys) = (HashMap::new(), BTreeMap::new());
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Some keys in the order of their writes, from a number on, and where the next ones begin.
    pub(super) fn page(&self, from: u64, keys: usize) -> (Vec<Bytes>, Option<u64>) {
        let page: Vec<_> = self.keys.range(from..).take(keys).collect();
        let next = page.last().map(|(number, _)| *number + 1);
        (page.into_iter().map(|(_, key)| key.clone()).collect(), next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_its_bound_the_key_written_the_longest_ago_is_forgotten() {
        let mut record = Record::bounded(2);
        for key in ["a", "b", "a", "c"] {
            record.wrote(&Bytes::from_static(key.as_bytes()));
        }
        let (keys, next) = record.page(0, 10);
        assert_eq!((keys, record.len(), record.dropped()), (vec!["a".into(), "c".into()], 2, 1));
        assert!(record.page(next.unwrap(), 10).0.is_empty());
        record.forget(&"a".into());
        record.clear();
        assert_eq!(record.len(), 0);
    }
}
