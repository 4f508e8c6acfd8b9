//! What a record costs as nodes are added, and as a node holds more.
//!
//! *Nodes* (2, 4, 8, all in this process and on its cores): a node that is added takes a copy of each frame from the broker
//! and merges it. So a node more has to cost the nodes' processor time the same whether there are few or many, and the
//! broker's work may not grow by more than that of as many bare consumers of the same frames. What of a difference there is
//! the pace's is told by a second flood of the bare client, no faster than ours was. It is the cost of a node *more*
//! that is compared: in a mean over all nodes the writer's own, which is shared among more of them, would hide a growth.
//!
//! *Entries* (10⁴ … 10⁷, two nodes, values of 8 bytes): every entry is there before and each is written over, in an order
//! that has nothing to do with where it lies in memory. A bare map beside it (`bare.rs`) says how much of what a record
//! costs more is the machine's own.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use benches::report::{Bound, Figure, median};
use replication::rabbitmq::Profile;

use crate::{
    Arguments,
    bare::{self, BARE},
    nodes::{Nodes, Setup, Speed},
    raw::Raw,
    row::{RAW, RAW_AT_OUR_PACE, Row},
    usage::Meter,
};

pub(crate) const NODES: [usize; 3] = [2, 4, 8];

/// How much a node more may cost among the most nodes, of what it costs among the fewest.
const NODE_GROWTH_MAX: f64 = 1.2;

/// How much more than the bare consumers' the broker's work for a record may be.
pub(crate) const BROKER_MAX: f64 = 1.25;

pub(crate) const ENTRIES: [u32; 4] = [10_000, 100_000, 1_000_000, 10_000_000];
const ENTRY_VALUE_BYTES: usize = 8;
const ENTRY_NODES: usize = 2;

/// How much a record may cost with the most entries, of what it costs with the fewest.
const ENTRY_GROWTH_MAX: f64 = 1.2;

/// What an entry takes of a node's memory at worst, while its tables grow; more than in the bare map, gone before.
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
    let mut costs: Vec<(usize, f64)> = Vec::new();
    for count in counts {
        let cache = format!("bench-nodes-{count}-{}", std::process::id());
        let setup = Setup { nodes: count, ..Setup::THREE };
        let mut nodes = Nodes::start(url, meter, Profile::Fast, &cache, setup).await?;
        let raw = Raw::start(url, meter, Profile::Fast, &cache, count).await?;
        nodes.fill().await?;
        let (mut ours, mut theirs, mut paced) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..arguments.rounds() {
            let flood = nodes.flood(length).await?;
            ours.push(flood.speed);
            theirs.push(raw.flood(length, flood).await?);
            paced.push(raw.keep_pace(length, flood).await?);
        }
        nodes.close().await;
        raw.close(&cache).await?;
        let take = |speeds: &[Speed], of: fn(&Speed) -> Option<f64>| {
            speeds.iter().filter_map(of).collect::<Vec<f64>>()
        };
        let row = |what: &str, unit, of: fn(&Speed) -> Option<f64>, target| {
            let row = Row::new(format!("{count} nodes: {what}"), unit, take(&ours, of));
            row.beside(RAW, &take(&theirs, of), target)
        };
        figures.extend(row("throughput", "records/s", |speed| Some(speed.records_per_s), None).told());
        let broker_max = Some(Bound::AtMost(BROKER_MAX));
        let broker = row("processor time, broker", "s/million", |speed| speed.broker_s, broker_max);
        figures.extend(broker.beside(RAW_AT_OUR_PACE, &take(&paced, |speed| speed.broker_s), None).told());
        let cost = row("processor time, nodes", "s/million", |speed| speed.nodes_s, None).told();
        costs.extend(cost.as_ref().map(|figure| (count, figure.value)));
        figures.extend(cost);
    }
    figures.extend(steps(&costs));
    Ok(figures)
}

/// What a node more costs, from each count of nodes to the next, and how that grows.
fn steps(costs: &[(usize, f64)]) -> Vec<Figure> {
    let mut steps = Vec::new();
    let mut figures = Vec::new();
    for pair in costs.windows(2) {
        let [(few, before), (many, after)] = [pair[0], pair[1]];
        let each = (after - before) / (many - few) as f64;
        let name = format!("{few} to {many} nodes: processor time of a node more");
        figures.push(Row::new(name, "s/million", vec![each]).tell());
        steps.push((format!("{few} to {many}"), each));
    }
    if let [(few, first), .., (many, last)] = &steps[..] {
        let name = format!("a node more, {many}, of one {few}");
        figures.push(times(name, *last, *first).at_most(NODE_GROWTH_MAX).tell());
    }
    figures
}

/// How many times the first the last is; no number, which holds no target, where the first is none that has a multiple.
fn times(name: String, last: f64, first: f64) -> Row {
    Row::new(name, "times", vec![if first > 0.0 { last / first } else { f64::NAN }])
}

/// Refuses a run that could not measure every row: too little memory is free for the most entries.
pub(crate) fn has_room() -> Result<()> {
    for entries in ENTRIES {
        let lack = lack(entries);
        ensure!(lack.is_none(), "no row of {entries} entries: {}", lack.unwrap_or_default());
    }
    Ok(())
}

/// What is missing of memory for so many entries.
fn lack(entries: u32) -> Option<String> {
    let needed = u64::from(entries) * ENTRY_NODES as u64 * ENTRY_BYTES + SPARE_BYTES;
    let free = free_bytes().filter(|free| *free < needed)?;
    Some(format!("{} MiB of memory are free, {} are needed", free >> 20, needed >> 20))
}

pub(crate) async fn entries(url: &str, meter: &Meter, arguments: &Arguments) -> Result<Vec<Figure>> {
    let wanted = |entries: &u32| arguments.wants(&format!("{entries} entries"));
    let most = if arguments.quick { ENTRIES[ENTRIES.len() - 2] } else { u32::MAX };
    let mut counts = ENTRIES.into_iter().filter(wanted).filter(|entries| *entries <= most).peekable();
    if counts.peek().is_none() {
        return Ok(Vec::new());
    }
    println!("\nas entries are added (fast, 2 nodes, keys of 16 bytes, values of {ENTRY_VALUE_BYTES})");
    let length = arguments.length().max(Duration::from_secs(1));
    let mut figures = Vec::new();
    // Of ours and of the bare map.
    let mut costs: Vec<(u32, f64, Option<f64>)> = Vec::new();
    for entries in counts {
        if let Some(lack) = lack(entries) {
            println!("{entries} entries: NO ROW: {lack}");
            continue;
        }
        let bare = tokio::task::block_in_place(|| bare::floods(entries, arguments.rounds(), length, meter));
        let bare: Vec<f64> = bare.iter().filter_map(|speed| speed.nodes_s).collect();
        let setup = Setup { nodes: ENTRY_NODES, keys: entries, value_bytes: ENTRY_VALUE_BYTES };
        let cache = format!("bench-entries-{entries}-{}", std::process::id());
        let mut nodes = Nodes::start(url, meter, Profile::Fast, &cache, setup).await?;
        nodes.fill().await?;
        let mut speeds = Vec::new();
        for _ in 0..arguments.rounds() {
            speeds.push(nodes.flood(length).await?.speed);
        }
        nodes.close().await;
        let row = |what: &str, unit, of: fn(&Speed) -> Option<f64>| {
            Row::new(format!("{entries} entries: {what}"), unit, speeds.iter().filter_map(of).collect())
        };
        figures.extend(row("throughput", "records/s", |speed| Some(speed.records_per_s)).told());
        let cost = row("processor time, nodes", "s/million", |speed| speed.nodes_s);
        let cost = cost.beside(BARE, &bare, None).told();
        let bare = (!bare.is_empty()).then(|| median(bare.iter().copied()));
        costs.extend(cost.as_ref().map(|figure| (entries, figure.value, bare)));
        figures.extend(cost);
    }
    if let [(few, first, first_bare), .., (many, last, last_bare)] = costs[..] {
        let name = |whose| format!("{many} entries: {whose} time, of that with {few}");
        figures.push(times(name("the nodes'"), last, first).at_most(ENTRY_GROWTH_MAX).tell());
        let bare = last_bare.zip(first_bare);
        figures.extend(bare.map(|(last, first)| times(name("a bare map's"), last, first).tell()));
    }
    Ok(figures)
}

/// The memory that could be had without swapping, where the system tells (Linux).
fn free_bytes() -> Option<u64> {
    let told = fs::read_to_string("/proc/meminfo").ok()?;
    let line = told.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}
