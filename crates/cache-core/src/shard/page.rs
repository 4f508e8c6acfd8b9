//! Picking a page of entries in position order out of an unordered slab.

use super::Store;

impl<K, V> Store<K, V> {
    /// The live entries with the smallest positions not below `position`: `limit` of them, and whatever shares the last one's
    /// position. The flag says whether the shard holds live ones beyond.
    ///
    /// The slab is read once, O(slots); the memory taken is O(limit), because a candidate above the current bound is not kept.
    pub(crate) fn page(&self, position: u64, limit: usize, now: u64) -> (Vec<(u64, u32)>, bool) {
        let limit = limit.max(1);
        let mut picked: Vec<(u64, u32)> = Vec::with_capacity(limit.saturating_mul(2).min(self.len()));
        let mut bound = u64::MAX;
        let mut more = false;
        let mut trim_at = limit.saturating_mul(2);
        for (slot, entry) in self.slab.iter().enumerate() {
            let Some(entry) = entry else { continue };
            if entry.hash < position || entry.deadline <= now {
                continue;
            }
            if entry.hash > bound {
                more = true;
                continue;
            }
            picked.push((entry.hash, slot as u32));
            if picked.len() >= trim_at {
                more |= trim(&mut picked, limit, &mut bound);
                // With many equal positions the page itself is long; wait until it has doubled.
                trim_at = trim_at.max(picked.len().saturating_mul(2));
            }
        }
        more |= trim(&mut picked, limit, &mut bound);
        picked.sort_unstable();
        (picked, more)
    }
}

/// Leaves the `limit` smallest and their equals; says whether any went.
fn trim(picked: &mut Vec<(u64, u32)>, limit: usize, bound: &mut u64) -> bool {
    if picked.len() <= limit {
        return false;
    }
    let before = picked.len();
    let (_, last, _) = picked.select_nth_unstable(limit - 1);
    *bound = last.0;
    picked.retain(|(hash, _)| hash <= bound);
    picked.len() < before
}
