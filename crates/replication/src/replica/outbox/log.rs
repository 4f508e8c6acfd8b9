//! The bytes of the records that wait, in the order in which they came.
//!
//! They stand in chunks, so that what left is given back and what stays is never moved by growth.

use std::{collections::VecDeque, ops::Range};

/// What a chunk holds. A longer record has one to itself.
pub(super) const CHUNK_BYTES: usize = 64 << 10;

/// Appended at the end, given back from the front.
#[derive(Debug, Default)]
pub(super) struct Log {
    chunks: VecDeque<Vec<u8>>,
    /// The number of the first chunk; chunks count on from it.
    first: u64,
    bytes: usize,
    /// A chunk that was given back, for the next one needed: the memory that is warm.
    spare: Option<Vec<u8>>,
}

/// Where a record stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    chunk: u64,
    at: u32,
    len: u32,
}

impl Place {
    pub(super) fn len(self) -> usize {
        self.len as usize
    }
}

impl Log {
    /// Appends a record of at most `bytes_max` bytes.
    pub(super) fn append<R>(
        &mut self,
        bytes_max: usize,
        write: impl FnOnce(&mut Vec<u8>) -> R,
    ) -> (Place, R) {
        let has_room = |chunk: &Vec<u8>| chunk.capacity() - chunk.len() >= bytes_max;
        if !self.chunks.back().is_some_and(has_room) {
            let spare = self.spare.take().filter(has_room);
            self.chunks.push_back(spare.unwrap_or_else(|| Vec::with_capacity(bytes_max.max(CHUNK_BYTES))));
        }
        let last = self.chunks.len() - 1;
        let chunk = &mut self.chunks[last];
        let at = chunk.len();
        let written = write(chunk);
        let len = chunk.len() - at;
        self.bytes += len;
        // A chunk is as long as its first record or `CHUNK_BYTES`, and a record far below 4 GiB.
        (Place { chunk: self.first + last as u64, at: at as u32, len: len as u32 }, written)
    }

    /// A record, or the part `within` it.
    pub(super) fn get(&self, place: Place, within: Range<usize>) -> &[u8] {
        let chunk = &self.chunks[(place.chunk - self.first) as usize];
        &chunk[place.at as usize..][..place.len()][within]
    }

    /// Gives back the chunks before the one that holds this record.
    pub(super) fn release_before(&mut self, place: Place) {
        while self.first < place.chunk {
            let Some(mut chunk) = self.chunks.pop_front() else { return };
            self.first += 1;
            self.bytes -= chunk.len();
            chunk.clear();
            self.spare = Some(chunk).filter(|chunk| chunk.capacity() < 2 * CHUNK_BYTES);
        }
    }

    /// Begins anew: nothing waits.
    pub(super) fn rewind(&mut self) {
        self.chunks.truncate(1);
        self.chunks.retain_mut(|chunk| {
            chunk.clear();
            chunk.capacity() < 2 * CHUNK_BYTES
        });
        self.bytes = 0;
    }

    /// The bytes held, those of records that do not wait any more included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
