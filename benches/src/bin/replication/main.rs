//! Replication over RabbitMQ beside the bare client library and Redis, in one run.
//!
//! - **profiles** (`profile.rs`): three nodes in this process (one writes, two others receive), the baseline of `raw.rs` on
//!   the same broker, and where `redis-server` is installed a primary with two replicas (`redis.rs`), measured in turn,
//!   round by round. A record has 128 bytes: a key of 16, a value of 112. Throughput runs from the first write until both
//!   other nodes applied the last; lag from before a write until the frame that carried it was applied there, over the
//!   records of both. Processor time is that of this process and that of the broker (`usage.rs`), for a million records.
//! - **nodes**, **entries** (`growth.rs`): what a record costs as there are more of them.
//!
//! Ratios are taken within a round; the median of the rounds is reported with the lowest and the highest. That each write
//! arrived, and none was merged with another on its way, is checked: a measurement of something else fails. A target that
//! is missed is marked and does not fail the run. What is written into the document has every row and every column, or is
//! not written.

mod arrivals;
mod bare;
mod document;
mod explanation;
mod growth;
mod nodes;
mod probe;
mod profile;
mod raw;
mod redis;
mod row;
mod usage;

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use benches::report::{self, Figure};
use clap::Parser;

use crate::{profile::PROFILES, redis::Redis, usage::Meter};

/// All sides but Redis run with the allocator of `geocached`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const URL_VARIABLE: &str = "GEOCACHE_AMQP_URL";

#[derive(Parser)]
#[command(name = "replication", about = "Replication over the broker that GEOCACHE_AMQP_URL names")]
pub(crate) struct Arguments {
    /// How often each measurement is made
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long each takes
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    millis: u64,
    /// Only what has this in its name: "fast throughput", "durable lag", "8 nodes", "1000000 entries"; "fast" is all of fast
    #[arg(long, default_value = "", hide_default_value = true)]
    only: String,
    /// Two short rounds, and no more than a million entries: to see that it works, and the order of the figures
    #[arg(long)]
    quick: bool,
    /// Also write the tables into docs/rabbitmq.md: a whole run alone can
    #[arg(long, conflicts_with_all = ["only", "quick"])]
    readme: bool,
}

impl Arguments {
    pub(crate) fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }

    pub(crate) fn rounds(&self) -> u32 {
        if self.quick { self.rounds.min(2) } else { self.rounds }
    }

    pub(crate) fn length(&self) -> Duration {
        Duration::from_millis(if self.quick { self.millis.min(500) } else { self.millis })
    }
}

/// Figures of one kind.
pub(crate) struct Part {
    title: String,
    figures: Vec<Figure>,
}

#[tokio::main]
async fn main() -> Result<()> {
    run(&Arguments::parse()).await
}

async fn run(arguments: &Arguments) -> Result<()> {
    let Ok(url) = std::env::var(URL_VARIABLE) else {
        bail!(
            "{URL_VARIABLE} names no broker; run `cargo xtask bench replication`, which provides one, or start one with \
             `cargo xtask broker up` and export what it prints"
        );
    };
    println!(
        "{} rounds of {:?}, medians (lowest–highest round); a ratio is geocache's figure divided by the other's in the same \
         round",
        arguments.rounds(),
        arguments.length()
    );
    let meter = Meter::of(&url);
    let wants_redis = PROFILES.iter().any(|(name, _)| profile::wants_throughput(name, arguments));
    if arguments.readme {
        growth::has_room()?;
    }
    let mut redis = if wants_redis { Redis::start()? } else { None };
    if wants_redis && redis.is_none() {
        const LACK: &str = "redis-server is not installed (Debian: apt-get install redis-server)";
        ensure!(!arguments.readme, "{LACK}");
        println!("redis: NO COLUMN: {LACK}");
    }
    let load = redis.as_ref().map(Redis::load);
    let mut parts = Vec::new();
    for (name, profile) in PROFILES {
        let figures = profile::measure((name, *profile), &url, &meter, arguments, &mut redis).await?;
        parts.push(Part { title: (*name).to_owned(), figures });
    }
    drop(redis);
    parts.push(Part { title: "nodes".to_owned(), figures: growth::nodes(&url, &meter, arguments).await? });
    parts
        .push(Part { title: "entries".to_owned(), figures: growth::entries(&url, &meter, arguments).await? });
    let figures: Vec<Figure> = parts.iter().flat_map(|part| &part.figures).cloned().collect();
    ensure!(!figures.is_empty(), "nothing has \"{}\" in its name", arguments.only);
    let missed: usize = figures.iter().map(Figure::targets_missed).sum();
    println!(
        "\n{}",
        if missed == 0 { "every target held".to_owned() } else { format!("targets missed: {missed}") }
    );
    report::write("replication", &figures)?;
    if let Some(load) = load.filter(|_| arguments.readme) {
        document::write(arguments, &parts, load)?;
    }
    Ok(())
}
