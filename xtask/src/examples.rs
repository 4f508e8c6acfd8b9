//! Runs the examples of all crates: one that does not end well is a wrong example.
//!
//! One that needs a broker requires the feature `rabbitmq`. It is left to an integration test, which has a broker, and that the
//! test runs it is checked here: no example is run by nobody.

use std::{fs, time::Duration};

use anyhow::{Result, bail};
use cargo_metadata::TargetKind;

use crate::{
    child::{cargo, run_reading},
    workspace::{Workspace, root},
};

const BOUND: Duration = Duration::from_secs(300);

/// What an example requires that needs a broker, and the integration test that runs it.
const OVER_A_BROKER: &str = "rabbitmq";
const BROKER_EXAMPLES: &str = "tests/tests/rabbitmq_example.rs";

/// Runs them, one after the other.
///
/// # Errors
/// At the first that fails or takes too long, one that nobody runs, or where there is none.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let elsewhere = fs::read_to_string(root().join(BROKER_EXAMPLES))?;
    let mut count = 0;
    for package in workspace.crates() {
        for example in workspace.targets(&package.name, &TargetKind::Example) {
            let (package, name) = (&package.name, &example.name);
            if example.required_features.iter().any(|feature| feature == OVER_A_BROKER) {
                if !elsewhere.contains(&format!("\"{name}\"")) {
                    bail!(
                        "the example {name} of {package} needs a broker, but {BROKER_EXAMPLES} does not run it"
                    );
                }
                println!("example {name} of {package} is run by {BROKER_EXAMPLES}");
                continue;
            }
            let mut command = cargo(&format!("run --quiet --package {package} --example {name}"));
            if !example.required_features.is_empty() {
                command.args(["--features", &example.required_features.join(",")]);
            }
            println!("example {name} of {package}");
            run_reading(&mut command, BOUND, |_| {})?;
            count += 1;
        }
    }
    if count == 0 {
        bail!("no crate has an example, so nothing was run");
    }
    println!("{count} {} ran", if count == 1 { "example" } else { "examples" });
    Ok(())
}
