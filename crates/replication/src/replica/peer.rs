//! What is known of another node: its life, its clock against ours, and what it has.

use std::collections::HashMap;

use crate::{
    message::{Beat, StreamReport},
    node::{NodeId, Stream},
    record::Ttl,
    stamp::Hlc,
};

use super::Now;

/// A wall clock that moved further than this against its monotonic one has stepped, in milliseconds.
const STEP_MS: u64 = 500;

/// What is known of another node.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) epoch: u64,
    pub(crate) ready: bool,
    pub(crate) heard_ms: u64,
    /// The monotonic clock of its last beat, and when that was heard on ours.
    pub(crate) beat: Option<(u64, u64)>,
    pub(crate) clock: Option<ClockSample>,
    /// Its wall clock less its monotonic one, at its last beat.
    anchor_ms: Option<i64>,
    pub(crate) reports: HashMap<Stream, StreamReport>,
    pub(crate) lag: Lag,
    /// Its clock was further ahead than allowed when last heard.
    pub(crate) drifts: bool,
    /// Its clock was far enough ahead for a warning.
    pub(crate) warned: bool,
}

/// One round trip: how far the peer's wall clock is behind ours, overestimated by at most the round-trip time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClockSample {
    pub(crate) rtt_ms: u64,
    /// Our wall clock minus the peer's at the time it sent the beat; includes the way here.
    pub(crate) offset_ms: i64,
    taken_ms: u64,
}

/// The time from a write's stamp on the peer to its application here.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Lag {
    pub(crate) last_ms: u64,
    pub(crate) mean_ms: f64,
    pub(crate) max_ms: u64,
    pub(crate) samples: u64,
}

impl Peer {
    pub(crate) fn new(node: NodeId, epoch: u64, now: Now) -> Self {
        Self {
            node,
            epoch,
            ready: false,
            heard_ms: now.mono_ms,
            beat: None,
            clock: None,
            anchor_ms: None,
            reports: HashMap::new(),
            lag: Lag::default(),
            drifts: false,
            warned: false,
        }
    }

    /// Takes a round trip: our beat of `sent_ms`, held there for `held_ms`, came back in `beat`.
    pub(crate) fn sample_clock(&mut self, now: Now, beat: &Beat, sent_ms: u64, held_ms: u64) {
        let rtt_ms = now.mono_ms.saturating_sub(sent_ms).saturating_sub(held_ms);
        let offset_ms = now.wall_ms as i64 - beat.wall_ms as i64;
        let new = ClockSample { rtt_ms, offset_ms, taken_ms: now.mono_ms };
        // A short round trip says more than a long one, until it has aged: a thousandth of its age counts as way.
        let cost = |sample: ClockSample| sample.rtt_ms + now.mono_ms.saturating_sub(sample.taken_ms) / 1_000;
        if self.clock.is_none_or(|held| cost(new) <= cost(held)) {
            self.clock = Some(new);
        }
    }

    /// Forgets what was measured of the peer's wall clock if it moved against its monotonic one since the beat before.
    pub(crate) fn note_step(&mut self, beat: &Beat) {
        let anchor_ms = beat.wall_ms as i64 - beat.mono_ms as i64;
        let before_ms = self.anchor_ms.replace(anchor_ms);
        if before_ms.is_some_and(|before_ms| before_ms.abs_diff(anchor_ms) > STEP_MS) {
            self.clock = None;
        }
    }

    /// What is left of a life that the peer sent: shortened by the transit and at most one round trip more, never
    /// extended. `None` while the peer's clock is unknown.
    pub(crate) fn ttl_left_ms(&self, now: Now, ttl: Ttl) -> Option<u64> {
        let clock = self.clock?;
        let born_here_ms = ttl.born_ms as i64 + clock.offset_ms - clock.rtt_ms as i64;
        let age_ms = (now.wall_ms as i64 - born_here_ms).max(0) as u64;
        Some(ttl.left_ms.saturating_sub(age_ms))
    }

    /// Notes the lag of a record that was just applied.
    pub(crate) fn sample_lag(&mut self, now: Now, written: Hlc) {
        let way_here_ms = self.clock.map_or(0, |clock| clock.offset_ms - clock.rtt_ms as i64 / 2);
        let lag_ms = (now.wall_ms as i64 - written.ms() as i64 - way_here_ms).max(0) as u64;
        let lag = &mut self.lag;
        let weight = if lag.samples == 0 { 1.0 } else { 0.2 };
        lag.mean_ms += weight * (lag_ms as f64 - lag.mean_ms);
        lag.last_ms = lag_ms;
        lag.max_ms = lag.max_ms.max(lag_ms);
        lag.samples += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(mono_ms: u64, wall_ms: u64) -> Now {
        Now { mono_ms, wall_ms }
    }

    fn peer() -> Peer {
        Peer::new(NodeId::new("eu-central".parse().unwrap(), "n").unwrap(), 1, now(0, 0))
    }

    /// A peer whose wall clock is `ahead_ms` ahead of ours, `way_ms` away each way; ours shows 1,000,000.
    fn sampled(ahead_ms: i64, way_ms: u64) -> Peer {
        let mut peer = peer();
        let arrived = now(2 * way_ms, 1_000_000);
        let its_wall = (1_000_000 - way_ms as i64 + ahead_ms) as u64;
        let beat = Beat { wall_ms: its_wall, ..Beat::default() };
        peer.sample_clock(arrived, &beat, 0, 0);
        peer
    }

    #[test]
    fn a_life_shrinks_by_transit_and_at_most_a_round_trip_whatever_the_clocks_say() {
        for ahead_ms in [-600_000, -7, 0, 7, 600_000] {
            let peer = sampled(ahead_ms, 40);
            // Written there when our wall clock showed 1,000,100; applied here 300 ms later.
            let ttl = Ttl { left_ms: 10_000, born_ms: (1_000_100 + ahead_ms) as u64 };
            let left = peer.ttl_left_ms(now(500, 1_000_400), ttl).unwrap();
            assert!((9_700 - 80..=9_700).contains(&left), "{ahead_ms}: {left}");
        }
    }

    #[test]
    fn a_life_is_unknown_until_a_round_trip_was_made() {
        assert_eq!(peer().ttl_left_ms(now(0, 0), Ttl { left_ms: 1, born_ms: 0 }), None);
    }

    #[test]
    fn a_longer_round_trip_does_not_replace_a_fresh_short_one() {
        let mut peer = sampled(0, 5);
        let before = peer.clock;
        peer.sample_clock(now(1_000, 1_001_000), &Beat { wall_ms: 1_000_900, ..Beat::default() }, 0, 0);
        assert_eq!(peer.clock, before);
    }
}
