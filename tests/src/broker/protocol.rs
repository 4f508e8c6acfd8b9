//! What the handle and the supervisor say to each other: one JSON object a line.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

/// From the handle, on the supervisor's standard input. Its end is the order to end everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub(super) enum Order {
    Kill,
    Stop,
    Restart,
    Freeze,
    Thaw,
    Ctl { arguments: Vec<String> },
}

/// From the supervisor, on its standard output: one when the broker is ready or could not be had, one for each order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reply {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) addr: Option<SocketAddr>,
    /// The supervisor's own process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) folder: Option<PathBuf>,
    /// Where the broker came from, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output: Option<String>,
}
