//! A closed circuit: to be let pass and to tell the outcome, the call itself being nothing.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use benches::{
    report::{Figure, median},
    rounds::{Cost, Subject, measure},
};
use resilience::{CircuitBreaker, State};

/// For a call that is told the time, on two threads.
const NS_MAX: f64 = 100.0;

/// From one call to the next, by the time that they are told: a busy caller's million a second.
const STEP: Duration = Duration::from_micros(1);

/// So that a tenth ends with each 10,000 calls of a thread, some of them in each round.
const WINDOW: Duration = Duration::from_millis(100);

fn never(_: u64) -> bool {
    false
}

/// One call of ten, which is far from what opens a circuit and keeps any window from being all successes.
fn one_of_ten(call: u64) -> bool {
    call % 10 == 9
}

/// A figure each for one thread and for two, with ratios to the others' in the same run: of processor time, and of the
/// time that passed.
///
/// # Errors
/// When a circuit did not stay closed, so that something else was measured.
pub(crate) fn figures() -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (what, fails) in [("closed", never as fn(u64) -> bool), ("closed, 1 of 10 fails", one_of_ten)] {
        for threads in [1, 2] {
            figures.extend(compared(what, fails, threads)?);
        }
    }
    Ok(figures)
}

fn compared(what: &str, fails: fn(u64) -> bool, threads: usize) -> Result<Vec<Figure>> {
    let builder = || CircuitBreaker::builder().consecutive_failures(20);
    let counting = builder().build()?;
    let timing = builder().window_time(WINDOW).build()?;
    let clocked = builder().build()?;
    let clock = Clock::new();
    let ours = [
        told("count window", &counting, fails),
        walking("time window", &timing, fails, &clock),
        asking("count window, own clock", &clocked, fails),
    ];
    let count = ours.len();
    let subjects: Vec<Subject<'_>> = ours.into_iter().chain(peers(fails)).collect();
    let costs = measure(threads, &subjects);
    for breaker in [&counting, &timing, &clocked] {
        ensure!(breaker.state() == State::Closed, "a circuit opened: {:?}", breaker.snapshot());
    }
    let timed = timing.snapshot_at(clock.now());
    let counted = timed.succeeded + timed.failed;
    ensure!(timed.window_calls < counted / 10, "no tenth of the time window has ended: {timed:?}");

    println!("{:<56} processor ns   elapsed ns", format!("{what}: {}", on(threads)));
    for (subject, cost) in subjects.iter().zip(&costs) {
        let (processor, elapsed) = (of(&cost.processor_ns), of(&cost.elapsed_ns));
        println!("  {:<54} {processor:>12.1} {elapsed:>12.1}", subject.name);
    }
    let mut figures = Vec::new();
    for (subject, cost) in subjects.iter().zip(&costs).take(count) {
        let name = format!("{what}, {}, {}", subject.name, on(threads));
        let figure = |name: String, of_cost: fn(&Cost) -> &[f64]| {
            let others = subjects.iter().zip(&costs).skip(count);
            others.fold(Figure::new(name, of(of_cost(cost)), "ns"), |figure, (other, its)| {
                figure.beside(other.name, ratio(of_cost(cost), of_cost(its)))
            })
        };
        let mut processor = figure(name.clone(), |cost| &cost.processor_ns);
        if subject.name != "count window, own clock" {
            processor = processor.at_most(NS_MAX);
        }
        let peers: Vec<String> =
            processor.peers.iter().map(|(peer, ratio)| format!("{:.2} of {peer}'s", ratio.median)).collect();
        println!("  {:<54} {} {}", subject.name, peers.join(", "), processor.verdict());
        figures.extend([processor, figure(format!("{name}, elapsed"), |cost| &cost.elapsed_ns)]);
    }
    Ok(figures)
}

#[cfg(feature = "peers")]
fn peers(fails: fn(u64) -> bool) -> Vec<Subject<'static>> {
    vec![crate::peers::recloser(fails), crate::peers::failsafe(fails)]
}

#[cfg(not(feature = "peers"))]
fn peers(_: fn(u64) -> bool) -> Vec<Subject<'static>> {
    Vec::new()
}

fn on(threads: usize) -> String {
    format!("{threads} {}", if threads == 1 { "thread" } else { "threads" })
}

fn of(rounds: &[f64]) -> f64 {
    median(rounds.iter().copied())
}

/// The median of the ratios that each round gave.
fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    median(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs))
}

/// Calls by a caller that has the time at hand.
fn told<'a>(name: &'static str, breaker: &'a CircuitBreaker, fails: fn(u64) -> bool) -> Subject<'a> {
    let now = Instant::now();
    let calls = move |calls| {
        for call in 0..calls {
            if let Ok(permit) = breaker.try_acquire_at(now) {
                if fails(call) { permit.failure_at(now) } else { permit.success_at(now) }
            }
        }
    };
    Subject { name, calls: Box::new(calls) }
}

/// How far the calls of one subject have got, from round to round.
struct Clock {
    start: Instant,
    walked_ns: AtomicU64,
}

impl Clock {
    fn new() -> Self {
        Self { start: Instant::now(), walked_ns: AtomicU64::new(0) }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_nanos(self.walked_ns.load(Ordering::Relaxed))
    }

    fn walk_to(&self, now: Instant) {
        let walked = now.saturating_duration_since(self.start).as_nanos();
        self.walked_ns.fetch_max(u64::try_from(walked).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Calls by a caller that has the time at hand, which goes on, so that tenths of a time window end.
fn walking<'a>(
    name: &'static str,
    breaker: &'a CircuitBreaker,
    fails: fn(u64) -> bool,
    clock: &'a Clock,
) -> Subject<'a> {
    let calls = move |calls| {
        let mut now = clock.now();
        for call in 0..calls {
            if let Ok(permit) = breaker.try_acquire_at(now) {
                if fails(call) { permit.failure_at(now) } else { permit.success_at(now) }
            }
            now += STEP;
        }
        clock.walk_to(now);
    };
    Subject { name, calls: Box::new(calls) }
}

/// Calls by a caller that leaves the clock to the breaker, which looks at it twice.
fn asking<'a>(name: &'static str, breaker: &'a CircuitBreaker, fails: fn(u64) -> bool) -> Subject<'a> {
    let calls = move |calls| {
        for call in 0..calls {
            if let Ok(permit) = breaker.try_acquire() {
                if fails(call) { permit.failure() } else { permit.success() }
            }
        }
    };
    Subject { name, calls: Box::new(calls) }
}
