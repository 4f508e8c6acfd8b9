//! The lives of a node: each begins above everything its clock has shown.
//!
//! A node's streams are told apart by their epochs, and of two epochs of one node the later counts. So a node whose
//! machine's clock went back since its last life, and that was not told before it began to write, is taken for a dead
//! one by all others. Their beats name the later life; the node then begins again above that. What it wrote meanwhile
//! is not lost: the overtaken life stays in its reports as a stream that it holds whole, so that the others sync what
//! they miss of it, removes and clears included (those that had not left are the first records of the new life); and the
//! values among it that are still current are issued anew, with what is left of their lives, since their stamps of a
//! clock gone back may lie below what others have forgotten.
//!
//! A starting node that listens before its first word begins again after that, above all that it has heard, so that its
//! lives do not overlap; and so does one that learns later that an earlier life of its own stamped beyond its epoch.
//!
//! # Bounds
//! A life begins again at most [`RE_EPOCHS_MAX`] times: beyond that another process of the same name does the same, and
//! the node stops with [`Failure::Duplicate`]. Re-issuing looks at a page of records a tick.

use super::{Failure, Now, Replica, Ring, Store, receive::TWIN_BEATS, wire};
use crate::{
    node::Stream,
    stamp::{Clock, Hlc, Stamp},
};

/// How often a node begins again before it concludes that another process has its name.
pub(super) const RE_EPOCHS_MAX: u32 = 16;

/// The bytes of records that a tick looks at for those to be issued anew.
const REISSUE_BYTES: usize = 256 * 1024;

/// A walk over what is live here, for what an overtaken life wrote.
#[derive(Debug)]
pub(super) struct Reissue {
    position: u64,
    /// The overtaken life's stamps: above its epoch, below the next one.
    above: u64,
    below: u64,
}

impl<S: Store> Replica<S> {
    /// Begins a life in which nothing was written yet.
    pub(super) fn begin_epoch(&mut self, now: Now) {
        let nonce = self.random.u16(..);
        self.outbox.begin_life(|clock| {
            self.epoch = epoch_above(clock, now, nonce);
            self.epoch
        });
        self.enter_epoch();
    }

    /// What a life needs of its own.
    fn enter_epoch(&mut self) {
        self.own = wire::SenderMark::new(&self.config.node, self.epoch, self.cache);
        self.frame = wire::RecordsEncoder::new(&self.config.node, self.epoch, self.cache);
        self.numbered = Hlc(self.epoch);
        self.complete = self.numbered;
        self.ring = Ring::new(self.config.ring_bytes_max);
        self.twin = None;
        self.lives.push(self.epoch);
    }

    /// The others know a later life of this node: either that life is another process, or this machine's clock went
    /// back since.
    pub(super) fn notice_later_life(&mut self, now: Now, later: u64) {
        let node = self.config.node.clone();
        if !self.config.rules.re_epoch {
            return;
        }
        let has_twin = self.twin.is_some_and(|(_, beats)| beats >= TWIN_BEATS);
        if has_twin || self.re_epochs >= RE_EPOCHS_MAX {
            return self.fail(Failure::Duplicate { node });
        }
        tracing::warn!(%node, "the clock of this machine went back since its last life; beginning above that");
        self.re_epochs += 1;
        self.counters.re_epochs += 1;
        self.outbox.clock().observe(Hlc(later));
        self.begin_again(now);
    }

    /// The time of listening is over. Where beats were heard in it, and nothing was written, the life begins again above
    /// all that they have shown: this node's last life may have stamped above its own wall clock, lifted by what others wrote, and lives
    /// that do not overlap are told apart for certain.
    pub(super) fn end_quiet(&mut self, now: Now) {
        if !self.is_quiet || now.mono_ms < self.quiet_until_ms {
            return;
        }
        self.is_quiet = false;
        // What was written meanwhile keeps its stamps: a start is no reason to let it win over what others wrote since.
        let has_heard = self.peers.values().any(|peer| peer.beat.is_some());
        if has_heard && self.outbox.is_fresh() && self.config.rules.re_epoch {
            self.begin_epoch(now);
        }
    }

    fn begin_again(&mut self, now: Now) {
        let above = self.reissue.as_ref().map_or(self.epoch, |walk| walk.above);
        let overtaken = self.stream();
        let nonce = self.random.u16(..);
        let left = self.outbox.begin_life_anew(|clock| {
            self.epoch = epoch_above(clock, now, nonce);
            self.epoch
        });
        // Puts that have not left are numbered in the life that ends, of which this node holds the whole.
        let last = self.ring.next() - 1 + left.skipped + left.records;
        let hlc = left.newest.unwrap_or(self.numbered);
        self.enter_epoch();
        if let Some(state) = self.stream_mut(now, overtaken).filter(|_| last > 0) {
            state.adopt(last, hlc, hlc);
        }
        self.reissue = Some(Reissue { position: 0, above, below: self.epoch });
        self.beat_soon(now);
    }

    /// Issues anew what an overtaken life wrote and is still current, a page at a time.
    pub(super) fn drive_reissue(&mut self, now: Now) {
        let Some(walk) = &mut self.reissue else { return };
        let page = self.store.page(walk.position, REISSUE_BYTES, now.mono_ms);
        let (origin, above, below) = (self.origin, walk.above, walk.below);
        let is_own = |stamp: Stamp| stamp.origin == origin && (above..below).contains(&stamp.hlc.0);
        for record in page.records.iter().filter(|record| is_own(record.stamp)) {
            let is_current = self.store.reissue(&record.key, record.stamp, now);
            self.counters.records_reissued += u64::from(is_current);
        }
        match page.hi {
            Some(hi) => walk.position = hi,
            None => self.reissue = None,
        }
    }

    /// This life's stream.
    pub fn stream(&self) -> Stream {
        Stream { origin: self.origin, epoch: self.epoch }
    }
}

/// An epoch above everything that the clock has shown; its low bits are a nonce, since two lives under one backward clock
/// must differ.
fn epoch_above(clock: &Clock, now: Now, nonce: u16) -> u64 {
    // The next whole millisecond leaves the counter's bits to the nonce.
    Hlc::from_ms(clock.tick(now.wall_ms).ms() + 1).0 | u64::from(nonce)
}

#[cfg(test)]
mod tests {
    use crate::{
        message::{Beat, Message},
        replica::one::{EPOCH, One, peer, report, stream_of},
        stamp::Hlc,
    };

    /// A node met another's later life by a pull alone, took all that its next life said for an echo of the dead, and
    /// never told it why.
    #[test]
    fn a_node_that_is_taken_for_dead_is_told_by_which_life() {
        let mut one = One::new(true);
        let there = peer("ap-south");
        let stream = one.replica.stream();
        one.hear_in(&there, EPOCH + 9, Message::Pull { stream, from: 1, to: 1 });
        one.hear_in(&there, EPOCH, Message::Beat(Beat::default()));
        let status = one.replica.status(one.now);
        assert_eq!(status.counters.frames_zombie, 1);
        assert!(status.streams.iter().any(|report| report.stream.epoch == EPOCH + 9));
    }

    /// A mended node began above its own poisoned life, which a relay had taught the others, and was shut out for it.
    #[test]
    fn a_life_that_was_too_far_ahead_is_neither_begun_above_nor_passed_on() {
        let mut one = One::new(true);
        let there = peer("ap-south");
        let poisoned = Hlc::from_ms(one.now.wall_ms + 301_000).0;
        let mine = crate::Stream { epoch: poisoned, ..one.replica.stream() };
        let theirs = crate::Stream { epoch: poisoned, ..stream_of(&peer("eu-central")) };
        one.hear_beat(&there, 20, vec![report(mine, 3, Hlc(poisoned)), report(theirs, 3, Hlc(poisoned))]);
        let status = one.replica.status(one.now);
        assert_eq!(status.counters.re_epochs, 0);
        assert!(status.streams.iter().all(|report| report.stream.epoch < poisoned));
    }

    #[test]
    fn a_node_that_is_overtaken_again_and_again_concludes_that_it_has_a_twin() {
        let mut one = One::new(true);
        let there = peer("ap-south");
        for n in 0..=super::RE_EPOCHS_MAX {
            let mut later = one.replica.stream();
            later.epoch += 1;
            assert_eq!(one.replica.failure(), None, "after {n}");
            one.hear_beat(&there, 20, vec![report(later, 0, Hlc(0))]);
            one.pass(25);
        }
        assert!(one.replica.failure().is_some());
    }
}
