//! Who waits for what: a bounded table, looked at when something changed.
//!
//! Waiters for the same thing of the same stream stand in one queue, in the order of their clocks. What one of them
//! waits for is a mark that rises (a watermark, a count of regions that passed it), so a look at both ends of a queue
//! finds all who can be answered: nobody is polled, and a heartbeat costs a look at each queue, not at each waiter.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::concern::WriteConcern;
use crate::{node::Stream, replica::Token, stamp::Hlc};

/// What a queue waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// That a write came as far as this.
    Concern(WriteConcern),
    /// That a write came here.
    Here,
}

/// A queue: a need, and the life of a node whose writes are meant.
type Queue = (Need, Stream);
/// A place in a queue: by clock, then in the order of coming.
type Place = (Hlc, u64);

/// Those who wait.
#[derive(Debug)]
pub(super) struct Waiters<W> {
    queues: BTreeMap<Queue, BTreeMap<Place, (Instant, W)>>,
    deadlines: BTreeMap<(Instant, u64), (Queue, Hlc)>,
    numbers: u64,
}

impl<W> Waiters<W> {
    pub(super) fn new() -> Self {
        Self { queues: BTreeMap::new(), deadlines: BTreeMap::new(), numbers: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.deadlines.len()
    }

    pub(super) fn add(&mut self, need: Need, token: Token, deadline: Instant, waiter: W) {
        self.numbers += 1;
        let (queue, number) = ((need, token.stream), self.numbers);
        self.deadlines.insert((deadline, number), (queue, token.hlc));
        self.queues.entry(queue).or_default().insert((token.hlc, number), (deadline, waiter));
    }

    /// Takes those out of whom `is_decided` says that they can be answered.
    pub(super) fn settle(&mut self, mut is_decided: impl FnMut(Need, Token) -> bool) -> Vec<(Token, W)> {
        let mut decided = Vec::new();
        for (&(need, stream), queue) in &mut self.queues {
            // From the lowest clock up, then from the highest down: what is lost is lost from some clock on.
            for end in [BTreeMap::first_key_value, BTreeMap::last_key_value] {
                while let Some((&place, _)) = end(queue) {
                    let token = Token { stream, hlc: place.0 };
                    if !is_decided(need, token) {
                        break;
                    }
                    if let Some((deadline, waiter)) = queue.remove(&place) {
                        self.deadlines.remove(&(deadline, place.1));
                        decided.push((token, waiter));
                    }
                }
            }
        }
        if !decided.is_empty() {
            self.queues.retain(|_, queue| !queue.is_empty());
        }
        decided
    }

    /// The next deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.keys().next().map(|(deadline, _)| *deadline)
    }

    /// Takes out one whose time is over.
    pub(super) fn take_late(&mut self, now: Instant) -> Option<(Token, W)> {
        let (&(deadline, number), &(queue, hlc)) = self.deadlines.first_key_value()?;
        if deadline > now {
            return None;
        }
        self.deadlines.remove(&(deadline, number));
        let waiting = self.queues.get_mut(&queue)?;
        let (_, waiter) = waiting.remove(&(hlc, number))?;
        if waiting.is_empty() {
            self.queues.remove(&queue);
        }
        Some((Token { stream: queue.1, hlc }, waiter))
    }

    /// Takes everyone out.
    pub(super) fn take_all(&mut self) -> Vec<(Token, W)> {
        self.settle(|_, _| true)
    }

    /// Lets go of those who wait no longer.
    pub(super) fn retain(&mut self, mut waits: impl FnMut(&W) -> bool) {
        let deadlines = &mut self.deadlines;
        self.queues.retain(|_, queue| {
            queue.retain(|place, (deadline, waiter)| {
                let keep = waits(waiter);
                if !keep {
                    deadlines.remove(&(*deadline, place.1));
                }
                keep
            });
            !queue.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::node::Origin;

    fn token(epoch: u64, hlc: u64) -> Token {
        Token { stream: Stream { origin: Origin(1), epoch }, hlc: Hlc(hlc) }
    }

    /// Waiters `10, 20, …, 50` of one life, and `10` of another, each of which is due at its own number of seconds.
    fn waiting(start: Instant) -> Waiters<u64> {
        let mut waiters = Waiters::new();
        for hlc in [30, 10, 50, 20, 40] {
            waiters.add(Need::Here, token(1, hlc), start + Duration::from_secs(hlc), hlc);
        }
        waiters.add(Need::Here, token(2, 10), start + Duration::from_secs(15), 1_010);
        waiters
    }

    fn decided(waiters: &mut Waiters<u64>, is_decided: impl FnMut(Need, Token) -> bool) -> Vec<u64> {
        waiters.settle(is_decided).into_iter().map(|(_, waiter)| waiter).collect()
    }

    #[test]
    fn those_below_the_mark_are_answered_in_order_and_the_rest_is_not_looked_at() {
        let mut waiters = waiting(Instant::now());
        let mut looks = 0;
        let below = |_, token: Token| {
            looks += 1;
            token.stream.epoch == 1 && token.hlc <= Hlc(20)
        };
        assert_eq!(decided(&mut waiters, below), [10, 20]);
        assert_eq!(looks, 3 + 1 + 2, "both ends of each queue, and those who were answered");
        assert_eq!(waiters.len(), 4);
    }

    #[test]
    fn those_who_wait_for_what_is_lost_are_answered_from_above() {
        let mut waiters = waiting(Instant::now());
        assert_eq!(decided(&mut waiters, |_, token| token.hlc >= Hlc(40)), [50, 40]);
    }

    #[test]
    fn the_late_are_taken_by_their_deadlines() {
        let start = Instant::now();
        let mut waiters = waiting(start);
        let now = start + Duration::from_secs(20);
        let late: Vec<u64> =
            std::iter::from_fn(|| waiters.take_late(now)).map(|(_, waiter)| waiter).collect();
        assert_eq!(late, [10, 1_010, 20]);
        assert_eq!(waiters.deadline(), Some(start + Duration::from_secs(30)));
    }

    #[test]
    fn whoever_waits_no_longer_leaves_no_trace() {
        let mut waiters = waiting(Instant::now());
        waiters.retain(|waiter| *waiter == 30);
        assert_eq!((waiters.len(), waiters.queues.len()), (1, 1));
        assert_eq!(waiters.take_all(), [(token(1, 30), 30)]);
        assert!(waiters.deadlines.is_empty() && waiters.queues.is_empty());
    }
}
