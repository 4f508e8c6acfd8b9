//! What a fleet and its nodes say to each other: one JSON object a line.
//!
//! The orders of one node are carried out side by side, so each has a number, and its answer has the same one. What a
//! node says unasked are [`Event`]s.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{contents::Digest, latency::Latency};

/// An order with its number, on the node's standard input. The end of the input ends the node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Numbered {
    pub(super) id: u64,
    pub(super) order: Order,
}

/// What a node is told to do. Every one of them is done within a bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// Writes from now on at this many writes a second.
    Write { per_second: u32 },
    /// Writes no more.
    Rest,
    /// Measures reads under this name from now on.
    Phase { name: String },
    /// How long the reads of each phase took.
    Latencies,
    /// What it holds, by range of keys, in short.
    Digest,
    /// Writes what it holds into a file.
    Dump { path: PathBuf },
    /// Writes into a file what it wrote last on each key.
    Ledger { path: PathBuf },
    /// Names everything that it has written.
    Token,
    /// Waits until what another node's token names is here.
    AtLeast { token: String, wait: Duration },
    /// How it is.
    Report,
    /// Hands over what waits to leave, and ends.
    Close { wait: Duration },
}

/// A line on the node's standard output.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// What became of an order.
    Answer { id: u64, result: Result<Answer, String> },
    /// What it says unasked.
    Event(Event),
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Done,
    Latencies(Vec<(String, Latency)>),
    Digest(Digest),
    Token(String),
    Report(Box<Report>),
    Closed { unsent_records: usize, unconfirmed_frames: usize },
}

/// What a node says unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// It is ready.
    Ready,
    /// It had to stop replicating.
    Failed {
        /// Why.
        reason: String,
    },
    /// A receipt that says that a write has left its node.
    Told(Told),
}

/// A receipt, as far as the checker holds a node to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The key.
    pub key: String,
    /// The number of the write, by its writer.
    pub counter: u64,
    /// Whether the transport took the write.
    pub published: bool,
    /// The regions that have it, the writer's own left out.
    pub elsewhere: Vec<String>,
}

/// How a node is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// Whether it is ready.
    pub ready: bool,
    /// What its transport says of its connections.
    pub health: String,
    /// The name of its queue at the broker.
    pub queue: String,
    /// Writes and removes that it took.
    pub written: u64,
    /// Writes that were due and not made, since the writer was behind by more than it may catch up.
    pub skipped: u64,
    /// Writes that the node refused.
    pub refused: u64,
    /// Values held.
    pub entries: usize,
    /// Keys remembered as gone.
    pub graves: usize,
    /// Bytes of changes that wait to leave.
    pub outbox_bytes: usize,
    /// Values given up for room; the checker may not be used where there are any.
    pub evictions: u64,
    /// Writes that were lost on their way in spite of all rules, and repaired.
    pub divergence: u64,
    /// Frames that it refused because they were stamped too far ahead.
    pub frames_drifting: u64,
    /// State transfers that it completed.
    pub syncs_finished: u64,
    /// Gaps that it asked for.
    pub pulls_sent: u64,
    /// Connections that were lost and made again.
    pub reconnects: u64,
    /// Attempts to connect that failed.
    pub connect_failures: u64,
    /// Times that the broker ended its consumer.
    pub consumer_cancels: u64,
    /// Times that the broker stopped taking what it published.
    pub blocked: u64,
    /// The regions of nodes whose clocks it says are too far ahead.
    pub drifting: Vec<String>,
}
