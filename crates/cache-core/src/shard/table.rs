//! Hashes to slots.
//!
//! The table grows with the entries, but not because of what removals leave behind: hashbrown marks the place of a removed entry
//! where a search may have to go on behind it, and when such marks fill a table that is more than half full, it doubles. A full
//! shard would so come to twice the memory it needs. Here a table with enough marks is made anew in its size instead.

use super::{Store, entry::Entry};

impl<K, V> Store<K, V> {
    /// Enters a slot whose entry is not in the slab yet.
    #[inline]
    pub(super) fn index(&mut self, hash: u64, slot: u32) {
        if self.table.capacity() == self.table.len() {
            self.refresh_table();
        }
        let slab = &self.slab;
        self.table.insert_unique(table_hash(hash), slot, |slot| hash_at(slab, *slot));
    }

    #[inline]
    pub(super) fn unindex(&mut self, hash: u64, slot: u32) {
        if let Ok(bucket) = self.table.find_entry(table_hash(hash), |&other| other == slot) {
            bucket.remove();
        }
    }

    /// Makes a table without room anew in its size, if it would have room but for the marks of what was removed.
    ///
    /// Where that would gain less than a sixteenth of the table it is left to grow: it would soon be full again.
    #[cold]
    fn refresh_table(&mut self) {
        // How many a table takes when it has no marks: seven eighths of its buckets.
        let room = self.table.num_buckets() / 8 * 7;
        if self.len() + room / 16 >= room {
            return;
        }
        self.table.clear();
        for (slot, entry) in self.slab.iter().enumerate() {
            if let Some(entry) = entry {
                self.table
                    .insert_unique(table_hash(entry.hash), slot as u32, |slot| hash_at(&self.slab, *slot));
            }
        }
    }
}

fn hash_at<K, V>(slab: &[Option<Entry<K, V>>], slot: u32) -> u64 {
    let entry = slab[slot as usize].as_ref();
    table_hash(entry.expect("a slot in the table is occupied").hash)
}

/// The hash as the table inside a shard takes it.
///
/// The top bits chose the shard, so they are equal here, and the table reads its tags from the top and its buckets from the bottom:
/// exchanging the halves gives both of them bits that still differ.
#[inline]
pub(super) fn table_hash(hash: u64) -> u64 {
    hash.rotate_left(32)
}
