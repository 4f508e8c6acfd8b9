//! What can be looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use bytes::Bytes;

use super::{SimStore, World};
use crate::{
    node::NodeId,
    replica::{Outbox, Replica, Status},
    sim::{NodeSetup, Traffic},
    stamp::Stamp,
};

impl<S: SimStore> World<S> {
    /// The store of a node. After a crash it is that of the life that ended, until the next begins.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn store(&self, node: usize) -> &S {
        &self.nodes[node].store
    }

    /// The outbox of a node. After a crash it is that of the life that ended, until the next begins.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn outbox(&self, node: usize) -> &Outbox {
        &self.nodes[node].outbox
    }

    /// The replica of a node; `None` while its process is down.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn replica(&self, node: usize) -> Option<&Replica<S>> {
        self.nodes[node].replica.as_ref()
    }

    /// What the replica of a node says of itself; `None` while its process is down.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn status(&self, node: usize) -> Option<Status> {
        self.replica(node).map(|replica| replica.status(self.now(node)))
    }

    /// How a node is laid out.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn setup_of(&self, node: usize) -> &NodeSetup {
        &self.nodes[node].setup
    }

    /// The name of a node.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn id(&self, node: usize) -> &NodeId {
        &self.nodes[node].setup.config.node
    }

    /// Which life a node is in, or was in last; the first is 1.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn life(&self, node: usize) -> u64 {
        self.nodes[node].life
    }

    /// Whether the process of a node is up, if perhaps paused.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn is_up(&self, node: usize) -> bool {
        self.nodes[node].replica.is_some()
    }

    /// Whether the process of a node is paused.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn is_paused(&self, node: usize) -> bool {
        self.nodes[node].is_paused
    }

    /// Whether the transport of a node is connected.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn is_connected(&self, node: usize) -> bool {
        self.nodes[node].is_connected
    }

    /// Whether the process of a node is up and ready rather than warming.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn is_ready(&self, node: usize) -> bool {
        self.replica(node).is_some_and(Replica::is_ready)
    }

    /// What a node sent so far, in all its lives.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn traffic(&self, node: usize) -> &Traffic {
        &self.nodes[node].traffic
    }

    /// Whether every process that is up is ready, and all of them hold the same keys with the same stamps.
    pub fn converged(&self) -> bool {
        let up = (0..self.len()).filter(|node| self.is_up(*node));
        let mut up = up.peekable();
        let Some(first) = up.peek().map(|node| self.store(*node).contents()) else { return true };
        up.all(|node| self.is_ready(node) && self.store(node).contents() == first)
    }

    /// The keys that the processes that are up do not all hold with one stamp. Where stores are too small for all keys,
    /// a key that some lack is no fault; one that [`Difference::is_conflict`] is.
    pub fn differences(&self) -> Vec<Difference> {
        let up: Vec<usize> = (0..self.len()).filter(|node| self.is_up(*node)).collect();
        let contents: Vec<BTreeMap<Bytes, Stamp>> =
            up.iter().map(|node| self.store(*node).contents()).collect();
        let keys: BTreeSet<&Bytes> = contents.iter().flat_map(BTreeMap::keys).collect();
        let differences = keys.into_iter().filter_map(|key| {
            let held: Vec<_> =
                up.iter().zip(&contents).map(|(node, held)| (*node, held.get(key).copied())).collect();
            let differ = held.windows(2).any(|pair| pair[0].1 != pair[1].1);
            differ.then(|| Difference { key: key.clone(), held })
        });
        differences.collect()
    }
}

/// A key that nodes hold differently.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The key.
    pub key: Bytes,
    /// Each node whose process is up, with the stamp that it holds, if it holds one.
    pub held: Vec<(usize, Option<Stamp>)>,
}

impl Difference {
    /// Whether two nodes hold it with different stamps, rather than some holding it and some not.
    pub fn is_conflict(&self) -> bool {
        let mut stamps = self.held.iter().filter_map(|(_, stamp)| *stamp);
        let first = stamps.next();
        stamps.any(|stamp| Some(stamp) != first)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.key.escape_ascii())?;
        for (node, stamp) in &self.held {
            match stamp {
                Some(stamp) => write!(f, " node {node} has {stamp};")?,
                None => write!(f, " node {node} has none;")?,
            }
        }
        Ok(())
    }
}
