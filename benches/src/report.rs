//! Figures: printed for people, written as JSON for programs.

use std::{
    collections::BTreeMap,
    fs,
    io::{IsTerminal, stdout},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// What a number is held to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// It may be this, or less.
    AtMost(f64),
    /// It may be this, or more.
    AtLeast(f64),
}

impl Bound {
    /// Whether a number keeps it. One that is not a number does not.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    /// How a number stands to it: red on a terminal where it misses it.
    pub fn verdict(self, value: f64) -> String {
        let target = self.text();
        let (held, missed) = (format!("target {target} held"), format!("TARGET MISSED: {target}"));
        match (self.holds(value), stdout().is_terminal()) {
            (true, _) => held,
            (false, false) => missed,
            (false, true) => format!("\x1b[1;31m{missed}\x1b[0m"),
        }
    }

    /// As it is printed: an upper bound alone, a lower one after a sign.
    pub fn text(self) -> String {
        match self {
            Self::AtMost(most) => format!("{}", short(most)),
            Self::AtLeast(least) => format!("≥ {}", short(least)),
        }
    }

    fn json(self) -> Value {
        match self {
            Self::AtMost(most) => most.into(),
            Self::AtLeast(least) => json!({"at_least": least}),
        }
    }
}

/// To four digits behind the point.
fn short(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// How a figure stands to what somebody else reached in the same run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// The figure divided by the other's: the median of the rounds.
    pub median: f64,
    /// The lowest and the highest round, where there were several.
    pub spread: Option<(f64, f64)>,
    /// What the median is held to.
    pub target: Option<Bound>,
}

impl Ratio {
    /// Of several rounds.
    pub fn of(rounds: impl IntoIterator<Item = f64>) -> Self {
        let rounds: Vec<f64> = rounds.into_iter().collect();
        Self { median: median(rounds.iter().copied()), spread: spread(&rounds), target: None }
    }

    /// Whether it has a target and is beyond it.
    pub fn misses_target(&self) -> bool {
        self.target.is_some_and(|target| !target.holds(self.median))
    }
}

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
    pub peers: BTreeMap<&'static str, Ratio>,
    /// What it is held to, where it has a target.
    pub target: Option<Bound>,
}

impl Figure {
    /// A figure that is compared with nobody's.
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, peers: BTreeMap::new(), target: None }
    }

    /// The same, with its ratio to a peer's.
    #[must_use]
    pub fn beside(mut self, peer: &'static str, ratio: f64) -> Self {
        self.peers.insert(peer, Ratio { median: ratio, spread: None, target: None });
        self
    }

    /// The same, with the most that it may be.
    #[must_use]
    pub fn at_most(mut self, target: f64) -> Self {
        self.target = Some(Bound::AtMost(target));
        self
    }

    /// The same, with the least that it may be.
    #[must_use]
    pub fn at_least(mut self, target: f64) -> Self {
        self.target = Some(Bound::AtLeast(target));
        self
    }

    /// Whether it has a target and is beyond it. One that is not a number is.
    pub fn misses_target(&self) -> bool {
        self.target.is_some_and(|target| !target.holds(self.value))
    }

    /// How many targets it misses: its own, and those of its ratios.
    pub fn targets_missed(&self) -> usize {
        usize::from(self.misses_target()) + self.peers.values().filter(|ratio| ratio.misses_target()).count()
    }

    /// How it stands to its target: the end of its line. Empty where it has none, red on a terminal where it misses it.
    pub fn verdict(&self) -> String {
        self.target.map_or_else(String::new, |target| target.verdict(self.value))
    }

    fn json(&self) -> Value {
        fn collect<T: Into<Value>>(
            peers: &BTreeMap<&'static str, Ratio>,
            part: impl Fn(&Ratio) -> Option<T>,
        ) -> serde_json::Map<String, Value> {
            peers.iter().filter_map(|(peer, ratio)| Some(((*peer).to_owned(), part(ratio)?.into()))).collect()
        }
        let peers = collect(&self.peers, |ratio| Some(ratio.median));
        let mut json = json!({"name": self.name, "value": self.value, "unit": self.unit, "peers": peers});
        if let Some(target) = self.target {
            json["target"] = target.json();
        }
        let spreads = collect(&self.peers, |ratio| ratio.spread.map(|(low, high)| vec![low, high]));
        if !spreads.is_empty() {
            json["spreads"] = spreads.into();
        }
        let targets = collect(&self.peers, |ratio| ratio.target.map(Bound::json));
        if !targets.is_empty() {
            json["peer_targets"] = targets.into();
        }
        json
    }
}

/// Writes the figures of a measurement to its file and prints where that is; without figures, does nothing. Figures of
/// an earlier run that this one did not measure stay, so that a measurement can be made in parts.
///
/// # Errors
/// When the file cannot be written.
pub fn write(measurement: &str, figures: &[Figure]) -> Result<()> {
    if figures.is_empty() {
        return Ok(());
    }
    let path = folder().join(format!("{measurement}.json"));
    let lines: Vec<String> = kept(&path, figures)
        .into_iter()
        .chain(figures.iter().map(Figure::json))
        .map(|json| format!("  {json}"))
        .collect();
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    fs::create_dir_all(folder())
        .and_then(|()| fs::write(&path, text))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("written to {}", path.display());
    Ok(())
}

/// What the file holds of other figures. One that is missing or spoilt is written anew.
fn kept(path: &Path, figures: &[Figure]) -> Vec<Value> {
    let old = fs::read(path).ok().and_then(|text| serde_json::from_slice::<Vec<Value>>(&text).ok());
    let mut old = old.unwrap_or_default();
    old.retain(|old| figures.iter().all(|figure| old["name"] != figure.name));
    old
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

/// The lowest and the highest of two values or more.
pub fn spread(values: &[f64]) -> Option<(f64, f64)> {
    let low = values.iter().copied().min_by(f64::total_cmp)?;
    let high = values.iter().copied().max_by(f64::total_cmp)?;
    (values.len() > 1).then_some((low, high))
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
    fn a_ratio_is_written_with_its_spread_and_target() {
        let mut ratio = Ratio::of([1.0, 1.4, 1.1]);
        ratio.target = Some(Bound::AtLeast(1.2));
        let mut figure = Figure::new("hits", 5.0, "Mops/s");
        figure.peers.insert("other", ratio);
        let wanted = json!({
            "name": "hits", "value": 5.0, "unit": "Mops/s", "peers": {"other": 1.1},
            "spreads": {"other": [1.0, 1.4]}, "peer_targets": {"other": {"at_least": 1.2}},
        });
        assert_eq!(figure.json(), wanted);
        assert_eq!(figure.targets_missed(), 1);
    }

    #[test]
    fn figures_that_were_not_measured_again_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        let [old, new] = [Figure::new("old", 1.0, "s"), Figure::new("new", 2.0, "s")];
        assert_eq!(kept(&path, std::slice::from_ref(&new)), Vec::<Value>::new());
        fs::write(&path, json!([old.json(), new.json()]).to_string()).unwrap();
        assert_eq!(kept(&path, &[new]), [old.json()]);
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
