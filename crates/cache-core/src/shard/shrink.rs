//! Another share for a shard at work.

use super::{Share, Store};
use crate::{Sidecar, departed::Departed};

/// The most entries that one step of a reduction takes out, which bounds how long it holds the lock.
pub(super) const STEP_SLOTS: usize = 256;

impl<K, V> Store<K, V> {
    /// Takes one step towards another share; returns whether that is reached. From each step on, the share is what the shard holds at
    /// most, so that nothing that others put in meanwhile can hold the next step up.
    pub(crate) fn resize_step(
        &mut self,
        target: Share,
        now: u64,
        sidecar: &mut impl Sidecar<K, V>,
        out: &mut Departed<K, V>,
    ) -> bool {
        let is_within = |store: &Self| store.len() <= target.entries && store.weight() <= target.weight;
        for _ in 0..STEP_SLOTS {
            if is_within(self) {
                break;
            }
            self.drop_coldest(now, sidecar, out);
        }
        // A larger share needs no steps; a smaller one goes down with what is held.
        self.share.entries = self.len().max(target.entries).min(self.share.entries.max(target.entries));
        self.share.weight = self.weight().max(target.weight).min(self.share.weight.max(target.weight));
        is_within(self)
    }

    fn drop_coldest(&mut self, now: u64, sidecar: &mut impl Sidecar<K, V>, out: &mut Departed<K, V>) {
        if let Some(victim) = self.victim(None, None, now) {
            self.detach_victim(victim, sidecar, out);
            self.release(victim.slot, victim.segment);
        }
    }
}
