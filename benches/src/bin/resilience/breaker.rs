//! A closed circuit: to be let pass and to tell the outcome, the call itself being nothing.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use benches::report::{Figure, median};
use resilience::{CircuitBreaker, State};

use crate::rounds::{Cost, Subject, measure};

/// For a call that is told the time, on two threads.
const NS_MAX: f64 = 100.0;

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
    let timing = builder().window_time(Duration::from_secs(10)).build()?;
    let clocked = builder().build()?;
    let ours = [
        told("count window", &counting, fails),
        told("time window", &timing, fails),
        asking("count window, own clock", &clocked, fails),
    ];
    let count = ours.len();
    let subjects: Vec<Subject<'_>> = ours.into_iter().chain(peers(fails)).collect();
    let costs = measure(threads, &subjects);
    for breaker in [&counting, &timing, &clocked] {
        ensure!(breaker.state() == State::Closed, "a circuit opened: {:?}", breaker.snapshot());
    }

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
