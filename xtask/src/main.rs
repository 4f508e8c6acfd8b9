//! The commands that orchestrate the workspace: `cargo xtask --help` lists them.
//!
//! xtask names no crate of the workspace, so it builds in seconds and works while they do not compile; what it needs of
//! them it runs through cargo. Every child runs in a process group of its own, and a signal to xtask ends them all.
//! What each command runs is in `ci.rs`, read from top to bottom; the layer law is the table in `layers.rs`.

mod bench;
mod broker;
mod child;
mod ci;
mod conformance;
mod examples;
mod faults;
mod fixtures;
mod fuzz;
mod integration;
mod layers;
mod loom;
mod miri;
mod prerequisites;
mod sim;
mod soak;
mod step;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{fuzz::Fuzz, integration::Integration, sim::Sim, soak::Soak, step::Steps, workspace::Workspace};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The commands that orchestrate the workspace")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything that a change has to pass
    Ci,
    /// Unit, scenario and doc tests: whatever needs no broker
    Test {
        /// Only the tests whose name contains this
        filter: Option<String>,
    },
    /// The tests that need RabbitMQ, on one that is found, started or installed
    TestIntegration(Integration),
    /// A RabbitMQ for your own use
    Broker {
        #[command(subcommand)]
        order: broker::Order,
    },
    /// A standalone geocached against memcached's own protocol suite
    Conformance,
    /// The examples of all crates, each run to its end
    Examples,
    /// Measurements, in release mode; without a name, all of them
    Bench {
        /// protocol, replication, …: a binary or bench target of the package benches
        name: Option<String>,
        /// Arguments of the measurement
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Simulated clusters that try to break the replica protocol; everything is decided by a seed
    Sim(Sim),
    /// Random faults on three regions over RabbitMQ, while contents, memory and descriptors are watched
    Soak(Soak),
    /// The fuzz targets, on a nightly compiler and cargo-fuzz
    Fuzz(Fuzz),
    /// Every interleaving of what cache-core's threads do while values are loaded
    Loom,
    /// The unit tests of cache-core under Miri, on a nightly compiler
    Miri,
    /// What takes too long for every change: 20,000 seeds, every rule switched off once, faults, interleavings, Miri, the fuzz targets, a short soak
    Nightly,
    /// Print and check which crate may depend on which
    Layers,
    /// Build and run, for each library crate, a program outside the workspace that uses it alone
    Fixtures,
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    match child::end_all_on_signals().and_then(|()| run(command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if child::interrupted() => {
            eprintln!("interrupted; everything that was started is ended");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let workspace = Workspace::load()?;
    match command {
        Command::Ci => ci::run(&workspace),
        Command::Test { filter } => ci::test(filter.as_deref()),
        Command::TestIntegration(integration) if integration.faults.faults => {
            faults::run(&integration.faults)
        }
        Command::TestIntegration(integration) => Steps::new("cargo xtask test-integration")
            .step("integration", || integration::run(&workspace, &integration)),
        Command::Broker { order } => broker::run(order),
        Command::Conformance => conformance::check(&workspace),
        Command::Examples => examples::run(&workspace),
        Command::Bench { name, arguments } => bench::run(&workspace, name.as_deref(), &arguments),
        Command::Sim(sim) => sim::run(&sim),
        Command::Soak(soak) => soak::run(&soak),
        Command::Fuzz(fuzz) => fuzz::run(&workspace, &fuzz),
        Command::Loom => loom::run(&workspace),
        Command::Miri => miri::run(),
        Command::Nightly => ci::nightly(&workspace),
        Command::Layers => layers::print_and_check(&workspace),
        Command::Fixtures => fixtures::run(&workspace),
    }
}
