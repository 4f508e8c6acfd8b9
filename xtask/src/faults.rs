//! The fault matrix: three regions under load, faults, and what they leave behind; built in release mode.

use anyhow::Result;
use clap::Args;

use crate::child::{cargo, run as run_child};

/// The feature of the package `tests` that builds the fleet.
const FEATURE: &str = "fleet";

/// Which rows.
#[derive(Debug, Default, Args)]
pub(crate) struct Faults {
    /// Play the fault matrix instead, each row on a broker of its own
    #[arg(long, conflicts_with = "url_only")]
    pub(crate) faults: bool,
    /// Only the rows whose name contains this
    #[arg(long, value_name = "ROW", requires = "faults")]
    only: Option<String>,
    /// The delivery profile: fast, the default, durable or stream
    #[arg(long, value_name = "PROFILE", requires = "faults")]
    profile: Option<String>,
    /// What decides the writes and reads; random and printed unless told otherwise
    #[arg(long, value_name = "S", requires = "faults")]
    seed: Option<u64>,
    /// Print each row as a line of JSON
    #[arg(long, requires = "faults")]
    json: bool,
}

impl Faults {
    /// All rows, with the profile of that name.
    pub(crate) fn all(profile: &str) -> Self {
        Self { faults: true, profile: Some(profile.to_owned()), ..Self::default() }
    }
}

/// `cargo xtask test-integration --faults`.
///
/// # Errors
/// When a row is red.
pub(crate) fn run(faults: &Faults) -> Result<()> {
    // All three binaries at first: the fleet runs the other two.
    run_child(&mut cargo(&format!("build --release --quiet --package tests --features {FEATURE} --bins")))?;
    let mut command =
        cargo(&format!("run --release --quiet --package tests --features {FEATURE} --bin faults --"));
    command.args(arguments(faults));
    run_child(&mut command)
}

fn arguments(faults: &Faults) -> Vec<String> {
    let mut words = Vec::new();
    for (name, value) in [("--only", &faults.only), ("--profile", &faults.profile)] {
        words.extend(value.iter().flat_map(|value| [name.to_owned(), value.clone()]));
    }
    if let Some(seed) = faults.seed {
        words.extend(["--seed".to_owned(), seed.to_string()]);
    }
    if faults.json {
        words.push("--json".to_owned());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_is_handed_on() {
        assert_eq!(arguments(&Faults::all("durable")), ["--profile", "durable"]);
        let again = Faults { seed: Some(7), ..Faults::all("fast") };
        assert_eq!(arguments(&again), ["--profile", "fast", "--seed", "7"]);
        let one = Faults { faults: true, only: Some("hold-15".to_owned()), json: true, ..Faults::default() };
        assert_eq!(arguments(&one), ["--only", "hold-15", "--json"]);
    }
}
