//! How far one stream was handled, so that a later consumer goes on there.
//!
//! A stream keeps no place for its consumers over AMQP, and acknowledging only makes room for more. So the place is
//! kept here, in memory, for this life: the offset of the oldest frame that was handed out and not handled, or the one
//! behind the last. A new life begins at the stream's end, since state transfer brings what was before.
//!
//! Offsets have small holes, since the broker's own marks at the start of a segment take one each. A larger hole means
//! that frames went by retention before they were read.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Holes of up to this many offsets are the broker's own marks.
const MARKS_MAX: u64 = 2;

/// Where in a stream to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// Behind everything that is there now.
    Next,
    /// At what the broker stored at this time or later, in seconds since 1970.
    Since(u64),
    /// At this offset, the one behind a frame that was handled or received.
    At(u64),
}

/// The frames of one consumer on a stream. A later consumer has its own, so that what comes late finds nobody.
#[derive(Debug)]
pub(super) struct Trail(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Where to go on as long as nothing was handed out.
    start: Position,
    /// From the oldest frame that is not handled on.
    out: VecDeque<(u64, Mark)>,
    /// The offset behind the newest frame that was handed out.
    next: Option<u64>,
    dropped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Out,
    Handled,
}

impl Trail {
    pub(super) fn new(start: Position) -> Self {
        Self(Mutex::new(State { start, out: VecDeque::new(), next: None, dropped: false }))
    }

    /// Notes a frame that is handed out; `true` if frames before it are gone.
    pub(super) fn hand_out(&self, offset: u64) -> bool {
        let mut state = self.0.lock();
        let expected = match (state.next, state.start) {
            (Some(next), _) | (None, Position::At(next)) => Some(next),
            (None, Position::Next | Position::Since(_)) => None,
        };
        if expected.is_some_and(|expected| offset < expected) {
            // No broker goes back within a consumer. Should one, the place stays where it is.
            return false;
        }
        state.out.push_back((offset, Mark::Out));
        state.next = Some(offset + 1);
        expected.is_some_and(|expected| offset - expected > MARKS_MAX)
    }

    /// Notes what became of a frame.
    pub(super) fn settle(&self, offset: u64, handled: bool) {
        let mut state = self.0.lock();
        if !handled {
            state.dropped = true;
            return;
        }
        if let Ok(place) = state.out.binary_search_by_key(&offset, |(offset, _)| *offset) {
            state.out[place].1 = Mark::Handled;
        }
        while let Some((_, Mark::Handled)) = state.out.front() {
            state.out.pop_front();
        }
    }

    /// Where the next consumer begins.
    pub(super) fn position(&self) -> Position {
        let state = self.0.lock();
        let unhandled = state.out.front().map(|(offset, _)| *offset);
        unhandled.or(state.next).map_or(state.start, Position::At)
    }

    /// The offset behind the newest frame that was handed out.
    pub(super) fn next(&self) -> Option<u64> {
        self.0.lock().next
    }

    /// Whether a frame was given back unhandled, so that the stream is to be read again from there.
    pub(super) fn is_broken(&self) -> bool {
        self.0.lock().dropped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_place_is_behind_what_was_handled_without_a_gap() {
        let trail = Trail::new(Position::Next);
        assert_eq!(trail.position(), Position::Next);
        for offset in [7, 8, 10] {
            assert!(!trail.hand_out(offset), "{offset} follows, a segment's mark aside");
        }
        assert_eq!(trail.position(), Position::At(7));
        trail.settle(8, true);
        assert_eq!(trail.position(), Position::At(7));
        trail.settle(7, true);
        assert_eq!(trail.position(), Position::At(10));
        trail.settle(10, true);
        assert_eq!(trail.position(), Position::At(11));
    }

    #[test]
    fn a_dropped_frame_keeps_the_place_and_says_so() {
        let trail = Trail::new(Position::At(3));
        (3..6).for_each(|offset| assert!(!trail.hand_out(offset)));
        trail.settle(3, false);
        trail.settle(4, true);
        trail.settle(5, true);
        assert_eq!((trail.position(), trail.is_broken()), (Position::At(3), true));
    }

    #[test]
    fn frames_that_went_by_retention_are_noticed() {
        let trail = Trail::new(Position::At(100));
        assert!(!trail.hand_out(101));
        assert!(trail.hand_out(500));
        assert!(!Trail::new(Position::Since(9)).hand_out(500), "nobody knows what was before");
    }

    proptest! {
        /// However acknowledgements come, no unhandled frame is passed, and nothing grows behind the place.
        #[test]
        fn no_unhandled_frame_is_passed(order in Just((0u64..40).collect::<Vec<_>>()).prop_shuffle()) {
            let trail = Trail::new(Position::At(0));
            (0..40).for_each(|offset| { trail.hand_out(offset); });
            let mut handled = std::collections::BTreeSet::new();
            for offset in order {
                trail.settle(offset, true);
                handled.insert(offset);
                let first = (0..).find(|offset| !handled.contains(offset)).unwrap();
                prop_assert_eq!(trail.position(), Position::At(first));
            }
            prop_assert!(trail.0.lock().out.is_empty());
        }
    }
}
