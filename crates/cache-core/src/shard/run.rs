//! Pages of entries in position order, out of an unordered slab.
//!
//! Whoever wants one page wants the next one soon. So a walk over the slab gathers the next [`RUN_ENTRIES`] entries, not one page
//! of them, and sorts them: a *run*, from which the pages that follow are read. A whole scan so costs one walk over a shard's slots
//! for each 16,384 of its entries, and each page costs itself. Rejected: an order kept by every write, which pays for scans where
//! nobody scans; and sorting a whole shard at once, which holds its lock for as long as the shard is large.
//!
//! A run is a list of slots as they were, so it is never trusted: an entry counts only if its slot still holds that position, and
//! what was put in since is listed beside. Nothing is kept for long: the run goes with its last page, or when too much was put in,
//! or once nobody asked for a page of it in [`RUN_IDLE_MS`].

use std::iter;

use super::Store;
use crate::{Cause, Sidecar, departed::Departed};

/// How many entries a run is made of; more only where they share the last one's position. 256 KiB, and twice that while it is made.
pub(super) const RUN_ENTRIES: usize = 16_384;
/// The most entries put into its range that a run notes.
pub(super) const ADDED_MAX: usize = 2_048;
/// The most slots that one step of gathering looks at.
pub(super) const GATHER_VISITS: usize = 32_768;
/// For how long a run waits for the next page.
pub(super) const RUN_IDLE_MS: u64 = 1_000;

/// All entries of a range of positions, with the slots that they were found in.
#[derive(Debug)]
pub(crate) struct Run {
    lo: u64,
    /// The last position of the range; while it is gathered, the last that it can come to.
    hi: u64,
    /// Ascending once it is gathered.
    found: Vec<(u64, u32)>,
    /// What was put into the range since the walk began, in no order.
    added: Vec<(u64, u32)>,
    /// The slot to look at next; `None` when the range is gathered.
    cursor: Option<usize>,
    used_ms: u64,
}

/// What a page is made of.
#[derive(Debug)]
pub(crate) struct Page {
    /// Positions and slots of its entries, ascending.
    pub(crate) picked: Vec<(u64, u32)>,
    /// Where the next page of the shard begins; `None` after its last entry.
    pub(crate) next: Option<u64>,
    /// A run that was read to its end, to be dropped after unlocking.
    pub(crate) _finished: Option<Box<Run>>,
}

impl Run {
    fn new(lo: u64, now: u64) -> Self {
        Run { lo, hi: u64::MAX, found: Vec::new(), added: Vec::new(), cursor: Some(0), used_ms: now }
    }

    fn covers(&self, position: u64) -> bool {
        (self.lo..=self.hi).contains(&position)
    }

    /// An entry was put in. Returns whether the run is still good for something.
    #[inline]
    pub(super) fn note(&mut self, position: u64, slot: u32) -> bool {
        if self.covers(position) {
            self.added.push((position, slot));
        }
        self.added.len() <= ADDED_MAX
    }

    pub(super) fn is_idle(&self, now: u64) -> bool {
        now.saturating_sub(self.used_ms) >= RUN_IDLE_MS
    }

    /// Leaves the [`RUN_ENTRIES`] lowest and what shares the last one's position; the range ends there.
    fn trim(&mut self) {
        if self.found.len() > RUN_ENTRIES {
            let (_, last, _) = self.found.select_nth_unstable(RUN_ENTRIES - 1);
            let hi = last.0;
            self.found.retain(|(position, _)| *position <= hi);
            self.hi = hi;
        }
    }

    /// What is in the range from a position on, in order and each once, but perhaps gone since.
    fn from(&self, position: u64) -> impl Iterator<Item = (u64, u32)> + '_ {
        let from = |list: &'_ [(u64, u32)]| list.partition_point(|(at, _)| *at < position);
        let mut found = self.found[from(&self.found)..].iter().copied().peekable();
        let mut added = self.added[from(&self.added)..].iter().copied().peekable();
        let mut last = None;
        iter::from_fn(move || {
            loop {
                let next = match (found.peek(), added.peek()) {
                    (Some(old), Some(new)) if new < old => added.next(),
                    (None, Some(_)) => added.next(),
                    _ => found.next(),
                }?;
                // One that went and came again into the same slot is in both lists.
                if last.replace(next) != Some(next) {
                    return Some(next);
                }
            }
        })
    }
}

impl<K, V> Store<K, V> {
    /// A page from `position` on: `limit` entries, and whatever shares the last one's position. Fewer where the shard or the run
    /// ends. `None` where the run is not gathered yet: then ask again, without the lock in between.
    ///
    /// What has expired in the page's range is given up, so that the sidecar knows of it before anybody sees that it is absent. It
    /// counts towards the limit: a page of nothing else is empty, but its time under the lock is bounded as any page's.
    pub(crate) fn page(
        &mut self,
        position: u64,
        limit: usize,
        now: u64,
        gathering: &mut Gathering,
        sidecar: &mut impl Sidecar<K, V>,
        out: &mut Departed<K, V>,
    ) -> Option<Page> {
        self.gather(position, now, gathering)?;
        let run = self.run.as_mut()?;
        run.used_ms = now;
        run.added.sort_unstable();
        let limit = limit.max(1);
        let mut picked: Vec<(u64, u32)> = Vec::with_capacity(limit.min(run.found.len()));
        let mut over = Vec::new();
        let mut last: Option<u64> = None;
        let mut next = run.hi.checked_add(1);
        let mut is_read = true;
        let run = &*run;
        for (at, slot) in run.from(position) {
            let Some(entry) = self.slab[slot as usize].as_ref().filter(|entry| entry.hash == at) else {
                continue;
            };
            if let Some(last) = last.filter(|last| picked.len() + over.len() >= limit && *last != at) {
                next = last.checked_add(1);
                is_read = false;
                break;
            }
            last = Some(at);
            if entry.word.deadline() > now {
                picked.push((at, slot));
            } else {
                over.push(slot);
            }
        }
        for slot in over {
            self.give_up(slot, Cause::Expired, sidecar, out);
        }
        let _finished = if is_read { self.run.take() } else { None };
        Some(Page { picked, next, _finished })
    }

    /// Takes one step towards a run that covers the position; `Some` when there is one.
    fn gather(&mut self, position: u64, now: u64, gathering: &mut Gathering) -> Option<()> {
        // One that somebody else is gathering is finished first, or two could undo each other's work for ever.
        let is_of_use = |run: &Run| run.cursor.is_some() || run.covers(position);
        if !self.run.as_deref().is_some_and(is_of_use) {
            gathering.begun += 1;
            self.run = Some(Box::new(Run::new(position, now)));
        }
        let run = self.run.as_mut()?;
        if let Some(from) = run.cursor {
            let end = self.slab.len().min(from.saturating_add(gathering.visits()));
            for slot in from..end {
                let Some(entry) = &self.slab[slot] else { continue };
                if run.covers(entry.hash) {
                    run.found.push((entry.hash, slot as u32));
                    if run.found.len() == 2 * RUN_ENTRIES {
                        run.trim();
                    }
                }
            }
            run.cursor = Some(end);
            if end < self.slab.len() {
                return None;
            }
            run.trim();
            run.found.sort_unstable();
            let hi = run.hi;
            run.added.retain(|(position, _)| *position <= hi);
            run.cursor = None;
        }
        run.covers(position).then_some(())
    }
}

/// The patience of one who waits for a page.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    begun: u32,
}

impl Gathering {
    /// How many slots a step may look at: all of them once others undid the work too often.
    fn visits(&self) -> usize {
        if self.begun > 3 { usize::MAX } else { GATHER_VISITS }
    }
}
