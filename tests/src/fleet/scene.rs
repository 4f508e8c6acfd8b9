//! One row played: a broker from nothing, a fleet on it, a fault under load, and what the checker says afterwards.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use geocache::rabbitmq::permission_pattern;
use serde::Serialize;

use super::{Fleet, Keys, Reads, Report, Settings, WRITES_PER_SECOND, judge, row::Row, shown};
use crate::broker::{Broker, Options};

/// The user of rows that change what a user may do.
pub(super) const USER: &str = "fleet";
/// Its first password.
pub(super) const PASSWORD: &str = "first-password";

/// A fault that is over sooner is measured for this long, or there are too few reads to compare.
const DURING_MIN: Duration = Duration::from_secs(4);

/// How long the parts of a row take, the fault aside.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Writes before anything is measured.
    pub warm: Duration,
    /// Reads are measured for comparison.
    pub before: Duration,
    /// Writes go on after the fault was mended, at least this long.
    pub after: Duration,
    /// Until each node has everything, and again until all hold the same.
    pub bound: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { warm: seconds(4), before: seconds(8), after: seconds(5), bound: seconds(120) }
    }
}

/// What a row acts on.
#[derive(Debug)]
pub struct Scene {
    /// The broker.
    pub broker: Broker,
    /// The three regions.
    pub fleet: Fleet,
    /// The file of the nodes' user and password, in the rows that have a user of their own.
    credentials: Option<PathBuf>,
    mended: Option<Instant>,
}

/// What became of a row.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The row.
    pub row: String,
    /// The delivery profile.
    pub profile: String,
    /// What decided the writes and reads.
    pub seed: u64,
    /// Whether everything was as it has to be.
    pub green: bool,
    /// From the begin of the fault until it was mended, in seconds.
    pub fault_s: f64,
    /// From then until each node had all that was written until then, writes going on, in seconds.
    pub recovery_s: Option<f64>,
    /// From the end of the writes until all regions held the same, in seconds.
    pub equal_s: Option<f64>,
    /// Writes that the nodes acknowledged, those that were killed left out.
    pub written: u64,
    /// Writes that were due of them, at the steady rate.
    pub due: u64,
    /// What the checker found, by kind.
    pub findings: BTreeMap<String, usize>,
    /// The 99th percentile of reads, by region, in nanoseconds: before, during, and how many times more.
    pub p99_ns: BTreeMap<String, (u64, u64, Option<f64>)>,
    /// How each node was at the end.
    pub reports: BTreeMap<String, Report>,
    /// What is wrong, in words.
    pub problems: Vec<String>,
    /// The whole row, its broker and nodes included, in seconds.
    pub took_s: f64,
}

impl Scene {
    async fn new(row: &Row, profile: &str, seed: u64, folder: PathBuf) -> Result<Self> {
        let broker = Broker::start(Options::default()).await?;
        let credentials = row.user.then(|| folder.join("credentials"));
        let mut url = broker.url().to_owned();
        if let Some(path) = &credentials {
            broker.ctl(&["add_user", USER, PASSWORD]).await?;
            fs::write(path, format!("{USER}\n{PASSWORD}\n"))?;
            let (scheme, rest) = url.split_once("://").context("the broker's url has no scheme")?;
            url = format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, place)| place));
        }
        let fleet = Settings {
            url,
            upstream: broker.addr(),
            profile: profile.to_owned(),
            queue_expires: row.queue_expires,
            credentials: credentials.clone(),
            keys: Keys::OfLife,
            seed,
            folder,
        };
        let mut scene = Self { broker, fleet: Fleet::idle(fleet).await?, credentials, mended: None };
        if row.user {
            scene.permit().await?;
        }
        scene.fleet.launch_all().await?;
        Ok(scene)
    }

    /// The fault is mended now: what a row does after this is to see that it had taken hold.
    pub fn mended(&mut self) {
        self.mended = Some(Instant::now());
    }

    /// Gives the nodes this password of their user.
    ///
    /// # Errors
    /// When the row has no user of its own.
    pub fn give_password(&self, password: &str) -> Result<()> {
        let path = self.credentials.as_ref().context("the row has no user of its own")?;
        Ok(fs::write(path, format!("{USER}\n{password}\n"))?)
    }

    /// Gives the user of the row all that it needs.
    ///
    /// # Errors
    /// What `rabbitmqctl` says.
    pub async fn permit(&self) -> Result<()> {
        let pattern = permission_pattern(self.fleet.cache());
        self.broker.ctl(&["set_permissions", USER, &pattern, &pattern, &pattern]).await.map(drop)
    }
}

/// Plays a row, with writes and reads that `seed` decides; whatever goes wrong makes it red.
pub async fn play(row: &Row, profile: &str, seed: u64, times: Times, folder: PathBuf) -> Outcome {
    let start = Instant::now();
    let mut outcome = Outcome::new(row.name, profile, seed);
    if let Err(error) = act(row, times, folder, &mut outcome).await {
        outcome.problems.push(format!("{error:#}"));
    }
    outcome.green = outcome.problems.is_empty();
    outcome.took_s = start.elapsed().as_secs_f64();
    outcome
}

async fn act(row: &Row, times: Times, folder: PathBuf, outcome: &mut Outcome) -> Result<()> {
    let mut scene = Scene::new(row, &outcome.profile, outcome.seed, folder).await?;
    let done = under_load(&mut scene, row, times, outcome).await;
    scene.fleet.save_logs()?;
    done
}

async fn under_load(scene: &mut Scene, row: &Row, times: Times, outcome: &mut Outcome) -> Result<()> {
    scene.fleet.write(WRITES_PER_SECOND).await?;
    scene.fleet.pass(times.warm).await?;
    scene.fleet.phase("before").await?;
    scene.fleet.pass(times.before).await?;
    scene.fleet.phase("during").await?;

    let begun = Instant::now();
    (row.fault)(scene, row.length).await.context("the fault")?;
    let mended = scene.mended.unwrap_or_else(Instant::now);
    outcome.fault_s = mended.duration_since(begun).as_secs_f64();
    // What the nodes do to recover is a part of it, as far as readers are concerned.
    scene.fleet.caught_up(times.bound).await.context("after the fault was mended")?;
    outcome.recovery_s = Some(mended.elapsed().as_secs_f64());
    // A frozen node reads nothing, so there are none before it goes on.
    let reading = scene.fleet.thawed().unwrap_or(begun);
    scene.fleet.pass(DURING_MIN.saturating_sub(reading.elapsed())).await?;
    scene.fleet.phase("after").await?;
    scene.fleet.pass(times.after.saturating_sub(mended.elapsed())).await?;
    scene.fleet.rest().await?;
    outcome.equal_s = Some(scene.fleet.equal(times.bound).await?.as_secs_f64());

    let evidence = scene.fleet.evidence().await?;
    let reports = scene.fleet.reports().await?;
    outcome.written = evidence.paces.values().map(|pace| pace.made).sum();
    outcome.due = evidence.paces.values().map(|pace| pace.due).sum();
    outcome.reports = reports.into_iter().map(|(region, report)| (region.to_owned(), report)).collect();
    for (region, reads) in &evidence.reads {
        let Reads { before, during } = reads;
        outcome.p99_ns.insert(region.clone(), (before.p99_ns, during.p99_ns, reads.ratio()));
    }
    let findings = judge(&evidence);
    for finding in &findings {
        *outcome.findings.entry(finding.kind().to_owned()).or_default() += 1;
    }
    outcome.problems.extend(shown(&findings));
    Ok(())
}

impl Outcome {
    /// Of a row that has not begun.
    fn new(row: &str, profile: &str, seed: u64) -> Self {
        Self {
            row: row.to_owned(),
            profile: profile.to_owned(),
            seed,
            green: false,
            fault_s: 0.0,
            recovery_s: None,
            equal_s: None,
            written: 0,
            due: 0,
            findings: BTreeMap::new(),
            p99_ns: BTreeMap::new(),
            reports: BTreeMap::new(),
            problems: Vec::new(),
            took_s: 0.0,
        }
    }

    /// Whether it was judged, and nothing is wrong but these kinds of findings. A row that broke off before it was judged
    /// has no findings, and is not excused.
    pub fn is_green_but_for(&self, kinds: &[&str]) -> bool {
        let excused = !self.findings.is_empty() && self.findings.keys().all(|kind| kinds.contains(&&**kind));
        self.green || excused
    }

    /// The head of the table.
    pub fn head() -> String {
        format!(
            "{:<26} {:>7} {:>8} {:>8} {:>9} {:>5} {:>17} {:>6} {:>10} {:>7}  {}",
            "row",
            "fault s",
            "writes",
            "of due",
            "divergent",
            "lost",
            "read p99 µs",
            "ratio",
            "recovery s",
            "equal s",
            "verdict"
        )
    }

    /// The region whose reads slowed the most: before and during in nanoseconds, and how many times more.
    fn slowest(&self) -> Option<(u64, u64, f64)> {
        let compared =
            self.p99_ns.values().filter_map(|&(before, during, ratio)| Some((before, during, ratio?)));
        compared.max_by(|a, b| a.2.total_cmp(&b.2))
    }

    fn count(&self, kinds: &[&str]) -> String {
        if self.equal_s.is_none() {
            return "?".to_owned();
        }
        kinds.iter().filter_map(|kind| self.findings.get(*kind)).sum::<usize>().to_string()
    }
}

/// A part in hundredths; 0 of nothing.
fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

/// A line of the table, and below it what is wrong.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Option<f64>| time.map_or_else(|| "?".to_owned(), |time| format!("{time:.1}"));
        let (p99, ratio) = match self.slowest() {
            Some((before, during, ratio)) => {
                (format!("{:.2} → {:.2}", before as f64 / 1e3, during as f64 / 1e3), format!("{ratio:.2}"))
            }
            None => ("?".to_owned(), "?".to_owned()),
        };
        write!(
            f,
            "{:<26} {:>7.1} {:>8} {:>6.1} % {:>9} {:>5} {p99:>17} {ratio:>6} {:>10} {:>7}  {}",
            self.row,
            self.fault_s,
            self.written,
            percent(self.written, self.due),
            self.count(&["divergent", "lingering"]),
            self.count(&["lost", "resurrected", "untrue receipt"]),
            seconds(self.recovery_s),
            seconds(self.equal_s),
            if self.green { "green" } else { "RED" },
        )?;
        self.problems
            .iter()
            .try_for_each(|problem| write!(f, "\n    {}", problem.trim_end().replace('\n', "\n    ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(green: bool, kinds: &[&str]) -> Outcome {
        let findings = kinds.iter().map(|&kind| (kind.to_owned(), 1)).collect();
        let equal_s = Some(1.0);
        Outcome { green, equal_s, findings, ..Outcome::new("cut", "fast", 1) }
    }

    #[test]
    fn what_was_judged_is_excused_for_its_kinds_alone() {
        let excused = ["slow reads"];
        assert!(outcome(true, &[]).is_green_but_for(&excused));
        assert!(outcome(false, &["slow reads"]).is_green_but_for(&excused));
        assert!(!outcome(false, &["slow reads", "lost"]).is_green_but_for(&excused));
    }

    #[test]
    fn a_row_that_was_never_judged_is_not_excused() {
        // Its regions became equal, and then a dump failed.
        assert!(!outcome(false, &[]).is_green_but_for(&["slow reads"]));
    }
}
