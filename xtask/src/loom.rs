//! The models of what threads share: the crates' own code in every interleaving, as loom searches them.
//!
//! `--cfg loom` changes what threads meet at, in those crates and in the crates that they wait with, so this build has a folder of its own.

use std::{env, time::Duration};

use anyhow::{Result, bail};

use crate::{
    child::{cargo, run_reading},
    workspace::Workspace,
};

/// The build takes about one minute of it, the search two.
const BOUND: Duration = Duration::from_secs(1_800);

/// Where the models are: the crate, and what their tests' names begin with.
const MODELS: [(&str, &str); 2] = [("cache-core", "load::model::"), ("resilience", "breaker::model::")];

/// `cargo xtask loom`.
///
/// # Errors
/// When an interleaving fails, with the states that led to it, or no model was found.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let flags = env::var("RUSTFLAGS").unwrap_or_default();
    for (package, models) in MODELS {
        let mut command = cargo(&format!("test --release --package {package} --lib {models}"));
        command.env("RUSTFLAGS", format!("{flags} --cfg loom").trim_start());
        command.env("CARGO_TARGET_DIR", workspace.scratch("loom"));
        let mut passed = 0;
        run_reading(&mut command, BOUND, |line| passed += usize::from(is_passed(line, models)))?;
        if passed == 0 {
            bail!("no test of {package} is named {models}…, so nothing was searched");
        }
        println!("{package}: {passed} models hold");
    }
    Ok(())
}

fn is_passed(line: &str, models: &str) -> bool {
    line.strip_prefix("test ").is_some_and(|test| test.starts_with(models) && test.ends_with(" ... ok"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_models_that_passed_are_counted() {
        assert!(is_passed("test load::model::two_wait ... ok", "load::model::"));
        for other in
            ["test load::model::two_wait ... FAILED", "test load::tests::two_wait ... ok", "test result: ok."]
        {
            assert!(!is_passed(other, "load::model::"), "{other}");
        }
    }
}
