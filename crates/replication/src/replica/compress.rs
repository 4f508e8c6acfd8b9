//! Which frames leave compressed.
//!
//! A frame is compressed when it is built, once for all who get it, and only while every known peer reads that: a
//! broadcast goes to all of them. Frames of the ring are expanded
//! when they answer a pull, since the asker may be one that was not heard yet when they were compressed.

use bytes::Bytes;

use super::{Replica, Store};
use crate::{node::Origin, wire};

impl<S: Store> Replica<S> {
    /// The frame as it leaves.
    pub(super) fn packed(&mut self, frame: Bytes) -> Bytes {
        let Some(bytes_min) = self.config.compress_above else { return frame };
        if !self.peers.keys().all(|&peer| self.reads_compressed(peer)) {
            return frame;
        }
        let bytes = frame.len();
        let frame = wire::compress(frame, bytes_min);
        let saved = bytes - frame.len();
        self.counters.frames_compressed += u64::from(saved > 0);
        self.counters.compressed_bytes_saved += saved as u64;
        frame
    }

    /// Whether the peer said so in its last beat.
    fn reads_compressed(&self, peer: Origin) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.capabilities & wire::READS_COMPRESSED != 0)
    }
}
