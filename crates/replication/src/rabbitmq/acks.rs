//! Which deliveries of one channel were handled, and what to tell the broker.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::trail::Trail;

/// What to tell the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Everything up to and including `tag` was handled, `count` deliveries that the broker was not told of.
    AckTo { tag: u64, count: u64 },
    /// This one was handled, while an earlier one is still out.
    Ack(u64),
    /// This one was dropped unhandled: deliver it again.
    Requeue(u64),
}

/// The deliveries of one channel. A later channel has its own, so that an acknowledgement that comes after a
/// reconnect finds nobody to tell.
#[derive(Debug, Default)]
pub(super) struct Acks {
    ledger: Mutex<Ledger>,
    wake: Arc<Notify>,
    /// Where the channel's consumer is in its stream, if it reads one.
    trail: Option<Trail>,
}

impl Acks {
    /// The deliveries of a consumer on a stream; `wake` is told of every change, theirs and other consumers'.
    pub(super) fn on_stream(trail: Trail, wake: Arc<Notify>) -> Self {
        Self { ledger: Mutex::default(), wake, trail: Some(trail) }
    }

    /// Notes that a delivery was handed out; what is given goes into its handle. `offset` is its place in the stream, if it has
    /// one.
    pub(super) fn hand_out(self: &Arc<Self>, tag: u64, offset: Option<u64>) -> Receipt {
        self.ledger.lock().hand_out(tag);
        Receipt { acks: self.clone(), tag, offset, handled: false }
    }

    pub(super) fn trail(&self) -> Option<&Trail> {
        self.trail.as_ref()
    }

    /// The stream of deliveries ended on its own.
    pub(super) fn end(&self, reason: String) {
        self.ledger.lock().ended.get_or_insert(reason);
        self.wake.notify_one();
    }

    /// Resolves when there is something to tell the broker, or the stream ended. Cancel-safe.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// What to tell the broker now, in this order.
    pub(super) fn take(&self) -> Vec<Act> {
        self.ledger.lock().take()
    }

    /// Why the stream ended, if it did.
    pub(super) fn ended(&self) -> Option<String> {
        self.ledger.lock().ended.clone()
    }
}

/// Lives in a delivery's handle; its end is the delivery's end, one way or the other.
pub(super) struct Receipt {
    acks: Arc<Acks>,
    tag: u64,
    offset: Option<u64>,
    handled: bool,
}

impl Receipt {
    pub(super) fn handled(self) {
        drop(self.settled());
    }

    /// The same, which counts as handled whenever it is dropped.
    pub(super) fn settled(mut self) -> Self {
        self.handled = true;
        self
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let (Some(trail), Some(offset)) = (&self.acks.trail, self.offset) {
            trail.settle(offset, self.handled);
        }
        let mark = if self.handled { Mark::Handled } else { Mark::Dropped };
        self.acks.ledger.lock().mark(self.tag, mark);
        self.acks.wake.notify_one();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// With the receiver.
    Out,
    Handled,
    Dropped,
    /// The broker was told.
    Told,
}

/// The tags after `told_to`, which the broker numbers without gaps on a channel.
#[derive(Debug, Default)]
struct Ledger {
    told_to: u64,
    marks: VecDeque<Mark>,
    ended: Option<String>,
}

impl Ledger {
    fn hand_out(&mut self, tag: u64) {
        if tag != self.told_to + self.marks.len() as u64 + 1 {
            // No broker skips a tag. Should one do so, what came before is delivered again when the channel ends, and
            // this ledger stays as small as it was.
            self.marks.clear();
            self.told_to = tag.saturating_sub(1);
        }
        self.marks.push_back(Mark::Out);
    }

    fn mark(&mut self, tag: u64, mark: Mark) {
        let place = tag.checked_sub(self.told_to + 1).and_then(|place| usize::try_from(place).ok());
        if let Some(old @ Mark::Out) = place.and_then(|place| self.marks.get_mut(place)) {
            *old = mark;
        }
    }

    fn take(&mut self) -> Vec<Act> {
        let mut acts = Vec::new();
        // Requeues first: an acknowledgement "up to" must not cover them.
        for (tag, mark) in (self.told_to + 1..).zip(&mut self.marks) {
            if *mark == Mark::Dropped {
                acts.push(Act::Requeue(tag));
                *mark = Mark::Told;
            }
        }
        let mut up_to = None;
        let mut count = 0;
        while let Some(mark @ (Mark::Handled | Mark::Told)) = self.marks.front().copied() {
            self.marks.pop_front();
            self.told_to += 1;
            if mark == Mark::Handled {
                up_to = Some(self.told_to);
                count += 1;
            }
        }
        acts.extend(up_to.map(|tag| Act::AckTo { tag, count }));
        for (tag, mark) in (self.told_to + 1..).zip(&mut self.marks) {
            if *mark == Mark::Handled {
                acts.push(Act::Ack(tag));
                *mark = Mark::Told;
            }
        }
        acts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Ack;
    use proptest::prelude::*;

    fn handed_out(count: u64) -> (Arc<Acks>, Vec<Ack>) {
        let acks = Arc::new(Acks::default());
        let handle = |receipt: Receipt| Ack::new(move || receipt.handled());
        let handles = (1..=count).map(|tag| handle(acks.hand_out(tag, None))).collect();
        (acks, handles)
    }

    #[test]
    fn a_run_of_handled_deliveries_is_one_acknowledgement() {
        let (acks, handles) = handed_out(5);
        handles.into_iter().take(3).for_each(Ack::done);
        // The other two were dropped by `take`'s end.
        assert_eq!(acks.take(), [Act::Requeue(4), Act::Requeue(5), Act::AckTo { tag: 3, count: 3 }]);
        assert_eq!(acks.take(), []);
    }

    #[test]
    fn one_that_is_still_out_does_not_hold_up_those_behind_it() {
        let (acks, mut handles) = handed_out(4);
        handles.remove(3).done();
        handles.remove(1).done();
        assert_eq!(acks.take(), [Act::Ack(2), Act::Ack(4)]);
        handles.remove(0).done();
        assert_eq!(acks.take(), [Act::AckTo { tag: 1, count: 1 }]);
        handles.remove(0).done();
        assert_eq!(acks.take(), [Act::AckTo { tag: 3, count: 1 }]);
    }

    #[test]
    fn a_dropped_handle_asks_for_the_delivery_again_before_anything_covers_it() {
        let (acks, mut handles) = handed_out(3);
        drop(handles.remove(1));
        handles.into_iter().for_each(Ack::done);
        assert_eq!(acks.take(), [Act::Requeue(2), Act::AckTo { tag: 3, count: 2 }]);
    }

    #[tokio::test]
    async fn the_teller_is_woken_by_a_handled_delivery_and_by_the_end() {
        let (acks, handles) = handed_out(1);
        handles.into_iter().for_each(Ack::done);
        acks.changed().await;
        assert_eq!(acks.take(), [Act::AckTo { tag: 1, count: 1 }]);
        acks.end("gone".to_owned());
        acks.changed().await;
        assert_eq!(acks.ended().as_deref(), Some("gone"));
    }

    proptest! {
        /// The broker's side of the bargain: it knows the outstanding tags and refuses any other.
        #[test]
        fn the_broker_is_told_each_tag_once_and_rightly(fates in prop::collection::vec((any::<u16>(), 0u8..3, any::<bool>()), 1..60)) {
            let (acks, handles) = handed_out(fates.len() as u64);
            let mut outstanding: std::collections::BTreeMap<u64, u8> = (1..).zip(fates.iter().map(|fate| fate.1)).collect();
            let mut order: Vec<_> = (1u64..).zip(handles).zip(&fates).map(|((tag, ack), fate)| (fate.0, tag, ack, fate.1, fate.2)).collect();
            order.sort_by_key(|entry| (entry.0, entry.1));
            let mut kept = Vec::new();
            let tell = |outstanding: &mut std::collections::BTreeMap<u64, u8>| {
                for act in acks.take() {
                    match act {
                        Act::AckTo { tag, count } => {
                            assert!(outstanding.contains_key(&tag), "{tag} is unknown");
                            let rest = outstanding.split_off(&(tag + 1));
                            assert!(outstanding.values().all(|fate| *fate == 0), "covered one that was not handled");
                            assert_eq!(outstanding.len() as u64, count);
                            *outstanding = rest;
                        }
                        Act::Ack(tag) => assert_eq!(outstanding.remove(&tag), Some(0)),
                        Act::Requeue(tag) => assert_eq!(outstanding.remove(&tag), Some(1)),
                    }
                }
            };
            for (_, _, ack, fate, take) in order {
                match fate { 0 => ack.done(), 1 => drop(ack), _ => kept.push(ack) }
                if take { tell(&mut outstanding); }
            }
            tell(&mut outstanding);
            prop_assert!(outstanding.values().all(|fate| *fate == 2), "left untold: {outstanding:?}");
        }
    }
}
