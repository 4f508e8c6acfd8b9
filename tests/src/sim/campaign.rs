//! Many seeds, on all cores.

use std::{
    collections::BTreeMap,
    num::NonZero,
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use replication::sim::Rules;

use super::{Scenario, Violation, run};

/// What came of many seeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaign {
    /// How many seeds were run.
    pub ran: u64,
    /// The lowest seed that failed, and how; all below it passed.
    pub failed: Option<(u64, Violation)>,
    /// How long it took.
    pub took: Duration,
    /// On how many threads.
    pub threads: usize,
}

impl Campaign {
    /// Seeds a second.
    pub fn rate(&self) -> f64 {
        self.ran as f64 / self.took.as_secs_f64().max(1e-9)
    }
}

/// Failures by the name of the broken invariant: how many, and the lowest seed of them.
pub type Survey = BTreeMap<&'static str, (u64, u64, Violation)>;

/// Runs these seeds under these rules up to the first that fails, or until `bound` has passed.
pub fn run_seeds(
    seeds: Range<u64>,
    rules: impl Fn(&mut Scenario) -> Rules + Sync,
    bound: Duration,
) -> Campaign {
    let threads = threads();
    let began = Instant::now();
    // Seeds above one that failed need not be run.
    let end = AtomicU64::new(seeds.end);
    let failed: Mutex<Option<(u64, Violation)>> = Mutex::new(None);
    let is_wanted = |seed| seed < end.load(Ordering::Acquire) && began.elapsed() < bound;
    let ran = for_each_seed(seeds.start, is_wanted, |seed| {
        let Some(violation) = run_seed(seed, &rules) else { return };
        end.fetch_min(seed, Ordering::AcqRel);
        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.as_ref().is_none_or(|(lowest, _)| seed < *lowest) {
            *failed = Some((seed, violation));
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    Campaign { ran, failed, took: began.elapsed(), threads }
}

/// Runs all of these seeds and counts what failed.
pub fn survey_seeds(seeds: Range<u64>, rules: impl Fn(&mut Scenario) -> Rules + Sync) -> Survey {
    let survey = Mutex::new(Survey::new());
    for_each_seed(
        seeds.start,
        |seed| seed < seeds.end,
        |seed| {
            let Some(violation) = run_seed(seed, &rules) else { return };
            let mut survey = survey.lock().unwrap_or_else(PoisonError::into_inner);
            let known = survey.entry(violation.invariant).or_insert_with(|| (0, seed, violation.clone()));
            known.0 += 1;
            if seed < known.1 {
                (known.1, known.2) = (seed, violation);
            }
        },
    );
    survey.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn run_seed(seed: u64, rules: &impl Fn(&mut Scenario) -> Rules) -> Option<Violation> {
    let mut scenario = Scenario::of_seed(seed);
    let rules = rules(&mut scenario);
    run(&scenario, rules, 0).violation
}

/// Runs seeds from `first` on, each once and in order but on all cores, while they are wanted. Returns how many.
fn for_each_seed(first: u64, is_wanted: impl Fn(u64) -> bool + Sync, work: impl Fn(u64) + Sync) -> u64 {
    let next = AtomicU64::new(first);
    let ran = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !is_wanted(seed) {
                        return;
                    }
                    work(seed);
                    ran.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    ran.into_inner()
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}
