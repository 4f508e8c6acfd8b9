//! Entries on their way out, carried from under the lock to where they may be dropped.

use crate::Cause;

/// What one operation took out of a shard.
///
/// Nearly every operation loses at most one entry, so the first needs no allocation.
pub(crate) struct Departed<K, V> {
    first: Option<(K, V, Cause)>,
    rest: Vec<(K, V, Cause)>,
}

impl<K, V> Departed<K, V> {
    #[inline]
    pub(crate) const fn new() -> Self {
        Departed { first: None, rest: Vec::new() }
    }

    pub(crate) fn push(&mut self, key: K, value: V, cause: Cause) {
        if self.first.is_none() {
            self.first = Some((key, value, cause));
        } else {
            self.rest.push((key, value, cause));
        }
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    /// The entries in the order in which they left; the allocation stays for the next use.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (K, V, Cause)> + '_ {
        self.first.take().into_iter().chain(self.rest.drain(..))
    }
}
