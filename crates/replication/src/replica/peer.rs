//! What is known of another node: its life, its clock against ours, and what it has.

use std::collections::HashMap;

use crate::{
    message::{Beat, StreamReport},
    node::{NodeId, Stream},
    record::Ttl,
    stamp::Hlc,
};

use super::{Now, fresh::Fresh};

/// How far two monotonic clocks run apart at most, as a part of the time that passes: operating systems discipline
/// theirs by up to 500 parts in a million, each way.
const DRIFT_PART: u64 = 1_000;

/// What is known of another node.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) epoch: u64,
    pub(crate) ready: bool,
    /// What it can read, as its last beat said; nothing before the first.
    pub(crate) capabilities: u32,
    pub(crate) heard_ms: u64,
    /// When it last heard a beat of this life of ours, as far as its own beats tell, on our clock.
    pub(crate) heard_us_ms: Option<i64>,
    /// When a frame of an earlier life of it was last heard.
    pub(crate) zombie_ms: Option<u64>,
    /// The monotonic clock of its last beat, and when that was heard on ours.
    pub(crate) beat: Option<(u64, u64)>,
    pub(crate) clock: Option<ClockSample>,
    pub(crate) reports: HashMap<Stream, StreamReport>,
    pub(crate) lag: Lag,
    pub(crate) fresh: Fresh,
    /// Its clock was further ahead than allowed when last heard.
    pub(crate) drifts: bool,
    /// Its clock was far enough ahead for a warning.
    pub(crate) warned: bool,
}

/// One round trip: how far the peer's clocks are behind ours, overestimated by at most the round-trip time.
///
/// Lives are measured by the monotonic clocks, which nobody sets: a wall clock that steps between a record and the next
/// beat would lengthen or end lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClockSample {
    pub(crate) rtt_ms: u64,
    /// Our monotonic clock minus the peer's at the time it sent the beat; includes the way here.
    offset_ms: i64,
    /// The same of the wall clocks, of the last round trip: for what is shown and warned of.
    pub(crate) wall_offset_ms: i64,
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

impl ClockSample {
    /// How far the offset may be off by now: by the way here, and by how far the clocks ran apart since.
    fn error_ms(self, now: Now) -> u64 {
        let age_ms = now.mono_ms.saturating_sub(self.taken_ms);
        self.rtt_ms + age_ms.div_ceil(DRIFT_PART)
    }

    /// Whether the offset that was held is larger than this round trip lets it be, whatever its error.
    fn refutes(self, held: Self, now: Now) -> bool {
        self.offset_ms < held.offset_ms - held.error_ms(now) as i64
    }
}

impl Peer {
    pub(crate) fn new(node: NodeId, epoch: u64, now: Now) -> Self {
        Self {
            node,
            epoch,
            ready: false,
            capabilities: 0,
            heard_ms: now.mono_ms,
            heard_us_ms: None,
            zombie_ms: None,
            beat: None,
            clock: None,
            reports: HashMap::new(),
            lag: Lag::default(),
            fresh: Fresh::default(),
            drifts: false,
            warned: false,
        }
    }

    /// Takes a round trip: our beat of `sent_ms`, held there for `held_ms`, came back in `beat`.
    pub(crate) fn sample_clock(&mut self, now: Now, beat: &Beat, sent_ms: u64, held_ms: u64) {
        let Some(rtt_ms) = now.mono_ms.checked_sub(sent_ms).and_then(|ms| ms.checked_sub(held_ms)) else {
            // One of the clocks stood still meanwhile, as that of a suspended machine does: what was measured is void.
            self.clock = None;
            return;
        };
        let offset_ms = now.mono_ms as i64 - beat.mono_ms as i64;
        let wall_offset_ms = now.wall_ms as i64 - beat.wall_ms as i64 - rtt_ms as i64 / 2;
        let new = ClockSample { rtt_ms, offset_ms, wall_offset_ms, taken_ms: now.mono_ms };
        // A short round trip says more than a long one, until it has aged: a thousandth of its age counts as way.
        match &mut self.clock {
            Some(held) if held.error_ms(now) < new.error_ms(now) && !new.refutes(*held, now) => {
                held.wall_offset_ms = wall_offset_ms;
            }
            _ => self.clock = Some(new),
        }
    }

    /// What is left of a life that the peer sent: shortened by the transit and by at most one round trip and a
    /// thousandth of its measurement's age more, never extended. `None` while the peer's clock is unknown.
    pub(crate) fn ttl_left_ms(&self, now: Now, ttl: Ttl) -> Option<u64> {
        let clock = self.clock?;
        let born_here_ms = ttl.born_ms as i64 + clock.offset_ms - clock.error_ms(now) as i64;
        let age_ms = (now.mono_ms as i64 - born_here_ms).max(0) as u64;
        Some(ttl.left_ms.saturating_sub(age_ms))
    }

    /// Notes the lag of a record that was just applied.
    pub(crate) fn sample_lag(&mut self, now: Now, written: Hlc) {
        let offset_ms = self.clock.map_or(0, |clock| clock.wall_offset_ms);
        let lag_ms = (now.wall_ms as i64 - written.ms() as i64 - offset_ms).max(0) as u64;
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

    /// A peer whose monotonic clock is `ahead_ms` ahead of ours, `way_ms` away each way; ours shows 1,000,000.
    fn sampled(ahead_ms: i64, way_ms: u64) -> Peer {
        let mut peer = peer();
        let arrived = now(1_000_000, 7);
        let its_clock = (1_000_000 - way_ms as i64 + ahead_ms) as u64;
        let beat = Beat { mono_ms: its_clock, ..Beat::default() };
        peer.sample_clock(arrived, &beat, 1_000_000 - 2 * way_ms, 0);
        peer
    }

    #[test]
    fn a_life_shrinks_by_transit_and_at_most_a_round_trip_whatever_the_clocks_say() {
        for ahead_ms in [-600_000, -7, 0, 7, 600_000] {
            let peer = sampled(ahead_ms, 40);
            // Written there when our clock showed 1,000,100; applied here 300 ms later, after our wall clock was set.
            let ttl = Ttl { left_ms: 10_000, born_ms: (1_000_100 + ahead_ms) as u64 };
            let left = peer.ttl_left_ms(now(1_000_400, 9_000_000), ttl).unwrap();
            assert!((9_700 - 80 - 1..=9_700).contains(&left), "{ahead_ms}: {left}");
        }
    }

    /// A put lived 13 ms too long on a node whose clock ran faster than the writer's since it was measured.
    #[test]
    fn a_life_shrinks_by_as_much_as_the_clocks_may_have_run_apart() {
        let peer = sampled(0, 40);
        // 100 s later the peer's clock has gained 100 ms, by which all that it writes seems younger; 40 ms on the way.
        let ttl = Ttl { left_ms: 10_000, born_ms: 1_100_100 };
        let left = peer.ttl_left_ms(now(1_100_040, 0), ttl).unwrap();
        assert!((10_000 - 40 - 80 - 100..=10_000 - 40).contains(&left), "{left}");
    }

    #[test]
    fn a_life_is_unknown_until_a_round_trip_was_made() {
        assert_eq!(peer().ttl_left_ms(now(0, 0), Ttl { left_ms: 1, born_ms: 0 }), None);
    }

    #[test]
    fn a_longer_round_trip_does_not_replace_a_fresh_short_one() {
        let mut peer = sampled(0, 5);
        let before = peer.clock;
        peer.sample_clock(now(1_001_000, 0), &Beat { mono_ms: 1_000_900, ..Beat::default() }, 1_000_000, 0);
        let measured = |clock: Option<ClockSample>| clock.map(|clock| (clock.rtt_ms, clock.offset_ms));
        assert_eq!(measured(peer.clock), measured(before));
    }
}
