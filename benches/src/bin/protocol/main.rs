//! What replication costs without a broker: one record's way, and a full sync.
//!
//! - **write → frame**, **frame → store**: one thread, two whole nodes of 1 M entries, records of 128 bytes, beside the
//!   bare codec on the very same frames (`path.rs`). Write, encode, decode and apply alternate within a round.
//! - **full sync** of 1 M such entries over the in-memory hub while 50,000 of them a second are overwritten, and the
//!   memory at its peak beside two finished stores (`sync.rs`).
//!
//! The medians of the rounds are reported, with the lowest and the highest round beside them: that spread is the noise of
//! the machine. A target that is missed is marked and does not fail the run.

mod memory;
mod path;
mod sync;
mod tap;

use std::process::Command;

use anyhow::{Context, Result, ensure};
use benches::report::{self, Bound, Figure, median};
use clap::Parser;

use crate::{
    path::{Kind, Path, Round},
    sync::Transfer,
};

/// All of this runs with the allocator of `geocached`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The argument by which this program runs itself again, for one measurement of memory.
pub(crate) const CHILD: &str = "--child";

/// What a record may take from its write to its frame, and from its frame into the store.
const RECORD_US_MAX: f64 = 1.0;

const SYNC_S_MAX: f64 = 5.0;

/// Writes a second during a sync.
const RATE: u64 = 50_000;

/// Peak memory of a sync beside two finished stores.
const MEMORY_RATIO_MAX: f64 = 1.1;

#[derive(Parser)]
#[command(name = "protocol", about = "What replication costs without a broker")]
struct Arguments {
    /// How often each measurement is made
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Entries of each store
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(10_000..=10_000_000))]
    entries: u32,
    /// Records of a round, of each kind
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    records: u32,
    /// Only this: path or sync
    #[arg(long)]
    only: Option<Part>,
    /// Makes one measurement in this process and prints it
    #[arg(long, hide = true)]
    child: Option<Child>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Path,
    Sync,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Child {
    Store,
    Transfer,
}

fn main() -> Result<()> {
    run(&Arguments::parse())
}

fn run(arguments: &Arguments) -> Result<()> {
    match arguments.child {
        Some(Child::Store) => return say(&sync::store_mib(arguments.entries)?),
        Some(Child::Transfer) => return say(&sync::transfer(arguments.entries, RATE)?),
        None => {}
    }
    println!(
        "records of 128 bytes, stores of {} entries, {} rounds of {} records; medians (lowest–highest round)",
        arguments.entries, arguments.rounds, arguments.records
    );
    let mut figures = Vec::new();
    if arguments.only != Some(Part::Sync) {
        figures.extend(measure_path(arguments)?);
    }
    if arguments.only != Some(Part::Path) {
        figures.extend(measure_sync(arguments)?);
    }
    let missed = figures.iter().filter(|figure| figure.misses_target()).count();
    println!(
        "{}",
        if missed == 0 { "every target held".to_owned() } else { format!("targets missed: {missed}") }
    );
    report::write("protocol", &figures)
}

fn measure_path(arguments: &Arguments) -> Result<Vec<Figure>> {
    const KINDS: [(Kind, &str); 2] = [(Kind::Overwrite, "overwrite"), (Kind::New, "new key")];
    let mut path = Path::start(arguments.entries as usize, 1)?;
    let mut rounds = KINDS.map(|_| Vec::new());
    for (kind, _) in KINDS {
        path.round(kind, arguments.records as usize)?; // Warms up; not counted.
    }
    for _ in 0..arguments.rounds {
        for ((kind, _), rounds) in KINDS.iter().zip(&mut rounds) {
            rounds.push(path.round(*kind, arguments.records as usize)?);
        }
    }
    let mut figures = Vec::new();
    for ((_, kind), rounds) in KINDS.iter().zip(&rounds) {
        let mut pair = |name: &str, ours: fn(&Round) -> f64, peer, bare: fn(&Round) -> f64| {
            let ratio = median(rounds.iter().map(|round| ours(round) / bare(round)));
            let figure = row(format!("{name}, {kind}"), "us/record", rounds.iter().map(ours));
            let figure = figure.at_most(RECORD_US_MAX).beside(peer, ratio);
            println!("  {ratio:>6.1} x {peer}  {}", figure.verdict());
            figures.push(figure);
            figures.push(row(format!("{peer}, {kind}"), "us/record", rounds.iter().map(bare)));
            println!();
        };
        pair("write to frame", |round| round.write_us, "bare_encode", |round| round.encode_us);
        pair("frame to store", |round| round.apply_us, "bare_decode", |round| round.decode_us);
    }
    let all = || rounds.iter().flatten();
    let frames = median(all().map(|round| round.records_per_frame));
    let bytes = median(all().map(|round| round.bytes_per_record));
    println!("frames of {frames:.0} records, {bytes:.1} bytes a record in them");
    figures.push(Figure::new("records/frame", frames, "records"));
    figures.push(Figure::new("bytes/record", bytes, "bytes"));
    Ok(figures)
}

fn measure_sync(arguments: &Arguments) -> Result<Vec<Figure>> {
    let store_mib: f64 = ask(arguments, "store")?;
    let transfers: Vec<Transfer> =
        (0..arguments.rounds.div_ceil(2)).map(|_| ask(arguments, "transfer")).collect::<Result<_>>()?;
    let mut figures = Vec::new();
    let mut tell = |name: &str, unit, target: Option<f64>, of: &dyn Fn(&Transfer) -> f64| {
        let mut figure = row(name.to_owned(), unit, transfers.iter().map(of));
        figure.target = target.map(Bound::AtMost);
        println!("  {}", figure.verdict());
        figures.push(figure);
    };
    tell("full sync until ready", "s", Some(SYNC_S_MAX), &|transfer| transfer.ready_s);
    tell("full sync until caught up", "s", None, &|transfer| transfer.caught_up_s);
    tell("written meanwhile", "records/s", None, &|transfer| transfer.written_per_s);
    tell("memory at the peak / 2 stores", "x", Some(MEMORY_RATIO_MAX), &|transfer| {
        transfer.peak_mib / (2.0 * store_mib)
    });
    tell("memory at the peak", "MiB", None, &|transfer| transfer.peak_mib);
    tell("memory of the source before", "MiB", None, &|transfer| transfer.source_mib);
    tell("pages", "", None, &|transfer| transfer.pages as f64);
    tell("pulls", "", None, &|transfer| transfer.pulls as f64);
    tell("syncs", "", None, &|transfer| transfer.syncs as f64);
    println!(
        "memory: growth of the process (resident, kernel's peak) over what it was before its first node; one finished store\n\
         grows a process by {store_mib:.0} MiB"
    );
    figures.push(Figure::new("memory of one finished store", store_mib, "MiB"));
    Ok(figures)
}

/// Begins the line of a measurement.
fn row(name: String, unit: &'static str, rounds: impl Iterator<Item = f64> + Clone) -> Figure {
    let value = median(rounds.clone());
    let (low, high) =
        rounds.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), round| (low.min(round), high.max(round)));
    let digits = if high >= 100.0 { 0 } else { 3 };
    let label = format!("{name} ({unit})");
    print!("{label:<40} {value:>9.digits$} ({low:.digits$}–{high:.digits$})");
    Figure::new(name, value, unit)
}

/// Makes a measurement in a process of its own.
fn ask<T: serde::de::DeserializeOwned>(arguments: &Arguments, what: &str) -> Result<T> {
    let program = std::env::current_exe().context("the path of this program")?;
    let mut command = Command::new(program);
    command.args([CHILD, what, "--entries", &arguments.entries.to_string()]);
    let output =
        command.stderr(std::process::Stdio::inherit()).output().context("cannot run this program again")?;
    ensure!(
        output.status.success(),
        "the measurement {what} failed in a process of its own: {}",
        output.status
    );
    serde_json::from_slice(&output.stdout).with_context(|| format!("what the measurement {what} said"))
}

fn say(measured: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(measured)?);
    Ok(())
}
