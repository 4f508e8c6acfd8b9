//! The consumers that a subscription reads, as one.
//!
//! A node reads its queue, and with the profile `Stream` one stream for each region too, each by a consumer on a channel of
//! its own: a slow one then has its own limit of unacknowledged frames, and a refusal ends it alone. Those that have frames
//! take turns, so that a region that catches up hides none of the others.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::Stream;
use lapin::message::Delivery;
use parking_lot::Mutex;

use super::acks::Acks;

/// One consumer, and the record of what was handled of it.
#[derive(Clone)]
pub(super) struct Feed {
    stream: lapin::Consumer,
    pub(super) acks: Arc<Acks>,
    /// A delivery that was read ahead of the others.
    first: Option<Arc<Mutex<Option<Delivery>>>>,
}

impl Feed {
    pub(super) fn new(stream: lapin::Consumer, acks: Arc<Acks>) -> Self {
        Self { stream, acks, first: None }
    }

    pub(super) fn with_first(self, first: Option<Delivery>) -> Self {
        Self { first: first.map(|first| Arc::new(Mutex::new(Some(first)))), ..self }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<lapin::Result<Delivery>>> {
        if let Some(first) = self.first.take().and_then(|first| first.lock().take()) {
            return Poll::Ready(Some(Ok(first)));
        }
        Pin::new(&mut self.stream).poll_next(context)
    }
}

/// The consumers of one subscription.
#[derive(Default)]
pub(super) struct Feeds {
    feeds: Vec<Feed>,
    /// Who is asked first.
    turn: usize,
}

impl Feeds {
    pub(super) fn new(feeds: Vec<Feed>) -> Self {
        Self { feeds, turn: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.feeds.is_empty()
    }

    pub(super) fn remove(&mut self, place: usize) -> Feed {
        self.feeds.remove(place)
    }

    pub(super) fn acks(&self, place: usize) -> &Arc<Acks> {
        &self.feeds[place].acks
    }

    /// The next delivery of any, or the end of one, and whose it is.
    ///
    /// # Cancel safety
    /// Safe: a delivery is taken out only when it is returned.
    pub(super) async fn next(&mut self) -> (usize, Option<lapin::Result<Delivery>>) {
        poll_fn(|context| {
            let count = self.feeds.len();
            for step in 0..count {
                let place = (self.turn + step) % count;
                if let Poll::Ready(next) = self.feeds[place].poll(context) {
                    self.turn = place + 1;
                    return Poll::Ready((place, next));
                }
            }
            Poll::Pending
        })
        .await
    }
}
