//! Which of this node's own changes the transport took responsibility for.
//!
//! Each frame of records ends with a claim: whoever has it and all frames before it has every change up to that clock.
//! So a change is published once all frames up to the first whose claim covers it were confirmed. A frame that the
//! transport refused, and changes that were never sent because the outbox was full, leave a *hole*: a range of clocks
//! in which nothing counts as published, although peers fetch it as any gap.
//!
//! # Bounds
//! Frames without an answer: the transport's window. Holes: [`HOLES_MAX`]; past it the two oldest are joined, so that
//! what lies between them counts as not published either. The answer errs to "not published", never the other way.

use std::collections::{BTreeMap, VecDeque};

use crate::{replica::Claim, stamp::Hlc};

/// How many holes are told apart.
const HOLES_MAX: usize = 64;

/// What became of the frames of this node's own records.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    /// The frames without an answer, by the order in which they were made.
    unanswered: BTreeMap<u64, Unanswered>,
    /// The claim of the newest frame.
    claimed: Hlc,
    skipped: Hlc,
    /// Ranges in which nothing counts as published, oldest first: after one clock, through another.
    holes: VecDeque<(Hlc, Hlc)>,
}

#[derive(Debug)]
struct Unanswered {
    /// The claim of the frame before it.
    before: Hlc,
    /// Its newest record.
    newest: Hlc,
}

impl Confirms {
    /// A life of the node began; what an earlier one had not sent is not sent any more.
    pub(super) fn begin_life(&mut self, epoch: Hlc) {
        if self.claimed > Hlc::default() {
            self.add_hole(self.claimed, epoch);
        }
        self.claimed = epoch;
    }

    /// The frame of this number, higher than all before it, was handed to the transport.
    pub(super) fn sent(&mut self, number: u64, claim: Claim) {
        if claim.skipped > self.skipped {
            self.skipped = claim.skipped;
            self.add_hole(self.claimed, claim.skipped);
        }
        self.unanswered.insert(number, Unanswered { before: self.claimed, newest: claim.numbered });
        self.claimed = claim.complete;
    }

    /// The transport gave its last word on a frame. Frames that are not of records change nothing.
    pub(super) fn answered(&mut self, number: u64, is_taken: bool) {
        if let Some(frame) = self.unanswered.remove(&number)
            && !is_taken
        {
            self.add_hole(frame.before, frame.newest);
        }
    }

    /// Whether the transport took the change of this clock; `None` while that is open.
    pub(super) fn is_published(&self, hlc: Hlc) -> Option<bool> {
        let is_in_hole = self.holes.iter().any(|(after, through)| *after < hlc && hlc <= *through);
        let through = self.unanswered.values().next().map_or(self.claimed, |frame| frame.before);
        (is_in_hole || hlc <= through).then_some(!is_in_hole)
    }

    fn add_hole(&mut self, after: Hlc, through: Hlc) {
        let at = self.holes.partition_point(|(known, _)| *known < after);
        self.holes.insert(at, (after, through));
        if self.holes.len() > HOLES_MAX
            && let Some((after, oldest)) = self.holes.pop_front()
            && let Some(next) = self.holes.front_mut()
        {
            *next = (after, oldest.max(next.1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(numbered: u64, complete: u64) -> Claim {
        Claim { numbered: Hlc(numbered), complete: Hlc(complete), skipped: Hlc(0) }
    }

    fn published(confirms: &Confirms, hlcs: impl IntoIterator<Item = u64>) -> Vec<Option<bool>> {
        hlcs.into_iter().map(|hlc| confirms.is_published(Hlc(hlc))).collect()
    }

    fn begun() -> Confirms {
        let mut confirms = Confirms::default();
        confirms.begin_life(Hlc(100));
        confirms
    }

    #[test]
    fn a_change_is_published_once_all_frames_up_to_its_claim_were_taken() {
        let mut confirms = begun();
        confirms.sent(1, claim(110, 110));
        confirms.sent(2, claim(120, 120));
        confirms.answered(2, true);
        assert_eq!(published(&confirms, [105, 115, 125]), [None, None, None], "the first has no answer yet");
        confirms.answered(1, true);
        assert_eq!(published(&confirms, [105, 115, 125]), [Some(true), Some(true), None]);
    }

    #[test]
    fn a_superseded_change_is_published_with_its_successor() {
        let mut confirms = begun();
        confirms.sent(1, claim(110, 104)); // The change 105 was written again, and its successor waits.
        confirms.answered(1, true);
        assert_eq!(published(&confirms, [104, 105]), [Some(true), None]);
        confirms.sent(2, claim(120, 120));
        assert_eq!(published(&confirms, [105]), [None]);
        confirms.answered(2, true);
        assert_eq!(published(&confirms, [105]), [Some(true)]);
    }

    #[test]
    fn a_refused_frame_is_a_hole_and_later_ones_are_not() {
        let mut confirms = begun();
        for (number, end) in [(1, 110), (2, 120), (3, 130)] {
            confirms.sent(number, claim(end, end));
        }
        confirms.answered(2, false);
        assert_eq!(published(&confirms, [110, 111, 120, 121]), [None, Some(false), Some(false), None]);
        confirms.answered(1, true);
        confirms.answered(3, true);
        let expected = [Some(true), Some(false), Some(false), Some(true)];
        assert_eq!(published(&confirms, [110, 111, 120, 121]), expected);
    }

    #[test]
    fn what_was_skipped_at_the_outbox_s_bound_is_a_hole() {
        let mut confirms = begun();
        confirms.sent(1, claim(110, 104));
        confirms.sent(2, Claim { skipped: Hlc(115), ..claim(120, 120) });
        confirms.sent(3, Claim { skipped: Hlc(115), ..claim(130, 130) });
        (1..=3).for_each(|number| confirms.answered(number, true));
        let expected = [Some(true), Some(false), Some(false), Some(true), Some(true)];
        assert_eq!(published(&confirms, [104, 105, 115, 116, 125]), expected);
    }

    #[test]
    fn what_an_overtaken_life_had_not_sent_is_a_hole() {
        let mut confirms = begun();
        confirms.sent(1, claim(110, 110));
        confirms.begin_life(Hlc(200));
        assert_eq!(published(&confirms, [105, 111, 200, 201]), [None, Some(false), Some(false), None]);
        confirms.answered(1, true);
        confirms.sent(2, claim(210, 210));
        confirms.answered(2, true);
        assert_eq!(published(&confirms, [105, 150, 205]), [Some(true), Some(false), Some(true)]);
    }

    #[test]
    fn past_the_bound_the_oldest_holes_are_joined_and_no_hole_is_forgotten() {
        let mut confirms = begun();
        for number in 1..=1_000 {
            confirms.sent(number, claim(100 + 10 * number, 100 + 10 * number));
            confirms.answered(number, number % 2 == 0);
        }
        assert_eq!(confirms.holes.len(), HOLES_MAX);
        for number in 1..=1_000 {
            let is_published = confirms.is_published(Hlc(100 + 10 * number)).unwrap();
            assert!(!is_published || number % 2 == 0, "{number}");
        }
        assert_eq!(confirms.is_published(Hlc(100 + 10 * 1_000)), Some(true), "the newest are told apart");
    }
}
