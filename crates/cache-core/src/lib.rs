#![doc = include_str!("../README.md")]
//!
//! # Why this way
//!
//! A read of a cache is worth tens of nanoseconds, so everything here is arranged around what a read must touch: one hash, one
//! short mutex, one slot of a slab, one bit. A hit *marks* its entry and moves nothing. The recency
//! order is a list of slot numbers beside the slab, 8 bytes a slot; a marked entry that reaches the cold end of that order is moved back
//! to the hot end instead of being evicted (see [below](#the-order)). The clock is an atomic that a thread advances, because asking the
//! operating system for the time would cost more than the rest of a read.
//!
//! Rejected, each after measuring it: `Mutex<LruCache<K, V>>` per shard with promotion at each hit (half the speed on hits),
//! promotion deferred through a ring buffer (the slowest: `lru` promotes by key, so each one is hashed again), the order of slot
//! numbers alone in the [`lru`](https://docs.rs/lru) crate (inserts that evict at half the speed, reads through a cache that is too
//! small at 0.6 of it, 38 bytes more an entry; it is the model that the order is tested against), and a read-write lock (it costs
//! what the mutex costs and then cannot count a hit without an atomic).
//!
//! # The order
//!
//! With [`Policy::Lru`] the order is least-recently-used with a second chance. An entry enters at the hot end. When room is needed, the
//! entry at the cold end is looked at: if it expired, it goes; if it was used since it was last there, it loses its mark and moves to
//! the hot end, as though that use had just happened; otherwise it is evicted. One search gives at most [`SECOND_CHANCES_MAX`]
//! second chances and then evicts the entry at the cold end, marked or not, so that an insert's time does not depend on how hot the
//! whole shard is.
//!
//! [`Policy::TinyLfu`] and [`Builder::remote_depth`] divide the order into segments, each of which is kept in the same way. They share
//! the links: to rise or to fall, an entry goes from one list to another and stays in its slot. With a remote depth there are two, and
//! writes of other regions enter between them. TinyLfu weighs new entries against what would have to go for them, by how often each was
//! asked for.
//!
//! # Loads
//!
//! [`Cache::get_or_insert_with`] and its asynchronous and fallible twins read through: what is missing is loaded once, however many
//! threads and tasks ask for it. No lock is held meanwhile; a loader that fails, panics or is cancelled hands over to the next caller;
//! a loader that would wait for itself is told so; and a load never publishes its value over a newer write or invalidation of its key.
//! A hit costs a `get`, and a write pays one look at a word.
//!
//! # Invariants
//!
//! * Whenever no operation is inside a shard, it holds at most its share of the entries and of the weight. Room is made before an
//!   entry is placed. Shares add up to exactly the capacity, so [`Cache::len`] and [`Cache::weight`] never exceed it, also while
//!   [`Cache::resize`] changes it.
//! * An expired entry is never returned, whatever listeners, sidecars and `Drop`s do: the clock's thread runs none of them.
//! * Each entry that the cache itself gave up (evicted, expired, too heavy) is told to its shard's [`Sidecar`] exactly once, under
//!   the lock under which it went.
//! * No value is dropped and no listener is called under a lock (but what a write came with is dropped there if a [`Sidecar`] panics at
//!   a victim of that write). What does run there, because it must: `K: Eq` and `V: Clone`, the
//!   closures that operations take (a loader runs without a lock), the [`Sidecar`], and the weigher where `update`, `upsert` or a load
//!   writes.
//!   **None of them may call back into the same cache**: the shard's mutex is not reentrant, so that would deadlock.
//! * While a load can still be joined or published, its key has no live entry and was not written since the load began.
//! * `inserts = len + evictions + expirations + removals + cleared` at rest, see [`Stats`].

mod builder;
mod cache;
mod capacity;
mod clock;
mod departed;
mod error;
mod inner;
mod iter;
mod load;
mod place;
mod policy;
mod read;
mod scan;
mod shard;
mod sidecar;
mod stats;
mod sync;
mod ticker;
mod update;
mod upsert;

pub use builder::Builder;
pub use cache::Cache;
pub use clock::{Clock, Expiry, ManualClock};
pub use error::ConfigError;
pub use iter::Iter;
pub use load::LoadError;
pub use place::Place;
pub use policy::Policy;
pub use scan::{HOTTEST_VISITS_MAX, ScanItem, ScanPage};
pub use shard::SECOND_CHANCES_MAX;
pub use sidecar::{Cause, Sidecar};
pub use stats::Stats;
pub use upsert::{Slot, Verdict};
