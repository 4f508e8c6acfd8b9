//! What a node has of one stream: the contiguous prefix, and a few ranges ahead of it.
//!
//! Numbers serve liveness only: they find gaps, never decide a conflict. So it is safe to forget a range, to note one
//! twice, or to see them in any order; the worst that follows is a record that is asked for again.

use std::collections::HashMap;

use super::Now;
use crate::{node::Origin, stamp::Hlc};

/// How many ranges ahead of the watermark are remembered; past it the newest is dropped and asked for again later.
pub(crate) const RANGES_AHEAD_MAX: usize = 8;

/// What a node has of one stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct StreamState {
    /// The contiguous prefix that was applied.
    pub(crate) watermark: u64,
    /// Every change of the stream with a clock up to this one was applied, or superseded by one that was.
    pub(crate) hlc: Hlc,
    /// No record of the stream that is here has a clock above this one.
    pub(crate) last: Hlc,
    /// The highest number that anyone is known to have given or seen.
    pub(crate) max: u64,
    /// Counts every change of what is held.
    pub(crate) generation: u64,
    /// When its origin was last heard, or a new number of it was reported, on this node's monotonic clock.
    seen_ms: i64,
    /// Its origin can no longer send the records that are missing.
    pub(crate) gone: bool,
    /// The peers that were synced with for this stream, and the generation they had then.
    pub(crate) covered: HashMap<Origin, u64>,
    ahead: Vec<Range>,
    gap: Option<Gap>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u64,
    last: u64,
    hlc: Hlc,
}

#[derive(Debug, Clone, Copy)]
struct Gap {
    watermark: u64,
    due_ms: u64,
    /// How long nothing may come after the next question until it is asked again.
    wait_ms: u64,
    pace: GapPace,
    asked: Option<Asked>,
}

/// What was asked for last.
#[derive(Debug, Clone, Copy)]
struct Asked {
    from: u64,
    to: u64,
    /// Since when nothing came of it.
    silent_ms: u64,
}

/// How a gap is asked for: after a grace, which lets late frames come by themselves; then whenever an answer has ended
/// and left something, so that a hole closes answer by answer, without a pause; and again where nothing comes, after
/// waits that double up to a bound and follow what an answer took, so that nothing is asked for twice where a transport
/// is slow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GapPace {
    pub(crate) grace_ms: u64,
    /// The shortest wait.
    pub(crate) wait_ms_min: u64,
    pub(crate) wait_ms_max: u64,
}

impl Gap {
    /// Whether it is the hole behind this watermark: one that does not move, or moves within what was asked for.
    fn is_of(&self, watermark: u64) -> bool {
        watermark == self.watermark || self.asked.is_some_and(|asked| watermark < asked.to)
    }
}

impl StreamState {
    /// A stream of which nothing is held, and that was last seen `age_ms` ago.
    pub(crate) fn seen(now: Now, age_ms: u64) -> Self {
        Self { seen_ms: now.mono_ms as i64 - age_ms as i64, ..Self::default() }
    }

    /// Somebody has seen a sign of life of it `age_ms` ago.
    pub(crate) fn was_seen(&mut self, now: Now, age_ms: u64) {
        self.seen_ms = self.seen_ms.max(now.mono_ms as i64 - age_ms as i64);
    }

    /// How long ago that was.
    pub(crate) fn age_ms(&self, now: Now) -> u64 {
        u64::try_from(now.mono_ms as i64 - self.seen_ms).unwrap_or(0)
    }

    /// The records `first..=last` were applied; with all before them, every change up to the clock `hlc` was. Returns whether a range had to be
    /// dropped at the bound.
    pub(crate) fn note(&mut self, first: u64, last: u64, hlc: Hlc) -> bool {
        self.see(last);
        if last <= self.watermark {
            return false;
        }
        self.generation += 1;
        if first <= self.watermark + 1 {
            self.watermark = last;
            self.hlc = hlc;
            self.absorb();
            return false;
        }
        self.insert_ahead(Range { first, last, hlc });
        if self.ahead.len() > RANGES_AHEAD_MAX {
            self.ahead.pop();
            return true;
        }
        false
    }

    /// A transfer brought everything up to `watermark`; no record of it has a clock above `last`.
    pub(crate) fn adopt(&mut self, watermark: u64, hlc: Hlc, last: Hlc) {
        self.see(watermark);
        self.last = self.last.max(last);
        if watermark > self.watermark {
            self.watermark = watermark;
            self.hlc = hlc;
            self.generation += 1;
            self.absorb();
        }
    }

    /// Somebody has given or seen this number.
    pub(crate) fn see(&mut self, number: u64) {
        self.max = self.max.max(number);
    }

    /// Its origin has given no number from `next` on, whatever somebody reported.
    pub(crate) fn end_at(&mut self, next: u64) {
        let known = self.ahead.last().map_or(self.watermark, |range| range.last);
        self.max = self.max.min(known.max(next.saturating_sub(1)));
    }

    /// The first hole: the numbers missing right after the watermark.
    pub(crate) fn hole(&self) -> Option<(u64, u64)> {
        let end = self.ahead.first().map_or(self.max, |range| range.first - 1);
        (end > self.watermark).then_some((self.watermark + 1, end))
    }

    /// Whether the hole should be asked for now. Call it often; `jitter_ms` spreads the nodes' first questions.
    pub(crate) fn gap_is_due(&mut self, now_ms: u64, jitter_ms: u64, pace: GapPace) -> bool {
        let Some((from, to)) = self.hole() else {
            self.gap = None;
            return false;
        };
        match &mut self.gap {
            Some(gap) if gap.is_of(self.watermark) => {
                if now_ms < gap.due_ms {
                    return false;
                }
                gap.due_ms = now_ms + gap.wait_ms;
                gap.wait_ms = (gap.wait_ms * 2).min(pace.wait_ms_max);
                // Of several questions in a row the first one's answer may still be the one that comes.
                let silent_ms = gap.asked.map_or(now_ms, |asked| asked.silent_ms);
                gap.asked = Some(Asked { from, to, silent_ms });
                true
            }
            _ => {
                let due_ms = now_ms + pace.grace_ms + jitter_ms;
                let wait_ms = pace.wait_ms_min;
                self.gap = Some(Gap { watermark: self.watermark, due_ms, wait_ms, pace, asked: None });
                false
            }
        }
    }

    /// Records from `first` on came, and were noted. Where a hole was asked for, and they are no news from behind it, then
    /// its origin is answering, and is not asked again while it does. Returns whether the answer to the last question
    /// ended with them (`answers`) and left something that should be asked for now.
    pub(crate) fn hear(&mut self, now_ms: u64, first: u64, answers: Option<u64>) -> bool {
        let Some(gap) = &mut self.gap else { return false };
        let Some(asked) = gap.asked.as_mut().filter(|asked| self.watermark < asked.to) else { return false };
        // An answer that brought nothing is not asked for again at once, or two nodes could go on so for ever.
        let has_ended = answers == Some(asked.from) && asked.from <= self.watermark;
        if first > self.watermark && !has_ended {
            return false;
        }
        let silence_ms = now_ms.saturating_sub(asked.silent_ms);
        asked.silent_ms = now_ms;
        // One frame that was slow says more of the transport than the next, which came right behind it.
        let wait_ms = (2 * silence_ms).max(gap.wait_ms / 2);
        gap.wait_ms = wait_ms.min(gap.pace.wait_ms_max).max(gap.pace.wait_ms_min);
        gap.due_ms = if has_ended { now_ms } else { now_ms + gap.wait_ms };
        has_ended
    }

    fn insert_ahead(&mut self, new: Range) {
        let mut merged = new;
        self.ahead.retain(|held| {
            let apart = held.last + 1 < merged.first || merged.last + 1 < held.first;
            if !apart {
                let hlc = if held.last > merged.last { held.hlc } else { merged.hlc };
                merged = Range { first: held.first.min(merged.first), last: held.last.max(merged.last), hlc };
            }
            apart
        });
        let at = self.ahead.partition_point(|held| held.first < merged.first);
        self.ahead.insert(at, merged);
    }

    fn absorb(&mut self) {
        while let Some(range) = self.ahead.first().copied().filter(|range| range.first <= self.watermark + 1)
        {
            if range.last > self.watermark {
                self.watermark = range.last;
                self.hlc = range.hlc;
            }
            self.ahead.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_ahead_join_the_watermark_when_the_hole_is_filled() {
        let mut stream = StreamState::default();
        stream.note(1, 3, Hlc(3));
        stream.note(6, 7, Hlc(7));
        assert_eq!((stream.watermark, stream.hole()), (3, Some((4, 5))));
        stream.note(4, 5, Hlc(5));
        assert_eq!((stream.watermark, stream.hlc, stream.hole()), (7, Hlc(7), None));
    }

    #[test]
    fn the_loss_of_the_last_frame_is_a_hole_once_its_number_was_seen() {
        let mut stream = StreamState::default();
        stream.note(1, 3, Hlc(3));
        stream.see(9);
        assert_eq!(stream.hole(), Some((4, 9)));
    }

    #[test]
    fn past_the_bound_the_newest_range_is_dropped_and_stays_a_hole() {
        let mut stream = StreamState::default();
        for n in 0..RANGES_AHEAD_MAX as u64 {
            assert!(!stream.note(10 + 2 * n, 10 + 2 * n, Hlc(n)));
        }
        assert!(stream.note(100, 100, Hlc(100)));
        stream.note(1, 40, Hlc(40));
        assert_eq!(stream.hole(), Some((41, 100)));
    }

    #[test]
    fn a_hole_is_asked_for_after_a_grace_then_ever_more_slowly() {
        let mut stream = StreamState::default();
        let pace = GapPace { grace_ms: 150, wait_ms_min: 300, wait_ms_max: 1_000 };
        stream.note(5, 5, Hlc(5));
        let due: Vec<u64> = (0..4_000).filter(|&ms| stream.gap_is_due(ms, 10, pace)).collect();
        assert_eq!(due, [160, 460, 1_060, 2_060, 3_060]);
    }

    const PACE: GapPace = GapPace { grace_ms: 150, wait_ms_min: 300, wait_ms_max: 5_000 };

    /// A hole from 11 to 1,000 that was asked for at 150 ms.
    fn asked() -> StreamState {
        let mut stream = StreamState::default();
        stream.note(1, 10, Hlc(10));
        stream.note(1_001, 1_001, Hlc(1_001));
        assert!(!stream.gap_is_due(0, 0, PACE));
        assert!(stream.gap_is_due(150, 0, PACE));
        stream
    }

    /// These records come; whether the rest is asked for at once.
    fn comes(stream: &mut StreamState, ms: u64, first: u64, last: u64, answers: Option<u64>) -> bool {
        stream.note(first, last, Hlc(last));
        stream.hear(ms, first, answers)
    }

    fn due_after(stream: &mut StreamState, ms: u64) -> Option<u64> {
        (ms..ms + 20_000).find(|&ms| stream.gap_is_due(ms, 0, PACE))
    }

    #[test]
    fn when_an_answer_ends_and_leaves_something_that_is_asked_for_at_once() {
        let mut stream = asked();
        assert!(!comes(&mut stream, 200, 11, 50, None));
        assert!(!stream.gap_is_due(200, 0, PACE));
        assert!(comes(&mut stream, 201, 51, 99, Some(11)));
        assert!(stream.gap_is_due(201, 0, PACE));
        assert_eq!(stream.hole(), Some((100, 1_000)));
        assert!(!comes(&mut stream, 250, 100, 1_000, Some(100)), "nothing is left");
        assert!(!stream.gap_is_due(250, 0, PACE));
    }

    #[test]
    fn the_end_of_an_earlier_answer_and_of_one_that_brought_nothing_ask_for_nothing() {
        let mut stream = asked();
        assert!(comes(&mut stream, 200, 11, 99, Some(11)));
        assert!(stream.gap_is_due(200, 0, PACE));
        assert!(!comes(&mut stream, 210, 11, 99, Some(11)), "the same answer again");
        assert!(!stream.hear(220, 500, Some(100)), "its records were refused");
        assert_eq!(due_after(&mut stream, 220), Some(510), "the wait goes on from what came last");
    }

    #[test]
    fn of_an_answer_that_lost_a_frame_the_rest_is_asked_for_at_once() {
        let mut stream = asked();
        assert!(!comes(&mut stream, 200, 11, 50, None));
        assert!(comes(&mut stream, 202, 80, 99, Some(11)));
        assert!(stream.gap_is_due(202, 0, PACE));
        assert_eq!(stream.hole(), Some((51, 79)));
    }

    #[test]
    fn while_an_answer_comes_slowly_nothing_is_asked_for_again() {
        let mut stream = asked();
        let mut again = 0;
        for frame in 1..=20 {
            let begin_ms = 150 + 1_000 * (frame - 1);
            again += (begin_ms..begin_ms + 1_000).filter(|&ms| stream.gap_is_due(ms + 1, 0, PACE)).count();
            assert!(!comes(&mut stream, begin_ms + 1_000, 1 + 10 * frame, 10 + 10 * frame, None));
        }
        assert_eq!(again, 2, "before the first frame came");
        assert_eq!(due_after(&mut stream, 20_150), Some(22_150), "twice what the last one took");
    }

    #[test]
    fn what_comes_from_behind_the_hole_puts_nothing_off() {
        let mut stream = asked();
        let due = (151..1_000).find(|&ms| {
            let number = 1_001 + ms;
            assert!(!comes(&mut stream, ms, number, number, None));
            stream.gap_is_due(ms, 0, PACE)
        });
        assert_eq!(due, Some(450));
    }

    proptest! {
        #[test]
        fn the_watermark_is_the_contiguous_prefix_of_what_was_noted(
            ranges in prop::collection::vec((1u64..60, 0u64..6), 0..40),
        ) {
            let mut stream = StreamState::default();
            let mut noted = std::collections::BTreeSet::new();
            let mut dropped = false;
            for (first, more) in ranges {
                dropped |= stream.note(first, first + more, Hlc(first + more));
                noted.extend(first..=first + more);
            }
            let prefix = (1..).take_while(|number| noted.contains(number)).last().unwrap_or(0);
            // What was dropped at the bound is asked for again, so the watermark may lag but never lead.
            prop_assert!(stream.watermark <= prefix);
            prop_assert!(dropped || stream.watermark == prefix);
            prop_assert_eq!(stream.hlc, Hlc(stream.watermark));
        }
    }
}
