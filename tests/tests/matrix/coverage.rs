//! Holds the table of claims to the source of the crate: no operation of a handle is without a claim.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// The areas whose claims are about another handle than `GeoCache`, and which.
const HANDLES: &[(&str, &str)] =
    &[("client", "GeoClient"), ("cluster", "GeoCluster"), ("mirror", "Mirror"), ("routes", "Routes")];

/// Operations that need no claim, as `Handle::operation`, each with the reason. None at present.
const EXEMPT: &[(&str, &str)] = &[];

/// Area, claim, the operations that the claim is about.
type Row = (&'static str, &'static str, &'static [&'static str]);

macro_rules! rows {
    ($($area:ident :: $claim:ident [$($operation:ident),+];)+) => {
        &[$((stringify!($area), stringify!($claim), &[$(stringify!($operation)),+])),+]
    };
}

const TABLE: &[Row] = matrix!(rows);

fn handle_of(area: &str) -> &'static str {
    HANDLES.iter().find(|(its, _)| *its == area).map_or("GeoCache", |(_, handle)| *handle)
}

/// The public functions of the handles' own blocks `impl`, as `Handle::operation`. The sources are formatted by rustfmt, so a block
/// ends at the next line that begins with a brace.
fn operations_in(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside = None;
    for line in source.lines() {
        if let Some(name) = line.strip_prefix("impl ").and_then(|rest| rest.strip_suffix(" {")) {
            inside = ["GeoCache"]
                .into_iter()
                .chain(HANDLES.iter().map(|(_, handle)| *handle))
                .find(|it| *it == name);
        } else if line == "}" {
            inside = None;
        } else if let (Some(handle), Some(operation)) = (inside, public_function(line)) {
            found.push(format!("{handle}::{operation}"));
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
    let qualified = |(area, _, operations): &(&str, &str, &[&str])| {
        operations.iter().map(|name| format!("{}::{name}", handle_of(area))).collect::<Vec<_>>()
    };
    let claimed: BTreeSet<String> = table.iter().flat_map(qualified).collect();
    let exempt: BTreeSet<String> = exempt.iter().map(|(operation, _)| (*operation).to_owned()).collect();
    let unclaimed = operations.iter().filter(|(name, _)| !claimed.contains(*name) && !exempt.contains(*name));
    let unclaimed = unclaimed.map(|(name, file)| {
        format!(
            "{name} ({file}) has no claim: write one in tests/tests/matrix/ and name it in the table there, or say in EXEMPT why \
             it needs none"
        )
    });
    let unknown = claimed.union(&exempt).filter(|name| !operations.contains_key(*name));
    let unknown = unknown.map(|name| format!("there is no {name}, which the table or EXEMPT names"));
    let twice = claimed.intersection(&exempt).map(|name| format!("{name} has a claim, and is exempt"));
    unclaimed.chain(unknown).chain(twice).collect()
}

#[test]
fn every_operation_has_a_claim() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/geocache/src");
    let mut operations = BTreeMap::new();
    read_sources(&source, &mut operations);
    for known in [
        "GeoCache::get_or_load",
        "GeoClient::mirrored",
        "GeoCluster::endpoint",
        "Mirror::hold",
        "Routes::status",
    ] {
        assert!(operations.contains_key(known), "the source is read, and {known} is in it");
    }
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
fn a_public_function_of_a_handle_is_found_and_no_other() {
    let source = "impl GeoCache {\n    pub fn one(&self) {\n    }\n    pub(crate) fn two() {}\n    fn three() {}\n    \
                  pub async fn four<T>(\n}\nimpl Other {\n    pub fn five() {}\n}\nimpl Routes {\n    pub const fn six() {}\n}\n";
    assert_eq!(operations_in(source), ["GeoCache::one", "GeoCache::four", "Routes::six"]);
}

#[test]
fn what_is_missing_superfluous_or_both_is_named() {
    let names = ["GeoCache::new", "GeoCache::old", "Routes::old"];
    let operations = BTreeMap::from(names.map(|name| (name.to_owned(), "x.rs".to_owned())));
    let found = violations(&operations, &[("a", "b", &["old", "gone"])], &[("GeoCache::old", "a reason")]);
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found[0].contains("GeoCache::new (x.rs)"));
    assert!(found[1].contains("Routes::old (x.rs)"), "a claim about one handle is none about another");
    assert!(found[2].contains("no GeoCache::gone"));
    assert!(found[3].contains("GeoCache::old has a claim"));
}
