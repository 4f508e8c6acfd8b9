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

/// An order, and to which members of a cluster it is given: by number, from 0; a lone broker is 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) members: Vec<usize>,
    #[serde(flatten)]
    pub(super) order: Order,
}

/// Where a member is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) url: String,
    pub(super) addr: SocketAddr,
    pub(super) folder: PathBuf,
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
    /// The members of a cluster; none of a lone broker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) members: Vec<Place>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output: Option<String>,
}
