//! What a simulation needs of a store beside what the replica needs.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use crate::{
    message::Bar,
    record::Op,
    replica::{Now, Outbox, Rules, Store},
    stamp::Stamp,
};

/// How a simulated node's store is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreSettings {
    /// The most entries it holds.
    pub capacity: usize,
    /// The most graves it keeps.
    pub graves_max: usize,
    /// The rules that it follows.
    pub rules: Rules,
}

/// A value that a simulated node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its stamp.
    pub stamp: Stamp,
    /// Its bytes.
    pub bytes: Bytes,
    /// What is left of its life, in milliseconds; `None` where it does not expire.
    pub left_ms: Option<u64>,
}

/// A store that lives in simulated time, and that a simulation can look into.
pub trait SimStore: Store {
    /// An empty store of a node that starts now. Local writes take their stamps from `outbox`.
    fn open(settings: &StoreSettings, outbox: Arc<Outbox>, now: Now) -> Arc<Self>;

    /// Lets time pass; what is over is gone.
    fn set_now(&self, now: Now);

    /// A local put or remove. The life of a put is its `ttl.left_ms` from now on; nothing else of the `ttl` counts.
    fn write(&self, key: &[u8], op: Op) -> Stamp;

    /// A local clear of a namespace; `None` where an equal or newer one is known.
    fn clear_local(&self, namespace: &[u8]) -> Option<Stamp>;

    /// A local read, which counts as a use.
    fn get(&self, key: &[u8]) -> Option<Held>;

    /// The stamp of everything visible, by key.
    fn contents(&self) -> BTreeMap<Bytes, Stamp>;

    /// The bar of a key, clear barriers included.
    fn bar(&self, key: &[u8]) -> Bar;

    /// How many entries and how many graves it holds.
    fn sizes(&self) -> (usize, usize);
}
