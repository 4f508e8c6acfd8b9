//! The broker of a run, and the one for a developer's own use; both are the `broker` binary of the package `tests`.
//!
//! A run's broker lives exactly as long as xtask holds the other end of a pipe: however xtask ends, SIGKILL included,
//! the supervisor sees the pipe close and ends the broker and everything it started.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use crate::child::{Running, cargo, run as run_child, wait_until};

/// The variable that names a broker already there, and through which a run's broker is passed on.
pub(crate) const URL_VARIABLE: &str = "GEOCACHE_AMQP_URL";

const END_BOUND: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum Order {
    /// Start one that stays, and print how to use it
    Up,
    /// End it
    Down,
    /// Say whether it runs
    Status,
}

/// `cargo xtask broker …`.
///
/// # Errors
/// When the broker's own command fails.
pub(crate) fn run(order: Order) -> Result<()> {
    let order = match order {
        Order::Up => "up",
        Order::Down => "down",
        Order::Status => "status",
    };
    run_child(&mut cargo(&format!("run --quiet --package tests --bin broker -- {order}")))
}

/// A broker that ends with this value.
#[derive(Debug)]
pub(crate) struct Broker {
    url: String,
    supervisor: Running,
}

impl Broker {
    /// Finds, starts or installs one, in the order that the error names when there is none.
    ///
    /// # Errors
    /// When none can be had.
    pub(crate) fn provide() -> Result<Self> {
        // Built first, so that cargo's output and the supervisor's do not mix.
        run_child(&mut cargo("build --quiet --package tests --bin broker"))?;
        let mut command = cargo("run --quiet --package tests --bin broker -- run");
        let mut supervisor = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let stdout = supervisor.child().stdout.take().context("the supervisor has no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let reply: serde_json::Value =
            serde_json::from_str(&line).context("the broker's supervisor ended without an answer")?;
        if let Some(error) = reply["error"].as_str() {
            bail!("{error}");
        }
        let url = reply["url"].as_str().context("the broker's supervisor named no url")?.to_owned();
        println!("broker: {}", reply["source"].as_str().unwrap_or_default());
        Ok(Self { url, supervisor })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let child = self.supervisor.child();
        drop(child.stdin.take());
        if wait_until("the broker ended", END_BOUND, || Ok(child.try_wait()?.is_some())).is_err() {
            // Interrupted meanwhile: its supervisor ends by the same signal, and dropping it waits for that.
            eprintln!("ending the broker");
        }
    }
}
