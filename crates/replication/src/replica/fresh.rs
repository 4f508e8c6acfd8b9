//! How fresh this node is shown to be against each other one, by no clock but its own.
//!
//! A beat tells what its sender has, and echoes the last beat that the sender heard of this node, with how long that was
//! held. So the echoed reading of this node's own monotonic clock, plus the time held, is a moment at or before the one at
//! which the beat was made: once all that the beat reports is here, everything that the sender had by that moment is.
//! Nobody's clocks are compared, and whatever the way takes makes the moment earlier, never later. Rejected: the age of
//! the stamp at the watermark, which says nothing of a node that is idle, and is off by what two wall clocks differ.
//!
//! What has to be here: of the sender's own stream all that it had stamped, which is the reported watermark where nothing
//! waited for its number ([`Beat::all_numbered`]) and else every change up to the clock that the beat shows; of every
//! other stream what the sender had applied. So what a node knows of others counts, too: a node that is cut off, whose
//! writes another one has, is not forgotten for it. Of a stream whose node is not heard here, the sender may have records behind
//! a hole, which its watermark does not tell: a beat that says so counts once this node has synced with what it tells of.
//!
//! # Clock error
//! Two monotonic clocks run apart by at most a thousandth, which is taken off the time held; readings are whole
//! milliseconds, of which one is taken off, also where nothing was held: a beat that answers within the same millisecond was made
//! somewhere in it, and what is written in the rest of it is not in it. A machine that is suspended stops its monotonic clock: that of the sender makes
//! the moment earlier, and the time that this machine itself is suspended does not count as passed.
//!
//! # Bound
//! What is not here when a beat tells of it is remembered, [`MOMENTS_MAX`] moments a peer; beyond that every second one is
//! forgotten, so that the answer gets coarser, and is never wrong.

use super::{Now, Replica, Store};
use crate::{
    message::{Beat, Echo},
    node::{Origin, Stream},
    stamp::Hlc,
};

/// Moments of one peer that are remembered until what it had by then is here.
const MOMENTS_MAX: usize = 16;

/// How far two monotonic clocks run apart at most, as a part of the time that passes.
const DRIFT_PART: u64 = 1_000;

/// What is shown of a peer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fresh {
    /// All that it had by then is here; on this node's monotonic clock.
    shown_ms: Option<i64>,
    /// Later ones, of which something is missing, oldest first.
    moments: Vec<Moment>,
}

/// What a peer had at a moment, as far as it was not here when that was told.
#[derive(Debug, Clone)]
struct Moment {
    at_ms: i64,
    /// The clock up to which its own changes have to be here.
    own: Option<(Stream, Hlc)>,
    /// The numbers up to which streams have to be here.
    numbers: Vec<(Stream, u64)>,
}

impl Fresh {
    /// How long ago the last moment was by which all is here.
    pub(super) fn ago_ms(&self, now: Now) -> Option<u64> {
        self.shown_ms.map(|shown_ms| u64::try_from(now.mono_ms as i64 - shown_ms).unwrap_or(0))
    }

    fn show(&mut self, at_ms: i64) {
        self.shown_ms = self.shown_ms.max(Some(at_ms));
        self.moments.retain(|moment| Some(moment.at_ms) > self.shown_ms);
    }

    fn wait_for(&mut self, moment: Moment) {
        if self.moments.len() >= MOMENTS_MAX {
            let mut is_even = false;
            self.moments.retain(|_| {
                is_even = !is_even;
                is_even
            });
        }
        self.moments.push(moment);
    }
}

impl<S: Store> Replica<S> {
    /// Asks all nodes for a beat each, which says how fresh this one is. Questions that come faster than beats may follow
    /// each other ([`ReplicaConfig::beat_soon_ms`](super::ReplicaConfig::beat_soon_ms)) share one.
    pub fn ask_beats(&mut self, now: Now) {
        self.asks_beats = true;
        let due_ms = (self.beaten_ms + self.config.beat_soon_ms).max(now.mono_ms);
        self.beat_due_ms = self.beat_due_ms.min(due_ms);
    }

    /// A peer told what it has, and which beat of this life it had heard.
    pub(super) fn note_moment(&mut self, now: Now, origin: Origin, beat: &Beat, echo: &Echo) {
        let at_ms = moment_ms(echo).min(now.mono_ms as i64);
        if self.may_have_behind_holes(now, origin, beat) {
            return;
        }
        let Some(moment) = self.missing_of(origin, beat, at_ms) else { return };
        let is_here = self.is_here(&moment);
        let Some(peer) = self.peers.get_mut(&origin) else { return };
        if is_here {
            peer.fresh.show(at_ms);
        } else {
            peer.fresh.wait_for(moment);
        }
    }

    /// Looks whether what was missing has come.
    pub(super) fn note_fresh(&mut self) {
        let newest = self.peers.iter().filter_map(|(&origin, peer)| {
            let here = peer.fresh.moments.iter().rev().find(|moment| self.is_here(moment))?;
            Some((origin, here.at_ms))
        });
        for (origin, at_ms) in newest.collect::<Vec<_>>() {
            if let Some(peer) = self.peers.get_mut(&origin) {
                peer.fresh.show(at_ms);
            }
        }
    }

    /// Whether a beat's sender may have records behind a hole of a stream, which nobody but it and others like it can give, and
    /// which were not asked of it since it got more.
    fn may_have_behind_holes(&self, now: Now, origin: Origin, beat: &Beat) -> bool {
        let of_others = beat.streams.iter().filter(|report| report.stream.origin != origin);
        let mut with_holes = of_others
            .filter(|report| report.max > report.watermark.max(self.watermark(report.stream)))
            .filter(|report| report.stream != self.stream() && self.is_admissible(report.stream));
        with_holes.any(|report| {
            let node = self.peers.get(&report.stream.origin);
            // A node that is heard tells of its own stream itself.
            let is_heard =
                node.is_some_and(|peer| peer.epoch == report.stream.epoch && self.is_alive(peer, now));
            let synced = self.streams.get(&report.stream).and_then(|state| state.covered.get(&origin));
            !is_heard && synced != Some(&report.generation)
        })
    }

    /// What of a beat is not here yet; `None` where the beat does not tell of the sender's own stream.
    fn missing_of(&self, origin: Origin, beat: &Beat, at_ms: i64) -> Option<Moment> {
        let stream = Stream { origin, epoch: self.peers.get(&origin)?.epoch };
        let reported = beat.streams.iter().find(|report| report.stream == stream)?;
        let own = (!beat.all_numbered && reported.watermark_hlc < beat.hlc).then_some((stream, beat.hlc));
        let numbers = beat.streams.iter().filter(|report| {
            let of_this_life = report.stream == self.stream();
            !of_this_life
                && self.watermark(report.stream) < report.watermark
                && self.is_admissible(report.stream)
        });
        let numbers = numbers.map(|report| (report.stream, report.watermark)).collect();
        Some(Moment { at_ms, own, numbers })
    }

    fn is_here(&self, moment: &Moment) -> bool {
        let has_own = moment
            .own
            .is_none_or(|(stream, hlc)| self.streams.get(&stream).is_some_and(|state| state.hlc >= hlc));
        has_own && moment.numbers.iter().all(|&(stream, number)| self.watermark(stream) >= number)
    }

    fn watermark(&self, stream: Stream) -> u64 {
        self.streams.get(&stream).map_or(0, |state| state.watermark)
    }
}

/// A moment of this node's clock that is not after the one at which a beat with this echo was made.
fn moment_ms(echo: &Echo) -> i64 {
    let drift_ms = echo.held_ms.div_ceil(DRIFT_PART);
    echo.mono_ms as i64 + echo.held_ms as i64 - drift_ms as i64 - 1
}

#[cfg(test)]
mod tests;
