//! What the broker has while nothing goes on, and whether that grows: the judge is pure.
//!
//! The broker's resident memory follows what waits in its queues, and that is not little: each node's may hold 64 MiB
//! while its link is held or it is frozen, and so may that of a killed node, which nobody reads any more and which stays
//! for ten minutes. Judged by that, a broker that keeps its promise looks like one that leaks, and the other way about. So
//! it is judged at rest: at each check, and once more before a fault that ends it, when the faults are mended, the writers
//! rest and all regions hold the same. What nobody reads is emptied and all garbage collected first; then
//!
//! - **nothing is left behind**: there are no more connections, channels, consumers, exchanges, queues that are read and
//!   their bindings than at the run's first rest. What a lost connection leaves there is found at once,
//!   however small it is;
//! - **memory is flat**: what Erlang has in use is within [`RATIO`] times the least of all rests, and [`slack_kib`] above,
//!   whichever life of the broker that was.

use std::{collections::BTreeSet, fmt, time::Duration};

use serde::Serialize;

use crate::broker::Census;

/// By how much what is in use may differ from the least…
pub const RATIO: f64 = 1.1;

/// …and this much, in KiB: quorum queues and streams keep the end of their logs in memory, whatever was acknowledged.
pub fn slack_kib(profile: &str) -> u64 {
    if profile == "fast" { 8 << 10 } else { 40 << 10 }
}

/// The broker at rest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rest {
    /// Since the run began.
    pub at: Duration,
    /// How long this life of the broker had lasted.
    pub lived: Duration,
    /// Connections of clients.
    pub connections: u64,
    /// Their channels.
    pub channels: u64,
    /// Exchanges.
    pub exchanges: u64,
    /// What these channels read.
    pub consumers: u64,
    /// Queues and streams that are read…
    pub read_queues: u64,
    /// …with so many bindings.
    pub bindings: u64,
    /// Queues that nobody reads, those of killed nodes until they expire.
    pub unread_queues: u64,
    /// What Erlang has in use, in KiB.
    pub memory_kib: u64,
}

impl Rest {
    /// A count of the broker, which had lived for so long.
    pub fn new(census: &Census, at: Duration, lived: Duration) -> Self {
        let (read, unread): (Vec<_>, Vec<_>) =
            census.queues.iter().partition(|(_, queue)| queue.consumers > 0);
        let names: BTreeSet<&String> = read.iter().map(|&(name, _)| name).collect();
        Self {
            at,
            lived,
            connections: census.connections,
            channels: census.channels,
            exchanges: census.exchanges.len() as u64,
            read_queues: read.len() as u64,
            consumers: census.consumers,
            bindings: census.bindings.iter().filter(|[_, to, _]| names.contains(to)).count() as u64,
            unread_queues: unread.len() as u64,
            memory_kib: census.memory_bytes >> 10,
        }
    }

    /// Whether there is as much of everything; memory apart.
    pub fn counts_as(&self, other: &Self) -> bool {
        self.left_behind(other).is_empty() && other.left_behind(self).is_empty()
    }

    /// What it has more of than `first`.
    fn left_behind(&self, first: &Self) -> Vec<String> {
        let counts = [
            ("connections", self.connections, first.connections),
            ("channels", self.channels, first.channels),
            ("exchanges", self.exchanges, first.exchanges),
            ("queues that are read", self.read_queues, first.read_queues),
            ("consumers", self.consumers, first.consumers),
            ("bindings", self.bindings, first.bindings),
        ];
        let grown = counts.into_iter().filter(|(_, now, first)| now > first);
        grown.map(|(what, now, first)| format!("{now} {what}, {first} at first")).collect()
    }
}

impl fmt::Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, channels, read_queues, unread_queues, bindings, .. } = self;
        let (mib, lived_s) = (self.memory_kib as f64 / 1_024.0, self.lived.as_secs());
        write!(f, "{mib:.1} MiB in use after {lived_s} s, {connections} connections, {channels} channels, ")?;
        write!(f, "{read_queues} queues with {} consumers and {bindings} bindings, ", self.consumers)?;
        write!(f, "{unread_queues} that nobody reads")
    }
}

/// What is wrong with the last of these, which are in order.
pub fn judge_last(rests: &[Rest], slack_kib: u64) -> Vec<String> {
    let ([first, ..], [.., last]) = (rests, rests) else { return Vec::new() };
    let mut problems = last.left_behind(first);
    let least = rests.iter().map(|rest| rest.memory_kib).min().unwrap_or_default();
    if last.memory_kib as f64 > least as f64 * RATIO + slack_kib as f64 {
        let mib = |kib: u64| kib as f64 / 1_024.0;
        problems.push(format!("{:.1} MiB in use, {:.1} at least", mib(last.memory_kib), mib(least)));
    }
    problems
}

/// What is wrong with each of these.
pub fn judge(rests: &[Rest], slack_kib: u64) -> Vec<String> {
    let each = (1..=rests.len()).flat_map(|count| {
        let at_s = rests[count - 1].at.as_secs();
        let problems = judge_last(&rests[..count], slack_kib);
        problems.into_iter().map(move |problem| format!("the broker at rest at {at_s} s: {problem}"))
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLACK_KIB: u64 = 8 << 10;

    fn rest(at_s: u64, memory_kib: u64) -> Rest {
        let (at, lived) = (Duration::from_secs(at_s), Duration::from_secs(at_s));
        Rest {
            at,
            lived,
            connections: 6,
            channels: 12,
            exchanges: 10,
            read_queues: 3,
            consumers: 3,
            bindings: 15,
            unread_queues: 0,
            memory_kib,
        }
    }

    #[test]
    fn a_broker_that_is_the_same_at_each_rest_is_fine_in_every_life() {
        let lives = [rest(40, 90_000), rest(220, 105_000), rest(300, 92_000), rest(480, 100_000)];
        assert_eq!(judge(&lives, SLACK_KIB), Vec::<String>::new());
        assert_eq!(judge(&[], SLACK_KIB), Vec::<String>::new());
    }

    /// 100 KiB a second: a connection that stays at each loss of one would be that.
    #[test]
    fn a_planted_leak_is_found_in_a_life_of_some_minutes() {
        let leaks: Vec<Rest> = (0..5).map(|n| rest(40 + 60 * n, 90_000 + 100 * 60 * n)).collect();
        let found = judge(&leaks, SLACK_KIB);
        assert_eq!(found.len(), 2, "after three minutes: {found:?}");
        assert!(found[0].contains("in use"), "{found:?}");
    }

    #[test]
    fn whatever_is_left_behind_is_found_however_small_it_is() {
        let first = rest(40, 90_000);
        let again = Rest { at: Duration::from_secs(220), ..first.clone() };
        for left in [
            Rest { connections: 7, ..again.clone() },
            Rest { channels: 13, ..again.clone() },
            Rest { exchanges: 11, ..again.clone() },
            Rest { read_queues: 4, ..again.clone() },
            Rest { consumers: 4, ..again.clone() },
            Rest { bindings: 16, ..again.clone() },
        ] {
            assert_eq!(judge(&[first.clone(), left.clone()], SLACK_KIB).len(), 1, "{left:?}");
        }
        let killed = Rest { unread_queues: 2, ..again };
        assert_eq!(judge(&[first, killed], SLACK_KIB), Vec::<String>::new(), "those expire");
    }

    #[test]
    fn a_census_counts_what_is_read_apart_from_what_nobody_reads() {
        let mut census = Census::default();
        for (name, consumers) in [("read", 2), ("unread", 0)] {
            let queue = crate::broker::Queue { consumers, messages: 7 };
            census.queues.insert(name.to_owned(), queue);
            census.bindings.insert(["geocache", name, "all.#"].map(str::to_owned));
        }
        (census.consumers, census.memory_bytes) = (2, 5 << 10);
        let rest = Rest::new(&census, Duration::ZERO, Duration::ZERO);
        let Rest { read_queues, consumers, bindings, unread_queues, memory_kib, .. } = rest;
        assert_eq!((read_queues, consumers, bindings, unread_queues, memory_kib), (1, 2, 1, 1, 5));
    }
}
