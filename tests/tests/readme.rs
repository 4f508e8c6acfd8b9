//! The README says nothing that is not there: each test that it names exists, each file that it links, each example.
//!
//! Its code is run by the doc tests of `geocache`.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What the project promises, in the order of the table.
const PROMISES: usize = 7;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The links of some Markdown: the text, and the target without what follows its `#`.
fn links(text: &str) -> Vec<(&str, &str)> {
    let link = |(at, _): (usize, &str)| {
        let shown = text[..at].rsplit_once('[')?.1;
        let target = text[at + 2..].split_once(')')?.0;
        Some((shown, target.split('#').next().unwrap_or_default()))
    };
    text.match_indices("](").filter_map(link).collect()
}

/// Those whose text is the name of a test in a source file.
fn tests_named(text: &str) -> Vec<(&str, &str)> {
    links(text)
        .into_iter()
        .filter_map(|(shown, target)| Some((shown.strip_prefix('`')?.strip_suffix('`')?, target)))
        .filter(|(shown, target)| {
            target.ends_with(".rs") && !target.contains("/examples/") && shown.contains('_')
        })
        .collect()
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

#[test]
fn each_promise_names_tests_that_exist() {
    let readme = readme();
    let (_, table) = readme.split_once("| promise |").expect("the table of promises");
    let (table, _) = table.split_once("\n\n").expect("its end");
    let rows: Vec<&str> = table.lines().skip(2).collect();
    assert_eq!(rows.len(), PROMISES);
    for row in rows {
        let tests = tests_named(row);
        assert!(tests.len() >= 2, "a promise without tests: {row}");
        for (test, file) in tests {
            let source =
                fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(is_run(&source, test), "there is no test {test} in {file}");
        }
    }
}

/// Whether a source has a test of this name, or a claim of the matrix, whose table makes tests of its claims.
fn is_run(source: &str, test: &str) -> bool {
    let Some((before, _)) = source.split_once(&format!("fn {test}(")) else { return false };
    let before = before.trim_end().trim_end_matches("async").trim_end();
    let attribute = before.lines().next_back().unwrap_or_default().trim_start();
    attribute.starts_with("#[test")
        || attribute.starts_with("#[tokio::test")
        || before.ends_with("pub(crate)")
}

#[test]
fn each_link_leads_to_something() {
    for page in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let inside =
            links(&text).into_iter().filter(|(_, target)| !target.is_empty() && !target.contains("://"));
        for (shown, target) in inside {
            assert!(root().join(target).exists(), "{page}: [{shown}] leads to {target}, which is not there");
        }
    }
}

#[test]
fn each_example_of_the_library_is_listed() {
    let readme = readme();
    for example in fs::read_dir(root().join("crates/geocache/examples")).unwrap() {
        let file = example.unwrap().file_name().into_string().unwrap();
        assert!(
            readme.contains(&format!("(crates/geocache/examples/{file})")),
            "{file} is not in the README"
        );
    }
}

#[test]
fn a_test_that_is_not_there_is_noticed() {
    let source = "    #[tokio::test]\n    async fn a_claim() {}\n\n    fn no_test() {}\n\npub(crate) async fn of_matrix(r: R) {}";
    assert_eq!(
        ["a_claim", "no_test", "of_matrix", "gone"].map(|name| is_run(source, name)),
        [true, false, true, false]
    );
    let text = "[`a_claim`](tests/x.rs) and [a page](docs/y.md#part), [`one`](crates/one)";
    assert_eq!(links(text), [("`a_claim`", "tests/x.rs"), ("a page", "docs/y.md"), ("`one`", "crates/one")]);
    assert_eq!(tests_named(text), [("a_claim", "tests/x.rs")]);
}
