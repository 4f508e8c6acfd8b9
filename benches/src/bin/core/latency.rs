//! How long single operations take: 95/5 on 2 threads, `u64` keys, each operation timed.
//!
//! Each latency has the time in it that reading the clock takes, everybody's the same; how much that is, is printed.

use std::{collections::BTreeMap, time::Instant};

use anyhow::Result;
use benches::{
    contest::{self, Effort, Kind, OURS},
    report::{Bound, Figure, Ratio, median, spread},
};

use crate::{
    Arguments,
    speed::{Runner, load},
    table,
};

const THREADS: usize = 2;

const PERCENTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// What our p99 may be of moka's.
const OF_MOKA_MAX: f64 = 1.0 / 15.0;

pub(crate) fn measure(arguments: &Arguments) -> Result<Vec<Figure>> {
    let name = |percentile| format!("{percentile} of one operation, 95/5, u64, {THREADS} threads");
    if !PERCENTILES.iter().any(|(percentile, _)| arguments.wants(&name(percentile))) {
        return Ok(Vec::new());
    }
    let load = load::<u64>(Kind::Mixed(0.05));
    let mut runners = contest::entrants()
        .iter()
        .map(|entrant| Runner::ready(entrant, &load))
        .collect::<Result<Vec<_>>>()?;
    let mut rounds: BTreeMap<&'static str, Vec<[f64; PERCENTILES.len()]>> = BTreeMap::new();
    for _ in 0..arguments.rounds() {
        for runner in &runners {
            let effort = Effort { threads: THREADS, length: arguments.length(), from: 0 };
            let latencies = runner.cache.timed(&load, effort);
            let of = PERCENTILES.map(|(_, quantile)| latencies.value_at_quantile(quantile) as f64);
            rounds.entry(runner.name).or_default().push(of);
        }
        runners.rotate_left(1);
    }
    let ours = rounds.remove(OURS).unwrap_or_default();
    let mut figures = vec![Figure::new("reading the clock twice", clock_ns(), "ns")];
    for (at, (percentile, _)) in PERCENTILES.iter().enumerate() {
        let column = |rounds: &[[f64; PERCENTILES.len()]]| -> Vec<f64> {
            rounds.iter().map(|percentiles| percentiles[at]).collect()
        };
        let ours = column(&ours);
        let mut figure = Figure::new(name(percentile), median(ours.iter().copied()), "ns");
        for (peer, theirs) in &rounds {
            let mut ratio = Ratio::of(ours.iter().zip(column(theirs)).map(|(ours, theirs)| ours / theirs));
            ratio.target = (*peer == "moka" && *percentile == "p99").then_some(Bound::AtMost(OF_MOKA_MAX));
            figure.peers.insert(peer, ratio);
        }
        table::print(&figure, spread(&ours));
        figures.push(figure);
    }
    table::print(&figures[0], None);
    Ok(figures)
}

/// What the clock adds to each latency: the median of timing nothing.
fn clock_ns() -> f64 {
    median((0..100_000).map(|_| Instant::now().elapsed().as_nanos() as f64))
}
