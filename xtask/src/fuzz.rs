//! The fuzz targets in `fuzz/`: outside the workspace, on a nightly compiler, each for a bounded time.

use std::{fs, process::Command};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    child::{run as run_child, shown},
    workspace::{Workspace, root},
};

/// The targets, and the longest input of each.
const TARGETS: [(&str, u32); 2] = [("decode", 4_096), ("replica", 1_024)];

/// What to fuzz.
#[derive(Debug, Args)]
pub(crate) struct Fuzz {
    /// One target alone: decode or replica
    target: Option<String>,
    /// Minutes for each target
    #[arg(long, default_value_t = 10)]
    minutes: u64,
}

impl Fuzz {
    /// Every target for its ten minutes.
    pub(crate) fn all() -> Self {
        Self { target: None, minutes: 10 }
    }
}

/// `cargo xtask fuzz`. What is found on the way is kept in `target/fuzz-corpus`, a finding in `fuzz/artifacts`.
///
/// # Errors
/// When a tool is missing, there is no such target, or something is found.
pub(crate) fn run(workspace: &Workspace, fuzz: &Fuzz) -> Result<()> {
    check_tools()?;
    let wanted = |name: &str| fuzz.target.as_deref().is_none_or(|target| target == name);
    let targets: Vec<_> = TARGETS.into_iter().filter(|(name, _)| wanted(name)).collect();
    if targets.is_empty() {
        let known = TARGETS.map(|(name, _)| name).join(", ");
        bail!("there is no fuzz target {:?}; there are: {known}", fuzz.target.as_deref().unwrap_or_default());
    }
    for (name, len_max) in targets {
        println!("── fuzz {name}");
        let found = workspace.scratch("fuzz-corpus").join(name);
        fs::create_dir_all(&found).with_context(|| format!("could not make {}", found.display()))?;
        let kept = root().join("fuzz/corpus").join(name);
        let mut command = Command::new("cargo");
        // No code of ours is unsafe, so the address sanitizer would find nothing and take most of the time.
        command.current_dir(root()).args(["+nightly", "fuzz", "run", "--sanitizer", "none", name]);
        command.args([&found, &kept]).arg("--");
        command.arg(format!("-max_total_time={}", fuzz.minutes * 60)).arg(format!("-max_len={len_max}"));
        run_child(&mut command)?;
    }
    Ok(())
}

fn check_tools() -> Result<()> {
    let mut version = Command::new("cargo");
    version.args(["+nightly", "fuzz", "--version"]);
    let answers = version.output().is_ok_and(|output| output.status.success());
    if !answers {
        bail!(
            "`{}` does not answer; install both with `rustup toolchain install nightly` and `cargo install cargo-fuzz`",
            shown(&version)
        );
    }
    Ok(())
}
