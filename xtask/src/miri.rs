//! The unit tests of `cache-core` under Miri, an interpreter that finds undefined behaviour.
//!
//! The crate itself has no unsafe code, but its tables and its locks come from crates that have: whether the ways in which
//! they are used here are sound is what Miri can see and a test cannot. Tests that would take it too long say so where they stand.

use std::process::Command;

use anyhow::{Result, bail};

use crate::child::{run as run_child, shown};

/// `cargo xtask miri`.
///
/// # Errors
/// When Miri is missing or finds something.
pub(crate) fn run() -> Result<()> {
    check_tool()?;
    let mut command = Command::new("cargo");
    command.args(["+nightly", "miri", "test", "--package", "cache-core", "--lib"]);
    run_child(command.current_dir(crate::workspace::root()))
}

fn check_tool() -> Result<()> {
    let mut version = Command::new("cargo");
    version.args(["+nightly", "miri", "--version"]);
    let answers = version.output().is_ok_and(|output| output.status.success());
    if !answers {
        bail!(
            "`{}` does not answer; install it with `rustup toolchain install nightly --component miri,rust-src`",
            shown(&version)
        );
    }
    Ok(())
}
