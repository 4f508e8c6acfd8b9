//! Which frames leave compressed.
//!
//! A frame is compressed when it is built, once for all who get it, and only while every known peer reads that: a
//! broadcast goes to all of them. A peer that does not, and asks for a frame that was compressed before it was heard, gets
//! it expanded.

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

    /// A frame of the ring as this peer can read it.
    pub(super) fn readable(&self, peer: Origin, frame: Bytes) -> Bytes {
        if self.config.compress_above.is_none() || self.reads_compressed(peer) {
            return frame;
        }
        // An own frame expands; were it otherwise, the peer would refuse it and say so.
        wire::decompress(frame.clone()).unwrap_or(frame)
    }

    /// Whether the peer said so in its last beat.
    fn reads_compressed(&self, peer: Origin) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.capabilities & wire::READS_COMPRESSED != 0)
    }
}
