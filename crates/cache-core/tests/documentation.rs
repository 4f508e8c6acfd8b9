//! Every public item of the crate has an example in its documentation; that they run is the doc tests' business.
//!
//! The compiler's own lint for this is unstable and asks for examples of private items too, so the sources are read here. What is
//! public is `pub` without a restriction; fields and variants are told by their type's example.

use std::{
    fs,
    path::{Path, PathBuf},
};

const ITEMS: [&str; 6] = ["pub fn ", "pub const ", "pub struct ", "pub enum ", "pub trait ", "pub async fn "];

#[test]
fn every_public_item_has_an_example() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut items, mut bare) = (0, Vec::new());
    for path in sources(&root.join("src")) {
        let source = fs::read_to_string(&path).expect("a source file is text");
        let lines: Vec<&str> = source.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| is_item(line)) {
            items += 1;
            if !has_example(&lines[..at]) {
                let name = path.strip_prefix(root).unwrap_or(&path).display();
                bare.push(format!("{name}:{}: {line}", at + 1));
            }
        }
    }
    assert!(items > 50, "{items} public items were found: is the reading of the sources right?");
    assert!(bare.is_empty(), "public items without an example:\n{}", bare.join("\n"));
}

fn is_item(line: &str) -> bool {
    ITEMS.iter().any(|item| line.starts_with(item))
}

/// Whether the documentation that ends these lines, among attributes, opens a block of code.
fn has_example(above: &[&str]) -> bool {
    let belongs = |line: &&&str| line.starts_with("///") || line.starts_with("#[") || line.starts_with(")]");
    above.iter().rev().take_while(belongs).any(|line| line.starts_with("/// ```"))
}

/// The crate's sources, without the files that are tests alone.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the crate's sources can be read");
    let paths = entries.map(|entry| entry.expect("the crate's sources can be read").path());
    let (folders, files): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
    let mut sources: Vec<_> = files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter(|path| path.file_stem().is_some_and(|name| name != "tests"))
        .collect();
    sources.extend(folders.iter().flat_map(|folder| self::sources(folder)));
    sources
}
