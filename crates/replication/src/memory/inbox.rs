//! A node's queue: the frames that are on their way to it, and those it has not acknowledged.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::time::Instant;

use super::Limits;

/// When a frame is due, then the order in which frames were published.
type Place = (Instant, u64);

#[derive(Debug, Default)]
pub(super) struct Inbox {
    queued: BTreeMap<Place, Queued>,
    queued_bytes: usize,
    unacked: BTreeMap<u64, (Place, Bytes)>,
    unacked_bytes: usize,
    tags: u64,
}

#[derive(Debug)]
struct Queued {
    frame: Bytes,
    again: bool,
}

/// What a subscription gets when it asks.
#[derive(Debug)]
pub(super) enum Next {
    Frame {
        frame: Bytes,
        tag: u64,
        again: bool,
    },
    /// Nothing yet: wait for news, or until this moment.
    Wait(Option<Instant>),
}

impl Inbox {
    /// Queues a frame; gives how many older ones had to go for it.
    pub(super) fn push(&mut self, due: Instant, number: u64, frame: Bytes, limits: &Limits) -> u64 {
        self.queue((due, number), frame, false);
        self.trim(limits)
    }

    /// The next frame that is due, which then counts as unacknowledged.
    pub(super) fn next(&mut self, now: Instant, limits: &Limits) -> Next {
        if self.unacked.len() >= limits.unacked_frames {
            return Next::Wait(None);
        }
        let Some(first) = self.queued.first_entry() else {
            return Next::Wait(None);
        };
        let place = *first.key();
        if place.0 > now {
            return Next::Wait(Some(place.0));
        }
        let Queued { frame, again } = first.remove();
        self.queued_bytes -= frame.len();
        self.unacked_bytes += frame.len();
        self.tags += 1;
        self.unacked.insert(self.tags, (place, frame.clone()));
        Next::Frame { frame, tag: self.tags, again }
    }

    /// When the next frame is due, unless it waits for an acknowledgement.
    pub(super) fn due(&self, limits: &Limits) -> Option<Instant> {
        let (place, _) = self.queued.first_key_value()?;
        (self.unacked.len() < limits.unacked_frames).then_some(place.0)
    }

    /// Forgets a delivered frame. A tag of an earlier subscription is not known and changes nothing.
    pub(super) fn ack(&mut self, tag: u64) {
        if let Some((_, frame)) = self.unacked.remove(&tag) {
            self.unacked_bytes -= frame.len();
        }
    }

    /// Queues again, at their old places, what was not acknowledged; gives how many frames had to go.
    pub(super) fn requeue(&mut self, limits: &Limits) -> u64 {
        self.unacked_bytes = 0;
        for (place, frame) in std::mem::take(&mut self.unacked).into_values() {
            self.queue(place, frame, true);
        }
        self.trim(limits)
    }

    pub(super) fn len(&self) -> usize {
        self.queued.len()
    }

    fn queue(&mut self, place: Place, frame: Bytes, again: bool) {
        self.queued_bytes += frame.len();
        self.queued.insert(place, Queued { frame, again });
    }

    fn trim(&mut self, limits: &Limits) -> u64 {
        let mut gone = 0;
        while self.queued.len() > limits.inbox_frames
            || self.queued_bytes + self.unacked_bytes > limits.inbox_bytes
        {
            let Some((_, Queued { frame, .. })) = self.queued.pop_first() else { break };
            self.queued_bytes -= frame.len();
            gone += 1;
        }
        gone
    }
}
