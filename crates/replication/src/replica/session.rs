//! Who has a write, and whether a session's writes are here: answered from the watermarks that beats carry.
//!
//! A write is named by its stream and stamp, not by a number, since a number exists only once the record has left.
//! Within a stream stamps strictly increase with numbers, so the stamp at a watermark says of every write of that
//! stream whether it lies at or below it; and at or below a watermark means that the key's bar is at least that stamp.
//! So a receipt cannot lie, and a read after a reached token never returns less than the session has seen.

use std::{collections::BTreeSet, fmt, str::FromStr};

use geo::RegionId;

use super::{EPOCHS_MAX, Now, Replica, Store};
use crate::{
    node::{Origin, Stream},
    stamp::Hlc,
};

/// Names a write for its receipt and for later reads of its session elsewhere.
///
/// Travels as text between processes:
///
/// ```
/// use replication::{Hlc, Origin, Stream, replica::Token};
///
/// let token = Token { stream: Stream { origin: Origin(7), epoch: 8 }, hlc: Hlc(9) };
/// assert_eq!(token.to_string().parse(), Ok(token));
/// assert!("not a token".parse::<Token>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// The life of the node that took the write.
    pub stream: Stream,
    /// The write's clock.
    pub hlc: Hlc,
}

/// A text that is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no session token; one is three hexadecimal numbers of 16 digits, joined by dashes")]
pub struct TokenError {
    text: String,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}-{:016x}", self.stream.origin.0, self.stream.epoch, self.hlc.0)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let error = || TokenError { text: text.chars().take(64).collect() };
        let number = |part: &str| {
            let is_hex = part.len() == 16 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            u64::from_str_radix(part, 16).ok().filter(|_| is_hex).ok_or_else(error)
        };
        let parts: Vec<&str> = text.split('-').collect();
        let [origin, epoch, hlc] = parts[..] else { return Err(error()) };
        let stream = Stream { origin: Origin(number(origin)?), epoch: number(epoch)? };
        Ok(Self { stream, hlc: Hlc(number(hlc)?) })
    }
}

/// Whether what a session has written or seen is on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// It is: reads here return it or something newer.
    Reached,
    /// It is not here yet.
    Behind {
        /// How much newer the write is than the newest of its stream that is here, in milliseconds of the stamps' clocks;
        /// `None` where nothing of the stream is.
        lag_ms: Option<u64>,
    },
    /// It will not come: that life of its node is over, and no live node has the write.
    Lost,
}

/// How far this life's own changes have left, after the last [`Replica::poll`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The newest record that was numbered.
    pub(crate) numbered: Hlc,
    /// Every change up to this clock was in a frame, or superseded by one that was, or skipped.
    pub(crate) complete: Hlc,
    /// The newest change that was numbered and not sent because the outbox was full.
    pub(crate) skipped: Hlc,
}

impl<S: Store> Replica<S> {
    /// How far own changes have left. A poll that changes it gave a frame of own records.
    pub(crate) fn claim(&self) -> Claim {
        Claim { numbered: self.numbered, complete: self.complete, skipped: self.skipped }
    }

    /// The token of a write that this life of the node has just stamped.
    pub fn token(&self, hlc: Hlc) -> Token {
        Token { stream: self.stream(), hlc }
    }

    /// The regions of which a node is known to have a write, or something newer of its key; this node's own included
    /// where it has it. What a node has it says in its beats, so the answer is behind the truth by a beat, never ahead.
    pub fn regions_with(&self, token: Token) -> BTreeSet<RegionId> {
        let own = self.has(token).then(|| self.config.node.region().clone());
        let others = self.peers.values().filter(|peer| {
            peer.reports.get(&token.stream).is_some_and(|report| {
                report.watermark_hlc >= token.hlc || !self.config.rules.receipt_by_watermark
            })
        });
        others.map(|peer| peer.node.region().clone()).chain(own).collect()
    }

    /// The regions of all nodes heard within the time after which one is retired, this node's own included.
    pub fn regions(&self) -> BTreeSet<RegionId> {
        let own = std::iter::once(self.config.node.region());
        self.peers.values().map(|peer| peer.node.region()).chain(own).cloned().collect()
    }

    /// Whether a write that another node, or this one, took is here.
    pub fn progress(&self, now: Now, token: Token) -> Progress {
        if self.has(token) {
            return Progress::Reached;
        }
        let is_told = self.is_admissible(token.stream) && self.anyone_has(now, token);
        let may_come = is_told || self.may_still_be_told(now, token.stream);
        if self.is_superseded(token.stream) && self.ready && !may_come {
            return Progress::Lost;
        }
        let here = self.streams.get(&token.stream).map(|state| state.hlc);
        Progress::Behind { lag_ms: here.map(|hlc| token.hlc.ms().saturating_sub(hlc.ms())) }
    }

    pub(super) fn has(&self, token: Token) -> bool {
        // A node sees its own writes at once; and no write of a life lies at its beginning.
        let is_own = token.stream == self.stream();
        if is_own || token.hlc.0 <= token.stream.epoch {
            return true;
        }
        if !self.config.rules.session_by_watermark {
            return self.outbox.clock().last() >= token.hlc;
        }
        self.streams.get(&token.stream).is_some_and(|state| state.hlc >= token.hlc)
    }

    /// Whether a later life of the stream's node is known.
    fn is_superseded(&self, stream: Stream) -> bool {
        let by_peer = self.peers.get(&stream.origin).is_some_and(|peer| peer.epoch > stream.epoch);
        by_peer || (stream.origin == self.origin && stream.epoch < self.epoch)
    }

    /// Whether the node of an overtaken life may yet say that it brings along what it wrote in it: it still speaks in
    /// that life, or has not said what it has in the next one.
    fn may_still_be_told(&self, now: Now, stream: Stream) -> bool {
        self.peers.get(&stream.origin).is_some_and(|peer| {
            let is_recent = |then_ms: u64| now.mono_ms.saturating_sub(then_ms) <= self.config.alive_ms;
            peer.beat.is_none() && self.is_alive(peer, now) || peer.zombie_ms.is_some_and(is_recent)
        })
    }

    /// Whether a stream is, or could be, among those remembered of its node.
    pub(super) fn is_admissible(&self, stream: Stream) -> bool {
        let later = Stream { epoch: stream.epoch.saturating_add(1), ..stream };
        let later = self.streams.range(later..=Stream { epoch: u64::MAX, ..stream });
        self.streams.contains_key(&stream) || later.count() < EPOCHS_MAX
    }

    fn anyone_has(&self, now: Now, token: Token) -> bool {
        let live = self.peers.values().filter(|peer| self.is_alive(peer, now));
        live.filter_map(|peer| peer.reports.get(&token.stream))
            .any(|report| report.watermark_hlc >= token.hlc)
    }
}

#[cfg(test)]
mod tests;
