//! The breaker's decisions: a state machine that takes `now` and does no I/O.
//!
//! Invariants: `succeeded + probes.len()` of a half-open circuit never exceeds the configured probes; each
//! transition raises the generation; only an outcome of the current generation (and, of a probe, one whose lease
//! still runs) changes anything but the `late` counter.

use std::time::{Duration, Instant};

use super::{CircuitOpen, config::Settings, window::Window};
use crate::backoff::{grown, jittered};

/// Steps of growth are bounded; by then any factor that grows at all has long met its cap in practice.
const LEVEL_MAX: u32 = 64;

/// What a circuit is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Calls pass and are counted.
    Closed,
    /// Calls are refused until the wait is over.
    Open,
    /// A few probes pass, to find out whether the circuit may close.
    HalfOpen,
}

/// How an admitted call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    Failure,
    Ignored,
    Cancelled,
}

/// The right to make one call, as the core sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Admission {
    generation: u64,
    /// Which probe it is; meaningless if the circuit was closed.
    probe: u64,
}

/// What a breaker was doing at one moment, and what it has counted since it was built.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The state. An open circuit turns half-open when a call asks, not when its wait ends.
    pub state: State,
    /// How long an open circuit still refuses; zero if it does not.
    pub retry_after: Duration,
    /// Failures in a row so far, while closed.
    pub consecutive_failures: u32,
    /// Calls in the window.
    pub window_calls: u32,
    /// Failures in the window.
    pub window_failures: u32,
    /// Probes that are out and whose lease runs.
    pub probes_out: u32,
    /// Probes that have succeeded since the circuit turned half-open.
    pub probes_succeeded: u32,
    /// How long the next opening would wait at most, if the circuit opened without further success.
    pub next_open_wait: Duration,
    /// How many times the state has changed.
    pub generation: u64,
    /// How often the circuit opened.
    pub opened: u64,
    /// Calls refused.
    pub refused: u64,
    /// Calls that were reported as succeeded, late ones not among them.
    pub succeeded: u64,
    /// Calls that were reported as failed, late ones not among them.
    pub failed: u64,
    /// Calls whose outcome was ignored on request.
    pub ignored: u64,
    /// Calls whose permit was dropped without an outcome.
    pub cancelled: u64,
    /// Outcomes that came after the state had changed or their lease had ended; they changed nothing.
    pub late: u64,
    /// Probes whose lease ended without an answer.
    pub leases_ended: u64,
}

#[derive(Debug, Default)]
struct Counters {
    opened: u64,
    refused: u64,
    succeeded: u64,
    failed: u64,
    ignored: u64,
    cancelled: u64,
    late: u64,
    leases_ended: u64,
}

#[derive(Debug)]
struct Probe {
    id: u64,
    lease_end: Instant,
}

#[derive(Debug)]
enum Phase {
    Closed {
        consecutive_failures: u32,
        /// The first and the newest success since it closed: the proven good time that growth decays by.
        good: Option<(Instant, Instant)>,
    },
    Open {
        until: Instant,
    },
    HalfOpen {
        probes: Vec<Probe>,
        succeeded: u32,
    },
}

/// The pure breaker.
#[derive(Debug)]
pub(super) struct Core {
    settings: Settings,
    phase: Phase,
    window: Window,
    /// How many steps the next open wait has grown.
    level: u32,
    generation: u64,
    next_probe: u64,
    counters: Counters,
    random: fastrand::Rng,
}

impl Core {
    pub(super) fn new(settings: Settings, random: fastrand::Rng) -> Self {
        Self {
            window: Window::new(settings.window_calls),
            phase: Phase::Closed { consecutive_failures: 0, good: None },
            level: 0,
            generation: 0,
            next_probe: 0,
            counters: Counters::default(),
            random,
            settings,
        }
    }

    /// Lets a call pass or refuses it.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Admission, CircuitOpen> {
        if matches!(self.phase, Phase::Open { until } if until <= now) {
            self.enter(Phase::HalfOpen { probes: Vec::new(), succeeded: 0 });
        }
        self.end_leases(now);
        let free_at = match &mut self.phase {
            Phase::Closed { .. } => return Ok(Admission { generation: self.generation, probe: 0 }),
            Phase::Open { until } => *until,
            Phase::HalfOpen { probes, succeeded } => {
                if *succeeded as usize + probes.len() < self.settings.probes as usize {
                    let id = self.next_probe;
                    self.next_probe += 1;
                    probes.push(Probe { id, lease_end: later(now, self.settings.probe_lease) });
                    return Ok(Admission { generation: self.generation, probe: id });
                }
                // Some probe is out: had all succeeded, the circuit would have closed.
                probes.iter().map(|probe| probe.lease_end).min().unwrap_or(now)
            }
        };
        self.counters.refused += 1;
        Err(CircuitOpen { retry_after: free_at.saturating_duration_since(now).max(Duration::from_nanos(1)) })
    }

    /// Takes the outcome of an admitted call.
    pub(super) fn finish(&mut self, admission: Admission, outcome: Outcome, now: Instant) {
        self.end_leases(now);
        if admission.generation != self.generation {
            self.counters.late += 1;
            return;
        }
        match &mut self.phase {
            Phase::Closed { .. } => self.finish_closed(outcome, now),
            Phase::HalfOpen { probes, .. } => {
                let Some(at) = probes.iter().position(|probe| probe.id == admission.probe) else {
                    self.counters.late += 1;
                    return;
                };
                probes.swap_remove(at);
                self.finish_probe(outcome, now);
            }
            // No call is admitted while open, so none carries its generation.
            Phase::Open { .. } => self.counters.late += 1,
        }
    }

    fn finish_closed(&mut self, outcome: Outcome, now: Instant) {
        let Phase::Closed { consecutive_failures, good } = &mut self.phase else { return };
        self.counters.count(outcome);
        match outcome {
            Outcome::Success => {
                *consecutive_failures = 0;
                *good = Some(good.map_or((now, now), |(first, last)| (first, last.max(now))));
                self.window.push(false);
            }
            Outcome::Failure => {
                *consecutive_failures += 1;
                self.window.push(true);
            }
            Outcome::Ignored | Outcome::Cancelled => return,
        }
        let in_a_row = *consecutive_failures >= self.settings.consecutive_failures;
        let too_many = self.window.calls() >= self.settings.minimum_calls
            && self.window.failure_rate() >= self.settings.failure_rate;
        if in_a_row || too_many {
            let good = good.map_or(Duration::ZERO, |(first, last)| last.saturating_duration_since(first));
            self.decay(good);
            self.open(now);
        }
    }

    fn finish_probe(&mut self, outcome: Outcome, now: Instant) {
        let Phase::HalfOpen { succeeded, .. } = &mut self.phase else { return };
        self.counters.count(outcome);
        match outcome {
            Outcome::Success => {
                *succeeded += 1;
                if *succeeded == self.settings.probes {
                    self.window.clear();
                    self.enter(Phase::Closed { consecutive_failures: 0, good: Some((now, now)) });
                }
            }
            Outcome::Failure => self.open(now),
            Outcome::Ignored | Outcome::Cancelled => {}
        }
    }

    pub(super) fn snapshot(&self, now: Instant) -> Snapshot {
        let (state, retry_after, consecutive_failures, probes_out, probes_succeeded) = match &self.phase {
            Phase::Closed { consecutive_failures, .. } => {
                (State::Closed, Duration::ZERO, *consecutive_failures, 0, 0)
            }
            Phase::Open { until } => (State::Open, until.saturating_duration_since(now), 0, 0, 0),
            Phase::HalfOpen { probes, succeeded } => {
                let out = probes.iter().filter(|probe| now < probe.lease_end).count();
                (State::HalfOpen, Duration::ZERO, 0, u32::try_from(out).unwrap_or(u32::MAX), *succeeded)
            }
        };
        Snapshot {
            state,
            retry_after,
            consecutive_failures,
            window_calls: self.window.calls(),
            window_failures: self.window.failures(),
            probes_out,
            probes_succeeded,
            next_open_wait: self.wait_at(self.level),
            generation: self.generation,
            opened: self.counters.opened,
            refused: self.counters.refused,
            succeeded: self.counters.succeeded,
            failed: self.counters.failed,
            ignored: self.counters.ignored,
            cancelled: self.counters.cancelled,
            late: self.counters.late,
            leases_ended: self.counters.leases_ended,
        }
    }

    fn open(&mut self, now: Instant) {
        let wait = self.wait_at(self.level);
        if self.level < LEVEL_MAX && self.wait_at(self.level + 1) > wait {
            self.level += 1;
        }
        self.counters.opened += 1;
        let wait = jittered(wait, self.settings.open_wait_jitter, &mut self.random);
        self.window.clear();
        self.enter(Phase::Open { until: later(now, wait.max(Duration::from_nanos(1))) });
    }

    /// Undoes one step of growth for each stretch of good time as long as the wait that the step had caused.
    fn decay(&mut self, mut good: Duration) {
        while self.level > 0 {
            let wait = self.wait_at(self.level - 1);
            if good < wait {
                return;
            }
            good -= wait;
            self.level -= 1;
        }
    }

    fn wait_at(&self, level: u32) -> Duration {
        let settings = &self.settings;
        grown(settings.open_wait, settings.open_wait_factor, settings.open_wait_max, level)
    }

    fn end_leases(&mut self, now: Instant) {
        if let Phase::HalfOpen { probes, .. } = &mut self.phase {
            let before = probes.len();
            probes.retain(|probe| now < probe.lease_end);
            self.counters.leases_ended += (before - probes.len()) as u64;
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.generation += 1;
        self.phase = phase;
    }
}

impl Counters {
    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Success => self.succeeded += 1,
            Outcome::Failure => self.failed += 1,
            Outcome::Ignored => self.ignored += 1,
            Outcome::Cancelled => self.cancelled += 1,
        }
    }
}

/// `now + wait`; a clock so late that this overflows makes the wait end at once.
fn later(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now)
}
