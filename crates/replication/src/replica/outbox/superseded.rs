//! The changes that were superseded before they left.

use std::collections::{BTreeMap, BTreeSet};

use crate::stamp::Hlc;

/// The changes that were superseded before they left, by newer ones that still wait.
///
/// Whoever has all records up to a stamp has all changes up to it, but for these: their successors come later. Without
/// this, a receipt for a superseded write would be given before anything of it had left.
#[derive(Debug, Default)]
pub(super) struct Superseded {
    /// For each waiting record that superseded others, by its stamp: the lowest of theirs.
    first_of: BTreeMap<Hlc, Hlc>,
    firsts: BTreeSet<Hlc>,
}

impl Superseded {
    /// `newer` supersedes the waiting change `older`, and what that superseded.
    pub(super) fn add(&mut self, older: Hlc, newer: Hlc) {
        let first = self.forget(older).unwrap_or(older);
        let known = self.first_of.get(&newer).copied();
        if known.is_none_or(|known| first < known) {
            known.map(|known| self.firsts.remove(&known));
            self.first_of.insert(newer, first);
            self.firsts.insert(first);
        }
    }

    /// The change of this stamp waits no longer. Returns the lowest stamp that it superseded.
    pub(super) fn forget(&mut self, stamp: Hlc) -> Option<Hlc> {
        let first = self.first_of.remove(&stamp)?;
        self.firsts.remove(&first);
        Some(first)
    }

    pub(super) fn lowest(&self) -> Option<Hlc> {
        self.firsts.first().copied()
    }
}
