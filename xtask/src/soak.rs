//! Random faults for minutes or hours; played by the package `tests`.

use anyhow::Result;
use clap::Args;

use crate::child::{cargo, run as run_child};

/// Minutes of a soak in a night: long enough to judge the memory of the node that is never killed, and of the broker.
const MINUTES_NIGHTLY: f64 = 10.0;

/// What to soak in.
#[derive(Debug, Default, Args)]
pub(crate) struct Soak {
    /// How long, from 1 on; 20 unless told otherwise
    #[arg(long, value_name = "N")]
    minutes: Option<f64>,
    /// What decides the faults; random and printed unless told otherwise
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// fast, durable or stream; fast unless told otherwise
    #[arg(long)]
    profile: Option<String>,
    /// Writes a second in each of the three regions; 1,000 unless told otherwise
    #[arg(long, value_name = "WRITES")]
    rate: Option<u32>,
}

impl Soak {
    /// The short one of a night.
    pub(crate) fn of_a_night() -> Self {
        Self { minutes: Some(MINUTES_NIGHTLY), ..Self::default() }
    }

    /// The command that soaks so.
    pub(crate) fn again(&self) -> String {
        [vec!["cargo xtask soak".to_owned()], arguments(self)].concat().join(" ")
    }
}

/// `cargo xtask soak`.
///
/// # Errors
/// When the regions differ, an acknowledged write is lost, or memory, descriptors or threads grow.
pub(crate) fn run(soak: &Soak) -> Result<()> {
    // All of them first: the soak starts others.
    run_child(&mut cargo("build --release --quiet --package tests --features fleet --bins"))?;
    let mut command = cargo("run --release --quiet --package tests --features fleet --bin soak --");
    command.args(arguments(soak));
    run_child(&mut command)
}

fn arguments(soak: &Soak) -> Vec<String> {
    let options = [
        ("--minutes", soak.minutes.map(|minutes| minutes.to_string())),
        ("--seed", soak.seed.map(|seed| seed.to_string())),
        ("--profile", soak.profile.clone()),
        ("--rate", soak.rate.map(|rate| rate.to_string())),
    ];
    let given = options.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?]));
    given.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_is_handed_on() {
        assert_eq!(arguments(&Soak::default()), Vec::<String>::new());
        let soak =
            Soak { minutes: Some(2.5), seed: Some(7), profile: Some("durable".to_owned()), rate: None };
        assert_eq!(soak.again(), "cargo xtask soak --minutes 2.5 --seed 7 --profile durable");
    }
}
