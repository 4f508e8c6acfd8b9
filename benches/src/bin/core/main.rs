//! `cache-core` beside other caches, in one run of one process.
//!
//! - **speed** of hits, read-through, mixes of reads and writes, and inserts that evict, on 1, 2 and 8 threads
//!   (`speed.rs`);
//! - **latency** of single operations (`latency.rs`);
//! - **hit ratio** on generated traces (`hit_ratio.rs`, `trace.rs`);
//! - **remote writes** beside local reads (`origin.rs`);
//! - **memory** an entry (`memory.rs`, and the program `core_memory`, which counts allocations);
//! - **expiry** without access, and the pauses that it makes (`expiry.rs`).
//!
//! The others are compiled with the feature `peers`, which `cargo xtask bench core` switches on. In each round everybody
//! is measured in turn, the next round beginning with another one; a ratio is taken within a round, and the median of the
//! rounds is reported with the lowest and the highest, which is the noise of the machine. What a cache holds, and that a
//! measurement of hits hits, is checked: a measurement of something else fails.
//!
//! A target that is missed is marked and does not fail the run.

mod expiry;
mod hit_ratio;
mod latency;
mod memory;
mod origin;
mod readme;
mod speed;
mod trace;

use std::time::Duration;

use anyhow::{Result, ensure};
use benches::{
    report::{self, Figure},
    table,
};
use clap::Parser;

/// The allocator of the programs of this workspace. Everybody has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Entries of each cache.
pub(crate) const CAPACITY: usize = 100_000;

/// Keys of the loads that always hit. Well below the capacity, so that no shard of anybody is full.
pub(crate) const HOT_KEYS: u64 = 75_000;

/// Keys of the loads that miss too.
pub(crate) const ALL_KEYS: u64 = 10 * CAPACITY as u64;

/// How much more popular the popular keys are.
pub(crate) const ZIPF: f64 = 0.99;

/// Where all randomness begins.
pub(crate) const SEED: u64 = 20_250_101;

#[derive(Debug, Clone, Parser)]
#[command(name = "core", about = "cache-core beside other caches")]
pub(crate) struct Arguments {
    /// How often each measurement is made
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long each measurement of speed or latency takes
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    millis: u64,
    /// Only what has this in its name, such as "hits, u64" or "2 threads"
    #[arg(long, default_value = "", hide_default_value = true)]
    only: String,
    /// Three short rounds: to see that it works, and the order of the figures
    #[arg(long)]
    quick: bool,
    /// Also write the tables into the README of cache-core: a whole run alone can
    #[arg(long, conflicts_with_all = ["only", "quick"])]
    readme: bool,
}

/// Figures, and the Markdown table that shows them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Part {
    pub(crate) figures: Vec<Figure>,
    pub(crate) markdown: String,
}

impl Part {
    /// One row a figure, one column a peer.
    fn of(title: &str, figures: Vec<Figure>) -> Self {
        let markdown =
            if figures.is_empty() { String::new() } else { table::markdown(title, "cache-core", &figures) };
        Self { figures, markdown }
    }
}

impl Arguments {
    pub(crate) fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }

    pub(crate) fn rounds(&self) -> u32 {
        if self.quick { self.rounds.min(3) } else { self.rounds }
    }

    pub(crate) fn length(&self) -> Duration {
        Duration::from_millis(if self.quick { self.millis.min(50) } else { self.millis })
    }
}

fn main() -> Result<()> {
    run(&Arguments::parse())
}

fn run(arguments: &Arguments) -> Result<()> {
    println!(
        "capacity {CAPACITY} entries, values of 8 bytes, hasher foldhash, allocator mimalloc, {} rounds of {:?};\n\
         medians (lowest–highest round); ratios are cache-core's figure divided by the other's in the same round",
        arguments.rounds(),
        arguments.length()
    );
    if !cfg!(feature = "peers") {
        println!("built without the feature `peers`: only what the workspace has anyway is beside it");
    }
    let mut speed = speed::measure::<u64>(arguments)?;
    speed.extend(speed::measure::<String>(arguments)?);
    let relations = speed::relations(&speed);
    let parts = [
        Part::of("speed: ratio, higher is better", speed),
        Part::of("many threads", relations),
        Part::of("latency: ratio, lower is better", latency::measure(arguments)?),
        hit_ratio::measure(arguments)?,
        origin::measure(arguments)?,
        Part::of("memory: ratio, lower is better", memory::measure(arguments)?),
        Part::of("expiry", expiry::measure(arguments)?),
    ];
    let figures: Vec<Figure> = parts.iter().flat_map(|part| &part.figures).cloned().collect();
    ensure!(!figures.is_empty(), "nothing has \"{}\" in its name", arguments.only);
    let missed: usize = figures.iter().map(Figure::targets_missed).sum();
    println!(
        "{}",
        if missed == 0 { "every target held".to_owned() } else { format!("targets missed: {missed}") }
    );
    report::write("core", &figures)?;
    if arguments.readme {
        readme::write(arguments, &parts)?;
    }
    Ok(())
}
