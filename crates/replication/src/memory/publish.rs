//! What goes wrong when a node hands a frame over, before any link is reached.

use std::{collections::VecDeque, ops::RangeInclusive, time::Duration};

use bytes::Bytes;
use fastrand::Rng;
use tokio::sync::oneshot;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Limits, fault::delay_at};
use crate::{
    node::{NodeId, Origin},
    transport::{Destination, TransportError},
};

/// What happens to a node's publishes by chance. Probabilities are from 0 to 1; the default is no fault.
///
/// ```
/// use std::time::Duration;
/// use replication::{TransportError, memory::PublishFaults};
///
/// let blocked = TransportError::Unavailable { reason: "no memory".into() };
/// let poor = PublishFaults::none().fail(0.1, blocked).stall(0.5, Duration::from_secs(1)..=Duration::from_secs(40));
/// # assert_ne!(poor, PublishFaults::none());
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PublishFaults {
    fail: Option<(f64, TransportError)>,
    deny: Option<(f64, TransportError)>,
    stall: Option<(f64, RangeInclusive<Duration>)>,
}

impl PublishFaults {
    /// Every frame is taken at once.
    pub const fn none() -> Self {
        Self { fail: None, deny: None, stall: None }
    }

    /// The probability that a publish fails with this error, and the frame is not carried. Default 0.
    #[must_use]
    pub fn fail(self, probability: f64, error: TransportError) -> Self {
        Self { fail: Some((probability, error)), ..self }
    }

    /// The probability that the frame is carried and its publish nevertheless fails with this error, as where the
    /// connection breaks between the two. Default 0.
    #[must_use]
    pub fn deny(self, probability: f64, error: TransportError) -> Self {
        Self { deny: Some((probability, error)), ..self }
    }

    /// The probability that a publish is answered only after a time, drawn evenly from this range; the frame is carried
    /// at once. Default 0.
    #[must_use]
    pub fn stall(self, probability: f64, range: RangeInclusive<Duration>) -> Self {
        Self { stall: Some((probability, range)), ..self }
    }

    /// What befalls the `count`th publish of a node: the same for the same seed, node and count.
    pub(super) fn fate(&self, seed: u64, node: Origin, count: u64) -> PublishFate {
        let mut place = [0; 16];
        place[..8].copy_from_slice(&node.0.to_le_bytes());
        place[8..].copy_from_slice(&count.to_le_bytes());
        let mut rng = Rng::with_seed(xxh3_64_with_seed(&place, seed));
        // Every number is drawn whatever came before, so that one fault's setting does not change another's outcome.
        let [fail, deny, stall, wait] = [rng.f64(), rng.f64(), rng.f64(), rng.f64()];
        let error = |fault: &Option<(f64, TransportError)>, drawn: f64| {
            fault.as_ref().filter(|(probability, _)| drawn < *probability).map(|(_, error)| error.clone())
        };
        let stalls = self.stall.as_ref().filter(|(probability, _)| stall < *probability);
        PublishFate {
            fails: error(&self.fail, fail),
            denied: error(&self.deny, deny),
            stalls: stalls.map(|(_, range)| delay_at(range, wait)),
        }
    }
}

/// What befalls one publish.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct PublishFate {
    pub(super) fails: Option<TransportError>,
    pub(super) denied: Option<TransportError>,
    pub(super) stalls: Option<Duration>,
}

/// What the publisher is told, and when.
pub(super) enum Answer {
    Now(Result<(), TransportError>),
    After(Duration, Result<(), TransportError>),
    /// Once its node is thawed.
    Thawed(oneshot::Receiver<Result<(), TransportError>>),
}

/// A publish that waits for its node to be thawed.
#[derive(Debug)]
pub(super) struct Frozen {
    pub(super) life: u64,
    pub(super) to: Destination,
    pub(super) frame: Bytes,
    reply: oneshot::Sender<Result<(), TransportError>>,
}

impl Frozen {
    pub(super) fn answer(self, result: Result<(), TransportError>) {
        // Whoever gave up the publish needs no answer.
        let _ = self.reply.send(result);
    }
}

/// The publishes of one frozen node, in their order.
#[derive(Debug, Default)]
pub(super) struct Ice {
    publishes: VecDeque<Frozen>,
    bytes: usize,
}

impl Ice {
    /// Keeps a publish; gives its answer, and how many older ones had to go for it.
    pub(super) fn freeze(
        &mut self,
        life: u64,
        to: Destination,
        frame: Bytes,
        limits: &Limits,
    ) -> (Answer, u64) {
        let (reply, answer) = oneshot::channel();
        self.bytes += frame.len();
        self.publishes.push_back(Frozen { life, to, frame, reply });
        let mut gone = 0;
        while self.publishes.len() > limits.held_frames || self.bytes > limits.held_bytes {
            let Some(oldest) = self.publishes.pop_front() else { break };
            self.bytes -= oldest.frame.len();
            oldest.answer(Err(TransportError::Unavailable { reason: "the hub's hold is full".to_owned() }));
            gone += 1;
        }
        (Answer::Thawed(answer), gone)
    }

    pub(super) fn len(&self) -> usize {
        self.publishes.len()
    }

    pub(super) fn into_publishes(self) -> impl Iterator<Item = Frozen> {
        self.publishes.into_iter()
    }
}

/// Answers all publishes of a node that will not be carried.
pub(super) fn give_up(ice: Option<Ice>, error: &TransportError) {
    for frozen in ice.into_iter().flat_map(Ice::into_publishes) {
        frozen.answer(Err(error.clone()));
    }
}

/// Why a disconnected node's publish is not taken.
pub(super) fn disconnected(node: &NodeId) -> TransportError {
    TransportError::Unavailable { reason: format!("the hub disconnected {node}") }
}
