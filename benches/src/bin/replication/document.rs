//! The section of docs/rabbitmq.md that shows what was measured, and says in words what misses its target and why.

use anyhow::{Result, ensure};
use benches::{measured, report::Figure, table};

use crate::{
    Arguments, Part, explanation,
    growth::{ENTRIES, NODES},
    profile::{PROFILES, RATES},
    redis::{CONNECTIONS, Load, PIPELINES},
    row::{RAW, RAW_AT_OUR_PACE, REDIS},
};

/// Puts the tables between the document's markers.
///
/// # Errors
/// When a row or a column is missing; when the document cannot be read or written, or has no such markers.
pub(crate) fn write(arguments: &Arguments, parts: &[Part], redis: Load) -> Result<()> {
    let figures: Vec<Figure> = parts.iter().flat_map(|part| &part.figures).cloned().collect();
    let absent = absent(&figures);
    ensure!(
        absent.is_empty(),
        "nothing was written into the document: not measured were {}",
        absent.join("; ")
    );
    measured::write("docs/rabbitmq.md", &section(arguments, parts, &figures, redis))
}

fn section(arguments: &Arguments, parts: &[Part], figures: &[Figure], redis: Load) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let Load { pipeline, connections } = redis;
    let mut text = format!(
        "## Measured\n\n`cargo xtask bench replication -- --readme --rounds {} --millis {}`, on {cores} cores which the nodes \
         share with the broker:\nrecords of 128 bytes (keys of 16, values of 112), three nodes of which one writes. Rounds \
         alternate; a ratio is geocache's figure\ndivided by the other's in the same round: the median, and the lowest to the \
         highest round. Processor time is in seconds for a\nmillion records.\n\n\
         - `raw_lapin` is the bare client library sending the same frames to as many queues, which acknowledges as geocache \
         does and\n  neither decodes nor keeps anything; `raw_at_our_pace` is the same, sending no faster than geocache did in that round.\n\
         - `redis` is a primary with two replicas on the same machine, without persistence. Its client sends pipelines of \
         {pipeline} over\n  {connections} connections of one thread, the fastest of {}\n  before the first round. It comes over \
         TCP of the loopback, as Redis' clients do, while geocache's writer is in the process of its\n  node: that is part of \
         the difference.\n\
         - `bare_map` is one hash map without anything around it, written over in the same order.\n",
        arguments.rounds,
        arguments.millis,
        tried(),
    );
    for part in parts.iter().filter(|part| !part.figures.is_empty()) {
        text += &format!("\n{}", table::markdown(&part.title, "geocache", &part.figures));
    }
    match table::missed(figures).as_str() {
        "" => text + "\nEvery target is held.\n",
        missed => text + "\nTargets that are missed:\n\n" + missed + &explanation::of(figures),
    }
}

fn tried() -> String {
    let list = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    format!("pipelines of {} by connections of {}", list(&PIPELINES), list(&CONNECTIONS))
}

/// The rows, and the columns of rows, that a whole run has and these figures have not.
fn absent(figures: &[Figure]) -> Vec<String> {
    let mut wanted: Vec<(String, &[&str])> = Vec::new();
    for (profile, _) in PROFILES {
        for what in ["throughput", "processor time, nodes and client library", "processor time, broker"] {
            wanted.push((format!("{profile}: {what}"), &[RAW, REDIS]));
        }
        for (rate, _) in RATES {
            for what in ["lag p50", "lag p99"] {
                wanted.push((format!("{profile}: {what} at {rate}/s"), &[RAW]));
            }
        }
    }
    for count in NODES {
        wanted.push((format!("{count} nodes: throughput"), &[RAW]));
        wanted.push((format!("{count} nodes: processor time, broker"), &[RAW, RAW_AT_OUR_PACE]));
        wanted.push((format!("{count} nodes: processor time, nodes"), &[RAW]));
    }
    for entries in ENTRIES {
        wanted.push((format!("{entries} entries: throughput"), &[]));
        wanted.push((format!("{entries} entries: processor time, nodes"), &[crate::bare::BARE]));
    }
    let mut absent = Vec::new();
    for (name, peers) in wanted {
        match figures.iter().find(|figure| figure.name == name) {
            None => absent.push(name),
            Some(figure) => {
                let missing = peers.iter().filter(|peer| !figure.peers.contains_key(*peer));
                absent.extend(missing.map(|peer| format!("{name}, of {peer}")));
            }
        }
    }
    absent
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn the_section_says_how_it_was_measured_and_why_a_target_is_missed() {
        let arguments = Arguments::parse_from(["replication", "--rounds", "3"]);
        let figures = vec![
            Figure::new("10000000 entries: the nodes' time, of that with 10000", 3.6, "times").at_most(1.2),
            Figure::new("10000000 entries: a bare map's time, of that with 10000", 5.0, "times"),
        ];
        let parts = [Part { title: "entries".to_owned(), figures: figures.clone() }];
        let text = section(&arguments, &parts, &figures, Load { pipeline: 256, connections: 4 });
        for part in [
            "--rounds 3",
            "pipelines of 256 over\n  4 connections",
            "**3.60** times",
            "target 1.2",
            "takes 5.00 times",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_row_or_a_column_that_was_not_measured_is_named() {
        let every = absent(&[]);
        assert!(every.contains(&"10000000 entries: throughput".to_owned()));
        let figure = Figure::new("fast: throughput", 1.0, "records/s").beside(RAW, 0.5);
        let now = absent(&[figure]);
        assert!(now.contains(&"fast: throughput, of redis".to_owned()), "{now:?}");
        assert!(!now.contains(&"fast: throughput, of raw_lapin".to_owned()), "{now:?}");
        assert_eq!(now.len(), every.len());
    }
}
