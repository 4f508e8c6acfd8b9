//! The section of docs/rabbitmq.md that shows what was measured.

use anyhow::Result;
use benches::{measured, report::Figure, table};

use crate::{Arguments, Part};

/// Puts the tables between the document's markers.
///
/// # Errors
/// When the document cannot be read or written, or has no such markers.
pub(crate) fn write(arguments: &Arguments, parts: &[Part]) -> Result<()> {
    measured::write("docs/rabbitmq.md", &section(arguments, parts))
}

fn section(arguments: &Arguments, parts: &[Part]) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut text = format!(
        "## Measured\n\n`cargo xtask bench replication -- --readme --rounds {} --millis {}`, on {cores} cores which the nodes \
         share with the broker:\nrecords of 128 bytes (keys of 16, values of 112), three nodes of which one writes. `raw_lapin` is \
         the bare client library sending\nthe same frames to as many queues, `redis` a primary with two replicas and pipelines \
         of 64 on the same machine. Rounds alternate;\na ratio is geocache's figure divided by the other's in the same \
         round: the median, and the lowest to the highest round.\nProcessor time is in seconds for a million records.\n",
        arguments.rounds, arguments.millis
    );
    for part in parts.iter().filter(|part| !part.figures.is_empty()) {
        text += &format!("\n{}", table::markdown(&part.title, "geocache", &part.figures));
    }
    let figures: Vec<Figure> = parts.iter().flat_map(|part| &part.figures).cloned().collect();
    match table::missed(&figures).as_str() {
        "" => text + "\nEvery target is held.\n",
        missed => text + "\nTargets that are missed:\n\n" + missed,
    }
}
