//! The section of a document that shows what was measured: between two markers, written by a whole run.

use std::{fs, path::Path};

use anyhow::{Context, Result};

const BEGIN: &str = "<!-- measured: begin -->\n";
const END: &str = "<!-- measured: end -->\n";

/// Puts the section between the markers of a document, named by its path in the workspace.
///
/// # Errors
/// When the document cannot be read or written, or has no such markers.
pub fn write(document: &str, section: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(document);
    let at = || path.display().to_string();
    let old = fs::read_to_string(&path).with_context(at)?;
    let new = between(&old, section).with_context(at)?;
    fs::write(&path, new).with_context(at)?;
    println!("written into {}", path.display());
    Ok(())
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
