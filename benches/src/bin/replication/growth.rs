//! What a record costs as nodes are added, and as a node holds more.
//!
//! *Nodes* (2, 4, 8, all in this process and on its cores): a node that is added takes a copy of each frame from the broker
//! and merges it. So the nodes' processor time may not grow by more than one node's share each, and the broker's not by
//! more than that of as many bare consumers of the same frames.
//!
//! *Entries* (10⁴ … 10⁷, two nodes, values of 8 bytes): every entry is there before and each is written over, in an order
//! that has nothing to do with where it lies in memory.

use std::{fs, time::Duration};

use anyhow::Result;
use benches::report::{Bound, Figure};
use replication::rabbitmq::Profile;

use crate::{
    Arguments,
    nodes::{Nodes, Setup, Speed},
    raw::Raw,
    row::{RAW, Row},
    usage::Meter,
};

const NODES: [usize; 3] = [2, 4, 8];

/// How much a node's share of a record may cost with 8 nodes, of what it costs with 2.
const NODE_GROWTH_MAX: f64 = 1.2;

/// How much more than the bare consumers' the broker's work for a record may be.
const BROKER_MAX: f64 = 1.25;

const ENTRIES: [u32; 4] = [10_000, 100_000, 1_000_000, 10_000_000];
const ENTRY_VALUE_BYTES: usize = 8;

/// How much a record may cost with the most entries, of what it costs with the fewest.
const ENTRY_GROWTH_MAX: f64 = 1.2;

/// What an entry takes of memory at worst, while its tables grow.
const ENTRY_BYTES: u64 = 600;

/// Memory that is left to others.
const SPARE_BYTES: u64 = 2 << 30;

pub(crate) async fn nodes(url: &str, meter: &Meter, arguments: &Arguments) -> Result<Vec<Figure>> {
    let mut counts = NODES.into_iter().filter(|count| arguments.wants(&format!("{count} nodes"))).peekable();
    if counts.peek().is_none() {
        return Ok(Vec::new());
    }
    println!("\nas nodes are added (fast, records of 128 bytes)");
    let length = arguments.length();
    let mut figures = Vec::new();
    let mut shares: Vec<f64> = Vec::new();
    for count in counts {
        let cache = format!("bench-nodes-{count}-{}", std::process::id());
        let setup = Setup { nodes: count, ..Setup::THREE };
        let mut nodes = Nodes::start(url, meter, Profile::Fast, &cache, setup).await?;
        let raw = Raw::start(url, meter, Profile::Fast, &cache, count).await?;
        nodes.fill().await?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..arguments.rounds() {
            let flood = nodes.flood(length).await?;
            ours.push(flood.speed);
            theirs.push(raw.flood(length, flood).await?);
        }
        nodes.close().await;
        raw.close(&cache).await?;
        let take = |speeds: &[Speed], of: fn(&Speed) -> Option<f64>| {
            speeds.iter().filter_map(of).collect::<Vec<f64>>()
        };
        let row = |what: &str, unit, of: fn(&Speed) -> Option<f64>, target| {
            let row = Row::new(format!("{count} nodes: {what}"), unit, take(&ours, of));
            row.beside(RAW, &take(&theirs, of), target).told()
        };
        figures.extend(row("throughput", "records/s", |speed| Some(speed.records_per_s), None));
        let broker_max = Some(Bound::AtMost(BROKER_MAX));
        figures.extend(row("processor time, broker", "s/million", |speed| speed.broker_s, broker_max));
        let share: Vec<f64> =
            take(&ours, |speed| speed.nodes_s).into_iter().map(|seconds| seconds / count as f64).collect();
        let share = Row::new(format!("{count} nodes: processor time a node"), "s/million", share).told();
        shares.extend(share.as_ref().map(|figure| figure.value));
        figures.extend(share);
    }
    figures.extend(growth("8 nodes: a node's time, of that with 2", &shares, NODE_GROWTH_MAX));
    Ok(figures)
}

pub(crate) async fn entries(url: &str, meter: &Meter, arguments: &Arguments) -> Result<Vec<Figure>> {
    let wanted = |entries: &u32| arguments.wants(&format!("{entries} entries"));
    let most = if arguments.quick { ENTRIES[ENTRIES.len() - 2] } else { u32::MAX };
    let mut counts = ENTRIES.into_iter().filter(wanted).filter(|entries| *entries <= most).peekable();
    if counts.peek().is_none() {
        return Ok(Vec::new());
    }
    println!("\nas entries are added (fast, 2 nodes, keys of 16 bytes, values of {ENTRY_VALUE_BYTES})");
    let mut figures = Vec::new();
    let mut costs: Vec<f64> = Vec::new();
    for entries in counts {
        let setup = Setup { nodes: 2, keys: entries, value_bytes: ENTRY_VALUE_BYTES };
        let needed = u64::from(entries) * setup.nodes as u64 * ENTRY_BYTES;
        if let Some(free) = free_bytes().filter(|free| *free < needed + SPARE_BYTES) {
            let [free, needed] = [free, needed + SPARE_BYTES].map(|bytes| bytes >> 20);
            println!("{entries} entries: no row: {free} MiB of memory are free, {needed} are needed");
            continue;
        }
        let cache = format!("bench-entries-{entries}-{}", std::process::id());
        let mut nodes = Nodes::start(url, meter, Profile::Fast, &cache, setup).await?;
        nodes.fill().await?;
        let mut speeds = Vec::new();
        for _ in 0..arguments.rounds() {
            speeds.push(nodes.flood(arguments.length().max(Duration::from_secs(1))).await?.speed);
        }
        nodes.close().await;
        let row = |what: &str, unit, of: fn(&Speed) -> Option<f64>| {
            Row::new(format!("{entries} entries: {what}"), unit, speeds.iter().filter_map(of).collect())
                .told()
        };
        figures.extend(row("throughput", "records/s", |speed| Some(speed.records_per_s)));
        let cost = row("processor time, nodes", "s/million", |speed| speed.nodes_s);
        costs.extend(cost.as_ref().map(|figure| figure.value));
        figures.extend(cost);
    }
    figures.extend(growth(
        "most entries: the nodes' time, of that with the fewest",
        &costs,
        ENTRY_GROWTH_MAX,
    ));
    Ok(figures)
}

/// What the last of them is of the first.
fn growth(name: &str, costs: &[f64], most: f64) -> Option<Figure> {
    let [first, .., last] = costs else { return None };
    Row::new(name.to_owned(), "times", vec![last / first]).at_most(most).told()
}

/// The memory that could be had without swapping, where the system tells (Linux).
fn free_bytes() -> Option<u64> {
    let told = fs::read_to_string("/proc/meminfo").ok()?;
    let line = told.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}
