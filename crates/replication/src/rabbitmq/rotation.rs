//! Which broker to try next, and how long to wait before.
//!
//! Brokers are tried in turn, one round without a pause, with a jittered and growing wait before each round. A breaker per
//! broker takes the one that keeps failing (a black hole costs its whole connect timeout) out of the turn for a while;
//! when every breaker is open the turn goes on as if there were none, since with nobody left to prefer there is no reason
//! to wait longer than the backoff says.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use resilience::{Backoff, CircuitBreaker, Permit};

/// A connection that lasted this long ends the outage before it; a shorter one continues it, so that a broker which
/// accepts and drops is not hammered.
const STABLE: Duration = Duration::from_secs(1);

pub(super) struct Rotation {
    breakers: Arc<[CircuitBreaker]>,
    next: usize,
    /// How many attempts were made since the last wait.
    tried: usize,
    backoff: Backoff,
    connected: Option<Instant>,
}

/// One attempt: whom to dial, and the breaker's permit where it gave one.
pub(super) struct Turn {
    pub(super) index: usize,
    permit: Option<Permit>,
}

impl Rotation {
    /// A rotation over the brokers of these breakers (at least one).
    pub(super) fn new(breakers: Arc<[CircuitBreaker]>, backoff: Backoff) -> Self {
        Self { breakers, next: 0, tried: 0, backoff, connected: None }
    }

    /// The wait before the next attempt; zero within a round.
    pub(super) fn wait(&mut self) -> Duration {
        if !self.tried.is_multiple_of(self.breakers.len()) {
            return Duration::ZERO;
        }
        self.tried = 0;
        self.backoff.next().unwrap_or_default()
    }

    /// Whose turn it is.
    pub(super) fn turn(&mut self, now: Instant) -> Turn {
        let count = self.breakers.len();
        self.tried += 1;
        for step in 0..count {
            let index = (self.next + step) % count;
            if let Ok(permit) = self.breakers[index].try_acquire_at(now) {
                self.next = index;
                return Turn { index, permit: Some(permit) };
            }
        }
        Turn { index: self.next, permit: None }
    }

    pub(super) fn connected(&mut self, turn: Turn, now: Instant) {
        match turn.permit {
            Some(permit) => permit.success_at(now),
            // Tried although its breaker was open, as all were: a connection is proof enough.
            None => self.breakers[turn.index].reset(),
        }
        self.connected = Some(now);
    }

    pub(super) fn failed(&mut self, turn: Turn, now: Instant) {
        if let Some(permit) = turn.permit {
            permit.failure_at(now);
        }
        self.next = (turn.index + 1) % self.breakers.len();
    }

    /// The connection was lost: the next broker's turn, from the shortest wait if it had lasted.
    pub(super) fn lost(&mut self, now: Instant) {
        self.tried = 0;
        self.next = (self.next + 1) % self.breakers.len();
        if self.connected.take().is_some_and(|since| now.saturating_duration_since(since) >= STABLE) {
            self.backoff.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use resilience::State;

    use super::{super::breaker::Settings, *};

    fn rotation(brokers: usize) -> Rotation {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5)).jitter(0.0);
        let breakers = (0..brokers).map(|_| Settings::default().breaker()).collect();
        Rotation::new(breakers, backoff)
    }

    fn fail(rotation: &mut Rotation, now: Instant) -> (usize, Duration) {
        let wait = rotation.wait();
        let turn = rotation.turn(now);
        let index = turn.index;
        rotation.failed(turn, now);
        (index, wait)
    }

    #[test]
    fn a_round_over_all_brokers_follows_each_wait() {
        let now = Instant::now();
        let mut rotation = rotation(3);
        let ms = Duration::from_millis;
        let seen: Vec<_> = (0..6).map(|_| fail(&mut rotation, now)).collect();
        assert_eq!(seen, [(0, ms(100)), (1, ms(0)), (2, ms(0)), (0, ms(200)), (1, ms(0)), (2, ms(0))]);
    }

    #[test]
    fn a_broker_that_keeps_failing_is_left_out_while_another_works() {
        let now = Instant::now();
        let mut rotation = rotation(2);
        for _ in 0..2 {
            assert_eq!(fail(&mut rotation, now).0, 0);
            let turn = rotation.turn(now);
            assert_eq!(turn.index, 1);
            rotation.connected(turn, now);
            rotation.lost(now);
        }
        let turn = rotation.turn(now);
        assert_eq!(turn.index, 1, "0 failed twice");
        rotation.connected(turn, now);
        rotation.lost(now);
        let later = now + Duration::from_secs(30);
        assert_eq!(rotation.turn(later).index, 0, "it gets another chance");
    }

    #[test]
    fn with_all_brokers_failing_the_turn_goes_on() {
        let now = Instant::now();
        let mut rotation = rotation(2);
        let seen: Vec<usize> = (0..8).map(|_| fail(&mut rotation, now).0).collect();
        assert_eq!(seen, [0, 1, 0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn a_breaker_closes_when_its_broker_connects_although_all_were_open() {
        let now = Instant::now();
        let mut rotation = rotation(1);
        let _failed: Vec<_> = (0..3).map(|_| fail(&mut rotation, now)).collect();
        assert_eq!(rotation.breakers[0].state(), State::Open);
        let turn = rotation.turn(now);
        rotation.connected(turn, now);
        assert_eq!(rotation.breakers[0].state(), State::Closed);
    }

    #[test]
    fn only_a_connection_that_lasted_ends_the_growth_of_the_waits() {
        let now = Instant::now();
        let mut rotation = rotation(1);
        for _ in 0..4 {
            fail(&mut rotation, now);
        }
        let turn = rotation.turn(now);
        rotation.connected(turn, now);
        rotation.lost(now + Duration::from_millis(10));
        assert_eq!(rotation.wait(), Duration::from_millis(1_600));
        let turn = rotation.turn(now);
        rotation.connected(turn, now);
        rotation.lost(now + Duration::from_secs(2));
        assert_eq!(rotation.wait(), Duration::from_millis(100));
    }
}
