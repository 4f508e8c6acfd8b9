//! Who wrote what, when and for how long: the truth that the nodes are held to.

use std::collections::HashMap;

use bytes::Bytes;
use replication::{Origin, Stamp, Stream};

use super::key;

/// A local write, or a value that its node stamped anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The key's number.
    pub key: usize,
    /// Its stamp.
    pub stamp: Stamp,
    /// The node that wrote it.
    pub node: usize,
    /// The node's life, as others know it.
    pub stream: Stream,
    /// The value; `None` for a remove.
    pub value: Option<Bytes>,
    /// The true time at which it has to be gone, where it expires.
    pub deadline_ms: Option<u64>,
}

/// A local clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clear {
    /// What was cleared.
    pub namespace: Bytes,
    /// Its stamp.
    pub stamp: Stamp,
    /// The life of the node that cleared it.
    pub stream: Stream,
}

/// Everything that was written so far.
#[derive(Debug, Default)]
pub struct Ledger {
    writes: Vec<Write>,
    clears: Vec<Clear>,
    by_stamp: HashMap<Stamp, Vec<usize>>,
    by_stream: HashMap<Stream, Vec<usize>>,
}

impl Ledger {
    /// A write was applied on its node.
    pub fn add(&mut self, write: Write) -> &Write {
        let index = self.writes.len();
        self.by_stamp.entry(write.stamp).or_default().push(index);
        self.by_stream.entry(write.stream).or_default().push(index);
        self.writes.push(write);
        &self.writes[index]
    }

    /// A clear was applied on its node.
    pub fn add_clear(&mut self, clear: Clear) {
        self.clears.push(clear);
    }

    /// What a node stamped anew of its own lives on to the same moment as before.
    pub fn reissue(&mut self, key: usize, before: Stamp, after: Stamp, stream: Stream) {
        let old = self.by_stamp.get(&before).and_then(|found| found.last());
        if let Some(old) = old.map(|index| self.writes[*index].clone()).filter(|old| old.key == key) {
            self.add(Write { stamp: after, stream, ..old });
        }
    }

    /// The write of a key that had this stamp and this value.
    pub fn of_value(&self, key: usize, stamp: Stamp, value: &Bytes) -> Option<&Write> {
        let of_stamp = self.by_stamp.get(&stamp)?.iter().map(|index| &self.writes[*index]);
        of_stamp.into_iter().find(|write| write.key == key && write.value.as_ref() == Some(value))
    }

    /// The writes of a key that had this stamp: more than one where two lives shared one clock.
    pub fn of_stamp(&self, key: usize, stamp: Stamp) -> impl Iterator<Item = &Write> {
        let found = self.by_stamp.get(&stamp).into_iter().flatten();
        found.map(|index| &self.writes[*index]).filter(move |write| write.key == key)
    }

    /// The writes of a life, oldest first.
    pub fn of_stream(&self, stream: Stream) -> impl DoubleEndedIterator<Item = &Write> {
        self.by_stream.get(&stream).into_iter().flatten().map(|index| &self.writes[*index])
    }

    /// The clears of a life, oldest first.
    pub fn clears_of(&self, stream: Stream) -> impl Iterator<Item = &Clear> {
        self.clears.iter().filter(move |clear| clear.stream == stream)
    }

    /// The lives that wrote.
    pub fn streams(&self) -> impl Iterator<Item = Stream> {
        self.by_stream.keys().copied()
    }

    /// All writes, in the order in which they were made.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }
}

impl Write {
    /// A write for tests of the invariants: by the first life of `node`, of a value that does not expire.
    pub fn sample(node: usize, key: usize, ms: u64, value: &'static str) -> Self {
        let origin = Origin(node as u64 + 1);
        Self {
            key,
            stamp: Stamp { hlc: replication::Hlc::from_ms(ms), origin },
            node,
            stream: Stream { origin, epoch: 1 },
            value: Some(Bytes::from_static(value.as_bytes())),
            deadline_ms: None,
        }
    }
}

impl std::fmt::Display for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = key::text(self.key);
        match &self.value {
            Some(value) => {
                let value = String::from_utf8_lossy(&value[..value.len().min(12)]).into_owned();
                write!(f, "{key:?} = {value:?} of node {} at {}", self.node, self.stamp)
            }
            None => write!(f, "the remove of {key:?} on node {} at {}", self.node, self.stamp),
        }
    }
}
