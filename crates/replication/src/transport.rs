//! How frames travel between nodes: the trait that every transport implements.
//!
//! A transport moves opaque frames, at least once, possibly reordered, and possibly with loss at a bound that it
//! states. The replica protocol above repairs all three, so a transport buffers as little as it can and says promptly
//! when it cannot take a frame. Whether an implementation keeps its side is judged by the contract suite
//! (`replication::contract`, feature `contract`).
//!
//! **Who calls what.** One driver task per node owns the transport. It keeps at most [`Transport::window`] calls of
//! [`Transport::publish`] unresolved at a time, and one [`Subscription`]. It starts the publishes in frame order and
//! polls them concurrently; after an error that says so it publishes the same frames again, in order.
//!
//! **Accumulation lives above.** A transport never waits to fill a frame: the driver builds a frame only when a place
//! in the window is free, so records gather in the outbox meanwhile.

use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use geo::RegionId;
use tokio::sync::watch;

use crate::{node::NodeId, report::Report};

/// Whom a frame is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Destination {
    /// Every other node of the cache.
    Everyone,
    /// Every other node of one region.
    Region(RegionId),
    /// One node.
    Node(NodeId),
}

/// Whether a transport can carry frames now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// It can.
    Connected,
    /// Frames can be published; receiving is being restored.
    PublishOnly {
        /// Since when nothing is received.
        since: Instant,
        /// What the last try ended with, where one ended.
        last_error: Option<String>,
    },
    /// Frames are received; for now the other side takes none (RabbitMQ: its alarm for memory or disk).
    Blocked {
        /// Since when.
        since: Instant,
        /// Why, in the other side's words.
        reason: String,
    },
    /// It cannot publish yet, and is trying.
    Connecting {
        /// Since when.
        since: Instant,
        /// What the last try ended with, where one ended.
        last_error: Option<String>,
    },
    /// It was closed and carries nothing again.
    Closed,
}

impl Health {
    /// Whether a publish may be tried.
    pub fn can_publish(&self) -> bool {
        matches!(self, Self::Connected | Self::PublishOnly { .. })
    }

    /// The state in one word: `connected`, `publish-only`, `blocked`, `connecting` or `closed`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::PublishOnly { .. } => "publish-only",
            Self::Blocked { .. } => "blocked",
            Self::Connecting { .. } => "connecting",
            Self::Closed => "closed",
        }
    }

    /// Since when it has not been [`Connected`](Self::Connected), where that is known.
    pub fn since(&self) -> Option<Instant> {
        match self {
            Self::PublishOnly { since, .. }
            | Self::Blocked { since, .. }
            | Self::Connecting { since, .. } => Some(*since),
            Self::Connected | Self::Closed => None,
        }
    }

    /// Why it is not [`Connected`](Self::Connected), where that is known. Holds no password.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::PublishOnly { last_error, .. } | Self::Connecting { last_error, .. } => {
                last_error.as_deref()
            }
            Self::Blocked { reason, .. } => Some(reason),
            Self::Connected | Self::Closed => None,
        }
    }
}

/// Why a frame or a subscription was refused; each variant is the caller's next move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// Not connected now: wait until [`Transport::health`] says so ([`Health::can_publish`]), then send the same again.
    #[error("the transport is not connected: {reason}")]
    Unavailable {
        /// What it is waiting for.
        reason: String,
    },
    /// Nobody is there to take an addressed frame: drop it; the protocol asks again or somebody else.
    #[error("no node takes frames for {to:?}")]
    Unroutable {
        /// The address.
        to: Destination,
    },
    /// This frame was refused (over a limit, negatively acknowledged): drop it, do not send the same again.
    #[error("the transport refused the frame: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// The transport cannot work as configured: give up and report it.
    #[error("the transport cannot work: {reason}")]
    Fatal {
        /// What is wrong and what to do.
        reason: String,
    },
    /// It was closed by its owner.
    #[error("the transport is closed")]
    Closed,
}

/// Carries frames between the nodes of one cache.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// The node this end of the transport belongs to.
    fn node(&self) -> &NodeId;

    /// Hands a frame over; resolves when the transport has accepted responsibility for it (RabbitMQ: the publisher
    /// confirm). It may or may not deliver an own broadcast back to its sender.
    ///
    /// # Errors
    /// See [`TransportError`]; after an error the frame may nevertheless have been sent.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the wait, not the frame: it may still be sent, at most once for this call.
    async fn publish(&self, to: Destination, frame: Bytes) -> Result<(), TransportError>;

    /// Begins to receive the frames for this node. What was published to it after this returned is delivered, within
    /// the transport's stated bound. A second call replaces the first subscription, which then ends.
    ///
    /// # Errors
    /// See [`TransportError`].
    async fn subscribe(&self) -> Result<Box<dyn Subscription>, TransportError>;

    /// Whether frames can be carried now; changes are seen by watching. Holds [`Health::Closed`] at the end.
    fn health(&self) -> watch::Receiver<Health>;

    /// How many publishes the driver may keep unresolved.
    fn window(&self) -> usize {
        4
    }

    /// What it tells operators beside its health: counts and breakers. Default: nothing. Asked from any task, seldom.
    fn report(&self) -> Report {
        Report::default()
    }

    /// Ends the transport: later calls return [`TransportError::Closed`], the subscription ends. Idempotent. Waits, to
    /// a bound of the implementation, for what was handed over already.
    ///
    /// # Errors
    /// What could not be ended cleanly.
    async fn close(&self) -> Result<(), TransportError>;
}

/// The frames for one node, in the order in which the transport gives them.
#[async_trait]
pub trait Subscription: Send {
    /// The next frame. `None` ends the subscription (the link went down, or the transport was closed): subscribe
    /// again.
    ///
    /// # Cancel safety
    /// Safe: no frame is lost by dropping the future.
    async fn next(&mut self) -> Option<Delivery>;
}

/// A frame, and the handle by which its receiver says that it was handled.
#[derive(Debug)]
pub struct Delivery {
    /// The frame's bytes.
    pub frame: Bytes,
    /// Acknowledge after handling.
    pub ack: Ack,
}

/// Acknowledges one delivered frame; at most `prefetch` frames of a transport stay unacknowledged.
///
/// Dropped without [`Ack::done`] or [`Ack::reject`], the frame counts as not handled, and the transport may deliver it
/// again.
#[must_use = "a frame is delivered again unless it is acknowledged"]
pub struct Ack(Option<Box<dyn FnOnce(Handled) + Send>>);

/// What its receiver made of a frame; it is not delivered again in either case.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Handled {
    /// It was applied, refused by a rule of the protocol, or left to be pulled.
    Done,
    /// It was no frame of this cache that could be read; the same bytes would fail again.
    Rejected {
        /// What was wrong with it.
        reason: String,
    },
}

impl Ack {
    /// A handle that runs `done` when the frame was handled, rejected or not. `done` must not block.
    pub fn new(done: impl FnOnce() + Send + 'static) -> Self {
        Self::judged(|_| done())
    }

    /// A handle of a transport that keeps or counts what its receiver rejects. `handled` must not block.
    pub fn judged(handled: impl FnOnce(Handled) + Send + 'static) -> Self {
        Self(Some(Box::new(handled)))
    }

    /// A handle of a transport that needs no acknowledgement.
    pub fn none() -> Self {
        Self(None)
    }

    /// The frame was handled: applied, refused, or left to be pulled.
    pub fn done(self) {
        self.end(Handled::Done);
    }

    /// The bytes are no frame of this cache that can be read: not to be delivered again. A transport that can keeps them
    /// aside with the reason, as RabbitMQ's does in its dead-letter queue; for any other it is the same as [`Ack::done`].
    pub fn reject(self, reason: impl Into<String>) {
        self.end(Handled::Rejected { reason: reason.into() });
    }

    fn end(self, handled: Handled) {
        if let Some(end) = self.0 {
            end(handled);
        }
    }
}

impl std::fmt::Debug for Ack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ack")
    }
}
