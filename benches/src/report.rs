//! Figures: printed for people, written as JSON for programs.

use std::{
    collections::BTreeMap,
    fs,
    io::{IsTerminal, stdout},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// One measured figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// How much of it.
    pub value: f64,
    /// In what.
    pub unit: &'static str,
    /// Ratios of `value` to what others reached in the same run, by their names.
    pub peers: BTreeMap<&'static str, f64>,
    /// The most that it may be, where it has a target.
    pub target: Option<f64>,
}

impl Figure {
    /// A figure that is compared with nobody's.
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, peers: BTreeMap::new(), target: None }
    }

    /// The same, with its ratio to a peer's.
    #[must_use]
    pub fn beside(mut self, peer: &'static str, ratio: f64) -> Self {
        self.peers.insert(peer, ratio);
        self
    }

    /// The same, with the most that it may be.
    #[must_use]
    pub fn at_most(mut self, target: f64) -> Self {
        self.target = Some(target);
        self
    }

    /// Whether it has a target and is beyond it. One that is not a number is.
    pub fn misses_target(&self) -> bool {
        self.target.is_some_and(|target| self.value.is_nan() || self.value > target)
    }

    /// How it stands to its target: the end of its line. Empty where it has none, red on a terminal where it misses it.
    pub fn verdict(&self) -> String {
        let Some(target) = self.target else { return String::new() };
        let (held, missed) = (format!("target {target} held"), format!("TARGET MISSED: {target}"));
        match (self.misses_target(), stdout().is_terminal()) {
            (false, _) => held,
            (true, false) => missed,
            (true, true) => format!("\x1b[1;31m{missed}\x1b[0m"),
        }
    }

    fn json(&self) -> Value {
        let mut json =
            json!({"name": self.name, "value": self.value, "unit": self.unit, "peers": self.peers});
        if let Some(target) = self.target {
            json["target"] = target.into();
        }
        json
    }
}

/// Writes the figures of a measurement to its file and prints where that is; without figures, does nothing.
///
/// # Errors
/// When the file cannot be written.
pub fn write(measurement: &str, figures: &[Figure]) -> Result<()> {
    if figures.is_empty() {
        return Ok(());
    }
    let path = folder().join(format!("{measurement}.json"));
    let lines: Vec<String> = figures.iter().map(|figure| format!("  {}", figure.json())).collect();
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    fs::create_dir_all(folder())
        .and_then(|()| fs::write(&path, text))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("written to {}", path.display());
    Ok(())
}

/// `target/bench` of the workspace, wherever cargo builds.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("bench")
}

/// The middle of the values, 0 of none; of two middles their mean.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median([]), 0.0);
    }

    #[test]
    fn a_figure_is_written_with_its_unit_and_peers() {
        let figure = Figure::new("fast.records", 5.0, "records/s").beside("raw_lapin", 0.5);
        let wanted = json!({
            "name": "fast.records", "value": 5.0, "unit": "records/s", "peers": {"raw_lapin": 0.5}
        });
        assert_eq!(figure.json(), wanted);
    }

    #[test]
    fn a_figure_beyond_its_target_says_so() {
        let figure = |value| Figure::new("sync", value, "s").at_most(5.0);
        assert_eq!(figure(5.0).verdict(), "target 5 held");
        assert!(figure(5.1).verdict().contains("TARGET MISSED: 5"));
        assert!(figure(f64::NAN).misses_target());
        assert_eq!(figure(5.1).json()["target"], 5.0);
        assert_eq!(Figure::new("sync", 9.0, "s").verdict(), "");
    }
}
