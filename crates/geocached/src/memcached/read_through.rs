//! While its node is warming, a connection asks the nearest ready region for the keys that it misses.
//!
//! A node that has just started lacks most of what the others hold, and its misses would send its clients to the origin
//! of the data in the very minutes in which many of them come at once. So what a retrieval command lacks is asked for
//! before it is executed, for at most [`Options::fetch_timeout`]; what comes is stored, and the command then runs as
//! always. The connection's later commands wait meanwhile, so answers keep their order; others are not held up.
//!
//! **Bounds.** One question a part of a command (256 keys). Where a question had no answer, all connections take their
//! misses for misses for [`SILENCE`]: a region that does not answer costs each of them one wait, not one a command.
//! Once the node is ready nothing is asked any more.
//!
//! [`Options::fetch_timeout`]: super::Options::fetch_timeout

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use geocache::{Error, GeoCache};

use super::{
    command::Command,
    counter::{Counter, Tally},
    meta::MetaVerb,
    session::{KEYS_PER_PART, Shared},
};

/// How long nothing is asked after a question without an answer.
const SILENCE: Duration = Duration::from_secs(1);

/// Until when nothing is asked, for all connections of a server.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// In milliseconds since the server's start.
    until_ms: AtomicU64,
}

impl Silence {
    fn is_on(&self, started: Instant) -> bool {
        let now_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        now_ms < self.until_ms.load(Ordering::Relaxed)
    }

    fn begin(&self, started: Instant) {
        let until = started.elapsed() + SILENCE;
        self.until_ms.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// What one connection knows of its node's readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ReadThrough {
    /// A node that was ready once stays so, and its connections ask no more.
    is_over: bool,
}

impl ReadThrough {
    /// The keys of the command's next part that the node lacks, where it is warming and somebody may be asked.
    pub(super) fn lacking<'c>(&mut self, shared: &Shared, command: &'c Command<'_>) -> Vec<&'c [u8]> {
        if !reads(command) {
            return Vec::new();
        }
        if self.is_over || shared.options.fetch_timeout.is_none() {
            return Vec::new();
        }
        let cache = shared.cache();
        if cache.is_ready() {
            self.is_over = true;
            return Vec::new();
        }
        if shared.silence.is_on(shared.started) {
            return Vec::new();
        }
        let lacks = |key: &&[u8]| cache.contains(key).is_ok_and(|is_held| !is_held);
        match command {
            Command::Get { keys, .. } | Command::GetAndTouch { keys, .. } => {
                keys.take(KEYS_PER_PART).filter(lacks).collect()
            }
            Command::Meta(meta) => [&*meta.key].into_iter().filter(lacks).collect(),
            _ => Vec::new(),
        }
    }
}

fn reads(command: &Command<'_>) -> bool {
    match command {
        Command::Get { .. } | Command::GetAndTouch { .. } => true,
        Command::Meta(meta) => meta.verb == MetaVerb::Get,
        _ => false,
    }
}

/// Asks the nearest ready region for keys, and counts what came of it.
pub(super) async fn fetch(shared: &Shared, tally: &mut Tally, keys: &[&[u8]]) {
    let Some(timeout) = shared.options.fetch_timeout else { return };
    match shared.cache().fetch(keys, timeout).await {
        Ok(()) => {
            let held = |cache: &GeoCache, key: &[u8]| cache.contains(key).unwrap_or(false);
            let hits = keys.iter().filter(|key| held(shared.cache(), key)).count();
            tally.add(Counter::FetchHits, hits as u64);
            tally.add(Counter::FetchMisses, (keys.len() - hits) as u64);
        }
        Err(error) => {
            tally.count(Counter::FetchFailures);
            if matches!(error, Error::Timeout { .. }) {
                shared.silence.begin(shared.started);
            }
            tracing::debug!(%error, "keys could not be asked for while warming");
        }
    }
}
