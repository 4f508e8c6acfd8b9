//! The frames that are at the transport, and those that have to go again.
//!
//! At most [`Transport::window`] publishes are unresolved. A frame that the transport could not take because it was not
//! connected goes again, in the order in which the frames were made and before any newer one, except a heartbeat: the
//! next one says more. A publish that is not answered in time is given up and its frame goes again; whatever becomes of
//! the first call is not heard any more, so no frame is counted twice, and that it may arrive twice is harmless.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::Instant;

use super::confirms::Confirms;
use crate::{
    replica::Claim,
    transport::{Destination, Transport, TransportError},
};

/// How long nothing is published after the transport said that it is not connected.
const PAUSE: Duration = Duration::from_millis(50);

/// What a frame says, as far as its sending goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A heartbeat.
    Beat,
    /// Own records, up to this claim.
    Records(Claim),
    /// A message to a single node.
    Message,
}

/// A frame on its way.
#[derive(Debug)]
struct Flight {
    number: u64,
    kind: Kind,
    to: Destination,
    frame: Bytes,
}

/// A publish that has an answer.
#[derive(Debug)]
pub(super) struct Answered {
    flight: Flight,
    result: Result<(), TransportError>,
}

/// The frames that were handed to the transport and have no last word.
pub(super) struct Window {
    transport: Arc<dyn Transport>,
    /// How long a publish may go unanswered.
    wait: Duration,
    flying: FuturesUnordered<BoxFuture<'static, Answered>>,
    /// How many of them are heartbeats.
    beats_flying: usize,
    /// Frames to publish again, by the order in which they were made.
    again: BTreeMap<u64, Flight>,
    /// A transport that refuses at once while it calls itself connected is not asked in a tight loop.
    paused_until: Instant,
    numbers: u64,
    pub(super) confirms: Confirms,
    pub(super) refused: u64,
    pub(super) retried: u64,
    pub(super) beats_dropped: u64,
}

impl Window {
    pub(super) fn new(transport: Arc<dyn Transport>, wait: Duration) -> Self {
        Self {
            transport,
            wait,
            flying: FuturesUnordered::new(),
            beats_flying: 0,
            again: BTreeMap::new(),
            paused_until: Instant::now(),
            numbers: 0,
            confirms: Confirms::default(),
            refused: 0,
            retried: 0,
            beats_dropped: 0,
        }
    }

    /// Whether a publish may be begun now.
    pub(super) fn has_room(&self, now: Instant) -> bool {
        now >= self.paused_until && self.flying.len() < self.transport.window().max(1)
    }

    /// When a pause ends, where one is on.
    pub(super) fn pause(&self, now: Instant) -> Option<Instant> {
        Some(self.paused_until).filter(|until| *until > now)
    }

    /// How many frames other than heartbeats have no last word.
    pub(super) fn unconfirmed(&self) -> usize {
        self.flying.len() - self.beats_flying + self.again.len()
    }

    /// How many of them the transport has.
    pub(super) fn flying(&self) -> usize {
        self.flying.len() - self.beats_flying
    }

    /// Publishes the oldest frame that has to go again; whether there is one.
    pub(super) fn publish_again(&mut self) -> bool {
        let Some((_, flight)) = self.again.pop_first() else { return false };
        self.retried += 1;
        self.launch(flight);
        true
    }

    /// Publishes a new frame.
    pub(super) fn publish(&mut self, kind: Kind, to: Destination, frame: Bytes) {
        self.numbers += 1;
        let number = self.numbers;
        if let Kind::Records(claim) = kind {
            self.confirms.sent(number, claim);
        }
        self.launch(Flight { number, kind, to, frame });
    }

    /// The next answer; pends while nothing is on its way.
    pub(super) async fn next(&mut self) -> Answered {
        match self.flying.next().await {
            Some(answered) => answered,
            None => std::future::pending().await,
        }
    }

    /// Takes an answer. `Err` where the transport carries nothing any more.
    pub(super) fn settle(&mut self, answered: Answered) -> Result<(), TransportError> {
        let Answered { flight, result } = answered;
        let is_beat = flight.kind == Kind::Beat;
        self.beats_flying -= usize::from(is_beat);
        match result {
            Ok(()) => self.confirms.answered(flight.number, true),
            Err(TransportError::Unavailable { .. }) => {
                self.paused_until = Instant::now() + PAUSE;
                if is_beat {
                    self.beats_dropped += 1;
                } else {
                    self.again.insert(flight.number, flight);
                }
            }
            Err(error) => {
                // Lost like any frame: peers find the gap, or ask again.
                self.confirms.answered(flight.number, false);
                self.refused += 1;
                tracing::debug!(%error, "a frame was not taken");
                if matches!(error, TransportError::Fatal { .. } | TransportError::Closed) {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn launch(&mut self, flight: Flight) {
        self.beats_flying += usize::from(flight.kind == Kind::Beat);
        let transport = Arc::clone(&self.transport);
        let wait = self.wait;
        self.flying.push(Box::pin(async move {
            let publishing = transport.publish(flight.to.clone(), flight.frame.clone());
            let result = tokio::time::timeout(wait, publishing).await.unwrap_or_else(|_| {
                Err(TransportError::Unavailable { reason: format!("no answer to a publish within {wait:?}") })
            });
            Answered { flight, result }
        }));
    }
}
