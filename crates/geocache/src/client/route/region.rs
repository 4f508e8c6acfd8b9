//! One region as the client sees it: its endpoint, breaker, places in flight, and what its probes said.
//!
//! A call is admitted by two passes, a place in flight and a permit of the breaker, and both are given back by whatever ends it: an
//! answer, a fault, or the drop of its future. The router hears of the end first, then the breaker, and then, if that changed its
//! state, the router again of the region's health, and those who watch.
//!
//! Invariants: every change of the breaker's state is followed by a [`Region::settle`], which tells the state that is then, under one
//! lock; so whatever the order of two threads, the last that is told is the last that was.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use geo::{Health, RegionId, Router};
use parking_lot::Mutex;
use resilience::{CircuitBreaker, CircuitOpen, Life, Permit, State};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    event::{Bell, RouteEvent},
    hedge::Latencies,
    last_resort::LastResort,
    now,
};
use crate::{
    client::{Doubt, Endpoint, Pulse},
    stats::Counter,
};

pub(in crate::client) struct Region {
    pub(super) id: RegionId,
    pub(super) endpoint: Arc<dyn Endpoint>,
    pub(super) breaker: CircuitBreaker,
    slots: Arc<Semaphore>,
    in_flight_max: u32,
    /// The state that the router and the watchers were told last.
    told: Mutex<State>,
    /// Whether that is closed, for a look without the lock.
    told_closed: AtomicBool,
    notes: Mutex<Notes>,
    pub(super) latencies: Latencies,
    pub(super) counts: RegionCounts,
}

/// What calls and probes left behind.
#[derive(Debug, Default)]
struct Notes {
    doubt: Option<Doubt>,
    life: Option<Life>,
    last_error: Option<(String, Instant)>,
    /// Whether the latest probe was answered while the breaker was not closed.
    answered_while_out: bool,
}

#[derive(Debug, Default)]
pub(super) struct RegionCounts {
    pub(super) asked: Counter,
    pub(super) served: Counter,
    pub(super) failed: Counter,
    pub(super) full: Counter,
}

/// The right to make one call.
pub(super) struct Passes<'a> {
    slot: OwnedSemaphorePermit,
    right: Right<'a>,
}

enum Right<'a> {
    /// The breaker's.
    Permit(Permit),
    /// The breaker refuses, and no other region answered.
    LastResort { _turn: LastResort<'a> },
}

/// Why a region is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Full { in_flight_max: u32 },
    Open(CircuitOpen),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { in_flight_max } => {
                write!(f, "not asked: {in_flight_max} calls are in flight, as many as may be")
            }
            Self::Open(open) => write!(f, "not asked: {open}"),
        }
    }
}

impl Region {
    pub(in crate::client) fn new(
        id: RegionId,
        endpoint: Arc<dyn Endpoint>,
        breaker: CircuitBreaker,
        in_flight_max: u32,
    ) -> Self {
        Self {
            id,
            endpoint,
            told: Mutex::new(breaker.state()),
            told_closed: AtomicBool::new(true),
            breaker,
            slots: Arc::new(Semaphore::new(in_flight_max as usize)),
            in_flight_max,
            notes: Mutex::default(),
            latencies: Latencies::default(),
            counts: RegionCounts::default(),
        }
    }

    /// Lets a call pass, if there is a place in flight and the breaker does.
    pub(super) fn admit(&self, now: Instant) -> Result<Passes<'static>, Refusal> {
        let slot = self.slot()?;
        let permit = self.breaker.try_acquire_at(now).map_err(Refusal::Open)?;
        Ok(Passes { slot, right: Right::Permit(permit) })
    }

    /// Lets a call pass that the breaker refuses, since no other region answered.
    pub(super) fn admit_last_resort<'a>(&self, turn: LastResort<'a>) -> Result<Passes<'a>, Refusal> {
        Ok(Passes { slot: self.slot()?, right: Right::LastResort { _turn: turn } })
    }

    fn slot(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.slots).try_acquire_owned().map_err(|_| {
            self.counts.full.add();
            Refusal::Full { in_flight_max: self.in_flight_max }
        })
    }

    /// Takes the passes of a call back, that ended so.
    pub(super) fn end(&self, passes: Passes<'_>, outcome: geo::Outcome, router: &Router, bell: &Bell) {
        let Passes { slot, right } = passes;
        drop(slot);
        match right {
            Right::Permit(permit) => match outcome {
                geo::Outcome::Success => permit.success(),
                geo::Outcome::Failure => permit.failure(),
                geo::Outcome::Overloaded => permit.overloaded(None),
                geo::Outcome::Ignored => permit.ignore(),
                // Cancelled, and what a later version of the router may add.
                _ => drop(permit),
            },
            // It answered, against the breaker's word: that word was wrong, or is out of date.
            Right::LastResort { .. } if outcome == geo::Outcome::Success => self.breaker.reset(),
            Right::LastResort { .. } => {}
        }
        self.settle(router, bell);
    }

    /// Tells the router and the watchers of the breaker's state, if that is another than was told last.
    pub(super) fn settle(&self, router: &Router, bell: &Bell) {
        if self.breaker.state() == State::Closed && self.told_closed.load(Ordering::Acquire) {
            return;
        }
        let mut told = self.told.lock();
        let state = self.breaker.state();
        if *told == state {
            return;
        }
        *told = state;
        self.told_closed.store(state == State::Closed, Ordering::Release);
        let health = match state {
            State::Open | State::ForcedOpen => Health::Unhealthy,
            State::HalfOpen => Health::Probing,
            // Closed; nobody sets the states that pass everything.
            _ => Health::Healthy,
        };
        // The router knows each region from its beginning, and loses none.
        let _ = router.set_health(&self.id, health, now());
        let region = || self.id.clone();
        match health {
            Health::Unhealthy => {
                let reason = self.last_error().map_or_else(String::new, |(reason, _)| reason);
                tracing::warn!(region = %self.id, reason, "region out");
                bell.tell(RouteEvent::Down { region: region(), reason });
            }
            Health::Probing => bell.tell(RouteEvent::Trying { region: region() }),
            Health::Healthy => {
                tracing::info!(region = %self.id, "region back");
                bell.tell(RouteEvent::Up { region: region() });
            }
        }
    }

    /// Why what it serves may be old, as of its latest probe.
    pub(super) fn doubt(&self) -> Option<Doubt> {
        self.notes.lock().doubt
    }

    pub(super) fn last_error(&self) -> Option<(String, Instant)> {
        self.notes.lock().last_error.clone()
    }

    pub(super) fn note_error(&self, reason: &str, at: Instant) {
        self.notes.lock().last_error = Some((reason.to_owned(), at));
    }

    pub(super) fn in_flight(&self) -> u32 {
        let free = u32::try_from(self.slots.available_permits()).unwrap_or(u32::MAX);
        self.in_flight_max.saturating_sub(free)
    }

    pub(super) fn in_flight_max(&self) -> u32 {
        self.in_flight_max
    }

    /// Waits until no call is under way.
    pub(super) async fn idle(&self) {
        // Nothing closes the places.
        let _ = self.slots.acquire_many(self.in_flight_max).await;
    }

    /// Asks how it is, for the prober.
    ///
    /// While the breaker is closed that is a call like any other. While it is not, a first probe is on nobody's account, so that
    /// one that fails does not lengthen the wait; once one was answered, the next takes the breaker's permit, if the wait is over. So
    /// two in a row bring a region back, and calls that fail although probes do not make it wait longer each time.
    pub(super) async fn probe(
        &self,
        limit: Duration,
        router: &Router,
        bell: &Bell,
    ) -> Result<(), ProbeFailed> {
        let takes_part = self.breaker.state() == State::Closed || self.notes.lock().answered_while_out;
        let permit = takes_part.then(|| self.breaker.try_acquire().ok()).flatten();
        self.settle(router, bell);
        let answer = tokio::time::timeout(limit, self.endpoint.probe()).await;
        let outcome = match answer {
            Ok(Ok(pulse)) => {
                // Before the breaker closes: its first call is to be flagged by what the probe said.
                self.take(pulse, bell);
                Ok(())
            }
            Ok(Err(error)) => {
                self.note_error(&error.to_string(), now());
                Err(ProbeFailed)
            }
            Err(_) => {
                self.note_error(&format!("no answer to a probe within {limit:?}"), now());
                Err(ProbeFailed)
            }
        };
        match (permit, &outcome) {
            (Some(permit), Ok(())) => permit.success(),
            (Some(permit), Err(ProbeFailed)) => permit.failure(),
            (None, _) => {}
        }
        self.notes.lock().answered_while_out = outcome.is_ok() && self.breaker.state() != State::Closed;
        self.settle(router, bell);
        outcome
    }

    fn take(&self, pulse: Pulse, bell: &Bell) {
        let (was, before) = {
            let mut notes = self.notes.lock();
            (std::mem::replace(&mut notes.doubt, pulse.doubt), notes.life.replace(pulse.life))
        };
        if before.is_some_and(|before| before.incarnation != pulse.life.incarnation) {
            bell.tell(RouteEvent::Restarted { region: self.id.clone() });
        }
        // How far behind it is changes with each probe, and is no news.
        if was.map(|was| std::mem::discriminant(&was))
            != pulse.doubt.map(|doubt| std::mem::discriminant(&doubt))
        {
            bell.tell(RouteEvent::Doubt { region: self.id.clone(), doubt: pulse.doubt });
        }
    }
}

/// A probe was not answered in time, or with an error, which the region keeps.
#[derive(Debug)]
pub(super) struct ProbeFailed;

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("id", &self.id)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
