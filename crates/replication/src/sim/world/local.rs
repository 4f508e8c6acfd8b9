//! What is done on a node: writes and reads by its own clients.

use std::sync::Arc;

use bytes::Bytes;

use super::{SimStore, World};
use crate::{
    record::{Op, Ttl, Value},
    replica::{Now, Replica},
    sim::{Event, Held},
    stamp::Stamp,
};

impl<S: SimStore> World<S> {
    /// Writes a value that does not expire on a node. Returns its stamp; `None` if the process is down or paused.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn put(&mut self, node: usize, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Option<Stamp> {
        self.put_value(node, key.as_ref(), value.as_ref(), None)
    }

    /// Writes a value that expires after `ttl_ms` on a node. Returns its stamp; `None` if the process is down or
    /// paused.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn put_for(
        &mut self,
        ttl_ms: u64,
        node: usize,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Option<Stamp> {
        self.put_value(node, key.as_ref(), value.as_ref(), Some(ttl_ms))
    }

    pub(super) fn put_value(
        &mut self,
        node: usize,
        key: &[u8],
        bytes: &[u8],
        ttl_ms: Option<u64>,
    ) -> Option<Stamp> {
        let born_ms = self.now(node).mono_ms;
        let ttl = ttl_ms.map(|left_ms| Ttl { left_ms, born_ms });
        let value = Value { bytes: Bytes::copy_from_slice(bytes), ttl, ..Value::default() };
        self.write(node, key, &Op::Put(value))
    }

    /// Removes a key on a node. Returns the stamp; `None` if the process is down or paused.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn remove(&mut self, node: usize, key: impl AsRef<[u8]>) -> Option<Stamp> {
        self.write(node, key.as_ref(), &Op::Remove)
    }

    fn write(&mut self, node: usize, key: &[u8], op: &Op) -> Option<Stamp> {
        let store = self.store_now(node)?;
        let stamp = store.write(key, op.clone());
        self.emit(&Event::Wrote { node, key, op, stamp });
        self.wake(node, self.now_ms);
        Some(stamp)
    }

    /// Clears a namespace on a node; the empty one is the whole cache. Returns the stamp; `None` if the process is
    /// down or paused, or knows an equal or newer clear of it.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn clear(&mut self, node: usize, namespace: impl AsRef<[u8]>) -> Option<Stamp> {
        let namespace = namespace.as_ref();
        let stamp = self.store_now(node)?.clear_local(namespace);
        self.emit(&Event::Cleared { node, namespace, stamp });
        self.wake(node, self.now_ms);
        stamp
    }

    /// Reads a key on a node, which counts as a use; `None` where it holds none, or if the process is down or paused.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn get(&mut self, node: usize, key: impl AsRef<[u8]>) -> Option<Held> {
        let key = key.as_ref();
        let held = self.store_now(node)?.get(key);
        self.emit(&Event::Read { node, key, held: held.as_ref() });
        held
    }

    /// What [`Self::get`] reads, as text. Bytes that are not UTF-8 are replaced.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn text(&mut self, node: usize, key: impl AsRef<[u8]>) -> Option<String> {
        self.get(node, key).map(|held| String::from_utf8_lossy(&held.bytes).into_owned())
    }

    /// Calls a method of a node's replica as its driver would, and has the node send what that asks for. `None` if the
    /// process is down or paused.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn call<R>(&mut self, node: usize, call: impl FnOnce(&mut Replica<S>, Now) -> R) -> Option<R> {
        self.store_now(node)?;
        let now = self.now(node);
        let result = self.nodes[node].replica.as_mut().map(|replica| call(replica, now));
        self.emit(&Event::Called { node });
        self.wake(node, self.now_ms);
        result
    }

    /// The store of a process that can be asked now, told the time.
    fn store_now(&self, node: usize) -> Option<Arc<S>> {
        let asked = &self.nodes[node];
        asked.is_running().then(|| {
            asked.store.set_now(asked.now(self.now_ms));
            Arc::clone(&asked.store)
        })
    }
}
