//! How often reads hit, on traces that are read through by one thread: see `trace.rs`.
//!
//! Each cache sees the same trace once; its first third warms up and is not counted. Exact LRU is the cache of the crate
//! `lru`. Every cache runs as it is used, so what one puts off counts against or for it as it would in a service.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use benches::{
    contest::{self, Entrant, MUTEX_LRU, OURS, TINY_LFU},
    report::{Bound, Figure},
};

use crate::{Arguments, CAPACITY, Part, trace::Trace};

const ACCESSES: usize = 3_000_000;

/// As many as show the order of things, where time is short.
const ACCESSES_QUICK: usize = 600_000;

/// Points that a policy may be below what it is held to.
const POINTS: f64 = 0.5;

fn name(trace: Trace, cache: &str) -> String {
    format!("hit ratio, {}, {cache}", trace.name())
}

/// Percent of one trace, by the caches' names.
type Percents = BTreeMap<&'static str, f64>;

pub(crate) fn measure(arguments: &Arguments) -> Result<Part> {
    let traces: Vec<Trace> =
        Trace::ALL.into_iter().filter(|&trace| arguments.wants(&name(trace, OURS))).collect();
    if traces.is_empty() {
        return Ok(Part::default());
    }
    let entrants = contest::entrants::<u64>();
    let mut part = Part::default();
    let names: Vec<&str> = entrants.iter().map(|entrant| entrant.name).collect();
    println!("hit ratio, %{:<21}{}", "", names.iter().map(|name| format!("{name:>14}")).collect::<String>());
    part.markdown =
        format!("| hit ratio, % | {} |\n|---|{}\n", names.join(" | "), "--:|".repeat(names.len()));
    for trace in traces {
        let percents = percents(&entrants, trace, arguments.quick)?;
        let row: Vec<String> = names
            .iter()
            .map(|name| percents.get(name).map_or_else(String::new, |p| format!("{p:.2}")))
            .collect();
        println!(
            "  {:<31}{}",
            trace.name(),
            row.iter().map(|cell| format!("{cell:>14}")).collect::<String>()
        );
        part.markdown += &format!("| {} | {} |\n", trace.name(), row.join(" | "));
        for figure in figures(trace, &percents)? {
            if figure.target.is_some() {
                println!("    {:<40} {:>7.2}  {}", figure.name, figure.value, figure.verdict());
            }
            part.figures.push(figure);
        }
    }
    Ok(part)
}

fn percents(entrants: &[Entrant<u64>], trace: Trace, quick: bool) -> Result<Percents> {
    let accesses = if quick { ACCESSES_QUICK } else { ACCESSES };
    let keys = trace.keys(accesses);
    let (warm, counted) = keys.split_at(accesses / 3);
    let mut percents = Percents::new();
    for entrant in entrants {
        let cache = entrant.make(CAPACITY)?;
        cache.replay(&mut warm.iter().copied());
        let run = cache.replay(&mut counted.iter().copied());
        let entries = cache.settled();
        let full = entries > CAPACITY * 8 / 10 && entries <= CAPACITY;
        ensure!(full, "{}: it holds {entries} entries of {CAPACITY}, {}", entrant.name, trace.name());
        percents.insert(entrant.name, 100.0 * run.hit_ratio());
    }
    Ok(percents)
}

/// Ours with its ratios and target, then everybody else's alone.
fn figures(trace: Trace, percents: &Percents) -> Result<Vec<Figure>> {
    let of = |cache| percents.get(cache).copied().with_context(|| format!("{cache} was not measured"));
    let exact = of(MUTEX_LRU)?;
    let mut figures = Vec::new();
    for (&cache, &percent) in percents {
        let mut figure = Figure::new(name(trace, cache), percent, "%");
        if cache == OURS {
            for (peer, theirs) in percents.iter().filter(|(peer, theirs)| **peer != OURS && **theirs > 0.0) {
                figure = figure.beside(peer, percent / theirs);
            }
            figure = figure.at_least(hundredths(exact - POINTS));
        }
        if cache == TINY_LFU {
            let of_moka = percents.get("moka").zip(points_below_moka(trace));
            figure.target = of_moka.map(|(moka, points)| Bound::AtLeast(hundredths(moka - points)));
        }
        figures.push(figure);
    }
    Ok(figures)
}

/// How far `Policy::TinyLfu` may be below moka, where that is a target.
fn points_below_moka(trace: Trace) -> Option<f64> {
    match trace {
        Trace::Zipf99 | Trace::Zipf80 | Trace::Scans => Some(POINTS),
        Trace::Drift | Trace::Recency => Some(0.0),
        Trace::Loop => None,
    }
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).floor() / 100.0
}
