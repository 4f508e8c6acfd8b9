//! What a soak says at its end: a table for people, and the same and more as JSON.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

use super::{
    resources::{Life, Verdict, median},
    rest::Rest,
};

const MINUTE_MS: u64 = 60_000;

/// What became of a soak.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// What decided the faults, the writes and the reads.
    pub seed: u64,
    /// The delivery profile.
    pub profile: String,
    /// The region whose node is never killed, so that it lives through the whole run.
    pub survivor: String,
    /// How long it was to last.
    pub minutes: f64,
    /// Whether everything was as it has to be.
    pub green: bool,
    /// Writes that the processes which lived at the last check had acknowledged.
    pub written: u64,
    /// What went wrong, in order.
    pub episodes: Vec<Played>,
    /// By kind, how often it came.
    pub kinds: BTreeMap<String, usize>,
    /// Each comparison of the regions.
    pub checks: Vec<Check>,
    /// What the broker had at each.
    pub rests: Vec<Rest>,
    /// Each process life.
    pub lives: Vec<Lived>,
    /// What nodes counted at the end, by region.
    pub nodes: BTreeMap<String, serde_json::Value>,
    /// What is wrong, in words.
    pub problems: Vec<String>,
    /// The whole of it, in seconds.
    pub took_s: f64,
}

/// An episode that came.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Played {
    /// When its faults began, in seconds since the start.
    pub at_s: f64,
    /// When they were mended.
    pub mended_s: f64,
    /// What it was.
    pub what: String,
}

/// A comparison of the regions, faults mended and writers at rest.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// When it began, in seconds since the start.
    pub at_s: f64,
    /// Until each node had all that had been written until then, writes going on, in seconds.
    pub caught_up_s: f64,
    /// From the end of the writes until all regions held the same, in seconds.
    pub equal_s: f64,
    /// Writes since the check before, of the processes that run.
    pub made: u64,
    /// Writes that were due of them.
    pub due: u64,
    /// Keys that each region holds.
    pub keys: usize,
    /// What the checker found, by kind.
    pub findings: BTreeMap<String, usize>,
}

/// A process life and its verdict.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lived {
    /// Whose, and what it had.
    #[serde(flatten)]
    pub life: Life,
    /// Median resident KiB of each minute of the run, as far as it lived then.
    pub rss_kib_by_minute: BTreeMap<u64, u64>,
    /// What the judge says.
    pub verdict: Verdict,
}

impl Lived {
    /// A life as judged.
    pub fn new(life: Life, verdict: Verdict) -> Self {
        let mut minutes: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for sample in &life.samples {
            minutes.entry(sample.at_ms / MINUTE_MS).or_default().push(sample.rss_kib);
        }
        let rss_kib_by_minute =
            minutes.into_iter().filter_map(|(minute, values)| Some((minute, median(values)?))).collect();
        Self { life, rss_kib_by_minute, verdict }
    }

    /// From its first sample to its last.
    pub fn lasted(&self) -> Duration {
        let samples = &self.life.samples;
        let ends = samples.first().zip(samples.last());
        Duration::from_millis(ends.map_or(0, |(first, last)| last.at_ms - first.at_ms))
    }
}

/// Values as a line of bars, the highest one eight eighths high; nothing of nothing.
pub fn bars(values: impl IntoIterator<Item = u64>) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let values: Vec<u64> = values.into_iter().collect();
    let most = values.iter().copied().max().unwrap_or(0).max(1);
    values.iter().map(|&value| BARS[usize::try_from(value * 8 / (most + 1)).unwrap_or(7).min(7)]).collect()
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<String> = self.kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        writeln!(f, "\n{} episodes of faults: {}", self.episodes.len(), kinds.join(", "))?;
        writeln!(
            f,
            "\n{:>8} {:>11} {:>8} {:>8} {:>8} {:>7}  findings",
            "check at", "caught up s", "equal s", "writes", "of due", "keys"
        )?;
        for check in &self.checks {
            let found: Vec<String> =
                check.findings.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
            let Check { at_s, caught_up_s, equal_s, made, keys, .. } = check;
            let of_due = 100.0 * *made as f64 / check.due.max(1) as f64;
            writeln!(
                f,
                "{at_s:>6.0} s {caught_up_s:>11.1} {equal_s:>8.1} {made:>8} {of_due:>6.1} % {keys:>7}  {found}"
            )?;
        }
        writeln!(f, "\nthe broker at rest")?;
        for rest in &self.rests {
            writeln!(f, "{:>6} s {rest}", rest.at.as_secs())?;
        }
        writeln!(
            f,
            "\n{:<14} {:>7} {:>7}  {:>9} {:>9}  memory by minute",
            "process", "pid", "lived s", "fds", "threads"
        )?;
        for lived in &self.lives {
            let quiet = &lived.life.quiet;
            let ends = quiet.first().zip(quiet.last());
            let fds = ends.map_or_else(|| "-".to_owned(), |(a, b)| format!("{} → {}", a.fds, b.fds));
            let threads =
                ends.map_or_else(|| "-".to_owned(), |(a, b)| format!("{} → {}", a.threads, b.threads));
            writeln!(
                f,
                "{:<14} {:>7} {:>7}  {fds:>9} {threads:>9}  {} {}",
                lived.life.process,
                lived.life.pid,
                lived.lasted().as_secs(),
                bars(lived.rss_kib_by_minute.values().copied()),
                lived.verdict
            )?;
        }
        for (region, node) in &self.nodes {
            writeln!(f, "{region}: {node}")?;
        }
        for problem in &self.problems {
            writeln!(f, "PROBLEM: {}", problem.trim_end().replace('\n', "\n    "))?;
        }
        let verdict = if self.green { "green" } else { "RED" };
        write!(
            f,
            "\nsoak of {:.0} s, {} profile, seed {}: {} writes, {} checks, {verdict}",
            self.took_s,
            self.profile,
            self.seed,
            self.written,
            self.checks.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::resources::{Memory, Sample};

    #[test]
    fn bars_are_as_high_as_their_values() {
        assert_eq!(bars([0, 50, 99, 100]), "▁▄██");
        assert_eq!(bars([]), "");
        assert_eq!(bars([0, 0]), "▁▁");
    }

    #[test]
    fn the_table_shows_medians_by_minute_and_what_is_wrong() {
        let sample = |at_ms, rss_kib| Sample { at_ms, rss_kib, fds: 20, threads: 5 };
        let samples = vec![sample(0, 10), sample(1_000, 900), sample(2_000, 20), sample(61_000, 40)];
        let life = Life { process: "us-east".to_owned(), pid: 7, quiet: vec![samples[0]], samples };
        let lived = Lived::new(
            life,
            Verdict::MemoryGrew(Memory { second_kib: 1_024, last_kib: 4_096, finds_bytes_per_s: 1 }),
        );
        assert_eq!(lived.rss_kib_by_minute, BTreeMap::from([(0, 20), (1, 40)]));
        let outcome = Outcome {
            seed: 42,
            lives: vec![lived],
            problems: vec!["memory".to_owned()],
            ..Outcome::default()
        };
        let table = outcome.to_string();
        for part in ["MEMORY GREW: 1.0 MiB, then 4.0", "20 → 20", "PROBLEM: memory", "seed 42", "RED"] {
            assert!(table.contains(part), "{part} is missing of {table}");
        }
    }
}
