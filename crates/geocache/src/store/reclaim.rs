//! Gives back the memory of cleared entries, a page at a time.
//!
//! A clear is one barrier and hides what is behind it at once; this takes those entries out, on the runtime the node
//! was built on, yielding between pages, so that neither the clearing call nor any reader waits for it. Without a
//! runtime the clearing call does it. One walk runs at a time; a clear during a walk makes it go round once more.

use std::sync::{
    Weak,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::runtime::Handle;

use super::{NodeStore, Time};

/// Entries looked at under one hold of a shard's lock.
const PAGE_ENTRIES: usize = 256;

#[derive(Debug)]
pub(super) struct Reclaim {
    /// The runtime the node was built on, for clears from threads outside any.
    runtime: Option<Handle>,
    running: AtomicBool,
    /// Counts the clears; a walk is done with those counted before it began.
    clears: AtomicU64,
}

impl Reclaim {
    pub(super) fn new() -> Self {
        Self {
            runtime: Handle::try_current().ok(),
            running: AtomicBool::new(false),
            clears: AtomicU64::new(0),
        }
    }
}

impl NodeStore {
    pub(super) fn start_reclaim(&self) {
        self.reclaim.clears.fetch_add(1, Ordering::SeqCst);
        if self.reclaim.running.swap(true, Ordering::SeqCst) {
            return;
        }
        let runtime = Handle::try_current().ok().or_else(|| self.reclaim.runtime.clone());
        // A simulation has to find the same after each step, whatever runs it.
        match runtime.filter(|_| matches!(self.time, Time::Process)) {
            Some(runtime) => {
                runtime.spawn(Walk { store: Weak::clone(&self.me) }.run());
            }
            None => while !self.walked(self.walk()) {},
        }
    }

    fn walk(&self) -> u64 {
        let clears = self.reclaim.clears.load(Ordering::SeqCst);
        let mut next = Some(0);
        while let Some(position) = next {
            next = self.reclaim_page(position);
        }
        clears
    }

    /// Ends the walk that began when `clears` were counted; false where it has to go round once more.
    fn walked(&self, clears: u64) -> bool {
        self.reclaim.running.store(false, Ordering::SeqCst);
        let is_news = self.reclaim.clears.load(Ordering::SeqCst) != clears;
        // With news, whoever sets the flag walks: this one, or the clear that brought the news.
        !is_news || self.reclaim.running.swap(true, Ordering::SeqCst)
    }

    fn reclaim_page(&self, position: u64) -> Option<u64> {
        self.cache.retain_page(position, PAGE_ENTRIES, |item, _| self.is_visible(item.key, item.value))
    }
}

/// The walk as a task. It holds the store for a page at a time, so that a dropped cache is not kept alive by its own
/// clean-up.
struct Walk {
    store: Weak<NodeStore>,
}

impl Walk {
    async fn run(mut self) {
        while self.once().await == Some(false) {}
        // Ended well: nothing is left for `drop` to say.
        self.store = Weak::new();
    }

    /// Goes round once; says whether that was all, and nothing where the store is gone.
    async fn once(&self) -> Option<bool> {
        let clears = self.store.upgrade()?.reclaim.clears.load(Ordering::SeqCst);
        let mut next = Some(0);
        while let Some(position) = next {
            next = self.store.upgrade()?.reclaim_page(position);
            tokio::task::yield_now().await;
        }
        Some(self.store.upgrade()?.walked(clears))
    }
}

impl Drop for Walk {
    /// A runtime that shuts down drops the task midway; the next clear then begins a walk of its own.
    fn drop(&mut self) {
        if let Some(store) = self.store.upgrade() {
            store.reclaim.running.store(false, Ordering::SeqCst);
        }
    }
}
