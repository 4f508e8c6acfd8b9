//! Named, timed steps; a failing one says how to run it again.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::child;

/// The steps of one command, in order.
#[derive(Debug)]
pub(crate) struct Steps {
    again: &'static str,
    done: Vec<(String, Duration)>,
}

impl Steps {
    /// Steps of the command `again`, which is what a failing step names unless it has a command of its own.
    pub(crate) fn new(again: &'static str) -> Self {
        Self { again, done: Vec::new() }
    }

    /// Runs one.
    ///
    /// # Errors
    /// What it failed with, and the command to run it again.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let again = self.again;
        self.timed(name, again, work)
    }

    /// Runs one that a command of xtask runs too.
    ///
    /// # Errors
    /// As [`Steps::step`].
    pub(crate) fn step_of(
        &mut self,
        name: &str,
        again: &str,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.timed(name, again, work)
    }

    /// Runs one that is a single command.
    ///
    /// # Errors
    /// As [`Steps::step`].
    pub(crate) fn command(&mut self, name: &str, mut command: Command) -> Result<()> {
        let again = child::shown(&command);
        self.timed(name, &again, || child::run(&mut command))
    }

    fn timed(&mut self, name: &str, again: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        println!("── {name}");
        let start = Instant::now();
        work().with_context(|| format!("the step \"{name}\" failed; run it again with `{again}`"))?;
        let took = start.elapsed();
        println!("── {name}: passed in {:.1} s\n", took.as_secs_f64());
        self.done.push((name.to_owned(), took));
        Ok(())
    }

    /// Prints what was run and how long each took.
    pub(crate) fn print_summary(&self) {
        for (name, took) in &self.done {
            println!("{:>8.1} s  {name}", took.as_secs_f64());
        }
        let whole: Duration = self.done.iter().map(|(_, took)| *took).sum();
        println!("{:>8.1} s  all {} steps passed", whole.as_secs_f64(), self.done.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_step_stops_and_says_how_to_run_it_again() {
        let mut steps = Steps::new("cargo xtask ci");
        steps.step("first", || Ok(())).unwrap();
        let error = steps.step_of("second", "cargo xtask layers", || anyhow::bail!("no")).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("\"second\" failed; run it again with `cargo xtask layers`"), "{error}");
        assert!(error.ends_with("no"), "{error}");
        assert_eq!(steps.done.len(), 1);
    }
}
