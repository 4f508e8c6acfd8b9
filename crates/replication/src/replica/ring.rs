//! The newest records that this node sent, kept for peers that missed some.
//!
//! They are kept as the frames in which they were sent: one allocation for some hundred records, resent as it is.

use std::collections::VecDeque;

use bytes::Bytes;

/// Own frames by the numbers of their records, bounded by bytes: the oldest goes first.
#[derive(Debug)]
pub(crate) struct Ring {
    frames: VecDeque<Sent>,
    next: u64,
    bytes: usize,
    bytes_max: usize,
}

/// A frame of records; the next one begins where it ends.
#[derive(Debug)]
struct Sent {
    first: u64,
    frame: Bytes,
}

impl Ring {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { frames: VecDeque::new(), next: 1, bytes: 0, bytes_max }
    }

    /// The next number to be given.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The lowest number that can still be pulled.
    pub(crate) fn oldest(&self) -> u64 {
        self.frames.front().map_or(self.next, |sent| sent.first)
    }

    /// Passes over `count` numbers whose records were never sent. What is older can't be pulled without a hole, so it
    /// goes.
    pub(crate) fn skip(&mut self, count: u64) {
        self.next += count;
        self.frames.clear();
        self.bytes = 0;
    }

    /// Numbers the `count` records of a frame. Returns how many older ones went for it.
    pub(crate) fn push(&mut self, frame: Bytes, count: u64) -> u64 {
        let oldest = self.oldest();
        self.bytes += frame.len();
        self.frames.push_back(Sent { first: self.next, frame });
        self.next += count;
        while self.bytes > self.bytes_max {
            let Some(old) = self.frames.pop_front() else { break };
            self.bytes -= old.frame.len();
        }
        self.oldest() - oldest
    }

    /// The frames that hold the records `from..=to`, oldest first; the first and the last may hold others beside them.
    pub(crate) fn frames(&self, from: u64, to: u64) -> impl Iterator<Item = &Bytes> {
        let begins_later = self.frames.partition_point(|sent| sent.first <= from);
        let within = self.frames.iter().skip(begins_later.saturating_sub(1));
        within.take_while(move |sent| sent.first <= to).map(|sent| &sent.frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(name: &'static str) -> Bytes {
        Bytes::from_static(name.as_bytes())
    }

    fn pulled(ring: &Ring, from: u64, to: u64) -> Vec<&Bytes> {
        ring.frames(from, to).collect()
    }

    #[test]
    fn the_oldest_goes_at_the_bound_and_numbers_go_on() {
        let mut ring = Ring::new(2);
        let dropped: u64 =
            [("a", 3), ("b", 2), ("c", 1)].map(|(name, count)| ring.push(frame(name), count)).iter().sum();
        assert_eq!((dropped, ring.oldest(), ring.next()), (3, 4, 7));
    }

    #[test]
    fn a_pull_gets_the_frames_that_hold_its_records() {
        let mut ring = Ring::new(100);
        for (name, count) in [("a", 3), ("b", 2), ("c", 1)] {
            ring.push(frame(name), count);
        }
        assert_eq!(pulled(&ring, 1, 3), ["a"]);
        assert_eq!(pulled(&ring, 3, 4), ["a", "b"]);
        assert_eq!(pulled(&ring, 5, 5), ["b"]);
        assert_eq!(pulled(&ring, 4, 9), ["b", "c"]);
        assert_eq!(pulled(&ring, 7, 9), ["c"], "beyond the newest it is the newest");
    }

    #[test]
    fn skipped_numbers_empty_the_ring() {
        let mut ring = Ring::new(1_000);
        ring.push(frame("a"), 1);
        ring.skip(3);
        assert_eq!((ring.oldest(), ring.next()), (5, 5));
        ring.push(frame("b"), 2);
        assert_eq!((ring.oldest(), ring.next()), (5, 7));
    }

    #[test]
    fn a_frame_over_the_bound_is_numbered_and_not_kept() {
        let mut ring = Ring::new(2);
        assert_eq!(ring.push(frame("abc"), 2), 2);
        assert_eq!((ring.oldest(), ring.next()), (3, 3));
    }
}
