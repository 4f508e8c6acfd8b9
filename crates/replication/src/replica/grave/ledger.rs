//! Graves by position and by age, in little memory.
//!
//! Three things are asked of graves, and a node has about as many as it may hold entries, so each byte of one counts.
//! - *What is known of this key?* At each write. A table of 32-bit node numbers under the hashes answers: entries of 5
//!   bytes can stand half empty after a doubling, the graves themselves could not.
//! - *Which was buried first?* At each burial past the bound. A list links the nodes, so that nothing stale is left of
//!   a key that lives again, and nothing has ever to be swept up.
//! - *Which lie in this range?* For a page of a sync. Leaves of up to [`LEAF_MAX`] numbers, under one flat directory of
//!   where each begins, part the graves by position; a leaf is sorted when it is read. Rejected: graves sorted in such
//!   leaves and no table, which took four times as long at each burial; and sorting all graves when a page is wanted.
//!
//! # Bytes
//! A node is 32 bytes and the nodes are dense: the last moves into a gap. Tables of nodes and leaves grow by an eighth.
//! A leaf has at most [`LEAF_SPARE_MAX`] places to spare, and two neighbours hold more than [`LEAF_PAIR_MIN`] together.
//! So a grave takes at most 72 bytes whatever comes and goes, about 48 usually, and a ledger 2 KiB beside. Tested by
//! counting capacities.

use std::mem;

use hashbrown::HashTable;

use crate::{
    message::{Bar, Grave},
    stamp::Stamp,
};

/// A leaf that is this full is halved.
const LEAF_MAX: usize = 64;
/// Neighbours that hold no more than this together become one. With half of [`LEAF_MAX`], halving never makes such two.
const LEAF_PAIR_MIN: usize = LEAF_MAX / 2;
/// The most places that a leaf has to spare.
const LEAF_SPARE_MAX: usize = 8;

/// No node: where the list ends. Node numbers have 31 bits.
const NONE: u32 = u32::MAX >> 1;
/// The bit above a node number.
const STRICT: u32 = 1 << 31;

/// Graves, at most one a position.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    nodes: Vec<Node>,
    index: HashTable<u32>,
    /// The ends of the list; meaningless while there is no node.
    oldest: u32,
    newest: u32,
    /// The least position that each leaf may hold; the first holds from 0 on.
    firsts: Vec<u64>,
    leaves: Vec<Vec<u32>>,
}

/// A grave, and its place in the order of burial.
#[derive(Debug, Clone, Copy)]
struct Node {
    position: u64,
    stamp: Stamp,
    older: u32,
    /// The next younger node, and in the top bit whether the bar is strict.
    newer_and_strict: u32,
}

impl Node {
    fn new(position: u64, bar: Bar) -> Self {
        let mut node = Self { position, stamp: bar.stamp, older: NONE, newer_and_strict: NONE };
        node.set_bar(bar);
        node
    }

    fn grave(&self) -> Grave {
        Grave { position: self.position, bar: self.bar() }
    }

    fn bar(&self) -> Bar {
        Bar { stamp: self.stamp, strict: self.newer_and_strict & STRICT != 0 }
    }

    fn set_bar(&mut self, bar: Bar) {
        self.stamp = bar.stamp;
        self.newer_and_strict = self.newer() | if bar.strict { STRICT } else { 0 };
    }

    fn newer(&self) -> u32 {
        self.newer_and_strict & !STRICT
    }

    fn set_newer(&mut self, newer: u32) {
        self.newer_and_strict = newer | (self.newer_and_strict & STRICT);
    }
}

impl Ledger {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn bar(&self, position: u64) -> Option<Bar> {
        Some(self.nodes[self.find(position)? as usize].bar())
    }

    /// Writes a grave down as the newest, unless the one that is there has no lower bar. One too many takes the place of
    /// the oldest, which is returned.
    pub(super) fn bury(&mut self, position: u64, bar: Bar, graves_max: usize) -> Option<Grave> {
        if let Some(number) = self.find(position) {
            let held = &mut self.nodes[number as usize];
            if held.bar() < bar {
                held.set_bar(bar);
                self.unlink(number);
                self.link_newest(number);
            }
            return None;
        }
        if self.nodes.len() < graves_max {
            let number = u32::try_from(self.nodes.len()).ok().filter(|number| *number < NONE);
            let number = number.expect("memory for 2^31 graves in one shard is not to be had");
            grow(&mut self.nodes);
            self.nodes.push(Node::new(position, bar));
            self.enter(number);
            return None;
        }
        let Some(&oldest) = self.nodes.get(self.oldest as usize) else {
            return Some(Grave { position, bar }); // There is room for none: it is forgotten at once.
        };
        let number = self.oldest;
        self.leave(number);
        self.nodes[number as usize] = Node::new(position, bar);
        self.enter(number);
        Some(oldest.grave())
    }

    pub(super) fn remove(&mut self, position: u64) {
        let Some(number) = self.find(position) else { return };
        self.leave(number);
        self.nodes.swap_remove(number as usize);
        shrink(&mut self.nodes);
        if self.nodes.len() > number as usize {
            self.renumber(self.nodes.len() as u32, number);
        }
        let nodes = &self.nodes;
        // A table that just grew is nearly half full, so a few more and a few less do not make it go up and down.
        if self.index.num_buckets() > 3 * nodes.len() + 16 {
            self.index.shrink_to(nodes.len(), |&number| hash(nodes[number as usize].position));
        }
    }

    /// Takes out the graves below a bar.
    pub(super) fn remove_below(&mut self, bar: Bar) {
        if self.nodes.iter().all(|node| node.bar() >= bar) {
            return;
        }
        let whole = mem::take(self);
        let mut next = whole.nodes.get(whole.oldest as usize);
        while let Some(node) = next {
            if node.bar() >= bar {
                self.bury(node.position, node.bar(), usize::MAX);
            }
            next = whole.nodes.get(node.newer() as usize);
        }
    }

    /// The graves at positions from `lo` on, in that order.
    pub(super) fn from(&self, lo: u64) -> impl Iterator<Item = Grave> + '_ {
        let leaves = self.leaves.get(self.leaf_of(lo)..).unwrap_or_default();
        leaves.iter().flat_map(move |leaf| {
            let nodes = leaf.iter().map(|&number| &self.nodes[number as usize]);
            let within = nodes.filter(|node| node.position >= lo);
            let mut graves: Vec<Grave> = within.map(Node::grave).collect();
            graves.sort_unstable_by_key(|grave| grave.position);
            graves
        })
    }

    fn find(&self, position: u64) -> Option<u32> {
        let is_it = |&number: &u32| self.nodes[number as usize].position == position;
        self.index.find(hash(position), is_it).copied()
    }

    /// Enters a node into index, list and leaf.
    fn enter(&mut self, number: u32) {
        let nodes = &self.nodes;
        let position = nodes[number as usize].position;
        self.index.insert_unique(hash(position), number, |&number| hash(nodes[number as usize].position));
        self.link_newest(number);
        self.add_to_leaf(position, number);
    }

    /// Takes a node out of index, list and leaf.
    fn leave(&mut self, number: u32) {
        let position = self.nodes[number as usize].position;
        self.unlink(number);
        if let Ok(entry) = self.index.find_entry(hash(position), |&held| held == number) {
            entry.remove();
        }
        self.remove_from_leaf(position, number);
    }

    /// Tells list, index and leaf that the node which had the number `from` now has the number `to`.
    fn renumber(&mut self, from: u32, to: u32) {
        let Node { position, older, .. } = self.nodes[to as usize];
        let newer = self.nodes[to as usize].newer();
        self.join(older, to);
        self.join(to, newer);
        if let Some(held) = self.index.find_mut(hash(position), |&held| held == from) {
            *held = to;
        }
        let leaf = self.leaf_of(position);
        if let Some(held) = self.leaves[leaf].iter_mut().find(|held| **held == from) {
            *held = to;
        }
    }

    /// Puts a node that is not in the list at its end.
    fn link_newest(&mut self, number: u32) {
        let older = if self.nodes.len() == 1 { NONE } else { self.newest };
        self.join(older, number);
        self.join(number, NONE);
    }

    fn unlink(&mut self, number: u32) {
        let node = &self.nodes[number as usize];
        self.join(node.older, node.newer());
    }

    /// Makes two nodes neighbours in the list; with [`NONE`], the other one its end.
    fn join(&mut self, older: u32, newer: u32) {
        match older {
            NONE => self.oldest = newer,
            older => self.nodes[older as usize].set_newer(newer),
        }
        match newer {
            NONE => self.newest = older,
            newer => self.nodes[newer as usize].older = older,
        }
    }

    fn leaf_of(&self, position: u64) -> usize {
        self.firsts.partition_point(|first| *first <= position).saturating_sub(1)
    }

    fn add_to_leaf(&mut self, position: u64, number: u32) {
        let mut at = self.leaf_of(position);
        if self.leaves.is_empty() {
            self.add_leaf(0, 0, Vec::new());
        } else if self.leaves[at].len() == LEAF_MAX {
            self.halve(at);
            at += usize::from(position >= self.firsts[at + 1]);
        }
        let leaf = &mut self.leaves[at];
        if leaf.len() == leaf.capacity() {
            leaf.reserve_exact(LEAF_SPARE_MAX.min(LEAF_MAX - leaf.len()));
        }
        leaf.push(number);
    }

    fn halve(&mut self, at: usize) {
        let nodes = &self.nodes;
        let leaf = &mut self.leaves[at];
        leaf.sort_unstable_by_key(|&number| nodes[number as usize].position);
        let upper = leaf.split_off(LEAF_MAX / 2);
        leaf.shrink_to(LEAF_MAX / 2 + LEAF_SPARE_MAX / 2);
        let first = nodes[upper[0] as usize].position;
        self.add_leaf(at + 1, first, upper);
    }

    fn add_leaf(&mut self, at: usize, first: u64, leaf: Vec<u32>) {
        grow(&mut self.firsts);
        self.firsts.insert(at, first);
        grow(&mut self.leaves);
        self.leaves.insert(at, leaf);
    }

    fn remove_from_leaf(&mut self, position: u64, number: u32) {
        let at = self.leaf_of(position);
        let leaf = &mut self.leaves[at];
        if let Some(index) = leaf.iter().position(|held| *held == number) {
            leaf.swap_remove(index);
        }
        if leaf.capacity() - leaf.len() > LEAF_SPARE_MAX {
            leaf.shrink_to(leaf.len() + LEAF_SPARE_MAX / 2);
        }
        let len = |at: usize| self.leaves.get(at).map(Vec::len);
        let is_small = |lower: usize| Some(len(lower)? + len(lower + 1)? <= LEAF_PAIR_MIN);
        if is_small(at) == Some(true) {
            self.merge_leaves(at);
        } else if at > 0 && is_small(at - 1) == Some(true) {
            self.merge_leaves(at - 1);
        }
    }

    /// Makes one leaf of this one and the next.
    fn merge_leaves(&mut self, at: usize) {
        self.firsts.remove(at + 1);
        let upper = self.leaves.remove(at + 1);
        let leaf = &mut self.leaves[at];
        leaf.reserve_exact(upper.len());
        leaf.extend(upper);
        leaf.shrink_to(leaf.len() + LEAF_SPARE_MAX / 2);
        shrink(&mut self.firsts);
        shrink(&mut self.leaves);
    }
}

/// Positions are hashes already; within a shard their top bits are alike, so one multiplication spreads the rest.
fn hash(position: u64) -> u64 {
    position.rotate_left(32).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Makes room for one more: an eighth more than there is, where doubling would leave half of it empty.
fn grow<T>(table: &mut Vec<T>) {
    if table.len() == table.capacity() {
        table.reserve_exact(table.len() / 8 + 4);
    }
}

/// Gives back what a table has long not needed.
fn shrink<T>(table: &mut Vec<T>) {
    if table.capacity() > table.len() + table.len() / 4 + 8 {
        table.shrink_to(table.len() + table.len() / 8 + 4);
    }
}

#[cfg(test)]
mod tests;
