//! The breaker's decisions: a state machine that takes `now` and does no I/O.
//!
//! Invariants: `succeeded + probes.len()` of a half-open circuit never exceeds the configured probes; each
//! transition raises the generation; only an outcome of the current generation (and, of a probe, one whose lease
//! still runs) changes anything but the `late` counter.

use std::time::{Duration, Instant};

use super::{
    CircuitOpen,
    config::Settings,
    lane::Batch,
    later,
    outcome::Outcome,
    snapshot::{Counters, Snapshot, State},
    window::{Call, Totals, Uniform, Window},
};
use crate::backoff::{grown, jittered};

/// Steps of growth are bounded; by then any factor that grows at all has long met its cap in practice.
const LEVEL_MAX: u32 = 64;

/// The right to make one call, as the core sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Admission {
    pub(super) generation: u64,
    /// Which probe it is; meaningless if the circuit was not half-open.
    probe: u64,
    at: Instant,
}

impl Admission {
    /// The right to make a call in a state that lets every call pass, for which nobody asks the core.
    pub(super) fn free(generation: u64, at: Instant) -> Self {
        Self { generation, probe: 0, at }
    }

    /// How long the call took that ends `now`.
    pub(super) fn took(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }
}

/// What an operator may set a circuit to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Reset,
    ForceOpen,
    Disable,
    MetricsOnly,
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
        /// The first and the newest success since it closed: the proven good time that growth decays by. It begins with
        /// the probe that closed the circuit; with the first success that the core hears of only where nothing has
        /// grown yet.
        good: Option<(Instant, Instant)>,
    },
    Open {
        until: Instant,
    },
    HalfOpen {
        probes: Vec<Probe>,
        succeeded: u32,
        /// How many of those that have succeeded were slow.
        slow: u32,
    },
    ForcedOpen,
    Disabled,
    MetricsOnly {
        consecutive_failures: u32,
    },
}

const CLOSED: Phase = Phase::Closed { consecutive_failures: 0, good: None };

/// The pure breaker.
#[derive(Debug)]
pub(super) struct Core {
    settings: Settings,
    phase: Phase,
    window: Window,
    /// How many steps the next open wait has grown.
    level: u32,
    /// The latest time before which the callee asked not to be called.
    told: Option<Instant>,
    generation: u64,
    /// Rises whenever someone who waits for a permit may find one: with each transition, and with each slot freed.
    stirs: u64,
    next_probe: u64,
    counters: Counters,
    random: fastrand::Rng,
}

impl Core {
    pub(super) fn new(settings: Settings, random: fastrand::Rng) -> Self {
        Self {
            window: Window::new(settings.window),
            phase: CLOSED,
            level: 0,
            told: None,
            generation: 0,
            stirs: 0,
            next_probe: 0,
            counters: Counters::default(),
            random,
            settings,
        }
    }

    /// Lets a call pass or refuses it.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Admission, CircuitOpen> {
        let admission = self.admit_waiting(now);
        self.counters.refused += u64::from(admission.is_err());
        admission
    }

    /// As [`admit`](Self::admit) for a caller who goes on waiting: nothing is refused.
    pub(super) fn admit_waiting(&mut self, now: Instant) -> Result<Admission, CircuitOpen> {
        if matches!(self.phase, Phase::Open { until } if until <= now) {
            self.enter(Phase::HalfOpen { probes: Vec::new(), succeeded: 0, slow: 0 });
        }
        self.end_leases(now);
        match &mut self.phase {
            Phase::Closed { .. } | Phase::Disabled | Phase::MetricsOnly { .. } => {
                return Ok(Admission::free(self.generation, now));
            }
            Phase::HalfOpen { probes, succeeded, .. }
                if *succeeded as usize + probes.len() < self.settings.probes as usize =>
            {
                let id = self.next_probe;
                self.next_probe += 1;
                probes.push(Probe { id, lease_end: later(now, self.settings.probe_lease) });
                return Ok(Admission { generation: self.generation, probe: id, at: now });
            }
            Phase::HalfOpen { .. } | Phase::Open { .. } | Phase::ForcedOpen => {}
        }
        // Never zero, so that nobody spins: the clock may have stepped back and forth.
        Err(CircuitOpen { retry_after: self.retry_after(now).max(Duration::from_nanos(1)) })
    }

    /// Takes the outcome of an admitted call, `None` if it was given up.
    pub(super) fn finish(&mut self, admission: Admission, outcome: Option<Outcome>, now: Instant) {
        self.end_leases(now);
        if admission.generation != self.generation {
            self.counters.late += 1;
            return;
        }
        let slow =
            self.settings.slow_call_threshold.is_some_and(|threshold| admission.took(now) >= threshold);
        match &mut self.phase {
            Phase::Closed { .. } => self.finish_closed(outcome, slow, now),
            Phase::HalfOpen { probes, .. } => {
                let Some(at) = probes.iter().position(|probe| probe.id == admission.probe) else {
                    self.counters.late += 1;
                    return;
                };
                probes.swap_remove(at);
                self.finish_probe(outcome, slow, now);
            }
            Phase::MetricsOnly { consecutive_failures } => {
                add_to_row(consecutive_failures, outcome);
                self.counters.count(outcome);
                self.record(outcome, slow, now);
            }
            Phase::Disabled => {}
            // No call is admitted while open, so none carries its generation.
            Phase::Open { .. } | Phase::ForcedOpen => self.counters.late += 1,
        }
    }

    fn finish_closed(&mut self, outcome: Option<Outcome>, slow: bool, now: Instant) {
        self.counters.count(outcome);
        if !self.record(outcome, slow, now) {
            return;
        }
        let Phase::Closed { consecutive_failures, good } = &mut self.phase else { return };
        add_to_row(consecutive_failures, outcome);
        if outcome == Some(Outcome::Success) {
            prove(good, now);
            if !slow {
                return;
            }
        }
        let in_a_row = *consecutive_failures >= self.settings.consecutive_failures;
        if in_a_row || self.settings.refuses(&self.window.totals()) {
            let good = good.map_or(Duration::ZERO, |(first, last)| last.saturating_duration_since(first));
            self.decay(good);
            self.open(now);
        }
    }

    fn finish_probe(&mut self, outcome: Option<Outcome>, slow_call: bool, now: Instant) {
        let Phase::HalfOpen { succeeded, slow, .. } = &mut self.phase else { return };
        self.counters.count(outcome);
        match outcome {
            Some(Outcome::Success) => {
                *succeeded += 1;
                *slow += u32::from(slow_call);
                if *succeeded < self.settings.probes {
                    return;
                }
                if self.settings.too_slow(u64::from(*slow), u64::from(*succeeded)) {
                    self.open(now);
                } else {
                    self.told = None;
                    self.window.clear();
                    self.enter(Phase::Closed { consecutive_failures: 0, good: Some((now, now)) });
                }
            }
            Some(Outcome::Failure) => self.open(now),
            Some(Outcome::Overloaded { retry_after }) => {
                self.hear(retry_after, now);
                self.open(now);
            }
            Some(Outcome::Ignored) | None => self.stirs += 1,
        }
    }

    /// The generation whose successes, unless they are slow, may be told by the lot with [`succeeded`](Self::succeeded)
    /// before anything else is asked. Which of them came first makes no difference to anything.
    pub(super) fn takes_batches(&self) -> Option<u64> {
        let takes = matches!(self.phase, Phase::Closed { .. } | Phase::MetricsOnly { .. });
        takes.then_some(self.generation)
    }

    /// For how long a success belongs to the same lot.
    pub(super) fn batch_lasts(&self) -> Uniform {
        self.window.uniform()
    }

    /// Takes successes of the generation that [`takes_batches`](Self::takes_batches).
    pub(super) fn succeeded(&mut self, batch: Batch) {
        self.counters.succeeded += batch.successes;
        match &mut self.phase {
            Phase::Closed { consecutive_failures, good } => {
                *consecutive_failures = 0;
                prove(good, batch.newest);
            }
            Phase::MetricsOnly { consecutive_failures } => *consecutive_failures = 0,
            _ => return,
        }
        for _ in 0..batch.successes {
            self.window.push(Call::default(), batch.newest);
        }
    }

    /// Takes successes of the generation before: they came in time, to a window that is cleared by now.
    pub(super) fn credit(&mut self, successes: u64) {
        self.counters.succeeded += successes;
    }

    /// Puts a call into the window; says whether it belongs there.
    fn record(&mut self, outcome: Option<Outcome>, slow: bool, now: Instant) -> bool {
        let mut call = Call { slow, ..Call::default() };
        match outcome {
            Some(Outcome::Success) => {}
            Some(Outcome::Failure) => call.failed = true,
            Some(Outcome::Overloaded { retry_after }) => {
                call.overloaded = true;
                self.hear(retry_after, now);
            }
            Some(Outcome::Ignored) | None => return false,
        }
        self.window.push(call, now);
        true
    }

    /// Does what an operator says. Everything but the counters of a lifetime begins anew.
    pub(super) fn obey(&mut self, order: Order) {
        let phase = match order {
            Order::Reset => CLOSED,
            Order::ForceOpen => Phase::ForcedOpen,
            Order::Disable => Phase::Disabled,
            Order::MetricsOnly => Phase::MetricsOnly { consecutive_failures: 0 },
        };
        (self.level, self.told) = (0, None);
        self.window.clear();
        self.enter(phase);
    }

    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
            Phase::ForcedOpen => State::ForcedOpen,
            Phase::Disabled => State::Disabled,
            Phase::MetricsOnly { .. } => State::MetricsOnly,
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn stirs(&self) -> u64 {
        self.stirs
    }

    /// How long until a call may be admitted; zero if one would be now.
    pub(super) fn retry_after(&self, now: Instant) -> Duration {
        match &self.phase {
            Phase::Closed { .. } | Phase::Disabled | Phase::MetricsOnly { .. } => Duration::ZERO,
            Phase::Open { until } => until.saturating_duration_since(now),
            Phase::HalfOpen { probes, succeeded, .. } => {
                let leases = || probes.iter().map(|probe| probe.lease_end).filter(|end| now < *end);
                if (*succeeded as usize + leases().count()) < self.settings.probes as usize {
                    return Duration::ZERO;
                }
                // Some probe is out: had all succeeded, the circuit would not be half-open.
                leases().min().map_or(Duration::ZERO, |end| end.saturating_duration_since(now))
            }
            // Nobody knows, so the caller is told when to look again.
            Phase::ForcedOpen => self.settings.open_wait,
        }
    }

    pub(super) fn snapshot(&self, now: Instant) -> Snapshot {
        let consecutive_failures = match &self.phase {
            Phase::Closed { consecutive_failures, .. } | Phase::MetricsOnly { consecutive_failures } => {
                *consecutive_failures
            }
            _ => 0,
        };
        let (probes_out, probes_succeeded) = match &self.phase {
            Phase::HalfOpen { probes, succeeded, .. } => {
                let out = probes.iter().filter(|probe| now < probe.lease_end).count();
                (u32::try_from(out).unwrap_or(u32::MAX), *succeeded)
            }
            _ => (0, 0),
        };
        let Totals { calls, failed, overloaded, slow } = self.window.totals_at(now);
        Snapshot {
            state: self.state(),
            retry_after: self.retry_after(now),
            consecutive_failures,
            window_calls: calls,
            window_failures: failed,
            window_overloaded: overloaded,
            window_slow: slow,
            probes_out,
            probes_succeeded,
            next_open_wait: self.wait_at(self.level),
            generation: self.generation,
            opened: self.counters.opened,
            refused: self.counters.refused,
            succeeded: self.counters.succeeded,
            failed: self.counters.failed,
            overloaded: self.counters.overloaded,
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
        let wait = wait.max(self.wait_told(now)).max(Duration::from_nanos(1));
        self.window.clear();
        self.enter(Phase::Open { until: later(now, wait) });
    }

    /// Remembers when the callee wants to be called again.
    fn hear(&mut self, retry_after: Option<Duration>, now: Instant) {
        let Some(retry_after) = retry_after else { return };
        let until = later(now, retry_after.min(self.settings.open_wait_max));
        self.told = Some(self.told.map_or(until, |told| told.max(until)));
    }

    /// The rest of the time that the callee asked for, once. Chance lengthens it, since a callee names the same time to
    /// all who call it and means that nobody comes sooner.
    fn wait_told(&mut self, now: Instant) -> Duration {
        let wait = self.told.take().map_or(Duration::ZERO, |told| told.saturating_duration_since(now));
        if wait.is_zero() {
            return wait;
        }
        let spread = self.settings.open_wait_jitter * self.random.f64();
        wait.mul_f64(1.0 + spread).min(self.settings.open_wait_max)
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
            let ended = (before - probes.len()) as u64;
            self.counters.leases_ended += ended;
            self.stirs += ended;
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.generation += 1;
        self.stirs += 1;
        self.phase = phase;
    }
}

impl Settings {
    /// Whether a closed circuit has to open over what its window holds.
    fn refuses(&self, totals: &Totals) -> bool {
        totals.calls >= u64::from(self.minimum_calls)
            && (totals.share(totals.failed) >= self.failure_rate
                || totals.share(totals.overloaded) >= self.overload_rate
                || self.too_slow(totals.slow, totals.calls))
    }

    /// Whether so many slow calls are too many. Without a threshold none is slow, and every rate is above zero.
    fn too_slow(&self, slow: u64, calls: u64) -> bool {
        slow > 0 && slow as f64 / calls as f64 >= self.slow_call_rate
    }
}

/// Lengthens the good time up to `now`.
fn prove(good: &mut Option<(Instant, Instant)>, now: Instant) {
    *good = Some(good.map_or((now, now), |(first, last)| (first, last.max(now))));
}

/// An overloaded callee is alive, but has not done its work: it neither lengthens the row nor ends it.
fn add_to_row(consecutive_failures: &mut u32, outcome: Option<Outcome>) {
    match outcome {
        Some(Outcome::Success) => *consecutive_failures = 0,
        Some(Outcome::Failure) => *consecutive_failures = consecutive_failures.saturating_add(1),
        Some(Outcome::Ignored | Outcome::Overloaded { .. }) | None => {}
    }
}
