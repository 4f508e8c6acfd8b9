//! Plays a soak: a broker and a fleet from nothing, a warm-up, episodes of faults, and checks between them.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    inject::{BROKER, Stage},
    report::{Check, Lived, Outcome, Played},
    resources::{Limits, Verdict, judge},
    rest::{self, Rest},
    schedule::Schedule,
    watch::Watch,
};
use crate::{
    broker::{Broker, Options},
    fleet::{self, Fleet, REGIONS, shown},
};

/// Between two samples of the processes.
const SAMPLE_PAUSE: Duration = Duration::from_secs(1);
/// Every key was written by then.
const WARM_UP: Duration = Duration::from_secs(20);
/// From one check to the next, where the run is long enough.
const CHECK_EVERY: Duration = Duration::from_secs(180);
/// Until each node has everything, and again until all hold the same.
const EQUAL_BOUND: Duration = Duration::from_secs(120);
/// Until descriptors and threads are as few as they were.
const QUIET_BOUND: Duration = Duration::from_secs(45);

/// What a node keeps of the records that it sent, at most, to answer pulls from…
const RING_BYTES: u64 = 16 << 20;
/// …and what a record of the fleet takes there, at least.
const RECORD_BYTES: u64 = 150;
/// Until a new process has everything and its allocator has met everything that it does.
const NODE_WARM_UP: Duration = Duration::from_secs(60);
/// What a queue may hold by default, in KiB…
const QUEUE_KIB: u64 = 64 << 10;
/// …and how many there are: three nodes' and, for ten minutes each, those of nodes that were killed, one or two of them.
const QUEUES: u64 = 5;
/// An Erlang virtual machine: its resident memory goes up and down with what waits in its queues, its descriptors with
/// their files. This limit finds a broker that holds more than it may; a leak is found at rest ([`rest`]).
const OF_BROKER: Limits = Limits {
    warm_up: Duration::from_secs(30),
    least: Duration::from_secs(90),
    rss_ratio: 1.15,
    rss_slack_kib: (32 << 10) + QUEUES * QUEUE_KIB,
    fds_slack: 16,
    threads_slack: 4,
};

/// By when the broker knows which queues are read.
const COUNTED_WITHIN: Duration = Duration::from_secs(10);
/// A broker that lived for so long shows at rest what it kept of what went wrong.
const BROKER_LIVED: Duration = Duration::from_secs(120);
/// Before a life of the broker of at least this length is ended, there is one check more.
const BROKER_CHECKED: Duration = Duration::from_secs(60);

/// The log of quorum queues is kept in memory too until it is this long: at the 512 MB that are usual, the broker's memory
/// would still fill when a run of minutes ends.
const WAL: &str = "raft.wal_max_size_bytes = 33554432";

/// What is played.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long, the checks included and the end check not.
    pub length: Duration,
    /// What decides the faults, the writes and the reads.
    pub seed: u64,
    /// The delivery profile, by name.
    pub profile: String,
    /// What each region writes.
    pub writes_per_second: u32,
    /// The folder for what the regions held.
    pub folder: PathBuf,
}

/// Plays a soak and says how it goes on the standard output; whatever goes wrong makes it red, and ends it.
pub async fn play(settings: &Settings) -> Outcome {
    let mut outcome = Outcome {
        seed: settings.seed,
        profile: settings.profile.clone(),
        minutes: settings.length.as_secs_f64() / 60.0,
        ..Outcome::default()
    };
    let start = Instant::now();
    let watch = Watch::default();
    let watching = tokio::spawn(tell_by_minute(watch.clone()));
    if let Err(error) = act(settings, &watch, &mut outcome).await {
        outcome.problems.push(format!("{error:#}"));
    }
    watching.abort();
    for life in watch.lives() {
        let verdict = judge(&life, &limits(&life.process, settings.writes_per_second));
        if verdict.is_red() {
            outcome.problems.push(format!("{} (process {}): {verdict}", life.process, life.pid));
        }
        outcome.lives.push(Lived::new(life, verdict));
    }
    outcome.problems.extend(rest::judge(&outcome.rests, rest::slack_kib(&settings.profile)));
    outcome.problems.extend(unproven(settings, &outcome));
    outcome.green = outcome.problems.is_empty();
    outcome.took_s = start.elapsed().as_secs_f64();
    outcome
}

/// What is flat, by process: a node's ring has to be full before its memory can be.
fn limits(process: &str, writes_per_second: u32) -> Limits {
    if process == BROKER {
        return OF_BROKER;
    }
    let fills = Duration::from_secs(RING_BYTES / (RECORD_BYTES * u64::from(writes_per_second.max(1))));
    Limits {
        warm_up: NODE_WARM_UP + fills,
        least: Duration::from_secs(90),
        rss_ratio: 1.10,
        rss_slack_kib: 4 << 10,
        fds_slack: 0,
        threads_slack: 4,
    }
}

/// A run that judged nobody's memory proves nothing of it; that is wrong where there was time enough. Of the nodes, that of
/// the survivor has to be judged, in one life over the whole run: those of the others are short, and find large leaks only.
/// The broker has to be counted at rest when it had lived for some minutes.
fn unproven(settings: &Settings, outcome: &Outcome) -> Vec<String> {
    let survivor = &outcome.survivor;
    let is_proven = outcome.lives.iter().any(|lived| {
        let is_judged = !matches!(lived.verdict, Verdict::TooShort { .. });
        lived.life.process == *survivor && is_judged && lived.lasted() >= settings.length / 2
    });
    let mut missing = Vec::new();
    let of_node = limits(survivor, settings.writes_per_second);
    if settings.length >= of_node.warm_up + of_node.least && !is_proven {
        missing.push(format!("no process of {survivor:?} lived for half of the run and was judged"));
    }
    let is_counted = outcome.rests.iter().skip(1).any(|rest| rest.lived >= BROKER_LIVED);
    if settings.length >= 2 * BROKER_LIVED && !is_counted {
        missing.push(format!("the broker was never counted at rest after {BROKER_LIVED:?} of its life"));
    }
    missing
}

async fn tell_by_minute(watch: Watch) {
    let mut minute = 0;
    let mut pace = tokio::time::interval(SAMPLE_PAUSE);
    loop {
        pace.tick().await;
        watch.look();
        if watch.elapsed().as_secs() / 60 > minute {
            minute = watch.elapsed().as_secs() / 60;
            println!("minute {minute:>3}: {}", watch.now());
        }
    }
}

async fn act(settings: &Settings, watch: &Watch, outcome: &mut Outcome) -> Result<()> {
    let mut schedule = Schedule::new(settings.seed, &REGIONS);
    outcome.survivor = schedule.survivor().unwrap_or_default().to_owned();
    let broker = Broker::start(Options::default().config(WAL)).await?;
    let fleet = Fleet::start(fleet::Settings {
        url: broker.url().to_owned(),
        upstream: broker.addr(),
        profile: settings.profile.clone(),
        queue_expires: Duration::from_secs(600),
        folder: settings.folder.clone(),
        credentials: None,
        keys: fleet::Keys::OfRegion,
        seed: settings.seed,
    })
    .await?;
    let mut stage = Stage { broker, fleet, watch: watch.clone(), broker_since: Duration::ZERO };
    stage.watch_broker()?;
    for region in REGIONS {
        stage.watch_node(region).await?;
    }
    let start = Instant::now();
    let Outcome { survivor, .. } = outcome;
    let rate = settings.writes_per_second;
    say(watch, &format!("{rate} writes/s in each of {} regions; {survivor} is never killed", REGIONS.len()));
    stage.fleet.write(settings.writes_per_second).await?;
    stage.fleet.pass(WARM_UP.min(settings.length / 4)).await?;
    check(&mut stage, settings, outcome).await?;

    let every = CHECK_EVERY.min(settings.length / 2);
    let mut next_check = start.elapsed() + every;
    while start.elapsed() < settings.length {
        let Some(episode) = schedule.next() else { bail!("the schedule ended") };
        if episode.ends_the_broker() && stage.broker_lived() >= BROKER_CHECKED {
            check(&mut stage, settings, outcome).await?;
            next_check = start.elapsed() + every;
        }
        say(watch, &format!("{episode}"));
        let begun = stage.play(&episode).await?;
        for fault in &episode.faults {
            *outcome.kinds.entry(fault.kind().to_string()).or_default() += 1;
        }
        outcome.episodes.push(Played {
            at_s: begun.as_secs_f64(),
            mended_s: watch.elapsed().as_secs_f64(),
            what: episode.to_string(),
        });
        if start.elapsed() >= next_check && start.elapsed() < settings.length {
            check(&mut stage, settings, outcome).await?;
            next_check = start.elapsed() + every;
        }
    }
    check(&mut stage, settings, outcome).await
}

/// Compares the regions, writers at rest, and takes the quiet samples; then they write on.
async fn check(stage: &mut Stage, settings: &Settings, outcome: &mut Outcome) -> Result<()> {
    let at_s = stage.watch.elapsed().as_secs_f64();
    let caught_up = stage.fleet.caught_up(EQUAL_BOUND).await.context("all faults are mended")?;
    stage.fleet.rest().await?;
    let equal = stage.fleet.equal(EQUAL_BOUND).await?;
    let evidence = stage.fleet.evidence().await?;
    let findings = fleet::judge_contents(&evidence);
    let mut kinds = BTreeMap::new();
    for finding in &findings {
        *kinds.entry(finding.kind().to_owned()).or_default() += 1;
    }
    let reports = stage.fleet.reports().await?;
    outcome.written = reports.values().map(|report| report.written).sum();
    for (region, report) in reports {
        outcome.nodes.insert(region.to_owned(), serde_json::to_value(report)?);
    }
    let sum = |count: fn(&fleet::Pace) -> u64| evidence.paces.values().map(count).sum::<u64>();
    let (made, due) = (sum(|pace| pace.made), sum(|pace| pace.due));
    let keys = evidence.contents.values().map(BTreeMap::len).max().unwrap_or(0);
    let check = Check {
        at_s,
        caught_up_s: caught_up.as_secs_f64(),
        equal_s: equal.as_secs_f64(),
        made,
        due,
        keys,
        findings: kinds,
    };
    let Check { caught_up_s, equal_s, .. } = check;
    let told = format!(
        "check: caught up after {caught_up_s:.1} s, equal after {equal_s:.1} s, {keys} keys, {} findings",
        findings.len()
    );
    say(&stage.watch, &told);
    outcome.checks.push(check);
    outcome.problems.extend(shown(&findings));
    if !findings.is_empty() {
        bail!("the check at {at_s:.0} s is red; what the regions held is in {}", settings.folder.display());
    }
    let limits = |process: &str| limits(process, settings.writes_per_second);
    stage.watch.quiet(limits, QUIET_BOUND).await;
    rest(stage, rest::slack_kib(&settings.profile), &mut outcome.rests).await?;
    stage.fleet.write(settings.writes_per_second).await
}

/// Counts what the broker has, until that is as it was or the bound is reached, which the judge then sees. The first time,
/// until it does not change any more: which quorum queues are read the broker knows some seconds late.
async fn rest(stage: &Stage, slack_kib: u64, rests: &mut Vec<Rest>) -> Result<()> {
    let start = Instant::now();
    let mut steady: Option<(Rest, Instant)> = None;
    loop {
        let census = stage.broker.census_at_rest().await?;
        let counted = Rest::new(&census, stage.watch.elapsed(), stage.broker_lived());
        let since = match steady {
            Some((before, since)) if before.counts_as(&counted) => since,
            _ => Instant::now(),
        };
        steady = Some((counted.clone(), since));
        let is_first = rests.is_empty();
        rests.push(counted);
        let is_fine = if is_first {
            since.elapsed() >= COUNTED_WITHIN
        } else {
            rest::judge_last(rests, slack_kib).is_empty()
        };
        if is_fine || start.elapsed() > QUIET_BOUND {
            let told = rests.last().map(ToString::to_string).unwrap_or_default();
            say(&stage.watch, &format!("broker at rest: {told}"));
            return Ok(());
        }
        rests.pop();
    }
}

fn say(watch: &Watch, what: &str) {
    println!("[{:>7.1} s] {what}", watch.elapsed().as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::resources::{Life, Memory, Sample};

    /// A life over so many minutes.
    fn lived(process: &str, minutes: u64, verdict: Verdict) -> Lived {
        let sample = |at_ms| Sample { at_ms, rss_kib: 1, fds: 1, threads: 1 };
        let samples = vec![sample(0), sample(minutes * 60_000)];
        Lived::new(Life { process: process.to_owned(), samples, ..Life::default() }, verdict)
    }

    fn of_minutes(minutes: u64) -> Settings {
        let (seed, profile, folder) = (1, "fast".to_owned(), PathBuf::new());
        Settings {
            length: Duration::from_secs(60 * minutes),
            seed,
            profile,
            writes_per_second: 1_000,
            folder,
        }
    }

    #[test]
    fn a_long_run_that_did_not_judge_the_survivor_and_the_broker_proves_nothing() {
        let short = || Verdict::TooShort { watched: Duration::ZERO };
        let flat = || Verdict::Flat(Memory { second_kib: 1, last_kib: 1, finds_bytes_per_s: 1 });
        let rest = |lived_s| Rest { lived: Duration::from_secs(lived_s), ..Rest::default() };
        let outcome = |lives: &[Lived], rests: &[Rest]| Outcome {
            survivor: "us-east".to_owned(),
            lives: lives.to_vec(),
            rests: rests.to_vec(),
            ..Outcome::default()
        };
        let missing =
            |lives: &[Lived], rests: &[Rest]| unproven(&of_minutes(20), &outcome(lives, rests)).len();
        let node = lived("us-east", 20, flat());
        let rests = [rest(20), rest(200)];
        assert_eq!(missing(&[], &[]), 2);
        assert_eq!(missing(std::slice::from_ref(&node), &[rest(20), rest(100)]), 1);
        assert_eq!(missing(std::slice::from_ref(&node), &[rest(200)]), 1, "one count has nothing beside it");
        assert_eq!(missing(&[lived("us-east", 20, short())], &rests), 1);
        assert_eq!(missing(&[lived("us-east", 9, flat()), lived("us-east", 9, flat())], &rests), 1);
        assert_eq!(missing(&[lived("ap-south", 20, flat())], &rests), 1, "another region's");
        assert_eq!(missing(&[node], &rests), 0);
        assert_eq!(unproven(&of_minutes(10), &outcome(&[], &[])).len(), 2, "as long as in a night");
        assert_eq!(unproven(&of_minutes(3), &outcome(&[], &[])), Vec::<String>::new());
    }

    #[test]
    fn a_slow_writer_fills_its_ring_for_longer() {
        assert!(limits("us-east", 500).warm_up > limits("us-east", 1_000).warm_up);
        assert_eq!(limits("us-east", 1_000).warm_up, Duration::from_secs(60 + 111));
    }
}
