//! Entries on their way out, carried from under the lock to where they may be dropped.

use std::{
    any::Any,
    ops::{Deref, DerefMut},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use crate::{Cause, inner::Inner};

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

    /// The one entry, if there is one and no other.
    #[inline]
    pub(crate) fn take_only(&mut self) -> Option<(K, V, Cause)> {
        if self.rest.is_empty() { self.first.take() } else { None }
    }

    /// The entries in the order in which they left; the allocation stays for the next use.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (K, V, Cause)> + '_ {
        self.first.take().into_iter().chain(self.rest.drain(..))
    }
}

/// What an operation took out, told to the listener even if a panic breaks the operation off.
///
/// To be made before the shard is locked, so that it is dropped after the lock.
pub(crate) struct Departing<'a, K, V, S, X> {
    inner: &'a Inner<K, V, S, X>,
    departed: Departed<K, V>,
}

impl<'a, K, V, S, X> Departing<'a, K, V, S, X> {
    #[inline]
    pub(crate) const fn new(inner: &'a Inner<K, V, S, X>) -> Self {
        Departing { inner, departed: Departed::new() }
    }
}

impl<K, V, S, X> Deref for Departing<'_, K, V, S, X> {
    type Target = Departed<K, V>;

    #[inline]
    fn deref(&self) -> &Departed<K, V> {
        &self.departed
    }
}

impl<K, V, S, X> DerefMut for Departing<'_, K, V, S, X> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Departed<K, V> {
        &mut self.departed
    }
}

impl<K, V, S, X> Drop for Departing<'_, K, V, S, X> {
    #[inline]
    fn drop(&mut self) {
        if self.departed.len() > 0 {
            // The operation did not come to its end. The panic that is under way is the one to be heard of.
            self.inner.tell(&mut self.departed, &mut Panics::default());
        }
    }
}

/// The panics of others' code that an operation met, which wait until it is done.
#[derive(Default)]
pub(crate) struct Panics {
    first: Option<Box<dyn Any + Send>>,
    count: u64,
}

impl Panics {
    pub(crate) fn catch(&mut self, f: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(f)) {
            self.first.get_or_insert(panic);
            self.count += 1;
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Goes on with the first, if there was one.
    pub(crate) fn resume(self) {
        if let Some(panic) = self.first {
            resume_unwind(panic);
        }
    }
}
