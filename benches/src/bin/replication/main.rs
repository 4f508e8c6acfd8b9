//! Replication over RabbitMQ beside the bare client library, in one run.
//!
//! Three nodes in this process (one writes, two others receive) and the baseline of `raw.rs` stand side by side on one
//! broker and are measured in turn, round by round; the medians of the rounds are reported, and their ratios. A record has
//! 128 bytes: a key of 16, a value of 112. Throughput runs from the first write until both other nodes applied the last;
//! lag from before a write until the frame that carried it was applied there, over the records of both.

mod arrivals;
mod nodes;
mod probe;
mod raw;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use benches::report::{self, Figure, median};
use clap::Parser;
use replication::rabbitmq::Profile;

use crate::{
    arrivals::Lag,
    nodes::{Flood, Nodes, Speed},
    raw::Raw,
};

/// Both sides run with the allocator of `geocached`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const URL_VARIABLE: &str = "GEOCACHE_AMQP_URL";
const PEER: &str = "raw_lapin";
const RATES: [u64; 2] = [200, 50_000];

#[derive(Parser)]
#[command(name = "replication", about = "Replication over the broker that GEOCACHE_AMQP_URL names")]
struct Arguments {
    /// How often each measurement is made
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each takes
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Only this profile: fast or durable
    #[arg(long)]
    profile: Option<String>,
}

/// What one side reached in one round.
struct Round {
    speed: Speed,
    lags: Vec<Lag>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let Ok(url) = std::env::var(URL_VARIABLE) else {
        bail!(
            "{URL_VARIABLE} names no broker; run `cargo xtask bench replication`, which provides one, or start one with \
             `cargo xtask broker up` and export what it prints"
        );
    };
    let length = Duration::try_from_secs_f64(arguments.seconds).context("--seconds")?;
    let mut figures = Vec::new();
    println!(
        "records of 128 bytes, {} rounds of {length:?}, medians; ratio = geocache / raw lapin",
        arguments.rounds
    );
    for (name, profile) in [("fast", Profile::Fast), ("durable", Profile::Durable)] {
        if arguments.profile.as_deref().is_none_or(|wanted| wanted == name) {
            figures.extend(measure(&url, name, profile, arguments.rounds, length).await?);
        }
    }
    if figures.is_empty() {
        bail!("--profile: there is fast and durable");
    }
    report::write("replication", &figures)
}

async fn measure(
    url: &str,
    name: &str,
    profile: Profile,
    rounds: u32,
    length: Duration,
) -> Result<Vec<Figure>> {
    let cache = format!("bench-{name}-{}", std::process::id());
    let mut nodes = Nodes::start(url, profile, &cache).await?;
    let raw = Raw::start(url, profile, &cache).await?;
    // Fills the caches, and says what frames the baseline has to send.
    let mut flood = nodes.flood(length).await?;
    raw.flood(length.min(Duration::from_secs(1)), flood).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut floods = Vec::new();
    for _ in 0..rounds {
        flood = nodes.flood(length).await?;
        floods.push(flood);
        let raw_speed = raw.flood(length, flood).await?;
        let (mut lags, mut raw_lags) = (Vec::new(), Vec::new());
        for rate in RATES {
            lags.push(nodes.lag(rate, length).await?);
            raw_lags.push(raw.lag(rate, length, flood).await?);
        }
        ours.push(Round { speed: flood.speed, lags });
        theirs.push(Round { speed: raw_speed, lags: raw_lags });
    }
    println!("\n{name}: {}", nodes.trouble());
    nodes.close().await;
    raw.close(&cache).await?;
    Ok(tell(name, &floods, &ours, &theirs))
}

/// Prints a profile's figures beside the baseline's, and returns them.
fn tell(profile: &str, floods: &[Flood], ours: &[Round], theirs: &[Round]) -> Vec<Figure> {
    println!("{:<36} {:>12} {:>12} {:>7}   ratios of the rounds", "", "geocache", "raw lapin", "ratio");
    let mut figures = Vec::new();
    let mut row = |name: String, unit: &'static str, of: &dyn Fn(&Round) -> f64| {
        let (value, peer) = (median(ours.iter().map(of)), median(theirs.iter().map(of)));
        let mut ratios: Vec<f64> =
            ours.iter().zip(theirs).map(|(ours, theirs)| of(ours) / of(theirs)).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        let ratios: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        let ratio = value / peer;
        let digits = if unit.starts_with("records") { 0 } else { 3 };
        let label = format!("{name} ({unit})");
        println!("{label:<36} {value:>12.digits$} {peer:>12.digits$} {ratio:>7.2}   {}", ratios.join(" "));
        figures.push(Figure::new(format!("{profile}.{name}"), value, unit).beside(PEER, ratio));
    };
    row("throughput".to_owned(), "records/s", &|round| round.speed.records_per_s);
    if ours.iter().chain(theirs).all(|round| round.speed.processor_us_per_record.is_some()) {
        let of = |round: &Round| round.speed.processor_us_per_record.unwrap_or_default();
        row("processor, broker apart".to_owned(), "us/record", &of);
    }
    for (index, rate) in RATES.into_iter().enumerate() {
        row(format!("lag p50 at {rate}/s"), "ms", &|round| round.lags[index].p50_ms);
        row(format!("lag p99 at {rate}/s"), "ms", &|round| round.lags[index].p99_ms);
        row(format!("records/frame at {rate}/s"), "records", &|round| round.lags[index].records_per_frame);
        row(format!("written at {rate}/s"), "records/s", &|round| round.lags[index].written_per_s);
    }
    let per_frame = median(floods.iter().map(|flood| flood.records_per_frame));
    let bytes = median(floods.iter().map(|flood| flood.bytes_per_record));
    println!("frames of the throughput rows: {per_frame:.0} records, {:.1} KiB", per_frame * bytes / 1024.0);
    figures.push(Figure::new(format!("{profile}.records/frame in throughput"), per_frame, "records"));
    figures.push(Figure::new(format!("{profile}.bytes/record in throughput"), bytes, "bytes"));
    figures
}
