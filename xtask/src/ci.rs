//! Everything that a change has to pass, in the order in which it fails fastest.
//!
//! What this machine lacks is told first, all at once, rather than by the step that misses it many minutes later.

use anyhow::Result;

use crate::{
    bench,
    child::{cargo, run as run_child},
    conformance, examples,
    faults::{self, Faults},
    fixtures,
    fuzz::{self, Fuzz},
    integration::{self, Integration},
    layers, loom, miri, prerequisites,
    sim::{self, Sim},
    soak::{self, Soak},
    step::Steps,
    workspace::Workspace,
};

/// The package and the feature that compile the caches of others, which a change need not wait for: `nightly` looks there.
const PEERS: (&str, &str) = ("benches", bench::PEERS);

/// Seeds of the simulation that a change has to pass.
const SEEDS: u64 = 2_000;

/// Seeds of the simulation in a night.
const SEEDS_NIGHTLY: u64 = 20_000;

/// `cargo xtask ci`.
///
/// # Errors
/// At the first step that fails, with the command to run it again.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut steps = Steps::new("cargo xtask ci");
    steps.step("prerequisites", prerequisites::check)?;
    steps.command("format", cargo("fmt --all -- --check"))?;
    steps.step_of("layers", "cargo xtask layers", || layers::print_and_check(workspace))?;
    let features = features(workspace, |package, feature| (package, feature) != PEERS);
    steps.command(
        "clippy",
        cargo(&format!("clippy --workspace --all-targets --features {features} -- -D warnings")),
    )?;
    steps.step("each crate alone, with no feature and with each one", || each_crate_alone(workspace))?;
    steps
        .step_of("each library crate as a dependency", "cargo xtask fixtures", || fixtures::run(workspace))?;
    steps.command("unit and scenario tests", unit_and_scenario_tests())?;
    steps.command("doc tests", doc_tests())?;
    let again = format!("cargo xtask sim --seeds {SEEDS}");
    steps.step_of("simulated clusters", &again, || sim::run(&Sim::of_seeds(SEEDS)))?;
    let mut docs = cargo(&format!("doc --workspace --no-deps --features {features}"));
    docs.env("RUSTDOCFLAGS", "-D warnings");
    steps.command("documentation", docs)?;
    steps.step_of("examples", "cargo xtask examples", || examples::run(workspace))?;
    steps.step_of("integration tests on RabbitMQ", "cargo xtask test-integration", || {
        integration::run(workspace, &Integration::default())
    })?;
    steps.step_of("memccapable against geocached", "cargo xtask conformance", || {
        conformance::check(workspace)
    })?;
    steps.print_summary();
    Ok(())
}

/// `cargo xtask nightly`: what takes too long for every change. Each part is a command of its own.
///
/// # Errors
/// At the first part that fails.
pub(crate) fn nightly(workspace: &Workspace) -> Result<()> {
    let mut steps = Steps::new("cargo xtask nightly");
    let again = format!("cargo xtask sim --seeds {SEEDS_NIGHTLY}");
    steps.step_of("simulated clusters", &again, || sim::run(&Sim::of_seeds(SEEDS_NIGHTLY)))?;
    steps.step_of("each rule switched off", "cargo xtask sim --mutants", || sim::run(&Sim::mutants()))?;
    for profile in ["fast", "durable", "stream"] {
        let again = format!("cargo xtask test-integration --faults --profile {profile}");
        steps.step_of(&format!("faults under load, {profile}"), &again, || {
            faults::run(&Faults::all(profile))
        })?;
    }
    steps.step_of("interleavings", "cargo xtask loom", || loom::run(workspace))?;
    steps.step_of("unit tests under Miri", "cargo xtask miri", miri::run)?;
    let (package, feature) = PEERS;
    let peers =
        cargo(&format!("clippy --package {package} --all-targets --features {feature} -- -D warnings"));
    steps.command("clippy of what compares us with other crates", peers)?;
    let compared = || bench::run(workspace, Some("core"), &["--quick".to_owned()]);
    steps.step_of("caches compared, in short", "cargo xtask bench core -- --quick", compared)?;
    steps.step_of("fuzz targets", "cargo xtask fuzz", || fuzz::run(workspace, &Fuzz::all()))?;
    let soak = Soak::of_a_night();
    steps.step_of("random faults over RabbitMQ", &soak.again(), || soak::run(&soak))?;
    steps.print_summary();
    Ok(())
}

/// `cargo xtask test`.
///
/// # Errors
/// When a test fails.
pub(crate) fn test(filter: Option<&str>) -> Result<()> {
    let mut steps = Steps::new("cargo xtask test");
    for (name, mut command) in
        [("unit and scenario tests", unit_and_scenario_tests()), ("doc tests", doc_tests())]
    {
        command.args(filter.iter().flat_map(|&filter| ["--", filter]));
        steps.command(name, command)?;
    }
    steps.print_summary();
    println!("The tests that need a broker are run by `cargo xtask test-integration`.");
    Ok(())
}

/// The features that bring public items with tests and doc tests of their own, in crates that others leave them out of.
const TESTED: &str = "geo/prober,geocache/config,geocache/metrics,geocache/sim,resilience/tower";

fn unit_and_scenario_tests() -> std::process::Command {
    cargo(&format!("test --workspace --lib --bins --tests --features tests/sim,{TESTED}"))
}

fn doc_tests() -> std::process::Command {
    cargo(&format!("test --workspace --doc --features {TESTED}"))
}

/// The features of all members that are wanted, as cargo takes them.
fn features(workspace: &Workspace, wanted: impl Fn(&str, &str) -> bool) -> String {
    let mut names = Vec::new();
    for package in workspace.members() {
        let own = package.features.keys().filter(|feature| wanted(&package.name, feature));
        names.extend(own.map(|feature| format!("{}/{feature}", package.name)));
    }
    names.join(",")
}

/// A build of the whole workspace unites the features, which hides one that a crate forgot to name.
fn each_crate_alone(workspace: &Workspace) -> Result<()> {
    for package in workspace.crates() {
        let name = &package.name;
        run_child(&mut cargo(&format!("check --quiet --package {name} --no-default-features")))?;
        for feature in package.features.keys() {
            run_child(&mut cargo(&format!(
                "check --quiet --package {name} --no-default-features --features {feature}"
            )))?;
        }
        let features = package.features.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        println!(
            "{name}: alone{}",
            if features.is_empty() { String::new() } else { format!("; {features}") }
        );
    }
    Ok(())
}
