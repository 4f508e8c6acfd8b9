//! What an observer is told.

use bytes::Bytes;

use super::{Action, Fate, Held};
use crate::{message::Frame, record::Op, stamp::Stamp, wire};

/// What a frame is, by the header's kind alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is named like the message that it carries")]
pub enum FrameKind {
    Records,
    Beat,
    Pull,
    Gone,
    SyncReq,
    SyncPage,
    Probe,
    State,
    Fetch,
    Fetched,
    /// None that this version knows.
    Other,
}

impl FrameKind {
    /// Every kind, in the order of the numbers on the wire.
    pub const ALL: [Self; 11] = [
        Self::Records,
        Self::Beat,
        Self::Pull,
        Self::Gone,
        Self::SyncReq,
        Self::SyncPage,
        Self::Probe,
        Self::State,
        Self::Fetch,
        Self::Fetched,
        Self::Other,
    ];

    /// The kind of an encoded frame, read from its header without a check of the rest.
    pub fn of(frame: &[u8]) -> Self {
        let number = frame.get(3).map_or(usize::MAX, |kind| usize::from(*kind));
        let index = number.checked_sub(1).unwrap_or(usize::MAX);
        *Self::ALL.get(index).unwrap_or(&Self::Other)
    }
}

/// Something that just happened. The world that goes with it is the world after it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A process started with nothing in memory.
    Started {
        /// The node.
        node: usize,
        /// Which of its lives began; the first is 1.
        life: u64,
    },
    /// A process ended; its store can still be looked at until the next start.
    Crashed {
        /// The node.
        node: usize,
        /// Which of its lives ended.
        life: u64,
    },
    /// A local put or remove was applied.
    Wrote {
        /// The node.
        node: usize,
        /// The key.
        key: &'a [u8],
        /// What was done; of a time to live, what was given.
        op: &'a Op,
        /// The stamp that it got.
        stamp: Stamp,
    },
    /// A local clear was applied.
    Cleared {
        /// The node.
        node: usize,
        /// The namespace.
        namespace: &'a [u8],
        /// Its stamp; `None` where an equal or newer clear was known.
        stamp: Option<Stamp>,
    },
    /// A local read.
    Read {
        /// The node.
        node: usize,
        /// The key.
        key: &'a [u8],
        /// What it gave.
        held: Option<&'a Held>,
    },
    /// A method of a node's replica was called ([`World::call`](super::World::call)).
    Called {
        /// The node.
        node: usize,
    },
    /// The tick of a node, which comes every 25 ms.
    Ticked {
        /// The node.
        node: usize,
    },
    /// A node handled a frame.
    Handled {
        /// The node.
        node: usize,
        /// Who sent it.
        from: usize,
        /// What it is; [`Self::message`] decodes it.
        frame: &'a Bytes,
    },
    /// A node sent a frame to another; one to everyone is told once for each.
    Sent {
        /// Who sent it.
        from: usize,
        /// To whom.
        to: usize,
        /// What it is; [`Self::message`] decodes it.
        frame: &'a Bytes,
        /// What befell it.
        fate: Fate,
    },
    /// A scripted action was taken, after what it made happen was told.
    Acted {
        /// The action.
        action: &'a Action,
        /// Whether it applied.
        applied: bool,
    },
}

impl Event<'_> {
    /// The node whose state it changed or that it came from; `None` for a scripted action, which is told of by the
    /// events that it makes happen.
    pub fn node(&self) -> Option<usize> {
        match *self {
            Self::Started { node, .. }
            | Self::Crashed { node, .. }
            | Self::Wrote { node, .. }
            | Self::Cleared { node, .. }
            | Self::Read { node, .. }
            | Self::Called { node }
            | Self::Ticked { node }
            | Self::Handled { node, .. } => Some(node),
            Self::Sent { from, .. } => Some(from),
            Self::Acted { .. } => None,
        }
    }

    /// The kind of the frame that was sent or handled.
    pub fn kind(&self) -> Option<FrameKind> {
        self.frame().map(|frame| FrameKind::of(frame))
    }

    /// What the frame says that was sent or handled; `None` for other events and for frames that cannot be decoded.
    pub fn message(&self) -> Option<Frame> {
        wire::decode(self.frame()?.clone()).ok()
    }

    /// The bytes that were sent or handled.
    pub fn frame(&self) -> Option<&Bytes> {
        match self {
            Self::Handled { frame, .. } | Self::Sent { frame, .. } => Some(frame),
            _ => None,
        }
    }
}

/// What a node sent, by kind: a frame to everyone counts once for each node that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    frames: [u64; FrameKind::ALL.len()],
    bytes: [u64; FrameKind::ALL.len()],
    /// Frames for this node that were dropped because too many waited.
    pub inbox_dropped: u64,
    /// Frames that came while the node was down.
    pub missed: u64,
}

impl Traffic {
    pub(super) fn note(&mut self, kind: FrameKind, bytes: usize) {
        self.frames[kind as usize] += 1;
        self.bytes[kind as usize] += bytes as u64;
    }

    /// Frames of this kind that it sent.
    pub fn frames(&self, kind: FrameKind) -> u64 {
        self.frames[kind as usize]
    }

    /// Their bytes, headers and checksums included.
    pub fn bytes(&self, kind: FrameKind) -> u64 {
        self.bytes[kind as usize]
    }
}
