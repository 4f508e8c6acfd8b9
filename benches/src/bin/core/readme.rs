//! The section of cache-core's README that shows what was measured: between two markers, written by a whole run.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use crate::{Arguments, CAPACITY, Part, table};

const BEGIN: &str = "<!-- measured: begin -->\n";
const END: &str = "<!-- measured: end -->\n";

/// Puts the tables between the markers.
///
/// # Errors
/// When the README cannot be read or written, or has no such markers.
pub(crate) fn write(arguments: &Arguments, parts: &[Part]) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("crates").join("cache-core/README.md");
    let at = || path.display().to_string();
    let old = fs::read_to_string(&path).with_context(at)?;
    let new = between(&old, &section(arguments, parts)).with_context(at)?;
    fs::write(&path, new).with_context(at)?;
    println!("written into {}", path.display());
    Ok(())
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

fn between(text: &str, section: &str) -> Result<String> {
    let missing = || format!("the lines {} and {} are missing", BEGIN.trim(), END.trim());
    let (before, rest) = text.split_once(BEGIN).with_context(missing)?;
    let (_, after) = rest.split_once(END).with_context(missing)?;
    Ok(format!("{before}{BEGIN}\n{section}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_the_markers_is_replaced_and_nothing_else() {
        let text = format!("a\n{BEGIN}old\n{END}b\n");
        let new = between(&text, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\nnew\n\n{END}b\n"));
        assert_eq!(between(&new, "new\n").unwrap(), new);
        assert!(between("a\n", "new").is_err());
    }
}
