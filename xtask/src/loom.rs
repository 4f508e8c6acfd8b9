//! The models of the loads of `cache-core`: the crate's own code in every interleaving, as loom searches them.
//!
//! `--cfg loom` changes what threads meet at, in that crate and in the crates that it waits with, so this build has a folder of its own.

use std::{env, time::Duration};

use anyhow::{Result, bail};

use crate::{
    child::{cargo, run_reading},
    workspace::Workspace,
};

/// The build takes about one minute of it, the search two.
const BOUND: Duration = Duration::from_secs(1_800);

/// Where the models are, and so what their tests' names begin with.
const MODELS: &str = "load::model::";

/// `cargo xtask loom`.
///
/// # Errors
/// When an interleaving fails, with the states that led to it, or no model was found.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut command = cargo(&format!("test --release --package cache-core --lib {MODELS}"));
    let flags = env::var("RUSTFLAGS").unwrap_or_default();
    command.env("RUSTFLAGS", format!("{flags} --cfg loom").trim_start());
    command.env("CARGO_TARGET_DIR", workspace.scratch("loom"));
    let mut passed = 0;
    run_reading(&mut command, BOUND, |line| passed += usize::from(is_passed(line)))?;
    if passed == 0 {
        bail!("no test of cache-core is named {MODELS}…, so nothing was searched");
    }
    println!("{passed} models hold");
    Ok(())
}

fn is_passed(line: &str) -> bool {
    line.strip_prefix("test ").is_some_and(|test| test.starts_with(MODELS) && test.ends_with(" ... ok"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_models_that_passed_are_counted() {
        assert!(is_passed("test load::model::two_wait ... ok"));
        for other in
            ["test load::model::two_wait ... FAILED", "test load::tests::two_wait ... ok", "test result: ok."]
        {
            assert!(!is_passed(other), "{other}");
        }
    }
}
