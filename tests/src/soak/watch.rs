//! Takes samples of the processes under soak while they come and go, and waits for them to become quiet.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::resources::{Life, Limits, Sample, sample};

/// Between two looks while it waits.
const LOOK: Duration = Duration::from_millis(200);
/// A life's first quiet moment is when its descriptors have not changed for this many looks.
const STEADY_LOOKS: usize = 10;

/// The processes under soak; clones share them.
#[derive(Debug, Clone)]
pub struct Watch {
    start: Instant,
    watched: Arc<Mutex<Watched>>,
}

#[derive(Debug, Default)]
struct Watched {
    lives: Vec<Life>,
    /// By process, which of the lives goes on.
    running: BTreeMap<String, usize>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { start: Instant::now(), watched: Arc::default() }
    }
}

impl Watch {
    /// Since it was made.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// A process began; where one of the same name was watched, that one ended.
    pub fn began(&self, process: &str, pid: u32) {
        let mut watched = self.lock();
        let life = Life { process: process.to_owned(), pid, ..Life::default() };
        watched.lives.push(life);
        let index = watched.lives.len() - 1;
        watched.running.insert(process.to_owned(), index);
    }

    /// A process ended.
    pub fn ended(&self, process: &str) {
        self.lock().running.remove(process);
    }

    /// Takes a sample of each that runs. One that ended by itself is left to whoever ends it or waits for it.
    pub fn look(&self) {
        let at = self.elapsed();
        let mut watched = self.lock();
        let running: Vec<usize> = watched.running.values().copied().collect();
        for index in running {
            let life = &mut watched.lives[index];
            if let Ok(taken) = sample(life.pid, at) {
                life.samples.push(taken);
            }
        }
    }

    /// Waits until each process that runs has no more descriptors and threads than at its first quiet moment, or, where
    /// this is the first, until its descriptors do not change any more; then takes that sample. At `bound` it takes the
    /// sample as it is, for the judge to see.
    pub async fn quiet(&self, limits: impl Fn(&str) -> Limits, bound: Duration) {
        let start = Instant::now();
        let mut before: BTreeMap<String, (u64, usize)> = BTreeMap::new();
        loop {
            let at = self.elapsed();
            let mut is_quiet = true;
            let mut taken: Vec<(usize, Sample)> = Vec::new();
            {
                let watched = self.lock();
                for (process, &index) in &watched.running {
                    let life = &watched.lives[index];
                    let Ok(now) = sample(life.pid, at) else { continue };
                    let steady = before.entry(process.clone()).or_insert((now.fds, 0));
                    *steady = if steady.0 == now.fds { (now.fds, steady.1 + 1) } else { (now.fds, 0) };
                    is_quiet &= match life.quiet.first() {
                        Some(first) => returned(first, &now, &limits(process)),
                        None => steady.1 >= STEADY_LOOKS,
                    };
                    taken.push((index, now));
                }
            }
            if is_quiet || start.elapsed() > bound {
                let mut watched = self.lock();
                for (index, now) in taken {
                    watched.lives[index].quiet.push(now);
                }
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Every life so far.
    pub fn lives(&self) -> Vec<Life> {
        self.lock().lives.clone()
    }

    /// The last samples of what runs, for people.
    pub fn now(&self) -> String {
        let watched = self.lock();
        let lives = watched.running.values().map(|&index| &watched.lives[index]);
        let shown = lives.filter_map(|life| {
            let last = life.samples.last()?;
            let mib = last.rss_kib as f64 / 1_024.0;
            Some(format!("{} {mib:.1} MiB {} fds {} threads", life.process, last.fds, last.threads))
        });
        shown.collect::<Vec<_>>().join(" · ")
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn returned(first: &Sample, now: &Sample, limits: &Limits) -> bool {
    now.fds <= first.fds + limits.fds_slack && now.threads <= first.threads + limits.threads_slack
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    const LIMITS: Limits = Limits {
        warm_up: Duration::ZERO,
        least: Duration::ZERO,
        rss_ratio: 1.0,
        rss_slack_kib: 0,
        fds_slack: 0,
        threads_slack: 0,
    };

    /// Waits for its input to end.
    fn process() -> Child {
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    #[tokio::test]
    async fn lives_of_one_process_are_kept_apart() {
        let (mut first, mut second) = (process(), process());
        let watch = Watch::default();
        watch.began("us-east", first.id());
        watch.look();
        watch.began("us-east", second.id());
        watch.look();
        watch.quiet(|_| LIMITS, Duration::from_secs(20)).await;
        watch.ended("us-east");
        watch.look();
        let lives = watch.lives();
        let seen: Vec<_> =
            lives.iter().map(|life| (life.pid, life.samples.len(), life.quiet.len())).collect();
        assert_eq!(seen, [(first.id(), 1, 0), (second.id(), 1, 1)]);
        for child in [&mut first, &mut second] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[tokio::test]
    async fn what_does_not_return_is_taken_as_it_is_at_the_bound() {
        let watch = Watch::default();
        let mut child = process();
        watch.began("us-east", child.id());
        let none = Sample { at_ms: 0, rss_kib: 1, fds: 0, threads: 0 };
        watch.lock().lives[0].quiet.push(none);
        watch.quiet(|_| LIMITS, Duration::ZERO).await;
        assert!(watch.lives()[0].quiet[1].fds > 0);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
