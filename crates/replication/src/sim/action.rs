//! What can be scripted: local operations, crashes, clocks and the network, as values.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Link;

/// Something that happens in a [`World`](super::World) at a moment: a line of a schedule.
///
/// It names nodes by the numbers that [`World::add`](super::World::add) gave. An action that does not apply, such as a
/// put on a node that is down or a cut of a link that is not there, does nothing: so lines can be taken out of a
/// schedule one by one while it is being shrunk. A schedule is a list of `(virtual ms, Action)`; it is printed by
/// [`fmt::Display`] and kept by `serde`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Action {
    /// A local write. `ttl_ms` is its time to live, where it expires.
    Put {
        /// The node that writes.
        node: usize,
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// Its time to live in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_ms: Option<u64>,
    },
    /// A local remove.
    Remove {
        /// The node that removes.
        node: usize,
        /// The key.
        key: String,
    },
    /// A local clear of a namespace; the empty one is the whole cache.
    Clear {
        /// The node that clears.
        node: usize,
        /// The namespace.
        namespace: String,
    },
    /// A local read, which counts as a use.
    Read {
        /// The node that reads.
        node: usize,
        /// The key.
        key: String,
    },
    /// The process ends without a word; its memory is gone.
    Crash {
        /// The node.
        node: usize,
    },
    /// A process that was down starts with nothing in memory, warming.
    Start {
        /// The node.
        node: usize,
    },
    /// The process stops; frames for it queue.
    Pause {
        /// The node.
        node: usize,
    },
    /// The process goes on.
    Resume {
        /// The node.
        node: usize,
    },
    /// The process needs this long for each frame; 0 is at once.
    Slow {
        /// The node.
        node: usize,
        /// How long, in milliseconds.
        frame_ms: u64,
    },
    /// The node's transport is not connected: its writes gather in the outbox, frames for it queue.
    Disconnect {
        /// The node.
        node: usize,
    },
    /// The node's transport is connected again.
    Connect {
        /// The node.
        node: usize,
    },
    /// The node's wall clock moves by so much at once, as if somebody had set it.
    Step {
        /// The node.
        node: usize,
        /// By how much, in milliseconds.
        by_ms: i64,
    },
    /// The node's wall clock runs so many parts in a million too fast from now on.
    Rate {
        /// The node.
        node: usize,
        /// Parts in a million; negative is too slow.
        ppm: i64,
    },
    /// Nothing passes on the link any more, one way.
    Cut {
        /// The sending end.
        from: usize,
        /// The receiving end.
        to: usize,
    },
    /// The link passes frames again.
    Mend {
        /// The sending end.
        from: usize,
        /// The receiving end.
        to: usize,
    },
    /// Nothing passes between the two groups any more, either way.
    Partition {
        /// The one side.
        left: Vec<usize>,
        /// The other side.
        right: Vec<usize>,
    },
    /// Every cut ends.
    Heal,
    /// One link becomes like this.
    SetLink {
        /// The sending end.
        from: usize,
        /// The receiving end.
        to: usize,
        /// How it is from now on.
        link: Link,
    },
    /// Every link becomes like this.
    SetLinks {
        /// How they are from now on.
        link: Link,
    },
}

impl Action {
    /// A [`Self::Put`] that does not expire.
    pub fn put(node: usize, key: impl Into<String>, value: impl Into<String>) -> Self {
        Self::Put { node, key: key.into(), value: value.into(), ttl_ms: None }
    }

    /// A [`Self::Put`] that expires.
    pub fn put_for(ttl_ms: u64, node: usize, key: impl Into<String>, value: impl Into<String>) -> Self {
        Self::Put { node, key: key.into(), value: value.into(), ttl_ms: Some(ttl_ms) }
    }

    /// A [`Self::Remove`].
    pub fn remove(node: usize, key: impl Into<String>) -> Self {
        Self::Remove { node, key: key.into() }
    }

    /// A [`Self::Read`].
    pub fn read(node: usize, key: impl Into<String>) -> Self {
        Self::Read { node, key: key.into() }
    }

    /// A [`Self::Partition`].
    pub fn partition(left: impl Into<Vec<usize>>, right: impl Into<Vec<usize>>) -> Self {
        Self::Partition { left: left.into(), right: right.into() }
    }

    /// The nodes that it names.
    pub fn nodes(&self) -> Vec<usize> {
        match self {
            Self::Put { node, .. }
            | Self::Remove { node, .. }
            | Self::Clear { node, .. }
            | Self::Read { node, .. }
            | Self::Crash { node }
            | Self::Start { node }
            | Self::Pause { node }
            | Self::Resume { node }
            | Self::Slow { node, .. }
            | Self::Disconnect { node }
            | Self::Connect { node }
            | Self::Step { node, .. }
            | Self::Rate { node, .. } => vec![*node],
            Self::Cut { from, to } | Self::Mend { from, to } | Self::SetLink { from, to, .. } => {
                vec![*from, *to]
            }
            Self::Partition { left, right } => left.iter().chain(right).copied().collect(),
            Self::Heal | Self::SetLinks { .. } => Vec::new(),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { node, key, value, ttl_ms: None } => write!(f, "node {node} puts {key:?} = {value:?}"),
            Self::Put { node, key, value, ttl_ms: Some(ttl_ms) } => {
                write!(f, "node {node} puts {key:?} = {value:?} for {ttl_ms} ms")
            }
            Self::Remove { node, key } => write!(f, "node {node} removes {key:?}"),
            Self::Clear { node, namespace } => write!(f, "node {node} clears {namespace:?}"),
            Self::Read { node, key } => write!(f, "node {node} reads {key:?}"),
            Self::Crash { node } => write!(f, "node {node} crashes"),
            Self::Start { node } => write!(f, "node {node} starts"),
            Self::Pause { node } => write!(f, "node {node} pauses"),
            Self::Resume { node } => write!(f, "node {node} resumes"),
            Self::Slow { node, frame_ms } => write!(f, "node {node} takes {frame_ms} ms a frame"),
            Self::Disconnect { node } => write!(f, "node {node} is disconnected"),
            Self::Connect { node } => write!(f, "node {node} is connected"),
            Self::Step { node, by_ms } => write!(f, "the clock of node {node} steps by {by_ms} ms"),
            Self::Rate { node, ppm } => write!(f, "the clock of node {node} runs {ppm} ppm fast"),
            Self::Cut { from, to } => write!(f, "the link {from} -> {to} is cut"),
            Self::Mend { from, to } => write!(f, "the link {from} -> {to} is mended"),
            Self::Partition { left, right } => write!(f, "{left:?} and {right:?} are parted"),
            Self::Heal => write!(f, "every cut ends"),
            Self::SetLink { from, to, link } => write!(f, "the link {from} -> {to} has {link}"),
            Self::SetLinks { link } => write!(f, "every link has {link}"),
        }
    }
}
