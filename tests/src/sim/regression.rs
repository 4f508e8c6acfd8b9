//! Scenarios that once broke something, each a file in `tests/regressions/`.
//!
//! A seed means another scenario whenever the generator changes, so what a seed found is kept as the scenario itself,
//! shrunk. Each file is a test from then on; it says what was wrong.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use replication::sim::Link;
use serde::{Deserialize, Serialize};

use super::{Scenario, scenario::NodePlan};

/// A scenario that once broke an invariant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Regression {
    /// What was wrong.
    pub was: String,
    /// The invariant that was broken.
    pub broke: String,
    /// What broke it.
    pub scenario: Scenario,
}

impl Regression {
    /// As a file: a line for each node and each action, and of the nodes and links only what is unusual.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn text(&self) -> serde_json::Result<String> {
        let Scenario { seed, nodes, regions, link, schedule } = &self.scenario;
        let nodes = nodes.iter().map(|node| unusual(node, &NodePlan::default()));
        let nodes = nodes.collect::<serde_json::Result<Vec<String>>>()?.join(",\n      ");
        let lines = schedule.iter().map(serde_json::to_string);
        let lines = lines.collect::<serde_json::Result<Vec<String>>>()?.join(",\n      ");
        let (was, broke) = (serde_json::to_string(&self.was)?, serde_json::to_string(&self.broke)?);
        let link = unusual(link, &Link::default())?;
        Ok(format!(
            "{{\n  \"was\": {was},\n  \"broke\": {broke},\n  \"scenario\": {{\n    \"seed\": {seed},\n    \
             \"nodes\": [\n      {nodes}\n    ],\n    \"regions\": {regions},\n    \"link\": {link},\n    \
             \"schedule\": [\n      {lines}\n    ]\n  }}\n}}\n"
        ))
    }
}

/// The fields of `value` that are not as usual.
fn unusual<T: Serialize>(value: &T, usual: &T) -> serde_json::Result<String> {
    let (mut value, usual) = (serde_json::to_value(value)?, serde_json::to_value(usual)?);
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|name, value| usual.get(name) != Some(value));
    }
    serde_json::to_string(&value)
}

/// Where the files are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions")
}

/// All that are kept, with the names of their files, in their order.
///
/// # Errors
/// When the folder or a file cannot be read, or a file is not a regression.
pub fn all() -> io::Result<Vec<(String, Regression)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path)?;
        let regression =
            serde_json::from_str(&text).map_err(|error| io::Error::other(format!("{name}: {error}")))?;
        found.push((name, regression));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_as_it_was() {
        for seed in 0..20 {
            let kept = Regression {
                was: "a \"hole\"".into(),
                broke: "it".into(),
                scenario: Scenario::of_seed(seed),
            };
            let read: Regression = serde_json::from_str(&kept.text().unwrap()).unwrap();
            assert_eq!(read, kept);
        }
    }
}
