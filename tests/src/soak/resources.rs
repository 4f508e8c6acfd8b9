//! Memory, descriptors and threads of the processes under soak, and whether they grow: the judge is pure.
//!
//! Each process life is judged by itself, since a new process begins anew:
//!
//! - **memory is flat**: after the warm-up (the ring of sent records and the allocator's caches fill while the keys are
//!   a fixed set), the median resident size of the last third of its life is within [`Limits::rss_ratio`] times the
//!   median of the second third, and [`Limits::rss_slack_kib`] above. Medians, since a fault swells queues for a while;
//! - **descriptors and threads return**: at every quiet moment (no fault, all regions equal) there are no more than at
//!   the life's first one, and a small slack.
//!
//! A life too short to be judged is told as such, and is no proof. The longer a life, the further its thirds are apart and
//! the smaller the leak that is found: how small is told with each verdict ([`Memory::finds_bytes_per_s`]).

use std::{fmt, fs, io, path::Path, time::Duration};

use serde::Serialize;

/// What a process had at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Since the run began.
    pub at_ms: u64,
    /// Resident memory (`VmRSS`).
    pub rss_kib: u64,
    /// Open file descriptors.
    pub fds: u64,
    /// Threads.
    pub threads: u64,
}

/// What one process life had, from its begin on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Life {
    /// Whose: a region's node, or the broker.
    pub process: String,
    /// Its process id.
    pub pid: u32,
    /// Once in a few seconds.
    pub samples: Vec<Sample>,
    /// At quiet moments.
    pub quiet: Vec<Sample>,
}

/// What is still flat.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limits {
    /// What a life begins with and is not judged.
    pub warm_up: Duration,
    /// How long a life must have lasted after that to be judged.
    pub least: Duration,
    /// By how much memory may differ.
    pub rss_ratio: f64,
    /// And this much, in KiB.
    pub rss_slack_kib: u64,
    /// By how many descriptors a quiet moment may differ from the first.
    pub fds_slack: u64,
    /// By how many threads.
    pub threads_slack: u64,
}

/// What the judge says of a life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing grew.
    Flat(Memory),
    /// It did not live long enough to tell whether its memory grows; nothing else did.
    TooShort {
        /// How long it was watched after the warm-up.
        watched: Duration,
    },
    /// Its memory grew.
    MemoryGrew(Memory),
    /// It has more descriptors, or threads, than at its first quiet moment.
    HandlesGrew {
        /// `descriptors` or `threads`.
        what: &'static str,
        /// At the first quiet moment.
        first: u64,
        /// At the worst.
        worst: u64,
    },
}

/// The two medians that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Of the second third, in KiB.
    pub second_kib: u64,
    /// Of the last third.
    pub last_kib: u64,
    /// The smallest steady leak that these two would have shown, in bytes a second.
    pub finds_bytes_per_s: u64,
}

impl Verdict {
    /// Whether something grew.
    pub fn is_red(&self) -> bool {
        matches!(self, Self::MemoryGrew(_) | Self::HandlesGrew { .. })
    }
}

/// Judges one life.
pub fn judge(life: &Life, limits: &Limits) -> Verdict {
    if let Some(grown) = handles(life, limits) {
        return grown;
    }
    let (Some(first), Some(last)) = (life.samples.first(), life.samples.last()) else {
        return Verdict::TooShort { watched: Duration::ZERO };
    };
    let from_ms = first.at_ms + limits.warm_up.as_millis() as u64;
    let watched_ms = last.at_ms.saturating_sub(from_ms);
    let watched = Duration::from_millis(watched_ms);
    let third = |number: u64| {
        let (from, to) = (from_ms + watched_ms * (number - 1) / 3, from_ms + watched_ms * number / 3);
        let within = life.samples.iter().filter(|sample| (from..=to).contains(&sample.at_ms));
        median(within.map(|sample| sample.rss_kib))
    };
    let (Some(second_kib), Some(last_kib)) = (third(2), third(3)) else {
        return Verdict::TooShort { watched };
    };
    if watched < limits.least {
        return Verdict::TooShort { watched };
    }
    let most = second_kib as f64 * limits.rss_ratio + limits.rss_slack_kib as f64;
    // What grows steadily differs between the middles of two thirds by what it grows in one.
    let growth = (most - second_kib as f64) * 1_024.0;
    let finds_bytes_per_s = (growth * 3_000.0 / watched_ms.max(1) as f64).ceil() as u64;
    let memory = Memory { second_kib, last_kib, finds_bytes_per_s };
    if last_kib as f64 > most { Verdict::MemoryGrew(memory) } else { Verdict::Flat(memory) }
}

fn handles(life: &Life, limits: &Limits) -> Option<Verdict> {
    let grown = |what, count: fn(&Sample) -> u64, slack| {
        let first = count(life.quiet.first()?);
        let worst = life.quiet.iter().map(count).max()?;
        (worst > first + slack).then_some(Verdict::HandlesGrew { what, first, worst })
    };
    grown("descriptors", |sample| sample.fds, limits.fds_slack)
        .or_else(|| grown("threads", |sample| sample.threads, limits.threads_slack))
}

/// The middle one; `None` of nothing.
pub fn median(values: impl IntoIterator<Item = u64>) -> Option<u64> {
    let mut values: Vec<u64> = values.into_iter().collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// What the process has now.
///
/// # Errors
/// When it is gone, or the system has no `/proc`.
pub fn sample(pid: u32, at: Duration) -> io::Result<Sample> {
    let folder = Path::new("/proc").join(pid.to_string());
    let status = fs::read_to_string(folder.join("status"))?;
    let (rss_kib, threads) = parse(&status).ok_or_else(|| {
        io::Error::other(format!("process {pid} has no VmRSS; it ended, or never had memory"))
    })?;
    let fds = fs::read_dir(folder.join("fd"))?.count() as u64;
    Ok(Sample { at_ms: at.as_millis() as u64, rss_kib, fds, threads })
}

/// Resident KiB and threads; `None` of a process that ended and was not reaped, which has no memory.
fn parse(status: &str) -> Option<(u64, u64)> {
    let number = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some((number("VmRSS:")?, number("Threads:")?))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |kib: u64| kib as f64 / 1_024.0;
        match self {
            Self::Flat(memory) => {
                let finds = memory.finds_bytes_per_s as f64 / 1_024.0;
                write!(f, "flat: {:.1} MiB, then {:.1}", mib(memory.second_kib), mib(memory.last_kib))?;
                write!(f, " (a leak of {finds:.1} KiB/s would show)")
            }
            Self::TooShort { watched } => {
                write!(f, "too short to judge its memory ({} s after the warm-up)", watched.as_secs())
            }
            Self::MemoryGrew(memory) => {
                write!(f, "MEMORY GREW: {:.1} MiB, then {:.1}", mib(memory.second_kib), mib(memory.last_kib))
            }
            Self::HandlesGrew { what, first, worst } => {
                write!(f, "{} GREW: {first} at first, {worst} at worst", what.to_uppercase())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        process::{Command, Stdio},
    };

    use super::*;

    const LIMITS: Limits = Limits {
        warm_up: Duration::from_secs(120),
        least: Duration::from_secs(120),
        rss_ratio: 1.10,
        rss_slack_kib: 4 << 10,
        fds_slack: 0,
        threads_slack: 2,
    };

    /// A life of so many seconds, sampled every second.
    fn life(seconds: u64, rss_kib: impl Fn(u64) -> u64) -> Life {
        let sample = |at: u64| Sample { at_ms: at * 1_000, rss_kib: rss_kib(at), fds: 20, threads: 5 };
        let samples: Vec<Sample> = (0..seconds).map(sample).collect();
        let quiet = samples.iter().step_by(100).copied().collect();
        Life { process: "us-east".to_owned(), pid: 1, samples, quiet }
    }

    #[test]
    fn memory_that_fills_and_stays_is_flat() {
        let filled = life(1_200, |at| 30_000 + 300 * at.min(100));
        assert!(matches!(judge(&filled, &LIMITS), Verdict::Flat(_)), "{}", judge(&filled, &LIMITS));
    }

    #[test]
    fn memory_that_swells_for_a_while_is_flat() {
        let swells = life(1_200, |at| if at % 100 < 30 { 120_000 } else { 60_000 });
        assert!(matches!(judge(&swells, &LIMITS), Verdict::Flat(_)));
    }

    #[test]
    fn a_planted_leak_is_found() {
        // 60 KiB a second from 60 MiB on: what a lost frame a second would be.
        let leaks = life(1_200, |at| 61_440 + 60 * at);
        assert!(matches!(judge(&leaks, &LIMITS), Verdict::MemoryGrew(_)), "{}", judge(&leaks, &LIMITS));
    }

    #[test]
    fn a_leak_under_swelling_is_found() {
        let leaks = life(1_200, |at| 61_440 + 60 * at + if at % 100 < 30 { 60_000 } else { 0 });
        assert!(judge(&leaks, &LIMITS).is_red());
    }

    #[test]
    fn the_smallest_leak_that_is_told_is_found_and_a_smaller_one_is_not() {
        for seconds in [400, 1_200, 7_200] {
            let Verdict::Flat(memory) = judge(&life(seconds, |_| 61_440), &LIMITS) else {
                panic!("it is flat")
            };
            // As large as that one in the middle of its second third.
            let middle = 120.0 + (seconds - 120) as f64 / 2.0;
            let leak = |part: f64| {
                let kib_per_s = part * memory.finds_bytes_per_s as f64 / 1_024.0;
                life(seconds, |at| (61_440.0 + kib_per_s * (at as f64 - middle)) as u64)
            };
            assert!(judge(&leak(1.05), &LIMITS).is_red(), "{seconds} s: {}", judge(&leak(1.05), &LIMITS));
            assert!(!judge(&leak(0.95), &LIMITS).is_red(), "{seconds} s: {}", judge(&leak(0.95), &LIMITS));
        }
    }

    #[test]
    fn a_longer_life_finds_a_smaller_leak() {
        let finds = |seconds| match judge(&life(seconds, |_| 61_440), &LIMITS) {
            Verdict::Flat(memory) => memory.finds_bytes_per_s,
            other => panic!("{other}"),
        };
        // 10 MiB between thirds of 360 s, in bytes a second.
        assert!((29_000..30_500).contains(&finds(1_200)), "{}", finds(1_200));
        assert!(finds(1_200) * 3 < finds(400));
    }

    #[test]
    fn a_leaked_descriptor_is_found_in_a_short_life_too() {
        let mut leaks = life(50, |_| 30_000);
        let first = leaks.quiet[0];
        leaks.quiet.push(Sample { fds: 21, ..first });
        let found = judge(&leaks, &LIMITS);
        assert_eq!(found, Verdict::HandlesGrew { what: "descriptors", first: 20, worst: 21 });
    }

    #[test]
    fn threads_may_differ_by_their_slack_and_no_more() {
        let mut grown = life(50, |_| 30_000);
        let first = grown.quiet[0];
        grown.quiet.push(Sample { threads: 7, ..first });
        assert!(!judge(&grown, &LIMITS).is_red());
        grown.quiet.push(Sample { threads: 8, ..first });
        assert!(judge(&grown, &LIMITS).is_red());
    }

    #[test]
    fn descriptors_between_quiet_moments_do_not_count() {
        let mut busy = life(50, |_| 30_000);
        busy.samples[20].fds = 400;
        assert!(!judge(&busy, &LIMITS).is_red());
    }

    #[test]
    fn a_life_too_short_proves_nothing() {
        for seconds in [0, 1, 100, 130, 230] {
            let short = judge(&life(seconds, |at| 1_000 * at), &LIMITS);
            assert!(matches!(short, Verdict::TooShort { .. }), "{seconds} s: {short}");
        }
    }

    #[test]
    fn a_process_is_sampled_with_the_descriptor_that_it_opens() {
        // Of this process other tests open and close descriptors, of a child nobody does.
        let mut child = Command::new("sh")
            .args(["-c", "echo ready; read line; exec 9</dev/null; echo opened; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut next = || said.next().unwrap().unwrap();
        assert_eq!(next(), "ready");
        let before = sample(child.id(), Duration::from_secs(1)).unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "open").unwrap();
        assert_eq!(next(), "opened");
        let after = sample(child.id(), Duration::from_secs(2)).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(before.rss_kib > 100 && before.threads == 1, "{before:?}");
        assert_eq!((after.at_ms, after.fds), (2_000, before.fds + 1));
    }

    #[test]
    fn a_process_that_ended_has_no_memory() {
        assert_eq!(parse("Name:\tx\nState:\tZ (zombie)\nThreads:\t1\n"), None);
        assert_eq!(parse("VmRSS:\t  1234 kB\nThreads:\t5\n"), Some((1_234, 5)));
    }
}
