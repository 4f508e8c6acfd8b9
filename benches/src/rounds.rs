//! Subjects that take turns: each round runs all of them, so that what else the machine does meets all of them alike.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

/// Enough for a median that one disturbed round does not move.
const ROUNDS: usize = 9;

/// Calls of each thread in a round: some tens of milliseconds.
const CALLS: u64 = 200_000;

/// What is measured: a name, and the making of so many calls.
pub struct Subject<'a> {
    /// What it is called.
    pub name: &'static str,
    /// Makes so many calls.
    pub calls: Box<dyn Fn(u64) + Sync + 'a>,
}

/// Nanoseconds a call of one thread, of each round.
#[derive(Debug, Default)]
pub struct Cost {
    /// Of the thread's processor time: what the call costs, whatever else the machine does.
    pub processor_ns: Vec<f64>,
    /// Of the time that passed, waiting for a lock and for a processor among it.
    pub elapsed_ns: Vec<f64>,
}

/// Runs the subjects in turn, on so many threads at once that share each.
///
/// # Panics
/// When a subject does.
pub fn measure(threads: usize, subjects: &[Subject<'_>]) -> Vec<Cost> {
    let mut costs: Vec<Cost> = subjects.iter().map(|_| Cost::default()).collect();
    for round in 0..=ROUNDS {
        for (subject, cost) in subjects.iter().zip(&mut costs) {
            let (processor_ns, elapsed_ns) = run(threads, subject);
            // The first round warms up.
            if round > 0 {
                cost.processor_ns.push(processor_ns);
                cost.elapsed_ns.push(elapsed_ns);
            }
        }
    }
    costs
}

fn run(threads: usize, subject: &Subject<'_>) -> (f64, f64) {
    let start = Barrier::new(threads);
    let one = || {
        start.wait();
        let (processor, began) = (processor_time(), Instant::now());
        (subject.calls)(CALLS);
        (processor_time().saturating_sub(processor), began.elapsed())
    };
    let took: Vec<(Duration, Duration)> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        running.into_iter().map(|thread| thread.join().expect("a subject does not panic")).collect()
    });
    let a_call = |sum: Duration| sum.as_nanos() as f64 / (CALLS * threads as u64) as f64;
    (a_call(took.iter().map(|took| took.0).sum()), a_call(took.iter().map(|took| took.1).sum()))
}

/// This thread's.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
