//! Holds the table of claims to the source of the crate: no operation of `GeoCache` is without a claim.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Operations that need no claim, each with the reason. None at present.
const EXEMPT: &[(&str, &str)] = &[];

/// Area, claim, the operations that the claim is about.
type Row = (&'static str, &'static str, &'static [&'static str]);

macro_rules! rows {
    ($($area:ident :: $claim:ident [$($operation:ident),+];)+) => {
        &[$((stringify!($area), stringify!($claim), &[$(stringify!($operation)),+])),+]
    };
}

const TABLE: &[Row] = matrix!(rows);

/// The public functions of the blocks `impl GeoCache`, and the file of each. The sources are formatted by rustfmt, so a block ends at
/// the next line that begins with a brace.
fn operations_in(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in source.lines() {
        match line {
            "impl GeoCache {" => inside = true,
            "}" => inside = false,
            _ if inside => found.extend(public_function(line)),
            _ => {}
        }
    }
    found
}

fn public_function(line: &str) -> Option<String> {
    let rest = line.strip_prefix("    pub ")?;
    let (_, rest) = rest
        .split_once("fn ")
        .filter(|(words, _)| words.split_whitespace().all(|word| ["async", "const"].contains(&word)))?;
    let name = rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next()?;
    Some(name.to_owned())
}

fn read_sources(folder: &Path, into: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            into.extend(operations_in(&source).into_iter().map(|name| (name, path.display().to_string())));
        }
    }
}

/// What is wrong with a table, given what there is.
fn violations(
    operations: &BTreeMap<String, String>,
    table: &[(&str, &str, &[&str])],
    exempt: &[(&str, &str)],
) -> Vec<String> {
    let claimed: BTreeSet<&str> = table.iter().flat_map(|(_, _, operations)| *operations).copied().collect();
    let exempt: BTreeSet<&str> = exempt.iter().map(|(operation, _)| *operation).collect();
    let unclaimed =
        operations.iter().filter(|(name, _)| !claimed.contains(&***name) && !exempt.contains(&***name));
    let unclaimed = unclaimed.map(|(name, file)| {
        format!(
            "GeoCache::{name} ({file}) has no claim: write one in tests/tests/matrix/ and name it in the table there, or say in \
             EXEMPT why it needs none"
        )
    });
    let unknown = claimed.union(&exempt).filter(|name| !operations.contains_key(**name));
    let unknown = unknown.map(|name| format!("GeoCache has no {name}, which the table or EXEMPT names"));
    let twice = claimed.intersection(&exempt).map(|name| format!("{name} has a claim, and is exempt"));
    unclaimed.chain(unknown).chain(twice).collect()
}

#[test]
fn every_operation_has_a_claim() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/geocache/src");
    let mut operations = BTreeMap::new();
    read_sources(&source, &mut operations);
    assert!(operations.contains_key("put") && operations.contains_key("get_or_load"), "the source is read");
    let found = violations(&operations, TABLE, EXEMPT);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// A claim that does not call what the table says it is about claims nothing of it.
#[test]
fn every_claim_calls_what_it_is_about() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/matrix");
    for (area, claim, operations) in TABLE {
        let source = fs::read_to_string(folder.join(format!("{area}.rs"))).unwrap();
        let (_, body) =
            source.split_once(&format!("async fn {claim}(")).expect("the claim is in its area's file");
        let body = body.split("\n}\n").next().unwrap();
        for operation in *operations {
            let is_called = [".", "::"].iter().any(|before| {
                body.contains(&format!("{before}{operation}("))
                    || body.contains(&format!("{before}{operation}::<"))
            });
            assert!(is_called, "{area}::{claim} does not call {operation}");
        }
    }
}

#[test]
fn a_public_function_is_found_and_a_private_one_is_not() {
    let source = "impl GeoCache {\n    pub fn one(&self) {\n    }\n    pub(crate) fn two() {}\n    fn three() {}\n    \
                  pub async fn four<T>(\n}\nimpl Other {\n    pub fn five() {}\n}\n";
    assert_eq!(operations_in(source), ["one", "four"]);
}

#[test]
fn what_is_missing_superfluous_or_both_is_named() {
    let operations = BTreeMap::from(["new", "old"].map(|name| (name.to_owned(), "x.rs".to_owned())));
    let found = violations(&operations, &[("a", "b", &["old", "gone"])], &[("old", "a reason")]);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].contains("GeoCache::new (x.rs)"));
    assert!(found[1].contains("no gone"));
    assert!(found[2].contains("old has a claim"));
}
