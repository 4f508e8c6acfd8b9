//! The newest records that this node sent, kept for peers that missed some.

use std::collections::VecDeque;

use crate::record::Record;

/// Own records by number, bounded by bytes: the oldest goes first.
#[derive(Debug)]
pub(crate) struct Ring {
    records: VecDeque<Record>,
    oldest: u64,
    bytes: usize,
    bytes_max: usize,
}

impl Ring {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { records: VecDeque::new(), oldest: 1, bytes: 0, bytes_max }
    }

    /// The next number to be given.
    pub(crate) fn next(&self) -> u64 {
        self.oldest + self.records.len() as u64
    }

    /// The lowest number that can still be pulled.
    pub(crate) fn oldest(&self) -> u64 {
        self.oldest
    }

    /// Passes over `count` numbers whose records were never sent. What is older can't be pulled without a hole, so it
    /// goes.
    pub(crate) fn skip(&mut self, count: u64) {
        self.oldest = self.next() + count;
        self.records.clear();
        self.bytes = 0;
    }

    /// Numbers a record. Returns how many older ones went for it.
    pub(crate) fn push(&mut self, record: Record) -> u64 {
        self.bytes += record.weight();
        self.records.push_back(record);
        let mut dropped = 0;
        while self.bytes > self.bytes_max {
            let Some(old) = self.records.pop_front() else { break };
            self.bytes -= old.weight();
            self.oldest += 1;
            dropped += 1;
        }
        dropped
    }

    /// The records from number `from` on, oldest first.
    pub(crate) fn from(&self, from: u64) -> impl Iterator<Item = &Record> {
        let skip = usize::try_from(from.saturating_sub(self.oldest)).unwrap_or(usize::MAX);
        self.records.iter().skip(skip)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{record::Op, stamp::Stamp};

    fn record(key: &'static str) -> Record {
        Record { stamp: Stamp::ZERO, key: Bytes::from_static(key.as_bytes()), op: Op::Remove, previous: None }
    }

    #[test]
    fn the_oldest_goes_at_the_bound_and_numbers_go_on() {
        let mut ring = Ring::new(2 * record("a").weight());
        let dropped: u64 = ["a", "b", "c"].map(|key| ring.push(record(key))).iter().sum();
        assert_eq!((dropped, ring.oldest(), ring.next()), (1, 2, 4));
        let keys: Vec<_> = ring.from(3).map(|record| record.key.clone()).collect();
        assert_eq!(keys, ["c"]);
    }

    #[test]
    fn skipped_numbers_empty_the_ring() {
        let mut ring = Ring::new(1_000);
        ring.push(record("a"));
        ring.skip(3);
        assert_eq!((ring.oldest(), ring.next()), (5, 5));
    }
}
