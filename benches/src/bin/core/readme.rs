//! The section of cache-core's README that shows what was measured: between two markers, written by a whole run.

use anyhow::Result;
use benches::{measured, table};

use crate::{Arguments, CAPACITY, Part};

/// Puts the tables between the markers.
///
/// # Errors
/// When the README cannot be read or written, or has no such markers.
pub(crate) fn write(arguments: &Arguments, parts: &[Part]) -> Result<()> {
    measured::write("crates/cache-core/README.md", &section(arguments, parts))
}

fn section(arguments: &Arguments, parts: &[Part]) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut text = format!(
        "## Measured\n\n`cargo xtask bench core -- --readme --rounds {} --millis {}`, on {cores} cores: capacity {CAPACITY}, values of 8 bytes, \
         the same hasher (foldhash)\nand allocator (mimalloc) for all, a time to live for cache-core and none for the others. \
         Rounds alternate; a ratio is cache-core's figure\ndivided by the other's in the same round: the median, and \
         the lowest to the highest round.\n",
        arguments.rounds, arguments.millis
    );
    for part in parts.iter().filter(|part| !part.markdown.is_empty()) {
        text += &format!("\n{}", part.markdown);
    }
    let missed: String = parts.iter().map(|part| table::missed(&part.figures)).collect();
    match missed.as_str() {
        "" => text + "\nEvery target is held.\n",
        missed => text + "\nTargets that are missed:\n\n" + missed,
    }
}
