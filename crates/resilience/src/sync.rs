//! The locks and atomics of this crate: real ones, or those of loom when it explores how threads may interleave.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(not(loom))]
pub(crate) use parking_lot::Mutex;

/// loom's mutex, with the face of the other: no poison.
#[cfg(loom)]
#[derive(Debug)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(loom)]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A small number that this thread shares with few others: threads are numbered as they come.
#[cfg(not(loom))]
pub(crate) fn thread_number() -> usize {
    use std::sync::atomic::AtomicUsize;

    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

/// The same of the threads that loom simulates.
#[cfg(loom)]
pub(crate) fn thread_number() -> usize {
    use loom::sync::atomic::AtomicUsize;

    loom::lazy_static!(static ref NEXT: AtomicUsize = AtomicUsize::new(0););
    loom::thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

/// How many threads can run at once, asked once.
#[cfg(not(loom))]
pub(crate) fn parallelism() -> usize {
    static PARALLELISM: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *PARALLELISM.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Enough for two threads to meet and to miss each other.
#[cfg(loom)]
pub(crate) fn parallelism() -> usize {
    2
}
