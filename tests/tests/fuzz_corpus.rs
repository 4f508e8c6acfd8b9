//! What the fuzz targets found worth keeping, run without a fuzzer: `fuzz/corpus/`, one folder a target.

use std::{fs, path::PathBuf};

// The targets are outside the workspace, since they need a nightly compiler; what they check is not.
#[expect(unreachable_pub, reason = "there it is a library's")]
#[path = "../../fuzz/src/decode.rs"]
mod decode;
#[expect(unreachable_pub, reason = "there it is a library's")]
#[path = "../../fuzz/src/replica.rs"]
mod replica;

/// The inputs of a target, each with its file's name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<_> = entries
        .map(|entry| entry.expect("a file of the corpus"))
        .map(|entry| {
            (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("its bytes"))
        })
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 10, "{} has {} inputs", folder.display(), inputs.len());
    inputs
}

/// Shows which input it was when the check panics.
fn each(target: &str, check: impl Fn(&[u8])) {
    for (name, input) in corpus(target) {
        println!("fuzz/corpus/{target}/{name}");
        check(&input);
    }
}

#[test]
fn every_kept_input_is_decoded_or_refused_within_the_bound_of_memory() {
    each("decode", decode::check);
}

#[test]
fn every_kept_schedule_keeps_the_bars_and_ends_in_agreement() {
    each("replica", replica::check);
}
