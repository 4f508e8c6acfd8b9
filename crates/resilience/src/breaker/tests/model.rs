//! A naive reference: it keeps the whole history and recomputes every answer from it.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::breaker::{Builder, CircuitBreaker, Outcome, Permit, State};

#[derive(Debug, Clone)]
enum Step {
    Admit,
    /// Ends the permit at this place among those that are out, whatever state issued it; `None` cancels it.
    End(usize, Option<Outcome>),
    Pass(u64),
    /// Passes time until the breaker says a call may be admitted.
    PassUntilFree,
    /// An operator's order, by the state that it leads to.
    Order(State),
}

#[derive(Debug, Clone, Copy)]
enum Window {
    Calls(usize),
    /// Ten times so long.
    TenthMs(u64),
}

#[derive(Debug, Clone)]
struct Settings {
    in_a_row: usize,
    window: Window,
    minimum: usize,
    failure_rate: f64,
    overload_rate: f64,
    slow: Option<(u64, f64)>,
    wait_ms: u64,
    wait_ms_max: u64,
    probes: usize,
    lease_ms: u64,
}

/// A call that ended, neither ignored nor cancelled.
#[derive(Debug, Clone, Copy)]
struct Ended {
    at_ms: u64,
    outcome: Outcome,
    slow: bool,
}

/// Calls, failures, overloaded, slow.
type Counts = (usize, usize, usize, usize);

/// All times are milliseconds since the start.
struct Model {
    settings: Settings,
    state: State,
    /// The number of transitions so far; permits of an earlier one are stale.
    era: usize,
    /// When the present era's wait ends (open only).
    until_ms: u64,
    /// The calls that ended in this era, oldest first (closed and metrics only); of half-open, the probes.
    ended: Vec<Ended>,
    /// When the circuit closed by a probe's success.
    closed_ms: Option<u64>,
    /// The permits ever issued: era, time.
    issued: Vec<(usize, u64)>,
    /// Whether each has been given back.
    given_back: Vec<bool>,
    /// When the callee wants to be called again, as told in this era or the one before it.
    told_ms: u64,
    level: u32,
}

impl Model {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: State::Closed,
            era: 0,
            until_ms: 0,
            ended: vec![],
            closed_ms: None,
            issued: vec![],
            given_back: vec![],
            told_ms: 0,
            level: 0,
        }
    }

    fn probes_out(&self, now: u64) -> Vec<usize> {
        (0..self.issued.len())
            .filter(|&id| {
                let (era, at) = self.issued[id];
                era == self.era && !self.given_back[id] && now < at + self.settings.lease_ms
            })
            .collect()
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.era += 1;
        self.ended.clear();
        self.closed_ms = None;
    }

    fn wait_ms(&self, level: u32) -> u64 {
        (self.settings.wait_ms << level.min(30)).min(self.settings.wait_ms_max)
    }

    fn retry_ms(&self, now: u64) -> u64 {
        match self.state {
            State::Open => self.until_ms.saturating_sub(now),
            State::ForcedOpen => self.settings.wait_ms,
            State::HalfOpen => {
                let out = self.probes_out(now);
                if out.len() + self.ended.len() < self.settings.probes {
                    return 0;
                }
                out.iter().map(|&id| self.issued[id].1 + self.settings.lease_ms).min().unwrap() - now
            }
            _ => 0,
        }
    }

    fn admit(&mut self, now: u64) -> Result<usize, u64> {
        if self.state == State::Open && self.until_ms <= now {
            self.enter(State::HalfOpen);
        }
        match self.retry_ms(now) {
            0 => {
                self.issued.push((self.era, now));
                self.given_back.push(false);
                Ok(self.issued.len() - 1)
            }
            wait => Err(wait),
        }
    }

    fn end(&mut self, id: usize, outcome: Option<Outcome>, now: u64) {
        let (era, at) = self.issued[id];
        let leased = self.state != State::HalfOpen || now < at + self.settings.lease_ms;
        self.given_back[id] = true;
        if era != self.era || !leased || self.state == State::Disabled {
            return;
        }
        let Some(outcome) = outcome.filter(|outcome| *outcome != Outcome::Ignored) else { return };
        let slow = self.settings.slow.is_some_and(|(threshold, _)| now - at >= threshold);
        if let Outcome::Overloaded { retry_after: Some(wait) } = outcome {
            let wait = (wait.as_millis() as u64).min(self.settings.wait_ms_max);
            self.told_ms = self.told_ms.max(now + wait);
        }
        self.ended.push(Ended { at_ms: now, outcome, slow });
        match (self.state, outcome) {
            // A good call opens nothing.
            (State::Closed, Outcome::Success) if !slow => {}
            (State::Closed, _) => self.open_if_bad(now),
            (State::HalfOpen, Outcome::Success) if self.ended.len() == self.settings.probes => {
                let slow = self.ended.iter().filter(|probe| probe.slow).count() as f64;
                if self.settings.slow.is_some_and(|(_, rate)| slow / self.ended.len() as f64 >= rate) {
                    self.open(now);
                } else {
                    self.enter(State::Closed);
                    self.closed_ms = Some(now);
                    self.told_ms = 0;
                }
            }
            (State::HalfOpen, Outcome::Success) | (State::MetricsOnly, _) => {}
            (State::HalfOpen, _) => self.open(now),
            (state, _) => unreachable!("nothing is issued while {state:?}"),
        }
    }

    fn window(&self, now: u64) -> Vec<Ended> {
        match self.settings.window {
            Window::Calls(size) => self.ended[self.ended.len().saturating_sub(size)..].to_vec(),
            Window::TenthMs(width) => {
                let origin = self.ended.first().map_or(now, |first| first.at_ms);
                let tenth = |ms: u64| (ms - origin) / width;
                self.ended.iter().filter(|call| tenth(now) - tenth(call.at_ms) < 10).copied().collect()
            }
        }
    }

    fn counts(&self, now: u64) -> Counts {
        let window = self.window(now);
        let count = |is: fn(&Ended) -> bool| window.iter().filter(|call| is(call)).count();
        (
            window.len(),
            count(|call| call.outcome == Outcome::Failure),
            count(|call| matches!(call.outcome, Outcome::Overloaded { .. })),
            count(|call| call.slow),
        )
    }

    fn in_a_row(&self) -> usize {
        let judged = self.ended.iter().rev().map(|call| call.outcome);
        let judged = judged.filter(|outcome| !matches!(outcome, Outcome::Overloaded { .. }));
        judged.take_while(|outcome| *outcome == Outcome::Failure).count()
    }

    fn open_if_bad(&mut self, now: u64) {
        let (calls, failed, overloaded, slow) = self.counts(now);
        let share = |part: usize| part as f64 / calls as f64;
        let too_many = calls >= self.settings.minimum
            && (share(failed) >= self.settings.failure_rate
                || share(overloaded) >= self.settings.overload_rate
                || self.settings.slow.is_some_and(|(_, rate)| share(slow) >= rate));
        if self.in_a_row() < self.settings.in_a_row && !too_many {
            return;
        }
        let successes = self.ended.iter().filter(|call| call.outcome == Outcome::Success);
        let good: Vec<u64> = self.closed_ms.into_iter().chain(successes.map(|call| call.at_ms)).collect();
        let mut left = good.last().unwrap_or(&0) - good.first().unwrap_or(&0);
        while self.level > 0 && left >= self.wait_ms(self.level - 1) {
            left -= self.wait_ms(self.level - 1);
            self.level -= 1;
        }
        self.open(now);
    }

    fn open(&mut self, now: u64) {
        self.until_ms = (now + self.wait_ms(self.level)).max(self.told_ms);
        self.told_ms = 0;
        if self.wait_ms(self.level + 1) > self.wait_ms(self.level) {
            self.level += 1;
        }
        self.enter(State::Open);
    }

    fn order(&mut self, state: State) {
        (self.level, self.told_ms) = (0, 0);
        self.enter(state);
    }
}

fn outcome() -> impl Strategy<Value = Option<Outcome>> {
    let told = proptest::option::of((0u64..5_000).prop_map(Duration::from_millis));
    prop_oneof![
        8 => Just(Some(Outcome::Success)),
        6 => Just(Some(Outcome::Failure)),
        3 => told.prop_map(|retry_after| Some(Outcome::Overloaded { retry_after })),
        2 => Just(Some(Outcome::Ignored)),
        2 => Just(None),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let order = prop_oneof![
        3 => Just(State::Closed),
        1 => Just(State::ForcedOpen),
        1 => Just(State::Disabled),
        1 => Just(State::MetricsOnly),
    ];
    prop_oneof![
        36 => Just(Step::Admit),
        36 => (0usize..64, outcome()).prop_map(|(at, outcome)| Step::End(at, outcome)),
        12 => prop_oneof![(0u64..30), (0u64..3_000)].prop_map(Step::Pass),
        12 => Just(Step::PassUntilFree),
        1 => order.prop_map(Step::Order),
    ]
}

fn settings() -> impl Strategy<Value = Settings> {
    let window =
        prop_oneof![(1usize..12).prop_map(Window::Calls), (1u64..300).prop_map(Window::TenthMs)].boxed();
    let rates = (1u32..=10, 1u32..=10, proptest::option::of((1u64..1_000, 1u32..=10)));
    let limits = (prop_oneof![1usize..6, Just(1_000)], window, 1usize..12, rates);
    (limits, (1u64..2_000, 1u64..8, 1usize..5, 1u64..2_000)).prop_map(
        |((in_a_row, window, minimum, rates), (wait_ms, growth, probes, lease_ms))| {
            let tenths = |rate: u32| f64::from(rate) / 10.0;
            let (failure, overload, slow) = rates;
            Settings {
                in_a_row,
                window,
                minimum: match window {
                    Window::Calls(size) => minimum.min(size),
                    Window::TenthMs(_) => minimum,
                },
                failure_rate: tenths(failure),
                overload_rate: tenths(overload),
                slow: slow.map(|(threshold, rate)| (threshold, tenths(rate))),
                wait_ms,
                wait_ms_max: wait_ms * growth,
                probes,
                lease_ms,
            }
        },
    )
}

fn build(settings: &Settings) -> CircuitBreaker {
    let ms = Duration::from_millis;
    let window = |builder: Builder| match settings.window {
        Window::Calls(size) => builder.window_calls(size as u32),
        Window::TenthMs(width) => builder.window_time(ms(10 * width)),
    };
    let slow = |builder: Builder| match settings.slow {
        Some((threshold, rate)) => builder.slow_call_threshold(ms(threshold)).slow_call_rate(rate),
        None => builder,
    };
    slow(window(CircuitBreaker::builder()))
        .consecutive_failures(settings.in_a_row as u32)
        .minimum_calls(settings.minimum as u32)
        .failure_rate(settings.failure_rate)
        .overload_rate(settings.overload_rate)
        .open_wait(ms(settings.wait_ms))
        .open_wait_max(ms(settings.wait_ms_max))
        .open_wait_jitter(0.0)
        .probes(settings.probes as u32)
        .probe_lease(ms(settings.lease_ms))
        .build()
        .unwrap()
}

/// The breaker and the reference, side by side.
struct Pair {
    start: Instant,
    now_ms: u64,
    breaker: CircuitBreaker,
    model: Model,
    permits: Vec<(usize, Permit)>,
}

impl Pair {
    fn new(settings: Settings) -> Self {
        let breaker = build(&settings);
        let model = Model::new(settings);
        Self { start: Instant::now(), now_ms: 0, breaker, model, permits: vec![] }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.now_ms)
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Admit => self.admit(),
            Step::End(_, _) if self.permits.is_empty() => Ok(()),
            Step::End(at, outcome) => self.end(at % self.permits.len(), outcome),
            Step::Pass(ms) => {
                self.now_ms += ms;
                Ok(())
            }
            Step::PassUntilFree => self.pass_until_free(),
            Step::Order(state) => {
                match state {
                    State::Closed => self.breaker.reset(),
                    State::ForcedOpen => self.breaker.force_open(),
                    State::Disabled => self.breaker.disable(),
                    _ => self.breaker.metrics_only(),
                }
                self.model.order(state);
                Ok(())
            }
        }
    }

    fn admit(&mut self) -> Result<(), TestCaseError> {
        match (self.breaker.try_acquire_at(self.now()), self.model.admit(self.now_ms)) {
            (Ok(permit), Ok(id)) => self.permits.push((id, permit)),
            (Err(open), Err(retry_ms)) => {
                prop_assert_eq!(open.retry_after, Duration::from_millis(retry_ms));
            }
            (real, reference) => prop_assert!(false, "{:?}, but {:?}", real, reference),
        }
        Ok(())
    }

    fn end(&mut self, at: usize, outcome: Option<Outcome>) -> Result<(), TestCaseError> {
        let now = self.now();
        let before = self.breaker.snapshot_at(now);
        let (id, permit) = self.permits.remove(at);
        let stale = self.model.issued[id].0 != self.model.era;
        match outcome {
            Some(outcome) => permit.finish_at(outcome, now),
            None => permit.cancel_at(now),
        }
        self.model.end(id, outcome, self.now_ms);
        if stale {
            let mut after = self.breaker.snapshot_at(now);
            prop_assert_eq!(after.late, before.late + 1);
            // A look at a half-open circuit also ends the leases that are over.
            (after.late, after.leases_ended) = (before.late, before.leases_ended);
            prop_assert_eq!(after, before, "a stale permit changed something");
        }
        Ok(())
    }

    /// However the breaker got here, one wait and one lease later it lets someone pass.
    fn pass_until_free(&mut self) -> Result<(), TestCaseError> {
        if self.model.state == State::ForcedOpen {
            return Ok(());
        }
        let pass =
            |breaker: &CircuitBreaker, now| breaker.try_acquire_at(now).map(|permit| permit.cancel_at(now));
        if let Err(open) = pass(&self.breaker, self.now()) {
            self.now_ms += open.retry_after.as_millis() as u64;
            prop_assert!(
                pass(&self.breaker, self.now()).is_ok(),
                "still refused after {:?}",
                open.retry_after
            );
        }
        if let Ok(id) = self.model.admit(self.now_ms) {
            self.model.end(id, None, self.now_ms);
        }
        Ok(())
    }

    fn agree(&self) -> Result<(), TestCaseError> {
        let (model, now_ms) = (&self.model, self.now_ms);
        let snapshot = self.breaker.snapshot_at(self.now());
        prop_assert_eq!(snapshot.state, model.state);
        prop_assert_eq!(self.breaker.state(), model.state);
        prop_assert_eq!(self.breaker.watch().state(), model.state);
        prop_assert_eq!(snapshot.generation, model.era as u64);
        prop_assert_eq!(snapshot.retry_after, Duration::from_millis(model.retry_ms(now_ms)));
        prop_assert_eq!(snapshot.next_open_wait, Duration::from_millis(model.wait_ms(model.level)));
        if model.state == State::HalfOpen {
            prop_assert_eq!(snapshot.probes_out as usize, model.probes_out(now_ms).len());
            prop_assert_eq!(snapshot.probes_succeeded as usize, model.ended.len());
            prop_assert!((snapshot.probes_out + snapshot.probes_succeeded) as usize <= model.settings.probes);
        }
        if matches!(model.state, State::Closed | State::MetricsOnly) {
            let counts = model.counts(now_ms);
            let (calls, failed, overloaded, slow) = counts;
            prop_assert_eq!(
                (
                    snapshot.window_calls,
                    snapshot.window_failures,
                    snapshot.window_overloaded,
                    snapshot.window_slow
                ),
                (calls as u64, failed as u64, overloaded as u64, slow as u64)
            );
            prop_assert_eq!(snapshot.consecutive_failures as usize, model.in_a_row());
            let share = |part: usize| if calls == 0 { 0.0 } else { part as f64 / calls as f64 };
            prop_assert_eq!(snapshot.failure_rate(), share(failed));
            prop_assert_eq!(snapshot.overload_rate(), share(overloaded));
            prop_assert_eq!(snapshot.slow_call_rate(), share(slow));
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn it_answers_as_the_reference_does(settings in settings(), steps in proptest::collection::vec(step(), 1..250)) {
        let mut pair = Pair::new(settings);
        for step in &steps {
            pair.take(step)?;
            pair.agree()?;
        }
    }
}
