//! The primitives that threads meet at: real ones, or loom's where the crate is built to be model-checked.
//!
//! With `--cfg loom`, shards and capacity are locked by loom's mutex and event-listener builds upon loom too, so that `load/model.rs` runs the
//! crate's own code through every interleaving: `cargo xtask loom`. What orders nothing (the clock, the numbering of flights) stays
//! as it is.

#[cfg(not(loom))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(loom))]
pub(crate) use std::{sync::Arc, thread_local};

#[cfg(loom)]
pub(crate) use loom::{
    sync::{Arc, MutexGuard},
    thread_local,
};

/// loom's mutex with the face of parking_lot's: it does not poison.
#[cfg(loom)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(loom)]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Mutex(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
