//! What goes wrong with a server, before it is known whose request it spoilt.

use std::io;

use crate::{client::EndpointError, error::Error};

/// How much of an answer that is none is shown.
const SHOWN_BYTES_MAX: usize = 64;

#[derive(Debug)]
pub(super) enum Fault {
    /// It was not reached, or the connection broke.
    Broken { reason: String },
    /// It gave an answer that is none.
    Garbled { reason: String },
    /// It answered that it cannot now.
    Refused { reason: String },
    /// It does not take what it was sent.
    Rejected { reason: String },
    /// No server would take it.
    Input(Error),
}

impl Fault {
    pub(super) fn broken(error: &io::Error) -> Self {
        Self::Broken { reason: error.to_string() }
    }

    pub(super) fn garbled(answer: &[u8]) -> Self {
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(SHOWN_BYTES_MAX)]).into_owned();
        Self::Garbled { reason: format!("it answered what is no answer: {shown:?}") }
    }

    /// As the client hears it; `may_be_done` says of a broken connection whether a change may have been made.
    pub(super) fn told(self, address: &str, may_be_done: bool) -> EndpointError {
        let address = address.to_owned();
        match self {
            Self::Broken { reason } | Self::Garbled { reason } => {
                EndpointError::Unreachable { address, reason, may_be_done }
            }
            Self::Refused { reason } => EndpointError::Refused { address, reason },
            Self::Rejected { reason } => EndpointError::Rejected { address, reason },
            Self::Input(error) => EndpointError::Input(error),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Input(error)
    }
}
