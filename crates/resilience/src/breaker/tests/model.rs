//! A naive reference: it keeps the whole history and recomputes every answer from it.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::breaker::{CircuitBreaker, Permit, State};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Success,
    Failure,
    Ignored,
    Cancelled,
}

#[derive(Debug, Clone)]
enum Step {
    Admit,
    /// Ends the permit at this place among those that are out, whatever state issued it.
    End(usize, Outcome),
    Pass(u64),
    /// Passes time until the breaker says a call may be admitted.
    PassUntilFree,
}

#[derive(Debug, Clone)]
struct Settings {
    in_a_row: usize,
    window: usize,
    minimum: usize,
    rate: f64,
    wait_ms: u64,
    wait_ms_max: u64,
    probes: usize,
    lease_ms: u64,
}

/// All times are milliseconds since the start.
struct Model {
    settings: Settings,
    state: State,
    /// The number of transitions so far; permits of an earlier one are stale.
    era: usize,
    /// When the present era began to wait, and for how long (open only).
    until_ms: u64,
    /// Outcomes of this era, oldest first (closed only).
    outcomes: Vec<bool>,
    /// When successes were seen in this closed era, the probe that closed it included.
    success_ms: Vec<u64>,
    /// The permits ever issued: era, time.
    issued: Vec<(usize, u64)>,
    ended: Vec<bool>,
    probes_succeeded: usize,
    level: u32,
}

impl Model {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: State::Closed,
            era: 0,
            until_ms: 0,
            outcomes: vec![],
            success_ms: vec![],
            issued: vec![],
            ended: vec![],
            probes_succeeded: 0,
            level: 0,
        }
    }

    fn probes_out(&self, now: u64) -> Vec<usize> {
        (0..self.issued.len())
            .filter(|&id| {
                let (era, at) = self.issued[id];
                era == self.era && !self.ended[id] && now < at + self.settings.lease_ms
            })
            .collect()
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.era += 1;
        self.outcomes.clear();
        self.success_ms.clear();
        self.probes_succeeded = 0;
    }

    fn wait_ms(&self, level: u32) -> u64 {
        (self.settings.wait_ms << level.min(30)).min(self.settings.wait_ms_max)
    }

    fn admit(&mut self, now: u64) -> Result<usize, u64> {
        if self.state == State::Open && self.until_ms <= now {
            self.enter(State::HalfOpen);
        }
        match self.state {
            State::Open => return Err(self.until_ms - now),
            State::HalfOpen => {
                let out = self.probes_out(now);
                if out.len() + self.probes_succeeded >= self.settings.probes {
                    let ends = out.iter().map(|&id| self.issued[id].1 + self.settings.lease_ms);
                    return Err(ends.min().unwrap() - now);
                }
            }
            State::Closed => {}
        }
        self.issued.push((self.era, now));
        self.ended.push(false);
        Ok(self.issued.len() - 1)
    }

    fn end(&mut self, id: usize, outcome: Outcome, now: u64) {
        let (era, at) = self.issued[id];
        let leased = self.state != State::HalfOpen || now < at + self.settings.lease_ms;
        self.ended[id] = true;
        if era != self.era || !leased {
            return;
        }
        match (self.state, outcome) {
            (_, Outcome::Ignored | Outcome::Cancelled) => {}
            (State::Closed, _) => {
                self.outcomes.push(outcome == Outcome::Failure);
                if outcome == Outcome::Success {
                    self.success_ms.push(now);
                }
                self.open_if_bad(now);
            }
            (State::HalfOpen, Outcome::Failure) => self.open(now),
            (State::HalfOpen, Outcome::Success) => {
                self.probes_succeeded += 1;
                if self.probes_succeeded == self.settings.probes {
                    self.enter(State::Closed);
                    self.success_ms.push(now);
                }
            }
            (State::Open, _) => unreachable!("nothing is issued while open"),
        }
    }

    fn open_if_bad(&mut self, now: u64) {
        let in_a_row = self.outcomes.iter().rev().take_while(|failed| **failed).count();
        let newest = &self.outcomes[self.outcomes.len().saturating_sub(self.settings.window)..];
        let failed = newest.iter().filter(|failed| **failed).count();
        let rate = failed as f64 / newest.len() as f64;
        let too_many = newest.len() >= self.settings.minimum && rate >= self.settings.rate;
        if in_a_row >= self.settings.in_a_row || too_many {
            let good = match (self.success_ms.first(), self.success_ms.last()) {
                (Some(first), Some(last)) => last - first,
                _ => 0,
            };
            let mut left = good;
            while self.level > 0 && left >= self.wait_ms(self.level - 1) {
                left -= self.wait_ms(self.level - 1);
                self.level -= 1;
            }
            self.open(now);
        }
    }

    fn open(&mut self, now: u64) {
        self.until_ms = now + self.wait_ms(self.level);
        if self.wait_ms(self.level + 1) > self.wait_ms(self.level) {
            self.level += 1;
        }
        self.enter(State::Open);
    }
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Success),
        4 => Just(Outcome::Failure),
        1 => Just(Outcome::Ignored),
        1 => Just(Outcome::Cancelled),
    ];
    prop_oneof![
        6 => Just(Step::Admit),
        6 => (0usize..64, outcome).prop_map(|(at, outcome)| Step::End(at, outcome)),
        2 => (0u64..3_000).prop_map(Step::Pass),
        2 => Just(Step::PassUntilFree),
    ]
}

fn settings() -> impl Strategy<Value = Settings> {
    (1usize..6, 1usize..12, 1usize..12, 1u32..=10, 1u64..2_000, 1u64..8, 1usize..5, 1u64..2_000).prop_map(
        |(in_a_row, window, minimum, tenths, wait_ms, growth, probes, lease_ms)| Settings {
            in_a_row,
            window,
            minimum: minimum.min(window),
            rate: f64::from(tenths) / 10.0,
            wait_ms,
            wait_ms_max: wait_ms * growth,
            probes,
            lease_ms,
        },
    )
}

fn build(settings: &Settings) -> CircuitBreaker {
    let ms = Duration::from_millis;
    CircuitBreaker::builder()
        .consecutive_failures(settings.in_a_row as u32)
        .window_calls(settings.window as u32)
        .minimum_calls(settings.minimum as u32)
        .failure_rate(settings.rate)
        .open_wait(ms(settings.wait_ms))
        .open_wait_max(ms(settings.wait_ms_max))
        .open_wait_jitter(0.0)
        .probes(settings.probes as u32)
        .probe_lease(ms(settings.lease_ms))
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn it_answers_as_the_reference_does(settings in settings(), steps in proptest::collection::vec(step(), 1..200)) {
        let start = Instant::now();
        let breaker = build(&settings);
        let mut model = Model::new(settings.clone());
        let mut permits: Vec<(usize, Permit)> = Vec::new();
        let mut now_ms = 0;
        for step in steps {
            let now = start + Duration::from_millis(now_ms);
            match step {
                Step::Admit => match (breaker.try_acquire_at(now), model.admit(now_ms)) {
                    (Ok(permit), Ok(id)) => permits.push((id, permit)),
                    (Err(open), Err(retry_ms)) => {
                        prop_assert_eq!(open.retry_after, Duration::from_millis(retry_ms));
                    }
                    (real, reference) => prop_assert!(false, "{:?}, but {:?}", real, reference),
                },
                Step::End(at, outcome) if !permits.is_empty() => {
                    let before = breaker.snapshot_at(now);
                    let (id, permit) = permits.remove(at % permits.len());
                    let stale = model.issued[id].0 != model.era;
                    match outcome {
                        Outcome::Success => permit.success_at(now),
                        Outcome::Failure => permit.failure_at(now),
                        Outcome::Ignored => permit.ignore_at(now),
                        Outcome::Cancelled => permit.cancel_at(now),
                    }
                    model.end(id, outcome, now_ms);
                    if stale {
                        let after = breaker.snapshot_at(now);
                        prop_assert_eq!(after.late, before.late + 1);
                        prop_assert_eq!((after.state, after.window_calls, after.probes_succeeded, after.generation),
                            (before.state, before.window_calls, before.probes_succeeded, before.generation));
                    }
                }
                Step::End(..) => {}
                Step::Pass(ms) => now_ms += ms,
                Step::PassUntilFree => {
                    // However the breaker got here, one wait and one lease later it lets someone pass.
                    if let Err(open) = breaker.try_acquire_at(now).map(|permit| permit.cancel_at(now)) {
                        now_ms += open.retry_after.as_millis() as u64;
                        let now = start + Duration::from_millis(now_ms);
                        let passed = breaker.try_acquire_at(now).map(|permit| permit.cancel_at(now));
                        prop_assert!(passed.is_ok(), "still refused after {:?}", open.retry_after);
                    }
                    if let Ok(id) = model.admit(now_ms) {
                        model.end(id, Outcome::Cancelled, now_ms);
                    }
                }
            }
            let snapshot = breaker.snapshot_at(start + Duration::from_millis(now_ms));
            prop_assert_eq!(snapshot.state, model.state);
            prop_assert_eq!(snapshot.generation, model.era as u64);
            if model.state == State::HalfOpen {
                prop_assert_eq!(snapshot.probes_out as usize, model.probes_out(now_ms).len());
                prop_assert_eq!(snapshot.probes_succeeded as usize, model.probes_succeeded);
                prop_assert!((snapshot.probes_out + snapshot.probes_succeeded) as usize <= settings.probes);
            }
            if model.state == State::Closed {
                let newest = &model.outcomes[model.outcomes.len().saturating_sub(settings.window)..];
                prop_assert_eq!(snapshot.window_calls as usize, newest.len());
                prop_assert_eq!(snapshot.window_failures as usize, newest.iter().filter(|failed| **failed).count());
            }
        }
    }
}
