//! The simulation that tries to break the replica protocol, built in release mode.

use anyhow::Result;
use clap::Args;

use crate::child::{cargo, run as run_child};

/// What to simulate.
#[derive(Debug, Default, Args)]
pub(crate) struct Sim {
    /// How many seeds, from the first on
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// One seed alone, with its trace, shrunk where it fails
    #[arg(long, value_name = "S", conflicts_with_all = ["seeds", "minutes", "from"])]
    seed: Option<u64>,
    /// The first seed; 0 unless told otherwise
    #[arg(long, value_name = "S")]
    from: Option<u64>,
    /// As many seeds as there is time for
    #[arg(long, value_name = "M", conflicts_with = "seeds")]
    minutes: Option<u64>,
    /// Switch the rules of the protocol off, one at a time, until something notices
    #[arg(long, conflicts_with_all = ["seed", "minutes", "from"])]
    mutants: bool,
    /// With --mutants: only the rules whose name contains this
    #[arg(long, value_name = "RULE", requires = "mutants")]
    only: Option<String>,
}

impl Sim {
    /// This many seeds, from the first on.
    pub(crate) fn of_seeds(seeds: u64) -> Self {
        Self { seeds: Some(seeds), ..Self::default() }
    }
}

impl Sim {
    /// Every rule switched off in turn.
    pub(crate) fn mutants() -> Self {
        Self { mutants: true, ..Self::default() }
    }
}

/// `cargo xtask sim`.
///
/// # Errors
/// When a seed fails, or a rule is missed by nothing.
pub(crate) fn run(sim: &Sim) -> Result<()> {
    let mut command = cargo("run --release --quiet --package tests --features sim --bin sim --");
    command.args(arguments(sim));
    run_child(&mut command)
}

fn arguments(sim: &Sim) -> Vec<String> {
    let mut words = Vec::new();
    let numbers =
        [("--seeds", sim.seeds), ("--seed", sim.seed), ("--from", sim.from), ("--minutes", sim.minutes)];
    for (name, number) in numbers {
        words.extend(number.map(|number| [name.to_owned(), number.to_string()]).into_iter().flatten());
    }
    if sim.mutants {
        words.push("--mutants".to_owned());
    }
    words.extend(sim.only.iter().flat_map(|rule| ["--only".to_owned(), rule.clone()]));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_is_handed_on() {
        assert_eq!(arguments(&Sim::of_seeds(2_000)), ["--seeds", "2000"]);
        let replay = Sim { seed: Some(7), ..Sim::default() };
        assert_eq!(arguments(&replay), ["--seed", "7"]);
        let mutants = Sim { mutants: true, only: Some("scrub".to_owned()), seeds: Some(9), ..Sim::default() };
        assert_eq!(arguments(&mutants), ["--seeds", "9", "--mutants", "--only", "scrub"]);
    }
}
