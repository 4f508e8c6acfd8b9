//! The tests that need a broker or a memcached: one broker for the whole run, and never a run that tests nothing.
//!
//! A test that needs a memcached starts one of its own, which takes milliseconds; a run of such a file alone starts no broker.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, bail};
use clap::Args;

use crate::{
    broker::{Broker, URL_VARIABLE},
    child::{cargo, run_reading},
    faults::Faults,
    workspace::{BROKER_FEATURE, MEMCACHED_FEATURE, Workspace},
};

/// What such test files need, and besides what one with a broker may need: the nodes that go through faults.
const FEATURES: &str = "broker,fleet,memcached";

/// The module in which tests live that harm a broker, and so start one of their own.
const HARMFUL_MODULE: &str = "harms_the_broker";
/// Tells the harness that no test may start a broker.
const URL_ONLY_VARIABLE: &str = "GEOCACHE_TEST_URL_ONLY";
/// Of one whole run; a single test has its own, shorter bounds.
const RUN_BOUND: Duration = Duration::from_secs(40 * 60);

#[derive(Debug, Default, Args)]
pub(crate) struct Integration {
    /// Leave out the tests that harm a broker: there is only the one of GEOCACHE_AMQP_URL
    #[arg(long)]
    url_only: bool,
    /// Only the test file of this name, or the tests whose name contains this
    #[arg(conflicts_with = "faults")]
    filter: Option<String>,
    #[command(flatten)]
    pub(crate) faults: Faults,
}

/// Runs them.
///
/// # Errors
/// When no broker can be had, a test fails, or none was run.
pub(crate) fn run(workspace: &Workspace, integration: &Integration) -> Result<()> {
    if integration.url_only && std::env::var(URL_VARIABLE).map_or(true, |url| url.is_empty()) {
        bail!("--url-only needs {URL_VARIABLE} to name a broker");
    }
    let (broker_tests, memcached_tests) = (workspace.broker_tests(), workspace.memcached_tests());
    for (tests, feature) in [(&broker_tests, BROKER_FEATURE), (&memcached_tests, MEMCACHED_FEATURE)] {
        if tests.is_empty() {
            bail!("no test target of the package tests requires the feature {feature}");
        }
    }
    let needs_broker: BTreeSet<&str> = broker_tests.iter().map(|target| target.name.as_str()).collect();
    let targets: BTreeSet<&str> =
        broker_tests.iter().chain(&memcached_tests).map(|target| target.name.as_str()).collect();
    let mut command = cargo(&format!("test --package tests --features {FEATURES} --no-fail-fast"));
    let file = integration.filter.as_deref().filter(|filter| targets.contains(filter));
    let broker = match file {
        Some(file) if !needs_broker.contains(file) => None,
        _ => Some(Broker::provide()?),
    };
    for target in file.map_or(targets, |file| BTreeSet::from([file])) {
        command.args(["--test", target]);
    }
    command.arg("--");
    if let Some(broker) = &broker {
        command.env(URL_VARIABLE, broker.url());
    }
    if let (Some(filter), None) = (&integration.filter, file) {
        command.arg(filter);
    }
    if integration.url_only {
        command.args(["--skip", HARMFUL_MODULE]).env(URL_ONLY_VARIABLE, "1");
    }
    let mut count = Count::default();
    run_reading(&mut command, RUN_BOUND, |line| count.read(line))?;
    if integration.url_only {
        println!(
            "--url-only: the tests in modules named {HARMFUL_MODULE} were left out ({} not run)",
            count.left_out
        );
    }
    count.judge(integration.filter.as_deref())
}

/// What the test binaries said that they ran.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    run: usize,
    left_out: usize,
}

impl Count {
    fn read(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let number = |what: &str| {
            let part = result.split(['.', ';']).map(str::trim).find_map(|part| part.strip_suffix(what));
            part.and_then(|number| number.trim().parse::<usize>().ok()).unwrap_or(0)
        };
        self.run += number("passed") + number("failed");
        self.left_out += number("filtered out");
    }

    fn judge(&self, filter: Option<&str>) -> Result<()> {
        match (self.run, filter) {
            (0, Some(filter)) => {
                bail!("no integration test's name contains {filter:?}, so nothing was tested")
            }
            (0, None) => bail!("no integration test was run, so nothing was tested"),
            (run, _) => {
                println!("{run} integration tests passed");
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_binaries_are_added_up() {
        let mut count = Count::default();
        count.read("running 3 tests");
        count.read(
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.26s",
        );
        count.read(
            "test result: FAILED. 1 passed; 2 failed; 1 ignored; 0 measured; 1 filtered out; finished in 9s",
        );
        assert_eq!(count, Count { run: 5, left_out: 5 });
        count.judge(None).unwrap();
    }

    #[test]
    fn a_run_that_tested_nothing_fails() {
        let mut count = Count::default();
        count.read(
            "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0s",
        );
        assert!(count.judge(None).is_err());
        assert!(count.judge(Some("x")).unwrap_err().to_string().contains("\"x\""));
    }
}
