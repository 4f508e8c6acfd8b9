//! The answer to a pull: frames of the ring, small ones joined.
//!
//! A node that is not busy sends each write in a frame of its own, so the frames of the ring may hold a few records each,
//! and a hole of some seconds thousands of them. Each would be a message of the transport, with its own confirm, and
//! bounds that count frames would bound next to nothing. So an answer is made of frames as full as any.
//!
//! Frames are joined whole: what a frame claims to be complete up to ([`Message::Records`]'s `held_back`) is true at its
//! end, not within it.

use bytes::Bytes;

use super::{Outgoing, Replica, Store};
use crate::{
    message::{Frame, Message},
    node::Origin,
    stamp::Hlc,
    wire::{self, RecordsEncoder},
};

/// Frames of consecutive records, joined up to the size of a frame.
struct Joined<'a> {
    encoder: &'a mut RecordsEncoder,
    /// The number of the first record of the frame that is being built.
    first: u64,
    /// What the last frame in it holds back.
    held_back: Option<Hlc>,
    /// The pull whose answer ends with it.
    answers: Option<u64>,
    frames: Vec<Bytes>,
}

impl<S: Store> Replica<S> {
    /// Sends the records `from..=to` of the ring, as many as one answer holds, and says with the last frame that the
    /// answer ends. It leaves half of the room of what waits for single nodes to others, but is a frame at least.
    pub(super) fn answer_pull(&mut self, asker: Origin, from: u64, to: u64) {
        let room = self.config.control_room();
        let frames_max = (room.items / 2).saturating_sub(self.control.len());
        let frames_max = frames_max.min(self.config.pull_frames_max).max(1);
        let bytes_max = (room.bytes / 2).saturating_sub(self.control.bytes());
        let kept = self.ring.frames(from, to).cloned();
        let frames = join(&mut self.frame, from, kept, frames_max, bytes_max);
        for frame in frames {
            let frame = self.packed(frame);
            self.send(asker, Outgoing::Encoded(frame));
        }
    }
}

/// The answer to the pull from the number `from` on, of the frames that the ring has from there.
fn join(
    encoder: &mut RecordsEncoder,
    from: u64,
    kept: impl Iterator<Item = Bytes>,
    frames_max: usize,
    bytes_max: usize,
) -> Vec<Bytes> {
    let mut joined = Joined { encoder, first: from, held_back: None, answers: None, frames: Vec::new() };
    let mut bytes = 0;
    for frame in kept {
        // An own frame expands and can be read; were it otherwise, the answer would end before it.
        let Ok(frame) = wire::decompress(frame) else { break };
        let frame_bytes = frame.len();
        bytes += frame_bytes;
        let Ok(Frame { wants_receipt, message, .. }) = wire::decode(frame) else { break };
        let Message::Records { first, records, held_back, .. } = message else { break };
        if !joined.has_room(frame_bytes, records.len()) {
            if joined.frames.len() + 1 >= frames_max || bytes > bytes_max {
                break;
            }
            joined.close();
        }
        if joined.encoder.is_empty() {
            joined.first = first;
        }
        records.iter().for_each(|record| joined.encoder.push(record));
        joined.held_back = held_back;
        if wants_receipt {
            joined.encoder.ask_receipt();
        }
    }
    joined.end(from)
}

impl Joined<'_> {
    /// Whether a frame of so many bytes fits the one that is being built. Joined, it takes fewer.
    fn has_room(&self, bytes: usize, records: usize) -> bool {
        let encoder = &self.encoder;
        encoder.is_empty()
            || (encoder.len() + bytes <= wire::FRAME_BYTES
                && encoder.count() + records <= wire::FRAME_RECORDS)
    }

    fn close(&mut self) {
        if let Some(hlc) = self.held_back.take() {
            self.encoder.hold_back(hlc);
        }
        if let Some(from) = self.answers {
            self.encoder.answer(from);
        }
        self.frames.push(self.encoder.finish(self.first));
    }

    /// The last frame says which pull was answered.
    fn end(mut self, from: u64) -> Vec<Bytes> {
        if !self.encoder.is_empty() {
            self.answers = Some(from);
            self.close();
        }
        self.frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        node::NodeId,
        record::{Op, Record},
        stamp::Stamp,
    };

    fn from() -> NodeId {
        NodeId::new("eu-central".parse().unwrap(), "n1").unwrap()
    }

    fn encoder() -> RecordsEncoder {
        RecordsEncoder::new(&from(), 7, 1)
    }

    fn record(number: u64, key_bytes: usize) -> Record {
        let stamp = Stamp { hlc: Hlc(1_000 + number), origin: from().origin() };
        Record { stamp, key: vec![b'k'; key_bytes].into(), op: Op::Remove, previous: None }
    }

    /// Frames of these records, `count` each, whose keys have so many bytes. Each holds back a clock of its own.
    fn frames(numbers: std::ops::RangeInclusive<u64>, count: usize, key_bytes: usize) -> Vec<Bytes> {
        let mut encoder = encoder();
        let numbers: Vec<u64> = numbers.collect();
        let frames = numbers.chunks(count).map(|chunk| {
            chunk.iter().for_each(|&number| encoder.push(&record(number, key_bytes)));
            encoder.hold_back(Hlc(chunk[chunk.len() - 1]));
            encoder.finish(chunk[0])
        });
        frames.collect()
    }

    /// Of each frame: the first and the last number, what is held back, and what it says that it answers.
    fn told(frames: &[Bytes]) -> Vec<(u64, u64, Option<Hlc>, Option<u64>)> {
        let told = frames.iter().map(|frame| {
            let message = wire::decode(frame.clone()).unwrap().message;
            let Message::Records { first, records, held_back, answers } = message else {
                panic!("{message:?}")
            };
            let numbers = (first..).zip(&records);
            assert!(numbers.clone().all(|(number, found)| *found == record(number, found.key.len())));
            (first, first + records.len() as u64 - 1, held_back, answers)
        });
        told.collect()
    }

    fn join_all(kept: Vec<Bytes>, from: u64, frames_max: usize, bytes_max: usize) -> Vec<Bytes> {
        join(&mut encoder(), from, kept.into_iter(), frames_max, bytes_max)
    }

    #[test]
    fn small_frames_leave_as_one_that_claims_what_the_last_of_them_did() {
        let answer = join_all(frames(1..=30, 3, 10), 2, 8, 1 << 20);
        assert_eq!(told(&answer), [(1, 30, Some(Hlc(30)), Some(2))]);
    }

    #[test]
    fn a_frame_is_never_cut_and_no_joined_one_is_longer_than_any_other() {
        let answer = join_all(frames(1..=100, 5, 5_000), 1, 100, 1 << 20);
        assert!(answer.iter().all(|frame| frame.len() <= wire::FRAME_BYTES));
        let told = told(&answer);
        assert_eq!(told[0], (1, 25, Some(Hlc(25)), None), "26 records would fit");
        assert_eq!(told.last(), Some(&(76, 100, Some(Hlc(100)), Some(1))), "the last alone ends the answer");
        assert!(told.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0 && pair[0].3.is_none()));
        assert_eq!(join_all(frames(1..=3_000, 100, 1), 1, 100, 1 << 20).len(), 3, "1,024 records a frame");
    }

    #[test]
    fn an_answer_keeps_to_its_bounds_and_is_a_frame_at_least() {
        let long = || frames(1..=100, 1, 100_000);
        assert_eq!(told(&join_all(long(), 1, 8, usize::MAX)).last(), Some(&(8, 8, Some(Hlc(8)), Some(1))));
        assert_eq!(join_all(long(), 1, 100, 350_000).len(), 3);
        assert_eq!(join_all(long(), 1, 1, 0).len(), 1);
        assert_eq!(join_all(Vec::new(), 1, 8, 1 << 20).len(), 0);
    }

    #[test]
    fn compressed_frames_are_joined_at_their_full_length() {
        let kept = frames(1..=100, 1, 60_000).into_iter().map(|frame| wire::compress(frame, 1)).collect();
        let answer = join_all(kept, 1, 8, usize::MAX);
        assert_eq!(
            told(&answer).iter().map(|frame| frame.1).collect::<Vec<_>>(),
            [2, 4, 6, 8, 10, 12, 14, 16]
        );
    }
}
